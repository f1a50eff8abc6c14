"""The kind ``trials``: trial tables as items of a workspace, with their states and events.

A workspace gives back a DataFrame exactly, with its index, its attributes and columns of any
dtype that were added since. The table is therefore kept as `labtree.objects.frames` keeps every
DataFrame, with states and events as arrays beside it. ``df.msw.to_xarray`` makes another layout
(`labtree.msw.session_trees`), in which numbers with holes become floats, for use in xarray.
The registry of kinds imports this module when it is first asked, after that of DataFrames.
"""

import json
from typing import Any

import pandas as pd
import xarray as xr

from labtree.msw.trial_times import ATTRIBUTE, Ragged, TrialTables, has_tables
from labtree.objects.registry import Kind, add_kind, raw_or
from labtree.objects.values import dataset_to_value, value_to_dataset

_FIELDS = ("names", "codes", "values", "row_size")


def trials_to_dataset(frame: pd.DataFrame, path: str) -> xr.Dataset:
    """Return a trial table as a dataset: the DataFrame, its states and its events.

    Parameters
    ----------
    frame
        Of :func:`labtree.msw.load_session`.
    path
        How to name it in an error.
    """
    attrs = dict(frame.attrs)
    tables = attrs.pop(ATTRIBUTE)
    plain = frame.copy()
    plain.attrs = attrs
    content = {
        "frame": plain,
        "position": list(frame.attrs).index(ATTRIBUTE),
        "token": tables.token,
        "absolute": tables.absolute,
        "states": {field: getattr(tables.states, field) for field in _FIELDS},
        "events": {field: getattr(tables.events, field) for field in _FIELDS},
    }
    return value_to_dataset(content, path)


def dataset_to_trials(dataset: xr.Dataset) -> pd.DataFrame:
    """Return the trial table that :func:`trials_to_dataset` was given."""
    content = dataset_to_value(dataset)
    frame: pd.DataFrame = content["frame"]
    states, events = Ragged(**content["states"]), Ragged(**content["events"])
    # One making, however often it is read.
    tables = TrialTables(states, events, content["absolute"], content["token"])
    attrs = list(frame.attrs.items())
    attrs.insert(content["position"], (ATTRIBUTE, tables))
    frame.attrs = dict(attrs)
    return frame


def _summary(dataset: xr.Dataset) -> dict[str, Any]:
    """Return the shape and the names of the columns."""
    about = json.loads(dataset.attrs["labtree_parts"]["frame"]["attrs"]["labtree_frame"])
    return {"shape": about["shape"], "columns": about["names"]}


def _is_trial_table(frame: pd.DataFrame) -> bool:
    return has_tables(frame.attrs)


add_kind(
    Kind("trials", raw_or(trials_to_dataset), dataset_to_trials, _summary),
    pd.DataFrame,
    when=_is_trial_table,
)
