"""How damage is told: what was lost, and where, without losing the rest."""

import warnings
from collections.abc import Iterable

from labtree.errors import DamageWarning

__all__ = ["warn_of_damage"]


def warn_of_damage(notes: Iterable[str], stacklevel: int = 2) -> None:
    """Give one warning that tells all the notes; none for no notes."""
    notes = list(notes)
    if notes:
        warnings.warn("\n".join(notes), DamageWarning, stacklevel=stacklevel + 1)
