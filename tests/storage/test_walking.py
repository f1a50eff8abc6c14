"""Files that other programs wrote or changed are read as they are now."""

import time

import h5py
import netCDF4
import numpy as np
import pytest
import xarray as xr

from labtree.errors import FormatError
from labtree.storage import open_tree, save_tree
from labtree.storage.catalogue import read_catalogue
from support.exactness import assert_same


def _tree() -> xr.DataTree:
    first = xr.Dataset(
        {
            "v": (("x", "y"), np.arange(6.0).reshape(2, 3), {"units": "Hz", "tags": ["a"]}),
            "flag": ("x", [True, False]),
            "text": ("y", np.array(["a", "bé", ""])),
            "objects": ("y", np.array([None, (1, 2), "x"], object)),
            "scalar": 5,
        },
        coords={"x": [1.5, 2.5], "depth": ("y", [1, 2, 3])},
        attrs={"kind": "first", "nested": {"a": 1}, "gain": 2.0},
    )
    second = xr.Dataset({"data": ("x", np.arange(4, dtype="c16"))})
    return xr.DataTree.from_dict({"/ns/first": first, "/ns/.dot": second, "/other": first})


@pytest.fixture
def path(tmp_path):
    save_tree(_tree(), tmp_path / "t.h5")
    return tmp_path / "t.h5"


def _read(path):
    tree = open_tree(path)
    loaded = tree.map_over_datasets(lambda node: node.load())
    tree.close()
    return loaded


def test_without_a_catalogue_the_tree_is_the_same(path, cut_catalogue):
    expected = _read(path)
    cut_catalogue(path)
    assert read_catalogue(path) is None
    assert_same(_read(path), expected)


@pytest.mark.parametrize("program", ["h5py", "netCDF4"])
def test_values_changed(path, program):
    if program == "h5py":
        with h5py.File(path, "r+") as file:
            file["ns/first/v"][0, 1] = 99
            file["ns/first/flag"][1] = 1
    else:
        with netCDF4.Dataset(path, "a") as file:
            file["ns/first/v"][0, 1] = 99
            file["ns/first/flag"][1] = 1
    expected = _tree()
    expected["ns/first"]["v"][0, 1] = 99
    expected["ns/first"]["flag"][1] = True
    assert_same(_read(path)["ns/first"].to_dataset(), expected["ns/first"].to_dataset())


def test_attributes_changed_added_renamed_and_deleted(path):
    with netCDF4.Dataset(path, "a") as file:
        file["ns/first"].setncattr("gain", 3.5)
        file["ns/first"].setncattr("extra", "new")
        file["ns/first/v"].setncattr("units", "kHz")
        file["ns/first"].delncattr("kind")
    with netCDF4.Dataset(path, "a") as file:
        file["ns/first/v"].renameAttribute("units", "unit")
    found = _read(path)["ns/first"]
    assert found.attrs == {"nested": {"a": 1}, "gain": 3.5, "extra": "new"}
    assert found["v"].attrs == {"tags": ["a"], "unit": "kHz"}
    with h5py.File(path, "r+") as file:
        file["ns/first"].attrs["gain"] = np.arange(3)
        del file["ns/first"].attrs["extra"]
    assert _read(path)["ns/first"].attrs["gain"].tolist() == [0, 1, 2]


def test_variables_and_groups_added_with_h5py(path):
    with h5py.File(path, "r+") as file:
        group = file["ns/first"]
        group.create_dataset("packed", data=np.arange(6).reshape(2, 3), compression="gzip")
        group["packed"].dims[0].attach_scale(group["x"])
        group.create_dataset("words", data=["a", "bé", ""], dtype=h5py.string_dtype())
        group.create_dataset("fixed", data=np.array([b"ab", b"c"]))
        file["ns/%2Edot"].create_dataset("squeezed", data=np.arange(9.0), compression="gzip")
        file.create_group("new/below").create_dataset(
            "chunked", (0, 3), "f4", maxshape=(None, 3)
        )
        file["new/below/chunked"].resize(2, axis=0)
    tree = _read(path)
    first = tree["ns/first"]
    assert first["packed"].values.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert first["packed"].dims[0] == "x"
    assert first["words"].values.tolist() == ["a", "bé", ""]
    assert first["fixed"].values.tolist() == [b"ab", b"c"]
    assert tree["ns/.dot"]["squeezed"].values.tolist() == list(range(9))
    assert tree["new/below/chunked"].shape == (2, 3)
    assert_same(first["v"].load(), _tree()["ns/first/v"])


def test_variables_and_groups_added_with_netcdf4(path):
    with netCDF4.Dataset(path, "a") as file:
        group = file.createGroup("rec 2")
        group.createDimension("time", None)
        group.createDimension("unit", 2)
        group.createVariable("time", "f8", ("time",))[:] = [0.0, 0.5, 1.0]
        rates = group.createVariable("rates", "f4", ("time", "unit"), zlib=True)
        rates[:] = np.arange(6).reshape(3, 2)
        rates.units = "Hz"
        group.createVariable("name", str, ("unit",))[:] = np.array(["a", "bé"], object)
        group.createVariable("unit", "i4", ("time",))[:] = [7, 8, 9]  # no coordinate
        group.createVariable("one", "f8", ())[:] = 4.5
    found = _read(path)["rec 2"].to_dataset()
    assert found["rates"].dims == ("time", "unit")
    assert found["rates"].values.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert found["rates"].attrs["units"] == "Hz"
    assert found["time"].values.tolist() == [0.0, 0.5, 1.0]
    assert "time" in found.indexes
    assert found["name"].values.tolist() == ["a", "bé"]
    assert found["unit"].dims == ("time",)
    assert found["unit"].values.tolist() == [7, 8, 9]
    assert found["one"].item() == 4.5


def test_renamed_and_deleted(path):
    with h5py.File(path, "r+") as file:
        file.move("ns/first/v", "ns/first/w")
        file.move("other", "another")
        file.move("another/depth", "another/height")
        del file["ns/first/flag"]
        del file["ns/%2Edot"]
    with netCDF4.Dataset(path, "a") as file:
        file["ns/first"].renameVariable("scalar", "number")
        file["another"].renameVariable("flag", "valid")
    tree = _read(path)
    assert set(tree["ns"].children) == {"first"}
    assert set(tree["ns/first"].data_vars) == {"w", "text", "objects", "number"}
    assert tree["ns/first/w"].dims == ("x", "y")
    assert tree["another/height"].values.tolist() == [1, 2, 3]
    assert tree["another/valid"].values.tolist() == [True, False]
    assert_same(tree["another/objects"].values, _tree()["other/objects"].values)


def test_part_of_a_multiindex_deleted(tmp_path):
    stacked = xr.Dataset({"v": (("a", "b"), np.ones((2, 2)))}, {"a": [1, 2], "b": [3, 4]})
    save_tree(xr.DataTree(stacked.stack(ab=("a", "b"))), tmp_path / "t.h5")
    with h5py.File(tmp_path / "t.h5", "r+") as file:
        del file["b"]
    found = _read(tmp_path / "t.h5")
    assert found["a"].values.tolist() == [1, 1, 2, 2]
    assert found["v"].dims == ("ab",)


def test_saving_a_changed_file_again_keeps_everything(path, tmp_path):
    test_variables_and_groups_added_with_h5py(path)
    before = _read(path)
    tree = open_tree(path)
    save_tree(tree, path)
    assert_same(_read(path), before)
    assert_same(tree.map_over_datasets(lambda node: node.load()), before)
    tree.close()
    assert read_catalogue(path) is not None


@pytest.mark.parametrize("engine", ["h5netcdf", "netcdf4"])
def test_files_of_xarray(tmp_path, engine):
    dataset = xr.Dataset(
        {
            "v": (("time", "unit"), np.arange(6.0).reshape(3, 2), {"units": "mV"}),
            "t": ("unit", np.array(["a", "bé"], object)),
            "n": ("unit", np.array([1, 2], "i2")),
        },
        coords={"time": ("time", [0.0, 0.1, 0.2]), "unit": [1, 2]},
        attrs={"title": "é", "n": 3.5},
    )
    tree = xr.DataTree.from_dict({"/": xr.Dataset(attrs={"root": "yes"}), "/a/b": dataset})
    encoding = {"/a/b": {"v": {"zlib": True}}}
    tree.to_netcdf(tmp_path / "x.nc", engine=engine, encoding=encoding)
    found = _read(tmp_path / "x.nc")
    with xr.open_datatree(tmp_path / "x.nc", engine=engine, decode_cf=False) as other:
        for place in ("a/b", "a", "/"):
            xr.testing.assert_identical(
                found[place].to_dataset(), other[place].to_dataset().load()
            )
    assert "unit" in found["a/b"].indexes


def test_a_thousand_groups_of_xarray_take_no_square_of_time(tmp_path):
    def seconds(count):
        with h5py.File(
            tmp_path / f"{count}.h5", "w", libver="latest", track_order=True
        ) as file:
            for i in range(count):
                group = file.create_group(f"i{i}")
                group["x"] = np.arange(3.0)
                group["x"].make_scale("x")
                group.create_dataset("v", data=np.arange(3.0), compression="gzip")
                group["v"].dims[0].attach_scale(group["x"])
        start = time.process_time()
        tree = open_tree(tmp_path / f"{count}.h5")
        for node in tree.children.values():
            assert node["v"].dims == ("x",)
            assert node["v"].values.tolist() == [0, 1, 2]
        tree.close()
        return time.process_time() - start

    seconds(10)
    assert seconds(1000) < 25 * seconds(100)


def test_lazy_indexing_of_compressed_variables(tmp_path):
    values = np.arange(60).reshape(3, 4, 5)
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file.create_dataset("v", data=values, compression="gzip", chunks=(2, 2, 2))
    tree = open_tree(tmp_path / "t.h5")
    lazy = tree["v"]
    keys = [
        (0,), (-1, slice(None), 2), (slice(None, None, -1),), ([2, 0], [1, 3]), (slice(5, 2),),
        (slice(0, 3, 2), [], slice(4, None, -2)), ([0, 0, 1], -2, [4, -5]),
    ]  # fmt: skip
    for key in keys:
        expected = values
        full = key + (slice(None),) * (3 - len(key))
        for axis, part in reversed(list(enumerate(full))):
            expected = expected[(slice(None),) * axis + (part,)]
        np.testing.assert_array_equal(lazy[key].values, expected, err_msg=str(key))
    tree.close()
    with pytest.raises(ValueError, match=r"t.h5 was closed; open it again to read from it"):
        lazy.load()


def test_links_are_refused(tmp_path):
    with h5py.File(tmp_path / "outside.h5", "w") as file:
        file["secret"] = 1
    for name, link in {
        "soft": h5py.SoftLink("/ns"),
        "external": h5py.ExternalLink("outside.h5", "/secret"),
    }.items():
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file.create_group("ns")
            file[name] = link
        with pytest.raises(FormatError, match=f"'{name}' is a link to elsewhere"):
            open_tree(tmp_path / f"{name}.h5")
    with h5py.File(tmp_path / "loop.h5", "w") as file:
        file.create_group("a/b")
        file["a/b/c"] = file["a"]
    with pytest.raises(FormatError, match="linked from two places, or into itself"):
        open_tree(tmp_path / "loop.h5")


def test_types_that_labtree_has_not_are_named(tmp_path):
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file.create_dataset("ragged", (2,), h5py.vlen_dtype("i4"))
    with pytest.raises(FormatError, match="/ragged: labtree cannot read the HDF5 type object"):
        open_tree(tmp_path / "t.h5")


def test_data_in_another_file_is_not_read_without_hdf5(tmp_path):
    (tmp_path / "raw.bin").write_bytes(np.arange(4.0).tobytes())
    with h5py.File(tmp_path / "t.h5", "w") as file:
        external = [(str(tmp_path / "raw.bin"), 0, 32)]
        file.create_dataset("v", (4,), "f8", external=external)
    with pytest.raises(FormatError, match="/v: its data are in another file"):
        open_tree(tmp_path / "t.h5")


def test_a_file_that_was_replaced_is_not_read_instead(tmp_path):
    path = tmp_path / "t.h5"
    for value in (1, 2):
        with h5py.File(tmp_path / f"{value}.h5", "w") as file:
            file.create_dataset("v", data=[value] * 9, compression="gzip")
    (tmp_path / "1.h5").replace(path)
    tree = open_tree(path)
    (tmp_path / "2.h5").replace(path)
    with pytest.raises(FormatError, match=r"t.h5 changed on disk after it was opened; open it"):
        tree["v"].load()
    tree.close()
