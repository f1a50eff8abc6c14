"""Several processes: each with a file of its own, or all with the same."""

import multiprocessing
import os
import time
import warnings

import numpy as np
import pytest
import xarray as xr

import labtree
from support.exactness import assert_same
from support.examples import examples

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def run(work, count):
    """Fork `count` children that begin at once; return what each put into the queue."""
    context = multiprocessing.get_context("fork")
    start, answers = context.Barrier(count), context.SimpleQueue()

    def body(number):
        start.wait()
        answers.put((number, work(number)))

    children = [context.Process(target=body, args=(number,)) for number in range(count)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
        for child in children:
            child.start()
    results = dict(answers.get() for _ in children)
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * count
    return [results[number] for number in range(count)]


def test_each_saves_its_own_file_and_one_merges(tmp_path):
    shared = labtree.create_workspace(lazy=True)
    shared.ws.store("all", "config", {"fs": 20_000})

    def work(number):
        tree = labtree.create_workspace(f"part {number}", lazy=bool(number % 2))
        config = shared.ws.get("all", "config")
        tree.ws.store(f"rec{number}", "a", np.full(1000, number) * config["fs"], note="mine")
        tree.ws.store("common", f"k{number}", number)
        tree.ws.store("common", "same", number)
        return str(tree.ws.save(tmp_path / f"part{number}"))

    paths = run(work, 5)
    total = {"merged": 0, "skipped": 0}
    for path in paths:
        with labtree.open_workspace(path) as part:
            report = shared.ws.merge_from(part)
        total = {key: total[key] + report[key] for key in total}
    assert total == {"merged": 11, "skipped": 4}
    merged = labtree.load_workspace(shared.ws.save(tmp_path / "merged"))
    for number in range(5):
        assert_same(merged.ws.get(f"rec{number}", "a"), np.full(1000, number) * 20_000)
    assert merged.ws.list_keys("common") == ["k0", "same", "k1", "k2", "k3", "k4"]
    shared.ws.close()


def test_savers_of_one_path_end_with_one_of_them_whole(tmp_path):
    path = tmp_path / "study.h5"

    def work(number):
        tree = labtree.create_workspace(str(number))
        for i in range(5):
            tree.ws.store("rec1", f"k{i}", np.full(1000 + number, number))
        tree.ws.save(path)
        return tree.ws.workspace_id

    for _ in range(examples(20)):
        ids = run(work, 3)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # the .json is the winner's too
            tree = labtree.load_workspace(path)
        assert tree.ws.workspace_id in ids
        number = int(tree.ws.name)
        assert ids[number] == tree.ws.workspace_id
        for i in range(5):
            assert_same(tree.ws.get("rec1", f"k{i}"), np.full(1000 + number, number))
        assert sorted(each.name for each in tmp_path.iterdir()) == ["study.h5", "study.json"]


@pytest.mark.parametrize("name", ["study.h5", "study.zarr"])
def test_a_save_that_finds_another_one_done_meanwhile_drops_none_of_its_items(tmp_path, name):
    dask = pytest.importorskip("dask")
    array = pytest.importorskip("dask.array")
    path = tmp_path / name

    def save_meanwhile(key):
        other = labtree.create_workspace("other")
        other.ws.store("rec1", key, np.arange(3))
        other.ws.save(path, overwrite=True)
        return np.arange(5.0)

    for key in ("mine", "theirs"):
        tree = labtree.create_workspace("late")
        slow = array.from_delayed(dask.delayed(save_meanwhile)(key), (5,), float)
        tree.ws.store("rec1", "mine", xr.DataArray(slow, dims="x"))
        if key == "theirs":
            with pytest.raises(labtree.WorkspaceError, match=r"not in this one: rec1/theirs\."):
                tree.ws.save(path)
            assert labtree.load_workspace(path).ws.list_keys() == {"rec1": ["theirs"]}
        else:
            tree.ws.save(path)
            assert labtree.load_workspace(path).ws.name == "late"


def test_of_those_who_opened_the_same_file_one_wins_and_the_others_are_told(tmp_path):
    path = labtree.create_workspace("start").ws.save(tmp_path / "study")

    def work(number):
        tree = labtree.open_workspace(path)
        tree.ws.store("rec1", f"k{number}", np.full(1000, number))
        barrier(number)
        try:
            tree.ws.save()
        except labtree.WorkspaceError as error:
            if "was changed by another process" not in str(error):
                raise
            tree.ws.save(tmp_path / f"kept{number}")
            return "told"
        return "saved"

    def barrier(number):
        # All have opened before the first one saves.
        (tmp_path / f"opened{number}").touch()
        while len(list(tmp_path.glob("opened*"))) < 4:
            time.sleep(0.001)

    results = run(work, 4)
    assert sorted(results) == ["saved", "told", "told", "told"]
    winner = results.index("saved")
    assert labtree.load_workspace(path).ws.list_keys() == {"rec1": [f"k{winner}"]}
    for number, result in enumerate(results):
        if result == "told":
            kept = labtree.load_workspace(tmp_path / f"kept{number}")
            assert_same(kept.ws.get("rec1", f"k{number}"), np.full(1000, number))


def test_readers_beside_a_saver_see_one_whole_file_and_no_warning(tmp_path):
    path = tmp_path / "study.h5"

    def fill(tree, generation):
        for i in range(4):
            tree.ws.store("rec1", f"k{i}", np.full(2000, generation))

    first = labtree.create_workspace()
    fill(first, 0)
    first.ws.save(path)

    def work(number):
        if number == 0:
            tree = labtree.open_workspace(path)
            for generation in range(1, 1000):
                fill(tree, generation)
                tree.ws.save()
                # On a busy machine readers come to it late.
                if generation >= 14 and len(list(tmp_path.glob("saw*"))) == 2:
                    break
            (tmp_path / "done").touch()
            return generation
        seen = set()
        warnings.simplefilter("error")
        while not (tmp_path / "done").exists():
            with labtree.open_workspace(path) as tree:
                values = {int(tree.ws.get("rec1", f"k{i}").max()) for i in range(4)}
                assert len(values) == 1
                seen |= values
            seen.add(int(labtree.load_item(path, "rec1", "k3").min()))
            if len(seen) > 1:
                (tmp_path / f"saw{number}").touch()
        return len(seen)

    saved, *seen = run(work, 3)
    assert saved >= 14
    assert min(seen) > 1
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "done",
        "saw1",
        "saw2",
        "study.h5",
        "study.json",
    ]
