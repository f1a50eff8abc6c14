"""Trial tables: one flat row a trial, made of the nested dicts of a trial file, and joined.

States and events are ragged and go along in ``attrs`` (`labtree.msw.trial_times`). Older tools
have them as columns of lists; that nested layout is written and read here, too.
"""

import functools
import math
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from labtree.errors import DamageWarning, TrialTableError, warn
from labtree.msw.trial_times import (
    ATTRIBUTE,
    EVENTS,
    NAN_PLACEHOLDER,
    RESTORED,
    START,
    STATES,
    TUPLE_KEY,
    BoolArray,
    Ragged,
    RaggedBuilder,
    Trial,
    TrialTables,
    has_tables,
    is_hole,
)
from labtree.storage.dtypes import object_array
from labtree.storage.garbage_collection import without_garbage_collection
from labtree.storage.ragged import row_offsets

NESTED_FIELDS = ("info", STATES, EVENTS, "analysis")
_EVENT = re.compile(
    r"Tup|(Port|BNC|Wire|Serial|SoftCode|GlobalTimer|GlobalCounter|Condition)\w*"
)
# From here on a float may stand for an integer that had more digits.
_INEXACT = 2.0**63
_LARGE = re.compile(rb"[0-9]e\+?[0-9]")

Fields = dict[tuple[str, str], list[Any]]


class NeedsExactParserError(ValueError):
    """The fast parser cannot tell what was written; read the lines again exactly."""


def trials_to_frame(trials: Iterable[Trial], *, nested: bool = False) -> pd.DataFrame:
    """Return the table of trials.

    Parameters
    ----------
    trials : iterable of dict
        As `load_trial_data` returns them.
    nested : bool
        Give the layout of older tools instead: ``info``, ``States timestamps``,
        ``Events timestamps`` and ``analysis`` spread over columns, whose cells for states
        are lists of (start, end), and for events lists of times.

    Returns
    -------
    pandas.DataFrame
        One row a trial. ``trial`` numbers them from 0; the other columns are the fields of
        the trial, of its ``info`` and of its ``analysis``, under their own names; a name
        that is taken is written with its group, ``info.name``. Columns of integers and
        booleans with holes (a field that other trials lack, null, NaN) become nullable
        ``Int64`` and ``boolean``; lists stay lists. States and events are in ``attrs``, for
        ``df.msw.states()``, ``df.msw.events()`` and the measures.

    Examples
    --------
    >>> trials = [
    ...     {"Trial start timestamp": 0.5, "info": {"choice": 1, "rewarded": True}},
    ...     {"Trial start timestamp": 2.5, "info": {"choice": None}},
    ... ]
    >>> trials_to_frame(trials)
       trial  Trial start timestamp  choice  rewarded
    0      0                    0.5       1      True
    1      1                    2.5    <NA>      <NA>
    """
    trials = list(trials)
    for trial in trials:
        if not isinstance(trial, Mapping):
            raise TrialTableError(
                f"expected a list of trials, each a dict, found a {type(trial).__name__} in a "
                "trial's place; of one trial write [trial]"
            )
    if nested:
        return nested_frame(trials)
    with without_garbage_collection():
        builder = FrameBuilder()
        builder.add(trials)
        frame = builder.finish()
    if builder.notes:
        warn("\n".join(builder.notes), DamageWarning)
    return frame


class FrameBuilder:
    """Collects trials, a chunk at a time, and returns their table."""

    def __init__(self) -> None:
        self.n_trials = 0
        self.notes: list[str] = []
        self._exact = True
        self._fields: Fields = {}
        self._states = RaggedBuilder(2)
        self._events = RaggedBuilder(1)

    def add(self, trials: Sequence[Trial], *, exact: bool = True, n_nan: int = 0) -> None:
        """Add a chunk of trials.

        Parameters
        ----------
        trials : list of dict
            As the exact parser returns them or, if not `exact`, as the fast one does:
            tuples are dicts, and `NAN_PLACEHOLDER` stands for NaN.
        exact : bool
            Which of these they are.
        n_nan : int
            How many NaN the fast parser replaced.

        Raises
        ------
        NeedsExactParserError
            The fast parser may have rounded a large integer, or have replaced letters
            within a string. What was added is then of no use.
        """
        fields = _fields_of(trials, exact)
        n_restored = 0
        if not exact:
            self._exact = False
            n_restored = _make_exact(fields)
        for key, values in fields.items():
            if key not in self._fields:
                self._fields[key] = [None] * self.n_trials
            self._fields[key].extend(values)
        for builder, name in ((self._states, STATES), (self._events, EVENTS)):
            n_restored -= builder.n_placeholders
            for i in builder.add([trial.get(name) for trial in trials], exact=exact):
                self.notes.append(
                    f"trial {self.n_trials + i}: its {name!r} are not valid; left out"
                )
            n_restored += builder.n_placeholders
        if not exact and n_restored != n_nan:
            raise NeedsExactParserError(
                "not every NaN came back: it stands within a string, say"
            )
        names = (
            {key for _, key in fields} | self._states.names.keys() | self._events.names.keys()
        )
        if not exact and TUPLE_KEY in names:
            raise NeedsExactParserError("a tuple where there should be a dict")
        self.n_trials += len(trials)
        for values in self._fields.values():
            values.extend([None] * (self.n_trials - len(values)))

    def finish(self) -> pd.DataFrame:
        """Return the table of all trials added.

        Raises
        ------
        NeedsExactParserError
            The fast parser may have rounded a large integer.
        """
        columns: dict[str, Any] = {"trial": np.arange(self.n_trials)}
        for wanted in ("", "info", "analysis"):
            for (group, key), values in self._fields.items():
                if group != wanted:
                    continue
                name = key
                while name in columns:
                    name = f"{group or 'trial data'}.{name}"
                column = _to_column(values)
                if not self._exact and float in set(map(type, values)):
                    _refuse_rounded(column)
                columns[name] = column
        if ("", RESTORED) in self._fields:
            columns[RESTORED] = np.array([v is True for v in self._fields["", RESTORED]])
        # The arrays are new and nobody else's.
        rows = pd.RangeIndex(self.n_trials)
        try:
            frame = pd.DataFrame(columns, index=rows, copy=False)
        except UnicodeEncodeError:
            names = pd.Index(list(columns), dtype=object)
            frame = pd.DataFrame(dict(enumerate(columns.values())), index=rows, copy=False)
            frame.columns = names
        states, events = self._states.finish(), self._events.finish()
        frame.attrs[ATTRIBUTE] = TrialTables(
            states, events, _has_absolute_states(columns.get(START), states)
        )
        return frame


def _fields_of(trials: Sequence[Trial], exact: bool) -> Fields:
    """Return the values of trials by group and key; what is no dict of a group is its own."""
    fields: Fields = {}
    _add_fields(fields, "", trials, skip=NESTED_FIELDS)
    holes = () if exact else (NAN_PLACEHOLDER,)
    for group in ("info", "analysis"):
        cells = [trial.get(group) for trial in trials]
        if not set(map(type, cells)) <= {dict, type(None)}:
            others = [
                None if isinstance(c, dict) or is_hole(c) or c in holes else c for c in cells
            ]
            if any(cell is not None for cell in others):
                fields["", group] = others
            cells = [cell if isinstance(cell, dict) else None for cell in cells]
        _add_fields(fields, group, [cell or {} for cell in cells])
    return fields


def _add_fields(
    fields: Fields, group: str, cells: Sequence[Trial], skip: tuple[str, ...] = ()
) -> None:
    """Turn dicts into lists, one a key, with None where a dict lacks it."""
    shapes = list(dict.fromkeys(map(tuple, cells)))
    for key in dict.fromkeys(key for shape in shapes for key in shape):
        if key in skip:
            continue
        if len(shapes) == 1:
            fields[group, str(key)] = [cell[key] for cell in cells]
        else:
            fields[group, str(key)] = [cell.get(key) for cell in cells]


def _make_exact(fields: Fields) -> int:
    """Return in place what the exact parser would have, and count the NaN."""
    import orjson

    nested: Fields = {}
    n_nan = 0
    for key, values in fields.items():
        kinds = set(map(type, values))
        if list in kinds or dict in kinds:
            nested[key] = values
        elif float in kinds:
            count = values.count(NAN_PLACEHOLDER)
            n_nan += count
            if count:
                fields[key] = [math.nan if v == NAN_PLACEHOLDER else v for v in values]
    text = orjson.dumps(list(nested.values()))
    placeholder = orjson.dumps(NAN_PLACEHOLDER)
    has_nan = placeholder in text
    if has_nan:
        text = text.replace(placeholder, b"")
    # Only a search for "e+" is quick; older versions of orjson do not write the plus.
    if (b"e+" in text or b"+" not in placeholder) and _LARGE.search(text):
        raise NeedsExactParserError("an integer of more than 64 bits may have become a float")
    if has_nan or TUPLE_KEY.encode() in text:
        restored: list[float] = []
        for key, values in nested.items():
            fields[key] = [_revive(value, restored) for value in values]
        n_nan += len(restored)
    return n_nan


def _revive(value: Any, restored: list[float]) -> Any:
    """Return a value as the exact parser does, and note each NaN that comes back."""
    if isinstance(value, float):
        if value != NAN_PLACEHOLDER:
            return value
        restored.append(math.nan)
        return math.nan
    if isinstance(value, dict):
        if value.keys() == {TUPLE_KEY} and isinstance(value[TUPLE_KEY], list):
            return tuple(_revive(item, restored) for item in value[TUPLE_KEY])
        return {key: _revive(item, restored) for key, item in value.items()}
    if isinstance(value, list):
        return [_revive(item, restored) for item in value]
    return value


def _to_column(values: list[Any]) -> Any:
    """Return the array whose dtype says what the values are."""
    kinds = set(map(type, values))
    if any(issubclass(kind, np.number | np.bool_ | np.str_) for kind in kinds):
        values = [v.item() if isinstance(v, np.generic) else v for v in values]
        kinds = set(map(type, values))
    if kinds == {bool}:
        return np.array(values)
    if kinds == {int}:
        return _integers(values)
    if kinds <= {float, type(None)}:
        return np.array(values, np.float64)
    if float in kinds and not any(type(v) is float and v == v for v in values):
        # The only floats are NaN: holes among values of another kind.
        values = [None if is_hole(v) else v for v in values]
        kinds = kinds - {float} | {type(None)}
    if kinds == {bool, type(None)}:
        mask = np.array([v is None for v in values])
        return pd.arrays.BooleanArray(np.array([v is True for v in values]), mask)
    if kinds == {int, type(None)}:
        mask = np.array([v is None for v in values])
        data = _integers([v or 0 for v in values])
        return data if data.dtype == object else pd.arrays.IntegerArray(data, mask)
    if kinds <= {int, float, type(None)} and all(
        abs(v) <= 2**53 for v in values if type(v) is int
    ):
        return np.array(values, np.float64)
    if kinds <= {str, type(None)}:
        try:
            return pd.array(values, dtype=_text_dtype())
        except UnicodeEncodeError:  # Arrow holds no lone surrogate.
            return pd.Series(values, dtype=object)
    return object_array(values)


@functools.cache
def _text_dtype() -> Any:
    return pd.Series(["text"]).dtype


def _integers(values: list[int]) -> Any:
    try:
        return np.array(values, np.int64)
    except OverflowError:
        return np.array(values, object)


def _refuse_rounded(column: Any) -> None:
    dtype = column.dtype
    if dtype == np.float64:
        rounded = bool((np.abs(column) >= _INEXACT).any())
    elif dtype.kind == "O":
        rounded = any(type(value) is float and abs(value) >= _INEXACT for value in column)
    else:
        rounded = False
    if rounded:
        raise NeedsExactParserError("an integer of more than 64 bits may have become a float")


def _has_absolute_states(begin: Any, states: Ragged) -> BoolArray:
    """Return whether a file's state times count from the session's start, not the trial's.

    A trial's first state begins with the trial, so its time is about 0 or about the
    trial's own start; the majority of the trials decides for the whole file.
    """
    absolute = np.zeros(len(states.row_size), bool)
    if getattr(begin, "dtype", np.dtype(object)).kind not in "iuf" or not len(states.codes):
        return absolute
    begin = pd.Series(begin).to_numpy(np.float64, na_value=np.nan)
    visited = states.row_size > 0
    offsets = row_offsets(states.row_size[visited])[:-1]
    starts = np.where(np.isnan(states.values[:, 0]), np.inf, states.values[:, 0])
    first = np.minimum.reduceat(starts, offsets)
    begin = begin[visited]
    clear = (begin > 1e-3) & np.isfinite(first)
    votes = np.abs(first - begin)[clear] < np.abs(first)[clear]
    absolute[:] = bool(votes.sum() * 2 > len(votes))
    return absolute


# --- several tables ------------------------------------------------------------------------


def concat_trials(
    frames: Mapping[str, pd.DataFrame], *, column: str = "session"
) -> pd.DataFrame:
    """Stack trial tables, with their states and events.

    Parameters
    ----------
    frames : mapping of str to pandas.DataFrame
        Trial tables by the name of their session.
    column : str
        The column for the name.

    Returns
    -------
    pandas.DataFrame
        All rows; ``trial`` numbers the trials again, so that each keeps its states, and
        ``trial_index`` is still the number within the session. A column that some lack
        has holes there, and keeps its dtype, or the nullable one.

    Raises
    ------
    TrialTableError
        A table has no states and events with it, or has a column of that name.

    Examples
    --------
    >>> from labtree.msw import trials_to_frame
    >>> day = trials_to_frame([{"info": {"choice": 1}}])
    >>> concat_trials({"monday": day, "tuesday": day})["session"].tolist()
    ['monday', 'tuesday']
    """
    if not isinstance(frames, Mapping) or not frames:
        raise TrialTableError(
            "no trial tables to put together; write concat_trials({name: session.df, ...})"
        )
    parts: list[pd.DataFrame] = []
    tables: list[TrialTables] = []
    shift = 0
    for name, frame in frames.items():
        if not has_tables(frame.attrs) or "trial" not in frame:
            raise TrialTableError(
                f"{name!r} is not a trial table with its states and events; give session.df of "
                "labtree.msw.load_session(folder), or rows of it with the column 'trial'"
            )
        if column in frame:
            raise TrialTableError(
                f"{name!r} has a column {column!r} already; rename it, or write column=..."
            )
        part = frame.assign(trial=frame["trial"] + shift)
        part.insert(1, column, name)
        part.attrs = {}
        parts.append(part)
        tables.append(frame.attrs[ATTRIBUTE])
        shift += len(tables[-1].absolute)
    joined = pd.concat(_with_common_columns(parts), ignore_index=True)
    joined.attrs[ATTRIBUTE] = TrialTables(
        Ragged.concatenate([table.states for table in tables], 2),
        Ragged.concatenate([table.events for table in tables], 1),
        np.concatenate([table.absolute for table in tables]),
    )
    return joined


def _with_common_columns(parts: list[pd.DataFrame]) -> list[pd.DataFrame]:
    """Return every part every column, of one dtype."""
    names = dict.fromkeys(name for part in parts for name in part)
    n_with_rows = sum(len(part) > 0 for part in parts)
    columns: list[dict[Hashable, Any]] = [{} for _ in parts]
    for name in names:
        dtype = _common_dtype([part[name] for part in parts if name in part], n_with_rows)
        for part, built in zip(parts, columns, strict=True):
            if name in part and not part[name].isna().all():
                built[name] = part[name].astype(dtype)
            elif name in part and part[name].dtype == dtype:
                built[name] = part[name]
            else:
                built[name] = pd.Series([None] * len(part), dtype=dtype, index=part.index)
    return [
        pd.DataFrame(built, index=part.index)
        for part, built in zip(parts, columns, strict=True)
    ]


def _common_dtype(columns: list[pd.Series], n_tables: int) -> Any:
    """Return the dtype for a column of so many tables, some of which may lack it."""
    with_values = [column for column in columns if not column.isna().all()]
    dtypes = {str(column.dtype): column.dtype for column in with_values}
    holes = len(with_values) < n_tables
    if not dtypes:
        return np.dtype(float)
    only = next(iter(dtypes.values()))
    if len(dtypes) == 1 and not (holes and isinstance(only, np.dtype) and only.kind in "biu"):
        return only
    plain: set[Any] = {getattr(dtype, "numpy_dtype", dtype) for dtype in dtypes.values()}
    kinds = {dtype.kind for dtype in plain}
    has_nullable = not all(isinstance(dtype, np.dtype) for dtype in dtypes.values())
    if kinds == {"b"} or (kinds <= {"i", "u"} and np.result_type(*plain).kind in "iu"):
        common = np.result_type(*plain)
        return _nullable(common) if holes or has_nullable else common
    if kinds == {"f"} and not has_nullable:
        return np.result_type(*plain)
    if kinds <= {"i", "u", "f"} and "Float" not in "".join(dtypes):
        whole = [c for c in with_values if c.dtype.kind in "iu"]
        if all((c.dropna().abs() <= 2**53).all() for c in whole):
            return np.dtype(float)
    return np.dtype(object)


def _nullable(dtype: np.dtype[Any]) -> Any:
    """Return the dtype of pandas that holds integers or booleans with holes."""
    if dtype.kind == "b":
        return pd.BooleanDtype()
    return pd.api.types.pandas_dtype(dtype.name.replace("i", "I").replace("u", "U"))


# --- the nested layout ---------------------------------------------------------------------


def nested_frame(trials: Sequence[Trial]) -> pd.DataFrame:
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


def trials_from_nested(frame: pd.DataFrame) -> list[Trial]:
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
    trials: list[Trial] = []
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
