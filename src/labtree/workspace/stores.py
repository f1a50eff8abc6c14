"""Where a workspace is saved: an HDF5 file with its index, or a zarr store."""

import contextlib
import os
import time
import zlib
from collections.abc import Callable, Collection, Hashable
from pathlib import Path
from typing import Any, NamedTuple

import xarray as xr

from labtree.errors import (
    AlreadyExistsError,
    FormatError,
    LabtreeWarning,
    NotWritableError,
    WorkspaceError,
    damage_as_format_error,
    missing_file,
    warn,
    write_errors_named,
)
from labtree.storage.catalogue import file_version
from labtree.storage.files import check_regular, replace_file, temporary_path
from labtree.storage.hdf5_end import Record
from labtree.storage.hdf5_files import open_hdf5
from labtree.storage.locks import WriterLock, folder_lock, writer_lock
from labtree.storage.marks import Marks, iterate_nodes
from labtree.storage.marks import Path as NodePath
from labtree.storage.records import DatasetBuilder
from labtree.storage.redo_log import repair
from labtree.storage.sources import FileSource
from labtree.storage.tree_changes import Changes
from labtree.storage.tree_file import TreeFile, read_from_file
from labtree.storage.trees import (
    add_source,
    check_complete,
    check_folder,
    column_reader,
    is_complete,
    open_source,
    read_tree,
)
from labtree.storage.writing import Written, write_tree
from labtree.storage.zarr.locations import Folder, is_zarr, is_zarr_folder, location_of
from labtree.storage.zarr.trees import (
    Opened,
    open_location,
    read_node,
    read_nodes,
    save_location,
)
from labtree.workspace import listing
from labtree.workspace.items import CREATED, add_times

ID = "labtree_workspace_id"
#: Called with the version that is there and the one that is written, before it counts.
Check = Callable[[Hashable | None, Hashable], None]
# Ends of names that other programs take for a format; a name such as "day.2" is none.
_FORMATS = (
    ".nc", ".nc4", ".cdf", ".hdf5", ".hdf", ".he5", ".json", ".zip", ".mat", ".nwb", ".csv",
    ".parquet", ".npz", ".npy", ".pkl",
)  # fmt: skip


class Update(NamedTuple):
    """A tree that changed since it was opened from a store, or saved to it.

    Attributes
    ----------
    root
        The tree.
    marks
        The nodes as they are in that version; brought up to date.
    version
        What is there, or else nothing is done.
    committed
        Called with the new version when it is there for good.
    places
        The paths of the nodes that changed; without them they are looked for, and the index
        is written, too.
    is_new
        Whether nobody else has the variables at these places: they are read from the store
        from then on.
    is_last
        Whether it is not saved again soon, so that the catalogue is written whole.
    """

    root: xr.DataTree
    marks: Marks
    version: Hashable
    committed: Callable[[Hashable], None]
    places: Collection[NodePath] | None = None
    is_new: bool = False
    is_last: bool = False


def store_at(location: Any, *, new: bool = False) -> "Store":
    """Return the store that a path, a URL or an ``icechunk.Storage`` names.

    Parameters
    ----------
    location
        A file with or without ``.h5``, a folder ``name.zarr``, a URL.
    new
        Whether it is for a save: it need not exist.

    Raises
    ------
    MissingFileError
        If it is not `new` and there is no such file.
    WorkspaceError
        If no workspace can be saved under such a name; the message has the name to write.
    """
    if is_zarr(location) or (not new and _is_folder(location) and is_zarr_folder(location)):
        return ZarrStore(location)
    return Hdf5Store(_new_file(location) if new else _existing_file(location))


def _is_folder(location: Any) -> bool:
    return isinstance(location, (str, Path)) and Path(location).expanduser().is_dir()


def _new_file(location: Any) -> Path:
    given = _named(location)
    text, suffix = str(location), given.suffix.lower()
    if given.suffix == ".h5":
        return given
    if given.is_dir() or text.endswith(("/", os.sep)):
        raise AlreadyExistsError(
            f"{text!r} is a folder, and a workspace is a file: write "
            f"{str(given / 'study.h5')!r}, or {str(given.with_name(given.name + '.h5'))!r} "
            "beside it"
        )
    if suffix in _FORMATS:
        raise WorkspaceError(
            f"{text!r} would be the name of another format; a workspace is an HDF5 file "
            f"(netCDF-4) whose name ends in .h5: write {str(given.with_suffix('.h5'))!r}"
        )
    return given.with_name(given.name + ".h5")


def _existing_file(location: Any) -> Path:
    given = _named(location)
    with_suffix = given if given.suffix == ".h5" else given.with_name(given.name + ".h5")
    # First what a save to the same path would have written.
    for file in (with_suffix, given):
        if file.exists() and not file.is_dir():
            check_regular(file)
            return file
    if given.is_dir():
        raise FormatError(f"{given} is a folder; a workspace is a file, such as study.h5")
    raise missing_file(f"there is no workspace file {with_suffix}", with_suffix)


def _named(location: Any) -> Path:
    given = Path(os.fspath(location)).expanduser()
    if given.name in ("", ".."):
        raise WorkspaceError(
            f"{str(location)!r} names no file; write a name such as 'study.h5'"
        )
    return given


class Hdf5Store:
    """``name.h5``, and its index ``name.json`` for people and scripts.

    Attributes
    ----------
    name
        How messages call it; two stores that are one and the same have one name.
    location
        What ``tree.ws.path`` shows.
    workers
        How many threads read from it at once.
    is_whole
        Whether all that is there was in the tree that was opened.
    """

    workers = 4
    is_whole = True

    def __init__(self, file: Path):
        file = file.absolute()
        self._given = file
        # A link stays, and leads to the new file.
        self.file = file.resolve() if file.is_symlink() else file
        self.location = self.file
        self.name = str(self.file)
        self.listing = self.file.with_suffix(".json")
        self._agreed: int | None = None  # checksum of the index that the file was saved with
        self._lines: listing.Index | None = None
        self._held: WriterLock | None = None
        self._source: FileSource | None = None  # of what was written in mode "a"
        self._changed: TreeFile | None = None  # kept open from one save to the next

    def version(self) -> Hashable | None:
        """Return what changes with every save there; None if nothing is there."""
        file = self._changed
        try:
            if file is not None and file.is_usable and file.log.has_failed:
                with write_errors_named(self.file), self._writing():
                    file.log.settle()
            return file_version(self.file)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def nodes(self) -> set[tuple[str, ...]]:
        """Return the paths of all nodes of the workspace that is there."""
        with self.open()[0] as tree:
            return {path for path, _ in iterate_nodes(tree)}

    def check(self) -> None:
        """Raise an error if nothing can be saved there, before any work is done."""
        check_folder(self.file)
        if self.file.exists():
            if not self.file.is_file():
                raise AlreadyExistsError(
                    f"{self._given} is a pipe, a device or a socket; save under another name"
                )
            if not os.access(self.file, os.W_OK):
                raise NotWritableError(
                    f"{self.name} is protected against writing; save under another name, or "
                    f"allow it with pathlib.Path({self.name!r}).chmod(0o644)"
                )
        listing.check(self.listing, self._agreed)

    def save(self, root: xr.DataTree, check: Check, compression: str | None = None) -> None:
        """Write a tree, all or nothing; `check` can still refuse it at the end."""
        check_complete(root, self.file)
        lines = listing.Index()
        index = lines.text(root)
        about = {"index": zlib.crc32(index), "saved_at": time.time()}
        with write_errors_named(self.file), temporary_path(self.file) as data:
            written = write_tree(root, data, compression, **about)
            with self._writing():
                with folder_lock(self.file.parent):
                    known = file_version(data)
                    check(self.version(), known)
                    self._let_go()
                    replace_file(data, self.file)
                    self._agreed, self._lines = zlib.crc32(index), lines
                    if written.moves:
                        self._relocate(root, written, known)
                self._write_index(index)

    def save_changes(self, update: Update) -> bool:
        """Write what changed of a tree into the file, all or nothing.

        Returns
        -------
        bool
            False where this is not possible: nothing was done, and :meth:`save` is needed.
        """
        with write_errors_named(self.file), self._writing():
            file = self._opened(update.root, update.version)
            if file is None or (update.places is None and file.is_mostly_dead):
                return False
            try:
                index = self._write_changes(file, update)
            except BaseException as error:
                self._lines = None  # what was made of items may not be what is saved
                if not isinstance(error, FormatError):
                    raise
                self._let_go()  # a whole save tells what is wrong, or does without it
                return False
            if index is not None:
                self._write_index(index)
        return True

    def _write_changes(self, file: TreeFile, update: Update) -> bytes | None:
        """Write what changed; return the text of the new index, if there is to be one."""
        root, marks = update.root, update.marks
        changes = file.find(root, marks, update.places)
        untimed = [
            path
            for path, node in changes.nodes.items()
            if len(path) == 2 and CREATED not in node.attrs
        ]
        add_times(changes.nodes[path] for path in untimed)
        changes.described += [p for p in untimed if p not in changes.touched]
        index = None
        if update.places is None:
            index = self._index(root, file, changes, marks)
        elif self._lines is not None:
            self._lines.forget(update.places)

        def done(written: Written) -> None:
            update.committed(file.version)
            if index is not None:
                self._agreed = zlib.crc32(index)
            if update.is_new and written.records:
                if self._source is None:
                    self._source = FileSource(self.file)
                    add_source(root, self._source)
                self._source.advance(file.version)
                read_from_file(changes, written, self._source)
            elif written.moves:
                self._relocate(root, written, file.version)

        about = None if index is None else zlib.crc32(index)
        file.write(changes, marks, done, whole=update.is_last, index=about)
        return index

    def _write_index(self, index: bytes) -> None:
        """Put the index at its place; the .h5 file is the truth, and it is written already."""
        try:
            with temporary_path(self.listing) as text:
                text.write_bytes(index)
                with folder_lock(self.file.parent):
                    replace_file(text, self.listing, durable=False)
        except OSError as error:
            warn(
                f"the workspace was saved in {self.name}, but its index {self.listing} could "
                f"not be written, and says what was there before: {error}. It is written "
                "again with the next save",
                LabtreeWarning,
            )

    def hold(self) -> None:
        """Keep others from changing the file until :meth:`release`."""
        if self._held is None:
            with write_errors_named(self.file):
                held = WriterLock(self.file)
                try:
                    repair(self.file)
                except BaseException:
                    held.release()
                    raise
                self._held = held

    def release(self) -> None:
        """Release the file, after what has to wait for readers was tried once more."""
        try:
            if self._changed is not None:
                with write_errors_named(self.file):
                    self._changed.close()
                self._changed = None
        finally:
            if self._held is not None:
                self._held.release()
                self._held = None

    def _writing(self) -> contextlib.AbstractContextManager[None]:
        is_held = self._held is not None and self._held.is_held  # not so in a fork
        return contextlib.nullcontext() if is_held else writer_lock(self.file)

    def _index(
        self,
        root: xr.DataTree,
        file: TreeFile,
        changes: Changes,
        marks: Marks,
    ) -> bytes:
        """Return the index of a tree; of items that did not change, what it said before."""
        if self._lines is None:
            self._lines = listing.Index()
            with contextlib.suppress(OSError, ValueError):
                found = self.listing.read_bytes()
                if zlib.crc32(found) == file.header.get("index"):
                    self._lines.take(found, root, marks)
        self._lines.forget((*changes.touched, *changes.removed, *changes.moved.values()))
        self._lines.forget(changes.reordered)
        return self._lines.text(root)

    def _opened(self, root: xr.DataTree, version: Hashable) -> TreeFile | None:
        """Return the file, open for changes, or None where it cannot be changed in place."""
        file = self._changed
        if file is not None and file.is_usable and file.version == version:
            return file
        self._let_go()
        try:
            file = TreeFile(self.file)
        except FormatError:
            return None
        if file.version != version:
            file.close()
            return None
        self._changed = file
        add_source(root, file)
        return file

    def _let_go(self) -> None:
        if self._changed is not None:
            self._changed.close(0)
            self._changed = self._source = None

    def _relocate(self, root: xr.DataTree, written: Written, version: Hashable) -> None:
        """Let arrays that were copied from another file be read from this one."""
        record = version if isinstance(version, Record) else None
        source = FileSource(self.file, record=record)
        source.hold()  # before another program can replace the file
        add_source(root, source)
        written.relocate(source)

    def open(self) -> tuple[xr.DataTree, Hashable]:
        """Return the lazy tree that is there, and its version."""
        source, catalogue = open_source(self.file)
        record = None if catalogue is None else catalogue.last
        known: Hashable = source.known if record is None else record
        if catalogue is None:
            _refuse_spikelab(source)
        tree = read_tree(source, catalogue)
        if catalogue is None:
            self.is_whole = is_complete(tree)
        else:
            self.is_whole = len(list(tree.subtree)) == catalogue.text.count(b"\n")
            self._agreed = catalogue.header.get("index")
        if ID not in tree.attrs:
            tree.close()
            raise FormatError(
                f"{self.name} is a netCDF file but no workspace: its root has no {ID}; open "
                "it with labtree.open or xarray.open_datatree"
            )
        return tree, known

    def item(self, path: list[str]) -> xr.Dataset | None:
        """Return the dataset of one node if it can be read without the others."""
        source, catalogue = open_source(self.file)
        record = None if catalogue is None else catalogue.alone(path)
        if record is None or catalogue is None:
            source.close()
            return None
        return DatasetBuilder(column_reader(source), catalogue.values).build(record)

    def check_listing(self, root: xr.DataTree, version: Hashable) -> None:
        """Write the index again where it does not say what the file holds."""
        listing.renew(
            self.listing,
            root,
            self._agreed,
            lambda: writer_lock(self.file, 0),
            lambda: self.version() == version,
        )


def _refuse_spikelab(source: FileSource) -> None:
    try:
        with damage_as_format_error(source.name), open_hdf5(source.name) as h5:
            is_spikelab = "__workspace_id__" in h5.attrs
    except BaseException:
        source.close()
        raise
    if is_spikelab:
        source.close()
        raise FormatError(
            f"{source.name} was written by SpikeLab; import it with "
            f"labtree.import_spikelab({source.name!r})"
        )


class ZarrStore:
    """A zarr store in a folder, or at a URL through icechunk; used as `Hdf5Store` is."""

    workers = 8
    is_whole = True

    def __init__(self, location: Any):
        self._where = location_of(location)
        self.name = self._where.name
        self.location = location
        if isinstance(self._where, Folder):
            self.location = self._where.path

    def version(self) -> Hashable | None:
        """Return what changes with every save there; None if nothing is there."""
        return self._where.version()

    def nodes(self) -> set[tuple[str, ...]]:
        """Return the paths of all nodes of the workspace that is there."""
        return {tuple(record["path"]) for record in self._opened().records}

    def _opened(self) -> Opened:
        return open_location(location_of(self.location))

    def check(self) -> None:
        """Do nothing: a save looks at the place before it writes anything."""

    def save(self, root: xr.DataTree, check: Check, compression: str | None = None) -> None:
        """Write a tree, all or nothing."""
        save_location(root, self._where, check, compression)

    def save_changes(self, update: Update) -> bool:
        """Return False: a zarr store is written whole."""
        return False

    def hold(self) -> None:
        """Refuse: only a ``.h5`` file can be changed in place.

        Raises
        ------
        WorkspaceError
            The message has the lines to write instead.
        """
        raise WorkspaceError(
            f'{self.name} is a zarr store, and mode="a" is for .h5 files; open it without a '
            "mode and call tree.ws.save(), or store into it with labtree.store_shared"
        )

    def release(self) -> None:
        """Do nothing: it is never held."""

    def open(self) -> tuple[xr.DataTree, Hashable]:
        """Return the lazy tree that is there, and its version."""
        opened = self._opened()
        tree = read_nodes(opened)
        self.is_whole = not opened.left_out
        if ID not in tree.attrs:
            raise FormatError(
                f"{self.name} holds a tree but no workspace: its root has no {ID}; open it "
                "with labtree.open"
            )
        return tree, opened.version

    def item(self, path: list[str]) -> xr.Dataset | None:
        """Return the dataset of one node if it can be read without the others."""
        return read_node(location_of(self.location), path)


#: Where a workspace is saved, whatever its format.
Store = Hdf5Store | ZarrStore
