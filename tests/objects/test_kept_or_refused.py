"""Every sort of object comes back exactly from both kinds of file, or is refused when stored.

What one store takes, no save may refuse: a save holds the whole workspace.
"""

import collections
import datetime
import decimal
import pathlib
import zoneinfo

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import labtree
from support.exactness import assert_same

_DTYPES = [
    "i1", "u8", ">i2", "f2", "f4", ">f8", "g", "F", "D", "G", "?", "S0", "S3", "U0", "U4",
    ">U3", "V3", "M8[Y]", "M8[M]", "M8[W]", "M8[D]", "M8[25m]", "M8[s]", "M8[ns]", "M8[as]",
    "M8", "m8", "m8[Y]", "m8[7s]", ">M8[s]",
]  # fmt: skip
_FREQUENCIES = ["D", "B", "3h", "us", "W-WED", "ME", "QE-FEB", "SMS-2", "bh", "WOM-2TUE", "-1D"]
_PERIODS = ["D", "W-WED", "M", "Q-FEB", "Y-JUN", "h", "2D"]


def _of_dtype(dtype, shape):
    count = int(np.prod(shape))
    kind = np.dtype(dtype).kind
    if kind in "MmV":
        return np.zeros(shape, dtype)
    return np.arange(count).reshape(shape).astype(dtype)


def _dates(freq):
    return pd.date_range("2000-01-03", periods=2, freq=freq)


def _stacked():
    data = xr.Dataset({"a": (("x", "y"), np.zeros((2, 2)))}, {"x": ["b", "a"], "y": [1, 2]})
    return data.stack(z=("x", "y"))


def _attributes(attrs):
    return xr.Dataset({"a": ("x", [1.5], attrs)}, attrs=attrs)


def _encoded():
    dataset = xr.Dataset({"a": ("x", [1.5, 2.5])})
    dataset["a"].encoding = {"dtype": "i2", "scale_factor": 0.1, "zlib": True, "other": print}
    dataset.encoding = {"unlimited_dims": {"x"}, "other": object()}
    return dataset


def _index(values):
    return xr.Dataset({"v": ("x", np.arange(len(values)))}, {"x": values})


KEPT = {
    **{f"{d} {s}": _of_dtype(d, s) for d in _DTYPES for s in [(), (3,), (2, 0)]},
    **{f"frame by {freq}": pd.DataFrame({"a": [1, 2]}, _dates(freq)) for freq in _FREQUENCIES},
    **{f"coordinate by {freq}": _index(_dates(freq)) for freq in _FREQUENCIES},
    **{
        f"periods of {freq}": pd.Series(pd.period_range("2000", periods=2, freq=freq))
        for freq in _PERIODS
    },
    **{f"coordinate of {d}": _index(_of_dtype(d, (3,))) for d in ("?", "S3", "U4", "D")},
    "structured": np.zeros(2, [("a", "i4"), ("b", [("c", "f8", (2,)), ("d", "S3")])]),
    "masked": np.ma.array([1, 2], mask=[0, 1]),
    "masked texts": np.ma.array(["a", "b"], mask=[0, 1]),
    "surrogates": np.array(["\ud800a"]),
    "texts that end in NUL": np.array(["a\0b", "a\0"], object),
    "texts with gaps": np.array(["a", None, "é"], object),
    "mixed": np.array([1, "a", None, 2.5, b"x", (1, 2), [3], {"a": 1}, {1}, 10**400], object),
    "one object": np.array(None, object),
    "one text": np.array("abc", object),
    "StringDType": np.array(["a", "é", ""], np.dtypes.StringDType()),
    "keys": {1: 1, (1, 2): 2, None: 3, 1.5: 4, "": 6, "a/b": 7, "$x": 8, b"k": 9},
    "arrays by keys": {(1, "a"): np.arange(3), "k" * 400: np.arange(2), "k" * 401: np.eye(1)},
    "odd keys": {"a/b": np.arange(3), "a": {"b": np.arange(2)}, " ": np.arange(1), "\0": [1]},
    "numbers": [2**70, -0.0, float("inf"), 1 + 2j, True, None, 10**20000],
    "texts": ["", "é", "a\0", "\ud800", b"\xff", bytearray(b"a")],
    "times": [
        datetime.date(2000, 1, 1),
        datetime.datetime(2000, 1, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
        datetime.timedelta(1),
        pd.Timestamp("2000", tz="UTC"),
        pd.Timedelta(1),
        pd.NaT,
        np.datetime64("2000-01", "M"),
    ],
    "path": pathlib.PurePosixPath("a/b"),
    "range and slice": (range(3), slice(1, None), frozenset([1])),
    "numpy scalars": [np.float16(1), np.str_("a"), np.void(b"ab"), np.longdouble(1) / 3],
    "nullable": pd.DataFrame({"a": pd.array([1, None], "Int8"), "b": pd.array([None, True])}),
    "category": pd.Series(pd.Categorical([3, 1, None], [3, 2, 1], ordered=True)),
    "category of dates": pd.Series(pd.Categorical(pd.to_datetime(["2000", "2001"]))),
    "zoned": pd.Series(pd.date_range("2000", periods=2, tz="America/New_York")),
    "fixed offset": pd.Series(pd.to_datetime(["2000-01-01T00:00+05:30"])),
    "intervals": pd.Series(pd.interval_range(pd.Timestamp("2000"), periods=2, closed="both")),
    "levels": pd.DataFrame({"a": [1, 2]}, pd.MultiIndex.from_tuples([("b", 1), ("a", None)])),
    "columns": pd.DataFrame([[1, 2, 3]], columns=["a", "a", None]),
    "no columns": pd.DataFrame(index=[1, 2]),
    "cells": pd.DataFrame({"a": [[1, 2], np.arange(3), {"a": 1}, None, "t"]}),
    "name": pd.Series([1], name=(1, "a")),
    "names": xr.Dataset(
        {n: i for i, n in enumerate((1, None, ("a", 1), "a/b", "", ".", "..", " ", "é",
                                     "e\u0301", "_%2E", "%", "nul\0", "x" * 300, "x" * 301,
                                     "E", "e"))}
    ),
    "dimensions": xr.DataArray(np.zeros((1, 2)), dims=("a/b", 1), name=3),
    "attributes of netCDF": _attributes(
        {"CLASS": "x", "NAME": "y", "_FillValue": 4, "scale_factor": 2, "dtype": "bool",
         "units": "seconds since 2000-01-01", "calendar": "noleap", "coordinates": "z"}
    ),
    "attributes": _attributes(
        {"a": None, "b": True, "c": np.arange(3), "d": np.eye(2), "e": 2**70, "f": (1, "a"),
         "g": {1: 2}, "h": b"\xff", "i": "", "j": 1j, "k": np.float16(1), "a/b": 1, "l": "a\0b"}
    ),
    "encodings": _encoded(),
    "stacked": _stacked(),
    "index of mixed": _index(np.array(["a", 1], object)),
    "index with a gap": _index(np.array(["a", None], object)),
    "index of texts alike": _index(["a", "a"]),
    "binned": _index([1, 2, 3]).groupby_bins("x", 2).mean(),
    "coordinates without index": _index([1, 2]).drop_indexes("x"),
    "array called like its coordinate": xr.DataArray([1], {"lfp": ("x", [1])}, "x", name="lfp"),
}  # fmt: skip


@pytest.mark.parametrize("ending", [".h5", ".zarr"])
def test_what_is_stored_is_saved_and_comes_back(tmp_path, ending):
    tree = labtree.create_workspace()
    for name, obj in KEPT.items():
        tree.ws.store("n", name, obj)
    found = labtree.load_workspace(tree.ws.save(tmp_path / f"w{ending}"))
    assert found.ws.list_keys("n") == list(KEPT)
    for name, obj in KEPT.items():
        assert_same(tree.ws["n", name], obj, name)
        assert_same(found.ws["n", name], obj, name)


class _Own:
    pass


def _holds_itself():
    values = []
    values.append(values)
    return values


def _own_index():
    class Own(xr.indexes.PandasIndex):
        pass

    return _index([1, 2]).drop_indexes("x").set_xindex("x", Own)


REFUSED = {
    "objects in a structure": np.zeros(2, [("a", "i4"), ("b", "O")]),
    "matrix": np.matrix([[1, 2]]),
    "recarray": np.rec.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
    "StringDType with NaN": np.array(["a"], np.dtypes.StringDType(na_object=np.nan)),
    "function": print,
    "module": np,
    "generator": (i for i in ()),
    "deque": collections.deque([1]),
    "ordered dict": collections.OrderedDict(a=1),
    "named tuple": collections.namedtuple("Pair", "a b")(1, 2),
    "decimal": decimal.Decimal(1),
    "zone": zoneinfo.ZoneInfo("UTC"),
    "period": pd.Period("2000", "M"),
    "sparse column": pd.DataFrame({"a": pd.arrays.SparseArray([0, 1])}),
    "frame in a cell": pd.DataFrame({"a": [pd.DataFrame({"b": [1]})]}),
    "own class": _Own(),
    "own class in a cell": pd.DataFrame({"a": [_Own()]}),
    "own class in an attribute": _attributes({"a": [1, {"b": _Own()}]}),
    "own class as a name": xr.Dataset({_Own: 1}),
    "itself": _holds_itself(),
    "variable": xr.Variable("x", [1]),
    "index of one's own": _own_index(),
    "index that is no coordinate's": xr.Dataset(coords={"y": ("x", [1, 2])}).set_xindex("y"),
    "exception": ValueError("a"),
    "open file": pathlib.Path(__file__).open(),  # noqa: SIM115, only its type counts
    "rolling": xr.DataArray([1, 2]).rolling(dim_0=2),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_kept_is_refused_with_its_path_and_what_to_do(name):
    tree = labtree.create_workspace()
    tree.ws.store("n", "k", 1)
    with pytest.raises((TypeError, ValueError), match=r"n/k.*: ") as caught:
        tree.ws.store("n", "k", REFUSED[name])
    assert isinstance(caught.value, labtree.LabtreeError)
    assert any(word in str(caught.value) for word in ("; write ", "; store ", "; use "))
    assert tree.ws["n", "k"] == 1
