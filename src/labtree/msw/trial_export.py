"""Trial tables as CSV or Parquet, with their states and events in files beside.

``day.csv`` holds the table, ``day.states.csv`` and ``day.events.csv`` a row a visit and a row
an event, with ``trial`` as the key that joins them, and ``day.columns.json`` what the text does
not say: the type of each column. Cells that are lists or dicts are JSON text.
"""

import io
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
import pandas as pd

from labtree.errors import (
    FormatError,
    MissingFileError,
    TrialDataError,
    TrialTableError,
    one_line,
)
from labtree.msw.settings import read_json
from labtree.msw.trial_lines import decode_cells, encode_cells, texts_of
from labtree.msw.trial_queries import event_table, state_table, tables_of
from labtree.msw.trial_times import (
    ATTRIBUTE,
    FloatArray,
    Ragged,
    TrialTables,
    are_numbers_of_trials,
)
from labtree.optional import require
from labtree.storage.files import read_file, write_file
from labtree.storage.folders import make_folders
from labtree.storage.json_files import write_json

_VERSION = 1
_MAX_BYTES = 2**34
_TIMES = {"states": ("start", "end"), "events": ("time",)}


def save_trial_tables(frame: pd.DataFrame, path: str | Path) -> list[Path]:
    """Write a trial table as CSV or Parquet, its states and events beside.

    Parameters
    ----------
    frame : pandas.DataFrame
        Of `labtree.msw.load_session`, or rows of it. Its index is not written.
    path : path
        A name that ends in ``.csv`` or ``.parquet`` (which needs pyarrow). Folders that
        are missing are made.

    Returns
    -------
    list of pathlib.Path
        The four files: the table, ``.states``, ``.events`` and ``.columns.json``. States and
        events count from their trial's start, in s.

    Raises
    ------
    TrialTableError
        The table has no states and events with it, a trial more than once, or a column
        that cannot be written.
    FormatError
        The name ends in something else.

    Examples
    --------
    >>> import tempfile
    >>> from labtree.msw import trials_to_frame
    >>> from labtree.testing.msw import make_trials
    >>> df = trials_to_frame(make_trials(30))
    >>> files = save_trial_tables(df, tempfile.mkdtemp() + "/day.csv")
    >>> [file.name for file in files]
    ['day.csv', 'day.states.csv', 'day.events.csv', 'day.columns.json']
    >>> load_trial_tables(files[0]).msw.states().equals(df.msw.states())
    True
    """
    files = _files(Path(path))
    tables, trials = tables_of(frame)
    if len(np.unique(trials)) < len(trials):
        raise TrialTableError(
            "a trial stands in this table twice, and a file has each once; write "
            "table.drop_duplicates('trial')"
        )
    names = [str(name) for name in frame]
    if "trial" not in names or len(set(names)) < len(names):
        raise TrialTableError(
            "expected a column 'trial', and no two columns of one name, found "
            f"{', '.join(names)}"
        )
    for name in (*names, *tables.states.names, *tables.events.names):
        if not _is_plain(name):
            raise TrialTableError(
                f"the name {name!r} has characters that no CSV keeps; rename it"
            )
    columns: dict[str, _Column] = {}
    plain: dict[str, pd.Series] = {}
    for name, (_, column) in zip(names, frame.items(), strict=True):
        plain[name], columns[name] = _written(name, column)
    parts = {
        "states": state_table(frame).astype({"state": "str"}),
        "events": event_table(frame).astype({"event": "str"}),
    }
    about = {
        "labtree_trial_tables": _VERSION,
        "rows": len(frame),
        "columns": columns,
        "states": {"names": list(tables.states.names), "rows": len(parts["states"])},
        "events": {"names": list(tables.events.names), "rows": len(parts["events"])},
    }
    make_folders(files["table"].parent)
    # The table comes last: where it stands, the others do.
    for part, table in parts.items():
        write_file(files[part], _to_bytes(table, files[part]))
    write_json(files["columns"], about)
    write_file(files["table"], _to_bytes(pd.DataFrame(plain), files["table"]))
    return list(files.values())


def load_trial_tables(path: str | Path) -> pd.DataFrame:
    """Read a trial table that `save_trial_tables` wrote.

    Parameters
    ----------
    path : path
        The file of the table; the others lie beside it.

    Returns
    -------
    pandas.DataFrame
        With the types of its columns, and its states and events.

    Raises
    ------
    MissingFileError
        One of the four files is missing.
    FormatError
        One of them is damaged, or they do not belong together.

    Examples
    --------
    >>> import labtree
    >>> from labtree.testing.msw import make_trials
    >>> df = labtree.msw.trials_to_frame(make_trials(3))
    >>> files = labtree.msw.save_trial_tables(df, "trials.csv")
    >>> labtree.msw.load_trial_tables("trials.csv").equals(df)
    True
    """
    files = _files(Path(path))
    missing = [file.name for file in files.values() if not file.is_file()]
    if missing:
        raise MissingFileError(f"{path}: {', '.join(missing)} missing beside it")
    about = read_json(files["columns"])
    version = about.get("labtree_trial_tables")
    if version != _VERSION:
        raise FormatError(
            f"{files['columns']}: says version {version!r}, and this labtree reads {_VERSION}"
        )
    try:
        plain = _from_file(files["table"], list(about["columns"]), about["rows"])
        frame = pd.DataFrame(
            {name: _read(plain[name], how) for name, how in about["columns"].items()},
            index=range(about["rows"]),
        )
        trials = frame["trial"].to_numpy(np.int64)
        if not are_numbers_of_trials(trials):
            raise ValueError("the column 'trial' does not number trials from 0")
        n_trials = int(trials.max(initial=-1)) + 1
        parts = {
            part: _ragged(files[part], part, about[part], n_trials)
            for part in ("states", "events")
        }
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{path}: these files do not belong together ({error})") from None
    frame.attrs[ATTRIBUTE] = TrialTables(
        parts["states"], parts["events"], np.zeros(n_trials, bool)
    )
    return frame


def _files(path: Path) -> dict[str, Path]:
    if path.suffix not in (".csv", ".parquet"):
        raise FormatError(f"{path}: expected a name that ends in .csv or .parquet")
    return {
        "table": path,
        "states": path.with_suffix(f".states{path.suffix}"),
        "events": path.with_suffix(f".events{path.suffix}"),
        "columns": path.with_suffix(".columns.json"),
    }


class _Column(TypedDict, total=False):
    """How to read a column: its dtype, and what its cells are where a file has text."""

    dtype: str
    cells: Literal["text", "json"]
    missing: list[int]


def _written(name: str, column: pd.Series) -> tuple[pd.Series, _Column]:
    """Return a column as files hold it, and how it is to be read."""
    how: _Column = {"dtype": str(column.dtype)}
    if column.dtype.kind in "biufmM":
        return column.reset_index(drop=True), how
    try:
        found = texts_of(column)
        if found is not None and all(map(_is_plain, found[0])):
            # Text cannot say whether nothing is an empty text or none.
            texts, holes = found
            how |= {"cells": "text", "missing": np.flatnonzero(holes).tolist()}
        else:
            texts = encode_cells(column.tolist())
            how |= {"cells": "json"}
    except TrialDataError as error:
        raise TrialTableError(f"the column {name!r} cannot be written: {error}") from None
    return pd.Series(texts, dtype="str"), how


def _is_plain(text: str) -> bool:
    """Return whether every program reads a text back from CSV as it is."""
    return text.isprintable() or not any(ord(c) < 32 or 0xD800 <= ord(c) < 0xE000 for c in text)


def _read(column: pd.Series, how: _Column) -> Any:
    dtype: Any = how["dtype"]  # pandas types each name of a dtype by itself
    if how.get("cells") == "json":
        return decode_cells(column)
    if how.get("cells") == "text":
        texts = column.astype(object).to_numpy().copy()
        texts[how["missing"]] = None
        return pd.Series(texts, dtype=dtype)
    if str(column.dtype) == dtype:
        return column
    text = column.astype(object).where(column != "", None)
    if dtype in ("boolean", "bool"):
        known = {"True": True, "False": False, None: None}
        return pd.Series([known[cell] for cell in text]).astype(dtype)
    known_dtype: Any = pd.api.types.pandas_dtype(dtype)
    if known_dtype.kind in "iuf":
        number = float if known_dtype.kind == "f" else int
        cells = [None if cell is None else number(cell) for cell in text]
        if isinstance(known_dtype, np.dtype):
            return np.array(cells, known_dtype)
        # Not by way of pandas, which makes floats of large integers beside holes.
        masked = pd.arrays.FloatingArray if number is float else pd.arrays.IntegerArray
        values = np.array([cell or 0 for cell in cells], known_dtype.numpy_dtype)
        return masked(values, np.array([cell is None for cell in cells], bool))
    return pd.Series(text).astype(dtype)


def _ragged(path: Path, part: str, about: dict[str, Any], n_trials: int) -> Ragged:
    """Read states or events, which are in the order of their trials."""
    times = _TIMES[part]
    name = part.removesuffix("s")
    table = _from_file(path, ["trial", name, *times], about["rows"])
    trials = table["trial"].astype(np.int64).to_numpy()
    if len(trials) and not 0 <= trials.min() <= trials.max() < n_trials:
        raise FormatError(f"{path}: trials that the table does not have")
    codes = pd.Index(about["names"]).get_indexer(table[name].astype(object))
    if (codes < 0).any():
        raise FormatError(f"{path}: names that {part} of these trials do not have")
    order = np.argsort(trials, kind="stable")
    columns = [table[t].replace("", "nan").astype(np.float64) for t in times]
    values: FloatArray = np.array([column.to_numpy() for column in columns], np.float64).T
    return Ragged(
        tuple(about["names"]),
        codes[order].astype(np.int32),
        values[order].reshape(-1, len(times)),
        np.bincount(trials, minlength=n_trials).astype(np.int64),
    )


def _to_bytes(table: pd.DataFrame, path: Path) -> bytes:
    buffer = io.BytesIO()
    if path.suffix == ".csv":
        table.to_csv(buffer, index=False, lineterminator="\n")
    else:
        require("pyarrow", purpose="writing Parquet", extra="parquet")
        table.to_parquet(buffer, index=False, engine="pyarrow")
    return buffer.getvalue()


def _from_file(path: Path, names: list[str], n_rows: int) -> pd.DataFrame:
    """Read the columns of a file: of CSV as text, of Parquet as they are."""
    content = io.BytesIO(read_file(path, _MAX_BYTES))
    try:
        if path.suffix == ".csv":
            table = pd.read_csv(content, dtype=str, keep_default_na=False, na_filter=False)
            if table.shape[1] == len(names):
                # pandas renames columns without a name.
                table.columns = pd.Index(names)
        else:
            require("pyarrow", purpose="reading Parquet", extra="parquet")
            table = pd.read_parquet(content, engine="pyarrow")
    except (ValueError, OSError) as error:
        raise FormatError(f"{path}: not a table that can be read ({one_line(error)})") from None
    absent = [name for name in names if name not in table]
    if absent or len(table) != n_rows:
        raise FormatError(
            f"{path}: {len(table)} rows, without {absent or 'any column missing'}; expected "
            f"{n_rows} rows with {', '.join(names)}"
        )
    return table
