"""Arrays that are read when they are indexed give what numpy gives."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from labtree.storage.lazy import LazyArray, as_lazy, axis_positions, positions


class _Positions(LazyArray):
    """An array that only knows positions; it notes what it is asked for."""

    def __init__(self, values):
        self.values, self.shape, self.dtype = values, values.shape, values.dtype
        self.cells = 0

    def read(self, key):
        axes = [positions(part, size) for part, size in zip(key, self.shape, strict=True)]
        result = self.values[np.ix_(*axes)]
        self.cells += result.size
        return result[
            tuple(
                0 if np.ndim(part) == 0 and not isinstance(part, slice) else slice(None)
                for part in key
            )
        ]


VALUES = np.arange(7 * 5).reshape(7, 5)


def _axis(size):
    bound = st.none() | st.integers(-size - 2, size + 2)
    step = st.none() | st.integers(-3, 3).filter(bool)
    # xarray itself takes slice(-8, None, -1) of seven elements for all of them.
    slices = st.builds(slice, bound, bound, step).filter(
        lambda part: part.start is None or part.start >= -size or (part.step or 1) > 0
    )
    return st.one_of(
        st.integers(-size, size - 1),
        slices,
        st.lists(st.integers(-size, size - 1), max_size=9).map(lambda p: np.array(p, int)),
    )


@given(_axis(7), _axis(5))
def test_indexing_gives_what_numpy_gives(rows, columns):
    array = _Positions(VALUES)
    lazy = xr.Variable(("x", "y"), as_lazy(array))
    expected = xr.Variable(("x", "y"), VALUES)[rows, columns]
    found = lazy[rows, columns]
    assert array.cells == 0
    np.testing.assert_array_equal(found.values, expected.values)
    assert array.cells == expected.size


@given(st.lists(st.tuples(st.integers(-7, 6), st.integers(-5, 4)), min_size=1, max_size=8))
def test_points_are_read(points):
    rows, columns = (xr.Variable("p", list(part)) for part in zip(*points, strict=True))
    lazy = xr.Variable(("x", "y"), as_lazy(_Positions(VALUES)))
    expected = [VALUES[point] for point in points]
    assert lazy[rows, columns].values.tolist() == expected


@pytest.mark.parametrize("key", [7, -8, np.array([0, 7]), np.array([-8])])
def test_a_position_outside_is_an_error(key):
    with pytest.raises(IndexError, match="out of bounds for an axis of size 7"):
        positions(key, 7)


def test_a_slice_of_a_long_axis_takes_no_memory():
    assert axis_positions(slice(None, None, 2), 2**60) == range(0, 2**60, 2)
