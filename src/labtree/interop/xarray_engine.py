"""The engine ``labtree`` of xarray: any format that labtree opens, by its content.

>>> import labtree, tempfile, xarray as xr
>>> tree = labtree.create_workspace()
>>> tree.ws.store("rec1", "answer", [1, 2])
>>> with tempfile.TemporaryDirectory() as folder:
...     path = tree.ws.save(f"{folder}/study")
...     with xr.open_datatree(path, engine="labtree") as opened:
...         opened["rec1"].ws["rec1", "answer"]
[1, 2]
"""

import json
import os
import zipfile
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import xarray as xr
from xarray.backends import BackendEntrypoint

from labtree.errors import DataError, FormatError, LabtreeError, unknown_name

_MOST_META = 16 * 2**20
_DECODING = (
    "mask_and_scale",
    "decode_times",
    "concat_characters",
    "decode_coords",
    "use_cftime",
    "decode_timedelta",
)


class LabtreeBackendEntrypoint(BackendEntrypoint):
    """Opens workspaces, recordings, sessions, SpikeLab, NWB and MCS files for xarray.

    The keywords of xarray that say how values are decoded apply to netCDF-4 and HDF5 files
    of other programs. Files of labtree's own formats keep exact values, which are decoded
    already; asking for anything but that is an error.
    """

    description = "Open workspaces, recordings and sessions of a neurophysiology lab"
    supports_groups = True
    # What xarray may pass; the same for all three methods.
    open_dataset_parameters = ("filename_or_obj", *_DECODING, "drop_variables", "group")

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Claim what no other engine does: recording folders and their zips."""
        if not isinstance(filename_or_obj, (str, os.PathLike)):
            return False
        path = Path(os.fspath(filename_or_obj))
        try:
            if path.name.endswith(".session.zip"):
                return not path.exists() or _is_recording_zip(path)
            return path.is_dir() and _is_recording_folder(path)
        except (OSError, ValueError, zipfile.BadZipFile):
            return False

    def open_datatree(self, filename_or_obj: Any, **keywords: Any) -> xr.DataTree:
        """Open a file or folder as a tree; `group` opens what is below one node."""
        tree, groups = _open(filename_or_obj, **keywords)
        opened = xr.DataTree.from_dict(groups)
        opened.set_close(partial(_close, tree))
        return opened

    def open_groups_as_dict(
        self, filename_or_obj: Any, **keywords: Any
    ) -> dict[str, xr.Dataset]:
        """Open all nodes as datasets by their paths."""
        return _open(filename_or_obj, **keywords)[1]

    def open_dataset(self, filename_or_obj: Any, **keywords: Any) -> xr.Dataset:
        """Open one node as a dataset; the root where no `group` is given."""
        tree, groups = _open(filename_or_obj, **keywords)
        dataset = groups["/"]
        dataset.set_close(partial(_close, tree))
        return dataset


def _is_recording_folder(path: Path) -> bool:
    from labtree.recording.unfinished import JOURNAL

    meta = path / "meta.json"
    return (path / JOURNAL).exists() or (
        meta.is_file()
        and meta.stat().st_size <= _MOST_META
        and _is_recording_meta(meta.read_bytes())
    )


def _is_recording_zip(path: Path) -> bool:
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if Path(entry.filename.replace("\\", "/")).name == "meta.json":
                return entry.file_size <= _MOST_META and _is_recording_meta(archive.read(entry))
    return False


def _is_recording_meta(content: bytes) -> bool:
    """Return whether a meta.json describes streams, as recordings do."""
    try:
        meta = json.loads(content)
    except (ValueError, RecursionError):
        return False
    streams = meta.get("streams") if isinstance(meta, dict) else None
    return isinstance(streams, dict) and all(
        isinstance(stream, dict) and {"n_channels", "fs"} <= stream.keys()
        for stream in streams.values()
    )


def _open(
    path: Any,
    drop_variables: str | Iterable[str] | None = None,
    group: str | None = None,
    **decoding: Any,
) -> tuple[xr.DataTree, dict[str, xr.Dataset]]:
    """Open a path as a tree, and return its datasets at and below a group too."""
    strange = decoding.keys() - set(_DECODING)
    if strange:
        raise unknown_name(
            "keyword of xarray for labtree files called", min(strange), _DECODING
        )
    tree = _open_tree(path, decoding)
    return tree, _groups(tree, drop_variables, group)


def _open_tree(path: Any, decoding: Mapping[str, Any]) -> xr.DataTree:
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"the engine 'labtree' opens paths, not {type(path).__name__}")
    from labtree import formats, opening

    path = os.fspath(path)
    given = {name: value for name, value in decoding.items() if value is not None}
    try:
        if "://" not in path and any(value is not True for value in given.values()):
            found = formats.recognize(path)
            if found.name != "tree":
                raise DataError(
                    f"{path} is {found.what}, whose values are decoded already: open it "
                    f"without {', '.join(given)}, or with engine='h5netcdf' or engine='zarr'"
                )
            return xr.open_datatree(
                formats.find(path), engine="h5netcdf", phony_dims="access", **given
            )
        return opening.open(path)
    except (LabtreeError, MemoryError, PermissionError):
        raise
    except Exception as error:
        # A damaged file fails anywhere in the libraries that read it.
        raise FormatError(f"{path} cannot be read: {error or type(error).__name__}") from error


def _close(tree: xr.DataTree) -> None:
    for node in tree.subtree:
        node.close()


def _groups(
    tree: xr.DataTree, drop: str | Iterable[str] | None, group: str | None
) -> dict[str, xr.Dataset]:
    """Return the datasets at and below a node, by their paths from there."""
    dropped = [drop] if isinstance(drop, str) else list(drop or ())
    try:
        top = tree if group in (None, "", "/") else tree[str(group)]
    except KeyError:
        top = None
    if not isinstance(top, xr.DataTree):
        known = [node.path for node in tree.subtree]
        _close(tree)
        raise unknown_name("group", str(group), known)
    return {
        "/" + node.path[len(top.path) :].lstrip("/"): node.to_dataset(
            inherit=node is top
        ).drop_vars(dropped, errors="ignore")
        for node in top.subtree
    }
