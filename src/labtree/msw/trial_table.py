"""Trial tables: one flat row a trial, made of the nested dicts of a trial file."""

import functools
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from labtree.msw.nested_trials import NESTED_FIELDS, nested_frame
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
    TrialTables,
)
from labtree.storage.dtypes import object_array
from labtree.storage.garbage_collection import without_garbage_collection
from labtree.storage.ragged import row_offsets

# From here on a float may stand for an integer that had more digits.
_INEXACT = 2.0**63
_LARGE = re.compile(rb"[0-9]e\+?[0-9]")

Fields = dict[tuple[str, str], list[Any]]


class NeedsExactParserError(ValueError):
    """The fast parser cannot tell what was written; read the lines again exactly."""


def trials_to_frame(trials: Iterable[dict[str, Any]], *, nested: bool = False) -> pd.DataFrame:
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
        One row a trial. ``trial`` numbers them from 0; the other columns are the fields
        of the trial, of its ``info`` and of its ``analysis``, under their own names; a
        name that is taken is written with its group, ``info.name``. Columns of
        integers and booleans with holes (a field that other trials lack, null, NaN)
        become nullable ``Int64`` and ``boolean``; lists stay lists. States and events go
        along in ``attrs``, for ``df.msw.states()``, ``df.msw.events()`` and the measures.

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
    if nested:
        return nested_frame(trials)
    with without_garbage_collection():
        builder = FrameBuilder()
        builder.add(trials)
        return builder.finish()


class FrameBuilder:
    """Collects trials, a chunk at a time, and returns their table."""

    def __init__(self) -> None:
        self.n_trials = 0
        self.notes: list[str] = []
        self._exact = True
        self._fields: Fields = {}
        self._states = RaggedBuilder(2)
        self._events = RaggedBuilder(1)

    def add(
        self, trials: Sequence[dict[str, Any]], *, exact: bool = True, n_nan: int = 0
    ) -> None:
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
                self.notes.append(f"trial {self.n_trials + i}: its {name!r} make no sense")
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


def _fields_of(trials: Sequence[dict[str, Any]], exact: bool) -> Fields:
    """Return the values of trials by group and key; what is no dict of a group is its own."""
    fields: Fields = {}
    _add_fields(fields, "", trials, skip=NESTED_FIELDS)
    holes = () if exact else (NAN_PLACEHOLDER,)
    for group in ("info", "analysis"):
        cells = [trial.get(group) for trial in trials]
        if not set(map(type, cells)) <= {dict, type(None)}:
            others = [
                None if isinstance(c, dict) or _is_nan(c) or c in holes else c for c in cells
            ]
            if any(cell is not None for cell in others):
                fields["", group] = others
            cells = [cell if isinstance(cell, dict) else None for cell in cells]
        _add_fields(fields, group, [cell or {} for cell in cells])
    return fields


def _add_fields(
    fields: Fields, group: str, cells: Sequence[dict[str, Any]], skip: tuple[str, ...] = ()
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


def _is_nan(value: Any) -> bool:
    return type(value) is float and value != value


def _to_column(values: list[Any]) -> Any:
    """Return the array whose dtype says what the values are."""
    kinds = set(map(type, values))
    if kinds == {bool}:
        return np.array(values)
    if kinds == {int}:
        return _integers(values)
    if kinds == {float}:
        return np.array(values)
    if kinds <= {float, type(None)}:
        return np.array(values, np.float64)
    if float in kinds and not any(type(v) is float and v == v for v in values):
        # The only floats are NaN: holes among values of another kind.
        values = [None if _is_nan(v) else v for v in values]
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
    if getattr(begin, "dtype", None) != np.float64 or not len(states.codes):
        return absolute
    visited = states.row_size > 0
    offsets = row_offsets(states.row_size[visited])[:-1]
    starts = np.where(np.isnan(states.values[:, 0]), np.inf, states.values[:, 0])
    first = np.minimum.reduceat(starts, offsets)
    begin = begin[visited]
    clear = (begin > 1e-3) & np.isfinite(first)
    votes = np.abs(first - begin)[clear] < np.abs(first)[clear]
    absolute[:] = bool(votes.sum() * 2 > len(votes))
    return absolute
