"""The public names are there, and importing labtree stays light."""

import builtins
import errno
import importlib.util
import inspect
import subprocess
import sys

import pytest

import labtree

CONTRACT = [
    "active_workspace",
    "aligned_windows",
    "batches",
    "CheckpointError",
    "ConfigurationError",
    "create_session",
    "create_workspace",
    "delete_shared",
    "drop_log",
    "export_nwb",
    "export_spikelab",
    "FormatError",
    "from_mne_raw",
    "from_neo",
    "from_pynapple",
    "from_spikelab",
    "get_workspace_manager",
    "import_spikelab",
    "import_xdf",
    "iter_aligned_windows",
    "iter_labeled_windows",
    "iter_target_windows",
    "labeled_windows",
    "LabelEvent",
    "LabtreeError",
    "load_item",
    "load_session",
    "load_workspace",
    "mea",
    "msw",
    "open",
    "open_session",
    "open_shared",
    "open_workspace",
    "pairwise_matrix",
    "pairwise_stack",
    "rate_data",
    "rate_slice_stack",
    "Recorder",
    "recording",
    "recover",
    "register_kind",
    "SaveState",
    "SessionError",
    "spike_data",
    "spike_slice_stack",
    "spikes",
    "split_sessions_by_stream",
    "step",
    "store_shared",
    "StreamInfo",
    "target_windows",
    "testing",
    "to_mne_epochs",
    "to_mne_raw",
    "to_neo",
    "to_pynapple",
    "torch_dataset",
    "use_workspace",
    "WorkspaceError",
    "WorkspaceManager",
]
PACKAGES = [labtree, labtree.recording, labtree.spikes, labtree.mea, labtree.msw]


def test_every_name_of_the_contract_is_there():
    assert [name for name in CONTRACT if name not in dir(labtree)] == []


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_a_package_shows_its_public_names_and_they_are_there(package):
    names = dir(package)
    assert set(package.__all__) == set(names) - {"open"}
    for name in names:
        value = getattr(package, name)
        assert value is not None
        # Importing a module of that name would put the module in the name's place.
        if not inspect.ismodule(value) and package is not labtree.spikes:
            assert importlib.util.find_spec(f"{package.__name__}.{name}") is None
        if inspect.ismodule(value):
            assert value.__name__ == f"labtree.{name}"
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__name__ == name


def test_two_public_names_are_not_one_word_for_two_things():
    found = {}
    for package in PACKAGES:
        for name in dir(package):
            found.setdefault(name, set()).add(getattr(package, name))
    # Murine Shift Work sessions are another thing than a pipeline's.
    assert {name for name, values in found.items() if len(values) > 1} <= {"load_session"}


def test_a_star_import_does_not_hide_open():
    namespace = {}
    exec("from labtree import *", namespace)
    assert namespace.get("open", builtins.open) is builtins.open


def test_an_unknown_name_is_an_attribute_error():
    assert not hasattr(labtree, "no_such_name")


def test_every_error_is_a_labtree_error_and_a_builtin_one():
    errors = [value for value in vars(labtree.errors).values() if isinstance(value, type)]
    own = [error for error in errors if issubclass(error, labtree.LabtreeError)]
    assert len(own) > 8
    for error in own:
        assert not hasattr(labtree, error.__name__) or getattr(labtree, error.__name__) is error
        if error is not labtree.LabtreeError:
            others = [base for base in error.__mro__ if base.__module__ == "builtins"]
            assert len(others) > 3, error  # more than Exception, BaseException, object


def test_an_unknown_name_lists_the_names_and_the_nearest():
    text = str(
        labtree.errors.unknown_name("unit", "u12", (f"u{i}" for i in range(11, 40) if i != 12))
    )
    assert text.startswith("no unit 'u12'; there are: 'u11', 'u13', 'u14'")
    assert text.endswith("'u31', .... Did you mean 'u32'?")
    assert str(labtree.errors.unknown_name("unit", 3, [])) == "no unit 3; there are none"
    with pytest.raises(KeyError, match=r"no key 'x'; there are: 'abc'$"):
        raise labtree.errors.unknown_name("key", "x", ["abc"])
    error = labtree.errors.unknown_name("step", "x", [], labtree.SessionError)
    assert type(error) is labtree.SessionError


def test_an_error_of_the_system_keeps_its_number():
    reason = OSError(errno.ENOSPC, "No space left on device", "a.h5")
    error = labtree.RecordingWriteError.of(reason, "a.h5: 3 samples could not be written")
    assert isinstance(error, labtree.SessionError)
    assert isinstance(error, OSError)
    assert error.errno == errno.ENOSPC
    assert str(error) == "a.h5: 3 samples could not be written: No space left on device"


def test_python_m_labtree_is_the_command_line():
    run = subprocess.run(
        [sys.executable, "-m", "labtree", "--version"], capture_output=True, text=True
    )
    assert (run.returncode, run.stdout) == (0, f"labtree {labtree.__version__}\n")


def test_importing_labtree_imports_nothing_heavy():
    code = (
        "import xarray, pandas, sys; before = set(sys.modules); import labtree;"
        "print(*sorted({m.split('.')[0] for m in set(sys.modules) - before}))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    heavy = {"zarr", "h5py", "h5netcdf", "pydantic", "scipy", "numba", "matplotlib", "dask"}
    assert heavy.isdisjoint(run.stdout.split())
    assert "labtree" in run.stdout.split()
