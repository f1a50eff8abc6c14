"""The public names are there, and importing labtree stays light."""

import builtins
import errno
import importlib.util
import inspect
import subprocess
import sys

import pandas as pd
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
        if not inspect.ismodule(value):
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


def test_typed_functions_give_the_accessors():
    tree = labtree.create_workspace("pilot")
    frame = pd.DataFrame({"choice": [0, 1]})
    frame.ws.store("rec1", "trials", into=tree)
    labtree.ws(frame["choice"]).store("rec1", "choice", into=tree, note="a column")
    assert labtree.ws(tree)["rec1", "trials"].equals(frame)
    assert labtree.ws(tree)["rec1", "choice"].equals(frame["choice"])
    assert labtree.ws(frame.to_xarray()).kind == "dataset"
    assert labtree.session(labtree.create_session("rec1")).unit_count == 0
    assert "1 row, " in repr(frame.head(1).ws)
    assert "choice" in frame.ws._repr_html_()


def test_type_checkers_know_the_accessors(tmp_path):
    api = pytest.importorskip("mypy.api")
    script = tmp_path / "script.py"
    script.write_text(
        "import labtree\n"
        "tree = labtree.create_workspace()\n"
        "labtree.ws(tree).stoer('a')\n"
        "labtree.ws(tree.to_dataset()).plot()\n"
        "labtree.session(tree).windows('emg', 200)\n"
        "labtree.msw.load_sessions('x')\n"
    )
    found, _, _ = api.run(["--no-incremental", "--cache-dir", str(tmp_path), str(script)])
    assert '"TreeWorkspaceAccessor" has no attribute "stoer"' in found
    assert 'Missing positional argument "hop_ms" in call to "windows"' in found
    assert 'Module has no attribute "load_sessions"' in found
    assert len([line for line in found.splitlines() if " error: " in line]) == 3


def test_items_of_a_workspace_complete_in_brackets():
    tree = labtree.create_workspace()
    tree.ws.store("rec1", "rates", 1)
    tree.ws.store("rec2", "a/b", 2)
    assert tree.ws._ipython_key_completions_() == [("rec1", "rates"), ("rec2", "a/b")]
