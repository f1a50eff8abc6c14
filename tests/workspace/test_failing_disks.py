"""Full and broken disks: an error that names the file, the old data or the new, and a retry."""

import contextlib
import errno
import functools
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import xarray as xr

import labtree
from support.examples import THOROUGH
from support.failing_disk import failing_disk

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="watches /proc")

FAULTS = {
    "full": (errno.ENOSPC, False),
    "full once": (errno.ENOSPC, True),
    "broken": (errno.EIO, False),
    "broken once": (errno.EIO, True),
}


class Case(NamedTuple):
    """Something that writes: a tree, what is done to it, and where."""

    tree: xr.DataTree
    act: Any
    path: Path


def content(tree):
    return {
        place: (np.asarray(tree.ws[place]).tolist(), tree.ws.get_info(*place).get("note"))
        for place in tree.ws.find()
    }


def on_disk(path):
    """Return what a workspace holds for who opens it now, or None where there is none."""
    if not path.exists():
        return None
    with warnings.catch_warnings():
        # An index may be older than its file, which is told, and it is written again.
        warnings.simplefilter("ignore", labtree.errors.DamageWarning)
        return content(labtree.load_workspace(path))


def filled(lazy=False):
    tree = labtree.create_workspace("study", lazy=lazy)
    tree.ws.store("a", "one", np.arange(300), note="first")
    tree.ws.store("a", "two", np.arange(40.0))
    tree.ws.store("b", "only", np.arange(5))
    return tree


def change(tree):
    tree.ws.store("a", "two", np.arange(900) + 1)
    tree.ws.rename("a", "one", "moved")
    tree.ws.delete("b")
    tree.ws.store("c", "new", np.ones(7), note="n")


def new_file(folder, name, lazy=False):
    return Case(filled(lazy), lambda tree: tree.ws.save(folder / name), folder / name)


def over_a_file(folder, name, lazy=False, **options):
    """Save again, onto the own file; whole where options are given."""
    tree = filled(lazy)
    tree.ws.save(folder / name)
    change(tree)
    return Case(tree, lambda tree: tree.ws.save(**options), folder / name)


def opened(folder, name, **options):
    filled().ws.save(folder / name)
    tree = labtree.open_workspace(folder / name)
    change(tree)
    return Case(tree, lambda tree: tree.ws.save(**options), folder / name)


def compacted(folder):
    case = over_a_file(folder, "study.h5")
    return case._replace(act=lambda tree: tree.ws.compact())


def verb(folder, call):
    filled().ws.save(folder / "study.h5")
    tree = labtree.open_workspace(folder / "study.h5", mode="a")
    return Case(tree, call, folder / "study.h5")


def other():
    tree = labtree.create_workspace("other")
    tree.ws.store("a", "one", np.zeros(60))
    tree.ws.store("new", "x", np.ones(4), note="n")
    return tree


def stored_lazily(folder):
    """The scratch file lies in the same folder, and what was stored before stays there."""
    tree = filled(lazy=True)
    return Case(tree, lambda tree: tree.ws.store("a", "one", np.zeros(2000)), folder / "none")


WAYS = {
    "new file": lambda folder: new_file(folder, "study.h5"),
    "new file, lazy": lambda folder: new_file(folder, "study.h5", lazy=True),
    "again": lambda folder: over_a_file(folder, "study.h5"),
    "again, lazy": lambda folder: over_a_file(folder, "study.h5", lazy=True),
    "again, whole": lambda folder: over_a_file(folder, "study.h5", compression="gzip"),
    "opened": lambda folder: opened(folder, "study.h5"),
    "opened, whole": lambda folder: opened(folder, "study.h5", compression="gzip"),
    "compact": compacted,
    "new zarr": lambda folder: new_file(folder, "study.zarr"),
    "zarr again": lambda folder: over_a_file(folder, "study.zarr"),
    "zarr opened": lambda folder: opened(folder, "study.zarr"),
    "lazy store": stored_lazily,
    "mode a: store": lambda folder: verb(
        folder, lambda tree: tree.ws.store("a", "new", np.arange(99), note="n")
    ),
    "mode a: replace": lambda folder: verb(
        folder, lambda tree: tree.ws.store("a", "one", np.arange(99))
    ),
    "mode a: rename": lambda folder: verb(
        folder,
        lambda tree: "x" in tree.ws.list_keys("a") or tree.ws.rename("a", "one", "x"),
    ),
    "mode a: note": lambda folder: verb(folder, lambda t: t.ws.add_note("a", "one", "n" * 900)),
    "mode a: delete": lambda folder: verb(
        folder,
        lambda tree: "one" not in tree.ws.list_keys("a") or tree.ws.delete("a", "one"),
    ),
    "mode a: merge": lambda folder: verb(
        folder, lambda tree: tree.ws.merge_from(other(), overwrite=True)
    ),
    "mode a: compact": lambda folder: verb(folder, lambda tree: tree.ws.compact()),
}


@functools.cache
def expected(way):
    """Return what is on the disk, and in memory, before and after."""
    with tempfile.TemporaryDirectory() as folder, scratch_in(Path(folder)):
        tree, act, path = WAYS[way](Path(folder))
        before = on_disk(path), content(tree)
        act(tree)
        after = on_disk(path), content(tree)
        tree.ws.close()
        return before, after


@contextlib.contextmanager
def scratch_in(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))
        yield


def error_of(act, tree):
    """Return the error of labtree that a call raises, or None."""
    try:
        act(tree)
    except labtree.LabtreeError as error:
        return error
    return None


def try_fault(way, folder, at, number, once):
    """Let the disk fail at a call."""
    folder.mkdir()
    before, after = expected(way)
    with scratch_in(folder):
        tree, act, path = WAYS[way](folder)
        with warnings.catch_warnings():
            # An index that could not be written is told.
            warnings.simplefilter("ignore", labtree.LabtreeWarning)
            with failing_disk(folder, at, number, once=once):
                error = error_of(act, tree)
        is_done = error is None
        assert is_done or isinstance(error, OSError), repr(error)
        assert is_done or (error.errno == number and str(folder) in str(error))
        assert content(tree) == (after if is_done else before)[1]
        assert on_disk(path) in ([after[0]] if is_done else [before[0], after[0]])
        act(tree)
        assert content(tree) == after[1]
        assert on_disk(path) == after[0]
        tree.ws.store("later", "k", np.arange(3))
        if tree.ws.path is not None:
            tree.ws.save()
        tree.ws.save(folder / "elsewhere.h5")
        assert on_disk(folder / "elsewhere.h5") == content(tree)
        tree.ws.close()
    if path.exists():
        assert on_disk(path) == on_disk(folder / "elsewhere.h5")
    names = {"study.h5", "study.json", "study.zarr", "elsewhere.h5", "elsewhere.json"}
    assert {each.name for each in folder.iterdir()} <= names


def points(way, folder, fault):
    """Return the numbers of the calls that fail in turn: all, or some of each kind."""
    folder.mkdir()
    number, once = FAULTS[fault]
    with scratch_in(folder):
        tree, act, _ = WAYS[way](folder)
        with failing_disk(folder, 10**9, number, once=once) as calls:
            act(tree)
        tree.ws.close()
    if THOROUGH:
        return range(len(calls))
    named = {name: at for at, name in enumerate(calls)}  # the last of each
    return sorted({*named.values(), *range(list(FAULTS).index(fault) * 4, len(calls), 20)})


@pytest.mark.parametrize("fault", FAULTS if THOROUGH else ["full", "broken"])
@pytest.mark.parametrize("way", WAYS)
def test_a_fault_at_any_call_leaves_the_old_data_or_the_new(tmp_path, way, fault):
    number, once = FAULTS[fault]
    tried = points(way, tmp_path / "no fault", fault)
    for at in tried:
        try_fault(way, tmp_path / str(at), at, number, once)
    assert len(tried) >= 1
    print(f"FAULTS {len(tried)}")
