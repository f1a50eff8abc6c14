"""Check what was built: its version, its files, and a tag of the commit."""

import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import version
from pathlib import Path

import labtree

folder = Path(sys.argv[1])
(wheel,) = folder.glob("labtree-*.whl")
(sdist,) = folder.glob("labtree-*.tar.gz")
with zipfile.ZipFile(wheel) as archive:
    in_wheel = set(archive.namelist())
with tarfile.open(sdist) as archive:
    in_sdist = {name.partition("/")[2] for name in archive.getnames()}

here = Path(labtree.__file__).parent
assert "site-packages" in str(here), f"{here} is not the wheel's"
installed = {
    f"labtree/{path.relative_to(here).as_posix()}"
    for path in here.rglob("*")
    if path.is_file() and path.suffix != ".pyc"
}
assert installed == {name for name in in_wheel if name.startswith("labtree/")}
for name in ("labtree/py.typed", "labtree/__init__.pyi", "labtree/demo/data/LICENSE"):
    assert name in in_wheel, f"{name} is not in {wheel.name}"
for name in (
    "README.md",
    "LICENSE",
    "src/labtree/py.typed",
    "tests/conftest.py",
    "docs/index.md",
):
    assert name in in_sdist, f"{name} is not in {sdist.name}"
assert not [name for name in in_wheel if name.startswith(("tests/", "docs/"))]

assert labtree.__version__ == version("labtree"), "the module and the wheel differ in version"
assert wheel.name.startswith(f"labtree-{labtree.__version__}-")
root = Path(__file__).parents[1]
git = ["git", "-C", str(root), "tag", "--points-at", "HEAD", "v*"]
tags = subprocess.run(git, capture_output=True, text=True, check=False).stdout.split()
assert tags in ([], [f"v{labtree.__version__}"]), f"tag {tags}, version {labtree.__version__}"
print(f"{wheel.name}: {len(in_wheel)} files, {wheel.stat().st_size / 1e6:.1f} MB")
