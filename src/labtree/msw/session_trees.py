"""Trial tables and sessions as plain xarray objects, and back.

``df.msw.to_xarray`` and the group ``trials`` of a session's tree are for reading and computing
with xarray: rows lie along ``trial``, missing numbers are NaN, and states and events are CF
ragged arrays. The exact layout of workspaces, which gives back any DataFrame, is another, in
`labtree.msw.trials_kind`.

In ``trials``, every column is a variable along ``trial``, of a plain numpy dtype:

- a nullable integer is float64 with NaN in the holes (beyond 2**53, where a float is no
  longer exact: int64, and ``<name>_missing`` marks the holes);
- a nullable boolean is int8 with ``flag_values`` -1, 0, 1 (missing, false, true);
- a string with holes is "" there, and ``<name>_missing`` marks the holes;
- equally long lists of numbers are two-dimensional, with a row of NaN where there is
  none; other cells are JSON text.

``pandas_dtype`` in a variable's attributes says what the column was. States and events are
CF contiguous ragged arrays: ``state_start``, ``state_end`` (s) and ``state_code`` along
``state_visit``, with ``state_row_size`` visits a trial; likewise ``event_time`` and
``event_code``. A slash in a name is written ``%2F``.
"""

import json
from collections.abc import Hashable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from labtree.errors import TrialDataError, TrialTableError
from labtree.msw.trial_lines import decode_cells, encode_cells, texts_of
from labtree.msw.trial_queries import tables_of
from labtree.msw.trial_table import trials_from_nested, trials_to_frame
from labtree.msw.trial_times import (
    ATTRIBUTE,
    IntArray,
    Ragged,
    TrialTables,
    are_numbers_of_trials,
)
from labtree.storage.dtypes import object_array
from labtree.storage.missing import mark_missing, mask_of

#: The attribute of a tree's group ``metadata`` that holds the session as JSON.
SESSION_ATTRIBUTE = "msw_session"
_EXACT = 2**53
_RAGGED = {"state": ("state_visit", ("start", "end")), "event": ("event_item", ("time",))}


def trials_to_xarray(frame: pd.DataFrame) -> xr.Dataset:
    """Return a trial table as a Dataset: see ``df.msw.to_xarray``."""
    if "trial" not in frame and ATTRIBUTE not in frame.attrs:
        frame = trials_to_frame(trials_from_nested(frame))
    tables, trials = tables_of(frame)
    variables: dict[str, Any] = {
        "states_are_absolute": (
            "trial",
            tables.absolute[trials],
            {"long_name": "times count from the session's start, not the trial's"},
        )
    }
    for what, ragged in (("state", tables.states), ("event", tables.events)):
        variables.update(_ragged_variables(what, ragged, trials))
    # Dimensions cannot have the names of variables along others.
    taken = {*variables, *(dim for dim, _ in _RAGGED.values())}
    keys = {_key(name) for name in frame}
    for name, column in frame.items():
        made = _to_variables(_key(name), column, keys)
        dims = {str(dim) for variable in made.values() for dim in variable.dims}
        if taken & (made.keys() | dims - {"trial"}):
            raise TrialTableError(
                f"the column {name!r} needs a name that the Dataset uses otherwise; rename it"
            )
        taken |= made.keys() | dims - {"trial"}
        variables.update(made)
    names = json.dumps([str(name) for name in frame])
    return xr.Dataset(variables, attrs={"columns": names})


def _key(name: Hashable) -> str:
    return str(name).replace("%", "%25").replace("/", "%2F")


def _to_variables(key: str, column: pd.Series, taken: set[str]) -> dict[str, xr.Variable]:
    dtype = str(column.dtype)
    attrs = {"pandas_dtype": dtype}
    if dtype == "boolean":
        flags = {
            "flag_values": np.array([-1, 0, 1], np.int8),
            "flag_meanings": "missing false true",
        }
        codes = column.astype("Int8").to_numpy(np.int8, na_value=-1)
        return {key: xr.Variable("trial", codes, attrs | flags)}
    if pd.api.types.is_float_dtype(column.dtype):
        return {key: xr.Variable("trial", column.to_numpy(np.float64, na_value=np.nan), attrs)}
    if isinstance(column.dtype, pd.api.extensions.ExtensionDtype) and column.dtype.kind in "iu":
        holes = column.isna().to_numpy()
        whole = column.to_numpy(_numpy_dtype(column.dtype), na_value=0)
        if (np.abs(whole) <= _EXACT).all():
            return {
                key: xr.Variable("trial", np.where(holes, np.nan, whole.astype(float)), attrs)
            }
        return mark_missing(key, xr.Variable("trial", whole, attrs), holes, taken)
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "biu":
        return {key: xr.Variable("trial", column.to_numpy(), attrs)}
    try:
        texts = texts_of(column)
        if texts is not None:
            return mark_missing(key, _text_variable(texts[0], attrs), texts[1], taken)
        cells = column.tolist()
        table = _rectangle(cells)
        if table is not None:
            kind = type(next(cell for cell in cells if cell is not None)[0]).__name__
            attrs["cells"] = f"lists of {kind}"
            return {key: xr.Variable(("trial", f"{key}_item"), table, attrs)}
        return {key: _text_variable(encode_cells(cells), attrs | {"cells": "json"})}
    except TrialDataError as error:
        raise TrialTableError(f"the column {key!r} cannot be kept: {error}") from None


def _numpy_dtype(dtype: Any) -> np.dtype[Any]:
    """Return the dtype of what a nullable integer holds."""
    nullable: Any = pd.api.types.pandas_dtype(dtype)
    held: np.dtype[Any] = nullable.numpy_dtype
    return held


def _rectangle(cells: list[Any]) -> npt.NDArray[Any] | None:
    """Return lists of as many numbers as one array, with rows of NaN where there is none."""
    lists = [cell for cell in cells if cell is not None]
    if not lists or not all(type(cell) is list and cell for cell in lists):
        return None
    kinds = {type(item) for cell in lists for item in cell}
    if len({len(cell) for cell in lists}) != 1 or kinds not in ({int}, {float}):
        return None
    if kinds == {int} and any(abs(item) > _EXACT for cell in lists for item in cell):
        return None
    if len(lists) == len(cells):
        return np.array(lists)
    table = np.full((len(cells), len(lists[0])), np.nan)
    table[[cell is not None for cell in cells]] = lists
    # A row of NaN stands for no list, so that it cannot be one.
    return table if np.isnan(table).all(axis=1).sum() == len(cells) - len(lists) else None


def _text_variable(texts: list[str], attrs: dict[str, Any]) -> xr.Variable:
    # Of variable length, as netCDF and zarr hold strings.
    return xr.Variable("trial", np.array(texts, object), attrs)


def _ragged_variables(what: str, ragged: Ragged, trials: IntArray) -> dict[str, Any]:
    dim, edges = _RAGGED[what]
    taken = ragged.take(trials)
    variables: dict[str, Any] = {
        f"{what}_row_size": ("trial", taken.row_size, {"sample_dimension": dim}),
        f"{what}_code": (
            dim,
            taken.codes,
            {
                "flag_values": np.arange(len(ragged.names), dtype=np.int32),
                "flag_meanings": " ".join(name.replace(" ", "_") for name in ragged.names),
                "names": json.dumps(ragged.names),
            },
        ),
    }
    for i, edge in enumerate(edges):
        variables[f"{what}_{edge}"] = (dim, taken.values[:, i], {"units": "s"})
    return variables


def trials_from_xarray(dataset: xr.Dataset) -> pd.DataFrame:
    """Return the trial table that ``df.msw.to_xarray()`` made into a Dataset.

    Parameters
    ----------
    dataset : xarray.Dataset
        From memory or from a file.

    Returns
    -------
    pandas.DataFrame
        With its dtypes, and its states and events.

    Raises
    ------
    TrialTableError
        The Dataset is of another kind.

    Examples
    --------
    >>> from labtree.msw import trials_to_frame
    >>> df = trials_to_frame([{"info": {"choice": 1}}, {"info": {"choice": None}}])
    >>> trials_from_xarray(df.msw.to_xarray())["choice"].tolist()
    [1, <NA>]
    """
    if "state_row_size" not in dataset or "event_row_size" not in dataset:
        raise TrialTableError(
            "this Dataset holds no trials; expected one that df.msw.to_xarray() gave"
        )
    n_trials = dataset.sizes["trial"]
    names = json.loads(dataset.attrs.get("columns", "[]"))
    missing = [name for name in ("trial", *names) if _key(name) not in dataset.variables]
    if missing or "trial" not in names:
        raise TrialTableError(
            f"the Dataset lacks {', '.join(map(repr, missing)) or 'its attribute columns'}; "
            "expected all of what df.msw.to_xarray() gave"
        )
    columns = {name: _to_column(dataset, _key(name), n_trials) for name in names}
    frame = pd.DataFrame(columns, index=range(n_trials))
    trials = frame["trial"].to_numpy()
    if not are_numbers_of_trials(trials):
        raise TrialTableError("the variable 'trial' does not number trials from 0")
    parts = {}
    for what, (_, edges) in _RAGGED.items():
        ragged = Ragged(
            tuple(json.loads(dataset[f"{what}_code"].attrs["names"])),
            dataset[f"{what}_code"].to_numpy().astype(np.int32),
            np.stack([dataset[f"{what}_{edge}"].to_numpy() for edge in edges], axis=1),
            dataset[f"{what}_row_size"].to_numpy().astype(np.int64),
        )
        parts[what] = _by_trial(ragged, trials)
    absolute = np.zeros(len(parts["state"].row_size), bool)
    absolute[trials] = dataset["states_are_absolute"].to_numpy().astype(bool)
    frame.attrs[ATTRIBUTE] = TrialTables(parts["state"], parts["event"], absolute)
    return frame


def _by_trial(ragged: Ragged, trials: IntArray) -> Ragged:
    """Return the items of rows, in any order, to the trials that the rows are of."""
    if ragged.row_size.sum() != len(ragged.codes) or (ragged.row_size < 0).any():
        raise TrialTableError("the ragged arrays are not as long as their row sizes say")
    numbers, rows = np.unique(trials, return_index=True)
    row_size = np.zeros(int(numbers[-1]) + 1 if len(numbers) else 0, np.int64)
    row_size[numbers] = ragged.row_size[rows]
    taken = ragged.take(rows)
    return Ragged(ragged.names, taken.codes, taken.values, row_size)


def _to_column(dataset: xr.Dataset, key: str, n_trials: int) -> Any:
    variable = dataset[key]
    values = variable.to_numpy()
    dtype = variable.attrs.get("pandas_dtype", str(values.dtype))
    if not n_trials and values.ndim == 1:
        # Without one value, files do not tell strings from numbers.
        return pd.Series([], dtype=dtype)
    mask = mask_of(dataset.variables, key)
    holes = np.zeros(n_trials, bool) if mask is None else dataset[mask].to_numpy()
    if dtype == "boolean":
        return pd.arrays.BooleanArray(values == 1, values == -1)
    if dtype.startswith(("Int", "UInt")):
        if values.dtype.kind == "f":
            holes = np.isnan(values)
        whole = np.where(holes, 0, values).astype(_numpy_dtype(dtype))
        return pd.arrays.IntegerArray(whole, holes)
    if variable.attrs.get("cells") == "json":
        return decode_cells(values)
    if values.ndim == 2:
        holes = np.isnan(values).all(axis=1) if variable.dtype.kind == "f" else holes
        kind = int if variable.attrs["cells"] == "lists of int" else float
        return object_array(
            [
                None if hole else [kind(item) for item in row]
                for row, hole in zip(values, holes, strict=True)
            ]
        )
    if values.dtype.kind in "OUT":
        text = [None if hole else str(v) for v, hole in zip(values, holes, strict=True)]
        # Without a note, of a variable that was made elsewhere: as pandas itself sees it.
        return pd.Series(text, dtype=variable.attrs.get("pandas_dtype"))
    return pd.array(values, dtype=dtype)


def is_msw_session(tree: xr.DataTree) -> bool:
    """Return whether a tree is what ``MswSession.to_tree`` makes."""
    return "metadata" in tree.children and SESSION_ATTRIBUTE in tree.children["metadata"].attrs
