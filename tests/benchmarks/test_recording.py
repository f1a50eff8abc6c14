"""Recorder and windows beside MyoGestic's way of doing the same, written from its description.

As tests these run small and say nothing of time. ``python tests/benchmarks/test_recording.py``
runs them in full and prints the table of docs/performance/recording.md.
"""

import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

import labtree
from labtree.recording.archive import pack

Row = tuple[str, float, float, str]


# --- the peer's way -------------------------------------------------------------------


def peer_arrays(folder: Path, n_channels: int, fs: int, dtype: str) -> tuple:
    """Two growing zarr arrays, a second to a chunk."""
    options = {"compressors": ZstdCodec(level=0, checksum=False), "fill_value": 0}
    data = zarr.create_array(
        str(folder / "emg.zarr"),
        shape=(0, n_channels),
        chunks=(fs, n_channels),
        dtype=dtype,
        **options,
    )
    times = zarr.create_array(
        str(folder / "emg_timestamps.zarr"), shape=(0,), chunks=(fs,), dtype="f8", **options
    )
    return data, times


def peer_labeled(folder: Path, window_ms: float, hop_ms: float, classes: set | None) -> list:
    """Read everything, then cut views; one argmin per label."""
    fs = json.loads((folder / "meta.json").read_text())["streams"]["emg"]["fs"]
    labels = json.loads((folder / "labels.json").read_text())
    data = np.array(zarr.open_array(str(folder / "emg.zarr"), mode="r"), np.float32)
    times = np.array(zarr.open_array(str(folder / "emg_timestamps.zarr"), mode="r"), np.float64)
    win, hop = int(window_ms * fs / 1000), max(1, int(hop_ms * fs / 1000))
    found = []
    for position, label in enumerate(labels):
        start = int(np.argmin(np.abs(times - label["timestamp"])))
        end = len(times)
        if position + 1 < len(labels):
            end = int(np.argmin(np.abs(times - labels[position + 1]["timestamp"])))
        index = label["class_index"]
        if index < 0 or (classes is not None and index not in classes):
            continue
        found += [
            (data[first : first + win].T, times[first : first + win], index)
            for first in range(start, end - win + 1, hop)
        ]
    return found


def peer_aligned(
    folder: Path, names: list[str], window_ms: float, hop_ms: float, n: int
) -> list:
    """One argmin per window and aligned stream."""
    fs = json.loads((folder / "meta.json").read_text())["streams"]["emg"]["fs"]

    def load(name: str) -> tuple:
        data = np.array(zarr.open_array(str(folder / f"{name}.zarr"), mode="r"), np.float32)
        path = str(folder / f"{name}_timestamps.zarr")
        return data, np.array(zarr.open_array(path, mode="r"), np.float64)

    data, times = load("emg")
    others = [load(name) for name in names]
    win, hop = int(window_ms * fs / 1000), max(1, int(hop_ms * fs / 1000))
    found = []
    for start in range(0, len(times) - win + 1, hop):
        middle = times[start + win // 2]
        means = []
        for other, other_times in others:
            at = int(np.argmin(np.abs(other_times - middle)))
            low, high = max(0, at - n // 2), min(len(other), at + n - n // 2)
            means.append(other[low:high].mean(axis=0))
        found.append((data[start : start + win].T, means))
    return found


# --- ours beside it -------------------------------------------------------------------


def packets(n_channels: int, rows: int, seconds: float, fs: int) -> tuple[list, np.ndarray]:
    rng = np.random.default_rng(0)
    data = [rng.standard_normal((rows, n_channels)).astype("f4") for _ in range(64)]
    return data, np.arange(int(seconds * fs)) / fs


def append_peer(base: Path, n_channels: int, fs: int, rows: int, seconds: float) -> np.ndarray:
    data, stamps = packets(n_channels, rows, seconds, fs)
    folder = Path(tempfile.mkdtemp(dir=base))
    array, times = peer_arrays(folder, n_channels, fs, "float32")
    took = []
    for number in range(len(stamps) // rows):
        start = time.perf_counter()
        array.append(data[number % 64])
        times.append(stamps[number * rows : (number + 1) * rows])
        took.append(time.perf_counter() - start)
    return np.array(took)


def append_ours(
    base: Path, n_channels: int, fs: int, rows: int, seconds: float, pace: float | None = None
) -> tuple[np.ndarray, float, Path]:
    """Return the time of each append, the time of close, and the folder."""
    data, stamps = packets(n_channels, rows, seconds, fs)
    recorder = labtree.Recorder(base)
    recorder.init_stream("emg", labtree.StreamInfo(n_channels=n_channels, fs=fs))
    took = np.empty(len(stamps) // rows)
    begin = time.perf_counter()
    for number in range(len(took)):
        if pace is not None:
            due = begin + number * rows / fs / pace
            time.sleep(max(0.0, due - time.perf_counter()))
        start = time.perf_counter()
        recorder.append("emg", data[number % 64], stamps[number * rows : (number + 1) * rows])
        took[number] = time.perf_counter() - start
    start = time.perf_counter()
    recorder.close()
    closing = time.perf_counter() - start
    array = labtree.open_session(recorder.path)["streams/emg/data"]
    assert array.shape == (len(took) * rows, n_channels)
    last = len(took) - 1
    np.testing.assert_array_equal(array[-rows:].values, data[last % 64])
    return took, closing, recorder.path


class RigRates(NamedTuple):
    """How many times as fast as real time a rig's samples go, and what they cost."""

    real_time: float  # close included
    plain: float  # one file written from one end to the other, and fsync
    share: float  # of the bytes of the samples
    slowest_ms: float  # of 999 in 1000 appends
    cpu_s: float  # of both cores, per second of samples


def rig_rates(
    base: Path, n_channels: int, fs: int, rows: int, seconds: float, pace: float | None = None
) -> RigRates:
    """Record the noise of an amplifier (int16, sd 12 counts), fresh in every packet."""
    rng = np.random.default_rng(0)
    pool = np.round(rng.normal(0, 12, (8 * rows + 4096, n_channels))).astype("i2")
    count = int(seconds * fs) // rows
    starts = rng.integers(0, len(pool) - rows, count)
    recorder = labtree.Recorder(base)
    about = labtree.StreamInfo(n_channels=n_channels, fs=fs, dtype="int16")
    recorder.init_stream("probe", about)
    took = np.empty(count)
    begin, cpu = time.perf_counter(), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", labtree.RecordingWarning)  # where append waits
        for number, first in enumerate(starts):
            if pace is not None:
                due = begin + number * rows / fs / pace
                time.sleep(max(0.0, due - time.perf_counter()))
            stamps = np.arange(number * rows, (number + 1) * rows) / fs
            start = time.perf_counter()
            recorder.append("probe", pool[first : first + rows], stamps)
            took[number] = time.perf_counter() - start
        recorder.close()
    whole, cpu = time.perf_counter() - begin, time.process_time() - cpu
    raw = count * rows * n_channels * 2
    size = sum(file.stat().st_size for file in recorder.path.rglob("*") if file.is_file())
    data = labtree.open_session(recorder.path)["streams/probe/data"]
    assert data.shape == (count * rows, n_channels)
    last = int(starts[-1])
    np.testing.assert_array_equal(data[-rows:].values, pool[last : last + rows])
    shutil.rmtree(recorder.path)
    start = time.perf_counter()
    with (base / "plain").open("wb", buffering=0) as file:
        for first in starts:
            file.write(pool[first : first + rows].data)
        os.fsync(file.fileno())
    plain = time.perf_counter() - start
    (base / "plain").unlink()
    slowest = float(np.quantile(took, 0.999)) * 1e3
    return RigRates(seconds / whole, seconds / plain, size / raw, slowest, cpu / seconds)


def make_session(base: Path, seconds: int, label_s: int, n_channels: int = 64) -> Path:
    """Noise that compresses like EMG does, ten classes in turn, two slow streams."""
    fs = 2048
    rng = np.random.default_rng(0)
    with labtree.Recorder(base) as recorder:
        recorder.init_stream("emg", labtree.StreamInfo(n_channels=n_channels, fs=fs))
        for name in ("kin", "force"):
            recorder.init_stream(name, labtree.StreamInfo(n_channels=5, fs=50))
        for second in range(seconds):
            noise = np.round(rng.standard_normal((fs, n_channels)) * 200) / 8
            recorder.append("emg", noise.astype("f4"), 100 + second + np.arange(fs) / fs)
            for name in ("kin", "force"):
                slow = rng.standard_normal((50, 5)).astype("f4")
                recorder.append(name, slow, 100 + second + np.arange(50) / 50)
        for number in range(seconds // label_s):
            recorder.add_label(number % 10, timestamp=100.0 + number * label_s)
    return recorder.path


def timed(work, repeats: int = 5) -> float:
    times = []
    for _ in range(repeats):
        gc.collect()
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def consume(windows) -> float:
    """Look at each window, as a model would."""
    return sum(float(batch.values[..., 0].sum()) for batch in labtree.batches(windows, 256))


def count_batches(windows, shuffle: int | None) -> int:
    return sum(len(batch) for batch in labtree.batches(windows, 64, shuffle=shuffle))


def ours_one_class(folder: Path) -> float:
    return consume(labtree.labeled_windows(folder, "emg", 200, 50, classes={3}))


def peer_one_class(folder: Path) -> float:
    return sum(float(w[:, 0].sum()) for w, _, _ in peer_labeled(folder, 200, 50, {3}))


def growth(kind: str, folder: Path) -> float:
    """Return the growth of the peak of memory, in MB, of one way in a fresh process."""
    command = [sys.executable, __file__, kind, str(folder)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(out)


def measure_growth(kind: str, folder: Path) -> None:
    work = {"ours": ours_one_class, "peer": peer_one_class}[kind]
    with tempfile.TemporaryDirectory() as small:
        work(make_session(Path(small), 12, 1, 4))  # every import and pool is paid for here
    before = peak_kilobytes()
    work(folder)
    print((peak_kilobytes() - before) / 1024)


def peak_kilobytes() -> int:
    """Return this process's own peak; getrusage would count its parent's, too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


# --- as tests -------------------------------------------------------------------------


def test_appends_keep_every_sample_in_both_ways(tmp_path):
    assert len(append_peer(tmp_path, 4, 64, 16, 1)) == 4
    took, _, path = append_ours(tmp_path, 4, 64, 16, 2.5)
    assert len(took) == 10
    assert path.is_dir()


def test_a_rig_s_rates_are_measured(tmp_path):
    rates = rig_rates(tmp_path, 16, 1000, 50, 3)
    assert 0.3 < rates.share < 0.7
    assert min(rates) > 0


def test_both_ways_cut_the_same_windows(tmp_path):
    folder = make_session(tmp_path, 20, 1, 4)
    ours = labtree.labeled_windows(folder, "emg", 200, 50, classes={3})
    peer = peer_labeled(folder, 200, 50, {3})
    assert len(ours) == len(peer) > 0
    for window, (data, times, index) in zip(ours, peer, strict=True):
        np.testing.assert_array_equal(window.values, data)
        assert (window.start_time, window.class_index) == (times[0], index)


def test_both_ways_align_the_same(tmp_path):
    folder = make_session(tmp_path, 5, 1, 4)
    ours = labtree.aligned_windows(folder, "emg", ["kin", "force"], 200, 50, 3)
    peer = peer_aligned(folder, ["kin", "force"], 200, 50, 3)
    assert ours.sizes["window"] == len(peer) > 0
    np.testing.assert_array_equal(ours["emg"].values, np.stack([w for w, _ in peer]))
    for position, name in enumerate(("kin", "force")):
        means = np.stack([m[position] for _, m in peer])
        np.testing.assert_allclose(ours[name].values, means, rtol=1e-5, atol=1e-6)


# --- in full --------------------------------------------------------------------------


def main() -> None:
    def show(work: str, base: float, own: float, unit: str, note: str = "") -> None:
        ratio = base / max(own, 1 if unit == "MB" else 1e-9)
        print(f"| {work} | {base:.4g} {unit} | {own:.4g} {unit} | {ratio:.3g} | {note} |")

    print("| work | peer's way | labtree | ratio | |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        peer = append_peer(base, 64, 2048, 32, 20)
        ours, closing, _ = append_ours(base, 64, 2048, 32, 300)
        note = f"p99.9 {np.quantile(ours, 0.999) * 1e3:.3g} ms, close {closing:.2g} s"
        show(
            "append 64 ch x 32, flat out, median",
            np.median(peer) * 1e6,
            np.median(ours) * 1e6,
            "us",
            note,
        )
        show("the same, mean", peer.mean() * 1e6, ours.mean() * 1e6, "us")
        share = len(ours) // 10
        first, last = np.median(ours[:share]) * 1e6, np.median(ours[-share:]) * 1e6
        print(f"flat: first tenth {first:.3g} us, last tenth {last:.3g} us")
        everything = (ours.sum() + closing) / len(ours)
        show("the same, with close", peer.mean() * 1e6, everything * 1e6, "us")
        paced, _, _ = append_ours(base, 64, 2048, 32, 40, pace=4)
        print(
            f"paced at 4 x real time: median {np.median(paced) * 1e6:.3g} us,"
            f" p99.9 {np.quantile(paced, 0.999) * 1e3:.3g} ms, worst {paced.max() * 1e3:.3g} ms"
        )
        big, closing, _ = append_ours(base, 384, 10240, 160, 30)
        print(
            f"384 ch at 10240 Hz x 160: {30 / big.sum():.3g} x real time appended,"
            f" {30 / (big.sum() + closing):.3g} x with close; peer"
            f" {2 / append_peer(base, 384, 10240, 160, 2).sum():.3g} x"
        )
        for channels, fs, rows, seconds in ((384, 30_000, 300, 30), (4096, 20_000, 200, 8)):
            rates = rig_rates(base, channels, fs, rows, seconds)
            print(
                f"{channels} ch at {fs} Hz, noise: {rates.real_time:.3g} x real time, closed,"
                f" plain write and fsync {rates.plain:.3g} x, {rates.share:.3g} of the bytes,"
                f" {rates.cpu_s:.3g} s of processor time a second"
            )
        rates = rig_rates(base, 384, 30_000, 300, 20, pace=1)
        print(f"384 ch paced: p99.9 {rates.slowest_ms:.3g} ms")
        with labtree.Recorder(base) as recorder:
            start = time.perf_counter()
            for number in range(100_000):
                recorder.add_label(number % 5, timestamp=number / 100)
            print(f"100,000 labels: {time.perf_counter() - start:.3g} s to add", end=", ")
            start = time.perf_counter()
            assert len(labtree.open_session(recorder.path).session.labels) == 100_000
            print(f"{time.perf_counter() - start:.3g} s to open live", end=", ")
            start = time.perf_counter()
        print(f"{time.perf_counter() - start:.3g} s to close")
    with tempfile.TemporaryDirectory() as name:
        folder = make_session(Path(name), 600, 10)
        one_peer, one_ours = (
            timed(lambda: peer_one_class(folder)),
            timed(lambda: ours_one_class(folder)),
        )
        show("labeled windows, one class of ten, s", one_peer, one_ours, "s")
        show("the same, peak memory", growth("peer", folder), growth("ours", folder), "MB")
        show(
            "the same, window by window",
            one_peer,
            timed(
                lambda: sum(
                    1 for _ in labtree.iter_labeled_windows(folder, "emg", 200, 50, {3})
                )
            ),
            "s",
        )
        show(
            "labeled windows, all classes",
            timed(lambda: len(peer_labeled(folder, 200, 50, None))),
            timed(lambda: consume(labtree.labeled_windows(folder, "emg", 200, 50))),
            "s",
            "the peer's are views, ours copies in batches",
        )
        every = labtree.labeled_windows(folder, "emg", 200, 50)
        in_order = timed(lambda: count_batches(every, None), 3)
        mixed = timed(lambda: count_batches(every, 1), 3)
        show("batches of 64, in order / mixed by a seed", in_order, mixed, "s")
        zarr_all = timed(lambda: zarr.open_array(str(folder / "emg.zarr"), mode="r")[:], 3)
        own_all = timed(lambda: labtree.open_session(folder)["streams/emg/data"].values, 3)
        show("every sample, zarr / labtree", zarr_all, own_all, "s")
        names = ["kin", "force"]
        peer = timed(lambda: peer_aligned(folder, names, 200, 50, 1), 3)
        aligned = labtree.aligned_windows
        show(
            "aligned windows, 2 streams, primary lazy",
            peer,
            timed(lambda: aligned(folder, "emg", names, 200, 50)),
            "s",
        )
        show(
            "the same, every sample read",
            peer,
            timed(lambda: consume(aligned(folder, "emg", names, 200, 50)["emg"]), 3),
            "s",
        )
        opened = timed(lambda: labtree.open_session(folder))
        print(f"open_session, folder of 1800 chunks: {opened * 1e3:.3g} ms")
        start = time.perf_counter()
        archive = pack(folder)
        print(f"pack and check: {time.perf_counter() - start:.3g} s")
        print(f"open_session, zip: {timed(lambda: labtree.open_session(archive)) * 1e3:.3g} ms")
        zipped = timed(lambda: ours_one_class(archive))
        show(
            "labeled windows, one class of ten, from a zip",
            one_peer,
            zipped,
            "s",
            "peer: folder",
        )


if __name__ == "__main__":
    if len(sys.argv) == 3:
        measure_growth(sys.argv[1], Path(sys.argv[2]))
    else:
        main()
