"""What can be done with the items of a workspace tree."""

import time
import uuid
import warnings
from typing import Any

import xarray as xr

from labtree.errors import UnsupportedTypeError
from labtree.objects import registry
from labtree.storage.nodes import attach_children, detach_child, rename_child
from labtree.storage.scratch import put_dataset
from labtree.workspace.items import (
    CREATED,
    NOTE,
    describe_item,
    find_item,
    iterate_items,
    missing_item,
    node_name,
    read_node,
    real_name,
    set_name,
)
from labtree.workspace.state import state_of

__all__ = [
    "add_note",
    "comparison_namespace",
    "complete",
    "create_workspace",
    "delete",
    "describe",
    "get",
    "get_info",
    "identify",
    "list_keys",
    "list_namespaces",
    "rename",
    "require",
    "store_item",
]


def create_workspace(name: str | None = None, *, lazy: bool = False) -> xr.DataTree:
    """Make an empty workspace.

    Parameters
    ----------
    name
        For people; the workspace's id is a UUID of its own.
    lazy
        True: what is stored goes to a temporary file at once and leaves memory; only
        the index stays. The file is gone when the tree is closed, collected, or the
        process ends; ``tree.ws.save(path)`` keeps the workspace.

    Returns
    -------
    xarray.DataTree
        Namespaces are its children, keys theirs; see ``tree.ws``.

    Examples
    --------
    >>> import labtree, numpy as np
    >>> tree = labtree.create_workspace("pilot")
    >>> tree.ws.store("rec1", "rates", np.arange(6.0).reshape(2, 3), note="per unit")
    >>> tree.ws.get_info("rec1", "rates")["shape"]
    [2, 3]
    """
    if name is not None and not isinstance(name, str):
        raise UnsupportedTypeError(
            f"the name of a workspace is a str, not {type(name).__name__}"
        )
    tree = xr.DataTree()
    tree.attrs = identify(name=name)
    state_of(tree).is_lazy = bool(lazy)
    return tree


def identify(
    workspace_id: str | None = None, name: str | None = None, created_at: float | None = None
) -> dict[str, Any]:
    """Return the attributes of a workspace's root; what is not given is made new."""
    attrs: dict[str, Any] = {"labtree_workspace_id": workspace_id or str(uuid.uuid4())}
    if name is not None:
        attrs["labtree_name"] = name
    attrs["labtree_created_at"] = time.time() if created_at is None else created_at
    return attrs


def complete(root: xr.DataTree) -> None:
    """Give an identity to a tree, and a time to items, that xarray's own verbs made."""
    if "labtree_workspace_id" not in root.attrs:
        root.attrs.update(identify())
    for _, _, node in iterate_items(root):
        if CREATED not in node.attrs:
            node.attrs[CREATED] = time.time()


def store_item(
    tree: xr.DataTree,
    namespace: str,
    key: str,
    obj: Any,
    *,
    note: str | None = None,
    created_at: float | None = None,
) -> None:
    """Store a copy of an object under a namespace and key.

    Parameters
    ----------
    tree
        Any node of the workspace.
    namespace, key
        Any text but the empty one; made where they are not there. An item that is there
        is replaced, with its note and time.
    obj
        What :mod:`labtree.objects.registry` knows.
    note
        For people.
    created_at
        POSIX seconds; now if not given.

    Raises
    ------
    TypeError
        If a part of the object cannot be kept exactly; the message has its path. The
        workspace is as it was then.
    ValueError
        If a name is empty or holds NUL or a lone surrogate.
    """
    root = tree.root
    path = f"{namespace}/{key}"
    _check_note(note)
    node_name(None, namespace, "namespace"), node_name(None, key, "key")
    _, dataset = registry.encode(obj, path)
    attrs = dict(dataset.attrs)
    for name in (CREATED, NOTE):
        attrs.pop(name, None)
    set_name(attrs, key)
    attrs[CREATED] = time.time() if created_at is None else float(created_at)
    if note is not None:
        attrs[NOTE] = note
    dataset.attrs = attrs
    state = state_of(root)
    if state.is_lazy:
        dataset = put_dataset(dataset, state.scratch(root), path)
    node = xr.DataTree(dataset=dataset)
    with state.lock:
        if "labtree_workspace_id" not in root.attrs:
            root.attrs.update(identify())
        name = node_name(root, namespace, "namespace")
        group = root.children.get(name)
        if group is not None:
            attach_children(group, {node_name(group, key, "key"): node})
            return
        group = xr.DataTree()
        set_name(group.attrs, namespace)
        attach_children(group, {node_name(group, key, "key"): node})
        attach_children(root, {name: group})


def _check_note(note: object) -> None:
    if note is not None and type(note) is not str:
        raise UnsupportedTypeError(f"a note is a str, not {type(note).__name__} ({note!r})")


def get(tree: xr.DataTree, namespace: str, key: str) -> Any:
    """Return a copy of the object that was stored, or None where there is none."""
    with state_of(tree.root).lock:
        node = find_item(tree.root, namespace, key)
    return None if node is None else read_node(node, f"{namespace}/{key}")


def require(tree: xr.DataTree, namespace: str, key: str) -> Any:
    """Return a copy of the object that was stored.

    Raises
    ------
    KeyError
        If there is none; the message lists what there is.
    """
    with state_of(tree.root).lock:
        node = find_item(tree.root, namespace, key)
        if node is None:
            raise missing_item(tree.root, namespace, key)
    return read_node(node, f"{namespace}/{key}")


def get_info(tree: xr.DataTree, namespace: str, key: str) -> dict[str, Any] | None:
    """Return type, shape, time and note of an item as JSON values, or None."""
    with state_of(tree.root).lock:
        node = find_item(tree.root, namespace, key)
        return None if node is None else describe_item(node)


def describe(tree: xr.DataTree) -> dict[str, dict[str, dict[str, Any]]]:
    """Return what :func:`get_info` says of every item, by namespace and key."""
    index: dict[str, dict[str, dict[str, Any]]] = {}
    with state_of(tree.root).lock:
        for group in tree.root.children.values():
            index[real_name(group)] = {}
        for namespace, key, node in iterate_items(tree.root):
            index[namespace][key] = describe_item(node)
    return index


def list_namespaces(tree: xr.DataTree) -> list[str]:
    """Return the namespaces in the order in which they came."""
    with state_of(tree.root).lock:
        return [real_name(group) for group in tree.root.children.values()]


def list_keys(tree: xr.DataTree, namespace: str | None = None) -> Any:
    """Return the keys of a namespace, or of all namespaces as a dict of lists."""
    root = tree.root
    with state_of(root).lock:
        if namespace is None:
            return {
                real_name(group): [real_name(node) for node in group.children.values()]
                for group in root.children.values()
            }
        group = root.children.get(node_name(root, namespace, "namespace"))
        return [] if group is None else [real_name(node) for node in group.children.values()]


def rename(
    tree: xr.DataTree, namespace: str, old_key: str, new_key: str, overwrite: bool = False
) -> bool:
    """Give an item another key in its namespace; its data are not touched.

    Returns
    -------
    bool
        False where there is no such item, or where the new key is taken and `overwrite`
        is False (with a UserWarning).
    """
    root = tree.root
    node_name(None, new_key, "key")
    with state_of(root).lock:
        node = find_item(root, namespace, old_key)
        if node is None:
            return False
        if new_key == old_key:
            return True
        if find_item(root, namespace, new_key) is not None and not overwrite:
            warnings.warn(
                f"key {new_key!r} is taken in namespace {namespace!r}: {old_key!r} keeps its "
                "name; pass overwrite=True to replace what is there",
                UserWarning,
                stacklevel=3,
            )
            return False
        group = root.children[node_name(root, namespace, "namespace")]
        target = node_name(group, new_key, "key")
        attrs = dict(node.attrs)
        set_name(attrs, new_key)
        rename_child(group, node_name(group, old_key, "key"), target, attrs)
        return True


def add_note(tree: xr.DataTree, namespace: str, key: str, note: str) -> bool:
    """Put a note to an item in the place of the one that is there; False without an item."""
    if note is None:
        raise UnsupportedTypeError("a note is a str, not None")
    _check_note(note)
    with state_of(tree.root).lock:
        node = find_item(tree.root, namespace, key)
        if node is None:
            return False
        node.attrs[NOTE] = note
        return True


def delete(tree: xr.DataTree, namespace: str, key: str | None = None) -> bool:
    """Delete an item, or a namespace with all its items; False where there is none.

    A namespace goes with its last key.
    """
    root = tree.root
    with state_of(root).lock:
        name = node_name(root, namespace, "namespace")
        group = root.children.get(name)
        if group is None:
            return False
        if key is not None:
            below = node_name(group, key, "key")
            if below not in group.children:
                return False
            if len(group.children) > 1:
                detach_child(group, below)
                return True
        detach_child(root, name)
        return True


def comparison_namespace(*namespaces: str) -> str:
    """Return the conventional namespace of results that compare recordings.

    Examples
    --------
    >>> comparison_namespace("rec1", "rec2")
    'C_rec1_rec2'
    """
    if not namespaces:
        raise ValueError(
            "name the namespaces that are compared: comparison_namespace('a', 'b')"
        )
    return "_".join(["C", *namespaces])


def check_place(place: object) -> tuple[str, str]:
    """Return namespace and key of ``tree.ws[namespace, key]``."""
    if not isinstance(place, tuple) or len(place) != 2:
        raise UnsupportedTypeError(
            f"write tree.ws[namespace, key], with two names, not {place!r}"
        )
    return place
