"""The engine ``labtree`` of xarray: any format that labtree opens, by its content.

>>> import labtree, tempfile, xarray as xr
>>> tree = labtree.create_workspace()
>>> tree.ws.store("rec1", "answer", [1, 2])
>>> with tempfile.TemporaryDirectory() as folder:
...     path = tree.ws.save(f"{folder}/study")
...     with xr.open_datatree(path, engine="labtree") as opened:
...         opened["rec1"].ws["rec1", "answer"]
[1, 2]
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import xarray as xr
from xarray.backends import BackendEntrypoint

__all__ = ["LabtreeBackendEntrypoint"]


class LabtreeBackendEntrypoint(BackendEntrypoint):
    """Opens workspaces, recordings, sessions, SpikeLab and MCS files for xarray."""

    description = "Open workspaces, recordings and sessions of a neurophysiology lab"
    supports_groups = True

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Claim what no other engine does: recording folders and their zips."""
        if not isinstance(filename_or_obj, (str, os.PathLike)):
            return False
        path = Path(os.fspath(filename_or_obj))
        if path.name.endswith(".session.zip"):
            return True
        return path.is_dir() and (path / "meta.json").is_file()

    def open_datatree(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        group: str | None = None,
    ) -> xr.DataTree:
        """Open a file or folder as a tree; `group` opens what is below one node."""
        tree = _open(filename_or_obj)
        groups = _groups(tree, drop_variables, group)
        opened = xr.DataTree.from_dict(groups)
        opened.set_close(tree.close)
        return opened

    def open_groups_as_dict(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        group: str | None = None,
    ) -> dict[str, xr.Dataset]:
        """Open all nodes as datasets by their paths."""
        return _groups(_open(filename_or_obj), drop_variables, group)

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        group: str | None = None,
    ) -> xr.Dataset:
        """Open one node as a dataset; the root where no `group` is given."""
        tree = _open(filename_or_obj)
        dataset = _groups(tree, drop_variables, group)["/"]
        dataset.set_close(tree.close)
        return dataset


def _open(path: Any) -> xr.DataTree:
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"the engine 'labtree' opens paths, not {type(path).__name__}")
    from labtree.opening import open as open_path

    return open_path(os.fspath(path))


def _groups(
    tree: xr.DataTree, drop: str | Iterable[str] | None, group: str | None
) -> dict[str, xr.Dataset]:
    """Return the datasets at and below a node, by their paths from there."""
    dropped = [drop] if isinstance(drop, str) else list(drop or ())
    try:
        top = tree if group in (None, "", "/") else tree[str(group)]
    except KeyError:
        top = None
    if not isinstance(top, xr.DataTree):
        known = ", ".join(node.path for node in tree.subtree)[:300]
        tree.close()
        raise KeyError(f"no group {group!r}; there is {known}")
    return {
        "/" + node.path[len(top.path) :].lstrip("/"): node.to_dataset(
            inherit=node is top
        ).drop_vars(dropped, errors="ignore")
        for node in top.subtree
    }
