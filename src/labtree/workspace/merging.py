"""Taking the items of one workspace into another."""

import copy
from collections.abc import Iterable
from typing import Any

import xarray as xr

from labtree.errors import UnsupportedTypeError, WorkspaceError
from labtree.storage.arrays import load_variables
from labtree.storage.marks import Path
from labtree.storage.nodes import attach_children, plan_children, set_together
from labtree.storage.scratch import put_dataset
from labtree.workspace.durable import durable
from labtree.workspace.items import (
    find_item,
    iterate_items,
    node_name,
    own_dataset,
    real_name,
    set_name,
)
from labtree.workspace.operations import add_identity
from labtree.workspace.state import check_open, state_of


def merge_workspace(
    tree: xr.DataTree, other: xr.DataTree, overwrite: bool = False
) -> dict[str, Any]:
    """Take all items of another workspace, with their times and notes; all or nothing.

    Parameters
    ----------
    tree
        Any node of the workspace that takes.
    other
        Any node of the one that gives: in memory, lazy or opened. It does not change,
        and may be closed afterwards.
    overwrite
        Whether an item of `other` replaces one that is there.

    Returns
    -------
    dict
        ``merged`` and ``skipped``, how many items; ``skipped_keys``, the (namespace,
        key) pairs that were there already.

    Raises
    ------
    WorkspaceError
        If the other tree has variables that are no items and have no place here.
    """
    if not isinstance(other, xr.DataTree):
        raise UnsupportedTypeError(
            f"merge_from takes a workspace tree, not {type(other).__name__}; open a file "
            "first: tree.ws.merge_from(labtree.open_workspace(path))"
        )
    root, source = tree.root, other.root
    with state_of(source).lock:
        items, groups = list(iterate_items(source)), list(source.children.values())
    if source.variables:
        raise WorkspaceError(
            f"the root of the other tree has variables of its own ({_some(source.variables)}), "
            "which are no items of a workspace; store them first: "
            "tree.ws.store(namespace, key, other.to_dataset())"
        )
    for group in groups:
        _check_space(root, group)
    state = state_of(root)
    with state.lock:
        check_open(state)
        skipped = [
            (namespace, key)
            for namespace, key, _ in items
            if not overwrite and find_item(root, namespace, key) is not None
        ]
        left = set(skipped)
        nodes = {
            _place(root, namespace, key): _copy(root, node, f"{namespace}/{key}")
            for namespace, key, node in items
            if (namespace, key) not in left
        }
        spaces = {
            name: _copy_space(root, group)
            for group in groups
            if (name := node_name(root, real_name(group), "namespace")) not in root.children
        }
        places: list[Path] = [*((name,) for name in spaces), *nodes]
        with durable(root, places, is_new=True):
            for place in places:
                state.saved.forget_variables(place)
            _attach(root, spaces, nodes)
            add_identity(root)
    return {"merged": len(nodes), "skipped": len(skipped), "skipped_keys": skipped}


def _place(root: xr.DataTree, namespace: str, key: str) -> tuple[str, str]:
    name = node_name(root, namespace, "namespace")
    return name, node_name(root.children.get(name), key, "key")


def _some(names: Iterable[Any]) -> str:
    return ", ".join(sorted(map(repr, names))[:5])


def _check_space(root: xr.DataTree, group: xr.DataTree) -> None:
    """Refuse variables of a namespace itself where this workspace has other ones."""
    mine = root.children.get(node_name(root, real_name(group), "namespace"))
    if mine is None or not group.variables or mine is group:
        return
    if not own_dataset(mine).equals(own_dataset(group)):
        raise WorkspaceError(
            f"namespace {real_name(group)!r} of the other tree has variables of its own "
            f"({_some(group.variables)}), and this workspace has that namespace without "
            "them; nothing was merged. Store them as an item first"
        )


def _attach(
    root: xr.DataTree,
    spaces: dict[str, xr.DataTree],
    nodes: dict[tuple[str, str], xr.DataTree],
) -> None:
    """Put everything into the tree in one step, after all that could fail."""
    below: dict[str, dict[str, xr.DataTree]] = {}
    for (name, key), node in nodes.items():
        below.setdefault(name, {})[key] = node
    for name, group in spaces.items():
        attach_children(group, below.pop(name, {}))
    changes = [
        change
        for name, children in below.items()
        for change in plan_children(root.children[name], children)
    ]
    changes += plan_children(root, spaces) if spaces else []
    if changes:
        set_together(changes)


def _copy_space(root: xr.DataTree, group: xr.DataTree) -> xr.DataTree:
    """Return a copy of a namespace without its items."""
    dataset = _copy_dataset(root, group, real_name(group))
    set_name(dataset.attrs, real_name(group))
    return xr.DataTree(dataset=dataset)


def _copy(root: xr.DataTree, node: xr.DataTree, path: str) -> xr.DataTree:
    """Return a copy of a node and all below it that does not need the source any more."""
    made = xr.DataTree(dataset=_copy_dataset(root, node, path))
    for name, child in node.children.items():
        attach_children(made, {name: _copy(root, child, f"{path}/{real_name(child)}")})
    return made


def _copy_dataset(root: xr.DataTree, node: xr.DataTree, path: str) -> xr.Dataset:
    state = state_of(root)
    dataset = own_dataset(node)
    if state.is_durable:  # it goes to the file at once
        shallow = dataset.copy()
        shallow.attrs = copy.deepcopy(shallow.attrs)
        for variable in shallow.variables.values():
            variable.attrs = copy.deepcopy(variable.attrs)
        return shallow
    if state.is_lazy:
        return put_dataset(dataset, state.scratch(root), path)
    deep = dataset.copy(deep=True)
    load_variables(deep.variables.values())
    return deep
