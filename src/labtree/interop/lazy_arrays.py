"""Arrays of other programs' files that are read when they are indexed."""

import threading
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from labtree.errors import ClosedError, FormatError

__all__ = ["ClockArray", "FileArray", "MappedArray", "as_lazy", "lazy_or_array"]

_LAZY_BYTES = 2**20
_OPEN: dict[str, h5py.File] = {}
_LOCK = threading.Lock()


class FileArray(BackendArray):
    """An h5py dataset or zarr array of a file.

    Parameters
    ----------
    source
        The open dataset.
    """

    def __init__(self, source: Any):
        self.source = source
        self.shape = tuple(source.shape)
        self.dtype = np.dtype(source.dtype)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER_1VECTOR, self._read
        )

    def _read(self, key: tuple[Any, ...]) -> Any:
        source = self.source
        if isinstance(source, h5py.Dataset):
            if not source:
                raise ClosedError("the NWB file was closed; open it again to read from it")
            select = source.__getitem__
        else:
            select = source.oindex.__getitem__
        try:
            return np.asarray(select(key))
        except (OSError, RuntimeError) as error:
            raise FormatError(f"{source.name} cannot be read: {error}") from error

    def __deepcopy__(self, memo: dict[int, Any]) -> "FileArray":
        return self  # files cannot be copied, and nothing in here changes

    def __reduce__(self) -> Any:
        if isinstance(self.source, h5py.Dataset):
            return _reopened, (self.source.file.filename, self.source.name)
        return FileArray, (self.source,)


class MappedArray(BackendArray):
    """An array of numbers that is mapped from a file."""

    def __init__(self, array: "np.memmap[Any, Any]"):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.BASIC, self._read
        )

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        return np.array(self.array[key])

    def __deepcopy__(self, memo: dict[int, Any]) -> "MappedArray":
        return self  # files cannot be copied, and nothing in here changes

    def __reduce__(self) -> Any:
        array = self.array
        order = "C" if array.flags.c_contiguous else "F"
        return _mapped, (array.filename, array.dtype, array.offset, array.shape, order)


class ClockArray(BackendArray):
    """Times of samples at a constant rate, computed when they are indexed."""

    dtype = np.dtype(np.float64)

    def __init__(self, start: float, rate: float, count: int):
        self.start, self.rate = start, rate
        self.shape = (count,)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )

    def _read(self, key: tuple[Any, ...]) -> NDArray[np.float64]:
        (at,) = key
        if isinstance(at, slice):
            at = np.arange(*at.indices(self.shape[0]))
        # As pynwb computes it, so that both give the same bits.
        return np.asarray(np.asarray(at) / self.rate + self.start)


def as_lazy(array: BackendArray) -> Any:
    """Return `array` as the data of a Variable: read when indexed, copied when written to."""
    wrapped: Any = indexing.LazilyIndexedArray(array)
    return indexing.CopyOnWriteArray(wrapped)


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
            file = _OPEN[path] = h5py.File(path, "r")
    return FileArray(file[name])
