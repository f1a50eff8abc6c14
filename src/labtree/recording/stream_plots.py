"""Plots of a session: its streams over time, with the spans of its labels."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from labtree.display import COLORS
from labtree.errors import DataError
from labtree.optional import require
from labtree.recording.session import labels_frame, stream, streams

if TYPE_CHECKING:
    from matplotlib.axes import Axes


# More points than a screen has columns say nothing more; each column keeps its extremes.
_COLUMNS = 2000
_MOST_TEXTS = 12


def plot_session(
    tree: xr.DataTree,
    names: str | Sequence[str] | None = None,
    *,
    start_s: float | None = None,
    stop_s: float | None = None,
    max_channels: int = 32,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw streams below each other, channels apart, with the spans of the labels behind them.

    Parameters
    ----------
    tree
        A session.
    names
        Streams to show; all that have samples if None.
    start_s, stop_s
        The stretch to show, in s from the first sample of these streams; all of it if None.
    max_channels
        At most this many channels of each stream are shown, evenly spaced.
    ax
        Where to draw; a new figure if None.

    Returns
    -------
    Axes
        A bar beside each stream shows its scale. Channels and labels have a dozen names at
        most; where there are more labels, a legend names their classes.

    Raises
    ------
    DataError
        (a ValueError) The stretch is empty.
    MissingDependencyError
        (an ImportError) matplotlib is not installed.
    """
    pyplot = require("matplotlib.pyplot", purpose="session.plot()", extra="plot")
    if names is None:
        chosen = {name: ds for name, ds in streams(tree).items() if ds.sizes["time"]}
    else:
        names = [names] if isinstance(names, str) else names
        chosen = {name: stream(tree, name) for name in names}
    times = {name: np.asarray(ds["time"].values, float) for name, ds in chosen.items()}
    finite = [t[np.isfinite(t)] for t in times.values()]
    zero = min((float(t.min()) for t in finite if len(t)), default=0.0)
    end = max((float(t.max()) for t in finite if len(t)), default=zero) - zero
    first = 0.0 if start_s is None else float(start_s)
    last = end if stop_s is None else float(stop_s)
    if chosen and not (last > first or (start_s is None and stop_s is None)):
        raise DataError(f"the stretch from {first:g} s to {last:g} s is empty")
    rows = sum(_rows(ds, max_channels) for ds in chosen.values()) + len(chosen)
    if ax is None:
        height = float(np.clip(1.5 + 0.25 * rows, 2.5, 10))
        _, ax = pyplot.subplots(figsize=(10, height), layout="constrained")
    _plot_labels(ax, labels_frame(tree), zero, first, max(last, first))
    top, named = 0.0, []
    for name, ds in chosen.items():
        at = times[name] - zero
        part = np.flatnonzero((at >= first) & (at <= last))
        whole = slice(int(part[0]), int(part[-1]) + 1) if len(part) else slice(0, 0)
        data = ds["data"][whole]
        n_rows = _rows(ds, max_channels)
        channels = np.linspace(0, data.shape[1] - 1, n_rows).astype(int)
        named.append(_plot_stream(ax, name, data[:, channels], at[whole], channels, top))
        top -= n_rows + 1
    step = 1
    while step < max_channels and sum(-(-len(own) // step) for own in named) > _MOST_TEXTS:
        step += 1
    ticks = [tick for own in named for tick in own[::step]]
    step = -(-len(ticks) // _MOST_TEXTS) or 1
    ax.set_yticks([place for place, _ in ticks[::step]], [text for _, text in ticks[::step]])
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(top + 0.5, 1.0)
    if last > first:
        ax.set_xlim(first, last)
    ax.set_xlabel("Time from the first sample (s)")
    ax.spines[["top", "right", "left"]].set_visible(False)
    return ax


def _rows(ds: xr.Dataset, most: int) -> int:
    return max(1, min(ds.sizes["channel"], most))


def _plot_stream(
    ax: "Axes",
    name: str,
    data: xr.DataArray,
    times: np.ndarray,
    channels: np.ndarray,
    top: float,
) -> list[tuple[float, str]]:
    """Draw one stream from a height on downward; return where its channels are, and names."""
    at, samples = _envelope(data, times)
    ranges = [_middle_and_spread(channel) for channel in samples.T]
    middle = np.array([middle for middle, _ in ranges])
    spread = max((spread for _, spread in ranges), default=1.0)
    places = top - np.arange(len(channels))
    drawn = (samples - middle) / spread * 0.9 + places
    ax.plot(at, drawn, linewidth=0.5, color="black", rasterized=True)
    units = str(data.attrs.get("units") or "")
    _scale_bar(ax, float(places[0]), spread / 0.9, units)
    if len(channels) == 1:
        return [(float(places[0]), name)]
    labels = data["channel"].values if "channel" in data.coords else channels
    return [
        (float(place), f"{name} {label}") for place, label in zip(places, labels, strict=True)
    ]


def _scale_bar(ax: "Axes", place: float, row: float, units: str) -> None:
    """Draw a bar of a round size right of the axes; ``row`` is what one row's height means."""
    if not np.isfinite(row) or row <= 0:
        return
    power = 10.0 ** np.floor(np.log10(row))
    size = power * max(step for step in (1, 2, 5) if step * power <= row * (1 + 1e-9))
    height = size / row
    across = ax.get_yaxis_transform()
    low, high = place - height / 2, place + height / 2
    ax.plot([1.01, 1.01], [low, high], transform=across, color="black", lw=2, clip_on=False)
    text = f"{size:g} {units.replace('uV', 'µV')}".strip()
    ax.text(1.018, place, text, transform=across, va="center", fontsize="small")


def _envelope(data: xr.DataArray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return times and samples with the lowest and highest of every stretch of a column."""
    n = len(times)
    if n <= 2 * _COLUMNS:
        return times, np.asarray(data.values, float)
    edges = np.linspace(0, n, _COLUMNS + 1).astype(int)
    shown = np.empty((2 * _COLUMNS, data.shape[1]))
    # A hundred stretches at a time: hours of a recording do not fit into memory.
    for first in range(0, _COLUMNS, 100):
        part = edges[first : first + 101]
        block = np.asarray(data[part[0] : part[-1]].values, float)
        starts = part[:-1] - part[0]
        shown[2 * first : 2 * first + 2 * len(starts) : 2] = np.minimum.reduceat(block, starts)
        shown[2 * first + 1 : 2 * first + 2 * len(starts) : 2] = np.maximum.reduceat(
            block, starts
        )
    return np.repeat(times[edges[:-1]], 2), shown


def _middle_and_spread(samples: np.ndarray) -> tuple[float, float]:
    """Return the median of the finite samples, and what nearly all of them lie within."""
    finite = samples[np.isfinite(samples)]
    if len(finite) == 0:
        return 0.0, 1.0
    low, middle, high = np.percentile(finite, [0.5, 50, 99.5])
    return float(middle), float(high - low) or 1.0


def _spans(
    labels: Any, zero: float, first: float, last: float
) -> Iterator[tuple[float, float, int, str]]:
    """Yield start, stop, class and name of the labels between two times."""
    if labels.empty:
        return
    moments = labels["timestamp"].to_numpy(float) - zero
    stops = np.append(moments[1:], max(last, moments[-1:].max(initial=0.0)))
    rows = zip(moments, stops, labels["class_index"], labels["class_name"], strict=True)
    for moment, stop, index, text in rows:
        known = index >= 0 and np.isfinite([moment, stop]).all()
        if known and moment <= last and stop >= first:
            yield max(moment, first), min(stop, last), int(index), str(text)


def _plot_labels(ax: "Axes", labels: Any, zero: float, first: float, last: float) -> None:
    """Shade the span of every class, and name it at its beginning or in a legend."""
    spans = list(_spans(labels, zero, first, last))
    named: dict[tuple[int, str], Any] = {}
    for start, stop, index, text in spans:
        color = COLORS[index % len(COLORS)]
        patch = ax.axvspan(start, stop, color=color, alpha=0.3, linewidth=0)
        named.setdefault((index, text), patch)
        if len(spans) <= _MOST_TEXTS:
            ax.annotate(
                text,
                (start, 1),
                xycoords=("data", "axes fraction"),
                xytext=(2, 2),
                textcoords="offset points",
                va="bottom",
                fontsize="small",
            )
    if len(spans) > _MOST_TEXTS:
        shown = sorted(named)[:_MOST_TEXTS]
        ax.legend(
            [named[key] for key in shown],
            [text for _, text in shown],
            loc="lower left",
            bbox_to_anchor=(0, 1.0),
            ncols=6,
            frameon=False,
            fontsize="small",
        )
