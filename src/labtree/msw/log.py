"""The state machine's own log (``.msw.csv``), from which a damaged trial can be restored.

Semicolons between ``TYPE;PC-TIME;BPOD-INITIAL-TIME;BPOD-FINAL-TIME;MSG;+INFO``; a trial's
rows end with ``END-TRIAL``.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from labtree.msw.trial_table import END, EVENTS, RESTORED, START, STATES

__all__ = ["count_logged_trials", "read_log", "recover_from_log"]

# The state machine's clock ticks every 100 microseconds, and the trial file is rounded.
_SAME_S = 2e-4
Trial = dict[str, Any]


def read_log(path: Path) -> list[Trial]:
    """Give the finished trials of a log: states, events, start and end where logged."""
    trials: list[Trial] = []
    trial = _empty()
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        fields = [field.strip() for field in line.split(";")] + [""] * 6
        kind, _, initial, final, message, more = fields[:6]
        if kind == "STATE" and message:
            trial[STATES].setdefault(message, []).append((_number(initial), _number(final)))
        elif kind == "EVENT" and more:
            trial[EVENTS].setdefault(more, []).append(_number(initial))
        elif kind in ("TRIAL", "END-TRIAL"):
            if initial:
                trial[START] = _number(initial)
            if kind == "END-TRIAL":
                if final:
                    trial[END] = _number(final)
                trials.append(trial)
                trial = _empty()
    return trials


def count_logged_trials(path: Path) -> int:
    """Count the finished trials of a log."""
    text = path.read_text(encoding="utf-8", errors="replace")
    return sum(line.startswith("END-TRIAL") for line in text.splitlines())


def _empty() -> Trial:
    return {STATES: {}, EVENTS: {}}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def recover_from_log(
    path: Path,
) -> Callable[[int, Callable[[int], Trial | None]], Trial | None]:
    """Give the function that restores a trial by its place, reading the log when first asked.

    A trial is restored only if the log agrees with the trial file on the nearest trial
    that both have; its times are then in the file's own clock.
    """
    logged: list[Trial] = []
    asked: list[bool] = []

    def recover(place: int, trial_at: Callable[[int], Trial | None]) -> Trial | None:
        if not asked:
            asked.append(True)
            try:
                logged.extend(read_log(path))
            except OSError:
                return None
        if place >= len(logged):
            return None
        for distance in range(1, 20):
            for near in (place - distance, place + distance):
                known = trial_at(near)
                # A trial that starts with the session cannot tell the two clocks apart.
                if known is not None and near < len(logged) and _starts_late(known):
                    return _in_clock_of(logged[place], logged[near], known)
        return None

    return recover


def _starts_late(trial: Trial) -> bool:
    begin = trial.get(START)
    return isinstance(begin, float) and begin > 0.01


def _in_clock_of(trial: Trial, twin: Trial, known: Trial) -> Trial | None:
    """Give a logged trial in the file's clock, as its neighbour `known` and its `twin` tell."""
    shift = _shift(twin, known)
    begin = float(known[START])
    if shift is None:
        return None
    restored: Trial = {}
    if abs(twin.get(START, float("nan")) - begin) <= 1e-3:
        restored = {name: trial[name] for name in (START, END) if name in trial}
    if abs(shift) <= _SAME_S:
        shift = 0.0
    elif START in trial and abs(abs(shift) - begin) <= _SAME_S:
        # One counts from the session's start and the other from the trial's.
        shift = trial[START] if shift > 0 else -trial[START]
    else:
        return None
    restored[STATES] = {
        name: [(round(a - shift, 4), round(b - shift, 4)) for a, b in visits]
        for name, visits in trial[STATES].items()
    }
    restored[EVENTS] = {
        name: [round(time - shift, 4) for time in times]
        for name, times in trial[EVENTS].items()
    }
    restored[RESTORED] = True
    return restored


def _shift(twin: Trial, known: Trial) -> float | None:
    """Give how much later the log says that the same visits happened, if all agree."""
    states = known.get(STATES)
    if not isinstance(states, dict):
        return None
    shifts: list[float] = []
    for name, visits in states.items():
        if not isinstance(visits, list):
            continue
        logged = [visit for visit in twin[STATES].get(name, []) if visit[0] == visit[0]]
        visits = [
            visit
            for visit in visits
            if isinstance(visit, list | tuple)
            and len(visit) == 2
            and all(isinstance(t, int | float) for t in visit)
            and visit[0] == visit[0]
        ]
        if len(logged) != len(visits):
            return None
        shifts += [
            a - b
            for one, two in zip(logged, visits, strict=True)
            for a, b in zip(one, two, strict=True)
        ]
    shifts = [shift for shift in shifts if shift == shift]
    if not shifts or max(shifts) - min(shifts) > _SAME_S:
        return None
    return shifts[0]
