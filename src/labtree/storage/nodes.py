"""Many nodes below one: xarray's own ways cost more for each node that is there already.

``tree["a/b"] = node`` and ``node.children = {...}`` compare every new child with all
names that are there, so that 10,000 children cost 50 million comparisons.
"""

from collections.abc import Mapping

import xarray as xr

__all__ = ["attach_children", "detach_child", "rename_child"]


def attach_children(parent: xr.DataTree, children: Mapping[str, xr.DataTree]) -> None:
    """Put new nodes below `parent`, beside those that are there, at a constant cost each.

    Parameters
    ----------
    parent
        The node that gets children. Where it or a node above it has variables, xarray's
        own setter checks that they and the children's agree.
    children
        Nodes without a parent; a child of the same name is replaced.
    """
    direct = _quick(parent)
    if direct is None:
        parent.children = {**parent.children, **children}
        return
    for name, child in children.items():
        if child.parent is not None or child is parent.root or "/" in name or not name:
            parent.children = {**parent.children, name: child}
            continue
        if name in direct:
            direct[name]._parent = None
        child.name = name
        direct[name] = child
        child._parent = parent


def detach_child(parent: xr.DataTree, name: str) -> xr.DataTree:
    """Take a child away from `parent`, at a constant cost, and return it."""
    child: xr.DataTree = parent.children[name]
    direct = _quick(parent)
    if direct is None:
        child.orphan()
    else:
        del direct[name]
        child._parent = None
    return child


def rename_child(parent: xr.DataTree, name: str, new: str) -> None:
    """Give a child another name, the last one, in the place of a child that has it."""
    if _quick(parent) is not None:
        attach_children(parent, {new: detach_child(parent, name)})
        return
    others = {n: child for n, child in parent.children.items() if n not in (name, new)}
    # xarray's setter puts everything back where the new name cannot be.
    parent.children = {**others, new: parent.children[name]}


def _quick(parent: xr.DataTree) -> dict[str, xr.DataTree] | None:
    """Return the dict that holds a node's children, if nothing in it needs to be checked."""
    bare = not any(node.variables for node in (parent, *parent.parents))
    children = getattr(parent, "_children", None)
    usable = bare and isinstance(children, dict) and hasattr(parent, "_parent")
    return children if usable else None
