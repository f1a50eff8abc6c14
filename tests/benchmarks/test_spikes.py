"""Speed of spike data and of the verbs beside SpikeLab, pynapple, h5py and plain loops.

As a test every row runs once at a small size. ``python tests/benchmarks/test_spikes.py``
runs the full sizes and prints the tables of docs/performance/spikes.md; with ``peers``,
``large`` or ``cold`` behind it only that part.
"""

import statistics
import subprocess
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


def timed(repeats, *functions, clock=time.perf_counter):
    """Time functions in turn, and give the median milliseconds of each."""
    times = [[] for _ in functions]
    for _ in range(repeats):
        for function, taken in zip(functions, times, strict=True):
            start = clock()
            function()
            taken.append((clock() - start) * 1000)
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


def large_recording(n_units, n_spikes, length_ms, seed=0):
    random = np.random.default_rng(seed)
    return labtree.spikes.from_times(
        random.uniform(0, length_ms, n_units * n_spikes),
        np.repeat(np.arange(n_units), n_spikes),
        length_ms=length_ms,
    )


def peers(repeats, spikelab, nap, n_units, n_spikes, length_ms, n_events):
    """Verbs beside the library that users come from: (work, labtree, peer, which peer).

    By the processor's time, which other work on the machine disturbs least.
    """
    ds = large_recording(n_units, n_spikes, length_ms)
    theirs = spikelab.SpikeData(labtree.spikes.spike_trains(ds), length=length_ms)
    group = labtree.to_pynapple(ds)
    events = np.sort(np.random.default_rng(1).uniform(1000, length_ms - 2000, n_events))
    seconds = nap.Ts(events / 1000)
    verbs = labtree.spikes
    rows = (
        (
            "spike time tiling of all pairs, 20 ms",
            lambda: verbs.sttc(ds, 20),
            lambda: theirs.spike_time_tilings(delt=20),
            "SpikeLab",
        ),
        (
            "correlograms of all pairs, 1 ms, ±50 ms",
            lambda: verbs.correlograms(ds, 1, 50),
            lambda: nap.compute_crosscorrelogram(group, 0.001, 0.05, norm=False),
            "pynapple",
        ),
        (
            f"counts around {n_events} events, 50 ms bins",
            lambda: verbs.peri_event_counts(ds, events, 500, 1000, 50),
            lambda: nap.compute_perievent(group, seconds, (-0.5, 1.0)),
            "pynapple",
        ),
        (
            "counts in 10 ms bins",
            lambda: verbs.binned_counts(ds, 10),
            lambda: group.count(0.01),
            "pynapple",
        ),
    )
    for work, ours, peer, name in rows:
        peer()  # compiled before it is timed
        yield (work, *timed(repeats, ours, peer, clock=time.process_time), name)


LARGE = {
    "spike_counts": "verbs.spike_counts(ds)",
    "firing_rates": "verbs.firing_rates(ds)",
    "isi_statistics": "verbs.isi_statistics(ds)",
    "binned_counts, 100 ms": "verbs.binned_counts(ds, 100)",
    "binned_counts, 1 ms, sparse": "verbs.binned_counts(ds, 1, sparse=True)",
    "smoothed_rates, 100 ms": "verbs.smoothed_rates(ds, 100, 500)",
    "population_rate": "verbs.population_rate(ds, 10, 50)",
    "bursts": "verbs.bursts(ds)",
    "peri_event, 200 events": "verbs.peri_event(ds, events, 500, 1000)",
    "peri_event_counts, 200 events": "verbs.peri_event_counts(ds, events, 500, 1000, 50)",
    "psth, 200 events": "verbs.psth(ds, events, 500, 1000, 50)",
    "latencies, 200 events": "verbs.latencies(ds, events, 500)",
    "surrogates, jitter": "verbs.surrogates(ds, 'jitter', seed=0, window_ms=20)",
    "surrogates, isi_shuffle": "verbs.surrogates(ds, 'isi_shuffle', seed=0)",
    "curate": "verbs.curate(ds, min_spikes=10, max_violations=0.01)",
    "sttc": "verbs.sttc(ds, 20)",
    "correlograms": "verbs.correlograms(ds, 1, 50)",
}


def call_alone(expression, n_units, n_spikes, length_ms):
    """Call a verb in a process of its own: processor seconds, and MiB that it took more."""
    code = f"""
import sys, time, resource
sys.path.insert(0, {str(Path(__file__).parent)!r})
import numpy as np, labtree
from test_spikes import large_recording
ds = large_recording({n_units}, {n_spikes}, {length_ms})
events = np.linspace(1000, {length_ms} - 2000, 200)
verbs = labtree.spikes
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.process_time()
result = {expression}
taken = time.process_time() - start
print(taken, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    seconds, mib = map(float, done.stdout.split())
    return seconds, mib


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


def test_verbs_beside_peers_at_a_small_size():
    spikelab = pytest.importorskip("spikelab", reason="measured beside SpikeLab itself")
    nap = pytest.importorskip("pynapple")
    assert len(list(peers(1, spikelab, nap, 3, 20, 20_000.0, 5))) == 4


@pytest.mark.parametrize("verb", LARGE)
def test_every_verb_of_the_large_table_runs(verb):
    ds = large_recording(3, 20, 10_000.0)
    names = {"ds": ds, "verbs": labtree.spikes, "events": np.linspace(1000, 8000, 5)}
    assert eval(LARGE[verb], names) is not None


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
    import pynapple
    import spikelab

    warnings.simplefilter("ignore")
    parts = [part for part in sys.argv[1:] if not part.isdigit()] or [
        "files", "peers", "large", "cold",
    ]  # fmt: skip
    repeats = next((int(part) for part in sys.argv[1:] if part.isdigit()), 7)
    if "files" in parts:
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
            print(
                f"\nPlain h5py, one dataset an item: write {write:.0f} ms, read {read:.0f} ms."
            )
    if "peers" in parts:
        print("\n| verb | labtree (ms) | peer (ms) | times faster |\n|---|---|---|---|")
        for work, ours, theirs, name in peers(
            repeats, spikelab, pynapple, 100, 2000, 600_000.0, 200
        ):
            print(f"| {work} | {ours:.1f} | {theirs:.0f} ({name}) | {theirs / ours:.1f} |")
    if "large" in parts:
        print("\n| verb | processor time (s) | MiB |\n|---|---|---|")
        for name, expression in LARGE.items():
            seconds, mib = call_alone(expression, 2000, 1000, 3_600_000.0)
            print(f"| {name} | {seconds:.2f} | {mib:.0f} |")
    if "cold" in parts:
        print("\n| first call in a process | processor time (s) |\n|---|---|")
        for name, expression in LARGE.items():
            seconds, _ = call_alone(expression, 10, 100, 60_000.0)
            print(f"| {name} | {seconds:.3f} |")


if __name__ == "__main__":
    main()
