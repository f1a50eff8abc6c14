"""Camera recordings beside a session: which cameras, which files, and when each frame was.

Two systems record them. FLIR cameras write ``{acquisition}.msw.{camera}.avi`` and
``{acquisition}.msw.{camera}.timestamps.csv``, a row a frame without a header: the frame's
counter, the camera's own clock in s, and the state of its pin where it has one. Raspberry
Pi cameras write ``{name}.rce.{camera}.{moment}.{part}``, of which ``video.h264``,
``ttl_out.npz`` (a row a frame) and ``ttl_in.npz`` (edges on the input pin) make a recording.
Videos are not opened.
"""

import io
import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from labtree.errors import FormatError, MissingFileError, one_line, unknown_name
from labtree.msw.session_folders import check_folder, identify, list_folder
from labtree.msw.trial_times import FloatArray
from labtree.storage import ragged
from labtree.storage.files import read_file

Backend = Literal["flir", "rce"]
BACKENDS: dict[str, Backend] = {"video_flir": "flir", "video_rce": "rce"}
_FLIR = re.compile(r".+\.msw\.(?P<camera>.+)\.(?P<part>avi|timestamps\.csv)")
_RCE = re.compile(r".+\.rce\.(?P<camera>[^.]+)\.(?P<moment>\d+)\.(?P<part>.+)")
_PARTS: dict[Backend, tuple[str, ...]] = {
    "flir": ("avi", "timestamps.csv"),
    "rce": ("video.h264", "ttl_out.npz", "ttl_in.npz"),
}
# The clock of FlyCapture cameras starts again every 128 s, their counters at 2**32.
_CYCLE_S = 128.0
_COUNTER = 2.0**32
_MAX_BYTES = 2**32


@dataclass(frozen=True)
class Camera:
    """One camera of a recording.

    Attributes
    ----------
    name : str
        As in the names of its files.
    backend : {"flir", "rce"}
        Which system recorded it.
    files : dict of str to pathlib.Path
        Its files by what they are: "avi" and "timestamps.csv", or "video.h264",
        "ttl_out.npz", "ttl_in.npz" and others.
    """

    name: str
    backend: Backend
    files: dict[str, Path] = field(default_factory=dict)

    @property
    def missing(self) -> list[str]:
        """The files that such a camera should have and does not."""
        return [part for part in _PARTS[self.backend] if part not in self.files]

    @property
    def video(self) -> Path | None:
        """The video, if there is one."""
        return self.files.get(_PARTS[self.backend][0])

    def frames(self) -> pd.DataFrame:
        """Read the time of each frame.

        Returns
        -------
        pandas.DataFrame
            One row for each frame. For a FLIR camera: ``frame_counter``, ``timestamp_raw``
            and ``time_s`` (the camera's clock without its jumps back every 128 s), and
            ``gpio_state`` where it was recorded; frames are missing where the counter
            jumps. Of a Raspberry Pi: the columns of ``ttl_out.npz``, such as ``sensor_ts``
            and ``monotonic_ts``.

        Raises
        ------
        MissingFileError
            The file with the times is missing.
        FormatError
            It cannot be read.
        """
        path = self._path(_PARTS[self.backend][1])
        return _flir_frames(path) if self.backend == "flir" else _columns(path)

    def edges(self) -> pd.DataFrame:
        """Read the edges on the camera's input pin, where the session's barcodes arrive.

        Returns
        -------
        pandas.DataFrame
            ``timestamp`` (s), ``line`` (0) and ``state`` (1 rising, 0 falling), as
            ``df.msw.align`` takes them.

        Raises
        ------
        MissingFileError
            There is no file of edges.
        FormatError
            It cannot be read.
        """
        if self.backend == "rce":
            table = _columns(self._path("ttl_in.npz"))
            names = ("timestamp", "data")
        else:
            table = self.frames()
            names = ("time_s", "gpio_state")
        if missing := [name for name in names if name not in table]:
            raise FormatError(
                f"camera {self.name!r}: no {', '.join(missing)} among the columns "
                f"{', '.join(map(str, table))} of its times"
            )
        times = table[names[0]].to_numpy(np.float64)
        states = (table[names[1]].to_numpy(np.float64) > 0).astype(np.int64)
        changed = ragged.begins_run(states)
        return pd.DataFrame({"timestamp": times[changed], "line": 0, "state": states[changed]})

    def _path(self, part: str) -> Path:
        if part not in self.files:
            raise MissingFileError(
                f"camera {self.name!r} has no {part}; there are: "
                + (", ".join(sorted(self.files)) or "none")
            )
        return self.files[part]


@dataclass(frozen=True)
class CameraAcquisition:
    """What one folder of a camera recording holds.

    Attributes
    ----------
    directory : pathlib.Path
        The folder.
    backend : {"flir", "rce"}
        Which system recorded it.
    cameras : dict of str to Camera
        By name.
    """

    directory: Path
    backend: Backend
    cameras: dict[str, Camera]

    @property
    def is_complete(self) -> bool:
        """Whether there is a camera, and each has all its files."""
        return bool(self.cameras) and not any(c.missing for c in self.cameras.values())

    def __getitem__(self, name: str) -> Camera:
        """Return a camera by its name."""
        if name not in self.cameras:
            raise unknown_name(f"camera of {self.directory}", name, self.cameras)
        return self.cameras[name]


def detect_camera_backend(directory: str | Path) -> Backend | None:
    """Return the system that recorded a folder, by its name; None if it is no camera's.

    Parameters
    ----------
    directory : path
        The folder; it need not exist.

    Returns
    -------
    {"flir", "rce"} or None
        None if it is no camera's.

    Examples
    --------
    >>> detect_camera_backend("m01__20260514_143022_123456__video_flir__v1")
    'flir'
    """
    return BACKENDS.get(identify(Path(directory).name).acq_type)


def load_camera_acquisition(directory: str | Path) -> CameraAcquisition:
    """Find the cameras and files of a recording; no video is opened.

    Parameters
    ----------
    directory : path
        A folder whose name says ``video_flir`` or ``video_rce``, or that holds the files of
        such cameras.

    Returns
    -------
    CameraAcquisition
        Its cameras, complete or not.

    Raises
    ------
    MissingFileError
        There is no such folder.
    FormatError
        It is no camera's, neither by its name nor by its files.

    Examples
    --------
    >>> import pathlib
    >>> import labtree
    >>> name = "m01__20260514_143022_123456__video_flir__v1"
    >>> folder = pathlib.Path(name)
    >>> folder.mkdir()
    >>> (folder / f"{name}.msw.top.avi").write_bytes(b"RIFF")
    4
    >>> sorted(labtree.msw.load_camera_acquisition(folder).cameras)
    ['top']
    """
    folder = Path(directory)
    check_folder(folder, "; expected that of a camera recording")
    names = list_folder(folder).names
    backend = detect_camera_backend(folder)
    if backend is None:
        backend = "rce" if any(_RCE.fullmatch(name) for name in names) else None
        if any(_FLIR.fullmatch(name) for name in names):
            backend = "flir"
    if backend is None:
        raise FormatError(
            f"{folder}: no camera recording; expected a name with video_flir or video_rce, or "
            "files such as *.msw.{camera}.avi and *.rce.{camera}.{moment}.video.h264"
        )
    starts: dict[tuple[str, int], Camera] = {}
    pattern = _FLIR if backend == "flir" else _RCE
    for name in names:
        match = pattern.fullmatch(name)
        if match is None:
            continue
        started = match["camera"], int(match.groupdict().get("moment", 0))
        camera = starts.setdefault(started, Camera(match["camera"], backend))
        camera.files[match["part"]] = folder / name
    # Of a camera that was started twice, the later start counts, if it has as many files:
    # the video of one and the times of another do not belong together.
    order = sorted(starts, key=lambda start: (-len(starts[start].missing), start[1]))
    cameras = {name: starts[name, moment] for name, moment in order}
    return CameraAcquisition(folder, backend, dict(sorted(cameras.items())))


def _flir_frames(path: Path) -> pd.DataFrame:
    numbers = _numbers(read_file(path, _MAX_BYTES), f"{path}: no table of frames", header=None)
    names = ("frame_counter", "timestamp_raw", "gpio_state")
    if not 2 <= numbers.shape[1] <= 3:
        raise FormatError(
            f"{path}: {numbers.shape[1]} columns; expected counter, seconds and, where there "
            "is a pin, its state"
        )
    numbers.columns = pd.Index(names[: numbers.shape[1]])
    raw = numbers["timestamp_raw"].to_numpy()
    counter = numbers["frame_counter"].to_numpy()
    wrong = np.flatnonzero(~((np.abs(counter) < 2.0**53) & (np.rint(counter) == counter)))
    if len(wrong):
        raise FormatError(
            f"{path}: row {wrong[0] + 1} has the counter {counter[wrong[0]]:g}; expected a "
            "whole number"
        )
    numbers["frame_counter"] = _unwrapped(counter, _COUNTER).astype(np.int64)
    has_cycle = not (raw >= _CYCLE_S).any()
    numbers["time_s"] = _unwrapped(raw, _CYCLE_S) if has_cycle else raw
    return numbers


def _numbers(data: bytes, problem: str, header: Literal["infer"] | None) -> pd.DataFrame:
    """Read a table of numbers in text."""
    try:
        return pd.read_csv(io.BytesIO(data), header=header).astype(np.float64)
    except ValueError as error:
        raise FormatError(f"{problem} ({one_line(error)})") from None


def _unwrapped(values: FloatArray, period: float) -> FloatArray:
    """Add the period at each step back of more than half of it."""
    steps = np.diff(values, prepend=values[:1])
    return values + period * np.cumsum(steps < -period / 2)


def _columns(path: Path) -> pd.DataFrame:
    """Read equally long columns from an .npz file, or from the text that some have inside."""
    data = read_file(path, _MAX_BYTES)
    if data[:2] != b"PK":
        # Some receivers write text under this name, with a header.
        return _numbers(data, f"{path}: neither .npz nor a table", header="infer")
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            columns = {name: np.asarray(arrays[name]) for name in arrays.files}
        return pd.DataFrame({name: column.ravel() for name, column in columns.items()})
    except (ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise FormatError(f"{path}: no .npz file of columns ({one_line(error)})") from None
