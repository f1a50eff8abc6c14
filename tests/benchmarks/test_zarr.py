"""How saving, opening and reading one item grow with the number of recordings.

A zarr store in a folder and in an object store (moto's server on loopback), beside the
HDF5 file. As a test with few recordings; all sizes by ``python tests/benchmarks/test_zarr.py``.
"""

import contextlib
import functools
import json
import logging
import os
import shutil
import statistics
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import labtree

REPEATS = 5


def recordings(count):
    """Make recordings of 80 kB: 10 units, 1,000 samples, with a coordinate of time."""
    rng = np.random.default_rng(0)
    tree = labtree.create_workspace()
    for i in range(count):
        dataset = xr.Dataset(
            {"rate": (("unit", "time"), rng.random((10, 1000)))},
            coords={"time": np.arange(1000) / 1000.0},
        )
        tree.ws.store(f"rec{i}", "rates", dataset)
    return tree


def timed(work):
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


@contextlib.contextmanager
def object_store():
    """Give the URL of a bucket on loopback, or None without moto and icechunk."""
    try:
        import icechunk  # noqa: F401
        from moto.server import ThreadedMotoServer
    except ImportError:
        yield None
        return
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    before = dict(os.environ)
    try:
        host, port = server.get_host_and_port()
        os.environ.update(
            AWS_ENDPOINT_URL=f"http://{host}:{port}",
            AWS_ACCESS_KEY_ID="test",
            AWS_SECRET_ACCESS_KEY="test",
            AWS_REGION="us-east-1",
        )
        request = urllib.request.Request(f"http://{host}:{port}/lab", method="PUT")
        urllib.request.urlopen(request).close()
        yield "s3://lab"
    finally:
        os.environ.clear()
        os.environ.update(before)
        server.stop()


def measure(where, count, repeats, *, plain=False):
    """Return medians in seconds: save, open, load all, load one; check what comes back."""
    last = f"rec{count - 1}"
    times = {name: [] for name in ("save", "open", "load", "load_item", "plain")}
    for _ in range(repeats):
        tree = recordings(count)  # a save of the same one again would cost what changed
        times["save"].append(timed(functools.partial(tree.ws.save, where))[0])
        times["open"].append(timed(lambda: labtree.open_workspace(where).ws.close())[0])
        spent, loaded = timed(lambda: labtree.load_workspace(where))
        times["load"].append(spent)
        spent, item = timed(lambda: labtree.load_item(where, last, "rates"))
        times["load_item"].append(spent)
        assert item.identical(tree.ws[last, "rates"])
        assert loaded.ws[last, "rates"].identical(item)
    if plain:
        engine = "zarr" if str(where).endswith(".zarr") else "h5netcdf"
        times["plain"].append(timed(lambda: xr.open_datatree(where, engine=engine))[0])
    return {name: statistics.median(values) for name, values in times.items() if values}


@pytest.mark.parametrize("name", ["study.h5", "study.zarr"])
def test_recordings_are_saved_and_read(tmp_path, name):
    assert set(measure(tmp_path / name, 3, 1, plain=True)) >= {"save", "open", "load_item"}


def beside_zarr(folder, count, repeats):
    """Return medians in seconds of a save, and of zarr-python's own calls for the same."""
    import zarr
    from zarr.core.group import GroupMetadata
    from zarr.core.metadata import ArrayV3Metadata

    tree = recordings(count)
    ours, theirs = folder / "ours.zarr", folder / "theirs.zarr"
    tree.ws.save(ours)
    stored = json.loads((ours / "zarr.json").read_text())["consolidated_metadata"]["metadata"]
    nodes = {
        path: GroupMetadata(attributes=each["attributes"])
        if each["node_type"] == "group"
        else ArrayV3Metadata.from_dict(each)
        for path, each in stored.items()
    }
    values = {
        path: tree[path.rpartition("/")[0]][path.rpartition("/")[2]].values
        for path, each in stored.items()
        if each["node_type"] == "array"
    }

    def write():
        store = zarr.storage.LocalStore(theirs)
        made = dict(zarr.create_hierarchy(store=store, nodes={"": GroupMetadata()} | nodes))
        for path, array in values.items():
            made[path][...] = array
        for place in (theirs, *theirs.rglob("*")):
            descriptor = os.open(place, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)

    times = {"labtree": [], "zarr": []}
    for _ in range(repeats):
        for name, path, work in (
            ("labtree", ours, lambda: tree.ws.save(ours)),
            ("zarr", theirs, write),
        ):
            shutil.rmtree(path, ignore_errors=True)
            times[name].append(timed(work)[0])
    return {name: statistics.median(spent) for name, spent in times.items()}


def test_zarrs_own_calls_write_the_same_chunks(tmp_path):
    assert min(beside_zarr(tmp_path, 3, 1).values()) > 0
    chunks = [
        {path.relative_to(root): path.read_bytes() for path in root.rglob("c.*")}
        for root in (tmp_path / "ours.zarr", tmp_path / "theirs.zarr")
    ]
    assert chunks[0] == chunks[1]
    assert len(chunks[0]) == 6


def test_recordings_in_an_object_store():
    pytest.importorskip("moto.server")
    pytest.importorskip("icechunk")
    with object_store() as bucket:
        assert measure(f"{bucket}/study", 3, 1)["save"] > 0


def test_shared_stores_are_measured(tmp_path):
    pytest.importorskip("icechunk")
    assert len(shared(tmp_path / "shared", 3)) == 3


def shared(where, count):
    """Return how long each of many transactions takes."""
    from labtree.workspace.shared import open_shared, store_shared

    values = np.random.default_rng(0).random((10, 1000))
    spent = [
        timed(lambda i=i: store_shared(where, f"rec{i}", "rates", values))[0]
        for i in range(count)
    ]
    opened, tree = timed(lambda: open_shared(where))
    assert len(tree.ws.list_namespaces()) == count
    print(f"open_shared of {count}: {1000 * opened:.1f} ms")
    return spent


def main(sizes=(1, 10, 100, 1000)):
    print("place  recordings  save  open  load  load_item  (ms)  plain xarray open")
    with object_store() as bucket, tempfile.TemporaryDirectory() as folder:
        for count in sizes:
            places = {"h5": Path(folder, "a.h5"), "zarr": Path(folder, "a.zarr")}
            if bucket is not None:
                places["s3"] = f"{bucket}/a"
            for name, where in places.items():
                repeats = REPEATS if count < 1000 else 3 if name != "s3" else 1
                # xarray's own opening of many groups in an HDF5 file takes a minute.
                plain = name == "zarr" or (name == "h5" and count < 1000)
                times = measure(where, count, repeats, plain=plain)
                shown = (f"{key} {1000 * t:.1f}" for key, t in times.items())
                print(name, count, *shown, flush=True)
        for name, spent in beside_zarr(Path(folder), sizes[-1], 3).items():
            print(f"save {sizes[-1]} by {name}: {1000 * spent:.0f} ms", flush=True)
        with contextlib.suppress(ImportError):
            import icechunk

            icechunk.set_logs_filter("error")
            spent = shared(Path(folder, "shared"), 300)
            for first in range(0, 300, 100):
                part = statistics.median(spent[first : first + 100])
                print(f"store_shared {first}-{first + 100}: {1000 * part:.1f} ms")


if __name__ == "__main__":
    main(tuple(map(int, sys.argv[1:])) or (1, 10, 100, 1000))
