"""Namespaces and keys in a tree: their nodes, real names and bookkeeping attributes."""

import contextlib
import time
from collections.abc import Iterable, Iterator
from numbers import Real
from typing import Any

import xarray as xr

from labtree.errors import FormatError, ItemNotFoundError, unknown_name
from labtree.objects.registry import KIND_ATTRIBUTE, decode, is_known, kind_named
from labtree.storage.arrays import load_variables
from labtree.storage.names import check_name, decode_name, encode_name
from labtree.storage.trees import check_read

#: The attributes that labtree keeps about an item, beside its kind.
CREATED, NOTE, NAME = "labtree_created_at", "labtree_note", "labtree_key"


def node_name(parent: xr.DataTree | None, name: str, what: str) -> str:
    """Return the name of the node that stands for `name`, whether it is there or not."""
    encoded = encode_name(check_name(name, what))
    if parent is None or encoded == name or encoded in parent.children:
        return encoded
    # A tree that was built by hand may hold a name as it is; "%2F" may also stand for "/".
    by_hand = parent.children.get(name)
    return encoded if by_hand is None or real_name(by_hand) != name else name


def real_name(node: xr.DataTree) -> str:
    """Return the name that a namespace or key has for its user."""
    kept = node.attrs.get(NAME)
    return kept if isinstance(kept, str) else decode_name(node.name or "")


def item_path(node: xr.DataTree) -> str:
    """Return namespace and key of an item as one text, for messages."""
    return f"{real_name(node.parents[0])}/{real_name(node)}"


def set_name(attrs: dict[Any, Any], name: str) -> None:
    """Keep the real name in the attributes of a node where it had to be cut."""
    attrs.pop(NAME, None)
    if decode_name(encode_name(name)) != name:
        attrs[NAME] = name


def find_item(root: xr.DataTree, namespace: str, key: str) -> xr.DataTree | None:
    """Return the node of an item, or None."""
    group = root.children.get(node_name(root, namespace, "namespace"))
    return None if group is None else group.children.get(node_name(group, key, "key"))


def add_times(items: Iterable[xr.DataTree]) -> None:
    """Give the time to items that plain xarray made."""
    for node in items:
        if CREATED not in node.attrs:
            node.attrs[CREATED] = time.time()


def iterate_items(root: xr.DataTree) -> Iterator[tuple[str, str, xr.DataTree]]:
    """Give namespace, key and node of every item, in the order of storing."""
    for group in root.children.values():
        namespace = real_name(group)
        for node in group.children.values():
            yield namespace, real_name(node), node


def find_whole_item(root: xr.DataTree, namespace: str, key: str) -> xr.DataTree | None:
    """Return the node of an item, or None where there is none.

    Raises
    ------
    FormatError
        If a part of it could not be read when its file was opened.
    """
    node = find_item(root, namespace, key)
    group = root.children.get(space := node_name(root, namespace, "namespace"))
    check_read(root, (space, node_name(group, key, "key")))
    return node


def own_dataset(node: xr.DataTree) -> xr.Dataset:
    """Return a node's dataset, with those of its coordinates that xarray keeps above it."""
    dataset: xr.Dataset = node.to_dataset(inherit=False)
    if not any(parent.variables for parent in node.parents):
        return dataset
    whole: xr.Dataset = node.to_dataset(inherit=True)
    others = [
        name
        for name, coord in whole.coords.items()
        if name not in dataset.variables and not set(coord.dims) <= set(dataset.dims)
    ]
    return whole.drop_vars(others)


@contextlib.contextmanager
def file_named(name: object) -> Iterator[None]:
    """Let an error of what is damaged name the file too, where it names a part of it only."""
    try:
        yield
    except FormatError as error:
        if name is None or str(name) in str(error):
            raise
        raise FormatError(f"{name}: {error}") from error


def item_dataset(node: xr.DataTree) -> tuple[str | None, xr.Dataset]:
    """Return the kind of an item, and its dataset without the bookkeeping."""
    dataset = own_dataset(node)
    attrs = dict(dataset.attrs)
    kind = attrs.pop(KIND_ATTRIBUTE, None)
    kind = kind if kind is None else str(kind)
    for name in (CREATED, NOTE, NAME):
        attrs.pop(name, None)
    if kind is not None and (kind_named(kind).is_dataset or not is_known(kind)):
        attrs[KIND_ATTRIBUTE] = kind
    dataset.attrs = attrs
    return kind, dataset


def describe_item(node: xr.DataTree) -> dict[str, Any]:
    """Return type, summary, time of storing and note of an item; reads no data."""
    dataset = node.to_dataset(inherit=False)
    kind = str(dataset.attrs.get(KIND_ATTRIBUTE, "dataset"))
    try:
        summary = kind_named(kind).summary(dataset)
    except (LookupError, TypeError, ValueError, AttributeError):
        # Changed through xarray's own ways, so that it is no longer of its kind.
        summary = kind_named("dataset").summary(dataset)
    created_at, note = dataset.attrs.get(CREATED), dataset.attrs.get(NOTE)
    about = {"type": kind, **summary}
    about["created_at"] = float(created_at) if isinstance(created_at, Real) else None
    return about if note is None else about | {"note": str(note)}


def read_node(node: xr.DataTree, path: str) -> Any:
    """Return the object that a node stands for, a copy in memory; its tree where it has one.

    Raises
    ------
    FormatError
        If it is damaged, or was changed since, so that it is no longer of its kind.
    """
    kind, dataset = item_dataset(node)
    if node.children and kind is None:
        copy = node.copy(deep=True)
        copy.attrs = dataset.attrs
        load_variables(v for below in copy.subtree for v in below.variables.values())
        return copy
    try:
        return decode(kind, dataset)
    except FormatError as error:
        if error.__cause__ is None:  # damaged; otherwise of another shape than its kind
            raise
        raise FormatError(
            f"{path}: {error}; tree[{path!r}].to_dataset() gives the dataset that is there"
        ) from error


def missing_item(
    root: xr.DataTree, namespace: str, key: str | None = None
) -> ItemNotFoundError:
    """Return the error for an item that is not there, or for a namespace."""
    group = root.children.get(node_name(root, namespace, "namespace"))
    names = [real_name(node) for node in (root if group is None else group).children.values()]
    if group is None:
        where = " in this workspace"
        return unknown_name("namespace", namespace, names, ItemNotFoundError, where=where)
    where = f" in namespace {namespace!r}"
    return unknown_name("key", key, names, ItemNotFoundError, where=where)
