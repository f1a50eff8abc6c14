"""Pictures of sectioned spikes, spike-triggered averages and electrical images."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from labtree.display.figures import given_or_new_axes
from labtree.errors import ConfigurationError, UnknownNameError
from labtree.mea.playlists import sampling_rate
from labtree.mea.recording import to_physical
from labtree.optional import require
from labtree.pipeline.per_unit import unit_index
from labtree.pipeline.sections import checked_sections
from labtree.pipeline.session_values import named_dataset
from labtree.pipeline.sessions import units_of
from labtree.pipeline.units import feature_nodes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_raster(
    session: xr.DataTree,
    movie_name: str,
    unit_ids: Iterable[str] | None = None,
    *,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw each unit's spikes in every trial of a movie, time from the trial's start.

    Parameters
    ----------
    session : DataTree
    movie_name : str
    unit_ids : iterable of str, optional
        All units by default.
    ax : Axes, optional
        Draw here.

    Returns
    -------
    Axes

    Raises
    ------
    UnknownNameError
        If the movie has no sections, or if there is no such unit.

    Examples
    --------
    >>> ax = labtree.mea.plot_raster(session, "step_a")  # doctest: +SKIP
    """
    units, sections = units_of(session), checked_sections(session, movie_name)
    ids = list(units["unit"].values) if unit_ids is None else list(unit_ids)
    rate = sampling_rate(session)
    spikes = units["spike_times"].values
    begin = sections["trial_start"].values.ravel()
    length = float((sections["trial_end"] - sections["trial_start"]).max()) / rate
    n_trials = len(begin)
    height = min(2 + 0.06 * len(ids) * n_trials, 12)
    ax = given_or_new_axes(ax, purpose="plotting", figsize=(8, height))
    lines, offsets, colors = [], [], []
    for place, unit in enumerate(ids):
        row = unit_index(sections, unit)
        start, stop = (sections[name].values[row].ravel() for name in ("start", "stop"))
        for trial in range(n_trials):
            lines.append((spikes[start[trial] : stop[trial]] - begin[trial]) / rate)
            offsets.append(place * (n_trials + 1) + trial)
            colors.append(f"C{place % 10}")
    if lines:
        ax.eventplot(
            lines, lineoffsets=offsets, colors=colors, linelengths=0.85, linewidths=0.8
        )
    middle = [place * (n_trials + 1) + (n_trials - 1) / 2 for place in range(len(ids))]
    step = max(len(ids) // 25, 1)
    ax.set_yticks(middle[::step], ids[::step])
    pad_before, pad_after = (
        int(sections.attrs.get(n, 0)) / rate for n in ("pre_samples", "post_samples")
    )
    ax.set_xlim(-pad_before, length + pad_after)
    ax.set_ylim(-1, max(len(ids) * (n_trials + 1), 1))
    ax.invert_yaxis()
    if pad_before or pad_after:
        ax.axvspan(0, length, color="0.93", zorder=0)
    ax.set_xlabel("time from the start of the trial (s)")
    trials = "trial" if n_trials == 1 else f"{n_trials} trials, first on top"
    ax.set_ylabel(f"unit ({trials})")
    ax.set_title(f"{session.attrs['dataset_id']}: {movie_name}")
    return ax


def _feature_of(session: xr.DataTree, name: str, unit_id: str) -> xr.Dataset:
    dataset = named_dataset(session, "features", name, "feature")
    return dataset.isel(unit=unit_index(dataset, unit_id))


def _say_no_spike(ax: "Axes") -> None:
    ax.text(0.5, 0.5, "no valid spike", ha="center", va="center", transform=ax.transAxes)


def _reach(values: np.ndarray) -> float:
    """Return where a color scale ends: what all but 0.2 % of the values stay below."""
    size = np.abs(values)
    return float(np.quantile(size, 0.998)) or float(size.max()) or 1.0


def _sta_of(
    session: xr.DataTree, unit_id: str, movie_name: str | None
) -> tuple[str, xr.Dataset]:
    averages = [name for name in feature_nodes(session) if name.startswith("sta_")]
    if movie_name is None and not averages:
        raise UnknownNameError(
            "the session has no spike-triggered average; run "
            "labtree.mea.compute_sta(session=session) first"
        )
    if movie_name is None and len(averages) > 1:
        movies = ", ".join(repr(name.removeprefix("sta_")) for name in averages)
        raise UnknownNameError(f"there are averages of several movies: write one of {movies}")
    name = f"sta_{movie_name}" if movie_name is not None else averages[0]
    data = _feature_of(session, name, unit_id)
    if "sta" not in data or "lag" not in data.coords:
        raise ConfigurationError(
            f"feature {name!r} was not computed by labtree, so its lags are not known; run "
            "labtree.mea.compute_sta(session=session, ...)"
        )
    return name.removeprefix("sta_"), data


def _lag_ms(session: xr.DataTree, lags: np.ndarray) -> tuple[np.ndarray, str]:
    """Return lags in ms, as the display showed its frames; in frames where that is unknown."""
    metadata = session.children.get("metadata", xr.DataTree())
    frames = metadata.data_vars.get("frame_timestamps")
    rate = metadata.attrs.get("acquisition_rate")
    if frames is None or rate is None or frames.size < 2:
        return lags, "frames"
    return lags * float(np.median(np.diff(frames.values))) / float(rate) * 1000, "ms"


def plot_sta(
    session: xr.DataTree,
    unit_id: str,
    movie_name: str | None = None,
    *,
    n_frames: int = 8,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw a unit's spike-triggered average: maps, and the time course of the strongest pixel.

    Colors are symmetric about the median of all pixels and lags; the strongest 0.2 % of
    the values do not set the scale.

    Parameters
    ----------
    session : DataTree
    unit_id : str
    movie_name : str, optional
        By default the only one with an average.
    n_frames : int
        Maps around the strongest one.
    ax : Axes, optional
        Draw the map at the strongest lag here, and nothing else.

    Returns
    -------
    Axes
        Of the map at the strongest lag; without `ax`, ``ax.figure`` is the whole picture.

    Raises
    ------
    UnknownNameError
        If the session has no such average or unit.

    Examples
    --------
    >>> ax = labtree.mea.plot_sta(session, "unit_001")  # doctest: +SKIP
    >>> ax.figure.savefig("unit_001.png")  # doctest: +SKIP
    """
    movie, data = _sta_of(session, unit_id, movie_name)
    sta = data["sta"]
    title = f"{unit_id}: {movie}, {int(data['n_spikes'])} spikes"
    lags, unit = _lag_ms(session, sta["lag"].values)
    values = sta.values.astype(np.float64)
    is_empty = not np.isfinite(values).all()
    values = np.zeros_like(values) if is_empty else values - np.median(values)
    peak = np.unravel_index(np.abs(values).argmax(), values.shape)
    n_shown = 1 if ax is not None else min(n_frames, len(values))
    first = int(np.clip(peak[0] - n_shown // 2, 0, len(values) - n_shown))
    course: Axes | None = None
    if ax is not None:
        maps = [ax]
        ax.set_title(f"{title}, {lags[first]:.0f} {unit}")
    else:
        pyplot = require("matplotlib.pyplot", purpose="plotting", extra="plot")
        figure, axes = pyplot.subplot_mosaic(
            [list(range(n_shown)), ["course"] * n_shown],
            figsize=(max(1.5 * n_shown, 4), 4.6), height_ratios=[1, 1.1], layout="constrained",
        )  # fmt: skip
        figure.suptitle(title)
        maps, course = [axes[place] for place in range(n_shown)], axes["course"]
    reach = _reach(values)
    for place, where in enumerate(maps):
        image = where.imshow(
            np.atleast_2d(values[first + place]), cmap="RdBu_r", vmin=-reach, vmax=reach,
            interpolation="nearest",
        )  # fmt: skip
        if course is not None:
            where.set_title(f"{lags[first + place]:.0f} {unit}", fontsize=9)
        if place == 0:
            where.set_xlabel("x (pixel)")
            where.set_ylabel("y (pixel)")
        else:
            where.tick_params(labelleft=False, labelbottom=False)
    label = f"mean of {movie},\nless its median"
    bar = maps[0].figure.colorbar(image, ax=maps, label=label, shrink=0.9, extend="both")
    bar.ax.tick_params(labelsize=8)
    strongest = maps[int(peak[0]) - first]
    if is_empty:
        _say_no_spike(strongest if course is None else course)
    elif course is not None:
        pixel = np.ravel_multi_index(peak[1:], values.shape[1:])
        course.plot(
            lags, values.reshape(len(values), -1)[:, pixel], color="k", marker=".", lw=1
        )
        course.axhline(0, color="0.7", lw=0.8)
        place_of = ", ".join(
            f"{d} {int(i)}" for d, i in zip(sta.dims[1:], peak[1:], strict=True)
        )
        course.set_xlabel(f"time from the spike ({unit})")
        course.set_ylabel(f"pixel {place_of}")
    return strongest


def plot_electrical_image(
    session: xr.DataTree, unit_id: str, *, n_traces: int = 5, ax: "Axes | None" = None
) -> "Axes":
    """Draw a unit's electrical image: amplitude on the array, and the strongest sensors.

    Parameters
    ----------
    session : DataTree
    unit_id : str
    n_traces : int
        Number of sensors whose time course is drawn.
    ax : Axes, optional
        Draw the amplitude on the array here, and nothing else.

    Returns
    -------
    Axes
        Of the amplitude on the array; without `ax`, ``ax.figure`` is the whole picture.

    Raises
    ------
    UnknownNameError
        If the session has no electrical images, or no such unit.

    Examples
    --------
    >>> ax = labtree.mea.plot_electrical_image(session, "unit_001")  # doctest: +SKIP
    """
    if "eimage_sta" not in feature_nodes(session):
        raise UnknownNameError(
            "the session has no electrical images; run "
            "labtree.mea.load_recording_with_eimage_sta(session=session) first"
        )
    data = _feature_of(session, "eimage_sta", unit_id)
    image, unit = data["eimage_sta"], "count"
    if "conversion_factor" in image.coords:
        image, unit = to_physical(image) * 1e6, "µV"
    title = f"{unit_id}: electrical image, {int(data['n_spikes'])} spikes"
    traces: Axes | None = None
    if ax is None:
        pyplot = require("matplotlib.pyplot", purpose="plotting", extra="plot")
        figure, (ax, traces) = pyplot.subplots(ncols=2, figsize=(9, 3.8), layout="constrained")
        figure.suptitle(title)
    else:
        ax.set_title(title)
    values = image.values
    extent = np.ptp(values, axis=0)
    y, x = image["y"].values, image["x"].values
    edges = (x[0] - 0.5, x[-1] + 0.5, y[-1] + 0.5, y[0] - 0.5)
    shown = ax.imshow(extent, extent=edges, cmap="magma", interpolation="nearest")
    ax.figure.colorbar(shown, ax=ax, label=f"peak to peak ({unit})")
    units = units_of(session)
    if {"row", "column"} <= set(units.coords):
        own = units.isel(unit=unit_index(units, unit_id))
        ax.plot(int(own["column"]), int(own["row"]), "o", mfc="none", mec="c", ms=14)
    ax.set_xlabel("column (sensor)")
    ax.set_ylabel("row (sensor)")
    if not np.isfinite(extent).all():
        _say_no_spike(ax if traces is None else traces)
    elif traces is not None:
        rate = float(session["features/eimage_sta"].attrs["sampling_rate"])
        time = image["window_sample"].values / rate * 1e3
        for flat in np.argsort(extent, axis=None)[::-1][:n_traces]:
            row, column = np.unravel_index(flat, extent.shape)
            label = f"row {y[row]}, column {x[column]}"
            traces.plot(time, values[:, row, column], lw=1.2, label=label)
        traces.legend(frameon=False, fontsize=8)
    if traces is not None:
        traces.axvline(0, color="0.8", lw=0.8)
        traces.set_xlabel("time from the spike (ms)")
        traces.set_ylabel(f"amplitude ({unit})")
    return ax
