"""Spikes by movie, presentation and trial: ranges of indices into the spikes."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from labtree.errors import ConfigurationError, unknown_name
from labtree.mea.sections import frame_times, section_table
from labtree.pipeline.sessions import warn
from labtree.pipeline.steps import step
from labtree.pipeline.units import spike_offsets, unit_index, units_of

__all__ = [
    "checked_sections", "full_spike_times", "read_section_config", "section_spike_times",
    "spike_ranges", "trial_frames", "trials_spike_times",
]  # fmt: skip

Array = np.ndarray[Any, Any]


def spike_ranges(
    spike_times: Array, row_size: Array, starts: Array, stops: Array
) -> tuple[Array, Array]:
    """Return which spikes of each unit lie in each of many spans, as index ranges.

    One binary search finds all of them: units are told apart by an offset on the times.

    Parameters
    ----------
    spike_times : int array (spike,)
        All units' spikes, sorted within each unit, unit after unit.
    row_size : int array (unit,)
        Spikes per unit.
    starts, stops : int array (span,)
        A spike at ``starts`` is in, one at ``stops`` is not.

    Returns
    -------
    first, last : int64 arrays (unit, span)
        ``spike_times[first:last]`` are the spikes of that unit in that span.

    Examples
    --------
    >>> first, last = spike_ranges(
    ...     np.array([1, 5, 9, 2, 5]), np.array([3, 2]), np.array([5]), np.array([9]))
    >>> first.ravel(), last.ravel()
    (array([1, 4]), array([2, 5]))
    """
    low = min(int(spike_times.min(initial=0)), 0)
    width = int(max(spike_times.max(initial=0), stops.max(initial=0))) - low + 2
    unit = np.arange(len(row_size), dtype=np.int64) * width - low
    keys = spike_times + np.repeat(unit, row_size)
    bounds = np.stack([starts, np.maximum(starts, stops)]).astype(np.int64)
    bounds = np.clip(bounds, low, low + width - 1)
    found = np.searchsorted(keys, unit[:, None, None] + bounds[None], side="left")
    return found[:, 0].astype(np.int64), found[:, 1].astype(np.int64)


def read_section_config(movie_name: str, config_dir: str | Path) -> dict[str, int]:
    """Read ``{movie}.json``: where a movie's trials lie, in frames.

    Its ``section_kwargs`` hold start_frame (0 or more), trial_length_frame and repeat
    (1 or more), and, if wanted, group_count (1) and group_gap (0).

    Raises
    ------
    ConfigurationError
        If the file is missing, or a value is.
    """
    path = Path(config_dir) / f"{movie_name}.json"
    if not path.is_file():
        raise ConfigurationError(
            f"{path}: there is no such file; movie {movie_name!r} needs it"
        )
    try:
        given = json.loads(path.read_text(encoding="utf-8"))["section_kwargs"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{path}: expected JSON with section_kwargs ({error})"
        ) from error
    least = {"start_frame": 0, "trial_length_frame": 1, "repeat": 1}
    config = {"group_count": 1, "group_gap": 0}
    for name, minimum in {**least, "group_count": 1, "group_gap": 0}.items():
        value = given.get(name, config.get(name))
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise ConfigurationError(
                f"{path}: {name} must be a whole number, {minimum} or more, found {value!r}"
            )
        config[name] = value
    return config


def trial_frames(config: Mapping[str, int]) -> tuple[Array, Array]:
    """Return first frame and end frame of each trial, from the movie's own first frame.

    Trial n of ``group_count * repeat`` begins at ``start_frame + n *
    trial_length_frame + (n // repeat) * group_gap``.
    """
    n = np.arange(config["group_count"] * config["repeat"])
    length = config["trial_length_frame"]
    start = config["start_frame"] + n * length + (n // config["repeat"]) * config["group_gap"]
    return start, start + length


def _movie_sections(
    session: xr.DataTree, movie: str, config: Mapping[str, int], frames: Array, pad: Array
) -> xr.Dataset:
    """Return one movie's trials with the range of every unit's spikes in them."""
    table = section_table(session, movie)
    starts, ends = trial_frames(config)
    first = table["movie_start_frame"].values[:, None] + starts
    last = table["movie_start_frame"].values[:, None] + ends
    if last.max() > len(frames) - 1:
        raise ConfigurationError(
            f"movie {movie!r}: its last trial ends at frame {last.max()}, but the recording "
            f"has {len(frames)} frames; check {movie}.json"
        )
    if (last > table["end_frame"].values[:, None]).any():
        warn(
            session, f"movie {movie!r}: trials reach past the movie's section; see {movie}.json"
        )
    begin, end = frames[first], frames[last]
    units = units_of(session)
    low = np.maximum(begin - pad[0], 0)
    ranges = spike_ranges(
        units["spike_times"].values,
        units["row_size"].values,
        low.ravel(),
        (end + pad[1]).ravel(),
    )
    dims = ("unit", "presentation", "trial")
    shape = (units.sizes["unit"], *begin.shape)
    rate = float(session["metadata"].attrs["acquisition_rate"])
    return xr.Dataset(
        {
            "start": (dims, ranges[0].reshape(shape), {"long_name": "first spike's index"}),
            "stop": (dims, ranges[1].reshape(shape), {"long_name": "index after the last"}),
            "trial_start": (dims[1:], begin, {"units": "sample"}),
            "trial_end": (dims[1:], end, {"units": "sample"}),
            # the indices hold as long as each unit's spikes begin here and are that many
            "first_spike": ("unit", spike_offsets(units)[:-1]),
            "n_spikes": ("unit", units["row_size"].values),
        },
        coords={
            "unit": units["unit"].values,
            "presentation": np.arange(shape[1]),
            "trial": np.arange(shape[2]),
        },
        attrs={
            "movie_name": movie,
            "n_trials": int(begin.size),
            "pad_margin_s": (pad / rate).tolist(),
            "pre_samples": int(pad[0]),
            "post_samples": int(pad[1]),
            **config,
        },
    )


@step(requires=["load_recording", "add_section_time"])
def section_spike_times(
    session: xr.DataTree,
    movie_names: Iterable[str] | str | None = None,
    pad_margin: tuple[float, float] = (0.0, 0.0),
    config_dir: str | Path | None = None,
) -> xr.DataTree:
    """Find every unit's spikes in every trial of every presentation of movies.

    Fills ``sections/<movie>`` with index ranges ``start`` and ``stop`` (unit,
    presentation, trial) into ``units.spike_times``, and with ``trial_start`` and
    ``trial_end`` in samples, without the padding. :func:`trials_spike_times` and
    :func:`full_spike_times` give the spikes themselves.

    Parameters
    ----------
    session : DataTree
    movie_names : iterable of str, optional
        All that were shown, if none are given.
    pad_margin : (float, float)
        Seconds added before and after each trial, rounded to samples.
    config_dir : path
        Folder of ``{movie}.json``; see :func:`read_section_config`.

    Raises
    ------
    ConfigurationError
        If a movie's JSON is missing or wrong, or if a trial runs past the recording.
    SessionError
        (also a KeyError) if a movie was not shown.
    """
    if config_dir is None:
        raise ConfigurationError(
            "section_spike_times needs config_dir, the folder that holds {movie}.json for each "
            "movie"
        )
    pad_s = np.asarray(pad_margin, np.float64)
    if pad_s.shape != (2,) or not np.isfinite(pad_s).all() or (pad_s < 0).any():
        raise ConfigurationError(
            f"pad_margin must be two numbers of seconds, 0 or more, got {pad_margin!r}"
        )
    if isinstance(movie_names, str):
        movie_names = [movie_names]
    shown = dict.fromkeys(section_table(session)["movie"].values.tolist())
    movies = list(shown if movie_names is None else movie_names)
    for movie in movies:
        if movie not in shown:
            raise unknown_name("movie", movie, shown)
    pad = np.rint(pad_s * float(session["metadata"].attrs["acquisition_rate"])).astype(np.int64)
    frames = frame_times(session)
    configs = {movie: read_section_config(movie, config_dir) for movie in movies}
    for movie, config in configs.items():
        made = _movie_sections(session, movie, config, frames, pad)
        session[f"sections/{movie}"] = xr.DataTree(made)
    return session


def movie_sections(session: xr.DataTree, movie_name: str) -> xr.Dataset:
    """Return the sections of one movie.

    Raises
    ------
    SessionError
        (also a KeyError) if the movie has none; the message lists those that have.
    """
    nodes = session.children["sections"].children if "sections" in session.children else {}
    if movie_name not in nodes:
        raise unknown_name("sectioned movie", movie_name, nodes)
    return nodes[movie_name].to_dataset(inherit=False)


def checked_sections(session: xr.DataTree, movie_name: str) -> xr.Dataset:
    """Return the sections of one movie, for exactly the session's units and spikes.

    Raises
    ------
    ConfigurationError
        If the units have changed since they were sectioned.
    """
    sections, units = movie_sections(session, movie_name), units_of(session)
    same = (
        np.array_equal(sections["unit"].values, units["unit"].values)
        and np.array_equal(sections["first_spike"].values, spike_offsets(units)[:-1])
        and np.array_equal(sections["n_spikes"].values, units["row_size"].values)
    )
    if not same:
        raise ConfigurationError(
            f"the units have changed since movie {movie_name!r} was sectioned; run "
            "labtree.mea.section_spike_times(session=session, ...) again"
        )
    return sections


def _unit_ranges(
    session: xr.DataTree, unit_id: str, movie_name: str
) -> tuple[Array, Array, Array]:
    sections, units = checked_sections(session, movie_name), units_of(session)
    row = unit_index(sections, unit_id)
    start, stop = (sections[name].values[row].ravel() for name in ("start", "stop"))
    return units["spike_times"].values, start, stop


def trials_spike_times(session: xr.DataTree, unit_id: str, movie_name: str) -> dict[int, Array]:
    """Return one unit's spikes trial by trial, in samples of the recording.

    Trials are numbered from 0 through all presentations. The arrays are views.
    """
    spikes, start, stop = _unit_ranges(session, unit_id, movie_name)
    return {n: spikes[a:b] for n, (a, b) in enumerate(zip(start, stop, strict=True))}


def full_spike_times(session: xr.DataTree, unit_id: str, movie_name: str) -> Array:
    """Return one unit's spike times in all trials of a movie, sorted, each once."""
    spikes, start, stop = _unit_ranges(session, unit_id, movie_name)
    parts = [spikes[a:b] for a, b in zip(start, stop, strict=True)]
    return np.unique(np.concatenate(parts)) if parts else spikes[:0]
