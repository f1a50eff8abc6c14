"""Bring the files of SpikeLab's AnalysisWorkspace into a workspace."""

import os
import warnings
from collections.abc import Iterable
from pathlib import Path

import xarray as xr

from labtree.errors import LossWarning
from labtree.interop.spikelab_read import Item, read_spikelab

__all__ = ["build_workspace", "import_spikelab"]


def import_spikelab(path: str | os.PathLike[str]) -> xr.DataTree:
    """Read a file that SpikeLab wrote into a workspace.

    Every item comes in with its type, time and note, ordered by name: also those that
    SpikeLab itself cannot load again, such as keys with "/" in them.

    Parameters
    ----------
    path : path-like
        With or without ``.h5``. The ``.json`` beside it is used, if it is there, to tell
        names with "/" apart.

    Returns
    -------
    DataTree
        A workspace with the id, name and time of the file.

    Warns
    -----
    LossWarning
        If a part could not be read or is not valid. The warning names each with its path
        and the reason; so does the attribute ``spikelab_problems`` of the workspace.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FormatError
        A ValueError, if the file is not of SpikeLab.
    """
    given = Path(path)
    beside = given.with_name(given.name + ".h5")
    file = read_spikelab(beside if not given.is_file() and beside.is_file() else given)
    tree = build_workspace(file.workspace_id, file.name, file.created_at, file.items)
    if file.problems:
        tree.attrs["spikelab_problems"] = file.problems
        listed = "\n".join(file.problems)
        warnings.warn(
            f"{path}: {len(file.items)} items came in; not all is as it should be:\n{listed}",
            LossWarning,
            stacklevel=2,
        )
    return tree


def build_workspace(
    workspace_id: str | None,
    name: str | None,
    created_at: float | None,
    items: Iterable[Item],
) -> xr.DataTree:
    """Build a workspace of items that keep their times and notes."""
    from labtree.workspace.verbs import create_workspace, store_item

    tree = create_workspace(name)
    if workspace_id is not None:
        tree.attrs["labtree_workspace_id"] = workspace_id
    if created_at is not None:
        tree.attrs["labtree_created_at"] = created_at
    for item in items:
        store_item(
            tree, item.namespace, item.key, item.obj, note=item.note, created_at=item.created_at
        )
    return tree
