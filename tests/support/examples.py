"""How many examples a property is tried on: few on every run, many when asked."""

import os

THOROUGH = os.environ.get("LABTREE_THOROUGH", "") not in ("", "0")


def examples(thorough: int) -> int:
    """Return ``thorough`` where LABTREE_THOROUGH is set, and else a quarter of it, at least 5.

    >>> examples(100) in (25, 100)
    True
    """
    return thorough if THOROUGH else min(thorough, max(5, thorough // 4))
