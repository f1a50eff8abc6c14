"""Speed of spike data beside SpikeLab, h5py and plain loops.

As a test every row runs once at a small size. ``python tests/benchmarks/test_spikes.py``
runs the full sizes and prints the table of docs/performance/spikes.md.
"""

import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest

import labtree
from labtree.testing.spikes import synthetic_spike_data


def timed(repeats, *functions):
    """Time functions in turn, and give the median milliseconds of each."""
    times = [[] for _ in functions]
    for _ in range(repeats):
        for function, taken in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            taken.append((time.perf_counter() - start) * 1000)
    return [statistics.median(taken) for taken in times]


def make_trains(n_units, n_spikes, seed=0):
    random = np.random.default_rng(seed)
    return [np.sort(random.uniform(0, 1e5, n_spikes)) for _ in range(n_units)]


def spike_data_files(peer, folder, repeats, n_items, n_units, n_spikes):
    attributes = [{"channel": unit, "snr": 1.5 * unit, "group": "a"} for unit in range(n_units)]
    ours, theirs = labtree.create_workspace("ours"), peer.AnalysisWorkspace("theirs")
    for at in range(n_items):
        trains = make_trains(n_units, n_spikes, at)
        more = {"length": 1e5, "neuron_attributes": attributes}
        ours.ws.store("n", f"k{at}", labtree.spike_data(trains, **more))
        theirs.store("n", f"k{at}", peer.SpikeData(trains, **more))
    ours_path, theirs_path = str(folder / "ours"), str(folder / "theirs")
    what = f"{n_items} SpikeData of {n_units} units with {n_spikes} spikes"

    def rewrite():
        # A workspace that knows its file copies what is unchanged; time the whole save.
        ours.copy().ws.save(ours_path)

    yield f"save {what}", *timed(repeats, rewrite, lambda: theirs.save(theirs_path))
    yield (
        f"load {what}",
        *timed(
            repeats,
            lambda: labtree.load_workspace(ours_path),
            lambda: peer.AnalysisWorkspace.load(theirs_path),
        ),
    )
    yield (
        f"import SpikeLab's file of {what}",
        *timed(
            repeats,
            lambda: labtree.import_spikelab(theirs_path),
            lambda: peer.AnalysisWorkspace.load(theirs_path),
        ),
    )


def array_files(peer, folder, repeats, n_items, size):
    theirs = peer.AnalysisWorkspace("theirs")
    for at in range(n_items):
        theirs.store("n", f"k{at}", np.random.default_rng(at).random(size))
    path = str(folder / "arrays")
    theirs.save(path)
    yield (
        f"import SpikeLab's file of {n_items} arrays of {8 * size / 1000:g} kB",
        *timed(
            repeats,
            lambda: labtree.import_spikelab(path),
            lambda: peer.AnalysisWorkspace.load(path),
        ),
    )


def verbs(repeats, n_units, n_spikes):
    trains = make_trains(n_units, n_spikes)
    ds = labtree.spike_data(trains, length=1e5)
    units = np.arange(0, n_units, 2)
    edges = np.linspace(0, 1e5, 101)
    what = f"{n_units} units with {n_spikes} spikes"
    yield (
        f"a stretch of time of {what}",
        *timed(
            repeats,
            lambda: labtree.spikes.select_time(ds, 2e4, 4e4),
            lambda: [train[(train >= 2e4) & (train < 4e4)] for train in trains],
        ),
    )
    yield (
        f"every second of {what}",
        *timed(
            repeats,
            lambda: labtree.spikes.select_units(ds, units),
            lambda: [trains[unit].copy() for unit in units],
        ),
    )
    yield (
        f"counts in 100 bins of {what}",
        *timed(
            repeats,
            lambda: labtree.spikes.binned_counts(ds, 1000),
            lambda: np.stack([np.histogram(train, edges)[0] for train in trains]),
        ),
    )
    yield (
        f"two recordings of {what}, one after the other",
        *timed(
            repeats,
            lambda: labtree.spikes.concatenate_time([ds, ds]),
            lambda: [np.concatenate([train, train + 1e5]) for train in trains],
        ),
    )


def floor(folder, repeats, n_items, n_units, n_spikes):
    arrays = [np.random.default_rng(at).random(n_units * n_spikes) for at in range(n_items)]
    path = folder / "floor.h5"

    def write():
        with h5py.File(path, "w") as file:
            for at, values in enumerate(arrays):
                file[str(at)] = values

    def read():
        with h5py.File(path) as file:
            return [file[str(at)][()] for at in range(n_items)]

    return timed(repeats, write, read)


def test_verbs_at_a_small_size():
    assert len(list(verbs(1, 4, 20))) == 4


def test_files_at_a_small_size(tmp_path):
    peer = pytest.importorskip("spikelab", reason="measured beside SpikeLab itself")
    assert len(list(spike_data_files(peer, tmp_path, 1, 2, 3, 10))) == 3
    assert len(list(array_files(peer, tmp_path, 1, 3, 10))) == 1


def test_floor_at_a_small_size(tmp_path):
    assert len(floor(tmp_path, 1, 2, 3, 10)) == 2


def test_a_train_of_many_units_reads_its_own_spikes(tmp_path):
    tree = labtree.create_workspace()
    tree.ws.store("n", "k", synthetic_spike_data(50))
    tree.ws.save(tmp_path / "a")
    opened = labtree.open_workspace(tmp_path / "a")
    lazy = opened["n/k"].to_dataset()
    assert labtree.spikes.unit_train(lazy, 7).size == lazy.row_size.values[7]
    assert not lazy.variables["spike_times"]._in_memory
    opened.ws.close()


def main():
    import spikelab

    warnings.simplefilter("ignore")
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    print("| work | labtree (ms) | baseline (ms) | ratio |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for rows in (
            spike_data_files(spikelab, folder, repeats, 50, 200, 2000),
            array_files(spikelab, folder, repeats, 1000, 10_000),
            verbs(repeats, 200, 2000),
            verbs(repeats, 2000, 50),
        ):
            for work, ours, baseline in rows:
                print(f"| {work} | {ours:.2f} | {baseline:.2f} | {ours / baseline:.2f} |")
        write, read = floor(folder, repeats, 50, 200, 2000)
        print(f"\nPlain h5py, one dataset an item: write {write:.0f} ms, read {read:.0f} ms.")


if __name__ == "__main__":
    main()
