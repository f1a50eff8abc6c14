"""Per-unit feature extractors written for HDF5 groups, run on a session."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import xarray as xr

from labtree.errors import UnknownNameError, unknown_name
from labtree.mea.feature_registry import register_feature
from labtree.pipeline.per_unit import decode_rows, encode_rows
from labtree.pipeline.sections import full_spike_times, sectioned_movies, trials_spike_times
from labtree.pipeline.sessions import units_of
from labtree.pipeline.units import feature, feature_nodes
from labtree.storage.names import decode_name


class ArrayAdapter:
    """An array that is read like an h5py dataset: ``[:]``, ``[()]``, ``shape``, ``attrs``."""

    def __init__(self, values: Any, attrs: Mapping[str, Any] | None = None) -> None:
        self._values = np.asarray(values)
        self.attrs = dict(attrs or {})

    def __getitem__(self, index: Any) -> Any:
        value = self._values[index]
        if not isinstance(value, np.ndarray):
            return value
        # As of a file, what is read is the reader's own.
        return value.copy() if value.ndim else value.item()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self._values, dtype=dtype, copy=copy)

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)

    def __float__(self) -> float:
        return float(self._values)

    def __int__(self) -> int:
        return int(self._values)

    def __getattr__(self, name: str) -> Any:
        if name in ("shape", "dtype", "size", "ndim", "nbytes", "flat"):
            return getattr(self._values, name)
        raise AttributeError(name)

    def __repr__(self) -> str:
        return f"<ArrayAdapter {self._values.dtype} {self._values.shape}>"


class DictAdapter(Mapping[str, Any]):
    """A mapping that is read like an h5py group.

    Nested mappings are groups, arrays are datasets, scalars are both entries and
    ``attrs``. Paths such as ``"stimulus/frame_times"`` work.

    Examples
    --------
    >>> group = DictAdapter({"spike_times": np.array([5, 9]), "info": {"row": 3}})
    >>> group["spike_times"][:].tolist(), group["info/row"], "info/column" in group
    ([5, 9], 3, False)
    """

    def __init__(self, data: Mapping[Any, Any]) -> None:
        self._data = {str(key): value for key, value in data.items()}

    @property
    def attrs(self) -> dict[str, Any]:
        """Entries that are neither groups nor datasets."""
        kinds = (Mapping, np.ndarray, xr.DataArray)
        return {key: value for key, value in self._data.items() if not isinstance(value, kinds)}

    def __getitem__(self, key: str) -> Any:
        if key in self._data:
            value = self._data[key]
        else:
            head, _, rest = str(key).strip("/").partition("/")
            if head not in self._data:
                raise unknown_name("entry", key, self._data)
            value = self._data[head]
            if rest:
                group = self[head]
                if not isinstance(group, DictAdapter):
                    raise UnknownNameError(f"{head!r} is not a group, so there is no {key!r}")
                return group[rest]
        if isinstance(value, Mapping):
            return DictAdapter(value)
        if isinstance(value, xr.DataArray):
            return ArrayAdapter(value.values, value.attrs)
        return ArrayAdapter(value) if isinstance(value, np.ndarray) else value

    def __contains__(self, key: object) -> bool:
        try:
            self[str(key)]
        except KeyError:
            return False
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def __repr__(self) -> str:
        return f"<DictAdapter {', '.join(self._data)}>"


def _sections(session: xr.DataTree, unit_id: str) -> dict[str, Any]:
    made = {}
    for movie, node in sectioned_movies(session).items():
        if unit_id not in node.dataset["unit"].values:
            continue
        trials = trials_spike_times(session, unit_id, movie)
        made[movie] = {
            "full_spike_times": full_spike_times(session, unit_id, movie),
            "trials_spike_times": {str(n): train for n, train in trials.items()},
        }
        table = node.dataset
        if "trial_start" in table:
            bounds = [table[name].values.ravel() for name in ("trial_start", "trial_end")]
            made[movie]["trials_start_end"] = np.stack(bounds, axis=1)
    return made


def unit_data(session: xr.DataTree) -> dict[str, dict[str, Any]]:
    """Return what hdmea's extractors know as a unit's group, for every unit.

    Spike times are samples; ``col`` and ``global_id`` stand beside ``column`` and
    ``sensor_id``.
    """
    rows = decode_rows(units_of(session))
    features = {
        name: node.dataset["unit"].values for name, node in feature_nodes(session).items()
    }
    for unit, row in rows.items():
        for old, new in (("col", "column"), ("global_id", "sensor_id")):
            if new in row:
                row.setdefault(old, row[new])
        row["spike_times_sectioned"] = _sections(session, unit)
        row["features"] = {
            name: feature(session, unit, name)
            for name, units in features.items()
            if unit in units
        }
    return rows


def _tree_data(node: xr.DataTree) -> dict[str, Any]:
    arrays = {decode_name(str(name)): array for name, array in node.dataset.data_vars.items()}
    values = {str(name): value for name, value in node.attrs.items()}
    groups = {decode_name(name): _tree_data(child) for name, child in node.children.items()}
    return arrays | values | groups


def register_extractor(
    extractor: Any, name: str | None = None, *, config: Mapping[str, Any] | None = None
) -> None:
    """Register a per-unit extractor (a class or object with ``extract``) as a feature.

    Its ``extract(unit_data, stimulus_data, config, metadata)`` is called once per unit
    with :class:`DictAdapter` objects; the dictionaries that it returns become whole
    arrays along ``unit``.

    Parameters
    ----------
    extractor : class or object
        ``name`` and ``version`` are taken from it if it has them.
    name : str, optional
    config : mapping, optional
        Its configuration; ``config_overrides`` of ``extract_features`` adds to it.

    Examples
    --------
    >>> class Count:
    ...     name, version = "count", "1.0.0"
    ...     def extract(self, unit_data, stimulus_data, config=None, metadata=None):
    ...         return {"n": len(unit_data["spike_times"])}
    >>> register_extractor(Count)
    """
    made = extractor() if isinstance(extractor, type) else extractor
    called = name or getattr(made, "name", None) or type(made).__name__
    fixed = dict(config or {})

    def run(session: xr.DataTree, **overrides: Any) -> xr.Dataset:
        empty = xr.DataTree()
        stimulus = DictAdapter(_tree_data(session.children.get("stimulus", empty)))
        metadata = _tree_data(session.children.get("metadata", empty))
        rows = {
            unit: dict(
                made.extract(DictAdapter(data), stimulus, {**fixed, **overrides}, metadata)
            )
            for unit, data in unit_data(session).items()
        }
        arrays = {
            unit: {
                key: np.asarray(v) if isinstance(v, (ArrayAdapter, xr.DataArray)) else v
                for key, v in row.items()
            }
            for unit, row in rows.items()
        }
        return encode_rows(arrays)

    run.__module__, run.__qualname__ = type(made).__module__, type(made).__qualname__
    register_feature(called, version=str(getattr(made, "version", "1.0.0")))(run)
