"""The state machine's own log (``.msw.csv``), from which lost trials are restored.

Rows are ``TYPE;PC-TIME;BPOD-INITIAL-TIME;BPOD-FINAL-TIME;MSG;+INFO``. A ``TRIAL`` row opens
a trial, and all rows up to the next one belong to it: its ``EVENT`` rows as they happen,
``END-TRIAL``, an ``INFO`` row ``TRIAL-BPOD-TIME`` with its start and end on the session's
clock, and only then its ``STATE`` rows, one for each visit and one of NaN for each state
that was not visited. States and events count from the trial's start.
"""

import os
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from labtree.msw.trial_times import (
    END,
    EVENTS,
    RESTORED,
    START,
    STATES,
    FloatArray,
    Trial,
    is_time,
)
from labtree.storage.files import open_regular, read_file

# The state machine's clock ticks every 100 microseconds, and the trial file is rounded.
_SAME_S = 2e-4
_MAX_BYTES = 2**32
_PART_BYTES = 2**20
# Beyond this, a time is no count of ticks any more.
_LATEST_S = 1e12
_BPOD_START = "Bpod start timestamp"


class SessionLog(NamedTuple):
    """What a log holds.

    Attributes
    ----------
    trials : list of dict
        Those that are whole: start, end, states and events.
    n_cut : int
        Trials that ended, but whose times or states the log lacks: it was cut there.
    """

    trials: list[Trial]
    n_cut: int


class Completed(NamedTuple):
    """Trials of a trial file with those that only the log has.

    Attributes
    ----------
    trials : list of dict
        In order; restored ones have ``restored_from_log``.
    n_restored : int
        How many were restored.
    problem : str
        Why nothing could be restored; "" if there was nothing to restore, or it was.
    """

    trials: list[Trial]
    n_restored: int
    problem: str


def count_ended_trials(path: Path) -> int:
    """Count the trials that a log says have ended, whole or not."""
    row = b"\nEND-TRIAL;"
    count, rest = 0, b"\n"
    with os.fdopen(open_regular(path), "rb", buffering=0) as file:
        while part := file.read(_PART_BYTES):
            # A row may begin in one part and end in the next.
            part = rest + part
            count += part.count(row)
            rest = part[1 - len(row) :]
    return count


def read_log(path: Path) -> SessionLog:
    """Read the trials of a log."""
    text = read_file(path, _MAX_BYTES).decode("utf-8", errors="replace")
    trials: list[Trial] = []
    ended: list[bool] = []
    is_closed = False
    for line in text.split("\n"):
        fields = [field.strip() for field in line.split(";")] + [""] * 6
        kind, _, initial, final, message, more = fields[:6]
        if kind == "TRIAL":
            trials.append({STATES: {}, EVENTS: {}})
            ended.append(False)
        elif kind == "INFO" and message == "SESSION-ENDED":
            is_closed = True
        elif not trials:
            continue
        elif kind == "END-TRIAL":
            ended[-1] = True
        elif kind == "INFO" and message == "TRIAL-BPOD-TIME":
            trials[-1][START], trials[-1][END] = _number(initial), _number(final)
        elif kind == "STATE" and message:
            trials[-1][STATES].setdefault(message, []).append(
                (_number(initial), _number(final))
            )
        elif kind == "EVENT" and more:
            trials[-1][EVENTS].setdefault(more, []).append(_number(initial))
    # The rows of a trial that another one follows are all there.
    may_lack = bool(ended) and ended[-1] and not is_closed
    trials = [trial for trial, has_ended in zip(trials, ended, strict=True) if has_ended]
    whole = [
        trial
        for trial in trials
        if abs(trial.get(START, np.nan)) < _LATEST_S and abs(trial.get(END, np.nan)) < _LATEST_S
    ]
    if may_lack and whole and whole[-1] is trials[-1] and _lacks_states(whole, text):
        whole.pop()
    return SessionLog(whole, len(trials) - len(whole))


def _lacks_states(trials: list[Trial], text: str) -> bool:
    """Return whether the last trial of a log that was not closed has too few STATE rows."""
    if not text.endswith("\n"):
        return True
    last = trials[-1][STATES].keys()
    others = [trial[STATES].keys() for trial in trials[:-1]]
    return not last or (last not in others and any(last < other for other in others))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def complete_from_log(trials: list[Trial], logged: list[Trial]) -> Completed:
    """Return the trials of a file with those that only its log has.

    Trials are matched by their start, which both have. Nothing is restored from a log
    that contradicts the file: its trials must be there, with the same visits, apart from
    one in ten that may be damaged. Restored times are on the clock that the file uses.
    """
    matches, n_wrong = _match(trials, logged)
    votes = {"trial": 0, "session": 0}
    for trial, match in zip(trials, matches, strict=True):
        clock = None if match is None else _clock(trial, logged[match])
        if clock == "":
            n_wrong += 1
        elif clock in votes:
            votes[clock] += 1
    if n_wrong * 10 > len(trials):
        return Completed(trials, 0, f"{n_wrong} of its {len(trials)} trials differ")
    if trials and not any(match is not None for match in matches):
        return Completed(trials, 0, "they have no trial in common")
    is_absolute = votes["session"] > votes["trial"]
    bpod_start = next((trial[_BPOD_START] for trial in trials if _BPOD_START in trial), None)

    def restored(place: int) -> Trial:
        trial = logged[place]
        shift = trial[START] if is_absolute else 0.0
        head = {} if bpod_start is None else {_BPOD_START: bpod_start}
        return {
            **head,
            START: trial[START],
            END: trial[END],
            STATES: {
                name: [(a + shift, b + shift) for a, b in visits]
                for name, visits in trial[STATES].items()
            },
            EVENTS: {name: [t + shift for t in times] for name, times in trial[EVENTS].items()},
            RESTORED: True,
        }

    completed: list[Trial] = []
    following = 0
    last = max((i for i, match in enumerate(matches) if match is not None), default=-1)
    for i, (trial, match) in enumerate(zip(trials, matches, strict=True)):
        # Trials after the last common one came after the log had ended.
        until = match if match is not None else len(logged) if i > last else following
        completed += [restored(place) for place in range(following, until)]
        completed.append(trial)
        following = max(until + (match is not None), following)
    completed += [restored(place) for place in range(following, len(logged))]
    return Completed(completed, len(completed) - len(trials), "")


def _match(trials: list[Trial], logged: list[Trial]) -> tuple[list[int | None], int]:
    """Return the place in the log of each trial, rising, and how many should have one."""
    places: dict[int, list[int]] = defaultdict(list)
    for place, trial in enumerate(logged):
        places[round(trial[START] * 1e4)].append(place)
    end = max((trial[START] for trial in logged), default=-np.inf)
    matches: list[int | None] = []
    n_wrong = following = 0
    for trial in trials:
        start = trial.get(START)
        found = None
        if isinstance(start, float) and abs(start) < _LATEST_S:
            tick = round(start * 1e4)
            near = (p for t in (tick, tick - 1, tick + 1) for p in places.get(t, ()))
            found = next((place for place in near if place >= following), None)
            n_wrong += found is None and start <= end
        else:
            n_wrong += 1
        matches.append(found)
        if found is not None:
            following = found + 1
    return matches, n_wrong


def _clock(trial: Trial, twin: Trial) -> str | None:
    """Return what a trial's states count from, by its twin in the log.

    "trial" or "session"; None where both fit; "" where the two differ.
    """
    states = trial.get(STATES)
    if not isinstance(states, dict):
        return None
    ours, logged = [], []
    for name, visits in states.items():
        known = _finite(visits)
        other = _finite(twin[STATES].get(name, []))
        if len(known) != len(other):
            return ""
        ours.append(known)
        logged.append(other)
    shifts = np.concatenate([np.empty(0), *ours]) - np.concatenate([np.empty(0), *logged])
    from_trial = bool((np.abs(shifts) <= _SAME_S).all())
    from_session = bool((np.abs(shifts - twin[START]) <= _SAME_S).all())
    if from_trial and from_session:
        return None
    return "trial" if from_trial else "session" if from_session else ""


def _finite(visits: Any) -> FloatArray:
    """Return the times of the visits that took place, flat."""
    pairs = visits if isinstance(visits, list) else []
    times = [
        time
        for pair in pairs
        if isinstance(pair, list | tuple) and len(pair) == 2
        for time in pair
        if is_time(time) and time is not None
    ]
    found = np.array(times, np.float64)
    return found[np.isfinite(found)]
