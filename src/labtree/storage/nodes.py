"""Many nodes below one: xarray's own ways cost more for each node that is there already.

``tree["a/b"] = node`` and ``node.children = {...}`` compare every new child with all
names that are there, so that 10,000 children cost 50 million comparisons. They also
empty the node first: Ctrl-C in between loses the children. Here a change is seen whole or
not at all, wherever it is interrupted.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import xarray as xr

from labtree.errors import DataError, InvalidNameError

Change = tuple[object, str, Any]


class Parts(NamedTuple):
    """What nodes consist of, each a list over the nodes; without inherited coordinates."""

    children: list[dict[str, xr.DataTree]]
    attrs: list[dict[Any, Any]]
    data: list[dict[Any, xr.Variable]]
    coords: list[dict[Any, xr.Variable]]


def attach_children(parent: xr.DataTree, children: Mapping[str, xr.DataTree]) -> None:
    """Put new nodes below `parent`, beside those that are there, at a constant cost each.

    Parameters
    ----------
    parent
        The node that gets children. Where it or a node above it has variables, xarray
        checks that they and the children's agree.
    children
        Nodes without a parent; a child of the same name is replaced.
    """
    if not children:
        return
    if len(children) == 1 and not _has_variables_above(parent):
        ((name, child),) = children.items()
        _check_new(parent, name, child)
        replaced = parent._children.get(name)
        child._name, child._parent = name, parent
        parent._children[name] = child
        _orphan(replaced)
        return
    set_together(plan_children(parent, children))


def plan_children(parent: xr.DataTree, children: Mapping[str, xr.DataTree]) -> list[Change]:
    """Return the changes for :func:`set_together` that put new nodes below `parent`.

    Raises
    ------
    InvalidNameError
        If `parent` has a variable of that name.
    DataError
        If xarray does not let the children stand below `parent`, as of their coordinates.
    """
    for name, child in children.items():
        _check_new(parent, name, child)
    if _has_variables_above(parent):
        probe = parent.copy(deep=False)  # xarray checks, on a copy
        try:
            probe.children = {**probe.children, **children}
        except (ValueError, KeyError) as error:
            raise DataError(str(error)) from error
        children = {name: probe.children[name] for name in children}
    for name, child in children.items():
        child._name, child._parent = name, parent
    replaced = [parent.children[name] for name in children if name in parent.children]
    return [
        (parent, "_children", {**parent.children, **children}),
        *((child, "_parent", None) for child in replaced),
    ]


def set_together(changes: Iterable[Change]) -> None:
    """Set attributes of nodes (object, name, value), with no moment between the first and last.

    The loop runs in C, where Python does not look for signals: Ctrl-C comes before or
    after all of it.
    """
    objects, names, values = zip(*changes, strict=True)
    deque(map(object.__setattr__, objects, names, values), maxlen=0)


def plan_undo(nodes: Iterable[xr.DataTree]) -> list[Change]:
    """Return the changes for :func:`set_together` that make nodes again what they are now.

    Their names, parents, children and attributes; not their variables.
    """
    return [
        change
        for node in nodes
        for change in (
            (node, "_children", dict(node._children)),
            (node, "_attrs", None if node._attrs is None else dict(node._attrs)),
            (node, "_name", node._name),
            (node, "_parent", node._parent),
        )
    ]


def detach_child(parent: xr.DataTree, name: str) -> xr.DataTree:
    """Take a child away from `parent`, at a constant cost, and return it."""
    child: xr.DataTree = parent.children[name]
    del parent._children[name]
    _orphan(child)
    return child


def rename_child(
    parent: xr.DataTree, name: str, new: str, attrs: dict[Any, Any] | None = None
) -> None:
    """Give a child another name, the last one, in the place of a child that has it.

    Parameters
    ----------
    parent, name, new
        Where the child is, its name, and the new one.
    attrs
        The child's attributes from now on.
    """
    child: xr.DataTree = parent.children[name]
    _check_name(parent, new)
    others = {each: node for each, node in parent.children.items() if each not in (name, new)}
    changes: list[Change] = [
        (parent, "_children", {**others, new: child}),
        (child, "_name", new),
    ]
    if attrs is not None:
        changes.append((child, "_attrs", attrs))
    replaced = parent.children.get(new)
    if replaced is not None and replaced is not child:
        changes.append((replaced, "_parent", None))
    set_together(changes)


def _check_new(parent: xr.DataTree, name: str, child: xr.DataTree) -> None:
    _check_name(parent, name)
    if child.parent is not None or child is parent or not name or "/" in name:
        raise InvalidNameError(f"{name!r} is no name of a new node below {parent.path!r}")


def _check_name(parent: xr.DataTree, name: str) -> None:
    if name in parent._data_variables or name in parent._node_coord_variables:
        raise InvalidNameError(
            f"{parent.path!r} has a variable {name!r}, so that no node below it can be called "
            "so too; choose another name, or rename the variable"
        )


def _orphan(child: xr.DataTree | None) -> None:
    if child is not None:
        child._parent = None


def own_variables(node: xr.DataTree) -> dict[Any, xr.Variable]:
    """Return a node's variables, without those of the nodes above it."""
    return {**node._data_variables, **node._node_coord_variables}


def parts_of_nodes(nodes: list[xr.DataTree]) -> Parts:
    """Return what nodes consist of, many times faster than their properties tell it."""
    return Parts(
        [node._children for node in nodes],
        [node._attrs or _NOTHING for node in nodes],
        [node._data_variables for node in nodes],
        [node._node_coord_variables for node in nodes],
    )


_NOTHING: dict[Any, Any] = {}


def variable_attrs(variables: Mapping[Any, xr.Variable]) -> dict[Any, dict[Any, Any]]:
    """Return the attributes of those variables that have any, copied."""
    return {name: dict(each._attrs) for name, each in variables.items() if each._attrs}


def _has_variables_above(node: xr.DataTree | None) -> bool:
    """Return whether a node or one above it has variables, which children must agree with."""
    while node is not None:
        if node._data_variables or node._node_coord_variables:
            return True
        node = node._parent
    return False
