"""The pages' code runs, with warnings as errors."""

import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

mpl.use("Agg")
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("page", ["docs/behavior.md", "notebooks/behavior.md"])
def test_the_code_of_a_page_runs(page: str) -> None:
    import matplotlib.pyplot as plt

    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```(?:\{code-cell\} )?i?python3?\n(.*?)^```$", text, re.S | re.M)
    assert len(blocks) > 5
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)
    plt.close("all")
