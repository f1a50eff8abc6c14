"""Files as SpikeLab writes them, made with h5py alone."""

import json
from contextlib import contextmanager

import h5py
import numpy as np

CREATED = 1795150428.25


@contextmanager
def spikelab_file(path, *, workspace_id="a72af097", name="sample"):
    with h5py.File(path, "w") as file:
        file.attrs["__workspace_id__"] = workspace_id
        file.attrs["__workspace_name__"] = name
        file.attrs["__created_at__"] = CREATED
        yield file


def item(parent, path, kind, *, note=None, **attributes):
    group = parent.require_group(path)
    group.attrs["__type__"] = kind
    group.attrs["__created_at__"] = CREATED + 1
    if note is not None:
        group.attrs["__note__"] = note
    for name, value in attributes.items():
        group.attrs[name] = value
    return group


def strings(group, name, values, *, mark=True):
    dataset = group.create_dataset(
        name, data=np.array(values, object), dtype=h5py.string_dtype()
    )
    if mark:
        dataset.attrs["__string_array__"] = True


def array(parent, path, values, **more):
    group = item(parent, path, "ndarray", **more)
    if np.asarray(values).dtype.kind == "U":
        strings(group, "data", values)
    else:
        group["data"] = values
    return group


def spikes(group, trains, *, length, start_time=0.0, metadata=None):
    group.attrs["N"] = np.int64(len(trains))
    group.attrs["length_ms"] = length
    if start_time is not None:
        group.attrs["start_time"] = start_time
    group.attrs["__metadata__"] = json.dumps(metadata or {})
    group["spike_times"] = np.array([time for train in trains for time in train], float)
    group["spike_times_index"] = np.cumsum([len(train) for train in trains], dtype=np.int64)
    return group


def spike_data(parent, path, trains, *, note=None, **more):
    return spikes(item(parent, path, "SpikeData", note=note), trains, **more)


def attribute(group, name, values, **attributes):
    columns = group.require_group("neuron_attributes")
    if isinstance(values[0], str):
        strings(columns, name, values, mark=False)
    else:
        columns[name] = np.asarray(values)
    for key, value in attributes.items():
        columns[name].attrs[f"__{key}__"] = value


def index(path, keys):
    """Write the index beside a file, as SpikeLab does."""
    content = {
        "index": {namespace: {name: {} for name in names} for namespace, names in keys.items()}
    }
    path.with_suffix(".json").write_text(json.dumps(content), encoding="utf-8")
