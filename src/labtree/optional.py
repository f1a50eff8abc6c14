"""Optional libraries, imported where they are used."""

from importlib import import_module
from typing import Any

from labtree.errors import MissingDependencyError


def require(module: str, *, purpose: str, extra: str | None = None) -> Any:
    """Import a module of an optional library, or say how to install it.

    Parameters
    ----------
    module : str
        Dotted name, such as ``"matplotlib.pyplot"``.
    purpose : str
        What it is needed for, to stand after "needed for".
    extra : str, optional
        The extra of labtree that installs it; without one, pip installs the library.

    Returns
    -------
    module

    Raises
    ------
    MissingDependencyError
        (an ImportError) The library is not installed.

    Examples
    --------
    >>> require("no_such_module", purpose="a demonstration", extra="plot")
    Traceback (most recent call last):
    ...
    labtree.errors.MissingDependencyError: no_such_module is needed for ...
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        library = module.partition(".")[0]
        # A library that is there but lacks one of its own parts should say so itself.
        if error.name is None or error.name.partition(".")[0] != library:
            raise
        wanted = library if extra is None else f'"labtree[{extra}]"'
        raise MissingDependencyError(
            f"{library} is needed for {purpose}. Install it with: pip install {wanted}"
        ) from error
