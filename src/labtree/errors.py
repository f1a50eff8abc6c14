"""The errors and warnings of labtree, each defined here and nowhere else.

Every error is a :class:`LabtreeError`, and also the builtin that a user would catch
for it, so that ``except KeyError`` works without knowing labtree.
"""

import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches
from pathlib import Path
from typing import Self, TypeVar

__all__ = [
    "AlreadyExistsError",
    "BusyFileError",
    "CheckpointError",
    "ClosedError",
    "ConfigurationError",
    "DamageWarning",
    "DataError",
    "FileAccessError",
    "FormatError",
    "InvalidNameError",
    "ItemNotFoundError",
    "LabtreeError",
    "LabtreeWarning",
    "LossWarning",
    "MissingDependencyError",
    "MissingFileError",
    "NotWritableError",
    "RecordingWarning",
    "RecordingWriteError",
    "SessionError",
    "SessionExistsError",
    "TrialDataError",
    "TrialTableError",
    "UnknownNameError",
    "UnsafePickleError",
    "UnsavedWarning",
    "UnsupportedTypeError",
    "WorkspaceError",
    "damage_as_format_error",
    "missing_file",
    "one_line",
    "silenced",
    "unknown_name",
    "warn",
    "write_errors_named",
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


class UnknownNameError(LabtreeError, KeyError):
    """There is nothing with that name; the message lists the known names."""


class InvalidNameError(LabtreeError, ValueError):
    """A name is empty, or holds characters that no file keeps."""


class UnsupportedTypeError(LabtreeError, TypeError):
    """An object, or a part of it, is of a type that cannot be taken or kept exactly.

    Attributes
    ----------
    problems : tuple of str
        What is wrong with each part, where there are several.
    """

    problems: tuple[str, ...] = ()


class DataError(LabtreeError, ValueError):
    """Data are not what their kind requires; no result was returned."""


class ConfigurationError(LabtreeError, ValueError):
    """Parameters or prerequisites of a step are missing or contradict each other."""


class SessionError(LabtreeError, ValueError):
    """A session, recorded or of a pipeline, cannot do what was asked."""


class CheckpointError(SessionError):
    """A checkpoint cannot be written or resumed."""


class TrialTableError(LabtreeError, ValueError):
    """A trial table lacks what a measure needs."""


class FormatError(LabtreeError, ValueError):
    """A file is damaged, or of another format or an unknown version."""

    # Whether the message already names the function for this very file.
    names_function = False


class TrialDataError(FormatError, TypeError):
    """A value that a trial file cannot hold exactly."""


class UnsafePickleError(FormatError):
    """A pickle asks for something that no DataFrame needs; nothing of it was run."""


class ClosedError(LabtreeError, ValueError):
    """A file was closed, or belongs to another process; nothing can be read from it."""


class MissingFileError(LabtreeError, FileNotFoundError):
    """There is no such file or folder."""


class AlreadyExistsError(LabtreeError, FileExistsError):
    """A file, folder or stream of that name exists already."""


class SessionExistsError(CheckpointError, AlreadyExistsError):
    """A session was to be saved without overwriting, but the file exists."""


class BusyFileError(LabtreeError, BlockingIOError):
    """Another program holds the file."""


class FileAccessError(LabtreeError, OSError):
    """The operating system refused to read or write; ``errno`` says why."""

    @classmethod
    def of(cls, error: Exception, message: str) -> Self:
        """Return the error for ``error``, with its number kept."""
        reason = getattr(error, "strerror", None) or error
        wrapped = cls(f"{message}: {reason}")
        wrapped.errno = getattr(error, "errno", None)
        wrapped.strerror = getattr(error, "strerror", None)
        return wrapped


class NotWritableError(FileAccessError, PermissionError):
    """The permissions of a file do not allow to write to it."""


class RecordingWriteError(SessionError, FileAccessError):
    """The operating system refused to write a recording; ``errno`` says why."""


class MissingDependencyError(LabtreeError, ModuleNotFoundError):
    """An optional library is not installed; the message says how to install it."""


class LabtreeWarning(UserWarning):
    """Base of every warning that labtree gives."""


class UnsavedWarning(LabtreeWarning):
    """A workspace was closed, or the program ended, with changes that were not saved."""


class LossWarning(LabtreeWarning):
    """Another format cannot hold something, which was left out; everything else was kept."""


class DamageWarning(LabtreeWarning):
    """Part of a file could not be read; the rest was."""


class RecordingWarning(LabtreeWarning):
    """Something about a recording that the caller should know and may accept."""


@contextmanager
def damage_as_format_error(path: str | os.PathLike[str], where: str = "") -> Iterator[None]:
    """Turn what libraries raise while they read a damaged file into a FormatError.

    labtree's own errors and MemoryError pass.

    Parameters
    ----------
    path : path
        The file that is read.
    where : str
        What is read in it.

    Yields
    ------
    None

    Raises
    ------
    FormatError
        For any other exception in the block; it names the file.
    """
    try:
        yield
    except (LabtreeError, MemoryError):
        raise
    except Exception as error:  # a damaged file fails anywhere in what reads it
        place = f"{os.fspath(path)}: {where}" if where else os.fspath(path)
        raise FormatError(
            f"{place} cannot be read ({type(error).__name__}: {error}); it is cut short or "
            "damaged. Restore the file from a copy"
        ) from error


@contextmanager
def write_errors_named(what: str | os.PathLike[str]) -> Iterator[None]:
    """Raise what the system says of a write as an error of labtree that names the file.

    labtree's own errors pass, and those that do not come from the system.

    Parameters
    ----------
    what : path or str
        The file that is written; all or nothing.

    Yields
    ------
    None

    Raises
    ------
    OSError
        The one of labtree that is also of the class that came, with the same ``errno``.
    """
    try:
        yield
    except LabtreeError:
        raise
    except (OSError, RuntimeError) as error:
        # HDF5 puts its whole state into the text, and h5py raises RuntimeError where HDF5
        # fails to write what it had kept back.
        told = re.search(r"errno = (\d+)", str(error))
        if told is not None:
            error = OSError(int(told[1]), os.strerror(int(told[1])))
        if not isinstance(error, OSError) or error.errno is None:
            raise
        place = "".join(f" ({note})" for note in getattr(error, "__notes__", ())[:1])
        other = error.filename if isinstance(error.filename, str) else ""
        about = f": {other}" if other and other != os.fspath(what) else ""
        text = (
            f"{os.fspath(what)} could not be written: {error.strerror}{about}{place}. It holds "
            "the state before or the new one, whole; try again when the cause is gone"
        )
        kinds: dict[type[OSError], type[OSError]] = {
            PermissionError: NotWritableError,
            FileNotFoundError: MissingFileError,
            FileExistsError: AlreadyExistsError,
        }
        named = kinds.get(type(error), FileAccessError)(text)
        named.errno, named.strerror = error.errno, error.strerror
        named.filename = os.fspath(what)
        raise named from error


# A warning shows the line that called labtree, perhaps through one of these.
_PASSED_THROUGH = ("labtree", "xarray", "contextlib")


def warn(message: str | Warning, category: type[Warning] = LabtreeWarning) -> None:
    """Warn at the line that called labtree."""
    level, frame = 1, sys._getframe()
    if issubclass(category, _SILENCED.get()):
        return
    while frame.f_back is not None and (
        frame.f_globals.get("__name__", "").partition(".")[0] in _PASSED_THROUGH
    ):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


_SILENCED: ContextVar[tuple[type[Warning], ...]] = ContextVar("labtree_silenced", default=())


@contextmanager
def silenced(*categories: type[Warning]) -> Iterator[None]:
    """Give no warning of labtree of some categories, in this thread.

    ``warnings.catch_warnings`` is for all threads: two that leave such blocks in another
    order than they entered them leave a filter behind for good.
    """
    token = _SILENCED.set(categories)
    try:
        yield
    finally:
        _SILENCED.reset(token)


Error = TypeVar("Error", bound=LabtreeError)


def unknown_name(
    what: str,
    name: object,
    valid: Iterable[object],
    error: type[Error] = UnknownNameError,  # type: ignore[assignment]
    *,
    where: str = "",
) -> Error:
    """Return the error for a name that is not among the valid ones.

    Parameters
    ----------
    what : str
        What was looked for and where, such as ``"feature"`` or ``"stream of day.h5"``.
    name : object
        The name that was given.
    valid : iterable
        The names that there are.
    error : type
        The class of the error.
    where : str
        Where it was looked for, such as ``" in namespace 'rec1'"``.

    Examples
    --------
    >>> print(unknown_name("stream", "egm", ["emg", "joints"]))
    no stream 'egm'; there are: 'emg', 'joints'. Did you mean 'emg'?
    """
    names = [str(one) for one in valid]
    if not names:
        return error(f"no {what} {name!r}{where}; there are none")
    shown = ", ".join(repr(one) for one in names[:20])
    shown += f" and {len(names) - 20} more" if len(names) > 20 else ""
    near = get_close_matches(str(name), names, n=1)
    hint = f". Did you mean {near[0]!r}?" if near else ""
    return error(f"no {what} {name!r}{where}; there are: {shown}{hint}")


def one_line(error: object, length: int = 200) -> str:
    r"""Return an error of another library as one line of at most so many characters.

    Examples
    --------
    >>> one_line(ValueError("line 3:\n  too many fields"))
    'line 3: too many fields'
    """
    return " ".join(str(error).split())[:length]


def missing_file(text: str, path: str | os.PathLike[str]) -> MissingFileError:
    """Return the error for a file or folder that is not there, with what is near it.

    Parameters
    ----------
    text : str
        What is missing, as a sentence without its end.
    path : path
        Where it was looked for. The message goes on with what the folder holds, or with the
        first folder of the path that does not exist.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Path(folder, "day.h5").touch()
    ...     error = missing_file("there is no day1.h5", Path(folder, "day1.h5"))
    >>> print(str(error).replace(folder, "data"))
    there is no day1.h5; did you mean 'data/day.h5'?
    """
    place = Path(path).expanduser()
    if place.exists():
        return MissingFileError(f"{text}: that is a {'folder' if place.is_dir() else 'file'}")
    while not place.parent.is_dir():
        place = place.parent
    folder = place.parent
    is_last = place == Path(path).expanduser()
    try:
        names = sorted(each.name for each in folder.iterdir() if each.name[0] != ".")
    except OSError:
        return MissingFileError(text)
    # Ends of names would make "a.h5" look like "b.h5"; of two, that of the same end.
    alike = sorted(names, key=lambda name: (Path(name).suffix == place.suffix, name[::-1]))
    by_stem = {Path(name).stem.casefold(): name for name in alike}
    near = get_close_matches(place.stem.casefold(), by_stem, n=1)
    if near:
        found = folder / by_stem[near[0]] / Path(path).expanduser().relative_to(place)
        return MissingFileError(f"{text}; did you mean {str(found)!r}?")
    if not names:
        return MissingFileError(f"{text}; the folder {folder} is empty")
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    above = "" if is_last else f"there is no folder {place}, and "
    return MissingFileError(f"{text}; {above}the folder {folder} has {shown}")
