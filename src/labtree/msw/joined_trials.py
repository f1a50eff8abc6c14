"""Trial tables of several sessions as one."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from labtree.errors import TrialTableError
from labtree.msw.trial_times import ATTRIBUTE, Ragged, TrialTables


def concat_trials(
    frames: Mapping[str, pd.DataFrame], *, column: str = "session"
) -> pd.DataFrame:
    """Stack trial tables, with their states and events.

    Parameters
    ----------
    frames : mapping of str to pandas.DataFrame
        Trial tables by the name of their session.
    column : str
        The column for the name.

    Returns
    -------
    pandas.DataFrame
        All rows; ``trial`` numbers the trials anew, so that each keeps its states, and
        ``trial_index`` is still the number within the session. A column that some lack
        has holes there, and keeps its dtype, or the nullable one.

    Raises
    ------
    TrialTableError
        A table has no states and events with it, or has a column of that name.

    Examples
    --------
    >>> from labtree.msw import trials_to_frame
    >>> day = trials_to_frame([{"info": {"choice": 1}}])
    >>> concat_trials({"monday": day, "tuesday": day})["session"].tolist()
    ['monday', 'tuesday']
    """
    if not frames:
        raise TrialTableError(
            "no trial tables to put together; write concat_trials({name: session.df, ...})"
        )
    parts: list[pd.DataFrame] = []
    tables: list[TrialTables] = []
    shift = 0
    for name, frame in frames.items():
        held = frame.attrs.get(ATTRIBUTE)
        if not isinstance(held, TrialTables) or "trial" not in frame:
            raise TrialTableError(
                f"{name!r} is not a trial table with its states and events; give session.df of "
                "labtree.msw.load_session(folder), or rows of it with the column 'trial'"
            )
        if column in frame:
            raise TrialTableError(
                f"{name!r} has a column {column!r} already; rename it, or write column=..."
            )
        part = frame.assign(trial=frame["trial"] + shift)
        part.insert(1, column, name)
        part.attrs = {}
        parts.append(part)
        tables.append(held)
        shift += len(held.absolute)
    joined = pd.concat(_with_common_columns(parts), ignore_index=True)
    joined.attrs[ATTRIBUTE] = TrialTables(
        Ragged.concatenate([table.states for table in tables], 2),
        Ragged.concatenate([table.events for table in tables], 1),
        np.concatenate([table.absolute for table in tables]),
    )
    return joined


def _with_common_columns(parts: list[pd.DataFrame]) -> list[pd.DataFrame]:
    """Return every part every column, of one dtype."""
    names = dict.fromkeys(str(name) for part in parts for name in part)
    columns: list[dict[str, Any]] = [{} for _ in parts]
    for name in names:
        dtype = _common_dtype([part[name] for part in parts if name in part], name, parts)
        for part, built in zip(parts, columns, strict=True):
            if name in part and not part[name].isna().all():
                built[name] = part[name].astype(dtype)
            elif name in part and part[name].dtype == dtype:
                built[name] = part[name]
            else:
                built[name] = pd.Series([None] * len(part), dtype=dtype, index=part.index)
    return [
        pd.DataFrame(built, index=part.index)
        for part, built in zip(parts, columns, strict=True)
    ]


def _common_dtype(columns: list[pd.Series], name: str, parts: list[pd.DataFrame]) -> Any:
    with_values = [column for column in columns if not column.isna().all()]
    dtypes = {str(column.dtype): column.dtype for column in with_values}
    holes = len(with_values) < sum(len(part) > 0 for part in parts)
    if not dtypes:
        return np.dtype(float)
    kinds = set(dtypes)
    if kinds <= {"bool", "boolean"}:
        return pd.BooleanDtype() if holes or "boolean" in kinds else np.dtype(bool)
    if kinds <= {"int64", "Int64"}:
        return pd.Int64Dtype() if holes or "Int64" in kinds else np.dtype(np.int64)
    if kinds <= {"int64", "Int64", "float64"}:
        whole = [c for c in with_values if c.dtype != float]
        if all((c.dropna().abs() <= 2**53).all() for c in whole):
            return np.dtype(float)
    return next(iter(dtypes.values())) if len(dtypes) == 1 else np.dtype(object)
