"""Every public function and accessor method says what Shift-Tab should show."""

import inspect
import re

import pytest

import labtree
from labtree.accessors import msw, session, workspace

ACCESSORS = [
    workspace.TreeWorkspaceAccessor,
    workspace.ObjectWorkspaceAccessor,
    workspace.FrameWorkspaceAccessor,
    session.SessionAccessor,
    session.StreamAccessor,
    session.SamplesAccessor,
    msw.MswAccessor,
]


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


def test_the_calls_that_displays_show_fit_the_signatures(tmp_path):
    units, trials = labtree.testing.synthetic_responses()
    tree = labtree.create_workspace("pilot")
    tree.ws.store("rec1", "units", units)
    tree.ws.save(tmp_path / "pilot")
    recording = labtree.open_session(labtree.testing.record_emg(tmp_path))
    shown = [
        tree.ws,
        tree["rec1/units"].ws,
        units.ws,
        labtree.spikes.peri_event(units, trials, 100, 100, on="go").ws,
        recording.session,
        recording.session.streams["emg"].session,
        labtree.create_session("rec1").session,
        labtree.msw.load_session(labtree.testing.write_session(tmp_path)).df.msw,
    ]
    seen, wrong = 0, []
    for owner in shown:
        for path, text in re.findall(r"(labtree[.\w]+|\.\w+)\(([^()]*)\)", repr(owner)):
            first, *rest = path.strip(".").split(".")
            function = labtree if first == "labtree" else getattr(owner, first)
            for name in rest:
                function = getattr(function, name)
            given = [each for each in re.split(r", (?![^\[]*\])", text) if each]
            keywords = dict(each.split("=") for each in given if "=" in each)
            places = [each for each in given if "=" not in each]
            seen += 1
            try:
                inspect.signature(function).bind(*places, **keywords)
            except TypeError as error:
                wrong.append(f"{path}({text}): {error}")
    assert wrong == []
    assert seen > 80
