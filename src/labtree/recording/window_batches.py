"""Windows in memory: batches in any order, one by one, and for torch."""

import itertools
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import numpy as np
import xarray as xr

from labtree.errors import RecordingWarning, SessionError, warn
from labtree.optional import require
from labtree.recording.session_streams import drop_log
from labtree.recording.window_array import decoded
from labtree.storage.arguments import integer

# Windows that are cut at once where they are wanted one by one; larger arrays are given back
# to the system each time, and take longer to get than to fill.
_BLOCK_BYTES = 4 * 2**20
# Windows whose samples are read at once, in order and mixed.
_ORDERED_BYTES = 32 * 2**20
_POOL_BYTES = 128 * 2**20
# The stretches of a recording that mixed windows come from.
_STRETCHES = 8


def _check_batches(windows: xr.DataArray, shuffle: int | None) -> None:
    if not isinstance(windows, xr.DataArray):
        raise SessionError(
            "expected windows as the DataArray that labeled_windows returns, found "
            f"{type(windows).__name__}; write windows instead of windows.values, and of a "
            "Dataset of windows one variable, such as ds['emg']"
        )
    if windows.dims[:1] not in (("window",), ("event",)):
        raise SessionError(
            f"expected windows, with the dimension 'window' first, found {windows.dims}"
        )
    if shuffle is not None:
        integer("shuffle, a seed,", shuffle, 0, error=SessionError)


def _pools(windows: xr.DataArray, shuffle: int | None, size: int = 1) -> Iterator[np.ndarray]:
    """Yield positions of windows, as many as are read at once; in all a permutation.

    A pool takes some stretches of neighboring windows from anywhere, and mixes them: chunks
    are decoded about once an epoch, and no more than one pool is in memory.
    """
    n = len(windows)
    each = max(1, int(np.prod(windows.shape[1:], dtype=np.int64)) * windows.dtype.itemsize)
    most = max(_STRETCHES, size, _POOL_BYTES // each)
    if shuffle is None:
        most = max(1, min(_POOL_BYTES, _ORDERED_BYTES) // each // size) * size
        yield from (np.arange(first, min(first + most, n)) for first in range(0, n, most))
        return
    random = np.random.default_rng(shuffle)
    order = _as_recorded(windows)
    length = max(1, most // _STRETCHES)
    # Another beginning for each seed, so that stretches do not always end at the same windows.
    first = int(random.integers(0, length))
    edges = [0, *range(first, n, length), n] if first else [*range(0, n, length), n]
    stretches = [order[low:high] for low, high in itertools.pairwise(edges)]
    mixed = random.permutation(len(stretches))
    for low in range(0, len(mixed), _STRETCHES):
        pool = np.concatenate([stretches[at] for at in mixed[low : low + _STRETCHES]])
        yield random.permutation(pool)


def _as_recorded(windows: xr.DataArray) -> np.ndarray:
    """Return the order in which windows stand in their recordings."""
    keys = []
    for name in ("start_time", "window_start", "session"):
        if name in windows.coords and windows.coords[name].dims == windows.dims[:1]:
            values = windows.coords[name].values
            keys.append(
                np.unique(values.astype(str), return_inverse=True)[1]
                if values.dtype == object
                else values
            )
    return np.lexsort(keys) if keys else np.arange(len(windows))


def batches(
    windows: xr.DataArray, size: int, *, shuffle: int | None = None, drop_last: bool = False
) -> Iterator[xr.DataArray]:
    """Yield windows, ``size`` at a time, in memory: in order, or mixed.

    Parameters
    ----------
    windows
        (window, channel, time) as `labeled_windows` or `peri_event` gives them.
    size
        Windows per batch, at least 1; the last batch may have fewer.
    shuffle
        A seed, at least 0: each window comes once, in an order that the seed determines.
        Windows are mixed within 128 MB that come from eight places of the recordings at a
        time, so that this is nearly as quick as reading in order. Another seed for each
        epoch. None: in order.
    drop_last
        Leave a last batch of fewer windows out.

    Yields
    ------
    DataArray
        (window, channel, time), in memory.

    Examples
    --------
    >>> import labtree
    >>> from labtree.testing.recordings import record_emg
    >>> windows = labtree.labeled_windows(record_emg("sessions"), "emg", 200, 50)
    >>> [len(batch.window) for batch in labtree.batches(windows, 32, shuffle=0)]
    [32, 32, 32, 32, 20]
    """
    size = integer("size", size, 1, error=SessionError)
    _check_batches(windows, shuffle)
    dimension = windows.dims[0]

    def generate() -> Iterator[xr.DataArray]:
        left: list[xr.DataArray] = []
        pools = _pools(windows, shuffle, size)
        # Mixed pools are large: two of them are in memory, and no more.
        ahead = 2 if shuffle is None else 1
        work = lambda pool: decoded(windows.isel({dimension: pool}))  # noqa: E731
        for block in _ahead(pools, work, ahead):
            missing = size - sum(len(part) for part in left) if left else 0
            if missing:
                left.append(_loaded(block[:missing]))
                if sum(len(part) for part in left) < size:
                    continue
                yield _joined(left, dimension)
            left = []
            for first in range(missing, len(block), size):
                batch = _loaded(block[first : first + size])
                if len(batch) == size:
                    yield batch
                else:
                    left = [batch]
        if left and not drop_last:
            yield _joined(left, dimension)

    return generate()


_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def _ahead(
    items: Iterable[_Item], work: Callable[[_Item], _Result], ahead: int = 1
) -> Iterator[_Result]:
    """Yield what ``work`` makes of every item; the next ones are made while one is used."""
    with ThreadPoolExecutor(ahead, "labtree batches") as pool:
        waiting: deque[Future[_Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _loaded(windows: xr.DataArray) -> xr.DataArray:
    """Read the samples of some windows of a block, of which all else is in memory."""
    windows.variable.load()  # `compute` makes a Dataset first, which takes a millisecond
    return windows


def _joined(parts: list[xr.DataArray], dimension: Hashable) -> xr.DataArray:
    return parts[0] if len(parts) == 1 else xr.concat(parts, dimension)


_Windows = TypeVar("_Windows", xr.DataArray, xr.Dataset)


def iter_in_blocks(windows: _Windows, name: str | None = None) -> Iterator[_Windows]:
    """Yield windows one by one, read in blocks of some megabytes; close the sessions last.

    ``name`` is the variable that holds the windows of a Dataset.
    """
    array = windows if name is None else windows[name]
    bytes_each = max(1, array.shape[1] * array.shape[2] * array.dtype.itemsize)
    size, few = (max(1, most // bytes_each) for most in (_ORDERED_BYTES, _BLOCK_BYTES))
    log = {"drop_log", "dropped"}

    def read(start: int) -> _Windows:
        some = windows.isel(window=slice(start, start + size))
        some.attrs = {key: value for key, value in some.attrs.items() if key not in log}
        if isinstance(some, xr.Dataset):
            return some.assign({name: decoded(some[name])})
        return decoded(some)

    try:
        for some in _ahead(range(0, len(array), size), read):
            for start in range(0, some.sizes["window"], few):
                block = some.isel(window=slice(start, start + few)).compute()
                for position in range(block.sizes["window"]):
                    yield block.isel(window=position)
        _warn_of_left_out(windows)
    finally:
        windows.close()


def _warn_of_left_out(windows: xr.DataArray | xr.Dataset) -> None:
    """Sum up the drop log, which windows that come one by one cannot carry."""
    log = drop_log(windows)
    if len(log) == 0:
        return
    # A session by its name, a label by the kind of its reason: numbers are not kinds.
    kinds = log["reason"].str.replace(r"\b\d+\b", "n", regex=True)
    parts = []
    for kind, rows in log.groupby(kinds, sort=False):
        sessions = ", ".join(rows["session"].unique()[:3])
        more = rows["session"].nunique() - 3
        parts.append(
            f"{len(rows)} x {rows['reason'].iloc[0] if len(rows) == 1 else kind} ({sessions}"
            + (f" and {more} more)" if more > 0 else ")")
        )
    warn(
        f"{len(log)} windows, labels or sessions were left out: " + "; ".join(parts),
        RecordingWarning,
    )


def torch_dataset(windows: xr.DataArray, *, shuffle: int | None = None) -> Any:
    """Return windows as a torch dataset of (samples, class_index) pairs.

    Parameters
    ----------
    windows
        As `labeled_windows` gives them; lazy ones are read as they are asked for.
    shuffle
        None: a ``torch.utils.data.Dataset`` that is indexed, and reads a loader's batch at
        once. A seed: an ``IterableDataset`` that yields each window once, mixed as
        `batches` mixes them, which is faster than a loader that draws windows at random.
        With several workers each takes a share.

    Returns
    -------
    torch.utils.data.Dataset
        Of pairs of the samples and the class.

    Raises
    ------
    MissingDependencyError
        If torch is not installed.

    Examples
    --------
    >>> import labtree
    >>> from labtree.testing.recordings import record_emg
    >>> windows = labtree.labeled_windows(record_emg("sessions"), "emg", 200, 50)
    >>> dataset = labtree.torch_dataset(windows)  # doctest: +SKIP
    >>> samples, class_index = dataset[0]  # doctest: +SKIP
    """
    torch = require("torch", purpose="torch_dataset")
    require("torch.utils.data", purpose="torch_dataset")
    _check_batches(windows, shuffle)
    dimension = windows.dims[0]
    if "class_index" not in windows.coords:
        raise SessionError(
            f"expected windows with the coordinate class_index, found {list(windows.coords)}; "
            f"write windows.assign_coords(class_index=({dimension!r}, numbers))"
        )

    def read(positions: Any) -> list[tuple[Any, int]]:
        batch = windows.isel({dimension: positions}).compute()
        samples = torch.from_numpy(np.ascontiguousarray(batch.values))
        return list(zip(samples, batch["class_index"].values.tolist(), strict=True))

    # A loader whose workers are spawned pickles its dataset, and finds no class by its name.
    def again(self: object) -> tuple[Any, ...]:
        return partial(torch_dataset, shuffle=shuffle), (windows,)

    class Windows(torch.utils.data.Dataset):  # type: ignore[misc, name-defined, unused-ignore]
        __reduce__ = again

        def __len__(self) -> int:
            return windows.sizes[dimension]

        def __getitem__(self, position: int) -> tuple[Any, int]:
            return read([position])[0]

        def __getitems__(self, positions: list[int]) -> list[tuple[Any, int]]:
            # DataLoader asks for a whole batch at once; so do we.
            return read(list(positions))

    class MixedWindows(torch.utils.data.IterableDataset):  # type: ignore[misc, name-defined, unused-ignore]
        __reduce__ = again

        def __iter__(self) -> Iterator[tuple[Any, int]]:
            worker = torch.utils.data.get_worker_info()
            first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
            for pool in itertools.islice(_pools(windows, shuffle), first, None, step):
                yield from read(pool)

    return Windows() if shuffle is None else MixedWindows()
