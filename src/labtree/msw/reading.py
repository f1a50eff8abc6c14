"""A trial file to a trial table: the quick way, and the exact way where that is needed."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd

from labtree.msw.codec import decode_line, describe_lost, read_lines, without_garbage_collection
from labtree.msw.frames import FrameBuilder, InexactError
from labtree.msw.nested import nested_frame
from labtree.msw.tables import NAN_STANDIN

__all__ = ["Recover", "read_trial_frame"]

# Enough for the parser to run freely, few enough for its objects to stay in the cache.
_CHUNK = 256
_STANDIN = repr(NAN_STANDIN).encode()
Recover = Callable[[int, Callable[[int], dict[str, Any] | None]], dict[str, Any] | None]


def read_trial_frame(
    path: Path, *, nested: bool = False, recover: Recover | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """Read a trial file into a table.

    Parameters
    ----------
    path : path
        A trial file.
    nested : bool
        Give the nested layout of `nested_frame`.
    recover : callable, optional
        Asked for each line that cannot be read, with its place among the trials and a
        function that gives the trial at another place; gives the trial, or None.

    Returns
    -------
    frame : pandas.DataFrame
        As `labtree.msw.trials_to_frame` gives it.
    notes : list of str
        What was lost or restored.

    Raises
    ------
    FormatError
        Nothing can be read.
    """
    lines, numbers, notes = read_lines(path)
    with without_garbage_collection():
        if nested:
            trials, lost, restored = _decode(lines, numbers, 0, lines, recover)
            frame, seen = nested_frame(trials), len(trials)
        else:
            try:
                builder, lost, restored = _build(lines, numbers, recover, quick=True)
                frame = builder.finish()
            except InexactError:
                builder, lost, restored = _build(lines, numbers, recover, quick=False)
                frame = builder.finish()
            seen = builder.n_trials
            notes += [f"{path}: {note}" for note in builder.notes]
    if restored:
        notes.append(
            f"{path}: {len(restored)} trials restored from the log ({_some(restored)})"
        )
    return frame, notes + describe_lost(path, lost, seen)


def _some(items: list[str]) -> str:
    return "; ".join(items[:5]) + ("; ..." if len(items) > 5 else "")


def _build(
    lines: list[bytes], numbers: list[int], recover: Recover | None, *, quick: bool
) -> tuple[FrameBuilder, list[str], list[str]]:
    builder = FrameBuilder()
    lost: list[str] = []
    restored: list[str] = []
    bounds = [*range(0, len(lines), _CHUNK), len(lines)]
    for start, stop in pairwise(bounds):
        chunk = lines[start:stop]
        if quick and _add_quickly(builder, chunk):
            continue
        trials, *told = _decode(chunk, numbers, start, lines, recover)
        lost += told[0]
        restored += told[1]
        builder.add(trials)
    return builder, lost, restored


def _add_quickly(builder: FrameBuilder, chunk: list[bytes]) -> bool:
    """Parse a chunk with orjson, if that gives what the exact parser would.

    A number stands for each NaN, which orjson does not know; that as many come out as
    numbers tells that none stood within a string.
    """
    try:
        import orjson
    except ImportError:
        raise ImportError(
            'reading trial files needs orjson: pip install "labtree[msw]"'
        ) from None

    lines = [line.replace(b"NaN", _STANDIN) for line in chunk]
    longer = sum(map(len, lines)) - sum(map(len, chunk))
    try:
        trials = list(map(orjson.loads, lines))
    except orjson.JSONDecodeError:
        return False
    if set(map(type, trials)) != {dict}:
        return False
    builder.add(trials, exact=False, n_nan=longer // (len(_STANDIN) - 3))
    return True


def _decode(
    chunk: list[bytes],
    numbers: list[int],
    start: int,
    lines: list[bytes],
    recover: Recover | None,
) -> tuple[list[dict[str, Any]], list[str], list[str]]:
    def trial_at(place: int) -> dict[str, Any] | None:
        try:
            return decode_line(lines[place]) if 0 <= place < len(lines) else None
        except ValueError:
            return None

    trials: list[dict[str, Any]] = []
    lost: list[str] = []
    restored: list[str] = []
    for place, line in enumerate(chunk, start):
        try:
            trials.append(decode_line(line))
        except ValueError as error:
            trial = recover(place, trial_at) if recover else None
            (lost if trial is None else restored).append(f"line {numbers[place]}: {error}")
            if trial is not None:
                trials.append(trial)
    return trials, lost, restored
