"""h5py, h5netcdf and netCDF4 read the whole file after each call that returned."""

import contextlib
import os
import shutil
import warnings

import h5netcdf
import h5py
import numpy as np
import pytest
import xarray as xr

import labtree
from labtree.storage.redo_log import RedoLog, Transaction
from support.examples import THOROUGH
from support.kills import killed_at

netCDF4 = pytest.importorskip("netCDF4")

# {(namespace, key): ({variable: (dimensions, values)}, note)}
ITEMS = {
    ("rec1", "counts"): (np.arange(12), "first"),
    ("rec1", "rates"): (
        xr.DataArray(
            np.arange(6.0).reshape(2, 3),
            dims=("unit", "time"),
            coords={"unit": [4, 5], "time": [0.0, 0.5, 1.0]},
        ),
        None,
    ),
    ("rec1", "pair"): (
        xr.Dataset({"x": ("trial", [1, 2, 3]), "y": (("trial", "side"), np.eye(3, 2))}),
        "two variables",
    ),
    ("rec/2", "ä b"): (np.array([2.5, -1.0]), None),
    ("rec/2", "last"): (np.arange(3, dtype="i2"), None),
}
NEW = xr.DataArray(np.arange(8).reshape(4, 2), dims=("unit", "bin"), coords={"unit": [1] * 4})


class Content:
    """A workspace, and what other programs should find in its file."""

    def __init__(self, tree):
        self.tree = tree
        self.items = {}

    def store(self, namespace, key, obj, note=None):
        self.tree.ws.store(namespace, key, obj, note=note)
        self.items[namespace, key] = variables_of(obj), note

    def rename(self, namespace, old, new):
        assert self.tree.ws.rename(namespace, old, new, overwrite=True)
        self.items[namespace, new] = self.items.pop((namespace, old))

    def note(self, namespace, key, note):
        assert self.tree.ws.add_note(namespace, key, note)
        self.items[namespace, key] = self.items[namespace, key][0], note

    def delete(self, namespace, key=None):
        assert self.tree.ws.delete(namespace, key)
        self.items = {
            place: item
            for place, item in self.items.items()
            if place[0] != namespace or key not in (None, place[1])
        }

    def merge(self):
        other = Content(labtree.create_workspace())
        other.store("rec1", "counts", np.arange(4) * 2.0, "merged")
        other.store("new", "x", NEW)
        self.tree.ws.merge_from(other.tree, overwrite=True)
        self.items |= other.items

    def set_values(self):
        """Change values inside an array, and an attribute, through plain xarray."""
        self.tree["rec1/pair"]["x"].load().values[1] = 77
        self.tree["rec1/counts"].attrs["labtree_note"] = "by hand"
        variables, note = self.items["rec1", "pair"]
        self.items["rec1", "pair"] = variables | {"x": (("trial",), [1, 77, 3])}, note
        self.items["rec1", "counts"] = self.items["rec1", "counts"][0], "by hand"
        self.tree.ws.save()


def variables_of(obj):
    if isinstance(obj, np.ndarray):
        return {"data": (None, obj.tolist())}  # the names of its dimensions are labtree's
    dataset = obj if isinstance(obj, xr.Dataset) else obj.to_dataset(name="data")
    return {name: (v.dims, v.values.tolist()) for name, v in dataset.variables.items()}


VERBS = {
    "store": lambda content: content.store("rec1", "new", NEW, "n"),
    "store into a new namespace": lambda content: content.store("rec3", "ä/b", NEW),
    "replace": lambda content: content.store("rec1", "rates", NEW, "other"),
    "replace by another kind": lambda content: content.store("rec1", "pair", np.zeros(2)),
    "rename": lambda content: content.rename("rec1", "rates", "x/y"),
    "rename over an item": lambda content: content.rename("rec1", "rates", "counts"),
    "note": lambda content: content.note("rec1", "pair", "a longer note, ü " * 50),
    "delete": lambda content: content.delete("rec1", "rates"),
    "delete the last": lambda content: [
        content.delete("rec/2", key) for key in ("ä b", "last")
    ],
    "delete a namespace": lambda content: content.delete("rec1"),
    "merge": lambda content: content.merge(),
    "values in place": lambda content: content.set_values(),
    "compact": lambda content: content.tree.ws.compact(),
    "all": lambda content: [
        content.store("rec1", "new", NEW, "n"),
        content.rename("rec1", "counts", "moved"),
        content.store("rec1", "rates", np.ones(3)),
        content.delete("rec/2", "last"),
        content.merge(),
        content.note("rec1", "moved", "late"),
        content.tree.ws.compact(),
        content.set_values(),
        content.store("rec1", "moved", NEW),
    ],
}


def by_h5py(path):
    def variables(group):
        for name, dataset in group.items():
            is_bare = dataset.attrs.get("NAME", b"").startswith(b"This is a netCDF dimension")
            if not is_bare:
                dims = tuple(each[0].name.rpartition("/")[2] for each in dataset.dims if each)
                if dataset.is_scale:
                    dims = (name,)
                yield name, dims, dataset[()]

    with h5py.File(path, "r") as file:
        return items(file, lambda group: group.items(), lambda g: g.attrs, variables)


def by_h5netcdf(path):
    def variables(group):
        for name, variable in group.variables.items():
            yield name, variable.dimensions, variable[...]

    with h5netcdf.File(path, "r") as file:
        return items(file, lambda g: g.groups.items(), lambda g: g.attrs, variables)


def by_netcdf4(path):
    def variables(group):
        for name, variable in group.variables.items():
            yield name, variable.dimensions, np.asarray(variable[...])

    with netCDF4.Dataset(path) as file:
        return items(file, lambda group: group.groups.items(), lambda g: g.__dict__, variables)


READERS = [by_h5py, by_h5netcdf, by_netcdf4]


def items(file, groups, attributes, variables):
    found = {}
    for namespace, group in groups(file):
        for key, item in groups(group):
            note = attributes(item).get("labtree_note")
            note = note.decode() if isinstance(note, bytes) else note
            place = namespace.replace("%2F", "/"), key.replace("%2F", "/")
            read = {name: (dims, values.tolist()) for name, dims, values in variables(item)}
            found[place] = read, note
    return found


def check(path, expected):
    """Compare what each program finds with what there should be; all names are right."""
    for reader in READERS:
        found = reader(path)
        assert found.keys() == expected.keys(), reader
        for place, (variables, note) in expected.items():
            read, read_note = found[place]
            assert read_note == note, (reader, place)
            assert read.keys() == variables.keys(), (reader, place)
            for name, (dims, values) in variables.items():
                assert read[name][1] == values, (reader, place, name)
                assert dims in (None, read[name][0]), (reader, place, name)
            assert len({len(dims) for dims, _ in read.values()}) <= 2


def filled(path):
    content = Content(labtree.create_workspace())
    for (namespace, key), (obj, note) in ITEMS.items():
        content.store(namespace, key, obj, note)
    content.tree.ws.save(path)
    return content.items


@pytest.mark.parametrize("mode", ["r", "a"])
@pytest.mark.parametrize("verb", VERBS)
def test_other_programs_read_the_whole_file_after_each_verb(tmp_path, mode, verb):
    path = tmp_path / "study.h5"
    known = filled(path)
    check(path, known)
    with labtree.open_workspace(path, mode=mode) as tree:
        content = Content(tree)
        content.items = dict(known)
        VERBS[verb](content)
        if mode == "r":
            tree.ws.save()
        check(path, content.items)
    check(path, content.items)
    assert labtree.open_workspace(path).ws.find() == tree.ws.find()


def test_other_programs_read_a_lazy_workspace_that_is_saved_again(tmp_path):
    content = Content(labtree.create_workspace(lazy=True))
    for number, ((namespace, key), (obj, note)) in enumerate(ITEMS.items()):
        content.store(namespace, key, obj, note)
        content.tree.ws.save(tmp_path / "study.h5")
        check(tmp_path / "study.h5", content.items)
        if number == 2:
            content.rename("rec1", "counts", "moved")
            content.tree.ws.save()
            check(tmp_path / "study.h5", content.items)
    content.tree.ws.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("verb", ["store", "replace", "rename", "note", "delete", "merge"])
def test_after_a_crash_they_do_once_labtree_has_opened_it_for_changes(tmp_path, verb):
    """Killed when the change was durable, and its bytes not in the place for HDF5."""
    path = tmp_path / "study.h5"
    content = Content(None)
    content.items = filled(path)
    before = dict(content.items)
    copy = tmp_path / "copy.h5"
    copy.write_bytes(path.read_bytes())

    def change():
        with labtree.open_workspace(path, mode="a") as content.tree:
            VERBS[verb](content)

    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            commit = Transaction.commit

            def killed(*arguments, **options):
                RedoLog.apply = lambda _: os._exit(0)
                commit(*arguments, **options)

            Transaction.commit = killed
            change()
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    check(path, before)
    with labtree.open_workspace(copy, mode="a") as content.tree:
        VERBS[verb](content)
    expected = content.items
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", labtree.errors.DamageWarning)  # an older index
        tree = labtree.open_workspace(path, mode="a")
    check(path, expected)
    tree.ws.close()
    check(path, expected)


def names_in(items):
    return {place: ({*variables}, note) for place, (variables, note) in items.items()}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("mode", ["r", "a"])
def test_killed_at_any_call_they_find_the_state_before_or_after_it(tmp_path, mode):
    """Once labtree has opened the file for changes."""
    first = tmp_path / "first.h5"
    states = [filled(first)]
    changes = [VERBS[verb] for verb in ("store", "rename", "replace by another kind", "delete")]
    changes[3] = lambda content: content.delete("rec/2", "last")
    trial = Content(labtree.load_workspace(first))
    trial.items = dict(states[0])
    for change in changes:
        change(trial)
        states.append(dict(trial.items))
    trial.tree.ws.save(tmp_path / "last.h5")
    path = tmp_path / "study.h5"

    def work(tell):
        content = Content(labtree.open_workspace(path, mode=mode))
        content.items = dict(states[0])
        for number, change in enumerate(changes, 1):
            change(content)
            if mode == "r":
                content.tree.ws.save()
            tell(number)

    found = set()
    number = 2
    while len(changes) not in found:
        for suffix in (".h5", ".json"):
            shutil.copy(first.with_suffix(suffix), path.with_suffix(suffix))
        told = killed_at(number, work)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", labtree.errors.DamageWarning)  # an older index
            labtree.open_workspace(path, mode="a").ws.close()
        items = names_in(by_h5py(path))
        here = [at for at, state in enumerate(states) if names_in(state) == items]
        (at,) = [each for each in here if each in (told, told + 1)]
        check(path, states[at])
        found.add(at)
        number += 1 if THOROUGH else 10
    assert found >= {0, 2, 4}
