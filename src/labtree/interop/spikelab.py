"""Bring the files of SpikeLab's AnalysisWorkspace into a workspace."""

import os
import warnings
from pathlib import Path

import xarray as xr
from tqdm import tqdm

from labtree.errors import LossWarning
from labtree.interop.spikelab_read import Item, read_spikelab
from labtree.workspace.verbs import create_workspace, identify, store_item

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

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FormatError
        A ValueError, if the file is not of SpikeLab.

    Warns
    -----
    LossWarning
        If a part could not be read or is not valid. The warning names each with its path
        and the reason; so does the attribute ``spikelab_problems`` of the workspace.
    """
    given = Path(path)
    beside = given.with_name(given.name + ".h5")
    file = read_spikelab(beside if not given.is_file() and beside.is_file() else given)
    tree, refused = build_workspace(file.workspace_id, file.name, file.created_at, file.items)
    problems = file.problems + refused
    if problems:
        tree.attrs["spikelab_problems"] = problems
        listed = "\n".join(problems)
        warnings.warn(
            f"{path}: not all came in as it should; the rest did:\n{listed}",
            LossWarning,
            stacklevel=2,
        )
    return tree


def build_workspace(
    workspace_id: str | None, name: str | None, created_at: float | None, items: list[Item]
) -> tuple[xr.DataTree, list[str]]:
    """Build a workspace of items that keep their times and notes.

    Parameters
    ----------
    workspace_id, name, created_at
        Of the workspace; None for an id and time of its own.
    items : list of Item
        Emptied on the way, so that an item and its copy in the workspace stand beside each
        other for one item at a time.

    Returns
    -------
    tree, problems
        The workspace, and in words what it cannot keep.
    """
    tree = create_workspace(name)
    tree.attrs = identify(workspace_id, name, created_at)
    problems = []
    items.reverse()
    with tqdm(total=len(items), desc="items", leave=False, disable=None) as progress:
        while items:
            item = items.pop()
            try:
                store_item(tree, *item[:3], note=item.note, created_at=item.created_at)
            except (TypeError, ValueError) as error:
                problems.append(f"/{item.namespace}/{item.key}: left out: {error}")
            progress.update()
    return tree, problems
