"""Workspaces in files: save, open, load, one item."""

import json
import os
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import xarray as xr

from labtree.errors import FormatError, MissingFileError, WorkspaceError
from labtree.storage.arrays import load_variables
from labtree.storage.catalogue import Catalogue, read_catalogue
from labtree.storage.files import replace_file, temporary_path
from labtree.storage.locks import folder_lock
from labtree.storage.records import DatasetBuilder
from labtree.storage.sources import FileSource, identity
from labtree.storage.trees import (
    add_source,
    check_folder,
    close_tree,
    column_reader,
    open_source,
    read_tree,
)
from labtree.storage.writing import write_tree
from labtree.storage.zarr_places import is_place, is_store
from labtree.workspace import zarr_files
from labtree.workspace.items import (
    find_item,
    missing_item,
    node_name,
    read_node,
)
from labtree.workspace.state import State, state_of
from labtree.workspace.verbs import complete, describe

__all__ = ["load_item", "load_workspace", "open_workspace", "save_workspace", "workspace_path"]


def workspace_path(path: str | Path, *, new: bool = False) -> Path:
    """Return the ``.h5`` file that `path` means, with or without the suffix.

    Raises
    ------
    FileNotFoundError
        If it is not `new` and there is no such file.
    """
    given = Path(os.fspath(path)).expanduser()
    if given.name in ("", ".."):
        raise WorkspaceError(f"{str(path)!r} names no file; write a name such as 'study.h5'")
    with_suffix = given if given.suffix == ".h5" else given.with_name(given.name + ".h5")
    if new:
        return with_suffix
    # First what a save to the same path would have written.
    for file in (with_suffix, given):
        if file.is_file():
            return file
    near = sorted(other.name for other in given.parent.glob("*.h5"))[:10]
    raise MissingFileError(
        f"there is no workspace file {with_suffix}; the folder "
        + (f"has {', '.join(near)}" if near else "has no .h5 file")
    )


def save_workspace(tree: xr.DataTree, path: str | Path | None = None) -> Path:
    """Write a workspace to ``name.h5``, and its index to ``name.json``; all or nothing.

    Parameters
    ----------
    tree
        Any node of the workspace.
    path
        With or without ``.h5``. Without a path it goes where it came from, or where it
        was saved before.

    Returns
    -------
    pathlib.Path
        The ``.h5`` file.

    Raises
    ------
    WorkspaceError
        If there is no path; if the file was changed by somebody else after this
        workspace was opened or saved; if there is a file that is no workspace, or a
        ``name.json`` that is no index of one.
    FileNotFoundError, PermissionError, OSError
        If the folder does not exist, the file may not be written to, or the disk is full.
    """
    root = tree.root
    state = state_of(root)
    if is_place(state.where if path is None else path):
        where: Path = zarr_files.save_workspace(root, state.where if path is None else path)
        return where
    with state.lock:
        if path is None and state.path is None:
            raise WorkspaceError(
                "this workspace has no file yet; write where to: tree.ws.save('study.h5')"
            )
        target = state.path if path is None else workspace_path(path, new=True)
        assert target is not None
        target = target.absolute()
        if target.is_symlink():
            target = target.resolve()  # the link stays, and leads to the new file
        listing = target.with_suffix(".json")
        check_folder(target)
        _check_target(state, target)
        _check_listing(listing)
        complete(root)
        index = _index_text(root)
        with temporary_path(target) as data, temporary_path(listing) as text:
            written = write_tree(root, data, index=zlib.crc32(index), saved_at=time.time())
            text.write_bytes(index)
            with folder_lock(target.parent):
                _check_unchanged(state, target)
                known = identity(data)
                try:
                    replace_file(data, target)
                    replace_file(text, listing)
                finally:  # record our own file even if interrupted between the two renames
                    if target.exists() and identity(target) == known:
                        state.path, state.known, state.place = target, known, None
                if written.moves:
                    source = FileSource(target, known)
                    source.hold()  # before another saver can replace the file
                    written.relocate(source)
                    add_source(root, source)
    return target


def _index_text(root: xr.DataTree) -> bytes:
    about = {
        "workspace_id": root.attrs["labtree_workspace_id"],
        "name": root.attrs.get("labtree_name"),
        "created_at": root.attrs["labtree_created_at"],
    }
    # A line an item: json's own indentation would be written by slow Python code.
    head = ",\n".join(f" {_JSON(name)}: {_JSON(value)}" for name, value in about.items())
    index = _block(
        {
            namespace: _block({key: _JSON(info) for key, info in keys.items()}, "  ")
            for namespace, keys in describe(root).items()
        },
        " ",
    )
    text = f'{{\n{head},\n "index": {index}\n}}\n'
    return text.encode(errors="backslashreplace")


_JSON = json.JSONEncoder(ensure_ascii=False).encode


def _block(entries: dict[str, str], indent: str) -> str:
    lines = ",\n".join(f"{indent} {_JSON(name)}: {text}" for name, text in entries.items())
    return f"{{\n{lines}\n{indent}}}" if lines else "{}"


def _check_target(state: State, target: Path) -> None:
    """Refuse to replace a file that is no workspace, or that is protected."""
    if not target.exists():
        return
    if not os.access(target, os.W_OK):
        raise PermissionError(
            f"{target} is protected against writing; save under another name, or allow it "
            f"with pathlib.Path({str(target)!r}).chmod(0o644)"
        )
    if identity(target) != state.known and not _is_workspace(target):
        raise WorkspaceError(
            f"{target} is there and is no labtree workspace; nothing was written. Move it "
            "away or save under another name"
        )


def _is_workspace(file: Path) -> bool:
    import h5py

    try:
        catalogue = read_catalogue(file)
        if catalogue is not None:
            root = catalogue.record([]) or {}
            return "labtree_workspace_id" in root.get("attrs", {})
        with h5py.File(file, "r") as h5:
            return "labtree_workspace_id" in h5.attrs
    except (OSError, RuntimeError, FormatError):
        return False


def _check_unchanged(state: State, target: Path) -> None:
    """Refuse to replace a file that somebody else wrote since this workspace knew it."""
    if state.known is None or state.path is None or state.path.resolve() != target.resolve():
        return
    if target.exists() and identity(target) != state.known:
        raise WorkspaceError(
            f"{target} was changed by another process or program after this workspace was "
            "opened or saved; nothing was written. Save under another name, or take over "
            f"what is there first: tree.ws.merge_from(labtree.open_workspace({str(target)!r}))"
            f" and then tree.ws.save({str(target.with_stem(target.stem + '-merged'))!r})"
        )


def _check_listing(listing: Path) -> None:
    """Refuse to replace a .json file that is no index of a workspace."""
    try:
        found = json.loads(listing.read_bytes())
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or "workspace_id" not in found:
        raise WorkspaceError(
            f"{listing} is there and is not the index of a workspace; move it away or save "
            "under another name"
        )


def open_workspace(path: str | Path) -> xr.DataTree:
    """Open a saved workspace to browse it; data are read when they are indexed.

    Parameters
    ----------
    path
        With or without ``.h5``.

    Returns
    -------
    xarray.DataTree
        Lazy: what is stored in it goes to a temporary file until it is saved. ``with
        open_workspace(path) as tree`` or ``tree.ws.close()`` releases the file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FormatError
        If it is no workspace, is cut short, or is from a newer labtree.

    Examples
    --------
    >>> import labtree, numpy as np, tempfile
    >>> tree = labtree.create_workspace()
    >>> tree.ws.store("rec1", "rates", np.arange(3.0))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = tree.ws.save(f"{folder}/study")
    ...     with labtree.open_workspace(path) as saved:
    ...         saved["rec1/rates/data"][1].item()
    1.0
    """
    if is_store(path):
        return zarr_files.open_workspace(path)
    file = workspace_path(path).absolute()
    if file.is_symlink():
        file = file.resolve()
    source, catalogue = open_source(file)
    known = source.known
    tree = _workspace_tree(source, catalogue)
    state = state_of(tree)
    state.is_lazy, state.path, state.known = True, file, known
    _check_index(tree, file, catalogue)
    return tree


def _workspace_tree(source: FileSource, catalogue: Catalogue | None) -> xr.DataTree:
    if catalogue is None:
        _refuse_spikelab(source)
    tree = read_tree(source, catalogue)
    if "labtree_workspace_id" not in tree.attrs:
        close_tree(tree)
        raise FormatError(
            f"{source.name} is a netCDF file but no workspace: its root has no "
            "labtree_workspace_id; open it with xarray.open_datatree"
        )
    return tree


def _refuse_spikelab(source: FileSource) -> None:
    import h5py

    try:
        with h5py.File(source.name, "r") as h5:
            is_spikelab = "__workspace_id__" in h5.attrs
    except (OSError, RuntimeError) as error:
        source.close()
        raise FormatError(
            f"{source.name} cannot be read, it is cut short or damaged: {error}"
        ) from error
    if is_spikelab:
        source.close()
        raise FormatError(
            f"{source.name} was written by SpikeLab; bring it in with "
            f"labtree.import_spikelab({source.name!r})"
        )


def _check_index(tree: xr.DataTree, file: Path, catalogue: Catalogue | None) -> None:
    """Write the .json anew where it is there but does not say what the .h5 holds."""
    listing = file.with_suffix(".json")
    agreed = None if catalogue is None else catalogue.header.get("index")
    try:
        if zlib.crc32(listing.read_bytes()) == agreed:
            return
    except OSError:
        return
    expected = _index_text(tree)
    try:
        # Who saves replaces both under this lock: what is found here is not half of a save.
        with folder_lock(file.parent), temporary_path(listing) as text:
            if identity(file) != state_of(tree).known or listing.read_bytes() == expected:
                return
            _check_listing(listing)
            text.write_bytes(expected)
            replace_file(text, listing)
        done = "it was written anew from the .h5 file"
    except (OSError, WorkspaceError) as error:
        done = f"it was left as it is: {error}"
    warnings.warn(
        f"{listing} does not say what the .h5 file holds; {done}", UserWarning, stacklevel=3
    )


# From this size on, reading and checking an array takes longer than starting a thread.
_LARGE = 1 << 22


def load_workspace(path: str | Path) -> xr.DataTree:
    """Read a saved workspace into memory, whole; the file is closed again.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FormatError
        If it is no workspace, or any part of it is damaged; the message says which.
    """
    if is_store(path):
        return zarr_files.load_workspace(path)
    tree = open_workspace(path)
    try:
        # The tree's own variables, not a copy of them.
        variables = [v for node in tree.subtree for v in node.variables.values()]
        large = [[variable] for variable in variables if variable.nbytes > _LARGE]
        if len(large) > 1:
            with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
                list(pool.map(load_variables, large))
        load_variables(variables)
    finally:
        close_tree(tree)
    state_of(tree).is_lazy = False
    return tree


def load_item(path: str | Path, namespace: str, key: str) -> Any:
    """Read one object out of a saved workspace; nothing else is touched.

    Raises
    ------
    KeyError
        If there is no such item; the message lists what there is.
    FileNotFoundError, FormatError
        As :func:`open_workspace`.
    """
    if is_store(path):
        return zarr_files.load_item(path, namespace, key)
    nodes = [node_name(None, namespace, "namespace"), node_name(None, key, "key")]
    source, catalogue = open_source(workspace_path(path))
    where = f"{namespace}/{key}"
    record = None if catalogue is None else catalogue.alone(nodes)
    if record is not None and catalogue is not None:
        try:
            builder = DatasetBuilder(column_reader(source), catalogue.values)
            return read_node(xr.DataTree(dataset=builder.build(record)), where)
        finally:
            source.close()
    tree = _workspace_tree(source, catalogue)
    try:
        node = find_item(tree, namespace, key)
        if node is None:
            raise missing_item(tree, namespace, key)
        return read_node(node, where)
    finally:
        close_tree(tree)
