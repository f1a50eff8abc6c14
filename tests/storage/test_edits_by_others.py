"""Workspaces that other programs rewrote or edited come back, kind by kind."""

import shutil
import subprocess
import warnings

import h5py
import netCDF4
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import labtree
from support.exactness import assert_same


def items():
    trials = pd.DataFrame(
        {
            "outcome": pd.Categorical(["hit", "miss", "hit"]),
            "latency": pd.array([1, None, 3], "Int64"),
            "note": ["ok", None, ""],
        }
    )
    lab = xr.DataArray(
        np.arange(6.0).reshape(2, 3),
        dims=("x", "y"),
        coords={"lab": ("y", ["a", "b", "c"]), "x": [1, 2]},
        name="lfp",
    )
    return {
        "a dict": {"a": 1, "b": (1, {3}), "c": np.arange(3), "d": {"e": [None, 2**80]}},
        "dataarray": lab,
        "frame": trials,
        "masked": np.ma.masked_array([1.0, 2.0], [False, True]),
        "matrix": labtree.pairwise_matrix(np.array([[1.0, 0.5], [np.nan, 1.0]])),
        "ndarray": np.array([[1 + 2j, 2], [0, 1]], ">c16"),
        "rates": labtree.rate_data(np.ones((2, 3)), [0.0, 1.0, 2.0]),
        "scalar": 5,
        "series": pd.Series([1.0, 2.0], pd.Index(["a", "b"], name="k"), name="s"),
        "spikes": labtree.spike_data([[1.0, 3.0], [2.0], []], length=10.0),
        "texts": np.array(["10 µV", "b"]),
        "texts shorter than their dtype": np.array(["a", "µ"], "U9"),
        "times": np.array(["2020-01-01", "NaT"], "M8[ns]"),
    }


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    tree = labtree.create_workspace("study")
    for key, value in items().items():
        tree.ws.store("rec1", key, value, note="é")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("labtree.storage.writing._FEW", 2)  # items share dimensions
        return tree.ws.save(tmp_path_factory.mktemp("study") / "study")


def sort(obj):
    """Return an object with what has an order of insertion sorted by name."""
    if isinstance(obj, xr.Dataset):
        obj = obj.assign_attrs(dict(sorted(obj.attrs.items())))
        obj.attrs = dict(sorted(obj.attrs.items()))
        return obj[sorted(obj.variables)]
    if isinstance(obj, xr.DataArray):
        return obj.drop_vars(obj.coords).assign_coords(
            {name: obj.coords[name] for name in sorted(obj.coords)}
        )
    return obj


def rewritten_by_xarray(engine):
    def rewrite(path, target):
        with xr.open_datatree(path, engine=engine) as tree, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it writes fewer characters
            tree.to_netcdf(target, engine=engine)

    return rewrite


def rewritten_by(*command):
    def rewrite(path, target):
        if shutil.which(command[0]) is None:
            pytest.skip(f"{command[0]} is not installed")
        subprocess.run([*command, path, target], check=True, capture_output=True)

    return rewrite


PROGRAMS = {
    "xarray through h5netcdf": rewritten_by_xarray("h5netcdf"),
    "xarray through netcdf4": rewritten_by_xarray("netcdf4"),
    "h5repack": rewritten_by("h5repack"),
    "h5repack with gzip": rewritten_by("h5repack", "-f", "SHUF", "-f", "GZIP=4"),
    "nccopy": rewritten_by("nccopy"),
    "nccopy with deflate": rewritten_by("nccopy", "-d", "4"),
    "ncks": rewritten_by("ncks"),
    "ncks with deflate": rewritten_by("ncks", "-4", "-L", "3"),
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_kind_comes_back_from_a_file_that_another_program_rewrote(
    saved, tmp_path, program
):
    target = tmp_path / "copy.h5"
    PROGRAMS[program](saved, target)
    found = labtree.load_workspace(target)
    assert found.ws.list_keys() == {"rec1": list(items())}
    for key, value in items().items():
        assert_same(sort(found.ws["rec1", key]), sort(value), key)
        assert found.ws.get_info("rec1", key)["note"] == "é"


def _edited(saved, tmp_path, edit):
    target = tmp_path / "study.h5"
    shutil.copy(saved, target)
    edit(target)
    return labtree.open_workspace(target)


def test_an_attribute_that_was_added_is_there_and_nothing_else_changed(saved, tmp_path):
    def edit(path):
        with h5py.File(path, "r+") as file:
            for item in file["rec1"].values():
                item.attrs["checked"] = "by Ann"

    found = _edited(saved, tmp_path, edit)
    for key, value in items().items():
        assert found[f"rec1/{key}"].attrs["checked"] == "by Ann"
        if not isinstance(value, xr.Dataset):
            assert_same(found.ws["rec1", key], value, key)
    found.close()


def test_a_variable_that_was_added_is_in_its_dataset(saved, tmp_path):
    def edit(path):
        with netCDF4.Dataset(path, "a") as file:
            group = file["rec1/rates"]
            group.createVariable("sem", "f8", ("unit", "time"))[:] = 0.5
            file["rec1/ndarray"].createVariable("extra", "f8", ())[...] = 1

    found = _edited(saved, tmp_path, edit)
    rates = found.ws["rec1", "rates"]
    assert rates["sem"].dims == ("unit", "time")
    assert rates["sem"].values.tolist() == [[0.5] * 3] * 2
    for key, value in items().items():
        if key not in ("rates", "ndarray"):
            assert_same(found.ws["rec1", key], value, key)
    found.close()


def test_an_item_that_was_renamed_has_its_new_name(saved, tmp_path):
    def edit(path):
        with h5py.File(path, "r+") as file:
            for key, item in list(file["rec1"].items()):
                if isinstance(item, h5py.Group):
                    file.move(f"rec1/{key}", f"rec1/new {key}")

    found = _edited(saved, tmp_path, edit)
    assert found.ws.list_keys() == {"rec1": [f"new {key}" for key in items()]}
    for key, value in items().items():
        assert_same(found.ws["rec1", f"new {key}"], value, key)
    found.close()


@pytest.mark.filterwarnings("ignore::labtree.DamageWarning")  # of coordinates
@pytest.mark.parametrize("key", list(items()))
def test_values_that_were_changed_are_an_error_of_that_item_alone(saved, tmp_path, key):
    def edit(path):
        with h5py.File(path, "r+") as file:
            for variable in file[f"rec1/{key}"].values():
                if "labtree_crc32c" in variable.attrs and variable.dtype.kind in "if":
                    variable[...] = variable[()] + 1

    found = _edited(saved, tmp_path, edit)
    for other, value in items().items():
        if other != key:
            assert_same(found.ws["rec1", other], value, other)
    if not key.startswith(("scalar", "texts")):  # which have no numbers
        with pytest.raises(labtree.LabtreeError, match=rf"study\.h5.*/rec1/{key}"):
            found.ws["rec1", key]
    found.close()
