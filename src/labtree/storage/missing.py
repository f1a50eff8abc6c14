"""Missing values in arrays whose dtype has none.

The array ``name`` has a conspicuous filler (:func:`filler`) in the place of a missing value,
and a boolean array ``<name>_missing`` beside it is true there. The attribute
``ancillary_variables`` of ``name`` names it, as CF has it for quality flags.
"""

from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np

from labtree.storage._xarray import Variable

#: What the name of a mask ends in.
MISSING = "_missing"
#: The attribute that names it.
ANCILLARY = "ancillary_variables"


class _Absent:
    def __repr__(self) -> str:
        return "<absent>"


#: Stands for a missing value in a sequence.
ABSENT = _Absent()


def filler(dtype: np.dtype[Any]) -> Any:
    """Return what an array holds in the place of a missing value.

    NaN, NaT, None, the lowest signed integer, the highest unsigned one; else nothing but
    zeros, which is an empty string.

    Examples
    --------
    >>> filler(np.dtype("int8")), filler(np.dtype("float32")), filler(np.dtype("uint8"))
    (-128, nan, 255)
    """
    if dtype.kind in "fc":
        return np.nan
    if dtype.kind in "mM":
        return np.array("NaT", dtype)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return limits.min if dtype.kind == "i" else limits.max
    if dtype.kind == "O":
        return None
    return np.zeros((), dtype)


def stack_present(
    values: Sequence[Any], dtype: np.dtype[Any], shape: tuple[int, ...] = ()
) -> tuple[np.ndarray, np.ndarray | None]:
    r"""Return values of one shape as one array, and where one is missing.

    Parameters
    ----------
    values
        :data:`ABSENT` stands for a missing one.
    dtype, shape
        Of each value. Items of an array of objects are kept as they are.

    Returns
    -------
    array, array of bool or None
        Of shape (n, \*shape), and (n,); None where nothing is missing.

    Examples
    --------
    >>> stack_present([1, ABSENT], np.dtype("int8"))
    (array([   1, -128], dtype=int8), array([False,  True]))
    """
    out = np.empty((len(values), *shape), dtype)
    missing = np.fromiter((value is ABSENT for value in values), bool, len(values))
    out[missing] = filler(out.dtype)
    present = [value for value in values if value is not ABSENT]
    if not dtype.hasobject:
        if present:
            out[~missing] = present
    else:
        # Item by item, so that numpy does not look inside lists and arrays.
        for index, value in enumerate(values):
            if value is not ABSENT:
                out[index] = value
    return out, missing if missing.any() else None


def mask_name(name: str, taken: Container[object] = ()) -> str:
    """Return a name for the mask of `name` that is not taken.

    Examples
    --------
    >>> mask_name("depth"), mask_name("depth", {"depth_missing"})
    ('depth_missing', 'depth_missing_')
    """
    mask = f"{name}{MISSING}"
    while mask in taken:
        mask += "_"
    return mask


def mark_missing(
    name: str, variable: Variable, missing: Any, taken: Container[object] = ()
) -> dict[str, Variable]:
    """Return a variable, and its mask where a value is missing.

    Parameters
    ----------
    name
        The variable's name.
    variable
        Its values, with anything in the place of missing ones. A mask is named in its
        attributes.
    missing
        Booleans, true where a value is missing; of the variable's first dimensions.
    taken
        Names that the mask may not have.
    """
    holes = np.asarray(missing, bool)
    if not holes.any():
        return {name: variable}
    mask = mask_name(name, taken)
    words = [*str(variable.attrs.get(ANCILLARY, "")).split(), mask]
    variable.attrs[ANCILLARY] = " ".join(words)
    return {name: variable, mask: Variable(variable.dims[: holes.ndim], holes)}


def mask_of(variables: Mapping[Any, Any], name: object) -> str | None:
    """Return the name of the mask of a variable, or None where nothing is missing.

    Parameters
    ----------
    variables
        A Dataset, or Variables by name.
    name
        The variable.
    """
    text = str(variables[name].attrs.get(ANCILLARY, ""))
    if not text:
        return None
    own = f"{name}{MISSING}"  # may hold blanks, as its variable may
    while own in variables and f" {own} " not in f" {text} ":
        own += "_"
    for word in (own, *text.split()):
        if word.rstrip("_").endswith(MISSING) and word in variables:
            mask = variables[word]
            if mask.dtype == bool and mask.dims == variables[name].dims[: mask.ndim]:
                return word
    return None


def masks_of(variables: Mapping[Any, Any]) -> dict[Any, str]:
    """Return which Variables by name have missing values, and the mask of each."""
    found = ((name, mask_of(variables, name)) for name in variables)
    return {name: mask for name, mask in found if mask is not None}
