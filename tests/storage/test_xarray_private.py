"""What labtree uses of xarray's private parts is there and does what is expected."""

import numpy as np
import pytest
import xarray as xr

from labtree.storage import _xarray


def test_all_names_are_there():
    assert all(getattr(_xarray, name) is not None for name in _xarray.__all__)


def test_data_are_seen_without_being_read():
    values = np.arange(3)
    variable = xr.Variable("x", values)
    assert _xarray.data_of(variable) is values
    assert _xarray.data_of(xr.DataArray(variable)) is values
    assert _xarray.is_in_memory(variable)
    assert _xarray.is_in_memory(xr.DataArray(variable))
    pytest.importorskip("dask")
    assert not _xarray.is_in_memory(variable.chunk({"x": 1}))


def test_no_other_module_uses_private_parts():
    import re
    from pathlib import Path

    import labtree

    own = {"_xarray.py", "nodes.py"}
    private = re.compile(
        r"xarray\.(core|namedarray)\b|\bvariable\._data\b|\._(children|parent)\b"
    )
    found = [
        f"{path.name}: {line.strip()}"
        for path in Path(labtree.__file__).parent.joinpath("storage").rglob("*.py")
        if path.name not in own
        for line in path.read_text(encoding="utf-8").splitlines()
        if private.search(line)
    ]
    assert found == []
