"""Windows as an array that cuts what is indexed out of streams."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import xarray as xr

from labtree.storage._xarray import LazilyIndexedArray, data_of
from labtree.storage.lazy import LazyArray, as_lazy, positions

_BLOCK_BYTES = 16 * 2**20


class WindowArray(LazyArray):
    """(window, channel, time) over streams of (time, channel); reads what is indexed.

    Windows that are shorter than the longest end in NaN.

    Parameters
    ----------
    streams
        What windows are cut from, each (time, channel).
    stream, start, length
        (window,) of each window its stream, its first row there and its number of rows.
    win
        Rows of the longest.
    dtype
        Of the windows.
    """

    def __init__(
        self,
        streams: Sequence[xr.Variable | np.ndarray],
        stream: np.ndarray,
        start: np.ndarray,
        length: np.ndarray,
        win: int,
        dtype: np.dtype[Any],
    ) -> None:
        self._streams = streams
        self._stream = stream
        self._start = start
        self._length = length
        self._win = win
        self.shape = (len(start), streams[0].shape[1], win)
        self.dtype = dtype

    def read(self, key: tuple[Any, ...]) -> np.ndarray:
        """Return the windows, channels and samples that ``key`` selects."""
        chosen, channel, time = key
        single = isinstance(chosen, int | np.integer)
        windows = positions(chosen, self.shape[0])
        narrow = isinstance(channel, int | np.integer)
        columns = np.array([channel]) if narrow else channel
        width = len(np.arange(self.shape[1])[columns])
        # Time first, as on disk: rows are copied in one piece, and turned without a copy.
        out = np.empty((len(windows), self._win, width), self.dtype)
        for at, starts, samples in self._blocks(windows, columns):
            stops = starts + self._length[windows[at]]
            rows = zip(at.tolist(), starts.tolist(), stops.tolist(), strict=True)
            for place, start, stop in rows:
                out[place, : stop - start] = samples[start:stop]
                if stop - start < self._win:
                    out[place, stop - start :] = np.nan
        turned = out.transpose(0, 2, 1)[:, :, time]
        turned = turned[:, 0] if narrow else turned
        return turned[0] if single else turned

    def in_memory(self, windows: np.ndarray, columns: Any = slice(None)) -> "WindowArray":
        """Return some windows, in this order, over samples that are in memory."""
        blocks: list[np.ndarray] = []
        stream = np.empty(len(windows), np.int64)
        start = np.empty(len(windows), np.int64)
        for at, starts, samples in self._blocks(windows, columns):
            stream[at], start[at] = len(blocks), starts
            blocks.append(samples)
        if not blocks:
            width = len(np.arange(self.shape[1])[columns])
            blocks = [np.empty((0, width), self._streams[0].dtype)]
        length = self._length[windows]
        return WindowArray(blocks, stream, start, length, self._win, self.dtype)

    def _blocks(
        self, windows: np.ndarray, columns: Any
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Read windows that are less than a window apart as one block of bounded size.

        Yields which of ``windows`` these are, where each starts in the block, and the block.
        """
        of_stream = self._stream[windows]
        for number in np.unique(of_stream):
            stream = self._streams[number]
            mine = np.flatnonzero(of_stream == number)
            if isinstance(stream, np.ndarray):
                yield mine, self._start[windows[mine]], stream[:, columns]
                continue
            at = mine[np.argsort(self._start[windows[mine]], kind="stable")]
            starts = self._start[windows[at]]
            reach = np.maximum.accumulate(starts + self._length[windows[at]])
            most = max(1, _BLOCK_BYTES // (stream.shape[1] * stream.dtype.itemsize))
            apart = [
                *(np.flatnonzero(starts[1:] > reach[:-1] + self._win) + 1).tolist(),
                len(at),
            ]
            begin = 0
            for near in apart:
                while begin < near:
                    fits = np.searchsorted(reach[begin:near], starts[begin] + most, "right")
                    end = begin + max(1, int(fits))
                    first = int(starts[begin])
                    samples = np.asarray(stream[first : int(reach[end - 1]), columns])
                    yield at[begin:end], starts[begin:end] - first, samples
                    begin = end


def decoded(windows: xr.DataArray) -> xr.DataArray:
    """Return windows over samples that are in memory, to be cut when they are asked for.

    Where windows overlap this takes less memory than the windows; such as are no lazy ones
    of a stream are returned in memory.
    """
    data = data_of(windows)
    if not isinstance(data, LazilyIndexedArray) or not isinstance(data.array, WindowArray):
        return windows.compute()
    window, channel, time = data.key.tuple
    narrow = isinstance(channel, int | np.integer)
    columns: Any = np.array([channel]) if narrow else channel
    channels: Any = 0 if narrow else slice(None)
    array = data.array.in_memory(positions(window, data.array.shape[0]), columns)
    cut = xr.Variable(("window", "channel", "time"), as_lazy(array))[:, channels, time]
    result = windows.copy(deep=False, data=data_of(cut))
    for coordinate in result.coords.values():
        coordinate.variable.load()
    return result
