"""kill -9 and full disks: the old file or the new one, whole, and no litter."""

import gc
import itertools
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

import labtree
from support.exactness import assert_same
from support.examples import examples

FDS = Path("/proc/self/fd")
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def items(generation, count=12):
    """What generation `generation` of a workspace holds; sizes differ on purpose."""
    return {f"k{i}": np.full(500 + 3000 * (i % 3), generation * 100 + i) for i in range(count)}


def fill(tree, generation):
    for key, value in items(generation).items():
        tree.ws.store("rec1", key, value, note=str(generation))


def whole(path):
    """Return the generation of a file, all of whose items must be of it."""

    with warnings.catch_warnings():
        # A kill between the two files leaves an older index, which is written again.
        warnings.filterwarnings("ignore", ".*study.json does not say", UserWarning)
        tree = labtree.load_workspace(path)
    notes = {entry["note"] for entry in tree.ws.describe()["rec1"].values()}
    assert len(notes) == 1
    generation = int(notes.pop())
    for key, value in items(generation).items():
        assert_same(tree.ws.get("rec1", key), value)
    return generation


def in_child(work):
    """Fork; the child does its work until it is killed."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(1)
    return child


def kill_after(child, seconds):
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("sort", ["memory", "lazy", "opened", "zarr", "opened zarr"])
def test_kill_during_saves_and_stores(tmp_path, sort):
    path = tmp_path / ("study.zarr" if "zarr" in sort else "study.h5")
    base = labtree.create_workspace()
    fill(base, 0)
    base.ws.save(path)
    chance, before, new = random.Random(sort), 0, 0

    def work(generation, last=None):
        if sort.startswith("opened"):
            tree = labtree.open_workspace(path)
        else:
            tree = labtree.create_workspace(lazy=sort == "lazy")
        while generation != last:
            fill(tree, generation)
            tree.ws.save(path)
            generation += 1

    # Of a child, because a large process takes its time to fork.
    rounds = examples(80)
    one_save = 1.0
    for _ in range(3):
        started = time.perf_counter()
        os.waitpid(in_child(lambda: work(0, 1)), 0)
        one_save = min(one_save, time.perf_counter() - started)

    number = 0
    # Some are killed before their first save, some after it, however busy the machine is.
    while number < rounds or not 0 < new < number:
        number += 1
        first, longest = number * 1000, 3 * one_save * max(1, number / rounds)
        kill_after(in_child(lambda first=first: work(first)), chance.uniform(0, longest))
        found = whole(path)
        assert found == before or found >= first
        new += found != before
        before = found
    # What the killed ones left is gone after the next save.
    fill(base, 5)
    labtree.load_workspace(path)
    fresh = labtree.create_workspace()
    fill(fresh, 7)
    fresh.ws.save(path)
    names = ["study.zarr"] if "zarr" in sort else ["study.h5", "study.json"]
    assert sorted(each.name for each in tmp_path.iterdir()) == names
    assert whole(path) == 7
    print(f"KILLS {number}")


def verbs():
    """Yield, without end, a verb for a workspace and what the workspace holds after it."""
    state = {}
    for n in itertools.count():
        key, moved, gone = f"k{n % 7}", f"moved{n}", f"k{(n + 3) % 7}"
        yield (
            lambda ws, n=n, key=key: ws.store("rec", key, np.full(300, n), note=str(n)),
            (state := {**state, key: (n, str(n))}),
        )
        yield (
            lambda ws, key=key: ws.add_note("rec", key, "x" * 900),
            (state := {**state, key: (n, "x" * 900)}),
        )
        if n % 3 == 0:
            yield (
                lambda ws, key=key, moved=moved: ws.rename("rec", key, moved),
                (state := {**{k: v for k, v in state.items() if k != key}, moved: state[key]}),
            )
        if gone in state:
            yield (
                lambda ws, gone=gone: ws.delete("rec", gone),
                (state := {k: v for k, v in state.items() if k != gone}),
            )
        if n % 3 == 2:
            (last,) = [k for k in state if k.startswith("moved")]
            yield (
                lambda ws, last=last: ws.delete("rec", last),
                (state := {k: v for k, v in state.items() if k != last}),
            )


def changed_until_killed(path, first, saves, told):
    """Go on with the verbs from the first-th on; say after each how many are on the disk."""
    options = {} if saves else {"mode": "a"}
    tree = labtree.open_workspace(path, **options)
    for number, (verb, _) in enumerate(verbs(), 1):
        if number > first:
            verb(tree.ws)
            if saves:
                tree.ws.save()
            os.write(told, number.to_bytes(8, "little"))


def holds(path):
    """Return what a workspace holds: the first value and the note of each item."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*study.json does not say", UserWarning)
        tree = labtree.load_workspace(path)
    state = {}
    for key, info in tree.ws.describe().get("rec", {}).items():
        values = tree.ws["rec", key]
        assert_same(values, np.full(300, values[0]))
        state[key] = int(values[0]), info["note"]
    return state


@pytest.mark.parametrize("saves", [True, False], ids=["saves", "mode a"])
def test_kill_during_changes_in_place(tmp_path, saves):
    path = labtree.create_workspace().ws.save(tmp_path / "study")
    with labtree.open_workspace(path) as tree:  # imports once what all children need
        tree.ws.store("rec", "k", np.zeros(3))
        tree.ws.save()
        tree.ws.delete("rec", "k")
        tree.ws.save()
    states = [{}]
    coming = verbs()
    chance, done, interrupted = random.Random(saves), 0, 0
    rounds = examples(120)
    for _ in range(rounds):
        read, write = os.pipe()
        child = in_child(lambda: changed_until_killed(path, done, saves, write))  # noqa: B023
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            # Some are killed while they open the file, most while they change it.
            first = pipe.read(8) if chance.random() < 0.9 else b""
            kill_after(child, chance.uniform(0, 0.03))
            numbers = np.frombuffer(first + pipe.read(), "<u8")
        promised = int(numbers[-1]) if len(numbers) else done
        while len(states) < promised + 2:
            states.append(next(coming)[1])
        found = holds(path)
        assert found in states[promised : promised + 2]
        done = promised + (found != states[promised])
        interrupted += found != states[promised]
    assert done > rounds // 2
    assert interrupted or rounds < 120  # of few, all may meet no change
    print(f"KILLS {rounds}")


def test_two_files_in_one_folder_do_not_remove_each_others_work(tmp_path):
    """The litter of a dead process is removed; what a living one writes is not."""
    from labtree.storage.files import temporary_path

    dead = os.fork()
    if dead == 0:
        os._exit(0)
    os.waitpid(dead, 0)
    with temporary_path(tmp_path / "study.h5") as mine:
        mine.write_bytes(b"mine")
        litter = mine.with_name(mine.name.replace(f".{os.getpid()}.", f".{dead}."))
        litter.write_bytes(b"dead")
        labtree.create_workspace().ws.save(tmp_path / "study")
        assert not litter.exists()
        assert mine.read_bytes() == b"mine"


def limited(limit, work):
    """Run in a child whose files cannot grow beyond `limit` bytes; return its words."""
    import resource

    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        words = "died"
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            try:
                work()
                words = "worked"
            except OSError as error:
                words = f"OSError {error.errno}"
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        except BaseException as error:
            words = repr(error)
        os.write(write, words.encode())
        os.close(write)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        words = pipe.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return words


@pytest.mark.parametrize("lazy", [False, True])
def test_a_disk_that_fills_up_during_a_save(tmp_path, lazy):
    import errno

    path = tmp_path / "study.h5"
    tree = labtree.create_workspace(lazy=lazy)
    fill(tree, 1)
    tree.ws.save(path)
    before, size = path.read_bytes(), path.stat().st_size
    fill(tree, 2)

    def work():
        try:
            tree.ws.save(path)
        finally:
            assert sorted(each.name for each in tmp_path.iterdir()) == [
                "study.h5",
                "study.json",
            ]
            assert tree.ws.get_info("rec1", "k0")["note"] == "2"

    chance = random.Random(0)
    for limit in (
        0,
        100,
        2000,
        size - 300,
        *(chance.randrange(size - 300) for _ in range(examples(24))),
    ):
        assert limited(limit, work) == f"OSError {errno.EFBIG}"
        assert path.read_bytes() == before
    assert whole(path) == 1
    tree.ws.save(path)
    assert whole(path) == 2
    tree.ws.close()


def test_the_process_lives_on_after_a_full_disk(tmp_path):
    """In the same process: nothing stays open, and the next save works."""
    resource = pytest.importorskip("resource")
    tree = labtree.create_workspace()
    fill(tree, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    gc.collect()  # which closes what earlier tests left open
    files = len(list(FDS.iterdir())) if FDS.is_dir() else None
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))
    try:
        with pytest.raises(OSError, match="File too large") as error:
            tree.ws.save(tmp_path / "study")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert f"{tmp_path}/study.h5 could not be written" in str(error.value)
    assert "while writing /rec1/" in str(error.value)
    if files is not None:
        assert len(list(FDS.iterdir())) == files
    assert list(tmp_path.iterdir()) == []
    assert whole(tree.ws.save(tmp_path / "study")) == 1


def test_the_process_ends_well_after_a_full_disk(tmp_path):
    """HDF5 crashed at the interpreter's end where it could not close its file."""
    pytest.importorskip("resource")
    code = f"""
import resource, sys, warnings, labtree, numpy as np
warnings.simplefilter("ignore", labtree.errors.UnsavedWarning)
tree = labtree.create_workspace()
for i in range(50):
    tree.ws.store(f"rec{{i}}", "a", np.full(500, i))
for limit in (0, 5000, 100_000, 200_000, 240_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        tree.ws.save({str(tmp_path / "study")!r})
    except OSError as error:
        kept = error
        print(error.errno)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(Path(labtree.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout == "27\n" * 5
    assert done.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_during_lazy_stores():
    import errno

    tree = labtree.create_workspace(lazy=True)
    tree.ws.store("rec1", "old", np.arange(10_000), note="old")
    before = tree.ws.describe()

    def work():
        other = labtree.create_workspace(lazy=True)
        other.ws.merge_from(tree)
        kept = other.ws.describe()
        try:
            for i in range(100):
                other.ws.store("rec1", "old" if i % 2 else f"k{i}", np.full(10_000, i))
                kept = other.ws.describe()
        finally:
            assert other.ws.describe() == kept
            newest = [key for key in other.ws.list_keys("rec1") if key != "old"][-1]
            assert_same(other.ws.get("rec1", newest), np.full(10_000, int(newest[1:])))
            other.ws.delete("rec1", newest)
            other.ws.store("rec1", "smaller", np.zeros(9000))

    assert limited(1_000_000, work) == f"OSError {errno.EFBIG}"
    assert tree.ws.describe() == before
    tree.ws.close()
