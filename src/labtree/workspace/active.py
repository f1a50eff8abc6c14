"""The workspace that ``ds.ws.store`` writes to when none is named."""

import threading
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any

import xarray as xr

from labtree.errors import UnsupportedTypeError, WorkspaceError
from labtree.workspace.verbs import store_item

__all__ = ["active_workspace", "store", "target_workspace", "use_workspace"]

_IN_BLOCK: ContextVar[tuple[xr.DataTree | None] | None] = ContextVar(
    "labtree_workspace", default=None
)
_LOCK = threading.RLock()


class _Setting:
    """What a call set for all threads, until the call is used as a `with` block."""

    def __init__(self, tree: xr.DataTree | None):
        self.tree = tree
        self.gave_way = False
        self.below: _Setting | None = None


_EVERYWHERE = [_Setting(None)]


class use_workspace:  # noqa: N801, called like a function
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
        self._tokens: list[Token[tuple[xr.DataTree | None] | None]] = []
        self._own = _Setting(tree)
        with _LOCK:
            self._below = _EVERYWHERE[0]
            _EVERYWHERE[0] = self._own

    def __enter__(self) -> xr.DataTree | None:
        with _LOCK:  # it was meant for the block only
            self._own.gave_way, self._own.below = True, self._below
            while (top := _EVERYWHERE[0]).gave_way and top.below is not None:
                _EVERYWHERE[0] = top.below
        self._tokens.append(_IN_BLOCK.set((self._own.tree,)))
        return self._own.tree

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _IN_BLOCK.reset(self._tokens.pop())


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
    block = _IN_BLOCK.get()  # not the tree itself: one without items is false
    return _EVERYWHERE[0].tree if block is None else block[0]


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
