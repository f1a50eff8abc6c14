"""Sessions as MyoGestic lays them out, written with zarr itself and with json."""

import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.codecs import ZstdCodec


@dataclass
class PeerSession:
    """Collects streams and labels, then writes a session folder or archive."""

    folder: Path
    meta: dict = field(
        default_factory=lambda: {"app_name": "peer", "created": "2026-01-02T03:04:05"}
    )
    labels: list = field(default_factory=list)

    def __post_init__(self):
        self.folder.mkdir(parents=True)
        self.meta["streams"] = {}

    def stream(self, name, data, times, fs, **about):
        data, times = np.asarray(data), np.asarray(times, float)
        rows = max(1, int(fs))
        options = {"compressors": ZstdCodec(level=0, checksum=False), "fill_value": 0}
        for path, values, chunks in (
            (f"{name}.zarr", data, (rows, data.shape[1])),
            (f"{name}_timestamps.zarr", times, (rows,)),
        ):
            array = zarr.create_array(
                str(self.folder / path),
                shape=(0, *values.shape[1:]),
                chunks=chunks,
                dtype=values.dtype,
                **options,
            )
            array.append(values)
        self.meta["streams"][name] = {
            "n_channels": data.shape[1],
            "fs": float(fs),
            "dtype": data.dtype.name,
            **about,
        }
        return self

    def label(self, timestamp, class_index):
        self.labels.append({"timestamp": timestamp, "class_index": class_index})
        return self

    def write(self, **meta):
        (self.folder / "meta.json").write_text(json.dumps({**self.meta, **meta}))
        (self.folder / "labels.json").write_text(json.dumps(self.labels))
        return self.folder

    def zip(self, **meta):
        self.write(**meta)
        path = self.folder.with_name(f"{self.folder.name}.session.zip")
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for file in self.folder.rglob("*"):
                if file.is_file():
                    archive.write(file, file.relative_to(self.folder).as_posix())
        return path


@pytest.fixture
def peer(tmp_path):
    made = []

    def make():
        made.append(None)
        return PeerSession(tmp_path / f"2026-01-02_03-04-{len(made):02d}_0123abcd")

    return make
