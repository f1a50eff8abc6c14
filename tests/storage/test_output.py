"""A disk that is full: OSError, the old file stays, nothing is left, the process goes on."""

import errno
import gc
import os
import resource
import signal
import subprocess
import sys
import textwrap

import h5py
import numpy as np
import pytest
import xarray as xr

import labtree
from labtree.errors import FileAccessError
from labtree.storage import open_tree, save_tree
from labtree.storage.netcdf_writer import _Output as Output
from labtree.storage.scratch import put_dataset
from labtree.storage.sources import ScratchSource


def _tree(items: int, values: int) -> xr.DataTree:
    dataset = xr.Dataset({"data": ("x", np.arange(float(values)))}, attrs={"text": "x" * 3000})
    return xr.DataTree.from_dict({f"/ns/i{i}": dataset for i in range(items)})


def _dask_tree() -> xr.DataTree:
    return xr.DataTree(xr.Dataset({"v": ("x", np.arange(1e5))}).chunk(x=1000))


@pytest.fixture
def limited():
    """Give a function that limits the size of files of this process."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("limit", [0, 1, 700, 5000, 20_000, 100_000, 300_000, 380_000])
@pytest.mark.parametrize("kind", ["one large", "many small", "both", "dask"])
def test_files_that_may_not_grow(tmp_path, limited, limit, kind):
    path = tmp_path / "t.h5"
    save_tree(_tree(1, 10), path)
    old = path.read_bytes()
    tree = {
        "one large": lambda: _tree(1, 100_000),
        "many small": lambda: _tree(120, 10),
        "both": lambda: _tree(60, 1000),
        "dask": _dask_tree,
    }[kind]()
    gc.collect()  # which closes what earlier tests left open
    open_files = h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE)
    limited(limit)
    with pytest.raises(OSError, match="File too large") as caught:
        save_tree(tree, path)
    limited(resource.RLIM_INFINITY)
    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename == str(path)
    assert not isinstance(caught.value, PermissionError)  # the disk is full, or may be
    assert [entry.name for entry in tmp_path.iterdir()] == ["t.h5"]
    assert path.read_bytes() == old
    assert h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE) == open_files
    save_tree(tree, path)
    opened = open_tree(path)
    opened.close()


@pytest.mark.parametrize("limit", [0, 3000, 100_000, 300_000])
def test_a_file_of_another_format_that_may_not_grow(tmp_path, limited, limit):
    """HDF5 fails in its own ways, some of them when the file is closed."""
    tree = labtree.create_workspace("study")
    tree.ws.store("rec", "rates", np.random.default_rng(1).normal(size=50_000))
    path = tmp_path / "peer.h5"
    limited(limit)
    with pytest.raises(FileAccessError, match=f"{path} could not be written: File too large"):
        labtree.export_spikelab(tree, path)
    limited(resource.RLIM_INFINITY)
    assert list(tmp_path.iterdir()) == []
    labtree.export_spikelab(tree, path)
    assert labtree.import_spikelab(path).ws["rec", "rates"].size == 50_000


@pytest.fixture
def small_disk(tmp_path):
    """Give the folder of a file system of 400 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        done = None
    if done is None or done.returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("filled", [0, 300_000, 398_000])
def test_a_disk_that_fills_up_in_a_process_that_ends_well(small_disk, filled):
    program = textwrap.dedent(
        """
        import os, sys
        import numpy as np, xarray as xr
        from pathlib import Path
        from labtree.storage import open_tree, save_tree
        folder, filled = Path(sys.argv[1]), int(sys.argv[2])
        small = {"data": ("x", np.arange(10.0))}
        save_tree(xr.DataTree(xr.Dataset(small)), folder / "t.h5")
        old = (folder / "t.h5").read_bytes()
        (folder / "other").write_bytes(bytes(max(0, filled - 40_000)))
        for items, values in ((1, 100_000), (300, 10), (60, 1000)):
            array = np.arange(float(values))
            dataset = xr.Dataset({"d": ("x", array)}, attrs={"t": "x" * 3000})
            tree = xr.DataTree.from_dict({f"/ns/i{i}": dataset for i in range(items)})
            try:
                save_tree(tree, folder / "t.h5")
                print("saved")
            except OSError as error:
                print(error.errno, sorted(os.listdir(folder)))
            assert (folder / "t.h5").read_bytes() == old
        open_tree(folder / "t.h5")
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(small_disk), str(filled)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=60,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    assert done.stdout.splitlines() == [f"{errno.ENOSPC} ['other', 't.h5']"] * 3


def test_a_scratch_file_that_cannot_grow(tmp_path, limited):
    scratch = ScratchSource(str(tmp_path))
    kept = put_dataset(xr.Dataset({"v": ("x", np.arange(100.0))}), scratch, "a")
    size = scratch.size
    limited(10_000)
    for dataset in (
        xr.Dataset({"v": ("x", np.arange(10_000.0))}),
        xr.Dataset({"a": ("x", np.arange(900.0)), "v": ("x", np.arange(900.0))}),
        xr.Dataset({"v": ("x", np.arange(10_000.0))}).chunk(x=100),
    ):
        with pytest.raises(OSError, match="File too large"):
            put_dataset(dataset, scratch, "b")
        assert scratch.size == size
    limited(resource.RLIM_INFINITY)
    assert kept["v"].values.tolist() == list(range(100))
    scratch.close()


def test_what_hdf5_wrote_in_vain_is_told_when_the_file_is_closed(tmp_path, limited):
    (tmp_path / "f").touch()
    output = Output(tmp_path / "f")
    output.seek(0)
    assert output.write(b"abc") == 3
    limited(4)
    output.seek(3)
    assert output.write(memoryview(b"defg")) == 4  # HDF5 is told that all is well
    assert output.tell() == 7
    assert output.write(b"more") == 4
    assert output.truncate(100) == 100
    with pytest.raises(OSError, match="File too large"):
        output.check()
    with pytest.raises(OSError, match="File too large"):
        output.write_at(0, np.zeros(1))
    with pytest.raises(OSError, match="File too large"):
        output.close()
    limited(resource.RLIM_INFINITY)  # before the test's own report is written to a file


def test_a_file_that_was_given_up_takes_nothing_more(tmp_path):
    (tmp_path / "f").touch()
    output = Output(tmp_path / "f")
    output.keep(OSError("the file was abandoned after an error"))
    output.seek(0)
    output.write(b"abc")
    assert (tmp_path / "f").read_bytes() == b""
    with pytest.raises(OSError, match="the file was abandoned after an error"):
        output.close()


def test_an_interrupt_inside_hdf5_arrives_afterwards(tmp_path, monkeypatch):
    written = []

    def interrupted(file, lock, view, offset):
        written.append(offset)
        raise KeyboardInterrupt

    monkeypatch.setattr("labtree.storage.netcdf_writer.write_all", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_tree(xr.DataTree(xr.Dataset(attrs={"a": 1})), tmp_path / "t.h5")
    assert written == [written[0]]
    assert not list(tmp_path.iterdir())


def _lines_of_output(call, at_line):
    """Run `call`; `at_line` is called before each line of the methods that HDF5 calls."""
    codes = {each.__code__ for each in vars(Output).values() if hasattr(each, "__code__")}

    def trace(frame, event, _):
        if frame.f_code not in codes:
            return None
        if event == "line":
            at_line()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)


@pytest.mark.parametrize("count", [1, 2])
def test_an_interrupt_while_hdf5_writes_is_one_when_it_has_returned(tmp_path, count):
    """No exception may pass through the C code of HDF5, which could not close the file."""
    tree, path = _tree(8, 20), tmp_path / "t.h5"
    lines = []
    _lines_of_output(lambda: save_tree(tree, path), lambda: lines.append(None))
    old = path.read_bytes()
    gc.collect()  # which closes what earlier tests left open
    open_files = h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE)
    for at in range(0, len(lines), len(lines) // 40 or 1):
        left = at

        def interrupt():
            nonlocal left
            left -= 1
            if -count <= left < 0:
                signal.raise_signal(signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            _lines_of_output(lambda: save_tree(tree, path), interrupt)
        assert path.read_bytes() == old
        assert [entry.name for entry in tmp_path.iterdir()] == ["t.h5"]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    gc.collect()
    assert h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE) == open_files
    # One that HDF5 holds until the process ends would crash it then.
    assert not [each for each in gc.get_objects() if isinstance(each, Output)]
    save_tree(tree, path)
