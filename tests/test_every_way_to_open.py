"""Each way to open a file against each kind of damage: right data, or an error that names it.

Every twelfth of them on every run, in turn; LABTREE_THOROUGH=1 tries all, on every file of a
folder.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

import labtree
from labtree import recording
from labtree.storage.json_files import read_json, write_json
from support.campaigns import Case, attempts, command, content
from support.examples import THOROUGH
from support.kinds_of_files import write_all

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
NOBODY = 65534


def closed(tree) -> dict:
    with tree:
        return content(tree)


def of_engine(path: Path) -> dict:
    with xr.open_dataset(path, engine="labtree") as dataset:
        return content(xr.DataTree(dataset))


def first_item(path: Path) -> dict:
    return {"item": np.asarray(labtree.load_item(path, "rec1", "rates"))}


def recovered(path: Path) -> dict:
    labtree.recover(path)
    return {}


GENERAL = {
    "open": lambda path: closed(labtree.open(path)),
    "engine": lambda path: closed(xr.open_datatree(path, engine="labtree")),
    "open_dataset": of_engine,
    "labtree ls": lambda path: command("ls", path),
    "labtree info": lambda path: command("info", path),
    "labtree verify": lambda path: command("verify", path),
    "labtree convert": lambda path: command("convert", path, path.with_name("converted.zarr")),
}
SPECIAL = {
    "open_session": lambda path: closed(labtree.open_session(path)),
    "load_session": lambda path: closed(labtree.load_session(path)),
    "open_workspace": lambda path: closed(labtree.open_workspace(path)),
    "open_workspace a": lambda path: closed(labtree.open_workspace(path, mode="a")),
    "load_workspace": lambda path: closed(labtree.load_workspace(path)),
    "load_item": first_item,
    "open_recording": lambda path: closed(recording.open_recording(path)),
    "recover": recovered,
    "msw.load_session": lambda path: closed(labtree.msw.load_session(path).to_tree()),
    "import_spikelab": lambda path: closed(labtree.import_spikelab(path)),
    "import_nwb": lambda path: closed(labtree.import_nwb(path)),
    "import_phy": lambda path: closed(labtree.import_phy(path)),
    "import_xdf": lambda path: closed(labtree.import_xdf(path)),
    "labtree merge": lambda path: command("merge", path.with_name("merged.h5"), path),
    "labtree recover": lambda path: command("recover", path),
    "labtree compact": lambda path: command("compact", path),
}


@pytest.fixture(scope="module")
def originals():
    """A file or folder of each format, where everybody may look."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    (folder / "formats").mkdir()
    yield write_all(folder / "formats")
    shutil.rmtree(folder)


def flipped(place: float) -> Callable[[bytes], bytes]:
    def flip(data: bytes) -> bytes:
        out = bytearray(data)
        out[int(place * len(data)) if place < 1 else int(place) - 1] ^= 0x10
        return bytes(out)

    return flip


CONTENT = {
    "empty": lambda data: b"",
    "cut in the middle": lambda data: data[: len(data) // 2],
    "cut by a byte": lambda data: data[:-1],
    "zeros": lambda data: bytes(len(data)),
    "text": lambda data: b"These are notes, and no data.\n",
    "first byte": flipped(1),
    "tenth byte": flipped(10),
    "a byte at a quarter": flipped(0.25),
    "a byte in the middle": flipped(0.5),
    "a byte at three quarters": flipped(0.75),
    "a byte near the end": flipped(0.98),
}


def removed(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def fifo(path: Path) -> None:
    removed(path)
    os.mkfifo(path)


def folder(path: Path) -> None:
    removed(path)
    path.mkdir()


def text(path: Path) -> None:
    removed(path)
    path.write_text("These are notes, and no data.\n")


def dangling(path: Path) -> None:
    removed(path)
    path.symlink_to("no-disk/nothing-there")


def device(path: Path) -> None:
    removed(path)
    path.symlink_to("/dev/zero")


INSTEAD = {
    "a FIFO": fifo,
    "an empty folder": folder,
    "a text": text,
    "a dangling link": dangling,
    "an endless device": device,
}


def newer(path: Path) -> None:
    """State a version of the format that nobody knows yet."""
    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            for name in ("labtree_file_format", "labtree_format"):
                if name in file.attrs:
                    file.attrs[name] = 99
    elif (path / "zarr.json").exists() and not (path / "meta.json").exists():
        root = read_json(path / "zarr.json")
        root["attributes"]["labtree_file_format"] = 99
        write_json(path / "zarr.json", root)
    else:
        meta = read_json(path / "meta.json")
        meta["labtree"]["version"] = 99
        write_json(path / "meta.json", meta)


def cases_of(path: Path) -> list[Case]:
    if path.is_file():
        parts = [Path()]
    else:
        files = sorted(each.relative_to(path) for each in path.rglob("*") if each.is_file())
        by_kind = {each.suffix or "a chunk": each for each in files}
        parts = sorted({*by_kind.values(), *files} if THOROUGH else by_kind.values())
    found = []
    for part in parts:
        if (path / part).stat().st_size == 0:
            continue
        for name, change in CONTENT.items():

            def damage(copy, part=part, change=change):
                (copy / part).write_bytes(change((copy / part).read_bytes()))

            found.append(Case(f"{part}: {name}", damage))
    for part in {Path(), *parts}:
        for name, put in INSTEAD.items():
            found.append(Case(f"{part}: {name}", lambda copy, p=part, put=put: put(copy / p)))
    return found


FORMATS = (
    "workspace", "workspace in zarr", "recording", "recording in a zip", "msw", "pipeline",
    "mcs", "spikelab", "tree", "phy",
)  # fmt: skip


def attempted(cases: list[Case], path: Path, folder: Path, format: str, **options):
    ways = GENERAL | SPECIAL
    has_sums = format.startswith("workspace")
    return attempts(cases, ways, path, folder, has_sums=has_sums, seconds=20, **options)


@pytest.mark.parametrize("format", FORMATS)
def test_each_damage_on_each_way(originals, tmp_path, format):
    path = originals[format]
    cases = cases_of(path)
    if format in ("workspace", "workspace in zarr", "pipeline", "recording"):
        cases.append(Case("a newer version", newer))
    counts = attempted(cases, path, tmp_path, format, every=1 if THOROUGH else 12)
    print(counts)  # with -rP the counts are shown
    assert counts.faults == []
    assert counts.outcomes["refused"] > len(cases) // 4


@pytest.mark.parametrize("format", ["workspace", "workspace in zarr", "pipeline", "recording"])
def test_a_newer_version_is_named(originals, tmp_path, format):
    path = tmp_path / originals[format].name
    copy = shutil.copytree if originals[format].is_dir() else shutil.copyfile
    copy(originals[format], path)
    newer(path)
    with pytest.raises(labtree.FormatError, match=r"version 99.*[Uu]pdate labtree"):
        labtree.open(path)
