"""The trial file: one JSON object a line, below a header line that tells the version.

Written as the rigs write it, byte for byte: tuples as ``{"__tuple__": [...]}``, floats
rounded to four decimals, ``NaN`` and ``Infinity`` as literals, ASCII only, ``", "`` and
``": "`` between the parts.
"""

import contextlib
import gc
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from labtree.errors import FormatError
from labtree.msw.damage import warn_of_damage

__all__ = [
    "FORMAT_VERSION",
    "TrialDataError",
    "decode_line",
    "encode_header",
    "encode_trial",
    "load_trial_data",
    "read_lines",
    "save_trial_data",
]

FORMAT_VERSION = "1.0.0"
_VERSION_KEY = "_msw_version"
_TUPLE_KEY = "__tuple__"
Trial = dict[str, Any]


class TrialDataError(FormatError, TypeError):
    """A value that the trial file cannot hold exactly."""


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


@contextlib.contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Keep the collector from walking a growing pile of new, acyclic objects."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


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
