"""Arrays that lie as plain bytes in a file: read whole and checked, or in part.

A :class:`Blob` knows where its bytes are and what they mean. Its source is a file
on disk, an anonymous scratch file, or bytes in memory; all are read with plain
positioned reads, so threads do not wait for one another and nothing is mapped that
another program could cut short.
"""

import math
import os
import tempfile
import threading
import zlib
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from labtree.errors import FormatError

__all__ = ["Blob", "BytesSource", "FileSource", "ScratchSource", "as_bytes", "checksum", "identity"]

# A gap between two pieces that is cheaper to read than a second read call.
_GAP = 1 << 16
# How much is read at a time where only a part of it is wanted.
_BLOCK = 1 << 24
Key = tuple[int | slice | np.ndarray, ...]


def as_bytes(array: np.ndarray) -> np.ndarray:
    """Return the bytes of an array in C order, without a copy where it is so already."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def checksum(array: np.ndarray) -> int:
    """Return the CRC-32 of an array's bytes in C order."""
    return zlib.crc32(as_bytes(array))


def identity(path: str | os.PathLike[str]) -> tuple[int, int, int, int]:
    """Return what changes when a file is replaced: device, inode, time (ns) and size."""
    stat = os.stat(path)  # noqa: PTH116, for str too
    return stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size


class Source(Protocol):
    """Where bytes come from."""

    name: str

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill `buffer` from `offset` on; return how many bytes there were."""
        ...


def _read_into(file: BinaryIO, lock: threading.Lock, buffer: memoryview, offset: int) -> int:
    done = 0
    while done < len(buffer):
        if hasattr(os, "preadv"):
            count = os.preadv(file.fileno(), [buffer[done:]], offset + done)
        else:  # Windows has no positioned read
            with lock:
                file.seek(offset + done)
                count = file.readinto(buffer[done:])  # type: ignore[attr-defined]
        if count <= 0:
            break
        done += count
    return done


class FileSource:
    """A file on disk, opened when first read; pickles as its path."""

    def __init__(self, path: str | Path, known: tuple[int, int, int, int] | None = None):
        self.name = str(path)
        self._known = known or identity(path)
        self._lock = threading.Lock()
        self._file: BinaryIO | None = None
        self._closed = False

    def _opened(self) -> BinaryIO:
        with self._lock:
            if self._closed:
                raise ValueError(f"{self.name} was closed; open it again to read from it")
            if self._file is None:
                file = Path(self.name).open("rb", buffering=0)  # noqa: SIM115, closed by close()
                stat = os.fstat(file.fileno())
                found = stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size
                if found != self._known:
                    file.close()
                    raise FormatError(
                        f"{self.name} changed on disk after it was opened; open it again"
                    )
                self._file = file  # type: ignore[assignment]
            return self._file  # type: ignore[return-value]

    def hold(self) -> None:
        """Open the file now, so that later reads see it even when it is replaced."""
        self._opened()

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill `buffer` from `offset` on; return how many bytes there were."""
        return _read_into(self._opened(), self._lock, buffer, offset)

    def close(self) -> None:
        """Let go of the file; reading from it is an error from now on."""
        with self._lock:
            self._closed = True
            if self._file is not None:
                self._file.close()
                self._file = None

    def __reduce__(self) -> Any:
        return FileSource, (self.name, self._known)

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None:
            self._file.close()  # type: ignore[union-attr]


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
        self._file: BinaryIO = tempfile.TemporaryFile(  # type: ignore[assignment]  # noqa: SIM115
            prefix="labtree-", dir=folder, buffering=0
        )
        self._lock = threading.Lock()
        self._end = 0
        self._free: list[tuple[int, int]] = []  # offset, size
        self._closed = False

    @property
    def size(self) -> int:
        """Bytes that the file takes, free space included."""
        return self._end

    def write(self, pieces: Iterable[np.ndarray], nbytes: int) -> int:
        """Put arrays of `nbytes` together one after the other; return their offset."""
        offset = self._allocate(nbytes)
        position = offset
        try:
            for piece in pieces:
                view = memoryview(as_bytes(piece))
                while view:
                    if hasattr(os, "pwrite"):
                        count = os.pwrite(self._file.fileno(), view, position)
                    else:
                        with self._lock:
                            self._file.seek(position)
                            count = self._file.write(view)
                    position += count
                    view = view[count:]
        except BaseException:
            self.free(offset, nbytes)
            raise
        return offset

    def _allocate(self, nbytes: int) -> int:
        with self._lock:
            if self._closed:
                raise ValueError("the lazy workspace was closed; nothing can be stored in it")
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
        """Give space back."""
        if not nbytes:
            return
        with self._lock:
            merged = (offset, nbytes)
            kept = []
            for start, size in self._free:
                if start + size == merged[0]:
                    merged = (start, size + merged[1])
                elif merged[0] + merged[1] == start:
                    merged = (merged[0], merged[1] + size)
                else:
                    kept.append((start, size))
            if merged[0] + merged[1] == self._end:
                self._end = merged[0]
                if not self._closed:
                    self._file.truncate(self._end)
            else:
                kept.append(merged)
            self._free = kept

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill `buffer` from `offset` on; return how many bytes there were."""
        if self._closed:
            raise ValueError("the lazy workspace was closed; nothing can be read from it")
        return _read_into(self._file, self._lock, buffer, offset)

    def close(self) -> None:
        """Remove the temporary file."""
        with self._lock:
            self._closed = True
            self._file.close()

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()


class Blob:
    """A plain array in a source: `dtype`, `shape`, where it begins, and its checksum.

    Parameters
    ----------
    source
        Where the bytes are.
    offset
        Where the array begins there.
    dtype, shape
        What the bytes mean, in C order.
    crc
        CRC-32 of all bytes, or None where it is not known. A whole read checks it.
    name
        The array's path in its file, for errors.
    """

    __slots__ = ("__weakref__", "crc", "dtype", "name", "offset", "shape", "source")

    def __init__(
        self,
        source: Source,
        offset: int,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
        crc: int | None,
        name: str,
    ):
        self.source = source
        self.offset = offset
        self.dtype = dtype
        self.shape = shape
        self.crc = crc
        self.name = name

    @property
    def nbytes(self) -> int:
        """Size of the array in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def _bytes(self, offset: int, nbytes: int) -> bytearray:
        buffer = bytearray(nbytes)
        found = self.source.read_into(memoryview(buffer), self.offset + offset)
        if found != nbytes:
            raise FormatError(
                f"{self.source.name}: {self.name} is cut short: "
                f"{found} of {nbytes} bytes are there"
            )
        return buffer

    def read(self) -> np.ndarray:
        """Return the whole array, checked against its checksum."""
        array = np.empty(self.shape, self.dtype)
        if array.nbytes:
            found = self.source.read_into(memoryview(as_bytes(array)), self.offset)
            if found != array.nbytes:
                raise FormatError(
                    f"{self.source.name}: {self.name} is cut short: "
                    f"{found} of {array.nbytes} bytes are there"
                )
            if self.crc is not None and checksum(array) != self.crc:
                raise FormatError(
                    f"{self.source.name}: {self.name} is damaged: its bytes do not match the "
                    "checksum that was written with them; restore the file from a copy, or "
                    "read the other items one by one"
                )
        return array

    def select(self, key: Key) -> np.ndarray:
        """Return the part that `key` (an int, slice or 1-d index per axis) selects."""
        if all(isinstance(part, slice) and part == slice(None) for part in key):
            return self.read()
        axes = [_positions(part, size) for part, size in zip(key, self.shape, strict=True)]
        counts = tuple(len(axis) for axis in axes)
        result = np.empty(counts, self.dtype)
        if result.size:
            strides = self._strides()
            split = _cheapest_split(axes, strides)
            for places in product(*(range(count) for count in counts[:split])):
                start = sum(
                    int(axes[axis][place]) * strides[axis] for axis, place in enumerate(places)
                )
                self._fill(result[places], start, axes[split:], strides[split:])
        return result[tuple(0 if _is_int(part) else slice(None) for part in key)]

    def _strides(self) -> list[int]:
        sizes = [math.prod(self.shape[axis + 1 :]) for axis in range(len(self.shape))]
        return [size * self.dtype.itemsize for size in sizes]

    def _fill(
        self, result: np.ndarray, start: int, axes: list[range | np.ndarray], strides: list[int]
    ) -> None:
        """Read what lies between the first and last row in blocks, and cut out the rest."""
        rows = axes[0]
        tail = self.shape[len(self.shape) - len(axes) + 1 :]
        count = max(1, min(len(rows), _BLOCK // max(1, strides[0] * _spread(rows))))
        for first in range(0, len(rows), count):
            block = rows[first : first + count]
            low, high = _bounds(block)
            data = self._bytes(start + low * strides[0], (high + 1 - low) * strides[0])
            piece = np.frombuffer(data, self.dtype).reshape(high + 1 - low, *tail)
            for axis, positions in reversed(list(enumerate([block, *axes[1:]]))):
                shifted = _shift(positions, low if axis == 0 else 0)
                piece = piece[(slice(None),) * axis + (shifted,)]
            result[first : first + count] = piece

    def __reduce__(self) -> Any:
        source, offset = self.source, self.offset
        if not isinstance(source, FileSource):
            # A scratch file dies with its process: the bytes travel instead.
            source, offset = BytesSource(self.read().tobytes(), self.name), 0
        return Blob, (source, offset, self.dtype, self.shape, self.crc, self.name)


def _is_int(part: object) -> bool:
    return isinstance(part, (int, np.integer))


def _positions(part: int | slice | np.ndarray, size: int) -> range | np.ndarray:
    if isinstance(part, slice):
        return range(*part.indices(size))
    positions = np.atleast_1d(np.asarray(part, np.int64))
    positions = np.where(positions < 0, positions + size, positions)
    if positions.size and not 0 <= positions.min() <= positions.max() < size:
        raise IndexError(f"index {part} is out of bounds for an axis of size {size}")
    return positions


def _bounds(positions: range | np.ndarray) -> tuple[int, int]:
    if isinstance(positions, range):
        return min(positions[0], positions[-1]), max(positions[0], positions[-1])
    return int(positions.min()), int(positions.max())


def _spread(positions: range | np.ndarray) -> int:
    """Rows of the file for each row that is wanted."""
    low, high = _bounds(positions)
    return -(-(high + 1 - low) // len(positions))


def _shift(positions: range | np.ndarray, low: int) -> slice | np.ndarray:
    if not isinstance(positions, range):
        return positions - low
    stop = positions.stop - low
    return slice(positions.start - low, None if stop < 0 else stop, positions.step)


def _cheapest_split(axes: list[range | np.ndarray], strides: list[int]) -> int:
    """Return how many leading axes to read position by position.

    A read costs as much as _GAP bytes; behind the split, whole rows are read from the
    first wanted one to the last.
    """
    reads, costs = 1, []
    for positions, stride in zip(axes, strides, strict=True):
        low, high = _bounds(positions)
        costs.append(reads * (_GAP + (high + 1 - low) * stride))
        reads *= len(positions)
    return costs.index(min(costs))
