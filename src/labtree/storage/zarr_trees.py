"""Trees in zarr stores: save one whole, open one without reading it.

A store holds one *generation*, a group that a save wrote, with a catalogue of all that is
in it, and the root's zarr.json, which names the generation. Replacing that one object is
what makes a save happen; it also holds the metadata of all groups and arrays, so that
other programs see the old tree or the new one, whole, as labtree does.
"""

import functools
import json
import math
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from labtree.errors import FormatError, MissingFileError, WorkspaceError
from labtree.storage.blobs import plain_dtype
from labtree.storage.catalogue import Catalogue
from labtree.storage.records import DatasetBuilder
from labtree.storage.trees import build_tree
from labtree.storage.zarr_arrays import ChunkedArray, Chunks
from labtree.storage.zarr_metadata import dump, group_metadata
from labtree.storage.zarr_places import (
    MARKER,
    Place,
    SavingPlace,
    is_generation,
    new_generation,
    place_of,
)
from labtree.storage.zarr_writing import write_generation

__all__ = [
    "Opened",
    "column_reader",
    "open_place",
    "open_zarr_tree",
    "read_node",
    "read_nodes",
    "save_place",
    "save_zarr_tree",
]

#: The format that this version writes, and the newest that it reads.
VERSION = 1

_CATALOGUE = "labtree.catalogue"
# Enough of the marker to hold what labtree wants of it.
_HEAD = 1 << 12
_CONTRADICTIONS = (KeyError, IndexError, TypeError, ValueError, AttributeError)


class Opened(NamedTuple):
    """What an opened store tells: where it is, what its marker says, and its catalogue."""

    place: Place
    header: dict[str, Any]
    catalogue: Catalogue


def save_zarr_tree(tree: xr.DataTree, path: str | Path | Any) -> None:
    """Write a tree of any depth to a zarr store (version 3), all or nothing.

    Parameters
    ----------
    tree
        Arrays of every numpy dtype, attributes of any nesting; in memory, lazy or dask's.
        It may read from the very store that is replaced.
    path
        A folder, a URL (``s3://bucket/study.zarr``) or an obstore store. What it holds
        stays until the new tree is written whole.

    Examples
    --------
    >>> import tempfile, xarray as xr
    >>> tree = xr.DataTree.from_dict({"/units": xr.Dataset({"rate": ("unit", [2.0, 3.5])})})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_zarr_tree(tree, f"{folder}/session.zarr")
    ...     open_zarr_tree(f"{folder}/session.zarr")["units/rate"].values
    array([2. , 3.5])
    """
    save_place(tree, place_of(path))


def save_place(
    tree: xr.DataTree,
    place: SavingPlace,
    check: Callable[[str | None, str], None] | None = None,
) -> None:
    """Write a tree to a place.

    Parameters
    ----------
    tree, place
        What and where.
    check
        Called with the generation that is there and the new one, before that counts; if
        it raises a WorkspaceError nothing has changed.
    """
    name = new_generation()
    refuse = None if check is None else functools.partial(_swapped, check, name)
    with place.writing(name):
        try:
            generation = write_generation(tree, place, name)
            text = b"\n".join(map(dump, ({}, *generation.records)))
            values = bytes(generation.values)
            place.write(f"{name}/{_CATALOGUE}", text + values)
        except BaseException:
            place.discard(name)
            raise
        header = {
            "format": "labtree",
            "version": VERSION,
            "generation": name,
            "saved_at": time.time(),
            "text": [len(text), zlib.crc32(text)],
            "values": [len(values), zlib.crc32(values)],
        }
        marker = group_metadata({"labtree": header}) | {
            "consolidated_metadata": {
                "kind": "inline",
                "must_understand": False,
                "metadata": generation.metadata,
            }
        }
        try:
            replaced = place.commit(dump(marker), name, refuse, _generation_of)
        except WorkspaceError:
            # After any other error the marker may name it yet: the next save cleans up.
            place.discard(name)
            raise
        # Arrays that lay in the generation before are read from this one before that goes.
        generation.relocate()
        place.clean(name, replaced, _generation_of)


def _swapped(check: Callable[[str | None, str], None], new: str, found: str | None) -> None:
    check(found, new)


def _generation_of(marker: bytes) -> str | None:
    header = _header(marker)
    return None if header is None else str(header.get("generation"))


def _header(marker: bytes) -> dict[str, Any] | None:
    """Return what a marker says to labtree; None if it is not of labtree."""
    try:
        start = marker.index(b'"attributes":') + len(b'"attributes":')
        text = marker[start:].decode(errors="replace").lstrip()
        attributes, _ = json.JSONDecoder().raw_decode(text)
    except ValueError:
        try:
            attributes = json.loads(marker).get("attributes")
        except (ValueError, AttributeError):
            return None
    header = attributes.get("labtree") if isinstance(attributes, dict) else None
    return header if isinstance(header, dict) else None


def open_zarr_tree(path: str | Path | Any) -> xr.DataTree:
    """Open a store that :func:`save_zarr_tree` wrote; arrays are read when indexed.

    Raises
    ------
    FileNotFoundError
        If there is no such store.
    FormatError
        If it is not labtree's, is damaged, or is of a newer version.
    """
    return read_nodes(open_place(place_of(path)))


def open_place(place: Place, *, values: bool = True) -> Opened:
    """Read marker and catalogue of a store: two reads, however much is in it."""
    for _ in range(100):
        header = _read_header(place)
        size, crc = header["text"]
        more, values_crc = header["values"]
        key = f"{header['generation']}/{_CATALOGUE}"
        try:
            data = place.read(key, 0, size + more if values else size)
        except FileNotFoundError:
            if _read_header(place)["generation"] != header["generation"]:
                continue  # it was saved anew meanwhile
            raise FormatError(f"{place.name}: its catalogue {key} is missing") from None
        text, block = data[:size], data[size:]
        if zlib.crc32(text) != crc or (values and zlib.crc32(block) != values_crc):
            raise FormatError(
                f"{place.name}: its catalogue {key} is damaged; restore it from a copy, or "
                f"read the data with xarray.open_datatree({place.name!r}, engine='zarr')"
            )
        return Opened(place, header, Catalogue({}, text, block))
    raise FormatError(f"{place.name} is being saved all the time; copy it and open the copy")


def _read_header(place: Place) -> dict[str, Any]:
    try:
        marker = place.read(MARKER, 0, _HEAD)
    except FileNotFoundError:
        raise MissingFileError(f"there is no zarr store {place.name}") from None
    header = (
        _header(marker)
        if len(marker) < _HEAD
        else _header(marker) or _header(place.read(MARKER))
    )
    if header is None:
        raise FormatError(
            f"{place.name} is a zarr store but none of labtree's; open it with "
            f"xarray.open_datatree({place.name!r}, engine='zarr')"
        )
    version = header.get("version")
    if isinstance(version, int) and version > VERSION:
        raise FormatError(
            f"{place.name}: written in format version {version}; this labtree reads up to "
            f"version {VERSION}. Update labtree: pip install --upgrade labtree"
        )
    try:
        numbers = [*header["text"], *header["values"]]
        is_sound = len(numbers) == 4 and all(type(n) is int and n >= 0 for n in numbers)
        is_sound = is_sound and is_generation(header["generation"])
    except (KeyError, TypeError):
        is_sound = False
    if not is_sound:
        raise FormatError(f"{place.name}: its {MARKER} is damaged: {header!r:.200}")
    return header


def read_nodes(opened: Opened) -> xr.DataTree:
    """Return the lazy tree of an opened store."""
    try:
        builder = DatasetBuilder(
            column_reader(opened.place, opened.header["generation"]), opened.catalogue.values
        )
        return build_tree(opened.catalogue.records(), builder)
    except _CONTRADICTIONS as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(
            f"{opened.place.name}: its content contradicts itself: {error!r}"
        ) from error


def read_node(opened: Opened, path: list[str]) -> xr.Dataset | None:
    """Return the lazy dataset of a node that stands alone, or None; the others are not read."""
    record = opened.catalogue.alone(path)
    if record is None:
        return None
    # Of the values of all indexes only this node's are read.
    columns = [variable[4][0] for variable in record["variables"]]
    columns = [column for column in columns if column[5] is not None]
    if not columns:
        return DatasetBuilder(column_reader(opened.place, opened.header["generation"])).build(
            record
        )
    start = columns[0][5]
    stop = columns[-1][5] + _nbytes(columns[-1])
    key = f"{opened.header['generation']}/{_CATALOGUE}"
    values = opened.place.read(key, opened.header["text"][0] + start, stop - start)
    for column in columns:
        column[5] -= start
        if zlib.crc32(values[column[5] : column[5] + _nbytes(column)]) != column[7]:
            raise FormatError(
                f"{opened.place.name}: the values of {column[0]} in {key} are damaged; "
                "restore it from a copy"
            )
    return DatasetBuilder(
        column_reader(opened.place, opened.header["generation"]), values
    ).build(record)


def _nbytes(column: list[Any]) -> int:
    return int(math.prod(column[2]) * np.dtype(column[1]).itemsize)


def column_reader(place: Place, generation: str) -> Callable[[list[str], list[Any]], Any]:
    """Return what makes the array of a catalogue's column, below a key of a place."""

    def column(path: list[str], column: list[Any]) -> ChunkedArray:
        name, dtype, shape, chunks, crcs, _, form = column[:7]
        parts = name[1:].split("/") if name[:1] == "/" else [*path, name]
        if any(part in ("", ".", "..") or set(part) & set("/\\\0") for part in parts):
            raise FormatError(f"{place.name}: {name!r} is no name of an array")
        kind = plain_dtype(dtype)
        where = Chunks(place, "/".join([generation, *parts]), tuple(chunks), crcs, form)
        return ChunkedArray(where, kind, tuple(shape), "/".join(parts))

    return column
