"""Errors of this room that need a builtin of their own beside labtree's."""

from labtree.errors import FormatError, LabtreeError, SessionError

__all__ = ["MissingFileError", "TrialTableError", "UnknownNameError", "UnsafePickleError"]


class UnknownNameError(LabtreeError, KeyError):
    """A state, event or column that is not there; the message lists those that are."""


class MissingFileError(SessionError, FileNotFoundError):
    """A folder or file that should be there is not."""


class TrialTableError(LabtreeError, ValueError):
    """A table lacks what a measure needs."""


class UnsafePickleError(FormatError):
    """A pickle asks for something that no DataFrame needs; nothing of it was run."""
