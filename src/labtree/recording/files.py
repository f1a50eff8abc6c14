"""JSON files of a recording."""

import json
from pathlib import Path
from typing import Any

from labtree.errors import FormatError
from labtree.storage.files import read_file, write_file

__all__ = ["MOST_JSON_BYTES", "parse_json", "read_json", "write_json"]

# meta.json, labels.json and zarr.json beyond this are not ours; refuse before reading.
MOST_JSON_BYTES = 64 * 2**20


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """Replace ``path`` with ``value`` as JSON; what JSON cannot hold is an error first."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_file(path, text.encode(), durable=durable)


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
    return parse_json(read_file(path, MOST_JSON_BYTES), str(path))
