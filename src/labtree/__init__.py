"""A neurophysiology lab's data as xarray trees and pandas tables.

Importing labtree registers its accessors (``.ws``, ``.session``, ``.msw``) on
xarray and pandas objects. The public names are listed in ``__init__.pyi`` and loaded
when they are first used, so that the import itself stays quick.
"""

from labtree._lazy import attach_stub as _attach_stub
from labtree.accessors import (
    msw as _msw,  # noqa: F401, registers .msw
)
from labtree.accessors import (
    session as _session,  # noqa: F401, registers .session
)
from labtree.accessors import (
    workspace as _workspace,  # noqa: F401, registers .ws
)

__getattr__, __dir__, __all__ = _attach_stub(__name__, __file__)
# "from labtree import *" must not hide the builtin.
__all__.remove("open")
