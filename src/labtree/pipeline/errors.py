"""Errors of pipeline sessions that a user may catch by their builtin."""

from labtree.errors import CheckpointError, SessionError

__all__ = ["CheckpointMissingError", "SessionExistsError", "UnknownNameError"]


class SessionExistsError(SessionError, FileExistsError):
    """A file stands where a session was to be saved without overwriting."""


class CheckpointMissingError(CheckpointError, FileNotFoundError):
    """The file of a session is not there."""


class UnknownNameError(SessionError, KeyError):
    """A unit, feature or movie that the session does not hold."""


def unknown(what: str, name: object, valid: object) -> UnknownNameError:
    """Return the error for a name that is not among the valid ones, listing them."""
    names = [str(one) for one in valid]  # type: ignore[attr-defined]
    shown = ", ".join(repr(one) for one in names[:20]) + (", ..." if len(names) > 20 else "")
    listing = f"there are: {shown}" if names else "there are none"
    return UnknownNameError(f"no {what} {name!r}; {listing}")
