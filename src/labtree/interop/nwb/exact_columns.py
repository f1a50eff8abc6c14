"""Columns of labtree's tables in the few types of NWB, and back.

NWB holds numbers, truth values, text, and lists of these. A missing number is NaN and a
missing text is empty; which values are missing, and the type that a column had, is kept
beside the tables, so that :func:`restored` returns what :func:`for_nwb` was given.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from labtree.interop.common import hdf5_holds
from labtree.objects.unit_attributes import alike
from labtree.storage.dtypes import object_array

Gaps = NDArray[np.bool_]


class NwbColumn(NamedTuple):
    """A column as NWB holds it.

    Parameters
    ----------
    data
        An array, or a list of text.
    about
        What :func:`restored` needs, as JSON values.
    ends
        For lists: where the list of each row ends in `data`; None for one value a row.
    losses
        What does not come back, in words.
    """

    data: Any
    about: dict[str, Any]
    ends: list[int] | None = None
    losses: Sequence[str] = ()


def for_nwb(values: Any, missing: Gaps | None = None) -> NwbColumn:
    """Return a column in a type of NWB.

    Parameters
    ----------
    values : array of shape (row, ...), or pandas array
    missing : array of bool, optional
        Which rows have no value; pandas arrays say so themselves.
    """
    dtype = values.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return _category(values)
    if not isinstance(dtype, np.dtype):
        return _extension(values, np.asarray(values.isna()))
    array = np.asarray(values)
    gaps = np.zeros(len(array), bool) if missing is None else missing
    is_time = dtype.kind in "mM" and array.ndim == 1
    if is_time:
        gaps = gaps | np.isnat(array)
    about = _about(dtype.str if dtype.kind in "mM" else str(dtype), gaps)
    if dtype.kind in "biuf":
        return _numbers(array, gaps, about)
    if is_time and dtype.kind == "m":
        return NwbColumn(array.astype(np.int64), about)
    if is_time or (dtype.kind == "U" and array.ndim == 1 and _are_plain(array[~gaps])):
        return NwbColumn(_texts(array, gaps), about)
    return _objects(list(array), gaps, about)


def restored(data: Any, about: dict[str, Any]) -> Any:
    """Return the values that :func:`for_nwb` was given; None where a row has none."""
    dtype, form = about["dtype"], about.get("form")
    if "categories" in about:
        inner = restored(data, about["of"])
        categories = restored(np.asarray(about["categories"][0]), about["categories"][1])
        return pd.Categorical(inner, categories=categories, ordered=about["ordered"])
    if form is None:
        return _restored_array(np.asarray(data), dtype, about.get("missing", []))

    def read(value: Any) -> Any:
        if form == "json":
            return json.loads(value)
        if form != "lists":
            return value
        if "list" in about:
            return np.asarray(value, about["list"])
        return value.tolist() if isinstance(value, np.ndarray) else list(value)

    gaps = set(about.get("missing", ()))
    given = np.asarray(data).tolist() if form == "pandas" else data
    values = [None if at in gaps else read(value) for at, value in enumerate(given)]
    if form == "pandas" and dtype.startswith("datetime64"):
        return pd.DatetimeIndex(values).astype(dtype).array
    if form == "pandas" or about.get("text"):
        return pd.array(values, dtype=dtype)
    if form == "json" and dtype.startswith("<U"):
        return np.array(["" if value is None else value for value in values], dtype)
    return object_array(values)


def _restored_array(array: NDArray[Any], dtype: str, gaps: list[int]) -> NDArray[Any]:
    """Return an array in the dtype that it had, with a filler in the place of gaps."""
    if not gaps and str(array.dtype) == dtype:
        return array
    kind = np.dtype(dtype)
    if not gaps or kind.kind not in "biumM":
        return array.astype(kind)
    filled = array.astype(object) if kind.kind == "M" else array.copy()
    filled[gaps] = "NaT" if kind.kind == "M" else 0
    found = filled.astype(kind)
    if kind.kind in "mM":
        found[gaps] = np.array("NaT", kind)
    return found


def plain_json(value: Any, losses: list[str]) -> str:
    """Return a value as JSON; what JSON lacks becomes text, and is listed."""

    def plain(inner: Any) -> Any:
        if isinstance(inner, np.ndarray | np.generic):
            return inner.tolist()
        if isinstance(inner, set | frozenset):
            return sorted(inner, key=repr)
        losses.append(f"a {type(inner).__name__} becomes text")
        return repr(inner)

    return json.dumps(_text_keys(value), default=plain)


def as_json(value: Any) -> Any:
    """Return a value as JSON gives it back; what JSON lacks as text."""
    return json.loads(plain_json(value, []))


def _text_keys(value: Any) -> Any:
    """Make every key a string; JSON has no others."""
    if isinstance(value, dict):
        return {str(key): _text_keys(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_text_keys(inner) for inner in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _about(dtype: str, gaps: Gaps, **more: Any) -> dict[str, Any]:
    about: dict[str, Any] = {"dtype": dtype, **more}
    if gaps.any():
        about["missing"] = np.flatnonzero(gaps).tolist()
    return about


def _texts(values: Iterable[Any], gaps: Gaps, write: Callable[[Any], str] = str) -> list[str]:
    """Return values as texts, empty where one is missing."""
    return ["" if gap else write(v) for v, gap in zip(values, gaps, strict=True)]


def _numbers(array: NDArray[Any], gaps: Gaps, about: dict[str, Any]) -> NwbColumn:
    dtype, data = array.dtype, array
    losses: list[str] = []
    if dtype.itemsize > 8:
        about["dtype"] = "float64"
        losses.append(f"{dtype} becomes float64")
        data = array.astype(np.float64)
    if gaps.any():
        data = data.astype(np.float64 if dtype.kind in "biu" else data.dtype)
        if dtype.kind in "biu" and not np.array_equal(data[~gaps].astype(dtype), array[~gaps]):
            losses.append("whole numbers with missing ones are rounded")
        data[gaps] = np.nan
    return NwbColumn(data, about, losses=losses)


def _category(values: Any) -> NwbColumn:
    categories = for_nwb(values.categories.array)
    codes = np.asarray(values.codes)
    if categories.ends is not None or categories.about.get("form") == "json":
        names = values.categories.astype(str).to_numpy(object)
        texts = [names[code] if code >= 0 else "" for code in codes]
        return NwbColumn(texts, {"dtype": "<U1", "form": "object"}, losses=["categories"])
    as_array = (
        values.categories.take(np.where(codes < 0, 0, codes)).array
        if len(values.categories)
        else np.full(len(codes), "", object)
    )
    inner = for_nwb(np.asarray(as_array), codes < 0)
    about = {
        "dtype": "category",
        "categories": [np.asarray(categories.data).tolist(), categories.about],
        "ordered": bool(values.ordered),
        "of": inner.about | {"form": "object"},
    }
    return inner._replace(about=about)


def _extension(values: Any, missing: Gaps) -> NwbColumn:
    dtype = values.dtype
    about = _about(str(dtype), missing, form="pandas")
    if isinstance(dtype, pd.DatetimeTZDtype):
        return NwbColumn(_texts(values, missing, pd.Timestamp.isoformat), about)
    if isinstance(dtype, pd.StringDtype):
        if _are_plain(values[~missing]):
            return NwbColumn(_texts(values, missing), about)
        return _objects(list(values), missing, {"dtype": str(dtype), "text": True})
    if hasattr(dtype, "numpy_dtype"):
        numpy = dtype.numpy_dtype
        data = values.to_numpy(dtype=numpy, na_value=numpy.type(0))
        return for_nwb(data, missing)._replace(about=about)
    return _objects(list(values), missing, {"dtype": "object"})


def _objects(values: list[Any], gaps: Gaps, about: dict[str, Any]) -> NwbColumn:
    absent = gaps | np.array([value is None for value in values], bool)
    there = [value for value, gap in zip(values, absent, strict=True) if not gap]
    if absent.any():
        about["missing"] = np.flatnonzero(absent).tolist()
    if there and all(type(value) is str for value in there) and _are_plain(there):
        about["form"] = "object"
        return NwbColumn(_texts(values, absent), about)
    flat = _flat(there)
    if flat is not None:
        about["form"] = "lists"
        if isinstance(there[0], np.ndarray):
            about["list"] = str(there[0].dtype)
        sizes = [0 if gap else len(row) for row, gap in zip(values, absent, strict=True)]
        return NwbColumn(flat, about, np.cumsum(sizes).tolist())
    losses: list[str] = []
    about["form"] = "json"
    texts = _texts(values, absent, lambda value: plain_json(value, losses))
    for value, text in zip(values, texts, strict=True):
        if value is not None and text and not losses and not alike(json.loads(text), value):
            losses.append(f"a {type(value).__name__} becomes JSON text")
    return NwbColumn(texts, about, losses=list(dict.fromkeys(losses)))


def _are_plain(texts: Iterable[str]) -> bool:
    return all(map(hdf5_holds, texts))


def _flat(rows: list[Any]) -> Any:
    """Return the values of lists one after the other, or None if they share no type."""
    kinds = {type(row) for row in rows}
    if kinds == {np.ndarray}:
        forms = {(row.dtype, row.shape[1:]) for row in rows}
        alike_in_form = len(forms) == 1 and rows[0].ndim and rows[0].dtype.kind in "biuf"
        return np.concatenate(rows) if alike_in_form else None
    if kinds != {list}:
        return None
    flat = [value for row in rows for value in row]
    kinds = {type(value) for value in flat}
    if kinds == {str}:
        return flat if _are_plain(flat) else None
    whole = kinds == {int} and all(-(2**63) <= value < 2**63 for value in flat)
    return np.array(flat) if whole or kinds in ({bool}, {float}) else None
