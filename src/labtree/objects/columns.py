"""pandas arrays and indexes as numpy arrays and JSON, exactly.

An :class:`Pieces` gathers the numpy arrays; what each function returns is the JSON by
which the matching function finds them again.
"""

from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np
import pandas as pd
from pandas.tseries import offsets

from labtree.errors import UnsupportedTypeError, warn
from labtree.objects.numpy_arrays import array_variable
from labtree.storage import dtypes, json_values
from labtree.storage._xarray import Variable
from labtree.storage.missing import ANCILLARY, MISSING
from labtree.storage.unsupported import arrow_line

_MASKED = (
    pd.arrays.IntegerArray,
    pd.arrays.FloatingArray,
    pd.arrays.BooleanArray,
)
Meta = dict[str, Any]


class Pieces(dict[str, np.ndarray]):
    """numpy arrays by name, with their attributes; a name that is taken gets a number.

    Parameters
    ----------
    taken
        Names that no piece may have.
    """

    def __init__(self, taken: Iterable[Hashable] = ()):
        super().__init__()
        self._taken = set(taken)
        self._own: set[str] = set()
        self._attrs: dict[str, dict[str, Any]] = {}

    def put(self, name: str, array: np.ndarray, *, own: bool = False) -> str:
        """Keep an array; return the name that it got.

        Parameters
        ----------
        name
            The name wanted.
        array
            With one value for each row, or, `own`, of a length of its own.
        own
            Whether it has a dimension of its own, such as the categories of a column.
        """
        unique, count = name, 2
        while unique in self or unique in self._taken:
            unique, count = f"{name}_{count}", count + 1
        self[unique] = array
        if own:
            self._own.add(unique)
        return unique

    def describe(self, name: str, **attrs: Any) -> None:
        """Add attributes for other readers to a piece."""
        self._attrs.setdefault(name, {}).update(attrs)

    def variables(
        self, dim: Hashable, path: str = "obj", only: Iterable[str] | None = None
    ) -> dict[str, Variable]:
        """Return the pieces as variables, along a dimension or one of their own."""
        made = {}
        for name, array in self.items():
            if only is not None and name not in only:
                continue
            along: Any = f"{name}_row" if name in self._own else dim
            made[name] = array_variable((along,), array, f"{path}[{name!r}]")
            made[name].attrs = dict(self._attrs.get(name, {}))
        return made


def encode_column(
    values: Any, name: str, pieces: Pieces, path: str, *, own: bool = False
) -> Meta:
    """Put the values of a column or index into `pieces`; return how to read them.

    Parameters
    ----------
    values
        A numpy array or pandas extension array.
    name
        What to call its main piece.
    path
        How to name it in an error.
    own
        Whether it has a dimension of its own.

    Raises
    ------
    TypeError
        For sparse and Arrow arrays, and those of other packages.
    """
    dtype = values.dtype
    if type(values) in (pd.arrays.NumpyExtensionArray, np.ndarray) or isinstance(
        dtype,
        np.dtype,  # DatetimeArray and TimedeltaArray without a zone
    ):
        return {"type": "numpy", "piece": pieces.put(name, np.asarray(values), own=own)}
    if isinstance(dtype, pd.CategoricalDtype):
        # The codes first: they are the column that other readers see.
        codes = pieces.put(name, values.codes.copy(), own=own)
        categories = encode_index(
            dtype.categories, f"{name}_categories", pieces, path, own=True
        )
        labels = [str(label) for label in dtype.categories]
        if labels:
            pieces.describe(
                codes,
                flag_values=np.arange(len(labels)).astype(values.codes.dtype),
                flag_meanings=" ".join("_".join(label.split()) or "_" for label in labels),
            )
        ordered = bool(dtype.ordered)
        return {"type": "category", "piece": codes, "of": categories, "ordered": ordered}
    if isinstance(values, _MASKED):
        data = values.to_numpy(dtype=dtype.numpy_dtype, na_value=dtype.numpy_dtype.type(0))
        piece = pieces.put(name, data, own=own)
        mask = _put_missing(piece, np.asarray(values.isna()), pieces, own)
        return {"type": "masked", "piece": piece, "missing": mask}
    if isinstance(dtype, pd.StringDtype):
        missing = np.asarray(values.isna())
        texts = np.array(values, dtype=object)
        texts[missing] = ""
        meta = {"type": "string", "piece": pieces.put(name, texts, own=own)}
        if missing.any():
            meta["missing"] = _put_missing(meta["piece"], missing, pieces, own)
        return meta | encode_string_dtype(dtype)
    if isinstance(dtype, pd.DatetimeTZDtype):
        try:
            zone = dtypes.encode_timezone(dtype.tz)
        except UnsupportedTypeError as error:
            raise UnsupportedTypeError(f"{path}: {error}") from None
        counts = values.tz_convert("UTC").tz_localize(None)
        piece = pieces.put(name, np.asarray(counts, f"M8[{dtype.unit}]"), own=own)
        return {"type": "zoned", "piece": piece, "zone": zone}
    if isinstance(dtype, pd.PeriodDtype):
        piece = pieces.put(name, np.asarray(values.asi8), own=own)
        pieces.describe(piece, dtype=str(dtype))
        return {"type": "period", "piece": piece, "dtype": str(dtype)}
    if isinstance(dtype, pd.IntervalDtype):
        sides = [
            encode_column(getattr(values, side).array, f"{name}_{side}", pieces, path, own=own)
            for side in ("left", "right")
        ]
        return {"type": "interval", "sides": sides, "closed": values.closed}
    line = ".astype(object)"
    if isinstance(dtype, pd.SparseDtype):
        line = f".astype({str(dtype.subtype)!r})"
    elif isinstance(dtype, pd.ArrowDtype):
        line = arrow_line(dtype)
    raise UnsupportedTypeError(f"{path}: cannot keep pandas' {dtype} exactly; write {line}")


def _put_missing(piece: str, missing: np.ndarray, pieces: Pieces, own: bool) -> str:
    """Keep which values a piece lacks, and name that in the attributes of the piece."""
    mask = pieces.put(f"{piece}{MISSING}", missing, own=own)
    pieces.describe(piece, **{ANCILLARY: mask})
    return mask


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
        texts = np.array(piece, dtype=object)
        if "missing" in meta:
            texts[pieces[meta["missing"]]] = None
        return pd.array(texts, dtype=decode_string_dtype(meta))
    if kind == "zoned":
        zone = dtypes.decode_timezone(meta["zone"])
        return pd.DatetimeIndex(piece).tz_localize("UTC").tz_convert(zone).array
    if kind == "period":
        period: Any = pd.api.types.pandas_dtype(meta["dtype"])
        return pd.arrays.PeriodArray(piece, dtype=period)
    raise ValueError(f"unknown column type {kind!r}: written by a newer labtree, or damaged")


def encode_string_dtype(dtype: pd.StringDtype) -> Meta:
    """Return how to make pandas' dtype for texts again."""
    return {"storage": dtype.storage, "na": "NA" if dtype.na_value is pd.NA else "nan"}


def decode_string_dtype(meta: Meta) -> Any:
    """Return pandas' dtype for texts; that of Python's where pyarrow is not installed."""
    make: Any = pd.StringDtype
    value = pd.NA if meta["na"] == "NA" else np.nan
    try:
        return make(meta["storage"], na_value=value)
    except ImportError:
        warn(
            "texts were stored from pyarrow, which is not installed: they come back with "
            "python storage; pip install pyarrow"
        )
        return make("python", na_value=value)


def encode_index(
    index: pd.Index, name: str, pieces: Pieces, path: str, *, own: bool = False
) -> Meta:
    """Put an index into `pieces`, with its names and class; return how to read it."""
    if isinstance(index, pd.MultiIndex):
        levels = [
            encode_index(level, f"{name}_level_{i}", pieces, path, own=True)
            for i, level in enumerate(index.levels)
        ]
        codes = [
            pieces.put(f"{name}_code_{i}", np.asarray(code), own=own)
            for i, code in enumerate(index.codes)
        ]
        names = json_values.encode(list(index.names), f"{path}.names")
        return {"index": "multi", "levels": levels, "codes": codes, "names": names}
    names = json_values.encode(index.name, f"{path}.name")
    if isinstance(index, pd.RangeIndex):
        span = [index.start, index.stop, index.step]
        return {"index": "range", "range": span, "name": names}
    meta = {"index": "plain", "name": names}
    meta["values"] = encode_column(index.array, name, pieces, path, own=own)
    freq = getattr(index, "freq", None)
    if freq is not None and not isinstance(index, pd.PeriodIndex):
        meta["freq"] = encode_frequency(freq, path)
    return meta


#: The classes of pandas' frequencies, by name; a file can name no other.
_OFFSETS: dict[str, Any] = {
    name: cls
    for name, cls in vars(offsets).items()
    if isinstance(cls, type) and issubclass(cls, offsets.BaseOffset)
}


def encode_frequency(freq: Any, path: str) -> Any:
    """Return a frequency as its alias where that says all, else as class and arguments."""
    try:
        alias: str = freq.freqstr
        if pd.tseries.frequencies.to_offset(alias) == freq:
            return alias
    except (ValueError, TypeError, AttributeError):
        pass
    name = type(freq).__name__
    if _OFFSETS.get(name) is type(freq):
        arguments = dict(freq.kwds)
        if isinstance(arguments.pop("calendar", None), np.busdaycalendar):
            arguments.setdefault("weekmask", freq.weekmask)
            arguments.setdefault("holidays", freq.holidays)
        content = {"n": freq.n, "normalize": freq.normalize, "arguments": arguments}
        try:
            encoded = json_values.encode(content, path)
            if _decode_frequency({"offset": name, "content": encoded}) == freq:
                return {"offset": name, "content": encoded}
        except (ValueError, TypeError):
            pass
    raise UnsupportedTypeError(
        f"{path}: cannot keep the frequency {freq!r} exactly; write index.freq = None"
    )


def set_frequency(index: pd.Index, meta: Any) -> None:
    """Give an index the frequency that :func:`encode_frequency` returned."""
    setattr(index, "freq", _decode_frequency(meta))  # noqa: B010, only some classes have it


def _decode_frequency(meta: Any) -> Any:
    if isinstance(meta, str):
        return meta
    content = json_values.decode(meta["content"])
    cls = _OFFSETS[meta["offset"]]
    return cls(content["n"], normalize=content["normalize"], **content["arguments"])


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
        set_frequency(index, meta["freq"])
    return index
