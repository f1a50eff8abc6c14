"""Checks of arguments that functions of many subjects take."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from labtree.errors import DataError, LabtreeError

_UNITS = {"ms": "milliseconds", "s": "seconds", "hz": "Hz"}


def positive(name: str, value: Any, error: type[LabtreeError] = DataError) -> float:
    """Return a finite number above 0, or raise an error that names it.

    Parameters
    ----------
    name : str
        Of the argument; its unit is read from its end.
    value
        What was given.
    error : type
        The class of the error.

    Examples
    --------
    >>> positive("bin_ms", 5)
    5.0
    """
    number = _number(value)
    if not 0 < number < np.inf:
        raise error(f"{name} must be a number{_unit(name)} above 0, found {value!r}")
    return number


def from_zero(name: str, value: Any, error: type[LabtreeError] = DataError) -> float:
    """Return a finite number that is not negative, or raise an error that names it."""
    number = _number(value)
    if not 0 <= number < np.inf:
        raise error(f"{name} must be a number{_unit(name)} from 0 on, found {value!r}")
    return number


def integer(
    name: str,
    value: Any,
    least: int,
    most: int | None = None,
    error: type[LabtreeError] = DataError,
) -> int:
    """Return an integer that lies between two others, or raise an error that names it.

    Examples
    --------
    >>> integer("repeat", 3, 1)
    3
    """
    is_integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_integer or value < least or (most is not None and value > most):
        limits = f"from {least} on" if most is None else f"from {least} to {most}"
        raise error(f"{name} must be a whole number {limits}, found {value!r}")
    return int(value)


def one_of(
    name: str, value: Any, choices: Iterable[str], error: type[LabtreeError] = DataError
) -> None:
    """Raise an error that lists the choices unless a value is one of them."""
    known = list(choices)
    if not isinstance(value, str) or value not in known:
        raise error(f"{name} must be one of {', '.join(map(repr, known))}, found {value!r}")


def _number(value: Any) -> float:
    """Return a number as a float; NaN for what is none."""
    if isinstance(value, bool | np.bool_ | str | bytes) or np.ndim(value):
        return float("nan")
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return float("nan")


def _unit(name: str) -> str:
    unit = _UNITS.get(name.rpartition("_")[2].lower())
    return f" of {unit}" if unit else ""
