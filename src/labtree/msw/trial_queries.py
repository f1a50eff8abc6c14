"""What can be asked of a trial table: its rows by kind, its columns, its states and events."""

from typing import Literal, NamedTuple, get_args

import numpy as np
import pandas as pd

from labtree.errors import TrialTableError, UnknownNameError, unknown_name
from labtree.msw.trial_table import trials_from_nested, trials_to_frame
from labtree.msw.trial_times import (
    ATTRIBUTE,
    START,
    BoolArray,
    FloatArray,
    IntArray,
    Ragged,
    TrialTables,
    has_tables,
)
from labtree.storage.arguments import one_of
from labtree.storage.ragged import begins_run, row_of_sample

Clock = Literal["trial", "session", "ephys"]


def tables_of(frame: pd.DataFrame) -> tuple[TrialTables, IntArray]:
    """Return the states and events that a table carries, and the trial of each row.

    Raises
    ------
    TrialTableError
        The table carries none.
    """
    if has_tables(frame.attrs):
        held = frame.attrs[ATTRIBUTE]
        if "trial" not in frame:
            raise TrialTableError(
                "the column 'trial', which says whose states are whose, is gone; keep it when "
                "choosing columns: df[['trial', ...]]"
            )
        if frame["trial"].dtype.kind not in "iu":
            _refuse_parts(numbers_of(frame, "trial"))
        trials = frame["trial"].to_numpy(np.int64)
        if len(trials) and not 0 <= trials.min() <= trials.max() < len(held.absolute):
            raise TrialTableError(
                f"the column 'trial' holds {trials.min()} to {trials.max()}, and the session "
                f"has the trials 0 to {len(held.absolute) - 1}; keep it as loaded"
            )
        return held, trials
    if any(frame[name].dtype == object for name in frame) and "trial" not in frame:
        rebuilt = trials_to_frame(trials_from_nested(frame))
        held = rebuilt.attrs[ATTRIBUTE]
        if held.states.names or held.events.names:
            return held, np.arange(len(frame))
    raise TrialTableError(
        "this table has no states and events with it. Those of a Murine Shift Work session "
        "come with labtree.msw.load_session(folder).df, and pandas drops them when it joins "
        "tables: after a merge with other columns, write table.attrs = session.df.attrs; to "
        "join sessions, labtree.msw.concat_trials({name: df, ...}) or "
        "labtree.msw.load_subject(...).trials(). In a table of your own with times in columns, "
        "write table['choice_time'] - table['go_time']"
    )


def _refuse_parts(numbers: FloatArray) -> None:
    """Raise TrialTableError unless all numbers of trials are whole."""
    wrong = numbers[~(numbers % 1 == 0)]
    if len(wrong):
        raise TrialTableError(
            f"the column 'trial' holds {wrong[0]:g}, which is no trial's number, in "
            f"{len(wrong)} rows; rows that were averaged or added have no states and events"
        )


def column_of(frame: pd.DataFrame, name: str) -> pd.Series:
    """Return a column.

    Raises
    ------
    UnknownNameError
        There is none of that name; the message lists those that are.
    """
    if name not in frame:
        error = unknown_name("column", name, frame.columns, UnknownNameError)
        if has_tables(frame.attrs):
            raise error
        line = f"table.rename(columns={{...: {name!r}}})"
        stop = "" if str(error).endswith("?") else "."
        raise UnknownNameError(f"{error}{stop} If it has another name here, write {line}")
    column: pd.Series = frame[name]
    return column


def numbers_of(frame: pd.DataFrame, name: str) -> FloatArray:
    """Return a column as float64, NaN where it has a hole.

    Raises
    ------
    UnknownNameError
        There is none of that name.
    TrialTableError
        It holds something else than numbers.
    """
    column = column_of(frame, name)
    try:
        numbers: FloatArray = column.to_numpy(np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise TrialTableError(
            f"column {name!r} does not hold numbers ({error}); write "
            f"table.assign({name}=table[{name!r}].map({{...: 0, ...: 1}}))"
        ) from error
    return numbers


def trial_numbers(frame: pd.DataFrame) -> pd.Series:
    """Return the column ``trial``; the places of the rows in a table without it."""
    if "trial" in frame:
        return column_of(frame, "trial")
    return pd.Series(range(len(frame)), frame.index, name="trial")


def is_of_type(frame: pd.DataFrame, kind: str) -> BoolArray:
    """Return which rows have this ``trial_type``; a table without it is all task."""
    if "trial_type" not in frame:
        return np.full(len(frame), kind == "task")
    return (frame["trial_type"] == kind).fillna(False).to_numpy(bool)


def task_trials(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows in which the task ran; all, in a table without ``trial_type``."""
    return frame[is_of_type(frame, "task")]


def barcode_trials(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that sent a barcode."""
    return frame[is_of_type(frame, "barcode")]


class _Line(NamedTuple):
    """Of each row: the time on a clock is ``(time + shift) * slope + intercept``."""

    shift: FloatArray
    slope: FloatArray
    intercept: FloatArray


def _line(frame: pd.DataFrame, tables: TrialTables, trials: IntArray, clock: Clock) -> _Line:
    """Return what takes the times in each row to a clock; those of ephys need an alignment."""
    one_of("clock", clock, get_args(Clock), TrialTableError)
    absolute = tables.absolute[trials]
    shift = np.zeros(len(frame))
    wanted = absolute if clock == "trial" else ~absolute
    if wanted.any():
        began = column_of(frame, START).to_numpy(np.float64)
        shift[wanted] = -began[wanted] if clock == "trial" else began[wanted]
    if clock != "ephys":
        return _Line(shift, np.ones(len(frame)), np.zeros(len(frame)))
    if "alignment_slope" not in frame:
        raise TrialTableError(
            "no ephys clock is known; write df = df.msw.align(events, line=...) first"
        )
    slope, intercept = frame["alignment_slope"], frame["alignment_intercept"]
    return _Line(shift, slope.to_numpy(np.float64), intercept.to_numpy(np.float64))


def _long(
    frame: pd.DataFrame, clock: Clock, which: Literal["state", "event"]
) -> tuple[pd.DataFrame, FloatArray]:
    tables, trials = tables_of(frame)
    ragged = (tables.states if which == "state" else tables.events).take(trials)
    rows = row_of_sample(ragged.row_size)
    line = _line(frame, tables, trials, clock)
    times = ragged.values + line.shift[rows, None]
    if clock == "ephys":
        times = times * line.slope[rows, None] + line.intercept[rows, None]
    order = np.lexsort((times[:, 0], rows))
    rows, codes, times = rows[order], ragged.codes[order], times[order]
    number = _count_before(rows * max(len(ragged.names), 1) + codes)
    kinds = pd.Categorical.from_codes(
        codes, categories=pd.Index(list(ragged.names), dtype=object)
    )
    # Else the segments of barcodes would crowd every table of the task's own states.
    kinds = kinds.remove_unused_categories()
    columns = {"trial": trial_numbers(frame).to_numpy()[rows], which: kinds}
    columns["visit" if which == "state" else "occurrence"] = number
    return pd.DataFrame(columns), times


def _count_before(keys: IntArray) -> IntArray:
    """Return, for each item, how many before it have its key."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    new = begins_run(ordered)
    place = np.arange(len(keys))
    count = np.empty(len(keys), np.int64)
    count[order] = place - np.maximum.accumulate(np.where(new, place, 0))
    return count


def state_table(frame: pd.DataFrame, clock: Clock = "trial") -> pd.DataFrame:
    """Return the visits to states: see ``df.msw.states``."""
    table, times = _long(frame, clock, "state")
    return table.assign(start=times[:, 0], end=times[:, 1])


def event_table(frame: pd.DataFrame, clock: Clock = "trial") -> pd.DataFrame:
    """Return the events: see ``df.msw.events``."""
    table, times = _long(frame, clock, "event")
    return table.assign(time=times[:, 0])


def _visits(ragged: Ragged, code: int) -> tuple[IntArray, FloatArray, IntArray]:
    """Return the visits to one state: trials, times, and the number in each trial."""
    there = np.flatnonzero(ragged.codes == code)
    trials = row_of_sample(ragged.row_size)[there]
    return trials, ragged.values[there], np.bincount(trials, minlength=len(ragged.row_size))


def state_time(
    frame: pd.DataFrame,
    name: str,
    edge: Literal["start", "end"] = "start",
    clock: Clock = "trial",
    visit: int = 0,
) -> pd.Series:
    """Return when a state began or ended: see ``df.msw.state_time``."""
    one_of("edge", edge, ("start", "end"), TrialTableError)
    tables, rows = tables_of(frame)
    trials, values, n_visits = _visits(tables.states, tables.states.code(name))
    number = _count_before(trials)
    chosen = number == (visit if visit >= 0 else n_visits[trials] + visit)
    times = np.full(len(n_visits), np.nan)
    times[trials[chosen]] = values[chosen, 0 if edge == "start" else 1]
    shift, slope, intercept = _line(frame, tables, rows, clock)
    return pd.Series((times[rows] + shift) * slope + intercept, frame.index, name=name)


def visited(frame: pd.DataFrame, name: str) -> pd.Series:
    """Return which trials visited a state: see ``df.msw.visited``."""
    tables, rows = tables_of(frame)
    _, _, n_visits = _visits(tables.states, tables.states.code(name))
    return pd.Series(n_visits[rows] > 0, frame.index, name=name)


def latency(frame: pd.DataFrame, first: str, then: str) -> pd.Series:
    """Return the time from one state to another: see ``df.msw.latency``."""
    tables, rows = tables_of(frame)
    states = tables.states
    begin = np.full(len(states.row_size), np.nan)
    trials, values, _ = _visits(states, states.code(first))
    # From the last to the first, so that the first visit is what stays.
    begin[trials[::-1]] = values[::-1, 0]
    trials, values, _ = _visits(states, states.code(then))
    later = values[:, 0] >= begin[trials]
    reached = np.full(len(states.row_size), np.inf)
    np.minimum.at(reached, trials[later], values[later, 0])
    reached[np.isinf(reached)] = np.nan
    return pd.Series((reached - begin)[rows], frame.index, name=f"{first} to {then}")
