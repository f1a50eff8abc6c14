"""Values that are missing are marked beside those that are there."""

import numpy as np
import xarray as xr

from labtree.storage.missing import mark_missing, mask_name, mask_of, masks_of


def test_a_mask_is_made_where_values_are_missing():
    variable = xr.Variable(("unit", "x"), np.zeros((3, 2), int), {"units": "mm"})
    made = mark_missing("depth", variable, [False, True, False])
    assert list(made) == ["depth", "depth_missing"]
    assert made["depth"].attrs == {"units": "mm", "ancillary_variables": "depth_missing"}
    assert made["depth_missing"].dims == ("unit",)
    assert made["depth_missing"].values.tolist() == [False, True, False]
    assert masks_of(xr.Dataset(made).variables) == {"depth": "depth_missing"}


def test_no_mask_is_made_where_nothing_is_missing():
    variable = xr.Variable("unit", [1, 2])
    made = mark_missing("depth", variable, [False, False])
    assert list(made) == ["depth"]
    assert made["depth"].attrs == {}


def test_a_mask_avoids_names_that_are_taken():
    taken = {"depth_missing"}
    made = mark_missing("depth", xr.Variable("unit", [1, 2]), [True, False], taken)
    assert mask_name("depth", taken) == "depth_missing_"
    assert mask_of(made, "depth") == "depth_missing_"


def test_a_mask_stands_beside_other_ancillary_variables():
    variable = xr.Variable("unit", [1, 2], {"ancillary_variables": "depth_quality"})
    made = mark_missing("depth", variable, [True, False])
    assert made["depth"].attrs["ancillary_variables"] == "depth_quality depth_missing"
    assert mask_of(made, "depth") == "depth_missing"


def test_only_booleans_along_the_same_dimensions_are_a_mask():
    named = {"ancillary_variables": "depth_missing"}
    depth = xr.Variable("unit", [1, 2], named)
    assert mask_of({"depth": depth}, "depth") is None
    numbers = {"depth": depth, "depth_missing": xr.Variable("unit", [1, 0])}
    assert mask_of(numbers, "depth") is None
    elsewhere = {"depth": depth, "depth_missing": xr.Variable("x", [True, False])}
    assert mask_of(elsewhere, "depth") is None
