"""Errors of this project."""


class BadInputError(ValueError):
    """A file that a run cannot use; the message names it and what to do. Tools print only the message."""
