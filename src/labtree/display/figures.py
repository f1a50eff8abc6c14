"""The figures that things are drawn in."""

from typing import TYPE_CHECKING

from labtree.optional import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def given_or_new_axes(
    ax: "Axes | None", *, purpose: str, figsize: tuple[float, float]
) -> "Axes":
    """Return the Axes to draw on: those that were given, or those of a new figure.

    Parameters
    ----------
    ax : matplotlib Axes or None
        None for a new figure.
    purpose : str
        What matplotlib is needed for, where it is not installed.
    figsize : (float, float)
        Width and height of a new figure in inches.

    Raises
    ------
    MissingDependencyError
        (an ImportError) matplotlib is not installed.
    """
    if ax is not None:
        return ax
    pyplot = require("matplotlib.pyplot", purpose=purpose, extra="plot")
    made: Axes = pyplot.subplots(figsize=figsize, layout="constrained")[1]
    return made
