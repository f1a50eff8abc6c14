"""Records of steps: what a step was run with, and whether that still holds.

Fingerprints show whether anything has changed: every variable and every attribute
of every node is an item with a checksum of its content. The checksums (CRC-32C over the
bytes, with type, shape and dimensions) serve to notice changes, not to resist an
adversary; they take about 10 ms for 100 MB.
"""

import ast
import datetime
import functools
import hashlib
import inspect
import itertools
import pickle
import secrets
import textwrap
import types
import weakref
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any, TypedDict

import numpy as np
import xarray as xr

from labtree.storage._xarray import data_of
from labtree.storage.arrays import StoredArray, stored_array
from labtree.storage.blobs import checksum
from labtree.storage.sources import BytesSource


class StepCall(TypedDict):
    """What a step was called with; equal calls have one ``key``."""

    name: str
    parameters: dict[str, Any]
    files: dict[str, str]
    code: str
    depends: Any
    key: str


class StepRecord(StepCall):
    """A call that ran: what it rests on and what it made, by hashes and checksums."""

    duration_s: float
    hash: str
    inputs: dict[str, str]
    outputs: dict[str, str]
    versions: dict[str, str]
    finished_at: str


_EXACT_REPR = (
    str, bytes, bool, int, float, complex, PurePath, datetime.date, datetime.timedelta,
)  # fmt: skip
_serial = itertools.count()
_TOKENS: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


def digest(items: Mapping[str, str]) -> str:
    """Return one short hash of many items."""
    text = "\n".join(f"{key}\t{items[key]}" for key in sorted(items))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _array(data: np.ndarray) -> str:
    if data.dtype.hasobject:
        text = "\n".join(fingerprint_value(item) for item in data.ravel().tolist())
        code = checksum(np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8))
    else:
        code = checksum(data) if data.nbytes else 0
    return f"{data.dtype.descr if data.dtype.names else data.dtype.str}{data.shape}{code:08x}"


def fingerprint_value(value: Any) -> str:
    """Return a text that differs whenever the value or its type differs.

    Examples
    --------
    >>> fingerprint_value(1) == fingerprint_value(1.0)
    False
    >>> fingerprint_value({"a": 1, "b": [2]}) == fingerprint_value({"b": [2], "a": 1})
    True
    """
    if isinstance(value, Mapping):
        parts = sorted(
            f"{fingerprint_value(k)}={fingerprint_value(v)}" for k, v in value.items()
        )
        return "{" + ",".join(parts) + "}"
    if isinstance(value, (list, tuple)):
        return type(value).__name__ + "[" + ",".join(map(fingerprint_value, value)) + "]"
    if isinstance(value, (set, frozenset)):
        return "set[" + ",".join(sorted(map(fingerprint_value, value))) + "]"
    if isinstance(value, (np.ndarray, np.generic)):
        return type(value).__name__ + _array(np.asarray(value))
    if isinstance(value, (xr.Dataset, xr.DataArray)):
        dataset = value.to_dataset(name="data") if isinstance(value, xr.DataArray) else value
        return digest(fingerprint_items(xr.DataTree(dataset)))
    if value is None or isinstance(value, _EXACT_REPR):
        return f"{type(value).__name__}:{value!r}"
    try:  # a repr may leave things out, as a long DataFrame's does
        stored = pickle.dumps(value, protocol=4)
    except Exception:  # what cannot be compared counts as new each time
        stored = secrets.token_bytes(16)
    return f"{type(value).__name__}:{hashlib.sha256(stored).hexdigest()[:32]}"


def _token(source: Any) -> str:
    """Return a text that stands for one object and no other as long as Python runs."""
    if isinstance(source, StoredArray):
        return fingerprint_value(
            [(blob.place[0].name, blob.place[1], blob.crc, blob.name) for blob in source.blobs]
        )
    try:
        return _TOKENS.setdefault(source, f"{next(_serial)}")
    except TypeError:  # neither hashable nor weakly referable
        return f"id {id(source)}"


def _lazy(data: Any) -> str:
    """Return a text for what a lazy array reads and which part of it; reads nothing."""
    selections = []
    while hasattr(data, "array"):  # xarray's wrappers, each with its own selection
        key = getattr(getattr(data, "key", None), "tuple", ())
        selections.append([_bounds(part) for part in key])
        data = data.array
    if isinstance(data, np.ndarray):
        source = _array(data)
    else:  # dask names an array by what it computes
        source = data.name if hasattr(data, "__dask_graph__") else _token(data)
    return f"{source}{fingerprint_value(selections)}"


def _bounds(part: Any) -> Any:
    return (part.start, part.stop, part.step) if isinstance(part, slice) else part


def _is_lazy(variable: xr.Variable) -> bool:
    """Return whether a variable's values are still to be read or computed."""
    if isinstance(variable, xr.IndexVariable) or isinstance(data_of(variable), np.ndarray):
        return False
    stored = stored_array(variable)
    return stored is None or not all(
        isinstance(blob.place[0], BytesSource) for blob in stored.blobs
    )


def holds_lazy_arrays(tree: xr.DataTree) -> bool:
    """Return whether any values of a tree are still to be read or computed."""
    return any(
        _is_lazy(variable)
        for node in tree.subtree
        for variable in node.to_dataset(inherit=False).variables.values()
    )


def _variable(variable: xr.Variable, memo: dict[int, str]) -> str:
    attributes = fingerprint_value(variable.attrs) if variable.attrs else ""
    if _is_lazy(variable):
        content = f"lazy {variable.dtype.str}{variable.shape}{_lazy(data_of(variable))}"
    elif isinstance(data_of(variable), np.ndarray):
        data = data_of(variable)
        content = memo[id(data)] = memo.get(id(data)) or _array(data)
    else:
        content = _array(np.asarray(variable.values))
    return f"{variable.dims}{content}{attributes}"


def fingerprint_items(
    tree: xr.DataTree,
    *,
    ignore_root: Iterable[str] = (),
    memo: dict[int, str] | None = None,
) -> dict[str, str]:
    """Return a checksum for every variable (``node:name``) and attribute (``node@name``).

    An array that is not in memory counts by what it reads: two arrays of one shape in
    different files differ, and nothing is read.

    Parameters
    ----------
    tree : DataTree
    ignore_root : iterable of str
        Attributes of the root that do not count.
    memo : dict of int to str, optional
        Checksums by ``id`` of arrays that are known not to have changed; filled in.
    """
    ignored = set(ignore_root)
    memo = {} if memo is None else memo
    items: dict[str, str] = {}
    for node in tree.subtree:
        path = item_path(node.relative_to(tree))
        dataset = node.to_dataset(inherit=False)
        items[path] = "node"
        for name, variable in dataset.variables.items():
            items[f"{path}:{name}"] = _variable(variable, memo)
        for name, value in dataset.attrs.items():
            if node is not tree or name not in ignored:
                items[f"{path}@{name}"] = digest({"": fingerprint_value(value)})
    return items


def item_path(path: str) -> str:
    """Return a node's path as items have it: without the marks of variables and attributes."""
    return path.replace(":", "%3A").replace("@", "%40")


def node_of(item: str) -> str:
    """Return the node that an item belongs to."""
    cut = min((i for i in (item.find(":"), item.find("@")) if i >= 0), default=len(item))
    return item[:cut]


def hash_nodes(items: Mapping[str, str], ignored: Iterable[str] = ()) -> dict[str, str]:
    """Return one hash per node over its items, without the ignored ones."""
    skip = set(ignored)
    grouped: dict[str, dict[str, str]] = {}
    for item, value in items.items():
        if item not in skip:
            grouped.setdefault(node_of(item), {})[item] = value
    return {node: digest(members) for node, members in grouped.items()}


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
        return _function_text(value)
    return fingerprint_value(value)


def _function_text(function: Any) -> str:
    """Return a function's name and, as many share one, a hash of its code and of its values."""
    name = getattr(function, "__qualname__", type(function).__qualname__)
    text = f"{getattr(function, '__module__', None)}.{name}"
    if isinstance(function, functools.partial):
        held = [function.func, *function.args, *function.keywords.items()]
    elif isinstance(function, types.MethodType):
        held = [function.__func__, function.__self__]
    elif isinstance(function, types.FunctionType):
        held = [function, function.__defaults__, function.__kwdefaults__]
        held += [_content(cell) for cell in function.__closure__ or ()]
    elif hasattr(function, "__qualname__"):  # a class, or written in C
        return text
    else:  # an object of a class that can be called
        return fingerprint_value(function)
    # Of a function that another one holds the code alone: it may hold that one in turn.
    parts = {
        f"{number:03}": _code_text(each.__code__)
        if isinstance(each, types.FunctionType)
        else fingerprint_value(each)
        for number, each in enumerate(held)
    }
    return f"{text} {digest(parts)}"


def _content(cell: types.CellType) -> Any:
    """Return what a function holds of the one around it; None of what has no value yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _code_text(code: types.CodeType) -> str:
    """Return what code does, without where it stands in which file."""
    texts = [code.co_code.hex(), repr(code.co_names), repr(code.co_freevars)]
    for constant in code.co_consts:
        is_code = isinstance(constant, types.CodeType)
        texts.append(_code_text(constant) if is_code else fingerprint_value(constant))
    return " ".join(texts)


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


def is_done(record: StepRecord, later: Iterable[StepRecord], items: Mapping[str, str]) -> bool:
    """Return whether a step's outputs are there and its inputs are what they were."""
    outputs = record["outputs"]
    if any(items.get(item, "") != value for item, value in outputs.items()):
        return False
    ignored = set(outputs)
    for other in later:
        ignored |= set(other["outputs"])
    now = hash_nodes(items, ignored)
    return all(now.get(node) == value for node, value in record["inputs"].items())


def stale_records(
    later: list[StepRecord], name: str, items: Mapping[str, str]
) -> list[StepRecord]:
    """Return the records of steps that rest on what has just been made again."""
    return [
        record
        for position, record in enumerate(later)
        if record["name"] != name and not is_done(record, later[position + 1 :], items)
    ]
