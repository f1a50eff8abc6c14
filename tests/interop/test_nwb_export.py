"""Workspaces as NWB files, read back by pynwb and passed by nwbinspector."""

import json
import sys
import warnings
from datetime import UTC, datetime

import numpy as np
import pytest

import labtree
from labtree.errors import LossWarning
from labtree.testing import spikes

START = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
ABOUT = {
    "session_start_time": START,
    "session_description": "Spontaneous activity",
    "experimenter": ["Doe, Jane"],
    "institution": "A university",
    "lab": "A lab",
    "keywords": ["spikes"],
    "experiment_description": "Recorded for a test",
    "subject": {
        "subject_id": "m1",
        "species": "Mus musculus",
        "sex": "F",
        "age": "P90D",
        "description": "A mouse",
    },
}


def workspace(**items):
    tree = labtree.create_workspace("mine")
    for key, obj in items.items():
        tree.ws.store("rec/1", key, obj, note=f"note of {key}")
    return tree


def test_without_pynwb_the_error_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pynwb", None)
    with pytest.raises(ImportError, match=r'pip install "labtree\[nwb\]"'):
        labtree.export_nwb(workspace(), tmp_path / "a.nwb")


@pytest.fixture
def pynwb():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("pynwb", reason="reads the file back with pynwb")


def read(pynwb, path):
    return pynwb.NWBHDF5IO(path, "r", load_namespaces=True)


SPIKES = labtree.spike_data(
    [[-4.0, 0.5, 30.0], [1.25], []],
    start_time=-5,
    length=50,
    neuron_attributes=[
        {"channel": 1, "good": True, "name": "a", "place": np.arange(2.0), "description": "x"},
        {"channel": 2, "good": False, "name": "b", "place": np.ones(2), "depth": 1.5},
        {"channel": 3, "good": True, "place": np.ones(2), "description": "y"},
    ],
    metadata={"rig": {"name": "left", "gains": np.array([1, 2])}, "steps": [1, {"a": None}]},
)
RATES = labtree.rate_data(
    np.arange(12.0).reshape(2, 6), np.arange(6) * 10.0, neuron_attributes=[{"channel": 1}, {}]
)


def test_spikes_rates_and_metadata_come_back(pynwb, tmp_path):
    path = labtree.export_nwb(workspace(sd=SPIKES, rate=RATES), tmp_path / "a.nwb", **ABOUT)
    with read(pynwb, path) as io:
        file = io.read()
        # All times are counted from the earliest, 5 ms before the start.
        assert (file.session_start_time - START).total_seconds() == -0.005
        assert file.subject.subject_id == "m1"
        units = file.units
        for unit, train in enumerate(labtree.spikes.spike_trains(SPIKES)):
            assert units["spike_times"][unit] * 1000 - 5 == pytest.approx(train)
            assert units["obs_intervals"][unit].tolist() == [[0, 0.05]]
        assert units["channel"][:].tolist() == [1, 2, 3]
        assert units["good"][:].tolist() == [True, False, True]
        assert list(units["name_"][:]) == ["a", "b", ""]
        assert list(units["description_"][:]) == ["x", "", "y"]
        assert units["place"][1].tolist() == [1, 1]
        assert np.isnan(units["depth"][:]).tolist() == [True, False, True]
        module = file.processing["ecephys"]
        series = module["rec_1_rate"]
        assert series.data[:].T.tolist() == RATES.rate.values.tolist()
        assert series.unit == "Hz"
        assert series.rate == pytest.approx(100)
        assert series.starting_time == pytest.approx(0.005)
        assert json.loads(series.comments)["unit_attributes"] == [{"channel": 1}, {}]
        module = file.processing["labtree"]
        table = module["workspace"].to_dataframe()
        assert table.item_key.tolist() == ["sd", "rate"]
        assert table.note.tolist() == ["note of sd", "note of rate"]
        metadata = module["metadata"].to_dataframe()
        found = dict(
            zip(metadata.metadata_key, map(json.loads, metadata.metadata_value), strict=True)
        )
        assert found == {
            "rig/name": "left",
            "rig/gains": [1, 2],
            "steps/0": 1,
            "steps/1/a": None,
        }
        assert set(metadata.item_namespace) == {"rec/1"}


def test_several_spike_data_become_several_tables(pynwb, tmp_path):
    tree = workspace(one=spikes.synthetic_spike_data(3), two=spikes.synthetic_spike_data(2))
    path = labtree.export_nwb(tree, tmp_path / "a.nwb", **ABOUT)
    with read(pynwb, path) as io:
        file = io.read()
        assert file.units is None
        module = file.processing["ecephys"]
        assert len(module["rec_1_one"]) == 3
        assert len(module["rec_1_two"]) == 2


@pytest.mark.parametrize(
    "items",
    [
        {"sd": SPIKES, "rate": RATES},
        {"one": spikes.synthetic_spike_data(3), "two": SPIKES},
        {"rate": labtree.rate_data(np.arange(6.0).reshape(2, 3), [0.0, 1.0, 5.0])},
        {"sd": labtree.spike_data([[1.0], [2.0]], raw_data=np.ones((1, 4)), raw_time=20.0)},
    ],
    ids=["both", "two", "irregular rate", "raw data"],
)
def test_nwbinspector_has_nothing_to_say_of_the_data(pynwb, tmp_path, items):
    inspector = pytest.importorskip("nwbinspector", reason="inspects the file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LossWarning)
        more = ABOUT | {"resolution": 1 / 30_000}
        path = labtree.export_nwb(workspace(**items), tmp_path / "a.nwb", **more)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = list(inspector.inspect_nwbfile(nwbfile_path=path))
    serious = [
        f"{message.check_function_name}: {message.message}"
        for message in found
        if message.importance is not inspector.Importance.BEST_PRACTICE_SUGGESTION
    ]
    assert serious == []


@pytest.mark.parametrize("trains", [[[], []], []], ids=["no spikes", "no units"])
def test_silence_can_be_exported(pynwb, tmp_path, trains):
    tree = workspace(sd=labtree.spike_data(trains, length=10))
    path = labtree.export_nwb(tree, tmp_path / "a.nwb")
    with read(pynwb, path) as io:
        assert len(io.read().units) == len(trains)


def test_resolution_is_written_where_it_is_known(pynwb, tmp_path):
    raw = labtree.spike_data([[1.0]], raw_data=np.ones((1, 5)), raw_time=20.0)
    for given, more, expected in [
        (raw, {}, 5e-5),
        (SPIKES, {"resolution": 1e-4}, 1e-4),
        (SPIKES.assign_attrs(sample_rate_hz=30_000.0), {}, 1 / 30_000),
        (SPIKES, {}, None),
    ]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", LossWarning)
            path = labtree.export_nwb(workspace(sd=given), tmp_path / "a.nwb", **more)
        with read(pynwb, path) as io:
            found = io.read().units.resolution
            assert found is None if expected is None else found == pytest.approx(expected)


def test_what_has_no_place_is_said(pynwb, tmp_path):
    ds = labtree.spike_data(
        [[1.0], [2.0]],
        length=5,
        neuron_attributes=[{"mixed": [1, "a"]}, {}],
        metadata={"odd": b"x"},
        raw_data=[[1.0]],
        raw_time=[0.0],
    )
    with pytest.warns(LossWarning) as caught:
        labtree.export_nwb(workspace(sd=ds, other={"a": 1}), tmp_path / "a.nwb")
    text = "\n".join(str(warning.message) for warning in caught)
    assert "rec/1/other: NWB cannot hold it" in text
    assert "mixed" not in text  # JSON, which comes back as it was
    assert "rec/1/sd: raw_data" in text
    assert "rec/1/sd, metadata 'odd': a bytes becomes text" in text


def test_what_cannot_be_exported_is_said(pynwb, tmp_path):
    path = tmp_path / "a.nwb"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match=r"nothing to export .* found rec/1/x"):
        labtree.export_nwb(workspace(x={"a": 1}), path)
    with pytest.raises(ValueError, match="needs a time zone"):
        labtree.export_nwb(workspace(sd=SPIKES), path, session_start_time=datetime(2024, 1, 1))
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.nwb"]


@pytest.mark.filterwarnings("ignore::labtree.LossWarning")
def test_the_file_of_a_tree_is_not_replaced(pynwb, tmp_path):
    tree = workspace(sd=SPIKES)
    tree.ws.save(tmp_path / "mine.h5")
    session = labtree.create_session("rec1")
    session.session.add_units({"u1": {"spike_times": np.array([10, 20])}})
    session.session.save(tmp_path / "rec1.h5")
    (tmp_path / "link.h5").symlink_to("rec1.h5")
    labtree.export_nwb(tree, tmp_path / "mine.nwb")
    labtree.export_spikelab(tree, tmp_path / "theirs.h5", on_loss="warn")
    imported = labtree.import_nwb(tmp_path / "mine.nwb")
    names = ("mine.h5", "rec1.h5", "mine.nwb", "theirs.h5")
    before = [(tmp_path / name).read_bytes() for name in names]
    theirs = labtree.import_spikelab(tmp_path / "theirs")
    for export, given, name, what in (
        (labtree.export_nwb, tree, "mine.h5", "the file of this workspace"),
        (labtree.export_spikelab, tree, "mine.h5", "the file of this workspace"),
        (labtree.export_nwb, session, "rec1.h5", "the file of this session"),
        (labtree.export_nwb, session, "link.h5", "the file of this session"),
        (labtree.export_nwb, imported, "mine.nwb", "the file that this was imported from"),
        (labtree.export_spikelab, theirs, "theirs.h5", "the file that this was imported from"),
    ):
        with pytest.raises(ValueError, match=f"{name} is {what}: export it under another name"):
            export(given, tmp_path / name)
    imported.close()
    assert [(tmp_path / name).read_bytes() for name in names] == before


def test_where_nothing_can_be_written_is_said(pynwb, tmp_path):
    for export in (labtree.export_nwb, labtree.export_spikelab):
        with pytest.raises(labtree.MissingFileError, match="does not exist"):
            export(workspace(sd=SPIKES), tmp_path / "none" / "a.h5")
        (tmp_path / "folder.h5").mkdir(exist_ok=True)
        with pytest.raises(labtree.AlreadyExistsError, match="is a folder"):
            export(workspace(sd=SPIKES), tmp_path / "folder.h5")
