"""Workspaces that many processes store into at once, in icechunk repositories.

Each store is a transaction: the item is stored completely or not at all, and nothing that
another process stores meanwhile is lost. An opened workspace stays as it was at that
moment, whatever is stored afterwards.
"""

import json
from typing import Any

import xarray as xr

from labtree.errors import FormatError, WorkspaceError
from labtree.storage import json_values
from labtree.storage.blocks import is_dask
from labtree.storage.nodes import attach_children
from labtree.storage.records import DatasetBuilder
from labtree.storage.versions import check_version
from labtree.storage.zarr.locations import (
    Repository,
    object_names,
    read_object,
    write_object,
)
from labtree.storage.zarr.metadata import METADATA, dump, file_names, group_metadata
from labtree.storage.zarr.transactions import open_repository, transact
from labtree.storage.zarr.trees import column_reader
from labtree.storage.zarr.writing import write_nodes
from labtree.workspace.items import CREATED, node_name
from labtree.workspace.operations import create_workspace, identity_attributes, store_item
from labtree.workspace.state import mark_saved, state_of

# The attributes of a group that hold what labtree knows of it.
_WORKSPACE, _ITEM = "labtree_workspace", "labtree_item"
VERSION = 1


def store_shared(
    where: Any, namespace: str, key: str, obj: Any, note: str | None = None
) -> None:
    """Store a copy of an object in a shared workspace; other processes see it at once.

    Parameters
    ----------
    where
        A path, a URL (``s3://bucket/study``, ``gs://bucket/study``) or an
        ``icechunk.Storage``. A workspace that does not exist is created.
    namespace, key, obj, note
        As in ``tree.ws.store``. If two processes store under the same names at once, the
        later object is kept, and the other one is in the history.

    Raises
    ------
    MissingDependencyError
        If icechunk is not installed.
    TypeError, ValueError
        As ``tree.ws.store``; nothing is stored then.

    Examples
    --------
    >>> import labtree
    >>> labtree.store_shared("shared", "rec1", "threshold", 0.5)
    >>> labtree.open_shared("shared").ws["rec1", "threshold"]
    0.5
    """
    tree = create_workspace()
    store_item(tree, namespace, key, obj, note=note)
    mark_saved(tree)  # what is left of it after an error is no workspace of the user's
    ((namespace_node, group),) = tree.children.items()
    ((key_node, item),) = group.children.items()
    folders = _folder(namespace_node), _folder(key_node)
    alone = xr.DataTree(dataset=item.to_dataset(inherit=False))
    for variable in alone.variables.values():
        if is_dask(variable):  # once, however often the transaction is tried
            variable.load()

    def write(store: Any, name: str) -> None:
        about: dict[str, Any] = {_WORKSPACE: {"version": VERSION} | identity_attributes()}
        _ensure(store, "", about, name)
        about = {_ITEM: [namespace_node, json_values.encode(dict(group.attrs))]}
        _ensure(store, folders[0], about, name)
        below = "/".join(folders)
        _remove(store, below)
        written = write_nodes(
            alone, store, prefix=below, separator=Repository.separator, inline=0
        )
        (record,) = written.records
        metadata = written.metadata[below]
        attributes = metadata["attributes"] | {_ITEM: [key_node, record]}
        write_object(store, _metadata_of(below), dump(group_metadata(attributes)))

    transact(where, f"store {namespace}/{key}", write)


def delete_shared(where: Any, namespace: str, key: str) -> bool:
    """Delete an item of a shared workspace; False where there is none.

    It stays in the history of the repository until that is expired.

    Parameters
    ----------
    where
        As in :func:`store_shared`.
    namespace, key : str
        The item.

    Returns
    -------
    bool
        False where there is no such item.

    Examples
    --------
    >>> import labtree
    >>> labtree.store_shared("shared", "rec1", "threshold", 0.5)
    >>> labtree.delete_shared("shared", "rec1", "threshold")
    True
    """
    names = node_name(None, namespace, "namespace"), node_name(None, key, "key")
    below = "/".join(map(_folder, names))
    open_repository(where)
    found = []

    def remove(store: Any, _: str) -> None:
        found.append(_attributes(store, below) is not None)
        if found[-1]:
            _remove(store, below)

    transact(where, f"delete {namespace}/{key}", remove)
    return found[-1]


def open_shared(where: Any) -> xr.DataTree:
    """Open a shared workspace as it is now; data are read when they are indexed.

    Parameters
    ----------
    where
        As in :func:`store_shared`.

    Returns
    -------
    xarray.DataTree
        A lazy workspace. What others store later is not in it, and what you store in it is
        not shared; ``tree.ws.save(path)`` writes it as a workspace of its own.

    Raises
    ------
    FileNotFoundError
        If there is none.
    FormatError
        If the repository is no workspace, is damaged, or is of a newer version.

    Examples
    --------
    >>> import labtree
    >>> labtree.store_shared("shared", "rec1", "threshold", 0.5)
    >>> labtree.open_shared("shared").ws.list_keys()
    {'rec1': ['threshold']}
    """
    repository, name, _ = open_repository(where)
    session = repository.readonly_session("main")
    store, location = session.store, Repository(where, session)
    about = (_attributes(store, "") or {}).get(_WORKSPACE)
    if not isinstance(about, dict):
        raise FormatError(f"{name} is an icechunk repository, but no workspace of labtree")
    check_version(about.get("version"), VERSION, name)
    tree = create_workspace()
    tree.attrs = {key: value for key, value in about.items() if key != "version"}
    groups: list[tuple[str, xr.DataTree, dict[str, xr.DataTree]]] = []
    try:
        for folder in _groups(store, ""):
            group_name, attrs = (_attributes(store, folder) or {})[_ITEM]
            items = [_item(location, f"{folder}/{key}") for key in _groups(store, folder)]
            items.sort(key=lambda item: item[1].attrs.get(CREATED, 0.0))
            if items:
                group = xr.DataTree()
                group.attrs = json_values.decode(attrs)
                groups.append((group_name, group, dict(items)))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{name}: its content contradicts itself: {error!r}") from error
    # The order of storing is that of the times; the store itself keeps none.
    groups.sort(key=lambda entry: min(_created(node) for node in entry[2].values()))
    for group_name, group, below_it in groups:
        attach_children(group, below_it)
        attach_children(tree, {group_name: group})
    state_of(tree).is_lazy = True
    mark_saved(tree)
    return tree


def _created(node: xr.DataTree) -> float:
    return float(node.attrs.get(CREATED, 0.0))


def _item(location: Repository, folder: str) -> tuple[str, xr.DataTree]:
    name, record = (_attributes(location.store(), folder) or {})[_ITEM]
    dataset = DatasetBuilder(column_reader(location, {(): f"{folder}/"})).build(record)
    return name, xr.DataTree(dataset=dataset)


def _metadata_of(folder: str) -> str:
    return f"{folder}/{METADATA}" if folder else METADATA


def _groups(store: Any, folder: str) -> list[str]:
    return [name for name in object_names(store, folder) if name != METADATA]


def _remove(store: Any, folder: str) -> None:
    """Remove a group with all below it, if it is there."""
    from zarr.core.sync import sync

    sync(store.delete_dir(folder))


def _attributes(store: Any, folder: str) -> dict[str, Any] | None:
    text = read_object(store, _metadata_of(folder))
    if text is None:
        return None
    attributes = json.loads(text).get("attributes")
    return attributes if isinstance(attributes, dict) else {}


def _ensure(store: Any, folder: str, attributes: dict[str, Any], name: str) -> None:
    """Make a group if it is not there; a group that is there stays as it is."""
    found = _attributes(store, folder)
    if found is None:
        write_object(store, _metadata_of(folder), dump(group_metadata(attributes)))
    elif not found.keys() >= attributes.keys():
        raise WorkspaceError(
            f"{name} is an icechunk repository, but no workspace of labtree; nothing "
            "was stored. Store into another one"
        )


def _folder(name: str) -> str:
    return file_names([name])[name]
