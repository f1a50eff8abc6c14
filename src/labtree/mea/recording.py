"""Loading a CMOS-MEA recording into a session."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from labtree.errors import ConfigurationError, FormatError, SessionError
from labtree.mea.light import block_means, frame_timestamps
from labtree.mea.mcs_files import (
    AnalogData,
    MeaFile,
    file_attributes,
    linked_recording,
    open_mea,
    read_analog,
    recording_duration_us,
    sensor_rate,
)
from labtree.mea.mcs_units import SortedUnit, read_units
from labtree.pipeline.session_values import add_metadata
from labtree.pipeline.sessions import add_warning, create_session, recording_file
from labtree.pipeline.steps import step
from labtree.storage.arguments import positive
from labtree.storage.ragged import SAMPLE_DIMENSION, row_of_sample

BIN_US = 100_000
SAME_DURATION_US = 10_000  # durations of one recording differ by rounding only


def samples_from_us(times_us: np.ndarray, rate: float) -> np.ndarray:
    """Return the nearest sample of times in µs, halves to the even one.

    Examples
    --------
    >>> samples_from_us(np.array([49, 50, 75, 125]), 20_000.0)
    array([1, 1, 2, 2])
    """
    return np.rint(np.asarray(times_us) * rate / 1e6).astype(np.int64)


def firing_rates(spikes_us: np.ndarray, row_size: np.ndarray, duration_us: int) -> np.ndarray:
    """Return every unit's firing rate in bins of 100 ms.

    Parameters
    ----------
    spikes_us : int array (spike,)
        All units' spike times in µs, unit after unit.
    row_size : int array (unit,)
        Spikes per unit.
    duration_us : int
        The last bin ends here; its rate is over its own, shorter width. A spike at
        the very end counts into it, later ones do not count.

    Returns
    -------
    array of float32 (unit, bin)
        Hz.

    Examples
    --------
    >>> firing_rates(np.array([0, 50_000, 120_000]), np.array([3]), 150_000)
    array([[20., 20.]], dtype=float32)
    """
    n_bins = max(-(-duration_us // BIN_US), 1)
    unit = row_of_sample(row_size)
    inside = (spikes_us >= 0) & (spikes_us <= duration_us)
    bins = np.minimum(spikes_us[inside] // BIN_US, n_bins - 1)
    flat = np.bincount(unit[inside] * n_bins + bins, minlength=len(row_size) * n_bins)
    widths = np.full(n_bins, BIN_US / 1e6)
    widths[-1] = (duration_us - (n_bins - 1) * BIN_US) / 1e6
    return np.asarray(flat.reshape(len(row_size), n_bins) / widths, np.float32)


def to_physical(counts: xr.DataArray) -> xr.DataArray:
    """Return counts in physical units: counts x ConversionFactor x 10^Exponent.

    Parameters
    ----------
    counts : DataArray
        With the attributes ``conversion_factor`` (or a coordinate of that name, per
        sensor), ``exponent`` and ``physical_unit``, as the loaders give them.

    Returns
    -------
    DataArray
        float64, with the unit in the attribute ``units``.

    Raises
    ------
    ConfigurationError
        If the array has no calibration.

    Examples
    --------
    >>> attrs = {"conversion_factor": 2.0, "exponent": -3, "physical_unit": "V"}
    >>> volts = to_physical(xr.DataArray([5, 10], dims="sample", attrs=attrs))
    >>> volts.values, volts.attrs["units"]
    (array([0.01, 0.02]), 'V')
    """
    factor = counts.coords.get("conversion_factor", counts.attrs.get("conversion_factor"))
    exponent = counts.attrs.get("exponent")
    if factor is None or exponent is None:
        raise ConfigurationError(
            f"{counts.name!r} has no conversion_factor and exponent, so its counts cannot be "
            "scaled; the file may lack ChannelMeta or SensorMeta"
        )
    scaled: xr.DataArray = counts.astype(np.float64) * (factor * 10.0 ** int(exponent))
    return scaled.assign_attrs(counts.attrs | {"units": counts.attrs.get("physical_unit", "V")})


def find_rate(
    analog: AnalogData | None,
    duration_us: int | None,
    given: float | None,
    name: str,
    sensors: float | None = None,
) -> tuple[float, str | None]:
    """Return the rate in Hz, and a remark if it rests on less than Tick.

    Parameters
    ----------
    analog : AnalogData or None
    duration_us : int or None
        Of the recording.
    given : float or None
        What the caller says.
    name : str
        Of the file, for messages.
    sensors : float or None
        Rate of the sensors, which counts where there are no analog channels.

    Raises
    ------
    FormatError
        If Tick and the recording's duration contradict each other by more than 1 %.
    ConfigurationError
        If the rate is not known, or if `given` contradicts Tick.
    """
    if given is not None:
        positive("acquisition_rate", given, ConfigurationError)
    estimate = None
    if analog is not None and duration_us:
        estimate = analog.counts.shape[1] / (duration_us / 1e6)
    if analog is None and sensors is not None:
        if given is None or abs(sensors / given - 1) <= 1e-6:
            return sensors, None
        return given, (  # without analog samples any clock will do for the spikes
            f"{name}: spike times count samples of {given:g} Hz as asked, but Tick of the "
            f"sensors says {sensors:g} Hz"
        )
    rate = analog.rate if analog is not None else None
    if rate is not None and given is not None and abs(rate / given - 1) > 1e-6:
        raise ConfigurationError(
            f"{name}: acquisition_rate={given:g} Hz, but Tick says {rate:g} Hz; leave "
            "acquisition_rate out"
        )
    rate = rate or given
    if rate is not None:
        off = abs(estimate / rate - 1) if estimate else 0.0
        if off > 0.01:
            raise FormatError(
                f"{name}: Tick says {rate:g} Hz, but samples over LB.RecordingDuration give "
                f"{estimate:g} Hz; one of them is wrong and spikes would be misplaced"
            )
        remark = f"{name}: samples over duration differ from Tick by {off:.2%}"
        return rate, remark if off > 0.001 else None
    if estimate is not None:  # a whole number of µs per sample, as Tick would be
        tick = round(1e6 / estimate)
        if tick > 0 and abs(1e6 / tick / estimate - 1) < 0.001:
            return 1e6 / tick, f"{name}: no Tick; the rate is estimated from the duration"
    raise ConfigurationError(
        f"{name}: the acquisition rate is not in the files (no CMCR with ChannelMeta or "
        "SensorMeta); pass acquisition_rate=, the samples per second of the recording"
    )


def light_reference(analog: AnalogData, rate: float) -> xr.Dataset:
    """Return the analog channels: raw counts, and their means at 1 kHz and 10 Hz."""
    made = {}
    for index, counts in enumerate(analog.counts):
        attrs: dict[str, Any] = {"sampling_rate": rate, "units": "count"}
        if index < len(analog.channels) and "ConversionFactor" in analog.channels[index]:
            channel = analog.channels[index]
            attrs |= {
                "conversion_factor": float(channel["ConversionFactor"]),
                "exponent": int(channel.get("Exponent", 0)),
                "physical_unit": str(channel.get("Unit") or "V"),
            }
        made[f"raw_ch{index + 1}"] = ("sample", counts, attrs)
        for name, target in (("1khz", 1000.0), ("10hz", 10.0)):
            if rate >= target:
                means = block_means(counts, rate, target)
                made[f"{name}_ch{index + 1}"] = (
                    f"sample_{name}", means, attrs | {"sampling_rate": target}
                )  # fmt: skip
    return xr.Dataset(made)


def _padded(arrays: list[np.ndarray | None], n_dims: int, dtype: Any) -> np.ndarray | None:
    """Stack arrays of different sizes, NaN where a smaller one ends; None if there is none."""
    given = [array for array in arrays if array is not None]
    if not given or any(array.ndim != n_dims for array in given):
        return None
    shape = np.max([array.shape for array in given], axis=0)
    out = np.full((len(arrays), *shape), np.nan, dtype)
    for row, array in zip(out, arrays, strict=True):
        if array is not None:
            row[tuple(map(slice, array.shape))] = array
    return out


def units_dataset(units: list[SortedUnit], rate: float, duration_us: int | None) -> xr.Dataset:
    """Return the Dataset of units from what a CMTR holds."""
    row_size = np.array([len(unit.spikes_us) for unit in units], np.int64)
    empty: list[np.ndarray] = [np.zeros(0, np.int64)]
    spikes_us = np.concatenate([unit.spikes_us for unit in units] or empty)
    if duration_us is None:
        duration_us = int(spikes_us.max(initial=0)) + 1_000_000
    waveforms = _padded([unit.waveform for unit in units], 1, np.float32)
    if waveforms is None:
        waveforms = np.zeros((len(units), 0), np.float32)
    rates = firing_rates(spikes_us, row_size, duration_us)
    amplitudes = np.concatenate([u.amplitudes for u in units] or [np.zeros(0)])
    ids = np.array([f"unit_{unit.number:03d}" for unit in units], dtype=str)
    count_attrs = {SAMPLE_DIMENSION: "spike", "long_name": "spikes per unit"}
    dataset = xr.Dataset(
        {
            "row_size": ("unit", row_size, count_attrs),
            "spike_times": ("spike", samples_from_us(spikes_us, rate), {"units": "sample"}),
            "amplitude": ("spike", amplitudes),
            "waveform": (("unit", "waveform_sample"), waveforms, {"units": "count"}),
            "firing_rate_10hz": (("unit", "time_10hz"), rates, {"units": "Hz"}),
        },
        coords={
            "unit": ids,
            "unit_num": ("unit", np.array([u.number for u in units], np.int64)),
            "original_name": ("unit", np.array([u.name for u in units], dtype=str)),
            "row": ("unit", np.array([u.row for u in units], np.int64)),
            "column": ("unit", np.array([u.column for u in units], np.int64)),
            "sensor_id": ("unit", np.array([u.sensor_id for u in units], np.int64)),
            "n_excluded_peaks": ("unit", np.array([u.n_excluded for u in units], np.int64)),
            "time_10hz": ("time_10hz", np.arange(rates.shape[1]) * 0.1, {"units": "s"}),
        },
        attrs={"sampling_rate": rate},
    )
    fields = [set(unit.info) for unit in units]
    for name in units[0].info if units and all(f == fields[0] for f in fields) else ():
        if name not in ("UnitID", "SensorID", "Row", "Column"):
            dataset.coords[name.lower()] = ("unit", np.array([u.info[name] for u in units]))
    for key, matrices in (
        ("roi_sta", [u.roi_sta for u in units]),
        ("unmixing", [u.unmixing for u in units]),
    ):
        stacked = _padded(matrices, 2, np.float64)
        if stacked is not None:
            dataset[key] = (("unit", f"{key}_row", f"{key}_column"), stacked)
    return dataset


def start_session(parameters: Mapping[str, Any]) -> xr.DataTree:
    """Make the session of a recording from a loader's parameters."""
    return create_session(
        parameters["dataset_id"],
        cmcr_path=parameters["cmcr_path"],
        cmtr_path=parameters["cmtr_path"],
        output_dir=parameters["output_dir"],
    )


def source_paths(
    session: xr.DataTree,
    dataset_id: str | None,
    cmcr_path: str | Path | None,
    cmtr_path: str | Path | None,
) -> dict[str, Path]:
    """Return the recording's files, and note them in the session.

    Raises
    ------
    ConfigurationError
        If there is no file, or if the session has another id.
    SessionError
        If the session holds another recording.
    """
    known = session.attrs["source_files"]
    given = {"cmcr_path": cmcr_path, "cmtr_path": cmtr_path}
    if cmcr_path is None and cmtr_path is None:
        given = {name: known.get(name) for name in given}
    paths = {name: Path(path) for name, path in given.items() if path is not None}
    if not paths:
        raise ConfigurationError("load_recording needs cmcr_path or cmtr_path, best both")
    if dataset_id is not None and dataset_id != session.attrs["dataset_id"]:
        raise ConfigurationError(
            f"dataset_id={dataset_id!r}, but the session is {session.attrs['dataset_id']!r}"
        )
    for name, path in paths.items():
        recording_file(name, path)
        held = Path(known.get(name, path)).name
        if held != path.name and "units" in session.children:
            raise SessionError(
                f"session {session.attrs['dataset_id']!r} holds {held}, not {path.name}; load "
                "that into a session of its own: labtree.create_session("
                f"cmtr_path={str(path)!r})"
            )
    session.attrs["source_files"] = {**known, **{k: str(v) for k, v in paths.items()}}
    return paths


def check_pair(cmcr: MeaFile, cmtr: MeaFile) -> str | None:
    """Return a remark if a CMTR names another CMCR and may be of another recording.

    Raises
    ------
    ConfigurationError
        If they are of two recordings: their durations differ, or the CMCR that the CMTR
        links to stands beside it and is another file.
    """
    stated = [recording_duration_us(source) for source in (cmcr, cmtr)]
    if stated[0] and stated[1] and abs(stated[0] - stated[1]) > SAME_DURATION_US:
        raise ConfigurationError(
            f"{cmcr.path.name} and {cmtr.path.name} are of two recordings: "
            f"LB.RecordingDuration is {stated[0] / 1e6:g} s in one and {stated[1] / 1e6:g} s "
            "in the other; pass the CMCR from which the CMTR was made"
        )
    linked = linked_recording(cmtr)
    if linked is None or linked.lower() == cmcr.path.name.lower():
        return None
    beside = cmtr.path.parent / linked
    if beside.is_file() and not beside.samefile(cmcr.path):
        raise ConfigurationError(
            f"{cmtr.path.name} was made from {linked}, which stands beside it, not from "
            f"{cmcr.path.name}; pass cmcr_path={str(beside)!r}"
        )
    return (
        f"{cmtr.path.name} was made from {linked}, not from {cmcr.path.name}; check that this "
        "is the same file under another name"
    )


class _Content(NamedTuple):
    """What the files of a recording hold, and what is unusual about it."""

    name: str
    analog: AnalogData | None
    rate: float
    duration_us: int | None
    units: list[SortedUnit] | None
    attributes: dict[str, Any]
    remarks: list[str]


def _read(paths: Mapping[str, Path], given_rate: float | None, with_matrices: bool) -> _Content:
    with ExitStack() as stack:
        files = {name: stack.enter_context(open_mea(path)) for name, path in paths.items()}
        cmcr, cmtr = files.get("cmcr_path"), files.get("cmtr_path")
        sources = [source for source in (cmcr, cmtr) if source is not None]
        # a CMTR links to its CMCR
        analog = next(filter(None, map(read_analog, sources)), None)
        sensors = next(filter(None, map(sensor_rate, sources)), None)
        duration_us = next(filter(None, map(recording_duration_us, sources)), None)
        name = next(iter(paths.values())).name
        rate, remark = find_rate(analog, duration_us, given_rate, name, sensors)
        remarks = [remark]
        if cmcr is not None and cmtr is not None:
            remarks.append(check_pair(cmcr, cmtr))
        units = None if cmtr is None else read_units(cmtr, with_matrices=with_matrices)
        attributes: dict[str, Any] = {}
        for source in reversed(sources):
            attributes |= file_attributes(source)
    if analog is not None:
        remarks += [
            f"{name}: no analog data from {start / rate:g} s to {stop / rate:g} s, between "
            "two sweeps; the light reference holds its last value there"
            for start, stop in analog.gaps
        ]
        if duration_us is None:
            duration_us = round(analog.counts.shape[1] / rate * 1e6)
    known = [remark for remark in remarks if remark is not None]
    return _Content(name, analog, rate, duration_us, units, attributes, known)


def _unit_remarks(content: _Content) -> list[str]:
    remarks = []
    if content.duration_us is None:
        remarks.append("no recording duration; rates end 1 s after the last spike")
    remarks += [
        f"{unit.name}: SensorID does not fit its Row and Column"
        for unit in content.units or ()
        if unit.sensor_id != (unit.column - 1) * 65 + unit.row
    ]
    return [f"{content.name}: {remark}" for remark in remarks]


def _frames(analog: AnalogData) -> np.ndarray:
    """Return the samples at which frames begin, on the second channel, else the only one."""
    frames = frame_timestamps(analog.counts[min(1, len(analog.counts) - 1)])
    for start, stop in analog.gaps:  # what rises at a gap is no frame
        frames = frames[(frames < start - 1) | (frames >= stop)]
    return frames


def load(
    session: xr.DataTree,
    paths: Mapping[str, Path],
    given_rate: float | None,
    with_matrices: bool,
) -> list[SortedUnit]:
    """Read the files of a recording into a session, and return its units, times in µs."""
    content = _read(paths, given_rate, with_matrices)
    rate, duration_us, analog = content.rate, content.duration_us, content.analog
    remarks = content.remarks + ([] if content.units is None else _unit_remarks(content))
    for text in remarks:
        add_warning(session, text)
    if content.units is not None:
        session["units"] = xr.DataTree(units_dataset(content.units, rate, duration_us))
    metadata: dict[str, Any] = {
        "dataset_id": session.attrs["dataset_id"],
        "acquisition_rate": rate,
        "sample_interval": 1.0 / rate,
        "sys_meta": content.attributes,
    }
    if duration_us is not None:
        metadata["recording_duration_s"] = duration_us / 1e6
    if analog is not None:
        session["stimulus/light_reference"] = xr.DataTree(light_reference(analog, rate))
        frames = _frames(analog)
        frame_times = xr.Dataset({"default": ("frame", frames, {"units": "sample"})})
        session["stimulus/frame_times"] = xr.DataTree(frame_times)
        metadata |= {"frame_timestamps": frames, "frame_time": frames / rate}
        if not len(frames):
            add_warning(session, f"{content.name}: no frames found in the sync channel")
    add_metadata(session, metadata)
    return content.units or []


@step(starts=start_session)
def load_recording(
    session: xr.DataTree,
    cmcr_path: str | Path | None = None,
    cmtr_path: str | Path | None = None,
    dataset_id: str | None = None,
    *,
    output_dir: str | Path = "artifacts",
    acquisition_rate: float | None = None,
) -> xr.DataTree:
    """Load units, light reference and frame times of a CMOS-MEA recording.

    Fills ``units`` (spike times in samples; only peaks that the sorter included),
    ``stimulus/light_reference`` (``raw_ch1``, ``1khz_ch1``, ``10hz_ch1``, ...; raw
    counts, :func:`to_physical` scales them), ``stimulus/frame_times`` and
    ``metadata``.

    Parameters
    ----------
    session : DataTree
    cmcr_path, cmtr_path : path
        At least one of them; without, the session's own source files.
    dataset_id : str, optional
        By default the name of the CMTR (else CMCR) file.
    output_dir : path
        Where the session is saved if none is given.
    acquisition_rate : float, optional
        Hz; needed only if there is no CMCR. The rate comes from Tick of the analog
        channels, else of the sensors, checked against the recording's duration.

    Returns
    -------
    DataTree
        The session that was given; without ``session=`` a :class:`labtree.StepResult`,
        whose ``hdf5_path`` is what :func:`labtree.load_session` takes.

    Raises
    ------
    ConfigurationError
        If there is no file, if the rate is unknown, or if the CMCR and the CMTR are of
        two recordings.
    FormatError
        If a file is damaged or inconsistent.

    Examples
    --------
    >>> import tempfile
    >>> import labtree
    >>> from labtree.testing.mea import write_recording
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = write_recording(folder, n_units=2, movie_frames={"noise_a": 60}, repeats=1)
    ...     session = labtree.create_session("rec1")
    ...     session = labtree.mea.load_recording(
    ...         files.cmcr_path, files.cmtr_path, session=session)
    >>> session.session.unit_count, session["metadata"].attrs["acquisition_rate"]
    (2, 20000.0)
    """
    paths = source_paths(session, dataset_id, cmcr_path, cmtr_path)
    load(session, paths, acquisition_rate, with_matrices=False)
    return session
