"""Workspaces that are imported from other programs' files, and trees that are exported."""

from pathlib import Path
from typing import Any, NamedTuple

import xarray as xr
from tqdm import tqdm

from labtree.errors import DataError, UnsupportedTypeError
from labtree.interop.common import left_out, warn_of_losses
from labtree.storage.attached import attached
from labtree.storage.files import is_same_file
from labtree.storage.trees import check_folder
from labtree.workspace.operations import store_item
from labtree.workspace.state import mark_saved


class Item(NamedTuple):
    """An object that was read, its place in a workspace, and what was noted with it."""

    namespace: str
    key: str
    obj: Any
    created_at: float | None = None
    note: str | None = None
    #: Its path in the file that it comes from.
    source: str = ""


def store_items(tree: xr.DataTree, items: list[Item]) -> list[str]:
    """Store items in a workspace; return a line for each that it cannot keep.

    The list is emptied, so that only one item at a time is in memory twice.
    """
    problems = []
    items.reverse()
    with tqdm(total=len(items), desc="items", leave=False, disable=None) as progress:
        while items:
            item = items.pop()
            try:
                store_item(
                    tree, item.namespace, item.key, item.obj,
                    note=item.note, created_at=item.created_at,
                )  # fmt: skip
            except (TypeError, ValueError) as error:
                problems.append(left_out(item.source, error))
            progress.update()
    return problems


def keep_problems(tree: xr.DataTree, problems: list[str], text: str, *, attribute: str) -> None:
    """Keep what did not arrive as it should with the workspace, and warn of it."""
    if problems:
        tree.attrs[attribute] = problems
        warn_of_losses(problems, text)


def finish_import(
    tree: xr.DataTree, path: Path, problems: list[str], text: str, *, attribute: str
) -> None:
    """Note which file a workspace comes from, and warn of what could not be read of it."""
    keep_problems(tree, problems, text, attribute=attribute)
    note_origin(tree, path)
    mark_saved(tree)  # it is on the disk, in the other format


class _Origin:
    """The file of another program that a workspace was imported from."""

    path: Path | None = None


def note_origin(tree: xr.DataTree, path: Path) -> None:
    """Note which file a tree was imported from, so that no export replaces it."""
    attached(tree, _Origin).path = path


def check_export_target(tree: xr.DataTree, target: Path) -> None:
    """Raise an error where a tree cannot be exported, or would replace its own file."""
    from labtree.pipeline.sessions import hdf5_path  # which few of those who import need

    if not isinstance(tree, xr.DataTree):
        raise UnsupportedTypeError(
            f"an export takes the tree of a workspace or session, found {type(tree).__name__}; "
            "write tree = labtree.create_workspace(), tree.ws.store('rec1', 'units', ds), and "
            "export the tree"
        )
    check_folder(target)
    is_workspace = "labtree_workspace_id" in tree.root.attrs
    own = {
        "the file of this workspace": tree.ws.path if is_workspace else None,
        "the file of this session": None if is_workspace else hdf5_path(tree.root),
        "the file that this was imported from": attached(tree.root, _Origin).path,
    }
    for what, path in own.items():
        if path is not None and is_same_file(path, target):
            raise DataError(
                f"{target} is {what}: export it under another name, as the other format cannot "
                "hold all of it"
            )
