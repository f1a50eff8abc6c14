"""Files of other programs open as xarray's h5netcdf engine opens them, and are kept."""

import itertools
import warnings

import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import labtree
from labtree.storage import open_tree
from support.examples import examples
from support.foreign_files import (
    same_trees,
    write_with_h5py,
    write_with_netcdf4,
    write_with_xarray,
)

WRITERS = {
    "h5py": write_with_h5py,
    "netCDF4": write_with_netcdf4,
    "xarray through h5netcdf": lambda path: write_with_xarray(path, "h5netcdf"),
    "xarray through netcdf4": lambda path: write_with_xarray(path, "netcdf4"),
}

NUMBERS = itertools.count()  # a file that could not be written may still be open


def _written(draw, program, folder):
    """Return the file that was drawn, or None where the program could not write it."""
    path = folder / f"{next(NUMBERS)}.h5"
    try:
        draw(WRITERS[program](path))
    except (TypeError, ValueError, AttributeError, OSError, RuntimeError):
        return None
    return path


def _as_the_engine_shows_it(path):
    """Return the engine's tree with its values read, or None where it fails."""
    try:
        tree = xr.open_datatree(path, engine="h5netcdf")
        for node in tree.subtree:
            for variable in node.to_dataset(inherit=False).variables.values():
                _ = variable.values
    except Exception:  # it fails in many ways
        return None
    return tree


FEW = settings(
    max_examples=examples(8),
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("program", WRITERS)
def test_a_file_opens_as_the_engine_opens_it(tmp_path_factory, program):
    folder = tmp_path_factory.mktemp("files")

    @FEW
    @given(st.data())
    def check(data):
        path = _written(data.draw, program, folder)
        if path is None:
            return
        expected = _as_the_engine_shows_it(path)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = open_tree(path)
        left_out = [each for each in caught if "left out" in str(each.message)]
        if expected is not None and not left_out:
            same_trees(found, expected)
        if expected is not None:
            assert not left_out
            expected.close()
        found.load()
        found.close()

    check()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("ending", [".h5", ".zarr"])
def test_what_was_opened_is_kept_when_it_is_stored(tmp_path_factory, ending):
    folder = tmp_path_factory.mktemp("files")

    @FEW
    @given(st.data(), st.sampled_from(sorted(WRITERS)))
    def check(data, program):
        path = _written(data.draw, program, folder)
        if path is None:
            return
        opened = open_tree(path)
        workspace = labtree.create_workspace()
        try:
            workspace.ws.store("others", "file", opened)
        except labtree.errors.UnsupportedTypeError as error:
            if "cftime" not in str(error):  # dates of calendars that numpy lacks
                raise
            opened.close()
            return
        saved = workspace.ws.save(folder / f"saved {path.stem}{ending}")
        again = labtree.load_workspace(saved).ws["others", "file"]
        same_trees(again, opened, stored=True)
        opened.close()

    check()
