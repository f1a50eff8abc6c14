"""A workspace after a power cut: what was acknowledged or what was being saved, whole."""

import functools
import itertools
import os
import shutil
import sys
import warnings

import h5netcdf
import h5py
import numpy as np
import pytest
import zarr

import labtree
from labtree.errors import DamageWarning, LabtreeError
from labtree.storage import files
from support import power_loss
from support.examples import THOROUGH, examples

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="watches /proc")


class Model:
    """A workspace beside what it should hold: (namespace, key) -> (first value, note)."""

    def __init__(self, tree):
        self.tree, self.state = tree, {}

    def store(self, key, value, note):
        self.tree.ws.store("rec", key, np.arange(200) + value, note=note)
        self.state["rec", key] = value, note

    def rename(self, old, new):
        assert self.tree.ws.rename("rec", old, new)
        self.state["rec", new] = self.state.pop(("rec", old))

    def note(self, key, note):
        assert self.tree.ws.add_note("rec", key, note)
        self.state["rec", key] = self.state["rec", key][0], note

    def delete(self, key):
        assert self.tree.ws.delete("rec", key)
        del self.state["rec", key]

    def changes(self):
        """Give one change after the other, which are to be called."""
        yield lambda: self.store("a", 1, "one")
        yield lambda: self.store("b", 2, "two")
        yield lambda: self.note("a", "a longer note" * 40)
        yield lambda: self.rename("a", "moved")
        yield lambda: self.store("b", 3, "three")
        yield lambda: self.delete("moved")

    def steps(self):
        """Make one change after the other."""
        for change in self.changes():
            yield change()


def found_at(path):
    """Return what a workspace holds, None where there is none, or what is wrong."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*study.json", DamageWarning)
            tree = labtree.load_workspace(path)
        found = {place: np.asarray(tree.ws[place]) for place in tree.ws.find()}
    except FileNotFoundError:
        return None
    except (LabtreeError, Warning) as error:
        return f"{type(error).__name__}: {error}"
    state = {}
    for (namespace, key), values in found.items():
        if not np.array_equal(values, np.arange(200) + values[0]):
            return f"{namespace}/{key} is mixed"
        state[namespace, key] = int(values[0]), tree.ws.describe()[namespace][key]["note"]
    return state


def foreign(path):
    """Return what other libraries find, or what stops them."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of groups that zarr does not find
            return read_by_others(path)
    except Exception as error:
        return repr(error)


def read_by_others(path):
    """Read by zarr, or by h5py and h5netcdf."""
    if path.suffix == ".zarr":
        return contents(
            zarr.open_group(path, mode="r", use_consolidated=False),
            lambda group: group.groups(),
        )
    with h5py.File(path, "r") as h5, h5netcdf.File(path, "r") as netcdf:
        states = [contents(file, groups_of) for file in (h5, netcdf)]
    assert states[0] == states[1]
    return states[0]


def groups_of(group):
    """Return the groups below one, which may have dimensions beside them."""
    return [(name, each) for name, each in group.items() if hasattr(each, "items")]


def contents(file, children):
    state = {}
    for namespace, group in children(file):
        for key, item in children(group):
            values, note = np.asarray(item["data"]), item.attrs["labtree_note"]
            assert np.array_equal(values, np.arange(200) + values[0])
            note = note.decode() if isinstance(note, bytes) else note
            state[namespace, key] = int(values[0]), note
    return state


def save_anew(folder, disk, name):
    """Save one new workspace after the other to one path."""
    steps = Model(None)
    steps.tree = labtree.create_workspace()
    for _ in steps.steps():
        disk.begin(dict(steps.state))
        copy = labtree.create_workspace()
        copy.ws.merge_from(steps.tree)
        copy.ws.save(folder / name, overwrite=True)
        disk.acknowledge(dict(steps.state))


def save_again(folder, disk, name, *, compact=False, **options):
    """Save a workspace again and again onto its own file, perhaps each other time anew."""
    model = Model(labtree.create_workspace(**options))
    for number, _ in enumerate(model.steps()):
        disk.begin(dict(model.state))
        if compact and number % 2:
            model.tree.ws.compact()
        else:
            model.tree.ws.save(folder / name)
        disk.acknowledge(dict(model.state))
    model.tree.ws.close()


def verb_by_verb(folder, disk, name):
    """Open in mode "a", where a verb is safe when it returns; twice, with a close between."""
    model, trial = Model(None), Model(labtree.create_workspace())
    disk.begin({})
    for _ in range(2):
        with labtree.open_workspace(folder / name, mode="a") as model.tree:
            disk.acknowledge(dict(model.state))
            for change, ahead in zip(model.changes(), trial.changes(), strict=True):
                ahead()
                disk.begin(dict(trial.state))
                change()
                disk.acknowledge(dict(model.state))
            disk.begin(dict(model.state))
        disk.acknowledge(dict(model.state))


WAYS = {
    "new file": (save_anew, "study.h5"),
    "same file": (save_again, "study.h5"),
    "mode a": (verb_by_verb, "study.h5"),
    "lazy": (functools.partial(save_again, lazy=True), "study.h5"),
    "compact": (functools.partial(save_again, compact=True), "study.h5"),
    "zarr": (save_anew, "study.zarr"),
}


@pytest.fixture(scope="module")
def disks(tmp_path_factory):
    """Give the record of each way, made when it is first needed."""
    made = {}

    def disk(way):
        if way not in made:
            write, name = WAYS[way]
            folder = tmp_path_factory.mktemp("disk")
            with pytest.MonkeyPatch.context() as patch, power_loss.record(folder) as made[way]:
                patch.setattr("labtree.storage.writing._FEW", 1)  # items share dimensions
                write(folder, made[way], name)
        return made[way]

    return disk


def wrong(name, folder, crashes, *, is_used=True):
    """Yield what is neither the acknowledged state nor the next after a power cut."""
    for crash in crashes:
        shutil.rmtree(folder, ignore_errors=True)
        path = crash.write(folder) / name
        index = path.with_suffix(".json")
        # No file system of today shows bytes that were never written to a file.
        if index.exists() and index.read_bytes().strip(b"\0")[:1] not in (b"", b"{"):
            index.unlink()
        # What was acknowledged stands where others look for it, before labtree repairs it;
        # zarr stores are whole at any moment.
        others = None
        if crash.acknowledged is not None and (crash.attempted is None or name != "study.h5"):
            others = foreign(path)
        found = found_at(path)
        if found not in [crash.acknowledged] + [crash.attempted] * (
            crash.attempted is not None
        ):
            yield crash.after, found
        elif others not in (None, found):
            yield "other programs", crash.after, others
        elif found is not None and is_used:
            yield from problems_of_use(path, found)


def problems_of_use(path, state):
    """Store into what a crash left; other programs must find that and all the rest."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*study.json", DamageWarning)
        with labtree.open_workspace(path) as tree:
            tree.ws.store("rec", "later", np.arange(200) + 9, note="later")
            tree.ws.save()
    expected = {**state, ("rec", "later"): (9, "later")}
    if foreign(path) != expected:
        yield "foreign", foreign(path)
    if found_at(path) != expected:
        yield "later", found_at(path)


@pytest.mark.parametrize("way", WAYS)
def test_a_power_cut_leaves_the_acknowledged_state_or_the_next(disks, tmp_path, way):
    crashes = disks(way).crashes(1, examples(40 if way == "zarr" else 100))
    assert list(wrong(WAYS[way][1], tmp_path / "after", crashes)) == []


# h5netcdf complains of files that it could not open when they are let go.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("way", WAYS)
def test_each_sync_that_is_taken_away_is_missed(disks, tmp_path, way):
    disk, name = disks(way), WAYS[way][1]
    ends = [i for i, event in enumerate(disk.events) if event.kind == "acknowledge"]
    # The index is made from the .h5 file where it is not there.
    syncs = disk.syncs_but_for(".json", ".labtree-tmp")
    syncs = [each for each in syncs if ends[-4] < each < ends[-2]]
    assert len(syncs) >= 2
    for event in syncs[:: 1 if THOROUGH or len(syncs) < 8 else 11]:
        # Some are missed in the next moment, others when more is written or acknowledged.
        crashes = itertools.chain(
            disk.crashes(2, 0 if way == "zarr" else 60, without=event, within=2),
            disk.crashes(2, 100, without=event, within=ends[-1] + 2 - event),
            disk.crashes(3, 4000, without=event, within=2),  # one is enough
        )
        found = wrong(name, tmp_path / "after", crashes, is_used=False)
        assert any(found), (disk.events[event].kind, disk.events[event].target)


def test_a_file_whose_writer_was_killed_is_safe_once_it_is_changed(tmp_path):
    """Killed when the file stood at its place, and before that was safe."""
    folder = tmp_path / "disk"
    folder.mkdir()
    model = Model(labtree.create_workspace())
    model.store("a", 1, "one")
    with power_loss.record(folder) as disk:
        child = os.fork()
        if child == 0:
            files.sync_folder = lambda _: os._exit(0)
            model.tree.ws.save(folder / "study.h5")
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        with labtree.open_workspace(folder / "study", mode="a") as model.tree:
            for key in ("b", "c"):
                disk.begin({**model.state, ("rec", key): (2, "two")})
                model.store(key, 2, "two")
                disk.acknowledge(dict(model.state))
            disk.begin(dict(model.state))
    assert len(model.state) == 3
    crashes = [each for each in disk.crashes(4, examples(400)) if each.acknowledged]
    assert len(crashes) > 5
    assert list(wrong("study.h5", tmp_path / "after", crashes, is_used=False)) == []
