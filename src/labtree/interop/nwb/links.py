"""Links of an NWB file that lead outside of its folder, which are not followed."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from labtree.errors import FormatError
from labtree.storage.netcdf_reader import check_heaps

__all__ = ["check_hdf5_links", "check_zarr_links"]

_MOST_JSON = 64 * 2**20


def check_hdf5_links(path: Path) -> None:
    """Refuse a file that would make HDF5 open files outside of its folder."""
    folder = path.resolve().parent
    outside: list[str] = []

    def inside(target: str) -> bool:
        return (folder / target).resolve().is_relative_to(folder)

    def look(name: bytes, info: Any) -> None:
        if info.type == h5py.h5l.TYPE_EXTERNAL:
            target = os.fsdecode(root.links.get_val(name)[0])
            if not inside(target):
                outside.append(f"{name.decode('utf-8', 'replace')} -> {target}")

    def look_at_dataset(name: str, obj: Any) -> None:
        if isinstance(obj, h5py.Dataset):
            files = [each[0] for each in obj.external or ()]
            if obj.is_virtual:
                files += [each.file_name for each in obj.virtual_sources()]
            outside.extend(f"{name} -> {each}" for each in files if not inside(each))

    try:
        with h5py.File(path, "r") as file:
            check_heaps(path, file)
            root = file.id
            root.links.visit(look, info=True)
            file.visititems(look_at_dataset)
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise FormatError(f"{path} cannot be read as NWB: {error}") from error
    if outside:
        raise FormatError(
            f"{path} leads to files outside of its folder, which are not opened: "
            + ", ".join(outside[:5])
        )


def check_zarr_links(path: Path) -> None:
    """Refuse a zarr folder whose links lead outside of the folder that it lies in."""
    folder = path.resolve().parent
    outside: list[str] = []

    def sources(found: Any) -> Iterator[str]:
        if isinstance(found, dict):
            if isinstance(found.get("source"), str) and "path" in found:
                yield found["source"]
            for inner in found.values():
                yield from sources(inner)
        elif isinstance(found, list):
            for inner in found:
                yield from sources(inner)

    for name in (*path.rglob(".zattrs"), *path.rglob("zarr.json")):
        try:
            if not name.is_file() or name.stat().st_size > _MOST_JSON:
                raise ValueError("no regular file of at most 64 MiB")
            outside += [
                f"{name.relative_to(path)} -> {source}"
                for source in sources(json.loads(name.read_bytes()))
                if not (path.resolve() / source).resolve().is_relative_to(folder)
            ]
        except (OSError, ValueError, RecursionError) as error:
            raise FormatError(f"{name} cannot be read: {error}") from error
    if outside:
        raise FormatError(
            f"{path} leads to files outside of its folder, which are not opened: "
            + ", ".join(outside[:5])
        )
