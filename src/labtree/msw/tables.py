"""The states and events of trials as columns: what a trial table carries in its attributes.

One ragged column holds all visits to states, another all events. A trial table's column
``trial`` says which part of them is a row's own, so that filtered, sorted and repeated
rows keep theirs.
"""

import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from typing import Any, Self

import numpy as np
import numpy.typing as npt

__all__ = ["ATTRIBUTE", "NAN_STANDIN", "Ragged", "TrialTables", "gather"]

ATTRIBUTE = "labtree_trials"
# For a parser that does not know the literal NaN: a number that no file can be made to hold.
NAN_STANDIN = -float(f"{10**7 + secrets.randbelow(9 * 10**7)}e{200 + secrets.randbelow(90)}")
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
        """Give the code of a name.

        Raises
        ------
        KeyError
            No trial of the session has it.
        """
        from labtree.msw.errors import UnknownNameError

        try:
            return self.names.index(name)
        except ValueError:
            known = ", ".join(sorted(self.names)) or "none at all"
            raise UnknownNameError(
                f"no {what} is called {name!r}; there are: {known}"
            ) from None

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


def gather(ragged: Ragged, trials: IntArray) -> tuple[IntArray, IntArray]:
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
    items : int array (item,)
        Where it stands in `ragged`.
    """
    offsets = np.concatenate([[0], np.cumsum(ragged.row_size)])
    counts = ragged.row_size[trials]
    rows = np.repeat(np.arange(len(trials)), counts)
    first = np.repeat(offsets[trials] - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
    return rows, first + np.arange(len(rows))


@dataclass
class RaggedBuilder:
    """Collects the cells of one nested field, a chunk of trials at a time."""

    width: int
    names: dict[str, int] = field(default_factory=dict)
    codes: list[npt.NDArray[np.int32]] = field(default_factory=list)
    values: list[FloatArray] = field(default_factory=list)
    row_size: list[IntArray] = field(default_factory=list)
    n_standins: int = 0

    def add(self, cells: Sequence[Any], *, exact: bool) -> list[int]:
        """Add a chunk; give the positions of the cells that make no sense (kept empty).

        Unless `exact`, `NAN_STANDIN` stands for NaN.
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
            standins = values == NAN_STANDIN
            values[standins] = np.nan
            self.n_standins += int(standins.sum())
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
        """Give all that was added."""
        return Ragged(
            tuple(self.names),
            np.concatenate([np.empty(0, np.int32), *self.codes]),
            np.concatenate([np.empty((0, self.width)), *self.values]),
            np.concatenate([np.empty(0, np.int64), *self.row_size]),
        )


def _regular(cell: Any, width: int) -> dict[str, list[Any]] | None:
    """Give one trial's cell in the shape that most have, or None if it makes no sense."""
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
            if len(visits) == 2 and all(_is_time(visit) for visit in visits):
                visits = [visits]
            if not all(
                isinstance(visit, list | tuple)
                and len(visit) == 2
                and all(map(_is_time, visit))
                for visit in visits
            ):
                return None
        elif not all(map(_is_time, visits)):
            return None
        regular[str(name)] = list(visits)
    return regular


def _is_hole(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def _untupled(value: Any) -> Any:
    if isinstance(value, dict) and value.keys() == {"__tuple__"}:
        return value["__tuple__"]
    return value


def _is_time(value: Any) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) < 2**63
    return value is None or isinstance(value, float)
