"""DataFrames and Series as datasets: a variable for each column, along ``row``."""

import json
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from labtree.objects.columns import (
    Pieces,
    decode_column,
    decode_index,
    encode_column,
    encode_index,
)
from labtree.objects.registry import Kind, add_kind, raw_or
from labtree.storage import json_values
from labtree.storage.names import encode_name
from labtree.storage.unsupported import refused_together, unsupported


def frame_to_dataset(frame: pd.DataFrame, path: str = "obj") -> xr.Dataset:
    """Return a DataFrame as a dataset.

    Parameters
    ----------
    frame
        With columns of every pandas dtype but sparse and Arrow ones; any index, names,
        duplicate labels, attrs.
    path
        How to name it in an error.

    Raises
    ------
    TypeError
        If a part cannot be kept exactly, with its path.
    """
    if type(frame) is not pd.DataFrame:
        raise unsupported(frame, path, f"a subclass of DataFrame, {type(frame).__name__},")
    pieces = Pieces()
    with refused_together() as attempt:
        columns = [
            attempt(
                encode_column,
                frame.iloc[:, i].array,
                _variable_name(label, i),
                pieces,
                f"{path}[{label!r}]",
            )
            for i, label in enumerate(frame.columns)
        ]
        about = {
            "columns": columns,
            "labels": attempt(
                encode_index, frame.columns, "columns", pieces, f"{path}.columns", own=True
            ),
            "index": attempt(encode_index, frame.index, "index", pieces, f"{path}.index"),
            "attrs": attempt(json_values.encode, dict(frame.attrs), f"{path}.attrs"),
            "duplicates": frame.flags.allows_duplicate_labels,
            "shape": list(frame.shape),
            "names": [str(label) for label in frame.columns],
        }
        dataset: xr.Dataset = attempt(_dataset, pieces, about, path)
    return dataset


def series_to_dataset(series: pd.Series, path: str = "obj") -> xr.Dataset:
    """Return a Series as a dataset, as :func:`frame_to_dataset` does a DataFrame."""
    if type(series) is not pd.Series:
        raise unsupported(series, path, f"a subclass of Series, {type(series).__name__},")
    pieces = Pieces()
    about = {
        "values": encode_column(series.array, "values", pieces, path),
        "name": json_values.encode(series.name, f"{path}.name"),
        "index": encode_index(series.index, "index", pieces, f"{path}.index"),
        "attrs": json_values.encode(dict(series.attrs), f"{path}.attrs"),
        "duplicates": series.flags.allows_duplicate_labels,
        "shape": [len(series)],
        "dtype": str(series.dtype),
    }
    return _dataset(pieces, about, path)


def _variable_name(label: Any, place: int) -> str:
    return encode_name(label) if type(label) is str and label else f"column_{place}"


def _dataset(pieces: Pieces, about: dict[str, Any], path: str) -> xr.Dataset:
    along = "row"
    while along in pieces:
        along += "_"
    made = pieces.variables(along, path)
    coords = {n: v for n, v in made.items() if n == "index" or n.startswith("index_")}
    dataset = xr.Dataset({n: v for n, v in made.items() if n not in coords})
    dataset = dataset.assign_coords(xr.Coordinates(coords, indexes={}))
    dataset.attrs["labtree_frame"] = json.dumps(about, separators=(",", ":"))
    return dataset


def _parts(dataset: xr.Dataset) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return what a dataset says of itself, and its pieces."""
    pieces = {str(name): variable.data for name, variable in dataset.variables.items()}
    return json.loads(dataset.attrs["labtree_frame"]), pieces


def dataset_to_frame(dataset: xr.Dataset) -> pd.DataFrame:
    """Return the DataFrame that :func:`frame_to_dataset` was given."""
    about, pieces = _parts(dataset)
    index = decode_index(about["index"], pieces)
    labels = decode_index(about["labels"], pieces)
    columns = {
        i: _series(decode_column(column, pieces), index)
        for i, column in enumerate(about["columns"])
    }
    frame = pd.DataFrame(columns, index=index, copy=False)
    frame.columns = labels
    frame.attrs = json_values.decode(about["attrs"])
    return frame if about["duplicates"] else frame.set_flags(allows_duplicate_labels=False)


def dataset_to_series(dataset: xr.Dataset) -> pd.Series:
    """Return the Series that :func:`series_to_dataset` was given."""
    about, pieces = _parts(dataset)
    index = decode_index(about["index"], pieces)
    series = _series(decode_column(about["values"], pieces), index)
    series.name = json_values.decode(about["name"])
    series.attrs = json_values.decode(about["attrs"])
    return series if about["duplicates"] else series.set_flags(allows_duplicate_labels=False)


def _series(values: Any, index: pd.Index) -> pd.Series:
    dtype = values.dtype if isinstance(values, np.ndarray) else None
    return pd.Series(values, index=index, dtype=dtype, copy=False)


def _frame_summary(dataset: xr.Dataset) -> dict[str, Any]:
    """Return the shape and the names of the columns."""
    about = json.loads(dataset.attrs["labtree_frame"])
    return {"shape": about["shape"], "columns": about["names"]}


def _series_summary(dataset: xr.Dataset) -> dict[str, Any]:
    """Return the shape and dtype."""
    about = json.loads(dataset.attrs["labtree_frame"])
    return {"shape": about["shape"], "dtype": about["dtype"]}


def _index_to_dataset(index: pd.Index, path: str) -> xr.Dataset:
    pieces = Pieces()
    about = {
        "index": encode_index(index, "index", pieces, path),
        "shape": [len(index)],
        "dtype": str(index.dtype),
        "class": type(index).__name__,
    }
    return _dataset(pieces, about, path)


def _dataset_to_index(dataset: xr.Dataset) -> pd.Index:
    about, pieces = _parts(dataset)
    return decode_index(about["index"], pieces)


def _array_to_dataset(array: Any, path: str) -> xr.Dataset:
    pieces = Pieces()
    about = {
        "values": encode_column(array, "values", pieces, path),
        "shape": [len(array)],
        "dtype": str(array.dtype),
    }
    return _dataset(pieces, about, path)


def _dataset_to_array(dataset: xr.Dataset) -> Any:
    about, pieces = _parts(dataset)
    values = decode_column(about["values"], pieces)
    if not isinstance(values, np.ndarray):
        return values
    # Arrays of pandas that hold what numpy has a dtype for.
    return pd.Series(values, dtype=values.dtype, copy=False).array


_INDEXES = (
    pd.Index,
    pd.RangeIndex,
    pd.MultiIndex,
    pd.DatetimeIndex,
    pd.TimedeltaIndex,
    pd.PeriodIndex,
    pd.IntervalIndex,
    pd.CategoricalIndex,
)
_ARRAYS = (
    pd.Categorical,
    pd.arrays.BooleanArray,
    pd.arrays.IntegerArray,
    pd.arrays.FloatingArray,
    pd.arrays.StringArray,
    pd.arrays.DatetimeArray,
    pd.arrays.TimedeltaArray,
    pd.arrays.PeriodArray,
    pd.arrays.IntervalArray,
    pd.arrays.NumpyExtensionArray,
    pd.arrays.ArrowStringArray,
)

add_kind(
    Kind("dataframe", raw_or(frame_to_dataset), dataset_to_frame, _frame_summary), pd.DataFrame
)
add_kind(
    Kind("series", raw_or(series_to_dataset), dataset_to_series, _series_summary), pd.Series
)
add_kind(
    Kind("index", raw_or(_index_to_dataset), _dataset_to_index, _series_summary), *_INDEXES
)
add_kind(
    Kind("pandas_array", raw_or(_array_to_dataset), _dataset_to_array, _series_summary),
    *_ARRAYS,
)
