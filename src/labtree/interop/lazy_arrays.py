"""Arrays of other programs' files that are read when they are indexed."""

import threading
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from labtree.errors import ClosedError, damage_as_format_error
from labtree.storage._xarray import (
    ExplicitIndexer,
    IndexingSupport,
    explicit_indexing_adapter,
)
from labtree.storage.hdf5_files import open_hdf5
from labtree.storage.lazy import LazyArray, as_lazy

_LAZY_BYTES = 2**20
_OPEN: dict[str, h5py.File] = {}
_LOCK = threading.Lock()


class _ArrayOfFile(LazyArray):
    support: IndexingSupport

    def __getitem__(self, key: ExplicitIndexer) -> Any:
        return explicit_indexing_adapter(key, self.shape, self.support, self.read)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # files cannot be copied, and nothing in here changes


class FileArray(_ArrayOfFile):
    """An h5py dataset or zarr array of a file.

    Parameters
    ----------
    source
        The open dataset.
    """

    support = IndexingSupport.OUTER_1VECTOR

    def __init__(self, source: Any):
        self.source = source
        self.shape = tuple(source.shape)
        self.dtype = np.dtype(source.dtype)

    def read(self, key: tuple[Any, ...]) -> Any:
        """Return the part that `key` selects, as the library of the file reads it."""
        source = self.source
        if isinstance(source, h5py.Dataset):
            if not source:
                raise ClosedError("the NWB file was closed; open it again to read from it")
            file, select = source.file.filename, source.__getitem__
        else:
            file, select = source.store, source.oindex.__getitem__
        with damage_as_format_error(str(file), source.name):
            return np.asarray(select(key))

    def __reduce__(self) -> Any:
        if isinstance(self.source, h5py.Dataset):
            return _reopened, (self.source.file.filename, self.source.name)
        return FileArray, (self.source,)


class MappedArray(_ArrayOfFile):
    """An array of numbers that is mapped from a file."""

    support = IndexingSupport.BASIC

    def __init__(self, array: "np.memmap[Any, Any]"):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        """Return a copy of the part that `key` selects."""
        return np.array(self.array[key])

    def __reduce__(self) -> Any:
        array = self.array
        order = "C" if array.flags.c_contiguous else "F"
        return _mapped, (array.filename, array.dtype, array.offset, array.shape, order)


class ClockArray(LazyArray):
    """Times of samples at a constant rate, computed when they are indexed."""

    dtype = np.dtype(np.float64)

    def __init__(self, start: float, rate: float, count: int):
        self.start, self.rate = start, rate
        self.shape = (count,)

    def read(self, key: tuple[Any, ...]) -> NDArray[np.float64]:
        """Return the times in s of the samples that `key` selects."""
        (at,) = key
        if isinstance(at, slice):
            at = np.arange(*at.indices(self.shape[0]))
        # As pynwb computes it, so that both give the same bits.
        return np.asarray(np.asarray(at) / self.rate + self.start)


def lazy_or_array(source: Any) -> Any:
    """Return numbers of a file lazily, all else and what is small as an array in memory."""
    if isinstance(source, np.memmap):
        if source.nbytes > _LAZY_BYTES:
            return as_lazy(MappedArray(source))
        return np.array(source)
    dtype = getattr(source, "dtype", None)
    if (
        isinstance(dtype, np.dtype)
        and dtype.kind in "biufc"
        and not isinstance(source, np.ndarray)
        and source.size * dtype.itemsize > _LAZY_BYTES
    ):
        return as_lazy(FileArray(source))
    values = np.asarray(source[()] if hasattr(source, "shape") else source)
    if values.dtype.kind in "OS":
        return np.array([_text(value) for value in values.ravel()], object).reshape(
            values.shape
        )
    return values


def _mapped(path: Any, dtype: Any, offset: int, shape: Any, order: Any) -> MappedArray:
    array: Any = np.memmap(path, dtype, mode="r", offset=offset, shape=shape, order=order)
    return MappedArray(array)


def _text(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _reopened(path: str, name: str) -> FileArray:
    """Return the array in another process, or after the file was closed here."""
    with _LOCK:
        file = _OPEN.get(path)
        if file is None or not file:
            with damage_as_format_error(path):
                file = _OPEN[path] = open_hdf5(path)
    with damage_as_format_error(path, name):
        return FileArray(file[name])
