"""Files that are replaced whole, and reads of files that may be anything."""

import contextlib
import errno
import os
import re
import secrets
import socket
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TypeVar

from labtree.errors import (
    BusyFileError,
    FormatError,
    InvalidNameError,
    MissingFileError,
    write_errors_named,
)

T = TypeVar("T")

_TEMPORARY = re.compile(
    r"\.(?P<name>.+)\.(?P<host>[^.]*)\.(?P<pid>\d+)\.[0-9a-f]{8}\.labtree-tmp", re.DOTALL
)
_DAY = 86400.0
_NAME_BYTES = 255  # of one file name, where the system does not say
_ADDED_BYTES = 90  # of a temporary name besides the file's own: host, process, a random part
_RETRY_PAUSES_S = (0.05, 0.15, 0.3, 0.5)
_BUSY = {errno.EAGAIN, errno.EBUSY, errno.ETXTBSY}
if os.name == "nt":  # Windows refuses files that are open elsewhere with these
    _BUSY |= {errno.EACCES, errno.EPERM}


@contextlib.contextmanager
def temporary_path(path: Path) -> Iterator[Path]:
    """Give the path of a new, empty file beside `path`, removed at the end if still there.

    Only its owner can read it until :func:`replace_file` puts it in place. What a process
    that died left of an earlier write of `path` is removed as well.
    """
    for abandoned in abandoned_paths(path):
        with contextlib.suppress(OSError):
            abandoned.unlink()
    with write_errors_named(path):
        temporary = _create(path)
        try:
            yield temporary
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()


def replace_file(temporary: Path, path: Path, *, durable: bool = True) -> None:
    """Put a finished file in the place of `path`, readable by the same people.

    Parameters
    ----------
    temporary
        The file, in the same folder as `path`.
    path
        The new place. What stands there is replaced in one step.
    durable
        Wait until the content and the name are on the disk.
    """
    with contextlib.suppress(OSError):
        temporary.chmod(_mode_at(path))
    _put(temporary, path, durable)


def _put(temporary: Path, path: Path, durable: bool) -> None:
    if durable:
        sync_file(temporary)
    retry_while_busy(lambda: temporary.replace(path))
    if durable:
        sync_folder(path.parent)


def write_file(path: Path, content: bytes | memoryview, *, durable: bool = True) -> None:
    """Put `content` at `path`, whole or not at all.

    Parameters
    ----------
    path
        The file, new or replaced.
    content
        All of its bytes.
    durable
        Wait until they are on the disk.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        mode = None
    temporary = _create(path, 0o666 if mode is None else 0o600)
    try:
        with temporary.open("rb+", buffering=0) as file:
            view = memoryview(content)
            while view:  # a full disk can take a part before it says so
                view = view[file.write(view) :]
        if mode is not None:
            with contextlib.suppress(OSError):
                temporary.chmod(mode)
        _put(temporary, path, durable)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def sync_file(path: Path) -> None:
    """Wait until the bytes of the file at `path` are on the disk."""
    # Windows syncs only what is open for writing; elsewhere a file may be read-only by now.
    flags = os.O_RDWR if os.name == "nt" else os.O_RDONLY | os.O_CLOEXEC
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def begin_sync(file: int, start: int, stop: int) -> None:
    """Let the disk begin with a part of an open file, so that a sync has less to wait for."""
    if hasattr(os, "posix_fadvise"):  # what is not on the disk yet stays in memory all the same
        os.posix_fadvise(file, start, stop - start, os.POSIX_FADV_DONTNEED)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk.

    Windows cannot open a folder and keeps names by itself.
    """
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot sync a folder.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def open_regular(path: str | Path) -> int:
    """Open a regular file, after following links, and return its descriptor for reading.

    Raises
    ------
    MissingFileError
        If there is no such file.
    FormatError
        If it is a folder, a pipe, a device or a socket: reading it could take for ever.
    """
    if "\0" in str(path):
        raise MissingFileError(f"{str(path)!r}: there can be no such file")
    try:
        # Looked at first: to open a device may already change its state.
        _check_mode(path, os.stat(path).st_mode)  # noqa: PTH116
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
        descriptor = os.open(path, flags | getattr(os, "O_BINARY", 0))
    except (FileNotFoundError, NotADirectoryError):
        raise MissingFileError(f"{path}: there is no such file") from None
    try:
        _check_mode(path, os.fstat(descriptor).st_mode)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_file(path: Path, max_bytes: int) -> bytes:
    """Return the content of a regular file, after following links.

    Parameters
    ----------
    path
        The file.
    max_bytes
        The most that such a file may hold.

    Raises
    ------
    MissingFileError
        If there is no such file.
    FormatError
        If it is no regular file, or holds more than `max_bytes`.
    """
    with open(open_regular(path), "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise FormatError(f"{path}: it has {size} bytes; expected at most {max_bytes}")
        parts: list[bytes] = []
        n_read = 0
        # A read of a gigabyte would take the memory for one, however small the file is.
        part_size = min(max(size + 1, 2**16), 2**30)
        while part := file.read(min(max_bytes + 1 - n_read, part_size)):
            parts.append(part)
            n_read += len(part)
            if n_read > max_bytes:  # it grew, or the file system does not tell its size
                raise FormatError(f"{path}: it has more than {max_bytes} bytes")
    return b"".join(parts)  # one part is not copied


def is_same_file(first: Path, second: Path) -> bool:
    """Return whether two paths lead to one file or folder that is there."""
    return first.exists() and second.exists() and first.samefile(second)


def leads_out(path: str) -> bool:
    """Return whether a path, written on any system, is absolute or leads upward.

    Examples
    --------
    >>> leads_out("day/a.jsonl"), leads_out("../a.jsonl"), leads_out("C:a.jsonl")
    (False, True, True)
    """
    posix, windows = PurePosixPath(path), PureWindowsPath(path)
    return ".." in (*posix.parts, *windows.parts) or posix.is_absolute() or bool(windows.anchor)


def with_suffix_h5(path: str | os.PathLike[str]) -> Path:
    """Return `path` as an HDF5 file is called: ``.h5`` is added to any other name.

    Examples
    --------
    >>> with_suffix_h5("study.v2").name, with_suffix_h5("study.nc").name
    ('study.v2.h5', 'study.nc')
    """
    given = Path(path)
    if given.suffix.lower() in (".h5", ".hdf5", ".nc"):
        return given
    if not given.name:
        raise InvalidNameError(f"{str(path)!r} names no file; write a name such as 'day.h5'")
    return given.with_name(given.name + ".h5")


def retry_while_busy(call: Callable[[], T]) -> T:
    """Return what `call` returns; try for a second while another program holds its file.

    Raises
    ------
    BusyFileError
        If the file is still held then.
    OSError
        If the call fails for any other reason, at once.
    """
    for pause in (*_RETRY_PAUSES_S, None):
        try:
            return call()
        except OSError as error:
            if isinstance(error, BusyFileError) or not _is_busy(error):
                raise
            if pause is None:
                name = f"{error.filename}: " if error.filename else ""
                raise BusyFileError(
                    f"{name}another program holds this file, and did so for a second "
                    f"({error}); close it there and try again"
                ) from error
            time.sleep(pause)
    raise AssertionError("unreachable")


def _is_busy(error: OSError) -> bool:
    if error.errno in (errno.ENOLCK, errno.ENOSYS):
        return False  # a file system without locks, where waiting does not help
    text = str(error).lower()
    return error.errno in _BUSY or "unable to lock" in text or "resource temporarily" in text


def check_parent(path: Path) -> None:
    """Refuse a new file or folder where the folder that it would be in does not exist."""
    if not path.parent.is_dir():
        raise MissingFileError(
            f"{path}: the folder {path.parent} does not exist; make it with "
            f"pathlib.Path({str(path.parent)!r}).mkdir(parents=True)"
        )


def check_regular(path: str | Path) -> None:
    """Refuse what is there, after following links, unless it is a file or nothing.

    Raises
    ------
    FormatError
        If it is a folder, a pipe, a device or a socket: reading it could take for ever.
    """
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116, for str too
    except (FileNotFoundError, NotADirectoryError):
        return
    _check_mode(path, mode)


def _check_mode(path: str | Path, mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    found = "a folder" if stat.S_ISDIR(mode) else "a pipe, a device or a socket"
    raise FormatError(f"{path}: expected a file, found {found}")


def _create(path: Path, mode: int = 0o600) -> Path:
    """Make a new, empty file beside `path`, by default readable by its owner only."""
    temporary = temporary_name(path)
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_CLOEXEC", 0)
    os.close(os.open(temporary, flags, mode))
    return temporary


def _kept_name(path: Path) -> str:
    """Return the end of the file's name, short enough for a temporary name."""
    limit = _NAME_BYTES
    with contextlib.suppress(OSError, ValueError, AttributeError):  # none on Windows
        limit = os.pathconf(path.parent, "PC_NAME_MAX")
    tail = os.fsencode(path.name)[-max(limit - _ADDED_BYTES, 8) :]
    # A cut inside a character leaves the rest of its bytes, which are dropped.
    return tail.decode(errors="ignore") or "x"


def _mode_at(path: Path) -> int:
    """Return the permissions of the file at `path`, or those of any new file there."""
    with contextlib.suppress(FileNotFoundError):
        return stat.S_IMODE(path.stat().st_mode)
    # Only a new file shows the mask without changing it for other threads.
    probe = _create(path, 0o666)
    try:
        return stat.S_IMODE(probe.stat().st_mode)
    finally:
        probe.unlink()


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:40]


def temporary_name(path: Path) -> Path:
    """Return a new name beside `path` that tells whose it is, and which process made it."""
    name = f".{_kept_name(path)}.{_host()}.{os.getpid()}.{secrets.token_hex(4)}.labtree-tmp"
    return path.with_name(name)


def abandoned_paths(path: Path) -> list[Path]:
    """Return what processes that died left of earlier writes of `path`."""
    found = []
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        kept = _kept_name(path)
        for entry in entries:
            match = _TEMPORARY.fullmatch(entry.name)
            if match is None or match["name"] != kept:
                continue
            with contextlib.suppress(OSError):
                if _is_abandoned(match, entry.stat(follow_symlinks=False).st_mtime):
                    found.append(Path(entry.path))
    return found


def _is_abandoned(match: re.Match[str], modified: float) -> bool:
    # Of another machine (or on Windows, where asking would end it) only its age tells.
    if os.name == "nt" or match["host"] != _host():
        return time.time() - modified > _DAY
    try:
        os.kill(int(match["pid"]), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False
