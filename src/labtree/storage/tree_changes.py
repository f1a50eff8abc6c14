"""What of a tree differs from the file that it came from."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import xarray as xr

from labtree.storage import codecs, json_values
from labtree.storage.blobs import checksum
from labtree.storage.blocks import is_dask
from labtree.storage.dataset_checks import variable_values
from labtree.storage.marks import (
    Mark,
    Marks,
    Suspects,
    are_simple,
    has_same_variables,
    is_certainly_same,
    is_untouched,
    paths_below,
    same_attributes,
)
from labtree.storage.marks import Path as NodePath
from labtree.storage.records import NodeRecord, VariableRecord, variable_records
from labtree.storage.value_attributes import without_marks


@dataclass(slots=True)
class Changes:
    """What has to be done to a file so that it holds a tree.

    Attributes
    ----------
    nodes
        The nodes that are looked at, each before those below it.
    tree
        The root of all nodes; None where only some of them were looked for.
    removed
        Paths that are not in the tree any more.
    moved
        New path and old path of nodes that only stand elsewhere.
    relinked
        The topmost of those.
    written
        Nodes that are new, or whose variables changed.
    described
        Nodes of which only attributes changed.
    reordered
        Nodes whose children stand in another order.
    """

    nodes: dict[NodePath, xr.DataTree] = field(default_factory=dict)
    tree: xr.DataTree | None = None
    removed: list[NodePath] = field(default_factory=list)
    moved: dict[NodePath, NodePath] = field(default_factory=dict)
    relinked: dict[NodePath, NodePath] = field(default_factory=dict)
    written: list[NodePath] = field(default_factory=list)
    described: list[NodePath] = field(default_factory=list)
    reordered: list[NodePath] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(
            self.removed or self.moved or self.written or self.described or self.reordered
        )

    @property
    def touched(self) -> set[NodePath]:
        """The paths of all nodes in the tree that are not as they were."""
        return {*self.written, *self.described, *self.moved}

    @property
    def parents(self) -> set[NodePath]:
        """The paths of the nodes that have other children now, or in another order."""
        changed = {path[:-1] for path in (*self.touched, *self.gone) if path}
        return (changed | {*self.reordered}) & self.nodes.keys()

    @property
    def gone(self) -> list[NodePath]:
        """The topmost paths where a node stood that is not there any more, or another one."""
        return topmost({*self.removed, *self.relinked.values(), *self.relinked})


def find_changes(
    records: Mapping[NodePath, NodeRecord],
    names_below: Mapping[NodePath, Iterable[str]],
    tree: xr.DataTree,
    marks: Marks,
    places: Collection[NodePath] | None = None,
) -> Changes:
    """Return what of a tree differs from a file.

    Parameters
    ----------
    records
        Of the file's nodes.
    names_below
        The names of the nodes below each.
    tree
        The root.
    marks
        The nodes as they were when the tree was opened from this file, or saved to it.
    places
        Where to look: at these nodes, those above and those below. Everywhere if not
        given.
    """
    if places is not None:
        suspects, changes = Suspects([*places], [], []), Changes()
    else:
        suspects = marks.suspects(tree)
        if len(marks) != len(records):
            suspects = Suspects([()], [], [])
        changes = Changes(tree=tree, reordered=suspects.reordered)
    changes.nodes = suspects.nodes(tree)
    known: dict[NodePath, None] = dict.fromkeys(suspects.single)
    for place in suspects.places:
        known |= dict.fromkeys(place[:depth] for depth in range(len(place) + 1))
        known |= dict.fromkeys(paths_below(names_below, place))
    _compare(changes, marks, records, [path for path in known if path in records])
    return changes


def _compare(
    changes: Changes,
    marks: Marks,
    records: Mapping[NodePath, NodeRecord],
    known: Collection[NodePath],
) -> None:
    """Compare nodes with the file, which has `known` nodes where they are."""
    nodes = changes.nodes
    was: dict[int, NodePath] = {}
    for path in known:
        mark = marks.get(path)
        if mark is not None and nodes.get(path) is not (before := mark.node()):
            was[id(before)] = path
    origins: dict[NodePath, NodePath | None] = {(): ()}
    for path, node in nodes.items():
        mark = marks.get(path)
        origin: NodePath | None = path
        if path and (mark is None or mark.node() is not node or path not in records):
            origin = was.get(id(node))
        above = origins.get(path[:-1], path[:-1])
        if origin and above != origin[:-1] and _shares(records, origin):
            origin = None  # its dimensions are in the group that it leaves
        origins[path] = origin
        if origin is None:
            changes.written.append(path)
            continue
        if origin != path:
            changes.moved[path] = origin
            if not (path[-1] == origin[-1] and origins[path[:-1]] == origin[:-1]):
                changes.relinked[path] = origin
            mark = marks.get(origin)
        difference = _difference(node, mark, records[origin])
        if difference == "variables":
            changes.written.append(path)
        elif difference == "attributes":
            changes.described.append(path)
    kept = set(changes.moved.values())
    changes.removed = [path for path in known if path not in nodes and path not in kept]


def _shares(records: Mapping[NodePath, NodeRecord], path: NodePath) -> bool:
    """Return whether variables of a node may have dimensions of the group above it."""
    shared = records[path[:-1]].get("shared", {}) if path else {}
    return bool(shared) and any(
        shared.get(dim) == size
        for variable in variable_records(records[path])
        for dim, size in zip(variable.dims, variable.columns[0].shape, strict=False)
    )


def _difference(node: xr.DataTree, mark: Mark | None, record: NodeRecord) -> str | None:
    """Return what of a node differs from the file: "variables", "attributes" or nothing."""
    if mark is not None and is_certainly_same(mark, node):
        return None
    if mark is None or not has_same_variables(mark, node):
        return "variables"
    known: dict[Any, VariableRecord] | None = None
    for name, variable in mark.variables.items():
        attrs = variable.attrs if name in mark.variable_attrs else {}
        has_simple_attrs, is_as_it_was = are_simple(attrs), is_untouched(mark, name, variable)
        if has_simple_attrs and is_as_it_was:
            continue
        if known is None:
            known = {each.name: each for each in variable_records(record)}
        if name not in known:  # a MultiIndex shows tuples that are not written
            continue
        if not has_simple_attrs:
            own = json_values.encode(without_marks(attrs), "attrs")
            if own != known[name].attrs:
                return "variables"
        if not is_as_it_was and not _has_same_values(variable, known[name]):
            return "variables"
    if same_attributes(mark.attrs, node.attrs) and are_simple(node.attrs):
        return None
    if json_values.encode(dict(node.attrs), "attrs") != record["attrs"]:
        return "attributes"
    return None


def _has_same_values(variable: xr.Variable, known: VariableRecord) -> bool:
    """Return whether a variable's values are those that a catalogue describes."""
    if isinstance(variable, xr.IndexVariable):  # cannot be changed in place
        return True
    if is_dask(variable):
        return False
    try:
        spec, arrays = codecs.encode(variable_values(variable, "values"), "values")
    except TypeError:
        return False
    return (
        spec == known.spec
        and len(arrays) == len(known.columns)
        and all(
            array.dtype.str == column.dtype
            and list(array.shape) == column.shape
            and checksum(array) == column.crc
            for array, column in zip(arrays, known.columns, strict=True)
        )
    )


def topmost(paths: set[NodePath]) -> list[NodePath]:
    """Return those of some paths that are not below another of them."""
    return [p for p in paths if not any(p[:depth] in paths for depth in range(1, len(p)))]
