"""Datasets whose arrays lie in a scratch file instead of in memory."""

import math
import weakref
from typing import Any

import numpy as np
import xarray as xr

from labtree.storage import codecs
from labtree.storage._xarray import Variable, data_of
from labtree.storage.arrays import StoredArray, lazy, stored_array
from labtree.storage.blobs import ContiguousArray, checksum
from labtree.storage.blocks import is_dask, write_blocks
from labtree.storage.dataset_checks import variable_values
from labtree.storage.sources import ScratchSource


def put_dataset(dataset: xr.Dataset, scratch: ScratchSource, path: str) -> xr.Dataset:
    """Return a dataset like `dataset` whose arrays were written to a scratch file.

    Index coordinates stay in memory. The space of an array is free again as soon as
    nothing refers to it any more.

    Raises
    ------
    TypeError
        If a part cannot be kept exactly; nothing is left behind then.
    OSError
        If the disk is full; nothing is left behind then.
    """
    moved = {
        name: _put(variable, scratch, f"{path}[{name!r}]")
        for name, variable in dataset.variables.items()
        if name not in dataset.xindexes
    }
    data = {name: moved[name] for name in dataset.data_vars}
    result = dataset.copy(data={name: data_of(variable) for name, variable in data.items()})
    coords = {name: variable for name, variable in moved.items() if name not in data}
    return result.assign_coords(xr.Coordinates(coords, indexes={})) if coords else result


def _put(variable: Variable, scratch: ScratchSource, path: str) -> Variable:
    stored = stored_array(variable)
    if stored is not None and stored.is_plain:
        blobs = [_put_array(blob.read(), scratch, path) for blob in stored.blobs]
        array = StoredArray(stored.spec, blobs)
    elif is_dask(variable) and variable.dtype.kind not in "OT":
        spec, blob = _put_blocks(variable, scratch, path)
        array = StoredArray(spec, [blob])
    else:
        values = variable_values(variable.compute() if is_dask(variable) else variable, path)
        spec, arrays = codecs.encode(values, path)
        array = StoredArray(spec, [_put_array(plain, scratch, path) for plain in arrays])
    return Variable(variable.dims, lazy(array), variable.attrs, variable.encoding)


def _put_array(array: np.ndarray, scratch: ScratchSource, path: str) -> ContiguousArray:
    offset = scratch.write([array], array.nbytes)
    return _blob(scratch, offset, array.dtype, array.shape, checksum(array), path)


def _blob(
    scratch: ScratchSource,
    offset: int,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    crc: int | None,
    path: str,
) -> ContiguousArray:
    blob = ContiguousArray(scratch, offset, dtype, shape, crc, path)
    weakref.finalize(blob, scratch.free, offset, blob.nbytes).atexit = False
    return blob


def _put_blocks(
    variable: Variable, scratch: ScratchSource, path: str
) -> tuple[codecs.Spec | None, ContiguousArray]:
    """Write a dask array one block after the other, as many at a time as dask wants."""
    spec, dtype, extra = codecs.view_spec(variable.dtype)
    shape = variable.shape + extra
    nbytes = math.prod(shape) * dtype.itemsize
    offset = scratch.write((), nbytes)
    try:
        write_blocks(
            variable.data, shape, lambda place, run: scratch.write_at(offset + place, run)
        )
    except BaseException:
        scratch.free(offset, nbytes)
        raise
    return spec, _blob(scratch, offset, dtype, shape, None, path)
