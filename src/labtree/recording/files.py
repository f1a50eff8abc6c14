"""Small files that are replaced whole, and the calls that make them durable."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any
from uuid import uuid4

from labtree.errors import FormatError

__all__ = ["parse_json", "read_json", "replace_file", "sync_file", "sync_folder", "write_json"]

# meta.json, labels.json and zarr.json beyond this are not ours; refuse before reading.
MOST_JSON_BYTES = 64 * 2**20


def sync_file(path: Path) -> None:
    """Wait until the bytes of the file at ``path`` are on the disk."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Wait until the names in the folder ``path`` are on the disk (not on Windows)."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Put ``content`` at ``path``, all or nothing; ``durable`` also waits for the disk."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if durable:
        sync_folder(path.parent)


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """Replace ``path`` with ``value`` as JSON; what JSON cannot hold is an error first."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    replace_file(path, text.encode(), durable=durable)


def parse_json(content: bytes, where: str) -> Any:
    """Return the value of JSON ``content``, or an error that names ``where``."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise FormatError(
            f"{where}: expected JSON, found {content[:40]!r} ({error})"
        ) from error


def read_json(path: Path) -> Any:
    """Return the JSON value in the file at ``path``."""
    size = path.stat().st_size
    if size > MOST_JSON_BYTES:
        raise FormatError(f"{path}: {size} bytes are too many for a JSON file of a recording")
    return parse_json(path.read_bytes(), str(path))
