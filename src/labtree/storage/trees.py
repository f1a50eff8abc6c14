"""Trees in files: save one whole, open one without reading it, let go of it."""

import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from labtree.errors import FormatError
from labtree.storage import exact
from labtree.storage.atomic import folder_lock, replace_file, temporary_path
from labtree.storage.blobs import Blob, FileSource
from labtree.storage.catalogue import Catalogue, read_catalogue
from labtree.storage.records import DatasetBuilder
from labtree.storage.walking import NetCDFSource, NetCDFVariable, walk
from labtree.storage.writing import write_tree

__all__ = ["add_source", "check_folder", "close_tree", "open_tree", "open_with_catalogue", "save_tree"]

_SOURCES: dict[int, tuple[Any, list[Any]]] = {}
_LOCK = threading.Lock()


def save_tree(tree: xr.DataTree, path: str | Path) -> None:
    """Write a tree of any depth to a netCDF-4 file, all or nothing.

    Parameters
    ----------
    tree
        Arrays of every numpy dtype, attributes of any nesting; in memory, lazy or dask's.
        It may read from the very file that is replaced.
    path
        The file; an older one stays until the new one is safely on disk.

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
    with temporary_path(path) as temporary:
        written = write_tree(tree, temporary)
        with folder_lock(path.parent):
            replace_file(temporary, path)
    source = FileSource(path)
    source.hold()
    written.relocate(source)
    if written.moves:
        add_source(tree, source)


def check_folder(path: Path) -> None:
    """Raise an error that says what is missing where `path` cannot be made."""
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"{path}: the folder {path.parent} does not exist; make it with "
            f"pathlib.Path({str(path.parent)!r}).mkdir(parents=True)"
        )
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give the name of a file")


def open_tree(path: str | Path) -> xr.DataTree:
    """Open a file as a tree whose arrays are read when they are indexed.

    Parameters
    ----------
    path
        A netCDF-4 file, of :func:`save_tree` or of another program.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FormatError
        If it is not HDF5, is cut short, or is of a newer version.
    """
    return open_with_catalogue(path)[0]


def open_with_catalogue(path: str | Path) -> tuple[xr.DataTree, Catalogue | None]:
    """Open a file as :func:`open_tree` does; give its catalogue too, None where it was walked."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    catalogue = read_catalogue(path)
    source: FileSource | NetCDFSource = FileSource(path)
    source.hold()
    if catalogue is not None:
        records, builder = catalogue.content["nodes"], _catalogued(source, catalogue.values)
        held: list[Any] = [source]
    else:
        other = NetCDFSource(path)
        records, builder = walk(path, other), _walked(source, other)
        held = [source, other]
    try:
        tree = _tree(records, builder)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        for each in held:
            each.close()
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{path}: its content contradicts itself ({error!r})") from error
    for each in held:
        add_source(tree, each)
    return tree, catalogue


def _catalogued(source: FileSource, values: bytes) -> DatasetBuilder:
    def column(path: list[str], column: list[Any]) -> Blob:
        name, dtype, shape, offset, crc = column[:5]
        return Blob(source, offset, np.dtype(dtype), tuple(shape), crc, "/".join([*path, name]))

    return DatasetBuilder(column, values)


def _walked(source: FileSource, other: NetCDFSource) -> DatasetBuilder:
    def column(path: list[str], column: list[Any]) -> Any:
        name, dtype, shape, offset, crc = column[:5]
        full = "/".join([*path, name])
        kind = exact.dtype_from_json(dtype)
        if offset is None:
            return NetCDFVariable(other, f"/{full}", kind, tuple(shape))
        return Blob(source, offset, kind, tuple(shape), crc, full)

    return DatasetBuilder(column)


def _tree(records: list[dict[str, Any]], builder: DatasetBuilder) -> xr.DataTree:
    """Return the tree of records, whose first is the root and parents come before children."""
    nodes: dict[tuple[str, ...], xr.DataTree] = {}
    children: dict[tuple[str, ...], dict[str, xr.DataTree]] = {}
    for record in records:
        path = tuple(record["path"])
        nodes[path] = xr.DataTree(dataset=builder.build(record))
        if path:
            children.setdefault(path[:-1], {})[path[-1]] = nodes[path]
    # From the root down, and a parent's children at once: anything else is quadratic.
    for path, below in children.items():
        nodes[path].children = below
    return nodes[()]


def add_source(tree: xr.DataTree, source: Any) -> None:
    """Remember that a tree reads from a source, until the tree is gone."""
    key = id(tree)
    with _LOCK:
        if key not in _SOURCES:
            _SOURCES[key] = (weakref.ref(tree, lambda _: _SOURCES.pop(key, None)), [])
        _SOURCES[key][1].append(source)


def close_tree(tree: xr.DataTree) -> None:
    """Release the files that a tree reads from; what was not loaded cannot be read any more."""
    with _LOCK:
        _, held = _SOURCES.pop(id(tree), (None, []))
    for source in held:
        source.close()
