"""Arrays in zarr stores, as the plain arrays that labtree's codecs decode."""

import math
from typing import Any

import numpy as np

from labtree.errors import FormatError
from labtree.storage.blobs import Key
from labtree.storage.compression import Compression
from labtree.storage.lazy import positions
from labtree.storage.zarr.locations import Location, damage_named, open_array

# What one chunk holds at most, if its array is not dask's: enough that a request is
# worth its time, little enough that a window does not need a lot.
_CHUNK = 1 << 22


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


def native_values(plain: np.ndarray, data_type: str) -> np.ndarray:
    """Return a plain array as zarr's type for it has it."""
    if data_type == "string":
        width = plain.shape[-1]
        rows = np.ascontiguousarray(plain).reshape(-1).view(f"S{width}") if width else plain
        texts = [row.decode() for row in rows.tolist()]
        return np.array(texts, np.dtypes.StringDType()).reshape(plain.shape[:-1])
    if data_type == "bool":
        return plain.view(np.bool_)
    if data_type.startswith("complex"):
        return np.ascontiguousarray(plain).view(f"c{2 * plain.itemsize}")[..., 0]
    if data_type == "float16":
        return plain.astype(np.float16) if plain.dtype.kind == "f" else plain.view(np.float16)
    return plain.view(np.uint8) if plain.dtype.kind == "S" else plain


def _plain_values(
    native: Any, data_type: str, dtype: np.dtype[Any], width: int, name: str
) -> np.ndarray:
    """Return what `native_values` was given."""
    if data_type == "string":
        texts = np.asarray(native)
        encoded = [str(text).encode() for text in texts.reshape(-1).tolist()]
        if max(map(len, encoded), default=0) > width:
            raise FormatError(f"{name}: a longer text than was written")
        flat = np.array(encoded, f"S{width}").reshape(-1).view("S1")
        return flat.reshape((*texts.shape, width))
    array = np.asarray(native)
    if data_type == "bool":
        return array.view(np.int8)
    if data_type.startswith("complex"):
        shape = (*array.shape, 2)
        return (
            np.ascontiguousarray(array).reshape(-1).view(dtype.newbyteorder("=")).reshape(shape)
        )
    if data_type == "float16":
        half = array.astype("<f2", copy=False)
        return half.astype(dtype) if dtype.kind == "f" else half.view(dtype)
    if dtype.kind == "S":
        return array.view("S1")
    return array.astype(dtype, copy=False)


class ZarrArray:
    """A plain array in a zarr store; every chunk that is read is checked by its checksum.

    Parameters
    ----------
    location
        The store.
    path
        Of the array in it.
    dtype, shape
        Of the plain array.
    data_type
        zarr's name of its type; texts and complex numbers have no last dimension there.
    name
        The array's path, for errors.
    compression
        How its chunks are compressed, or None.
    """

    is_own = True  # its values are those that labtree wrote
    crc = None
    __slots__ = (
        "_array",
        "compression",
        "data_type",
        "dtype",
        "location",
        "name",
        "path",
        "shape",
    )

    def __init__(
        self,
        location: Location,
        path: str,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
        data_type: str,
        name: str,
        compression: Compression | None = None,
    ) -> None:
        self.location = location
        self.path = path
        self.dtype = dtype
        self.shape = shape
        self.data_type = data_type
        self.name = name
        self.compression = compression
        self._array: Any = None

    @property
    def place(self) -> tuple[Location, int]:
        """Where it is, as other plain arrays say it."""
        return self.location, 0

    @property
    def _is_shorter(self) -> bool:
        return self.data_type == "string" or self.data_type.startswith("complex")

    def _opened(self) -> Any:
        if self._array is None:
            array = open_array(self.location, self.path)
            shape = self.shape[:-1] if self._is_shorter else self.shape
            if tuple(array.shape) != tuple(shape):
                raise FormatError(f"shape {array.shape} found, {shape} expected")
            if self.data_type != "string":
                found, wanted = np.dtype(array.dtype), np.dtype(self.data_type)
                if (found.kind, found.itemsize) != (wanted.kind, wanted.itemsize):
                    raise FormatError(f"type {found} found, {wanted} expected")
            self._array = array
        return self._array

    def move(self, location: Location, path: str) -> None:
        """Read from another store from now on."""
        self.location, self.path, self._array = location, path, None

    def read(self) -> np.ndarray:
        """Return the whole array."""
        return self.select((slice(None),) * len(self.shape))

    def select(self, key: Key) -> np.ndarray:
        """Return the part that `key` (an int, slice or 1-d index per axis) selects."""
        known = key[:-1] if self._is_shorter else key
        width = self.shape[-1] if self._is_shorter else 0
        wanted: list[Any] = []
        for part, size in zip(known, self.shape, strict=False):
            if isinstance(part, slice) and part.step in (None, 1):
                wanted.append(slice(*part.indices(size)))
            elif isinstance(part, (int, np.integer)):
                wanted.append(int(part) % size if size else int(part))
            else:
                wanted.append(positions(part, size))
        empty = [
            (part.stop <= part.start) if isinstance(part, slice) else np.size(part) == 0
            for part in wanted
        ]
        with damage_named(self.location, self.name):
            if any(empty):
                shape = [_length(part) for part in wanted if not isinstance(part, int)]
                trailing = [width] if self._is_shorter else []
                found = np.zeros([*shape, *trailing], self.dtype)
            else:
                array = self._opened()
                native = array.oindex[tuple(wanted)] if wanted else array[()]
                found = _plain_values(native, self.data_type, self.dtype, width, self.name)
        return found[(..., key[-1])] if self._is_shorter else found

    def __reduce__(self) -> Any:
        parts = self.location, self.path, self.dtype, self.shape, self.data_type, self.name
        return ZarrArray, (*parts, self.compression)


def _length(part: Any) -> int:
    return max(0, part.stop - part.start) if isinstance(part, slice) else len(part)
