"""Pipeline sessions: trees that steps fill, saved and resumed.

Packages of steps, such as ``labtree.mea``, declare here which steps they hold and how the
dimensions of their arrays are called; the pipeline itself contains nothing about
recordings.
"""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

__all__ = ["declare_dimensions", "declare_steps", "dimensions", "module_of_step"]

_MODULES: dict[str, str] = {}
_DIMENSIONS: dict[str, tuple[str, ...]] = {}


def declare_steps(module: str, names: Iterable[str]) -> None:
    """Declare which module holds steps, so that errors can name the line that runs them."""
    _MODULES.update(dict.fromkeys(names, module))


def module_of_step(name: str) -> str:
    """Return the module that holds a step, or "" if none is known."""
    return _MODULES.get(name, "")


def declare_dimensions(names: Mapping[str, tuple[str, ...]]) -> None:
    """Declare the names of the dimensions of arrays; keys are names or patterns with ``*``."""
    _DIMENSIONS.update(names)


def dimensions(name: str, variable: str, n_dims: int) -> tuple[str, ...]:
    """Return the names of an array's dimensions: as declared, or after its variable."""
    declared = next((d for p, d in _DIMENSIONS.items() if fnmatchcase(name, p)), ())
    if len(declared) == n_dims:
        return declared
    return tuple(f"{variable}_dim{axis}" for axis in range(n_dims))
