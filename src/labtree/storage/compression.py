"""Arrays in compressed chunks, as HDF5's filters store them."""

import math
import zlib
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from labtree.errors import ConfigurationError, FormatError
from labtree.optional import require
from labtree.storage.blobs import Key, check_sum, checksum, without_axes
from labtree.storage.lazy import axis_positions
from labtree.storage.sources import Source

_CHUNK = 1 << 20  # bytes of values in a chunk
_MOST_VALUES = 1 << 27  # in a chunk
_ZSTD = 32015
_LEVELS = {"gzip": 4, "zstd": 3}


class Compression(NamedTuple):
    """How arrays are compressed: ``gzip`` or ``zstd``, after HDF5's shuffle filter."""

    name: str

    def chunk_shape(self, shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
        """Return the shape of a chunk: at most 1 MiB, the first axes are cut first."""
        chunk = list(shape)
        for axis in range(len(chunk)):
            size = itemsize * math.prod(chunk)
            if size <= _CHUNK:
                break
            rest = itemsize * math.prod(chunk[axis + 1 :])
            chunk[axis] = max(1, min(chunk[axis], _CHUNK // rest))
        return tuple(chunk)

    def grid(self, shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
        """Return the number of chunks along each axis."""
        chunk = self.chunk_shape(shape, itemsize)
        return tuple(-(-size // part) for size, part in zip(shape, chunk, strict=True))

    def describe(self, creation: Any, shape: tuple[int, ...], itemsize: int) -> None:
        """Set the chunks and filters of a dataset that is to be made."""
        creation.set_chunk(self.chunk_shape(shape, itemsize))
        if itemsize > 1:
            creation.set_shuffle()
        if self.name == "gzip":
            creation.set_deflate(_LEVELS["gzip"])
        else:
            require("hdf5plugin", purpose='compression="zstd"', extra="compression")
            creation.set_filter(_ZSTD, 0, (_LEVELS["zstd"],))

    def compress(self, chunk: np.ndarray) -> bytes:
        """Return the bytes of one chunk as they stand in the file."""
        raw = np.ascontiguousarray(chunk)
        data = raw.tobytes()
        if raw.itemsize > 1:
            data = raw.reshape(-1).view(np.uint8).reshape(-1, raw.itemsize).T.tobytes()
        if self.name == "gzip":
            return zlib.compress(data, _LEVELS["gzip"])
        return bytes(_zstd().encode(data))

    def decompress(self, data: bytes, dtype: np.dtype[Any], count: int) -> np.ndarray:
        """Return `count` values of one chunk; ValueError if it holds others."""
        size = count * dtype.itemsize
        if self.name == "gzip":
            raw = zlib.decompressobj().decompress(data, size + 1)
        else:
            raw = bytes(_zstd().decode(data, np.empty(size, np.uint8)))
        if len(raw) != size:
            raise ValueError(f"a chunk holds {len(raw)} bytes, expected {size}")
        if dtype.itemsize > 1:
            shuffled = np.frombuffer(raw, np.uint8).reshape(dtype.itemsize, count)
            return np.ascontiguousarray(shuffled.T).reshape(-1).view(dtype)
        return np.frombuffer(raw, dtype)


def _zstd() -> Any:
    module = require("numcodecs.zstd", purpose='compression="zstd"', extra="zarr")
    return module.Zstd(level=_LEVELS["zstd"])


def find_compression(name: str | None) -> Compression | None:
    """Return the compression of that name.

    Raises
    ------
    ConfigurationError
        If there is none; the message lists those that there are.
    """
    if name is None:
        return None
    if name not in _LEVELS:
        raise ConfigurationError(
            f"compression is None, 'gzip' (which every netCDF-4 reader has) or 'zstd', "
            f"not {name!r}"
        )
    return Compression(name)


def compress_chunks(
    slab: Callable[[int, int], np.ndarray],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    compression: Compression,
    write: Callable[[tuple[int, ...], bytes], Any],
) -> int:
    """Write an array chunk by chunk; return the CRC-32C of its values.

    Parameters
    ----------
    slab
        Gives the plain values between two positions of the first axis.
    shape, dtype
        Of the whole array.
    compression
        How each chunk is compressed.
    write
        Called with the position of a chunk's first value, and the chunk's bytes.
    """
    chunk = compression.chunk_shape(shape, dtype.itemsize)
    rows, crc = chunk[0], 0
    grid = compression.grid(shape, dtype.itemsize)[1:]
    for start in range(0, shape[0], rows):
        values = slab(start, min(start + rows, shape[0]))
        crc = checksum(values, crc)
        for index in np.ndindex(*grid):
            places = [int(i) * size for i, size in zip(index, chunk[1:], strict=True)]
            cut = [slice(p, p + n) for p, n in zip(places, chunk[1:], strict=True)]
            part = values[(slice(None), *cut)]
            if part.shape != chunk:  # at an edge it is filled up
                whole = np.zeros(chunk, dtype)
                whole[tuple(slice(0, n) for n in part.shape)] = part
                part = whole
            write((start, *places), compression.compress(part))
    return crc


class ChunkedArray:
    """A plain array in compressed chunks of a source; only chunks that are asked for are read.

    Parameters
    ----------
    source
        Where the bytes are.
    dtype, shape
        Of the array.
    crc
        CRC-32C of all values, or None. A whole read checks it.
    name
        The array's path in its file, for errors.
    compression, chunk
        How each chunk is compressed, and its shape.
    places
        Offset and size of each chunk, in C order.
    """

    is_own = True  # its values are those that labtree wrote
    __slots__ = (
        "_grid",
        "chunk",
        "compression",
        "crc",
        "dtype",
        "name",
        "place",
        "shape",
    )

    def __init__(
        self,
        source: Source,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
        crc: int | None,
        name: str,
        compression: Compression,
        chunk: tuple[int, ...],
        places: list[list[int]],
    ):
        fits = len(chunk) == len(shape) > 0 and min(chunk) > 0
        grid = [-(-size // part) for size, part in zip(shape, chunk, strict=False)]
        if not fits or len(places) != math.prod(grid) or math.prod(chunk) > _MOST_VALUES:
            raise FormatError(
                f"{source.name}: {name}: {len(places)} chunks of shape {chunk} do not make an "
                f"array of shape {shape}"
            )
        self.place = (source, places)
        self.dtype, self.shape, self.crc, self.name = dtype, shape, crc, name
        self.compression, self.chunk, self._grid = compression, chunk, tuple(grid)

    @property
    def nbytes(self) -> int:
        """Size of the values in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self) -> np.ndarray:
        """Return the whole array, checked against its checksum."""
        array = self.select((slice(None),) * len(self.shape))
        check_sum(array, self.crc, f"{self.place[0].name}: {self.name}")
        return array

    def select(self, key: Key) -> np.ndarray:
        """Return the part that `key` (an int, slice or 1-d index per axis) selects."""
        axes = [
            np.asarray(axis_positions(part, size), np.int64)
            for part, size in zip(key, self.shape, strict=True)
        ]
        result = np.empty([len(axis) for axis in axes], self.dtype)
        chunk = self.chunk
        for index in self._touched(axes):
            block = self._chunk(int(np.ravel_multi_index(index, self._grid)))
            inside = [
                np.flatnonzero(axis // size == i)
                for axis, size, i in zip(axes, chunk, index, strict=True)
            ]
            local = [axes[n][where] - index[n] * chunk[n] for n, where in enumerate(inside)]
            result[np.ix_(*inside)] = block[np.ix_(*local)]
        return without_axes(result, key)

    def _touched(self, axes: list[np.ndarray]) -> Iterator[tuple[int, ...]]:
        """Return the places in the grid of the chunks that some positions are in."""
        wanted = [
            np.unique(axis // n).tolist() for axis, n in zip(axes, self.chunk, strict=True)
        ]
        return product(*wanted)

    def _chunk(self, number: int) -> np.ndarray:
        """Return the values of a chunk, which is filled up where it is at an edge."""
        source, places = self.place
        offset, size = places[number]
        buffer = bytearray(size)
        found = source.read_into(memoryview(buffer), offset)
        try:
            if found != size:
                raise ValueError(f"{found} of {size} bytes are there")
            count = math.prod(self.chunk)
            flat = self.compression.decompress(bytes(buffer), self.dtype, count)
        except (ValueError, RuntimeError, zlib.error) as error:
            raise FormatError(
                f"{source.name}: {self.name} is damaged: chunk {number} cannot be read "
                f"({error})"
            ) from error
        return flat.reshape(self.chunk)

    def __reduce__(self) -> Any:
        source, places = self.place
        known = self.dtype, self.shape, self.crc, self.name, self.compression, self.chunk
        return ChunkedArray, (source, *known, places)
