"""Columns of labtree's tables in the few types of NWB, and back.

NWB holds numbers, truth values, text, and lists of these. A missing number is NaN and a
missing text is empty; which values are missing, and the type that a column had, is kept
beside the tables, so that :func:`restored` returns what :func:`for_nwb` was given.
"""

import json
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from labtree.storage.dtypes import object_array

__all__ = ["NwbColumn", "for_nwb", "plain_json", "restored"]

_NUMBERS = (bool, int, float, np.bool_, np.integer, np.floating)


class NwbColumn(NamedTuple):
    """A column as NWB holds it.

    Parameters
    ----------
    data
        An array, or a list of text.
    ends
        For lists: where the list of each row ends in `data`; None for one value a row.
    about
        What :func:`restored` needs, as JSON values.
    losses
        What does not come back, in words.
    """

    data: Any
    ends: list[int] | None
    about: dict[str, Any]
    losses: list[str]


def for_nwb(values: Any, missing: NDArray[np.bool_] | None = None) -> NwbColumn:
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
        missing = np.asarray(values.isna())
        return _extension(values, missing)
    array = np.asarray(values)
    if dtype.kind in "mM":
        missing = np.isnat(array) if missing is None else missing | np.isnat(array)
    gaps = np.zeros(len(array), bool) if missing is None else missing
    about: dict[str, Any] = {"dtype": dtype.str if dtype.kind in "mM" else str(dtype)}
    if gaps.any():
        about["missing"] = np.flatnonzero(gaps).tolist()
    if dtype.kind in "biu" and gaps.any():
        data = array.astype(np.float64)
        exact = np.array_equal(data[~gaps].astype(dtype), array[~gaps])
        data[gaps] = np.nan
        losses = [] if exact else ["whole numbers with missing ones are rounded"]
        return NwbColumn(data, None, about, losses)
    if dtype.kind == "f" and gaps.any():
        data = array.copy()
        data[gaps] = np.nan
        return NwbColumn(data, None, about, [])
    if dtype.kind in "biuf":
        wide = dtype.itemsize > 8
        about |= {"dtype": "float64"} if wide else {}
        losses = [f"{dtype} becomes float64"] if wide else []
        return NwbColumn(array.astype(np.float64) if wide else array, None, about, losses)
    if dtype.kind == "U" and array.ndim == 1 and _is_plain(array[~gaps]):
        texts = ["" if gap else str(v) for v, gap in zip(array, gaps, strict=True)]
        return NwbColumn(texts, None, about, [])
    if dtype.kind == "M" and array.ndim == 1:
        texts = ["" if gap else str(v) for v, gap in zip(array, gaps, strict=True)]
        return NwbColumn(texts, None, about, [])
    if dtype.kind == "m" and array.ndim == 1:
        return NwbColumn(array.astype(np.int64), None, about, [])
    return _objects(list(array), gaps, about)


def restored(data: Any, about: dict[str, Any]) -> Any:
    """Return the values that :func:`for_nwb` was given; None where a row has none."""
    dtype, form = about["dtype"], about.get("form")
    gaps = set(about.get("missing", ()))
    if "categories" in about:
        inner = restored(data, about["of"])
        categories = restored(np.asarray(about["categories"][0]), about["categories"][1])
        return pd.Categorical(inner, categories=categories, ordered=about["ordered"])
    if form == "json":
        back = [None if at in gaps else json.loads(v) for at, v in enumerate(data)]
        if dtype.startswith("<U"):
            return np.array(["" if v is None else v for v in back], dtype)
        return pd.array(back, dtype=dtype) if about.get("text") else object_array(back)
    if form == "lists":
        kind = about.get("list")
        return object_array(
            [
                None if at in gaps else (np.asarray(v, kind) if kind else _as_list(v))
                for at, v in enumerate(data)
            ]
        )
    if form == "object":
        return object_array([None if at in gaps else v for at, v in enumerate(data)])
    if form == "pandas":
        values = [None if at in gaps else v for at, v in enumerate(np.asarray(data).tolist())]
        if dtype.startswith("datetime64"):
            return pd.DatetimeIndex(values).astype(dtype).array
        return pd.array(values, dtype=dtype)
    array = np.asarray(data)
    if gaps or str(array.dtype) != dtype:
        kind = np.dtype(dtype)
        where = np.array([at in gaps for at in range(len(array))], bool)
        if kind.kind in "mM":
            filled = np.where(where, "NaT", array) if kind.kind == "M" else array
            array = filled.astype(kind)
            array[where] = np.array("NaT", kind)
        elif kind.kind in "biu":
            filled = array.copy()
            filled[where] = 0
            array = filled.astype(kind)
        else:
            array = array.astype(kind)
    return array


def _as_list(values: Any) -> list[Any]:
    return values.tolist() if isinstance(values, np.ndarray) else list(values)


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


def _text_keys(value: Any) -> Any:
    """Make every key a string; JSON has no others."""
    if isinstance(value, dict):
        return {str(key): _text_keys(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_text_keys(inner) for inner in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _category(values: Any) -> NwbColumn:
    categories = for_nwb(values.categories.array)
    codes = np.asarray(values.codes)
    names = values.categories.astype(str).to_numpy(object)
    texts = [names[code] if code >= 0 else "" for code in codes]
    if categories.ends is not None or categories.about.get("form") == "json":
        return NwbColumn(texts, None, {"dtype": "<U1", "form": "object"}, ["categories"])
    as_array = (
        values.categories.take(np.where(codes < 0, 0, codes)).array
        if len(values.categories)
        else np.full(len(codes), "", object)
    )
    inner = for_nwb(np.asarray(as_array), codes < 0)
    kept = np.asarray(categories.data).tolist()
    about = {
        "dtype": "category",
        "categories": [kept, categories.about],
        "ordered": bool(values.ordered),
        "of": inner.about | {"form": "object"},
    }
    return NwbColumn(inner.data, inner.ends, about, inner.losses)


def _extension(values: Any, missing: NDArray[np.bool_]) -> NwbColumn:
    dtype = values.dtype
    about: dict[str, Any] = {"dtype": str(dtype), "form": "pandas"}
    if missing.any():
        about["missing"] = np.flatnonzero(missing).tolist()
    if isinstance(dtype, pd.DatetimeTZDtype):
        texts = ["" if gap else v.isoformat() for v, gap in zip(values, missing, strict=True)]
        return NwbColumn(texts, None, about, [])
    if isinstance(dtype, pd.StringDtype) and _is_plain(values[~missing]):
        texts = ["" if gap else str(v) for v, gap in zip(values, missing, strict=True)]
        return NwbColumn(texts, None, about, [])
    if hasattr(dtype, "numpy_dtype"):
        numpy = dtype.numpy_dtype
        data = values.to_numpy(dtype=numpy, na_value=numpy.type(0))
        plain = for_nwb(data, missing)
        return plain._replace(about=about)
    if isinstance(dtype, pd.StringDtype):
        return _objects(list(values), missing, {"dtype": str(dtype), "text": True})
    return _objects(list(values), missing, {"dtype": "object"})


def _objects(values: list[Any], gaps: NDArray[np.bool_], about: dict[str, Any]) -> NwbColumn:
    absent = gaps | np.array([value is None for value in values], bool)
    there = [value for value, gap in zip(values, absent, strict=True) if not gap]
    if absent.any():
        about["missing"] = np.flatnonzero(absent).tolist()
    if there and all(type(value) is str for value in there) and _is_plain(there):
        about["form"] = "object"
        texts = ["" if gap else v for v, gap in zip(values, absent, strict=True)]
        return NwbColumn(texts, None, about, [])
    rows = [[] if gap else v for v, gap in zip(values, absent, strict=True)]
    flat = _flat(there)
    if flat is not None:
        about["form"] = "lists"
        if isinstance(there[0], np.ndarray):
            about["list"] = str(there[0].dtype)
        ends = np.cumsum([len(row) for row in rows]).tolist()
        return NwbColumn(flat, ends, about, [])
    losses: list[str] = []
    about["form"] = "json"
    pairs = list(zip(values, absent, strict=True))
    texts = ["" if gap else plain_json(value, losses) for value, gap in pairs]
    for value, text in zip(values, texts, strict=True):
        if value is not None and text and not losses and not _same(json.loads(text), value):
            losses.append(f"a {type(value).__name__} becomes JSON text")
            break
    return NwbColumn(texts, None, about, list(dict.fromkeys(losses)))


def _is_plain(texts: Any) -> bool:
    """Return whether HDF5 can hold these texts: no NUL and no lone surrogate."""
    return not any(
        "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text) for text in texts
    )


def _flat(rows: list[Any]) -> Any:
    """Return the values of lists one after the other, or None if they share no type."""
    if not rows or not all(type(row) in (list, np.ndarray) for row in rows):
        return None
    if len({type(row) for row in rows}) > 1:
        return None
    if isinstance(rows[0], np.ndarray):
        if len({(row.dtype, row.shape[1:]) for row in rows}) > 1 or rows[0].dtype.kind not in (
            "biuf"
        ):
            return None
        return np.concatenate(rows) if rows[0].ndim else None
    flat = [value for row in rows for value in row]
    kinds = {type(value) for value in flat}
    if len(kinds) != 1 or not kinds <= {bool, int, float, str}:
        return None
    if kinds == {int} and not all(-(2**63) <= value < 2**63 for value in flat):
        return None
    if kinds == {str}:
        return flat if _is_plain(flat) else None
    return np.array(flat)


def _same(found: Any, given: Any) -> bool:
    if type(found) is not type(given):
        return False
    if isinstance(given, list):
        return len(found) == len(given) and all(map(_same, found, given))
    if isinstance(given, dict):
        return found.keys() == given.keys() and all(_same(found[k], given[k]) for k in given)
    return bool(found == given) or (found != found and given != given)
