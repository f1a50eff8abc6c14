"""Camera recordings in the layouts that both systems write."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from labtree import FormatError, MissingFileError
from labtree.errors import UnknownNameError
from labtree.msw import (
    decode_barcodes,
    detect_camera_backend,
    enumerate_acquisitions,
    load_acquisition,
    load_camera_acquisition,
)
from labtree.testing.msw import make_trials, make_ttl_edges, write_session

DT = "20260514_143022_123456"
FLIR, RCE = f"m01__{DT}__video_flir__v1", f"m01__{DT}__video_rce"


def test_the_backend_is_in_the_name() -> None:
    assert detect_camera_backend(FLIR) == "flir"
    assert detect_camera_backend(Path("/x") / RCE) == "rce"
    assert detect_camera_backend(f"m01__{DT}__msw__sequence__v1") is None
    assert detect_camera_backend("tuesday") is None


def write_flir(folder: Path, cameras: tuple[str, ...] = ("top.0", "side")) -> Path:
    folder.mkdir(parents=True)
    for name in cameras:
        (folder / f"{FLIR}.msw.{name}.avi").write_bytes(b"RIFF")
        rows = [f"{2**32 - 3 + i if i < 3 else i - 3},{(127.9 + i / 50) % 128:.6f},{i % 2}"
                for i in range(20)]  # fmt: skip
        (folder / f"{FLIR}.msw.{name}.timestamps.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_flir_cameras_and_their_clock(tmp_path: Path) -> None:
    folder = write_flir(tmp_path / FLIR)
    (folder / f"._{FLIR}.msw.top.0.avi").write_bytes(b"x")
    (folder / f"{FLIR}.msw.notes.txt").write_text("x")
    found = load_camera_acquisition(folder)
    assert (found.backend, sorted(found.cameras), found.is_complete) == (
        "flir", ["side", "top.0"], True,
    )  # fmt: skip
    assert found["top.0"].video == folder / f"{FLIR}.msw.top.0.avi"
    frames = found["top.0"].frames()
    assert frames["frame_counter"].tolist() == [2**32 - 3 + i for i in range(20)]
    np.testing.assert_allclose(frames["time_s"], 127.9 + np.arange(20) / 50)
    assert frames["gpio_state"].tolist() == [0, 1] * 10
    edges = found["top.0"].edges()
    assert edges["state"].tolist() == [0, 1] * 10
    np.testing.assert_allclose(edges["timestamp"], frames["time_s"])
    # A camera without a cycle keeps its times as they are.
    path = folder / f"{FLIR}.msw.side.timestamps.csv"
    path.write_text("1,500.0\n2,500.5\n3,499.5\n")
    assert found["side"].frames()["time_s"].tolist() == [500.0, 500.5, 499.5]
    with pytest.raises(FormatError, match="no gpio_state among the columns"):
        found["side"].edges()


@pytest.mark.parametrize(
    "text", ["", "a,b\n", "1\n2\n", "1,2,3,4\n", "1,2\n3\n4,5,6,7\n", "\0\0"]
)
def test_damaged_times_of_frames_are_errors_with_the_name(tmp_path: Path, text: str) -> None:
    folder = write_flir(tmp_path / FLIR, ("top",))
    path = folder / f"{FLIR}.msw.top.timestamps.csv"
    path.write_text(text)
    with pytest.raises(FormatError, match=r"top\.timestamps\.csv"):
        load_camera_acquisition(folder)["top"].frames()
    path.unlink()
    found = load_camera_acquisition(folder)
    assert not found.is_complete
    assert found["top"].missing == ["timestamps.csv"]
    with pytest.raises(MissingFileError, match=r"has no timestamps\.csv; there are: avi"):
        found["top"].frames()


@pytest.mark.parametrize("text", ["1,2.5\n,3.0\n", "1,2.5\n1e300,2\n", "1,2.5\n2.5,3\n"])
def test_a_frame_without_a_counter_is_an_error(tmp_path: Path, text: str) -> None:
    folder = write_flir(tmp_path / FLIR, ("top",))
    (folder / f"{FLIR}.msw.top.timestamps.csv").write_text(text)
    with pytest.raises(FormatError, match=r"timestamps\.csv: row 2 has the counter"):
        load_camera_acquisition(folder)["top"].frames()


def test_files_of_a_camera_that_was_started_twice_are_not_mixed(tmp_path: Path) -> None:
    folder = write_rce(tmp_path / RCE, make_ttl_edges(make_trials(20)), as_text=False)
    first = {path.name for path in folder.iterdir()}
    later = {name.replace(".20260514143023.", ".20260514150000.") for name in first}
    video = next(name for name in later if name.endswith("h264"))
    (folder / video).write_bytes(b"\0\0\0\1")
    # The second start has no times: the video of the first belongs to the times that are.
    camera = load_camera_acquisition(folder)["rpi-172"]
    assert {path.name for path in camera.files.values()} == first
    for name in later - {video}:
        np.savez(folder / name, sensor_ts=np.arange(3), monotonic_ts=np.arange(3.0))
    camera = load_camera_acquisition(folder)["rpi-172"]
    assert {path.name for path in camera.files.values()} == later
    assert len(camera.frames()) == 3


def write_rce(folder: Path, edges: pd.DataFrame, *, as_text: bool) -> Path:
    folder.mkdir(parents=True)
    prefix = f"m01__{DT}__sequence.rce.rpi-172.20260514143023"
    (folder / f"{prefix}.video.h264").write_bytes(b"\0\0\0\1")
    np.savez(
        folder / f"{prefix}.ttl_out.npz", sensor_ts=np.arange(5), monotonic_ts=np.arange(5.0)
    )
    times, states = edges["timestamp"].to_numpy(), edges["state"].to_numpy()
    if as_text:
        # One receiver writes text under this name.
        rows = [f"{t!r},{s}" for t, s in zip(times.tolist(), states.tolist(), strict=True)]
        (folder / f"{prefix}.ttl_in.npz").write_text(
            "\n".join(["timestamp,data", *rows]) + "\n"
        )
    else:
        np.savez(folder / f"{prefix}.ttl_in.npz", timestamp=times, data=states)
    return folder


@pytest.mark.parametrize("as_text", [True, False])
def test_the_barcodes_on_a_raspberry_pi_s_pin_are_read(tmp_path: Path, as_text: bool) -> None:
    trials = make_trials(60, barcode_every=10)
    folder = write_rce(tmp_path / RCE, make_ttl_edges(trials), as_text=as_text)
    found = load_camera_acquisition(folder)
    assert found.is_complete
    camera = found["rpi-172"]
    assert camera.frames()["sensor_ts"].tolist() == [0, 1, 2, 3, 4]
    edges = camera.edges()
    sent = [t["info"]["barcode_value"] for t in trials if "barcode_value" in t["info"]]
    assert decode_barcodes(edges["timestamp"], edges["state"])["value"].tolist() == sent
    with pytest.raises(UnknownNameError, match="there are: 'rpi-172'"):
        found["top"]


def test_no_pickle_in_an_npz_file_is_run(tmp_path: Path) -> None:
    folder = write_rce(tmp_path / RCE, make_ttl_edges(make_trials(5)), as_text=False)
    path = next(folder.glob("*.ttl_in.npz"))
    np.savez(path, timestamp=np.array([object()], object), data=np.array([1]))
    with pytest.raises(FormatError, match=r"ttl_in\.npz: no \.npz file of columns"):
        load_camera_acquisition(folder)["rpi-172"].edges()
    for data in (b"", b"PK\x03\x04", b"\x93NUMPY"):
        path.write_bytes(data)
        with pytest.raises(FormatError, match=r"ttl_in\.npz"):
            load_camera_acquisition(folder)["rpi-172"].edges()


def test_other_folders_are_errors(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="no such folder"):
        load_camera_acquisition(tmp_path / "x")
    with pytest.raises(
        FormatError, match="no camera recording; expected a name with video_flir"
    ):
        load_camera_acquisition(tmp_path)
    # A folder that was renamed is known by its files.
    assert load_camera_acquisition(write_flir(tmp_path / "renamed")).backend == "flir"
    edges = make_ttl_edges(make_trials(5))
    folder = write_rce(tmp_path / "other", edges, as_text=True)
    assert load_camera_acquisition(folder).backend == "rce"
    (tmp_path / FLIR).mkdir()
    assert not load_camera_acquisition(tmp_path / FLIR).is_complete


def test_cameras_are_listed_beside_the_sessions_of_a_container(tmp_path: Path) -> None:
    session = write_session(tmp_path, "2026")
    container = session.parent
    write_flir(container / FLIR)
    (container / RCE).mkdir()
    listed = {item.basename: item for item in enumerate_acquisitions(container)}
    kinds = {name: (i.kind, i.backend, i.is_complete) for name, i in listed.items()}
    assert kinds == {
        session.name: ("session", None, True),
        FLIR: ("camera", "flir", True),
        RCE: ("camera", "rce", False),
    }
    assert [s.basename for s in load_acquisition(container)] == [session.name]
    # A renamed folder is still the acquisition that its files say.
    session.rename(container / "tuesday")
    listed = {item.basename: item for item in enumerate_acquisitions(container)}
    assert listed[session.name].folder == container / "tuesday"
    assert [s.basename for s in load_acquisition(container)] == [session.name]
