"""The engine ``labtree`` of xarray."""

import pickle

import numpy as np
import pytest
import xarray as xr

import labtree
from labtree.interop.xarray_engine import LabtreeBackendEntrypoint
from labtree.testing.recordings import record_emg

ENGINE = LabtreeBackendEntrypoint


@pytest.fixture
def path(tmp_path):
    tree = labtree.create_workspace("study")
    rates = xr.Dataset(
        {"rate": (("unit", "time"), np.arange(12.0).reshape(3, 4))},
        {"time": [0.0, 1.0, 2.0, 3.0], "phase": ("time", np.array([1j, 2, 3, 4]))},
    )
    tree.ws.store("rec1", "rates", rates)
    tree.ws.store("rec1", "days", np.array(["2020-01-01"], "M8[D]"))
    return tree.ws.save(tmp_path / "study")


def test_datatree_is_lazy_whole_and_closes(path):
    with xr.open_datatree(path, engine=ENGINE) as tree:
        assert tree.ws["rec1", "days"].dtype == "M8[D]"
        assert tree["rec1/rates"].rate.sel(time=2).values.tolist() == [2, 6, 10]
        assert tree["rec1/rates"].phase.dtype == complex
        rate = tree["rec1/rates"].rate
    with pytest.raises(ValueError, match="was closed"):
        rate.values  # noqa: B018


def test_groups_and_one_dataset(path):
    groups = ENGINE().open_groups_as_dict(path)
    assert list(groups) == ["/", "/rec1", "/rec1/rates", "/rec1/days"]
    below = xr.open_datatree(path, engine=ENGINE, group="/rec1")
    assert list(below.children) == ["rates", "days"]
    below.close()
    with xr.open_dataset(path, engine=ENGINE, group="rec1/rates") as dataset:
        assert dataset.rate.sum().item() == 66
    with xr.open_dataset(
        path, engine=ENGINE, group="rec1/rates", drop_variables="phase"
    ) as dataset:
        assert "phase" not in dataset.variables
    with pytest.raises(KeyError, match=r"no group 'rec9'; there is /, /rec1, /rec1/rates"):
        xr.open_dataset(path, engine=ENGINE, group="rec9")


def test_dask_and_pickle(path):
    with xr.open_dataset(
        path, engine=ENGINE, group="rec1/rates", chunks={"unit": 1}
    ) as dataset:
        assert dataset.rate.chunks == ((1, 1, 1), (4,))
        assert dataset.rate.mean("time").compute().values.tolist() == [1.5, 5.5, 9.5]
        copy = pickle.loads(pickle.dumps(dataset))
        assert copy.rate.values.tolist() == dataset.rate.values.tolist()


def test_guesses_what_no_other_engine_claims(tmp_path, path):
    folder = record_emg(tmp_path / "sessions")
    assert ENGINE().guess_can_open(folder)
    assert ENGINE().guess_can_open("somewhere/x.session.zip")
    assert not ENGINE().guess_can_open(path)
    assert not ENGINE().guess_can_open(tmp_path)
    assert not ENGINE().guess_can_open(b"bytes")
    with xr.open_dataset(folder, engine=ENGINE, group="streams/emg") as dataset:
        assert dataset.data.dims == ("time", "channel")


def test_only_paths_are_opened(path):
    with path.open("rb") as file, pytest.raises(TypeError, match="opens paths, not"):
        xr.open_dataset(file, engine=ENGINE)


def test_the_entry_point_is_registered():
    from importlib.metadata import distribution

    points = distribution("labtree").entry_points.select(group="xarray.backends")
    assert [point.value for point in points] == [
        "labtree.interop.xarray_engine:LabtreeBackendEntrypoint"
    ]
