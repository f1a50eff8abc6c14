"""Files that other programs wrote or changed are read as they are now."""

import pickle
import struct
import time

import h5py
import netCDF4
import numpy as np
import pytest
import xarray as xr

import labtree
from labtree.errors import BusyFileError, DamageWarning, FormatError, MissingFileError
from labtree.storage import hdf5_members, open_tree, save_tree
from labtree.storage.catalogue import catalogue_of
from labtree.storage.verifying import accept_values, verify_file
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
    with path.open("rb") as file:
        assert catalogue_of(file.fileno(), path) is None
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
    tree = open_tree(path)
    for name in ("v", "flag"):
        message = rf"the values of /ns/first/{name} are not those that labtree wrote.*--accept"
        with pytest.raises(FormatError, match=message):
            tree["ns/first"][name].load()
    assert_same(tree["ns/first/text"].values, _tree()["ns/first/text"].values)
    assert_same(tree["other"].to_dataset().load(), _tree()["other"].to_dataset())
    tree.close()
    assert accept_values(path, "ns/first") == ["ns/first/v", "ns/first/flag"]
    expected = _tree()
    expected["ns/first"]["v"][0, 1] = 99
    expected["ns/first"]["flag"][1] = True
    assert_same(_read(path)["ns/first"].to_dataset(), expected["ns/first"].to_dataset())
    assert accept_values(path, "ns/first") == []
    with pytest.raises(MissingFileError, match=r"has no group ns/second; it has other, ns"):
        accept_values(path, "ns/second")


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
        group["packed"].dims[1].attach_scale(group["y"])
        group.create_dataset("words", data=["a", "bé", ""], dtype=h5py.string_dtype())
        group["words"].dims[0].attach_scale(group["y"])
        group.create_dataset("fixed", data=np.array([b"ab", b"c"]))
        group["fixed"].dims[0].attach_scale(group["x"])
        file["ns/_%2Edot"].create_dataset("squeezed", data=np.arange(9.0), compression="gzip")
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
        del file["ns/_%2Edot"]
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
    with path.open("rb") as file:
        assert catalogue_of(file.fileno(), path) is not None


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
    with xr.open_datatree(tmp_path / "x.nc", engine="h5netcdf") as other:
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
    assert seconds(200) < 12 * seconds(40)


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


def test_links_inside_the_folder_are_followed_and_others_left_out(tmp_path):
    inside, outside = tmp_path / "here", tmp_path / "elsewhere"
    for folder in (inside, outside):
        folder.mkdir()
        with h5py.File(folder / "other.h5", "w") as file:
            file["x"] = [1, 2]
        (folder / "raw.bin").write_bytes(np.arange(4.0).tobytes())
    with h5py.File(inside / "t.h5", "w") as file:
        file["a/x"] = [3, 4]
        file["soft"] = h5py.SoftLink("/a/x")
        file["near"] = h5py.ExternalLink("other.h5", "/x")
        file["far"] = h5py.ExternalLink(str(outside / "other.h5"), "/x")
        file["gone"] = h5py.SoftLink("/nowhere")
        file["a/loop"] = file["/"]
        for name, folder in (("raw", inside), ("secret", outside)):
            external = [(str(folder / "raw.bin"), 0, 32)]
            file.create_dataset(name, (4,), "f8", external=external)
    with pytest.warns(DamageWarning) as caught:
        tree = _read(inside / "t.h5")
    told = sorted(str(warning.message).split(": ", 1)[1] for warning in caught)
    assert len(told) == 4
    assert told[0].startswith("/a/loop cannot be read and was left out (it is a link to a")
    assert told[1].startswith("/far cannot be read and was left out (it is a link to")
    assert told[2].startswith("/gone cannot be read and was left out (")
    assert told[3].startswith("/secret cannot be read and was left out (its data are in")
    assert tree["soft"].values.tolist() == [3, 4]
    assert tree["near"].values.tolist() == [1, 2]
    assert tree["raw"].values.tolist() == [0, 1, 2, 3]
    assert set(tree.data_vars) == {"soft", "near", "raw"}


def test_a_group_that_several_links_lead_to_is_read_under_each(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = [7]
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["a/b/x"] = [3, 4]
        file["a/b/up"] = h5py.SoftLink("/a")
        file["c"] = h5py.SoftLink("/a/b")
        file["d"] = file["a/b"]
        file["other"] = h5py.ExternalLink("other.h5", "/")  # which lies where this root lies
    with pytest.warns(DamageWarning) as caught:
        tree = _read(tmp_path / "t.h5")
    for path in ("a/b", "c", "d"):
        assert tree[path]["x"].values.tolist() == [3, 4]
    assert tree["other"]["x"].values.tolist() == [7]
    told = [str(warning.message).split(": ", 1)[1].split(" ")[0] for warning in caught]
    assert told == ["/a/b/up", "/c/up/b", "/d/up/b"]
    assert tree["c/up"].attrs == {}


def test_links_that_would_lead_to_countless_groups_are_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5_members, "_MOST_REPEATED", 50)
    with h5py.File(tmp_path / "t.h5", "w") as file:
        above = file
        for depth in range(40):  # 2 ** 40 ways lead to the last
            above = above.create_group("a")
            above.parent["b"] = above
            assert depth < 40
    with pytest.warns(DamageWarning, match="links lead to groups that were read already"):
        tree = _read(tmp_path / "t.h5")
    assert len(list(tree.subtree)) <= 1 + 40 + 50


def test_lists_of_references_in_an_attribute_are_paths(tmp_path):
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["a/x"] = [1]
        lists = np.empty(2, object)
        lists[0] = np.array([file["a"].ref, file["a/x"].ref], dtype=h5py.ref_dtype)
        lists[1] = np.array([file["a/x"].ref], dtype=h5py.ref_dtype)
        file.attrs.create("lists", lists, dtype=h5py.vlen_dtype(h5py.ref_dtype))
    tree = _read(tmp_path / "t.h5")
    assert tree.attrs["lists"] == [["/a", "/a/x"], ["/a/x"]]
    workspace = labtree.create_workspace()
    workspace.ws.store("n", "k", tree)
    assert workspace.ws["n", "k"].attrs == tree.attrs


def test_a_filter_that_is_not_there_costs_its_array(tmp_path):
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["good"] = [1, 2]
        for name, mask in (("packed", 0), ("skipped", 1)):
            creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            creation.set_chunk((2,))
            creation.set_filter(40_000, h5py.h5z.FLAG_OPTIONAL)
            made = h5py.h5d.create(
                file.id,
                name.encode(),
                h5py.h5t.STD_I32LE,
                h5py.h5s.create_simple((2,)),
                creation,
            )
            made.write_direct_chunk((0,), np.array([5, 6], "<i4").tobytes(), mask)
    with pytest.warns(DamageWarning, match=r"/packed .*filter 40000 .*not installed") as caught:
        tree = _read(tmp_path / "t.h5")
    assert len(caught) == 1
    assert tree["good"].values.tolist() == [1, 2]
    assert tree["skipped"].values.tolist() == [5, 6]
    assert "packed" not in tree


PARTS = {
    "null": lambda file: file.__setitem__("bad", h5py.Empty("f8")),
    "references": lambda file: file.create_dataset(
        "bad", data=np.array([file["a"].ref], dtype=h5py.ref_dtype)
    ),
    "texts in a compound": lambda file: file.create_dataset(
        "bad", data=np.array([(1, "a")], dtype=[("i", "i4"), ("s", h5py.string_dtype())])
    ),
    "half of its scales": lambda file: (
        file["a/x"].make_scale("x"),
        file.create_dataset("bad", data=[[1, 2], [3, 4]]).dims[0].attach_scale(file["a/x"]),
    ),
    "time": lambda file: file.create_dataset("bad", data=[1]).attrs.__setitem__(
        "units", "moons since always"
    ),
}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_cannot_be_read_is_left_out(tmp_path, part):
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["a/x"] = [1, 2]
        PARTS[part](file)
    with pytest.warns(DamageWarning, match=r"t\.h5: /bad cannot be read and was left out"):
        tree = _read(tmp_path / "t.h5")
    assert tree["a/x"].values.tolist() == [1, 2]
    assert not tree.data_vars


def test_a_child_that_disagrees_with_its_parent_is_left_out(tmp_path):
    path = tmp_path / "t.nc"
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("x", 2)
        file.createVariable("a", "f8", ("x",))[:] = 1
        group = file.createGroup("g")
        group.createDimension("x", 3)
        group.createVariable("b", "f8", ("x",))[:] = 1
        file.createGroup("h").setncattr("n", 1)
    with pytest.warns(DamageWarning, match=r"(?s)/g has dimensions.*xarray\.open_groups"):
        tree = _read(path)
    assert list(tree.children) == ["h"]
    assert tree["a"].values.tolist() == [1, 1]


def test_a_group_that_is_named_like_an_inherited_coordinate_is_left_out(tmp_path):
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["time"] = [1.0, 2.0]
        file["time"].make_scale("time")
        file["a/time/v"] = 3
        file["a/w"] = 4
    with pytest.warns(DamageWarning, match=r"/a/time has dimensions or coordinates that"):
        tree = _read(tmp_path / "t.h5")
    assert tree["a/w"].item() == 4
    assert not tree["a"].children


ATTRIBUTES = {
    "bool": True,
    "bools": np.array([True, False]),
    "complex": 1 + 2j,
    "compound": np.array((1, 2.0), dtype=[("a", "i4"), ("b", "f8")]),
    "void": np.void(b"a\x00b"),
    "small": np.int8(3),
    "texts": ["a", "b"],
    "matrix": np.eye(2),
    "CLASS": "CARRAY",
}


def test_every_attribute_is_as_the_engine_shows_it(tmp_path):
    path = tmp_path / "t.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(3.0)
        for owner in (file, file["x"]):
            for name, value in ATTRIBUTES.items():
                owner.attrs[name] = value
    found = _read(path)
    with xr.open_dataset(path, engine="h5netcdf", phony_dims="access") as other:
        assert set(other.attrs) >= {"bool", "complex", "matrix"}
        assert_same(found.attrs, other.attrs)
        assert_same(found["x"].attrs, other["x"].attrs)


def test_arrays_of_any_length_are_kept_though_the_engine_fails(tmp_path, recwarn):
    with h5py.File(tmp_path / "t.h5", "w") as file:
        ragged = file.create_dataset("r", (3,), h5py.vlen_dtype(np.dtype("i4")))
        for i in range(3):
            ragged[i] = np.arange(i)
        file["a"] = [1, 2, 3]
        file.create_dataset("one", (), h5py.vlen_dtype(np.dtype("i4")))[()] = [4, 5]
    tree = open_tree(tmp_path / "t.h5")
    assert list(tree.data_vars) == ["a", "one", "r"]
    assert tree["one"].values.item().tolist() == [4, 5]
    assert tree["r"][2].values.item().tolist() == [0, 1]
    assert [part.tolist() for part in tree["r"].values] == [[], [0], [0, 1]]
    assert tree["r"][1:2].values[0].dtype == np.dtype("i4")
    assert not recwarn.list
    tree.close()


def test_attributes_that_refer_to_objects_are_paths(tmp_path, recwarn):
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["g/x"] = [1, 2]
        both = np.array([file["g"].ref, file["g/x"].ref], h5py.ref_dtype)
        file["g"].attrs["one"] = file["g/x"].ref
        file["g/x"].attrs["two"] = both
        file["g/x"].attrs["part"] = file["g/x"].regionref[:1]
        file["g/x"].attrs["nothing"] = h5py.Reference()
    tree = open_tree(tmp_path / "t.h5")
    assert tree["g"].attrs == {"one": "/g/x"}
    assert tree["g/x"].attrs == {"two": ["/g", "/g/x"], "part": "/g/x", "nothing": ""}
    assert not recwarn.list
    tree.close()


def test_values_that_are_arrays_have_dimensions_of_their_own(tmp_path):
    values = np.arange(12).reshape(3, 2, 2)
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file.create_dataset("x", (3,), np.dtype((">i4", (2, 2))))[...] = values
    tree = open_tree(tmp_path / "t.h5")
    assert tree["x"].dims[1:] == ("x_dim_0", "x_dim_1")
    np.testing.assert_array_equal(tree["x"].values, values)
    np.testing.assert_array_equal(tree["x"][1:, 0, ::-1].values, values[1:, 0, ::-1])
    tree.close()


def test_packed_values_are_decoded_and_options_are_xarrays(tmp_path):
    path = tmp_path / "t.nc"
    packed = {"dtype": "i2", "scale_factor": 0.5, "add_offset": 20.0, "_FillValue": -999}
    dataset = xr.Dataset(
        {"v": ("time", [20.5, np.nan, 21.0])},
        {"time": np.array(["2020-01-01", "2020-01-02", "2020-01-03"], "M8[ns]")},
    )
    dataset.to_netcdf(path, engine="h5netcdf", encoding={"v": packed})
    assert _read(path)["v"].values[[0, 2]].tolist() == [20.5, 21.0]
    for options in ({}, {"mask_and_scale": False}, {"decode_times": False}):
        with xr.open_datatree(path, engine="h5netcdf", **options) as other:
            tree = open_tree(path, **options)
            xr.testing.assert_identical(tree.to_dataset().load(), other.to_dataset().load())
            tree.close()


def test_a_file_that_is_being_written_is_busy_and_not_damaged(tmp_path, monkeypatch):
    path = tmp_path / "t.h5"
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)

    def locked(*args, **options):
        raise BlockingIOError(11, "unable to lock file")

    with h5py.File(path, "w") as file:
        file["x"] = 1
    monkeypatch.setattr("labtree.storage.hdf5_files.h5py.File", locked)
    with pytest.raises(BusyFileError, match=r"t\.h5 is open for writing in another program"):
        open_tree(path)
    assert pauses


def test_sizes_that_are_declared_and_not_there_take_no_memory(tmp_path):
    path = tmp_path / "t.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("v", (2**50,), "f8", chunks=(1024,))
    tree = open_tree(path)
    with pytest.raises(FormatError, match=r"/v declares 9007199254740992 bytes"):
        tree["v"].load()
    assert tree["v"][:5].values.tolist() == [0] * 5
    tree.close()


def test_trees_of_other_programs_can_be_pickled(tmp_path):
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file.create_dataset("v", data=np.arange(9), compression="gzip")
    tree = open_tree(tmp_path / "t.h5")
    copy = pickle.loads(pickle.dumps(tree["v"]))
    assert copy.values.tolist() == list(range(9))
    tree.close()


def test_dimensions_are_those_of_the_netcdf_convention(tmp_path):
    path = tmp_path / "t.nc"
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("unit", 2)
        file.createDimension("time", 3)
        file.createVariable("rate", "f8", ("unit", "time"))[:] = 1
        file.createVariable("time", "f8", ("time",))[:] = [1, 2, 3]
    assert _read(path)["rate"].dims == ("unit", "time")
    plain = xr.Dataset({"v": ("x", [1.0, 2.0, 3.0]), "w": ("x", [1, 2, 3])})
    plain.to_netcdf(tmp_path / "x.nc", engine="h5netcdf")
    xr.testing.assert_identical(_read(tmp_path / "x.nc").to_dataset(), plain)


def test_a_variable_added_with_netcdf4_has_its_dimensions(path):
    with netCDF4.Dataset(path, "a") as file:
        made = file["ns/first"].createVariable("sem", "f8", ("x", "y"))
        made[:] = np.ones((2, 3))
    found = _read(path)["ns/first"]
    assert found["sem"].dims == ("x", "y")
    assert_same(found["objects"].values, _tree()["ns/first/objects"].values)
    result = verify_file(path)
    assert result.problems == []
    assert result.n_unchecked == 1
    assert result.n_checked > 10


def test_a_sum_that_is_missing_is_told(path, cut_catalogue):
    with h5py.File(path, "r+") as file:
        del file["ns/first/v"].attrs["labtree_crc32c"]
        del file["ns/first/text"].attrs["labtree_crc32c"]
    result = verify_file(path)
    assert any("/ns/first/text has lost its checksum" in line for line in result.problems)


def test_the_first_version_is_refused_by_name(tmp_path):
    path = tmp_path / "t.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file.attrs["labtree_workspace_id"] = "x"
    with path.open("ab") as file:
        file.write(struct.pack("<8sIIIIQQ8x", b"labtree\n", 1, 0, 0, 0, 0, 0))
    with pytest.raises(FormatError, match="format version 1; this labtree reads version 2"):
        open_tree(path)


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
    with pytest.raises(ValueError, match=r"t.h5 was closed; open it again to read from it"):
        tree["v"].load()


def test_a_file_is_not_replaced_by_a_tree_that_lacks_parts_of_it(tmp_path):
    path = tmp_path / "t.h5"
    with h5py.File(path, "w") as file:
        file["a/x"] = [1, 2]
        file["gone"] = h5py.SoftLink("/nowhere")
    before = path.read_bytes()
    with pytest.warns(DamageWarning, match="/gone cannot be read"):
        tree = open_tree(path)
    with pytest.raises(FormatError, match=r"would lose them: /gone\. Nothing was written"):
        save_tree(tree, path)
    assert path.read_bytes() == before
    save_tree(tree, tmp_path / "other.h5")
    tree.close()
    assert _read(tmp_path / "other.h5")["a/x"].values.tolist() == [1, 2]
