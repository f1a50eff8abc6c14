import os
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "labtree",
    deadline=None,  # the machine that runs the tests may be busy
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("labtree")


@pytest.fixture
def cut_catalogue():
    """Give a function that cuts a file's catalogue off, so that the file is walked."""

    def cut(path: Path) -> None:
        data = path.read_bytes()
        magic, *_, text, values = struct.unpack("<8sIIIIQQ8x", data[-48:])
        assert magic == b"labtree\n"
        os.truncate(path, len(data) - 48 - text - values)

    return cut
