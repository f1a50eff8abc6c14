"""Opening by content: every format to its opener, every stranger to a clear error."""

import os
import pkgutil
import zipfile

import h5py
import numpy as np
import pytest
import xarray as xr

import labtree
from labtree.formats import FORMATS, recognize
from labtree.storage.zarr.trees import save_zarr_tree
from labtree.testing.mea import write_recording
from labtree.testing.msw import ERAS, make_trials, write_session
from labtree.testing.recordings import record_emg


@pytest.fixture
def workspace(tmp_path):
    tree = labtree.create_workspace("study")
    tree.ws.store("rec1", "rates", np.arange(3.0))
    return tree.ws.save(tmp_path / "study")


@pytest.mark.parametrize("name", FORMATS)
def test_the_function_that_opens_a_format_is_there(name):
    assert callable(pkgutil.resolve_name(FORMATS[name].opener))


def test_a_packed_recording_opens_under_any_name(tmp_path):
    folder = record_emg(tmp_path / "sessions")
    path = tmp_path / "monday.archive"
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.rglob("*"):
            if file.is_file():
                archive.write(file, file.relative_to(folder))
    for opened in (labtree.open(path), labtree.open_session(path)):
        with opened as tree:
            assert list(tree.session.streams) == ["emg", "force"]


@pytest.mark.parametrize("name", ["zarr.json", "meta.json"])
def test_a_part_of_a_folder_names_the_whole(tmp_path, workspace, name):
    folder = tmp_path / "study.zarr"
    if name == "zarr.json":
        labtree.load_workspace(workspace).ws.save(folder)
    else:
        folder = record_emg(tmp_path / "a {b}")
    message = rf"{name} is a part of a .*; write labtree.open\({str(folder)!r}\)"
    with pytest.raises(labtree.FormatError, match=message):
        labtree.open(folder / name)


def test_a_workspace_with_and_without_suffix(workspace):
    for path in (workspace, workspace.with_suffix(""), str(workspace)):
        assert recognize(path).name == "workspace"
        with labtree.open(path) as tree:
            assert tree.ws["rec1", "rates"].tolist() == [0, 1, 2]


def test_a_workspace_in_a_zarr_folder_and_other_zarr_stores(tmp_path, workspace):
    with labtree.open_workspace(workspace) as tree:
        tree.ws.save(tmp_path / "study.zarr")
    assert recognize(tmp_path / "study.zarr").name == "workspace"
    with labtree.open(tmp_path / "study.zarr") as tree:
        assert tree.ws["rec1", "rates"].tolist() == [0, 1, 2]
    save_zarr_tree(xr.DataTree(xr.Dataset({"a": 1})), tmp_path / "tree.zarr")
    assert recognize(tmp_path / "tree.zarr").name == "zarr"
    with labtree.open(tmp_path / "tree.zarr") as tree:
        assert tree["a"].item() == 1
    xr.Dataset({"a": ("x", [1])}).to_zarr(tmp_path / "other.zarr", consolidated=False)
    with pytest.raises(
        labtree.FormatError, match=r"store of another program; write xarray.open_zarr\("
    ):
        labtree.open(tmp_path / "other.zarr")


def test_a_netcdf_file_of_another_program(tmp_path):
    xr.Dataset({"a": ("x", [1, 2])}).to_netcdf(tmp_path / "plain.nc", engine="h5netcdf")
    assert recognize(tmp_path / "plain.nc").name == "tree"
    with labtree.open(tmp_path / "plain.nc") as tree:
        assert tree["a"].values.tolist() == [1, 2]


def test_a_recording_as_folder_and_as_zip(tmp_path):
    folder = record_emg(tmp_path)
    assert recognize(folder).name == "recording"
    with labtree.open(folder) as tree:
        expected = tree["streams/emg/data"].values
    packed = tmp_path / "moved.session.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for file in folder.rglob("*"):
            if file.is_file():
                archive.write(file, file.relative_to(folder).as_posix())
    assert recognize(packed).name == "recording"
    with labtree.open(packed) as tree:
        assert np.array_equal(tree["streams/emg/data"].values, expected)
        assert labtree.open_session(packed).session.class_names == tree.session.class_names


def test_pipeline_sessions_and_the_files_they_come_from(tmp_path):
    recording = write_recording(tmp_path)
    for path, node in ((recording.cmcr_path, "analog"), (recording.cmtr_path, "units")):
        assert recognize(path).name == "mcs"
        with labtree.open(path) as tree:
            assert node in tree.children
    session = labtree.create_session("s1", output_dir=tmp_path)
    session = labtree.mea.load_recording(
        recording.cmcr_path, recording.cmtr_path, session=session
    )
    path = session.session.save()
    assert recognize(path).name == "pipeline"
    for opener in (labtree.open, labtree.open_session):
        with opener(path) as tree:
            assert tree.session.unit_count == session.session.unit_count
    with labtree.open(recording.cmtr_path) as tree:
        rate = float(session.attrs.get("acquisition_rate", 20000))
        first = tree["units/row_size"].values[0]
        assert first == session["units/row_size"].values[0]
        samples = np.rint(tree["units/spike_times"].values[:first] * rate / 1e6)
        assert np.array_equal(samples, session["units/spike_times"].values[:first])


def test_spikelab_and_hdmea_are_known_by_their_attributes(tmp_path):
    for name, attribute in (("spikelab", "__workspace_id__"), ("hdmea", "hdmea_version")):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file.attrs[attribute] = "x"
        assert recognize(tmp_path / name).name == name


def test_a_murine_shift_work_session(tmp_path):
    for era in ERAS:
        folder = write_session(tmp_path / era, era, trials=make_trials(n_trials=5))
        assert recognize(folder).name == "msw", era
        assert labtree.open(folder)["trials"].sizes["trial"] == 5


def test_strangers_are_named_with_what_they_look_like(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    for name in "abcdefg":
        (tmp_path / "other" / f"{name}.txt").touch()
    (tmp_path / "text").write_text("hello world")
    (tmp_path / "nothing").touch()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x", "y")
    for name, words in (
        ("empty", "an empty folder"),
        ("other", "a folder with a.txt, b.txt, c.txt, d.txt, e.txt, …"),
        ("text", "a file that begins with b'hello wo'"),
        ("nothing", "an empty file"),
        ("a.zip", "a zip archive without a recording"),
    ):
        with pytest.raises(labtree.FormatError) as error:
            labtree.open(tmp_path / name)
        message = f"{tmp_path / name} is {words}, and no format that labtree opens"
        assert str(error.value) == f"{message} (labtree --help lists them)"


def test_nothing_there_and_damage(tmp_path, workspace):
    with pytest.raises(FileNotFoundError, match="there is nothing at"):
        labtree.open(tmp_path / "missing")
    workspace.write_bytes(workspace.read_bytes()[:1000])
    with pytest.raises(labtree.FormatError, match="cut short or damaged"):
        labtree.open(workspace)


def test_a_workspace_is_no_session(workspace):
    with pytest.raises(
        labtree.FormatError,
        match=r"a labtree workspace, not a session; write labtree.open_workspace\(",
    ):
        labtree.open_session(workspace)


def test_a_damaged_zip_is_refused_by_its_name(tmp_path):
    path = tmp_path / "day.session.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("meta.json", "{}")
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\1\2")] ^= 1  # of its list of contents
    path.write_bytes(content)
    with pytest.raises(labtree.FormatError, match=r"day.session.zip cannot be read"):
        recognize(path)


def test_a_damaged_zarr_store_is_not_said_to_be_of_another_program(tmp_path, workspace):
    with labtree.open_workspace(workspace) as tree:
        tree.ws.save(tmp_path / "study.zarr")
    root = tmp_path / "study.zarr" / "zarr.json"
    root.write_bytes(root.read_bytes()[:-20])
    with pytest.raises(labtree.FormatError, match=r"study.zarr: its zarr.json is damaged"):
        labtree.open(tmp_path / "study.zarr")


def test_a_folder_without_nwb_is_no_matter_of_what_is_installed(tmp_path):
    with pytest.raises(labtree.FormatError, match=r"is a folder, and no NWB file in zarr"):
        labtree.import_nwb(tmp_path)
    (tmp_path / ".zattrs").write_text("[1]")
    (tmp_path / ".zgroup").write_text("{}")
    with pytest.raises(labtree.FormatError, match=r"is a zarr store of another program"):
        labtree.open(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes pipes")
def test_pipes_and_devices_are_never_read(tmp_path, workspace):
    with labtree.open_workspace(workspace) as tree:
        tree.ws.save(tmp_path / "study.zarr")
    pipe, device = tmp_path / "pipe.h5", tmp_path / "device.h5"
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    chunk = tmp_path / "study.zarr" / "rec1" / "rates" / "data" / "c.0"
    chunk.unlink()
    os.mkfifo(chunk)
    with pytest.raises(labtree.FormatError, match=r"c\.0: expected a file, found a pipe"):
        labtree.load_item(tmp_path / "study.zarr", "rec1", "rates")
    openers = [labtree.recording.open_recording, labtree.open_workspace]
    openers.append(lambda path: labtree.open_workspace(path, mode="a"))
    for path in (pipe, device):
        for opener in openers:
            with pytest.raises(labtree.FormatError, match=f"{path}: expected a file, found a"):
                opener(path)
        with pytest.raises(FileExistsError, match=f"{path} is a pipe, a device or a socket"):
            labtree.create_workspace().ws.save(path)


@pytest.mark.parametrize("count", [1, 100, 600])
def test_a_zip_that_lacks_bytes_is_an_error_that_names_it(tmp_path, count):
    """Its entries then seem to begin before the file does."""
    path = tmp_path / "day.session.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("meta.json", "{}" + " " * 1000)
    content = path.read_bytes()
    path.write_bytes(content[:200] + content[200 + count :])
    for opener in (labtree.open_session, labtree.open):
        with pytest.raises(labtree.FormatError, match=r"day\.session\.zip"):
            opener(path)
