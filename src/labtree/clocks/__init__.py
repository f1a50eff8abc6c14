"""Clocks of two devices that saw the same events, compared and converted.

The rules:

- Pulses are matched by the intervals between them, which survives lost and additional
  pulses and steps of either clock; events that carry a value (barcodes) by the value.
- A clock is a sequence of segments, in each of which ``b`` is a straight line of ``a``. Where
  there is more than one, each holds at least four anchors.
- More than half of the anchors must lie within ``max_residual_s`` of their segment.
- From one segment to the next the clock either bends (the rate drifted: times between
  their anchors are interpolated) or jumps (one clock was set or lost time: where exactly
  is unknown, so a time between the two anchors has no counterpart and becomes NaN).
"""

from labtree.clocks.converting import convert
from labtree.clocks.fitting import fit
from labtree.clocks.matching import match_pulses

__all__ = ["convert", "fit", "match_pulses"]


def __dir__() -> list[str]:
    return __all__
