"""The errors that labtree raises, all below :class:`LabtreeError`.

Each error that a function raises also subclasses the builtin that a user would
catch for it, so ``except KeyError`` works without knowing labtree.
"""

__all__ = [
    "CheckpointError",
    "ClosedError",
    "ConfigurationError",
    "DataError",
    "FormatError",
    "InvalidNameError",
    "ItemNotFoundError",
    "LabtreeError",
    "LossWarning",
    "MissingDependencyError",
    "MissingFileError",
    "SessionError",
    "UnsupportedTypeError",
    "WorkspaceError",
]


class LabtreeError(Exception):
    """Base of every error that labtree raises on purpose."""

    # KeyError shows the repr of its message; a sentence should stay a sentence.
    def __str__(self) -> str:
        """Return the message as it was written."""
        return str(self.args[0]) if len(self.args) == 1 else Exception.__str__(self)


class WorkspaceError(LabtreeError, ValueError):
    """A workspace cannot do what was asked; nothing in it has changed."""


class ItemNotFoundError(WorkspaceError, KeyError):
    """A workspace has no such namespace or key; the message lists those that it has."""


class UnsupportedTypeError(LabtreeError, TypeError):
    """An object, or a part of it, is of a type that cannot be taken or kept exactly."""


class InvalidNameError(LabtreeError, ValueError):
    """A name is empty or holds what no file keeps."""


class MissingFileError(LabtreeError, FileNotFoundError):
    """There is no such file or folder."""


class ClosedError(LabtreeError, ValueError):
    """A file was closed, or belongs to another process; nothing can be read from it."""


class SessionError(LabtreeError, ValueError):
    """A session, recorded or of a pipeline, cannot do what was asked."""


class CheckpointError(SessionError):
    """A checkpoint cannot be written or resumed."""


class ConfigurationError(LabtreeError, ValueError):
    """Parameters or prerequisites of a step are missing or contradict each other."""


class FormatError(LabtreeError, ValueError):
    """A file is not what it should be: foreign, damaged, or of an unknown version."""


class DataError(LabtreeError, ValueError):
    """Data are not what their kind requires; nothing was made of them."""


class MissingDependencyError(LabtreeError, ModuleNotFoundError):
    """An optional library is not installed; the message says how to install it."""


class LossWarning(UserWarning):
    """Something could not come along to or from another format; all else did."""
