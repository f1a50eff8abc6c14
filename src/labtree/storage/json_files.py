"""JSON files: read within a limit, replaced whole."""

import json
from pathlib import Path
from typing import Any

from labtree.errors import FormatError
from labtree.storage.files import read_file, write_file
from labtree.storage.json_values import parse

#: What is larger is no JSON that labtree or its peers wrote.
MAX_JSON_BYTES = 64 * 2**20


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """Put `value` at `path` as indented JSON, whole or not at all.

    Raises
    ------
    ValueError, TypeError
        If JSON cannot hold it, NaN and infinity included; nothing is written then.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_file(path, text.encode(), durable=durable)


def parse_json(content: bytes | str, where: str) -> Any:
    """Return the value of JSON `content`.

    Parameters
    ----------
    content
        UTF-8.
    where
        What an error calls it, such as the file's path.

    Raises
    ------
    FormatError
        If it is no JSON, or nested too deeply.
    """
    try:
        return parse(content)
    except (ValueError, RecursionError) as error:
        raise FormatError(
            f"{where}: expected JSON, found {content[:40]!r} ({error})"
        ) from error


def read_json(path: Path, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Return the value in a JSON file.

    Raises
    ------
    MissingFileError
        If there is no such file.
    FormatError
        If it is no regular file, is larger than `max_bytes`, or is no JSON.
    """
    return parse_json(read_file(path, max_bytes), str(path))
