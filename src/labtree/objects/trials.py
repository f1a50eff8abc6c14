"""Trial tables: DataFrames that carry the states and events of their trials along."""

import json
from collections.abc import Callable
from typing import Any

import pandas as pd
import xarray as xr

__all__ = ["ATTRIBUTE", "dataset_to_trials", "trials_summary", "trials_to_dataset"]

#: The attribute of a DataFrame that holds its states and events; see `labtree.msw.trial_table`.
ATTRIBUTE = "labtree_trials"
_FIELDS = ("names", "codes", "values", "row_size")


def trials_to_dataset(
    frame: pd.DataFrame, path: str, build: Callable[[Any, str], xr.Dataset]
) -> xr.Dataset:
    """Return a trial table as a dataset: the DataFrame, its states and its events.

    Parameters
    ----------
    frame
        Of :func:`labtree.msw.load_session`.
    path
        How to name it in an error.
    build
        Makes a dataset of a nested value.
    """
    attrs = dict(frame.attrs)
    tables = attrs.pop(ATTRIBUTE)
    plain = frame.copy()
    plain.attrs = attrs
    content = {
        "frame": plain,
        "place": list(frame.attrs).index(ATTRIBUTE),
        "token": tables.token,
        "absolute": tables.absolute,
        "states": {field: getattr(tables.states, field) for field in _FIELDS},
        "events": {field: getattr(tables.events, field) for field in _FIELDS},
    }
    return build(content, path)


def dataset_to_trials(dataset: xr.Dataset, read: Callable[[xr.Dataset], Any]) -> pd.DataFrame:
    """Return the trial table that :func:`trials_to_dataset` was given."""
    from labtree.msw.trial_table import Ragged, TrialTables

    content = read(dataset)
    frame: pd.DataFrame = content["frame"]
    tables = TrialTables(
        Ragged(**content["states"]), Ragged(**content["events"]), content["absolute"]
    )
    tables.token = content["token"]  # one making, however often it is read
    attrs = list(frame.attrs.items())
    attrs.insert(content["place"], (ATTRIBUTE, tables))
    frame.attrs = dict(attrs)
    return frame


def trials_summary(dataset: xr.Dataset) -> dict[str, Any]:
    """Return the shape and the names of the columns."""
    frame = dataset.attrs["labtree_parts"]["frame"]["attrs"]["labtree_frame"]
    about = json.loads(frame)
    return {"shape": about["shape"], "columns": about["names"]}
