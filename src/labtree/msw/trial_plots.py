"""Figures of a session: how it went, what the state machine did, how blocks were learned."""

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from labtree.display import COLORS
from labtree.display.figures import given_or_new_axes
from labtree.errors import TrialTableError
from labtree.msw.measures import blocks, outcome, rolling, switch_curve
from labtree.msw.trial_queries import numbers_of, state_table, task_trials, trial_numbers
from labtree.storage.arguments import one_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


Kind = Literal["overview", "states", "switch_curve"]
_BLUE, _ORANGE, _RED, _GRAY = COLORS[4], COLORS[0], COLORS[5], "#777777"
_COLORS = {
    "rewarded": _BLUE,
    "correct": _BLUE,
    "unrewarded": _ORANGE,
    "incorrect": _ORANGE,
    "no_response": _GRAY,
}
_HATCHES = ("", "////", "....", "xxxx", "----")


def _axes(ax: "Axes | None") -> "Axes":
    return given_or_new_axes(ax, purpose="df.msw.plot()", figsize=(9, 3.5))


def plot_trials(
    frame: pd.DataFrame, kind: Kind = "overview", ax: "Axes | None" = None
) -> "Axes":
    """Draw a figure of a session: see ``df.msw.plot``."""
    draw = {"overview": plot_overview, "states": plot_states, "switch_curve": plot_switch_curve}
    one_of("kind", kind, draw, TrialTableError)
    return draw[kind](frame, ax)


def plot_overview(frame: pd.DataFrame, ax: "Axes | None" = None, n: int = 20) -> "Axes":
    """Draw each trial's choice and outcome, the rolling performance, and block edges.

    Parameters
    ----------
    frame : pandas.DataFrame
        Trials of a task with choices, or of one with outcomes.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure unless given.
    n : int
        Trials in the rolling mean.
    """
    ax = _axes(ax)
    task = task_trials(frame)
    x = np.arange(len(task))
    named = outcome(task).fillna("no_response")
    if "choice" in task:
        chose = numbers_of(task, "choice")
        height = np.where(np.isnan(chose), 0.5, (chose + 1) / 2)
        good, label = pd.Series(numbers_of(task, "rewarded"), task.index), "rewarded"
    else:
        height = np.full(len(task), 1.0)
        good, label = (named == "correct").astype(float), "correct"
    # Outside of the range of fractions, so that marks and curve do not cover each other.
    height = np.where(height == 0.5, 0.5, np.where(height > 0.5, 1.12, -0.12))
    for name in dict.fromkeys(named):
        chosen = (named == name).to_numpy()
        ax.plot(
            x[chosen],
            height[chosen],
            "x" if name == "no_response" else "|",
            color=_COLORS.get(name, "#333333"),
            markersize=4 if name == "no_response" else 9,
            label=str(name).replace("_", " "),
        )
    running = rolling(task.assign(good=good), "good", n).to_numpy()
    ax.plot(x, running, color="black", linewidth=1.2, label=f"{label}, mean of {n}")
    if "choice" in task:
        right = pd.Series((chose > 0).astype(float), task.index).where(~np.isnan(chose))
        side = rolling(task.assign(right=right), "right", n).to_numpy()
        ax.plot(x, side, color=_RED, lw=1.2, ls="--", label=f"right, mean of {n}")
    if "block_number" in task:
        edges = np.cumsum(blocks(task)["n_trials"].to_numpy())[:-1]
        for edge in edges:
            ax.axvline(edge - 0.5, color="#bbbbbb", linewidth=0.8, zorder=0)
    if "choice" in task:
        across = ax.get_yaxis_transform()
        for place, text in ((-0.12, "left"), (1.12, "right")):
            ax.text(1.01, place, text, transform=across, va="center", fontsize="small")
    ax.set_yticks([0, 0.5, 1])
    ax.set(
        xlabel="task trial", ylabel="fraction", ylim=(-0.2, 1.2), xlim=(-1, max(len(task), 1))
    )
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize="small")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def plot_states(frame: pd.DataFrame, ax: "Axes | None" = None) -> "Axes":
    """Draw which state the machine was in, trial by trial, from each trial's start.

    Parameters
    ----------
    frame : pandas.DataFrame
        Trials; barcode rows are left out.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure unless given.
    """
    ax = _axes(ax)
    from matplotlib.collections import PolyCollection

    task = task_trials(frame)
    visits = state_table(task)
    places = {trial: place for place, trial in enumerate(trial_numbers(task))}
    row = visits["trial"].map(places)
    names = [name for name in visits["state"].cat.categories if (visits["state"] == name).any()]
    for number, name in enumerate(names):
        turn, place = divmod(number, len(COLORS))
        color, hatch = COLORS[place], _HATCHES[turn % len(_HATCHES)]
        there = (visits["state"] == name).to_numpy()
        a, b = visits["start"].to_numpy()[there], visits["end"].to_numpy()[there]
        y = row.to_numpy(float)[there]
        corners = np.stack(
            [np.stack([a, b, b, a], 1), np.stack([y - 0.5, y - 0.5, y + 0.5, y + 0.5], 1)],
            axis=2,
        )
        ax.add_collection(
            PolyCollection(
                list(corners),
                facecolor=color,
                edgecolor="white" if hatch else "none",
                hatch=hatch,
                linewidth=0,
                label=name,
            )
        )
    longest = float(visits["end"].max()) if len(visits) else 1.0
    ax.set(
        xlabel="time in trial (s)",
        ylabel="task trial",
        xlim=(0, longest),
        ylim=(max(len(task), 1) - 0.5, -0.5),
    )
    if names:
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize="x-small")
    return ax


def plot_switch_curve(frame: pd.DataFrame, ax: "Axes | None" = None) -> "Axes":
    """Draw how the choices follow a switch of the better side.

    Parameters
    ----------
    frame : pandas.DataFrame
        Trials of a task with blocks.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure unless given.
    """
    ax = _axes(ax)
    curve = switch_curve(frame)
    x, y = curve.index.to_numpy(), curve["new_side_fraction"].to_numpy()
    spread = np.sqrt(y * (1 - y) / np.maximum(curve["n"].to_numpy(), 1))
    ax.fill_between(x, y - spread, y + spread, color=_BLUE, alpha=0.2, linewidth=0)
    ax.plot(x, y, color=_BLUE, marker=".")
    every = -(-len(x) // 25)
    for at, n in list(zip(x, curve["n"], strict=True))[::every]:
        ax.text(
            at, 1.01, f"{int(n)}", ha="center", va="bottom", fontsize="x-small", color=_GRAY
        )
    ax.axvline(-0.5, color="#bbbbbb", linewidth=0.8)
    ax.axhline(0.5, color="#bbbbbb", linewidth=0.8, linestyle=":")
    ax.set(
        xlabel="trials from the switch",
        ylabel="fraction of choices\nof the now better side",
        ylim=(0, 1),
        xlim=(x[0] - 1, x[-1] + 1),
    )
    ax.set_title("mean ± SE; the numbers count switches", fontsize="medium", pad=16)
    ax.spines[["top", "right"]].set_visible(False)
    return ax
