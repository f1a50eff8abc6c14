"""SpikeLab's files, item by item: whole ones, older ones, and damaged ones."""

import json
import math

import h5py
import numpy as np
import pytest

import labtree
from labtree.interop.spikelab.read import read_spikelab
from support import spikelab_files as files
from support.exactness import assert_same


@pytest.fixture
def path(tmp_path):
    return tmp_path / "theirs.h5"


def read(path):
    found = read_spikelab(path)
    return {(item.namespace, item.key): item.obj for item in found.items}, found.problems


def only(path):
    objects, problems = read(path)
    assert problems == []
    (obj,) = objects.values()
    return obj


def test_ids_times_notes_and_order(path):
    with files.spikelab_file(path) as file:
        files.array(file, "b/z", np.arange(3), note="ünïcode – note")
        files.array(file, "b/a", np.arange(2))
        files.array(file, "a/k", np.arange(1))
    found = read_spikelab(path)
    assert found.workspace_id == "a72af097"
    assert found.name == "sample"
    assert found.created_at == files.CREATED
    assert [(item.namespace, item.key) for item in found.items] == [
        ("a", "k"),
        ("b", "a"),
        ("b", "z"),
    ]
    assert found.items[2].note == "ünïcode – note"
    assert found.items[0].note is None
    assert found.items[0].created_at == files.CREATED + 1


def test_an_empty_name_is_no_name(path):
    with files.spikelab_file(path, name=""):
        pass
    assert read_spikelab(path)[1] is None


@pytest.mark.parametrize(
    "values",
    [
        np.arange(3, dtype="i1"),
        np.arange(6, dtype=">f4").reshape(2, 3),
        np.array([True, False]),
        np.array([1 + 2j], "c8"),
        np.array(5.0),
        np.empty((0, 3), "f2"),
        np.array([(1, 2.0)], [("a", "<i4"), ("b", "<f8")]),
        np.array(["a", "bé"]),
        np.array([["a"], [""]]),
        np.array([], "U1"),
        np.frombuffer(b"\1\0\0\0\0\0\xf8\x7f"),
    ],
    ids=lambda values: f"{values.dtype} {values.shape}",
)
def test_arrays_to_the_bit(path, values):
    with files.spikelab_file(path) as file:
        files.array(file, "n/k", values)
    assert_same(only(path), values)


def test_spike_data_whole(path):
    metadata = {
        "arr": {"__ndarray__": True, "dtype": "int32", "shape": [2, 2], "values": [0, 1, 2, 3]},
        "nan": math.nan,
        "nested": {"k": [1, None, "a"]},
    }
    with files.spikelab_file(path) as file:
        group = files.spike_data(
            file,
            "n/k",
            [[1, 2, 3], [], [5, 10]],
            length=50.0,
            start_time=-5.0,
            metadata=metadata,
        )
        group["raw_data"] = np.arange(4, dtype="f4").reshape(2, 2)
        group["raw_time"] = np.array([0, 1], "i4")
        files.attribute(group, "channel", [3.0, 7.0, 9.0], scalar_kind="int")
        files.attribute(group, "good", [1.0, 0.0, math.nan], scalar_kind="bool")
        files.attribute(group, "group", ["A", "B", ""])
        files.attribute(
            group, "location", [[1.0, 2], [3, 4], [math.nan] * 2], missing_unit_indices=[2]
        )
        files.attribute(group, "snr", [1.5, math.nan, 2.5])
    ds = only(path)
    expected = labtree.spike_data(
        [[1.0, 2, 3], [], [5, 10]],
        length=50.0,
        start_time=-5.0,
        raw_data=np.arange(4, dtype="f4").reshape(2, 2),
        raw_time=np.array([0, 1], "i4"),
        neuron_attributes=[
            {
                "channel": 3,
                "good": True,
                "group": "A",
                "location": np.array([1.0, 2]),
                "snr": 1.5,
            },
            {"channel": 7, "good": False, "group": "B", "location": np.array([3.0, 4])},
            {"channel": 9, "snr": 2.5},
        ],
    )
    found = ds.attrs.pop("metadata")
    assert_same(ds, expected)
    assert found["arr"].dtype == np.int32
    assert found["arr"].tolist() == [[0, 1], [2, 3]]
    assert math.isnan(found["nan"])
    assert found["nested"] == metadata["nested"]


def test_spike_data_of_an_older_file(path):
    """No start_time, and missing arrays as rows of NaN."""
    with files.spikelab_file(path) as file:
        group = files.spike_data(file, "n/k", [[1], [2]], length=5.0, start_time=None)
        files.attribute(group, "place", [[math.nan, math.nan], [1.0, math.nan]])
    ds = only(path)
    assert ds.attrs["start_time"] == 0
    assert ds.place_missing.values.tolist() == [True, False]


def test_raw_time_without_raw_data(path):
    with files.spikelab_file(path) as file:
        files.spike_data(file, "n/k", [[1]], length=5.0)["raw_time"] = np.arange(3.0)
    ds = only(path)
    assert ds.raw_data.shape == (0, 3)
    assert ds.raw_time.values.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("int", [1.0, 2.7], [1.0, 2.7]),
        ("int", [1.0, 2.0], [1, 2]),
        ("int", [1.0, 1e300], [1.0, 1e300]),
        ("bool", [1.0, 5.0], [1.0, 5.0]),
        ("bool", [1.0, 0.0], [True, False]),
        ("int", [math.inf, 1.0], [math.inf, 1.0]),
    ],
)
def test_the_kind_of_the_first_attribute_does_not_change_the_others(
    path, kind, values, expected
):
    with files.spikelab_file(path) as file:
        group = files.spike_data(file, "n/k", [[1], [2]], length=5.0)
        files.attribute(group, "x", values, scalar_kind=kind)
    assert_same(
        [record["x"] for record in labtree.spikes.unit_attributes(only(path))], expected
    )


def test_rates_and_slices(path):
    stack = np.arange(24.0).reshape(3, 4, 2)
    with files.spikelab_file(path) as file:
        rate = files.item(file, "n/rate", "RateData")
        rate["inst_Frate_data"], rate["times"] = stack[:, :, 0], np.arange(4.0)
        files.attribute(rate, "channel", [1.0, 2, 3], scalar_kind="int")
        slices = files.item(file, "n/slices", "RateSliceStack", step_size=2.0)
        slices["event_stack"], slices["times"] = stack, [[0.0, 8], [10, 18]]
        matrix = files.item(file, "n/matrix", "PairwiseCompMatrix", __metadata__='{"a": 1}')
        matrix["matrix"] = np.eye(2)
        files.strings(matrix, "labels", ["u0", "u1"], mark=False)
        matrices = files.item(file, "n/stack", "PairwiseCompMatrixStack", __metadata__="{}")
        matrices["stack"], matrices["times"] = np.ones((2, 2, 3)), np.ones((3, 2))
        matrices["labels"] = [10, 20]
    objects, problems = read(path)
    assert problems == []
    assert_same(
        objects["n", "rate"],
        labtree.rate_data(
            stack[:, :, 0],
            np.arange(4.0),
            unit=None,
            neuron_attributes=[{"channel": n} for n in (1, 2, 3)],
        ),
    )
    windows = [(0.0, 8.0), (10.0, 18.0)]
    assert_same(objects["n", "slices"], labtree.rate_slice_stack(stack, windows, step_size=2.0))
    assert_same(
        objects["n", "matrix"],
        labtree.pairwise_matrix(np.eye(2), labels=["u0", "u1"], metadata={"a": 1}),
    )
    assert_same(
        objects["n", "stack"],
        labtree.pairwise_stack(np.ones((2, 2, 3)), labels=[10, 20], times=np.ones((3, 2))),
    )


def test_spike_slices_in_the_order_of_their_numbers(path):
    with files.spikelab_file(path) as file:
        group = files.item(file, "n/k", "SpikeSliceStack", N=np.int64(1))
        group["times"] = [[10.0 * n, 10.0 * n + 5] for n in range(12)]
        for n in range(12):
            part = group.create_group(f"spike_stack/{n}")
            files.spikes(part, [[n / 10]], length=5.0, metadata={"n": n})
            files.attribute(part, "x", [float(n)])
        files.attribute(group, "id", [7.0], scalar_kind="int")
    ds = only(path)
    slices = labtree.spikes.slices_of(ds)
    assert [labtree.spikes.spike_trains(one)[0].tolist() for one in slices] == [
        [n / 10] for n in range(12)
    ]
    assert [one.attrs["metadata"]["n"] for one in slices] == list(range(12))
    assert [labtree.spikes.unit_attributes(one)[0]["x"] for one in slices] == list(range(12))
    assert ds.id.values.tolist() == [7]


def test_dicts_with_every_type(path):
    def child(name, kind, **attributes):
        return files.item(file, f"n/k/{name}", kind, **attributes)

    def scalar(name, kind, value):
        child(name, "scalar", __scalar_value__=value, __scalar_kind__=kind)

    with files.spikelab_file(path) as file:
        files.item(file, "n/k", "dict")
        scalar("int", "int", np.int64(42))
        scalar("float", "float", 3.14)
        scalar("bool", "bool", np.True_)
        scalar("np_bool", "bool_", np.True_)
        scalar("f4", "float32", 1.5)
        scalar("i2", "int16", np.int64(-5))
        scalar("u8", "uint64", np.uint64(2**63 + 1))
        scalar("odd", "uint8", np.int64(300))
        scalar("strange", "no such type", 2.5)
        scalar("object", "object", 2.5)
        child("str", "scalar_str", __scalar_value__="hello")
        child("none", "none")
        child("tuple", "tuple")["data"] = [1, 2]
        child("pairs", "tuple")["data"] = [[1, 2], [3, 4]]
        child("empty", "tuple")["data"] = np.empty(0)
        child("set", "set")["data"] = [1, 3]
        child("set of pairs", "set")["data"] = [[1, 3]]
        files.strings(child("frozenset", "frozenset"), "data", ["a", "b"])
        files.array(file, "n/k/array", np.arange(3))
        child("sub", "dict")
        files.array(file, "n/k/sub/y", np.arange(2))
        files.spike_data(file, "n/k/sd", [[1]], length=2.0)
        files.item(file, "n/nothing", "dict")
    objects, problems = read(path)
    assert problems == []
    assert objects["n", "nothing"] == {}
    assert_same(
        dict(sorted(objects["n", "k"].items())),
        {
            "array": np.arange(3),
            "bool": True,
            "empty": (),
            "f4": np.float32(1.5),
            "float": 3.14,
            "frozenset": frozenset("ab"),
            "i2": np.int16(-5),
            "int": 42,
            "none": None,
            "np_bool": np.True_,
            "object": 2.5,
            "odd": 300,
            "pairs": ((1, 2), (3, 4)),
            "sd": labtree.spike_data([[1.0]], length=2.0),
            "set": {1, 3},
            "set of pairs": {(1, 3)},
            "str": "hello",
            "strange": 2.5,
            "sub": {"y": np.arange(2)},
            "tuple": (1, 2),
            "u8": np.uint64(2**63 + 1),
        },
    )


def test_names_that_spikelab_saves_and_cannot_load(path):
    with files.spikelab_file(path) as file:
        files.array(file, "n/a/b", [1])
        files.array(file, "n/a/c/d", [2])
        files.array(file, "__hidden/k", [3])
        files.array(file, "n/..", [4])
        files.array(file, "dot", [5])
        files.array(file, "dot/ok", [6])
        files.array(file, "n/x", [7])
        files.array(file, "n/x/y", [8])
    objects, problems = read(path)
    assert problems == []
    assert {names: value.tolist() for names, value in objects.items()} == {
        ("n", "a/b"): [1],
        ("n", "a/c/d"): [2],
        ("__hidden", "k"): [3],
        ("n", ".."): [4],
        ("dot", "."): [5],
        ("dot", "ok"): [6],
        ("n", "x"): [7],
        ("n", "x/y"): [8],
    }


def test_the_index_tells_names_apart(path):
    with files.spikelab_file(path) as file:
        files.array(file, "n/m/k", [1])
        files.array(file, "top", [2])
        files.array(file, "absolute", [3])
        files.item(file, "d/e", "dict")
        files.array(file, "d/e/inside", [4])
        files.array(file, "d/e/f", [5])
    files.index(path, {"n/m": ["k"], ".": ["top"], "x": ["/absolute"], "d": ["e", "e/f"]})
    objects, problems = read(path)
    assert problems == []
    inside = objects.pop(("d", "e"))
    assert list(inside) == ["inside"]
    assert {names: value.tolist() for names, value in objects.items()} == {
        ("n/m", "k"): [1],
        (".", "top"): [2],
        ("x", "/absolute"): [3],
        ("d", "e/f"): [5],
    }


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"index": 3}', '{"index": {"n": 3}}', "\0\1"]
)
def test_a_damaged_index_is_left_alone(path, text):
    with files.spikelab_file(path) as file:
        files.array(file, "n/k", [1])
    path.with_suffix(".json").write_text(text, encoding="utf-8")
    assert only(path).tolist() == [1]


def damage_type(file):
    file["n/bad"].attrs["__type__"] = "Unheard"


def damage_missing_data(file):
    del file["n/bad/spike_times"]


def damage_missing_length(file):
    del file["n/bad"].attrs["length_ms"]


def damage_count(file):
    file["n/bad"].attrs["N"] = 7


def damage_text_for_numbers(file):
    del file["n/bad/spike_times_index"]
    files.strings(file["n/bad"], "spike_times_index", ["a"])


def damage_group_for_data(file):
    del file["n/bad/spike_times"]
    file.create_group("n/bad/spike_times")


def damage_time_of_storing(file):
    file["n/bad"].attrs["__created_at__"] = "yesterday"


def damage_external(file):
    del file["n/bad/spike_times"]
    file["n/bad/spike_times"] = h5py.ExternalLink("/etc/passwd", "/")


def damage_bomb(file):
    del file["n/bad/spike_times"]
    file.create_dataset("n/bad/spike_times", (10**12,), "f8", chunks=(2**20,))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_type, "unknown __type__ 'Unheard', expected one of ndarray, "),
        (damage_missing_data, "the dataset 'spike_times' is missing"),
        (damage_missing_length, "the attribute length_ms is missing"),
        (damage_count, "N is 7, but spike_times_index ends 2 trains"),
        (damage_text_for_numbers, ""),
        (damage_group_for_data, ""),
        (damage_time_of_storing, "yesterday"),
        (damage_external, "a link to elsewhere, which is not followed"),
        (damage_bomb, "holds 8000000000000 bytes, but hardly any are stored"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_one_bad_item_is_listed_and_the_rest_comes_in(path, damage, words):
    with files.spikelab_file(path) as file:
        files.array(file, "n/good", [1])
        files.spike_data(file, "n/bad", [[1], [2]], length=5.0)
        files.array(file, "z/good", [2])
        damage(file)
    objects, problems = read(path)
    assert set(objects) == {("n", "good"), ("z", "good")}
    (problem,) = problems
    assert problem.startswith("/n/bad: left out: ")
    assert words in problem


def test_one_bad_part_is_listed_and_the_rest_of_the_item_comes_in(path):
    with files.spikelab_file(path) as file:
        group = files.spike_data(file, "n/k", [[1], [2]], length=5.0)
        files.attribute(group, "good", [1.0, 2.0])
        files.attribute(group, "short", [1.0])
        group["neuron_attributes/one"] = 3.0
        group.attrs["__metadata__"] = "{broken"
        files.item(file, "n/d", "dict")
        files.array(file, "n/d/good", [1])
        files.item(file, "n/d/bad", "Unheard")
    objects, problems = read(path)
    ds = objects["n", "k"]
    assert labtree.spikes.unit_attributes(ds) == [{"good": 1.0}, {"good": 2.0}]
    assert ds.attrs["metadata"] == {"__metadata__": "{broken"}
    assert list(objects["n", "d"]) == ["good"]
    assert [problem.partition(":")[0] for problem in problems] == [
        "/n/d/bad",
        "/n/k/neuron_attributes/one",
        "/n/k/neuron_attributes/short",
        "/n/k",
    ]
    assert "1 values for 2 units" in problems[2]


def test_metadata_that_is_no_object(path):
    with files.spikelab_file(path) as file:
        files.spike_data(file, "n/k", [[1]], length=5.0).attrs["__metadata__"] = "[1]"
    objects, problems = read(path)
    assert objects["n", "k"].attrs["metadata"] == {"__metadata__": "[1]"}
    assert "not a JSON object" in problems[0]


@pytest.mark.parametrize(
    "found",
    [
        {"__ndarray__": True},
        {"__ndarray__": True, "dtype": "no type", "shape": [1], "values": [1]},
        {"__ndarray__": True, "dtype": "f8", "shape": [5], "values": [1]},
        {"__ndarray__": 3},
    ],
)
def test_metadata_that_only_looks_like_an_array(path, found):
    with files.spikelab_file(path) as file:
        files.spike_data(file, "n/k", [[1]], length=5.0, metadata={"a": found})
    assert only(path).attrs["metadata"] == {"a": found}


def test_spikes_outside_of_the_recording_come_in_and_are_said(path):
    with files.spikelab_file(path) as file:
        files.spike_data(file, "n/k", [[1, 9]], length=5.0)
    objects, (problem,) = read(path)
    assert objects["n", "k"].spike_times.values.tolist() == [1, 9]
    assert "labtree_kind" not in objects["n", "k"].attrs
    assert (
        "was imported as a plain dataset, because it is not valid: unit 0 has a spike at 9"
        in problem
    )


def test_links_lead_nowhere(path, tmp_path):
    with files.spikelab_file(tmp_path / "other.h5") as other:
        files.array(other, "n/secret", [1])
    with files.spikelab_file(path) as file:
        files.array(file, "n/k", [1])
        file["n/outside"] = h5py.ExternalLink("other.h5", "/n/secret")
        file["n/soft"] = h5py.SoftLink("/n/k")
        file["n/round"] = file["n"]
        files.item(file, "n/d", "dict")
        file["n/d/round"] = file["n/d"]
    objects, problems = read(path)
    assert set(objects) == {("n", "k"), ("n", "d")}
    assert objects["n", "d"] == {}
    assert sorted(problem.partition(":")[0] for problem in problems) == [
        "/n/d/round",
        "/n/outside",
        "/n/round",
        "/n/soft",
    ]


def test_a_dataset_without_an_item_is_listed(path):
    with files.spikelab_file(path) as file:
        file["n/loose"] = [1]
    assert read(path) == ({}, ["/n/loose: left out: a dataset that belongs to no item"])


def test_names_that_are_no_text(path):
    with files.spikelab_file(path) as file:
        files.array(file, "n/k", [1])
        strange = h5py.Group(h5py.h5g.create(file["n"].id, b"\xff"))
        strange.attrs["__type__"] = "ndarray"
        strange["data"] = [2]
    objects, problems = read(path)
    assert set(objects) == {("n", "k"), ("n", "\\xff")}
    assert problems == []


@pytest.mark.parametrize("content", [b"", b"no HDF5", b"\x89HDF\r\n\x1a\n"])
def test_what_is_no_hdf5_is_said(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"theirs.h5 cannot be read"):
        read_spikelab(path)


def test_a_truncated_file_is_said(path):
    with files.spikelab_file(path) as file:
        files.array(file, "n/k", np.arange(10000))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(labtree.LabtreeError):
        read_spikelab(path)


def test_a_file_of_others_is_said(path):
    with h5py.File(path, "w") as file:
        file["x"] = 1
    with pytest.raises(labtree.FormatError, match=r"not a SpikeLab workspace: .* found x"):
        read_spikelab(path)


def test_an_item_without_the_marks_of_a_workspace_comes_in(path):
    with h5py.File(path, "w") as file:
        files.array(file, "n/k", [1])
    assert read_spikelab(path)[:3] == (None, None, None)
    assert only(path).tolist() == [1]


def test_a_file_that_was_cut_off_anywhere_is_said(path):
    with files.spikelab_file(path) as file:
        group = files.spike_data(file, "n/k", [[1, 2], [3]], length=5.0, metadata={"a": 1})
        files.attribute(group, "x", [1.0, 2.0], scalar_kind="int")
        files.array(file, "n/a", np.arange(5))
    whole = path.read_bytes()
    for length in range(0, len(whole), len(whole) // 40):
        path.write_bytes(whole[:length])
        with pytest.raises(labtree.LabtreeError):
            read_spikelab(path)


@pytest.mark.parametrize("place", [b"TREE", b"SNOD", b"HEAP"])
def test_groups_that_are_damaged_are_said(path, place):
    with files.spikelab_file(path) as file:
        files.array(file, "n/a", np.arange(5))
        files.spike_data(file, "n/k", [[1, 2], [3]], length=5.0)
    whole = path.read_bytes()
    start = -1
    outcomes = set()
    while (start := whole.find(place, start + 1)) >= 0:
        path.write_bytes(whole[:start] + b"XXXX" + whole[start + 4 :])
        try:
            outcomes.add(bool(read_spikelab(path).problems))
        except labtree.LabtreeError:
            outcomes.add("refused")
    assert outcomes
    assert False not in outcomes


def test_json_of_the_metadata_is_theirs(path):
    text = json.dumps({"a": {"b": [1, 2.5, None, True]}})
    with files.spikelab_file(path) as file:
        files.spike_data(file, "n/k", [[1]], length=5.0).attrs["__metadata__"] = text
    assert_same(only(path).attrs["metadata"], json.loads(text))
