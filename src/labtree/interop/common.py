"""Losses, units and names, which conversions from and to other programs have in common."""

import re
from collections.abc import Sequence
from typing import Any

from labtree.errors import LossWarning, warn

MS_PER_S = 1000.0
#: Units of voltage in lower case, in V.
VOLTS = {
    "v": 1.0, "volt": 1.0, "volts": 1.0,
    "mv": 1e-3, "millivolt": 1e-3, "millivolts": 1e-3,
    "uv": 1e-6, "µv": 1e-6, "μv": 1e-6, "microvolt": 1e-6, "microvolts": 1e-6,
    "nv": 1e-9, "nanovolt": 1e-9, "nanovolts": 1e-9,
}  # fmt: skip
_NO_TEXT = re.compile("[\0\ud800-\udfff]")


def warn_of_losses(losses: Sequence[str], text: str) -> None:
    """Warn once of all that was lost, if anything was."""
    if losses:
        warn(f"{text}:\n" + "\n".join(losses), LossWarning)


def left_out(where: str, reason: str | Exception) -> str:
    """Return a line that says which part of a file was left out, and why."""
    return f"{where}: left out: {str(reason) or type(reason).__name__}"


def hdf5_holds(text: str) -> bool:
    """Return whether HDF5 can hold a text: one without NUL and lone surrogates."""
    return _NO_TEXT.search(text) is None


def attribute_name(name: Any) -> str:
    """Return the name of an attribute of units; ``unit_id`` names the units themselves."""
    return "unit_id_" if name == "unit_id" else str(name)
