"""The workspace that ``ds.ws.store`` writes to when none is named."""

from typing import Any

import xarray as xr

from labtree.errors import UnsupportedTypeError, WorkspaceError
from labtree.storage.scopes import Scope, Setting
from labtree.workspace.operations import store_item

_ACTIVE: Setting[xr.DataTree | None] = Setting("labtree_workspace", None)


class use_workspace(Scope[xr.DataTree | None]):  # noqa: N801, called like a function
    """Make a workspace the active one: from now on, or inside a ``with`` block.

    Parameters
    ----------
    tree
        A workspace; None for no active one.

    Notes
    -----
    A plain call holds in all threads until the next one. A ``with`` block holds in its
    own thread or task only, and before a plain call.

    Examples
    --------
    >>> import labtree, xarray as xr
    >>> tree = labtree.create_workspace()
    >>> with labtree.use_workspace(tree):
    ...     xr.Dataset({"rate": ("unit", [2.0])}).ws.store("rec1", "rates")
    >>> tree.ws.list_keys("rec1")
    ['rates']
    """

    def __init__(self, tree: xr.DataTree | None):
        if tree is not None and not isinstance(tree, xr.DataTree):
            raise UnsupportedTypeError(
                f"use_workspace takes a workspace tree, not {type(tree).__name__}; make one "
                "with labtree.create_workspace()"
            )
        super().__init__(_ACTIVE, tree)


def active_workspace() -> xr.DataTree | None:
    """Return the active workspace, or None.

    Returns
    -------
    DataTree or None
        The workspace of `labtree.use_workspace`.

    Examples
    --------
    >>> import labtree
    >>> tree = labtree.create_workspace()
    >>> with labtree.use_workspace(tree):
    ...     labtree.active_workspace() is tree
    True
    """
    return _ACTIVE.get()


def target_workspace(into: xr.DataTree | None) -> xr.DataTree:
    """Return the workspace to store into: the given one, else the active one.

    Raises
    ------
    WorkspaceError
        If there is neither; the message has the line to write.
    """
    tree = active_workspace() if into is None else into
    if tree is None:
        raise WorkspaceError(
            "no workspace is active; write labtree.use_workspace(tree) once, or name it "
            "here: ds.ws.store(namespace, key, into=tree), tree.ws.store(namespace, key, obj)"
        )
    if not isinstance(tree, xr.DataTree):
        raise UnsupportedTypeError(f"into= takes a workspace tree, not {type(tree).__name__}")
    return tree


def store(namespace: str, key: str, obj: Any, note: str | None = None) -> None:
    """Store a copy of an object in the active workspace.

    Parameters
    ----------
    namespace, key
        Any text but the empty one; an item of that name is replaced.
    obj
        Whatever ``tree.ws.store`` takes.
    note
        A sentence for people.

    Raises
    ------
    WorkspaceError
        If no workspace is active; the message has the line to write.
    TypeError
        If a part of the object cannot be kept exactly.

    Examples
    --------
    >>> import labtree
    >>> with labtree.use_workspace(labtree.create_workspace()) as tree:
    ...     labtree.store("rec1", "settings", {"threshold": 0.5})
    >>> tree.ws["rec1", "settings"]
    {'threshold': 0.5}
    """
    store_item(target_workspace(None), namespace, key, obj, note=note)
