"""A finished recording as one file, ``.session.zip``, in place of its folder."""

import contextlib
import os
import re
import shutil
import warnings
import zipfile
from pathlib import Path

from tqdm import tqdm

from labtree.errors import (
    AlreadyExistsError,
    FormatError,
    RecordingWarning,
    RecordingWriteError,
)
from labtree.recording.chunks import ArrayReader
from labtree.recording.files import MOST_JSON_BYTES, parse_json, sync_folder
from labtree.recording.meta import parse_labels, parse_meta
from labtree.recording.stores import FolderStore, ZipStore

__all__ = ["pack"]

SUFFIX = ".session.zip"
_MOST_BYTES = 2**40  # of one file that was written here


def _slug(name: str | None) -> str:
    """Return ``_<name>`` of letters that every file system takes, at most 40 of them."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name or "")
    plain = re.sub(r"-{2,}", "-", plain).strip("-")[:40].strip("-")
    return f"_{plain}" if plain else ""


def pack(folder: Path, name: str | None = None) -> Path:
    """Replace a finished recording's folder by an archive beside it; return the archive.

    The entries are stored, not compressed again: the chunks are compressed already.

    Raises
    ------
    AlreadyExistsError
        If the archive exists.
    RecordingWriteError, FormatError
        If the archive cannot be written, or the folder's own files are damaged. The folder
        is untouched.
    """
    target = folder.with_name(f"{folder.name}{_slug(name)}{SUFFIX}")
    if target.exists():
        raise AlreadyExistsError(f"{target} exists already; move it away first")
    temporary = target.with_name(f"{target.name}.tmp")
    # What begins with a dot is the rest of something that was interrupted.
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not path.relative_to(folder).parts[0].startswith(".")
    )
    names = [path.relative_to(folder).as_posix() for path in files]
    try:
        with temporary.open("wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                for path, entry in zip(
                    tqdm(files, "packing", disable=None), names, strict=True
                ):
                    archive.write(path, entry)
            file.flush()
            os.fsync(file.fileno())
        _check(temporary, folder, names)
        if target.exists():
            raise AlreadyExistsError(f"{target} exists already; move it away first")
        temporary.replace(target)
        sync_folder(target.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and not isinstance(error, AlreadyExistsError):
            raise RecordingWriteError.of(error, f"{target} cannot be written") from error
        raise
    try:
        # Renamed first, so that half a folder never looks like a session.
        gone = folder.rename(folder.with_name(f".{folder.name}.packed"))
        shutil.rmtree(gone)
    except OSError as error:
        warnings.warn(
            f"{target} is complete, but {folder} could not be removed: {error}",
            RecordingWarning,
            stacklevel=3,
        )
    return target


def _check(archive: Path, folder: Path, names: list[str]) -> None:
    """Compare the archive with the folder byte by byte, and decode every chunk of it."""
    packed, loose = ZipStore(archive), FolderStore(folder)
    for name in names:
        if packed.read(name, _MOST_BYTES) != loose.read(name, _MOST_BYTES):
            raise FormatError(f"{archive}: {name} differs from the file in {folder}")
    meta = parse_meta(
        parse_json(packed.read("meta.json", MOST_JSON_BYTES), "meta.json"), str(folder)
    )
    parse_labels(
        parse_json(packed.read("labels.json", MOST_JSON_BYTES), "labels.json"), str(folder)
    )
    for stream in meta["streams"]:
        data = ArrayReader(packed, f"{stream}.zarr")
        times = ArrayReader(packed, f"{stream}_timestamps.zarr")
        if data.shape[0] != times.shape[0]:
            raise FormatError(
                f"{folder}: stream {stream!r} has {data.shape[0]} samples and"
                f" {times.shape[0]} time stamps"
            )
        for array in (data, times):
            whole = array.whole_rows()
            if whole < array.shape[0]:
                raise FormatError(f"{folder}: {array.name} lacks chunks behind sample {whole}")
            for first in range(0, whole, array.chunk_rows):
                array.read(first, min(first + array.chunk_rows, whole))
