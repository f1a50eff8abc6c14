"""Trial files: whole ones, one trial at a time, and as tables."""

import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import pandas as pd

from labtree.errors import (
    BusyFileError,
    DamageWarning,
    FormatError,
    SessionError,
    TrialDataError,
    warn,
)
from labtree.msw.log import complete_from_log, read_log
from labtree.msw.trial_lines import (
    TrialLines,
    decode_line,
    encode_header,
    encode_trial,
    read_lines,
    shown,
)
from labtree.msw.trial_table import (
    FrameBuilder,
    NeedsExactParserError,
    nested_frame,
)
from labtree.msw.trial_times import NAN_PLACEHOLDER, Trial
from labtree.optional import require
from labtree.storage.files import replace_file, sync_folder, temporary_path
from labtree.storage.folders import make_folders
from labtree.storage.garbage_collection import without_garbage_collection
from labtree.storage.locks import try_lock


@dataclass
class Findings:
    """What reading met: `damage` cost something, `remarks` did not."""

    damage: list[str]
    remarks: list[str]


def warn_of_damage(messages: Iterable[str]) -> None:
    """Warn once, with all the messages; not at all if there are none."""
    messages = list(messages)
    if messages:
        warn("\n".join(messages), DamageWarning)


def save_trial_data(
    trials: Iterable[Trial], path: str | Path, *, decimals: int | None = 4
) -> None:
    """Write a trial file, whole or not at all.

    Parameters
    ----------
    trials : iterable of dict
        What `encode_trial` takes.
    path : path
        Replaced if it exists, and only once the new file is safe on disk. Folders that
        are missing are made.
    decimals : int or None
        Round floats to this many decimals, as the rigs do; None keeps them exact.

    Raises
    ------
    TrialDataError
        A value that would not come back as it was; the old file then still stands.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_trial_data([{"info": {"choice": 1}}], folder + "/example.msw.df.jsonl")
    ...     load_trial_data(folder + "/example.msw.df.jsonl")
    [{'info': {'choice': 1}}]
    """
    if isinstance(trials, str | Path | dict):
        raise TrialDataError(
            f"the first argument is a {type(trials).__name__}; write "
            "save_trial_data(trials, path), with a list of dicts"
        )
    path = Path(path)
    make_folders(path.parent)
    with temporary_path(path) as temporary:
        with temporary.open("wb") as file:
            file.write(encode_header())
            for number, trial in enumerate(trials):
                file.write(encode_trial(trial, decimals, f"{path.name}: trial {number}"))
        replace_file(temporary, path)


def load_trial_data(path: str | Path) -> list[Trial]:
    """Read a trial file as it was written: a list of nested dicts.

    Parameters
    ----------
    path : path
        A ``.msw.df.jsonl`` or ``.msw.jsonl`` file.

    Returns
    -------
    list of dict
        One dict per trial: tuples are tuples, ``NaN`` is nan, ``null`` is None. A line that
        is damaged is left out, and a `DamageWarning` counts and names such lines.

    Raises
    ------
    FormatError
        No line can be read, or the header states a version that cannot be read.

    See Also
    --------
    labtree.msw.trials_to_frame : The table of these trials.

    Examples
    --------
    >>> import labtree
    >>> from labtree.testing.msw import make_trials
    >>> labtree.msw.save_trial_data(make_trials(3), "a.msw.df.jsonl")
    >>> len(labtree.msw.load_trial_data("a.msw.df.jsonl"))
    3
    """
    path = Path(path)
    content = read_lines(path)
    with without_garbage_collection():
        trials, lost = _decode(content, 0, len(content.lines))
    warn_of_damage(content.remarks + describe_lost(path, lost, len(trials)))
    return trials


def describe_lost(path: Path, lost: list[str], n_read: int) -> list[str]:
    """Return which lines of a file were lost.

    Raises
    ------
    FormatError
        Nothing was read and something was lost: this is no trial file.
    """
    if not lost:
        return []
    if not n_read:
        raise FormatError(
            f"{path}: none of its {len(lost)} lines is a trial ({shown(lost)}); expected one "
            "JSON object a line"
        )
    n_trials = n_read + len(lost)
    return [f"{path}: {len(lost)} of {n_trials} trials cannot be read ({shown(lost)})"]


# --- to a table ----------------------------------------------------------------------------


# Enough for the parser to run freely, few enough for its objects to stay in the cache.
_CHUNK = 256
_PLACEHOLDER = repr(NAN_PLACEHOLDER).encode()


def read_trial_frame(
    path: Path, *, nested: bool = False, log: Path | None = None, n_logged: int = 0
) -> tuple[pd.DataFrame, Findings]:
    """Read a trial file into a table.

    Parameters
    ----------
    path : path
        A trial file.
    nested : bool
        Return the nested layout of `nested_frame`.
    log : path, optional
        The state machine's log of these trials. Those that it has and the file lacks, or
        has on a damaged line, are restored from it.
    n_logged : int
        How many trials have ended by the log.

    Returns
    -------
    frame : pandas.DataFrame
        As `labtree.msw.trials_to_frame` returns it.
    findings : Findings
        What was lost, restored or unusual.

    Raises
    ------
    FormatError
        Nothing can be read.
    """
    content = read_lines(path)
    findings = Findings([], content.remarks)
    notes: list[str] = []
    lost: list[str] = []
    with without_garbage_collection():
        if not nested:
            frame, notes, lost = _table(content)
        n_read = len(content.lines) - len(lost)
        if nested or (n_logged and (lost or n_logged > n_read)):
            trials, lost = _decode(content, 0, len(content.lines))
            n_read = len(trials)
            if log is not None and trials and n_logged and (lost or n_logged > n_read):
                trials = _complete(path, trials, log, lost, findings)
            if nested:
                frame = nested_frame(trials)
            else:
                builder = FrameBuilder()
                builder.add(trials)
                frame, notes = builder.finish(), builder.notes
    findings.damage += [f"{path}: {note}" for note in notes]
    findings.damage += describe_lost(path, lost, n_read)
    return frame, findings


def _complete(
    path: Path, trials: list[Trial], log: Path, lost: list[str], findings: Findings
) -> list[Trial]:
    """Restore trials from the log, note it, and take them off those that were lost."""
    logged = read_log(log)
    completed = complete_from_log(trials, logged.trials)
    if completed.problem:
        findings.damage.append(
            f"{path}: its log {log.name} has {len(logged.trials)} trials, and nothing is "
            f"restored from them: {completed.problem}"
        )
    if completed.n_restored:
        why = shown(lost) or "the trial file does not have them"
        findings.damage.append(
            f"{path}: {completed.n_restored} trials restored from the log {log.name} ({why})"
        )
        del lost[: completed.n_restored]
    if logged.n_cut:
        findings.damage.append(
            f"{log}: the times or states of {logged.n_cut} trials that ended are missing; they "
            "cannot be restored from it"
        )
    return completed.trials


def _table(content: TrialLines) -> tuple[pd.DataFrame, list[str], list[str]]:
    """Return the table of a file's trials, notes on them, and what was lost."""
    try:
        return _build(content, fast=True)
    except NeedsExactParserError:
        return _build(content, fast=False)


def _build(content: TrialLines, *, fast: bool) -> tuple[pd.DataFrame, list[str], list[str]]:
    builder = FrameBuilder()
    lost: list[str] = []
    bounds = [*range(0, len(content.lines), _CHUNK), len(content.lines)]
    for start, stop in pairwise(bounds):
        if fast and _add_fast(builder, content.lines[start:stop]):
            continue
        trials, bad = _decode(content, start, stop)
        lost += bad
        builder.add(trials)
    return builder.finish(), builder.notes, lost


def _add_fast(builder: FrameBuilder, chunk: list[bytes]) -> bool:
    """Parse a chunk with orjson, if that returns what the exact parser would.

    A number stands for each NaN, which orjson does not know. If as many come out as
    numbers, none stood within a string.
    """
    orjson = require("orjson", purpose="reading trial files", extra="msw")
    lines = [line.replace(b"NaN", _PLACEHOLDER) for line in chunk]
    longer = sum(map(len, lines)) - sum(map(len, chunk))
    try:
        trials = list(map(orjson.loads, lines))
    except orjson.JSONDecodeError:
        return False
    if set(map(type, trials)) != {dict}:
        return False
    builder.add(trials, exact=False, n_nan=longer // (len(_PLACEHOLDER) - 3))
    return True


def _decode(content: TrialLines, start: int, stop: int) -> tuple[list[Trial], list[str]]:
    """Return the trials of some lines, and what is wrong with the others."""
    trials: list[Trial] = []
    lost: list[str] = []
    for place in range(start, stop):
        try:
            trials.append(decode_line(content.lines[place]))
        except ValueError as error:
            lost.append(f"line {content.numbers[place]}: {error}")
    return trials, lost


# --- one trial at a time -------------------------------------------------------------------


class TrialWriter:
    """Append trials to a trial file, each safe on disk when `append` returns.

    The time of an append does not depend on the trials before it. A file that exists is
    continued: nothing in it is changed, and a line that an earlier crash truncated stays as
    a separate line, which the reader reports.

    Parameters
    ----------
    path : path
        The file. Folders that are missing are made.
    decimals : int or None
        Round floats to this many decimals, as the rigs do; None keeps them exact.

    Examples
    --------
    >>> import tempfile
    >>> from labtree.msw import load_trial_data
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with TrialWriter(folder + "/example.msw.df.jsonl") as writer:
    ...         writer.append({"info": {"choice": 1}})
    ...     load_trial_data(folder + "/example.msw.df.jsonl")
    [{'info': {'choice': 1}}]
    """

    def __init__(self, path: str | Path, *, decimals: int | None = 4) -> None:
        self.path = Path(path)
        self.decimals = decimals
        self._lock = threading.Lock()
        if self.path.exists():
            read_lines(self.path)  # A version that cannot be read must not be continued.
        else:
            make_folders(self.path.parent)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
        self._file: int | None = os.open(self.path, flags | getattr(os, "O_CLOEXEC", 0), 0o666)
        try:
            # A failed append cuts off what it wrote, which must not be another's line. The
            # locks of Windows would keep readers out.
            if os.name != "nt" and not try_lock(self._file):
                raise BusyFileError(f"{self.path}: another writer has this file open")
            size = os.fstat(self._file).st_size
            if size == 0:
                self._write(encode_header(), sync=False)
            else:
                os.lseek(self._file, size - 1, os.SEEK_SET)
                if os.read(self._file, 1) != b"\n":
                    self._write(b"\n", sync=False)
            sync_folder(self.path.parent)
        except BaseException:
            self.close()
            raise

    def append(self, trial: dict[str, Any]) -> None:
        """Write one trial; it is on the disk when this returns.

        Raises
        ------
        TrialDataError
            A value that would not come back as it was; nothing is written then.
        OSError
            The disk refused, for instance because it is full; the file then ends where
            it ended before.
        SessionError
            The writer is closed.
        """
        line = encode_trial(trial, self.decimals, f"{self.path.name}: this trial")
        with self._lock:
            self._write(line)

    def _write(self, data: bytes, *, sync: bool = True) -> None:
        if self._file is None:
            raise SessionError(
                f"{self.path}: this writer is closed; write TrialWriter(path), which continues"
            )
        before = os.fstat(self._file).st_size
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._file, view) :]
            if sync:
                os.fsync(self._file)
        except BaseException:
            os.ftruncate(self._file, before)
            raise

    def close(self) -> None:
        """Close the file; closing twice does no harm."""
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
