"""The step ``extract_features``, and the feature that comes with labtree: FRIF."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from labtree.errors import ConfigurationError
from labtree.mea.feature_registry import Feature, register_feature, registered_features
from labtree.mea.playlists import frame_times, sampling_rate
from labtree.pipeline.sessions import units_of
from labtree.pipeline.step_records import code_hash
from labtree.pipeline.steps import check_prerequisites, step
from labtree.pipeline.units import put_feature
from labtree.storage.ragged import split_rows


def frame_interval_rates(
    spike_times: np.ndarray, row_size: np.ndarray, frames: np.ndarray, rate: float
) -> np.ndarray:
    """Return each unit's spikes per second in each interval between two frames.

    Parameters
    ----------
    spike_times : int array (spike,)
        Samples, sorted within each unit, unit after unit.
    row_size : int array (unit,)
    frames : int array (frame,)
        Samples, strictly increasing; the same clock as the spikes'.
    rate : float
        Hz.

    Returns
    -------
    array of float32 (unit, frame - 1)
        Hz. A spike at a frame's own sample belongs to the interval that it begins.

    Examples
    --------
    >>> spikes, frames = np.array([10, 19, 20]), np.array([10, 20, 40])
    >>> frame_interval_rates(spikes, np.array([3]), frames, 100.0)
    array([[20.,  5.]], dtype=float32)
    """
    n_intervals = max(len(frames) - 1, 0)
    out = np.zeros((len(row_size), n_intervals), np.float32)
    if not n_intervals:
        return out
    per_spike = (rate / np.diff(frames)).astype(np.float64)
    for row, train in enumerate(split_rows(spike_times, row_size)):
        if len(train) * 8 < n_intervals:  # few spikes: find the interval of each
            interval = np.searchsorted(frames, train, side="right") - 1
            interval = interval[(interval >= 0) & (interval < n_intervals)]
            counts = np.bincount(interval, minlength=n_intervals)
        else:  # many spikes: find each frame among them
            counts = np.diff(np.searchsorted(train, frames, side="left"))
        out[row] = counts * per_spike
    return out


@register_feature("frif", version="2.0.0", requires=["load_recording"])
def frif(session: xr.DataTree) -> xr.DataArray:
    """Return the firing rate in each frame interval, Hz, along (unit, frame_interval).

    The coordinate ``frame_interval`` is the time at which each interval begins, in s.
    """
    units, frames = units_of(session), frame_times(session)
    rate = sampling_rate(session)
    if len(frames) < 2:
        raise ConfigurationError(
            f"frif needs at least two frames of the movie, the session has {len(frames)}; load "
            "the CMCR that has them: labtree.mea.load_recording(session=session, cmcr_path=...)"
        )
    rates = frame_interval_rates(
        units["spike_times"].values, units["row_size"].values, frames, rate
    )
    return xr.DataArray(
        rates,
        dims=("unit", "frame_interval"),
        coords={
            "unit": units["unit"].values,
            "frame_interval": ("frame_interval", frames[:-1] / rate, {"units": "s"}),
        },
        attrs={"units": "Hz"},
    )


def list_features() -> list[str]:
    """Return the names that :func:`extract_features` knows.

    Returns
    -------
    list of str

    Examples
    --------
    >>> "frif" in list_features()
    True
    """
    return sorted(registered_features())


def _wanted(features: Iterable[str] | str) -> list[Feature]:
    known = registered_features()
    names = [features] if isinstance(features, str) else list(features)
    wrong = [name for name in names if name not in known]
    if wrong:
        raise ConfigurationError(
            f"no feature {', '.join(map(repr, wrong))}; there are: "
            f"{', '.join(list_features())}. Add one with @labtree.mea.register_feature(name)"
        )
    return [known[name] for name in names]


def _versions(parameters: Mapping[str, Any]) -> dict[str, str]:
    return {
        feature.name: f"{feature.version} {code_hash(feature.function)}"
        for feature in _wanted(parameters["features"])
    }


@step(requires=["load_recording"], depends=_versions)
def extract_features(
    session: xr.DataTree,
    features: Iterable[str] | str,
    config_overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> xr.DataTree:
    """Compute registered features for all units.

    Fills ``features/<name>`` for each. All of them are added, or none.

    Parameters
    ----------
    session : DataTree
    features : iterable of str
        See :func:`list_features`; ``"frif"`` is there from the start.
    config_overrides : mapping of feature name to mapping, optional
        Keyword arguments for the features' functions.

    Returns
    -------
    DataTree
        The session that was given; without ``session=`` a :class:`labtree.StepResult`,
        whose ``hdf5_path`` is what :func:`labtree.load_session` takes.

    Raises
    ------
    ConfigurationError
        If a feature is unknown, or if a step that it needs has not run.

    Examples
    --------
    >>> import labtree
    >>> session = labtree.create_session("rec1")
    >>> session.session.add_units({"unit_001": {"spike_times": np.array([5, 9])}})
    >>> session.session.add_metadata(
    ...     {"acquisition_rate": 100.0, "frame_timestamps": np.array([0, 10, 20])})
    >>> session.session.mark_step_complete("load_recording")
    >>> session = extract_features(["frif"], session=session)
    >>> session["features/frif"]["frif"].values
    array([[20.,  0.]], dtype=float32)
    """
    overrides = dict(config_overrides or {})
    wanted = _wanted(features)
    strange = set(overrides) - {feature.name for feature in wanted}
    if strange:
        raise ConfigurationError(
            f"config_overrides for {', '.join(sorted(strange))}, which is not among the "
            "features asked for; add it to features="
        )
    for feature in wanted:
        check_prerequisites(session, f"feature {feature.name!r}", feature.requires)
        data = feature.function(session, **overrides.get(feature.name, {}))
        if not isinstance(data, (xr.DataArray, xr.Dataset)):
            raise ConfigurationError(
                f"feature {feature.name!r} returned {type(data).__name__}; expected a "
                "DataArray or Dataset along 'unit'"
            )
        put_feature(session, feature.name, data, extractor_version=feature.version)
    return session
