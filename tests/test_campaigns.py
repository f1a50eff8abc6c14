"""Damage by the hundred, at random: right values, or an error that names the file.

A few cases on every run; LABTREE_THOROUGH=1 tries thousands, and LABTREE_SEED other ones.
`docs/safety.md` has the counts of the last whole campaign.
"""

import os
import random
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import labtree
from labtree.storage.hdf5_end import end_of_hdf5
from support.campaigns import (
    Case,
    attempts,
    damaged_bytes,
    damaged_folder,
    workspace_reads,
)
from support.examples import THOROUGH

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
SEED = os.environ.get("LABTREE_SEED", "0")


def cases(thorough: int, few: int) -> int:
    return thorough if THOROUGH else few


@pytest.fixture(autouse=True)
def _other_libraries_warn(recwarn):
    """Each read looks at its own warnings."""


def study(folder: Path, sort: str) -> Path:
    """Save a workspace with an item of most sorts."""
    tree = labtree.create_workspace("study")
    trains = [np.arange(5) * 3.0, np.arange(7) + 0.5, np.array([])]
    tree.ws.store("rec", "spikes", labtree.spike_data(trains, length=100.0), note="first")
    table = {
        "text": ["a", "bé", None],
        "label": pd.Categorical(["x", "y", "x"]),
        "time": pd.date_range("2020-01-01", periods=3),
        "count": pd.array([1, None, 3], "Int64"),
        "rate": [0.5, np.nan, 2],
    }
    tree.ws.store("rec", "table", pd.DataFrame(table))
    nested = {"a": (1, 2.5), "b": {1, 2}, "n": None, "big": 2**70, "array": np.arange(4)}
    tree.ws.store("rec", "nested", nested)
    coords = {"time": pd.date_range("2021", periods=3), "ch": list("abcd")}
    values = np.arange(12.0).reshape(3, 4)
    array = xr.DataArray(values, coords, ("time", "ch"), attrs={"units": "mV"})
    tree.ws.store("x/y", "array", array)
    tree.ws.store("x/y", "mask", np.array([True, False, True]))
    tree.ws.store("x/y", "complex", np.arange(3) + 1j)
    suffix = ".zarr" if sort == "zarr" else ".h5"
    tree.ws.save(folder / f"study{suffix}", compression="gzip" if sort == "gzip" else None)
    if sort == "changed":  # in place, again and again
        tree.ws.store("rec", "later", np.arange(20))
        tree.ws.save()
        tree.ws.delete("x/y", "mask")
        tree.ws.rename("rec", "nested", "values")
        tree.ws.save()
        tree.ws.add_note("rec", "table", "noted")
        tree.ws.store("rec", "later", np.arange(21.0))
        tree.ws.save()
    tree.ws.close()
    return folder / f"study{suffix}"


def written(data: bytes):
    """Return the damage that puts other bytes there."""
    return lambda path: path.write_bytes(data)


def no_faults(counts) -> None:
    print(counts)  # with -rP the counts are shown
    assert counts.faults == []
    assert counts.outcomes


@pytest.mark.parametrize("sort", ["whole", "changed", "gzip"])
def test_one_fault_in_a_workspace(tmp_path, sort):
    path = study(tmp_path, sort)
    data, chance = path.read_bytes(), random.Random(f"{sort} {SEED}")
    faults = [damaged_bytes(data, chance) for _ in range(cases(900, 3))]
    tried = [Case(name, written(each)) for name, each in faults]
    no_faults(attempts(tried, workspace_reads(path), path, tmp_path / "copies"))


@pytest.mark.parametrize("sort", ["whole", "changed", "gzip"])
def test_a_second_fault_behind_a_damaged_catalogue(tmp_path, sort):
    path = study(tmp_path, sort)
    data, chance = path.read_bytes(), random.Random(f"{sort} {SEED}")
    end = end_of_hdf5(data)
    tried = []
    for number in range(cases(220, 3)):
        first, found = "cut", data[:end]
        if number % 2:
            first, found = damaged_bytes(data, chance, end)
        second, found = damaged_bytes(found, chance, 0, min(end, len(found)))
        tried.append(Case(f"{first} and {second}", written(found)))
    no_faults(attempts(tried, workspace_reads(path), path, tmp_path / "copies"))


def test_damage_to_a_zarr_store(tmp_path):
    path = study(tmp_path, "zarr")
    chance = random.Random(SEED)
    seeds = [chance.random() for _ in range(cases(1000, 6))]
    tried = [
        Case(f"seed {seed}", lambda path, seed=seed: damaged_folder(path, random.Random(seed)))
        for seed in seeds
    ]
    no_faults(attempts(tried, workspace_reads(path), path, tmp_path / "copies"))
