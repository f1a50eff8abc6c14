"""pandas arrays and indexes as numpy arrays and JSON, exactly.

An :class:`Pieces` gathers the numpy arrays; what each function returns is the JSON by
which the matching function finds them again.
"""

import warnings
from typing import Any

import numpy as np
import pandas as pd

from labtree.errors import UnsupportedTypeError
from labtree.storage import dtypes, json_values

__all__ = ["Pieces", "decode_column", "decode_index", "encode_column", "encode_index"]

_MASKED = (
    pd.arrays.IntegerArray,
    pd.arrays.FloatingArray,
    pd.arrays.BooleanArray,
)
Meta = dict[str, Any]


class Pieces(dict[str, np.ndarray]):
    """numpy arrays by name; a name that is taken gets a number."""

    def put(self, name: str, array: np.ndarray) -> str:
        """Keep an array; return the name that it got."""
        unique, count = name, 2
        while unique in self:
            unique, count = f"{name}_{count}", count + 1
        self[unique] = array
        return unique


def encode_column(values: Any, name: str, pieces: Pieces, path: str) -> Meta:
    """Put the values of a column or index into `pieces`; return how to read them.

    Parameters
    ----------
    values
        A numpy array or pandas extension array.
    name
        What to call its main piece.
    path
        How to name it in an error.

    Raises
    ------
    TypeError
        For sparse and Arrow arrays, and those of other packages.
    """
    if type(values) in (pd.arrays.NumpyExtensionArray, np.ndarray):
        return {"type": "numpy", "piece": pieces.put(name, np.asarray(values))}
    dtype = values.dtype
    if isinstance(dtype, np.dtype):  # DatetimeArray and TimedeltaArray without a zone
        return {"type": "numpy", "piece": pieces.put(name, np.asarray(values))}
    if isinstance(dtype, pd.CategoricalDtype):
        categories = encode_index(dtype.categories, f"{name}_categories", pieces, path)
        codes = pieces.put(name, values.codes.copy())
        ordered = bool(dtype.ordered)
        return {"type": "category", "piece": codes, "of": categories, "ordered": ordered}
    if isinstance(values, _MASKED):
        data = values.to_numpy(dtype=dtype.numpy_dtype, na_value=dtype.numpy_dtype.type(0))
        mask = pieces.put(f"{name}_missing", np.asarray(values.isna()))
        return {"type": "masked", "piece": pieces.put(name, data), "missing": mask}
    if isinstance(dtype, pd.StringDtype):
        texts = np.array(values, dtype=object)
        texts[np.asarray(values.isna())] = None
        na = "NA" if dtype.na_value is pd.NA else "nan"
        piece = pieces.put(name, texts)
        return {"type": "string", "piece": piece, "storage": dtype.storage, "na": na}
    if isinstance(dtype, pd.DatetimeTZDtype):
        zone = dtypes.encode_timezone(dtype.tz)
        counts = values.tz_convert("UTC").tz_localize(None)
        piece = pieces.put(name, np.asarray(counts, f"M8[{dtype.unit}]"))
        return {"type": "zoned", "piece": piece, "zone": zone}
    if isinstance(dtype, pd.PeriodDtype):
        ordinals = np.asarray(values.asi8)
        return {"type": "period", "piece": pieces.put(name, ordinals), "dtype": str(dtype)}
    if isinstance(dtype, pd.IntervalDtype):
        sides = [
            encode_column(getattr(values, side).array, f"{name}_{side}", pieces, path)
            for side in ("left", "right")
        ]
        return {"type": "interval", "sides": sides, "closed": values.closed}
    raise UnsupportedTypeError(
        f"{path}: cannot keep pandas' {dtype} exactly; convert it with .astype(...) first"
    )


def decode_column(meta: Meta, pieces: dict[str, np.ndarray]) -> Any:
    """Return the values that :func:`encode_column` was given."""
    kind = meta["type"]
    if kind == "interval":
        left, right = (decode_column(side, pieces) for side in meta["sides"])
        return pd.arrays.IntervalArray.from_arrays(
            pd.Index(left), pd.Index(right), closed=meta["closed"]
        )
    piece = pieces[meta["piece"]]
    if kind == "numpy":
        return piece
    if kind == "category":
        categories = decode_index(meta["of"], pieces)
        dtype = pd.CategoricalDtype(categories, ordered=meta["ordered"])
        return pd.Categorical.from_codes(piece, dtype=dtype)
    if kind == "masked":
        array = {"b": pd.arrays.BooleanArray, "f": pd.arrays.FloatingArray}.get(
            piece.dtype.kind, pd.arrays.IntegerArray
        )
        return array(piece, pieces[meta["missing"]])
    if kind == "string":
        return pd.array(piece, dtype=_string_dtype(meta["storage"], meta["na"]))
    if kind == "zoned":
        zone = dtypes.decode_timezone(meta["zone"])
        return pd.DatetimeIndex(piece).tz_localize("UTC").tz_convert(zone).array
    if kind == "period":
        period: Any = pd.api.types.pandas_dtype(meta["dtype"])
        return pd.arrays.PeriodArray(piece, dtype=period)
    raise ValueError(f"unknown column type {kind!r}: written by a newer labtree, or damaged")


def _string_dtype(storage: str, na: str) -> Any:
    make: Any = pd.StringDtype
    value = pd.NA if na == "NA" else np.nan
    try:
        return make(storage, na_value=value)
    except ImportError:
        warnings.warn(
            "texts were stored from pyarrow, which is not installed: they come back with "
            "python storage; pip install pyarrow",
            stacklevel=2,
        )
        return make("python", na_value=value)


def encode_index(index: pd.Index, name: str, pieces: Pieces, path: str) -> Meta:
    """Put an index into `pieces`, with its names and class; return how to read it."""
    if isinstance(index, pd.MultiIndex):
        levels = [
            encode_index(level, f"{name}_level_{i}", pieces, path)
            for i, level in enumerate(index.levels)
        ]
        codes = [
            pieces.put(f"{name}_code_{i}", np.asarray(code))
            for i, code in enumerate(index.codes)
        ]
        names = json_values.encode(list(index.names), f"{path}.names")
        return {"index": "multi", "levels": levels, "codes": codes, "names": names}
    names = json_values.encode(index.name, f"{path}.name")
    if isinstance(index, pd.RangeIndex):
        span = [index.start, index.stop, index.step]
        return {"index": "range", "range": span, "name": names}
    meta = {"index": "plain", "name": names}
    meta["values"] = encode_column(index.array, name, pieces, path)
    freq = getattr(index, "freqstr", None)
    if freq is not None and not isinstance(index, pd.PeriodIndex):
        meta["freq"] = freq
    return meta


def decode_index(meta: Meta, pieces: dict[str, np.ndarray]) -> pd.Index:
    """Return the index that :func:`encode_index` was given."""
    if meta["index"] == "multi":
        levels: Any = [decode_index(level, pieces) for level in meta["levels"]]
        codes: Any = [pieces[code] for code in meta["codes"]]
        names = json_values.decode(meta["names"])
        return pd.MultiIndex(levels, codes, names=names, verify_integrity=False)
    name = json_values.decode(meta["name"])
    if meta["index"] == "range":
        start, stop, step = meta["range"]
        return pd.RangeIndex(start, stop, step, name=name)
    values = decode_column(meta["values"], pieces)
    dtype = values.dtype if isinstance(values, np.ndarray) else None
    index: pd.Index = pd.Index(values, dtype=dtype, name=name, tupleize_cols=False)
    if "freq" in meta:
        setattr(index, "freq", meta["freq"])  # noqa: B010, only some classes have it
    return index
