"""The step that finds the spikes of each trial of a movie, from the trials' frames."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from labtree.errors import ConfigurationError
from labtree.mea.lab import from_lab
from labtree.mea.playlists import frame_times, movies_shown, sampling_rate, section_table
from labtree.pipeline.sections import DIMS, put_sections
from labtree.pipeline.sessions import add_warning, units_of
from labtree.pipeline.steps import step
from labtree.storage import ragged
from labtree.storage.arguments import integer
from labtree.storage.json_files import read_json

# Of each value: the least one, and what it is where it is not given.
_SECTION_VALUES = {
    "start_frame": (0, None),
    "trial_length_frame": (1, None),
    "repeat": (1, None),
    "group_count": (1, 1),
    "group_gap": (0, 0),
}


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
        given = dict(read_json(path)["section_kwargs"])
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{path}: expected JSON with section_kwargs ({error})"
        ) from error
    return {
        name: integer(
            f"{path}: {name}", given.get(name, default), least, error=ConfigurationError
        )
        for name, (least, default) in _SECTION_VALUES.items()
    }


def trial_frames(config: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return first frame and end frame of each trial, from the movie's own first frame.

    Trial n of ``group_count * repeat`` begins at ``start_frame + n *
    trial_length_frame + (n // repeat) * group_gap``.
    """
    n = np.arange(config["group_count"] * config["repeat"])
    length = config["trial_length_frame"]
    start = config["start_frame"] + n * length + (n // config["repeat"]) * config["group_gap"]
    return start, start + length


def _movie_sections(
    session: xr.DataTree,
    movie: str,
    config: Mapping[str, int],
    frames: np.ndarray,
    pad: np.ndarray,
) -> xr.Dataset:
    """Return one movie's trials with the range of every unit's spikes in them."""
    table = section_table(session, movie)
    starts, ends = trial_frames(config)
    movie_start = table["movie_start_frame"].values[:, None]
    first, last = movie_start + starts, movie_start + ends
    if last.max() > len(frames) - 1:
        raise ConfigurationError(
            f"movie {movie!r}: its last trial ends at frame {last.max()}, but the recording "
            f"has {len(frames)} frames; check {movie}.json"
        )
    if (last > table["end_frame"].values[:, None]).any():
        add_warning(
            session, f"movie {movie!r}: trials reach past the movie's section; see {movie}.json"
        )
    begin, end = frames[first], frames[last]
    units = units_of(session)
    low = np.maximum(begin - pad[0], 0)
    ranges = ragged.spike_ranges(
        units["spike_times"].values,
        units["row_size"].values,
        low.ravel(),
        (end + pad[1]).ravel(),
    )
    shape = (units.sizes["unit"], *begin.shape)
    rate = sampling_rate(session)
    return xr.Dataset(
        {
            "start": (DIMS, ranges[0].reshape(shape), {"long_name": "first spike's index"}),
            "stop": (DIMS, ranges[1].reshape(shape), {"long_name": "index after the last"}),
            "trial_start": (DIMS[1:], begin, {"units": "sample"}),
            "trial_end": (DIMS[1:], end, {"units": "sample"}),
            # the indices hold as long as each unit's spikes begin here and are that many
            "first_spike": ("unit", ragged.row_offsets(units["row_size"].values)[:-1]),
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


@step(requires=["load_recording", "add_section_time"], fills=from_lab("config_dir"))
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
    config_dir : path, optional
        Folder of ``{movie}.json``; see :func:`read_section_config`. Without it, that of
        the lab, see :func:`labtree.mea.use_lab`.

    Returns
    -------
    DataTree
        The session that was given; without ``session=`` a :class:`labtree.StepResult`,
        whose ``hdf5_path`` is what :func:`labtree.load_session` takes.

    Raises
    ------
    ConfigurationError
        If a movie's JSON is missing or wrong, or if a trial runs past the recording.
    UnknownNameError
        If a movie was not shown.

    Examples
    --------
    >>> import tempfile
    >>> import labtree
    >>> from labtree.testing.mea import write_recording
    >>> with tempfile.TemporaryDirectory() as folder, labtree.mea.use_lab():
    ...     files = write_recording(
    ...         folder, n_units=2, movie_frames={"noise_a": 60}, repeats=1, pad_frame=180)
    ...     session = labtree.create_session("rec1")
    ...     session = labtree.mea.load_recording(
    ...         files.cmcr_path, files.cmtr_path, session=session)
    ...     with labtree.mea.use_lab(folder):
    ...         session = labtree.mea.add_section_time("set1", session=session)
    ...         session = labtree.mea.section_spike_times(session=session)
    >>> len(session.session.trials_spike_times("unit_001", "noise_a"))
    1
    """
    assert config_dir is not None  # filled in
    pad_s = np.asarray(pad_margin, np.float64)
    if pad_s.shape != (2,) or not np.isfinite(pad_s).all() or (pad_s < 0).any():
        raise ConfigurationError(
            f"pad_margin must be two numbers of seconds, 0 or more, got {pad_margin!r}"
        )
    if isinstance(movie_names, str):
        movie_names = [movie_names]
    movies = movies_shown(session) if movie_names is None else list(movie_names)
    for movie in movies:
        section_table(session, movie)  # what was not shown is an error before anything is done
    pad = np.rint(pad_s * sampling_rate(session)).astype(np.int64)
    frames = frame_times(session)
    configs = {movie: read_section_config(movie, config_dir) for movie in movies}
    for movie, config in configs.items():
        made = _movie_sections(session, movie, config, frames, pad)
        put_sections(session, movie, made)
    return session
