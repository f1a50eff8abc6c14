"""Files are read rightly by a reader that was written from docs/file-format.md alone."""

import datetime as dt
import json
from pathlib import Path

import h5py
import netCDF4
import numpy as np
import pytest
import xarray as xr

import labtree
from labtree.storage import open_tree, save_tree
from labtree.storage.verifying import verify_file
from labtree.storage.zarr.trees import open_zarr_tree, save_zarr_tree
from support import format_reader
from support.exactness import assert_same


def _everything() -> xr.Dataset:
    structured = np.dtype([("a", "i4"), ("b", ">f8")])
    values = {
        "float": np.array([1.5, np.nan]),
        "big": np.array([1.5, 2.0], ">f4"),
        "half": np.array([0.333, np.inf], "f2"),
        "flag": np.array([True, False]),
        "complex": np.array([1 + 2j, 3j], "c8"),
        "moment": np.array(["2024-01-01", "NaT"], "M8[ms]"),
        "days": np.array([3, 4], "m8[D]"),
        "pairs": np.array([(1, 2.0), (3, 4.0)], structured),
        "bytes": np.array([b"ab", b"c"]),
        "text": np.array(["a", "é🧠"]),
        "words": np.array(["ok", ""], object),
        "holes": np.array(["ok", None], object),
        "long": np.array(["x" * 90_000, "é"], object),
        "any": np.array([(1, "a"), {"k": {2}}], object),
        "50%": np.array([1, 2]),
        "(odd)": np.array([1, 2], "u2"),
    }
    data = {name: xr.Variable("x", array) for name, array in values.items()}
    data["grid"] = xr.Variable(("x", "y z"), np.arange(6.0).reshape(2, 3), {"units": "mV"})
    data["scalar"] = xr.Variable((), 5)
    data["grid"].attrs.update({"range": (0, 2.5), "_FillValue": -1.0, "nested": {"a": [None]}})
    attrs = {"title": "é", "n": 3, "flag": True, "big": 2**70, "set": {1}}
    return xr.Dataset(data, {"x": [10, 20], "side": ("x", ["l", "r"])}, attrs)


def _check_dataset(found, expected):
    attrs, variables = found
    own = {key: value for key, value in attrs.items() if not key.startswith("labtree_")}
    assert own == {k: v for k, v in expected.attrs.items() if not k.startswith("labtree_")}
    assert set(variables) == set(expected.variables)
    for name, variable in expected.variables.items():
        dims, values, attrs = variables[name]
        assert tuple(dims) == variable.dims, name
        if variable.dtype.kind == "O":
            # xarray makes NaN of None unless the array is not its own
            shown = [np.nan if value is None else value for value in values.tolist()]
            wanted = [np.nan if value is None else value for value in variable.values.tolist()]
            assert_same(shown, wanted)
        else:
            assert values.dtype == variable.dtype, name
            assert_same(np.asarray(values), variable.values)
        assert {**attrs} == dict(variable.attrs), name


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_a_reader_written_from_the_page_reads_every_type(tmp_path, compression):
    path = tmp_path / "t.h5"
    dataset = _everything()
    tree = xr.DataTree.from_dict({"/ns/(key)": dataset})
    save_tree(tree, path, compression=compression)
    found = format_reader.read(path)["ns", "(key)"]
    assert found[0] == dataset.attrs
    _check_dataset(found, dataset)
    with h5py.File(path) as file:
        assert format_reader.marks(file["ns/_%28key)"])["coordinates"] == "side"
    assert verify_file(path).problems == []


def _kinds():
    rates = np.arange(6.0).reshape(2, 3)
    trains = [[1.0, 3.0], [2.0], []]
    neurons = [{"region": "CA1", "depth": 5}, {"region": None}, {"depth": 7}]
    datasets = {
        "spikes": labtree.spike_data(trains, length=10.0, neuron_attributes=neurons),
        "rates": labtree.rate_data(rates, [0.0, 1.0, 2.0]),
        "slices": labtree.rate_slice_stack(np.ones((2, 3, 2)), [(0.0, 2.0), (3.0, 5.0)]),
        "matrix": labtree.pairwise_matrix(np.array([[1.0, 0.5], [np.nan, 1.0]])),
        "stack": labtree.pairwise_stack(np.ones((2, 2, 3))),
        "a/b": xr.Dataset({"v": (("x", "y"), rates)}, {"y": ["a", "b", "c"]}, {"n": (1, 2)}),
    }
    values = {
        "array": np.array([[1 + 2j, 2], [0, 1]], ">c16"),
        "nested": {
            "tuple": (1, None, {2.5}),
            5: [True, "é", b"x", 2**5000, float("inf"), -1j],
            "array": np.array(["10 µV", "b"]),
            "deeper": {"array": np.arange(3, dtype="f2"), "scalar": np.float32(2)},
            "when": [dt.date(2024, 1, 2), dt.timedelta(1, 2, 3), slice(1, None), range(3)],
            "structured": np.array((1, 2.0), [("a", "i4"), ("b", ">f8", (1,))]),
        },
        "scalar": 5,
        "text": "hé",
        "none": None,
        "set": {1, 2},
        "(odd) 50%": np.array([b"ab", b"c"]),
        "long " * 60: np.array(["2020-01-01", "NaT"], "M8[ns]"),
        "objects": np.array(["ok", None, ""], object),
    }
    return datasets, values


def test_a_reader_written_from_the_page_reads_every_kind_of_a_workspace(tmp_path):
    datasets, values = _kinds()
    masked = np.ma.masked_array([1.0, 2.0], [False, True])
    tree = labtree.create_workspace()
    for key, value in (datasets | values | {"masked": masked}).items():
        tree.ws.store("rec 1", key, value)
    found = format_reader.read(tree.ws.save(tmp_path / "w"))
    assert set(found) == {("rec 1", key) for key in (*datasets, *values, "masked")}
    for key, value in values.items():
        assert_same(found["rec 1", key], value, key)
    for key, value in datasets.items():
        _check_dataset(found["rec 1", key], value)
        assert found["rec 1", key][0]["labtree_kind"] == tree.ws.get_info("rec 1", key)["type"]
    assert found["rec 1", "masked"].tolist() == [1.0, None]


def test_the_reader_has_the_lines_that_the_page_tells():
    text = Path(format_reader.__file__).read_text()
    start, end = text.index("import json"), text.index("def load(")
    code = [line for line in text[end:].splitlines() if line.strip()]
    assert len(code) <= 60
    assert len(text[start:end].splitlines()) <= 16


def test_the_root_says_what_the_file_is(tmp_path):
    save_tree(xr.DataTree(xr.Dataset(attrs={"title": "t"})), tmp_path / "t.h5")
    with netCDF4.Dataset(tmp_path / "t.h5") as file:
        assert file.Conventions == "CF-1.11"
        assert file.labtree_file_format == 2
        assert "file-format" in file.labtree_file_page
    tree = open_tree(tmp_path / "t.h5")
    assert tree.attrs == {"title": "t"}
    tree.close()
    given = xr.DataTree(xr.Dataset(attrs={"Conventions": "CF-1.8, mine"}))
    save_tree(given, tmp_path / "u.h5")
    with netCDF4.Dataset(tmp_path / "u.h5") as file:
        assert file.Conventions == "CF-1.8, mine"
    tree = open_tree(tmp_path / "u.h5")
    assert tree.attrs == {"Conventions": "CF-1.8, mine"}
    tree.close()


def test_texts_and_times_are_what_plain_readers_expect(tmp_path):
    dataset = _everything()
    save_tree(xr.DataTree(dataset), tmp_path / "t.h5")
    for engine in ("h5netcdf", "netcdf4"):
        with xr.open_dataset(tmp_path / "t.h5", engine=engine) as found:
            assert found["words"].values.tolist() == ["ok", ""]
            assert found["holes"].values.tolist() == ["ok", ""]
            assert found["holes_missing"].values.tolist() == [False, True]
            assert found["holes"].attrs["ancillary_variables"] == "holes_missing"
            assert found["half"].values[0] == np.float32(np.float16(0.333))
            assert found["moment"].values[0] == np.datetime64("2024-01-01")
            assert np.isnat(found["moment"].values[1])
            assert found["flag"].dtype == bool
            assert set(found.coords) == {"x", "side"}


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_compressed_arrays_come_back_in_whole_and_in_part(tmp_path, compression):
    if compression == "zstd":
        pytest.importorskip("hdf5plugin")
    rng = np.random.default_rng(1)
    dataset = xr.Dataset(
        {
            "counts": (("x", "y"), rng.integers(0, 5, (700, 900))),
            "flat": ("z", np.zeros(300_001, "f4")),
            "text": ("x", np.array(["a", "b"] * 350)),
            "empty": ("n", np.zeros(0)),
            "scalar": 1.0,
        }
    )
    path = tmp_path / "t.h5"
    save_tree(xr.DataTree(dataset), path, compression=compression)
    assert path.stat().st_size < dataset.nbytes / 5
    tree = open_tree(path)
    assert_same(
        tree["counts"][650:, [3, 899, 3]].values, dataset["counts"][650:, [3, 899, 3]].values
    )
    assert_same(tree["counts"][-1, ::-7].values, dataset["counts"][-1, ::-7].values)
    save_tree(tree, tmp_path / "again.h5")
    assert (tmp_path / "again.h5").stat().st_size < dataset.nbytes / 5
    assert_same(tree.to_dataset().load(), dataset)
    tree.close()
    if compression == "gzip":
        with netCDF4.Dataset(path) as file:
            assert file["counts"].filters()["zlib"]
            assert_same(np.asarray(file["counts"][:]), dataset["counts"].values)
    assert verify_file(path).problems == []


def test_damage_in_a_compressed_chunk_is_noticed(tmp_path):
    path = tmp_path / "t.h5"
    values = np.arange(1000.0)
    save_tree(xr.DataTree(xr.Dataset({"v": ("x", values)})), path, compression="gzip")
    with h5py.File(path) as file:
        place = file["v"].id.get_chunk_info(0).byte_offset
    data = bytearray(path.read_bytes())
    data[place + 40] ^= 1
    path.write_bytes(data)
    tree = open_tree(path)
    with pytest.raises(ValueError, match=r"t\.h5: v is damaged"):
        tree["v"].load()
    tree.close()


def test_an_unknown_compression_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"compression is None, 'gzip'.* not 'lzf'"):
        save_tree(xr.DataTree(), tmp_path / "t.h5", compression="lzf")
    assert list(tmp_path.iterdir()) == []


def test_other_programs_see_the_coordinates_of_each_variable(tmp_path):
    depth = xr.Dataset(
        {"v": (("x", "y"), np.ones((2, 3))), "w": ("y", np.ones(3)), "own": ("x", [1.0, 2.0])},
        {"side": ("x", ["l", "r"]), "depth": ("y", [1, 2, 3]), "a b": ("x", [1, 2]), "n": 5},
    )
    depth["own"].attrs["coordinates"] = "mine"
    for ending, engine in ((".h5", "h5netcdf"), (".h5", "netcdf4"), (".zarr", "zarr")):
        path = tmp_path / f"t{ending}"
        save = save_tree if ending == ".h5" else save_zarr_tree
        save(xr.DataTree(depth), path)
        with xr.open_dataset(path, engine=engine, decode_coords=False) as plain:
            shown = {name: plain[name].attrs.get("coordinates") for name in plain.variables}
        assert shown["v"] == "side depth n"
        assert shown["w"] == "depth n"
        assert shown["own"] == "mine"
        assert shown["side"] is None
    cut = open_tree(tmp_path / "t.h5")
    assert_same(cut.to_dataset().load(), depth)
    cut.close()


def test_a_coordinates_attribute_that_another_program_writes_counts(tmp_path, cut_catalogue):
    path = tmp_path / "t.h5"
    dataset = xr.Dataset({"v": ("x", [1.0, 2.0]), "side": ("x", [3, 4]), "w": ("x", [5, 6])})
    save_tree(xr.DataTree(dataset), path)
    with h5py.File(path, "r+") as file:
        file["v"].attrs["coordinates"] = "side"
        file["w"].attrs["coordinates"] = "gone"
    tree = open_tree(path)
    assert set(tree.coords) == {"side"}
    assert tree["w"].attrs == {"coordinates": "gone"}
    tree.close()


def test_packed_values_with_a_fill_value_are_read_as_missing(tmp_path):
    for name, value in (("i2", -999), ("f4", -1.0)):
        attrs = {"scale_factor": 0.5, "_FillValue": np.dtype(name).type(value)}
        dataset = xr.Dataset({"v": ("x", np.array([2, value], name), attrs)})
        for ending, engine in ((".h5", "h5netcdf"), (".h5", "netcdf4"), (".zarr", "zarr")):
            save = save_tree if ending == ".h5" else save_zarr_tree
            save(xr.DataTree(dataset), tmp_path / f"{name}{ending}")
            with xr.open_dataset(tmp_path / f"{name}{ending}", engine=engine) as plain:
                np.testing.assert_array_equal(plain["v"].values, [1.0, np.nan])
        tree = open_zarr_tree(tmp_path / f"{name}.zarr")
        assert_same(tree.to_dataset().load(), dataset)


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_what_was_compressed_stays_so_wherever_it_is_saved(tmp_path, compression):
    if compression == "zstd":
        pytest.importorskip("hdf5plugin")
    values = np.repeat(np.arange(50.0), 2000)
    first, second = tmp_path / "1.h5", tmp_path / "2.zarr"
    save_tree(xr.DataTree(xr.Dataset({"v": ("x", values)})), first, compression=compression)
    with open_tree(first) as tree:
        save_zarr_tree(tree, second)
    metadata = json.loads((second / "v/zarr.json").read_text())
    assert [each["name"] for each in metadata["codecs"]] == ["bytes", compression, "crc32c"]
    third, fourth = tmp_path / "3.zarr", tmp_path / "4.h5"
    save_zarr_tree(open_zarr_tree(second), third)
    assert json.loads((third / "v/zarr.json").read_text())["codecs"] == metadata["codecs"]
    save_tree(open_zarr_tree(third), fourth)
    with h5py.File(fourth) as file:
        assert file["v"].id.get_storage_size() < values.nbytes / 10
    with open_tree(fourth) as tree:
        np.testing.assert_array_equal(tree["v"].values, values)
