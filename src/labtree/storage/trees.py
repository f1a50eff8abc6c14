"""Trees in files: save one whole, open one without reading it, close it."""

import os
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from labtree.errors import (
    AlreadyExistsError,
    DamageWarning,
    FormatError,
    LabtreeError,
    missing_file,
    warn,
)
from labtree.storage.arrays import Column, array_of_column, stored_size
from labtree.storage.attached import attached
from labtree.storage.catalogue import Catalogue, catalogue_of
from labtree.storage.files import check_parent, is_same_file, replace_file, temporary_path
from labtree.storage.garbage_collection import without_garbage_collection
from labtree.storage.locks import folder_lock
from labtree.storage.names import file_name
from labtree.storage.netcdf_reader import open_groups
from labtree.storage.netcdf_source import NetCDFSource
from labtree.storage.nodes import attach_children
from labtree.storage.records import DatasetBuilder, NodeRecord
from labtree.storage.sources import FileSource, identity
from labtree.storage.writing import write_tree


def save_tree(tree: xr.DataTree, path: str | Path, *, compression: str | None = None) -> None:
    """Write a tree of any depth to a netCDF-4 file, all or nothing.

    Parameters
    ----------
    tree
        Arrays of every numpy dtype, attributes of any nesting; in memory, lazy or dask's.
        It may read from the very file that is replaced.
    path
        The file; an older one stays until the new one is safely on disk.
    compression
        ``"gzip"``, which every netCDF-4 reader has, or ``"zstd"``, for all arrays. Without
        it arrays that were compressed in the file that they come from stay so.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    TypeError
        If a part cannot be kept exactly; the message has its path.

    Examples
    --------
    >>> import tempfile, xarray as xr
    >>> tree = xr.DataTree.from_dict({"/units": xr.Dataset({"rate": ("unit", [2.0, 3.5])})})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_tree(tree, f"{folder}/session.h5")
    ...     open_tree(f"{folder}/session.h5")["units/rate"].values
    array([2. , 3.5])
    """
    path = Path(path)
    check_folder(path)
    check_complete(tree, path)
    with temporary_path(path) as temporary:
        written = write_tree(tree, temporary, compression)
        with folder_lock(path.parent):
            replace_file(temporary, path)
            source = FileSource(path)
            source.hold()  # before another saver takes its place
    if written.moves:
        written.relocate(source)
        add_source(tree, source)
    else:
        source.close()


def check_folder(path: Path) -> None:
    """Raise an error that says what is missing where `path` cannot be made."""
    check_parent(path)
    if path.is_dir():
        raise AlreadyExistsError(f"{path} is a folder; give the name of a file")


def open_tree(path: str | Path, **decoding: Any) -> xr.DataTree:
    """Open a file as a tree whose arrays are read when they are indexed.

    Parameters
    ----------
    path
        A netCDF-4 or HDF5 file, of :func:`save_tree` or of another program.
    **decoding
        Options of ``xarray.open_dataset``, such as ``mask_and_scale`` or ``decode_times``,
        for what labtree did not write.

    Warns
    -----
    DamageWarning
        For each part that cannot be read and is left out; the message names it.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FormatError
        If it is not HDF5, is cut short, or is of a newer version.
    """
    return read_tree(*open_source(path), **decoding)


def open_source(path: str | Path) -> tuple[FileSource, Catalogue | None]:
    """Open a file and its catalogue, after checking that both are of the same file."""
    path = Path(path)
    if not path.is_file():
        raise missing_file(f"there is no file {path}", path)
    for _ in range(100):
        try:
            source = FileSource(path)
            source.hold()
        except (FileNotFoundError, FormatError):  # it is being replaced
            continue
        try:
            catalogue = catalogue_of(source.fileno(), path)
            if catalogue is not None and catalogue.last is not None:
                source.advance(catalogue.last)
                return source, catalogue
            if identity(path) == source.known:
                return source, None
        except FileNotFoundError:
            pass
        except BaseException:
            source.close()
            raise
        source.close()  # it was replaced meanwhile
    raise FormatError(
        f"{path} was replaced in every attempt to open it; copy it and open the copy"
    )


def read_tree(source: FileSource, catalogue: Catalogue | None, **decoding: Any) -> xr.DataTree:
    """Return the lazy tree of an opened file."""
    held: list[Any] = [source]
    missing: dict[str, str] = {}
    try:
        if catalogue is not None:
            builder = DatasetBuilder(column_reader(source), catalogue.values)
            tree = build_tree(catalogue.records(), builder, source.name, missing)
        else:
            other = NetCDFSource(source)
            held.append(other)
            tree = _tree_of_groups(other, decoding)
            missing |= other.left_out
            other.release()
    except BaseException as error:
        for each in held:
            each.close()
        if isinstance(error, LabtreeError) and source.name not in str(error):
            raise FormatError(f"{source.name}: {error}") from error
        if isinstance(error, Exception) and not isinstance(error, (LabtreeError, OSError)):
            raise FormatError(
                f"{source.name}: its content contradicts itself: {error!r}"
            ) from error
        raise
    for each in held:
        add_source(tree, each)
    note_left_out(tree, os.path.abspath(source.name), missing)  # noqa: PTH100
    return tree


def column_reader(source: FileSource) -> Callable[[list[str], Column], Any]:
    """Return what makes the arrays of a catalogue's columns, each of which is asked for once.

    Together they cannot claim more bytes than the file has.
    """
    claimed = 0

    def read(path: list[str], column: Column) -> Any:
        nonlocal claimed
        name = "/".join([*path, column.name])
        array = array_of_column(source, column, name)
        claimed += stored_size(array)
        if claimed > source.known[3]:
            raise FormatError(
                f"{source.name}: {name} and the arrays before it claim {claimed} bytes of a "
                f"file of {source.known[3]}; some claim the same bytes"
            )
        return array

    return read


def _tree_of_groups(source: NetCDFSource, decoding: dict[str, Any]) -> xr.DataTree:
    """Return the tree of a file that has no catalogue."""
    nodes: dict[tuple[str, ...], xr.DataTree] = {}
    for path, dataset in open_groups(source, **decoding):
        nodes[path] = node = xr.DataTree(dataset=dataset)
        if not path:
            continue
        parent = nodes.get(path[:-1])
        if parent is None:
            continue  # what is above was left out
        try:
            attach_children(parent, {path[-1]: node})
        except ValueError as error:
            del nodes[path]
            source.left_out["/" + "/".join(path)] = str(error)
            warn(
                f"{source.name}: /{'/'.join(path)} has dimensions or coordinates that do not "
                f"agree with those of a group above it, and was left out ({error}). Each group "
                f"alone: xarray.open_groups({source.name!r}, engine='h5netcdf')",
                DamageWarning,
            )
    return nodes[()]


def build_tree(
    records: list[NodeRecord],
    builder: DatasetBuilder,
    name: str = "",
    left_out: dict[str, str] | None = None,
) -> xr.DataTree:
    """Return the tree of records, whose first is the root and parents come before children.

    Parameters
    ----------
    records
        Of all nodes.
    builder
        Makes the dataset of each.
    name
        The file, for warnings. Without it a node that cannot be made is an error.
    left_out
        Takes the paths of nodes that could not be made, and why.
    """
    nodes: dict[tuple[str, ...], xr.DataTree] = {}
    children: dict[tuple[str, ...], dict[str, xr.DataTree]] = {}
    lost: set[tuple[str, ...]] = set()
    with without_garbage_collection():
        for record in records:
            path = tuple(record["path"])
            if path in nodes or not all(map(_is_name, path)):
                raise FormatError(
                    f"the node {'/'.join(map(str, path))!r} occurs twice, or has no valid name"
                )
            try:
                nodes[path] = xr.DataTree(dataset=builder.build(record))
            except FormatError as error:
                if not path or not name:
                    raise
                lost.add(path)
                if left_out is not None:
                    left_out["/" + "/".join(path)] = str(error)
                warn(
                    f"{name}: /{'/'.join(path)} cannot be read and was left out ({error})",
                    DamageWarning,
                )
                continue
            if path:
                children.setdefault(path[:-1], {})[path[-1]] = nodes[path]
        for path, below in children.items():
            if path not in lost:
                attach_children(nodes[path], below)
    return nodes[()]


def _is_name(part: object) -> bool:
    return isinstance(part, str) and part != "" and "/" not in part


class _Closer:
    """Closes what a tree reads from; the tree's copies and pickles have nothing to close."""

    def __init__(self) -> None:
        # Weak: a file that no array reads any more, after a save, closes itself.
        self.held: weakref.WeakSet[Any] = weakref.WeakSet()
        self.first: list[Callable[[], None]] = []
        self.then: list[Callable[[], None]] = []

    def release(self) -> None:
        # Another thread, or the collector, may empty it meanwhile.
        for source in list(self.held):
            self.held.discard(source)
            source.close()

    def __call__(self) -> None:
        try:
            for call in self.first:
                call()
        finally:
            self.release()
            for call in self.then:
                call()

    def __reduce__(self) -> Any:
        return _Closer, ()


class _LeftOut:
    """What of a file is not in the tree that was opened from it."""

    def __init__(self) -> None:
        self.file = ""
        self.parts: dict[str, str] = {}  # the path in the file, and the reason
        self.nodes: list[tuple[weakref.ref[xr.DataTree], str]] = []  # where they belong
        self.name_of: Callable[[str], str] = file_name


def note_left_out(
    tree: xr.DataTree,
    file: str,
    parts: dict[str, str],
    name_of: Callable[[str], str] = file_name,
) -> None:
    """Remember what of a file is not in the tree that was opened from it.

    Parameters
    ----------
    tree, file
        The tree, and the path of the file.
    parts
        The paths of the parts in the file, and why they could not be read.
    name_of
        Gives the name that a node has in the file.
    """
    if not parts:
        return
    left = attached(tree, _LeftOut)
    left.file, left.parts, left.name_of = file, dict(parts), name_of
    left.nodes = [(weakref.ref(_deepest(tree, part, name_of)), part) for part in parts]


def _deepest(tree: xr.DataTree, path: str, name_of: Callable[[str], str]) -> xr.DataTree:
    """Return the node that a path in the file leads to, or the last one before it."""
    for part in path.strip("/").split("/"):
        below = {name_of(name): child for name, child in tree.children.items()}
        if part not in below:
            break
        tree = below[part]
    return tree


def check_read(root: xr.DataTree, path: Sequence[str]) -> None:
    """Refuse to give a node, or to say that there is none, of which a part was left out.

    Parameters
    ----------
    root, path
        The tree, and the names of the node and of those above it.

    Raises
    ------
    FormatError
        If a part of it could not be read when the file was opened.
    """
    left = attached(root, _LeftOut)
    if not left.parts:
        return
    node: xr.DataTree | None = root
    for depth, name in enumerate(path, 1):
        node = None if node is None else node.children.get(name)
        where = "/" + "/".join(map(left.name_of, path[:depth]))
        if node is None and where not in left.parts:
            return
        if node is None:
            lost = [where]
            break
    else:
        found = [(each(), part) for each, part in left.nodes]
        lost = [
            part
            for each, part in found
            if each is not None and any(node is above for above in (each, *each.parents))
        ]
    if lost:
        what = "/".join(path)
        raise FormatError(
            f"{left.file}: {lost[0]} could not be read when the file was opened"
            + (f", nor {len(lost) - 1} more parts of {what}" if len(lost) > 1 else "")
            + f" ({left.parts[lost[0]]})"
            + ("" if node is None else f"; tree[{what!r}].to_dataset() gives the rest of it")
        )


def check_complete(tree: xr.DataTree, path: Path) -> None:
    """Refuse to replace a file by a tree that lacks parts of it.

    Raises
    ------
    FormatError
        If `tree` was opened from the file at `path`, and parts of it could not be read.
    """
    left = attached(tree.root, _LeftOut)
    if left.parts and is_same_file(path, Path(left.file)):
        shown = ", ".join(list(left.parts)[:5])
        raise FormatError(
            f"{path} holds parts that could not be read when it was opened, and would lose "
            f"them: {shown}. Nothing was written; save under another name"
        )


def is_complete(tree: xr.DataTree) -> bool:
    """Return whether a tree has all parts of the file that it was opened from."""
    return not attached(tree.root, _LeftOut).parts


def forget_left_out(tree: xr.DataTree) -> None:
    """Give up the parts that could not be read, so that their file may be replaced."""
    attached(tree.root, _LeftOut).parts = {}


def add_source(tree: xr.DataTree, source: Any) -> None:
    """Close a source when the tree is closed; ``with`` and ``tree.close()`` do that."""
    closer = attached(tree, _Closer)
    closer.held.add(source)
    tree.set_close(closer)


def when_closed(
    tree: xr.DataTree, call: Callable[[], None], *, before_files: bool = False
) -> None:
    """Call a function when the tree is closed, before or after the files that it reads from.

    The function must not hold the tree.
    """
    closer = attached(tree, _Closer)
    (closer.first if before_files else closer.then).append(call)
    tree.set_close(closer)


def release_sources(tree: xr.DataTree) -> None:
    """Release the files that a tree reads from; what was not loaded cannot be read any more."""
    attached(tree, _Closer).release()
