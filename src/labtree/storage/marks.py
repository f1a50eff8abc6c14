"""Which parts of a tree have changed since it was last on the disk."""

import operator
import weakref
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from labtree.storage._xarray import attrs_of, data_of, dims_of, lazy_data_of
from labtree.storage.arrays import stored_array
from labtree.storage.nodes import own_variables, parts_of_nodes, variable_attrs

Path = tuple[str, ...]
_SIMPLE = frozenset({str, int, float, bool, type(None), bytes, complex, np.float64, np.int64})
_BATCH = 100
_FEW = 25


class Mark(NamedTuple):
    """A node as it is on the disk: the node, its variables, and copies of attributes.

    The first `n_data` of the `variables` are no coordinates; `dims` has the dimensions of
    each. `lazy` has, for each variable whose values are not in memory, what xarray replaces
    when it is written to. `is_quick` says whether nothing of the node can be changed in place.
    """

    node: "weakref.ref[xr.DataTree]"
    variables: dict[Any, Any]
    n_data: int
    dims: list[tuple[Any, ...]]
    attrs: dict[Any, Any]
    variable_attrs: dict[Any, dict[Any, Any]]
    lazy: dict[Any, Any]
    is_quick: bool = False


class Suspects(NamedTuple):
    """Where a tree may differ from what it was; everywhere else it does not.

    Attributes
    ----------
    places
        Paths where another node stands than before, or one where there was none, or none
        where there was one. All below them may differ, too.
    single
        Nodes that stand where they were and may have changed.
    reordered
        Nodes whose children stand in another order.
    """

    places: list[Path]
    single: list[Path]
    reordered: list[Path]

    def nodes(self, root: xr.DataTree) -> dict[Path, xr.DataTree]:
        """Return the nodes of a tree that are meant, each before those below it."""
        found: dict[Path, xr.DataTree] = {}
        for path in self.single:
            node = node_at(root, path)
            if node is not None:
                found[path] = node
        for place in self.places:
            for depth in range(len(place) + 1):
                node = node_at(root, place[:depth])
                if node is None:
                    break
                found[place[:depth]] = node
            if node is not None:
                found |= {(*place, *path): below for path, below in iterate_nodes(node)}
        return dict(sorted(found.items(), key=lambda pair: len(pair[0])))


class Marks(MutableMapping[Path, Mark]):
    """The marks of a tree's nodes, by their paths, in the order of the nodes.

    To find the few nodes that changed among very many, those of which nothing can be changed
    in place are compared in batches, by loops that run in C.
    """

    def __init__(self) -> None:
        self._marks: dict[Path, Mark] = {}
        # The children of nodes that have any, in their order.
        self._below: dict[Path, dict[str, weakref.ref[xr.DataTree]]] = {}
        self._alone: dict[Path, None] = {}  # those in no batch
        self._batches: dict[Path, _Batch] = {}

    def __getitem__(self, path: Path) -> Mark:
        return self._marks[path]

    def __iter__(self) -> Iterator[Path]:
        return iter(self._marks)

    def __len__(self) -> int:
        return len(self._marks)

    def __setitem__(self, path: Path, mark: Mark) -> None:
        self._break_batch(path)
        self._marks[path] = mark
        self._alone[path] = None
        if path:
            parent = path[:-1]
            if parent not in self._below:
                self._break_batch(parent)
                self._below[parent] = {}
            self._below[parent][path[-1]] = mark.node

    def __delitem__(self, path: Path) -> None:
        del self._marks[path]
        self._break_batch(path)
        del self._alone[path]
        if path:
            names = self._below[path[:-1]]
            del names[path[-1]]
            if not names:
                del self._below[path[:-1]]

    def _break_batch(self, path: Path) -> None:
        batch = self._batches.get(path)
        if batch is not None:
            for each in batch.paths:
                del self._batches[each]
                self._alone[each] = None

    def forget_variables(self, path: Path) -> None:
        """Keep no variables of a node that is replaced or deleted: they may be large."""
        mark = self._marks.get(path)
        if mark is not None:
            self[path] = Mark(mark.node, {}, 0, [], mark.attrs, {}, {})

    def below(self, place: Path) -> list[Path]:
        """Return the paths of all nodes below one."""
        return paths_below(self._below, place)

    def keep_order(self, path: Path, node: xr.DataTree) -> None:
        """Take over the order of a node's children, all of which are known."""
        known, children = self._below.get(path, {}), node.children
        if list(known) != list(children) and known.keys() == children.keys():
            self._below[path] = {name: known[name] for name in children}

    def suspects(self, root: xr.DataTree) -> Suspects:
        """Return where a tree may differ from what it was; reads no data."""
        found = Suspects([], [], [])
        mark = self._marks.get(())
        if mark is None or mark.node() is not root:
            return found._replace(places=[()])
        for path, known in self._below.items():
            mark = self._marks.get(path)
            node = None if mark is None else mark.node()
            if node is not None:  # or else it is a suspect itself
                (children,) = parts_of_nodes([node]).children
                self._compare_children(path, known, children, found)
        self._make_batches()
        paths = list(self._alone)
        for batch in dict.fromkeys(self._batches.values()):
            if not batch.is_certainly_same():
                paths += batch.paths
        for path in paths:
            mark = self._marks[path]
            node = mark.node()
            if node is None:
                continue
            if path not in self._below and node.children:
                found.places.append(path)
            elif not is_certainly_same(mark, node):
                found.single.append(path)
        return found

    def _compare_children(
        self,
        path: Path,
        known: dict[str, "weakref.ref[xr.DataTree]"],
        children: Mapping[str, xr.DataTree],
        found: Suspects,
    ) -> None:
        nodes = [ref() for ref in known.values()]
        if list(known) == list(children) and _are(children.values(), nodes):
            return
        before = dict(zip(known, nodes, strict=True))
        kept = {name for name, node in children.items() if before.get(name) is node}
        new = [name for name in children if name not in kept]
        gone = [name for name in known if name not in kept and name not in children]
        found.places.extend((*path, name) for name in (*new, *gone))
        if [n for n in known if n in kept] != [n for n in children if n in kept]:
            found.reordered.append(path)
            found.single.append(path)

    def _make_batches(self) -> None:
        """Put those that are alone into batches, if they are enough for one."""
        if len(self._alone) < _FEW:
            return
        marks = self._marks
        paths = [p for p in self._alone if marks[p].is_quick and p not in self._below]
        for start in range(0, len(paths) - _FEW + 1, _BATCH):
            part = paths[start : start + _BATCH]
            batch = _Batch(part, [marks[path] for path in part])
            for path in part:
                self._batches[path] = batch
                del self._alone[path]


class _Batch:
    """Nodes without children that are compared together with what they were.

    Objects are compared by identity, in their order: nothing else is quick and sure. There is
    one small loop for each thing to compare, because Python runs such loops fastest.
    """

    def __init__(self, paths: list[Path], marks: list[Mark]) -> None:
        self.paths = paths
        self._nodes = [mark.node for mark in marks]
        self._attrs = _Contents([mark.attrs for mark in marks])
        self._data = _Contents([_part(mark, slice(mark.n_data)) for mark in marks])
        self._coords = _Contents([_part(mark, slice(mark.n_data, None)) for mark in marks])
        self._variables = [v for mark in marks for v in mark.variables.values()]
        self._dims = [dims for mark in marks for dims in mark.dims]
        self._variable_attrs = _Contents(
            [mark.variable_attrs.get(name, {}) for mark in marks for name in mark.variables]
        )
        self._lazy_variables = [m.variables[name] for m in marks for name in m.lazy]
        self._lazy = [array for mark in marks for array in mark.lazy.values()]

    def is_certainly_same(self) -> bool:
        """Return whether all nodes are as they were; they may be so all the same."""
        nodes = [node for ref in self._nodes if (node := ref()) is not None]
        if len(nodes) < len(self._nodes):
            return False
        parts = parts_of_nodes(nodes)
        return (
            not any(parts.children)
            and self._attrs.are(parts.attrs)
            and self._data.are(parts.data)
            and self._coords.are(parts.coords)
            and _are(lazy_data_of(self._lazy_variables), self._lazy)
            and dims_of(self._variables) == self._dims
            and self._variable_attrs.are(attrs_of(self._variables))
        )


def _part(mark: Mark, part: slice) -> dict[Any, Any]:
    return dict([*mark.variables.items()][part])


class _Contents:
    """What dictionaries contain, all in one list."""

    def __init__(self, dictionaries: list[dict[Any, Any]]) -> None:
        self._sizes = [*map(len, dictionaries)]
        self._keys = [*chain.from_iterable(dictionaries)]
        self._values = [*chain.from_iterable(map(dict.values, dictionaries))]

    def are(self, dictionaries: list[dict[Any, Any]]) -> bool:
        """Return whether dictionaries contain these very objects, in this order."""
        if not self._keys:
            return not any(dictionaries)
        return (
            [*map(len, dictionaries)] == self._sizes
            and [*chain.from_iterable(dictionaries)] == self._keys
            and _are(chain.from_iterable(map(dict.values, dictionaries)), self._values)
        )


def _are(now: Iterable[Any], before: Iterable[Any]) -> bool:
    """Return whether objects, as many as there were, are those that were there."""
    return all(map(operator.is_, now, before))


def mark_nodes(root: xr.DataTree) -> Marks:
    """Return what tells later whether the nodes of a tree have changed since now."""
    marks = Marks()
    for path, node in iterate_nodes(root):
        marks[path] = mark_node(node)
    return marks


def iterate_nodes(root: xr.DataTree) -> Iterator[tuple[Path, xr.DataTree]]:
    """Yield the nodes of a tree with their paths, each before those below it."""
    stack: list[tuple[Path, xr.DataTree]] = [((), root)]
    while stack:
        path, node = stack.pop()
        yield path, node
        children = node.children
        if children:
            stack += [((*path, name), child) for name, child in reversed([*children.items()])]


def paths_below(names: Mapping[Path, Iterable[str]], place: Path) -> list[Path]:
    """Return the paths of all nodes below one, from the names of the nodes below each."""
    found: list[Path] = []
    for name in names.get(place, ()):
        found += [(*place, name), *paths_below(names, (*place, name))]
    return found


def node_at(root: xr.DataTree, path: Path) -> xr.DataTree | None:
    """Return the node at a path, or None."""
    node: xr.DataTree | None = root
    for name in path:
        node = None if node is None else node.children.get(name)
    return node


def mark_node(node: xr.DataTree) -> Mark:
    """Return what tells later whether a node has changed since now."""
    variables = own_variables(node)
    lazy = {
        name: data_of(variable).array
        for name, variable in variables.items()
        if stored_array(variable) is not None
    }
    attrs = variable_attrs(variables)
    is_quick = are_simple(node.attrs) and all(map(are_simple, attrs.values()))
    is_quick = is_quick and all(
        name in lazy or isinstance(variable, xr.IndexVariable)
        for name, variable in variables.items()
    )
    return Mark(
        weakref.ref(node),
        variables,
        len(variables) - len(parts_of_nodes([node]).coords[0]),
        dims_of(variables.values()),
        dict(node.attrs),
        attrs,
        lazy,
        is_quick,
    )


def is_certainly_same(mark: Mark, node: xr.DataTree) -> bool:
    """Return whether a node is seen at a glance to be as it was; it may be so all the same."""
    if not mark.is_quick or not _same_objects(mark.attrs, node.attrs):
        return False
    if not _has_known_variables(mark, node):
        return False
    for name, variable in mark.variables.items():
        if name in mark.lazy and not is_untouched(mark, name, variable):
            return False
        (attrs,) = attrs_of([variable])
        if not _same_objects(mark.variable_attrs.get(name, {}), attrs):
            return False
    return True


def _has_known_variables(mark: Mark, node: xr.DataTree) -> bool:
    """Return whether a node has the variables that it had, as coordinates or not, in order."""
    now = own_variables(node)
    return (
        list(now) == list(mark.variables)
        and _are(now.values(), mark.variables.values())
        and len(now) - len(parts_of_nodes([node]).coords[0]) == mark.n_data
        and dims_of(now.values()) == mark.dims
    )


def _same_objects(before: dict[Any, Any], now: dict[Any, Any]) -> bool:
    return len(before) == len(now) and all(
        name in now and now[name] is value for name, value in before.items()
    )


def is_same(mark: Mark, node: xr.DataTree) -> bool:
    """Return whether a node has the variables and attributes that it had.

    Values that were changed in place, inside an array, are not seen.
    """
    return has_same_variables(mark, node) and same_attributes(mark.attrs, node.attrs)


def has_same_variables(mark: Mark, node: xr.DataTree) -> bool:
    """Return whether a node has the variables, with the attributes, that it had."""
    if not _has_known_variables(mark, node):
        return False
    for name, variable in mark.variables.items():
        (attrs,) = attrs_of([variable])
        if not same_attributes(mark.variable_attrs.get(name, {}), attrs):
            return False
    return True


def is_untouched(mark: Mark, name: Any, variable: Any) -> bool:
    """Return whether the values of a variable still are those in the file, not in memory."""
    lazy = mark.lazy.get(name)
    return lazy is not None and getattr(data_of(variable), "array", None) is lazy


def same_attributes(before: Mapping[Any, Any], now: Mapping[Any, Any]) -> bool:
    """Return whether attributes are those of a copy that was made earlier."""
    if before.keys() != now.keys():
        return False
    return all(
        value is before[name] or _equal(before[name], value) for name, value in now.items()
    )


def are_simple(attrs: Mapping[Any, Any]) -> bool:
    """Return whether no value of some attributes can be changed in place."""
    return all(type(value) in _SIMPLE for value in attrs.values())


def _equal(before: Any, now: Any) -> bool:
    try:
        is_equal = type(before) is type(now) and bool(before == now)
        return is_equal and (now != 0 or repr(before) == repr(now))  # -0.0 is not 0.0
    except Exception:  # whatever an attribute's own comparison raises: not known to be equal
        return False
