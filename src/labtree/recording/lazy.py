"""Lazy arrays: what xarray asks of them is read from disk when it is asked for."""

from collections.abc import Callable
from typing import Any

import numpy as np
from xarray.backends import BackendArray
from xarray.core import indexing

from labtree.recording.chunks import ArrayReader

__all__ = ["Rows", "RowsArray", "as_lazy", "positions"]


class Rows:
    """Rows of a stream's data or time stamps: stored ones, then those of a journal.

    Parameters
    ----------
    reader
        The stored array.
    length
        Rows in all.
    tail
        The last of them, which are not stored yet.
    """

    def __init__(
        self, reader: ArrayReader, length: int, tail: np.ndarray | None = None
    ) -> None:
        self._reader = reader
        self._tail = tail
        self._stored = length - (0 if tail is None else len(tail))
        self.shape = (length, *reader.shape[1:])
        self.dtype = reader.dtype
        self.chunk_rows = reader.chunk_rows

    def read(self, start: int, stop: int, columns: Any = slice(None)) -> np.ndarray:
        """Return rows ``start`` to ``stop`` as a new array."""
        split = min(stop, self._stored)
        if self._tail is None or split == stop:
            return self._reader.read(start, stop, columns)
        first = max(start - self._stored, 0)
        tail = self._tail[first : stop - self._stored]
        if tail.ndim == 2:
            tail = tail[:, columns]
        if start >= self._stored:
            return tail.astype(self.dtype)
        return np.concatenate([self._reader.read(start, split, columns), tail])

    def __dask_tokenize__(self) -> object:
        """Return what tells these rows from others: their file and its length."""
        path = self._reader.store.path
        return (str(path), path.stat().st_mtime_ns, self._reader.name, self.shape)


class RowsArray(BackendArray):
    """`Rows` as xarray indexes them, by rows and columns that are read and no others."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.shape = rows.shape
        self.dtype = rows.dtype

    def __getitem__(self, key: Any) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._get
        )

    def __dask_tokenize__(self) -> object:
        """Return the token of the rows."""
        return self.rows.__dask_tokenize__()

    def _get(self, key: tuple[Any, ...]) -> np.ndarray:
        first, rest = key[0], key[1:]
        columns: Any = slice(None)
        squeeze: Callable[[np.ndarray], np.ndarray] = lambda out: out  # noqa: E731
        if rest:
            columns = rest[0]
            if isinstance(columns, int | np.integer):
                columns = np.array([columns])
                squeeze = lambda out: out[..., 0]  # noqa: E731
        n = self.shape[0]
        if isinstance(first, int | np.integer):
            return squeeze(self.rows.read(int(first), int(first) + 1, columns)[0])
        if isinstance(first, slice) and first.step in (None, 1):
            start, stop, _ = first.indices(n)
            return squeeze(self.rows.read(start, stop, columns))
        return squeeze(self._scattered(positions(first, n), columns))

    def _scattered(self, wanted: np.ndarray, columns: Any) -> np.ndarray:
        """Read rows in any order, chunk by chunk, so that those between are not held."""
        width = self.rows.read(0, 0, columns).shape[1:]
        out = np.empty((len(wanted), *width), self.dtype)
        order = np.argsort(wanted, kind="stable")
        ranked = wanted[order]
        chunk = ranked // self.rows.chunk_rows
        starts = np.flatnonzero(np.diff(chunk, prepend=-1))
        for begin, end in zip(starts, [*starts[1:], len(ranked)], strict=True):
            rows = ranked[begin:end]
            low = int(rows[0])
            block = self.rows.read(low, int(rows[-1]) + 1, columns)
            out[order[begin:end]] = block[rows - low]
        return out


def positions(key: Any, n: int) -> np.ndarray:
    """Return the positions in 0 to ``n`` that an integer, slice or integer array means."""
    if isinstance(key, slice):
        return np.arange(*key.indices(n))
    return np.atleast_1d(np.asarray(key, np.int64))


def as_lazy(array: BackendArray) -> Any:
    """Return ``array`` as the data of an xarray Variable that reads when indexed."""
    return indexing.LazilyIndexedArray(array)
