"""Trial tables: one flat row a trial, with the states and events in the attributes."""

import contextlib
import functools
import gc
import math
import re
import secrets
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from labtree.errors import TrialTableError, unknown_name
from labtree.storage.ragged import positions_of_rows, row_of_sample

# --- states and events ---------------------------------------------------------------------


ATTRIBUTE = "labtree_trials"
# For a parser that does not know the literal NaN: a number that no file can be made to hold.
NAN_PLACEHOLDER = -float(
    f"{10**7 + secrets.randbelow(9 * 10**7)}e{200 + secrets.randbelow(90)}"
)
_NO_CODES = np.empty(0, np.int32)
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Ragged:
    """Named items, so many a trial.

    Attributes
    ----------
    names : tuple of str
        Every name that occurs in the session, visited or not.
    codes : int array (item,)
        Which name an item has.
    values : float64 array (item, width)
        Seconds: start and end of a visit (width 2), or the time of an event (width 1).
    row_size : int array (trial,)
        How many items a trial has; they stand in the order of the trials.
    """

    names: tuple[str, ...]
    codes: npt.NDArray[np.int32]
    values: FloatArray
    row_size: IntArray

    def code(self, name: str, what: str) -> int:
        """Return the code of a name.

        Raises
        ------
        UnknownNameError
            No trial of the session has it.
        """
        try:
            return self.names.index(name)
        except ValueError:
            # The many states of barcodes last.
            known = sorted(self.names, key=lambda each: (each.startswith("barcode"), each))
            raise unknown_name(what, name, known) from None

    @classmethod
    def concatenate(cls, parts: Sequence["Ragged"], width: int) -> "Ragged":
        """Join the ragged columns of sessions, with one list of names."""
        names = tuple(dict.fromkeys(chain.from_iterable(part.names for part in parts)))
        lookup = {name: code for code, name in enumerate(names)}
        codes = [
            np.array([lookup[n] for n in part.names], np.int32)[part.codes] for part in parts
        ]
        return cls(
            names,
            np.concatenate([np.empty(0, np.int32), *codes]),
            np.concatenate([np.empty((0, width)), *(part.values for part in parts)]),
            np.concatenate([np.empty(0, np.int64), *(part.row_size for part in parts)]),
        )


class TrialTables(dict[str, Any]):
    """States and events of a session's trials, carried by its table's ``attrs``.

    Never changed once made, and copied as itself: pandas copies ``attrs`` deeply at every
    operation. Two are equal if they are of one making, which is what `pandas.concat`
    asks. The dict's own content is a summary, so that ``attrs`` stay JSON.
    """

    def __init__(self, states: Ragged, events: Ragged, absolute: BoolArray) -> None:
        super().__init__(visits=len(states.codes), events=len(events.codes))
        self.states = states
        self.events = events
        self.absolute = absolute
        self.token = uuid.uuid4().hex

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.states, self.events, self.absolute, self.token)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TrialTables) and other.token == self.token

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None


def _rebuild(states: Ragged, events: Ragged, absolute: BoolArray, token: str) -> TrialTables:
    tables = TrialTables(states, events, absolute)
    tables.token = token
    return tables


def gather(ragged: Ragged, trials: IntArray) -> tuple[IntArray, slice | IntArray]:
    """Find the items of rows.

    Parameters
    ----------
    ragged : Ragged
        The items of all trials.
    trials : int array (row,)
        The trial of each row, in any order, repeated or not.

    Returns
    -------
    rows : int array (item,)
        The row that an item belongs to, ascending.
    items : slice or int array (item,)
        Where it stands in `ragged`.
    """
    rows = row_of_sample(ragged.row_size[trials])
    return rows, positions_of_rows(ragged.row_size, trials)


@dataclass
class RaggedBuilder:
    """Collects the cells of one nested field, a chunk of trials at a time."""

    width: int
    names: dict[str, int] = field(default_factory=dict)
    codes: list[npt.NDArray[np.int32]] = field(default_factory=list)
    values: list[FloatArray] = field(default_factory=list)
    row_size: list[IntArray] = field(default_factory=list)
    n_placeholders: int = 0

    def add(self, cells: Sequence[Any], *, exact: bool) -> list[int]:
        """Add a chunk; return the positions of the cells that make no sense (kept empty).

        Unless `exact`, `NAN_PLACEHOLDER` stands for NaN.
        """
        try:
            self._add_regular([cell or {} for cell in cells], exact)
        except (TypeError, ValueError, KeyError, AttributeError):
            regular = [_regular(cell, self.width) for cell in cells]
            self._add_regular([cell or {} for cell in regular], exact)
            return [i for i, cell in enumerate(regular) if cell is None]
        return []

    def _add_regular(self, cells: list[dict[str, Any]], exact: bool) -> None:
        lists = list(chain.from_iterable(map(dict.values, cells)))
        items: list[Any] = list(chain.from_iterable(lists))
        if self.width == 2:
            if items and type(items[0]) is dict:
                items = list(map(itemgetter("__tuple__"), items))
            if set(map(len, items)) - {2}:
                raise ValueError("a visit has a start and an end")
            items = list(chain.from_iterable(items))
        kinds = set(map(type, items))
        if kinds <= {float, int}:
            values = np.fromiter(items, np.float64, len(items))
        elif kinds <= {float, int, type(None)}:
            values = np.array(items, np.float64)
        else:
            raise TypeError("a time is a number")
        if not exact:
            placeholders = values == NAN_PLACEHOLDER
            values[placeholders] = np.nan
            self.n_placeholders += int(placeholders.sum())
        values = values.reshape(-1, self.width)
        sizes = np.fromiter(map(len, lists), np.int64, len(lists))
        # Most trials have the same names in the same order, so these are looked up once.
        shapes = list(map(tuple, cells))
        known = {shape: self._codes_of(shape) for shape in dict.fromkeys(shapes)}
        codes = np.repeat(np.concatenate([_NO_CODES, *map(known.__getitem__, shapes)]), sizes)
        per_trial = np.fromiter(map(len, cells), np.int64, len(cells))
        trials = np.repeat(np.repeat(np.arange(len(cells)), per_trial), sizes)
        there = ~np.isnan(values).all(axis=1)
        self.codes.append(codes[there])
        self.values.append(values[there])
        self.row_size.append(np.bincount(trials[there], minlength=len(cells)))

    def _codes_of(self, names: tuple[str, ...]) -> npt.NDArray[np.int32]:
        for name in names:
            self.names.setdefault(name, len(self.names))
        return np.array([self.names[name] for name in names], np.int32)

    def finish(self) -> Ragged:
        """Return all that was added."""
        return Ragged(
            tuple(self.names),
            np.concatenate([np.empty(0, np.int32), *self.codes]),
            np.concatenate([np.empty((0, self.width)), *self.values]),
            np.concatenate([np.empty(0, np.int64), *self.row_size]),
        )


def _regular(cell: Any, width: int) -> dict[str, list[Any]] | None:
    """Return one trial's cell in the shape that most have, or None if it makes no sense."""
    if _is_hole(cell):
        return {}
    if not isinstance(cell, dict):
        return None
    regular: dict[str, list[Any]] = {}
    for name, visits in cell.items():
        if _is_hole(visits):
            visits = []
        visits = _untupled(visits)
        if not isinstance(visits, list | tuple):
            visits = [visits]
        if width == 2:
            visits = [_untupled(visit) for visit in visits]
            if len(visits) == 2 and all(is_time(visit) for visit in visits):
                visits = [visits]
            if not all(
                isinstance(visit, list | tuple) and len(visit) == 2 and all(map(is_time, visit))
                for visit in visits
            ):
                return None
        elif not all(map(is_time, visits)):
            return None
        regular[str(name)] = list(visits)
    return regular


def _is_hole(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def _untupled(value: Any) -> Any:
    if isinstance(value, dict) and value.keys() == {"__tuple__"}:
        return value["__tuple__"]
    return value


def is_time(value: Any) -> bool:
    """Return whether a value can be a time: a number of 64 bits, or None for none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) < 2**63
    return value is None or isinstance(value, float)


# --- the nested layout ---------------------------------------------------------------------


STATES, EVENTS = "States timestamps", "Events timestamps"
NESTED_FIELDS = ("info", STATES, EVENTS, "analysis")
_EVENT = re.compile(
    r"Tup|(Port|BNC|Wire|Serial|SoftCode|GlobalTimer|GlobalCounter|Condition)\w*"
)


def nested_frame(trials: Sequence[dict[str, Any]]) -> pd.DataFrame:
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


def trials_from_nested(frame: pd.DataFrame) -> list[dict[str, Any]]:
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
    trials: list[dict[str, Any]] = []
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


# --- one table of trials -------------------------------------------------------------------


RESTORED = "restored_from_log"
START, END = "Trial start timestamp", "Trial end timestamp"
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
        fields: Fields = {}
        _add_fields(fields, "", trials, skip=NESTED_FIELDS)
        for group in ("info", "analysis"):
            cells = [trial.get(group) for trial in trials]
            if not set(map(type, cells)) <= {dict, type(None)}:
                holes = (NAN_PLACEHOLDER,) if not exact else ()
                others = [
                    None if isinstance(c, dict) or _is_nan(c) or c in holes else c
                    for c in cells
                ]
                if any(cell is not None for cell in others):
                    fields["", group] = others
                cells = [cell if isinstance(cell, dict) else None for cell in cells]
            _add_fields(fields, group, [cell or {} for cell in cells])
        n_placeholders = -self._states.n_placeholders - self._events.n_placeholders
        if not exact:
            self._exact = False
            n_placeholders += _make_exact(fields)
        for key, values in fields.items():
            if key not in self._fields:
                self._fields[key] = [None] * self.n_trials
            self._fields[key].extend(values)
        for builder, name in ((self._states, STATES), (self._events, EVENTS)):
            for i in builder.add([trial.get(name) for trial in trials], exact=exact):
                self.notes.append(f"trial {self.n_trials + i}: its {name!r} make no sense")
        n_placeholders += self._states.n_placeholders + self._events.n_placeholders
        if not exact and n_placeholders != n_nan:
            raise NeedsExactParserError(
                "not every NaN came back: it stands within a string, say"
            )
        names = (
            {key for _, key in fields} | self._states.names.keys() | self._events.names.keys()
        )
        if not exact and "__tuple__" in names:
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
    if has_nan or b"__tuple__" in text:
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
        if value.keys() == {"__tuple__"} and isinstance(value["__tuple__"], list):
            return tuple(_revive(item, restored) for item in value["__tuple__"])
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
    cells = np.empty(len(values), object)
    cells[:] = values
    return cells


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
    offsets = np.concatenate([[0], np.cumsum(states.row_size[visited])[:-1]])
    starts = np.where(np.isnan(states.values[:, 0]), np.inf, states.values[:, 0])
    first = np.minimum.reduceat(starts, offsets)
    begin = begin[visited]
    clear = (begin > 1e-3) & np.isfinite(first)
    votes = np.abs(first - begin)[clear] < np.abs(first)[clear]
    absolute[:] = bool(votes.sum() * 2 > len(votes))
    return absolute


# --- several tables as one -----------------------------------------------------------------


def concat_trials(
    frames: Mapping[str, pd.DataFrame], *, column: str = "session"
) -> pd.DataFrame:
    """Put trial tables under each other, with their states and events.

    Parameters
    ----------
    frames : mapping of str to pandas.DataFrame
        Trial tables by the name of their session.
    column : str
        The column for the name.

    Returns
    -------
    pandas.DataFrame
        All rows; ``trial`` numbers the trials anew, so that each keeps its states, and
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
    if not frames:
        raise TrialTableError("no trial tables to put together")
    parts: list[pd.DataFrame] = []
    tables: list[TrialTables] = []
    shift = 0
    for name, frame in frames.items():
        held = frame.attrs.get(ATTRIBUTE)
        if not isinstance(held, TrialTables) or "trial" not in frame:
            raise TrialTableError(f"{name!r} is not a trial table with its states and events")
        if column in frame:
            raise TrialTableError(f"{name!r} has a column {column!r} already")
        part = frame.assign(trial=frame["trial"] + shift)
        part.insert(1, column, name)
        part.attrs = {}
        parts.append(part)
        tables.append(held)
        shift += len(held.absolute)
    joined = pd.concat(_with_common_columns(parts), ignore_index=True)
    joined.attrs[ATTRIBUTE] = TrialTables(
        Ragged.concatenate([table.states for table in tables], 2),
        Ragged.concatenate([table.events for table in tables], 1),
        np.concatenate([table.absolute for table in tables]),
    )
    return joined


def _with_common_columns(parts: list[pd.DataFrame]) -> list[pd.DataFrame]:
    """Return every part every column, of one dtype."""
    names = dict.fromkeys(str(name) for part in parts for name in part)
    columns: list[dict[str, Any]] = [{} for _ in parts]
    for name in names:
        dtype = _common_dtype([part[name] for part in parts if name in part], name, parts)
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


def _common_dtype(columns: list[pd.Series], name: str, parts: list[pd.DataFrame]) -> Any:
    with_values = [column for column in columns if not column.isna().all()]
    dtypes = {str(column.dtype): column.dtype for column in with_values}
    holes = len(with_values) < sum(len(part) > 0 for part in parts)
    if not dtypes:
        return np.dtype(float)
    kinds = set(dtypes)
    if kinds <= {"bool", "boolean"}:
        return pd.BooleanDtype() if holes or "boolean" in kinds else np.dtype(bool)
    if kinds <= {"int64", "Int64"}:
        return pd.Int64Dtype() if holes or "Int64" in kinds else np.dtype(np.int64)
    if kinds <= {"int64", "Int64", "float64"}:
        whole = [c for c in with_values if c.dtype != float]
        if all((c.dropna().abs() <= 2**53).all() for c in whole):
            return np.dtype(float)
    return next(iter(dtypes.values())) if len(dtypes) == 1 else np.dtype(object)
