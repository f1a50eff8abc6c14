import errno
import os
import random
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import labtree
from labtree import BusyFileError, FormatError, SaveState, SessionError
from labtree.pipeline import checkpoints
from labtree.pipeline.sessions import UNSAVED
from labtree.pipeline.step_records import fingerprint_items
from labtree.storage import files
from support.examples import THOROUGH, examples
from support.failing_disk import failing_disk


@pytest.fixture
def session(tmp_path):
    made = labtree.create_session("rec1", cmtr_path="d/rec1.cmtr", output_dir=tmp_path / "out")
    made.session.add_units(
        {
            "unit_001": {
                "spike_times": np.array([5, 9]),
                "row": 3,
                "tag": "a",
                "x": {"y": (1,)},
            },
            "unit/002": {"spike_times": np.array([1, 2, 8]), "row": 4},
        }
    )
    made.session.add_feature("unit_001", "sta", np.zeros((2, 3), "f4"), {"cover": (-60, 0)})
    made.session.add_metadata(
        {
            "acquisition_rate": 20_000.0,
            "trials": {0: np.arange(3), 1: np.arange(2)},
            "big": 2**70,
            "none": None,
            "mixed": [1, "a", (2.5, None), {"z"}],
            "narrow": np.float32(1.5),
            "bytes": b"\xff\x00",
            "times": np.array(["2026-01-01"], "<M8[s]"),
        }
    )
    made.session.mark_step_complete("load_recording")
    made.session.add_warning("look at unit_001")
    return made


def same(a, b):
    left, right = (fingerprint_items(t, ignore_root=UNSAVED)
                   for t in (a, b))  # fmt: skip
    assert left == right


def test_save_puts_it_where_it_belongs(session, tmp_path):
    path = session.session.save()
    assert path == tmp_path / "out" / "rec1.h5"
    assert session.session.save_state is SaveState.SAVED
    assert session.session.hdf5_path == path.resolve()
    other = session.session.save(tmp_path / "deep" / "er" / "2026.01.15-Rec")
    assert other.name == "2026.01.15-Rec.h5"
    assert session.session.hdf5_path == other.resolve()


def test_everything_comes_back_as_it_was(session):
    path = session.session.save()
    resumed = labtree.load_session(path)
    same(session, resumed)
    assert resumed.session.completed_steps == {"load_recording"}
    assert resumed.session.warnings == ["look at unit_001"]
    assert resumed.session.save_state is SaveState.SAVED
    assert resumed.session.hdf5_path == path.resolve()
    attrs = resumed["metadata"].attrs
    assert list(attrs["trials"]) == [0, 1]
    assert attrs["big"] == 2**70
    assert attrs["mixed"] == [1, "a", (2.5, None), {"z"}]
    assert type(attrs["narrow"]) is np.float32
    assert attrs["bytes"] == b"\xff\x00"
    assert resumed.session.feature("unit_001", "sta")["metadata"] == {"cover": (-60, 0)}
    assert resumed.session.spikes("unit/002").values.tolist() == [1, 2, 8]
    assert resumed["units"].attrs["by_unit"] == {"x": {"unit_001": {"y": (1,)}}}
    same(session, labtree.load_session(str(path.with_suffix(""))))
    again = labtree.load_session(resumed.session.save())
    same(session, again)


def test_a_loaded_session_does_not_hold_its_file(session):
    path = session.session.save()
    resumed = labtree.load_session(path)
    with h5py.File(path, "r+") as file:  # nobody holds it
        assert file.attrs
    path.unlink()
    assert resumed["units"]["spike_times"].values.sum() == 25


def test_overwriting_only_when_wanted(session):
    path = session.session.save()
    content = path.read_bytes()
    session.session.add_metadata({"more": 1})
    with pytest.raises(SessionError, match=r"exists; call session.session.save"):
        session.session.save(overwrite=False)
    with pytest.raises(FileExistsError):
        session.session.save(path, overwrite=False)
    assert path.read_bytes() == content
    assert session.session.is_deferred
    session.session.save()
    assert labtree.load_session(path)["metadata"].attrs["more"] == 1


@pytest.mark.parametrize("what", ["workspace", "HDF5"])
@pytest.mark.parametrize("verb", ["save", "checkpoint"])
def test_only_sessions_are_replaced(session, tmp_path, what, verb):
    path = tmp_path / "other.h5"
    if what == "workspace":
        tree = labtree.create_workspace()
        tree.ws.store("rec", "threshold", 0.5)
        tree.ws.save(path)
    else:
        with h5py.File(path, "w") as file:
            file["x"] = 1
    content = path.read_bytes()
    with pytest.raises(
        FileExistsError, match=rf"other.h5 is .*, no pipeline session.*{verb}\('other"
    ):
        getattr(session.session, verb)(path)
    assert path.read_bytes() == content
    path.unlink()
    getattr(session.session, verb)(path)
    getattr(session.session, verb)(path)


def test_a_checkpoint_leaves_the_state(session, tmp_path):
    first = session.session.checkpoint(tmp_path / "cp")
    assert first == tmp_path / "cp.h5"
    assert session.session.save_state is SaveState.DEFERRED
    assert session.session.hdf5_path is None
    saved = session.session.save()
    session.session.checkpoint(tmp_path / "cp")
    assert session.session.save_state is SaveState.SAVED
    assert session.session.hdf5_path == saved.resolve()
    resumed = labtree.load_session(first)
    same(session, resumed)
    assert resumed.session.hdf5_path == first.resolve()


def test_missing_foreign_and_damaged_files(session, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.h5: there is no such file"):
        labtree.load_session(tmp_path / "none")
    junk = tmp_path / "junk.h5"
    junk.write_bytes(b"junk")
    with pytest.raises(FormatError, match="not an HDF5 file"):
        labtree.load_session(junk)
    xr.Dataset({"a": ("x", [1])}).to_netcdf(tmp_path / "foreign.h5", engine="h5netcdf")
    with pytest.raises(FormatError, match=r"not a pipeline session; write labtree\.open\("):
        labtree.load_session(tmp_path / "foreign.h5")
    path = session.session.save()
    session.attrs["labtree_format_version"] = 99
    session.session.save(path)
    with pytest.raises(FormatError, match="in format version 99; this labtree reads version 1"):
        labtree.load_session(path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.98])
def test_truncated_files_are_an_error_not_half_a_session(session, share):
    path = session.session.save()
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    try:
        resumed = labtree.load_session(path)
    except (FormatError, OSError):
        return
    same(session, resumed)  # only what repeats the rest was cut


@pytest.mark.parametrize("kind", ["zeros to the end", "one bit", "noise"])
@pytest.mark.parametrize("call", [labtree.load_session, labtree.open_session, labtree.open])
def test_damage_anywhere_is_an_error_that_names_the_file(session, call, kind):
    path = session.session.save()
    whole, rng = path.read_bytes(), random.Random(kind)
    said = 0
    for _ in range(60):
        content = bytearray(whole)
        at = rng.randrange(len(content) - 64)
        if kind == "zeros to the end":
            content[at:] = bytes(len(content) - at)
        elif kind == "one bit":
            content[at] ^= 1 << rng.randrange(8)
        else:
            content[at : at + 64] = rng.randbytes(64)
        path.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what could not be read is told, the rest opens
            try:
                tree = call(path)
            except labtree.LabtreeError as error:
                said += path.name in str(error)
                continue
        tree.close()
    assert said or kind == "one bit"


def test_what_cannot_be_kept_is_refused_and_the_old_file_stays(session):
    path = session.session.save()
    content = path.read_bytes()
    session["metadata"].attrs["bad"] = {"deep": [object()]}
    with pytest.raises((TypeError, ValueError), match="bad"):
        session.session.save()
    assert path.read_bytes() == content
    assert session.session.is_deferred
    assert [p.name for p in path.parent.iterdir() if p.suffix == ".h5"] == ["rec1.h5"]
    del session["metadata"].attrs["bad"]
    session.session.save()


def test_a_busy_file_is_tried_again_and_then_named(session, monkeypatch, tmp_path):
    tries = []

    def busy(tree, shown, path):
        tries.append(path)
        raise BlockingIOError(11, "Resource temporarily unavailable")

    path = session.session.save()
    content = path.read_bytes()
    monkeypatch.setattr(files, "_RETRY_PAUSES_S", (0.0, 0.0))
    monkeypatch.setattr(checkpoints, "save_tree_again", busy)
    with pytest.raises(BusyFileError, match="another program holds this file") as caught:
        session.session.save()
    assert isinstance(caught.value, OSError)
    assert len(tries) == 3
    assert path.read_bytes() == content

    def free_at_last(tree, shown, path):
        tries.append(path)
        if len(tries) < 5:
            raise OSError("unable to lock file, errno = 11")

    monkeypatch.setattr(checkpoints, "save_tree_again", free_at_last)
    session.session.save(tmp_path / "x.h5")
    assert len(tries) == 5


def test_other_errors_are_not_tried_again(session, monkeypatch):
    tries = []

    def full(tree, shown, path):
        tries.append(path)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_tree_again", full)
    with pytest.raises(OSError, match="No space left"):
        session.session.save()
    assert len(tries) == 1


def test_a_reader_may_have_the_file_open_while_it_is_saved(session):
    path = session.session.save()
    lazy = checkpoints.open_session_file(path)
    session.session.add_metadata({"later": 1})
    session.session.save()
    assert lazy["units"]["spike_times"].values.tolist() == [5, 9, 1, 2, 8]
    assert "later" not in lazy["metadata"].attrs
    lazy.session.close()
    assert labtree.load_session(path)["metadata"].attrs["later"] == 1


def test_a_lazy_session_can_be_changed_and_saved_onto_its_own_file(session):
    path = session.session.save()
    lazy = checkpoints.open_session_file(path)
    lazy.session.add_metadata({"later": 1})
    lazy.session.save(path)
    assert lazy.session.is_saved
    lazy.session.add_metadata({"later": 1})
    assert lazy.session.is_saved
    lazy.session.add_metadata({"later": 2})
    assert lazy.session.is_deferred
    lazy.session.close()
    resumed = labtree.load_session(path)
    assert resumed["units"]["spike_times"].values.tolist() == [5, 9, 1, 2, 8]
    assert resumed["metadata"].attrs["later"] == 1


KEYS = st.one_of(st.text(max_size=4).filter(lambda s: "\0" not in s), st.integers(-5, 5))
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text("aé\U0001f600", max_size=4),
    st.binary(max_size=4),
)  # fmt: skip
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(KEYS, inner, max_size=3),
    ),
    max_leaves=6,
)


@settings(
    max_examples=examples(40),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(VALUES, st.lists(st.text(max_size=6), max_size=3))
def test_any_metadata_comes_back(tmp_path, value, remarks):
    session = labtree.create_session("r", output_dir=tmp_path)
    session.session.add_metadata({"value": {"v": value}})
    session.attrs["warnings"] = list(remarks)
    same(session, labtree.load_session(session.session.save()))


# --- kill -9 and full disks, in a process of its own

KILLS = textwrap.dedent(
    """
    import os, signal, sys
    import numpy as np, xarray as xr
    import labtree
    from support.kills import calls_of, die_at_call
    folder, way, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
    from labtree import storage  # before the forks
    labtree.load_session
    size = 400_000 if way == "whole" else 20_000

    def put(session, k):
        # Values, an attribute and a step of one number each, in place of those before.
        session.session.add_units({"u": {"spike_times": np.full(size, k)}})
        session.session.add_feature("u", "f", np.full((300, 100), k, "f4"))
        session.attrs["completed_steps"] = [f"step{k}"]

    def make(k):
        session = labtree.create_session("rec", output_dir=folder)
        put(session, k)
        return session

    def check():
        found = labtree.load_session(folder + "/rec.h5")
        k = int(found["units"]["spike_times"].values[0])
        assert (found["units"]["spike_times"].values == k).all()
        assert (found["features/f"]["f"].values == k).all()
        assert found.session.completed_steps == {f"step{k}"}
        assert len(found["units"]["spike_times"]) == size
        return k

    def write(session):
        if way == "checkpoint":
            session.session.checkpoint(folder + "/rec.h5")
        else:
            session.session.save()

    def work(first):
        # Each in turn replaces what another saved, or one goes on from what is there.
        if way == "whole":
            for k in range(first + 1, 10**9):
                write(make(k % 4))
        session = labtree.load_session(folder + "/rec.h5")
        for k in range(first + 1, 10**9):
            change(session, k)
            write(session)

    def change(session, k):
        if k % 7 == 0:
            put(session, k)
            return
        # values of arrays that stay, changed in place
        session["units"].variables["spike_times"].values[:] = k
        session["features/f"].variables["f"].values[:] = k
        session.attrs["completed_steps"] = [f"step{k}"]

    sessions = [make(k) for k in range(2)]
    write(sessions[0])
    if way == "whole":
        one = calls_of(lambda: write(sessions[1]))
    else:
        change(sessions[0], 1)
        one = calls_of(lambda: write(sessions[0]))
    write(make(0))
    seen, last = set(), 0
    for round in range(rounds):
        pid = os.fork()
        if pid == 0:
            die_at_call(1 + 3 * one * round // rounds)
            work(last)
        assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
        found = check()
        assert way == "whole" or found >= last, (found, last)
        last = found
        seen.add(found)
    assert len(seen) > 2, (seen, one)
    last = labtree.load_session(folder + "/rec.h5")
    last.session.add_warning("late")
    write(last)
    left = [name for name in os.listdir(folder) if name.endswith(".h5")]
    assert left == ["rec.h5"], left
    print("ok", len(seen))
    """
)


def run_alone(code, *arguments):
    source = os.pathsep.join(
        [str(Path(labtree.__file__).parents[1]), str(Path(__file__).parents[1])]
    )
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": source}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True, text=True, env=environment, timeout=300, check=False,
    )  # fmt: skip


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("way", ["whole", "again", "checkpoint"])
def test_kill_9_while_saving_leaves_the_old_or_the_new_session_whole(tmp_path, way):
    rounds = 120 if THOROUGH else 12
    done = run_alone(KILLS, tmp_path, way, rounds)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ok")
    print(f"KILLS {rounds}", done.stdout)


FULL = textwrap.dedent(
    """
    import os, resource, signal, sys
    import numpy as np
    import labtree
    session = labtree.create_session("rec", output_dir=sys.argv[1])
    session.session.add_units({"u": {"spike_times": np.arange(1000)}})
    path = session.session.save()
    session.session.add_feature("u", "big", np.random.default_rng(0).random(2_000_000))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, hard))
    try:
        session.session.save()
    except OSError as error:
        print("refused", type(error).__name__)
    assert session.session.is_deferred
    sys.stdout.flush()
    os._exit(0)
    """
)


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_a_full_disk_leaves_the_old_session_whole(tmp_path):
    done = run_alone(FULL, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("refused")
    old = labtree.load_session(tmp_path / "rec.h5")
    assert "features" not in old.children
    assert old["units"]["spike_times"].values.tolist() == list(range(1000))
    old.session.add_feature("u", "big", np.arange(2_000_000.0))
    old.session.save()
    assert labtree.load_session(tmp_path / "rec.h5")["features/big"]["big"].size == 2_000_000
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".h5"] == ["rec.h5"]


def test_a_session_that_is_saved_again_costs_what_changed(tmp_path):
    session = labtree.create_session("rec1", output_dir=tmp_path)
    trains = {f"u{i}": {"spike_times": np.arange(i, i + 20_000)} for i in range(5)}
    session.session.add_units(trains)
    path = session.session.save()
    size = path.stat().st_size
    session.session.add_metadata({"rate": np.arange(50)})
    session.session.mark_step_complete("extract")
    session.session.save()
    assert 0 < path.stat().st_size - size < size / 10
    loaded = labtree.load_session(path)
    same(session, loaded)
    assert loaded.session.is_saved
    assert session.session.is_saved
    loaded["units"].variables["spike_times"].values[3] += 1  # inside an array, and after a load
    loaded.session.add_warning("late")
    loaded.session.save(path)
    again = labtree.load_session(path)
    same(loaded, again)
    assert again.session.warnings == ["late"]
    session.session.add_warning("mine")
    session.session.save()  # another one saved there: all of it is written
    same(session, labtree.load_session(path))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["rec1.h5"]


def written(session, folder, way):
    if way == "checkpoint":
        return session.session.checkpoint(folder / "out" / "rec1.h5")
    return session.session.save()


def to_write(folder, way):
    """Return a session that is to be written: the first time, or after one more step."""
    session = labtree.create_session("rec1", output_dir=folder / "out")
    session.session.add_units({"u": {"spike_times": np.arange(700)}})
    if way != "first":
        session.session.mark_step_complete("load")
        written(session, folder, way)
    session.session.add_metadata({"rate": np.arange(50)})
    session.session.mark_step_complete("extract")
    return session


def steps_in(path):
    return labtree.load_session(path).session.completed_steps if path.exists() else None


@pytest.mark.skipif(sys.platform != "linux", reason="watches /proc")
@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("way", ["first", "again", "checkpoint"])
def test_a_disk_that_fails_at_any_call_leaves_the_old_session_or_the_new(
    tmp_path, way, number, once
):
    folder = tmp_path / "no fault"
    session = to_write(folder, way)
    with failing_disk(folder, 10**9, number) as calls:
        written(session, folder, way)
    every = 1 if THOROUGH else 5
    for at in {*range(0, len(calls), every), len(calls) - 1}:
        folder = tmp_path / str(at)
        session = to_write(folder, way)
        path, before = folder / "out" / "rec1.h5", steps_in(folder / "out" / "rec1.h5")
        with failing_disk(folder, at, number, once=once):
            try:
                written(session, folder, way)
                is_done = True
            except labtree.LabtreeError as error:
                is_done = False
                named = error
        if not is_done:
            assert isinstance(named, OSError)
            assert named.errno == number
            assert str(path) in str(named)
            assert session.session.is_deferred
        after = session.session.completed_steps
        assert steps_in(path) in ([after] if is_done else [before, after])
        written(session, folder, way)
        same(session, labtree.load_session(path))
        assert [each.name for each in path.parent.iterdir()] == ["rec1.h5"]
    print(f"FAULTS {len(calls)}")
