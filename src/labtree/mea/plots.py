"""Pictures of sectioned spikes, spike-triggered averages and electrical images."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from labtree.errors import unknown_name
from labtree.mea.recording import to_physical
from labtree.optional import require
from labtree.pipeline.per_unit import unit_index
from labtree.pipeline.sections import checked_sections
from labtree.pipeline.sessions import units_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_electrical_image", "plot_raster", "plot_sta"]

Array = np.ndarray[Any, Any]


def _figure(**kwargs: Any) -> "tuple[Figure, Any]":
    figure, axes = _pyplot().subplots(**kwargs)
    return figure, axes


def _pyplot() -> Any:
    return require("matplotlib.pyplot", purpose="plotting", extra="plot")


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

    Returns
    -------
    Axes
    """
    units, sections = units_of(session), checked_sections(session, movie_name)
    ids = list(units["unit"].values) if unit_ids is None else list(unit_ids)
    rate = float(session["metadata"].attrs["acquisition_rate"])
    spikes = units["spike_times"].values
    begin = sections["trial_start"].values.ravel()
    length = float((sections["trial_end"] - sections["trial_start"]).max()) / rate
    n_trials = len(begin)
    if ax is None:
        height = min(2 + 0.06 * len(ids) * n_trials, 12)
        _, ax = _pyplot().subplots(figsize=(8, height), layout="constrained")
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
    nodes = session.children["features"].children if "features" in session.children else {}
    if name not in nodes:
        raise unknown_name("feature", name, nodes)
    dataset = nodes[name].to_dataset(inherit=False)
    return dataset.isel(unit=unit_index(dataset, unit_id))


def plot_sta(
    session: xr.DataTree, unit_id: str, movie_name: str | None = None, *, n_frames: int = 8
) -> "Figure":
    """Draw a unit's spike-triggered average: frames, and the strongest pixel in time.

    Parameters
    ----------
    session : DataTree
    unit_id : str
    movie_name : str, optional
        By default the only one with an average.
    n_frames : int
        Frames around the strongest one.

    Returns
    -------
    Figure
    """
    nodes = session.children["features"].children if "features" in session.children else {}
    averages = [str(name) for name in nodes if str(name).startswith("sta_")]
    if movie_name is None and len(averages) != 1:
        raise unknown_name("spike-triggered average", movie_name, averages)
    name = f"sta_{movie_name}" if movie_name is not None else averages[0]
    data = _feature_of(session, name, unit_id)
    sta = data["sta"]
    plt = _pyplot()
    n_shown = min(n_frames, sta.sizes["lag"])
    figure: Figure
    figure, axes = plt.subplot_mosaic(
        [list(range(n_shown)), ["course"] * n_shown],
        figsize=(1.5 * n_shown, 4.2), height_ratios=[1, 1.2], layout="constrained",
    )  # fmt: skip
    figure.suptitle(f"{unit_id}: {name.removeprefix('sta_')}, {int(data['n_spikes'])} spikes")
    if not np.isfinite(sta).all():
        axes["course"].text(0.5, 0.5, "no valid spike", ha="center", va="center")
        return figure
    values = sta.values.astype(np.float64)
    values -= np.median(values)
    reach = float(np.abs(values).max()) or 1.0
    peak = np.unravel_index(np.abs(values).argmax(), values.shape)
    first = int(np.clip(peak[0] - n_shown // 2, 0, len(values) - n_shown))
    for place in range(n_shown):
        frame, ax = values[first + place], axes[place]
        image = ax.imshow(
            np.atleast_2d(frame),
            cmap="RdBu_r",
            vmin=-reach,
            vmax=reach,
            interpolation="nearest",
        )
        ax.set_title(f"{int(sta['lag'][first + place])}", fontsize=9)
        ax.set_xticks([])
        ax.set_yticks([])
    axes[0].set_ylabel("lag (frames):", rotation=0, ha="right", va="bottom", y=1.0, fontsize=9)
    figure.colorbar(
        image, ax=[axes[i] for i in range(n_shown)], label="off the median", shrink=0.9
    )
    course = axes["course"]
    strongest = values.reshape(len(values), -1)[
        :, np.ravel_multi_index(peak[1:], values.shape[1:])
    ]
    course.plot(sta["lag"], strongest, color="k", marker=".", lw=1)
    course.axhline(0, color="0.7", lw=0.8)
    where = ", ".join(f"{dim} {int(i)}" for dim, i in zip(sta.dims[1:], peak[1:], strict=True))
    course.set_xlabel("lag from the spike (display frames)")
    course.set_ylabel(f"off the median, pixel {where}")
    return figure


def plot_electrical_image(session: xr.DataTree, unit_id: str, *, n_traces: int = 5) -> "Figure":
    """Draw a unit's electrical image: amplitude on the array, and strongest sensors.

    Parameters
    ----------
    session : DataTree
    unit_id : str
    n_traces : int
        Sensors whose course is drawn.

    Returns
    -------
    Figure
    """
    data = _feature_of(session, "eimage_sta", unit_id)
    image, unit = data["eimage_sta"], "count"
    if "conversion_factor" in image.coords:
        image, unit = to_physical(image) * 1e6, "µV"
    figure, (left, right) = _figure(ncols=2, figsize=(9, 3.8), layout="constrained")
    figure.suptitle(f"{unit_id}: electrical image, {int(data['n_spikes'])} spikes")
    values = image.values
    extent = np.ptp(values, axis=0)
    y, x = image["y"].values, image["x"].values
    edges = (x[0] - 0.5, x[-1] + 0.5, y[-1] + 0.5, y[0] - 0.5)
    shown = left.imshow(extent, extent=edges, cmap="magma", interpolation="nearest")
    figure.colorbar(shown, ax=left, label=f"peak to peak ({unit})")
    units = units_of(session)
    if {"row", "column"} <= set(units.coords):
        own = units.isel(unit=unit_index(units, unit_id))
        left.plot(int(own["column"]), int(own["row"]), "o", mfc="none", mec="c", ms=14)
    left.set_xlabel("column")
    left.set_ylabel("row")
    rate = float(session["features/eimage_sta"].attrs["sampling_rate"])
    time = image["window_sample"].values / rate * 1e3
    if np.isfinite(extent).all():
        strongest = np.argsort(extent, axis=None)[::-1][:n_traces]
        for flat in strongest:
            row, column = np.unravel_index(flat, extent.shape)
            label = f"row {y[row]}, column {x[column]}"
            right.plot(time, values[:, row, column], lw=1.2, label=label)
        right.legend(frameon=False, fontsize=8)
    else:
        right.text(
            0.5, 0.5, "no valid spike", ha="center", va="center", transform=right.transAxes
        )
    right.axvline(0, color="0.8", lw=0.8)
    right.set_xlabel("time from the spike (ms)")
    right.set_ylabel(f"amplitude ({unit})")
    return figure
