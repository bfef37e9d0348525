"""Folders of users: looks what is in them, and brings it into the form that the mm packages read."""

from .looking import FORMATS, TASKS, FoundData, look
from .prepared import PreparedData, PreparedSplit
from .preparing import prepare

__all__ = ['FORMATS', 'TASKS', 'FoundData', 'PreparedData', 'PreparedSplit', 'look', 'prepare']
