"""Errors and warnings of recordings, each also the builtin that one would catch."""

from labtree.errors import SessionError

__all__ = [
    "MissingSessionError",
    "RecordingExistsError",
    "RecordingWarning",
    "RecordingWriteError",
    "UnknownStreamError",
]


class UnknownStreamError(SessionError, KeyError):
    """A stream, or another name, that the session does not have."""


class RecordingExistsError(SessionError, FileExistsError):
    """Something stands already where a recording, stream or archive would go."""


class MissingSessionError(SessionError, FileNotFoundError):
    """There is no session at that path."""


class RecordingWriteError(SessionError, OSError):
    """The operating system refused a write; ``errno`` says why."""

    @classmethod
    def of(cls, error: Exception, message: str) -> "RecordingWriteError":
        """Return the error for ``error``, with its number kept."""
        reason = getattr(error, "strerror", None) or error
        wrapped = cls(f"{message}: {reason}")
        wrapped.errno = getattr(error, "errno", None)
        wrapped.strerror = getattr(error, "strerror", None)
        return wrapped


class RecordingWarning(UserWarning):
    """Something about a recording that the caller should know and may accept."""
