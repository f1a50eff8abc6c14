"""When each movie of a playlist was shown, from the playlist and the display's frames."""

from pathlib import Path

import numpy as np
import xarray as xr

from labtree.errors import ConfigurationError, unknown_name
from labtree.mea.lab import from_lab
from labtree.mea.light import mean_template
from labtree.pipeline.batch import read_literal, read_texts
from labtree.pipeline.session_values import add_metadata
from labtree.pipeline.sessions import add_warning
from labtree.pipeline.steps import step
from labtree.storage.arguments import from_zero


def _rows(path: Path, columns: tuple[str, str]) -> list[dict[str, str]]:
    if not path.is_file():
        raise ConfigurationError(f"{path}: there is no such file")
    found, rows = read_texts(path)
    lacking = [column for column in columns if column not in found]
    if lacking:
        raise ConfigurationError(
            f"{path}: no column {', '.join(lacking)}; expected {', '.join(columns)}, found "
            f"{', '.join(found) or 'nothing'}"
        )
    return rows


def movie_stem(name: str) -> str:
    """Return a movie's name without what follows its first dot."""
    return Path(name.strip()).name.split(".", 1)[0]


def read_playlist(path: str | Path, playlist_name: str) -> list[str]:
    """Return the movies of a playlist, in order.

    The file has the columns ``playlist_name`` and ``movie_names``; the latter is a
    Python list of strings, read as a literal and never run.

    Raises
    ------
    ConfigurationError
        If the playlist is not in the file or stands there twice with other movies, or if
        its movies are not a list of strings.
    """
    path = Path(path)
    rows: dict[str, str] = {}
    for row in _rows(path, ("playlist_name", "movie_names")):
        name, movies = row["playlist_name"].strip(), row["movie_names"]
        if name == playlist_name and rows.get(name, movies) != movies:
            raise ConfigurationError(
                f"{path}: two different playlists are called {name!r}: {rows[name]}, {movies}"
            )
        rows[name] = movies
    if playlist_name not in rows:
        raise ConfigurationError(
            f"{path}: no playlist {playlist_name!r}; there are: {', '.join(map(repr, rows))}"
        )
    names = read_literal(rows[playlist_name].strip(), None)
    is_list = isinstance(names, (list, tuple)) and bool(names)
    if not is_list or not all(isinstance(name, str) and movie_stem(name) for name in names):
        raise ConfigurationError(
            f"{path}: movie_names of playlist {playlist_name!r} must be a list of names such "
            f"as ['noise.mp4', 'steps.mp4'], found {rows[playlist_name]!r}"
        )
    return [movie_stem(name) for name in names]


def read_movie_lengths(path: str | Path) -> dict[str, int]:
    """Return the length of each movie in display frames.

    Raises
    ------
    ConfigurationError
        If a length is not a whole number above 0.
    """
    path = Path(path)
    lengths: dict[str, int] = {}
    for row in _rows(path, ("movie_name", "movie_length")):
        name, text = movie_stem(row["movie_name"]), row["movie_length"]
        try:
            length = float(text)
        except ValueError:
            length = 0.0
        if not (length > 0 and length.is_integer()):
            raise ConfigurationError(
                f"{path}: movie_length of {name!r} must be a number of frames, found {text!r}"
            )
        if lengths.get(name, int(length)) != int(length):
            raise ConfigurationError(f"{path}: two different lengths for movie {name!r}")
        lengths[name] = int(length)
    return lengths


def playlist_sections(
    movies: list[str],
    lengths: dict[str, int],
    n_frames: int,
    *,
    repeats: int = 1,
    pad_frame: int = 180,
    pre_margin_frame_num: int = 60,
    post_margin_frame_num: int = 120,
) -> dict[str, np.ndarray]:
    """Return where each movie of a playlist lies, in display frames.

    With ``count`` frames shown before it, a movie of ``len`` frames begins at ``count
    + pad_frame``; its section begins ``pre_margin`` earlier and ends ``post_margin +
    len + 1`` later; then ``count`` grows by ``2 * pad_frame + len + 1``. Margins that
    reach past the recording are cut there; a movie that does is an error.

    Returns
    -------
    dict
        ``movie`` (names), and int64 arrays ``presentation``, ``movie_start_frame``,
        ``movie_length``, ``start_frame``, ``end_frame``, one entry per section.

    Raises
    ------
    ConfigurationError
        If a movie's length is unknown, or if it was not shown to its end.
    """
    missing = sorted({movie for movie in movies if movie not in lengths})
    if missing:
        raise ConfigurationError(
            f"the movie length table lacks {', '.join(map(repr, missing))}; without it every "
            f"later movie would be misplaced. It has: {', '.join(map(repr, lengths)) or 'none'}"
        )
    from_zero("pad_frame", pad_frame, ConfigurationError)
    from_zero("pre_margin_frame_num", pre_margin_frame_num, ConfigurationError)
    from_zero("post_margin_frame_num", post_margin_frame_num, ConfigurationError)
    rows = []
    shown: dict[str, int] = {}
    count = 0
    movies = movies * max(int(repeats), 1)
    for movie in movies:
        length = lengths[movie]
        first = count + pad_frame
        if first + length > n_frames - 1:
            raise ConfigurationError(
                f"movie {movie!r} (presentation {shown.get(movie, 0)}) needs frames {first} to "
                f"{first + length}, but the recording has {n_frames} frames; check the "
                "playlist, repeats and pad_frame"
            )
        start = max(first - pre_margin_frame_num, 0)
        end = min(first + post_margin_frame_num + length + 1, n_frames - 1)
        rows.append((shown.get(movie, 0), first, length, start, end))
        shown[movie] = shown.get(movie, 0) + 1
        count += 2 * pad_frame + length + 1
    table = np.array(rows, np.int64).T
    names = ("presentation", "movie_start_frame", "movie_length", "start_frame", "end_frame")
    return {
        "movie": np.array(movies, dtype=str),
        **dict(zip(names, table, strict=True)),
    }


def frame_times(session: xr.DataTree) -> np.ndarray:
    """Return the samples at which the display's frames began.

    Raises
    ------
    ConfigurationError
        If the session has none.
    """
    metadata = session.children.get("metadata")
    if metadata is None or "frame_timestamps" not in metadata.data_vars:
        raise ConfigurationError(
            f"session {session.attrs.get('dataset_id')!r} has no frame_timestamps; load the "
            "CMCR with labtree.mea.load_recording(session=session, cmcr_path=...) or add them: "
            "session.session.add_metadata({'frame_timestamps': samples})"
        )
    frames: np.ndarray = metadata.dataset["frame_timestamps"].values.astype(np.int64)
    if (np.diff(frames) <= 0).any():
        raise ConfigurationError("frame_timestamps are not strictly increasing")
    return frames


def sampling_rate(session: xr.DataTree) -> float:
    """Return the samples per second of a session's spikes.

    Raises
    ------
    ConfigurationError
        If its metadata have no ``acquisition_rate``.
    """
    rate = session.children.get("metadata", xr.DataTree()).attrs.get("acquisition_rate")
    if rate is None:
        raise ConfigurationError(
            f"session {session.attrs.get('dataset_id')!r} has no acquisition_rate; load the "
            "recording with labtree.mea.load_recording(session=session, ...) or add it: "
            "session.session.add_metadata({'acquisition_rate': ...}), in samples per second"
        )
    return float(rate)


def section_table(session: xr.DataTree, movie_name: str | None = None) -> xr.Dataset:
    """Return the table of sections, of one movie or of all.

    Raises
    ------
    ConfigurationError
        If the step that makes it has not run.
    UnknownNameError
        (a KeyError) If the movie was not shown; the message lists those that were.
    """
    stimulus = session.children.get("stimulus", xr.DataTree()).children
    if "section_time" not in stimulus or "movie" not in stimulus["section_time"].variables:
        raise ConfigurationError(
            "no section times yet; run labtree.mea.add_section_time(session=session, "
            "playlist_name=...)"
        )
    table = stimulus["section_time"].to_dataset(inherit=False)
    if movie_name is None:
        return table
    own = np.flatnonzero(table["movie"].values == movie_name)
    if not len(own):
        raise unknown_name("movie", movie_name, movies_shown(session))
    return table.isel(section=own)


def movies_shown(session: xr.DataTree) -> list[str]:
    """Return the names of the movies that were shown, in their order."""
    return list(dict.fromkeys(section_table(session)["movie"].values.tolist()))


@step(
    requires=["load_recording"], fills=from_lab("playlist_file_path", "movie_length_file_path")
)
def add_section_time(
    session: xr.DataTree,
    playlist_name: str,
    playlist_file_path: str | Path | None = None,
    movie_length_file_path: str | Path | None = None,
    repeats: int = 1,
    pad_frame: int = 180,
    pre_margin_frame_num: int = 60,
    post_margin_frame_num: int = 120,
) -> xr.DataTree:
    """Place the movies of a playlist in the recording.

    Fills ``stimulus/section_time``, a table with one row per shown movie in order of
    time (``movie``, ``presentation``, ``start`` and ``end`` in samples with margins,
    ``movie_start_frame``, ``movie_length``), and ``stimulus/light_template``, the mean
    light reference of each movie over its presentations.

    Parameters
    ----------
    session : DataTree
    playlist_name : str
    playlist_file_path, movie_length_file_path : path, optional
        See :func:`read_playlist` and :func:`read_movie_lengths`; without them, those of
        the lab, see :func:`labtree.mea.use_lab`.
    repeats : int
        How often the whole playlist was shown.
    pad_frame, pre_margin_frame_num, post_margin_frame_num : int
        Frames around each movie; see :func:`playlist_sections`.

    Returns
    -------
    DataTree
        The session that was given; without ``session=`` a :class:`labtree.StepResult`,
        whose ``hdf5_path`` is what :func:`labtree.load_session` takes.

    Raises
    ------
    ConfigurationError
        If a file, the playlist or a movie's length is missing, or if a movie runs past
        the recording.

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
    >>> session["stimulus/section_time"]["movie"].values.tolist()
    ['noise_a']
    """
    assert playlist_file_path is not None  # filled in
    assert movie_length_file_path is not None
    frames = frame_times(session)
    repeats = max(int(repeats), 1)
    movies = read_playlist(playlist_file_path, playlist_name)
    sections = playlist_sections(
        movies,
        read_movie_lengths(movie_length_file_path),
        len(frames),
        repeats=repeats,
        pad_frame=pad_frame,
        pre_margin_frame_num=pre_margin_frame_num,
        post_margin_frame_num=post_margin_frame_num,
    )
    wanted = (
        sections["movie_start_frame"] + sections["movie_length"] + post_margin_frame_num + 1
    )
    cut = sections["end_frame"] < wanted
    if cut.any():
        names = ", ".join(sections["movie"][cut].tolist())
        add_warning(
            session, f"the margin after {names} reaches past the recording and is cut there"
        )
    table = xr.Dataset(
        {name: ("section", values) for name, values in sections.items()},
        attrs={
            "playlist_name": playlist_name,
            "repeats": repeats,
            "pad_frame": pad_frame,
            "pre_margin_frame_num": pre_margin_frame_num,
            "post_margin_frame_num": post_margin_frame_num,
        },
    )
    for name in ("start", "end"):
        table[name] = ("section", frames[sections[f"{name}_frame"]], {"units": "sample"})
    session["stimulus/section_time"] = xr.DataTree(table.set_coords(["movie", "presentation"]))
    light = session["stimulus"].children.get("light_reference")
    if light is not None and "raw_ch1" in light.data_vars:
        raw = light.dataset["raw_ch1"]
        spans = np.stack([table["start"].values, table["end"].values], axis=1)
        if spans.max(initial=0) > raw.size:
            raise ConfigurationError(
                f"the movies end at sample {spans.max()}, but light_reference/raw_ch1 has "
                f"{raw.size}; they are not of one recording"
            )
        templates = {
            movie: mean_template(raw.values, spans[sections["movie"] == movie])
            for movie in dict.fromkeys(movies)
        }
        variables = {
            movie: (f"{movie}_sample", template, raw.attrs)
            for movie, template in templates.items()
        }
        session["stimulus/light_template"] = xr.DataTree(xr.Dataset(variables))
    about = {"section_time_playlist": playlist_name, "section_time_repeats": repeats}
    add_metadata(session, about)
    return session
