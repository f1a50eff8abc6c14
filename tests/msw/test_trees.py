"""Trials and sessions as xarray, through files and back; figures."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from labtree.errors import TrialTableError
from labtree.msw import MswSession, load_session, trials_from_xarray, trials_to_frame
from labtree.testing.msw import ERAS, make_trials, write_session

mpl.use("Agg")
NAN = float("nan")


def check(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(found, expected)
    if len(expected):
        pd.testing.assert_frame_equal(found.msw.states(), expected.msw.states())
        pd.testing.assert_frame_equal(found.msw.events(), expected.msw.events())


def odd() -> pd.DataFrame:
    infos: list[dict[str, Any]] = [
        {
            "i": 2**60,
            "ih": 2**60 + 1,
            "s": "",
            "t": ("a", 1.5),
            "l": [1, 2],
            "f": [0.5],
            "d": {},
        },
        {
            "i": 5,
            "ih": None,
            "s": None,
            "t": None,
            "l": None,
            "f": [NAN],
            "d": {"a": [NAN, None]},
        },
        {
            "i": -7,
            "ih": 3,
            "s": "µ x",
            "t": (),
            "l": [3, 4],
            "f": None,
            "d": None,
            "a/b%": True,
        },
    ]
    return trials_to_frame(
        [
            {
                "Trial start timestamp": 2.5 * i,
                "info": info,
                "States timestamps": {"a b": [(0.0, 1.0 + i)], "n": [(NAN, NAN)]},
            }
            for i, info in enumerate(infos)
        ]
    )


def frames() -> list[pd.DataFrame]:
    whole = trials_to_frame(make_trials(30))
    return [
        whole,
        trials_to_frame(make_trials(30, task="sequence")),
        trials_to_frame(make_trials(10, clock="session")),
        whole.iloc[[7, 3, 12]].reset_index(drop=True),
        whole.iloc[[3, 3]].reset_index(drop=True),
        whole.iloc[:0],
        odd(),
    ]


@pytest.mark.filterwarnings("ignore:The (codec|dtype) .(vlen-utf8|StringDType)")
@pytest.mark.parametrize("which", range(len(frames())))
def test_there_and_back(tmp_path: Path, which: int) -> None:
    df = frames()[which]
    dataset = df.msw.to_xarray()
    for variable in dataset.variables.values():
        assert isinstance(variable.dtype, np.dtype)
    check(trials_from_xarray(dataset), df)
    dataset.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "a.nc", engine="h5netcdf") as opened:
        check(trials_from_xarray(opened), df)
    dataset.to_zarr(tmp_path / "a.zarr", consolidated=False)
    check(trials_from_xarray(xr.open_zarr(tmp_path / "a.zarr", consolidated=False)), df)


def test_what_the_variables_are() -> None:
    df = trials_to_frame(make_trials(30))
    ds = df.msw.to_xarray()
    assert ds["choice"].dtype == np.float64
    np.testing.assert_array_equal(ds["choice"], df["choice"].to_numpy(float, na_value=NAN))
    assert ds["rewarded"].attrs["flag_meanings"] == "missing false true"
    assert set(np.unique(ds["rewarded"])) == {-1, 0, 1}
    assert ds["state_row_size"].attrs["sample_dimension"] == "state_visit"
    assert int(ds["state_row_size"].sum()) == ds.sizes["state_visit"] == len(df.msw.states())
    assert ds["block_type_values"].dims == ("trial", "block_type_values_item")
    big = odd().msw.to_xarray()
    assert big["ih"].dtype == np.int64
    assert big["ih_missing"].to_numpy().tolist() == [False, True, False]
    assert big["s_missing"].to_numpy().tolist() == [False, True, False]
    assert big["t"].attrs["cells"] == "json"
    assert "a%2Fb%25" in big


def test_columns_of_other_dtypes_that_were_added(tmp_path: Path) -> None:
    df = trials_to_frame(make_trials(4)).assign(
        share=pd.array([0.5, None, 1.5, 2.5], dtype="Float64"),
        small=pd.array([1, None, -128, 4], dtype="Int8"),
        large=pd.array([2**64 - 1, None, 0, 1], dtype="UInt64"),
        single=np.array([0.5, np.nan, 1.5, 2.5], np.float32),
    )
    dataset = df.msw.to_xarray()
    assert dataset["large"].to_numpy()[0] == 2**64 - 1
    assert dataset["small"].dtype == np.float64
    check(trials_from_xarray(dataset), df)
    dataset.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "a.nc", engine="h5netcdf") as opened:
        check(trials_from_xarray(opened), df)


def test_refused_tables() -> None:
    df = trials_to_frame(make_trials(5))
    with pytest.raises(TrialTableError, match=r"'state_code'.*rename it"):
        df.assign(state_code=1).msw.to_xarray()
    with pytest.raises(TrialTableError, match="'when' cannot be kept"):
        df.assign(when=pd.Timestamp("2026-01-01")).msw.to_xarray()
    for kept in (["b", "a", "b", None, "a"], list("aaaab")):
        text = df.assign(side=pd.Categorical(kept))
        check(trials_from_xarray(text.msw.to_xarray()), text)
    for lost in (
        pd.Categorical(list("abbab"), ordered=True),
        pd.Categorical(list("aaaaa"), categories=["a", "b"]),
        pd.Categorical([1, 2, 2, 1, 1]),
    ):
        with pytest.raises(TrialTableError, match=r"'side' cannot be kept: categories"):
            df.assign(side=lost).msw.to_xarray()
        check(
            trials_from_xarray(df.assign(side=lost.astype(object)).msw.to_xarray())[list(df)],
            df,
        )
    with pytest.raises(TrialTableError, match="holds no trials"):
        trials_from_xarray(xr.Dataset())
    ds = df.msw.to_xarray()
    with pytest.raises(TrialTableError, match="number trials from 0"):
        trials_from_xarray(ds.assign_coords(trial=ds["trial"].to_numpy() + 10**12))
    with pytest.raises(TrialTableError, match="lacks 'choice'"):
        trials_from_xarray(ds.drop_vars("choice"))
    with pytest.raises(TrialTableError, match="lacks its attribute columns"):
        trials_from_xarray(ds.drop_attrs())
    # A variable that was computed anew is a column of its own dtype.
    changed = ds.assign(choice=("trial", np.arange(5.0)), trial_type=("trial", list("abcde")))
    found = trials_from_xarray(changed)
    assert found["choice"].tolist() == [0, 1, 2, 3, 4]
    assert found["trial_type"].tolist() == list("abcde")
    with pytest.raises(TrialTableError, match="row sizes"):
        trials_from_xarray(ds.assign(state_row_size=ds["state_row_size"] * 2))


@pytest.mark.parametrize("era", ERAS)
def test_sessions_as_trees(tmp_path: Path, era: Any) -> None:
    session = load_session(write_session(tmp_path, era, trials=make_trials(20)))
    tree = session.to_tree()
    assert set(tree.children) == {"trials", "metadata"}
    assert tree.attrs["subject"] == "m01"
    assert MswSession.from_tree(tree) == session
    tree.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with xr.open_datatree(tmp_path / "a.nc", engine="h5netcdf") as opened:
        assert MswSession.from_tree(opened) == session
    with pytest.raises(TrialTableError, match=r"session\.to_tree\(\)"):
        MswSession.from_tree(xr.DataTree())


def test_the_nested_layout_becomes_the_same_dataset(tmp_path: Path) -> None:
    folder = write_session(tmp_path, trials=make_trials(20))
    flat = load_session(folder).df.msw.to_xarray()
    nested = load_session(folder, nested=True).df.msw.to_xarray()
    assert list(nested["trial"]) == list(flat["trial"])
    xr.testing.assert_allclose(
        nested[["state_start", "event_time"]], flat[["state_start", "event_time"]]
    )


def test_trials_and_streams_in_one_tree(tmp_path: Path) -> None:
    session = load_session(write_session(tmp_path, trials=make_trials(20)))
    stream = xr.Dataset(
        {"data": (("time", "channel"), np.zeros((50, 2)))}, {"time": np.arange(50) / 10}
    )
    recording = xr.DataTree.from_dict(
        {
            "/": xr.Dataset(attrs={"app_name": "x"}),
            "streams/emg": stream,
            "labels": xr.Dataset(),
        }
    )
    tree = session.to_tree(recording)
    assert set(tree.children) == {"streams", "labels", "trials", "metadata"}
    assert tree["streams/emg"].to_dataset().equals(stream)
    assert tree.attrs["app_name"] == "x"
    assert tree.attrs["subject"] == "m01"
    assert set(recording.children) == {"streams", "labels"}
    with pytest.raises(TrialTableError, match="has metadata, trials already"):
        session.to_tree(tree)


def test_a_session_without_trials(tmp_path: Path) -> None:
    folder = write_session(tmp_path, with_log=False)
    next(folder.glob("*.jsonl")).unlink()
    session = load_session(folder)
    assert set(session.to_tree().children) == {"metadata"}
    assert MswSession.from_tree(session.to_tree()) == session


@pytest.mark.parametrize("kind", ["overview", "states", "switch_curve"])
@pytest.mark.parametrize("task", ["probabilistic_switching", "sequence"])
def test_figures(kind: str, task: str) -> None:
    import matplotlib.pyplot as plt

    df = trials_to_frame(make_trials(120, task=task))  # type: ignore[arg-type]
    if kind == "switch_curve" and task == "sequence":
        with pytest.raises(KeyError, match="'choice'"):
            df.msw.plot(kind)
        plt.close("all")
        return
    for part in (df, df.iloc[:1], df.iloc[::-1].reset_index(drop=True)):
        ax = part.msw.plot(kind)
        ax.figure.canvas.draw()
        plt.close("all")
    _, mine = plt.subplots()
    assert df.msw.plot(kind, mine) is mine
    plt.close("all")


def test_what_the_figures_show() -> None:
    import matplotlib.pyplot as plt

    df = trials_to_frame(make_trials(200))
    lines = {line.get_label(): line for line in df.msw.plot().get_lines()}
    assert len(lines["rewarded"].get_xdata()) == df["rewarded"].sum()
    np.testing.assert_allclose(
        np.nan_to_num(lines["rewarded, mean of 20"].get_ydata()),
        np.nan_to_num(df.msw.task.msw.rolling("rewarded", 20).to_numpy()),
    )
    curve = df.msw.switch_curve()
    (line,) = [x for x in df.msw.plot("switch_curve").get_lines() if len(x.get_xdata()) == 30]
    np.testing.assert_array_equal(line.get_ydata(), curve["new_side_fraction"])
    states = df.msw.plot("states")
    drawn = {c.get_label(): len(c.get_paths()) for c in states.collections}
    counts = df.msw.task.msw.states()["state"].value_counts()
    assert drawn == {name: count for name, count in counts.items() if count}
    with pytest.raises(
        ValueError, match="kind must be one of 'overview', 'states', 'switch_curve'"
    ):
        df.msw.plot("pie")  # type: ignore[arg-type]
    plt.close("all")
