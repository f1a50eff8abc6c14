"""Results of ordinary xarray work on the kinds: stored and plotted as plain datasets."""

import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import labtree
from labtree.testing import spikes

RATES = spikes.synthetic_rate_data(4)
STACK = spikes.synthetic_rate_slice_stack(4)
PAIRS = spikes.synthetic_pairwise_stack(4)
TRAINS = spikes.synthetic_spike_data(4)
SLICES = spikes.synthetic_spike_slice_stack(4)

RESULTS = {
    "mean of units": lambda: RATES.mean("unit"),
    "deviation over time": lambda: RATES.std("time"),
    "one unit": lambda: RATES.isel(unit=0),
    "transposed": lambda: RATES.transpose(),
    "renamed": lambda: RATES.rename(rate="z"),
    "two sessions": lambda: xr.concat([RATES, RATES], "session"),
    "mean of slices": lambda: STACK.mean("slice"),
    "mean matrix": lambda: PAIRS.mean("slice"),
    "one row": lambda: PAIRS.isel(unit_i=0),
    "counts alone": lambda: TRAINS[["row_size"]],
    "times alone": lambda: TRAINS.drop_vars("row_size"),
    "later spikes": lambda: TRAINS.assign(spike_times=TRAINS.spike_times + 1e9),
}


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_is_stored_as_a_plain_dataset_with_one_warning(name, tmp_path):
    result = RESULTS[name]()
    tree = labtree.create_workspace()
    with pytest.warns(labtree.LossWarning, match="stored as a plain dataset") as caught:
        tree.ws.store("rec", "k", result)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert tree.ws.get_info("rec", "k")["type"] == "dataset"
    plain = result.assign_attrs()
    del plain.attrs["labtree_kind"]
    assert labtree.load_item(tree.ws.save(tmp_path / "w"), "rec", "k").identical(plain)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tree.ws.store("rec", "again", plain)


@pytest.mark.parametrize(
    "apart",
    [
        lambda: TRAINS.isel(unit=[0]),
        lambda: TRAINS.isel(unit=0),
        lambda: TRAINS.isel(spike=slice(3)),
        lambda: SLICES.isel(slice=[0, 1]),
        lambda: SLICES.mean("slice"),
        lambda: TRAINS.assign(row_size=TRAINS.row_size * 1.5),
    ],
)
def test_spikes_that_came_apart_from_their_rows_are_refused(apart):
    tree = labtree.create_workspace()
    tree.ws.store("rec", "k", TRAINS)
    with pytest.raises(ValueError, match="select_units"):
        tree.ws.store("rec", "k", apart())
    assert tree.ws["rec", "k"].identical(TRAINS)


def test_what_still_is_of_its_kind_keeps_it():
    tree = labtree.create_workspace()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tree.ws.store("rec", "k", RATES.isel(unit=[0, 1]))
    assert tree.ws.get_info("rec", "k")["type"] == "rate_data"


@pytest.mark.parametrize("name", ["mean of units", "deviation over time", "transposed"])
def test_a_result_is_plotted_as_a_plain_array(name):
    RESULTS[name]().ws.plot().figure.canvas.draw()


def test_a_single_unit_of_rates_is_plotted_and_of_trains_refused():
    RATES.isel(unit=0).ws.plot()
    with pytest.raises(ValueError, match="select_units"):
        TRAINS.isel(unit=0).ws.plot()


def test_what_cannot_be_drawn_names_the_line_that_draws_a_part():
    recordings = xr.concat([RATES, RATES], "session")
    with pytest.raises(
        ValueError, match=r"'rate' has 3 dimensions, session, .* write "
    ) as caught:
        recordings.ws.plot()
    assert str(caught.value).endswith("write ds['rate'].isel(session=0).ws.plot()")
    recordings["rate"].isel(session=0).ws.plot()
    with pytest.raises(ValueError, match=r"nothing to draw.*\['rate'\]"):
        RATES.mean().ws.plot()


def test_a_result_can_be_shown():
    for make in RESULTS.values():
        assert "labtree" in repr(make().ws)


def test_rows_of_a_stored_table_are_a_plain_dataset():
    tree = labtree.create_workspace()
    tree.ws.store("rec", "table", pd.DataFrame({"a": [1, 2, 3], "b": ["x", "y", "z"]}))
    rows = tree["rec/table"].to_dataset().isel(row=[0, 1])
    with pytest.warns(labtree.LossWarning, match="no longer is of the kind 'dataframe'"):
        tree.ws.store("rec", "rows", rows)
    assert tree.ws["rec", "rows"]["a"].values.tolist() == [1, 2]


def test_a_stored_array_changed_through_xarray_is_an_array_still():
    tree = labtree.create_workspace()
    tree.ws.store("rec", "a", np.arange(6.0).reshape(2, 3))
    tree.ws.store("rec", "b", tree["rec/a"].to_dataset() * 2)
    assert tree.ws["rec", "b"].tolist() == [[0, 2, 4], [6, 8, 10]]
