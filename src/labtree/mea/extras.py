"""Optional packages, loaded where they are needed."""

from importlib import import_module
from typing import Any

__all__ = ["need"]


def need(module: str, purpose: str, extra: str = "mea") -> Any:
    """Import a module of an extra, or say what it is for and how to install it."""
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(
            f'{purpose} needs {package}; install it with: pip install "labtree[{extra}]"'
        ) from error
