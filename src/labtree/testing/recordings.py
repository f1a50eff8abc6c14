"""Simulated EMG, and recordings of it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

__all__ = ["CLASS_NAMES", "record_emg", "simulate_emg"]

CLASS_NAMES = ("rest", "fist", "pinch")


def simulate_emg(
    classes: Sequence[int],
    *,
    seconds_each: float = 2.0,
    n_channels: int = 8,
    fs: float = 1000.0,
    seed: int = 0,
) -> np.ndarray:
    """Return surface EMG of a muscle array that does one gesture after another.

    Each class drives the channels with its own pattern of amplitudes; class 0 is rest.
    The samples are noise between 20 and 150 Hz, most of it near 60 Hz, as the sum of
    many motor units is.

    Parameters
    ----------
    classes
        The gestures in order.
    seconds_each
        How long each lasts.
    n_channels, fs, seed
        Channels, rate in Hz, and what makes the noise reproducible.

    Returns
    -------
    ndarray
        (samples, channels), int16, in microvolts.

    Examples
    --------
    >>> simulate_emg([0, 1], n_channels=4).shape
    (4000, 4)
    """
    rng = np.random.default_rng(seed)
    per_class = round(seconds_each * fs)
    n = per_class * len(classes)
    spectrum = np.fft.rfft(rng.standard_normal((n, n_channels)), axis=0)
    frequency = np.fft.rfftfreq(n, 1 / fs)
    shape = np.exp(-0.5 * ((frequency - 60) / 35) ** 2) * (frequency > 20) * (frequency < 150)
    noise = np.fft.irfft(spectrum * shape[:, None], n, axis=0)
    noise /= noise.std()
    channel = np.arange(n_channels)
    amplitude = np.empty((len(classes), n_channels))
    for row, index in enumerate(classes):
        center = (index * 0.37 % 1) * n_channels
        away = np.abs((channel - center + n_channels / 2) % n_channels - n_channels / 2)
        amplitude[row] = 5 + (200 * np.exp(-((away / 1.5) ** 2)) if index > 0 else 0)
    signal = noise * np.repeat(amplitude, per_class, axis=0)
    return np.clip(np.round(signal), -32768, 32767).astype(np.int16)


def record_emg(
    base_path: str | Path,
    classes: Sequence[int] = (0, 1, 0, 2),
    *,
    seconds_each: float = 2.0,
    n_channels: int = 8,
    fs: float = 1000.0,
    start: float = 100.0,
    seed: int = 0,
) -> Path:
    """Record `simulate_emg`, with a label at every gesture; return the session's folder.

    Stream ``emg`` comes in packets of 32 samples, a slow stream ``force`` at 50 Hz with it.

    Parameters
    ----------
    base_path : path
        The folder in which the session's folder is made.
    classes : sequence of int
        The gestures in order.
    seconds_each : float
        How long each lasts, in s.
    n_channels : int
    fs : float
        Samples per second of ``emg``.
    start : float
        The time of the first sample, in s.
    seed : int
        The same seed gives the same samples.

    Returns
    -------
    pathlib.Path
        The session's folder.

    Examples
    --------
    >>> from labtree.testing.recordings import record_emg
    >>> record_emg("sessions").is_dir()
    True
    """
    from labtree import Recorder, StreamInfo

    signal = simulate_emg(
        classes, seconds_each=seconds_each, n_channels=n_channels, fs=fs, seed=seed
    )
    times = start + np.arange(len(signal)) / fs
    with Recorder(base_path, app_name="simulation", class_names=CLASS_NAMES) as recorder:
        recorder.init_stream(
            "emg", StreamInfo(n_channels=n_channels, fs=fs, dtype="int16", units="uV")
        )
        recorder.init_stream(
            "force",
            StreamInfo(
                n_channels=1, fs=50, dtype="float32", channel_names=("grip",), units="N"
            ),
        )
        for first in range(0, len(signal), 32):
            recorder.append("emg", signal[first : first + 32], times[first : first + 32])
        for position, index in enumerate(classes):
            recorder.add_label(index, timestamp=start + position * seconds_each)
        slow = np.arange(0, len(signal) / fs, 1 / 50)
        force = 10.0 * (np.repeat(classes, round(seconds_each * 50))[: len(slow)] > 0)
        recorder.append("force", force.astype(np.float32)[:, None], start + slow)
    path: Path = recorder.path
    return path
