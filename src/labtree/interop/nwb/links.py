"""Links of an NWB file that lead outside of its folder, which are not followed."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from labtree.errors import FormatError
from labtree.storage.hdf5_files import check_heaps
from labtree.storage.json_files import read_json


def check_hdf5_links(path: Path) -> None:
    """Refuse a file that would make HDF5 open files outside of its folder."""
    targets: list[tuple[str, str]] = []

    def look(name: bytes, info: Any) -> None:
        if info.type == h5py.h5l.TYPE_EXTERNAL:
            target = os.fsdecode(root.links.get_val(name)[0])
            targets.append((name.decode("utf-8", "replace"), target))

    def look_at_dataset(name: str, obj: Any) -> None:
        if isinstance(obj, h5py.Dataset):
            targets.extend((name, each[0]) for each in obj.external or ())
            if obj.is_virtual:
                targets.extend((name, each.file_name) for each in obj.virtual_sources())

    try:
        with h5py.File(path, "r") as file:
            check_heaps(path, file)
            root = file.id
            root.links.visit(look, info=True)
            file.visititems(look_at_dataset)
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise FormatError(f"{path} cannot be read as NWB: {error}") from error
    _refuse_outside(path, path.parent, targets)


def check_zarr_links(path: Path) -> None:
    """Refuse a zarr folder whose links lead outside of the folder that it lies in."""
    targets: list[tuple[str, str]] = []
    for name in (*path.rglob(".zattrs"), *path.rglob("zarr.json")):
        try:
            sources = list(_sources(read_json(name)))
        except (OSError, FormatError, RecursionError) as error:
            raise FormatError(f"{name} cannot be read: {error}") from error
        targets += [(str(name.relative_to(path)), source) for source in sources]
    _refuse_outside(path, path, targets)


def _sources(found: Any) -> Iterator[str]:
    """Give the targets of the links in a file of attributes."""
    if isinstance(found, dict):
        if isinstance(found.get("source"), str) and "path" in found:
            yield found["source"]
        found = list(found.values())
    if isinstance(found, list):
        for inner in found:
            yield from _sources(inner)


def _refuse_outside(path: Path, start: Path, targets: list[tuple[str, str]]) -> None:
    """Raise FormatError if targets, seen from a folder, lie outside of the file's folder."""
    folder = path.resolve().parent
    try:
        outside = [
            f"{name} -> {target}"
            for name, target in targets
            if not (start.resolve() / target).resolve().is_relative_to(folder)
        ]
    except (OSError, ValueError, RuntimeError) as error:
        raise FormatError(f"{path} cannot be read as NWB: {error}") from error
    if outside:
        raise FormatError(
            f"{path} leads to files outside of its folder, which are not opened: "
            + ", ".join(outside[:5])
        )
