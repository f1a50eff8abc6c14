"""Sphinx configuration."""

import inspect
import os
import re
import shutil
import sys
from enum import Enum
from importlib import import_module
from pathlib import Path

import labtree

sys.path.insert(0, str(Path(__file__).parent))

project = "labtree"
author = "the labtree developers"
copyright = "2026, the labtree developers"
version = release = labtree.__version__

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
html_theme = "furo"
html_title = "labtree"
html_static_path = ["_static"]
html_css_files = ["site.css"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
# The pages of docs/performance may begin with a heading of any level.
suppress_warnings = ["myst.header"]

nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True

numpydoc_show_class_members = False
numpydoc_xref_param_type = False
numpydoc_validation_checks = {"GL06", "GL07", "PR02", "YD01"}
numpydoc_validation_exclude = {r"\.__init__$"}

# The links to files of the repository that are not pages of the site.
linkcheck_ignore = [r"https?://.*"]

# Notebooks run in a folder of their own, quietly.
os.environ.setdefault("TQDM_DISABLE", "1")

# Sphinx reads below its own folder only; the notebooks live beside it.
_here = Path(__file__).parent
shutil.copytree(_here.parent / "notebooks", _here / "notebooks", dirs_exist_ok=True)

# --- ```{names}: public names, as a table with a line for each, and then with all of their help

_NAMES = re.compile(r"^```\{names\}\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _first_line(obj: object) -> str:
    return (inspect.getdoc(obj) or "").partition("\n")[0]


def _table(rows: list[tuple[str, str]]) -> str:
    lines = [".. list-table::", "   :widths: 35 65", ""]
    for name, text in rows:
        lines += [f"   * - {name}", f"     - {text}"]
    return "\n".join(lines)


def _public_members(cls: type) -> list[str]:
    names = [name for name in dir(cls) if not name.startswith("_")]
    return [name for name in ("__getitem__",) if hasattr(cls, name)] + names


def _named(block: re.Match[str]) -> str:
    rows, details = [], []
    for line in block[1].split("\n"):
        shown, is_accessor, name = line.strip().rpartition(": ")
        if not name:
            continue
        module, _, last = name.rpartition(".")
        obj = getattr(import_module(module), last)
        if is_accessor:
            for member in _public_members(obj):
                value = inspect.getattr_static(obj, member)
                value = getattr(value, "__func__", value)
                call = "[namespace, key]" if member == "__getitem__" else f".{member}"
                call += "" if isinstance(value, property) or call[0] == "[" else "()"
                text = _first_line(getattr(value, "fget", value))
                rows.append((f":py:obj:`{shown}{call} <{name}.{member}>`", text))
            details.append(
                f".. autoclass:: {name}\n   :members:\n   :inherited-members:\n"
                "   :special-members: __getitem__, __contains__"
            )
            continue
        rows.append((f":py:obj:`{name} <{name}>`", _first_line(obj)))
        if not callable(obj):
            rows[-1] = (f"``{name}``", f"``{obj!r}``")
            continue
        if inspect.isclass(obj) and issubclass(obj, Exception):
            details.append(f".. autoexception:: {name}\n   :show-inheritance:")
        elif inspect.isclass(obj):
            members = "" if issubclass(obj, Enum | tuple) else "\n   :members:"
            details.append(f".. autoclass:: {name}{members}")
        else:
            details.append(f".. autofunction:: {name}")
    content = "\n\n".join([_table(rows), *details])
    return f"```{{eval-rst}}\n{content}\n```"


def _replace_names(app: object, page: str, source: list[str]) -> None:
    if page.startswith("reference/"):
        source[0] = _NAMES.sub(_named, source[0])


# --- links from the source code back to the reference

_BACK = re.compile(r'(class="viewcode-back" href=")([^"#]+)#([^"]+)"')


def _correct_back_links(app: object, error: Exception | None) -> None:
    """Name the anchors that are there: viewcode takes one public module for a whole file."""
    anchors = app.env.get_domain("py").objects  # type: ignore[attr-defined]

    def corrected(link: re.Match[str]) -> str:
        page = Path(link[2]).stem
        parts = link[3].split(".")
        if link[3] in anchors:
            return link[0]
        for start in range(1, len(parts)):
            own = "." + ".".join(parts[start:])
            for name, entry in anchors.items():
                if name.endswith(own) and Path(entry.docname).name == page:
                    return f'{link[1]}{link[2]}#{name}"'
        return link[0]

    for path in Path(app.outdir, "_modules").rglob("*.html"):  # type: ignore[attr-defined]
        text = path.read_text(encoding="utf-8")
        path.write_text(_BACK.sub(corrected, text), encoding="utf-8")


def setup(app):
    """Add what is above to Sphinx."""
    app.connect("source-read", _replace_names)
    app.connect("build-finished", _correct_back_links)
