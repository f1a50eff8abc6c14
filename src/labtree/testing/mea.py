"""Synthetic CMOS-MEA recordings whose true content is known.

:func:`write_recording` writes a CMCR and CMTR pair in the vendor's layout, with the
playlist, movie lengths, movies and trial tables that the steps of ``labtree.mea`` read.
Spikes, frames, receptive fields and electrical images are planted and returned.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

__all__ = ["MeaTruth", "write_recording"]

Array = np.ndarray[Any, Any]
TICK_US = 50
FRAMES_PER_S = 60.0


@dataclass
class MeaTruth:
    """The paths of the files, and what was planted in them.

    Attributes
    ----------
    spikes : dict of unit id to int64 array
        Samples at the analog rate.
    frames : int64 array
        Samples at which the display's frames begin.
    movie_starts : dict of movie to list of int
        Display frame in which each presentation begins.
    movies : dict of movie to array (frame, y, x)
    fields : dict of unit id to array (lag, y, x)
        Receptive field that drives the unit in movies whose name holds "noise".
    images : dict of unit id to array (window, row, column)
        Electrical image planted at each spike, counts; the spike is at ``image_pre``.
    """

    cmcr_path: Path
    cmtr_path: Path
    playlist_path: Path
    movie_length_path: Path
    stimuli_dir: Path
    playlist_name: str
    rate: float
    duration_us: int
    pad_frame: int
    pre_margin: int
    post_margin: int
    repeats: int
    frames: Array = field(repr=False)
    spikes: dict[str, Array] = field(repr=False)
    movie_starts: dict[str, list[int]]
    movies: dict[str, Array] = field(repr=False)
    configs: dict[str, dict[str, int]]
    fields: dict[str, Array] = field(repr=False)
    images: dict[str, Array] = field(repr=False)
    image_pre: int
    positions: dict[str, tuple[int, int]]
    waveforms: dict[str, Array] = field(repr=False)
    excluded: dict[str, int]


def _identify(obj: Any, kind: str, name: str = "") -> Any:
    """Give an object the identity attributes that the vendor's reader asks for; return it."""
    obj.attrs["ID.Type"] = np.bytes_(kind)
    obj.attrs["ID.TypeID"] = np.bytes_("00000000-0000-0000-0000-000000000000")
    obj.attrs["ID.Instance"] = np.bytes_(name or obj.name.rpartition("/")[2])
    obj.attrs["ID.InstanceID"] = np.bytes_("00000000-0000-0000-0000-000000000001")
    return obj


def _numbers(obj: Any, **values: int) -> None:
    for name, value in values.items():
        obj.attrs[name] = np.array([value], np.int32)


def _root(file: h5py.File, path: Path, duration_us: int) -> None:
    _identify(file, "Root", path.name)
    file.attrs["FileVersion"] = np.int32(1)
    file.attrs["ProgramName"] = np.bytes_("CMOS-MEA-Tools")
    file.attrs["DateTime"] = np.bytes_("15.01.2026 10:00:00")
    file.attrs["LB.RecordingDuration"] = np.array([duration_us], np.int64)


def _receptive_field(index: int, n_lags: int, size: int) -> Array:
    """Return a Gaussian in space times a biphasic course in time, peak 1."""
    y, x = np.mgrid[:size, :size]
    center = (1 + index * 2) % size, (2 + index * 3) % size
    space = np.exp(-((y - center[0]) ** 2 + (x - center[1]) ** 2) / 2)
    before = -np.arange(-n_lags, 0)  # frames before the spike
    time = np.exp(-((before - 3) ** 2) / 2) - 0.5 * np.exp(-((before - 7) ** 2) / 4)
    return np.asarray(time[:, None, None] * space)


def _image(
    row: int, column: int, n_rows: int, n_columns: int, pre: int, n_window: int
) -> Array:
    """Return a spike's waveform that fades with distance from the unit's sensor."""
    y, x = np.mgrid[1 : n_rows + 1, 1 : n_columns + 1]
    near = np.exp(-((y - row) ** 2 + (x - column) ** 2) / 3)
    t = np.arange(n_window) - pre
    wave = -120 * np.exp(-(t**2) / 6) + 50 * np.exp(-((t - 8) ** 2) / 20)
    return np.asarray(wave[:, None, None] * near)


def _schedule(
    lengths: dict[str, int], order: list[str], repeats: int, pad: int
) -> tuple[dict[str, list[int]], int]:
    starts: dict[str, list[int]] = {movie: [] for movie in order}
    count = 0
    for movie in order * repeats:
        starts[movie].append(count + pad)
        count += 2 * pad + lengths[movie] + 1
    return starts, count


def _draw_spikes(
    random: np.random.Generator,
    rate_hz: float,
    frames: Array,
    n_samples: int,
    drive: dict[int, Array],
) -> Array:
    """Draw spikes: Poisson everywhere, driven by the movie in its frames."""
    edges = np.concatenate([[0], frames, [n_samples]])
    expected = rate_hz * np.diff(edges) / (1e6 / TICK_US)
    for start, gain in drive.items():
        expected[1 + start : 1 + start + len(gain)] *= gain
    counts = random.poisson(expected)
    low = np.repeat(edges[:-1], counts)
    high = np.repeat(edges[1:], counts)
    return np.unique(random.integers(low, high))


def _draw_answers(random: np.random.Generator, events_s: Array, n_samples: int) -> Array:
    """Draw four spikes an event on average, their delay exponential after 80 ms."""
    counts = random.poisson(4, len(events_s))
    delays = 0.08 + random.exponential(0.05, counts.sum())
    samples = np.rint((np.repeat(events_s, counts) + delays) * 1e6 / TICK_US).astype(np.int64)
    return np.unique(samples[samples < n_samples])


def write_recording(
    folder: str | Path,
    *,
    name: str = "2026.01.15-10.00.00-Rec",
    n_units: int = 5,
    rate_hz: float = 20.0,
    movie_frames: dict[str, int] | None = None,
    movie_size: int = 8,
    repeats: int = 2,
    pad_frame: int = 20,
    pre_margin: int = 10,
    post_margin: int = 12,
    n_lags: int = 12,
    gain: float = 1.2,
    sensor_size: int = 9,
    sensor_s: float = 1.0,
    sensor_noise: float = 15.0,
    noise_peaks: float = 0.2,
    cutout: int = 40,
    events_s: Sequence[float] = (),
    seed: int = 0,
) -> MeaTruth:
    """Write a synthetic recording and return what was planted.

    Parameters
    ----------
    folder : path
        Made if it is not there.
    name : str
        The CMCR is ``{name}.cmcr``, the CMTR ``{name}-.cmtr``.
    n_units : int
    rate_hz : float
        Mean firing rate without drive.
    movie_frames : dict of str to int
        Movies in the order of the playlist and their lengths; by default
        ``{"noise_small": 600, "step_small": 120}``.
    movie_size : int
        Pixels along each side.
    repeats, pad_frame, pre_margin, post_margin : int
        Of the playlist, in display frames.
    n_lags : int
        Frames that a receptive field reaches back.
    gain : float
        How strongly movies drive the units.
    sensor_size : int
        Sensors along each side.
    sensor_s, sensor_noise : float
        Length of the sensor data in s, and their noise in counts.
    noise_peaks : float
        Share of further peaks that the sorter did not include.
    cutout : int
        Samples of each peak's cutout.
    events_s : sequence of float
        Times in s to which every second unit responds, from 80 ms after them on.
    seed : int

    Returns
    -------
    MeaTruth

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     truth = write_recording(folder, n_units=2, movie_frames={"noise_a": 60}, repeats=1)
    ...     truth.cmtr_path.name, sorted(truth.spikes)
    ('2026.01.15-10.00.00-Rec-.cmtr', ['unit_001', 'unit_002'])
    """
    folder = Path(folder)
    stimuli = folder / "stimuli"
    stimuli.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    lengths = movie_frames or {"noise_small": 600, "step_small": 120}
    order = list(lengths)
    starts, n_frames = _schedule(lengths, order, repeats, pad_frame)
    rate = 1e6 / TICK_US

    lead = 1000
    frames = lead + np.rint(np.arange(-4, n_frames + 2) * rate / FRAMES_PER_S).astype(np.int64)
    frames += 4 * int(rate / FRAMES_PER_S)
    n_samples = int(frames[-1]) + 2000
    duration_us = n_samples * TICK_US
    display = frames[4:]  # the first four pulses are the display's start-up

    movies = {
        movie: (random.random((length, movie_size, movie_size)) > 0.5).astype(np.uint8) * 255
        for movie, length in lengths.items()
    }
    configs = {}
    for movie, length in lengths.items():
        noise = "noise" in movie
        configs[movie] = {
            "start_frame": 0 if noise else 3,
            "trial_length_frame": length if noise else (length - 6) // 4,
            "repeat": 1 if noise else 2,
            "group_count": 1 if noise else 2,
            "group_gap": 0 if noise else 2,
        }

    ids = [f"unit_{number:03d}" for number in range(1, n_units + 1)]
    positions = {
        unit: (2 + i % (sensor_size - 2), 2 + (i * 3) % (sensor_size - 2))
        for i, unit in enumerate(ids)
    }
    fields = {
        unit: _receptive_field(index, n_lags, movie_size) for index, unit in enumerate(ids)
    }
    spikes = {}
    for unit in ids:
        drive: dict[int, Array] = {}
        for movie in (m for m in order if "noise" in m):
            contrast = movies[movie].reshape(lengths[movie], -1) / 127.5 - 1
            kernel = fields[unit].reshape(n_lags, -1)
            signal = np.zeros(lengths[movie])
            for lag in range(n_lags):  # the spike's own frame does not count
                shift = n_lags - lag
                signal[shift:] += contrast[:-shift] @ kernel[lag]
            signal /= max(float(signal.std()), 1e-9)
            drive |= {start: np.exp(gain * signal - gain**2 / 2) for start in starts[movie]}
        spikes[unit] = _draw_spikes(random, rate_hz, display, n_samples - 1, drive)
        if len(events_s) and int(unit[-1]) % 2 == 0:
            evoked = _draw_answers(random, np.asarray(events_s), n_samples - 1)
            spikes[unit] = np.union1d(spikes[unit], evoked)

    truth = MeaTruth(
        cmcr_path=folder / f"{name}.cmcr",
        cmtr_path=folder / f"{name}-.cmtr",
        playlist_path=folder / "playlist.csv",
        movie_length_path=folder / "movie_length.csv",
        stimuli_dir=stimuli,
        playlist_name="set1",
        rate=rate,
        duration_us=duration_us,
        pad_frame=pad_frame,
        pre_margin=pre_margin,
        post_margin=post_margin,
        repeats=repeats,
        frames=display,
        spikes=spikes,
        movie_starts=starts,
        movies=movies,
        configs=configs,
        fields=fields,
        images={
            unit: _image(*positions[unit], sensor_size, sensor_size, 10, 50) for unit in ids
        },
        image_pre=10,
        positions=positions,
        waveforms={},
        excluded={},
    )
    _write_stimuli(truth, order, lengths)
    _write_cmcr(truth, frames, n_samples, sensor_size, sensor_s, sensor_noise, random)
    _write_cmtr(truth, n_samples, noise_peaks, cutout, random)
    return truth


def _write_stimuli(truth: MeaTruth, order: list[str], lengths: dict[str, int]) -> None:
    names = [f"{movie}.mp4" for movie in order]
    truth.playlist_path.write_text(
        f'playlist_name,movie_names\nother,"[\'x.mp4\']"\n{truth.playlist_name},"{names!r}"\n'
    )
    lines = [f"{movie},{length}" for movie, length in lengths.items()]
    truth.movie_length_path.write_text("movie_name,movie_length\n" + "\n".join(lines) + "\n")
    for movie, frames in truth.movies.items():
        np.save(truth.stimuli_dir / f"{movie}.npy", frames)
        config = {"section_kwargs": truth.configs[movie]}
        (truth.stimuli_dir / f"{movie}.json").write_text(json.dumps(config))


def _sensor_counts(
    truth: MeaTruth, size: int, seconds: float, noise: float, random: np.random.Generator
) -> Array:
    n = round(seconds * truth.rate)
    slow = 200 * np.sin(2 * np.pi * np.arange(n) / truth.rate)  # drift, taken off by the filter
    counts = random.normal(0, noise, (n, size, size)) + slow[:, None, None] + 1500
    for unit, times in truth.spikes.items():
        image = truth.images[unit]
        for time in times:
            begin = time - truth.image_pre
            if begin >= 0 and begin + len(image) <= n:
                counts[begin : begin + len(image)] += image
    return np.asarray(np.rint(counts), np.int16)


def _write_cmcr(
    truth: MeaTruth,
    frames: Array,
    n_samples: int,
    size: int,
    seconds: float,
    noise: float,
    random: np.random.Generator,
) -> None:
    light = 50_000 + 20_000 * np.sin(np.arange(n_samples) / 3000)
    sync = np.zeros(n_samples, np.int32)
    for frame in frames:
        sync[frame + 1 : frame + 31] = 200_000
    analog = np.stack([np.rint(light).astype(np.int32), sync])
    meta = np.zeros(
        2,
        [("ChannelID", "<i4"), ("GroupID", "<i4"), ("Label", "S16"), ("Unit", "S4"),
         ("Exponent", "<i4"), ("ConversionFactor", "<f8"), ("Tick", "<i8")],
    )  # fmt: skip
    for index in range(2):
        meta[index] = (index + 1, 1, b"Analog", b"V", -9, 1000.0, TICK_US)
    factors = b"".join(b"%.1f " % (1000 + index) for index in range(size * size))
    sensor_meta = np.zeros(
        1,
        [("RegionID", "<i4"), ("GroupID", "<i4"), ("Tick", "<i8"), ("Exponent", "<i4"),
         ("Unit", "S4"), ("RegionLeft", "<i4"), ("RegionTop", "<i4"), ("RegionRight", "<i4"),
         ("RegionBottom", "<i4"), ("Conversion Factors", f"S{len(factors)}")],
    )  # fmt: skip
    sensor_meta[0] = (1, 1, TICK_US, -9, b"V", 1, 1, size, size, factors)
    with h5py.File(truth.cmcr_path, "w") as file:
        _root(file, truth.cmcr_path, truth.duration_us)
        acquisition = _identify(file.create_group("Acquisition"), "Acquisition")
        group = _identify(acquisition.create_group("Analog Data"), "ChannelStream")
        data = _identify(group.create_dataset("ChannelData 1", data=analog), "ChannelData")
        _numbers(data, GroupID=1)
        _identify(group.create_dataset("ChannelMeta", data=meta), "ChannelMeta")
        group = _identify(acquisition.create_group("Sensor Data"), "SensorStream")
        counts = _sensor_counts(truth, size, seconds, noise, random)
        chunks = (min(1000, len(counts)), size, size)
        data = group.create_dataset("SensorData 1 1", data=counts, chunks=chunks)
        _numbers(_identify(data, "SensorData"), GroupID=1, RegionID=1)
        _identify(group.create_dataset("SensorMeta", data=sensor_meta), "SensorMeta")


def _write_cmtr(
    truth: MeaTruth,
    n_samples: int,
    noise_peaks: float,
    cutout: int,
    random: np.random.Generator,
) -> None:
    columns = [("Timestamp", "<i8"), ("PeakAmplitude", "<f8"), ("IncludePeak", "u1")]
    kind = np.dtype(columns + [(str(i), "<f8") for i in range(1, cutout + 1)])
    shape = -100 * np.exp(-((np.arange(cutout) - 13) ** 2) / 8)
    info_kind = np.dtype(
        [("UnitID", "<i4"), ("RoiID", "<i4"), ("SensorID", "<i4"), ("Row", "<i4"),
         ("Column", "<i4"), ("SNR", "<f8"), ("Separability", "<f8"), ("Tags", "S8")]
    )  # fmt: skip
    with h5py.File(truth.cmtr_path, "w") as file:
        _root(file, truth.cmtr_path, truth.duration_us)
        file["Acquisition"] = h5py.ExternalLink(truth.cmcr_path.name, "/Acquisition")
        sorter = _identify(file.create_group("Spike Sorter"), "SpikeSorter")
        rows = []
        for number, (unit, times) in enumerate(truth.spikes.items(), start=1):
            extra = random.integers(0, n_samples, round(noise_peaks * len(times)))
            peaks = np.zeros(len(times) + len(extra), kind)
            # off the sample by up to 24 µs, so that only rounding finds it again
            jitter = random.integers(-24, 25, len(times))
            jitter[times == 0] = 0
            peaks["Timestamp"] = np.concatenate([times * TICK_US + jitter, extra * TICK_US])
            peaks["IncludePeak"][: len(times)] = 1
            peaks["PeakAmplitude"] = -4 - random.random(len(peaks))
            wave = shape * (0.5 + number / 10)
            for sample in range(cutout):
                noise = random.normal(0, 1, len(peaks))
                peaks[str(sample + 1)] = (
                    np.where(peaks["IncludePeak"], wave[sample], 500) + noise
                )
            truth.waveforms[unit] = np.array(
                [peaks[str(i + 1)][: len(times)].mean() for i in range(cutout)]
            )
            truth.excluded[unit] = len(extra)
            peaks = peaks[np.argsort(peaks["Timestamp"], kind="stable")]
            row, column = truth.positions[unit]
            sensor = (column - 1) * 65 + row
            group = _identify(sorter.create_group(f"Unit {number}"), "SingleUnit")
            _numbers(group, UnitID=number, SensorID=sensor, Row=row, Column=column)
            data = group.create_dataset("Peaks", data=peaks)
            data.attrs["AmplitudeThreshold"] = np.array([-4.0])
            info = np.array(
                [(number, 1, sensor, row, column, 5 + number, 7.5, b"a")], info_kind
            )
            rows.append(info)
            group["Unit Info"] = info
            group["RoiSTAs"] = random.normal(size=(number + 3, cutout))
            group["Source"] = random.normal(size=2000).astype(np.float32)
            group["Unmixing"] = random.normal(size=(number + 3, 3))
        sorter["Units"] = np.concatenate(rows) if rows else np.zeros(0, info_kind)
