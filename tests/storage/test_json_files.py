"""JSON files are whole or not there, and anything else is named."""

import pytest

from labtree.errors import FormatError, MissingFileError
from labtree.storage.json_files import parse_json, read_json, write_json


def test_values_come_back_as_text_that_people_read(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"name": "Zürich", "n": [1, 2.5, None]})
    assert read_json(path) == {"name": "Zürich", "n": [1, 2.5, None]}
    assert '"Zürich"' in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}])
def test_what_json_cannot_hold_leaves_the_old_file(tmp_path, value):
    path = tmp_path / "a.json"
    write_json(path, 1)
    with pytest.raises((ValueError, TypeError)):
        write_json(path, [value])
    assert read_json(path) == 1
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_is_named(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"a\.json: expected JSON, found b"):
        read_json(path)
    with pytest.raises(FormatError, match=r"^meta: expected JSON"):
        parse_json(content, "meta")


def test_a_file_that_is_missing_or_too_large_is_named(tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(MissingFileError, match="no such file"):
        read_json(path)
    write_json(path, list(range(100)))
    with pytest.raises(FormatError, match="expected at most 10"):
        read_json(path, 10)
