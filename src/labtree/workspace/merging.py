"""Taking the items of one workspace into another."""

from typing import Any

import xarray as xr

from labtree.storage.arrays import load_variables
from labtree.storage.nodes import attach_children
from labtree.storage.scratch import put_dataset
from labtree.workspace.items import find_item, iterate_items, node_name, real_name, set_name
from labtree.workspace.state import state_of
from labtree.workspace.verbs import identify

__all__ = ["merge_workspace"]


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
    """
    if not isinstance(other, xr.DataTree):
        raise TypeError(
            f"merge_from takes a workspace tree, not {type(other).__name__}; open a file "
            "first: tree.ws.merge_from(labtree.open_workspace(path))"
        )
    root, source = tree.root, other.root
    with state_of(source).lock:
        items = list(iterate_items(source))
    state = state_of(root)
    with state.lock:
        skipped = [
            (namespace, key)
            for namespace, key, _ in items
            if not overwrite and find_item(root, namespace, key) is not None
        ]
        left = set(skipped)
        nodes = [
            (namespace, key, _copy(root, node, f"{namespace}/{key}"))
            for namespace, key, node in items
            if (namespace, key) not in left
        ]
        # Everything is read and copied: from here on nothing can fail.
        groups: dict[str, dict[str, xr.DataTree]] = {}
        for namespace, key, node in nodes:
            name = node_name(root, namespace, "namespace")
            below = groups.setdefault(name, {})
            below[node_name(root.children.get(name), key, "key")] = node
            if name not in root.children:
                group = xr.DataTree()
                set_name(group.attrs, namespace)
                attach_children(root, {name: group})
        for name, below in groups.items():
            attach_children(root.children[name], below)
        if "labtree_workspace_id" not in root.attrs:
            root.attrs.update(identify())
    return {"merged": len(nodes), "skipped": len(skipped), "skipped_keys": skipped}


def _copy(root: xr.DataTree, node: xr.DataTree, path: str) -> xr.DataTree:
    """Return a copy of a node and all below it that does not need the source any more."""
    state = state_of(root)
    dataset = node.to_dataset(inherit=False)
    if state.is_lazy:
        dataset = put_dataset(dataset, state.scratch(root), path)
    else:
        dataset = dataset.copy(deep=True)
        load_variables(dataset.variables.values())
    copy = xr.DataTree(dataset=dataset)
    for name, child in node.children.items():
        attach_children(copy, {name: _copy(root, child, f"{path}/{real_name(child)}")})
    return copy
