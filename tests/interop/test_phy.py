"""Folders of Kilosort and Phy, as workspaces."""

import os
import pickle
import warnings

import numpy as np
import pytest

import labtree
from labtree.errors import LossWarning

RATE = 25_000.0
SAMPLES = np.array([100, 250, 250, 900, 1200, 3000], np.uint64)
CLUSTERS = np.array([7, 2, 7, 2, 7, 9], np.int32)


@pytest.fixture
def folder(tmp_path):
    """What Kilosort 4 and Phy write, the columns of numbers with an axis of one as well."""
    folder = tmp_path / "sorted"
    folder.mkdir()
    np.save(folder / "spike_times.npy", SAMPLES[:, None])
    np.save(folder / "spike_clusters.npy", CLUSTERS)
    np.save(folder / "spike_templates.npy", np.array([0, 1, 0, 1, 2, 2], np.int32))
    np.save(folder / "amplitudes.npy", np.arange(6, dtype="f4")[:, None])
    np.save(folder / "templates.npy", np.arange(24, dtype="f4").reshape(3, 4, 2))
    np.save(folder / "channel_map.npy", np.array([[4], [6]]))
    np.save(folder / "channel_positions.npy", np.array([[0.0, 20.0], [0.0, 40.0]]))
    np.save(folder / "channel_shanks.npy", np.array([0, 1]))
    (folder / "cluster_group.tsv").write_text("cluster_id\tgroup\n2\tgood\n7\tmua\n30\tnoise\n")
    (folder / "cluster_KSLabel.tsv").write_text(
        "cluster_id\tKSLabel\n2\tgood\n7\tgood\n9\tmua\n"
    )
    (folder / "cluster_info.tsv").write_text(
        "cluster_id\tamp\tgroup\tdepth\n2\t1.5\tmua\t20\n7\t2.5\tmua\t40\n9\t\t\t60\n"
    )
    (folder / "params.py").write_text(
        "dat_path = r'../raw.bin'\nn_channels_dat = 8\ndtype = 'int16'\noffset = 0\n"
        "sample_rate = 25000.0\nhp_filtered = False\n"
    )
    return folder


def test_clusters_are_units(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tree = labtree.import_phy(folder)
    units = tree.ws["sorted", "units"]
    assert units.unit_id.values.tolist() == [2, 7, 9, 30]
    expected = [SAMPLES[unit == CLUSTERS] / 25 for unit in (2, 7, 9, 30)]
    for found, train in zip(labtree.spikes.spike_trains(units), expected, strict=True):
        assert found.tolist() == train.tolist()
    assert units.amplitude.values.tolist() == [1, 3, 0, 2, 4, 5]
    assert units.template.values.tolist() == [1, 1, 0, 0, 2, 2]
    assert units.attrs["sample_rate_hz"] == RATE
    assert units.attrs["length"] == 120


def test_every_column_of_the_tables_is_an_attribute(folder):
    units = labtree.import_phy(folder).ws["sorted", "units"]
    assert labtree.spikes.unit_attributes(units) == [
        {"unit_id": 2, "amp": 1.5, "group": "good", "depth": 20, "KSLabel": "good"},
        {"unit_id": 7, "amp": 2.5, "group": "mua", "depth": 40, "KSLabel": "good"},
        {"unit_id": 9, "depth": 60, "KSLabel": "mua"},
        {"unit_id": 30, "group": "noise"},
    ]


def test_units_are_selected_with_their_amplitudes(folder):
    units = labtree.import_phy(folder).ws["sorted", "units"]
    good = labtree.spikes.select_units(units, [1])
    assert good.amplitude.values.tolist() == [0, 2, 4]


def test_templates_channels_and_parameters(folder):
    tree = labtree.import_phy(folder)
    assert tree.ws["sorted", "templates"].templates.shape == (3, 4, 2)
    channels = tree.ws["sorted", "channels"]
    assert channels.channel.tolist() == [4, 6]
    assert channels.y.tolist() == [20, 40]
    assert channels.shank.tolist() == [0, 1]
    assert tree.ws["sorted", "params"]["n_channels_dat"] == 8
    # The recording lies outside of the folder and is not opened.
    assert tree.ws.list_keys("sorted") == ["units", "templates", "channels", "params"]


def test_a_recording_in_the_folder_is_read_where_it_is_indexed(folder):
    raw = np.arange(8 * 100_000, dtype="i2").reshape(-1, 8)
    (folder / "raw.bin").write_bytes(b"head" + raw.tobytes())
    text = (folder / "params.py").read_text().replace("../raw", "raw")
    (folder / "params.py").write_text(text.replace("offset = 0", "offset = 4"))
    tree = labtree.import_phy(folder)
    recording = tree["sorted/recording"]
    assert recording.data.shape == (100_000, 8)
    assert np.array_equal(recording.data[[5, 2]].values, raw[[5, 2]])
    assert np.array_equal(recording.data[::-50_000, 3].values, raw[::-50_000, 3])
    assert recording.time[25_000].item() == 1
    assert tree.ws["sorted", "units"].attrs["length"] == 4000
    copy = pickle.loads(pickle.dumps(recording.to_dataset()))
    assert np.array_equal(copy.data[7:9].values, raw[7:9])


def test_clusters_of_kilosort_alone_are_its_templates(folder):
    (folder / "spike_clusters.npy").unlink()
    (folder / "cluster_group.tsv").unlink()
    (folder / "cluster_info.tsv").unlink()
    (folder / "cluster_KSLabel.tsv").write_text("cluster_id\tKSLabel\n0\tgood\n")
    units = labtree.import_phy(folder).ws["sorted", "units"]
    assert units.unit_id.values.tolist() == [0, 1, 2]
    assert labtree.spikes.unit_attributes(units)[0]["KSLabel"] == "good"


def test_parameters_are_never_run(folder, tmp_path):
    sign = tmp_path / "ran"
    (folder / "params.py").write_text(
        f"import pathlib\npathlib.Path({str(sign)!r}).touch()\n"
        f"dat_path = pathlib.Path({str(sign)!r}).touch()\nsample_rate = 25000\n"
    )
    with pytest.warns(LossWarning, match=r"params.py: dat_path = .* is no plain value"):
        tree = labtree.import_phy(folder)
    assert not sign.exists()
    assert tree.ws["sorted", "params"] == {"sample_rate": 25000}


MISSING = {
    "amplitudes.npy": "amplitudes of the spikes are not known",
    "templates.npy": "templates.npy is missing: the templates are not known",
    "channel_map.npy": "numbers of the channels in the recording are not known",
    "channel_positions.npy": "positions of the channels are not known",
}


@pytest.mark.parametrize("name", MISSING)
def test_a_missing_piece_is_said(folder, name):
    (folder / name).unlink()
    with pytest.warns(LossWarning, match=MISSING[name]):
        tree = labtree.import_phy(folder)
    assert tree.attrs["phy_problems"]
    assert tree.ws["sorted", "units"].sizes["unit"] == 4


def test_clusters_that_nobody_judged_are_said(folder):
    for path in folder.glob("cluster_*"):
        path.unlink()
    with pytest.warns(LossWarning, match="which clusters are good is not known"):
        labtree.import_phy(folder)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("amplitudes.npy", b"x", "amplitudes.npy cannot be read"),
        ("cluster_group.tsv", b"a\tb\n1\t2\n", "no column cluster_id, found a, b"),
        (
            "cluster_group.tsv",
            b"cluster_id\tgroup\n1\ta\n1\tb\n",
            "must hold each cluster once",
        ),
        ("cluster_group.tsv", b"\xff\xfe\x00", "cluster_group.tsv cannot be read"),
        ("params.py", b"sample_rate = ", "params.py cannot be read"),
        ("params.py", b"(" * 100_000, "params.py cannot be read"),
        ("params.py", b"a\0b", "params.py cannot be read"),
    ],
)
def test_a_damaged_piece_is_said_and_the_rest_is_read(folder, name, content, words):
    (folder / name).write_bytes(content)
    with pytest.warns(LossWarning, match=words):
        tree = labtree.import_phy(folder, sample_rate_hz=RATE)
    assert tree.ws["sorted", "units"].sizes["spike"] == 6


def test_arrays_of_objects_are_not_unpickled(folder, tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    np.save(folder / "amplitudes.npy", np.array([Trap()], object), allow_pickle=True)
    with pytest.warns(LossWarning, match="amplitudes.npy cannot be read"):
        labtree.import_phy(folder)
    assert not (tmp_path / "ran").exists()


def test_sizes_that_disagree_are_said(folder):
    np.save(folder / "amplitudes.npy", np.ones(3))
    with pytest.warns(LossWarning, match=r"amplitudes.npy has the shape \(3,\) for 6 spikes"):
        units = labtree.import_phy(folder).ws["sorted", "units"]
    assert "amplitude" not in units


def test_without_spikes_or_rate_there_is_nothing(folder, tmp_path):
    with pytest.raises(labtree.MissingFileError, match="there is no folder"):
        labtree.import_phy(tmp_path / "none")
    np.save(folder / "spike_clusters.npy", np.ones(4, int))
    with pytest.raises(labtree.FormatError, match=r"has 6 spikes, spike_clusters.npy 4"):
        labtree.import_phy(folder)
    np.save(folder / "spike_clusters.npy", np.full(6, 0.5))
    with pytest.raises(labtree.FormatError, match="holds float64, expected whole numbers"):
        labtree.import_phy(folder)
    (folder / "spike_clusters.npy").write_bytes(b"\x93NUMPY\x01\x00")
    with pytest.raises(labtree.FormatError, match=r"spike_clusters.npy cannot be read"):
        labtree.import_phy(folder)
    (folder / "spike_clusters.npy").unlink()
    (folder / "spike_templates.npy").unlink()
    with pytest.raises(labtree.MissingFileError, match=r"spike_templates.npy are missing"):
        labtree.import_phy(folder)
    times = (folder / "spike_times.npy").rename(tmp_path / "kept.npy")
    with pytest.raises(labtree.MissingFileError, match=r"spike_times.npy is missing; the fol"):
        labtree.import_phy(folder)
    times.rename(folder / "spike_times.npy")
    (folder / "params.py").unlink()
    with pytest.raises(labtree.MissingFileError, match=r"sample_rate_hz=30000"):
        labtree.import_phy(folder)
    with pytest.raises(labtree.DataError, match="the rate of the samples is -1 Hz"):
        labtree.import_phy(folder, sample_rate_hz=-1)


def test_a_header_that_claims_more_than_there_is_takes_no_memory(folder):
    np.save(folder / "templates.npy", np.zeros((1, 1, 1)))
    content = (folder / "templates.npy").read_bytes()
    (folder / "templates.npy").write_bytes(
        content.replace(b"(1, 1, 1)", b"(9999999999, 99, 9)")
    )
    with pytest.warns(LossWarning, match="templates.npy cannot be read"):
        labtree.import_phy(folder)


def test_the_workspace_can_be_saved(folder, tmp_path):
    tree = labtree.import_phy(folder)
    path = tree.ws.save(tmp_path / "mine")
    back = labtree.load_workspace(path)
    assert back.ws["sorted", "units"].identical(tree.ws["sorted", "units"])


@pytest.mark.parametrize("count", [1, 4, 7])
def test_what_spikeinterface_exports_to_phy(tmp_path, count):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        si = pytest.importorskip("spikeinterface.core", reason="writes the folder")
        exporters = pytest.importorskip("spikeinterface.exporters", reason="writes the folder")
        recording, sorting = si.generate_ground_truth_recording(
            durations=[3.0], num_channels=8, num_units=count, seed=count
        )
        analyzer = si.create_sorting_analyzer(sorting, recording, sparse=False)
        analyzer.compute(
            ["random_spikes", "waveforms", "templates", "noise_levels", "spike_amplitudes"]
        )
        exporters.export_to_phy(
            analyzer, tmp_path / "theirs", verbose=False, compute_pc_features=False
        )
    tree = labtree.import_phy(tmp_path / "theirs")
    units = tree.ws["theirs", "units"]
    assert units.sizes["unit"] == count
    for unit, train in zip(
        units.si_unit_id.values, labtree.spikes.spike_trains(units), strict=True
    ):
        expected = sorting.get_unit_spike_train(str(unit)) / (
            recording.sampling_frequency / 1000
        )
        assert train.tolist() == expected.tolist()
    raw = tree["theirs/recording"].data
    assert np.array_equal(raw[50:60].values, recording.get_traces(start_frame=50, end_frame=60))
    assert tree.ws["theirs", "channels"][["x", "y"]].values.tolist() == (
        recording.get_channel_locations().tolist()
    )


def test_labtree_open_takes_it_for_a_workspace(folder):
    with labtree.open(folder) as tree:
        assert tree.ws["sorted", "units"].sizes["unit"] == 4


def test_spikes_before_the_first_sample_are_kept(folder):
    np.save(folder / "spike_times.npy", np.array([-25, 250, 250, 900, 1200, 3000]))
    units = labtree.import_phy(folder).ws["sorted", "units"]
    assert (units.attrs["start_time"], units.attrs["length"]) == (-1, 121)


@pytest.mark.parametrize(
    "text",
    [
        "dat_path = 'raw.bin'\nn_channels_dat = 4\noffset = -5\n",
        "dat_path = 'raw.bin'\nn_channels_dat = 4\ndtype = 'object'\n",
        "dat_path = 'raw.bin'\nn_channels_dat = 0\n",
        "dat_path = 'raw.bin'\n",
        "dat_path = 'a\\0b'\nn_channels_dat = 1\n",
    ],
)
def test_a_recording_that_cannot_be_read_is_said(folder, text):
    (folder / "raw.bin").write_bytes(bytes(800))
    (folder / "params.py").write_text("sample_rate = 25000.0\n" + text)
    with pytest.warns(LossWarning, match=r"raw.bin cannot be read|dat_path"):
        tree = labtree.import_phy(folder)
    assert "recording" not in tree.ws.list_keys("sorted")


@pytest.mark.parametrize("path", ["/etc/hostname", "../other.bin", "link.bin"])
def test_a_recording_outside_of_the_folder_is_not_opened(folder, tmp_path, path):
    (tmp_path / "other.bin").write_bytes(bytes(800))
    (folder / "link.bin").symlink_to(tmp_path / "other.bin")
    (folder / "params.py").write_text(
        f"sample_rate = 25000.0\ndat_path = {path!r}\nn_channels_dat = 1\ndtype = 'int8'\n"
    )
    assert "recording" not in labtree.import_phy(folder).ws.list_keys("sorted")


def test_pipes_and_devices_are_not_read(folder):
    (folder / "cluster_info.tsv").unlink()
    os.mkfifo(folder / "cluster_info.tsv")
    (folder / "amplitudes.npy").unlink()
    (folder / "amplitudes.npy").symlink_to("/dev/zero")
    with pytest.warns(LossWarning) as warned:
        labtree.import_phy(folder)
    assert "expected a file, found a pipe" in str(warned[0].message)
    assert "amplitudes.npy is missing" in str(warned[0].message)


def test_whole_numbers_stay_whole_where_a_table_lacks_a_cluster(tmp_path):
    np.save(tmp_path / "spike_times.npy", np.array([10, 20, 30, 40]))
    np.save(tmp_path / "spike_clusters.npy", np.array([0, 1, 2, 0]))
    np.save(tmp_path / "amplitudes.npy", np.array([1.0, 2.0, 3.0, 4.0]))
    (tmp_path / "cluster_info.tsv").write_text(
        "cluster_id\tdepth\tamplitude\n0\t7\t8\n1\t9\t5\n"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LossWarning)
        tree = labtree.import_phy(tmp_path, sample_rate_hz=np.int64(10_000))
    units = tree.ws[tmp_path.name, "units"]
    assert units.spike_times.values.tolist() == [1, 4, 2, 3]
    assert units.amplitude.values.tolist() == [1, 4, 2, 3]
    assert units.depth.dtype == np.int64
    assert labtree.spikes.unit_attributes(units) == [
        {"unit_id": 0, "depth": 7, "amplitude_of_unit": 8},
        {"unit_id": 1, "depth": 9, "amplitude_of_unit": 5},
        {"unit_id": 2},
    ]
