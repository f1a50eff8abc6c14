"""What of a tree has changed since it was last on the disk."""

import weakref
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import xarray as xr

from labtree.storage._xarray import data_of
from labtree.storage.arrays import stored_array
from labtree.storage.nodes import own_variables, variable_attrs

__all__ = [
    "Mark",
    "has_same_variables",
    "is_same",
    "is_surely_same",
    "is_untouched",
    "iterate_nodes",
    "mark_node",
    "mark_nodes",
    "same_attributes",
]

Path = tuple[str, ...]
_SIMPLE = frozenset({str, int, float, bool, type(None)})


class Mark(NamedTuple):
    """A node as it is on the disk: the node, its variables, and copies of attributes.

    `lazy` has, for each variable whose values are not in memory, what xarray replaces when
    it is written to. `is_quick` says whether nothing of the node can be changed in place.
    """

    node: "weakref.ref[xr.DataTree]"
    variables: dict[Any, Any]
    attrs: dict[Any, Any]
    variable_attrs: dict[Any, dict[Any, Any]]
    lazy: dict[Any, Any]
    is_quick: bool = False


def mark_nodes(root: xr.DataTree) -> dict[Path, Mark]:
    """Return what tells later whether the nodes of a tree have changed since now."""
    return {path: mark_node(node) for path, node in iterate_nodes(root)}


def iterate_nodes(root: xr.DataTree) -> Iterator[tuple[Path, xr.DataTree]]:
    """Yield the nodes of a tree with their paths, each before those below it."""
    stack: list[tuple[Path, xr.DataTree]] = [((), root)]
    while stack:
        path, node = stack.pop()
        yield path, node
        children = node.children
        if children:
            stack += [((*path, name), child) for name, child in reversed([*children.items()])]


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
    return Mark(weakref.ref(node), variables, dict(node.attrs), attrs, lazy, is_quick)


def is_surely_same(mark: Mark, node: xr.DataTree) -> bool:
    """Return whether a node is seen at a glance to be as it was; it may be so all the same."""
    if not mark.is_quick or not _same_objects(mark.attrs, node.attrs):
        return False
    variables = own_variables(node)
    if len(variables) != len(mark.variables):
        return False
    for name, variable in variables.items():
        if mark.variables.get(name) is not variable:
            return False
        if name in mark.lazy and not is_untouched(mark, name, variable):
            return False
        attrs = variable._attrs  # the property makes a dictionary where there is none
        if (attrs or name in mark.variable_attrs) and not _same_objects(
            mark.variable_attrs.get(name, {}), attrs or {}
        ):
            return False
    return True


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
    known, now = mark.variables, own_variables(node)
    if len(now) != len(known):
        return False
    for name, variable in now.items():
        if known.get(name) is not variable:
            return False
        attrs = variable._attrs  # the property makes a dictionary where there is none
        if (attrs or name in mark.variable_attrs) and not same_attributes(
            mark.variable_attrs.get(name, {}), attrs or {}
        ):
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
        return type(before) is type(now) and bool(before == now)
    except Exception:  # whatever an attribute's own comparison raises: not known to be equal
        return False
