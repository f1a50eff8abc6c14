"""Times in trials: the states and events that belong to a trial table.

A trial visits a state never, once or many times, so that states and events are ragged
arrays, in ``table.attrs``, and no columns.
"""

import secrets
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from labtree.errors import unknown_name
from labtree.storage.ragged import positions_of_rows

ATTRIBUTE = "labtree_trials"
# Fields of a trial, and columns of its table.
START, END = "Trial start timestamp", "Trial end timestamp"
STATES, EVENTS = "States timestamps", "Events timestamps"
RESTORED = "restored_from_log"
# JSON has no tuples: a dict with this one key stands for one.
TUPLE_KEY = "__tuple__"
# For a parser that does not know the literal NaN: a number that no file can be made to hold.
NAN_PLACEHOLDER = -float(
    f"{10**7 + secrets.randbelow(9 * 10**7)}e{200 + secrets.randbelow(90)}"
)
Trial = dict[str, Any]
FloatArray = npt.NDArray[np.float64]
CodeArray = npt.NDArray[np.int32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
_NO_CODES = np.empty(0, np.int32)


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
    codes: CodeArray
    values: FloatArray
    row_size: IntArray

    def take(self, trials: IntArray) -> "Ragged":
        """Return the items of trials in any order, repeated or not; a row for each."""
        items = positions_of_rows(self.row_size, trials)
        sizes = self.row_size[trials]
        return Ragged(self.names, self.codes[items], self.values[items], sizes)

    def code(self, name: str) -> int:
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
            raise unknown_name("state", name, known) from None

    @staticmethod
    def concatenate(parts: Sequence["Ragged"], width: int) -> "Ragged":
        """Join the ragged columns of sessions, with one list of names."""
        names = tuple(dict.fromkeys(chain.from_iterable(part.names for part in parts)))
        lookup = {name: code for code, name in enumerate(names)}
        codes = [
            np.array([lookup[n] for n in part.names], np.int32)[part.codes] for part in parts
        ]
        values, row_size = [part.values for part in parts], [part.row_size for part in parts]
        return _joined(names, width, codes, values, row_size)


def are_numbers_of_trials(trials: IntArray) -> bool:
    """Return whether trials are numbered from 0, with gaps that memory can hold."""
    return not len(trials) or 0 <= trials.min() <= trials.max() < 10_000_000 + len(trials)


def _joined(
    names: tuple[str, ...],
    width: int,
    codes: list[CodeArray],
    values: list[FloatArray],
    row_size: list[IntArray],
) -> Ragged:
    """Put parts under each other; there may be none."""
    return Ragged(
        names,
        np.concatenate([_NO_CODES, *codes]),
        np.concatenate([np.empty((0, width)), *values]),
        np.concatenate([np.empty(0, np.int64), *row_size]),
    )


class TrialTables(dict[str, Any]):
    """States and events of a session's trials, carried by its table's ``attrs``.

    Never changed once made, and copied as itself: pandas copies ``attrs`` deeply at every
    operation. Two are equal if they are of one making, which is what `pandas.concat`
    asks. The dict's own content is a summary, so that ``attrs`` stay JSON.

    Attributes
    ----------
    states, events : Ragged
        Of all trials of the session.
    absolute : bool array (trial,)
        Whether the times of a trial count from the session's start, not from its own.
    token : str
        Of one making.
    """

    def __init__(
        self, states: Ragged, events: Ragged, absolute: BoolArray, token: str | None = None
    ) -> None:
        super().__init__(visits=len(states.codes), events=len(events.codes))
        self.states = states
        self.events = events
        self.absolute = absolute
        self.token = token or uuid.uuid4().hex

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return TrialTables, (self.states, self.events, self.absolute, self.token)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TrialTables) and other.token == self.token

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None


@dataclass
class RaggedBuilder:
    """Collects the cells of one nested field, a chunk of trials at a time."""

    width: int
    names: dict[str, int] = field(default_factory=dict)
    codes: list[CodeArray] = field(default_factory=list)
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
                items = list(map(itemgetter(TUPLE_KEY), items))
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

    def _codes_of(self, names: tuple[str, ...]) -> CodeArray:
        for name in names:
            self.names.setdefault(name, len(self.names))
        return np.array([self.names[name] for name in names], np.int32)

    def finish(self) -> Ragged:
        """Return all that was added."""
        return _joined(tuple(self.names), self.width, self.codes, self.values, self.row_size)


def _regular(cell: Any, width: int) -> dict[str, list[Any]] | None:
    """Return one trial's cell in the shape that most have, or None if it makes no sense."""
    if is_hole(cell):
        return {}
    if not isinstance(cell, dict):
        return None
    regular: dict[str, list[Any]] = {}
    for name, visits in cell.items():
        visits = _plain(visits)
        if is_hole(visits):
            visits = []
        if not isinstance(visits, list | tuple):
            visits = [visits]
        if width == 2:
            visits = [_plain(visit) for visit in visits]
            if _is_visit(visits):
                visits = [visits]
            visits = [
                list(map(_plain, visit)) if isinstance(visit, list | tuple) else visit
                for visit in visits
            ]
        else:
            visits = list(map(_plain, visits))
        if not all(map(_is_visit if width == 2 else is_time, visits)):
            return None
        regular[str(name)] = list(visits)
    return regular


def has_tables(attrs: Mapping[Any, Any]) -> bool:
    """Return whether a table's ``attrs`` carry states and events, not only their summary."""
    return isinstance(attrs.get(ATTRIBUTE), TrialTables)


def is_hole(value: Any) -> bool:
    """Return whether a value stands for none: None or NaN."""
    return value is None or (isinstance(value, float) and value != value)


def _is_visit(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(map(is_time, value))


def _plain(value: Any) -> Any:
    """Return arrays and scalars of numpy, and tuples as JSON has them, as plain values."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, dict) and value.keys() == {TUPLE_KEY}:
        return value[TUPLE_KEY]
    return value


def is_time(value: Any) -> bool:
    """Return whether a value can be a time: a number of 64 bits, or None for none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) < 2**63
    return value is None or isinstance(value, float)
