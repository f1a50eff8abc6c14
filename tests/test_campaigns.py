"""Damage by the hundred, at random: right values, or an error that names the file.

A few cases on every run; LABTREE_THOROUGH=1 tries thousands, and LABTREE_SEED other ones.
`docs/files.md` says how many were tried.
"""

import os
import random
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import labtree
from labtree.pipeline.sessions import SAVED_KEY
from labtree.storage.hdf5_end import end_of_hdf5
from labtree.testing.msw import write_session
from support.campaigns import (
    Case,
    any_reads,
    attempts,
    content,
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


def in_folder(seed: float) -> Case:
    """Return a random damage to a folder."""
    return Case(f"seed {seed}", lambda path: damaged_folder(path, random.Random(seed)))


def without_path(session: xr.DataTree) -> xr.DataTree:
    """Forget where a pipeline session was read from, which the copies differ in."""
    session.attrs.pop(SAVED_KEY)
    return session


def recovered(path: Path):
    """Return what a recording holds after it was recovered."""
    labtree.recover(path)
    return content(labtree.open_session(path))


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
    tried = [in_folder(chance.random()) for _ in range(cases(1000, 6))]
    no_faults(attempts(tried, workspace_reads(path), path, tmp_path / "copies"))


def test_one_fault_in_a_pipeline_session(tmp_path):
    session = labtree.create_session("rec1", output_dir=tmp_path)
    units = {
        f"unit_{n:03}": {"spike_times": np.arange(50 * n), "row": n, "waveform": np.ones(8) * n}
        for n in range(1, 4)
    }
    session.session.add_units(units)
    session.session.mark_step_complete("load")
    session.session.add_metadata({"rate": 20_000.0, "name": "chip"})
    path = session.session.save()
    session.session.mark_step_complete("features")
    session.session.save()
    data, chance = path.read_bytes(), random.Random(SEED)
    faults = [damaged_bytes(data, chance) for _ in range(cases(450, 5))]
    reads = any_reads() | {
        "load_session": lambda path: content(without_path(labtree.load_session(path))),
        "open": lambda path: content(without_path(labtree.open(path))),
        "engine": lambda path: content(without_path(xr.open_datatree(path, engine="labtree"))),
    }
    tried = [Case(name, written(each)) for name, each in faults]
    no_faults(attempts(tried, reads, path, tmp_path / "copies"))


@pytest.mark.parametrize("sort", ["finished", "journal", "zip"])
def test_damage_to_a_recording(tmp_path, sort):
    """What a recording's arrays hold has sums in the journal only."""
    recorder = labtree.Recorder(tmp_path / "sessions", class_names=["rest", "fist"])
    info = labtree.StreamInfo(n_channels=2, fs=1000.0, dtype="int16")
    recorder.init_stream("emg", info)
    for n in range(5):
        values = np.arange(n * 200, n * 200 + 200).reshape(100, 2).astype("int16")
        recorder.append("emg", values, np.arange(n * 100, n * 100 + 100) / 1000)
        recorder.add_label(n % 2, n / 10)
    path = recorder.path
    if sort == "journal":
        live = shutil.copytree(path, tmp_path / "live")
        recorder.close()
        path = live
    elif sort == "zip":
        recorder.close()
        path = recorder.pack_to_zip()
    else:
        recorder.close()
    chance = random.Random(f"{sort} {SEED}")
    tried = []
    for _ in range(cases(400, 5)):
        if sort == "zip":
            name, data = damaged_bytes(path.read_bytes(), chance)
            tried.append(Case(name, written(data)))
        else:
            tried.append(in_folder(chance.random()))
    reads = {"open_session": lambda path: content(labtree.open_session(path))} | any_reads()
    if sort == "journal":
        del reads["verify"]  # which says that it was not finished
        reads["recover"] = recovered
    no_faults(attempts(tried, reads, path, tmp_path / "copies", has_sums=False))


def test_damage_to_a_mouse_session(tmp_path):
    """Files of text, which have no sums."""
    path = write_session(tmp_path / "mouse")
    chance = random.Random(SEED)
    tried = [in_folder(chance.random()) for _ in range(cases(400, 5))]
    reads = any_reads() | {
        "load_session": lambda path: content(labtree.msw.load_session(path).to_tree())
    }
    no_faults(attempts(tried, reads, path, tmp_path / "copies", has_sums=False))
