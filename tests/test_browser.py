"""What a browser makes of the displays: no script runs, they fold, they can be seen."""

import shutil
import subprocess

import numpy as np
import pytest

from support import displays

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
THEMES = {"light": ("#ffffff", "#111111", 900), "dark": ("#111111", "#eeeeee", 900)}
THEMES["narrow"] = (*THEMES["dark"][:2], 420)


def write_page(folder, theme):
    background, color, width = THEMES[theme]
    scheme = "light" if theme == "light" else "dark"
    cells = "".join(
        f'<h4>{name}</h4><div class="cell">{page}</div>'
        for name, (_, page) in displays.pages().items()
    )
    path = folder / f"{theme}.html"
    path.write_text(
        "<!doctype html><html><head><meta charset='utf-8'><title>untouched</title>"
        f"<style>html{{overflow:hidden;color-scheme:{scheme};background:{background};"
        f"color:{color};font-family:sans-serif}}.cell{{width:{width}px}}</style></head>"
        f"<body>{cells}</body></html>",
        encoding="utf-8",
    )
    return path


def run(folder, page, *options):
    return subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            f"--user-data-dir={folder / 'profile'}", *options, page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True, encoding="utf-8",
    ).stdout  # fmt: skip


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed")
@pytest.mark.parametrize("theme", THEMES)
def test_displays_in_a_browser(theme, tmp_path):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    page = write_page(tmp_path, theme)
    content = run(tmp_path, page, "--dump-dom")
    assert "<title>untouched</title>" in content
    assert "<script" not in content
    assert "<img" not in content
    written = page.read_text(encoding="utf-8")
    assert content.count("<details") == written.count("<details") > 20
    # A name that closed a tag too early would leave its cell.
    assert content.count('<div class="cell">') == len(displays.pages())

    picture = tmp_path / f"{theme}.png"
    width = THEMES[theme][2] + 40
    run(tmp_path, page, f"--screenshot={picture}", f"--window-size={width},3000")
    image = pyplot.imread(picture)[..., :3]
    background = np.array([int(THEMES[theme][0][i : i + 2], 16) / 255 for i in (1, 3, 5)])
    is_ink = np.abs(image - background).max(axis=-1) > 0.3
    assert np.allclose(image[0, 0], background, atol=0.01)
    assert 0.005 < is_ink.mean() < 0.5
    # Nothing of a cell sticks out of it.
    assert not is_ink[:, THEMES[theme][2] + 12 :].any()


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed")
def test_the_browser_would_run_a_script(tmp_path):
    page = tmp_path / "page.html"
    page.write_text(f"<title>untouched</title>{displays.SCRIPT}", encoding="utf-8")
    assert "<title>untouched</title>" not in run(tmp_path, page, "--dump-dom")
