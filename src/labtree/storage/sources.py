"""Where bytes come from: a file on disk, an anonymous scratch file, or memory.

All are read with plain positioned reads, so threads do not wait for one another and
nothing is mapped that another program could cut short.
"""

import contextlib
import os
import tempfile
import threading
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from labtree.errors import (
    ClosedError,
    FileAccessError,
    FormatError,
    MissingFileError,
    write_errors_named,
)
from labtree.storage.hdf5_end import Record, continues


def as_bytes(array: np.ndarray) -> memoryview:
    """Return the bytes of an array in C order, without a copy where it is so already."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def identity(path: str | os.PathLike[str] | int) -> tuple[int, int, int, int]:
    """Return what changes when a file is replaced: device, inode, time (ns) and size.

    Parameters
    ----------
    path
        The file, or the number of an open one.
    """
    try:
        stat = os.stat(path)  # noqa: PTH116, for str too
    except (FileNotFoundError, NotADirectoryError):
        raise MissingFileError(f"{path}: there is no such file") from None
    return stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size


class Source(Protocol):
    """Where bytes come from."""

    name: str

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill `buffer` from `offset` on; return how many bytes there were."""
        ...


def _read_into(file: Any, lock: Any, buffer: memoryview, offset: int) -> int:
    """Read at an offset of an open file; raise ValueError if it was closed meanwhile."""
    done = 0
    try:
        while done < len(buffer):
            if hasattr(os, "preadv"):
                count = os.preadv(file.fileno(), [buffer[done:]], offset + done)
            else:  # Windows has no positioned read
                with lock:
                    file.seek(offset + done)
                    count = file.readinto(buffer[done:])
            if count <= 0:
                break
            done += count
    except OSError:
        if not file.closed:
            raise
    if file.closed:  # by another thread: what was read may be of a file with the same number
        raise ValueError("the file was closed while it was read")
    return done


def write_all(file: Any, lock: Any, view: memoryview, offset: int) -> None:
    """Write bytes at an offset of an open file; another thread may write elsewhere."""
    while view:  # a full disk can take a part of it before it says so
        if hasattr(os, "pwrite"):
            count = os.pwrite(file.fileno(), view, offset)
        else:  # Windows has no positioned write
            with lock:
                file.seek(offset)
                count = file.write(view)
        offset += count
        view = view[count:]


class FileSource:
    """A file on disk, opened when first read; pickles as its path.

    Parameters
    ----------
    path
        The file.
    known
        Its identity; what it is now if not given.
    record
        The last record of a file of labtree then: changes in place that came after it leave
        all arrays where they were.
    """

    def __init__(
        self,
        path: str | Path,
        known: tuple[int, int, int, int] | None = None,
        record: Record | None = None,
    ):
        self.name = str(path)
        self.known = known or identity(path)
        self.record = record
        self._lock = threading.RLock()
        self._file: Any = None
        self._closed = False

    def _opened(self) -> Any:
        with self._lock:
            if self._closed:
                raise self._closed_error()
            if self._file is None:
                try:
                    file = Path(self.name).open("rb", buffering=0)  # noqa: SIM115, closed below
                except (FileNotFoundError, NotADirectoryError):
                    raise MissingFileError(f"{self.name}: there is no such file") from None
                if identity(file.fileno()) != self.known and not (
                    self.record is not None and continues(file.fileno(), self.record)
                ):
                    file.close()
                    raise FormatError(
                        f"{self.name} changed on disk after it was opened; open it again"
                    )
                self._file = file
            return self._file

    def hold(self) -> None:
        """Open the file now, so that later reads see it even when it is replaced."""
        self._opened()

    def fileno(self) -> int:
        """Return the number of the open file."""
        return int(self._opened().fileno())

    def advance(self, record: Record) -> None:
        """Take over that the file has grown by changes, up to a record."""
        self.known, self.record = identity(self.fileno()), record

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill `buffer` from `offset` on; return how many bytes there were."""
        file = self._opened()
        try:
            return _read_into(file, self._lock, buffer, offset)
        except OSError as error:
            raise FileAccessError.of(error, f"{self.name} cannot be read") from error
        except ValueError:
            raise self._closed_error() from None

    def _closed_error(self) -> ClosedError:
        return ClosedError(f"{self.name} was closed; open it again to read from it")

    def close(self) -> None:
        """Release the file; reading from it is an error from now on."""
        with self._lock:
            self._closed = True
            if self._file is not None:
                self._file.close()
                self._file = None

    def __reduce__(self) -> Any:
        return FileSource, (self.name, self.known, self.record)

    def __del__(self) -> None:
        file = getattr(self, "_file", None)
        if file is not None:
            file.close()


class BytesSource:
    """Bytes in memory."""

    def __init__(self, data: bytes, name: str = "memory"):
        self.name = name
        self._data = data

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill `buffer` from `offset` on; return how many bytes there were."""
        part = self._data[offset : offset + len(buffer)]
        buffer[: len(part)] = part
        return len(part)


class ScratchSource:
    """An anonymous temporary file that arrays are put into; freed space is used again.

    The file has no name where the system allows it, so that nothing is left behind
    however the process ends.
    """

    def __init__(self, folder: str | None = None):
        self.name = "the temporary file of a lazy workspace"
        self._where = (
            f"{self.name} in {folder or tempfile.gettempdir()} (the variable TMPDIR names the "
            "folder)"
        )
        with write_errors_named(self._where):
            self._file: Any = tempfile.TemporaryFile(  # noqa: SIM115, closed by close()
                prefix="labtree-", dir=folder, buffering=0
            )
        self._lock = threading.RLock()
        self._end = 0
        self._free: list[tuple[int, int]] = []  # offset, size
        self._released: deque[tuple[int, int]] = deque()
        self._closed = False
        self.process = os.getpid()

    @property
    def size(self) -> int:
        """Bytes that the file takes, free space between arrays included."""
        with self._lock:
            self._reclaim()
            return self._end

    def write(self, pieces: Iterable[np.ndarray], nbytes: int) -> int:
        """Take space for `nbytes` and put arrays there one after the other; return where."""
        offset = self._allocate(nbytes)
        position = offset
        try:
            for piece in pieces:
                self.write_at(position, piece)
                position += piece.nbytes
        except BaseException:
            self.free(offset, nbytes)
            raise
        return offset

    def write_at(self, offset: int, array: np.ndarray) -> None:
        """Put an array at a place that was taken before."""
        # The lock: the number of a file that another thread closes may be another file's.
        with self._lock, write_errors_named(self._where):
            self._check_open()
            write_all(self._file, self._lock, as_bytes(array), offset)

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the lazy workspace was closed; nothing can be stored in it")

    def _allocate(self, nbytes: int) -> int:
        with self._lock:
            self._check_open()
            if self.process != os.getpid():
                raise ClosedError(f"{self.name} belongs to the process that made it")
            self._reclaim()
            for i, (offset, size) in enumerate(self._free):
                if size >= nbytes:
                    if size == nbytes:
                        del self._free[i]
                    else:
                        self._free[i] = (offset + nbytes, size - nbytes)
                    return offset
            offset = self._end
            self._end += nbytes
            return offset

    def free(self, offset: int, nbytes: int) -> None:
        """Give space back; called by the garbage collector too, so it takes no lock."""
        if nbytes:
            self._released.append((offset, nbytes))

    def _reclaim(self) -> None:
        """Join what was given back with its free neighbors; cut a free end off."""
        while self._released and self.process == os.getpid():
            offset, size = self._released.popleft()
            kept = []
            for start, length in self._free:
                if start + length == offset:
                    offset, size = start, size + length
                elif offset + size == start:
                    size += length
                else:
                    kept.append((start, length))
            is_last = offset + size == self._end
            self._free = kept if is_last else [*kept, (offset, size)]
            if is_last:
                self._end = offset
                if not self._closed:
                    with contextlib.suppress(OSError):  # the space is used again all the same
                        self._file.truncate(self._end)

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill `buffer` from `offset` on; return how many bytes there were."""
        try:
            return _read_into(self._file, self._lock, buffer, offset)
        except ValueError:
            raise ClosedError(
                "the lazy workspace was closed; nothing can be read from it"
            ) from None

    def close(self) -> None:
        """Remove the temporary file."""
        with self._lock:
            self._closed = True
            self._file.close()

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()
