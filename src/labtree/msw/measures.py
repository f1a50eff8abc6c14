"""Measures of behavior on trial tables; each is a method of ``df.msw``, documented there."""

from typing import Any

import numpy as np
import pandas as pd

from labtree.errors import TrialTableError
from labtree.msw.alignment import BARCODE_BITS
from labtree.msw.trial_lines import shown
from labtree.msw.trial_queries import (
    Clock,
    barcode_trials,
    column_of,
    event_table,
    is_of_type,
    numbers_of,
    state_table,
    state_time,
    tables_of,
    task_trials,
    trial_numbers,
)
from labtree.msw.trial_times import END, START, has_tables
from labtree.storage import ragged
from labtree.storage.arguments import integer


def _session_of_rows(frame: pd.DataFrame) -> np.ndarray:
    """Return the number of the session of each row.

    Tables that were joined without a column ``session`` have the same trial numbers twice:
    each begins where the numbers begin again.
    """
    if "session" in frame:
        found = np.asarray(pd.factorize(frame["session"])[0])
        unknown = np.flatnonzero(found < 0)
        found[unknown] = -1 - unknown  # no trial is known to be of the same session
        return found
    number = np.zeros(len(frame), np.int64)
    if "trial" in frame and frame["trial"].duplicated().any():
        trial = numbers_of(frame, "trial")
        number[1:] = np.cumsum(trial[1:] <= trial[:-1])
    return number


def reaction_time(frame: pd.DataFrame) -> pd.Series:
    """Return the reaction times: see ``df.msw.reaction_time``."""
    begin = state_time(frame, "side_ready", "start", visit=-1)
    end = state_time(frame, "side_ready", "end", visit=-1)
    times = (end - begin).where(~np.isnan(numbers_of(frame, "choice")))
    return times.rename("reaction_time")


def outcome(frame: pd.DataFrame) -> pd.Series:
    """Return each trial's outcome: see ``df.msw.outcome``."""
    if "outcome" in frame:
        return column_of(frame, "outcome")
    chose, paid = numbers_of(frame, "choice"), numbers_of(frame, "rewarded")
    names = np.select(
        [~np.isnan(chose) & (paid == 1), ~np.isnan(chose) & (paid == 0), np.isnan(chose)],
        ["rewarded", "unrewarded", "no_response"],
        "",
    ).astype(object)
    names[~is_of_type(frame, "task") | (names == "")] = None
    return pd.Series(names, frame.index, name="outcome", dtype="str")


def blocks(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row a block: see ``df.msw.blocks``."""
    task = task_trials(frame)
    number = column_of(task, "block_number")
    begins = (number != number.shift()).fillna(True)
    begins |= ragged.begins_run(_session_of_rows(task))
    block = begins.cumsum().to_numpy()
    groups = task.groupby(block, sort=True)
    chose = pd.Series(numbers_of(task, "choice"), task.index)
    paid = pd.Series(numbers_of(task, "rewarded"), task.index)
    trial = trial_numbers(task)
    table: dict[str, Any] = {}
    for name in ("session", "subprotocol", "block_number", "block_type_index"):
        if name in task:
            table[name] = groups[name].first()
    if "block_type_values" in task:
        # Cells that are lists: the first of a group would be the first that is not missing.
        table["block_type_values"] = [cells.iloc[0] for _, cells in groups["block_type_values"]]
    table["first_trial"] = trial.groupby(block).first()
    table["last_trial"] = trial.groupby(block).last()
    table["n_trials"] = groups.size()
    table["n_choices"] = chose.notna().groupby(block).sum()
    table["right_fraction"] = (chose > 0).where(chose.notna()).groupby(block).mean()
    table["rewarded_fraction"] = paid.groupby(block).mean()
    return pd.DataFrame(
        {name: v if isinstance(v, list) else np.asarray(v) for name, v in table.items()}
    )


def win_stay_lose_shift(frame: pd.DataFrame) -> pd.Series:
    """Return what follows wins and losses: see ``df.msw.win_stay_lose_shift``."""
    task = task_trials(frame)
    chose, paid = numbers_of(task, "choice"), numbers_of(task, "rewarded")
    pair = ~np.isnan(chose[:-1]) & ~np.isnan(chose[1:]) & ~np.isnan(paid[:-1])
    session = _session_of_rows(task)
    pair &= session[:-1] == session[1:]
    stayed = chose[1:] == chose[:-1]
    won, lost = pair & (paid[:-1] > 0), pair & (paid[:-1] == 0)
    return pd.Series(
        {
            "win_stay": stayed[won].mean() if won.any() else np.nan,
            "lose_shift": (~stayed[lost]).mean() if lost.any() else np.nan,
            "n_wins": float(won.sum()),
            "n_losses": float(lost.sum()),
        }
    )


def rolling(frame: pd.DataFrame, field: str, n: int) -> pd.Series:
    """Return a running mean over trials: see ``df.msw.rolling``."""
    integer("n", n, 1, error=TrialTableError)
    column = column_of(frame, field)
    if column.dtype == object or pd.api.types.is_string_dtype(column.dtype):
        raise TrialTableError(f"column {field!r} is of dtype {column.dtype}; expected numbers")
    values = pd.Series(numbers_of(frame, field), frame.index)
    there = values.notna().to_numpy()
    sessions = values[there].groupby(_session_of_rows(frame)[there])
    means = np.full(len(frame), np.nan)
    means[there] = sessions.transform(lambda session: session.rolling(n).mean())
    return pd.Series(means, frame.index, name=field)


def switch_curve(frame: pd.DataFrame, before: int = 10, after: int = 20) -> pd.DataFrame:
    """Return the choices around block switches: see ``df.msw.switch_curve``."""
    task = task_trials(frame)
    chose = numbers_of(task, "choice")
    values = column_of(task, "block_type_values").tolist()
    try:
        # Which side pays better: -1 left, 1 right, 0 neither.
        better = np.array([float(np.sign(right - left)) for left, right in values])
    except (TypeError, ValueError):
        raise TrialTableError(
            "block_type_values should be a pair [left, right] in each trial"
        ) from None
    session = _session_of_rows(task)
    same = session[1:] == session[:-1]
    switches = 1 + np.flatnonzero(same & (better[1:] != better[:-1]) & (better[1:] != 0))
    positions = np.arange(-before, after)
    rows = switches[:, None] + positions
    inside = (rows >= 0) & (rows < len(task))
    rows = np.clip(rows, 0, max(len(task) - 1, 0))
    if len(task):
        # Neither beyond the session nor beyond the blocks on either side of the switch.
        block = np.concatenate([[0], np.cumsum(~same | (better[1:] != better[:-1]))])
        near = block[rows] - block[switches][:, None]
        inside &= np.where(positions < 0, near == -1, near == 0)
        inside &= session[rows] == session[switches][:, None]
        inside &= ~np.isnan(chose[rows])
    took = (chose[rows] == better[switches][:, None]) if len(task) else inside
    n = inside.sum(axis=0)
    with np.errstate(invalid="ignore"):
        fraction = np.where(n > 0, (took & inside).sum(axis=0) / np.maximum(n, 1), np.nan)
    return pd.DataFrame(
        {"new_side_fraction": fraction, "n": n}, index=pd.Index(positions, name="from_switch")
    )


def pokes(frame: pd.DataFrame, clock: Clock = "trial") -> pd.DataFrame:
    """Return the pokes into ports: see ``df.msw.pokes``."""
    events = event_table(frame, clock)
    parts = events["event"].astype(str).str.extract(r"^Port(\d+)(In|Out)$")
    events = events.assign(port=parts[0], way=parts[1]).dropna(subset=["port"])
    # An entry's exit is the next event of the same port in the same trial.
    following = events.groupby(["trial", "port"], sort=False)[["way", "time"]].shift(-1)
    left = following["time"].where(following["way"] == "Out")
    table = events.assign(start=events["time"], end=left)[events["way"] == "In"]
    table = table.astype({"port": np.int64})
    return table[["trial", "port", "start", "end"]].reset_index(drop=True)


def transitions(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the steps of sequences: see ``df.msw.transitions``."""
    steps = column_of(frame, "transition_times")
    rows = [
        (trial, step["from"], step["to"], step["dt"])
        for trial, cell in zip(trial_numbers(frame), steps, strict=True)
        if isinstance(cell, list | tuple)
        for step in cell
    ]
    return pd.DataFrame(rows, columns=["trial", "from", "to", "dt"])


def summary(frame: pd.DataFrame) -> pd.Series:
    """Return a session in a few numbers: see ``df.msw.summary``."""
    task = task_trials(frame)
    found: dict[str, Any] = {
        "n_rows": len(frame),
        "n_task": len(task),
        "n_barcodes": len(barcode_trials(frame)),
    }
    if START in frame and END in frame and len(frame):
        sessions = frame.groupby(_session_of_rows(frame))
        found["duration_s"] = float((sessions[END].max() - sessions[START].min()).sum())
    if "choice" in task:
        chose = numbers_of(task, "choice")
        found["n_choices"] = int((~np.isnan(chose)).sum())
        found["n_no_response"] = int(np.isnan(chose).sum())
        if len(chose) and not np.isnan(chose).all():
            found["right_fraction"] = float(np.mean(chose[~np.isnan(chose)] > 0))
    if "rewarded" in task and task["rewarded"].notna().any():
        found["rewarded_fraction"] = float(np.nanmean(numbers_of(task, "rewarded")))
    if "outcome" in task and len(task):
        for name, count in task["outcome"].value_counts().items():
            found[f"n_{name}"] = int(count)
    if "block_number" in task:
        found["n_blocks"] = len(blocks(frame))
    if "choice" in task and has_tables(frame.attrs):
        tables, _ = tables_of(frame)
        if "side_ready" in tables.states.names:
            found["median_reaction_time_s"] = float(reaction_time(task).median())
    return pd.Series(found, dtype=object)


def wall_time(frame: pd.DataFrame) -> pd.Series:
    """Return when trials began, as a date and time: see ``df.msw.wall_time``."""
    codes = barcode_trials(frame)
    if not len(codes):
        raise TrialTableError("this table has no barcode, which would state the wall time")
    sent = numbers_of(codes, "barcode_wall_time")
    offsets = np.full(len(frame), np.nan)
    offsets[is_of_type(frame, "barcode")] = (
        sent - state_time(codes, "barcode_start", clock="session").to_numpy()
    )
    # Each session of a joined table has a clock of its own.
    offset = pd.Series(offsets).groupby(_session_of_rows(frame)).transform("median")
    seconds = offset.to_numpy() + numbers_of(frame, START)
    return pd.Series(pd.to_datetime(seconds, unit="s", utc=True), frame.index, name="wall_time")


# A state machine counts from a session's start, and no session lasts four months.
_LONGEST_S = 1e7


def check_times(frame: pd.DataFrame) -> list[str]:
    """Return which times cannot be those of a session, such as 1.8e19 s or infinity."""
    found: list[str] = []
    parts = {name: pd.Series(numbers_of(frame, name)) for name in (START, END) if name in frame}
    if has_tables(frame.attrs):
        tables, _ = tables_of(frame)
        for what, ragged in (("state", tables.states), ("event", tables.events)):
            for code, name in enumerate(ragged.names):
                parts[f"{what} {name!r}"] = pd.Series(
                    ragged.values[ragged.codes == code].ravel()
                )
    for name, times in parts.items():
        absurd = times[times.abs() > _LONGEST_S]
        if len(absurd):
            found.append(
                f"{len(absurd)} times of {name} are more than {_LONGEST_S:.0e} s from the "
                f"session's start, such as {absurd.iloc[0]:g} s"
            )
    return found


def check_trials(frame: pd.DataFrame) -> list[str]:
    """Return warnings about trials: see ``df.msw.validate``."""
    found: list[str] = []

    def tell(bad: Any, what: str) -> None:
        rows = np.flatnonzero(np.asarray(bad, bool))
        if len(rows):
            found.append(f"{len(rows)} trials {what} (rows {shown(rows.tolist(), ', ')})")

    if START in frame and END in frame:
        start, end = numbers_of(frame, START), numbers_of(frame, END)
        tell(end < start, "end before they start")
        tell(
            np.concatenate([[False], start[1:] < start[:-1]])[: len(start)],
            "start before the last one did",
        )
        if has_tables(frame.attrs) and "trial" in frame:
            visits = state_table(frame)
            over = visits["end"].groupby(visits["trial"]).max()
            late = frame["trial"].map(over).to_numpy(np.float64) > end - start + 0.01
            tell(late, "have states that outlast them")
            backward = visits.loc[visits["end"] < visits["start"], "trial"]
            tell(frame["trial"].isin(backward), "have states that end before they start")
    if {"barcode_value", "barcode_wall_time"} <= set(frame.columns):
        value, wall = numbers_of(frame, "barcode_value"), numbers_of(frame, "barcode_wall_time")
        sent = ~np.isnan(value) & ~np.isnan(wall)
        expected = np.floor(np.where(sent, wall, 0) * 1000) % 2**BARCODE_BITS
        # The wall time is rounded to 0.1 ms in the file, the value was not.
        tell(
            sent & (np.abs(value - expected) > 1), "have a barcode that is not their wall time"
        )
    return found
