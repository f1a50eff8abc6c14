"""The trial file: one JSON object a line, below a header line with the version.

Written as the rigs write it, byte for byte: tuples as ``{"__tuple__": [...]}``, floats
rounded to four decimals, ``NaN`` and ``Infinity`` as literals, ASCII only, ``", "`` and
``": "`` between the parts.
"""

import json
import os
import re
import threading
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd

from labtree.errors import (
    BusyFileError,
    DamageWarning,
    FormatError,
    SessionError,
    TrialDataError,
)
from labtree.msw.log import complete_from_log, read_log
from labtree.msw.nested_trials import nested_frame
from labtree.msw.trial_table import (
    FrameBuilder,
    NeedsExactParserError,
)
from labtree.msw.trial_times import NAN_PLACEHOLDER
from labtree.optional import require
from labtree.storage.files import read_file, replace_file, sync_folder, temporary_path
from labtree.storage.garbage_collection import without_garbage_collection
from labtree.storage.locks import try_lock

FORMAT_VERSION = "1.0.0"
_MAX_BYTES = 2**34
_VERSION_KEY = "_msw_version"
_TUPLE_KEY = "__tuple__"
Trial = dict[str, Any]


@dataclass
class Findings:
    """What reading met: `damage` cost something, `remarks` did not."""

    damage: list[str]
    remarks: list[str]


def warn_of_damage(messages: Iterable[str], stacklevel: int = 2) -> None:
    """Warn once, with all the messages; not at all if there are none."""
    messages = list(messages)
    if messages:
        warnings.warn("\n".join(messages), DamageWarning, stacklevel=stacklevel + 1)


# --- writing ---------------------------------------------------------------------------


class _RefusedError(Exception):
    """Why a value cannot be kept; where it stands is found afterwards."""


_ATOMS = frozenset({int, bool, type(None)})
# Two that meet are written as two escapes, which every JSON reader joins to one character.
_SURROGATES = re.compile("[\ud800-\udbff][\udc00-\udfff]")


def _plain(value: Any, decimals: int | None) -> Any:
    """Return `value` as JSON holds it, or refuse what would come back as something else."""
    kind = type(value)
    if kind is float:
        return value if decimals is None else round(value, decimals)
    if kind in _ATOMS:
        return value
    if isinstance(value, str):
        if not value.isascii():
            _refuse_surrogates(value)
        return str(value)
    if isinstance(value, dict):
        if not set(map(type, value)) <= {str}:
            _refuse_keys(value)
        if not "".join(value).isascii():
            for key in value:
                _refuse_surrogates(key)
        if len(value) == 1 and _TUPLE_KEY in value:
            raise _RefusedError(
                f"a dict with the one key {_TUPLE_KEY!r} would come back as a tuple; rename it"
            )
        return {key: _plain(item, decimals) for key, item in value.items()}
    if isinstance(value, tuple):
        return {_TUPLE_KEY: [_plain(item, decimals) for item in value]}
    if isinstance(value, list):
        return [_plain(item, decimals) for item in value]
    if isinstance(value, np.ma.MaskedArray):
        raise _RefusedError("a masked array would lose what is masked; write .filled(np.nan)")
    if isinstance(value, np.ndarray):
        return _plain_array(value, decimals)
    if isinstance(value, np.float64):
        return float(_rounded(np.asarray(value), decimals))
    if isinstance(value, float | np.floating) and (float(value) == value or value != value):
        return _plain(float(value), decimals)
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    raise _RefusedError(
        f"a {kind.__module__}.{kind.__qualname__} cannot be kept; expected None, bool, int, "
        "float, str, list, tuple, dict, or numpy arrays and scalars of these"
    )


def _plain_array(value: np.ndarray[Any, Any], decimals: int | None) -> Any:
    kind = value.dtype.kind
    if kind not in "biufU" or (kind == "f" and value.itemsize > 8):
        raise _RefusedError(
            f"an array of dtype {value.dtype} would come back as something else; expected "
            "bool, integers, floats or strings"
        )
    if kind == "f":
        value = _rounded(value, decimals)
    if kind == "U":
        for text in value.ravel().tolist():
            _refuse_surrogates(text)
    return value.tolist()


def _rounded(value: np.ndarray[Any, Any], decimals: int | None) -> np.ndarray[Any, Any]:
    """Round as numpy does, which scales first: what becomes infinite by that is refused."""
    if decimals is None:
        return value
    with np.errstate(over="ignore"):
        rounded = value.round(decimals)
    if not np.array_equal(np.isfinite(value), np.isfinite(rounded)):
        largest = np.abs(value[np.isfinite(value)]).max()
        raise _RefusedError(
            f"{largest} becomes infinite when numpy rounds {value.dtype} to {decimals} "
            "decimals; write decimals=None"
        )
    return rounded


def _refuse_surrogates(text: str) -> None:
    if _SURROGATES.search(text):
        raise _RefusedError(
            f"{text!r} has two lone surrogates side by side, which come back as one other "
            "character; remove one"
        )


def _refuse_keys(value: dict[Any, Any]) -> None:
    for key in value:
        if not isinstance(key, str):
            raise _RefusedError(
                f"the key {key!r} is a {type(key).__name__}, and would come back as a string; "
                f"write {str(key)!r} instead"
            )


def _find_refused(value: Any, decimals: int | None) -> str:
    """Return the path to the part of `value` that is refused."""
    parts: Any = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list | tuple):
        parts = enumerate(value)
    for key, part in parts:
        try:
            _plain(part, decimals)
        except _RefusedError:
            return f"[{key!r}]{_find_refused(part, decimals)}"
    return ""


def encode_header() -> bytes:
    """Return the first line of a trial file."""
    return b'{"%s": "%s"}\n' % (_VERSION_KEY.encode(), FORMAT_VERSION.encode())


def encode_trial(
    trial: Mapping[str, Any], decimals: int | None = 4, where: str = "trial"
) -> bytes:
    r"""Return one trial as its line, newline included.

    Parameters
    ----------
    trial : dict
        None, bool, int, float, str, list, tuple, dict with string keys, and numpy
        arrays and scalars of these, to any depth.
    decimals : int or None
        Round floats to this many decimals, as the rigs do; None keeps them exact.
    where : str
        What an error calls this trial.

    Returns
    -------
    bytes
        ASCII.

    Raises
    ------
    TrialDataError
        A value that would not come back as it was, with its place in the trial.

    Examples
    --------
    >>> encode_trial({"visits": [(0.0, 0.12345)], "choice": float("nan")})
    b'{"visits": [{"__tuple__": [0.0, 0.1235]}], "choice": NaN}\n'
    """
    if not isinstance(trial, dict):
        raise TrialDataError(f"{where}: expected a dict, found a {type(trial).__name__}")
    if _VERSION_KEY in trial:
        raise TrialDataError(
            f"{where}: the key {_VERSION_KEY!r} marks the header, and readers drop a "
            "trial that has it; rename the key"
        )
    try:
        return (json.dumps(_plain(trial, decimals)) + "\n").encode("ascii")
    except _RefusedError as error:
        place = where + _find_refused(trial, decimals)
        raise TrialDataError(f"{place}: {error}") from None
    except RecursionError:
        raise TrialDataError(f"{where}: nested too deeply, or within itself") from None


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


def make_folders(folder: Path) -> None:
    """Make a folder and those above it, so that they outlive a power cut."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in reversed(missing):
        sync_folder(path.parent)


# --- reading ---------------------------------------------------------------------------


def _tuple_hook(value: dict[str, Any]) -> Any:
    if len(value) == 1 and _TUPLE_KEY in value and isinstance(value[_TUPLE_KEY], list):
        return tuple(value[_TUPLE_KEY])
    return value


_decoder = json.JSONDecoder(object_hook=_tuple_hook)


def decode_line(line: bytes) -> Trial:
    """Return the trial of one line: tuples as tuples, NaN as nan, null as None.

    Raises
    ------
    ValueError
        The line is not one JSON object.
    """
    try:
        trial = _decoder.decode(line.decode("utf-8"))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(trial, dict):
        raise ValueError(f"expected an object, found a {type(trial).__name__}")
    return trial


class TrialLines(NamedTuple):
    """The lines of a trial file.

    Attributes
    ----------
    lines : list of bytes
        Those that should be trials: no header, no blank line.
    numbers : list of int
        The number of each in the file, from 1.
    remarks : list of str
        What is unusual and cost nothing.
    """

    lines: list[bytes]
    numbers: list[int]
    remarks: list[str]


def read_lines(path: Path) -> TrialLines:
    """Read the lines of a trial file, with or without a header.

    Raises
    ------
    FormatError
        A header states a version that cannot be read.
    """
    data = read_file(path, _MAX_BYTES).removeprefix(b"\xef\xbb\xbf")
    remarks: list[str] = []
    # What a crash leaves of a block that was allocated and never written.
    n_nul = len(data) - len(data.rstrip(b"\0"))
    if n_nul:
        data = data[:-n_nul]
        remarks.append(f"{path}: ends in {n_nul} NUL bytes, as a crash leaves them; ignored")
    lines = data.split(b"\n")
    headers: list[int] = []
    n_keys = data.count(_VERSION_KEY.encode())
    for i, line in enumerate(lines):
        if not n_keys:
            break
        n_keys -= line.count(_VERSION_KEY.encode())
        if _is_header(line, path, remarks):
            headers.append(i)
    kept = [i for i, line in enumerate(lines) if line and not line.isspace()]
    inside = [i + 1 for i in headers if kept and i > kept[0]]
    if inside:
        shown = _some([str(number) for number in inside])
        remarks.append(f"{path}: a header again on line {shown}, so files were joined here")
    if headers:
        kept = [i for i in kept if i not in set(headers)]
    return TrialLines([lines[i] for i in kept], [i + 1 for i in kept], remarks)


def _is_header(line: bytes, path: Path, remarks: list[str]) -> bool:
    if _VERSION_KEY.encode() not in line[:64]:
        return False
    try:
        header = decode_line(line)
    except ValueError:
        return False
    if header.keys() != {_VERSION_KEY}:
        return False
    version = header[_VERSION_KEY]
    if version != FORMAT_VERSION:
        stated = (
            f"{path}: the header says version {version!r}, and this reader knows "
            f"{FORMAT_VERSION!r}"
        )
        major = FORMAT_VERSION.split(".")[0]
        if not isinstance(version, str) or version.split(".")[0] != major:
            raise FormatError(f"{stated}; it would have to guess what the trials mean")
        remarks.append(f"{stated}; read as {FORMAT_VERSION}")
    return True


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
    shown = "; ".join(lost[:5]) + ("; ..." if len(lost) > 5 else "")
    if not n_read:
        raise FormatError(
            f"{path}: none of its {len(lost)} lines is a trial ({shown}); expected one JSON "
            "object a line"
        )
    return [f"{path}: {len(lost)} of {n_read + len(lost)} trials cannot be read ({shown})"]


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
    with without_garbage_collection():
        builder = FrameBuilder()
        lost: list[str] = []
        if not nested:
            try:
                builder, lost = _build(content, fast=True)
                frame = builder.finish()
            except NeedsExactParserError:
                builder, lost = _build(content, fast=False)
                frame = builder.finish()
        n_read = len(content.lines) - len(lost)
        if nested or (n_logged and (lost or n_logged > n_read)):
            trials, lost = _decode(content, 0, len(content.lines))
            n_read = len(trials)
            if log is not None and trials and n_logged and (lost or n_logged > n_read):
                trials = _complete(path, trials, log, lost, findings)
            if nested:
                return nested_frame(trials), _lost(path, lost, n_read, findings)
            builder = FrameBuilder()
            builder.add(trials)
            frame = builder.finish()
        findings.damage += [f"{path}: {note}" for note in builder.notes]
    return frame, _lost(path, lost, n_read, findings)


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
        why = _some(lost) or "the trial file does not have them"
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


def _lost(path: Path, lost: list[str], n_read: int, findings: Findings) -> Findings:
    findings.damage += describe_lost(path, lost, n_read)
    return findings


def _some(items: list[str]) -> str:
    return "; ".join(items[:5]) + ("; ..." if len(items) > 5 else "")


def _build(content: TrialLines, *, fast: bool) -> tuple[FrameBuilder, list[str]]:
    builder = FrameBuilder()
    lost: list[str] = []
    bounds = [*range(0, len(content.lines), _CHUNK), len(content.lines)]
    for start, stop in pairwise(bounds):
        if fast and _add_fast(builder, content.lines[start:stop]):
            continue
        trials, bad = _decode(content, start, stop)
        lost += bad
        builder.add(trials)
    return builder, lost


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
    continued: nothing in it is changed, and a line that an earlier crash cut short stays
    as a line of its own, for the reader to tell of.

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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
