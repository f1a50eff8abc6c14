"""Records of steps: what a step was run with, and whether that still holds."""

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from labtree.pipeline.fingerprint import digest, fingerprint_value, nodes_of
from labtree.pipeline.sessions import warn

__all__ = [
    "code_hash",
    "file_states",
    "forget_steps",
    "is_done",
    "plain_value",
    "stale_records",
]


def plain_value(value: Any) -> Any:
    """Return a parameter as values that a file can hold and a person can read."""
    if isinstance(value, (str, bool, int, float, type(None))):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain_value(member) for key, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_value(member) for member in value]
    if isinstance(value, (set, frozenset)):
        return sorted((plain_value(member) for member in value), key=repr)
    if callable(value):
        return f"{value.__module__}.{value.__qualname__}"
    return fingerprint_value(value)


def _stat(path: Path) -> str:
    info = path.stat()
    return f"{path.name} {info.st_size} {info.st_mtime_ns}"


def file_states(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Return name, size and time of change of the files that parameters point at."""
    found = {}
    for name, value in parameters.items():
        if isinstance(value, (str, Path)) and name.endswith(("_path", "_dir")):
            path = Path(value)
            if path.is_dir() and name != "output_dir":
                members = sorted(member for member in path.iterdir() if member.is_file())
                found[name] = digest({member.name: _stat(member) for member in members})
            elif path.is_file():
                found[name] = _stat(path)
    return found


def code_hash(body: Callable[..., Any]) -> str:
    """Return a hash of a function's source without its docstring; comments do not count."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(body)))
        function = tree.body[0]
    except Exception:  # no source, or not Python's: inspect raises whatever it meets there
        return ""
    if isinstance(function, ast.FunctionDef):
        function.decorator_list = []
        if ast.get_docstring(function) is not None:
            function.body = function.body[1:] or [ast.Pass()]
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()[:16]


def is_done(
    record: Mapping[str, Any], later: Iterable[Mapping[str, Any]], items: Mapping[str, str]
) -> bool:
    """Return whether a step's outputs are there and its inputs are what they were."""
    outputs = record["outputs"]
    if any(items.get(item, "") != value for item, value in outputs.items()):
        return False
    ignored = set(outputs)
    for other in later:
        ignored |= set(other["outputs"])
    now = nodes_of(items, ignored)
    return all(now.get(node) == value for node, value in record["inputs"].items())


def stale_records(
    later: list[dict[str, Any]], name: str, items: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return the records of steps that rest on what has just been made anew."""
    return [
        record
        for position, record in enumerate(later)
        if record["name"] != name and not is_done(record, later[position + 1 :], items)
    ]


def forget_steps(
    session: xr.DataTree,
    stale: list[dict[str, Any]],
    kept: list[dict[str, Any]],
    name: str,
) -> None:
    """Take steps off the list of what is done; their results stay."""
    names = {record["name"] for record in stale} - {record["name"] for record in kept}
    for one in sorted(names):
        warn(session, f"{one} is out of date, because {name} ran again after it; run it again")
    done = session.attrs.get("completed_steps", [])
    session.attrs["completed_steps"] = [one for one in done if one not in names]
