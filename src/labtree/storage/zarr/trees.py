"""Trees in zarr stores: save one whole, open one without reading it.

The groups of the tree are the groups of the store, where any program finds them. The root's
zarr.json holds the metadata of all below it and, as a member of ``consolidated_metadata``, a
catalogue: the records of all nodes, and the values of index coordinates. It counts only
while these metadata are those that it was written with and the folders hold what it lists;
else the store is read through the metadata of its groups and arrays.
"""

import base64
import functools
import json
import os
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import xarray as xr

from labtree.errors import (
    DamageWarning,
    FormatError,
    LabtreeError,
    MissingFileError,
    damage_as_format_error,
    missing_file,
    warn,
)
from labtree.storage.arrays import Column
from labtree.storage.blobs import plain_dtype
from labtree.storage.catalogue import PAGE, Catalogue, catalogue_text
from labtree.storage.compression import find_compression
from labtree.storage.hdf5_end import VERSION, crc32c
from labtree.storage.records import (
    DatasetBuilder,
    NodeRecord,
    variable_records,
)
from labtree.storage.trees import build_tree, note_left_out
from labtree.storage.versions import check_version
from labtree.storage.zarr.arrays import ZarrArray
from labtree.storage.zarr.locations import (
    Check,
    Folder,
    Location,
    location_of,
    write_object,
)
from labtree.storage.zarr.members import CONTRADICTIONS, rebuilt_catalogue
from labtree.storage.zarr.metadata import METADATA, dump, file_names, group_metadata
from labtree.storage.zarr.writing import WrittenStore, write_nodes

_CATALOGUE = "labtree_catalogue"


class Opened(NamedTuple):
    """What an opened store tells: where it is, its version, and its catalogue.

    `records` are those of the catalogue, `folders` the paths of the nodes in the store by
    their paths in the tree, and `left_out` has the paths of what cannot be read, and why.
    """

    location: Location
    version: str
    catalogue: Catalogue
    records: list[NodeRecord]
    folders: dict[tuple[str, ...], str]
    left_out: dict[str, str]


def save_zarr_tree(
    tree: xr.DataTree, path: str | Path | Any, compression: str | None = None
) -> None:
    """Write a tree of any depth to a zarr store (version 3), all or nothing.

    Parameters
    ----------
    tree
        Arrays of every numpy dtype, attributes of any nesting; in memory, lazy or dask's.
        It may read from the very store that is replaced.
    path
        A folder, a URL (``s3://bucket/study``) or an ``icechunk.Storage``. What it holds
        stays until the new tree is written whole.
    compression
        None, ``"gzip"`` or ``"zstd"``.

    Examples
    --------
    >>> import tempfile, xarray as xr
    >>> tree = xr.DataTree.from_dict({"/units": xr.Dataset({"rate": ("unit", [2.0, 3.5])})})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_zarr_tree(tree, f"{folder}/session.zarr")
    ...     open_zarr_tree(f"{folder}/session.zarr")["units/rate"].values
    array([2. , 3.5])
    """
    save_location(tree, location_of(path), lambda found, new: None, compression)


def save_location(
    tree: xr.DataTree, location: Location, check: Check, compression: str | None = None
) -> None:
    """Write a tree to a location, all or nothing.

    Parameters
    ----------
    tree, location
        What and where.
    check
        Called with the version that stands there and the new one, before it counts.
    compression
        None, ``"gzip"`` or ``"zstd"``.
    """
    find_compression(compression)

    results: list[WrittenStore] = []

    def write(store: Any) -> None:
        written = write_nodes(
            tree, store, separator=location.separator, compression=compression
        )
        metadata = {
            key: each if each["node_type"] == "array" else each | _NOTHING_BELOW
            for key, each in written.metadata.items()
            if key
        }
        header = {"saved_at": time.time(), "id": secrets.token_hex(8)}
        text, values = catalogue_text(header, written.records), bytes(written.values)
        attributes = written.metadata[""]["attributes"]
        attributes["labtree_file_format"] = VERSION
        attributes["labtree_file_page"] = PAGE
        root = group_metadata(attributes) | {
            "consolidated_metadata": {
                "kind": "inline",
                "must_understand": False,
                "metadata": metadata,
                _CATALOGUE: {
                    "text": text.decode(),
                    "values": base64.b64encode(values).decode(),
                    "crc32c": crc32c(text + values),
                    "metadata_crc32c": crc32c(dump(metadata)),
                },
            }
        }
        write_object(store, METADATA, dump(root))
        results.append(written)

    try:
        location.replace(write, check)
        for written in results:
            written.relocate(location)
    except BaseException:
        # Ctrl-C after the exchange: what the arrays were read from is gone.
        if location.was_replaced():
            for written in results:
                written.relocate(location)
        raise


#: What stands in the root's zarr.json before the metadata of all below, and after them.
_BEFORE_METADATA = (
    b',"consolidated_metadata":{"kind":"inline","must_understand":false,"metadata":'
)
_BEFORE_CATALOGUE = f',"{_CATALOGUE}":'.encode()

_NOTHING_BELOW: dict[str, Any] = {
    "consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": {}}
}


def open_zarr_tree(path: str | Path | Any) -> xr.DataTree:
    """Open a tree of :func:`save_zarr_tree`; arrays are read when they are indexed.

    Raises
    ------
    FileNotFoundError
        If there is no such store.
    FormatError
        If it is no store of labtree, is damaged, or is of a newer version.
    """
    return read_nodes(open_location(location_of(path)))


def open_location(location: Location) -> Opened:
    """Return what a store holds; no array is read.

    Warns
    -----
    DamageWarning
        For each part that cannot be read and is left out.

    Raises
    ------
    MissingFileError
        If nothing is there.
    FormatError
        If it is no zarr store of labtree, or of an unknown version.
    """
    version, root = _read_root(location)
    left_out: dict[str, str] = {}
    with damage_as_format_error(location.name):
        found = _read_catalogue(location, root)
        contents = None if found is None else _contents(found[1])
        if found is None or contents is None or not _holds(location, contents):
            found = rebuilt_catalogue(location, root.whole, left_out)
            contents = _contents(found[1])
    for part, reason in left_out.items():
        warn(
            f"{location.name}: {part} cannot be read and was left out ({reason})", DamageWarning
        )
    folders = {path: folder for path, (folder, _) in contents.items()}
    return Opened(location, version, *found, folders, left_out)


@dataclass
class _Root:
    """The root's zarr.json: its bytes, its attributes, and the catalogue if it counts.

    What is not needed of the bytes is not parsed: the metadata of all arrays are most of them.
    """

    content: bytes
    attributes: dict[str, Any]
    catalogue: Catalogue | None

    @functools.cached_property
    def whole(self) -> dict[str, Any]:
        """All of it, parsed."""
        root: dict[str, Any] = json.loads(self.content)
        return root


def _read_root(location: Location) -> tuple[str, _Root]:
    """Return the version of a store, and the metadata of its root."""
    version = location.version()
    if version is None:
        raise _missing(location)
    content = location.read(METADATA)
    root = _as_written(content)
    if root is None:
        root = _Root(content, {}, None)
        try:
            root.attributes = dict(root.whole.get("attributes") or {})
        except (ValueError, TypeError, RecursionError, AttributeError) as error:
            raise FormatError(f"{location.name}: its {METADATA} is damaged: {error}") from error
    _check_version(location, root.attributes)
    return version, root


def _as_written(content: bytes) -> _Root | None:
    """Return the root if its metadata and catalogue are the bytes that labtree wrote."""
    head, found, rest = content.partition(_BEFORE_METADATA)
    metadata, _, tail = rest.rpartition(_BEFORE_CATALOGUE)
    if not found or not tail.endswith(b"}}"):
        return None
    try:
        attributes = dict(json.loads(head + b"}")["attributes"])
        catalogue = _catalogue(json.loads(tail[:-2]), metadata)
    except (*CONTRADICTIONS, RecursionError, LabtreeError):
        return None  # what is wrong is told where all of it is parsed
    return None if catalogue is None else _Root(content, attributes, catalogue)


def _check_version(location: Location, attributes: dict[str, Any]) -> None:
    version = attributes.get("labtree_file_format")
    if version is None and "labtree" in attributes:
        check_version(1, VERSION, location.name)
    if version is None:
        raise FormatError(
            f"{location.name} is a zarr store but none of labtree's; open it with "
            f"xarray.open_datatree({location.name!r}, engine='zarr')"
        )
    check_version(version, VERSION, location.name)


def _missing(location: Location) -> LabtreeError:
    if isinstance(location, Folder) and location.path.is_dir():
        if any((location.path / name).is_file() for name in (".zgroup", ".zattrs", ".zarray")):
            return FormatError(
                f"{location.name} is a zarr store of version 2, which labtree does not write; "
                f"open it with xarray.open_datatree({location.name!r}, engine='zarr') or "
                f"xarray.open_zarr({location.name!r})"
            )
        return FormatError(
            f"{location.name} is a folder, but no zarr store: it has no {METADATA}"
        )
    text = f"there is no zarr store {location.name}"
    if isinstance(location, Folder):
        return missing_file(text, location.path)
    return MissingFileError(text)


def _read_catalogue(
    location: Location, root: _Root
) -> tuple[Catalogue, list[NodeRecord]] | None:
    """Return the catalogue and its records, if it is of the metadata that are there."""
    try:
        catalogue = root.catalogue
        if catalogue is None:
            consolidated = root.whole.get("consolidated_metadata") or {}
            if consolidated.get(_CATALOGUE) is None:
                return None
            catalogue = _catalogue(consolidated[_CATALOGUE], dump(consolidated["metadata"]))
        return None if catalogue is None else (catalogue, catalogue.records())
    except (*CONTRADICTIONS, RecursionError, LabtreeError) as error:
        warn(
            f"{location.name}: the catalogue in {METADATA} is damaged ({error}); the store is "
            "read through its metadata, more slowly",
            DamageWarning,
        )
        return None


def _catalogue(found: dict[str, Any], metadata: bytes) -> Catalogue | None:
    """Return the catalogue of a root, or None if it is of other metadata."""
    text, values = found["text"].encode(), base64.b64decode(found["values"])
    if crc32c(text + values) != found["crc32c"]:
        raise ValueError("its bytes do not match their checksum")
    if crc32c(metadata) != found["metadata_crc32c"]:
        return None
    return Catalogue(json.loads(text.partition(b"\n")[0]), text, values)


def _contents(records: list[NodeRecord]) -> dict[tuple[str, ...], tuple[str, set[str]]]:
    """Return the folder of each node in the store, and the names of what is in it."""
    below: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for record in records:
        path = tuple(record["path"])
        if path:
            below[path[:-1]].append(path[-1])
    folders: dict[tuple[str, ...], str] = {(): ""}
    found = {}
    for record in records:
        path = tuple(record["path"])
        variables = list(variable_records(record))
        files = file_names([*(each.name for each in variables), *below[path]])
        arrays = [column.name for each in variables for column in each.columns]
        children = [files[name] for name in below[path]]
        found[path] = folders[path], {*arrays, *children, METADATA}
        for name, file in zip(below[path], children, strict=True):
            folders[(*path, name)] = f"{folders[path]}{file}/"
    return found


def _holds(location: Location, contents: dict[tuple[str, ...], tuple[str, set[str]]]) -> bool:
    """Return whether the groups of a folder hold what is listed, and nothing else."""
    if not isinstance(location, Folder):
        return True  # a snapshot of icechunk is one transaction's
    for folder, expected in contents.values():
        names = os.listdir(location.path / folder)  # noqa: PTH208, several times as quick
        if {name for name in names if not name.startswith(".")} != expected:
            return False
    return True


def read_nodes(opened: Opened) -> xr.DataTree:
    """Return the lazy tree of an opened store."""
    reader = column_reader(opened.location, opened.folders)
    builder = DatasetBuilder(reader, opened.catalogue.values)
    with damage_as_format_error(opened.location.name):
        tree = build_tree(opened.records, builder)
    note_left_out(tree, opened.location.name, opened.left_out, _file_name)
    return tree


def _file_name(name: str) -> str:
    return file_names([name])[name]


def read_node(location: Location, path: list[str]) -> xr.Dataset | None:
    """Return the dataset of one node if it can be read without all others, else None.

    Raises
    ------
    MissingFileError, FormatError
        As :func:`open_location`.
    """
    _, root = _read_root(location)
    record = None if root.catalogue is None else root.catalogue.alone(path)
    if root.catalogue is None or record is None:
        return None
    folder = ""
    for depth, name in enumerate(path):
        folder += file_names(root.catalogue.names_below(path[:depth]))[name] + "/"
    arrays = {column.name for each in variable_records(record) for column in each.columns}
    try:
        if not _holds(location, {tuple(path): (folder, {*arrays, METADATA})}):
            return None
    except FileNotFoundError:
        return None
    reader = column_reader(location, {tuple(path): folder})
    return DatasetBuilder(reader, root.catalogue.values).build(record)


def column_reader(
    location: Location, folders: Mapping[tuple[str, ...], str]
) -> Callable[[list[str], Column], Any]:
    """Return what makes the array of a catalogue's column.

    Parameters
    ----------
    location
        The store.
    folders
        The paths of the nodes in the store, each with a slash at its end, by their paths.
    """

    def array(path: list[str], column: Column) -> ZarrArray:
        prefix = folders[tuple(path)]
        return ZarrArray(
            location,
            f"{prefix}{column.name}",
            plain_dtype(column.dtype),
            tuple(column.shape),
            str(column.place),
            "/".join([*path, column.name]),
            find_compression(column.chunks),
        )

    return array
