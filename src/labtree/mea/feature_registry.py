"""The features that ``extract_features`` knows, and how to add one."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import xarray as xr

from labtree.errors import ConfigurationError

Extractor = Callable[..., xr.DataArray | xr.Dataset]
F = TypeVar("F", bound=Extractor)


@dataclass(frozen=True)
class Feature:
    """A registered feature: its function, version, and the steps it needs."""

    name: str
    function: Extractor
    version: str
    requires: tuple[str, ...]


_FEATURES: dict[str, Feature] = {}


def register_feature(
    name: str, *, version: str = "1.0.0", requires: Iterable[str] = ()
) -> Callable[[F], F]:
    """Register a function of the session as a feature.

    The function returns a DataArray (or Dataset) along ``unit``; what else it takes
    comes from ``config_overrides`` of :func:`extract_features`. Registering a name
    again with the same version replaces it only if it is the same function, defined
    again (as notebooks do).

    Parameters
    ----------
    name : str
    version : str
        Kept with the feature.
    requires : iterable of str
        Steps that must be done before.

    Returns
    -------
    callable
        A decorator, which returns the function as it is.

    Raises
    ------
    ConfigurationError
        If another function has the name.

    Examples
    --------
    >>> @register_feature("spike_count", version="1.0.0")
    ... def spike_count(session):
    ...     return session["units"]["row_size"]
    >>> "spike_count" in registered_features()
    True
    """
    needed = (requires,) if isinstance(requires, str) else tuple(requires)

    def decorate(function: F) -> F:
        known = _FEATURES.get(name)
        if known is not None and _full_name(known.function) != _full_name(function):
            raise ConfigurationError(
                f"feature {name!r} is registered already, by {_full_name(known.function)}; "
                "choose another name"
            )
        _FEATURES[name] = Feature(name, function, version, needed)
        return function

    return decorate


def _full_name(function: Extractor) -> str:
    return f"{function.__module__}.{function.__qualname__}"


def registered_features() -> dict[str, Feature]:
    """Return the registered features by name."""
    return dict(_FEATURES)
