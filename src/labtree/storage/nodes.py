"""Many nodes below one: xarray's own ways cost more for each node that is there already.

``tree["a/b"] = node`` and ``node.children = {...}`` compare every new child with all
names that are there, so that 10,000 children cost 50 million comparisons. They also
empty the node first: Ctrl-C in between loses the children. Here a change is seen whole or
not at all, wherever it is interrupted.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import xarray as xr

from labtree.errors import InvalidNameError

__all__ = ["attach_children", "detach_child", "plan_children", "rename_child", "set_together"]

Change = tuple[object, str, Any]


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
    ValueError, KeyError
        If xarray does not let the children stand below `parent`.
    """
    for name, child in children.items():
        _check_new(parent, name, child)
    if _has_variables_above(parent):
        probe = parent.copy(deep=False)  # xarray checks, on a copy
        probe.children = {**probe.children, **children}
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
    if name != new and new in _variables_of(parent):
        raise InvalidNameError(f"parent {parent.name} already contains a variable named {new}")
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
    if child.parent is not None or child is parent or not name or "/" in name:
        raise ValueError(f"{name!r} is no name of a new node below {parent.path!r}")


def _orphan(child: xr.DataTree | None) -> None:
    if child is not None:
        child._parent = None


def _variables_of(node: xr.DataTree) -> dict[Any, Any]:
    return {**node._data_variables, **node._node_coord_variables}


def _has_variables_above(node: xr.DataTree | None) -> bool:
    """Say whether a node or one above it has variables, which children must agree with."""
    while node is not None:
        if node._data_variables or node._node_coord_variables:
            return True
        node = node._parent
    return False
