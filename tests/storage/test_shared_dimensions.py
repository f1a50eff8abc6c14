"""Dimensions that a group has for several groups below it, whatever is done to the file."""

import shutil
import subprocess

import h5netcdf
import h5py
import netCDF4
import numpy as np
import pytest
import xarray as xr

import labtree
from labtree.cli import main
from labtree.storage.nodes import attach_children, detach_child

pytestmark = pytest.mark.filterwarnings("ignore:.*does not say what the .h5 file holds")
KEYS = [f"k{i}" for i in range(6)]


def item(number, size=3):
    return xr.Dataset(
        {
            "values": ("x", np.arange(size) + 10.0 * number),
            "table": (("x", "y"), np.full((size, 2), number)),
            "words": ("x", np.array(["a", "bé", ""] * size, object)[:size]),
            "number": ((), number),
        }
    )


def items():
    """Six items alike, one longer, one with coordinates, and one with a variable `x`."""
    made = {key: item(number) for number, key in enumerate(KEYS)}
    made["longer"] = item(7, 5)
    made["labelled"] = item(8).assign_coords(x=[0.5, 1.5, 2.5])
    made["scalar"] = xr.Dataset({"x": ((), 4), "a": ("y", [1, 2])})
    made["long"] = xr.Dataset({"v": (("x", "y"), np.ones((3, 2)))}).assign_coords(
        x=(("x", "y"), np.arange(6.0).reshape(3, 2))
    )
    return made


@pytest.fixture
def path(tmp_path):
    tree = labtree.create_workspace("study")
    for key, each in items().items():
        tree.ws.store("ns", key, each)
    for key in KEYS[:4]:
        tree.ws.store("other", key, item(50))
    return tree.ws.save(tmp_path / "study")


def expected(tree):
    return {
        f"{namespace}/{key}": {
            name: (variable.dims, variable.shape)
            for name, variable in tree[f"{namespace}/{key}"].to_dataset().variables.items()
        }
        for namespace, key in tree.ws
    }


def seen_by_xarray(path, engine):
    with xr.open_datatree(path, engine=engine) as tree:
        return {
            node.path.strip("/"): {
                name.removeprefix("_nc4_non_coord_"): (variable.dims, variable.shape)
                for name, variable in node.to_dataset(inherit=False).variables.items()
            }
            for node in tree.subtree
            if node.level == 2
        }, [tree[name].to_dataset().sizes for name in tree.children]


def seen_by_h5netcdf(path):
    with h5netcdf.File(path) as file:
        return {
            f"{ns}/{key}": {
                name.removeprefix("_nc4_non_coord_"): (each.dimensions, each.shape)
                for name, each in group.variables.items()
            }
            for ns, space in file.groups.items()
            for key, group in space.groups.items()
        }


def seen_by_netcdf4(path):
    with netCDF4.Dataset(path) as file:
        return {
            f"{ns}/{key}": {
                name: (each.dimensions, each.shape) for name, each in group.variables.items()
            }
            for ns, space in file.groups.items()
            for key, group in space.groups.items()
        }


def without_characters(found):
    return {
        path: {
            name: tuple(
                tuple(part for part, dim in zip(each, dims, strict=True) if "chars" not in dim)
                for each in (dims, shape)
            )
            for name, (dims, shape) in variables.items()
        }
        for path, variables in found.items()
    }


def numbers(path):
    """Return the numbers of all dimensions, which netCDF wants unique."""
    found = []
    with h5py.File(path) as file:
        file.visititems(
            lambda _, each: (
                found.append(int(each.attrs["_Netcdf4Dimid"]))
                if "_Netcdf4Dimid" in each.attrs
                else None
            )
        )
    return found


def check(path, tree):
    """Assert that every program finds each variable's dimensions as they are in a tree."""
    wanted = expected(tree)
    for engine in ("h5netcdf", "netcdf4"):
        found, sizes = seen_by_xarray(path, engine)
        assert found == wanted, engine
        assert not any(sizes), "no dimension without a variable is shown"
    assert without_characters(seen_by_h5netcdf(path)) == wanted
    assert without_characters(seen_by_netcdf4(path)) == wanted
    assert len(set(numbers(path))) == len(numbers(path))
    if shutil.which("ncdump"):
        subprocess.run(["ncdump", "-h", path], check=True, capture_output=True)
    with labtree.open_workspace(path) as found:
        assert expected(found) == wanted
        for namespace, key in tree.ws:
            xr.testing.assert_identical(
                found.ws[namespace, key].load(), tree.ws[namespace, key].load()
            )


def scales(path, group="ns"):
    with h5py.File(path) as file:
        return {n: e.size for n, e in file[group].items() if isinstance(e, h5py.Dataset)}


def test_what_several_items_have_alike_is_made_once(path):
    assert scales(path) == {"x": 3, "y": 2}
    with h5py.File(path) as file:
        assert set(file["ns/k1"]) == {"values", "table", "words", "number", "labtree_chars_3"}
        assert {"x", "y"} & set(file["ns/longer"]) == {"x"}
        for name in ("x", "y"):
            for reference, axis in file["ns"][name].attrs["REFERENCE_LIST"]:
                assert file[reference].dims[int(axis)][0] == file["ns"][name]
    with labtree.open_workspace(path) as tree:
        check(path, tree)
    assert main(["verify", str(path)]) == 0


def delete(tree):
    for key in KEYS[:4]:
        tree.ws.delete("ns", key)


def replace(tree):
    tree.ws.store("ns", "k1", item(20))
    tree.ws.store("ns", "k2", item(21, 9))


def rename(tree):
    tree.ws.rename("ns", "k1", "new")
    tree.ws.rename("ns", "k2", "k3", overwrite=True)


def add(tree):
    tree.ws.store("ns", "more", item(30))
    tree.ws.store("ns", "named", xr.Dataset({"x": ((), 5), "y": ((), 6)}))


def take_the_name_of_a_dimension(tree):
    tree.ws.store("ns", "x", item(31))


def rename_to_the_name_of_a_dimension(tree):
    tree.ws.rename("ns", "k1", "y")


def delete_the_namespace(tree):
    tree.ws.delete("ns")


def empty_the_namespace_and_fill_it(tree):
    tree.ws.delete("ns")
    tree.ws.store("ns", "k1", item(33))


def move_to_another_namespace(tree):
    node = detach_child(tree["ns"], "k1")
    attach_children(tree["other"], {"moved": node})
    attach_children(tree, {"fresh": xr.DataTree()})
    attach_children(tree["fresh"], {"k2": detach_child(tree["ns"], "k2")})


def rename_the_namespace(tree):
    attach_children(tree, {"renamed": detach_child(tree, "ns")})


def swap_the_namespaces(tree):
    one, two = detach_child(tree, "ns"), detach_child(tree, "other")
    one["k1"].attrs["more"] = 1
    attach_children(tree, {"other": one, "ns": two})


def change_in_place(tree):
    tree["ns/k1"].variables["values"].values[0] = -1
    tree["ns/k2"].variables["table"].attrs["units"] = "mV"


def describe_the_namespace(tree):
    tree["ns"].attrs["about"] = "a day"


def give_the_namespace_variables(tree):
    tree["ns"].dataset = xr.Dataset({"summary": ((), 1.0), "total": ("q", [1.0, 2.0])})
    tree.ws.store("ns", "k1", item(40))


def by_save(path, change):
    tree = labtree.open_workspace(path)
    change(tree)
    tree.ws.save()
    return tree


def in_mode_a(path, change):
    tree = labtree.open_workspace(path, mode="a")
    change(tree)
    tree.ws.save()
    return tree


CHANGES = [
    add,
    change_in_place,
    delete,
    delete_the_namespace,
    describe_the_namespace,
    empty_the_namespace_and_fill_it,
    move_to_another_namespace,
    rename,
    rename_the_namespace,
    rename_to_the_name_of_a_dimension,
    replace,
    swap_the_namespaces,
    take_the_name_of_a_dimension,
]


@pytest.mark.parametrize(
    ("change", "save"),
    [
        *((change, by_save) for change in CHANGES),
        (replace, in_mode_a),
        (rename_to_the_name_of_a_dimension, in_mode_a),
        (take_the_name_of_a_dimension, in_mode_a),
    ],
)
def test_every_reader_is_right_after_a_change(path, change, save, cut_catalogue):
    with save(path, change) as tree:
        check(path, tree)
        kept = tree.copy(deep=True).load()
    cut_catalogue(path)
    with labtree.open_workspace(path) as found:
        for namespace, key in kept.ws:
            xr.testing.assert_identical(
                found.ws[namespace, key].load().drop_attrs(deep=False),
                kept.ws[namespace, key].drop_attrs(deep=False),
            )


def test_changes_that_fit_are_made_in_place(path):
    for change in (add, change_in_place, delete, rename_the_namespace):
        before = path.stat().st_ino
        by_save(path, change).ws.close()
        assert path.stat().st_ino == before
    take_the_name_of_a_dimension(tree := labtree.open_workspace(path))
    tree.ws.save()
    assert path.stat().st_ino == before
    tree.ws.close()


def test_a_namespace_with_variables_of_its_own(path):
    tree = by_save(path, give_the_namespace_variables)
    assert set(scales(path)) == {"x", "y", "summary", "total", "q"}
    with labtree.open_workspace(path) as found:
        assert found["ns/total"].values.tolist() == [1, 2]
        xr.testing.assert_identical(found.ws["ns", "k3"].load(), tree.ws["ns", "k3"].load())
    tree["ns"].dataset = xr.Dataset({"total": ("y", [1.0, 2.0])})
    tree.ws.save()
    for engine in ("h5netcdf", "netcdf4"):
        with xr.open_datatree(path, engine=engine) as found:
            assert found["ns/total"].dims == ("y",)
            assert found["ns/k3/table"].dims == ("x", "y")
    tree.ws.close()


@pytest.mark.parametrize("name", ["x", "odd name/", "ü"])
@pytest.mark.parametrize("is_key", [True, False])
def test_a_key_of_that_name_and_names_that_are_encoded(tmp_path, name, is_key, cut_catalogue):
    tree = labtree.create_workspace()
    for number in range(5):
        tree.ws.store("ns", f"k{number}", item(number).rename(x=name))
    tree.ws.store("ns", name if is_key else "key", item(5).rename(x=name))
    path = tree.ws.save(tmp_path / "study")
    assert len(scales(path)) == (1 if is_key else 2)
    cut_catalogue(path)
    with labtree.open_workspace(path) as found:
        for _, key in tree.ws:
            assert found.ws["ns", key]["values"].dims == (name,)


def test_netcdf4_renames_such_a_dimension_and_gives_it_values(path):
    by_save(path, delete).ws.close()
    with netCDF4.Dataset(path, "a") as file:
        file["ns"].renameDimension("x", "place")
        file["ns"].createVariable("place", "f8", ("place",))[:] = [1.0, 2.0, 3.0]
    with netCDF4.Dataset(path) as file:
        assert file["ns/k5/values"].dimensions == ("place",)
        assert file["ns/k5/values"][:].tolist() == [50.0, 51.0, 52.0]
    with labtree.open_workspace(path) as tree:
        assert tree.ws["ns", "k5"]["values"].dims == ("place",)
        assert tree.ws["ns", "k5"]["values"].values.tolist() == [50.0, 51.0, 52.0]
