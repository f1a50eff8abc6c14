"""Arrays of dask, written block by block and never whole in memory."""

import contextlib
import math
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, product
from typing import Any

import numpy as np

from labtree.errors import DataError
from labtree.storage import codecs
from labtree.storage._xarray import Variable, data_of
from labtree.storage.interrupts import deferred_interrupts


def is_dask(variable: Variable) -> bool:
    """Return whether a variable is computed by dask."""
    # Not by its methods: arrays with units have those of what they hold.
    dask_array = sys.modules.get("dask.array")
    return dask_array is not None and isinstance(data_of(variable), dask_array.Array)


class BlockArray:
    """An array of dask that is written block by block, as its plain dtype and shape."""

    def __init__(self, array: Any, dtype: np.dtype[Any], shape: tuple[int, ...]):
        self.array, self.dtype, self.shape = array, dtype, shape
        self.nbytes = math.prod(shape) * dtype.itemsize

    @classmethod
    def of(cls, variable: Variable) -> tuple[codecs.Spec | None, "BlockArray"]:
        """Return a variable of dask's, and the spec that decodes what is written."""
        spec, dtype, extra = codecs.view_spec(variable.dtype)
        return spec, cls(variable.data, dtype, variable.shape + extra)

    def __getitem__(self, rows: slice) -> np.ndarray:
        part = self.array[rows]
        return codecs.encode_block(checked_block(part.compute(), part.dtype, part.shape))


def write_blocks(
    array: Any, shape: tuple[int, ...], write_at: Callable[[int, np.ndarray], None]
) -> None:
    """Compute an array of dask and write its blocks, as many at a time as dask wants.

    Parameters
    ----------
    array
        Of a dtype that :func:`labtree.storage.codecs.view_spec` knows.
    shape
        Of the plain array that is written for it.
    write_at
        Called by several threads with an offset in bytes and what to write there.
    """
    import dask.array

    dask_: Any = dask  # which has types for some of this only
    writers = Writers()
    target = _Target(shape, array.dtype, write_at, writers)
    if is_computed_here(array):
        with writers.ended():
            dask_.array.store(array, target, lock=False)
        return
    # An open file cannot travel to other processes, where its number is another file's.
    for key, block in blocks_from_elsewhere(array):
        target[key] = block


def blocks_from_elsewhere(array: Any) -> Iterator[tuple[tuple[slice, ...], Any]]:
    """Give the blocks of an array that other processes compute, and where each lies."""
    import dask.array

    dask_: Any = dask
    n_at_once = os.cpu_count() or 1
    if _is_distributed(_scheduler_of(array)):
        array, n_at_once = array.persist(), 1
    keys = iter(dask_.array.core.slices_from_chunks(array.chunks))
    while some := [*islice(keys, n_at_once)]:
        yield from zip(some, dask_.compute(*map(array.__getitem__, some)), strict=True)


def _scheduler_of(array: Any) -> Any:
    import dask.base

    dask_: Any = dask
    return dask_.base.get_scheduler(collections=[array])


def _is_distributed(scheduler: Any) -> bool:
    return type(getattr(scheduler, "__self__", None)).__module__.startswith("distributed")


def is_computed_here(array: Any) -> bool:
    """Return whether dask is known to compute an array in this process."""
    import dask.local
    import dask.threaded

    scheduler = _scheduler_of(array)
    if getattr(scheduler, "func", None) is dask.local.get_async:  # through an executor
        return isinstance(scheduler.args[0].__self__, ThreadPoolExecutor)
    return scheduler in (None, dask.threaded.get, dask.local.get_sync)


class Writers:
    """The threads that write one array, which none of them does after the end.

    When a block fails or the user interrupts, dask returns at once and its threads go on.
    What they would write then may have gone to somebody else: the number of a closed file,
    the space in a file. In another process there is nobody to wait for.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0
        self._is_over = False

    def __reduce__(self) -> Any:
        return Writers, ()

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Let a thread write, or raise after the end."""
        with self._changed:
            if self._is_over:
                raise DataError("the array is not written any more: another block failed")
            self._count += 1
        try:
            yield
        finally:
            with self._changed:
                self._count -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def ended(self) -> Iterator[None]:
        """Wait, however the block ends, for those that write; let nobody begin."""
        try:
            yield
        finally:
            # A second Ctrl-C must not come before those that write are done.
            with deferred_interrupts(), self._changed:
                self._is_over = True
                self._changed.wait_for(lambda: not self._count)


def checked_block(block: Any, dtype: np.dtype[Any], sizes: tuple[int, ...]) -> np.ndarray:
    """Return a computed block as what its array declared it to be.

    Raises
    ------
    DataError
        If it has another shape, or values that the declared dtype does not hold.
    """
    array = np.asarray(block)
    if array.shape != sizes:
        raise DataError(
            f"a dask array declares a block of shape {sizes} and computes {array.shape}; "
            "give map_blocks or apply_ufunc the true chunks, or call .compute() first"
        )
    if array.dtype == dtype:
        return array
    with np.errstate(all="ignore"):
        cast = array.astype(dtype)
        same = np.array_equal(
            cast.astype(array.dtype), array, equal_nan=array.dtype.kind in "fc"
        )
    if not same:
        raise DataError(
            f"a dask array declares {dtype} and computes {array.dtype}, whose values {dtype} "
            f"does not hold; write .astype({str(array.dtype)!r}), or give map_blocks or "
            "apply_ufunc the true dtype"
        )
    return cast


class _Target:
    """What dask stores into: takes a block and puts its rows where they belong."""

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        write_at: Callable[[int, np.ndarray], None],
        writers: Writers,
    ):
        self._shape, self._dtype, self._write_at = shape, dtype, write_at
        self._writers = writers

    def __setitem__(self, key: tuple[slice, ...], block: Any) -> None:
        sizes = tuple(part.stop - part.start for part in key)
        plain = codecs.encode_block(checked_block(block, self._dtype, sizes))
        if plain.size:
            for offset, run in _runs(plain, [part.start for part in key], self._shape):
                with self._writers.one():
                    self._write_at(offset, run)


def _runs(
    block: np.ndarray, starts: list[int], shape: tuple[int, ...]
) -> Iterator[tuple[int, np.ndarray]]:
    """Give the parts of a block that are contiguous in the whole, and where they begin."""
    starts = [*starts, *(0 for _ in range(len(shape) - len(starts)))]
    strides = [block.itemsize * math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    split = len(shape)
    while split > 0 and block.shape[split - 1] == shape[split - 1]:
        split -= 1
    split = max(0, split - 1)  # this axis too lies in one piece, though only a part of it
    base = sum(start * stride for start, stride in zip(starts, strides, strict=True))
    for places in product(*(range(size) for size in block.shape[:split])):
        here = sum(place * stride for place, stride in zip(places, strides, strict=False))
        yield base + here, block[places]
