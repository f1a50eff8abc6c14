"""Make the pictures of the README and the site: ``python docs/pictures.py``.

Each is the richest figure of a notebook, or what the landing page's code draws.
"""

import io
import os
import re
import sys
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from PIL import Image

ROOT = Path(__file__).parents[1]
STATIC = ROOT / "docs/_static"
CELL = re.compile(r"^```\{code-cell\}[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: Each notebook whose figure is shown, with its picture and width in pixels.
PICTURES = {
    "network": ("network", 900),
    "recordings": ("emg", 900),
    "mea": ("mea", 900),
    "behavior": ("behavior", 900),
    "experiment": ("experiment", 900),
    "spikes": ("tuning", 900),
}


def run(text, pattern):
    """Run the blocks of a page one after the other; leave its figures open."""
    plt.close("all")
    namespace = {"display": lambda obj: None}
    for block in pattern.findall(text):
        exec(compile(block, "<page>", "exec"), namespace)


def save(name, width):
    """Save the figure of the most panels as a PNG of few colors."""
    figure = max(map(plt.figure, plt.get_fignums()), key=lambda figure: len(figure.axes))
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=width / figure.get_figwidth(), facecolor="white")
    image = Image.open(buffer).convert("RGB").quantize(48, dither=Image.Dither.NONE)
    path = STATIC / f"{name}.png"
    image.save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


def main(names):
    """Make the pictures of these notebooks, or all."""
    for notebook, (name, width) in PICTURES.items():
        if not names or notebook in names:
            run((ROOT / f"notebooks/{notebook}.md").read_text(encoding="utf-8"), CELL)
            save(name, width)
    if not names or "landing" in names:
        page = (ROOT / "docs/index.md").read_text(encoding="utf-8")
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            run(page, BLOCK)
            save("landing", 700)
            os.chdir(ROOT)


if __name__ == "__main__":
    main(sys.argv[1:])
