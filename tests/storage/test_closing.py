"""Files that another thread closes in the middle of a change."""

import functools
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import labtree
from labtree.errors import ClosedError
from labtree.storage import hdf5_end


class Closer:
    """Closes a tree in another thread at the n-th write; opens a file of the user's then.

    The number of a file that is closed is given to the next one that is opened.
    """

    def __init__(self, tree, monkeypatch, victim, at_write):
        self.tree, self.victim, self.left = tree, victim, at_write
        self.thread = threading.Thread(target=tree.close)
        self.opened = []
        self._write = os.pwrite
        monkeypatch.setattr(os, "pwrite", self)

    def __call__(self, number, data, offset):
        self.left -= 1
        if self.left == 0:
            self.thread.start()
            self.thread.join(0.2)  # who waits for the change to end does not come back
            self.opened += [self.victim.open("rb+") for _ in range(4)]
        return self._write(number, data, offset)


@pytest.mark.parametrize("at_write", [1, 2, 3])
@pytest.mark.parametrize("mode", ["saved in place", "lazy"])
def test_a_tree_that_another_thread_closes_in_a_change(tmp_path, monkeypatch, mode, at_write):
    """It writes nothing into another file; the change is there, or an error says why not."""
    victim = tmp_path / "other.bin"
    victim.write_bytes(b"precious" * 10_000)
    monkeypatch.setattr(hdf5_end, "_BLOCK", 1 << 12)
    values = np.arange(5000.0)
    tree = labtree.create_workspace(lazy=mode == "lazy")
    tree.ws.store("rec", "first", np.ones(3))
    path = tree.ws.save(tmp_path / "study")
    if mode == "lazy":
        blocks = xr.DataArray(da.from_array(values, chunks=1000), dims="x")
        change = functools.partial(tree.ws.store, "rec", "rates", blocks)
    else:
        tree.ws.save()
        tree.ws.store("rec", "rates", values)
        change = tree.ws.save
    closer = Closer(tree, monkeypatch, victim, at_write)
    try:
        change()
    except ClosedError:
        changed = False
    else:
        changed = mode != "lazy"
    closer.thread.join()
    assert victim.read_bytes() == b"precious" * 10_000
    loaded = labtree.load_workspace(path)
    assert loaded.ws["rec", "first"].tolist() == [1, 1, 1]
    if changed:
        assert (loaded.ws["rec", "rates"] == values).all()
    for file in closer.opened:
        file.close()


def test_two_threads_that_close_one_tree(tmp_path, monkeypatch):
    tree = labtree.create_workspace(lazy=True)
    for i in range(3):
        tree.ws.store("rec", f"k{i}", np.ones(3))
    tree = labtree.open_workspace(tree.ws.save(tmp_path / "study"))
    tree.ws.store("rec", "x", np.ones(3))
    tree.ws.save()
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(tree.close) for _ in range(8)]:
            done.result()
    with pytest.raises(ClosedError):
        tree["rec/k0/data"].load()
