"""The light reference: frame times, averages at lower rates, light templates."""

import math

import numpy as np

from labtree.errors import FormatError


def block_means(signal: np.ndarray, rate: float, target_rate: float) -> np.ndarray:
    """Average a signal down to a lower rate.

    Bin k holds the samples from ``round(k * rate / target_rate)`` up to the next; a
    last bin that is not full is left out. Any ratio of rates works, and a rate a
    little off its nominal value does not shift the bins.

    Parameters
    ----------
    signal : array (sample,)
    rate, target_rate : float
        Hz.

    Returns
    -------
    array of float32 (bin,)

    Examples
    --------
    >>> block_means(np.array([1, 3, 5, 7, 9]), 4.0, 2.0)
    array([2., 6.], dtype=float32)
    """
    factor = rate / target_rate
    if not factor >= 1:
        raise ValueError(f"cannot average {rate} Hz up to {target_rate} Hz")
    n_bins = int(np.floor(len(signal) / factor + 1e-9))
    whole = round(factor)
    if abs(factor - whole) * n_bins < 0.5:
        out = np.empty(n_bins, np.float32)
        step = max(2**16 // whole, 1)  # what fits into the processor's cache at a time
        ones = np.ones(whole)  # a product with these is faster than mean(axis=1)
        for first in range(0, n_bins, step):
            last = min(first + step, n_bins)
            part = np.asarray(signal[first * whole : last * whole], np.float64)
            out[first:last] = part.reshape(-1, whole) @ ones / whole
        return out
    edges = np.rint(np.arange(n_bins + 1) * factor).astype(np.int64)
    edges = np.minimum(edges, len(signal))
    sums = np.add.reduceat(signal.astype(np.float64), edges[:-1]) if n_bins else np.zeros(0)
    if n_bins and edges[-1] < len(signal):
        sums[-1] = signal[edges[-2] : edges[-1]].sum(dtype=np.float64)
    return np.asarray(sums / np.diff(edges), np.float32)


def frame_timestamps(sync: np.ndarray) -> np.ndarray:
    """Return the samples at which the display's frames begin.

    The sync channel is divided by its 99.9th percentile; each local maximum of its
    difference above 0.1 is a frame, at the last sample before the rise. The first
    four are the display's start-up and are dropped, if there are more than four.

    Parameters
    ----------
    sync : array (sample,)
        Counts of the frame-sync channel.

    Returns
    -------
    array of int64 (frame,)
        Sample numbers.

    Examples
    --------
    >>> sync = np.zeros(120)
    >>> sync[10::20] = 100
    >>> frame_timestamps(sync)
    array([ 89, 109])
    """
    values = np.asarray(sync)
    if values.size < 3:
        return np.zeros(0, np.int64)
    if values.dtype.kind not in "iu" and not np.isfinite(values).all():
        raise FormatError(
            f"the frame-sync channel holds {int((~np.isfinite(values)).sum())} NaN or infinite "
            f"values of {values.size}, expected voltages"
        )
    if values.dtype.kind == "u" or (values.dtype.kind == "i" and values.dtype.itemsize < 4):
        values = values.astype(np.int64)  # their differences go below 0, and beyond 16 bits
    top = _percentile(values, 99.9)
    peaks = _local_maxima(np.diff(values), 0.1 * top if top > 0 else 0.1)
    return peaks[4:] if len(peaks) > 4 else peaks


def _percentile(values: np.ndarray, q: float) -> float:
    """Return what numpy.percentile does, without its float copies of integers."""
    place = (len(values) - 1) * q / 100
    low = int(place)
    high = min(low + 1, len(values) - 1)
    part = np.partition(values, [low, high])
    return float(part[low] + (float(part[high]) - float(part[low])) * (place - low))


def _local_maxima(values: np.ndarray, height: float) -> np.ndarray:
    """Return the local maxima of at least a height; of a plateau its middle.

    A maximum rises before and falls after; the ends of the array are none. This is
    what scipy.signal.find_peaks gives, from the few values that are high enough.
    """
    if values.dtype.kind == "i":  # comparing whole numbers makes no float copy
        height = math.ceil(height)
    place = np.flatnonzero(values >= height)
    if not len(place):
        return place.astype(np.int64)
    found = values[place]
    new = np.flatnonzero((np.diff(place) > 1) | (np.diff(found) != 0)) + 1
    first = place[np.concatenate([[0], new])]
    last = place[np.concatenate([new - 1, [len(place) - 1]])]
    inner = (first > 0) & (last < len(values) - 1)
    first, last = first[inner], last[inner]
    peak = (values[first - 1] < values[first]) & (values[last + 1] < values[last])
    return np.asarray((first[peak] + last[peak]) // 2, np.int64)


def mean_template(signal: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """Average a signal over spans of nearly equal length, float32.

    Parameters
    ----------
    signal : array (sample,)
    spans : array (span, 2)
        First sample and the one after the last. A sample that shorter spans lack is
        averaged over the others.
    """
    lengths = np.diff(spans, axis=1).ravel()
    total = np.zeros(int(lengths.max(initial=0)))
    count = np.zeros_like(total)
    for (start, stop), length in zip(spans, lengths, strict=True):
        total[:length] += signal[start:stop]
        count[:length] += 1
    return np.asarray(total / np.maximum(count, 1), np.float32)
