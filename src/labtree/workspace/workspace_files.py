"""Workspaces in files of any format: save, open, load, read one item."""

import os
import weakref
from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import xarray as xr

from labtree.display import plural
from labtree.errors import (
    ClosedError,
    DamageWarning,
    FormatError,
    MissingFileError,
    WorkspaceError,
    silenced,
    unknown_name,
    warn,
)
from labtree.formats import takes
from labtree.storage.arrays import load_variables
from labtree.storage.marks import iterate_nodes, mark_nodes
from labtree.storage.nodes import detach_child
from labtree.storage.trees import forget_left_out, release_sources, when_closed
from labtree.workspace.items import (
    add_times,
    file_named,
    find_whole_item,
    iterate_items,
    missing_item,
    node_name,
    read_node,
)
from labtree.workspace.operations import add_identity, create_workspace
from labtree.workspace.state import State, mark_saved, state_of, watch
from labtree.workspace.stores import Hdf5Store, Store, Update, store_at

_SHOWN = 10


def save_workspace(
    tree: xr.DataTree,
    path: Any = None,
    *,
    overwrite: bool = False,
    skip_damaged: bool = False,
    compression: str | None = None,
) -> Path:
    """Write a workspace to a file or a zarr store; all or nothing.

    Parameters
    ----------
    tree
        Any node of the workspace.
    path
        ``name.h5`` or ``name``, to which an index ``name.json`` is written too; a folder
        ``name.zarr``, a URL or an ``icechunk.Storage``. Without a path it goes where it came
        from, or where it was saved before.
    overwrite
        Whether items that are at `path`, and not in this workspace, may be lost.
    skip_damaged
        Whether items whose data cannot be read are left out, with a warning that names
        them; the save is refused otherwise.
    compression
        ``"gzip"`` or ``"zstd"`` for all arrays. Without it arrays that were compressed in
        the file or store that they come from stay so.

    Returns
    -------
    pathlib.Path
        Where it is now; of a URL or an ``icechunk.Storage``, what was given.

    Raises
    ------
    WorkspaceError
        If there is no path; if what is there holds items that this workspace lacks, was
        changed by another program after this workspace was opened or saved, or is no
        workspace. The message has the lines to write.
    FileNotFoundError, PermissionError, OSError
        If the folder does not exist, the file may not be written to, or the disk is full.
    """
    root = tree.root
    state = state_of(root)
    with state.lock:
        store = _own_store(state, "save to") if path is None else store_at(path, new=True)
        if state.store is not None and store.name == state.store.name:
            store = state.store
        if skip_damaged and store.name in state.names:
            raise WorkspaceError(
                f"skip_damaged=True would remove the damaged items from {store.name}, which "
                "they came from; save to another path"
            )
        store.check()
        seen = store.version()
        _check_known(state, store, seen, root, overwrite)
        add_identity(root)
        is_plain = not skip_damaged and compression is None
        if not (is_plain and _save_changes(root, state, store, seen)):
            _save_whole(root, state, store, seen, overwrite, skip_damaged, compression)
    where: Path = store.location
    return where


def _own_store(state: State, purpose: str) -> Store:
    """Return where a workspace came from, or was saved before, in order to change that."""
    if state.store is None:
        raise WorkspaceError(
            "this workspace has no file yet; write where to: tree.ws.save('study.h5')"
        )
    if state.is_closed:
        raise ClosedError(f"{state.store.name} was closed; open it again to {purpose} it")
    return state.store


def _save_changes(
    root: xr.DataTree,
    state: State,
    store: Store,
    seen: Hashable | None,
    is_last: bool = False,
) -> bool:
    """Write what changed into what the workspace came from; False where this cannot be."""
    if store is not state.store or seen is None or seen != state.current:
        return False
    update = Update(root, state.saved, seen, state.note_version, is_last=is_last)
    return store.save_changes(update)


def _save_whole(
    root: xr.DataTree,
    state: State,
    store: Store,
    seen: Hashable | None,
    overwrite: bool = False,
    skip_damaged: bool = False,
    compression: str | None = None,
) -> None:
    latest: list[Hashable] = []

    def check(found: Hashable | None, new: Hashable) -> None:
        if found != seen:  # somebody has saved meanwhile
            _check_known(state, store, found, root, overwrite)
        # An interrupt right after the save must not make it somebody else's.
        state.versions.add(new)
        latest.append(new)

    if overwrite:
        forget_left_out(root)
    add_times(node for _, _, node in iterate_items(root))
    marks = mark_nodes(root)
    kept, left_out = _without_damaged(root) if skip_damaged else (root, set())
    try:
        store.save(kept, check, compression)
    except FormatError as error:
        if skip_damaged:
            raise
        raise FormatError(
            f"{error}; nothing was written. To save the rest elsewhere write "
            "tree.ws.save(path, skip_damaged=True)"
        ) from error
    if state.is_durable and store is not state.store:
        return  # a copy: the workspace goes on in the file that it is open in
    for place in left_out:
        for path in (*marks.below(place), place):
            del marks[path]
    state.saved = marks
    state.current = latest[-1]
    state.store = store
    state.names.add(store.name)


def compact_workspace(tree: xr.DataTree) -> int:
    """Write the file of a workspace again, without what no item uses any more.

    Changes are saved with it; all or nothing.

    Returns
    -------
    int
        By how many bytes the file is smaller now.

    Raises
    ------
    WorkspaceError
        If it has no file yet, or another program changed it.
    """
    root = tree.root
    state = state_of(root)
    with state.lock:
        store = _own_store(state, "compact")
        store.check()
        seen = store.version()
        _check_known(state, store, seen, root, overwrite=False)
        add_identity(root)
        before = _size(store)
        _save_whole(root, state, store, seen)
        return before - _size(store)


def _size(store: Store) -> int:
    path = Path(store.location) if isinstance(store.location, (str, Path)) else Path()
    return path.stat().st_size if path.is_file() else 0


def _check_known(
    state: State, store: Store, seen: Hashable | None, root: xr.DataTree, overwrite: bool
) -> None:
    """Refuse to replace what this workspace does not know."""
    if seen is not None and seen == state.incomplete and not overwrite:
        raise WorkspaceError(
            f"{store.name} has damaged parts that were left out when it was opened, and a save "
            "would remove them for good; save to another path, or give them up with "
            f"tree.ws.save({store.name!r}, overwrite=True)"
        )
    if seen is None or seen in state.versions:
        return
    if store.name in state.names and not overwrite:
        raise _changed(store)
    try:
        there = store.nodes()
    except FormatError as error:
        raise WorkspaceError(
            f"{store.name} exists and is no labtree workspace; nothing was written. Move it "
            f"away or save under another name. What it is: {error}"
        ) from error
    lost = sorted(there - {path for path, _ in iterate_nodes(root)})
    items = ["/".join(path) for path in lost if len(path) >= 2]
    if not items or overwrite:
        return
    shown = ", ".join(items[:_SHOWN]) + (", ..." if len(items) > _SHOWN else "")
    raise WorkspaceError(
        f"{store.name} holds another workspace, and {plural(len(items), 'item')} of it "
        f"{'is' if len(items) == 1 else 'are'} not in this one: {shown}. Nothing was written. "
        f"To keep them write tree.ws.merge_from(labtree.open_workspace({store.name!r})) first; "
        f"to give them up, tree.ws.save({store.name!r}, overwrite=True)"
    )


def _changed(store: Store) -> WorkspaceError:
    merged = store.name.removesuffix(".h5").removesuffix(".zarr") + "-merged"
    return WorkspaceError(
        f"{store.name} was changed by another process or program after this workspace was "
        "opened or saved; nothing was written. Save under another name, or take over what is "
        f"there first: tree.ws.merge_from(labtree.open_workspace({store.name!r})) and then "
        f"tree.ws.save({merged!r})"
    )


def _without_damaged(root: xr.DataTree) -> tuple[xr.DataTree, set[tuple[str, str]]]:
    """Return a tree without the items that cannot be read, and the paths of those."""
    damaged: dict[tuple[str, str], str] = {}
    for name, group in root.children.items():
        for key, node in group.children.items():
            try:
                for below in node.subtree:
                    for variable in below.variables.values():
                        load_variables([variable.copy(deep=False)])
            except FormatError as error:
                damaged[name, key] = str(error)
    if not damaged:
        return root, set()
    warn(
        f"{plural(len(damaged), 'item')} cannot be read and left out: "
        + "; ".join(f"{'/'.join(path)} ({why})" for path, why in damaged.items()),
        DamageWarning,
    )
    kept = root.copy(deep=False)
    for name, key in damaged:
        group = kept.children[name]
        detach_child(group, key)
        if not group.children:
            detach_child(kept, name)
    return kept, set(damaged)


@takes("a workspace of labtree", "workspace")
def open_workspace(path: str | Path, mode: str = "r") -> xr.DataTree:
    """Open a saved workspace; data are read when they are indexed.

    Parameters
    ----------
    path
        A file with or without ``.h5``, a folder ``name.zarr``, or a URL.
    mode
        ``"r"``: the file changes only in ``tree.ws.save()``; until then stored objects are
        in a temporary file. ``"a"``, only for a ``.h5`` file, which is created if it does
        not exist: the result of store, rename, add_note, delete and merge_from is on the
        disk when the call returns. Only one workspace at a time can have a file open in
        this mode; others can read it.

    Returns
    -------
    xarray.DataTree
        Lazy. ``with open_workspace(path) as tree`` or ``tree.ws.close()`` releases the
        file; in mode ``"a"`` that also saves what was changed through plain xarray and
        writes the index ``name.json``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FormatError
        If it is no workspace, is cut short, or is from a newer labtree.
    BusyFileError
        In mode ``"a"``, if another process or workspace is changing the file.

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
    if mode == "a":
        return _open_for_changes(path)
    if mode != "r":
        raise unknown_name("mode", mode, ["r", "a"], WorkspaceError)
    return _open(store_at(path))


def _open_for_changes(path: str | Path) -> xr.DataTree:
    try:
        store = store_at(path)
    except MissingFileError:
        store = store_at(path, new=True)
    store.check()
    store.hold()
    try:
        if store.version() is None:
            tree = create_workspace()
            state_of(tree).is_lazy = True
            _save_whole(tree, state_of(tree), store, None)
        else:
            tree = _open(store)
        state = state_of(tree)
        if state.incomplete is not None:
            raise WorkspaceError(
                f"{store.name} has damaged parts that were left out, and cannot be opened with "
                f'mode="a"; save the rest elsewhere: labtree.open_workspace({store.name!r})'
                ".ws.save(path)"
            )
    except BaseException:
        store.release()
        raise
    state.is_durable = True
    root = weakref.ref(tree)
    when_closed(tree, lambda: _finish(root()), before_files=True)
    return tree


def _finish(root: xr.DataTree | None) -> None:
    """Save what is not on the disk yet, and let others change the file."""
    state = None if root is None else state_of(root)
    if root is None or state is None or not state.is_durable or state.is_closed:
        return
    store = state.store
    if store is None or state.process != os.getpid():
        return
    with state.lock:
        try:
            add_identity(root)
            seen = store.version()
            if seen not in state.versions:
                raise _changed(store)
            if not _save_changes(root, state, store, seen, is_last=True):
                _save_whole(root, state, store, seen)
        finally:
            store.release()


def _open(store: Store) -> xr.DataTree:
    tree, version = store.open()
    state = state_of(tree)
    state.is_lazy, state.store = True, store
    state.note_version(version)
    state.incomplete = None if store.is_whole else version
    state.names.add(store.name)
    mark_saved(tree)
    watch(tree)
    if isinstance(store, Hdf5Store):
        store.check_listing(tree, version)
    return tree


# From this size on, reading and checking an array takes longer than starting a thread.
_LARGE = 1 << 22


@takes("a workspace of labtree", "workspace")
def load_workspace(path: str | Path) -> xr.DataTree:
    """Read a saved workspace into memory, whole; the file is closed again.

    Parameters
    ----------
    path : path
        The workspace, with or without ``.h5``.

    Returns
    -------
    DataTree
        Everything in memory; see ``tree.ws``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FormatError
        If it is no workspace, or any part of it is damaged; the message says which.

    Examples
    --------
    >>> import labtree
    >>> tree = labtree.create_workspace()
    >>> tree.ws.store("rec1", "threshold", 0.5)
    >>> labtree.load_workspace(tree.ws.save("study")).ws["rec1", "threshold"]
    0.5
    """
    tree = open_workspace(path)
    state = state_of(tree)
    try:
        # The tree's own variables, not a copy of them.
        variables = [v for node in tree.subtree for v in node.variables.values()]
        is_remote = not isinstance(state.store, Hdf5Store)
        large = [[v] for v in variables if is_remote or v.nbytes > _LARGE]
        if len(large) > 1 and state.store is not None:
            with ThreadPoolExecutor(state.store.workers) as pool:
                list(pool.map(load_variables, large))
        load_variables(variables)
    finally:
        release_sources(tree)
    state.is_lazy = False
    return tree


@takes("a workspace of labtree", "workspace")
def load_item(path: str | Path, namespace: str, key: str) -> Any:
    """Read one object out of a saved workspace, and nothing else.

    Parameters
    ----------
    path : path
        The workspace, with or without ``.h5``.
    namespace, key : str
        The item.

    Returns
    -------
    object
        Of the type that was stored, in memory.

    Raises
    ------
    KeyError
        If there is no such item; the message lists what there is.
    FileNotFoundError, FormatError
        As :func:`open_workspace`.

    Examples
    --------
    >>> import labtree
    >>> tree = labtree.create_workspace()
    >>> tree.ws.store("rec1", "threshold", 0.5)
    >>> labtree.load_item(tree.ws.save("study"), "rec1", "threshold")
    0.5
    """
    nodes = [node_name(None, namespace, "namespace"), node_name(None, key, "key")]
    where = f"{namespace}/{key}"
    store = store_at(path)
    with file_named(store.name):
        dataset = store.item(nodes)
        if dataset is not None:
            return read_node(xr.DataTree(dataset=dataset), where)
        with silenced(DamageWarning):  # other items do not matter
            tree, _ = store.open()
        with tree:
            node = find_whole_item(tree, namespace, key)
            if node is None:
                raise missing_item(tree, namespace, key)
            return read_node(node, where)
