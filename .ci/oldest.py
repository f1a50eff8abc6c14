"""Print the lowest versions that pyproject.toml promises, as constraints for pip."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
wanted = [*project["dependencies"]]
for extra, requirements in project["optional-dependencies"].items():
    if extra in {"test", "lint", "docs"}:  # tools of development are used as they come
        continue
    wanted += requirements
for requirement in wanted:
    match = re.fullmatch(r"([A-Za-z0-9_.-]+)(\[[^\]]*\])?>=([0-9.]+)", requirement)
    if match:
        print(f"{match[1]}=={match[3]}")
