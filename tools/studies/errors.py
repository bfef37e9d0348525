"""The error of this tool."""


class StudyError(ValueError):
    """A study, or what lies in its work dirs, cannot be used; the message is for the user."""
