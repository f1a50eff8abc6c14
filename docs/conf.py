"""Sphinx configuration."""

import os
import shutil
from pathlib import Path

import labtree

project = "labtree"
author = "the labtree developers"
copyright = "2026, the labtree developers"
version = release = labtree.__version__

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build", "**.ipynb_checkpoints", "performance/*"]
html_theme = "furo"
html_title = "labtree"
html_static_path = ["_static"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True

autosummary_generate = True
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
numpydoc_validation_checks = {"GL06", "GL07", "PR02", "YD01"}
numpydoc_validation_exclude = {r"\.__init__$"}

# Notebooks run in a folder of their own, quietly.
os.environ.setdefault("TQDM_DISABLE", "1")

# Sphinx reads below its own folder only; the notebooks live beside it.
_here = Path(__file__).parent
shutil.copytree(_here.parent / "notebooks", _here / "notebooks", dirs_exist_ok=True)
