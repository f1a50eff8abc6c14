"""What can be done with the items of a workspace tree."""

import fnmatch
import re
import time
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from labtree.errors import (
    DataError,
    LabtreeWarning,
    UnsupportedTypeError,
    WorkspaceError,
    unknown_name,
    warn,
)
from labtree.objects import registry
from labtree.objects.registry import KIND_ATTRIBUTE, is_known, kind_named, kind_names
from labtree.storage.nodes import attach_children, detach_child, rename_child
from labtree.storage.scratch import put_dataset
from labtree.workspace.durable import durable
from labtree.workspace.items import (
    CREATED,
    NOTE,
    describe_item,
    file_named,
    find_item,
    find_whole_item,
    item_dataset,
    item_path,
    iterate_items,
    missing_item,
    node_name,
    read_node,
    real_name,
    set_name,
)
from labtree.workspace.state import check_open, mark_saved, state_of, watch


def create_workspace(name: str | None = None, *, lazy: bool = False) -> xr.DataTree:
    """Make an empty workspace.

    Parameters
    ----------
    name
        A name for people; the workspace also gets a UUID as its id.
    lazy
        If True, stored objects go to a temporary file at once, and only the list of items
        stays in memory. The file is removed when the tree is closed or collected, or the
        process ends; ``tree.ws.save(path)`` keeps the workspace.

    Returns
    -------
    xarray.DataTree
        Its children are namespaces, and their children are keys; see ``tree.ws``.

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
    tree.attrs = identity_attributes(name=name)
    state_of(tree).is_lazy = bool(lazy)
    mark_saved(tree)  # it is empty: nothing can be lost yet
    watch(tree)
    return tree


def identity_attributes(
    workspace_id: str | None = None, name: str | None = None, created_at: float | None = None
) -> dict[str, Any]:
    """Return the attributes of a workspace's root; what is not given is made new."""
    # xarray's own page of a tree shows its attributes: this one says where to look.
    attrs: dict[str, Any] = {"labtree_help": "tree.ws lists the items, their kinds and notes"}
    attrs["labtree_workspace_id"] = workspace_id or str(uuid.uuid4())
    if name is not None:
        attrs["labtree_name"] = name
    attrs["labtree_created_at"] = time.time() if created_at is None else created_at
    return attrs


def add_identity(root: xr.DataTree) -> None:
    """Give a workspace's id and time to a tree that plain xarray made."""
    if "labtree_workspace_id" not in root.attrs:
        root.attrs.update(identity_attributes())


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
    check_open(state)
    if state.is_lazy and not state.is_durable:
        dataset = put_dataset(dataset, state.scratch(root), path)
    node = xr.DataTree(dataset=dataset)
    with state.lock:
        name = node_name(root, namespace, "namespace")
        group = root.children.get(name)
        below = node_name(group, key, "key")
        with durable(root, [(name, below)], is_new=True):
            add_identity(root)
            if group is not None:
                state.saved.forget_variables((name, below))
                attach_children(group, {below: node})
                return
            group = xr.DataTree()
            set_name(group.attrs, namespace)
            attach_children(group, {below: node})
            attach_children(root, {name: group})


def _check_note(note: object) -> None:
    if note is not None and type(note) is not str:
        raise UnsupportedTypeError(f"a note is a str, not {type(note).__name__} ({note!r})")


def get(tree: xr.DataTree, namespace: str, key: str) -> Any:
    """Return a copy of the object that was stored, or None where there is none."""
    with state_of(tree.root).lock:
        node = find_whole_item(tree.root, namespace, key)
    with file_named(state_of(tree.root).location):
        return None if node is None else read_node(node, f"{namespace}/{key}")


def get_or_raise(tree: xr.DataTree, namespace: str, key: str) -> Any:
    """Return a copy of the object that was stored.

    Raises
    ------
    KeyError
        If there is none; the message lists what there is.
    """
    with state_of(tree.root).lock:
        node = find_whole_item(tree.root, namespace, key)
        if node is None:
            raise missing_item(tree.root, namespace, key)
    with file_named(state_of(tree.root).location):
        return read_node(node, f"{namespace}/{key}")


def get_info(tree: xr.DataTree, namespace: str, key: str) -> dict[str, Any] | None:
    """Return type, shape, time and note of an item as JSON values, or None."""
    with state_of(tree.root).lock:
        node = find_item(tree.root, namespace, key)
        return None if node is None else describe_item(node)


def describe(tree: xr.DataTree) -> dict[str, dict[str, dict[str, Any]]]:
    """Return what :func:`get_info` says of every item, by namespace and key."""
    with state_of(tree.root).lock:
        return {
            real_name(group): {
                real_name(node): describe_item(node) for node in group.children.values()
            }
            for group in tree.root.children.values()
        }


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
        check_open(state_of(root))
        node = find_item(root, namespace, old_key)
        if node is None:
            _warn_missing(root, namespace, old_key, "nothing was renamed")
            return False
        if new_key == old_key:
            return True
        if find_item(root, namespace, new_key) is not None and not overwrite:
            warn(
                f"key {new_key!r} is taken in namespace {namespace!r}: {old_key!r} keeps its "
                "name; pass overwrite=True to replace what is there",
                LabtreeWarning,
            )
            return False
        group = root.children[node_name(root, namespace, "namespace")]
        target = node_name(group, new_key, "key")
        attrs = dict(node.attrs)
        set_name(attrs, new_key)
        old = node_name(group, old_key, "key")
        with durable(root, [(str(group.name), old), (str(group.name), target)]):
            rename_child(group, old, target, attrs)
        return True


def add_note(tree: xr.DataTree, namespace: str, key: str, note: str) -> bool:
    """Put a note to an item in the place of the one that is there; False without an item."""
    if note is None:
        raise UnsupportedTypeError("a note is a str, not None")
    _check_note(note)
    with state_of(tree.root).lock:
        check_open(state_of(tree.root))
        node = find_item(tree.root, namespace, key)
        if node is None:
            _warn_missing(tree.root, namespace, key, "no note was added")
            return False
        group = node.parents[0]
        with durable(tree.root, [(str(group.name), str(node.name))]):
            node.attrs[NOTE] = note
        return True


def delete(tree: xr.DataTree, namespace: str, key: str | None = None) -> bool:
    """Delete an item, or a namespace with all its items; False where there is none.

    A namespace goes with its last key.
    """
    root = tree.root
    state = state_of(root)
    with state.lock:
        check_open(state)
        name = node_name(root, namespace, "namespace")
        group = root.children.get(name)
        below = None if group is None or key is None else node_name(group, key, "key")
        if group is None or (below is not None and below not in group.children):
            _warn_missing(root, namespace, key, "nothing was deleted")
            return False
        is_last = below is None or len(group.children) == 1
        place = (name,) if is_last or below is None else (name, below)
        with durable(root, [place]):
            for child in group.children if below is None else (below,):
                state.saved.forget_variables((name, child))
            if is_last or below is None:
                detach_child(root, name)
            else:
                detach_child(group, below)
        return True


def _warn_missing(root: xr.DataTree, namespace: str, key: str | None, done: str) -> None:
    """Warn of a name that is not there: it may be misspelt."""
    warn(f"{done}: {missing_item(root, namespace, key)}", LabtreeWarning)


def find(
    tree: xr.DataTree, pattern: str = "*/*", kind: str | None = None
) -> list[tuple[str, str]]:
    """Return namespace and key of the items whose names match a pattern; reads no data.

    Parameters
    ----------
    tree
        Any node of the workspace.
    pattern
        Of namespace and key, with ``*``, ``?`` and ``[abc]`` as in file names; upper and
        lower case differ. One without ``/`` is that of a key in any namespace.
    kind
        As ``type`` in :func:`get_info`: ``"spike_data"``, ``"dataframe"`` and so on.
    """
    if kind is not None and not is_known(kind):
        raise unknown_name("kind", kind, kind_names())
    whole = pattern if "/" in pattern else f"*/{pattern}"
    # A name may itself hold a "/".
    cuts = [i for i, letter in enumerate(whole) if letter == "/"]
    pairs = [(_matcher(whole[:cut]), _matcher(whole[cut + 1 :])) for cut in cuts]
    with state_of(tree.root).lock:
        return [
            (namespace, key)
            for namespace, key, node in iterate_items(tree.root)
            if any(space(namespace) and name(key) for space, name in pairs)
            and kind in (None, str(node.attrs.get(KIND_ATTRIBUTE, "dataset")))
        ]


def is_item(node: xr.DataTree) -> bool:
    """Return whether a node is an item of a workspace, and not the workspace or a namespace."""
    return len(node.parents) == 2


def item_kind(node: xr.DataTree) -> str:
    """Return the kind of the item that a node is."""
    _check_item(node, "kind")
    return str(node.attrs.get(KIND_ATTRIBUTE, "dataset"))


def item_summary(node: xr.DataTree) -> dict[str, Any]:
    """Return what a list of items shows of the item that a node is; reads no data."""
    _check_item(node, "summary()")
    about = describe_item(node)
    return {name: value for name, value in about.items() if name not in _BOOKKEEPING}


_BOOKKEEPING = ("type", "created_at", "note")


def validate_item(node: xr.DataTree) -> None:
    """Raise an error that says what is wrong with the item that a node is."""
    _check_item(node, "validate()")
    kind, dataset = item_dataset(node)
    if kind_named(kind).is_dataset:
        registry.validate(dataset)
    else:
        read_node(node, item_path(node))


def plot_item(node: xr.DataTree, **options: Any) -> Any:
    """Draw the item that a node is in the way of its kind; return the matplotlib Axes."""
    _check_item(node, "plot()")
    path = item_path(node)
    obj = read_node(node, path)
    if isinstance(obj, np.ndarray) and obj.dtype.kind in "biuf":
        obj = xr.DataArray(obj)
    if isinstance(obj, (xr.Dataset, xr.DataArray)):
        return registry.plot(obj, **options)
    raise DataError(
        f"{path} is a {item_kind(node)}, of which labtree draws no picture; get it with "
        f"tree.ws[{real_name(node.parents[0])!r}, {real_name(node)!r}] and draw a part of it"
    )


def _check_item(node: xr.DataTree, call: str) -> None:
    if not is_item(node):
        raise WorkspaceError(
            f"this is {'a workspace' if node.is_root else 'a node'}, and {call} is that of one "
            f"item: write tree['namespace/key'].ws.{call}"
        )


def _matcher(pattern: str) -> Callable[[str], object]:
    return re.compile(fnmatch.translate(pattern)).match


def contains(tree: xr.DataTree, place: object) -> bool:
    """Return whether there is a namespace, or an item at (namespace, key)."""
    if isinstance(place, str):
        return place in list_namespaces(tree)
    return get_info(tree, *check_place(place)) is not None


def list_items(tree: xr.DataTree) -> list[tuple[str, str]]:
    """Return namespace and key of every item."""
    with state_of(tree.root).lock:
        return [(namespace, key) for namespace, key, _ in iterate_items(tree.root)]


def comparison_namespace(*namespaces: str) -> str:
    """Return the conventional namespace of results that compare recordings.

    Examples
    --------
    >>> comparison_namespace("rec1", "rec2")
    'C_rec1_rec2'
    """
    if not namespaces:
        raise WorkspaceError(
            "name the namespaces that are compared: comparison_namespace('a', 'b')"
        )
    return "_".join(["C", *namespaces])


def check_place(place: object, tree: xr.DataTree | None = None) -> tuple[str, str]:
    """Return namespace and key of ``tree.ws[namespace, key]``."""
    if isinstance(place, tuple) and len(place) == 2:
        return place
    line = "tree.ws[namespace, key]"
    if isinstance(place, str) and "/" in place:
        namespace, _, key = place.partition("/")
        line = f"tree.ws[{namespace!r}, {key!r}]"
    keys_are = ""
    keys = list_keys(tree, place) if isinstance(place, str) and tree is not None else []
    if keys:
        line = f"tree.ws[{place!r}, {keys[0]!r}]"
        keys_are = f"; its keys are {', '.join(map(repr, keys[:20]))}"
    raise UnsupportedTypeError(f"write {line}, with two names, not {place!r}{keys_are}")
