"""How long one gigabyte takes: ``python tests/benchmarks/one_gigabyte.py [FOLDER]``.

Saved, opened and read as a workspace, and recorded as EMG; beside one plain file of as many
bytes, written and synced. Prints the table of the documentation's page on performance.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import labtree

N_ITEMS, SAMPLES = 1000, 125_000  # float64: 1 MB each


def seconds(call):
    """Return how long a call takes, and what it returns."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def traces():
    """Return 1 GB of slow oscillations with noise, as an amplifier gives: whole counts."""
    random = np.random.default_rng(0)
    time_s = np.arange(SAMPLES) / 30_000
    wave = 200 * np.sin(2 * np.pi * 8 * time_s)
    return [np.round(wave + random.normal(0, 12, SAMPLES)) for _ in range(N_ITEMS)]


def plain_file(folder, arrays):
    """Write the bytes in one go."""
    with (folder / "plain").open("wb") as file:
        for array in arrays:
            file.write(array.data)
        file.flush()
        os.fsync(file.fileno())


def workspace(folder, arrays):
    """Yield a row for each thing that one does with a workspace of 1 GB."""
    tree = labtree.create_workspace("large")
    for number, array in enumerate(arrays):
        tree.ws.store("rec1", f"trace{number}", array)
    duration, path = seconds(lambda: tree.ws.save(folder / "large"))
    yield "save 1 GB, 1,000 arrays of 1 MB", duration, path.stat().st_size
    duration, opened = seconds(lambda: labtree.open_workspace(path))
    yield "open it", duration, None
    yield (
        "read 0.1 s of one array",
        seconds(lambda: opened["rec1/trace7"].data[:3000].values)[0],
        None,
    )
    yield "read one array", seconds(lambda: opened.ws["rec1", "trace7"])[0], None
    opened.ws.store("rec1", "result", np.zeros(10_000))
    yield "store and save one result of 80 kB", seconds(opened.ws.save)[0], None
    opened.ws.close()
    duration, loaded = seconds(lambda: labtree.load_workspace(path))
    yield "load all of it", duration, None
    duration, path = seconds(lambda: loaded.ws.save(folder / "small", compression="gzip"))
    yield "save it with gzip", duration, path.stat().st_size
    yield "load that", seconds(lambda: labtree.load_workspace(path))[0], None


def recording(folder, arrays):
    """Yield a row for recording 0.25 GB as int16, and for what one does with it."""
    samples = np.stack([array.astype("int16") for array in arrays]).reshape(64, -1).T.copy()
    times = np.arange(len(samples)) / 2000

    def record():
        with labtree.Recorder(folder, class_names=["rest", "fist"]) as recorder:
            info = labtree.StreamInfo(n_channels=64, fs=2000, dtype="int16", units="uV")
            recorder.init_stream("emg", info)
            for first in range(0, len(samples), 200):
                part = slice(first, first + 200)
                recorder.append("emg", samples[part], times[part])
            for second in range(int(times[-1])):
                recorder.add_label(second % 2, timestamp=float(second))
        return recorder.path

    duration, path = seconds(record)
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    minutes = len(samples) / 2000 / 60
    yield f"record {minutes:.0f} min of 64 channels at 2 kHz, 0.25 GB", duration, size
    yield "open it", seconds(lambda: labtree.open_session(path))[0], None
    windows = labtree.labeled_windows(path, "emg", 200, 50)

    def go_through():
        return sum(1 for _ in labtree.batches(windows, 256))

    yield (
        f"go through all {windows.sizes['window']:,} windows of 200 ms",
        seconds(go_through)[0],
        None,
    )


def main(base=None):
    """Print the table."""
    arrays = traces()
    with tempfile.TemporaryDirectory(dir=base) as name:
        folder = Path(name)
        rows = [
            (
                "write a plain file of 1 GB",
                seconds(lambda: plain_file(folder, arrays))[0],
                10**9,
            )
        ]
        (folder / "plain").unlink()
        for part in (workspace, recording):
            rows += part(folder, arrays)
    print("| work | time | size |\n|---|---|---|")
    for what, duration, size in rows:
        time_text = f"{duration:.1f} s" if duration >= 1 else f"{duration * 1000:.3g} ms"
        print(f"| {what} | {time_text} | {f'{size / 1e9:.2f} GB' if size else ''} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
