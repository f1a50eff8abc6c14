"""The step from sectioned spikes and a noise movie to spike-triggered averages."""

from pathlib import Path

import numpy as np
import xarray as xr

from labtree.errors import ConfigurationError, FormatError
from labtree.mea.lab import from_lab
from labtree.mea.playlists import frame_times, movies_shown, section_table
from labtree.mea.sta_kernel import lags_of, spike_triggered_average
from labtree.pipeline.sections import checked_sections
from labtree.pipeline.sessions import add_warning, units_of
from labtree.pipeline.steps import step
from labtree.pipeline.units import put_feature
from labtree.storage.ragged import row_of_sample


def open_movie(path: str | Path) -> np.ndarray:
    """Map a movie ``.npy`` (frame, y, x) into memory; nothing is read yet.

    Raises
    ------
    ConfigurationError
        If there is no such file.
    FormatError
        If it is not a numeric array of two to four dimensions.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigurationError(f"{path}: there is no such movie; compute_sta needs it")
    try:
        movie: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise FormatError(f"{path} is not a numeric .npy file ({error})") from error
    if not isinstance(movie, np.ndarray):  # an .npz archive
        raise FormatError(f"{path} is an archive of arrays, expected one array (frame, y, x)")
    if movie.dtype.kind not in "buif" or not 2 <= movie.ndim <= 4 or not len(movie):
        raise FormatError(
            f"{path}: expected a numeric movie (frame, y, x), found {movie.dtype} {movie.shape}"
        )
    return movie


def spikes_per_frame(
    spike_times: np.ndarray,
    row_size: np.ndarray,
    first: np.ndarray,
    last: np.ndarray,
    frames: np.ndarray,
    movie_start_frame: int,
    n_frames: int,
    shift: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Count the spikes of one presentation's trials by the frames of its movie.

    Parameters
    ----------
    spike_times, row_size : int arrays (spike,), (unit,)
    first, last : int arrays (unit, trial)
        Index ranges into the spikes; one that lies in two trials counts once.
    frames : int array (frame,)
        Samples at which the display's frames begin.
    movie_start_frame : int
        Display frame in which the movie begins.
    n_frames : int
        Length of the movie.
    shift : int
        Frames added to a spike's own: with the first lag of an average, spikes are
        counted by the first frame that is averaged, which may lie in the movie though
        their own does not.

    Returns
    -------
    counts : int array (unit, frame)
    n_spikes : int array (unit,)
        Spikes in the trials, in a frame of the movie or not.
    """
    n_units = len(row_size)
    edges = np.zeros(len(spike_times) + 1, np.int64)
    np.add.at(edges, first.ravel(), 1)
    np.add.at(edges, last.ravel(), -1)
    inside = np.flatnonzero(np.cumsum(edges[:-1]) > 0)
    unit = row_of_sample(row_size)[inside]
    own = np.searchsorted(frames, spike_times[inside], side="right") - 1
    frame = own - movie_start_frame + shift
    shown = (frame >= 0) & (frame < n_frames)
    flat = np.bincount(unit[shown] * n_frames + frame[shown], minlength=n_units * n_frames)
    return flat.reshape(n_units, n_frames), np.bincount(unit, minlength=n_units)


def _noise_movie(session: xr.DataTree, movie_name: str | None) -> str:
    if movie_name is not None:
        return movie_name
    shown = movies_shown(session)
    noise = [movie for movie in shown if "noise" in movie.lower()]
    if len(noise) != 1:
        found, example = ", ".join(map(repr, noise or shown)), (noise or shown)[0]
        raise ConfigurationError(
            f"compute_sta needs one movie whose name holds 'noise', found {len(noise)} "
            f"({found}); say which: compute_sta(session=session, movie_name={example!r}, ...)"
        )
    return noise[0]


@step(
    requires=["load_recording", "add_section_time", "section_spike_times"],
    fills=from_lab("stimuli_dir"),
)
def compute_sta(
    session: xr.DataTree,
    cover_range: tuple[int, int] = (-60, 0),
    stimuli_dir: str | Path | None = None,
    *,
    movie_name: str | None = None,
    subtract_mean: bool = False,
    permutations: int = 0,
    seed: int = 0,
) -> xr.DataTree:
    """Average the movie's frames around each unit's spikes, over all presentations.

    Fills ``features/sta_<movie>`` with ``sta`` (unit, lag, y, x; float32, NaN for a
    unit without a valid spike), ``n_spikes`` and ``n_spikes_excluded`` (unit), and
    ``z_score`` if permutations are asked for. Lag is in frames relative to the
    spike's own.

    Parameters
    ----------
    session : DataTree
    cover_range : (int, int)
        Frames relative to the spike's own, the last one excluded.
    stimuli_dir : path, optional
        Folder of ``{movie}.npy`` (frame, y, x), one array frame per display frame. Without
        it, that of the lab, see :func:`labtree.mea.use_lab`.
    movie_name : str, optional
        By default the one movie whose name holds "noise".
    subtract_mean : bool
        Whether the movie's mean frame is subtracted.
    permutations, seed : int
        See :func:`labtree.mea.sta_kernel.spike_triggered_average`.

    Returns
    -------
    DataTree
        The session that was given; without ``session=`` a :class:`labtree.StepResult`,
        whose ``hdf5_path`` is what :func:`labtree.load_session` takes.

    Raises
    ------
    ConfigurationError
        If the movie is not there, or if its length does not fit the playlist's.
    FormatError
        If the movie is not a numeric array.

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
    ...         session = labtree.mea.compute_sta((-12, 0), session=session)
    >>> session["features/sta_noise_a"]["sta"].shape
    (2, 12, 8, 8)
    """
    assert stimuli_dir is not None  # filled in
    name = _noise_movie(session, movie_name)
    table = section_table(session, name)
    movie = open_movie(Path(stimuli_dir) / f"{name}.npy")
    lengths = table["movie_length"].values
    if len(movie) != lengths[0]:
        if not 0.9 <= len(movie) / lengths[0] <= 1.1:
            raise ConfigurationError(
                f"{name}.npy has {len(movie)} frames, but the movie was shown for {lengths[0]} "
                "display frames; the array must hold one frame per display frame"
            )
        add_warning(
            session, f"{name}.npy has {len(movie)} frames, the movie was shown for {lengths[0]}"
        )
    units, sections = units_of(session), checked_sections(session, name)
    frames = frame_times(session)
    spikes, row_size = units["spike_times"].values, units["row_size"].values
    first, last = lags_of(cover_range)
    counts = np.zeros((len(row_size), len(movie)), np.int64)
    total = np.zeros(len(row_size), np.int64)
    for presentation, start_frame in enumerate(table["movie_start_frame"].values):
        part = sections.isel(presentation=presentation)
        shown, inside = spikes_per_frame(
            spikes, row_size, part["start"].values, part["stop"].values, frames,
            int(start_frame), len(movie), first,
        )  # fmt: skip
        counts += shown
        total += inside
    average, n_spikes, z = spike_triggered_average(
        movie, counts, (0, last - first),
        subtract_mean=subtract_mean, permutations=permutations, seed=seed,
    )  # fmt: skip
    pixels = ("x",) if movie.ndim == 2 else ("y", "x", "channel")[: movie.ndim - 1]
    dims = ("unit", "lag", *pixels)
    made = xr.Dataset(
        {
            "sta": (dims, average),
            "n_spikes": ("unit", n_spikes),
            "n_spikes_excluded": ("unit", total - n_spikes),
        },
        coords={
            "unit": units["unit"].values,
            "lag": ("lag", np.arange(first, last), {"units": "frame"}),
        },
    )
    if z is not None:
        made["z_score"] = (dims, z)
    put_feature(
        session, f"sta_{name}", made,
        movie_name=name, cover_range=[first, last],
        subtract_mean=bool(subtract_mean), permutations=int(permutations), seed=int(seed),
        n_presentations=len(lengths),
    )  # fmt: skip
    return session
