"""What labtree writes is netCDF-4 as other programs read and write it."""

import h5netcdf
import h5py
import netCDF4
import numpy as np
import pytest
import xarray as xr
from h5py import h5ds

import labtree
from labtree.storage import json_values, open_tree, save_tree
from support.exactness import assert_same

PLAIN = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", ">i2", ">i4", ">f4", ">f8"]


def example() -> xr.DataTree:
    """Return a tree with one of everything that netCDF has."""
    numbers = {
        f"v_{dtype.replace('>', 'big_')}": (
            ("unit", "x"),
            np.arange(6).reshape(2, 3).astype(dtype),
        )
        for dtype in PLAIN
    }
    child = xr.Dataset(
        {
            **numbers,
            "scalar": 2.5,
            "empty": (("nothing", "x"), np.zeros((0, 3), "f4")),
            "flag": ("x", [True, False, True]),
            "text": ("unit", np.array(["a", "é🧠"])),
            "bytes": ("unit", np.array([b"ab", b"c"])),
            "moment": ("x", np.array(["2024-01-01", "NaT", "1969-12-31"], "M8[ms]")),
        },
        coords={
            "unit": np.array(["left", "rechts"]),
            "x": ("x", [0.5, 1.0, 2.0], {"units": "mm"}),
            "depth": ("unit", [10.0, 20.0]),
        },
        attrs={
            "title": "tree",
            "count": 3,
            "gain": 2.5,
            "range": np.array([1.0, 2.0]),
            "é": "",
        },
    )
    bare = xr.Dataset({"a": ("free", [1, 2]), "free2": (("free", "other"), np.ones((2, 2)))})
    return xr.DataTree.from_dict(
        {"/ns/first": child, "/ns/second": bare, "/ns/third": bare, "/odd name": bare}
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("netcdf") / "example.h5"
    save_tree(example(), path)
    return path


@pytest.mark.parametrize("engine", ["h5netcdf", "netcdf4"])
def test_xarray_reads_the_tree(path, engine):
    tree = example()
    with xr.open_datatree(path, engine=engine) as found:
        assert sorted(found.to_dict()) == sorted(tree.to_dict())
        for place in ("ns/second", "ns/third", "odd name"):
            xr.testing.assert_equal(found[place].to_dataset(), tree[place].to_dataset())
        first, expected = found["ns/first"].to_dataset(), tree["ns/first"].to_dataset()
        assert set(first.coords) == {"unit", "x", "depth"}
        assert dict(first.sizes) == dict(expected.sizes)
        for name in ("title", "count", "gain", "é"):
            assert first.attrs[name] == expected.attrs[name], name
        assert first.attrs["range"].tolist() == [1.0, 2.0]
        assert first.x.attrs["units"] == "mm"
        for name in [*expected.data_vars, *expected.coords]:
            assert first[name].dims == expected[name].dims, name
            values = first[name].values
            if expected[name].dtype.kind in "US":  # texts come from netCDF as objects
                values = values.astype(expected[name].dtype)
            assert values.dtype.kind == expected[name].dtype.kind, name
            np.testing.assert_array_equal(values, expected[name].values, err_msg=str(name))
        for dtype in PLAIN:
            name = f"v_{dtype.replace('>', 'big_')}"
            assert first[name].dtype.newbyteorder("=") == np.dtype(dtype).newbyteorder("=")


def test_netcdf4_python_and_h5netcdf_read_the_structure(path):
    with netCDF4.Dataset(path) as c, h5netcdf.File(path, "r") as h5:
        for file in (c, h5):
            group = file["ns/first"] if file is h5 else file.groups["ns"].groups["first"]
            assert group.variables["unit"].dimensions[0] == "unit"
            assert group.variables["moment"].dimensions == ("x",)
            sizes = {name: len(group.dimensions[name]) for name in ("unit", "x")}
            assert sizes == {"unit": 2, "x": 3}
            assert group.variables["empty"].shape == (0, 3)
            np.testing.assert_array_equal(
                np.asarray(group.variables["v_f4"][...]), np.arange(6, dtype="f4").reshape(2, 3)
            )
            assert group.variables["scalar"][...] == 2.5
            # Every group has dimensions of its own.
            assert "free" in file.groups["ns"].groups["second"].dimensions
            assert not file.groups["ns"].dimensions
            assert file.groups["ns"].groups["third"].variables["a"].dimensions == ("free",)
        assert c.groups["ns"].groups["first"].getncattr("title") == "tree"
        assert c.groups["ns"].groups["first"].getncattr("é") == ""
        texts = c.groups["ns"].groups["first"].variables["text"]
        assert texts._Encoding == "utf-8"
        assert texts[...].tolist() == ["a", "é🧠"]


def _structure(file: h5py.File) -> dict:
    """Return dimensions by variable, as the HDF5 dimension scale functions see them."""
    found = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset) and not h5ds.is_scale(item.id):
            dims = []
            for axis in range(item.ndim):
                names = []
                h5ds.iterate(item.id, axis, lambda scale, names=names: names.append(scale))
                dims.append([h5py.h5i.get_name(scale).decode() for scale in names])
            found[name] = dims

    file.visititems(visit)
    return found


def test_the_structure_is_the_one_that_h5netcdf_writes(tmp_path):
    tree = xr.DataTree.from_dict(
        {
            "/a": xr.Dataset(
                {"v": (("x", "y"), np.ones((2, 3))), "w": ("y", [1, 2, 3]), "s": 1.0},
                coords={"x": [1.0, 2.0]},
            ),
            "/b": xr.Dataset({"v": ("z", [1, 2])}),
        }
    )
    save_tree(tree, tmp_path / "ours.h5")
    tree.to_netcdf(tmp_path / "theirs.h5", engine="h5netcdf")
    with h5py.File(tmp_path / "ours.h5") as ours, h5py.File(tmp_path / "theirs.h5") as theirs:
        assert _structure(ours) == _structure(theirs)
        for file in (ours, theirs):
            assert h5ds.is_scale(file["a/x"].id)
            assert h5ds.get_scale_name(file["a/x"].id) == b"x"
            assert file["a/x"].attrs["CLASS"] == b"DIMENSION_SCALE"
            assert file["a/v"].attrs["DIMENSION_LIST"].dtype == object
        scales = [ours["a/x"], ours["a/y"], ours["b/z"]]
        theirs_y = theirs["a/y"]
        assert ours["a/y"].attrs["NAME"] == theirs_y.attrs["NAME"]
        assert ours["a/y"].dtype == theirs_y.dtype
        kinds = [item.attrs["REFERENCE_LIST"].dtype for item in (ours["a/y"], theirs_y)]
        assert kinds[0].names == kinds[1].names == ("dataset", "dimension")
        assert (
            ours["a/v"].attrs.get_id("DIMENSION_LIST").get_type()
            == theirs["a/v"].attrs.get_id("DIMENSION_LIST").get_type()
        )
        assert len({int(scale.attrs["_Netcdf4Dimid"]) for scale in scales}) == 3


def test_references_are_consistent_in_both_directions(path):
    with h5py.File(path) as file:
        scales, numbers = [], []
        file.visititems(
            lambda _, item: (
                scales.append(item)
                if isinstance(item, h5py.Dataset) and h5ds.is_scale(item.id)
                else None
            )
        )
        assert scales
        used = 0
        for scale in scales:
            numbers.append(int(scale.attrs["_Netcdf4Dimid"]))
            for reference, axis in scale.attrs.get("REFERENCE_LIST", []):
                variable = file[reference]
                assert h5ds.is_attached(variable.id, scale.id, int(axis))
                used += 1
        lists = []
        file.visititems(
            lambda _, item: (
                lists.append(len(item.attrs["DIMENSION_LIST"]))
                if "DIMENSION_LIST" in item.attrs
                else None
            )
        )
        assert used == sum(lists) > 20
        assert sorted(numbers) == list(range(len(numbers)))


def test_names_that_clash_with_dimensions(tmp_path):
    dataset = xr.Dataset(
        {"a": ("x", [1, 2]), "x_": ("y", [1, 2, 3])},
        coords={"y": ("x", [5, 6])},
    ).rename({"x_": "z"})
    clash = xr.Dataset({"v": (("d", "e"), np.ones((2, 3)))}).assign_coords(e=("d", [1, 2]))
    tree = xr.DataTree.from_dict({"/one": clash, "/two": xr.Dataset({"d": 5, "w": ("e", [1])})})
    save_tree(tree, tmp_path / "t.h5")
    for engine in ("h5netcdf", "netcdf4"):
        with xr.open_datatree(tmp_path / "t.h5", engine=engine) as found:
            assert found["one/v"].dims == ("d", "e")
            assert found["one/e"].dims == ("d",)
            assert found["one/e"].values.tolist() == [1, 2]
            assert found["two/d"].values == 5
    assert dataset["y"].dims == ("x",)


def test_groups_share_a_dimension_name_of_several_sizes(tmp_path):
    tree = xr.DataTree.from_dict(
        {f"/ns/i{i}": xr.Dataset({"data": ("x", np.arange(i % 3 + 1))}) for i in range(9)}
    )
    save_tree(tree, tmp_path / "t.h5")
    for engine in ("h5netcdf", "netcdf4"):
        with xr.open_datatree(tmp_path / "t.h5", engine=engine) as found:
            for name, node in tree["ns"].children.items():
                xr.testing.assert_equal(
                    found["ns"][name].to_dataset(inherit=False), node.to_dataset(inherit=False)
                )


def test_thousands_of_variables_and_very_long_attributes(tmp_path, cut_catalogue):
    path = tmp_path / "many.h5"
    dataset = xr.Dataset(
        {f"v{i}": ("x", np.array([i, i + 1])) for i in range(1500)},
        attrs={"long": "é" * 100_000, "numbers": np.arange(20_000.0)},
    )
    save_tree(xr.DataTree.from_dict({"/many": dataset}), path)
    with h5py.File(path) as file:
        assert len(file["many/x"].attrs["REFERENCE_LIST"]) == 1500
    with netCDF4.Dataset(path) as file:
        group = file.groups["many"]
        assert len(group.variables) == 1500
        assert group.variables["v1499"][...].tolist() == [1499, 1500]
        assert group.getncattr("long") == dataset.attrs["long"]
    for cut in (False, True):
        if cut:
            cut_catalogue(path)
        tree = open_tree(path)
        assert_same(tree["many"].to_dataset().load(), dataset)
        tree.close()


def test_attributes_that_netcdf_has_are_native_and_the_others_are_shown_where_they_can(
    tmp_path,
):
    attrs = {
        "text": "a\nb",
        "int": 5,
        "float": 0.5,
        "array": np.array([1, 2], "i2"),
        "one": np.array([7], "f4"),
        "flag": True,
        "list": [1, 2],
        "nested": {"a": (1,)},
        "none": None,
        "big": 2**70,
        "_FillValue": 3,
        "CLASS": "mine",
        "a/b": 1,
        "units": "kept",
    }
    tree = xr.DataTree(xr.Dataset({"v": ("x", [1.0], attrs)}, attrs=attrs))
    save_tree(tree, tmp_path / "t.h5")
    with netCDF4.Dataset(tmp_path / "t.h5") as file:
        for owner in (file, file.variables["v"]):
            shown = {name: owner.getncattr(name) for name in owner.ncattrs()}
            exact = json_values.loads(shown.pop("labtree_attrs"))
            assert set(exact) == {
                *("one", "flag", "list", "nested", "none", "big"),
                *("_FillValue", "CLASS", "a/b"),
            }
            assert json_values.loads(shown.pop("labtree_attrs_order")) == list(attrs)
            fill = shown.pop("_FillValue", None)
            assert fill == (3 if owner is not file else None)
            for name in ("labtree_file_format", "labtree_file_page", "Conventions"):
                shown.pop(name, None)
            shown.pop("labtree_crc32c", None)
            assert {name: np.asarray(value).tolist() for name, value in shown.items()} == {
                "text": "a\nb",
                "int": 5,
                "float": 0.5,
                "array": [1, 2],
                "one": 7.0,
                "flag": 1,
                "list": [1, 2],
                "units": "kept",
            }
    opened = open_tree(tmp_path / "t.h5")
    assert_same(opened.attrs, attrs)
    assert_same(opened["v"].attrs, attrs)
    opened.close()


NAMED_ALIKE = {
    "encoded": xr.Dataset({"_%2E": ("x", [1]), ".": ("x", [2]), "%2E": 3, "._": 4}),
    "dimensions": xr.Dataset(
        {"_%2E": ("_%2E", [1]), ".": (".", [2, 3]), "a": ((".", "_%2E", "(b"), [[[1]], [[2]]])}
    ),
    "labtree's": xr.Dataset(
        {
            "labtree_chars_3": ("labtree_chars_3", [1, 2, 3]),
            "labtree_complex_2": 1,
            "c": ("z", [1j]),
            "t": ("labtree_chars_2", ["abc", "def"]),
        }
    ),
    "netCDF's": xr.Dataset({"x": ("y", [1, 2]), "_nc4_non_coord_x": ("x", [1.0, 2.0, 3.0])}),
}


@pytest.mark.parametrize("which", NAMED_ALIKE)
def test_names_that_would_be_one_in_the_file_are_told_apart(tmp_path, which, cut_catalogue):
    dataset = NAMED_ALIKE[which]
    for ending in (".h5", ".zarr"):
        workspace = labtree.create_workspace()
        workspace.ws.store("n", "first", 1)
        saved = workspace.ws.save(tmp_path / f"t{ending}")
        workspace.ws.store("n", "k", dataset)
        workspace.ws.save(saved)  # in place
        assert_same(labtree.load_item(saved, "n", "k"), dataset)
    workspace.ws.save(tmp_path / "new.h5")
    cut_catalogue(tmp_path / "new.h5")
    assert_same(labtree.load_item(tmp_path / "new.h5", "n", "k"), dataset)


def test_a_group_may_be_named_like_a_dimension(tmp_path, cut_catalogue):
    tree = xr.DataTree.from_dict(
        {
            "/": xr.Dataset({"v": ("x", [1, 2]), "_%2Eq": 1}),
            "/x": xr.Dataset({"v": ("y", [1])}),
            "/.q": xr.Dataset({"z": 1}),
        }
    )
    save_tree(tree, tmp_path / "t.h5")
    assert_same(open_tree(tmp_path / "t.h5"), tree)
    cut_catalogue(tmp_path / "t.h5")
    assert_same(open_tree(tmp_path / "t.h5"), tree)
