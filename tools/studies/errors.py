"""The error of this tool."""

from vik_mm_cli.errors import BadInputError


class StudyError(BadInputError):
    """A study, or what lies in its work dirs, cannot be used; the message is for the user."""
