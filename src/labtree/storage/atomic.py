"""Files that are either the old ones or the new ones, whole, whatever happens."""

import contextlib
import os
import re
import secrets
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["folder_lock", "replace_file", "temporary_path"]

_TEMPORARY = re.compile(
    r"\.(?P<name>.+)\.(?P<host>[^.]*)\.(?P<pid>\d+)\.[0-9a-f]{8}\.labtree-tmp"
)
_DAY = 86400.0


@contextlib.contextmanager
def temporary_path(path: Path) -> Iterator[Path]:
    """Give the path of a new file beside `path`, removed at the end if still there.

    What a process that died left of an earlier save of `path` is removed as well.
    """
    _remove_abandoned(path)
    host = _host()
    name = f".{path.name[-120:]}.{host}.{os.getpid()}.{secrets.token_hex(4)}.labtree-tmp"
    temporary = path.with_name(name)
    try:
        yield temporary
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def replace_file(temporary: Path, path: Path) -> None:
    """Put a finished file, safely on disk, in the place of `path`, for the same readers."""
    with contextlib.suppress(OSError):
        temporary.chmod(stat.S_IMODE(path.stat().st_mode))
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder safe against a loss of power."""
    if os.name == "nt":  # Windows cannot open a folder, and keeps names itself
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Keep other labtree processes from replacing files in a folder meanwhile."""
    try:
        import fcntl
    except ImportError:  # Windows has no lock on a folder
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        # A file system without locks (some network mounts) still saves, unguarded.
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:40]


def _remove_abandoned(path: Path) -> None:
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            match = _TEMPORARY.fullmatch(entry.name)
            if match is None or match["name"] != path.name[-120:]:
                continue
            with contextlib.suppress(OSError):
                if _is_abandoned(match, entry.stat().st_mtime):
                    os.unlink(entry.path)  # noqa: PTH108, the entry has no Path


def _is_abandoned(match: re.Match[str], modified: float) -> bool:
    # Of another machine (or on Windows, where asking would end it) only its age tells.
    if os.name == "nt" or match["host"] != _host():
        return time.time() - modified > _DAY
    try:
        os.kill(int(match["pid"]), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
