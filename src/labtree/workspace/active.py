"""The workspace that ``ds.ws.store`` writes to when none is named."""

from contextvars import ContextVar, Token
from types import TracebackType

import xarray as xr

from labtree.errors import WorkspaceError

__all__ = ["active_workspace", "target_workspace", "use_workspace"]

_IN_BLOCK: ContextVar[xr.DataTree | None] = ContextVar("labtree_workspace", default=None)
_EVERYWHERE: list[xr.DataTree | None] = [None]


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
            raise TypeError(
                f"use_workspace takes a workspace tree, not {type(tree).__name__}; make one "
                "with labtree.create_workspace()"
            )
        self._tree = tree
        self._before = _EVERYWHERE[0]
        self._tokens: list[Token[xr.DataTree | None]] = []
        _EVERYWHERE[0] = tree

    def __enter__(self) -> xr.DataTree | None:
        if not self._tokens and _EVERYWHERE[0] is self._tree:
            _EVERYWHERE[0] = self._before  # it was meant for the block only
        self._tokens.append(_IN_BLOCK.set(self._tree))
        return self._tree

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _IN_BLOCK.reset(self._tokens.pop())


def active_workspace() -> xr.DataTree | None:
    """Return the active workspace, or None."""
    return _IN_BLOCK.get() or _EVERYWHERE[0]


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
            "here: ds.ws.store(namespace, key, into=tree)"
        )
    if not isinstance(tree, xr.DataTree):
        raise TypeError(f"into= takes a workspace tree, not {type(tree).__name__}")
    return tree
