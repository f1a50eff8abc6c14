import os
import sys

import pytest
from hypothesis import settings

os.environ.setdefault("MPLBACKEND", "agg")
# Shared machines are slow at times; how long an example takes says nothing.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        pyplot.close("all")
