"""What is kept beyond arrays and tables: indexes, paths, frequencies, sparse arrays, trees."""

import pathlib

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from pandas.tseries import offsets

import labtree
from labtree.objects import registry


def kept(obj, tmp_path=None, ending=".h5"):
    """Store an object, save it where there is a path, and give it back."""
    tree = labtree.create_workspace()
    tree.ws.store("n", "k", obj)
    if tmp_path is None:
        return tree.ws["n", "k"]
    return labtree.load_item(tree.ws.save(tmp_path / f"w{ending}"), "n", "k")


INDEXES = {
    "range": pd.RangeIndex(3, 9, 2, name="r"),
    "numbers": pd.Index([1.5, np.nan], name=("a", 1)),
    "texts": pd.Index(["b", "a"]),
    "texts with a gap": pd.Index(["b", None]),
    "texts of objects with a gap": pd.Index(["b", None], dtype=object),
    "one long text": pd.Index(["b" * 500, *"acdefghijk"], dtype=object),
    "one long text and a gap": pd.Index(["b" * 500, None, *"cdefghijk"], dtype=object),
    "objects": pd.Index([1, "a", None], dtype=object),
    "dates": pd.date_range("2000", periods=3, freq="D", tz="Europe/Berlin"),
    "timedeltas": pd.timedelta_range("1s", periods=3, freq="s"),
    "periods": pd.period_range("2000-01", periods=3, freq="M"),
    "intervals": pd.interval_range(0.0, 3.0, closed="left"),
    "categories": pd.CategoricalIndex(["b", "a", "b"], ["b", "a", "c"], ordered=True),
    "nullable": pd.Index([1, None], dtype="Int64"),
    "levels": pd.MultiIndex.from_product([["b", "a"], [2, 1]], names=["x", None]),
    "levels in their order": pd.MultiIndex(
        levels=[pd.CategoricalIndex(["z", "b", "a"]), [1, 2]],
        codes=[[1, -1, 1], [0, 1, 0]],
        names=["l", "n"],
    ),
}


@pytest.mark.parametrize("name", INDEXES)
def test_an_index_comes_back(name, tmp_path):
    index = INDEXES[name]
    for back in (kept(index), kept(index, tmp_path)):
        pd.testing.assert_index_equal(back, index, exact=True)
        assert type(back) is type(index)
        assert getattr(back, "freq", None) == getattr(index, "freq", None)
        if isinstance(index, pd.MultiIndex):
            for mine, theirs in zip(back.levels, index.levels, strict=True):
                pd.testing.assert_index_equal(mine, theirs, exact=True)


ARRAYS = {
    "category": pd.Categorical(["b", None, "a"], ["b", "a"], ordered=True),
    "Int8": pd.array([1, None, 3], dtype="Int8"),
    "boolean": pd.array([True, None], dtype="boolean"),
    "Float32": pd.array([1.5, None], dtype="Float32"),
    "string": pd.array(["a", None, ""], dtype="string"),
    "texts": pd.array(["a", None, ""], dtype="str"),
    "dates": pd.array(pd.date_range("2000", periods=2)),
    "zoned": pd.array(pd.date_range("2000", periods=2, tz="UTC")),
    "timedeltas": pd.array(pd.timedelta_range("1s", periods=2)),
    "periods": pd.array(pd.period_range("2000", periods=2, freq="Y")),
    "intervals": pd.arrays.IntervalArray.from_breaks([0, 1, 2]),
    "numpy": pd.array(np.array([1.5, 2.5])),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_of_pandas_comes_back(name, tmp_path):
    array = ARRAYS[name]
    for back in (kept(array), kept(array, tmp_path)):
        assert type(back) is type(array)
        pd.testing.assert_series_equal(pd.Series(back), pd.Series(array))


@pytest.mark.parametrize("name", INDEXES)
def test_an_index_is_kept_as_a_coordinate(name, tmp_path):
    index = INDEXES[name]
    if isinstance(index, pd.MultiIndex):
        index = index.rename(["l", "n"])
        coords = xr.Coordinates.from_pandas_multiindex(index, "x")
    else:
        coords = {"x": ("x", index, {"about": name})}
    dataset = xr.Dataset({"v": ("x", np.arange(len(index)))}, coords, {"a": 1})
    for back in (kept(dataset), kept(dataset, tmp_path), kept(dataset, tmp_path, ".zarr")):
        xr.testing.assert_identical(back, dataset)
        assert list(back.variables) == list(dataset.variables)
        mine, theirs = back.indexes["x"], dataset.indexes["x"]
        assert mine.dtype == theirs.dtype
        if isinstance(index, pd.MultiIndex):
            for one, other in zip(mine.levels, theirs.levels, strict=True):
                pd.testing.assert_index_equal(one, other, exact=True)


@pytest.mark.parametrize(
    "name",
    ["category", "Int8", "boolean", "string", "texts", "zoned", "intervals", "periods"],
)
def test_an_array_of_pandas_is_kept_in_a_dataset(name, tmp_path):
    array = ARRAYS[name]
    dataset = xr.Dataset(
        {"v": ("x", array, {"units": "1"}), "w": ("x", np.arange(len(array)))},
        {"c": ("x", array)},
    )
    for back in (kept(dataset), kept(dataset, tmp_path)):
        for part in ("v", "c"):
            assert back[part].dtype == dataset[part].dtype
            pd.testing.assert_series_equal(back[part].to_series(), dataset[part].to_series())
        assert back["v"].attrs == {"units": "1"}
        assert list(back.variables) == list(dataset.variables)
        assert set(back.coords) == {"c"}


def test_a_variable_may_be_called_order(tmp_path):
    dataset = xr.Dataset(
        {"order": ("x", pd.array([1, None, 3], "Int64")), "v": ("x", pd.array([True] * 3))}
    )
    for back in (kept(dataset), kept(dataset, tmp_path)):
        xr.testing.assert_identical(back, dataset)
        assert list(back.variables) == ["order", "v"]


def test_a_range_of_xarray_is_kept_as_a_range(tmp_path):
    index = xr.indexes.RangeIndex.arange(0.0, 1.0, 0.1, dim="time")
    dataset = xr.Dataset({"v": ("time", np.arange(10))}).assign_coords(
        xr.Coordinates.from_xindex(index)
    )
    dataset["time"].attrs["units"] = "s"
    for back in (kept(dataset), kept(dataset, tmp_path)):
        found = back.xindexes["time"]
        assert type(found) is xr.indexes.RangeIndex
        assert (found.start, found.stop, found.size) == (0.0, 1.0, 10)
        assert back.time.values.tolist() == dataset.time.values.tolist()
        assert back.time.attrs == {"units": "s"}


def test_a_stored_category_can_be_read_by_others():
    tree = labtree.create_workspace()
    frame = pd.DataFrame({"side": pd.Categorical(["left", None, "far right"])})
    tree.ws.store("n", "k", frame)
    node = tree["n/k"].to_dataset()
    assert node.side.attrs["flag_meanings"] == "far_right left"
    assert node.side.attrs["flag_values"].tolist() == [0, 1]
    assert node.side_categories.dims != node.side.dims
    equally_long = pd.DataFrame({"side": pd.Categorical(["a", "b"])})
    tree.ws.store("n", "l", equally_long)
    node = tree["n/l"].to_dataset()
    assert node.side_categories.dims != node.side.dims


def test_a_stored_text_column_has_its_missing_values_beside_it():
    tree = labtree.create_workspace()
    tree.ws.store("n", "k", pd.DataFrame({"t": ["a", None]}))
    node = tree["n/k"].to_dataset()
    assert node.t.values.tolist() == ["a", ""]
    assert node.t.attrs["ancillary_variables"] == "t_missing"
    assert node.t_missing.values.tolist() == [False, True]


FREQUENCIES = [
    offsets.DateOffset(months=1),
    offsets.DateOffset(hours=3),
    offsets.CustomBusinessDay(weekmask="Mon Wed Fri"),
    offsets.CustomBusinessDay(holidays=["2000-01-04"]),
    offsets.Easter(),
    offsets.Week(),
    offsets.Week(weekday=2),
    offsets.CustomBusinessMonthEnd(weekmask="Mon Tue"),
    offsets.BusinessHour(start="09:30"),
    offsets.CustomBusinessHour(start="10:00", end="14:00"),
    offsets.MonthEnd(normalize=True),
    offsets.MonthEnd(2),
    offsets.QuarterEnd(startingMonth=2),
    offsets.FY5253(weekday=4, startingMonth=8),
    offsets.Day(3),
    offsets.Milli(250),
]


@pytest.mark.parametrize("freq", FREQUENCIES, ids=repr)
def test_every_frequency_of_pandas_is_kept(freq, tmp_path):
    index = pd.date_range("2000-01-03", periods=3, freq=freq)
    frame = pd.DataFrame({"a": range(3)}, index=index)
    back = kept(frame, tmp_path)
    assert back.index.freq == index.freq
    pd.testing.assert_frame_equal(back, frame)


def test_texts_of_stacked_dimensions_keep_their_dtype(tmp_path):
    plain = xr.Dataset({"v": (("x", "y"), np.eye(2))}, {"x": ["bb", "a"], "y": [2, 1]})
    stacked = plain.stack(z=("x", "y"))
    assert stacked["x"].dtype == "<U2"
    for back in (kept(stacked), kept(stacked, tmp_path), kept(stacked, tmp_path, ".zarr")):
        assert back["x"].dtype == "<U2"
        xr.testing.assert_identical(back, stacked)
        xr.testing.assert_identical(back.unstack("z"), stacked.unstack("z"))


@pytest.mark.parametrize("ending", [".h5", ".zarr"])
@pytest.mark.parametrize("freq", ["B", "2D", offsets.CustomBusinessDay(weekmask="Mon Wed")])
def test_a_coordinate_keeps_its_frequency(freq, ending, tmp_path):
    times = pd.date_range("2000-01-03", periods=3, freq=freq)
    ages = pd.timedelta_range("1s", periods=2, freq="s")
    dataset = xr.Dataset(
        {"v": ("t", [1, 2, 3])}, {"t": ("t", times, {"by": "me"}), "age": ages}
    )
    back = kept(dataset, tmp_path, ending)
    xr.testing.assert_identical(back, dataset)
    assert list(back.variables) == list(dataset.variables)
    assert back.indexes["t"].freq == times.freq
    assert back.indexes["age"].freq == ages.freq


def test_a_node_that_xarray_changed_is_given_back_as_it_is_now():
    times = pd.date_range("2000-01-03", periods=3, freq="D")
    tree = labtree.create_workspace()
    tree.ws.store("n", "k", xr.Dataset({"v": ("t", [1, 2, 3])}, {"t": times}))
    shuffled = tree["n/k"].to_dataset().isel(t=[0, 2, 1]).assign(new=4)
    tree["n/k"].dataset = shuffled
    back = tree.ws["n", "k"]
    assert back.indexes["t"].freq is None
    assert (back.v.values.tolist(), int(back.new)) == ([1, 3, 2], 4)
    tree["n/k"].dataset = shuffled.isel(t=0)
    assert tree.ws["n", "k"].v.values.tolist() == 1
    tree.ws.store("n", "one", tree["n/k"].to_dataset())
    assert tree.ws["n", "one"].identical(tree.ws["n", "k"])


def test_a_frequency_of_another_package_is_refused():
    class Own(offsets.DateOffset):
        pass

    index = pd.date_range("2000", periods=2, freq=Own(days=1))
    with pytest.raises(TypeError, match=r"write index.freq = None"):
        kept(index)


PATHS = [
    pathlib.Path("/data/rec 1"),
    pathlib.PurePosixPath("a/ä"),
    pathlib.PureWindowsPath(r"C:\data"),
    pathlib.Path(),
]


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_paths_are_kept_wherever_values_are(path, tmp_path):
    assert kept(path) == path
    config = {"folder": path, "more": [(path,)]}
    back = kept(config, tmp_path)
    assert back == config
    assert type(back["folder"]) is type(path)
    dataset = xr.Dataset({"a": ("x", [1])}, attrs={"folder": path})
    assert kept(dataset, tmp_path).attrs["folder"] == path
    frame = pd.DataFrame({"p": pd.Series([path, None], dtype=object)})
    assert kept(frame, tmp_path)["p"][0] == path


@pytest.mark.parametrize("layout", ["csr", "csc", "coo", "bsr", "dia"])
@pytest.mark.parametrize("kind", ["array", "matrix"])
def test_sparse_arrays_are_kept(layout, kind, tmp_path):
    scipy_sparse = pytest.importorskip("scipy.sparse")
    dense = np.array([[0, 1.5, 0], [2, 0, 0]], np.float32)
    array = getattr(scipy_sparse, f"{layout}_{kind}")(dense)
    for obj in (array, {"weights": array, "b": 1}):
        for back in (kept(obj), kept(obj, tmp_path)):
            found = back["weights"] if isinstance(back, dict) else back
            assert type(found) is type(array)
            assert found.dtype == array.dtype
            assert np.array_equal(found.toarray(), dense)
            for part in ("data", "indices", "indptr", "offsets"):
                if hasattr(array, part):
                    assert getattr(found, part).dtype == getattr(array, part).dtype
                    assert np.array_equal(getattr(found, part), getattr(array, part))
    info = registry.summary(registry.encode(array)[1])
    assert info["format"] == layout
    assert info["shape"] == [2, 3]


@pytest.mark.parametrize("layout", ["lil", "dok"])
def test_sparse_arrays_in_the_making_are_refused(layout):
    scipy_sparse = pytest.importorskip("scipy.sparse")
    array = getattr(scipy_sparse, f"{layout}_array")(np.eye(2))
    with pytest.raises(TypeError, match=r"write x.tocsr\(\)"):
        kept({"a": array})


def test_a_tree_is_kept(tmp_path):
    tree = xr.DataTree.from_dict(
        {
            "/": xr.Dataset({"a": ("x", [1, 2])}, {"x": [10, 20]}, {"title": "root"}),
            "/b": xr.Dataset({"a": ("x", [3.0, 4.0])}),
            "/b/c": xr.Dataset(attrs={"empty": True}),
            "/d": xr.Dataset({"t": ("y", ["p", "q"])}),
        },
        name="whole",
    )
    for back in (kept(tree), kept(tree, tmp_path), kept({"t": tree}, tmp_path)["t"]):
        assert back.name == "whole"
        xr.testing.assert_identical(back, tree)
    assert labtree.create_workspace().ws.get("n", "k") is None


def test_a_part_of_a_tree_keeps_the_coordinates_that_it_inherits(tmp_path):
    whole = xr.DataTree.from_dict(
        {
            "/": xr.Dataset(coords={"x": [10.0, 20.0]}),
            "/b": xr.Dataset({"a": ("x", [1, 2])}),
            "/b/c": xr.Dataset({"v": ("x", [3, 4])}),
        }
    )
    for back in (kept(whole["b"]), kept(whole["b"], tmp_path)):
        assert back["a"].x.values.tolist() == [10, 20]
        xr.testing.assert_identical(back["c"].to_dataset(), whole["b/c"].to_dataset())


def test_marks_that_a_file_left_on_variables_are_dropped():
    dataset = xr.Dataset({"a": ("x", [1], {"labtree_crc32c": 7, "labtree_dtype": "?", "u": 1})})
    assert kept(dataset)["a"].attrs == {"u": 1}
