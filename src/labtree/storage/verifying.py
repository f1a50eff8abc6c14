"""Reading everything in a file, and comparing its checksums and its catalogue with it."""

import json
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import xarray as xr

from labtree.errors import (
    FormatError,
    LabtreeError,
    MissingFileError,
    damage_as_format_error,
    missing_file,
)
from labtree.storage._xarray import data_of
from labtree.storage.arrays import StoredArray, stored_array
from labtree.storage.blobs import checksum
from labtree.storage.files import retry_while_busy
from labtree.storage.hdf5_files import check_heaps
from labtree.storage.netcdf_reader import open_groups
from labtree.storage.netcdf_source import NetCDFSource
from labtree.storage.records import DatasetBuilder, NodeRecord, variable_records
from labtree.storage.trees import column_reader, open_source
from labtree.storage.zarr.locations import is_zarr


class Verification(NamedTuple):
    """What a check of a file found.

    Attributes
    ----------
    problems
        What is wrong, a line each.
    n_checked
        How many arrays were compared with their checksum.
    n_unchecked
        How many arrays have none, because another program wrote them.
    """

    problems: list[str]
    n_checked: int
    n_unchecked: int


def verify_file(path: str | Path) -> Verification:
    """Read all arrays of a netCDF-4 file; compare them with checksums and the catalogue.

    Parameters
    ----------
    path
        A file of :func:`labtree.storage.save_tree` or of another program.

    Returns
    -------
    Verification

    Raises
    ------
    MissingFileError
        If there is no such file.
    FormatError
        If it is not HDF5 at all, or of an unknown version.
    """
    problems: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        source, catalogue = open_source(path)
        other = NetCDFSource(source)
        try:
            groups = {}
            try:
                check_heaps(source.name)
                groups = dict(open_groups(other))
            except LabtreeError as error:
                problems.append(str(error))
            listed = {}
            values = b"" if catalogue is None else catalogue.values
            for record in [] if catalogue is None else catalogue.records():
                where = "the catalogue"
                try:
                    where = "/" + "/".join(record["path"])
                    problems += _read_record(record, column_reader(source), where)
                    builder = DatasetBuilder(column_reader(source), values)
                    listed[tuple(record["path"])] = builder.build(record)
                except Exception as error:  # of a hostile catalogue it can be anything
                    problems.append(f"{where}: {error}")
            known = {problem.split(": ", 1)[0] for problem in problems}
            found = _read_groups(groups, _is_ours(other), known)
            problems += found.problems
            if catalogue is not None and groups:
                problems += _differences(listed, groups)
        finally:
            other.close()
            source.close()
    problems = [str(warning.message) for warning in caught] + problems
    return Verification(list(dict.fromkeys(problems)), found.n_checked, found.n_unchecked)


def _is_ours(source: NetCDFSource) -> bool:
    try:
        return "labtree_file_format" in source.file.attrs
    except LabtreeError:
        return False


def _read_groups(groups: dict[Any, xr.Dataset], is_ours: bool, known: set[str]) -> Verification:
    """Read all values of a file as HDF5 gives them."""
    problems, checked, unchecked = [], 0, 0
    for path, dataset in groups.items():
        for name, variable in dataset.variables.items():
            where = "/" + "/".join([*path, str(name)])
            if where in known:
                continue
            stored = stored_array(variable)
            has_sum = is_ours and (stored is not None or name in dataset.xindexes)
            if is_ours and "labtree_dtype" in variable.attrs and stored is None:
                problems.append(f"{where} has lost its checksum: another program removed it")
            checked, unchecked = checked + has_sum, unchecked + (not has_sum)
            try:
                np.asarray(data_of(variable)) if stored is None else stored.read_whole()
            except (LabtreeError, OSError, ValueError, KeyError, TypeError) as error:
                problems.append(f"{where}: {error}")
    return Verification(problems, checked, unchecked)


def _read_record(record: NodeRecord, column: Any, where: str) -> list[str]:
    """Read a node's arrays by their places in the catalogue."""
    problems = []
    for variable in variable_records(record):
        try:
            blobs = [column(record["path"], each) for each in variable.columns]
            StoredArray(variable.spec, blobs).read_whole()
        except Exception as error:  # of a hostile catalogue it can be anything
            problems.append(f"{where.rstrip('/')}/{variable.name}: {error}")
    return problems


def _differences(listed: dict[Any, xr.Dataset], found: dict[Any, xr.Dataset]) -> list[str]:
    """Return what the catalogue says otherwise than the file itself."""
    problems = [f"/{'/'.join(path)}: only in the file" for path in found.keys() - listed.keys()]
    problems += [
        f"/{'/'.join(path)}: only in the catalogue" for path in listed.keys() - found.keys()
    ]
    for path in listed.keys() & found.keys():
        where, one, two = "/" + "/".join(path), listed[path], found[path]
        if _text(one.attrs) != _text(two.attrs):
            problems.append(f"{where}: attributes differ between catalogue and file")
        for name in one.variables.keys() | two.variables.keys():
            if _essence(one, name) != _essence(two, name):
                problems.append(
                    f"{where.rstrip('/')}/{name}: differs between catalogue and file"
                )
    return sorted(problems)


def _essence(dataset: xr.Dataset, name: Any) -> str:
    if name not in dataset.variables:
        return ""
    variable = dataset.variables[name]
    return _text(
        [variable.dims, str(variable.dtype), variable.shape, dict(variable.attrs)]
    ) + str(name in dataset.coords)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=repr)


def accept_values(path: str | Path, group: str) -> list[str]:
    """Accept the values that a group's arrays have now: write new checksums for them.

    Parameters
    ----------
    path
        A file of labtree's that another program changed.
    group
        The group's path in the file, such as ``"rec1/rates"``.

    Returns
    -------
    list of str
        The variables whose values were not those that labtree wrote.

    Raises
    ------
    MissingFileError
        If the file or the group does not exist.
    FormatError
        If it is a zarr store, in which every writer of a chunk writes its checksum.
    """
    accepted = []
    if is_zarr(path):
        raise FormatError(
            f"{path} is a zarr store: a program that writes a chunk there also writes its "
            "checksum, so that there is nothing to accept"
        )
    if not Path(path).is_file():
        raise missing_file(f"there is no file {path}", path)
    with damage_as_format_error(path), retry_while_busy(lambda: h5py.File(path, "r+")) as file:
        if group not in file or not isinstance(file[group], h5py.Group):
            found = [name for name in file if isinstance(file[name], h5py.Group)]
            raise MissingFileError(f"{path} has no group {group}; it has {', '.join(found)}")
        for name, dataset in file[group].items():
            if isinstance(dataset, h5py.Dataset) and "labtree_crc32c" in dataset.attrs:
                crc = checksum(np.asarray(dataset[()]))
                if crc != int(dataset.attrs["labtree_crc32c"]):
                    dataset.attrs.modify("labtree_crc32c", np.uint32(crc))
                    accepted.append(f"{group}/{name}")
    return accepted
