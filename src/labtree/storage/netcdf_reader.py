"""Reading netCDF-4 and HDF5 files of other programs, and labtree's that others changed.

xarray's h5netcdf engine reads them. What it cannot read is left out with a warning, and
the rest opens.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr

from labtree.storage import json_values
from labtree.storage.edited_groups import edited_dataset, is_of_labtree
from labtree.storage.hdf5_end import VERSION
from labtree.storage.netcdf_source import GroupStore, NetCDFSource
from labtree.storage.versions import check_version


def open_groups(
    source: NetCDFSource, **decoding: Any
) -> Iterator[tuple[tuple[str, ...], xr.Dataset]]:
    """Open every group of a file, parents before children.

    Parameters
    ----------
    source
        The file.
    **decoding
        xarray's options, such as ``mask_and_scale``, for what labtree did not write.

    Yields
    ------
    path : tuple of str
        Names in the tree.
    dataset : xarray.Dataset
        Lazy.

    Warns
    -----
    DamageWarning
        For each part that cannot be read and is left out.
    """
    is_ours = _check_version(source)
    for path in source.file.members.groups:
        where = "/" + "/".join(path)
        try:
            store = source.store(where)
            dataset = _open_group(store, is_ours, decoding)
            if is_ours and path and "labtree_real_name" in store.ds.attrs:
                name = str(json_values.loads(store.ds.attrs["labtree_real_name"]))
                path = (*path[:-1], name)
        except Exception as error:  # of a damaged or hostile group it can be anything
            source.leave_out(where, error)
            if path:
                continue
            dataset = xr.Dataset()
        yield path, dataset


def _check_version(source: NetCDFSource) -> bool:
    """Return whether labtree wrote a file; raise an error if in an unknown version."""
    attrs = source.store("/").get_attrs()
    version = attrs.get("labtree_file_format")
    if version is not None:
        found = int(version) if isinstance(version, np.integer) else version
        check_version(found, VERSION, source.name)
        return True
    if "labtree_workspace_id" in attrs:
        made = source.file.hdf5.attrs.get("_NCProperties", "")
        if "version=2,h5py=" in str(made):
            check_version(1, VERSION, source.name)
    return False


def _open_group(store: GroupStore, is_ours: bool, decoding: dict[str, Any]) -> xr.Dataset:
    raw, attrs = store.get_variables(), store.get_attrs()
    if not is_ours:
        return _decoded(store, raw, attrs, decoding)
    dataset = edited_dataset(store, raw, attrs)
    others = {name: each for name, each in raw.items() if not is_of_labtree(each)}
    if not others:
        return dataset
    return dataset.merge(_decoded(store, others, {}, decoding), combine_attrs="override")


def _decoded(
    store: GroupStore, raw: dict[str, Any], attrs: dict[str, Any], decoding: dict[str, Any]
) -> xr.Dataset:
    """Return what the engine makes of raw variables; those that it cannot decode go."""

    def decode(variables: dict[str, Any], attrs: dict[str, Any]) -> xr.Dataset:
        raw_store = _RawStore(store, variables, dict(attrs))  # xarray takes away from them
        return xr.open_dataset(raw_store, cache=False, **decoding)

    try:
        return decode(raw, attrs)
    except Exception:
        bad: dict[str, str] = {}
        ragged: dict[str, Any] = {}
        for name, variable in raw.items():
            try:
                decode({name: variable}, {})
            except Exception as reason:
                if variable.dtype.kind == "O":  # arrays of any length, which have no CF
                    ragged[name] = variable
                else:
                    bad[name] = str(reason)
        if not bad and not ragged:
            raise
        for name, text in bad.items():
            store.source.leave_out(store.path_of(name), text)
        kept = {name: each for name, each in raw.items() if name not in bad | ragged}
        dataset = decode(kept, attrs).assign(ragged)
        return dataset[[name for name in raw if name in dataset.variables]]


class _RawStore(xr.backends.common.AbstractDataStore):
    """Variables that were read already, for xarray to decode."""

    def __init__(self, store: GroupStore, variables: dict[str, Any], attrs: dict[str, Any]):
        self._variables, self._attrs, self._store = variables, attrs, store

    def load(self) -> Any:
        """Return the variables and attributes."""
        return self._variables, self._attrs

    def get_encoding(self) -> dict[str, Any]:
        """Return the group's encoding."""
        return dict(self._store.get_encoding())  # type: ignore[no-untyped-call]
