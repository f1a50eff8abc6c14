"""The loops of the electrical image, which numba compiles on first use.

Sensors are taken in tiles that fit one cache line of int16 counts: a tile is filtered
forwards and backwards into a small buffer, and the windows of all spikes are added up
from there, so that the filtered recording never exists as a whole.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from labtree.optional import require

LANES = 32
prange: Any = range  # numba's, which divides a loop among threads, once compiled


@functools.cache
def compiled() -> Callable[..., None]:
    """Return :func:`accumulate`, compiled.

    Raises
    ------
    MissingDependencyError
        If numba is not installed.
    """
    global _run_sections, _filter_tile, prange
    numba = require("numba", purpose="electrical images", extra="mea")
    prange = numba.prange
    _run_sections = numba.njit(cache=True, inline="always")(_run_sections)
    _filter_tile = numba.njit(cache=True)(_filter_tile)
    return numba.njit(cache=True, parallel=True)(accumulate)  # type: ignore[no-any-return]


def _run_sections(sos: np.ndarray, state: np.ndarray, line: np.ndarray) -> None:
    """Pass one sample of each lane through all second-order sections, in place."""
    for section in range(sos.shape[0]):
        b0, b1, b2 = sos[section, 0], sos[section, 1], sos[section, 2]
        a1, a2 = sos[section, 4], sos[section, 5]
        for lane in range(LANES):
            x = line[lane]
            y = b0 * x + state[section, 0, lane]
            state[section, 0, lane] = b1 * x - a1 * y + state[section, 1, lane]
            state[section, 1, lane] = b2 * x - a2 * y
            line[lane] = y


def _filter_tile(
    counts: np.ndarray,
    first: int,
    width: int,
    sos: np.ndarray,
    zi: np.ndarray,
    edge: int,
    buffer: np.ndarray,
) -> None:
    """Filter a tile of sensors forwards and backwards, odd extension at both ends."""
    n = counts.shape[0]
    n_sections = sos.shape[0]
    state = np.zeros((n_sections, 2, LANES))
    line = np.zeros(LANES)
    start = np.zeros(LANES)
    end = np.zeros(LANES)
    for lane in range(width):
        start[lane] = counts[0, first + lane]
        end[lane] = counts[n - 1, first + lane]
    for lane in range(width):
        value = 2 * start[lane] - counts[edge, first + lane]
        for section in range(n_sections):
            state[section, 0, lane] = zi[section, 0] * value
            state[section, 1, lane] = zi[section, 1] * value
    total = n + 2 * edge
    for i in range(total):
        t = i - edge
        if t < 0:
            for lane in range(width):
                line[lane] = 2 * start[lane] - counts[-t, first + lane]
        elif t >= n:
            for lane in range(width):
                line[lane] = 2 * end[lane] - counts[2 * (n - 1) - t, first + lane]
        else:
            for lane in range(width):
                line[lane] = counts[t, first + lane]
        _run_sections(sos, state, line)
        for lane in range(LANES):
            buffer[i, lane] = line[lane]
    for lane in range(LANES):
        value = buffer[total - 1, lane]
        for section in range(n_sections):
            state[section, 0, lane] = zi[section, 0] * value
            state[section, 1, lane] = zi[section, 1] * value
    for i in range(total - 1, -1, -1):
        for lane in range(LANES):
            line[lane] = buffer[i, lane]
        _run_sections(sos, state, line)
        for lane in range(LANES):
            buffer[i, lane] = line[lane]


def accumulate(
    counts: np.ndarray,
    sos: np.ndarray,
    zi: np.ndarray,
    edge: int,
    starts: np.ndarray,
    offsets: np.ndarray,
    sums: np.ndarray,
) -> None:
    """Add the filtered windows of all spikes to each unit's sum.

    Parameters
    ----------
    counts : array (frame, sensor)
    sos : float64 array (section, 6)
        None (shape (0, 6)) adds the counts as they are.
    zi : float64 array (section, 2)
        State of each section for a constant input of 1.
    edge : int
        Samples of odd extension.
    starts : int array (spike,)
        First frame of each spike's window, unit after unit.
    offsets : int array (unit + 1,)
    sums : float64 array (unit, window, sensor)
        Added to.
    """
    n, n_sensors = counts.shape
    n_window = sums.shape[1]
    n_tiles = (n_sensors + LANES - 1) // LANES
    for tile in prange(n_tiles):
        first = tile * LANES
        width = min(LANES, n_sensors - first)
        buffer = np.empty((n + 2 * edge, LANES), np.float32)
        if sos.shape[0]:
            _filter_tile(counts, first, width, sos, zi, edge, buffer)
        else:
            for t in range(n):
                for lane in range(width):
                    buffer[t + edge, lane] = counts[t, first + lane]
        own = np.empty((n_window, LANES))
        for unit in range(len(offsets) - 1):
            if offsets[unit] == offsets[unit + 1]:
                continue
            own[:] = 0.0
            for spike in range(offsets[unit], offsets[unit + 1]):
                begin = starts[spike] + edge
                for w in range(n_window):
                    for lane in range(LANES):
                        own[w, lane] += buffer[begin + w, lane]
            for w in range(n_window):
                for lane in range(width):
                    sums[unit, w, first + lane] += own[w, lane]
