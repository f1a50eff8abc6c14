"""Every public function and accessor method says what Shift-Tab should show."""

import inspect

import pytest

import labtree
from labtree.accessors import msw, session, workspace

ACCESSORS = [
    workspace.TreeWorkspaceAccessor,
    workspace.ObjectWorkspaceAccessor,
    workspace.FrameWorkspaceAccessor,
    session.SessionAccessor,
    session.StreamAccessor,
    msw.MswAccessor,
]

# Sections of these are still to be written.
UNFINISHED = {
    "labtree.msw.update_subject_manifest",
    "labtree.msw.set_subject_metadata",
    "labtree.msw.set_manifest_metadata",
    "labtree.msw.read_subject_manifest",
    "labtree.msw.load_camera_acquisition",
    "labtree.msw.init_subject_manifest",
    "labtree.msw.init_session_manifest",
    "labtree.msw.init_acquisition_manifest",
    "labtree.msw.finalize_subprotocol",
    "labtree.msw.finalize_acquisition_in_session",
    "labtree.msw.detect_camera_backend",
    "labtree.msw.append_subprotocol",
    "labtree.active_workspace",
    "labtree.aligned_windows",
    "labtree.batches",
    "labtree.delete_shared",
    "labtree.drop_log",
    "labtree.export_nwb",
    "labtree.export_spikelab",
    "labtree.from_mne_raw",
    "labtree.from_neo",
    "labtree.from_pynapple",
    "labtree.import_spikelab",
    "labtree.import_xdf",
    "labtree.iter_aligned_windows",
    "labtree.iter_labeled_windows",
    "labtree.iter_target_windows",
    "labtree.load_item",
    "labtree.load_workspace",
    "labtree.msw.align_trials",
    "labtree.msw.enumerate_acquisitions",
    "labtree.msw.fit_clock",
    "labtree.msw.load_acquisition",
    "labtree.msw.load_session",
    "labtree.msw.load_subject",
    "labtree.msw.load_trial_data",
    "labtree.msw.make_file_name",
    "labtree.msw.make_subject",
    "labtree.msw.parse_subject",
    "labtree.msw.validate_container",
    "labtree.msw.validate_session",
    "labtree.open_session",
    "labtree.open_shared",
    "labtree.recording.open_recording",
    "labtree.register_kind",
    "labtree.spikes.matrix_values",
    "labtree.spikes.slices_of",
    "labtree.split_sessions_by_stream",
    "labtree.store_shared",
    "labtree.target_windows",
    "labtree.to_mne_epochs",
    "labtree.to_mne_raw",
    "labtree.to_neo",
    "labtree.to_pynapple",
    "labtree.torch_dataset",
}


def public_methods(cls):
    for name in dir(cls):
        value = inspect.getattr_static(cls, name)
        if not name.startswith("_"):
            value = value.__func__ if isinstance(value, staticmethod) else value
            yield pytest.param(value, id=f"{cls.__name__}.{name}")


def public_functions():
    seen = set()
    for package in (labtree, labtree.recording, labtree.spikes, labtree.mea, labtree.msw):
        for name in dir(package):
            value = getattr(package, name)
            if inspect.isfunction(value) and value not in seen:
                seen.add(value)
                yield pytest.param(value, id=f"{package.__name__}.{name}")


def missing_sections(function):
    text, signature = inspect.getdoc(function) or "", inspect.signature(function)
    wanted = ["Examples"]
    if [name for name in signature.parameters if name not in ("self", "cls")]:
        wanted.append("Parameters")
    if signature.return_annotation not in (None, "None", inspect.Signature.empty):
        wanted.append("Returns")
    text = text.replace("\nYields\n------\n", "\nReturns\n-------\n")
    return [name for name in wanted if f"\n{name}\n{'-' * len(name)}\n" not in text]


@pytest.mark.parametrize("method", [m for cls in ACCESSORS for m in public_methods(cls)])
def test_accessor_members_are_documented(method):
    text = inspect.getdoc(getattr(method, "fget", method))
    assert text
    assert text.split("\n")[0].endswith((".", ":"))
    if not isinstance(method, property):
        assert missing_sections(method) == []


@pytest.mark.parametrize("function", [*public_functions()])
def test_public_functions_are_documented(function):
    assert missing_sections(function) == []


@pytest.mark.parametrize("method", [m for cls in ACCESSORS for m in public_methods(cls)])
def test_options_of_accessors_are_in_their_signatures(method):
    if isinstance(method, property):
        return
    parameters = inspect.signature(method).parameters.values()
    hidden = {each.name for each in parameters if each.kind is each.VAR_KEYWORD}
    # The style of a plot is matplotlib's.
    assert hidden <= ({"style"} if method.__name__ == "plot" else set())
