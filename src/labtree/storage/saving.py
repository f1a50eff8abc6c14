"""Trees that are saved to the same file again and again: only what changed is written."""

import contextlib
from collections.abc import Hashable
from pathlib import Path

import xarray as xr

from labtree.errors import FormatError, write_errors_named
from labtree.storage.attached import attached
from labtree.storage.catalogue import file_version
from labtree.storage.locks import writer_lock
from labtree.storage.marks import Marks, mark_nodes
from labtree.storage.tree_file import TreeFile
from labtree.storage.trees import check_folder, save_tree


class _Files:
    """The files that a tree was saved to, and how they then held its nodes."""

    def __init__(self) -> None:
        self.known: dict[Path, tuple[Hashable, Marks]] = {}


def remember_file(tree: xr.DataTree, path: Path, version: Hashable) -> None:
    """Note that a file holds a tree as it is now.

    Parameters
    ----------
    tree
        The root.
    path
        The file.
    version
        Of the file; see :func:`labtree.storage.catalogue.file_version`.
    """
    attached(tree, _Files).known[path.resolve()] = version, mark_nodes(tree)


def save_tree_again(tree: xr.DataTree, shown: xr.DataTree, path: Path) -> None:
    """Save a tree; to a file that it was saved to before, only what changed. All or nothing.

    Parameters
    ----------
    tree
        The root, whose nodes are compared with what they were.
    shown
        A copy of it, with the attributes that the root has in the file.
    path
        The file, which is replaced where it is not as this tree left it.

    Raises
    ------
    BusyFileError
        If another process writes the file all the time.
    OSError
        If the disk is full.
    """
    check_folder(path)
    with write_errors_named(path):
        if _save_changes(tree, shown, path):
            return
        attached(tree, _Files).known.pop(path.resolve(), None)
        with writer_lock(path):
            save_tree(shown, path)
            remember_file(tree, path, file_version(path))


def _save_changes(tree: xr.DataTree, shown: xr.DataTree, path: Path) -> bool:
    files = attached(tree, _Files).known
    known = files.get(path.resolve())
    if known is None or not path.is_file():
        return False
    version, marks = known
    with writer_lock(path):
        if file_version(path) != version:
            return False
        try:
            file = TreeFile(path)
        except FormatError:
            return False
        with contextlib.closing(file):
            if file.is_mostly_dead:
                return False
            try:
                changes = file.find(tree, marks)
                changes.nodes[()] = shown
                if () not in changes.written and () not in changes.described:
                    changes.described.append(())
                file.write(changes, marks)
            except FormatError:  # a whole save tells what is wrong, or does without it
                return False
            finally:
                files[path.resolve()] = file.version, marks
    return True
