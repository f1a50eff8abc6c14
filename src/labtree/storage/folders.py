"""Folders that are made to stay, and replaced whole: the old or the new one, never a mix."""

import contextlib
import ctypes
import errno
import functools
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from labtree.errors import FileAccessError
from labtree.storage.files import abandoned_paths, sync_file, sync_folder, temporary_name
from labtree.storage.interrupts import deferred_interrupts

_SYNC_THREADS = 8
_CURRENT_FOLDER = -100  # AT_FDCWD
_EXCHANGE = 2  # RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS


def make_folders(folder: Path) -> None:
    """Make a folder and those above it, so that they outlive a power cut."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in reversed(missing):
        sync_folder(path.parent)


@contextlib.contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Give a new, empty folder beside `path`, removed at the end with what is in it.

    After :func:`replace_folder` that is what stood at `path` before. What a process that
    died left of an earlier write of `path` is removed as well.
    """
    for abandoned in abandoned_paths(path):
        shutil.rmtree(abandoned, ignore_errors=True)
    temporary = temporary_name(path)
    temporary.mkdir(mode=0o700)
    try:
        yield temporary
    finally:
        with deferred_interrupts():  # a second Ctrl-C leaves nothing behind either
            shutil.rmtree(temporary, ignore_errors=True)


def sync_tree(folder: Path) -> None:
    """Wait until all files and names below a folder are on the disk."""
    files: list[Path] = []
    folders: list[Path] = []
    for parent, _, names in os.walk(folder):
        folders.append(Path(parent))
        files += [Path(parent, name) for name in names]
    with ThreadPoolExecutor(_SYNC_THREADS) as pool:
        list(pool.map(sync_file, files))
        list(pool.map(sync_folder, folders))


def replace_folder(temporary: Path, path: Path) -> None:
    """Put a finished folder in the place of `path`, for the same readers.

    Parameters
    ----------
    temporary
        The folder, beside `path`; its content is on the disk already (`sync_tree`).
        Afterwards it holds what stood at `path` before, if anything did.
    path
        The new place. Where the system cannot exchange two folders in one step, `path` is
        missing for a moment; :func:`complete_replacement` mends it after a crash.
    """
    with contextlib.suppress(FileNotFoundError):
        temporary.chmod(path.stat().st_mode & 0o7777)
    if not path.exists():
        temporary.chmod(_usual_mode(path))
        temporary.rename(path)
    elif not _exchange(temporary, path):
        new, old = _marked(path, "new"), _marked(path, "old")
        temporary.rename(new)
        path.rename(old)
        new.rename(path)
        old.rename(temporary)
    sync_folder(path.parent)


def complete_replacement(path: Path) -> None:
    """Finish a replacement that a crash broke off between two renames."""
    new, old = _marked(path, "new"), _marked(path, "old")
    if new.is_dir() and not path.exists():
        new.rename(path)
        sync_folder(path.parent)
    for left in (new, old):
        if path.is_dir() and left.is_dir():
            shutil.rmtree(left, ignore_errors=True)


def _marked(path: Path, which: str) -> Path:
    return path.with_name(f".{path.name}.labtree-{which}")


def _usual_mode(path: Path) -> int:
    """Return the permissions of a new folder at `path`."""
    # Only a new folder shows the mask without changing it for other threads.
    probe = temporary_name(path)
    probe.mkdir()
    try:
        return probe.stat().st_mode & 0o7777
    finally:
        probe.rmdir()


@functools.cache
def _exchanger() -> Callable[[bytes, bytes], int] | None:
    """Return the system's call that exchanges two names, or None where there is none."""
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "darwin":
            renamex = library.renamex_np
            return lambda one, other: int(renamex(one, other, _EXCHANGE))
        rename = library.renameat2
    except (OSError, TypeError, AttributeError):
        return None

    def exchange(one: bytes, other: bytes) -> int:
        return int(rename(_CURRENT_FOLDER, one, _CURRENT_FOLDER, other, _EXCHANGE))

    return exchange


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step; return whether the system can."""
    exchange = _exchanger()
    if exchange is None:
        return False
    if exchange(os.fsencode(one), os.fsencode(other)) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):  # the file system cannot
        return False
    raise FileAccessError.of(OSError(number, os.strerror(number)), str(other))
