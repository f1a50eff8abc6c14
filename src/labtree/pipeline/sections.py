"""Sections of a session: which spikes lie in which trial of which movie.

``session["sections/<movie>"]`` holds index ranges ``start`` and ``stop`` (unit,
presentation, trial) into ``units.spike_times``, and no copies of spikes. ``first_spike``
and ``n_spikes`` say for which spikes of each unit they were made.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from labtree.errors import ConfigurationError, SessionError
from labtree.pipeline.per_unit import unit_index
from labtree.pipeline.session_values import (
    child_group,
    named_children,
    named_dataset,
    put_node,
)
from labtree.pipeline.sessions import units_of
from labtree.storage import ragged
from labtree.storage.names import encode_name

DIMS = ("unit", "presentation", "trial")


def sectioned_movies(session: xr.DataTree) -> dict[str, xr.DataTree]:
    """Return the nodes of sections by the movies' names."""
    return named_children(session, "sections")


def movie_sections(session: xr.DataTree, movie_name: str) -> xr.Dataset:
    """Return the sections of one movie; UnknownNameError if it has none."""
    return named_dataset(session, "sections", movie_name, "sectioned movie")


def put_sections(session: xr.DataTree, movie_name: str, sections: xr.Dataset) -> None:
    """Put the sections of one movie into the session, in place of earlier ones."""
    put_node(child_group(session, "sections"), movie_name, "movie", sections)


def _fit(sections: xr.Dataset, units: xr.Dataset) -> bool:
    """Return whether the units of sections have the spikes for which they were made."""
    rows = units.get_index("unit").get_indexer(sections.get_index("unit"))
    if (rows < 0).any():
        return False
    row_size = units["row_size"].values
    return np.array_equal(
        sections["first_spike"].values, ragged.row_offsets(row_size)[rows]
    ) and np.array_equal(sections["n_spikes"].values, row_size[rows])


def checked_sections(session: xr.DataTree, movie_name: str) -> xr.Dataset:
    """Return the sections of one movie, for exactly the session's units and spikes.

    Raises
    ------
    ConfigurationError
        If the units have changed since they were sectioned.
    """
    sections, units = movie_sections(session, movie_name), units_of(session)
    same = np.array_equal(sections["unit"].values, units["unit"].values)
    if not (same and _fit(sections, units)):
        raise _outdated(movie_name)
    return sections


def _outdated(movie_name: str) -> ConfigurationError:
    return ConfigurationError(
        f"the units have changed since movie {movie_name!r} was sectioned; run "
        "labtree.mea.section_spike_times(session=session, ...) again"
    )


def _unit_ranges(
    session: xr.DataTree, unit_id: str, movie_name: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    sections, units = movie_sections(session, movie_name), units_of(session)
    if not _fit(sections, units):
        raise _outdated(movie_name)
    row = unit_index(sections, unit_id)
    start, stop = (sections[name].values[row].ravel() for name in ("start", "stop"))
    return units["spike_times"].values, start, stop


def trials_spike_times(
    session: xr.DataTree, unit_id: str, movie_name: str
) -> dict[int, np.ndarray]:
    """Return one unit's spikes trial by trial, in samples of the recording.

    Parameters
    ----------
    session : DataTree
    unit_id, movie_name : str

    Returns
    -------
    dict of int to int64 array
        Trials are numbered from 0 through all presentations. The arrays are views.

    Raises
    ------
    UnknownNameError
        If the movie has no sections, or none of that unit.
    ConfigurationError
        If the units have changed since they were sectioned.

    Examples
    --------
    >>> import labtree
    >>> session = labtree.create_session("rec1")
    >>> spikes = np.array([5, 9, 30])
    >>> trials = {"trials_spike_times": {0: spikes[:2], 1: spikes[1:]}}
    >>> session.session.add_units(
    ...     {"u1": {"spike_times": spikes, "spike_times_sectioned": {"movie_a": trials}}})
    >>> trials_spike_times(session, "u1", "movie_a")
    {0: array([5, 9]), 1: array([ 9, 30])}
    """
    spikes, start, stop = _unit_ranges(session, unit_id, movie_name)
    return {n: spikes[a:b] for n, (a, b) in enumerate(zip(start, stop, strict=True))}


def full_spike_times(session: xr.DataTree, unit_id: str, movie_name: str) -> np.ndarray:
    """Return one unit's spike times in all trials of a movie, sorted, each once.

    Parameters
    ----------
    session : DataTree
    unit_id, movie_name : str

    Returns
    -------
    int64 array (spike,)
        Samples of the recording.

    Raises
    ------
    UnknownNameError, ConfigurationError
        As :func:`trials_spike_times`.

    Examples
    --------
    >>> import labtree
    >>> session = labtree.create_session("rec1")
    >>> spikes = np.array([5, 9, 30])
    >>> trials = {"trials_spike_times": {0: spikes[:2], 1: spikes[1:]}}
    >>> session.session.add_units(
    ...     {"u1": {"spike_times": spikes, "spike_times_sectioned": {"movie_a": trials}}})
    >>> full_spike_times(session, "u1", "movie_a")
    array([ 5,  9, 30])
    """
    spikes, start, stop = _unit_ranges(session, unit_id, movie_name)
    parts = [spikes[a:b] for a, b in zip(start, stop, strict=True)]
    return np.unique(np.concatenate(parts)) if parts else spikes[:0]


def index_trials(
    movie_name: str, trials: Mapping[str, Mapping[str, Any]], units: xr.Dataset
) -> xr.Dataset:
    """Return sections from copies of the spikes in each trial, as hdmea keeps them.

    Parameters
    ----------
    movie_name : str
    trials : mapping of unit id to mapping
        ``trials_spike_times`` (trial number to spike times in samples) and, if they are
        known, ``full_spike_times``, ``trials_start_end`` (samples, without padding) and
        ``_attrs`` with ``pre_samples`` and ``post_samples``.
    units : Dataset
        Of the session.

    Raises
    ------
    SessionError
        If spikes of a trial are not a slice of the unit's spikes, or if units disagree
        on the trials.
    """
    where = f"sectioned spikes of movie {movie_name!r}"
    first = next(iter(trials.values()))
    bounds = _bounds(first)
    notes = dict(first.get("_attrs", {}))
    offsets = ragged.row_offsets(units["row_size"].values)
    trains = _trains(units)
    rows: list[int] = []
    starts: list[np.ndarray] = []
    stops: list[np.ndarray] = []
    for unit, given in trials.items():
        row = unit_index(units, unit)
        spikes = trains[unit]
        parts = _numbered(given.get("trials_spike_times", {}), f"{where}, unit {unit!r}")
        if starts and len(parts) != len(starts[0]):
            raise SessionError(
                f"{where}: unit {unit!r} has {len(parts)} trials, {next(iter(trials))!r} has "
                f"{len(starts[0])}"
            )
        if not _same_bounds(bounds, _bounds(given), len(parts)):
            raise SessionError(f"{where}: unit {unit!r} has trials at other times than others")
        begin = np.zeros(len(parts), np.int64)
        if bounds is not None:  # where a trial without spikes lies
            begin = np.searchsorted(spikes, bounds[:, 0] - int(notes.get("pre_samples", 0)))
        for number, part in enumerate(parts):
            if part.size:
                begin[number] = np.searchsorted(spikes, part[0])
            if not np.array_equal(spikes[begin[number] : begin[number] + part.size], part):
                raise SessionError(
                    f"{where}: trial {number} of unit {unit!r} is not a slice of its "
                    "spike_times"
                )
        whole = given.get("full_spike_times")
        if whole is not None and not np.array_equal(
            np.unique(np.concatenate([*parts, spikes[:0]])), np.asarray(whole)
        ):
            raise SessionError(
                f"{where}: full_spike_times of unit {unit!r} are not those of its trials"
            )
        rows.append(row)
        starts.append(begin + offsets[row])
        stops.append(starts[-1] + [part.size for part in parts])
    sections = xr.Dataset(
        {
            "start": (DIMS, np.array(starts, np.int64)[:, None]),
            "stop": (DIMS, np.array(stops, np.int64)[:, None]),
            "first_spike": ("unit", offsets[rows]),
            "n_spikes": ("unit", units["row_size"].values[rows]),
        },
        coords={
            "unit": units["unit"].values[rows],
            "presentation": [0],
            "trial": np.arange(len(starts[0])),
        },
        attrs={"movie_name": movie_name, **notes},
    )
    if bounds is not None:
        for name, times in zip(("trial_start", "trial_end"), bounds.T, strict=True):
            sections[name] = (DIMS[1:], times[None], {"units": "sample"})
    return sections


def _bounds(given: Mapping[str, Any]) -> np.ndarray | None:
    bounds = given.get("trials_start_end")
    return None if bounds is None else np.asarray(bounds).reshape(-1, 2).astype(np.int64)


def _same_bounds(one: np.ndarray | None, other: np.ndarray | None, n_trials: int) -> bool:
    if one is None or other is None:
        return one is other
    return len(one) == n_trials and np.array_equal(one, other)


def _numbered(trials: Mapping[Any, Any], where: str) -> list[np.ndarray]:
    """Return the spikes of trials 0, 1, ...; the numbers may be text."""
    numbers = {str(key): value for key, value in trials.items()}
    if set(numbers) != {str(n) for n in range(len(numbers))}:
        raise SessionError(f"{where}: trials must be numbered 0, 1, ...; found {list(trials)}")
    return [np.atleast_1d(np.asarray(numbers[str(n)])) for n in range(len(numbers))]


def add_trials(
    session: xr.DataTree,
    units: xr.Dataset,
    given: Mapping[str, Mapping[str, Mapping[str, Any]]],
) -> dict[str, xr.Dataset]:
    """Return the sections of movies after trials of some units came in; changes nothing.

    Parameters
    ----------
    session : DataTree
    units : Dataset
        As they will be.
    given : mapping of movie to mapping of unit id to trials
        See :func:`index_trials`.

    Raises
    ------
    SessionError
        As :func:`index_trials`; if the movie has other trials already; if sectioned
        spikes would change.
    """
    made = {}
    for movie, node in sectioned_movies(session).items():
        new = given.get(movie, {})
        kept = node.to_dataset(inherit=False)
        made[movie] = shift_sections(
            kept.isel(unit=~np.isin(kept["unit"].values, list(new))),
            units_of(session),
            units,
        )
    for movie, trials in given.items():
        sections = index_trials(movie, trials, units)
        old = made.get(movie)
        if old is not None and old.sizes["unit"]:
            if old["start"].shape[1:] != sections["start"].shape[1:] or set(old) != set(
                sections
            ):
                raise SessionError(
                    f"movie {movie!r} has other trials already; first: "
                    f"del session['sections'][{encode_name(movie)!r}]"
                )
            sections = xr.concat(
                [old, sections], "unit", data_vars="minimal", coords="minimal",
                compat="equals", join="exact", combine_attrs="override",
            )  # fmt: skip
            rows = units.get_index("unit").get_indexer(sections.get_index("unit"))
            order = np.argsort(rows)
            sections = sections.isel(unit=order)
        made[movie] = sections
    return made


def _trains(units: xr.Dataset) -> dict[str, np.ndarray]:
    """Return the spike times by the ids of the units."""
    trains = ragged.split_rows(units["spike_times"].values, units["row_size"].values)
    return dict(zip(units["unit"].values.tolist(), trains, strict=True))


def shift_sections(sections: xr.Dataset, before: xr.Dataset, after: xr.Dataset) -> xr.Dataset:
    """Return sections whose indices fit units among which others were added.

    Raises
    ------
    SessionError
        If the spikes of a unit in the sections are other ones now.
    """
    old, new = _trains(before), _trains(after)
    ids = sections["unit"].values.tolist()
    moved = [u for u in ids if u in old and not np.array_equal(old[u], new[u])]
    if moved:
        raise SessionError(
            f"the spikes of {', '.join(moved[:5])} are divided into trials already, which "
            "would be wrong for other spikes. First: del session['sections']"
        )
    rows = after.get_index("unit").get_indexer(sections.get_index("unit"))
    first = ragged.row_offsets(after["row_size"].values)[rows]
    by = first - sections["first_spike"].values
    if not by.any():
        return sections
    return sections.assign(
        start=sections["start"] + by[:, None, None],
        stop=sections["stop"] + by[:, None, None],
        first_spike=("unit", first),
    )
