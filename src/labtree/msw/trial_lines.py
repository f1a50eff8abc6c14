"""The lines of a trial file: one JSON object a line, below a header line with the version.

Written as the rigs write it, byte for byte: tuples as ``{"__tuple__": [...]}``, floats
rounded to four decimals, ``NaN`` and ``Infinity`` as literals, ASCII only, ``", "`` and
``": "`` between the parts.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from labtree.errors import FormatError, TrialDataError
from labtree.msw.trial_times import TUPLE_KEY, BoolArray, Trial
from labtree.storage.dtypes import object_array
from labtree.storage.files import read_file

FORMAT_VERSION = "1.0.0"
_MAX_BYTES = 2**34
_VERSION_KEY = "_msw_version"


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
        _refuse_keys(value)
        return {key: _plain(item, decimals) for key, item in value.items()}
    if isinstance(value, tuple):
        return {TUPLE_KEY: [_plain(item, decimals) for item in value]}
    if isinstance(value, list):
        return [_plain(item, decimals) for item in value]
    return _plain_number(value, decimals)


def _plain_number(value: Any, decimals: int | None) -> Any:
    """Return what numpy holds, and subclasses of Python's numbers, as plain values."""
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
    kind = type(value)
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
    if not set(map(type, value)) <= {str}:
        for key in value:
            if not isinstance(key, str):
                raise _RefusedError(
                    f"the key {key!r} is a {type(key).__name__}, and would come back as a "
                    f"string; write {str(key)!r} instead"
                )
    if not "".join(value).isascii():
        for key in value:
            _refuse_surrogates(key)
    if len(value) == 1 and TUPLE_KEY in value:
        raise _RefusedError(
            f"a dict with the one key {TUPLE_KEY!r} would come back as a tuple; rename it"
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


# --- reading ---------------------------------------------------------------------------


def _tuple_hook(value: dict[str, Any]) -> Any:
    if len(value) == 1 and TUPLE_KEY in value and isinstance(value[TUPLE_KEY], list):
        return tuple(value[TUPLE_KEY])
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


def texts_of(column: pd.Series) -> tuple[list[str], BoolArray] | None:
    """Return the texts of a column, "" for holes, and the holes; None for other cells.

    Raises
    ------
    TrialDataError
        Categories that would not come back.
    """
    holes = column.isna().to_numpy()
    cells = ["" if hole else cell for cell, hole in zip(column.tolist(), holes, strict=True)]
    are_texts = all(isinstance(cell, str) for cell in cells)
    if isinstance(column.dtype, pd.CategoricalDtype):
        occurring = pd.Categorical(column.dropna().tolist())
        if not are_texts or occurring.dtype != column.dtype:
            raise TrialDataError(
                "categories that are ordered, are no texts or do not all occur would not come "
                "back; write .astype(object)"
            )
    return (cells, holes) if are_texts else None


def encode_cells(cells: Iterable[Any]) -> list[str]:
    """Return cells of a column, each as JSON text.

    Raises
    ------
    TrialDataError
        A cell that would not come back as it was.
    """
    return [encode_trial({"cell": cell}, None).decode().strip() for cell in cells]


def decode_cells(texts: Iterable[object]) -> npt.NDArray[Any]:
    """Return the cells of which `encode_cells` made texts, as an array of objects."""
    return object_array([decode_line(str(text).encode())["cell"] for text in texts])


def shown(items: Sequence[object], separator: str = "; ") -> str:
    """Return the first five of some items, and whether there are more."""
    return separator.join([*map(str, items[:5]), *(["..."] if len(items) > 5 else [])])


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
        remarks.append(
            f"{path}: a header again on line {shown(inside)}, so files were joined here"
        )
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
            f"{path}: the header says version {version!r}, and this labtree reads "
            f"{FORMAT_VERSION!r}"
        )
        major = FORMAT_VERSION.split(".")[0]
        if not isinstance(version, str) or version.split(".")[0] != major:
            raise FormatError(f"{stated}; it would have to guess what the trials mean")
        remarks.append(f"{stated}; read as {FORMAT_VERSION}")
    return True
