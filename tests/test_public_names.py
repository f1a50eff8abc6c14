"""The public names are there, and importing labtree stays light."""

import builtins
import errno
import importlib.util
import inspect
import re
import subprocess
import sys

import pandas as pd
import pytest
import xarray as xr

import labtree

# The names that the design promises, and their parameters where it names them. Functions may
# take more than these, if it can be left out.
CONTRACT = """
create_workspace(name=None, *, lazy=False)
open_workspace(path, mode="r")
load_workspace(path)
load_item(path, namespace, key)
use_workspace(tree)
active_workspace()
store(namespace, key, obj, note=None)
get_workspace_manager()
WorkspaceManager.create_workspace(name=None, lazy=False)
WorkspaceManager.get_workspace(workspace_id)
WorkspaceManager.delete_workspace(workspace_id)
WorkspaceManager.list_workspaces()
WorkspaceManager.save_workspace(workspace_id, path)
WorkspaceManager.load_workspace(path)
WorkspaceManager.load_workspace_item(path, namespace, key, workspace_id)
spike_data
rate_data
rate_slice_stack
spike_slice_stack
pairwise_matrix
pairwise_stack
register_kind(
    name, *, cls=None, to_dataset=None, from_dataset=None, validate=None, summary=None,
    plot=None
)
testing.record_emg
testing.write_recording
testing.make_trials
testing.write_session
testing.write_log
testing.ERAS
import_spikelab
export_spikelab
from_spikelab
import_nwb
export_nwb
import_phy(folder)
from_spikeinterface(sorting)
from_neo
to_neo
from_pynapple
to_pynapple
import_xdf
to_mne_raw
to_mne_epochs
from_mne_raw
from_mne_epochs
Recorder(base_path="sessions", *, app_name=..., class_names=None, on_backward="keep")
Recorder.init_stream(name, info)
Recorder.append(name, data, timestamps)
Recorder.add_label(class_index, timestamp=None)
Recorder.save_meta(app_name, class_names)
Recorder.pack_to_zip()
Recorder.discard()
Recorder.close()
recover(folder)
drop_log(windows)
recording.open_recording
StreamInfo
LabelEvent
open_session(path)
iter_labeled_windows(paths, stream_name, window_ms, hop_ms, classes=None)
labeled_windows(paths, stream_name, window_ms, hop_ms, classes=None)
iter_aligned_windows(
    paths, primary_stream_name, aligned_stream_names, window_ms, hop_ms, n_alignment_samples=1
)
aligned_windows(
    paths, primary_stream_name, aligned_stream_names, window_ms, hop_ms, n_alignment_samples=1
)
target_windows(paths, stream_name, target_stream_name, window_ms, hop_ms, phases=None)
iter_target_windows(paths, stream_name, target_stream_name, window_ms, hop_ms, phases=None)
split_sessions_by_stream
batches(windows, size, *, shuffle=None, drop_last=False)
torch_dataset(windows)
dejitter(stream)
clocks.match_pulses
clocks.fit
clocks.convert
create_session(dataset_id=None, *, cmcr_path=None, cmtr_path=None, output_dir="artifacts")
load_session(path)
step(*, requires=())
store_shared(where, namespace, key, obj, note=None)
open_shared(where)
delete_shared(where, namespace, key)
SaveState
LabtreeError
FormatError
SessionError
CheckpointError
ConfigurationError
WorkspaceError
mea.load_recording
mea.load_recording_with_eimage_sta
mea.add_section_time
mea.section_spike_times
mea.compute_sta
mea.extract_features
mea.register_feature
mea.run_batch(source, steps, output_dir)
msw.parse_session_basename
msw.generate_session_paths
msw.load_session
msw.load_acquisition
msw.load_subject
msw.load_trial_data
msw.save_trial_data
msw.TrialWriter
msw.validate_session
msw.trials_to_frame
msw.MswSession
open(path)
ws(obj)
session(tree)
spikes.from_times(
    times_ms, units, *, unit_ids=None, length_ms=None, start_ms=0.0, neuron_attributes=None
)
spikes.spike_trains(ds)
spikes.unit_train(ds, unit)
spikes.select_units(ds, units)
spikes.select_time(ds, start_ms, stop_ms)
spikes.select_slices
spikes.concatenate_time
spikes.concatenate_units
spikes.slices_of
spikes.unit_attributes
spikes.matrix_values
spikes.spike_counts(ds)
spikes.firing_rates(ds)
spikes.isi_statistics(ds, refractory_ms=1.5)
spikes.binned_counts(ds, bin_ms, *, start_ms=None, stop_ms=None, sparse=False)
spikes.smoothed_rates(ds, step_ms, sigma_ms)
spikes.sttc(ds, delta_ms=20.0)
spikes.correlograms(ds, bin_ms=1.0, window_ms=50.0)
spikes.peri_event(ds, events_ms, pre_ms, post_ms)
spikes.peri_event_counts(ds, events_ms, pre_ms, post_ms, bin_ms)
spikes.psth(ds, events_ms, pre_ms, post_ms, bin_ms)
spikes.latencies(ds, events_ms, within_ms)
spikes.population_rate(ds, bin_ms, sigma_ms=None)
spikes.bursts(ds, max_isi_ms=100.0, min_spikes=3)
spikes.surrogates(ds, method, *, seed, window_ms=None)
spikes.curate(
    ds, *, min_spikes=None, min_rate_hz=None, max_violations=None, refractory_ms=1.5, where=None
)
tree.ws.workspace_id
tree.ws.name
tree.ws.created_at
tree.ws.path
tree.ws.is_lazy
tree.ws.is_saved
tree.ws.changes
tree.ws.store(namespace, key, obj, note=None)
tree.ws.get(namespace, key)
tree.ws.get_info(namespace, key)
tree.ws.describe()
tree.ws.list_keys(namespace=None)
tree.ws.list_namespaces()
tree.ws.find(pattern="*/*", kind=None)
tree.ws.rename(namespace, old_key, new_key, overwrite=False)
tree.ws.add_note(namespace, key, note)
tree.ws.delete(namespace, key=None)
tree.ws.merge_from(other, overwrite=False)
tree.ws.save(path=None, *, overwrite=False, compression=None)
tree.ws.compact()
tree.ws.close()
tree.ws.comparison_namespace(*namespaces)
ds.ws.store(namespace, key, *, into=None, note=None)
ds.ws.kind
ds.ws.summary()
ds.ws.validate()
ds.ws.plot()
df.ws.store(namespace, key, *, into=None, note=None)
tree.session.streams
tree.session.labels
tree.session.class_names
tree.session.stream_info(name)
tree.session.continuous(name)
tree.session.trials(name, pre_s=0, post_s=0)
tree.session.windows(name, window_ms, hop_ms, classes=None)
tree.session.aligned_windows
tree.session.peri_event(name, times, pre_s, post_s)
tree.session.completed_steps
tree.session.warnings
tree.session.source_files
tree.session.save_state
tree.session.is_saved
tree.session.is_deferred
tree.session.unit_count
tree.session.memory_estimate_gb
tree.session.hdf5_path
tree.session.add_units
tree.session.add_metadata
tree.session.add_stimulus
tree.session.add_feature
tree.session.mark_step_complete(name)
tree.session.save(output_path=None, overwrite=True)
tree.session.checkpoint(path, overwrite=True)
tree.session.add_warning(text)
tree.session.close()
ds.session.windows
ds.session.trials
ds.session.peri_event
df.msw.task
df.msw.barcodes
df.msw.states()
df.msw.events()
df.msw.state_time(name, edge="start", clock="trial")
df.msw.visited(name)
df.msw.latency(a, b)
df.msw.reaction_time()
df.msw.blocks()
df.msw.win_stay_lose_shift()
df.msw.rolling(field, n)
df.msw.summary()
df.msw.align
df.msw.to_xarray()
df.msw.plot()
"""
PROMISED = dict(
    re.fullmatch(r"([\w.]+)\s*(\(.*\))?", call, re.DOTALL).groups()
    for call in re.split(r"\n(?=\w)", CONTRACT.strip())
)
ACCESSORS = {"tree": xr.DataTree, "ds": xr.Dataset, "df": pd.DataFrame}
PACKAGES = [labtree, labtree.recording, labtree.spikes, labtree.mea, labtree.msw]


def public_value(name):
    """Return what a name of the contract stands for; an attribute of an accessor unbound."""
    first, *rest = name.split(".")
    if first in ACCESSORS:
        value = getattr(ACCESSORS[first], rest.pop(0))
    else:
        assert first in dir(labtree)
        value = getattr(labtree, first)
    for part in rest:
        assert part in dir(value)
        value = getattr(value, part)
    return value


def promise_broken(signature, promised):
    """Return in words how parameters differ from those that are promised; "" if they do not."""
    found = {name: each for name, each in signature.parameters.items() if name != "self"}
    if missing := [name for name in promised.parameters if name not in found]:
        return f"no parameter {missing[0]}"
    if [name for name in found if name in promised.parameters] != list(promised.parameters):
        return "another order"
    for name, each in found.items():
        wanted = promised.parameters.get(name)
        if wanted is None:
            if each.default is each.empty and each.kind not in (
                each.VAR_POSITIONAL,
                each.VAR_KEYWORD,
            ):
                return f"{name} must be given"
        elif wanted.kind != each.kind:
            return f"{name} is {each.kind.description}"
        elif wanted.default not in (..., wanted.empty, each.default):
            return f"{name} is {each.default!r} by default"
    return ""


@pytest.mark.parametrize("name", PROMISED)
def test_every_name_of_the_contract_is_there_and_takes_what_it_promises(name):
    value = public_value(name)
    parameters = PROMISED[name]
    if parameters is not None:
        promised = inspect.signature(eval(f"(lambda {parameters[1:-1]}: None)"))
        assert promise_broken(inspect.signature(value), promised) == ""


def test_a_broken_promise_would_be_seen():
    promised = inspect.signature(lambda path, mode="r", *, lazy=...: None)
    for function, problem in (
        (lambda path, mode="r", *, lazy=1, more=2: None, ""),
        (lambda path="here", mode="r", *, lazy=1: None, ""),
        (lambda path, *, lazy=1: None, "no parameter mode"),
        (lambda mode="r", path=1, *, lazy=1: None, "another order"),
        (lambda path, mode="a", *, lazy=1: None, "mode is 'a' by default"),
        (lambda path, mode="r", lazy=1: None, "lazy is positional or keyword"),
        (lambda path, mode="r", *, lazy=1, more: None, "more must be given"),
    ):
        assert promise_broken(inspect.signature(function), promised) == problem


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
    assert text.endswith("'u31' and 8 more. Did you mean 'u32'?")
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
