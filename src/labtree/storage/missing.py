"""Missing values in arrays whose dtype has none.

The values stand in the array ``name`` with any filler, and a boolean array
``<name>_missing`` beside it is true where there is none. The attribute
``ancillary_variables`` of ``name`` names it, as CF has it for quality flags.
"""

from collections.abc import Container, Mapping
from typing import Any

import numpy as np
import xarray as xr

from labtree.storage._xarray import Variable

__all__ = ["ANCILLARY", "MISSING", "mark_missing", "mask_name", "mask_of", "masks_of"]

#: What the name of a mask ends in.
MISSING = "_missing"
#: The attribute that names it.
ANCILLARY = "ancillary_variables"


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


def masks_of(dataset: xr.Dataset) -> dict[str, str]:
    """Return the variables of a Dataset that have missing values, and the mask of each."""
    found = ((str(name), mask_of(dataset.variables, name)) for name in dataset.variables)
    return {name: mask for name, mask in found if mask is not None}
