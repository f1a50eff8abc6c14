"""``ds.ws`` on objects without a kind of their own: kind, summary, validate, plot."""

import sys

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import labtree


def test_kind_and_summary_of_plain_objects():
    array = xr.DataArray(np.zeros((2, 3), "f4"), dims=("unit", "time"))
    assert array.ws.kind == "dataarray"
    expected = {"dims": ["unit", "time"], "shape": [2, 3], "dtype": "float32"}
    assert array.ws.summary() == expected
    dataset = xr.Dataset({"a": array})
    assert dataset.ws.kind == "dataset"
    assert dataset.ws.summary() == {"sizes": {"unit": 2, "time": 3}, "variables": ["a"]}


def test_validate_names_the_part_that_cannot_be_kept():
    xr.Dataset({"a": ("x", [1])}).ws.validate()
    xr.DataArray([1], dims="x").ws.validate()
    bad = xr.Dataset({"a": ("x", [1])}, attrs={"model": {"callback": print}})
    with pytest.raises(
        labtree.UnsupportedTypeError, match=r"ds\.attrs\['model'\]\['callback'\]"
    ):
        bad.ws.validate()
    sparse = xr.Dataset({"c": ("x", pd.arrays.SparseArray([0, 1]))})
    with pytest.raises(TypeError, match=r"ds\['c'\]: cannot keep pandas' Sparse"):
        sparse.ws.validate()


@pytest.mark.parametrize("shape", [(4,), (4, 3)])
def test_plots_of_arrays_and_of_datasets_with_one(shape):
    dims = ("time", "unit")[: len(shape)]
    array = xr.DataArray(np.random.default_rng(0).random(shape), dims=dims, name="rate")
    for drawable in (array, array.to_dataset()):
        axes = drawable.ws.plot()
        assert "time" in axes.get_xlabel() + axes.get_ylabel()


def test_each_array_of_a_dataset_has_axes_of_its_own():
    dataset = xr.Dataset(
        {
            "a": ("x", [1.0, 2.0]),
            "b": (("x", "y"), np.eye(2)),
            "cube": (("x", "y", "z"), np.zeros((2, 2, 2))),
            "text": ("x", ["p", "q"]),
        }
    )
    first, second = dataset.ws.plot()
    assert first.get_ylabel() == "a"
    assert first.lines[0].get_ydata().tolist() == [1.0, 2.0]
    np.testing.assert_array_equal(second.collections[0].get_array().reshape(2, 2), np.eye(2))


def test_a_single_value_is_no_picture():
    with pytest.raises(ValueError, match="nothing to draw"):
        xr.DataArray([1.0], dims="x").ws.plot()
    with pytest.raises(ValueError, match="nothing to draw"):
        xr.Dataset({"a": ("x", [1.0])}).ws.plot()


def test_several_arrays_do_not_fit_into_one_axes_and_many_not_into_a_figure():
    two = xr.Dataset({"a": ("x", [1.0, 2.0]), "b": ("x", [2.0, 3.0])})
    axes = two["a"].ws.plot()
    with pytest.raises(ValueError, match=r"arrays \['a', 'b'\]; name one: ds\['a'\]\.ws\.plot"):
        two.ws.plot(ax=axes)
    many = xr.Dataset({f"v{n}": ("x", [1.0, 2.0]) for n in range(11)})
    with pytest.raises(ValueError, match=r"name one: ds\['v0'\]\.ws\.plot"):
        many.ws.plot()


def test_without_matplotlib_the_error_says_how_to_get_it(monkeypatch):
    for module in ("matplotlib", "matplotlib.pyplot"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "labtree\[plot\]"'):
        xr.DataArray([1.0], dims="x").ws.plot()
