"""Workspaces in memory, lazy and opened against a dict of dicts, interrupted and reopened."""

import shutil
import tempfile
import warnings
from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import labtree
from support.examples import examples
from support.interrupts import interrupted_at

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


class Workspaces(RuleBasedStateMachine):
    """Each verb either happened or did not, in memory and on the disk."""

    @initialize(lazy=st.booleans(), suffix=st.sampled_from([".h5", ".zarr"]))
    def begin(self, lazy: bool, suffix: str) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / f"study{suffix}"
        self.tree = labtree.create_workspace("study", lazy=lazy)
        self.model: Model = {}
        self.saved: Model | None = None
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

    @rule(namespace=NAMESPACES, key=KEYS, note=st.sampled_from([None, "n"]), point=POINTS)
    def store(self, namespace, key, note, point) -> None:
        self.number += 1
        value = np.full(3, self.number)
        after = copied(self.model)
        after.setdefault(namespace, {})[key] = (value.tolist(), note)
        self.call(lambda: self.tree.ws.store(namespace, key, value, note=note), after, point)

    @rule(namespace=NAMESPACES, key=KEYS, new=KEYS, overwrite=st.booleans(), point=POINTS)
    def rename(self, namespace, key, new, overwrite, point) -> None:
        after = copied(self.model)
        keys = after.get(namespace, {})
        if key in keys and key != new and (overwrite or new not in keys):
            keys[new] = keys.pop(key)
        self.call(
            lambda: self.tree.ws.rename(namespace, key, new, overwrite=overwrite), after, point
        )

    @rule(namespace=NAMESPACES, key=KEYS, point=POINTS)
    def add_note(self, namespace, key, point) -> None:
        after = copied(self.model)
        if key in after.get(namespace, {}):
            after[namespace][key] = (after[namespace][key][0], "later")
        self.call(lambda: self.tree.ws.add_note(namespace, key, "later"), after, point)

    @rule(namespace=NAMESPACES, key=st.one_of(st.none(), KEYS), point=POINTS)
    def delete(self, namespace, key, point) -> None:
        after = copied(self.model)
        if key is None:
            after.pop(namespace, None)
        else:
            after.get(namespace, {}).pop(key, None)
            if not after.get(namespace, True):
                del after[namespace]
        self.call(lambda: self.tree.ws.delete(namespace, key), after, point)

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
            self.saved = copied(self.model)
            return
        interrupted_at(point, lambda: self.tree.ws.save(self.path))
        if self.path.exists():
            try:
                found = content(labtree.load_workspace(self.path))
            except labtree.MissingFileError:
                found = None  # a folder without a store in it yet
            assert found in (self.saved, self.model)
            self.saved = found

    @rule(how=st.sampled_from([labtree.open_workspace, labtree.load_workspace]))
    def reopen(self, how) -> None:
        if self.saved is None:  # no precondition: where an interrupt comes can vary
            return
        with warnings.catch_warnings():
            # What was not saved is lost, and said; an index may be older than its file.
            warnings.simplefilter("ignore", labtree.LabtreeWarning)
            self.tree.ws.close()
            self.tree = how(self.path)
        assert self.tree.ws.is_saved
        self.model = copied(self.saved)

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        assert content(self.tree) == self.model
        assert len(self.tree.ws) == sum(map(len, self.model.values()))
        if not self.tree.ws.is_saved:
            assert self.tree.ws.changes

    @invariant()
    def says_whether_it_is_saved(self) -> None:
        if self.saved is not None and self.model != self.saved:
            assert not self.tree.ws.is_saved

    def teardown(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", labtree.LabtreeWarning)
            self.tree.ws.close()
        shutil.rmtree(self.folder, ignore_errors=True)


TestWorkspaces = Workspaces.TestCase
TestWorkspaces.settings = settings(
    max_examples=examples(12), stateful_step_count=20, deadline=None
)
