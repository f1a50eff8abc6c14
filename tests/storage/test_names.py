"""Names of any kind as names that a file can hold."""

import netCDF4
import pytest
import xarray as xr
from hypothesis import example, given
from hypothesis import strategies as st

from labtree.storage import open_tree, save_tree
from labtree.storage.names import LONGEST, check_name, decode_name, encode_name, is_legal
from support import strategies


@given(strategies.names() | strategies.texts().filter(bool))
@example("a%2Fb")
@example("\ud800")
def test_names_come_back(name):
    encoded = encode_name(name)
    assert len(encoded.encode()) <= LONGEST
    assert "/" not in encoded
    assert "\0" not in encoded
    assert encoded not in (".", "..", "")
    if "%~" in encoded:
        assert decode_name(encoded) != name
        assert encode_name(name) == encoded
    else:
        assert decode_name(encoded) == name
    assert is_legal(encoded)


@given(st.lists(strategies.names(), unique=True, max_size=20))
def test_different_names_stay_different(names):
    assert len({encode_name(name) for name in names}) == len(names)
    assert len({encode_name(name * 80) for name in names}) == len({name * 80 for name in names})


@given(st.lists(strategies.names().map(encode_name), unique=True, max_size=6))
def test_netcdf_and_labtree_hold_them(tmp_path, names):
    path = tmp_path / "t.h5"
    tree = xr.DataTree.from_dict({f"/{name}": xr.Dataset({"v": 1}) for name in names})
    save_tree(tree, path)
    with netCDF4.Dataset(path) as file:
        assert len(file.groups) == len(names)
    opened = open_tree(path)
    assert list(opened.children) == names
    opened.close()


def test_what_is_no_name():
    assert check_name("a/b", "key") == "a/b"
    for name, error, message in [
        (5, TypeError, r"a key is a str, not int \(5\)$"),
        (list(range(99)), TypeError, r"a key is a str, not list \(\[0, 1, .{53}\)$"),
        ("", ValueError, "a key needs at least one character"),
        ("a\0b", ValueError, r"key 'a\\x00b' holds a NUL character, which no file keeps"),
        ("\ud800", ValueError, "holds a lone surrogate, which is no text"),
    ]:
        with pytest.raises(error, match=message):
            check_name(name, "key")
