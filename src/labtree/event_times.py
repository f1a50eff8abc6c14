"""Events, given as times or as a trial table, for windows around them.

Spikes and recordings cut their windows around what :func:`events_from` returns, and note
with :func:`drop_log_text` which events have none.
"""

import json
from collections.abc import Collection
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from labtree.errors import DataError, UnknownNameError, unknown_name
from labtree.objects.unit_attributes import column as gather_column
from labtree.objects.unit_attributes import masked_column, untouched_variable
from labtree.storage.dtypes import object_array
from labtree.storage.missing import ABSENT, mark_missing

Floats = NDArray[np.float64]
_UNITS = {"s": 1.0, "ms": 1000.0}
_ARROW_TIMES = (pd.Timestamp, pd.Timedelta)

# Why an event has no window.
NO_TIME = "time is not finite"
NO_END = "the end is not finite, or before the event"


class Events(NamedTuple):
    """When events were, until when, what is known of each, and what to call it.

    Parameters
    ----------
    times
        (n,) in the unit that was asked for; not finite where an event has no time.
    until
        (n,) in the same unit, where each trial ends; None where all are equally long.
    coords
        Coordinates along the dimension of the events: the columns and the index of the
        table.
    labels
        The table's index, or the positions of the times.
    column
        The table's column of seconds, where the times are of one.
    """

    times: Floats
    until: Floats | None
    coords: dict[str, xr.Variable]
    labels: list[Any]
    column: str | None = None

    def chosen(self, positions: Any) -> dict[str, xr.Variable]:
        """Return the coordinates of some events."""
        return {name: variable[positions] for name, variable in self.coords.items()}


def events_from(
    events: Any,
    *,
    on: str | None = None,
    edge: Literal["start", "end"] | None = None,
    clock: str | None = None,
    until: Any = None,
    unit: Literal["s", "ms"],
    taken: Collection[str] = (),
    dim: str = "event",
    name: str = "events",
) -> Events:
    """Return events from times or from a trial table.

    Parameters
    ----------
    events : array-like of shape (event,), or DataFrame
        Times in `unit`, or a table with one row for each event.
    on : str, optional
        What of a table says when: a column of seconds, or a state of ``df.msw``.
    edge : {"start", "end"}, optional
        Which end of the state; by default its start.
    clock : str, optional
        The clock of the state's times, see ``df.msw.state_time``; by default "session".
    until : str, (str, "start" or "end"), or array-like of shape (event,), optional
        Where each trial ends: a column of seconds or a state of the table (its start, or
        the edge named beside it), or times in `unit`.
    unit : {"s", "ms"}
        Of the times that are returned.
    taken : collection of str
        Names that no column may have, because the result has them.
    dim : str
        The dimension of the coordinates.
    name : str
        What the caller calls its events, for errors.

    Raises
    ------
    DataError
        A ValueError, if there is no event with a time, a table comes without `on`, or a
        column has a name that is taken.
    UnknownNameError
        A KeyError, if the table has no such column or state.
    """
    if not isinstance(events, pd.DataFrame):
        for option, value in (("on", on), ("edge", edge), ("clock", clock)):
            if value is not None:
                raise DataError(
                    f"{option}= says what to take of a trial table, but {name} is "
                    f"{type(events).__name__}; give a DataFrame, or leave {option}= out"
                )
        times = _times(events, name, unit)
        ends = None
        if until is not None:
            if _is_named(until):
                raise DataError(
                    f"until={until!r} names a part of a trial table, but {name} is "
                    f"{type(events).__name__}; give a DataFrame, or times"
                )
            ends = _until_times(until, times.size, name, unit)
        return Events(_not_empty(times, name), ends, {}, list(range(times.size)))
    if on is None:
        raise DataError(
            f"{name} is a table: write on=..., the column of seconds or the state that says "
            f"when; it has {_known(events)}"
        )
    own = {"edge": edge or "start", "clock": clock or "session"}
    times = _seconds(events, on, own, name, edge is not None or clock is not None)
    scale = _UNITS[unit]
    ends = None
    if until is not None:
        if _is_named(until):
            label, *end = [until] if isinstance(until, str) else until
            edges = {"edge": end[0] if end else "start"}
            ends = _seconds(events, label, own | edges, "until", bool(end)) * scale
        else:
            ends = _until_times(until, times.size, name, unit)
    labels = events.index.tolist()
    return Events(
        _not_empty(times * scale, name, f" in {on!r}"),
        ends,
        _coordinates(events, {*taken}, dim),
        labels,
        on if on in events.columns and edge is None and clock is None else None,
    )


def drop_log_text(labels: list[Any], times: Floats, reasons: list[str]) -> str:
    """Return a drop log as the text that ``labtree.drop_log`` reads.

    Parameters
    ----------
    labels
        What to call each event that was left out.
    times
        When each was.
    reasons
        Why.
    """
    rows = [
        [_plain(label), time if np.isfinite(time) else None, reason]
        for label, time, reason in zip(labels, times.tolist(), reasons, strict=True)
    ]
    return json.dumps({"columns": ["event", "event_time", "reason"], "data": rows})


def _plain(label: Any) -> Any:
    return label if isinstance(label, int | float | str) else str(label)


def _times(events: Any, name: str, unit: Literal["s", "ms"]) -> Floats:
    """Return times in a unit: numbers as they are, durations of pandas in that unit."""
    if isinstance(events, pd.Series):
        is_duration = pd.api.types.is_timedelta64_dtype(events.dtype)
        return _numbers(events, name) * (_UNITS[unit] if is_duration else 1.0)
    values = events.to_numpy() if hasattr(events, "to_numpy") else events
    array: Any = np.atleast_1d(np.asanyarray(values))
    if isinstance(array, np.ma.MaskedArray):
        array = np.ma.filled(array.astype(float), np.nan)
    if array.ndim != 1:
        raise DataError(f"{name} must be one-dimensional, found shape {array.shape}")
    if array.size and array.dtype.kind not in "iuf":
        raise DataError(f"{name} must be numbers, found dtype {array.dtype}")
    return np.asarray(array, np.float64)


def _is_named(until: Any) -> bool:
    """Return whether an end is named: a column or a state, or a state and its edge."""
    pair = isinstance(until, tuple) and len(until) == 2
    return isinstance(until, str) or (pair and all(isinstance(part, str) for part in until))


def until_in_ms(until: Any) -> Any:
    """Return where trials end, times in s as times in ms, and names as they are."""
    return until if until is None or _is_named(until) else times_in_ms(until, "until")


def times_in_ms(times: Any, name: str) -> Floats:
    """Return times in s, as `events_from` takes them, in ms."""
    return _times(times, name, "s") * _UNITS["ms"]


def _until_times(until: Any, size: int, name: str, unit: Literal["s", "ms"]) -> Floats:
    times = _times(until, "until", unit)
    if times.size != size:
        raise DataError(f"until has {times.size} times for {size} {name}")
    return times


def _not_empty(times: Floats, name: str, where: str = "") -> Floats:
    if not np.isfinite(times).any():
        raise DataError(f"none of {times.size} {name}{where} is a finite time")
    return times


def _states(table: pd.DataFrame) -> list[str]:
    """Return the names of the states that a trial table carries."""
    try:
        return [str(state) for state in dict.fromkeys(table.msw.states()["state"])]
    except (AttributeError, LookupError, ValueError, TypeError):
        return []


def _known(table: pd.DataFrame) -> str:
    states = _states(table)
    columns = f"the columns {', '.join(map(str, table.columns))}"
    return f"{columns}, and the states {', '.join(states)}" if states else columns


def _seconds(
    table: pd.DataFrame, on: str, own: dict[str, str], name: str, is_state: bool
) -> Floats:
    """Return a column of seconds, or the times of a state."""
    if on in table.columns and not is_state:
        column = table[on]
        if isinstance(column, pd.DataFrame):
            raise DataError(f"the table has several columns {on!r}; rename one")
        return _numbers(column, on)
    states = _states(table)
    if on in states:
        return np.asarray(table.msw.state_time(on, **own), np.float64)
    if on in table.columns:
        raise DataError(
            f"edge= and clock= are for states, but {on!r} is a column; the states are "
            f"{', '.join(states) or 'none'}"
        )
    raise unknown_name(
        "column or state", on, [*map(str, table.columns), *states], UnknownNameError
    )


def _numbers(column: pd.Series, name: str) -> Floats:
    if pd.api.types.is_timedelta64_dtype(column.dtype):
        return np.asarray(column.dt.total_seconds(), np.float64)
    if not pd.api.types.is_numeric_dtype(column.dtype) or pd.api.types.is_bool_dtype(
        column.dtype
    ):
        line = f"pandas.to_numeric(table[{name!r}])"
        if pd.api.types.is_datetime64_any_dtype(column.dtype):
            line = f"(table[{name!r}] - start).dt.total_seconds(), from the recording's start"
        raise DataError(
            f"{name!r} must hold times as numbers, found dtype {column.dtype}; write {line}"
        )
    return np.asarray(column.to_numpy(np.float64, na_value=np.nan))


def _coordinates(table: pd.DataFrame, taken: set[str], dim: str) -> dict[str, xr.Variable]:
    """Return the columns and the index of a table as coordinates along the events."""
    columns: list[tuple[str, pd.Series]] = []
    index = table.index
    for level in range(index.nlevels):
        label = index.names[level]
        values = pd.Series(index.get_level_values(level))
        # As pandas names them in reset_index().
        unnamed = "index" if index.nlevels == 1 else f"level_{level}"
        columns.append((unnamed if label is None else str(label), values))
    names = [name for name, _ in columns]
    for place, label in enumerate(table.columns):
        column = table.iloc[:, place]
        name = str(label)
        if name in names[: index.nlevels] and _alike(column, columns[names.index(name)][1]):
            continue  # a column that is the index as well
        names.append(name)
        columns.append((name, column))
    coords: dict[str, xr.Variable] = {}
    for place, (name, column) in enumerate(columns):
        made = column_variables(name, column, dim)
        what, line = "column", f"table.rename(columns={{{name!r}: ...}})"
        if place < index.nlevels:
            what, line = "index", f"table.rename_axis(index={{{name!r}: ...}})"
        for variable in made:
            if variable in taken or variable in coords or variable == dim:
                raise DataError(
                    f"the table's {what} {name!r} cannot become a coordinate: the name "
                    f"{variable!r} is taken; write {line}"
                )
        coords |= made
    return coords


def column_variables(name: str, column: pd.Series, dim: str) -> dict[str, xr.Variable]:
    """Return a column as a coordinate, and which of its values are missing.

    Numbers, bools, dates and times keep their dtype; categories become their labels,
    with the attributes ``categories`` and ``ordered``. Where values are missing, a filler
    stands in their place, and ``<name>_missing``, named in ``ancillary_variables``, says
    where. NaN among plain floats is a value.
    """
    attrs: dict[str, Any] = {}
    if isinstance(column.dtype, pd.ArrowDtype) and column.dtype.type in _ARROW_TIMES:
        column = column.astype(_numpy_times(column.dtype))
    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        attrs = {"categories": dtype.categories.tolist(), "ordered": bool(dtype.ordered)}
        column = column.astype(dtype.categories.dtype if not column.hasnans else object)
    elif isinstance(dtype, pd.DatetimeTZDtype):
        attrs = {"time_zone": str(dtype.tz)}
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
    if isinstance(column.dtype, np.dtype) and column.dtype != object:
        return {name: xr.Variable(dim, column.to_numpy(), attrs)}
    missing = column.isna().to_numpy(bool)
    plain: Any = getattr(column.dtype, "numpy_dtype", None)
    if plain is not None and plain.kind in "biuf":
        filled: Any = column.array
        made = masked_column(filled.to_numpy(plain, na_value=plain.type(0)), missing)
    else:
        values = column.astype(object).tolist()
        pairs = zip(values, missing.tolist(), strict=True)
        made = gather_column([ABSENT if gone else value for value, gone in pairs])
        if made.values.ndim > 1:  # arrays in cells stay in them
            kept = [None if gone else v for v, gone in zip(values, missing, strict=True)]
            made = made._replace(values=object_array(kept))
    variable = untouched_variable((dim,), made.values, attrs)
    return mark_missing(name, variable, missing)


def _numpy_times(dtype: Any) -> Any:
    """Return the dtype with which pandas without Arrow has dates or durations."""
    zone = getattr(dtype.pyarrow_dtype, "tz", None)
    if zone is None:
        return dtype.numpy_dtype
    return pd.DatetimeTZDtype(dtype.pyarrow_dtype.unit, zone)


def _alike(first: pd.Series, second: pd.Series) -> bool:
    return bool(
        first.reset_index(drop=True)
        .rename(None)
        .equals(second.reset_index(drop=True).rename(None))
    )
