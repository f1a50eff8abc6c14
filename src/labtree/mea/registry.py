"""The features that ``extract_features`` knows, and how to add one."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeVar

import xarray as xr

from labtree.errors import ConfigurationError
from labtree.pipeline.features import put_feature
from labtree.pipeline.records import code_hash
from labtree.pipeline.sessions import completed_steps
from labtree.pipeline.steps import step
from labtree.pipeline.units import units_of

__all__ = ["Feature", "extract_features", "list_features", "register_feature"]

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
    anew (as notebooks do).

    Raises
    ------
    ConfigurationError
        If another function has the name.

    Examples
    --------
    >>> @register_feature("spike_count", version="1.0.0")
    ... def spike_count(session):
    ...     return session["units"]["row_size"]
    >>> "spike_count" in list_features()
    True
    """
    needed = (requires,) if isinstance(requires, str) else tuple(requires)

    def decorate(function: F) -> F:
        known = _FEATURES.get(name)
        where = (function.__module__, function.__qualname__)
        if (
            known is not None
            and (known.function.__module__, known.function.__qualname__) != where
        ):
            raise ConfigurationError(
                f"feature {name!r} is registered already, by {known.function.__module__}."
                f"{known.function.__qualname__}; choose another name"
            )
        _FEATURES[name] = Feature(name, function, version, needed)
        return function

    return decorate


def list_features() -> list[str]:
    """Return the names that :func:`extract_features` knows."""
    _load_own()
    return sorted(_FEATURES)


def _load_own() -> None:
    import_module("labtree.mea.frif")  # registers itself


def _wanted(features: Iterable[str] | str) -> list[Feature]:
    _load_own()
    names = [features] if isinstance(features, str) else list(features)
    wrong = [name for name in names if name not in _FEATURES]
    if wrong:
        raise ConfigurationError(
            f"no feature {', '.join(map(repr, wrong))}; there are: "
            f"{', '.join(list_features())}. Add one with @labtree.mea.register_feature(name)"
        )
    return [_FEATURES[name] for name in names]


def _versions(parameters: Mapping[str, Any]) -> dict[str, str]:
    wanted = _wanted(parameters["features"])
    return {one.name: f"{one.version} {code_hash(one.function)}" for one in wanted}


@step(depends=_versions)
def extract_features(
    session: xr.DataTree,
    features: Iterable[str] | str,
    config_overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> xr.DataTree:
    """Compute registered features for all units.

    Fills ``features/<name>`` for each. All of them come in, or none.

    Parameters
    ----------
    session : DataTree
    features : iterable of str
        See :func:`list_features`; ``"frif"`` is there from the start.
    config_overrides : mapping of feature name to mapping, optional
        Keyword arguments for the features' functions.

    Raises
    ------
    ConfigurationError
        If a feature is unknown, or if a step that it needs has not run.
    """
    overrides = dict(config_overrides or {})
    wanted = _wanted(features)
    strange = set(overrides) - {feature.name for feature in wanted}
    if strange:
        raise ConfigurationError(
            f"config_overrides for {', '.join(sorted(strange))}, which is not asked for"
        )
    units_of(session)
    for feature in wanted:
        missing = [one for one in feature.requires if one not in completed_steps(session)]
        if missing:
            raise ConfigurationError(
                f"feature {feature.name!r} needs {', '.join(missing)} first; run "
                + " and ".join(f"labtree.mea.{one}(session=session, ...)" for one in missing)
            )
        data = feature.function(session, **overrides.get(feature.name, {}))
        if not isinstance(data, (xr.DataArray, xr.Dataset)):
            raise ConfigurationError(
                f"feature {feature.name!r} returned {type(data).__name__}; expected a "
                "DataArray or Dataset along 'unit'"
            )
        put_feature(session, feature.name, data, extractor_version=feature.version)
    return session
