"""The trial file: one JSON object a line, below a header line that tells the version.

Written as the rigs write it, byte for byte: tuples as ``{"__tuple__": [...]}``, floats
rounded to four decimals, ``NaN`` and ``Infinity`` as literals, ASCII only, ``", "`` and
``": "`` between the parts.
"""

import contextlib
import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pandas as pd

from labtree.errors import FormatError, SessionError, TrialDataError
from labtree.msw.damage import warn_of_damage
from labtree.msw.trial_table import (
    NAN_PLACEHOLDER,
    FrameBuilder,
    NeedsExactParserError,
    nested_frame,
    without_garbage_collection,
)

FORMAT_VERSION = "1.0.0"
_VERSION_KEY = "_msw_version"
_TUPLE_KEY = "__tuple__"
Trial = dict[str, Any]


# --- writing ---------------------------------------------------------------------------


class _RefusedError(Exception):
    """Why a value cannot be kept; where it stands is found afterwards."""


_ATOMS = frozenset({str, int, bool, type(None)})


def _plain(value: Any, decimals: int | None) -> Any:
    """Give `value` as JSON holds it, or refuse what would come back as something else."""
    kind = type(value)
    if kind is float:
        return value if decimals is None else round(value, decimals)
    if kind in _ATOMS:
        return value
    if isinstance(value, dict):
        if not set(map(type, value)) <= {str}:
            _refuse_keys(value)
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
        if value.dtype.kind not in "biufU" or (value.dtype.kind == "f" and value.itemsize > 8):
            raise _RefusedError(
                f"an array of dtype {value.dtype} would come back as something else; expected "
                "bool, integers, floats or strings"
            )
        if value.dtype.kind == "f" and decimals is not None:
            value = value.round(decimals)
        return value.tolist()
    if isinstance(value, float | np.floating):
        return _plain(float(value), decimals)
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, str):
        return str(value)
    raise _RefusedError(
        f"a {kind.__module__}.{kind.__qualname__} cannot be kept; expected None, bool, int, "
        "float, str, list, tuple, dict, or numpy arrays and scalars of these"
    )


def _refuse_keys(value: dict[Any, Any]) -> None:
    for key in value:
        if not isinstance(key, str):
            raise _RefusedError(
                f"the key {key!r} is a {type(key).__name__}, and would come back as a string; "
                f"write {str(key)!r} instead"
            )


def _find_refused(value: Any, decimals: int | None) -> str:
    """Give the path to the part of `value` that is refused."""
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
    """Give the first line of a trial file."""
    return b'{"%s": "%s"}\n' % (_VERSION_KEY.encode(), FORMAT_VERSION.encode())


def encode_trial(
    trial: Mapping[str, Any], decimals: int | None = 4, where: str = "trial"
) -> bytes:
    r"""Give one trial as its line, newline included.

    Parameters
    ----------
    trial : dict
        None, bool, int, float, str, list, tuple, dict with string keys, and numpy
        arrays and scalars of these, to any depth.
    decimals : int or None
        Round floats to so many decimals, as the rigs do; None keeps them exact.
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
        Replaced if it exists, and only once the new file is safe on disk.
    decimals : int or None
        Round floats to so many decimals, as the rigs do; None keeps them exact.

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
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(encode_header())
            for number, trial in enumerate(trials):
                file.write(encode_trial(trial, decimals, f"{path.name}: trial {number}"))
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files private; a data file is as readable as any new file.
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise
    sync_folder(path.parent)


def _umask() -> int:
    # The only way to read the mask is to set it.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def sync_folder(folder: Path) -> None:
    """Make a new name in a folder durable, where the platform lets a folder be opened."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


# --- reading ---------------------------------------------------------------------------


def _tuple_hook(value: dict[str, Any]) -> Any:
    if len(value) == 1 and _TUPLE_KEY in value and isinstance(value[_TUPLE_KEY], list):
        return tuple(value[_TUPLE_KEY])
    return value


_decoder = json.JSONDecoder(object_hook=_tuple_hook)


def decode_line(line: bytes) -> Trial:
    """Give the trial of one line: tuples as tuples, NaN as nan, null as None.

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


def read_lines(path: Path) -> tuple[list[bytes], list[int], list[str]]:
    """Read the lines of a trial file that hold trials.

    Parameters
    ----------
    path : path
        A trial file, with or without a header.

    Returns
    -------
    lines : list of bytes
        Without the header and blank lines.
    numbers : list of int
        The number of each line in the file, from 1.
    notes : list of str
        What is to be told: a header of a version that is newer but compatible.

    Raises
    ------
    FormatError
        The header tells a version that cannot be read.
    """
    data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    # What a crash leaves of a line that was allocated and never written.
    data = data.rstrip(b"\0")
    lines = data.split(b"\n")
    notes: list[str] = []
    start = next((i for i, line in enumerate(lines) if line.strip()), len(lines))
    if start < len(lines) and _VERSION_KEY.encode() in lines[start][:64]:
        try:
            header = decode_line(lines[start])
        except ValueError:
            header = {}
        if header.keys() == {_VERSION_KEY}:
            _check_version(header[_VERSION_KEY], path, notes)
            start += 1
    kept = [i for i in range(start, len(lines)) if lines[i] and not lines[i].isspace()]
    return [lines[i] for i in kept], [i + 1 for i in kept], notes


def _check_version(version: object, path: Path, notes: list[str]) -> None:
    if version == FORMAT_VERSION:
        return
    told = (
        f"{path}: the header says version {version!r}, and this reader knows {FORMAT_VERSION!r}"
    )
    if not isinstance(version, str) or version.split(".")[0] != FORMAT_VERSION.split(".")[0]:
        raise FormatError(f"{told}; it would have to guess what the trials mean")
    notes.append(f"{told}; read as {FORMAT_VERSION}")


def load_trial_data(path: str | Path) -> list[Trial]:
    """Read a trial file as it was written: a list of nested dicts.

    Parameters
    ----------
    path : path
        A ``.msw.df.jsonl`` or ``.msw.jsonl`` file.

    Returns
    -------
    list of dict
        A dict a trial: tuples are tuples, ``NaN`` is nan, ``null`` is None. A line that
        is damaged is left out, and a `DamageWarning` counts and names such lines.

    Raises
    ------
    FormatError
        No line can be read, or the header tells a version that cannot be read.

    See Also
    --------
    labtree.msw.trials_to_frame : The table of these trials.
    """
    path = Path(path)
    lines, numbers, notes = read_lines(path)
    trials: list[Trial] = []
    lost: list[str] = []
    with without_garbage_collection():
        for line, number in zip(lines, numbers, strict=True):
            try:
                trials.append(decode_line(line))
            except ValueError as error:
                lost.append(f"line {number}: {error}")
    warn_of_damage(notes + describe_lost(path, lost, len(trials)))
    return trials


def describe_lost(path: Path, lost: list[str], n_read: int) -> list[str]:
    """Tell which lines of a file were lost.

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
            except NeedsExactParserError:
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
        if quick and _add_fast(builder, chunk):
            continue
        trials, *told = _decode(chunk, numbers, start, lines, recover)
        lost += told[0]
        restored += told[1]
        builder.add(trials)
    return builder, lost, restored


def _add_fast(builder: FrameBuilder, chunk: list[bytes]) -> bool:
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


# --- one trial at a time -------------------------------------------------------------------


class TrialWriter:
    """Append trials to a trial file, each safe on disk when `append` returns.

    The time of an append does not depend on the trials before it. A file that exists is
    continued: nothing in it is changed, and a line that an earlier crash cut short stays
    as a line of its own, for the reader to tell of.

    Parameters
    ----------
    path : path
        The file; its folder must exist.
    decimals : int or None
        Round floats to so many decimals, as the rigs do; None keeps them exact.

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
        is_new = not self.path.exists()
        if not is_new:
            read_lines(self.path)  # A version that cannot be read must not be continued.
        self._file: int | None = os.open(
            self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666
        )
        try:
            self._claim()
            size = os.fstat(self._file).st_size
            if size == 0:
                self._write(encode_header())
            else:
                os.lseek(self._file, size - 1, os.SEEK_SET)
                if os.read(self._file, 1) != b"\n":
                    self._write(b"\n")
            if is_new:
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

    def _claim(self) -> None:
        """Refuse a second writer, whose lines a failed append here could cut off."""
        try:
            import fcntl
        except ImportError:  # Windows has no such lock.
            return
        try:
            fcntl.flock(self._file or 0, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SessionError(f"{self.path}: another writer has this file open") from None
        except OSError:
            return  # Some network disks have no locks.

    def _write(self, data: bytes) -> None:
        if self._file is None:
            raise SessionError(
                f"{self.path}: this writer is closed; write TrialWriter(path), which continues"
            )
        before = os.fstat(self._file).st_size
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._file, view) :]
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
