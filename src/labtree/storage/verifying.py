"""Reading everything in a file, and holding its catalogue against its content."""

import json
from pathlib import Path
from typing import Any

from labtree.errors import FormatError
from labtree.storage.arrays import StoredArray
from labtree.storage.catalogue import Catalogue
from labtree.storage.records import DatasetBuilder
from labtree.storage.trees import column_reader, open_source, walked_reader
from labtree.storage.walking import NetCDFSource, walk

__all__ = ["verify_file"]


def verify_file(path: str | Path) -> list[str]:
    """Read all arrays of a netCDF-4 file and compare its catalogue with what it holds.

    Parameters
    ----------
    path
        A file of :func:`labtree.storage.save_tree` or of another program.

    Returns
    -------
    list of str
        What is wrong, a line each; empty where nothing is.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FormatError
        If it is not HDF5 at all, or from a newer version.
    """
    source, catalogue = open_source(path)
    other = NetCDFSource(path)
    try:
        problems = []
        try:
            found = walk(Path(path), other)
        except FormatError as error:
            found = []
            problems.append(str(error))
        if catalogue is not None:
            problems += _differences(catalogue, found) if found else []
            return problems + _read_all(catalogue.records(), column_reader(source), catalogue)
        return problems + _read_all(found, walked_reader(source, other), None)
    finally:
        other.close()
        source.close()


def _read_all(
    records: list[dict[str, Any]], column: Any, catalogue: Catalogue | None
) -> list[str]:
    problems = []
    builder = DatasetBuilder(column, b"" if catalogue is None else catalogue.values)
    for record in records:
        where = "/" + "/".join(record["path"])
        for name, _, spec, _, columns in record["variables"]:
            try:
                StoredArray(
                    spec, [column(record["path"], item) for item in columns]
                ).read_whole()
            except (FormatError, ValueError, OSError, KeyError, TypeError) as error:
                problems.append(f"{where.rstrip('/')}/{name}: {error}")
        try:
            builder.build(record)
        except (FormatError, ValueError, OSError, KeyError, TypeError) as error:
            problems.append(f"{where}: {error}")
    return problems


def _differences(catalogue: Catalogue, found: list[dict[str, Any]]) -> list[str]:
    """Return what the catalogue says otherwise than the file itself."""
    listed = {tuple(record["path"]): record for record in catalogue.records()}
    actual = {tuple(record["path"]): record for record in found}
    problems = [
        f"/{'/'.join(path)}: only in the file" for path in actual.keys() - listed.keys()
    ]
    problems += [
        f"/{'/'.join(path)}: only in the catalogue" for path in listed.keys() - actual.keys()
    ]
    for path in listed.keys() & actual.keys():
        problems += _node_differences("/" + "/".join(path), listed[path], actual[path])
    return sorted(problems)


def _node_differences(where: str, listed: dict[str, Any], actual: dict[str, Any]) -> list[str]:
    problems = []
    if _text(listed["attrs"]) != _text(actual["attrs"]):
        problems.append(f"{where}: attributes differ between catalogue and file")
    variables = [
        {variable[0]: _essence(variable) for variable in record["variables"]}
        for record in (listed, actual)
    ]
    return problems + [
        f"{where.rstrip('/')}/{name}: differs between catalogue and file"
        for name in variables[0].keys() | variables[1].keys()
        if variables[0].get(name) != variables[1].get(name)
    ]


def _essence(variable: list[Any]) -> str:
    """Return what must be the same of a variable: all but checksums and copies of values."""
    name, dims, spec, attrs, columns = variable
    return _text([name, dims, spec, attrs, [column[:4] for column in columns]])


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
