"""Arrays that xarray reads when they are indexed."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from xarray.backends import BackendArray

from labtree.storage._xarray import (
    BasicIndexer,
    ExplicitIndexer,
    IndexingSupport,
    LazilyIndexedArray,
    OuterIndexer,
    explicit_indexing_adapter,
)


class LazyArray(BackendArray):
    """Base of arrays that are read in part; a subclass sets `shape` and `dtype`.

    Only :meth:`read` is to be written. xarray's other ways to index (points, masks) are
    derived from it.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def read(self, key: tuple[Any, ...]) -> Any:
        """Return the part that `key` selects, an array of its own.

        Parameters
        ----------
        key
            For each axis an integer, which drops the axis, a slice with any step, or a
            one-dimensional array of integers, which may be negative. The axes are
            independent of each other. :func:`positions` makes each an array.
        """
        raise NotImplementedError

    def __getitem__(self, key: ExplicitIndexer) -> Any:
        if isinstance(key, (BasicIndexer, OuterIndexer)):
            return self.read(key.tuple)  # the adapter fails on empty slices backwards
        return explicit_indexing_adapter(key, self.shape, IndexingSupport.OUTER, self.read)


def as_lazy(array: BackendArray) -> Any:
    """Return `array` as the data of an xarray Variable that is read when it is indexed."""
    return LazilyIndexedArray(array)


def is_whole(key: tuple[Any, ...], shape: tuple[int, ...]) -> bool:
    """Return whether a key selects all of an array, in its order.

    Examples
    --------
    >>> is_whole((slice(None), slice(0, 5)), (2, 5)), is_whole((slice(0, 1),), (2,))
    (True, False)
    """
    return all(
        isinstance(part, slice) and part.indices(size) == (0, size, 1)
        for part, size in zip(key, shape, strict=True)
    )


def axis_positions(key: Any, size: int) -> range | NDArray[np.int64]:
    """Return the positions on an axis that an index means; those of a slice as a range.

    Raises
    ------
    IndexError
        If one lies outside.
    """
    if isinstance(key, slice):
        return range(*key.indices(size))
    places = np.atleast_1d(np.asarray(key, np.int64))
    places = np.where(places < 0, places + size, places)
    if places.size and not 0 <= places.min() <= places.max() < size:
        raise IndexError(f"index {key} is out of bounds for an axis of size {size}")
    return places


def positions(key: Any, size: int) -> NDArray[np.int64]:
    """Return the positions on an axis that an integer, slice or integer array means.

    Raises
    ------
    IndexError
        If one lies outside.

    Examples
    --------
    >>> positions(slice(None, None, -2), 5), positions(-1, 5)
    (array([4, 2, 0]), array([4]))
    """
    places = axis_positions(key, size)
    if isinstance(places, range):
        return np.arange(places.start, places.stop, places.step, dtype=np.int64)
    return places
