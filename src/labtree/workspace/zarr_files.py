"""Workspaces in zarr stores, in a folder or at a URL: save, open, load, one item."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import xarray as xr

from labtree.errors import FormatError
from labtree.storage.arrays import load_variables
from labtree.storage.zarr_places import FolderPlace, Place, place_of
from labtree.storage.zarr_trees import open_place, read_node, read_nodes, save_place
from labtree.workspace import items
from labtree.workspace.items import node_name
from labtree.workspace.state import state_of
from labtree.workspace.verbs import complete

__all__ = ["load_item", "load_workspace", "open_workspace", "save_workspace"]


def save_workspace(tree: xr.DataTree, where: Any) -> Any:
    """Write a workspace to a zarr store; all or nothing.

    Parameters
    ----------
    tree
        Any node of the workspace.
    where
        A folder ``name.zarr``, a URL, or an obstore store.

    Returns
    -------
    pathlib.Path, or what `where` is
        Where it is now.

    Raises
    ------
    WorkspaceError
        If the store was saved by somebody else after this workspace was opened or saved;
        if it is a zarr store, but no workspace.
    """
    root = tree.root
    state = state_of(root)
    place = place_of(where)
    with state.lock:
        complete(root)
        expected = state.generations.get(place.name)
        state.generations[place.name] = save_place(root, place, expected)
        state.place = _shown(place, where)
    return state.place


def _shown(place: Place, where: Any) -> Any:
    return place.path if isinstance(place, FolderPlace) else where


def open_workspace(where: Any) -> xr.DataTree:
    """Open a workspace in a zarr store to browse it; see :func:`labtree.open_workspace`."""
    place = place_of(where)
    opened = open_place(place)
    tree = read_nodes(opened)
    if "labtree_workspace_id" not in tree.attrs:
        raise FormatError(
            f"{place.name} holds a tree but no workspace: its root has no "
            "labtree_workspace_id; open it with labtree.storage.zarr_trees.open_zarr_tree"
        )
    state = state_of(tree)
    state.is_lazy, state.place = True, _shown(place, where)
    state.generations[place.name] = opened.header["generation"]
    return tree


def load_workspace(where: Any) -> xr.DataTree:
    """Read a workspace in a zarr store into memory, whole."""
    tree = open_workspace(where)
    with ThreadPoolExecutor(place_of(where).workers) as pool:
        # The tree's own variables, not a copy of them.
        list(pool.map(lambda node: load_variables(node.variables.values()), tree.subtree))
    state_of(tree).is_lazy = False
    return tree


def load_item(where: Any, namespace: str, key: str) -> Any:
    """Read one object out of a workspace in a zarr store; nothing else is touched."""
    nodes = [node_name(None, namespace, "namespace"), node_name(None, key, "key")]
    path = f"{namespace}/{key}"
    dataset = read_node(open_place(place_of(where), values=False), nodes)
    if dataset is not None:
        return items.read_node(xr.DataTree(dataset=dataset), path)
    tree = open_workspace(where)
    node = items.find_item(tree, namespace, key)
    if node is None:
        raise items.missing_item(tree, namespace, key)
    return items.read_node(node, path)
