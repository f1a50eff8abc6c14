"""Legacy pickles of DataFrames, read without running anything that a pickle asks for.

A pickle is a program: it names functions and says what to call them with. Here every name
becomes an inert node that only notes what was asked, names that no DataFrame needs are
refused, and the table is then put together from the notes by code of our own. No class of
pandas or numpy is called with what the file says, and pyarrow is not needed.
"""

import io
import pickle
import pickletools
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from labtree.errors import FormatError, UnsafePickleError
from labtree.storage.dtypes import object_array
from labtree.storage.files import read_file

# What pandas 1 to 3 write for a DataFrame, by the name's first and last part.
_KNOWN = {
    "pandas": [
        "ArrowStringArray",
        "ArrowStringArrayNumpySemantics",
        "BlockManager",
        "BooleanArray",
        "BooleanDtype",
        "DataFrame",
        "Float64Dtype",
        "Float64Index",
        "FloatingArray",
        "Index",
        "Int64Dtype",
        "Int64Index",
        "IntegerArray",
        "NA",
        "RangeIndex",
        "StringArray",
        "StringDtype",
        "__pyx_unpickle_NDArrayBacked",
        "_new_Index",
        "_unpickle_block",
    ],
    "numpy": ["_frombuffer", "_reconstruct", "dtype", "ndarray", "scalar"],
    "pyarrow": ["_restore_array", "chunked_array", "py_buffer", "type_for_alias"],
    "collections": ["OrderedDict"],
    "builtins": ["bytearray", "slice"],
    "__builtin__": ["bytearray", "slice"],
    "_codecs": ["encode"],
}
_MAX_DEPTH = 60
_MAX_BYTES = 2**32


class _Node:
    """What a pickle asked for: a name, what to call it with, and what to put into it."""

    name = ""

    def __new__(cls, *args: Any) -> "_Node":
        node = object.__new__(cls)
        node.args = args
        node.state = None
        node.items = []
        return node

    args: tuple[Any, ...]
    state: Any
    items: list[tuple[Any, Any]]

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))

    def __hash__(self) -> int:
        raise TypeError("not a key")


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        root = module.partition(".")[0]
        if name not in _KNOWN.get(root, ()):
            raise UnsafePickleError(f"asks for {module}.{name}, which no DataFrame needs")
        return type(name, (_Node,), {"name": name})

    def persistent_load(self, pid: Any) -> Any:
        raise UnsafePickleError("asks for an object outside of the file")


def read_frame_pickle(path: Path) -> pd.DataFrame:
    """Read a pickled DataFrame of numbers, booleans, strings and nested cells.

    Parameters
    ----------
    path : path
        Written by ``DataFrame.to_pickle`` of pandas 1 to 3, not compressed.

    Returns
    -------
    pandas.DataFrame
        Columns in their order; the index is left out.

    Raises
    ------
    UnsafePickleError
        The pickle names something that no DataFrame needs; the message says what.
    FormatError
        Not a pickle, damaged, or a DataFrame with a kind of column that is not known.
    """
    data = read_file(path, _MAX_BYTES)
    try:
        _refuse_large_memo(data)
        content = _Reader(io.BytesIO(data)).load()
        return _Builder(500_000 + 8 * len(data)).frame(content)
    except UnsafePickleError as error:
        raise UnsafePickleError(f"{path}: {error}; nothing of it was run") from None
    except RecursionError:
        raise FormatError(f"{path}: nested too deeply") from None
    except Exception as error:
        # A damaged pickle can fail in any way while its notes are taken and put together.
        problem = f"{type(error).__name__}: {error}"
        raise FormatError(
            f"{path}: not a pickled DataFrame that can be read ({problem})"
        ) from None


def _refuse_large_memo(data: bytes) -> None:
    """Refuse an index that would make the unpickler clear gigabytes for its memo."""
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in ("PUT", "LONG_BINPUT") and int(argument or 0) > len(data):
            raise ValueError(f"memo index {argument} in a file of {len(data)} bytes")


class _Builder:
    """Puts a DataFrame together from nodes, checking everything that they say."""

    def __init__(self, budget: int) -> None:
        # Parts that are used again and again may unfold to far more than the file.
        self.budget = budget

    def frame(self, node: Any) -> pd.DataFrame:
        if not isinstance(node, _Node) or node.name != "DataFrame":
            raise ValueError(f"expected a DataFrame, found {_describe(node)}")
        manager = node.state.get("_mgr") or node.state["_data"]
        if manager.args:
            blocks = [self._block(block) for block in manager.args[0]]
            axes = manager.args[1]
        else:
            state = manager.state[3]["0.14.1"]
            axes = state["axes"]
            blocks = [(self.array(b["values"]), b["mgr_locs"]) for b in state["blocks"]]
        labels, n_rows = self._index(axes[0]), len(self._index(axes[1]))
        columns: dict[int, Any] = {}
        for values, placement in blocks:
            places = self._places(placement, len(labels))
            rows = [values] if values.ndim == 1 else list(values)
            if len(rows) != len(places) or any(len(row) != n_rows for row in rows):
                raise ValueError("a block's shape is not that of its place")
            columns.update(zip(places, rows, strict=True))
        if sorted(columns) != list(range(len(labels))) or len(set(labels)) != len(labels):
            raise ValueError("columns are missing or named twice")
        return pd.DataFrame({labels[i]: columns[i] for i in range(len(labels))})

    def _block(self, node: Any) -> tuple[Any, Any]:
        if node.name != "_unpickle_block":
            raise ValueError(f"expected a block, found {_describe(node)}")
        return self.array(node.args[0]), node.args[1]

    def _places(self, placement: Any, n: int) -> list[int]:
        if isinstance(placement, _Node) and placement.name == "slice":
            return list(range(n))[slice(*placement.args)]
        return [int(place) for place in self.array(placement)]

    def _index(self, node: Any) -> Any:
        if node.name == "_new_Index":
            kind, content = node.args
            if kind.name == "RangeIndex":
                return range(content["start"], content["stop"], content["step"])
            return self.array(content["data"]).tolist()
        if node.name == "RangeIndex" and node.args:
            return range(*node.args[:3])
        raise ValueError(f"expected an index, found {_describe(node)}")

    def array(self, node: Any) -> Any:
        """Return the array that a node describes."""
        name = node.name if isinstance(node, _Node) else ""
        if name == "_frombuffer":
            buffer, dtype, shape, order = node.args
            return self._numeric(self.bytes(buffer), self._dtype(dtype), shape, order)
        if name == "_reconstruct":
            _, shape, dtype, fortran, content = node.state
            dtype = self._dtype(dtype)
            if dtype.kind != "O":
                return self._numeric(self.bytes(content), dtype, shape, "F" if fortran else "C")
            cells = object_array([self.value(item, 0) for item in content])
            return cells.reshape(_shape(shape), order="F" if fortran else "C")
        if name in ("IntegerArray", "FloatingArray", "BooleanArray"):
            state = node.state
            data, mask = self.array(state["_data"]), self.array(state["_mask"])
            kinds = {"IntegerArray": "iu", "FloatingArray": "f", "BooleanArray": "b"}
            if data.dtype.kind not in kinds[name] or mask.dtype != bool:
                raise ValueError(f"{name} of dtype {data.dtype}")
            return getattr(pd.arrays, name)(data.copy(), mask.copy())
        if name.startswith("ArrowStringArray"):
            state = node.state
            return self._strings(state.get("_pa_array", state.get("_data")))
        if name == "__pyx_unpickle_NDArrayBacked" and node.args[0].name == "StringArray":
            parts = [p for p in node.state if isinstance(p, _Node) and p.name == "_reconstruct"]
            return self.array(parts[0])
        raise ValueError(f"a column of a kind that is not known: {_describe(node)}")

    def _numeric(
        self, buffer: bytes, dtype: np.dtype[Any], shape: Any, order: Literal["C", "F"]
    ) -> Any:
        return np.frombuffer(buffer, dtype).reshape(_shape(shape), order=order).copy()

    def _dtype(self, node: Any) -> np.dtype[Any]:
        code = node.args[0]
        if node.name != "dtype" or not isinstance(code, str) or code[0] not in "biufO":
            raise ValueError(f"a dtype that is not known: {_describe(node)}")
        dtype = np.dtype(code)
        return dtype.newbyteorder(node.state[1]) if node.state else dtype

    def bytes(self, node: Any) -> bytes:
        """Return the bytes that a node describes."""
        if isinstance(node, bytes | bytearray):
            return bytes(node)
        if isinstance(node, pickle.PickleBuffer):
            return node.raw().tobytes()
        if node.name == "encode":
            return bytes(node.args[0].encode("latin1"))
        if node.name in ("bytearray", "py_buffer"):
            return self.bytes(node.args[0]) if node.args else b""
        raise ValueError(f"expected bytes, found {_describe(node)}")

    def _strings(self, node: Any) -> Any:
        """Read Arrow's layout of strings: a bitmap, offsets, and the text end to end."""
        if node.name == "chunked_array":
            parts = [self._strings(part) for part in node.args[0]]
            return np.concatenate([np.empty(0, object), *parts])
        if node.name != "_restore_array":
            raise ValueError(f"expected Arrow strings, found {_describe(node)}")
        kind, length, _, offset, buffers = node.args[0][:5]
        width = {"string": np.int32, "large_string": np.int64}[kind.args[0]]
        offsets = np.frombuffer(self.bytes(buffers[1]), width)[offset : offset + length + 1]
        text = self.bytes(buffers[2]) if buffers[2] is not None else b""
        if length and (len(offsets) != length + 1 or (np.diff(offsets) < 0).any()):
            raise ValueError("Arrow offsets that do not ascend")
        if length and not 0 <= offsets[0] <= offsets[-1] <= len(text):
            raise ValueError("Arrow offsets beyond the text")
        valid = np.ones(length, bool)
        if buffers[0] is not None:
            bits = np.frombuffer(self.bytes(buffers[0]), np.uint8)
            valid = np.unpackbits(bits, bitorder="little")[offset : offset + length] > 0
        return object_array(
            [
                text[offsets[i] : offsets[i + 1]].decode() if valid[i] else None
                for i in range(length)
            ]
        )

    def value(self, item: Any, depth: int) -> Any:
        """Return the plain value of a cell."""
        self.budget -= 1
        if self.budget < 0 or depth > _MAX_DEPTH:
            raise ValueError("unfolds to far more than the file holds, or too deeply")
        if item is None or isinstance(item, bool | int | float | str):
            return item
        if isinstance(item, type) and issubclass(item, _Node) and item.name == "NA":
            return None
        if isinstance(item, dict):
            return {self.value(k, depth + 1): self.value(v, depth + 1) for k, v in item.items()}
        if isinstance(item, list):
            return [self.value(part, depth + 1) for part in item]
        if isinstance(item, tuple):
            return tuple(self.value(part, depth + 1) for part in item)
        if isinstance(item, _Node):
            if item.name == "scalar":
                found = np.frombuffer(self.bytes(item.args[1]), self._dtype(item.args[0]))
                return found[0].item()
            if item.name == "OrderedDict":
                return {
                    self.value(k, depth + 1): self.value(v, depth + 1) for k, v in item.items
                }
            if item.name in ("_frombuffer", "_reconstruct"):
                return self.array(item).tolist()
        raise ValueError(f"a cell that is not plain data: {_describe(item)}")


def _shape(shape: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in shape)


def _describe(node: Any) -> str:
    if isinstance(node, _Node):
        return node.name
    if isinstance(node, type) and issubclass(node, _Node):
        return f"the name {node.name}"
    return f"a {type(node).__name__}"
