"""Workspaces of all kinds against a dict of dicts: interrupted, killed and reopened."""

import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import labtree
from support.examples import examples
from support.interrupts import interrupted_at
from support.kills import killed_at

try:
    import icechunk
except ModuleNotFoundError:
    icechunk = None

NAMESPACES = st.sampled_from(["a", "b", "x/y"])
KEYS = st.sampled_from(["one", "two", "th/ree", "ä"])
# Where a call is interrupted, in lines of labtree's; most calls end before.
POINTS = st.one_of(st.none(), st.integers(1, 400))
Model = dict[str, dict[str, tuple[object, str | None]]]


def copied(model: Model) -> Model:
    return {namespace: dict(keys) for namespace, keys in model.items()}


def content(tree) -> Model:
    found: Model = {}
    for namespace, key in tree.ws:
        info = tree.ws.get_info(namespace, key)
        value = np.asarray(tree.ws[namespace, key]).tolist()
        found.setdefault(namespace, {})[key] = (value, info.get("note"))
    return found


class Op(NamedTuple):
    """A verb; of one that needs an item the `pick`-th of those that are there is taken."""

    verb: str
    namespace: str
    key: str
    other: str
    pick: int

    def on(self, model: Model) -> tuple[str, str]:
        places = [(namespace, key) for namespace, keys in model.items() for key in keys]
        if self.verb == "store" or not places:
            return self.namespace, self.key
        return places[self.pick % len(places)]


VERBS = ["store", "store", "rename", "note", "delete", "values", "values"]
OPS = st.builds(Op, st.sampled_from(VERBS), NAMESPACES, KEYS, KEYS, st.integers(0, 11))


def changed(model: Model, op: Op, number: int) -> Model:
    """Return what a model holds after a verb."""
    verb, other = op.verb, op.other
    namespace, key = op.on(model)
    after = copied(model)
    keys = after.get(namespace, {})
    if verb == "store":
        after.setdefault(namespace, {})[key] = ([number] * 3, None)
    elif key not in keys:
        return after
    elif verb == "rename":
        keys[other] = keys.pop(key)
    elif verb == "note":
        keys[key] = keys[key][0], f"note {number}"
    elif verb == "delete":
        del keys[key]
        if not keys:
            del after[namespace]
    elif verb == "values":
        keys[key] = [number, *keys[key][0][1:]], keys[key][1]
    return after


def change(tree, model: Model, op: Op, number: int) -> None:
    """Call a verb, or change the first value of an item in place."""
    verb, other = op.verb, op.other
    namespace, key = op.on(model)
    if verb == "store":
        tree.ws.store(namespace, key, np.full(3, number))
    elif verb == "rename":
        tree.ws.rename(namespace, key, other, overwrite=True)
    elif verb == "note":
        tree.ws.add_note(namespace, key, f"note {number}")
    elif verb == "delete":
        tree.ws.delete(namespace, key)
    elif (namespace, key) in tree.ws:
        array = node_of(tree, namespace, key)["data"]
        array.load()
        array.values[0] = number


def node_of(tree, namespace: str, key: str):
    """Return the node of an item, whose names are encoded in the tree."""
    names = [each.replace("/", "%2F") for each in (namespace, key)]
    return tree["/".join(names)]


def on_disk(path) -> Model | None:
    with warnings.catch_warnings():
        # An index may be older than its file; a folder may have no store in it yet.
        warnings.simplefilter("ignore", labtree.LabtreeWarning)
        try:
            return content(labtree.load_workspace(path))
        except labtree.MissingFileError:
            return None


def by_h5py(path) -> Model:
    found: Model = {}
    with h5py.File(path, "r") as file:
        for namespace, group in file.items():
            for key, item in group.items():
                names = [each.replace("%2F", "/") for each in (namespace, key)]
                note = item.attrs.get("labtree_note")
                note = note.decode() if isinstance(note, bytes) else note
                found.setdefault(names[0], {})[names[1]] = (item["data"][()].tolist(), note)
    return found


class Workspaces(RuleBasedStateMachine):
    """Each verb either happened or did not, in memory and on the disk."""

    @initialize(kind=st.sampled_from(["memory", "lazy", "mode a", "zarr", "lazy zarr"]))
    def begin(self, kind: str) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / f"study.{'zarr' if 'zarr' in kind else 'h5'}"
        self.mode = "a" if kind == "mode a" else "r"
        if self.mode == "a":
            self.tree = labtree.open_workspace(self.path, mode="a")
        else:
            self.tree = labtree.create_workspace("study", lazy="lazy" in kind)
        self.model: Model = {}
        self.saved: Model | None = {} if self.mode == "a" else None
        self.has_new_values = False  # inside arrays, of which is_saved knows nothing
        self.number = 0

    def call(self, verb, after: Model, point: int | None) -> None:
        """Call a verb that leads to a state, perhaps interrupted; take over which it is."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", labtree.LabtreeWarning)
            if point is None:
                verb()
                self.model = after
            else:
                interrupted_at(point, verb)
                found = content(self.tree)
                assert found in (self.model, after)
                self.model = found
        if self.mode == "a":
            assert on_disk(self.path) == self.model
            self.saved = copied(self.model)

    @rule(op=OPS, point=POINTS)
    def change(self, op, point) -> None:
        self.number += 1
        number, after = self.number, changed(self.model, op, self.number)
        if op.verb != "values":
            before = self.model
            self.call(lambda: change(self.tree, before, op, number), after, point)
            return
        change(self.tree, self.model, op, number)
        self.has_new_values = True
        self.model = after
        if self.mode == "a":  # verbs of other items need not save it
            self.save(None)

    @rule(namespace=NAMESPACES, key=KEYS, note=st.sampled_from([None, "n"]), point=POINTS)
    def store(self, namespace, key, note, point) -> None:
        self.number += 1
        value = np.full(3, self.number)
        after = copied(self.model)
        after.setdefault(namespace, {})[key] = (value.tolist(), note)
        self.call(lambda: self.tree.ws.store(namespace, key, value, note=note), after, point)

    @rule(namespace=NAMESPACES, key=KEYS, new=KEYS, point=POINTS)
    def rename_to_a_free_name(self, namespace, key, new, point) -> None:
        after = copied(self.model)
        keys = after.get(namespace, {})
        if key in keys and new not in keys:
            keys[new] = keys.pop(key)
        self.call(lambda: self.tree.ws.rename(namespace, key, new), after, point)

    @rule(namespace=NAMESPACES, point=POINTS)
    def delete_a_namespace(self, namespace, point) -> None:
        after = copied(self.model)
        after.pop(namespace, None)
        self.call(lambda: self.tree.ws.delete(namespace), after, point)

    @rule(namespace=NAMESPACES, key=KEYS, overwrite=st.booleans(), point=POINTS)
    def merge(self, namespace, key, overwrite, point) -> None:
        self.number += 1
        other = labtree.create_workspace("other")
        other.ws.store(namespace, key, np.full(2, self.number))
        other.ws.store("merged", "m", np.full(2, self.number))
        after = copied(self.model)
        for place in ((namespace, key), ("merged", "m")):
            keys = after.setdefault(place[0], {})
            if overwrite or place[1] not in keys:
                keys[place[1]] = ([self.number, self.number], None)
        self.call(lambda: self.tree.ws.merge_from(other, overwrite=overwrite), after, point)

    @rule(point=st.one_of(st.none(), st.integers(1, 3000)))
    def save(self, point) -> None:
        if point is None:
            self.tree.ws.save(self.path)
            assert self.tree.ws.is_saved
            self.has_new_values = False
            self.saved = copied(self.model)
        else:
            interrupted_at(point, lambda: self.tree.ws.save(self.path))
        found = on_disk(self.path)
        assert found in (self.saved, self.model)
        self.saved = found

    @rule()
    def compact(self) -> None:
        self.begin_to_save()
        self.tree.ws.compact()
        self.has_new_values = False
        self.saved = copied(self.model)
        assert on_disk(self.path) == self.model

    def begin_to_save(self) -> None:
        if self.saved is None:  # no precondition: where an interrupt comes can vary
            self.save(None)

    @rule(suffix=st.sampled_from([".h5", ".zarr"]))
    def save_elsewhere(self, suffix) -> None:
        """A copy; a workspace that is not open in mode "a" goes on there."""
        self.number += 1
        path = self.folder / f"copy{self.number}{suffix}"
        self.tree.ws.save(path)
        assert on_disk(path) == self.model
        if self.saved is not None:
            assert on_disk(self.path) == self.saved
        if self.mode == "r":
            self.path, self.saved = path, copied(self.model)
            self.has_new_values = False

    @rule(how=st.sampled_from([labtree.open_workspace, labtree.load_workspace]))
    def reopen(self, how) -> None:
        self.begin_to_save()
        self.close()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", labtree.LabtreeWarning)
            if self.mode == "a":
                self.tree = labtree.open_workspace(self.path, mode="a")
            else:
                self.tree = how(self.path)
        assert self.tree.ws.is_saved
        self.model = copied(self.saved)
        self.has_new_values = False

    def close(self) -> None:
        with warnings.catch_warnings():
            # What was not saved is lost, and said.
            warnings.simplefilter("ignore", labtree.LabtreeWarning)
            self.tree.ws.close()

    @rule(ops=st.lists(OPS, min_size=1, max_size=4), at=st.integers(1, 100))
    def crash(self, ops, at) -> None:
        """Another process goes on where this one stopped, and ends at some call of it."""
        if not hasattr(os, "fork"):
            return
        self.begin_to_save()
        self.close()
        states = [self.saved]
        for op in ops:
            states.append(changed(states[-1], op, self.number + len(states)))

        def work(tell) -> None:
            options = {"mode": "a"} if self.mode == "a" else {}
            tree = labtree.open_workspace(self.path, **options)
            for count, op in enumerate(ops, 1):
                change(tree, states[count - 1], op, self.number + count)
                if self.mode != "a" or op.verb == "values":
                    tree.ws.save()
                tell(count)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that are gone
            count = killed_at(at, work)
        found = on_disk(self.path)
        assert found in states[count : count + 2]
        if self.path.suffix == ".h5":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", labtree.LabtreeWarning)
                labtree.open_workspace(self.path, mode="a").ws.close()
            assert by_h5py(self.path) == found
        self.number += len(ops)
        self.saved = found
        self.reopen(labtree.open_workspace)

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        assert content(self.tree) == self.model
        assert len(self.tree.ws) == sum(map(len, self.model.values()))
        if not self.tree.ws.is_saved:
            assert self.tree.ws.changes

    @invariant()
    def says_whether_it_is_saved(self) -> None:
        if self.saved is not None and self.model != self.saved and not self.has_new_values:
            assert not self.tree.ws.is_saved

    def teardown(self) -> None:
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class SharedWorkspaces(RuleBasedStateMachine):
    """One that many processes store into: each store is there whole or not at all."""

    @initialize()
    def begin(self) -> None:
        icechunk.set_logs_filter("error")
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "study.icechunk"
        labtree.store_shared(self.path, "a", "one", np.full(3, 0))
        self.model: Model = {"a": {"one": ([0, 0, 0], None)}}
        self.opened = labtree.open_shared(self.path), copied(self.model)
        self.number = 0

    def call(self, verb, after: Model, point: int | None) -> None:
        """Call a verb; with a point in a process that stops there, and does nothing more."""
        if point is None:
            verb()
            self.model = after
            return
        interrupted_at(point, verb)
        found = content(labtree.open_shared(self.path))
        assert found in (self.model, after)
        self.model = found

    @rule(namespace=NAMESPACES, key=KEYS, note=st.sampled_from([None, "n"]), point=POINTS)
    def store(self, namespace, key, note, point) -> None:
        self.number += 1
        value, after = np.full(3, self.number), copied(self.model)
        after.setdefault(namespace, {})[key] = (value.tolist(), note)
        self.call(
            lambda: labtree.store_shared(self.path, namespace, key, value, note=note),
            after,
            point,
        )

    @rule(namespace=NAMESPACES, key=KEYS, point=POINTS)
    def delete(self, namespace, key, point) -> None:
        after = copied(self.model)
        after.get(namespace, {}).pop(key, None)
        after = {name: keys for name, keys in after.items() if keys}
        self.call(lambda: labtree.delete_shared(self.path, namespace, key), after, point)

    @rule()
    def open(self) -> None:
        self.opened = labtree.open_shared(self.path), copied(self.model)

    @rule(op=OPS)
    def change_what_was_opened(self, op) -> None:
        """Others see nothing of it."""
        self.number += 1
        tree, model = self.opened
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", labtree.LabtreeWarning)
            change(tree, model, op, self.number)
        self.opened = tree, changed(model, op, self.number)

    @rule(suffix=st.sampled_from([".h5", ".zarr"]))
    def save_what_was_opened(self, suffix) -> None:
        self.number += 1
        path = self.folder / f"copy{self.number}{suffix}"
        tree, model = self.opened
        tree.ws.save(path)
        assert on_disk(path) == model

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        assert content(labtree.open_shared(self.path)) == self.model
        tree, model = self.opened
        assert content(tree) == model

    def teardown(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", labtree.LabtreeWarning)
            self.opened[0].ws.close()
        shutil.rmtree(self.folder, ignore_errors=True)


TestWorkspaces = Workspaces.TestCase
TestWorkspaces.settings = settings(
    max_examples=examples(48), stateful_step_count=20, deadline=None
)
if icechunk is not None:
    TestSharedWorkspaces = SharedWorkspaces.TestCase
    TestSharedWorkspaces.settings = settings(
        max_examples=examples(20), stateful_step_count=12, deadline=None
    )
