import functools
import operator
import os
import shutil

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import labtree
from labtree import ConfigurationError, SessionError
from labtree.pipeline.step_records import code_hash


def burst_statistics(session, max_interval_ms=10.0):
    """Share of each unit's intervals that are short, and its bursts."""
    units = session["units"].to_dataset()
    limit = max_interval_ms / 1000 * session["metadata"].attrs["acquisition_rate"]
    short = np.diff(units["spike_times"].values, prepend=0) <= limit
    ends = np.cumsum(units["row_size"].values)
    parts = [part[1:] for part in np.split(short, ends[:-1])]
    share = xr.DataArray([p.mean() if len(p) else np.nan for p in parts], dims="unit")
    session["features/burst"] = xr.DataTree(xr.Dataset({"share": share, "unit": units["unit"]}))


step = labtree.step(requires=["load_recording"])(burst_statistics)


@pytest.fixture
def session(tmp_path):
    made = labtree.create_session("rec1", output_dir=tmp_path)
    made.session.add_units(
        {"a": {"spike_times": np.array([0, 50, 900])}, "b": {"spike_times": np.array([4])}}
    )
    made.session.add_metadata({"acquisition_rate": 10_000.0})
    made.session.mark_step_complete("load_recording")
    return made


def record(session, name="burst_statistics"):
    return [one for one in session.attrs["steps"] if one["name"] == name][-1]


# --- the guide's custom step


def test_the_custom_example_in_memory(session):
    returned = step(session=session, max_interval_ms=6.0)
    assert returned is session
    assert session["features/burst"]["share"].values[0] == 0.5
    assert np.isnan(session["features/burst"]["share"].values[1])
    assert "burst_statistics" in session.session.completed_steps


def test_the_custom_example_on_a_file(session):
    path = session.session.save()
    result = step(hdf5_path=path, max_interval_ms=6.0)
    assert isinstance(result, labtree.StepResult)
    assert (result.name, result.hdf5_path, result.skipped) == ("burst_statistics", path, False)
    assert result.duration_s > 0
    saved = labtree.load_session(path)
    assert saved["features/burst"]["share"].values[0] == 0.5
    assert "features" not in session.children  # the one in memory is another session


def test_both_ways_give_the_same(session):
    path = session.session.save()
    step(session=session)
    step(hdf5_path=path)
    saved = labtree.load_session(path)
    assert saved["features"].identical(session["features"])
    assert record(saved)["hash"] == record(session)["hash"]


def test_the_record_says_what_was_done(session):
    step(session=session, max_interval_ms=np.float64(6.0))
    made = record(session)
    assert made["name"] == "burst_statistics"
    assert made["parameters"] == {"max_interval_ms": 6.0}
    assert set(made["versions"]) == {"labtree", "numpy", "xarray", "python"}
    assert made["duration_s"] >= 0
    assert len(made["hash"]) == 32
    assert set(made["inputs"]) >= {"units", "metadata"}
    assert any(item.startswith("features/burst") for item in made["outputs"])


def test_parameters_of_any_type_are_told_apart(session):
    ran = []

    @labtree.step()
    def table(session, frame=None):
        ran.append(1)

    long = pd.DataFrame({"a": np.arange(1000)})
    other = long.copy()
    other.loc[500, "a"] = -1
    for frame in (long, long.copy(), other, session["units"].to_dataset(), {"x": {1, 2}}, len):
        table(session=session, frame=frame)
    assert len(ran) == 5
    table(session=session, frame=(i for i in range(3)))  # cannot be told apart: runs each time
    table(session=session, frame=(i for i in range(3)))
    assert len(ran) == 7


# --- prerequisites and calls


def test_missing_prerequisites_are_named_with_how_to_run_them(session):
    @labtree.step(requires=("compute_sta", "my_own", "load_recording"))
    def late(session):
        pass

    with pytest.raises(ConfigurationError) as caught:
        late(session=session)
    text = str(caught.value)
    assert "late needs compute_sta, my_own first, on session 'rec1'" in text
    assert "labtree.mea.compute_sta(session=session, ...)" in text
    assert "my_own(session=session)" in text
    assert "done: load_recording" in text


def test_how_a_step_is_called(session, tmp_path):
    with pytest.raises(ConfigurationError, match="not both"):
        step(session=session, hdf5_path=tmp_path / "x.h5")
    with pytest.raises(ConfigurationError, match="burst_statistics needs a session"):
        step()
    with pytest.raises(FileNotFoundError, match=r"x\.h5: there is no such session"):
        step(hdf5_path=tmp_path / "x")
    with pytest.raises(SessionError, match="expected a pipeline session"):
        step(session=xr.DataTree())
    with pytest.raises(TypeError, match="nonsense"):
        step(session=session, nonsense=3)
    assert step(session, 6.0) is session  # the session may also come first
    with pytest.raises(ConfigurationError, match="takes no argument"):

        @labtree.step()
        def none():
            pass


def test_the_signature_helps(session):
    import inspect

    names = list(inspect.signature(step).parameters)
    assert names == ["max_interval_ms", "session", "hdf5_path", "force"]
    assert step.__doc__ == burst_statistics.__doc__


def test_a_body_with_free_keywords(session):
    @labtree.step()
    def free(session, **options):
        session.session.add_metadata(options)

    free(session=session, a=1, b=2)
    assert session["metadata"].attrs["b"] == 2
    assert record(session, "free")["parameters"] == {"a": 1, "b": 2}


# --- skipping


@pytest.fixture
def counted(session):
    ran = []

    @labtree.step(requires=["load_recording"])
    def counting(session, k=1, path_to=None, data_path=None):
        ran.append(k)
        session.session.add_feature("a", "count", float(session["units"].sizes["spike"] * k))

    return counting, ran


def test_the_same_step_is_skipped(session, counted):
    counting, ran = counted
    before = counting(session=session).copy(deep=True)
    counting(session=session)
    assert session.identical(before)
    assert len(ran) == 1
    counting(session=session, force=True)
    counting(session=session, k=2)
    counting(session=session, k=2.0)  # another type of parameter
    assert ran == [1, 1, 2, 2.0]
    assert len([r for r in session.attrs["steps"] if r["name"] == "counting"]) == 1


def test_changed_inputs_run_it_again(session, counted):
    counting, ran = counted
    counting(session=session)
    session["units"]["spike_times"].values[1] += 1
    counting(session=session)
    assert len(ran) == 2
    session.session.add_units({"c": {"spike_times": np.array([3])}})
    counting(session=session)
    assert len(ran) == 3


def test_removed_outputs_run_it_again(session, counted):
    counting, ran = counted
    counting(session=session)
    del session["features"]["count"]
    counting(session=session)
    assert len(ran) == 2


def test_what_other_steps_add_does_not_run_it_again(session, counted):
    counting, ran = counted

    @labtree.step()
    def annotate(session):
        units = session["units"].to_dataset()
        session["units"].dataset = units.assign_coords(depth=("unit", np.arange(2.0)))

    counting(session=session)
    annotate(session=session)
    session.session.add_feature("a", "other", 3.0)
    counting(session=session)
    assert len(ran) == 1


def test_changed_files_run_it_again_and_moved_ones_do_not(session, counted, tmp_path):
    counting, ran = counted
    path = tmp_path / "a" / "table.csv"
    path.parent.mkdir()
    path.write_text("1")
    counting(session=session, data_path=path)
    moved = tmp_path / "b" / "table.csv"
    moved.parent.mkdir()
    shutil.copy2(path, moved)
    counting(session=session, data_path=moved)
    assert len(ran) == 1
    moved.write_text("22")
    counting(session=session, data_path=moved)
    assert len(ran) == 2
    stamp = moved.stat().st_mtime_ns + 10**9
    os.utime(moved, ns=(stamp, stamp))
    counting(session=session, data_path=str(moved))
    assert len(ran) == 3


def test_another_body_runs_again_and_another_docstring_does_not():
    def first(session):
        """One."""
        return session

    one = code_hash(first)

    def first(session):
        """Two."""
        # a remark
        return session

    assert code_hash(first) == one

    def first(session):
        """One."""
        session.attrs["x"] = 1
        return session

    assert code_hash(first) != one


def test_a_body_without_source_has_no_hash(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("words (not closed\n" * 5)
    namespace = {}
    exec(compile("\n\ndef body(session): pass\n", str(page), "exec"), namespace)
    assert code_hash(namespace["body"]) == ""
    assert code_hash(len) == ""


def test_it_is_still_skipped_after_saving_and_loading(session, counted):
    counting, ran = counted
    counting(session=session)
    resumed = labtree.load_session(session.session.save())
    counting(session=resumed)
    assert len(ran) == 1
    assert resumed.session.is_saved


def test_a_step_run_anew_makes_later_ones_out_of_date(session):
    @labtree.step()
    def first(session, k=1):
        session.session.add_metadata({"k": k})

    @labtree.step(requires=["first"])
    def second(session):
        session.session.add_feature("a", "s", float(session["metadata"].attrs["k"]))

    first(session=session)
    second(session=session)
    first(session=session, force=True)  # the same result: nothing is out of date
    assert session.session.completed_steps == {"load_recording", "first", "second"}
    first(session=session, k=5)
    assert session.session.completed_steps == {"load_recording", "first"}
    assert session.session.warnings == [
        "second is out of date, because first ran again after it; run it again"
    ]
    assert session["features/s"]["s"].values[0] == 1.0  # kept until it runs again
    second(session=session)
    assert session["features/s"]["s"].values[0] == 5.0
    assert "second" in session.session.completed_steps


# --- all or nothing


def failing(error):
    @labtree.step()
    def bad(session):
        session.session.add_feature("a", "x", 1.0)
        session["units"].dataset = session["units"].to_dataset().isel(unit=[0])
        session.attrs["dataset_id"] = "other"
        session["metadata"].attrs["acquisition_rate"] = 3.0
        session.attrs["warnings"].append("w")
        del session["stimulus"]
        raise error

    return bad


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyboardInterrupt(), MemoryError()])
def test_an_exception_leaves_the_session_as_it_was(session, error):
    session.session.add_stimulus({"a": {"b": np.arange(3)}})
    before = session.copy(deep=True)
    path = session.session.save()
    content = path.read_bytes()
    before.attrs.update({k: session.attrs[k] for k in ("saved_at", "labtree_saved")})
    with pytest.raises(type(error)):
        failing(error)(session=session)
    assert session.identical(before)
    assert session.session.is_saved
    with pytest.raises(type(error)):
        failing(error)(hdf5_path=path)
    assert path.read_bytes() == content


def test_arrays_cannot_be_written_in_place_inside_a_step(session):
    @labtree.step()
    def inplace(session):
        session["units"]["spike_times"].values[:] = 0

    before = session.copy(deep=True)
    with pytest.raises(ValueError, match="read-only"):
        inplace(session=session)
    assert session.identical(before)


def test_arrays_are_writable_and_the_same_ones_after_a_step(session, counted):
    array = session["units"]["spike_times"].values

    @labtree.step()
    def part(session):
        times = session["units"]["spike_times"].values
        session["features/part"] = xr.DataTree(
            xr.Dataset(
                {"first": ("unit", times[:2])}, {"unit": session["units"]["unit"].values}
            )
        )

    part(session=session)
    assert session["units"]["spike_times"].values is array
    array[0] = 0
    session["features/part"]["first"].values[0] = 7
    assert array[0] == 0


def test_a_step_may_return_another_session_tree(session):
    @labtree.step()
    def fresh(session):
        made = session.copy()
        made.session.add_metadata({"x": 1})
        return made

    assert fresh(session=session) is session
    assert session["metadata"].attrs["x"] == 1

    @labtree.step()
    def wrong(session):
        return 3

    with pytest.raises(SessionError, match="got int"):
        wrong(session=session)


def test_nodes_keep_their_identity(session, counted):
    counting, _ = counted
    units = session["units"]
    counting(session=session)
    assert session["units"] is units


def test_a_step_may_call_steps(session, counted):
    counting, ran = counted

    @labtree.step()
    def outer(session):
        counting(session=session)
        session.session.add_metadata({"outer": True})

    outer(session=session)
    assert session.session.completed_steps == {"load_recording", "counting", "outer"}
    outer(session=session)
    counting(session=session)
    assert ran == [1]


def test_many_features_in_a_step_copy_the_array_once(session):
    session.session.add_feature("a", "f", np.zeros(1000))
    session.session.add_feature("b", "f", np.zeros(1000))
    original = session["features/f"]["f"].values

    @labtree.step()
    def fill(session):
        arrays = []
        for unit in "ab":
            session.session.add_feature(unit, "f", np.ones(1000))
            arrays.append(session["features/f"]["f"].values)
        assert arrays[0] is arrays[1]
        raise RuntimeError("after writing")

    with pytest.raises(RuntimeError):
        fill(session=session)
    assert (original == 0).all()
    assert (session["features/f"]["f"].values == 0).all()


def test_results_in_nodes_of_any_name_reach_the_session(session):
    @labtree.step()
    def fill(session, value):
        made = xr.Dataset({"of@what": ("unit", [value, value])}, attrs={"a:b": value})
        session["features/to:the@point"] = xr.DataTree(made)

    for value in (1, 2):
        fill(session=session, value=value)
        node = session["features/to:the@point"]
        assert node["of@what"].values.tolist() == [value, value]
        assert node.attrs == {"a:b": value}
    before = session.attrs["steps"]
    fill(session=session, value=2)
    assert session.attrs["steps"] == before


def scaled(session, function=None):
    session.attrs["result"] = function(10)


SCALE = labtree.step()(scaled)


class Scale:
    """An object that can be called."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, value):
        return value * self.factor

    def method(self, value):
        return value * self.factor


def closure(factor):
    return lambda value: value * factor


FUNCTIONS = {
    "lambdas": (lambda value: value * 2, lambda value: value * 3),
    "closures": (closure(2), closure(3)),
    "defaults": (lambda value, by=2: value * by, lambda value, by=3: value * by),
    "constants inside": (
        lambda value: next(each * 2 for each in (value,)),
        lambda value: next(each * 3 for each in (value,)),
    ),
    "partials": (
        functools.partial(operator.mul, 2), functools.partial(operator.mul, 3),
    ),
    "objects": (Scale(2), Scale(3)),
    "methods": (Scale(2).method, Scale(3).method),
}  # fmt: skip


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_a_step_with_another_function_runs_again_and_with_the_same_does_not(session, kind):
    double, triple = FUNCTIONS[kind]
    SCALE(session=session, function=double)
    assert session.attrs["result"] == 20
    session.session.add_warning("before")
    SCALE(session=session, function=double)
    assert len(session.attrs["steps"]) == 1
    SCALE(session=session, function=triple)
    assert session.attrs["result"] == 30
    again = labtree.load_session(session.session.save())
    assert again.attrs["steps"] == session.attrs["steps"]


def test_a_function_that_holds_itself_is_a_parameter_too(session):
    def factorial(n):
        return n * factorial(n - 1) if n > 1 else 1

    SCALE(session=session, function=factorial)
    assert session.attrs["result"] == 3628800
