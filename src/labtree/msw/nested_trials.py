"""Trial tables as older tools have them: every state and event a column of lists."""

import re
from collections.abc import Sequence
from typing import Any

import pandas as pd

from labtree.errors import TrialTableError
from labtree.msw.trial_times import EVENTS, STATES

NESTED_FIELDS = ("info", STATES, EVENTS, "analysis")
_EVENT = re.compile(
    r"Tup|(Port|BNC|Wire|Serial|SoftCode|GlobalTimer|GlobalCounter|Condition)\w*"
)


def nested_frame(trials: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return trials with every state and event a column of lists.

    The columns of ``info``, ``States timestamps``, ``Events timestamps`` and ``analysis``
    take the place of these fields, in that order, after the others. A name that is taken
    is written with its group, ``info.name``.

    Raises
    ------
    TrialTableError
        A text has a lone surrogate, which pandas refuses here.
    """
    try:
        frame = pd.DataFrame(list(trials))
        for group in NESTED_FIELDS:
            if group not in frame:
                continue
            cells = [cell if isinstance(cell, dict) else {} for cell in frame.pop(group)]
            spread = pd.DataFrame(cells, index=frame.index)
            taken = {name: f"{group}.{name}" for name in spread if name in frame}
            frame = pd.concat([frame, spread.rename(columns=taken)], axis=1)
        return frame.drop(columns=[0], errors="ignore")
    except UnicodeEncodeError as error:
        raise TrialTableError(
            f"{error.object!r:.60} has a lone surrogate, which columns of nested cells cannot "
            "hold; load the session without nested=True"
        ) from None


def trials_from_nested(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the trials that a table of nested cells holds.

    Parameters
    ----------
    frame : pandas.DataFrame
        With the columns of `NESTED_FIELDS`, or as `nested_frame` returns it: a column
        whose cells are lists of pairs of floats is a state's, and one with the name of an
        event is an event's.
    """
    frame = frame.astype(object).where(frame.notna(), None) if len(frame) else frame
    columns = {str(name): frame[name].tolist() for name in frame}
    states = [name for name, cells in columns.items() if _are_visits(cells)]
    events = [name for name in columns if _EVENT.fullmatch(name)]
    trials: list[dict[str, Any]] = []
    for row in range(len(frame)):
        trial = {
            name: cells[row]
            for name, cells in columns.items()
            if name not in states and name not in events
        }
        for group, names in ((STATES, states), (EVENTS, events)):
            found = {
                name: columns[name][row] for name in names if columns[name][row] is not None
            }
            if names:
                trial[group] = found
        trials.append(trial)
    return trials


def _are_visits(cells: list[Any]) -> bool:
    lists = [cell for cell in cells if cell is not None]
    return bool(lists) and all(
        isinstance(cell, list | tuple)
        and len(cell) > 0
        and all(
            isinstance(visit, list | tuple)
            and len(visit) == 2
            and all(isinstance(time, float) for time in visit)
            for visit in cell
        )
        for cell in lists
    )
