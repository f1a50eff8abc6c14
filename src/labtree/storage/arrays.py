"""Arrays that xarray reads when it needs them."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from labtree.errors import FormatError
from labtree.storage import codecs, dtypes
from labtree.storage._xarray import CopyOnWriteArray, LazilyIndexedArray, Variable, data_of
from labtree.storage.blobs import (
    ContiguousArray,
    contiguous_array,
    outer_indexed,
    plain_dtype,
)
from labtree.storage.compression import ChunkedArray, find_compression
from labtree.storage.lazy import LazyArray, as_lazy
from labtree.storage.sources import BytesSource, FileSource

#: What the encoding of a variable in memory calls the compression that it had in its file.
COMPRESSION = "labtree_compression"

_SLACK = 1 << 26  # a small file may hold many zeros


class Chunks(NamedTuple):
    """How an array is compressed: the method, a chunk's shape, the offset and size of each."""

    method: str
    shape: list[int]
    places: list[list[int]]


class Column(NamedTuple):
    """A plain array in a file, as a record lists it.

    `place` is its offset in a file, or zarr's name of its type; `inline` is where in the
    catalogue its values stand as well; `chunks` are :class:`Chunks`, or the method in zarr.
    """

    name: str
    dtype: str
    shape: list[int]
    place: Any
    crc: int | None = None
    inline: int | None = None
    chunks: Any = None

    @property
    def nbytes(self) -> int:
        """Size of the values in bytes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def listed(self) -> list[Any]:
        """Return it as it stands in a record."""
        return [*self] if self.chunks is not None else [*self[:-1]]


class StoredArray(LazyArray):
    """An array in a file or scratch file, decoded when it is indexed.

    Parameters
    ----------
    spec
        How it is decoded; see :mod:`labtree.storage.codecs`.
    blobs
        The plain arrays that hold it; anything with `dtype`, `shape`, `read()` and
        `select(key)`.
    """

    __slots__ = ("blobs", "dtype", "shape", "spec")

    def __init__(self, spec: codecs.Spec | None, blobs: list[Any]):
        codecs.check(spec, blobs)
        self.spec = spec
        self.blobs = blobs
        self.shape = blobs[0].shape
        self.dtype = blobs[0].dtype
        if spec is None:
            return
        if spec["codec"] == "text":
            texts = spec["dtype"] == "StringDType"
            self.dtype = np.dtypes.StringDType() if texts else np.dtype(object)
        else:
            self.dtype = dtypes.dtype_from_json(spec["dtype"])
        if codecs.last_dimension(spec, self.shape) is not None:
            self.shape = self.shape[:-1]

    @property
    def is_plain(self) -> bool:
        """Whether its plain arrays are labtree's own, to be copied without decoding them."""
        return all(getattr(blob, "is_own", False) for blob in self.blobs)

    def read_whole(self) -> np.ndarray:
        """Return the whole array, checked."""
        return self._decode([blob.read() for blob in self.blobs])

    def _decode(self, arrays: list[np.ndarray]) -> np.ndarray:
        try:
            return codecs.decode(self.spec, arrays)
        except Exception as error:  # what is said of damaged texts can be anything
            blob = self.blobs[0]
            file = getattr(blob, "source", None) or getattr(blob, "location", None)
            where = blob.name if file is None else f"{file.name}: {blob.name}"
            raise FormatError(f"{where} cannot be decoded: {error}") from error

    def read(self, key: tuple[Any, ...]) -> Any:
        """Return the part that `key` selects."""
        spec = self.spec
        if spec is not None and spec.get("form") == "joined":
            # texts end to end: only all their lengths tell where one is
            return outer_indexed(self.read_whole(), key)
        blob = self.blobs[0]
        trailing = (slice(None),) * (len(blob.shape) - len(self.shape))
        masks = [mask.select(key) for mask in self.blobs[1:]]
        return self._decode([blob.select((*key, *trailing)), *masks])


def array_of_column(source: FileSource, column: Column, name: str) -> Any:
    """Return the plain array of a catalogue's column.

    Parameters
    ----------
    source
        The file.
    column
        What the catalogue says about it.
    name
        The array's path in the file, for errors.

    Raises
    ------
    FormatError
        If the file cannot hold it.
    """
    dtype, shape = plain_dtype(column.dtype), column.shape
    if column.chunks is None:
        return contiguous_array(source, column.place, dtype, shape, column.crc, name)
    chunks = Chunks(*column.chunks)
    size = source.known[3]
    for begin, length in chunks.places:
        if not (begin >= 0 and 0 <= length <= size - begin):
            raise FormatError(f"{source.name}: {name}: a chunk lies outside of the file")
    if math.prod(shape) * dtype.itemsize > 1100 * size + _SLACK:
        raise FormatError(
            f"{source.name}: {name}: {dtype} of shape {tuple(shape)} cannot be in {size} bytes"
        )
    compression = find_compression(chunks.method)
    assert compression is not None
    return ChunkedArray(
        source,
        dtype,
        tuple(shape),
        column.crc,
        name,
        compression,
        tuple(chunks.shape),
        chunks.places,
    )


def stored_size(array: ContiguousArray | ChunkedArray) -> int:
    """Return how many bytes of its file a plain array takes."""
    if isinstance(array, ContiguousArray):
        return array.nbytes
    return sum(length for _, length in array.place[1])


def lazy(array: StoredArray) -> Any:
    """Return `array` as the data of a Variable: read when indexed, copied when written to."""
    return CopyOnWriteArray(as_lazy(array))


def stored_array(variable: Variable) -> StoredArray | None:
    """Return the stored array that a variable still is, whole and unchanged, or None."""
    data = data_of(variable)
    if isinstance(data, CopyOnWriteArray):
        data = data.array
    if not isinstance(data, LazilyIndexedArray):
        return None
    if any(part != slice(None) for part in data.key.tuple if isinstance(part, slice)):
        return None
    if not all(isinstance(part, slice) for part in data.key.tuple):
        return None
    return data.array if isinstance(data.array, StoredArray) else None


def memory_array(values: np.ndarray, path: str) -> Any:
    """Return an array as data of a Variable that xarray does not change, whatever its dtype."""
    spec, plain = codecs.encode(values, path)
    blobs = [
        ContiguousArray(BytesSource(part.tobytes()), 0, part.dtype, part.shape, None, path)
        for part in plain
    ]
    return lazy(StoredArray(spec, blobs))


def load_variables(variables: Iterable[Variable]) -> None:
    """Read stored arrays into memory, in place, each checked.

    Objects and dates stay encoded there, because xarray could change them.
    """
    for variable in variables:
        stored = stored_array(variable)
        if stored is None or stored.dtype.kind in "biufcUSV":
            variable.load()
        elif not all(isinstance(blob.place[0], BytesSource) for blob in stored.blobs):
            variable.data = memory_array(stored.read_whole(), stored.blobs[0].name)
