"""Reading everything in a zarr store; zarr checks the checksum of each chunk."""

import warnings
from pathlib import Path
from typing import Any

from labtree.errors import FormatError, LabtreeError
from labtree.storage.verifying import Verification
from labtree.storage.zarr.locations import Folder, Location, location_of, open_array
from labtree.storage.zarr.members import all_metadata
from labtree.storage.zarr.trees import open_location, read_nodes


def verify_store(where: str | Path | Any) -> Verification:
    """Read all arrays of a zarr store of labtree's, each chunk against its checksum.

    Parameters
    ----------
    where
        A folder, a URL, or an ``icechunk.Storage``.

    Returns
    -------
    Verification
        Arrays whose chunks have no checksum are those of other programs.

    Raises
    ------
    MissingFileError
        If nothing is there.
    FormatError
        If it is no store of labtree, or of an unknown version.
    """
    location = location_of(where)
    problems: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        opened = open_location(location)
        lost: dict[str, str] = {}
        metadata = all_metadata(location, left_out=lost)
        problems += [
            f"{location.name}: {part} cannot be read ({reason})"
            for part, reason in lost.items()
            if part not in opened.left_out
        ]
        has_sum = {
            key: any(codec.get("name") == "crc32c" for codec in node["codecs"])
            for key, node in metadata.items()
            if node["node_type"] == "array"
        }
        try:
            with read_nodes(opened):  # reads what is in the catalogue only
                pass
        except LabtreeError as error:
            problems.append(str(error))
        problems += [text for key in has_sum if (text := _unreadable(location, key))]
    problems = [str(warning.message) for warning in caught] + problems
    checked = sum(has_sum.values())
    return Verification(list(dict.fromkeys(problems)), checked, len(has_sum) - checked)


def _unreadable(location: Location, key: str) -> str:
    """Return what goes wrong when an array is read, a row of chunks at a time."""
    try:
        array = open_array(location, key)
        if isinstance(location, Folder) and array.nchunks > len(
            list((location.path / key).iterdir())
        ):  # zarr would count all that a damaged shape asks for
            raise FormatError(f"not all of its {array.nchunks} chunks are there")
        missing = array.nchunks - array.nchunks_initialized
        if missing:
            raise FormatError(f"{missing} of {array.nchunks} chunks are not there")
        if not array.shape:
            _ = array[()]
            return ""
        for start in range(0, array.shape[0], array.chunks[0]):
            _ = array[start : start + array.chunks[0]]
    except Exception as error:  # what zarr raises for damage can be anything
        return f"{location.name}: {key}: {error or type(error).__name__}"
    return ""
