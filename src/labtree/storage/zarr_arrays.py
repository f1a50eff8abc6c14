"""Arrays in the chunks of a zarr store, read whole and checked, or in part."""

import itertools
import math
import struct
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from labtree.errors import FormatError
from labtree.storage.blobs import Blob, Key
from labtree.storage.zarr_places import Place

__all__ = [
    "BYTES",
    "PAIRS",
    "TEXTS",
    "ChunkedArray",
    "Chunks",
    "chunk_key",
    "chunk_shape",
    "pack_texts",
    "unpack_texts",
]

# What one chunk holds at most, if its array is not dask's: enough that a request is
# worth its time, little enough that a window does not need a lot.
_CHUNK = 1 << 22
# From this size on a chunk is looked at before memory is taken for it.
_LARGE = 1 << 28
_LENGTH = struct.Struct("<I")

#: A chunk holds the plain array's bytes, and zarr knows the array as it is.
BYTES = 0
#: It holds texts end to end (zarr's vlen-utf8), and zarr knows no dimension of characters.
TEXTS = 1
#: It holds the plain array's bytes, and zarr knows no dimension of two: complex numbers.
PAIRS = 2


class Chunks(NamedTuple):
    """Where the chunks of an array are: in a place, below a key, of one shape."""

    place: Place
    prefix: str
    shape: tuple[int, ...]
    crcs: list[int]
    #: What a chunk holds: :data:`BYTES`, :data:`TEXTS` or :data:`PAIRS`.
    form: int


def chunk_shape(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Return the shape of chunks of at most 4 MiB: the longest axis is halved first.

    Examples
    --------
    >>> chunk_shape((64, 1_000_000), 4)
    (64, 15625)
    """
    chunks = [max(1, size) for size in shape]
    while math.prod(chunks) * itemsize > _CHUNK and max(chunks, default=1) > 1:
        axis = chunks.index(max(chunks))
        chunks[axis] = -(-chunks[axis] // 2)
    return tuple(chunks)


def chunk_key(index: Iterable[int], separator: str) -> str:
    """Return the key of a chunk below its array.

    Examples
    --------
    >>> chunk_key((0, 2), "."), chunk_key((0, 2), "/"), chunk_key((), ".")
    ('c.0.2', 'c/0/2', 'c')
    """
    return separator.join(["c", *map(str, index)])


def pack_texts(raw: np.ndarray) -> bytes:
    """Return padded characters as zarr's vlen-utf8: a count, then length and bytes of each."""
    flat = np.ascontiguousarray(raw).reshape(-1).view(f"S{raw.shape[-1]}").tolist()
    parts = itertools.chain.from_iterable((_LENGTH.pack(len(text)), text) for text in flat)
    return _LENGTH.pack(len(flat)) + b"".join(parts)


def unpack_texts(data: bytes, count: int, width: int) -> np.ndarray:
    """Return what :func:`pack_texts` was given, as ``(count, width)`` characters.

    Raises
    ------
    ValueError
        If the lengths do not fit the bytes.
    """
    place, texts = _LENGTH.size, []
    if len(data) < place or _LENGTH.unpack_from(data)[0] != count:
        raise ValueError("another number of texts")
    for _ in range(count):
        if place + _LENGTH.size > len(data):
            raise ValueError("fewer texts than were written")
        (size,) = _LENGTH.unpack_from(data, place)
        place += _LENGTH.size
        if size > width or place + size > len(data):
            raise ValueError("a longer text than was written")
        texts.append(data[place : place + size])
        place += size
    return np.array(texts, f"S{width}").reshape(-1).view("S1").reshape(count, width)


class _Object:
    """One object of a place, as a source of bytes."""

    def __init__(self, place: Place, key: str):
        self.name = place.name
        self._place, self._key = place, key

    def read_into(self, buffer: memoryview, offset: int) -> int:
        data = self._place.read(self._key, offset, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def require(self, nbytes: int, name: str) -> None:
        """Raise an error if the object is there, but has fewer bytes."""
        try:
            is_there = len(self._place.read(self._key, nbytes - 1, 1)) == 1
        except FileNotFoundError:
            return  # the read below reports a missing object
        except OSError:
            is_there = False
        if not is_there:
            raise FormatError(f"{self.name}: {name} is cut short: no {nbytes} bytes are there")


class ChunkedArray:
    """A plain array in chunks; what a whole chunk holds is checked against its checksum.

    Parameters
    ----------
    chunks
        Where they are.
    dtype, shape
        Of the whole array.
    name
        The array's path, for errors.
    """

    __slots__ = ("chunks", "crc", "dtype", "name", "shape")

    def __init__(self, chunks: Chunks, dtype: np.dtype[Any], shape: tuple[int, ...], name: str):
        # One attribute, so that a thread that reads meanwhile sees the old or the new.
        self.chunks = chunks
        self.dtype = dtype
        self.shape = shape
        self.name = name
        self.crc = None
        if len(chunks.shape) != len(shape) or min(chunks.shape, default=1) < 1:
            raise FormatError(f"{name}: the shapes of array and chunks disagree")
        expected = math.prod(_grid(shape, chunks.shape))
        if len(chunks.crcs) != expected:
            raise FormatError(f"{name}: {len(chunks.crcs)} checksums of {expected} chunks")

    @property
    def place(self) -> tuple[Place, int]:
        """Where it is, as a Blob says it."""
        return self.chunks.place, 0

    def read(self) -> np.ndarray:
        """Return the whole array, every chunk checked."""
        return self.select((slice(None),) * len(self.shape))

    def select(self, key: Key) -> np.ndarray:
        """Return the part that `key` (an int, slice or 1-d index per axis) selects."""
        chunks = self.chunks
        axes = [_positions(part, size) for part, size in zip(key, self.shape, strict=True)]
        parts = [
            _split(axis, size, chunk)
            for axis, size, chunk in zip(axes, self.shape, chunks.shape, strict=True)
        ]
        tasks = list(itertools.product(*parts)) if all(map(len, axes)) else []
        nbytes = math.prod(chunks.shape) * self.dtype.itemsize
        if tasks and nbytes > _LARGE and chunks.form != TEXTS:
            # A size that is not true must not cost memory.
            _Object(chunks.place, self._key(chunks, tasks[0])).require(nbytes, self.name)
        result = np.empty([len(axis) for axis in axes], self.dtype)

        def fill(task: tuple[_Part, ...]) -> None:
            piece = self._chunk(chunks, task)
            if all(isinstance(part.target, slice) for part in task):
                result[tuple(part.target for part in task)] = piece
            else:
                result[np.ix_(*(_range(part.target) for part in task))] = piece

        if len(tasks) == 1:
            fill(tasks[0])
        elif tasks:
            with ThreadPoolExecutor(min(chunks.place.workers, len(tasks))) as pool:
                list(pool.map(fill, tasks))
        # With the dots it stays an array where nothing of its shape is left.
        return result[(*(0 if _is_int(part) else slice(None) for part in key), ...)]

    @staticmethod
    def _key(chunks: Chunks, task: tuple["_Part", ...]) -> str:
        index = [part.number for part in task]
        known = index if chunks.form == BYTES else index[:-1]
        return f"{chunks.prefix}/{chunk_key(known, chunks.place.separator)}"

    def _chunk(self, chunks: Chunks, task: tuple["_Part", ...]) -> np.ndarray:
        """Return the part of one chunk that is wanted."""
        key = self._key(chunks, task)
        index = tuple(part.number for part in task)
        grid = _grid(self.shape, chunks.shape)
        crc = chunks.crcs[int(np.ravel_multi_index(index, grid)) if index else 0]
        name = f"{self.name} (chunk {key})"
        piece: np.ndarray
        try:
            local = tuple(part.local for part in task)
            if chunks.form == TEXTS:
                piece = self._text_chunk(chunks, key, crc)
                for axis, part in enumerate(local):
                    piece = piece[(slice(None),) * axis + (part,)]
                return piece
            blob = Blob(_Object(chunks.place, key), 0, self.dtype, chunks.shape, crc, name)
            # All that a chunk holds is read in one and checked, its padding included.
            whole = all(part.is_whole for part in task)
            piece = blob.read()[local] if whole else blob.select(local)
            return piece
        except FileNotFoundError as error:
            raise FormatError(
                f"{chunks.place.name}: {name} is missing. If the workspace was saved anew "
                "after it was opened, open it again; if not, it is damaged: restore it from "
                "a copy, or read the other items one by one"
            ) from error

    def _text_chunk(self, chunks: Chunks, key: str, crc: int) -> np.ndarray:
        data = chunks.place.read(key)
        width = chunks.shape[-1]
        count = math.prod(chunks.shape[:-1])
        try:
            if zlib.crc32(data) != crc:
                raise ValueError("its bytes do not match the checksum")
            return unpack_texts(data, count, width).reshape(chunks.shape)
        except ValueError as error:
            raise FormatError(
                f"{chunks.place.name}: {self.name} (chunk {key}) is damaged: {error}; "
                "restore it from a copy, or read the other items one by one"
            ) from error

    def __reduce__(self) -> Any:
        return ChunkedArray, (self.chunks, self.dtype, self.shape, self.name)


class _Part(NamedTuple):
    """What one chunk gives along one axis: its number, where in it, and where it goes."""

    number: int
    local: Any
    target: Any
    is_whole: bool = False


def _grid(shape: tuple[int, ...], chunks: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(-(-size // chunk) for size, chunk in zip(shape, chunks, strict=False))


def _positions(part: Any, size: int) -> np.ndarray | range:
    if isinstance(part, slice):
        return range(*part.indices(size))
    positions = np.atleast_1d(np.asarray(part, np.int64))
    positions = np.where(positions < 0, positions + size, positions)
    if positions.size and not 0 <= positions.min() <= positions.max() < size:
        raise IndexError(f"index {part} is out of bounds for an axis of size {size}")
    return positions


def _split(positions: np.ndarray | range, size: int, chunk: int) -> list[_Part]:
    """Divide the wanted positions of an axis among its chunks."""
    if isinstance(positions, range) and positions.step == 1:
        parts = []
        for index in range(positions.start // chunk, -(-positions.stop // chunk)):
            low = max(positions.start, index * chunk)
            high = min(positions.stop, (index + 1) * chunk)
            local = slice(low - index * chunk, high - index * chunk)
            target = slice(low - positions.start, high - positions.start)
            is_whole = high - low == min(chunk, size - index * chunk)
            parts.append(_Part(index, local, target, is_whole))
        return parts
    places = np.asarray(positions, np.int64)
    owners = places // chunk
    return [
        _Part(
            int(index), places[owners == index] - index * chunk, np.flatnonzero(owners == index)
        )
        for index in np.unique(owners)
    ]


def _is_int(part: object) -> bool:
    return isinstance(part, (int, np.integer))


def _range(target: Any) -> np.ndarray:
    return np.arange(target.start, target.stop) if isinstance(target, slice) else target
