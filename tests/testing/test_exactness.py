"""The comparison that the other tests rest on sees every kind of difference."""

import datetime as dt
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings

from support import strategies
from support.exactness import assert_same
from support.examples import examples

ONE = xr.Dataset({"v": ("x", [1.0, 2.0], {"u": 1})}, {"x": [1, 2]}, {"a": 1})
FRAME = pd.DataFrame({"a": [1, 2], "b": ["x", None]}, index=pd.Index([3, 4], name="i"))
NAN = np.array([0x7FF8000000000001], np.uint64).view(np.float64)
INDEX = pd.MultiIndex.from_product([["a", "b"], [1, 2]])

DIFFERENT = {
    "type": (1, True),
    "int and float": (1, 1.0),
    "numpy and Python": (np.float64(1), 1.0),
    "sign of zero": (0.0, -0.0),
    "NaN payload": (float(NAN[0]), float("nan")),
    "complex sign": (0j, complex(0.0, -0.0)),
    "list and tuple": ([1], (1,)),
    "length": ([1], [1, 2]),
    "inside": ({"a": [1, (2,)]}, {"a": [1, (3,)]}),
    "keys": ({1: 0}, {True: 0}),
    "order of keys": ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    "sets": ({1}, {True}),
    "nested sets": ({frozenset({1})}, {frozenset({1.0})}),
    "NA": (pd.NA, None),
    "fold": (dt.datetime(2024, 1, 1), dt.datetime(2024, 1, 2)),
    "dtype": (np.arange(2, dtype="i4"), np.arange(2, dtype="i8")),
    "byte order": (np.arange(2, dtype=">i4"), np.arange(2, dtype="<i4")),
    "shape": (np.zeros((2, 1)), np.zeros((1, 2))),
    "bits": (NAN, np.array([np.nan])),
    "objects": (np.array([1, "a"], object), np.array([1.0, "a"], object)),
    "fields": (np.zeros(1, "i4,f8"), np.ones(1, "i4,f8")),
    "alignment": (np.zeros(1, np.dtype("i4,i4", align=True)), np.zeros(1, "i4,i4")),
    "unit": (np.zeros(1, "M8[s]"), np.zeros(1, "M8[ms]")),
    "mask": (np.ma.array([1, 2], mask=[0, 1]), np.ma.array([1, 2], mask=[1, 1])),
    "under the mask": (np.ma.array([1], mask=[1]), np.ma.array([2], mask=[1])),
    "fill value": (np.ma.array([1], fill_value=5), np.ma.array([1], fill_value=6)),
    "dataset attribute": (ONE, ONE.assign_attrs(a=2)),
    "variable attribute": (ONE, ONE.assign(v=ONE.v.assign_attrs(u=2))),
    "values": (ONE, ONE + 1),
    "name": (ONE, ONE.rename(v="w")),
    "dimension": (ONE.drop_vars("x"), ONE.drop_vars("x").rename(x="y")),
    "coordinate or variable": (
        ONE.assign_coords(z=1), ONE.assign(z=1)),
    "index": (ONE, ONE.drop_indexes("x")),
    "order of variables": (ONE[["v"]].assign(w=1), ONE.assign(w=1)[["w", "v"]]),
    "array name": (ONE.v, ONE.v.rename("w")),
    "tree": (xr.DataTree.from_dict({"/a": ONE}), xr.DataTree.from_dict({"/b": ONE})),
    "tree attributes": (xr.DataTree(ONE), xr.DataTree(ONE.assign_attrs(a=2))),
    "column dtype": (FRAME, FRAME.astype({"a": "Int64"})),
    "column value": (FRAME, FRAME.assign(a=[1, 3])),
    "column label": (FRAME, FRAME.rename(columns={"a": "c"})),
    "index name": (FRAME, FRAME.rename_axis("j")),
    "index class": (FRAME.reset_index(drop=True), FRAME.set_axis(pd.Index([0, 1]))),
    "frame attrs": (FRAME, FRAME.assign().pipe(lambda f: setattr(f, "attrs", {"a": 1}) or f)),
    "flags": (FRAME, FRAME.set_flags(allows_duplicate_labels=False)),
    "series name": (FRAME["a"], FRAME["a"].rename("b")),
    "missing text": (pd.Series(["a", None]), pd.Series(["a", "None"])),
    "categories": (
        pd.Series(pd.Categorical(["a"], ["a", "b"])),
        pd.Series(pd.Categorical(["a"], ["a", "c"])),
    ),
    "ordered": (
        pd.Series(pd.Categorical(["a"], ordered=True)),
        pd.Series(pd.Categorical(["a"])),
    ),
    "missing": (pd.Series([1, None], dtype="Int8"), pd.Series([1, 0], dtype="Int8")),
    "zone": (
        pd.Series(pd.date_range("2024", periods=1, tz="UTC")),
        pd.Series(pd.date_range("2024", periods=1, tz="Europe/Berlin")),
    ),
    "frequency": (
        pd.Series([1, 2, 3], pd.date_range("2024", periods=3)),
        pd.Series([1, 2, 3], pd.DatetimeIndex(list(pd.date_range("2024", periods=3)))),
    ),
    "closed": (
        pd.Series(pd.interval_range(0, 2)),
        pd.Series(pd.interval_range(0, 2, closed="left")),
    ),
    "period": (
        pd.Series(pd.period_range("2024", periods=1, freq="D")),
        pd.Series(pd.period_range("2025", periods=1, freq="D")),
    ),
    "levels": (pd.Series(1, INDEX[:2]), pd.Series(1, INDEX[:2].remove_unused_levels())),
    "codes": (pd.Series(1, INDEX), pd.Series(1, INDEX[::-1])),
}  # fmt: skip


@pytest.mark.parametrize("case", DIFFERENT)
def test_differences_are_seen_in_both_directions(case):
    first, second = DIFFERENT[case]
    for a, b in ((first, second), (second, first)):
        assert_same(a, a)
        with pytest.raises(AssertionError, match=r"^obj.* expected, .* found"):
            assert_same(a, b)


def test_the_message_has_the_path():
    with pytest.raises(AssertionError, match=r"^it\['a'\]\[0\]: int16 expected, int32"):
        assert_same({"a": [np.int32(1)]}, {"a": [np.int16(1)]}, "it")


@settings(max_examples=examples(25))
@given(strategies.objects())
def test_everything_is_the_same_as_itself(obj):
    assert_same(obj, obj)


def test_the_room_is_imported_without_hypothesis():
    code = "import sys, support.exactness; assert 'hypothesis' not in sys.modules"
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)}
    )


def test_padding_of_long_doubles_is_no_value():
    value = np.array([1 / np.longdouble(3)])
    other = value.copy()
    if value.dtype.itemsize == 16 and np.finfo(np.longdouble).nmant == 63:
        other.view(np.uint8)[10:] ^= 0xFF
    assert_same(other, value)
    other.view(np.uint8)[0] ^= 1
    with pytest.raises(AssertionError):
        assert_same(other, value)
