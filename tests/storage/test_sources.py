"""The scratch file: space is never given twice, and all of it comes back."""

import gc
import os
import pickle
import random
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from labtree.errors import ClosedError, FormatError
from labtree.storage import open_tree, save_tree
from labtree.storage.arrays import stored_array
from labtree.storage.blobs import ContiguousArray
from labtree.storage.scratch import put_dataset
from labtree.storage.sources import BytesSource, FileSource, ScratchSource, identity
from support import strategies
from support.exactness import assert_same
from support.examples import examples


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 40), st.integers(0, 100)), max_size=60))
def test_space_is_never_given_twice_and_comes_back(steps):
    scratch = ScratchSource()
    held: list[tuple[int, int, bytes]] = []
    for take, size, which in steps:
        if take or not held:
            data = os.urandom(size)
            offset = scratch.write([np.frombuffer(data, np.uint8)], size)
            held.append((offset, size, data))
        else:
            scratch.free(*held.pop(which % len(held))[:2])
        places = sorted((offset, size) for offset, size, _ in held if size)
        assert all(a + n <= b for (a, n), (b, _) in pairwise(places))
        for offset, size, data in held:
            buffer = bytearray(size)
            assert scratch.read_into(memoryview(buffer), offset) == size
            assert bytes(buffer) == data
    assert scratch.size <= sum(size for take, size, _ in steps)
    for offset, size, _ in held:
        scratch.free(offset, size)
    assert scratch.size == 0
    assert os.fstat(scratch._file.fileno()).st_size == 0
    scratch.close()


def test_freed_space_is_used_again():
    scratch = ScratchSource()
    offsets = [scratch.write([np.zeros(100, np.uint8)], 100) for _ in range(10)]
    scratch.free(offsets[3], 100)
    scratch.free(offsets[4], 100)
    assert scratch.write([np.zeros(150, np.uint8)], 150) == offsets[3]
    assert scratch.size == 1000
    scratch.close()


def test_threads_store_and_read_at_once():
    scratch = ScratchSource()
    problems: list[BaseException] = []

    def work(seed: int) -> None:
        rng = random.Random(seed)
        kept: list[tuple[xr.Dataset, np.ndarray]] = []
        try:
            for _ in range(60):
                values = np.full(rng.randrange(1, 5000), seed, "i8")
                dataset = put_dataset(xr.Dataset({"v": ("x", values)}), scratch, "a")
                kept.append((dataset, values))
                if len(kept) > 3:
                    kept.pop(rng.randrange(4))
                for found, expected in kept:
                    assert_same(found["v"].values, expected)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    gc.collect()
    assert scratch.size == 0
    scratch.close()


@settings(max_examples=examples(15))
@given(strategies.datasets())
def test_datasets_come_back_from_the_scratch_file(dataset):
    from labtree.objects import registry

    scratch = ScratchSource()
    kind, encoded = registry.encode(dataset)
    put = put_dataset(encoded, scratch, "a")
    assert_same(registry.decode(kind, put), dataset)
    for name, variable in put.variables.items():
        assert name in put.xindexes or stored_array(variable) is not None
    put = variable = None
    assert scratch.size == 0
    scratch.close()


def test_what_cannot_be_kept_leaves_nothing_behind():
    scratch = ScratchSource()
    dataset = xr.Dataset({"a": ("x", np.arange(100.0)), "b": ("x", np.empty(100, object))})
    dataset["b"][5] = object()
    with pytest.raises(TypeError, match=r"n/k\['b'\].flat\[5\]: cannot keep an object exactly"):
        put_dataset(dataset, scratch, "n/k")
    gc.collect()
    assert scratch.size == 0
    scratch.close()


def test_arrays_of_a_scratch_file_are_pickled_with_their_bytes():
    scratch = ScratchSource()
    put = put_dataset(xr.Dataset({"v": ("x", np.array(["a", "bé"]))}), scratch, "a")
    data = pickle.dumps(put)
    scratch.close()
    assert pickle.loads(data)["v"].values.tolist() == ["a", "bé"]
    with pytest.raises(ValueError, match="the lazy workspace was closed; nothing can be read"):
        put["v"].load()
    with pytest.raises(ValueError, match="was closed; nothing can be stored in it"):
        put_dataset(xr.Dataset({"v": ("x", [1])}), scratch, "a")
    scratch.close()


def test_the_scratch_file_has_no_name(tmp_path):
    scratch = ScratchSource(str(tmp_path))
    scratch.write([np.zeros(10)], 80)
    assert not list(tmp_path.iterdir())
    scratch.close()


def test_a_file_is_known_by_its_identity(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"0123456789")
    source = FileSource(path)
    path.write_bytes(b"other")
    with pytest.raises(
        FormatError, match="f changed on disk after it was opened; open it again"
    ):
        source.read_into(memoryview(bytearray(2)), 0)
    source = FileSource(path)
    source.hold()
    (tmp_path / "new").write_bytes(b"abcdefghij")
    (tmp_path / "new").replace(path)
    buffer = bytearray(8)
    assert source.read_into(memoryview(buffer), 2) == 3
    assert bytes(buffer[:3]) == b"her"
    copy = pickle.loads(pickle.dumps(source))
    assert (copy.name, copy.known) == (source.name, source.known) != (str(path), identity(path))
    source.close()
    source.close()
    with pytest.raises(ValueError, match="f was closed; open it again to read from it"):
        source.read_into(memoryview(buffer), 0)


def test_bytes_end_where_they_end():
    source = BytesSource(b"abc")
    buffer = bytearray(5)
    assert source.read_into(memoryview(buffer), 1) == 2
    assert bytes(buffer) == b"bc\0\0\0"
    blob = ContiguousArray(source, 0, np.dtype("u1"), (3,), None, "v")
    assert blob.nbytes == 3


def test_closing_a_tree_lets_go_of_the_file(tmp_path):
    path = tmp_path / "t.h5"
    save_tree(xr.DataTree(xr.Dataset({"v": ("x", [1, 2])})), path)

    def handles() -> int:
        links = list(Path("/proc/self/fd").iterdir())
        return sum(link.exists() and link.samefile(path) for link in links)

    with open_tree(path) as tree:
        assert handles() == 1
    assert handles() == 0
    with pytest.raises(ValueError, match=r"t.h5 was closed; open it again"):
        tree["v"].load()
    tree = open_tree(path)
    del tree
    gc.collect()
    assert handles() == 0
    open_tree(path).close()


@pytest.mark.parametrize("kind", [FileSource, ScratchSource])
@pytest.mark.parametrize("when", ["before", "while", "after"])
def test_a_source_that_another_thread_closes(tmp_path, monkeypatch, kind, when):
    """The number of a closed file may be another file's: what is read then is of no use."""
    (tmp_path / "old").write_bytes(b"old" * 100)
    (tmp_path / "new").write_bytes(b"new" * 100)
    source = FileSource(tmp_path / "old") if kind is FileSource else ScratchSource()
    if kind is ScratchSource:
        source.write([np.frombuffer(b"old" * 100, np.uint8)], 300)
    source.read_into(memoryview(bytearray(3)), 0)
    others = []

    def close_and_open_another():
        source.close()
        others.append((tmp_path / "new").open("rb"))

    true_read = os.preadv

    def read(number, buffers, offset):
        if when == "while":
            close_and_open_another()
        count = true_read(number, buffers, offset)
        if when == "after":
            close_and_open_another()
        return count

    monkeypatch.setattr(os, "preadv", read)
    if when == "before":
        close_and_open_another()
    with pytest.raises(ClosedError, match="was closed"):
        source.read_into(memoryview(bytearray(3)), 0)
    others[0].close()
