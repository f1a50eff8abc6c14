"""Workspaces as SpikeLab's files: read back here, and by SpikeLab if it is installed."""

import json
import warnings

import h5py
import numpy as np
import pytest
import xarray as xr

import labtree
from labtree.errors import LossWarning
from labtree.testing import spikes
from support.exactness import assert_same

EXACT = {
    "spike_data": spikes.synthetic_spike_data(4),
    "attributes": labtree.spike_data(
        [[1.0], [2.0], []],
        length=9.0,
        start_time=-3.0,
        neuron_attributes=[
            {
                "i": 1,
                "f": 1.5,
                "b": True,
                "s": "a",
                "a": np.arange(3.0),
                "n": np.full(2, np.nan),
            },
            {"i": -5, "a": np.ones(3), "n": np.ones(2)},
            {"b": False, "s": "ü"},
        ],
        metadata={"a": {"b": [1, None, "x"]}, "array": np.arange(6, dtype="i4").reshape(2, 3)},
        raw_data=np.arange(6, dtype="f4").reshape(2, 3),
        raw_time=np.arange(3.0),
    ),
    "no units": labtree.spike_data([]),
    "rate_data": labtree.rate_data([[1.0, 2.0]], [0.0, 5.0], unit=None),
    "rate_slice_stack": spikes.synthetic_rate_slice_stack(4),
    "spike_slice_stack": spikes.synthetic_spike_slice_stack(4),
    "pairwise_matrix": spikes.synthetic_pairwise_matrix(4),
    "numbered matrix": labtree.pairwise_matrix(np.eye(2), labels=[10, 20]),
    "pairwise_stack": spikes.synthetic_pairwise_stack(4),
    "floats": np.arange(6, dtype="f4").reshape(2, 3),
    "bools": np.array([True, False]),
    "complex": np.array([1 + 2j]),
    "strings": np.array(["a", "ü"]),
    "scalar": np.array(5.0),
    "empty": np.empty((0, 3)),
    "struct": np.array([(1, 2.0)], [("a", "<i4"), ("b", "<f8")]),
    "dict": {
        "int": 42,
        "big": 2**63,
        "float": 3.5,
        "bool": True,
        "str": "hello",
        "none": None,
        "tuple": (1, 2),
        "empty": (),
        "strings": ("a", "b"),
        "set": {1, 3},
        "frozenset": frozenset("ab"),
        "array": np.arange(3),
        "sub": {"y": np.arange(2)},
        "spikes": spikes.synthetic_spike_data(2),
    },
    "empty dict": {},
}


def in_order(obj):
    """SpikeLab's files forget the order of names."""
    if isinstance(obj, xr.Dataset):
        return obj[sorted(obj.variables)].assign_attrs(obj.attrs)
    if isinstance(obj, dict):
        return {name: in_order(obj[name]) for name in sorted(obj)}
    return obj


def workspace(**items):
    tree = labtree.create_workspace("mine")
    for key, obj in items.items():
        tree.ws.store("n", key, obj)
    return tree


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    tree = workspace(**EXACT)
    tree.ws.add_note("n", "spike_data", "ünïcode")
    path = labtree.export_spikelab(tree, tmp_path_factory.mktemp("export") / "theirs")
    return tree, path


@pytest.mark.parametrize("key", EXACT)
def test_what_the_format_holds_comes_back(exported, key):
    tree, path = exported
    back = labtree.import_spikelab(path)
    assert_same(in_order(back.ws.get("n", key)), in_order(EXACT[key]))
    infos = [workspace.ws.get_info("n", key) for workspace in (back, tree)]
    for info in infos:
        info.pop("keys", None)
    assert infos[0] == infos[1]


def test_the_workspace_comes_back(exported):
    tree, path = exported
    back = labtree.import_spikelab(path)
    assert back.ws.workspace_id == tree.ws.workspace_id
    assert back.ws.name == "mine"
    assert back.ws.created_at == tree.ws.created_at
    assert path.name == "theirs.h5"
    index = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert index["workspace_id"] == tree.ws.workspace_id
    entry = index["index"]["n"]["spike_data"]
    assert entry["type"] == "SpikeData"
    assert entry["N"] == 4
    assert entry["note"] == "ünïcode"


def test_no_temporary_files_stay(exported):
    _, path = exported
    assert sorted(p.name for p in path.parent.iterdir()) == ["theirs.h5", "theirs.json"]


CHANGES = {
    "unit of rates": (labtree.rate_data([[1.0]], [0.0]), "the unit of the rates, Hz"),
    "whole trains": (labtree.spike_data([[1, 2]]), "spike_times: dtype int64 becomes float64"),
    "masked": (
        labtree.pairwise_matrix(np.ma.masked_equal([[1.0]], 1)),
        "masked values become NaN",
    ),
    "labels": (labtree.pairwise_matrix([[1.0]], labels=[(1, 2)]), "labels become strings"),
    "bytes": (np.array([b"a"]), "bytes become str"),
    "metadata": (
        labtree.spike_data([[1.0]], metadata={"t": (1,)}),
        "metadata 't': becomes {\"t\": [1]}",
    ),
}
LOSSES = {
    "kHz": (
        labtree.rate_data([[1.0]], [0.0], unit="kHz"),
        "unit of the rates, kHz, is left out",
    ),
    "large trains": (labtree.spike_data([[2**53 + 1]]), "int64 is rounded to float64"),
    "long": (labtree.spike_data([], length=2**53 + 1), "length or start_time is rounded"),
    "complex": (labtree.pairwise_matrix([[1j]]), "left out: SpikeLab keeps only the real part"),
    "masked array": (np.ma.masked_equal([1], 1), "left out: SpikeLab drops the mask"),
    "not text": (np.array([b"\xff"]), "left out: bytes that are no UTF-8 text"),
    "nul": (np.array(["a\0b"]), "left out: text with NUL"),
    "dates": (np.array([1], "M8[s]"), "left out: SpikeLab cannot store an array of dtype"),
    "struct": (np.array([("a",)], [("a", "U1")]), "left out: SpikeLab cannot store an array"),
    "number": (5, "left out: SpikeLab stores arrays, dicts and its own classes, not int"),
    "__x": (
        labtree.spike_data([[1.0]]).assign(more=("unit", [1.0])),
        "the variable 'more' is left out",
    ),
    "called like a variable of another kind": (
        labtree.spike_data([[1.0]]).assign(rate=("unit", [1.0])),
        "the variable 'rate' is left out",
    ),
    "along slices": (
        spikes.synthetic_rate_slice_stack(4).assign_coords(
            contrast=("slice", np.arange(spikes.synthetic_rate_slice_stack(4).sizes["slice"]))
        ),
        "the coordinate 'contrast' is left out",
    ),
    "attribute": (
        labtree.spike_data([[1.0]]).assign_attrs(mine=1),
        "the attribute 'mine' is left out",
    ),
    "set in metadata": (
        labtree.spike_data([[1.0]], metadata={"t": {1}}),
        "metadata 't': left out: SpikeLab cannot store a set there",
    ),
    "a/b": (np.ones(1), "left out: SpikeLab cannot load an item called 'a/b'"),
    ".": (np.ones(1), "left out: SpikeLab cannot load an item called '.'"),
}


@pytest.mark.parametrize("key", CHANGES)
def test_another_form_is_written_with_a_warning(key, tmp_path):
    obj, words = CHANGES[key]
    with pytest.warns(LossWarning) as warned:
        path = labtree.export_spikelab(workspace(k=obj), tmp_path / "theirs")
    (warning,) = warned
    assert words in str(warning.message)
    assert "n/k" in str(warning.message)
    assert labtree.import_spikelab(path).ws.get_info("n", "k") is not None


@pytest.mark.parametrize("key", LOSSES)
def test_what_the_format_cannot_hold_is_said_before_anything_is_written(key, tmp_path):
    obj, words = LOSSES[key]
    tree = workspace(**{key: obj, "good": np.arange(3)})
    (tmp_path / "theirs.h5").write_bytes(b"old")
    with pytest.raises(
        ValueError, match=r"theirs.h5 was not written.*on_loss=\"warn\""
    ) as caught:
        labtree.export_spikelab(tree, tmp_path / "theirs")
    assert words in str(caught.value)
    assert f"n/{key}" in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["theirs.h5"]
    assert (tmp_path / "theirs.h5").read_bytes() == b"old"
    with pytest.warns(LossWarning) as warned:
        path = labtree.export_spikelab(tree, tmp_path / "theirs", on_loss="warn")
    assert words in str(warned[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        back = labtree.import_spikelab(path)
    assert back.ws.get("n", "good").tolist() == [0, 1, 2]
    assert (back.ws.get_info("n", key) is None) == (
        "left out: " in words and "metadata" not in words
    )


ATTRIBUTES = [
    ([{"x": 1}, {"x": 2.7}], "values of several types become float64", [1.0, 2.7]),
    ([{"x": True}, {"x": 5}], "values of several types become float64", [1.0, 5.0]),
    ([{"x": 1}, {"x": "a"}], "values of several types become text", ["1", "a"]),
    ([{"x": np.nan}, {"x": 1.0}], "SpikeLab takes NaN as missing", [None, 1.0]),
    ([{"x": ""}, {"x": "a"}], "SpikeLab takes an empty string as missing", [None, "a"]),
    ([{"x": None}, {"x": "a"}], "None becomes a missing value", [None, "a"]),
    ([{"x": None}, {"x": 1}], "None becomes a missing value", [None, 1.0]),
    ([{"x": np.float32(0.1)}, {}], "dtype float32 is not kept", [np.float32(0.1), None]),
]
ATTRIBUTE_LOSSES = [
    ([{"x": 2**53 + 1}, {}], "values are rounded to float64", [2**53, None]),
    ([{"x": 2**53 + 1}, {"x": 1.5}], "values are rounded to float64", [2.0**53, 1.5]),
    ([{"x": 1j}, {}], "left out: values of complex128", [None, None]),
    ([{"x": [1]}, {"x": 2}], "left out: values of int, list", [None, None]),
    ([{"x": np.array(["a"])}, {}], "left out: arrays of dtype <U1", [None, None]),
    ([{"a/b": 1}, {}], "left out: SpikeLab cannot load an item called 'a/b'", [None, None]),
]


def values_of(path):
    back = labtree.spikes.unit_attributes(labtree.import_spikelab(path).ws.get("n", "k"))
    return [record.get("x") for record in back]


@pytest.mark.parametrize(("attributes", "words", "expected"), ATTRIBUTES)
def test_attributes_take_the_form_of_the_format(attributes, words, expected, tmp_path):
    ds = labtree.spike_data([[1.0], [2.0]], neuron_attributes=attributes)
    with pytest.warns(LossWarning) as warned:
        path = labtree.export_spikelab(workspace(k=ds), tmp_path / "theirs")
    assert words in str(warned[0].message)
    assert values_of(path) == expected


@pytest.mark.parametrize(("attributes", "words", "expected"), ATTRIBUTE_LOSSES)
def test_attributes_that_the_format_cannot_hold(attributes, words, expected, tmp_path):
    tree = workspace(k=labtree.spike_data([[1.0], [2.0]], neuron_attributes=attributes))
    with pytest.raises(ValueError, match=r"was not written"):
        labtree.export_spikelab(tree, tmp_path / "theirs")
    with pytest.warns(LossWarning) as warned:
        path = labtree.export_spikelab(tree, tmp_path / "theirs", on_loss="warn")
    assert words in str(warned[0].message)
    assert values_of(path) == expected


@pytest.mark.parametrize("kind", ["spike_data", "rate_data", "rate_slice_stack"])
def test_attributes_may_have_the_names_of_other_kinds_variables(kind, tmp_path):
    names = [
        "rate",
        "time",
        "length",
        "matrix",
        "label_i",
        "spike_times",
        "row_size",
        "channel",
    ]
    attributes = [dict.fromkeys(names, 1.0), dict.fromkeys(names[:-1], 2.0)]
    make = {
        "spike_data": lambda: labtree.spike_data(
            [[1.0], [2.0]], length=5.0, neuron_attributes=attributes
        ),
        "rate_data": lambda: labtree.rate_data(
            np.ones((2, 3)), np.arange(3.0), unit=None, neuron_attributes=attributes
        ),
        "rate_slice_stack": lambda: labtree.rate_slice_stack(
            np.ones((2, 3, 1)), [(0.0, 3.0)], neuron_attributes=attributes
        ),
    }
    path = labtree.export_spikelab(workspace(k=make[kind]()), tmp_path / "theirs")
    back = labtree.import_spikelab(path).ws.get("n", "k")
    assert labtree.spikes.unit_attributes(back) == [
        dict(sorted(each.items())) for each in attributes
    ]


DICT_CHANGES = [
    ([1, 2], "['x']: a list becomes an array", np.array([1, 2])),
    ([1, 2.5], "['x']: numbers become float64", np.array([1, 2.5])),
    ((1, 2.5), "['x']: numbers become float64", (1.0, 2.5)),
    ([1, "a"], "['x']: all values of the list become text", np.array(["1", "a"])),
    (np.float32(1.5), "['x']: SpikeLab reads a numpy float32 as float", np.float32(1.5)),
    (np.int8(3), "['x']: SpikeLab reads a numpy int8 as int", np.int8(3)),
    (np.bool_(True), "['x']: SpikeLab reads a numpy bool as bool", np.bool_(True)),
]


@pytest.mark.parametrize(("value", "words", "expected"), DICT_CHANGES)
def test_values_of_dicts_take_the_form_of_the_format(value, words, expected, tmp_path):
    with pytest.warns(LossWarning) as warned:
        path = labtree.export_spikelab(workspace(k={"x": value}), tmp_path / "theirs")
    assert words in str(warned[0].message)
    assert_same(labtree.import_spikelab(path).ws.get("n", "k")["x"], expected)


DICT_LOSSES = [
    ({1: 2}, "[1]: left out: a key must be a string, found int"),
    ({"a/b": 2}, "['a/b']: left out: SpikeLab cannot load"),
    (
        {"x": [1, None]},
        "['x']: left out: a list must hold numbers or text, found NoneType",
    ),
    ({"x": (2**70,)}, "['x']: left out: a whole number beyond 64 bits"),
    ({"x": (2**53 + 1, 0.5)}, "['x']: numbers are rounded to float64"),
    ({"x": 2**70}, "['x']: left out: a whole number beyond 64 bits"),
    ({"x": b"a"}, "['x']: left out: a dict cannot hold a bytes"),
    ({"x": {"y": 1j}}, "['x']['y']: left out: a dict cannot hold a complex"),
    ({"x": "a\0"}, "['x']: left out: text with NUL"),
    ({"x": {"y": np.ma.masked_equal([1], 1)}}, "['x']['y']: left out: SpikeLab drops the mask"),
]


@pytest.mark.parametrize(("obj", "words"), DICT_LOSSES)
def test_parts_of_dicts_that_the_format_cannot_hold(obj, words, tmp_path):
    tree = workspace(k=obj | {"good": 1})
    with pytest.raises(ValueError, match="was not written"):
        labtree.export_spikelab(tree, tmp_path / "theirs")
    with pytest.warns(LossWarning) as warned:
        path = labtree.export_spikelab(tree, tmp_path / "theirs", on_loss="warn")
    assert words in str(warned[0].message)
    assert labtree.import_spikelab(path).ws.get("n", "k")["good"] == 1


def test_attributes_of_slices_are_written(tmp_path):
    parts = [
        labtree.spike_data([[1.0]], length=5, neuron_attributes=[{"x": n}]) for n in (1, 2)
    ]
    stack = labtree.spike_slice_stack(
        parts, [(0.0, 5.0), (9.0, 14.0)], neuron_attributes=[{"id": "a"}]
    )
    path = labtree.export_spikelab(workspace(k=stack), tmp_path / "theirs")
    assert_same(labtree.import_spikelab(path).ws.get("n", "k"), stack)


def test_a_hidden_namespace_is_said(tmp_path):
    tree = labtree.create_workspace()
    tree.ws.store("__x", "k", np.ones(1))
    with pytest.raises(ValueError, match="__x/k: left out: SpikeLab hides a namespace"):
        labtree.export_spikelab(tree, tmp_path / "theirs")


def test_the_file_of_the_workspace_is_not_replaced(tmp_path):
    tree = workspace(k=EXACT["spike_data"])
    path = tree.ws.save(tmp_path / "mine")
    for target in (path, tmp_path / "mine"):
        with pytest.raises(ValueError, match="is the file of this workspace"):
            labtree.export_spikelab(tree, target)
    assert_same(labtree.load_item(path, "n", "k"), EXACT["spike_data"])


def test_wrong_word_for_losses(tmp_path):
    with pytest.raises(
        ValueError, match="on_loss must be one of 'raise', 'warn', found 'ignore'"
    ):
        labtree.export_spikelab(workspace(), tmp_path / "theirs", on_loss="ignore")


def test_a_lazy_workspace_is_written_too(tmp_path):
    tree = labtree.create_workspace(lazy=True)
    tree.ws.store("n", "k", EXACT["spike_data"])
    path = labtree.export_spikelab(tree, tmp_path / "theirs.h5")
    assert_same(labtree.import_spikelab(path).ws.get("n", "k"), EXACT["spike_data"])
    tree.ws.close()


def test_plain_hdf5_has_the_names_of_the_format(exported):
    with h5py.File(exported[1]) as file:
        assert file.attrs["__workspace_name__"] == "mine"
        group = file["n/attributes"]
        assert group.attrs["__type__"] == "SpikeData"
        assert group["spike_times_index"][()].tolist() == [1, 2, 2]
        assert group["neuron_attributes/i"].attrs["__scalar_kind__"] == "int"
        assert group["neuron_attributes/a"].attrs["__missing_unit_indices__"].tolist() == [2]


@pytest.fixture(scope="module")
def loaded(exported):
    peer = pytest.importorskip("spikelab", reason="checks the file with SpikeLab itself")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peer.AnalysisWorkspace.load(str(exported[1].with_suffix("")))


@pytest.mark.parametrize("key", EXACT)
def test_spikelab_loads_it_and_it_comes_back(loaded, key):
    theirs = loaded.get("n", key)
    assert theirs is not None
    if isinstance(theirs, np.ndarray):
        assert_same(theirs, EXACT[key])
        return
    back = labtree.from_spikelab(theirs)
    if isinstance(back, dict):
        assert set(back) == set(EXACT[key])
        for name, value in back.items():
            if name not in ("spikes", "array", "sub"):
                assert value == EXACT[key][name], name
        return
    assert back.ws.summary() == EXACT[key].ws.summary()
    for name, variable in EXACT[key].variables.items():
        expected = variable.values
        assert back[name].dims == variable.dims
        # SpikeLab makes its own fillers; what is missing has no value.
        missing = EXACT[key].get(f"{name}_missing")
        there = slice(None) if missing is None else ~missing.values
        assert np.array_equal(
            back[name].values[there], expected[there], equal_nan=expected.dtype.kind == "f"
        ), name


def test_what_spikelab_saves_comes_in_as_its_objects_do(tmp_path):
    peer = pytest.importorskip("spikelab", reason="writes the file with SpikeLab itself")
    theirs = peer.AnalysisWorkspace("theirs")
    attributes = [{"channel": 3, "good": True}, {"name": "a", "place": np.arange(2.0)}]
    theirs.store(
        "n",
        "spikes",
        peer.SpikeData(
            [[1.0, 3.0], [2.0]],
            length=10.0,
            neuron_attributes=attributes,
            metadata={"a": [1, None], "array": np.arange(3)},
            raw_data=np.ones((2, 4)),
            raw_time=2.0,
        ),
        note="a note",
    )
    theirs.store("n", "rate", peer.RateData(np.ones((2, 3)), np.arange(3.0)))
    theirs.store(
        "n",
        "stack",
        peer.RateSliceStack(
            event_matrix=np.ones((2, 4, 2)), times_start_to_end=[(0.0, 4.0), (9.0, 13.0)]
        ),
    )
    theirs.store("n", "matrix", peer.PairwiseCompMatrix(np.eye(2), labels=["a", "b"]))
    theirs.store("n", "a/b", np.arange(3))
    theirs.save(str(tmp_path / "theirs"))
    from_file = labtree.import_spikelab(tmp_path / "theirs")
    from_object = labtree.from_spikelab(theirs)
    assert from_file.ws.workspace_id == from_object.ws.workspace_id == theirs.workspace_id
    assert from_file.ws.describe()["n"].keys() == from_object.ws.describe()["n"].keys()
    for key in theirs.list_keys("n"):
        assert_same(from_file.ws.get("n", key), from_object.ws.get("n", key))
        assert from_file.ws.get_info("n", key) == from_object.ws.get_info("n", key)
    assert_same(labtree.spikes.unit_attributes(from_file.ws.get("n", "spikes")), attributes)


THEIRS = {
    "mixed": lambda peer: peer.SpikeData(
        [[1.0, 2.0], [3.0], []],
        length=10.0,
        neuron_attributes=[{"x": 1, "y": "a"}, {"x": 2.7, "y": 3}, {"x": True}],
    ),
    "names": lambda peer: peer.SpikeData(
        [[1.0], [2.0]],
        length=10.0,
        neuron_attributes=[
            {"rate": 1, "unit": 2, "spike": 3, "spike_times": 4, "row_size": 5, "length": 6},
            {"a": 3, "a_missing": 1, "slice": 2, "raw_data": 7},
        ],
    ),
    "float32": lambda peer: peer.SpikeData(
        [[1.0], [2.0]],
        length=5.0,
        neuron_attributes=[{"d": np.float32(1.5)}, {"d": np.int8(2)}],
    ),
    "rates": lambda peer: peer.RateData(
        np.ones((2, 3)), np.arange(3.0), neuron_attributes=[{"rate": 1.0, "time": 2}, {}]
    ),
    "uneven": lambda peer: peer.SpikeSliceStack(
        spike_stack=[
            peer.SpikeData([[1.0], [2.0, 3.0]], length=100.0),
            peer.SpikeData([[], [700.0]], length=750.0),
        ]
    ),
    "scalars": lambda peer: {
        "f32": np.float32(1.1), "i8": np.int8(3), "list": [1, 2.7, 3], "set": {1, 2},
        "none": None, "inner": {"y": np.float64(2)}, "nested": [[1, 2], [3, 4]],
    },
    "..": lambda peer: np.arange(3),
}  # fmt: skip
EXPECTED = {
    "mixed": [{"x": 1.0, "y": "a"}, {"x": 2.7, "y": "3"}, {"x": 1.0}],
    "names": [
        {"rate": 1, "unit": 2, "spike": 3, "spike_times": 4, "row_size": 5, "length": 6},
        {"a": 3, "a_missing": 1, "slice": 2, "raw_data": 7},
    ],
    "float32": [{"d": 1.5}, {"d": 2.0}],
    "rates": [{"rate": 1.0, "time": 2}, {}],
}


@pytest.mark.parametrize("key", THEIRS)
def test_odd_items_that_spikelab_itself_wrote_come_in_whole(key, tmp_path):
    peer = pytest.importorskip("spikelab", reason="writes the file with SpikeLab itself")
    theirs = peer.AnalysisWorkspace("theirs")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs.store("n", key, THEIRS[key](peer))
        theirs.save(str(tmp_path / "theirs"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", LossWarning)
        from_file = labtree.import_spikelab(tmp_path / "theirs").ws["n", key]
        from_object = labtree.from_spikelab(theirs).ws["n", key]
    if key in EXPECTED:
        assert labtree.spikes.unit_attributes(from_file) == EXPECTED[key]
        given = [dict(each) for each in THEIRS[key](peer).neuron_attributes]
        assert labtree.spikes.unit_attributes(from_object) == given
    elif key == "uneven":
        for stack in (from_file, from_object):
            assert (stack.slice_end - stack.slice_start).values.tolist() == [100, 750]
    elif key == "scalars":
        assert_same(from_file["f32"], np.float32(1.1))
        assert_same(from_file["i8"], np.int8(3))
        assert from_file["list"].tolist() == [1, 2.7, 3]
        assert from_file["nested"].tolist() == [[1, 2], [3, 4]]
        assert (from_file["set"], from_file["none"]) == ({1, 2}, None)
        assert from_object["list"] == [1, 2.7, 3]
    else:
        assert from_file.tolist() == from_object.tolist() == [0, 1, 2]


def test_spikelab_reads_mixed_attributes_as_they_are_exported(tmp_path):
    peer = pytest.importorskip("spikelab", reason="reads the file with SpikeLab itself")
    ds = labtree.spike_data(
        [[1.0], [2.0], [3.0]], neuron_attributes=[{"m": 1}, {"m": 2.7}, {"m": 3}]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = labtree.export_spikelab(workspace(k=ds, **{"..": np.arange(3)}), tmp_path / "a")
        theirs = peer.AnalysisWorkspace.load(str(path.with_suffix("")))
    assert [each["m"] for each in theirs.get("n", "k").neuron_attributes] == [1.0, 2.7, 3.0]
    assert theirs.get("n", "..").tolist() == [0, 1, 2]


def test_an_export_takes_a_tree(tmp_path):
    units = labtree.spike_data([[1.0]])
    for export in (labtree.export_spikelab, labtree.export_nwb):
        with pytest.raises(TypeError, match=r"found Dataset; write tree = labtree.create_work"):
            export(units, tmp_path / "theirs")
    assert list(tmp_path.iterdir()) == []
