"""One picture of the demonstration, as SVG.

Written without a plotting library, so that the smallest install can draw it.
"""

from dataclasses import dataclass
from html import escape

import numpy as np
import xarray as xr

from labtree.workspace.operations import get

_WIDTH, _HEIGHT = 960, 560
_INK, _GRAY, _LINE = "#1f2933", "#7b8794", "#d9e2ec"
_COLORS = {"grasshopper1": "#2364aa", "grasshopper2": "#c8553d"}
#: The part of the recordings that is shown, in ms.
_START, _STOP = 1000.0, 1400.0


@dataclass(slots=True)
class _Panel:
    """A rectangle of the picture with an axis of data in each direction."""

    left: float
    top: float
    width: float
    height: float
    x: tuple[float, float]
    y: tuple[float, float]

    def points(self, x: np.ndarray, y: np.ndarray) -> str:
        """Return data as the coordinates of an SVG polyline."""
        across = self.left + (x - self.x[0]) / (self.x[1] - self.x[0]) * self.width
        down = self.top + self.height - (y - self.y[0]) / (self.y[1] - self.y[0]) * self.height
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across, down, strict=True))

    def line(self, x: np.ndarray, y: np.ndarray, color: str, width: float = 1.4) -> str:
        """Return a curve."""
        return (
            f'<polyline points="{self.points(x, y)}" fill="none" stroke="{color}" '
            f'stroke-width="{width}" stroke-linejoin="round"/>'
        )

    def area(self, x: np.ndarray, low: np.ndarray, high: np.ndarray, color: str) -> str:
        """Return what lies between two curves, filled."""
        around = np.concatenate([x, x[::-1]]), np.concatenate([low, high[::-1]])
        return f'<polygon points="{self.points(*around)}" fill="{color}" fill-opacity="0.25"/>'

    def axes(
        self, x_ticks: list[float], y_ticks: list[float], x_label: str, y_label: str
    ) -> str:
        """Return ticks, their numbers, grid lines and the labels with units."""
        parts = []
        bottom = self.top + self.height
        for tick in x_ticks:
            at = float(self.points(np.array([tick]), np.array([self.y[0]])).split(",")[0])
            parts.append(_path(f"M{at:.1f} {bottom}v4", _GRAY))
            parts.append(_text(at, bottom + 17, f"{tick:g}", "middle"))
        for tick in y_ticks:
            at = float(self.points(np.array([self.x[0]]), np.array([tick])).split(",")[1])
            parts.append(_path(f"M{self.left} {at:.1f}h{self.width}", _LINE))
            parts.append(_text(self.left - 7, at + 4, f"{tick:g}", "end"))
        parts.append(_path(f"M{self.left} {bottom}h{self.width}", _GRAY))
        parts.append(_text(self.left + self.width / 2, bottom + 34, x_label, "middle"))
        x, y = self.left - 40, self.top + self.height / 2
        turned = f'transform="rotate(-90 {x} {y})"'
        return "".join([*parts, _text(x, y, y_label, "middle", extra=turned)])


def _path(steps: str, color: str, width: float = 1.0) -> str:
    return f'<path d="{steps}" stroke="{color}" stroke-width="{width}" fill="none"/>'


def _text(
    x: float, y: float, text: str, anchor: str = "start", *, style: str = "", extra: str = ""
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {style} {extra}>'
        f"{escape(text)}</text>"
    )


def draw(tree: xr.DataTree) -> str:
    """Return the picture of a demonstration workspace as SVG text.

    Parameters
    ----------
    tree
        As :func:`labtree.demo.grasshopper.build_workspace` makes it; lazy trees too: only
        the part that is drawn is read.
    """
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}" height="{_HEIGHT}" font-family="Helvetica, Arial, sans-serif" '
        f'font-size="12" fill="{_INK}">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        _title(36, 30, "Two grasshopper auditory receptors"),
        _text(36, 50, "sound envelope, spikes and firing rate"),
        _text(700, 50, "mean stimulus around a spike"),
    ]
    for row, name in enumerate(_COLORS):
        parts += _row(tree, name, 74 + row * 246, _COLORS[name])
    return "\n".join([*parts, "</svg>\n"])


def _title(x: float, y: float, text: str) -> str:
    return _text(x, y, text, style='font-size="18" font-weight="bold"')


def _row(tree: xr.DataTree, name: str, top: float, color: str) -> list[str]:
    # A fifth of a millisecond is finer than the picture's pixels.
    stimulus = tree[name]["stimulus"].dataset["data"].sel(time=slice(_START, _STOP))[::4]
    rate = tree[name]["rate"].dataset
    shown = rate.sel(time=slice(_START, _STOP))
    spikes = get(tree, name, "spikes")["spike_times"].values
    spikes = spikes[(spikes >= _START) & (spikes <= _STOP)]
    time = (_START, _STOP)
    envelope = _Panel(82, top, 540, 70, time, (0.0, float(stimulus.max()) * 1.05))
    rates = _Panel(82, top + 100, 540, 74, time, (0.0, 200.0))
    ticks = "".join(
        f"M{float(at.split(',')[0]):.1f} {top + 78}v14"
        for at in rates.points(spikes, np.zeros(spikes.size)).split()
    )
    values = shown["rate"].values[0]
    parts = [
        envelope.axes([], [0, 0.5], "", "amplitude"),
        envelope.line(stimulus["time"].values, stimulus.values, _GRAY, 1.1),
        _path(ticks, color, 1.6),
        rates.axes([1000, 1100, 1200, 1300, 1400], [0, 100, 200], "time (ms)", "rate (Hz)"),
        rates.area(shown["time"].values, np.zeros(values.size), values, color),
        rates.line(shown["time"].values, values, color),
    ]
    return parts + _average(tree[name]["sta"].dataset, name, top, color)


def _average(sta: xr.Dataset, name: str, top: float, color: str) -> list[str]:
    lag, mean = sta["lag"].values, sta["average"].values
    error = 2 * sta["standard_error"].values
    panel = _Panel(746, top, 180, 174, (float(lag[0]), float(lag[-1])), (0.08, 0.33))
    level = np.full(2, sta.attrs["mean_stimulus"])
    ends = np.array([lag[0], lag[-1]])
    zero = panel.points(np.zeros(2), np.array(panel.y)).replace(" ", "L")
    count = f"{name}, n = {sta.attrs['n_spikes']}"
    return [
        panel.axes([-15, -10, -5, 0, 5], [0.1, 0.2, 0.3], "lag (ms)", "amplitude"),
        panel.line(ends, level, _GRAY, 1.0),
        _path(f"M{zero}", _GRAY),
        panel.area(lag, mean - error, mean + error, color),
        panel.line(lag, mean, color, 2.0),
        _text(panel.left + 6, panel.top + 12, count, style=f'fill="{color}"'),
    ]
