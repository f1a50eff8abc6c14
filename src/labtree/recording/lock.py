"""A lock that says whether a folder is being recorded now; it dies with its process."""

import contextlib
import os
import sys
import time
from pathlib import Path
from typing import IO

__all__ = ["is_held", "lock", "release"]

if sys.platform == "win32":
    import msvcrt

    def _try(file: IO[bytes], *, shared: bool) -> None:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _try(file: IO[bytes], *, shared: bool) -> None:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


def lock(path: Path) -> IO[bytes]:
    """Hold the lock at ``path`` until the returned file is closed; BlockingIOError if held."""
    file = path.open("ab", buffering=0)
    try:
        for attempt in range(20):
            try:
                _try(file, shared=False)
                break
            except (BlockingIOError, PermissionError) as error:
                # Someone may only be looking whether it is held; that takes no time.
                if attempt == 19:
                    raise BlockingIOError(f"{path} is held by another process") from error
                time.sleep(0.01)
            except OSError:
                break  # a file system without locks
        file.truncate(0)
        file.write(str(os.getpid()).encode())
    except BaseException:
        file.close()
        raise
    return file


def release(file: IO[bytes]) -> None:
    """Let go of a lock and remove its file."""
    file.close()
    with contextlib.suppress(OSError):
        Path(file.name).unlink()


def is_held(path: Path) -> bool:
    """Return whether some recorder holds the lock at ``path`` now."""
    with contextlib.suppress(FileNotFoundError), path.open("rb", buffering=0) as file:
        try:
            _try(file, shared=True)
        except (BlockingIOError, PermissionError):
            return True
        except OSError:
            return False
    return False
