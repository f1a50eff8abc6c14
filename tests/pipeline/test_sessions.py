import gc

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import labtree
from labtree import (
    ConfigurationError,
    FormatError,
    InvalidNameError,
    LabtreeError,
    SaveState,
    SessionError,
    SessionExistsError,
    UnsupportedTypeError,
)
from labtree.pipeline.checkpoints import find_session_file
from labtree.pipeline.per_unit import decode_rows, encode_rows
from labtree.pipeline.sessions import content_hash
from support.examples import examples


@pytest.fixture
def session(tmp_path):
    made = labtree.create_session("rec1", output_dir=tmp_path)
    made.session.add_units(
        {
            "unit_001": {"spike_times": np.array([5, 9]), "row": 3, "tag": "a"},
            "unit_002": {"spike_times": np.array([1, 2, 8]), "row": 4},
        }
    )
    return made


# --- making one


def test_ids_come_from_the_files():
    make = labtree.create_session
    assert make("x").attrs["dataset_id"] == "x"
    both = make(cmcr_path="d/a.cmcr", cmtr_path="d/b--.cmtr")
    assert both.attrs["dataset_id"] == "b"
    assert make(cmcr_path="d/a-.cmcr").attrs["dataset_id"] == "a"
    assert {k: str(v) for k, v in both.session.source_files.items()} == {
        "cmcr_path": "d/a.cmcr",
        "cmtr_path": "d/b--.cmtr",
    }
    assert both.session.save_state is SaveState.DEFERRED
    assert both.session.is_deferred
    assert not both.session.is_saved
    assert both.session.hdf5_path is None
    assert both.session.completed_steps == set()
    assert both.session.warnings == []
    assert both.session.unit_count == 0


@pytest.mark.parametrize("wrong", ["", "  ", "a/b", "a\\b", "..", "a\0", "a:b", 5])
def test_ids_that_cannot_name_a_file_are_refused(wrong):
    with pytest.raises(ConfigurationError, match="dataset_id"):
        labtree.create_session(wrong)


def test_nothing_to_go_by():
    with pytest.raises(ConfigurationError, match="needs an id or a file"):
        labtree.create_session()
    with pytest.raises(ConfigurationError, match=r"must be a .cmcr file"):
        labtree.create_session(cmcr_path="a.cmtr")


def test_other_trees_are_refused():
    with pytest.raises(SessionError, match="expected a pipeline session, got DataTree"):
        xr.DataTree().session.save("x")
    assert "pipeline" not in repr(xr.DataTree().session)


# --- units


def test_units_are_one_dataset(session):
    units = session["units"]
    assert dict(units.sizes) == {"unit": 2, "spike": 5}
    assert units["row_size"].values.tolist() == [2, 3]
    assert units["row_size"].attrs["sample_dimension"] == "spike"
    assert units["spike_times"].values.tolist() == [5, 9, 1, 2, 8]
    assert units["spike_times"].dtype == np.int64
    assert int(units.sel(unit="unit_002")["row"]) == 4
    assert units["tag_missing"].values.tolist() == [False, True]
    assert session.session.spikes("unit_002").values.tolist() == [1, 2, 8]
    assert session.session.unit_count == 2


def test_units_are_added_and_replaced(session):
    session.session.add_units({"unit_002": {"row": 9}, "unit_003": {"row": 1}})
    units = session["units"]
    assert units["unit"].values.tolist() == ["unit_001", "unit_002", "unit_003"]
    assert units["row"].values.tolist() == [3, 9, 1]
    assert session.session.spikes("unit_002").values.tolist() == [1, 2, 8]
    assert session.session.spikes("unit_003").size == 0


def test_unknown_units_list_the_known(session):
    with pytest.raises(KeyError, match="no unit 'x'; there are: 'unit_001', 'unit_002'"):
        session.session.spikes("x")
    with pytest.raises(KeyError, match="no unit 'x'"):
        session.session.add_feature("x", "f", 1)
    with pytest.raises(SessionError, match="has no units yet"):
        labtree.create_session("y").session.spikes("x")


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"spike_times": np.array([2, 1])}, "not in order; pass np.sort"),
        ({"spike_times": np.array([0.5, 1.0])}, "must be sample numbers.*np.round"),
        ({"spike_times": np.array([[1, 2]])}, "must be sample numbers"),
        ({"spike_times": np.array([2**63 + 5], np.uint64)}, "exceed 64-bit"),
        ({"row": "three"}, "units disagree on the type of 'row'"),
    ],
)
def test_wrong_units_leave_the_session_alone(session, values, match):
    before = session.copy(deep=True)
    with pytest.raises(SessionError, match=match):
        session.session.add_units({"unit_001": values})
    assert session.identical(before)
    with pytest.raises(SessionError, match="must be a non-empty string"):
        session.session.add_units({3: {}})


def test_a_feature_that_does_not_fit_takes_the_units_back(session):
    session.session.add_feature("unit_001", "f", np.zeros((2, 2)))
    before = session.copy(deep=True)
    with pytest.raises(SessionError, match="another shape in every unit"):
        session.session.add_units(
            {
                "unit_001": {"features": {"f": {"data": np.ones((2, 2))}, "new": {"data": 1}}},
                "unit_009": {"spike_times": np.array([1]), "features": {"f": np.ones((3, 3))}},
            }
        )
    assert session.identical(before)


@pytest.mark.parametrize("name", ["unit", "spike", "row_size", "row_missing", "row_row_size"])
def test_names_that_stand_for_something_else_are_refused(session, name):
    with pytest.raises(SessionError, match="the name is taken"):
        session.session.add_units({"unit_001": {name: 3}})


def test_arrays_of_a_unit_land_in_whole_arrays(session):
    session.session.add_units(
        {
            "unit_001": {"amplitude": np.array([1.0, 2]), "waveform": np.zeros(4, "f4")},
            "unit_002": {"amplitude": np.array([3.0, 4, 5]), "waveform": np.ones(4, "f4")},
        }
    )
    units = session["units"]
    assert units["amplitude"].dims == ("spike",)
    assert units["waveform"].dims == ("unit", "waveform_sample")
    assert units["waveform"].dtype == np.float32
    session.session.add_units({"unit_002": {"other": {"nested": (1, None)}}})
    assert session["units"]["amplitude"].values.tolist() == [1.0, 2, 3, 4, 5]
    assert session["units"].attrs["by_unit"] == {"other": {"unit_002": {"nested": (1, None)}}}


def test_values_of_each_spike_keep_their_type_and_name(session):
    session.session.add_units(
        {
            "unit_001": {"a/b": np.array([1.0, 2], "f4"), "n": np.array([1, 2], "i2")},
            "unit_002": {"a/b": np.array([3.0, 4, 5], "f4"), "n": np.array([3, 4, 5], "i4")},
        }
    )
    units = session["units"]
    assert units["a%2Fb"].dims == ("spike",)
    assert units["a%2Fb"].dtype == np.float32
    assert units["n"].dtype == np.int32
    session.session.add_units({"unit_001": {"row": 1}})
    row = decode_rows(session["units"].to_dataset())["unit_002"]
    assert row["a/b"].tolist() == [3, 4, 5]
    assert session["units"]["a%2Fb"].dims == ("spike",)
    with pytest.raises(SessionError, match="units disagree on the type of 'n'"):
        session.session.add_units({"unit_001": {"n": np.array([0.5, 1])}})


SCALARS = st.one_of(
    st.integers(-(2**62), 2**62),
    st.booleans(),
    st.floats(allow_nan=False),
    st.text("abc", max_size=5),
)
ARRAYS = st.one_of(
    hnp.arrays(np.float32, st.tuples(st.integers(0, 4), st.just(2))),
    hnp.arrays(
        st.sampled_from([np.int16, np.uint8, np.float64, "<M8[s]", "U3"]), st.integers(0, 5)
    ),
)
VALUES = st.one_of(SCALARS, ARRAYS, st.none(), st.lists(st.integers(), max_size=2))


@settings(max_examples=examples(150), deadline=None)
@given(
    st.dictionaries(
        st.text("uv/", min_size=1, max_size=4),
        st.dictionaries(st.sampled_from(["a", "b", "a_dim0", "a_missing"]), VALUES),
        max_size=4,
    )
)
def test_rows_come_back_as_they_went_in_or_are_refused(rows):
    try:
        dataset = encode_rows(rows)
    except SessionError:
        return
    found = decode_rows(dataset)
    assert list(found) == list(rows)
    for unit, row in rows.items():
        assert set(found[unit]) == set(row)
        for name, value in row.items():
            other = found[unit][name]
            if isinstance(value, np.ndarray):
                np.testing.assert_array_equal(other, value)
                assert other.dtype.kind == value.dtype.kind
            else:
                assert other == value


# --- features, metadata, stimulus


def test_features_of_units_share_an_array(session):
    add = session.session.add_feature
    add("unit_001", "sta", np.zeros((2, 3), "f4"), {"n": 1, "deep": {"x": (1, None)}})
    add("unit_002", "sta", np.ones((2, 3), "f4"), {"n": 2})
    made = session["features/sta"]
    assert made["sta"].shape == (2, 2, 3)
    assert made["sta"].dtype == np.float32
    assert "sta_missing" not in made.variables
    found = session.session.feature("unit_001", "sta")
    assert found["metadata"] == {"n": 1, "deep": {"x": (1, None)}}
    np.testing.assert_array_equal(found["data"], np.zeros((2, 3)))
    add("unit_001", "sta", np.full((2, 3), 7, "f4"))
    np.testing.assert_array_equal(session.session.feature("unit_001", "sta")["data"], 7)
    assert session.session.feature("unit_001", "sta")["metadata"] == {}


def test_features_of_any_form_come_back(session):
    add, get = session.session.add_feature, session.session.feature
    add("unit_001", "mix", {"times": np.arange(3), "score": 0.5, "note": "x", "d": {"a": [1]}})
    add("unit_002", "mix", {"times": np.arange(5), "score": 1.5})
    first, second = get("unit_001", "mix")["data"], get("unit_002", "mix")["data"]
    assert first["times"].tolist() == [0, 1, 2]
    assert (first["score"], first["note"], first["d"]) == (0.5, "x", {"a": [1]})
    assert second["times"].tolist() == [0, 1, 2, 3, 4]
    assert set(second) == {"times", "score"}
    with pytest.raises(KeyError, match="no feature 'y'; there are: 'mix'"):
        get("unit_001", "y")
    with pytest.raises(InvalidNameError, match="needs at least one character"):
        add("unit_001", "", 1)
    add("unit_001", "x" * 300, {"y" * 300: 1})
    assert get("unit_001", "x" * 300)["data"] == {"y" * 300: 1}


def test_many_features_do_not_cost_the_square_of_their_number(tmp_path):
    session = labtree.create_session("r", output_dir=tmp_path)
    ids = [f"u{i:03d}" for i in range(200)]
    session.session.add_units({u: {"spike_times": np.array([i])} for i, u in enumerate(ids)})
    for index, unit in enumerate(ids):
        session.session.add_feature(unit, "sta", np.full((50, 50), index, "f4"))
    array = session["features/sta"]["sta"].values
    session.session.add_feature(ids[3], "sta", np.zeros((50, 50), "f4"))
    # in place: the array is the very same one
    assert np.shares_memory(array, session["features/sta"]["sta"].values)
    assert (array[4] == 4).all()


def test_metadata_and_stimulus(session):
    session.session.add_metadata({"rate": 20_000.0, "frame_time": np.arange(3.0), "n": None})
    session.session.add_metadata({"rate": 1.0, "nested": {1: {2, 3}}})
    assert session["metadata"].attrs == {"rate": 1.0, "n": None, "nested": {1: {2, 3}}}
    assert session["metadata"]["frame_time"].dims == ("frame",)
    session.session.add_stimulus({"light_reference": {"raw_ch1": np.zeros(4, "f4")}})
    session.session.add_stimulus(
        {"light_reference": {"raw_ch2": np.ones(4, "f4")}, "name": "x"}
    )
    light = session["stimulus/light_reference"]
    assert set(light.data_vars) == {"raw_ch1", "raw_ch2"}
    assert light["raw_ch2"].dims == ("sample",)
    assert session["stimulus"].attrs == {"name": "x"}
    session.session.add_metadata({"frame_time": "gone", "frame_timestamps": np.arange(9)})
    assert session["metadata"].attrs["frame_time"] == "gone"
    assert session["metadata"].sizes["frame"] == 9


def add_calls():
    """Each verb that adds, given a value of any kind at a place that it keeps."""
    return {
        "metadata": lambda s, v: s.session.add_metadata({"x": v}),
        "stimulus": lambda s, v: s.session.add_stimulus({"x": v}),
        "stimulus group": lambda s, v: s.session.add_stimulus({"g": {"x": v}}),
        "feature": lambda s, v: s.session.add_feature("unit_001", "f", {"x": v}),
        "feature metadata": lambda s, v: s.session.add_feature("unit_001", "f", 1.0, {"x": v}),
        "unit": lambda s, v: s.session.add_units({"unit_001": {"x": v}}),
        "unit's feature": lambda s, v: s.session.add_units(
            {"unit_001": {"row": 7, "features": {"f": {"data": 1.0, "metadata": {"x": v}}}}}
        ),
    }


@pytest.mark.parametrize("verb", add_calls())
@pytest.mark.parametrize(
    ("value", "named"),
    [
        (iter([1]), "x"),
        ({"deep": [1, object()]}, r"x.*deep.*\[1\]"),
        (np.array([object()], object), "x"),
        (np.ma.masked_array([1, 2], [True, False]), "x"),
        (len, "x"),
    ],
)
def test_what_no_file_keeps_is_refused_at_once_and_named(session, verb, value, named):
    before = session.copy(deep=True)
    with pytest.raises(UnsupportedTypeError, match=named):
        add_calls()[verb](session, value)
    assert session.identical(before)
    session.session.save()


def test_datasets_that_no_file_keeps_are_refused_at_once(session):
    for wrong in (
        xr.Dataset({"x": ("t", np.array([object()]))}),
        xr.Dataset({"x": ("t", [1], {"note": object()})}),
        xr.Dataset(attrs={"note": object()}),
    ):
        with pytest.raises(UnsupportedTypeError):
            session.session.add_stimulus({"g": wrong})
    assert "stimulus" not in session.children


def test_what_is_added_is_a_copy(session):
    array, nested, listed = np.arange(3), {"x": {"y": 1}}, [1, 2]
    frame = xr.DataArray(np.arange(3.0), dims="t", attrs={"deep": {"z": 1}})
    group = xr.Dataset({"v": ("t", np.arange(2))}, attrs={"deep": [1]})
    session.session.add_metadata({"a": array, "n": nested, "l": listed, "d": frame})
    session.session.add_stimulus({"g": {"a": array, "n": nested}, "set": group})
    session.session.add_feature("unit_001", "f", {"a": array, "n": nested}, {"l": listed})
    session.session.add_units({"unit_001": {"a": array, "n": nested}})
    before = session.copy(deep=True)
    array[:] = 99
    nested["x"]["y"] = 99
    listed.append(99)
    frame.values[:] = 99
    frame.attrs["deep"]["z"] = 99
    group["v"].values[:] = 99
    group.attrs["deep"].append(99)
    assert session.identical(before)
    assert session["metadata"].attrs["n"] == {"x": {"y": 1}}


def test_names_of_any_kind(session):
    session.session.add_metadata({"a/b": np.arange(3), "c/d": 1, ".": np.arange(2)})
    session.session.add_metadata({"..": np.arange(4), "(a)": np.arange(5), "50%": np.arange(6)})
    session.session.add_stimulus({"e/f": {"g/h": np.arange(3)}, "i/j": np.arange(2)})
    session.session.add_stimulus({"e/f": {"k": 5}})
    session.session.add_units({"unit_001": {"l/m": 3, "n/o": np.arange(4)}})
    session.session.add_feature("unit_001", "p/q", {"r/s": np.arange(3), "t": 1})
    again = labtree.load_session(session.session.save())
    for one in (session, again):
        assert list(one["stimulus"].children) == ["e%2Ff"]
        assert one["stimulus/e%2Ff"]["g%2Fh"].values.tolist() == [0, 1, 2]
        assert one["stimulus/e%2Ff"].attrs == {"k": 5}
        assert one["metadata"]["a%2Fb"].values.tolist() == [0, 1, 2]
        sizes = {".": 2, "..": 4, "(a)": 5, "50%25": 6}
        for name, size in sizes.items():
            assert one["metadata"].dataset[name].values.tolist() == list(range(size))
        assert one["metadata"].attrs == {"c/d": 1}
        row = decode_rows(one["units"].to_dataset())["unit_001"]
        assert row["l/m"] == 3
        assert row["n/o"].tolist() == [0, 1, 2, 3]
        found = one.session.feature("unit_001", "p/q")["data"]
        assert found["r/s"].tolist() == [0, 1, 2]
        assert "p/q" in repr(one.session)
    for wrong in ("", "a\0b", "\ud800"):
        with pytest.raises(InvalidNameError):
            session.session.add_metadata({wrong: 1})


def test_a_variable_may_be_named_like_a_group(session):
    session.session.add_metadata({"units": np.arange(3), "metadata": np.arange(2)})
    again = labtree.load_session(session.session.save())
    assert again["metadata"].dataset["units"].values.tolist() == [0, 1, 2]
    assert again["metadata"].dataset["metadata"].values.tolist() == [0, 1]


def test_warnings_steps_and_files_do_not_swallow_changes(session):
    session.session.add_warning("light was off")
    session.session.add_warning("light was off")
    assert session.session.warnings == ["light was off"]
    changes = (
        lambda w: w.append("x"), lambda w: w.extend(["x"]), lambda w: w.clear(),
        lambda w: w.insert(0, "x"), lambda w: w.__setitem__(0, "x"), lambda w: w.remove("x"),
    )  # fmt: skip
    for change in changes:
        with pytest.raises(SessionError, match=r"write session\.session\.add_warning\(text\)"):
            change(session.session.warnings)
    with pytest.raises(AttributeError):
        session.session.completed_steps.add("mine")
    with pytest.raises(TypeError):
        session.session.source_files["cmcr_path"] = "x"
    for wrong in ("", 3):
        with pytest.raises(SessionError, match="a warning must be a non-empty string"):
            session.session.add_warning(wrong)
    assert labtree.load_session(session.session.save()).session.warnings == ["light was off"]


# --- state


def changes():
    def value(session):
        session["units"]["spike_times"].values[0] = 6

    def swap(session):
        session["units"]["spike_times"].values[:2] = session["units"]["spike_times"].values[
            1::-1
        ]

    def attribute(session):
        session["metadata"].attrs["rate"] = 2.0

    def nested(session):
        session["metadata"].attrs["deep"]["x"].append(4)

    def feature(session):
        session.session.add_feature("unit_001", "f", 1.0)

    def step(session):
        session.session.mark_step_complete("s")

    def node(session):
        session["features/new"] = xr.DataTree()

    def dtype(session):
        units = session["units"].to_dataset()
        session["units"].dataset = units.assign(spike_times=units["spike_times"].astype("i4"))

    def dims(session):
        session["units"].dataset = session["units"].to_dataset().rename_dims(spike="spikes")

    return [value, swap, attribute, nested, feature, step, node, dtype, dims]


@pytest.mark.parametrize("change", changes(), ids=lambda f: f.__name__)
def test_any_change_makes_it_deferred_again(session, change):
    session.session.add_metadata({"rate": 1.0, "deep": {"x": [1]}})
    session.session.save()
    assert session.session.save_state is SaveState.SAVED
    assert session.session.is_saved
    change(session)
    assert session.session.save_state is SaveState.DEFERRED
    session.session.save()
    assert session.session.is_saved


def test_a_lazy_array_of_another_file_is_a_change(session, tmp_path):
    session.session.add_feature("unit_001", "f", np.full(4, 1.0))
    session.session.save(tmp_path / "a.h5")
    session.session.add_feature("unit_001", "f", np.full(4, 2.0))
    session.session.save(tmp_path / "b.h5")
    one, other = (labtree.open_session(tmp_path / f"{name}.h5") for name in "ab")
    assert one.session.is_saved
    assert one.copy().session.is_saved
    one["features/f"] = other["features/f"].copy()
    assert one["features/f"]["f"].values[0].tolist() == [2.0] * 4
    assert one.session.is_deferred
    part = labtree.open_session(tmp_path / "a.h5")
    part["features/f"].dataset = part["features/f"].to_dataset().isel(f_dim0=[1, 0, 3, 2])
    assert part.session.is_deferred
    cut = labtree.open_session(tmp_path / "a.h5")
    cut["features/f"].dataset = (
        cut["features/f"].to_dataset().isel(f_dim0=slice(None, None, -1))
    )
    assert cut.session.is_deferred
    for tree in (one, other, part, cut):
        tree.close()


def test_lazy_arrays_of_other_libraries_are_told_apart(session, tmp_path):
    for name in "ab":
        xr.Dataset({"v": ("t", np.arange(3.0))}).to_netcdf(tmp_path / f"{name}.nc")
    with (
        xr.open_dataset(tmp_path / "a.nc", engine="h5netcdf", cache=False) as one,
        xr.open_dataset(tmp_path / "b.nc", engine="h5netcdf", cache=False) as other,
    ):
        session["extra"] = xr.DataTree(one)
        path = session.session.save()
        assert session.session.is_saved
        session["extra"] = xr.DataTree(other)
        assert session.session.is_deferred
        session["extra"] = xr.DataTree(one.chunk())
        session.session.save()
        assert session.session.is_saved
        session["extra"] = xr.DataTree((one + 1).chunk())
        assert session.session.is_deferred
    loaded = labtree.load_session(path)
    assert loaded.session.is_saved
    loaded["extra"]["v"].values[0] = 5
    assert loaded.session.is_deferred


def test_a_lost_file_is_not_saved(session):
    session.session.save().unlink()
    assert session.session.is_deferred


def test_the_state_goes_with_a_copy(session):
    session.session.save()
    copy = session.copy()
    assert copy.session.is_saved
    copy.session.add_metadata({"a": 1})
    assert copy.session.is_deferred
    assert session.session.is_saved


def test_the_hash_is_of_content_not_of_order_or_place(session):
    assert content_hash(session) == content_hash(session.copy(deep=True))
    swapped = session.copy()
    swapped.attrs = dict(reversed(list(session.attrs.items())))
    assert content_hash(swapped) == content_hash(session)


def test_memory_counts_everything_once():
    session = labtree.create_session("r")
    base = session.session.memory_estimate_gb
    big = np.zeros(2**20, "f8")  # 8 MiB
    session.session.add_units({"u": {"spike_times": np.arange(2**20), "w": np.zeros(2**18)}})
    session.session.add_feature("u", "f", np.zeros((2**10, 2**10), "f4"))
    session.session.add_metadata({"m": big, "nested": {"again": big, "own": np.zeros(2**17)}})
    session["sections/a"] = xr.DataTree(xr.Dataset({"start": ("x", np.zeros(2**17))}))
    expected = (8 + 2 + 4 + 8 + 1 + 1) / 1024
    assert session.session.memory_estimate_gb - base == pytest.approx(expected, rel=1e-3)


def test_what_is_in_a_file_is_not_in_memory(session, tmp_path):
    from labtree.pipeline.checkpoints import open_session_file

    session.session.add_metadata({"m": np.zeros(2**20)})
    path = session.session.save()
    lazy = open_session_file(path)
    assert lazy.session.memory_estimate_gb < 0.1 * session.session.memory_estimate_gb
    assert lazy["metadata"]["m"].shape == (2**20,)
    assert lazy.session.is_saved
    lazy.session.add_metadata({"x": 1})
    assert lazy.session.is_deferred
    lazy.session.close()
    gc.collect()


# --- what it shows


def test_repr_is_the_documentation(session):
    session.session.add_feature("unit_001", "sta", np.zeros(3))
    text = repr(session.session)
    for word in ("rec1", "2 units", "sta", "not saved yet", "checkpoint(path)"):
        assert word in text
    page = session.session._repr_html_()
    assert "rec1" in page
    assert "<table>" in page
    session.attrs["dataset_id"] = "<script>"
    assert "<script>" not in session.session._repr_html_()


def test_a_dataset_without_units_has_no_rows():
    rows = {"a": {"trace": np.arange(2)}, "b": {"trace": np.arange(3)}}
    dataset = encode_rows(rows)
    assert decode_rows(dataset.isel(unit=slice(0), trace_element=slice(0))) == {}


def test_a_path_without_a_name_is_no_session():
    session = labtree.create_session("rec1")
    for call in (labtree.load_session, session.session.save, session.session.checkpoint):
        with pytest.raises(LabtreeError, match=r"'\.' names no file; write a name such as"):
            call(".")


def test_a_unit_is_a_dict_of_arrays():
    session = labtree.create_session("rec1")
    with pytest.raises(SessionError, match=r"got list; write add_units\(\{'u': \{'spike_t"):
        session.session.add_units({"u": [1, 2]})
    assert "units" not in session.children


def test_a_folder_or_the_imported_file_is_no_place_for_a_session(tmp_path):
    with pytest.raises(FormatError, match="is a folder; a pipeline session is a file"):
        find_session_file(tmp_path)
    session = labtree.create_session("rec1", output_dir=tmp_path)
    path = tmp_path / "theirs.h5"
    path.write_bytes(b"theirs")
    session.attrs["imported"] = {"path": str(path.resolve()), "format": "hdmea"}
    with pytest.raises(SessionExistsError, match="is the hdmea file that the session was"):
        session.session.save(path)
    assert path.read_bytes() == b"theirs"


def test_sessions_are_saved_into_folders_that_are_made(tmp_path):
    session = labtree.create_session("rec1", output_dir=tmp_path / "a" / "b")
    assert session.session.save() == tmp_path / "a" / "b" / "rec1.h5"
    assert session.session.checkpoint(tmp_path / "c" / "d" / "e").is_file()


def test_arrays_that_lie_elsewhere_on_a_dimension_are_refused_and_none_is_added(session):
    def along(start, size=3):
        times = np.arange(start, start + size)
        return xr.DataArray(np.arange(size) + 10.0, {"time": times}, ("time",))

    session.session.add_metadata({"a": along(0)})
    before = session.copy(deep=True)
    unlike = along(1)
    longer = xr.DataArray(np.arange(4.0), dims="time")
    for wrong in (unlike, longer):
        with pytest.raises(SessionError, match="'b' does not fit beside what is there"):
            session.session.add_metadata({"n": 1, "b": wrong})
        with pytest.raises(SessionError, match="'b' does not fit beside what is there"):
            session.session.add_stimulus({"n": 1, "g": {"a": along(0), "b": wrong}})
        assert session.identical(before)
    session.session.add_metadata({"b": unlike.rename(time="b_time"), "c": along(0)})
    assert session["metadata"]["b"].values.tolist() == [10, 11, 12]
    assert session["metadata"]["c"].values.tolist() == [10, 11, 12]


def test_an_array_may_be_replaced_by_a_longer_one(session):
    for size in (3, 5):
        times = np.arange(size)
        session.session.add_metadata(
            {"a": xr.DataArray(times + 0.5, {"time": times}, ("time",))}
        )
        assert session["metadata"]["a"].values.tolist() == (times + 0.5).tolist()
        assert session["metadata"]["time"].values.tolist() == times.tolist()


def test_a_feature_that_is_changed_afterwards_leaves_the_session_alone(session):
    session.session.add_feature("unit_001", "ragged", np.arange(3.0), {"deep": [1]})
    session.session.add_feature("unit_002", "ragged", np.arange(2.0))
    session.session.add_feature("unit_001", "nested", {"x": {"y": [1]}})
    before = session.copy(deep=True)
    for name in ("ragged", "nested"):
        found = session.session.feature("unit_001", name)
        if name == "ragged":
            found["data"][:] = 9
            found["metadata"]["deep"].append(2)
        else:
            found["data"]["x"]["y"].append(2)
    assert session.identical(before)
