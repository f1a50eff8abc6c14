"""A finished recording as one archive: made, checked, and put in the folder's place."""

import re
import shutil
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from labtree.errors import (
    AlreadyExistsError,
    FormatError,
    RecordingWarning,
    RecordingWriteError,
    warn,
)
from labtree.recording.chunks import ArrayReader
from labtree.recording.meta import parse_labels, parse_meta
from labtree.recording.recording_files import SUFFIX, FolderStore, ZipStore, stored_json
from labtree.storage.files import replace_file, sync_file, temporary_path

_MOST_BYTES = 2**40  # of one file that was written here


def _slug(name: str | None) -> str:
    """Return ``_<name>`` of letters that every file system takes, at most 40 of them."""
    plain = re.sub(r"[^A-Za-z0-9_]+", "-", name or "").strip("-")[:40].strip("-")
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
    if target.exists() or target.is_symlink():
        raise AlreadyExistsError(f"{target} exists already; move it away first")
    # What begins with a dot is the rest of something that was interrupted.
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not path.relative_to(folder).parts[0].startswith(".")
    )
    names = [path.relative_to(folder).as_posix() for path in files]
    if links := [name for path, name in zip(files, names, strict=True) if path.is_symlink()]:
        raise FormatError(
            f"{folder}: {links[0]} is a symbolic link; put the file in its place, then pack"
        )
    try:
        with temporary_path(target) as temporary:
            with temporary.open("rb+") as file:
                _write_archive(file, zip(files, names, strict=True), len(files))
            sync_file(temporary)
            _check(temporary, folder, names)
            if target.exists():
                raise AlreadyExistsError(f"{target} exists already; move it away first")
            replace_file(temporary, target)
    except AlreadyExistsError:
        raise
    except OSError as error:
        raise RecordingWriteError.of(error, f"{target} cannot be written") from error
    try:
        # Renamed first, so that half a folder never looks like a session.
        gone = folder.rename(folder.with_name(f".{folder.name}.packed"))
        shutil.rmtree(gone)
    except OSError as error:
        warn(
            f"{target} is complete, but {folder} could not be removed: {error}",
            RecordingWarning,
        )
    return target


def _write_archive(file: BinaryIO, entries: Iterable[tuple[Path, str]], count: int) -> None:
    archive = None
    try:
        archive = zipfile.ZipFile(file, "w", zipfile.ZIP_STORED)
        for path, entry in tqdm(entries, "packing", count, disable=None):
            archive.write(path, entry)
        archive.close()
    except BaseException:
        if archive is not None:
            archive.fp = None  # zipfile cannot end an archive in the middle of an entry
        raise


def _check(archive: Path, folder: Path, names: list[str]) -> None:
    """Compare the archive with the folder byte by byte, and decode every chunk of it."""
    packed, loose = ZipStore(archive), FolderStore(folder)
    for name in names:
        if packed.read(name, _MOST_BYTES) != loose.read(name, _MOST_BYTES):
            raise FormatError(f"{archive}: {name} differs from the file in {folder}")
    meta = parse_meta(stored_json(packed, "meta.json"), str(folder))
    parse_labels(stored_json(packed, "labels.json"), str(folder))
    if "streams" not in meta:
        raise FormatError(f"{folder / 'meta.json'}: expected 'streams', found {list(meta)}")
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
                raise FormatError(f"{folder}: {array.name} lacks chunks after sample {whole}")
            for first in range(0, whole, array.chunk_rows):
                array.read(first, min(first + array.chunk_rows, whole))
