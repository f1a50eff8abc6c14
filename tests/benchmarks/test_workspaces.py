"""Speed of workspaces beside plain h5py, xarray's own files and SpikeLab.

As a test every row runs once at a small size. ``python tests/benchmarks/test_workspaces.py``
runs the full sizes and prints the tables of docs/performance/workspaces.md.
"""

import contextlib
import gc
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from unittest import mock

import h5py
import numpy as np
import pytest
import xarray as xr

import labtree
from labtree.storage.files import sync_file


def spikelab():
    """Return SpikeLab, or None where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from spikelab.workspace import workspace
    except ImportError:
        return None
    return workspace


def timed(repeats, **works):
    """Time works in turn; return the median milliseconds of each."""
    taken = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            gc.collect()
            start = time.perf_counter()
            kept = work()
            taken[name].append((time.perf_counter() - start) * 1000)
            del kept
    return {name: statistics.median(times) for name, times in taken.items()}


def arrays(count, size):
    random = np.random.default_rng(0)
    return {f"k{i}": random.random(size) for i in range(count)}


def filled(tree, items):
    store = tree.ws.store if isinstance(tree, xr.DataTree) else tree.store
    for key, value in items.items():
        store("rec1", key, value)
    return tree


def without_fsync(work):
    """Run a save that does not wait for the disk, as the others do not."""
    with mock.patch.object(os, "fsync", return_value=None):
        return work()


def save_anew(tree, path):
    """Write a new file; onto the own file a save would find nothing to do."""
    for ending in (".h5", ".json"):
        Path(f"{path}{ending}").unlink(missing_ok=True)
    tree.ws.save(path)


def write_h5py(path, items):
    with h5py.File(path, "w") as file:
        for key, value in items.items():
            file.create_dataset(f"rec1/{key}", data=value)


def read_h5py(path):
    with h5py.File(path) as file:
        return [dataset[()] for dataset in file["rec1"].values()]


def files(folder, repeats, count, size):
    """Save, open, load all and load one of `count` arrays of `size` float64."""
    folder = folder / f"{count}"
    folder.mkdir()
    items, peer = arrays(count, size), spikelab()
    ours, fresh = str(folder / "ours"), filled(labtree.create_workspace(), items)
    plain = folder / "plain.h5"
    fresh.ws.save(ours)
    write_h5py(plain, items)
    one = f"k{count // 2}"

    def close(tree):
        tree.ws.close()

    save = {
        "labtree": lambda: save_anew(fresh, ours),
        "labtree without fsync": lambda: without_fsync(lambda: save_anew(fresh, ours)),
        "h5py": lambda: write_h5py(plain, items),
        "h5py and fsync": lambda: (write_h5py(plain, items), sync_file(plain)),
    }
    load = {
        "labtree open": lambda: close(labtree.open_workspace(ours)),
        "labtree": lambda: labtree.load_workspace(ours),
        "h5py": lambda: read_h5py(plain),
    }
    item = {"labtree": lambda: labtree.load_item(ours, "rec1", one)}
    if peer is not None:
        theirs, other = str(folder / "theirs"), filled(peer.AnalysisWorkspace(), items)
        save["SpikeLab"] = lambda: other.save(theirs)
        other.save(theirs)
        load["SpikeLab"] = lambda: peer.AnalysisWorkspace.load(theirs)
        item["SpikeLab"] = lambda: peer.AnalysisWorkspace.load_item(theirs, "rec1", one)
    what = f"{count} x {size * 8 / 1000:.0f} kB"
    yield f"save {what}", timed(repeats, **save)
    yield f"open and load {what}", timed(repeats, **load)
    yield f"load one of {what}", timed(repeats, **item)


def xarrays_own(folder, repeats, count, size):
    """DataTree.to_netcdf and open_datatree beside labtree, of the same tree."""
    tree = filled(labtree.create_workspace(), arrays(count, size))
    ours, theirs = str(folder / "few"), folder / "xarray.h5"
    tree.ws.save(ours)
    tree.to_netcdf(theirs, engine="h5netcdf")

    def open_ours():
        labtree.open_workspace(ours).ws.close()

    what = f"{count} x {size * 8 / 1000:.0f} kB"
    yield (
        f"save {what}",
        timed(
            repeats,
            labtree=lambda: save_anew(tree, ours),
            xarray=lambda: tree.to_netcdf(theirs, engine="h5netcdf"),
        ),
    )
    yield (
        f"open {what}",
        timed(
            repeats,
            labtree=open_ours,
            xarray=lambda: xr.open_datatree(theirs, engine="h5netcdf").close(),
        ),
    )


def lazy_verbs(repeats, sizes):
    """Rename, note and delete of one item of each size; store and get beside SpikeLab."""
    peer = spikelab()
    for size in sizes:
        value = np.zeros(size)
        trees = {"labtree": labtree.create_workspace(lazy=True)}
        if peer is not None:
            trees["SpikeLab"] = peer.LazyAnalysisWorkspace()
        verbs = {name: getattr(tree, "ws", tree) for name, tree in trees.items()}
        steps = {
            "store": lambda ws, value=value: ws.store("n", "a", value),
            "get": lambda ws: ws.get("n", "a"),
            "rename": lambda ws: ws.rename("n", "a", "b"),
            "note": lambda ws: ws.add_note("n", "b", "text"),
            "delete": lambda ws: ws.delete("n", "b"),
        }
        times = {step: {name: [] for name in verbs} for step in steps}
        for _ in range(repeats):
            for step, call in steps.items():
                for name, ws in verbs.items():
                    start = time.perf_counter()
                    call(ws)
                    times[step][name].append((time.perf_counter() - start) * 1000)
        for step, taken in times.items():
            medians = {name: statistics.median(each) for name, each in taken.items()}
            yield f"lazy {step} of {size * 8 / 1e6:g} MB", medians
        trees["labtree"].ws.close()


def many_items(folder, repeats, few, many):
    """Cost per item in microseconds, of small arrays, at two counts."""
    values = {count: arrays(count, 10) for count in (few, many)}
    trees = {count: filled(labtree.create_workspace(), values[count]) for count in (few, many)}
    paths = {count: str(folder / f"many{count}") for count in (few, many)}
    rounds = {few: max(1, many // few // 10), many: 1}

    def repeat(count, work):
        for _ in range(rounds[count]):
            work()

    def store(count):
        filled(labtree.create_workspace(), values[count])

    def open_(count):
        labtree.open_workspace(paths[count]).ws.close()

    steps = {
        "store": store,
        "save": lambda count: save_anew(trees[count], paths[count]),
        "open": open_,
        "load": lambda count: labtree.load_workspace(paths[count]),
        "describe": lambda count: trees[count].ws.describe(),
    }
    for name, step in steps.items():
        taken = timed(
            repeats,
            **{
                f"{count} items": lambda count=count, step=step: repeat(
                    count, lambda: step(count)
                )
                for count in (few, many)
            },
        )
        per_item = {
            f"{count} items": taken[f"{count} items"] / rounds[count] / count
            for count in (few, many)
        }
        yield f"{name}, per item", per_item


def imports(repeats):
    """Time of imports in fresh interpreters, in milliseconds."""
    source = str(Path(labtree.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": source}

    def run(code):
        subprocess.run([sys.executable, "-c", code], check=True, env=environment)

    base = "import xarray, pandas"
    yield (
        "import",
        timed(
            repeats,
            **{base: lambda: run(base), f"{base}, labtree": lambda: run(f"{base}, labtree")},
        ),
    )


def saves_in_place(folder, repeats, count):
    """Store and save one item of 80 kB among others, beside a durable insert and h5py.

    By ``tree.ws.save()`` of an opened workspace, and in mode "a"; nothing of h5py is synced.
    """
    item = np.random.default_rng(0).random(10_000)
    base = labtree.create_workspace()
    for i in range(count):
        base.ws.store(f"rec{i % 10}", f"k{i}", np.full(100, float(i)))
    path = base.ws.save(folder / f"in_place{count}")
    with contextlib.closing(sqlite3.connect(folder / f"{count}.db")) as base_of_sqlite:
        base_of_sqlite.execute("PRAGMA journal_mode=DELETE")
        base_of_sqlite.execute("PRAGMA synchronous=FULL")
        base_of_sqlite.execute("CREATE TABLE items (key TEXT PRIMARY KEY, value BLOB)")
        old = ((f"k{i}", bytes(800)) for i in range(count))
        base_of_sqlite.executemany("INSERT INTO items VALUES (?, ?)", old)
        base_of_sqlite.commit()
        plain = folder / f"{count}.plain.h5"
        with h5py.File(plain, "w") as file:
            for i in range(count):
                file[f"rec{i % 10}/k{i}"] = np.full(100, float(i))
        numbers = iter(range(10**9))

        def insert():
            row = f"n{next(numbers)}", item.tobytes()
            base_of_sqlite.execute("INSERT INTO items VALUES (?, ?)", row)
            base_of_sqlite.commit()

        def append():
            with h5py.File(plain, "a") as file:
                file[f"rec1/n{next(numbers)}"] = item

        for mode in ("r", "a"):
            with labtree.open_workspace(path, mode) as tree:

                def store(tree=tree, mode=mode):
                    tree.ws.store("rec1", f"n{next(numbers)}", item)
                    if mode == "r":
                        tree.ws.save()

                store()
                size = path.stat().st_size
                times = timed(repeats, labtree=store, sqlite3=insert, h5py=append)
                grown = (path.stat().st_size - size) / repeats / 1000
            what = "save" if mode == "r" else 'store in mode "a"'
            yield f"{what} one item of 80 kB among {count} ({grown:.0f} kB written)", times


def rows(folder, *, full):
    """Give name and times of every row."""
    if full:
        yield from files(folder, 9, 1000, 10_000)
        yield from files(folder, 5, 8, 8 << 20)
        yield from xarrays_own(folder, 3, 200, 10_000)
        yield from lazy_verbs(15, (1_000, 1_000_000, 8 << 20))
        yield from many_items(folder, 5, 100, 10_000)
        yield from saves_in_place(folder, 30, 1000)
        yield from saves_in_place(folder, 30, 10_000)
        yield from imports(7)
    else:
        yield from files(folder, 1, 5, 100)
        yield from xarrays_own(folder, 1, 3, 10)
        yield from lazy_verbs(1, (10,))
        yield from many_items(folder, 1, 2, 20)
        yield from saves_in_place(folder, 1, 10)


@pytest.mark.filterwarnings("ignore")
def test_every_row_runs(tmp_path):
    found = dict(rows(tmp_path, full=False))
    assert len(found) == 3 + 2 + 5 + 5 + 2
    assert all(time > 0 for times in found.values() for time in times.values())


@pytest.mark.filterwarnings("ignore")
def test_all_programs_wrote_the_same(tmp_path):
    list(files(tmp_path, 1, 5, 100))
    expected = arrays(5, 100)
    for key, value in expected.items():
        assert (labtree.load_item(tmp_path / "5/ours", "rec1", key) == value).all()
    assert len(read_h5py(tmp_path / "5/plain.h5")) == 5
    if spikelab() is not None:
        loaded = spikelab().AnalysisWorkspace.load(str(tmp_path / "5/theirs"))
        assert all((loaded.get("rec1", key) == value).all() for key, value in expected.items())


def main():
    warnings.simplefilter("ignore")
    print("| work | labtree (ms) | others (ms) | labtree / other |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, times in rows(Path(folder), full=True):
            first, ours = next(iter(times.items()))
            mine = {k: v for k, v in times.items() if k.startswith("labtree")} or {first: ours}
            others = {k: v for k, v in times.items() if k not in mine}
            print(
                f"| {name} | {', '.join(f'{k}: {v:.3g}' for k, v in mine.items())} "
                f"| {', '.join(f'{k}: {v:.3g}' for k, v in others.items())} | "
                + "; ".join(
                    ", ".join(f"{k} / {o}: {v / w:.2f}" for o, w in others.items())
                    for k, v in mine.items()
                )
                + " |",
                flush=True,
            )


if __name__ == "__main__":
    main()
