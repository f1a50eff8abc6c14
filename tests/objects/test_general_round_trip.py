"""Every general kind comes back to the last bit: from memory, a file, a walked file."""

import enum
from collections import OrderedDict, namedtuple

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings

from labtree.errors import FormatError
from labtree.objects import registry
from labtree.storage import open_tree, save_tree
from support import strategies
from support.exactness import assert_same
from support.examples import examples

KINDS = [
    strategies.arrays,
    strategies.masked_arrays,
    strategies.series,
    strategies.dataframes,
    strategies.dataarrays,
    strategies.datasets,
    strategies.values,
]


def _check(obj, path, cut):
    kind, dataset = registry.encode(obj)
    assert_same(registry.decode(kind, dataset), obj, "memory")
    save_tree(xr.DataTree.from_dict({"/item": dataset}), path)
    for how in ("catalogue", "walked"):
        tree = open_tree(path)
        opened = tree["item"].to_dataset()
        assert opened.attrs["labtree_kind"] == kind
        assert_same(registry.decode(kind, opened), obj, how)
        tree.close()
        if how == "catalogue":
            cut(path)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_what_is_stored_comes_back(kind, tmp_path, cut_catalogue):
    @settings(max_examples=examples(25))
    @given(kind())
    def check(obj):
        _check(obj, tmp_path / "item.h5", cut_catalogue)

    check()


NAN = np.array([0x7FF8DEAD00000001, 0xFFF8000000000002], np.uint64).view(np.float64)
CASES = {
    "integers": [2**53 + 1, -(2**63), 2**64, 10**5000],
    "surrogate pair": "\ud83d\ude00",
    "surrogate pair in a key": {"\ud83d\ude00": 1, "😀": 2},
    "dollar keys": {"$tuple": [1], "$dict": {}, "plain": ()},
    "empty numpy text": [np.str_(""), np.bytes_(b""), np.str_("é")],
    "NaN payloads": {"array": NAN, "scalar": float(NAN[1]), "numpy": NAN[0]},
    "True and 1": {"a": [True, 1, 1.0, np.True_, np.int64(1)]},
    "keys": {1: "int", "1": "str", (1, (2,)): "tuple", None: "none", frozenset({1}): 0},
    "tables inside": {"a": [pd.DataFrame({"x": [1, 2]}), pd.Series([1.0], name="s")]},
    "names that clash": {"a.b": np.arange(2), "a": {"b": np.arange(3)}, "a[b": np.arange(4)},
    "names that clash with those of masks": {
        "a": np.ma.array([1, 2], mask=[False, True]),
        "a.mask": np.array([True, True]),
    },
    "names that clash with those of datasets": {
        "b": [xr.Dataset({"data": ("x", [1, 2]), "q": ("x", [3, 4])})],
        "b.0.q": np.arange(3),
        "b.0.x": np.ma.array([1], mask=[True]),
    },
    "strings": np.array([["a", "é"], ["", "x" * 50]], np.dtypes.StringDType()),
    "long and short texts": np.array(["x" * 200_000, "", "\ud800", "end\0"], object),
    "record": np.array([(1, 2.5, b"ab")], [("i", ">i2"), ("f", "f8", (2,)), ("s", "S2")]),
    "no items": [[], (), {}, set(), frozenset(), "", b""],
    "deep": [[[[[[[[{"x": ((((1,),),),)}]]]]]]]],
}


@pytest.mark.parametrize("case", CASES)
def test_cases_that_are_easily_lost(case, tmp_path, cut_catalogue):
    _check(CASES[case], tmp_path / "item.h5", cut_catalogue)


def test_memory_layout_and_unused_levels_do_not_matter(tmp_path, cut_catalogue):
    index = pd.MultiIndex.from_product([["a", "b"], [1, 2]], names=["k", None])[1:3]
    frame = pd.DataFrame({"x": [1, 2]}, index=index).set_flags(allows_duplicate_labels=False)
    _check(frame, tmp_path / "item.h5", cut_catalogue)
    _check(pd.DataFrame(index=range(3)), tmp_path / "item.h5", cut_catalogue)
    columns = pd.MultiIndex.from_tuples([("a", 1), ("a", 1)])
    _check(pd.DataFrame(np.eye(2), columns=columns), tmp_path / "item.h5", cut_catalogue)


@pytest.mark.parametrize(
    "dtype", ["?", ">i2", "f4", "c16", "S3", "U2", "M8[s]", "M8[25s]", "m8[D]", "m8[3D]", "V4"]
)
def test_a_masked_array_that_was_looked_at_comes_back(dtype, tmp_path):
    array = np.ma.MaskedArray(np.zeros(2, dtype), [True, False])
    _ = array.fill_value  # numpy sets its default, which need not fit the dtype
    kind, dataset = registry.encode(array)
    save_tree(xr.DataTree.from_dict({"/item": dataset}), tmp_path / "item.h5")
    with open_tree(tmp_path / "item.h5") as tree:
        back = registry.decode(kind, tree["item"].to_dataset())
    assert_same(np.asarray(back), np.asarray(array), dtype)
    assert np.ma.getmaskarray(back).tolist() == [True, False]
    assert np.array(back.fill_value).tolist() == np.array(array.fill_value).tolist()


@pytest.mark.parametrize(
    "dtype", [">i2", "<i2", ">f4", ">M8[s]", "S3", [("a", ">i2"), ("b", "f4")]]
)
def test_a_fill_value_that_was_chosen_comes_back(dtype, tmp_path, cut_catalogue):
    values = np.zeros(2, dtype)
    array = np.ma.MaskedArray(values, [True, False], fill_value=values[0])
    _check(array, tmp_path / "item.h5", cut_catalogue)


def test_the_order_of_variables_and_coordinates_is_kept(tmp_path, cut_catalogue):
    dataset = xr.Dataset({"v": (("y", "x"), np.ones((2, 3)))})
    dataset = dataset.assign_coords(xr.Coordinates({"b": ("y", [1, 2])}, indexes={}))
    dataset = dataset.assign_coords(x=[3, 1, 2])
    dataset = dataset.assign_coords(xr.Coordinates({"a": ("x", [1, 2, 3])}, indexes={}))
    assert list(dataset.coords) == ["b", "x", "a"]
    _check(dataset, tmp_path / "item.h5", cut_catalogue)


def test_encoding_does_not_change_values(tmp_path, cut_catalogue):
    dataset = xr.Dataset({"v": ("x", [1.5, np.nan])})
    dataset.v.encoding = {"dtype": "int16", "scale_factor": 0.1, "_FillValue": -1}
    _check(dataset, tmp_path / "item.h5", cut_catalogue)


def test_a_copy_is_stored_and_a_copy_is_given():
    array = np.arange(3)
    kind, dataset = registry.encode({"a": array})
    array[0] = 9
    first = registry.decode(kind, dataset)
    first["a"][1] = 9
    assert registry.decode(kind, dataset)["a"].tolist() == [0, 1, 2]


class Color(enum.IntEnum):
    RED = 1


Point = namedtuple("Point", "x y")
LOOP: list = []
LOOP.append(LOOP)
REFUSED = {
    "obj['a'][1]: cannot keep a set_iterator exactly; write list(x)": {"a": [0, iter({1})]},
    "obj['f']: cannot keep a function exactly; store its result, or x.__qualname__": {
        "f": _check
    },
    f"obj: cannot keep a {__name__}.Color exactly; write x.value": Color.RED,
    f"obj[0]: cannot keep a {__name__}.Point exactly; write x._asdict(), or tuple(x)": [
        Point(1, 2)
    ],
    "obj: cannot keep a collections.OrderedDict exactly; write dict(x)": OrderedDict(a=1),
    "obj: cannot keep nesting this deep, or a value that holds itself, exactly; store its "
    "parts as items of their own": LOOP,
    "obj.flat[1]: cannot keep an object exactly; store its content as a number, text, "
    "an array, or a list or dict of these": np.array([None, object()]),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_kept_is_refused_with_its_path(message):
    with pytest.raises(TypeError) as caught:
        registry.encode(REFUSED[message])
    assert str(caught.value) == message


def test_pandas_and_numpy_parts_that_are_refused():
    frame = pd.DataFrame({"s": pd.arrays.SparseArray([0, 0, 1])})
    with pytest.raises(TypeError, match=r"obj\['s'\]: cannot keep pandas' Sparse.*astype"):
        registry.encode(frame)
    with pytest.raises(TypeError, match=r"cannot keep a .*Special exactly"):
        registry.encode(type("Special", (pd.DataFrame,), {})({"x": [1]}))
    with pytest.raises(
        TypeError, match=r"obj: cannot keep a numpy.rec.recarray|cannot keep a numpy.recarray"
    ):
        registry.encode(np.zeros(1, [("a", "i4")]).view(np.recarray))
    with pytest.raises(TypeError, match=r"missing value of its own"):
        registry.encode(np.array(["a"], np.dtypes.StringDType(na_object=None)))
    with pytest.raises(TypeError, match=r"obj\['x'\].attrs\['f'\]: cannot keep"):
        registry.encode(xr.Dataset({"x": ((), 1, {"f": print})}))


def test_what_stands_for_nothing_any_more_is_a_format_error():
    kind, dataset = registry.encode(pd.DataFrame({"x": [1]}))
    broken = dataset.assign_attrs(labtree_frame="{")
    with pytest.raises(FormatError, match="what is stored is no dataframe any more: JSON"):
        registry.decode(kind, broken)


def test_summaries_are_json_and_read_nothing():
    arr = xr.DataArray(np.zeros((2, 3), "f4"), dims=["u", "t"], name="r")
    summaries = {
        "ndarray": (np.zeros((2, 0), ">i2"), {"shape": [2, 0], "dtype": ">i2"}),
        "dataarray": (arr, {"dims": ["u", "t"], "shape": [2, 3], "dtype": "float32"}),
        "dataset": (arr.to_dataset(), {"sizes": {"u": 2, "t": 3}, "variables": ["r"]}),
        "dataframe": (pd.DataFrame({"a": [1]}), {"shape": [1, 1], "columns": ["a"]}),
        "series": (pd.Series([1.5]), {"shape": [1], "dtype": "float64"}),
        "dict": ({"a": 1, "b": 2}, {"keys": ["a", "b"]}),
        "tuple": ((1, 2), {"length": 2}),
        "list": ([1, 2, 3], {"length": 3}),
        "str": ("x" * 100, {"value": "x" * 59 + "…"}),
        "complex": (1j, {"value": "1j"}),
    }
    for name, (obj, expected) in summaries.items():
        kind, dataset = registry.encode(obj)
        assert kind == name
        assert registry.kind_named(kind).summary(dataset) == expected
    assert registry.summary(arr) == summaries["dataarray"][1]
    assert registry.kind_of(arr) == "dataarray"


def test_validate_and_plot_say_what_is_wrong():
    with pytest.raises(TypeError, match=r"ds\['x'\]"):
        registry.validate(xr.Dataset({"x": ("y", pd.arrays.SparseArray([0]))}))
    registry.validate(xr.Dataset({"x": ("y", [1])}))
    two = xr.Dataset({"a": ("x", [1, 2]), "b": ("x", [2, 3])})
    with pytest.raises(ValueError, match=r"with the arrays \['a', 'b'\]; name one"):
        registry.plot(two, ax=object())


def test_kinds_are_registered_once():
    with pytest.raises(ValueError, match="there is a kind 'ndarray' already"):
        registry.register_kind("ndarray")
    assert registry.is_known("dataset")
    assert not registry.is_known("nothing")
    assert registry.kind_named("nothing").name == "dataset"
