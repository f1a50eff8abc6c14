"""Locks between processes; they end with the process that holds them."""

import contextlib
import gc
import os
import stat
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from labtree.errors import BusyFileError, FormatError, MissingFileError

_ATTEMPTS = 20
_PAUSE_S = 0.01
_PATIENCE_S = 2.0  # for other writers of a file
_LONGEST = 240  # bytes of a name, with room for an ending

if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int, *, shared: bool, wait: bool) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(descriptor: int, *, shared: bool, wait: bool) -> None:
        mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(descriptor, mode | (0 if wait else fcntl.LOCK_NB))


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Lock an open file until it is closed; return False if another holds its lock.

    On a file system without locks (some network mounts) nothing is locked.
    """
    try:
        _lock(descriptor, shared=shared, wait=False)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True
    return True


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Wait for, and hold, the lock of a folder, so that one process replaces files in it."""
    if sys.platform == "win32":  # has no lock on a folder
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    holder = _Holder(descriptor)
    try:
        # A file system without locks (some network mounts) still saves, unguarded.
        with contextlib.suppress(OSError):
            if not try_lock(descriptor):
                gc.collect()  # what an interrupt left of an earlier holder in this process
                _lock(descriptor, shared=False, wait=True)
        yield
    finally:
        holder.close()


class _Holder:
    """Holds a lock, and closes its file: when told to, or when nobody refers to it any more.

    An interrupt can skip the call at the end.
    """

    def __init__(self, descriptor: int) -> None:
        self.close = weakref.finalize(self, os.close, descriptor)
        _HELD.add(self)


_HELD: weakref.WeakSet[Any] = weakref.WeakSet()  # what is closed to release a lock


def _leave_to_parent() -> None:
    """Close the locks in a forked process: they are the parent's, and would outlive it here."""
    for held in list(_HELD):
        held.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)


def hold_file_lock(path: Path) -> IO[bytes]:
    """Hold the lock at `path` until :func:`release_file_lock`, or until this process ends.

    The file is made if it is not there. Its content is neither read nor changed.

    Raises
    ------
    BusyFileError
        If another holds it.
    FormatError
        If `path` is a link or anything else than a file.
    MissingFileError
        If its folder does not exist.
    """
    # Absolute, so that another working folder does not hide it at the end.
    name = os.path.abspath(path)  # noqa: PTH100, which does not follow links
    for attempt in range(_ATTEMPTS):
        file = open(name, "rb+", buffering=0, opener=_open_to_lock)  # noqa: SIM115
        try:
            if try_lock(file.fileno()) and _is_at(file.fileno(), path):
                _HELD.add(file)
                return file
        except BaseException:
            file.close()
            raise
        # Someone only looks whether it is held, or removed the file just now.
        file.close()
        if attempt < _ATTEMPTS - 1:
            time.sleep(_PAUSE_S)
    raise BusyFileError(f"{path} is held by another process")


def release_file_lock(file: IO[bytes]) -> None:
    """Release a lock that :func:`hold_file_lock` gave, and remove its file."""
    if os.name == "nt":  # cannot remove an open file
        file.close()
    # Removed while it is held: who waits for it sees that, and makes a new one.
    with contextlib.suppress(OSError):
        os.unlink(file.name)  # noqa: PTH108
    file.close()


class WriterLock:
    """The lock of those who change a file, held until :meth:`release`.

    It is a file beside it, since HDF5 uses the lock of the file itself.

    Parameters
    ----------
    file
        What is going to be changed.
    patience_s
        How long to wait for others; two seconds if not given.

    Raises
    ------
    BusyFileError
        If another holds it all the time; the message says what to do.
    """

    def __init__(self, file: Path, patience_s: float | None = None) -> None:
        name = os.fsencode(f".{file.name}")[:_LONGEST].decode(errors="ignore") + ".lock"
        self._path = file.with_name(name)
        patience_s = _PATIENCE_S if patience_s is None else patience_s
        end = time.monotonic() + patience_s
        tries = 0
        while not self._try():
            if tries == 0 and patience_s:
                gc.collect()  # what an interrupt left of an earlier holder in this process
            elif time.monotonic() >= end:
                raise BusyFileError(
                    f"{file} is being written by another process or workspace, perhaps one "
                    'that opened it with mode="a"; close that, or wait for it, and try again. '
                    f"Reading needs no waiting: labtree.open_workspace({str(file)!r})"
                )
            tries += 1
            time.sleep(_PAUSE_S)

    def _try(self) -> bool:
        descriptor = _open(self._path, os.O_RDWR | os.O_CREAT)
        self._holder = _Holder(descriptor)
        if try_lock(descriptor) and _is_at(descriptor, self._path):
            return True
        self._holder.close()
        return False

    @property
    def is_held(self) -> bool:
        """Whether it was not released yet, and by this process."""
        return self._holder.close.alive

    def release(self) -> None:
        """Let others change the file."""
        if self.is_held:
            if os.name == "nt":  # cannot remove an open file
                self._holder.close()
            # Removed while it is held: who waits for it sees that, and makes a new one.
            with contextlib.suppress(OSError):
                self._path.unlink()
            self._holder.close()


@contextlib.contextmanager
def writer_lock(file: Path, patience_s: float | None = None) -> Iterator[None]:
    """Hold the lock of those who change a file; see :class:`WriterLock`."""
    held = WriterLock(file, patience_s)
    try:
        yield
    finally:
        held.release()


def is_locked(path: Path) -> bool:
    """Return whether some process holds the lock at `path` now."""
    try:
        descriptor = _open(path, os.O_RDONLY)
    except (OSError, FormatError):
        return False
    try:
        return not try_lock(descriptor, shared=True)
    finally:
        os.close(descriptor)


def _open_to_lock(name: str, _: int) -> int:
    return _open(Path(name), os.O_RDWR | os.O_CREAT)


def _open(path: Path, flags: int) -> int:
    """Open a file that is no link, and not wait for a pipe's other end."""
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC"):
        flags |= getattr(os, name, 0)
    try:
        if path.is_symlink():
            raise FormatError(
                f"{path} is a link, and a lock must be a regular file. Remove the link"
            )
        descriptor = os.open(path, flags, 0o666)
    except FileNotFoundError:
        raise MissingFileError(f"{path}: there is no folder {path.parent}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FormatError(f"{path} is no regular file, and a lock must be one. Remove it")
    return descriptor


def _is_at(descriptor: int, path: Path) -> bool:
    """Return whether an open file is still the one at `path`."""
    try:
        there = path.lstat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), there)
