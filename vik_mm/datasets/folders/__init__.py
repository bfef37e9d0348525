"""Folders of users: looks what is in them, and brings it into the form that the mm packages read."""

from .prepared import PreparedData, PreparedSplit

__all__ = ['PreparedData', 'PreparedSplit']
