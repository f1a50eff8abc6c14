"""The lazy array of windows, and walking through one."""

import json
from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from labtree.errors import SessionError
from labtree.recording.lazy import as_lazy, positions
from labtree.recording.sources import Drops, Source, closer
from labtree.recording.windows import WindowIndex, class_coordinate

__all__ = ["batches", "drop_log", "iterate", "torch_dataset", "window_array"]

_BLOCK_BYTES = 16 * 2**20


class WindowArray(BackendArray):
    """(window, channel, time) over streams of (time, channel); reads what is indexed."""

    def __init__(
        self,
        streams: list[xr.Variable],
        source: np.ndarray,
        start: np.ndarray,
        win: int,
        dtype: np.dtype[Any],
    ) -> None:
        self._streams = streams
        self._source = source
        self._start = start
        self._win = win
        self.shape = (len(start), streams[0].shape[1], win)
        self.dtype = dtype

    def __getitem__(self, key: Any) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._get
        )

    def _get(self, key: tuple[Any, ...]) -> np.ndarray:
        chosen, channel, time = key
        single = isinstance(chosen, int | np.integer)
        windows = positions(chosen, self.shape[0])
        narrow = isinstance(channel, int | np.integer)
        columns = np.array([channel]) if narrow else channel
        width = len(np.arange(self.shape[1])[columns])
        # Time first, as on disk: rows are copied in one piece, and turned without a copy.
        out = np.empty((len(windows), self._win, width), self.dtype)
        for source in np.unique(self._source[windows]):
            mine = np.flatnonzero(self._source[windows] == source)
            self._fill(out, mine, self._start[windows[mine]], int(source), columns)
        turned = out.transpose(0, 2, 1)[:, :, time]
        turned = turned[:, 0] if narrow else turned
        return turned[0] if single else turned

    def _fill(
        self, out: np.ndarray, at: np.ndarray, starts: np.ndarray, source: int, columns: Any
    ) -> None:
        stream = self._streams[source]
        order = np.argsort(starts, kind="stable")
        at, starts = at[order], starts[order]
        most = max(1, _BLOCK_BYTES // (stream.shape[1] * stream.dtype.itemsize))
        begin = 0
        while begin < len(starts):
            # Windows that touch or overlap are read as one block, of bounded size.
            end = begin + 1
            while (
                end < len(starts)
                and starts[end] <= starts[end - 1] + self._win
                and starts[end] + self._win - starts[begin] <= most
            ):
                end += 1
            first = int(starts[begin])
            block = stream[first : int(starts[end - 1]) + self._win, columns].values
            for place, start in zip(at[begin:end], starts[begin:end] - first, strict=True):
                out[place] = block[start : start + self._win]
            begin = end


def window_array(
    sources: list[Source],
    index: WindowIndex,
    win: int,
    drops: Drops,
    dtype: Any = None,
    chunks: Any = None,
) -> xr.DataArray:
    """Return the windows of an index as one lazy DataArray."""
    streams = [source.dataset["data"].variable for source in sources]
    own = np.result_type(*[stream.dtype for stream in streams])
    data = as_lazy(
        WindowArray(
            streams, index.source, index.start, win, np.dtype(own if dtype is None else dtype)
        )
    )
    starts = np.empty(len(index))
    sessions = np.empty(len(index), object)
    for number, source in enumerate(sources):
        mine = index.source == number
        starts[mine] = source.timeline.times[index.start[mine]]
        sessions[mine] = source.session
    first = sources[0].dataset
    coordinates: dict[str, Any] = {
        "time": ("time", np.arange(win) / sources[0].fs, {"units": "s"}),
        "start_time": ("window", starts, {"units": "s"}),
        "class_index": ("window", index.class_index.astype(np.int64)),
        "class_name": ("window", class_coordinate(sources, index)),
        "session": ("window", sessions),
    }
    if "channel" in first.coords:
        coordinates["channel"] = first["channel"].variable
    attributes = {
        **first["data"].attrs,
        "fs": sources[0].fs,
        "dropped": len(drops.rows),
        "drop_log": drops.frame().to_json(orient="split", index=False, double_precision=15),
    }
    variable = xr.Variable(("window", "channel", "time"), data)
    if chunks is not None:  # of the samples only; the coordinates are in memory
        variable = variable.chunk(chunks)
    windows = xr.DataArray(variable, coordinates, name="windows", attrs=attributes)
    windows.set_close(closer(sources))
    return windows


def drop_log(windows: xr.DataArray | xr.Dataset) -> pd.DataFrame:
    """Return what was left out of some windows, and why.

    Parameters
    ----------
    windows
        What `labeled_windows`, `aligned_windows` or `peri_event` gave.

    Returns
    -------
    DataFrame
        One row per window, label or session left out: session, start_time (s, NaN where
        there is none), class_index (-1 where there is none), reason.
    """
    if "drop_log" not in windows.attrs:
        raise SessionError('these windows have no drop log: attrs["drop_log"] is missing')
    content = json.loads(windows.attrs["drop_log"])
    frame = pd.DataFrame(content["data"], columns=content["columns"])
    return frame.astype({"start_time": float, "class_index": int})


def batches(windows: xr.DataArray, size: int) -> Iterator[xr.DataArray]:
    """Yield windows in order, ``size`` at a time, in memory; the last may be shorter.

    Parameters
    ----------
    windows
        As `labeled_windows` or `peri_event` gives them. For another order
        index it first: ``windows.isel(window=rng.permutation(windows.sizes["window"]))``.
    size
        Windows per batch, at least 1.

    Examples
    --------
    >>> import labtree
    >>> from labtree.testing.recordings import record_emg
    >>> windows = labtree.labeled_windows(record_emg("sessions"), "emg", 200, 50)
    >>> [len(batch.window) for batch in labtree.batches(windows, 32)][0]
    32
    """
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
        raise SessionError(f"a batch takes an integer of windows above 0, found {size!r}")
    if windows.dims[:1] not in (("window",), ("event",)):
        raise SessionError(
            f"expected windows, with the dim 'window' first, found {windows.dims}"
        )

    def generate() -> Iterator[xr.DataArray]:
        for start in range(0, len(windows), int(size)):
            yield windows[start : start + int(size)].compute()

    return generate()


_Windows = TypeVar("_Windows", xr.DataArray, xr.Dataset)


def iterate(windows: _Windows, name: str | None = None) -> Iterator[_Windows]:
    """Yield windows one by one, read in blocks of some megabytes; close the sessions last.

    ``name`` is the variable that holds the windows of a Dataset.
    """
    array = windows if name is None else windows[name]
    bytes_each = max(1, array.shape[1] * array.shape[2] * array.dtype.itemsize)
    size = max(1, _BLOCK_BYTES // bytes_each)
    log = {"drop_log", "dropped"}
    try:
        for start in range(0, len(array), size):
            block = windows.isel(window=slice(start, start + size)).compute()
            block.attrs = {key: value for key, value in block.attrs.items() if key not in log}
            for position in range(block.sizes["window"]):
                yield block.isel(window=position)
    finally:
        windows.close()


def torch_dataset(windows: xr.DataArray) -> Any:
    """Return windows as a ``torch.utils.data.Dataset`` of (samples, class_index) pairs.

    Parameters
    ----------
    windows
        As `labeled_windows` gives them; lazy ones are read as they are asked for.

    Raises
    ------
    ImportError
        If torch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise ImportError("torch_dataset needs torch: pip install torch") from error

    class Windows(torch.utils.data.Dataset):  # type: ignore[misc, name-defined, unused-ignore]
        def __len__(self) -> int:
            return windows.sizes["window"]

        def __getitem__(self, position: int) -> tuple[Any, int]:
            return self.__getitems__([position])[0]

        def __getitems__(self, positions: list[int]) -> list[tuple[Any, int]]:
            # DataLoader asks for a whole batch at once; so do we.
            batch = windows.isel(window=list(positions)).compute()
            samples = torch.from_numpy(np.ascontiguousarray(batch.values))
            return list(zip(samples, batch["class_index"].values.tolist(), strict=True))

    return Windows()
