import math

import numpy as np
import pytest
import xarray as xr

from labtree.errors import DataError, SessionError
from labtree.storage.arguments import from_zero, integer, one_of, positive

NO_NUMBERS = [
    None,
    "5",
    b"5",
    True,
    np.bool_(True),
    [1.0],
    np.ones(1),
    math.nan,
    math.inf,
    -1,
    1j,
]


@pytest.mark.parametrize("value", [3, 3.0, np.float32(3), np.int8(3), xr.DataArray(3)])
def test_numbers_become_floats(value):
    for check in (positive, from_zero):
        found = check("bin_ms", value)
        assert (type(found), found) == (float, 3.0)


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_what_is_no_such_number_is_named(value):
    with pytest.raises(
        SessionError, match=r"^gap_s must be a number of seconds above 0, found "
    ):
        positive("gap_s", value, SessionError)
    with pytest.raises(DataError, match=r"^rate_hz must be a number of Hz from 0 on, found "):
        from_zero("rate_hz", value)


def test_zero_is_not_above_zero():
    assert from_zero("max_drift", 0) == 0.0
    with pytest.raises(DataError, match=r"^max_drift must be a number above 0, found 0$"):
        positive("max_drift", 0)


@pytest.mark.parametrize("value", ["c", None, 1, ["a"]])
def test_choices_are_listed(value):
    one_of("method", "a", ("a", "b"))
    with pytest.raises(DataError, match=r"^method must be one of 'a', 'b', found "):
        one_of("method", value, ("a", "b"))


@pytest.mark.parametrize("value", [2, np.int64(2), np.uint8(8)])
def test_whole_numbers_between_two_others_become_ints(value):
    found = integer("order", value, 2, 8)
    assert (type(found), found) == (int, value)


@pytest.mark.parametrize("value", [1, 9, 2.0, "2", True, None, [2]])
def test_what_is_no_such_whole_number_is_named(value):
    with pytest.raises(
        SessionError, match=r"^order must be a whole number from 2 to 8, found "
    ):
        integer("order", value, 2, 8, SessionError)


def test_whole_numbers_without_a_greatest():
    assert integer("repeat", 10**20, 1) == 10**20
    with pytest.raises(DataError, match=r"^repeat must be a whole number from 1 on, found 0"):
        integer("repeat", 0, 1)
