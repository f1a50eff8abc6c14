"""Packets of samples, checked before anything of them is written."""

import math
from typing import Any

import numpy as np

from labtree.errors import SessionError

__all__ = ["as_packet", "check_times"]


def as_packet(
    name: str, data: Any, timestamps: Any, dtype: np.dtype[Any], n_channels: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return samples (n, n_channels) and time stamps (n,), contiguous and little-endian.

    Raises
    ------
    SessionError
        If the shapes do not fit, or a type does not fit into the declared one.
    """
    data, times = np.asarray(data), np.asarray(timestamps)
    if data.ndim != 2 or data.shape[1] != n_channels or times.shape != data.shape[:1]:
        raise SessionError(
            f"stream {name!r}: expected data (n, {n_channels}) and timestamps (n,),"
            f" found {data.shape} and {times.shape}"
        )
    if data.dtype != dtype and not np.can_cast(data.dtype, dtype, "safe"):
        raise SessionError(
            f"stream {name!r} holds {dtype}, {data.dtype} would lose values;"
            f" write data.astype({dtype.name!r}) if that is meant"
        )
    if times.dtype.kind not in "iuf" or not np.can_cast(times.dtype, np.float64, "safe"):
        raise SessionError(
            f"stream {name!r}: timestamps are float64 seconds, found {times.dtype}"
        )
    stored = dtype.newbyteorder("<")
    return np.ascontiguousarray(data, stored), np.ascontiguousarray(times, "<f8")


def check_times(name: str, times: np.ndarray, last: float) -> None:
    """Refuse time stamps that are not finite, or go backward from ``last`` on."""
    # Not backward anywhere and finite at both ends: finite throughout.
    if (
        last <= times[0]
        and -math.inf < times[0]
        and times[-1] < math.inf
        and bool((times[1:] >= times[:-1]).all())
    ):
        return
    finite = np.isfinite(times)
    if not finite.all():
        at = int(np.argmin(finite))
        raise SessionError(
            f"stream {name!r}: timestamp {at} is {times[at]}, expected finite seconds"
        )
    steps = np.diff(times, prepend=last)
    at = int(np.argmax(steps < 0))
    before = last if at == 0 else times[at - 1]
    raise SessionError(
        f"stream {name!r}: timestamp {at} is {times[at]:.9g} s, before {before:.9g} s of the"
        " sample ahead of it; time stamps may repeat but not go backward"
    )
