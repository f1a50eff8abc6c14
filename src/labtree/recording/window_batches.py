"""Windows in memory: batches in any order, one by one, and for torch."""

from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
import xarray as xr

from labtree.errors import SessionError
from labtree.optional import require

__all__ = ["batches", "iter_in_blocks", "torch_dataset"]

_BLOCK_BYTES = 16 * 2**20


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


def iter_in_blocks(windows: _Windows, name: str | None = None) -> Iterator[_Windows]:
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
    MissingDependencyError
        (an ImportError) If torch is not installed.
    """
    torch = require("torch", purpose="torch_dataset")

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
