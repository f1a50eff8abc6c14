"""SpikeLab's files and objects as workspaces, and what it corrupts kept whole."""

import math
import warnings
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

import labtree
from labtree.errors import LossWarning
from labtree.objects.registry import kind_named
from labtree.testing import spikes
from support import spikelab_files as files
from support.exactness import assert_same

DATASETS = [
    spikes.synthetic_spike_data(4),
    spikes.synthetic_rate_data(4),
    spikes.synthetic_rate_slice_stack(4),
    spikes.synthetic_spike_slice_stack(4),
    spikes.synthetic_pairwise_matrix(4),
    spikes.synthetic_pairwise_stack(4),
]


def kind_of(ds):
    return ds.attrs["labtree_kind"]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "theirs.h5"


def saved_and_loaded(tree, folder):
    tree.ws.save(folder / "saved")
    return labtree.load_workspace(folder / "saved")


def test_a_file_becomes_a_workspace_that_can_be_saved(path, tmp_path):
    with files.spikelab_file(path) as file:
        files.spike_data(file, "rec/spikes", [[1, 2], []], length=5.0, note="ünïcode")
        files.array(file, "rec/a/b", np.arange(3))
        files.item(file, "rec/d", "dict")
    tree = labtree.import_spikelab(path)
    for workspace in (tree, saved_and_loaded(tree, tmp_path)):
        assert workspace.ws.workspace_id == "a72af097"
        assert workspace.ws.name == "sample"
        assert workspace.ws.created_at == files.CREATED
        assert workspace.ws.list_keys("rec") == ["a/b", "d", "spikes"]
        info = workspace.ws.get_info("rec", "spikes")
        assert info == {
            "type": "spike_data",
            "N": 2,
            "length_ms": 5.0,
            "start_time": 0.0,
            "created_at": files.CREATED + 1,
            "note": "ünïcode",
        }
        assert labtree.spikes.spike_trains(workspace.ws.get("rec", "spikes"))[0].tolist() == [
            1,
            2,
        ]


@pytest.mark.parametrize("form", [str, lambda p: p, lambda p: p.with_suffix("")])
def test_the_path_may_go_without_its_ending(path, form):
    with files.spikelab_file(path) as file:
        files.array(file, "n/k", [1])
    assert labtree.import_spikelab(form(path)).ws.get("n", "k").tolist() == [1]


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        labtree.import_spikelab(tmp_path / "nothing")


def test_problems_are_said_once_and_kept(path, tmp_path):
    with files.spikelab_file(path) as file:
        files.array(file, "n/good", [1])
        files.item(file, "n/bad", "Unheard")
        files.spike_data(file, "n/late", [[9]], length=5.0)
    with pytest.warns(LossWarning, match="not everything could be read") as caught:
        tree = labtree.import_spikelab(path)
    assert len(caught) == 1
    text = str(caught[0].message)
    assert "/n/bad: left out: unknown __type__ 'Unheard'" in text
    assert caught[0].filename == __file__
    assert tree.ws.list_keys("n") == ["good", "late"]
    assert tree.ws.get_info("n", "late")["type"] == "dataset"
    assert saved_and_loaded(tree, tmp_path).attrs["spikelab_problems"] == text.split("\n")[1:]


def test_what_a_workspace_cannot_keep_is_listed(path):
    with files.spikelab_file(path) as file:
        files.array(file, "n/good", [1])
        bad = files.item(file, "n/bad", "ndarray")
        bad.create_dataset("data", data=[file["n"].ref], dtype=h5py.ref_dtype)
    with pytest.warns(LossWarning, match="/n/bad: left out: n/bad"):
        tree = labtree.import_spikelab(path)
    assert tree.ws.list_keys("n") == ["good"]


@pytest.mark.parametrize("ds", DATASETS, ids=kind_of)
def test_every_kind_survives_a_workspace(ds, tmp_path):
    tree = labtree.create_workspace()
    ds.ws.store("n", "k", into=tree, note="a note")
    assert ds.ws.kind == kind_of(ds)
    assert_same(tree.ws.get("n", "k"), ds)
    loaded = saved_and_loaded(tree, tmp_path)
    assert_same(loaded.ws.get("n", "k"), ds)
    opened = labtree.open_workspace(tmp_path / "saved")
    item = opened.ws.get("n", "k")
    item.ws.validate()
    assert item.ws.summary() == kind_named(kind_of(ds)).summary(ds)
    info = opened.ws.get_info("n", "k")
    assert info.items() >= ds.ws.summary().items()
    assert info["type"] == kind_of(ds)
    assert item.ws.plot().get_xlabel()
    assert kind_of(ds) in repr(item.ws)
    assert kind_of(ds) in item.ws._repr_html_()
    opened.ws.close()


def test_an_invalid_dataset_is_not_stored():
    tree = labtree.create_workspace()
    ds = spikes.synthetic_spike_data(4)
    tree.ws.store("n", "k", ds)
    with pytest.raises(ValueError, match=r"write labtree\.spikes\.select_units"):
        tree.ws.store("n", "k", ds.isel(unit=[0]))
    assert_same(tree.ws.get("n", "k"), ds)


def test_units_are_selected_without_reading_the_others(tmp_path):
    tree = labtree.create_workspace()
    ds = spikes.synthetic_spike_data(6)
    tree.ws.store("n", "k", ds)
    tree.ws.save(tmp_path / "saved")
    opened = labtree.open_workspace(tmp_path / "saved")
    lazy = opened["n/k"].to_dataset()
    part = labtree.spikes.select_units(lazy, [4])
    assert not lazy.variables["spike_times"]._in_memory
    assert (
        labtree.spikes.spike_trains(part)[0].tolist()
        == labtree.spikes.unit_train(ds, 4).tolist()
    )
    assert (
        labtree.spikes.unit_train(lazy, 4).tolist() == labtree.spikes.unit_train(ds, 4).tolist()
    )
    assert not lazy.variables["spike_times"]._in_memory
    opened.ws.close()


# What SpikeLab 0.1.2 corrupts, hides or refuses, each kept whole here.


def kept(obj, folder):
    tree = labtree.create_workspace()
    tree.ws.store("n", "k", obj)
    back = saved_and_loaded(tree, folder).ws.get("n", "k")
    assert_same(back, obj)
    return back


@pytest.mark.parametrize(
    "values",
    [
        [1, 2.7],
        [True, 5],
        [2**53 + 1, 1],
        [2**70, 1],
        [math.nan, 1.0],
        ["", "a"],
        [None, "a"],
        [None, 1],
        [np.datetime64(5, "ns"), np.datetime64("NaT", "ns")],
        [["a", "b"], ["c"]],
        [{"a": 1}, {"b": (1, None)}],
        [np.arange(2), np.arange(3)],
    ],
    ids=str,
)
def test_attributes_of_units_are_kept(values, tmp_path):
    attributes = [{"x": value} for value in values]
    back = kept(labtree.spike_data([[1.0], [2.0]], neuron_attributes=attributes), tmp_path)
    assert_same(labtree.spikes.unit_attributes(back), attributes)


def test_datasets_in_dicts_are_kept(tmp_path):
    kept({"a": spikes.synthetic_spike_data(2), "b": {"c": DATASETS[1]}}, tmp_path)


def test_complex_matrices_are_kept(tmp_path):
    kept(labtree.pairwise_matrix(np.array([[1 + 2j, 0], [0, 1j]])), tmp_path)


def test_masks_are_kept(tmp_path):
    masked = np.ma.masked_equal([[1, 2], [2, 1]], 2)
    back = labtree.spikes.matrix_values(kept(labtree.pairwise_matrix(masked), tmp_path))
    assert back.mask.tolist() == masked.mask.tolist()


@pytest.mark.parametrize("dtype", ["f4", "i4", "u8"])
def test_dtypes_are_kept(dtype, tmp_path):
    one = np.ones((2, 2), dtype)
    kept(labtree.spike_data(list(one)), tmp_path)
    kept(labtree.rate_data(one, np.arange(2, dtype="i4")), tmp_path)
    kept(labtree.rate_slice_stack(one[:, :, np.newaxis], [(0, 1)]), tmp_path)
    kept(labtree.pairwise_matrix(one), tmp_path)


def test_the_unit_of_rates_is_kept(tmp_path):
    back = kept(labtree.rate_data([[1.0]], [0], unit="kHz"), tmp_path)
    assert back.rate.attrs["units"] == "kHz"


def test_tuple_labels_are_kept(tmp_path):
    back = kept(labtree.pairwise_matrix(np.eye(2), labels=[(1, 2), (3, "a")]), tmp_path)
    assert_same(back.label_j.values.tolist(), [(1, 2), (3, "a")])


@pytest.mark.parametrize(
    "obj",
    [
        np.array([b"a", b"bc"]),
        {"list": [1, 2], "strings": ["a", "b"], "tuple": (1, "a"), "a/b": 2**70, "none": None},
        np.array([1, 2], "M8[ns]"),
        np.ma.masked_equal([1, 2], 2),
    ],
    ids=["bytes", "dict", "datetimes", "masked"],
)
def test_other_objects_are_kept(obj, tmp_path):
    kept(obj, tmp_path)


@pytest.mark.parametrize("name", ["a/b", ".", "..", "__x", "ü 😀", "a.b", " "])
def test_names_are_kept(name, tmp_path):
    tree = labtree.create_workspace()
    tree.ws.store(name, name, spikes.synthetic_spike_data(1))
    loaded = saved_and_loaded(tree, tmp_path)
    assert loaded.ws.list_keys() == {name: [name]}
    loaded.ws.get(name, name).ws.validate()


def test_the_order_of_storing_is_kept(tmp_path):
    tree = labtree.create_workspace()
    for key in "zay":
        tree.ws.store("n", key, spikes.synthetic_spike_data(1))
    assert saved_and_loaded(tree, tmp_path).ws.list_keys("n") == ["z", "a", "y"]


# Objects, recognized by their attributes.


def theirs(**attributes):
    return SimpleNamespace(**attributes)


def their_spikes(**more):
    return theirs(
        **{
            "train": [np.array([1.0, 2.0]), np.array([])],
            "N": 2,
            "start_time": -1.0,
            "length": 5.0,
            "neuron_attributes": [{"x": 1}, {}],
            "metadata": {"a": 1},
            "raw_data": np.empty((0, 0)),
            "raw_time": np.empty(0),
        }
        | more
    )


def test_spike_data_objects():
    ds = labtree.from_spikelab(their_spikes())
    expected = labtree.spike_data(
        [[1.0, 2.0], []],
        length=5.0,
        start_time=-1.0,
        neuron_attributes=[{"x": 1}, {}],
        metadata={"a": 1},
    )
    assert_same(ds, expected)
    raw = labtree.from_spikelab(their_spikes(raw_data=np.ones((2, 3)), raw_time=np.arange(3)))
    assert raw.raw_data.shape == (2, 3)
    times = labtree.from_spikelab(their_spikes(raw_time=np.arange(3)))
    assert times.raw_data.shape == (0, 3)


def test_objects_of_the_other_classes():
    rate = theirs(
        inst_Frate_data=np.ones((1, 2)), times=[0, 1], neuron_attributes=None, rate_unit="kHz"
    )
    assert labtree.from_spikelab(rate).rate.attrs == {"units": "kHz"}
    stack = theirs(
        event_stack=np.ones((1, 2, 1)), times=[(0, 4)], step_size=2.0, neuron_attributes=None
    )
    assert labtree.from_spikelab(stack).attrs["step_size"] == 2
    slices = theirs(
        spike_stack=[their_spikes()] * 2,
        times=[(0, 5), (9, 14)],
        N=2,
        neuron_attributes=[{"id": 1}, {"id": 2}],
    )
    assert labtree.from_spikelab(slices).id.values.tolist() == [1, 2]
    matrix = theirs(matrix=np.eye(2) * 1j, labels=[(1, 2), (3, 4)], metadata={"a": 1})
    assert labtree.from_spikelab(matrix).matrix.dtype == complex
    matrices = theirs(stack=np.ones((2, 2, 1)), labels=None, times=[(0, 1)], metadata={})
    assert labtree.from_spikelab(matrices).slice_end.item() == 1


def test_a_dict_of_objects():
    found = labtree.from_spikelab({"a": their_spikes(), "b": np.arange(2), "c": {"d": 3}})
    assert found["a"].sizes["unit"] == 2
    assert_same({"b": found["b"], "c": found["c"]}, {"b": np.arange(2), "c": {"d": 3}})


def test_a_workspace_object():
    stored = {"n": {"k": their_spikes(), "d": {"inside": their_spikes()}}}
    info = {"created_at": 5.0, "note": "a note"}
    tree = labtree.from_spikelab(
        theirs(
            workspace_id="id",
            name=None,
            created_at=3.0,
            list_namespaces=lambda: list(stored),
            list_keys=lambda namespace: list(stored[namespace]),
            get=lambda namespace, key: stored[namespace][key],
            get_info=lambda namespace, key: info,
        )
    )
    assert (tree.ws.workspace_id, tree.ws.name, tree.ws.created_at) == ("id", None, 3.0)
    assert tree.ws.get_info("n", "k").items() >= info.items()
    assert tree.ws.get("n", "d")["inside"].ws.kind == "spike_data"


@pytest.mark.parametrize("obj", [3, "text", np.ones(3), [1], None, object()])
def test_what_is_none_of_them_is_said(obj):
    with pytest.raises(
        ValueError, match=r"from_spikelab takes a SpikeData, RateData, .* found"
    ):
        labtree.from_spikelab(obj)


def test_nothing_is_warned_of_without_reason(path):
    with files.spikelab_file(path) as file:
        files.array(file, "n/k", [1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tree = labtree.import_spikelab(path)
    assert "spikelab_problems" not in tree.attrs
