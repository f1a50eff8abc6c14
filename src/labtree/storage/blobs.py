"""Arrays that lie as plain bytes in a source: read whole and checked, or in part."""

import functools
import math
import sys
from collections.abc import Iterator
from itertools import product
from typing import Any

import google_crc32c
import numpy as np

from labtree.errors import FormatError
from labtree.storage.codecs import plain
from labtree.storage.lazy import axis_positions, is_whole
from labtree.storage.sources import BytesSource, FileSource, Source, as_bytes

# A gap between two pieces that is cheaper to read than a second read call.
_GAP = 1 << 16
# How much is read at a time where only a part of it is wanted.
_BLOCK = 1 << 24
_PART = 1 << 20
_LITTLE = sys.byteorder == "little"
Key = tuple[int | slice | np.ndarray, ...]


def checksum(array: np.ndarray, crc: int = 0) -> int:
    """Return the CRC-32C of an array's values: their little-endian bytes in C order.

    Parameters
    ----------
    array
        Of a plain dtype.
    crc
        Of what stands before it, to go on from there.
    """
    if array.dtype.byteorder == ">" or (array.dtype.byteorder == "=" and not _LITTLE):
        array = array.astype(array.dtype.newbyteorder("<"))
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    flat.flags.writeable = False  # of this view: the library takes nothing that can change
    for start in range(0, flat.size, _PART):
        crc = google_crc32c.extend(crc, flat[start : start + _PART])
    return crc


class ContiguousArray:
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
        CRC-32C of all values, or None where it is not known. A whole read checks it.
    name
        The array's path in its file, for errors.
    """

    is_own = True  # its values are those that labtree wrote
    __slots__ = ("__weakref__", "crc", "dtype", "name", "place", "shape")

    def __init__(
        self,
        source: Source,
        offset: int,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
        crc: int | None,
        name: str,
    ):
        # One attribute, so that a thread that reads meanwhile sees both or neither change.
        self.place = (source, offset)
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
        source, start = self.place
        found = source.read_into(memoryview(buffer), start + offset)
        if found != nbytes:
            raise FormatError(_cut_short(source, self.name, found, nbytes))
        return buffer

    def read(self) -> np.ndarray:
        """Return the whole array, checked against its checksum."""
        array = np.empty(self.shape, self.dtype)
        if array.nbytes:
            source, offset = self.place
            found = source.read_into(as_bytes(array), offset)
            if found != array.nbytes:
                raise FormatError(_cut_short(source, self.name, found, array.nbytes))
            check_sum(array, self.crc, f"{source.name}: {self.name}")
        return array

    def select(self, key: Key) -> np.ndarray:
        """Return the part that `key` (an int, slice or 1-d index per axis) selects."""
        if is_whole(key, self.shape):
            return self.read()
        axes = [axis_positions(part, size) for part, size in zip(key, self.shape, strict=True)]
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
        return without_axes(result, key)

    def _strides(self) -> list[int]:
        sizes = [math.prod(self.shape[axis + 1 :]) for axis in range(len(self.shape))]
        return [size * self.dtype.itemsize for size in sizes]

    def _fill(
        self, result: np.ndarray, start: int, axes: list[range | np.ndarray], strides: list[int]
    ) -> None:
        """Read what lies between the first and last row in blocks, and cut out the rest."""
        tail = self.shape[len(self.shape) - len(axes) + 1 :]
        for first, block in _batches(axes[0], _BLOCK // strides[0]):
            low, high = _bounds(block)
            data = self._bytes(start + low * strides[0], (high + 1 - low) * strides[0])
            piece = np.frombuffer(data, self.dtype).reshape(high + 1 - low, *tail)
            key = (_shift(block, low), *(_shift(axis, 0) for axis in axes[1:]))
            result[first : first + len(block)] = outer_indexed(piece, key)

    def __reduce__(self) -> Any:
        source, offset = self.place
        if not isinstance(source, FileSource):
            # A scratch file dies with its process: the bytes travel instead.
            source, offset = BytesSource(self.read().tobytes(), self.name), 0
        return ContiguousArray, (source, offset, self.dtype, self.shape, self.crc, self.name)


@functools.lru_cache(maxsize=256)
def plain_dtype(text: str) -> np.dtype[Any]:
    """Return the dtype of a plain array in a file.

    Raises
    ------
    FormatError
        If it is none that netCDF-4 has.
    """
    try:
        dtype = np.dtype(str(text))
    except (TypeError, ValueError):
        dtype = np.dtype(object)
    if not plain(dtype) and dtype != np.dtype("S1"):
        raise FormatError(f"{text!r} is no dtype of a plain array")
    return dtype


def contiguous_array(
    source: FileSource,
    offset: int,
    dtype: np.dtype[Any],
    shape: list[int],
    crc: int | None,
    name: str,
) -> ContiguousArray:
    """Return an array after checking that it lies within the file.

    Raises
    ------
    FormatError
        If it would be longer than what the file holds from `offset` on.
    """
    size = source.known[3]
    numbers = all(type(number) is int and number >= 0 for number in (*shape, offset))
    if not numbers or math.prod(shape) * dtype.itemsize > size - offset or offset > size:
        raise FormatError(
            f"{source.name}: {name} does not fit into the file: {dtype} of shape "
            f"{tuple(shape)} from byte {offset} on, in a file of {size} bytes"
        )
    if math.prod(number or 1 for number in shape) * dtype.itemsize >= 1 << 62:
        raise FormatError(f"{source.name}: {name}: no array has the shape {tuple(shape)}")
    return ContiguousArray(source, offset, dtype, tuple(shape), crc, name)


def check_sum(array: np.ndarray, crc: int | None, what: str) -> None:
    """Raise an error if the values of a whole array are not those that were written.

    Parameters
    ----------
    array
        Of a plain dtype.
    crc
        Their CRC-32C, or None where it is not known.
    what
        The file and the array, for the error.
    """
    if crc is not None and checksum(array) != crc:
        raise FormatError(
            f"{what} is damaged: its bytes do not match the checksum that was written with "
            "them; restore the file from a copy, or read the other items one by one"
        )


def without_axes(result: np.ndarray, key: Key) -> np.ndarray:
    """Return a result without the axes, of one element each, on which a key has an integer."""
    # With the dots one element stays an array, and so keeps its byte order.
    return result[(*(0 if _is_int(part) else slice(None) for part in key), ...)]


def outer_indexed(values: np.ndarray, key: Key) -> np.ndarray:
    """Return the part of an array in memory that a key selects, each axis for itself."""
    for axis, part in reversed(list(enumerate(key))):
        values = values[(*(slice(None),) * axis, part, ...)]
    return values


def _cut_short(source: Source, name: str, found: int, expected: int) -> str:
    return f"{source.name}: {name} is cut short: {found} of {expected} bytes are there"


def _is_int(part: object) -> bool:
    return isinstance(part, (int, np.integer))


def _bounds(positions: range | np.ndarray) -> tuple[int, int]:
    if isinstance(positions, range):
        return min(positions[0], positions[-1]), max(positions[0], positions[-1])
    return int(positions.min()), int(positions.max())


def _batches(
    positions: range | np.ndarray, most: int, first: int = 0
) -> Iterator[tuple[int, range | np.ndarray]]:
    """Cut positions into batches that lie within `most` rows, and say where each begins."""
    low, high = _bounds(positions)
    if high - low < most or len(positions) == 1:
        yield first, positions
        return
    half = len(positions) // 2
    yield from _batches(positions[:half], most, first)
    yield from _batches(positions[half:], most, first + half)


def _shift(positions: range | np.ndarray, low: int) -> slice | np.ndarray:
    if not isinstance(positions, range):
        return positions - low
    stop = positions.stop - low
    return slice(positions.start - low, None if stop < 0 else stop, positions.step)


def _cheapest_split(axes: list[range | np.ndarray], strides: list[int]) -> int:
    """Return how many leading axes to read position by position.

    A read costs as much as _GAP bytes; after the split, whole rows are read from the
    first wanted one to the last.
    """
    reads, costs = 1, []
    for positions, stride in zip(axes, strides, strict=True):
        low, high = _bounds(positions)
        costs.append(reads * (_GAP + (high + 1 - low) * stride))
        reads *= len(positions)
    return costs.index(min(costs))
