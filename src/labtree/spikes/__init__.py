"""Verbs on spike trains: plain functions, Dataset in, xarray or pandas out.

They take the Datasets of :func:`labtree.spike_data`. Times are in ms, and results carry
units and parameters as attributes.
"""

from labtree.objects.pairwise import matrix_values
from labtree.objects.unit_attributes import unit_attributes
from labtree.spikes.correlations import correlograms, sttc
from labtree.spikes.counts import (
    binned_counts,
    firing_rates,
    population_rate,
    smoothed_rates,
    spike_counts,
)
from labtree.spikes.curation import curate
from labtree.spikes.events import latencies, peri_event, peri_event_counts, psth
from labtree.spikes.intervals import bursts, isi_statistics
from labtree.spikes.selection import (
    concatenate_time,
    concatenate_units,
    select_slices,
    select_time,
    select_units,
    slices_of,
)
from labtree.spikes.sessions import from_session, to_session_units
from labtree.spikes.surrogates import surrogates
from labtree.spikes.trains import from_times, spike_trains, unit_train

__all__ = [
    "binned_counts",
    "bursts",
    "concatenate_time",
    "concatenate_units",
    "correlograms",
    "curate",
    "firing_rates",
    "from_session",
    "from_times",
    "isi_statistics",
    "latencies",
    "matrix_values",
    "peri_event",
    "peri_event_counts",
    "population_rate",
    "psth",
    "select_slices",
    "select_time",
    "select_units",
    "slices_of",
    "smoothed_rates",
    "spike_counts",
    "spike_trains",
    "sttc",
    "surrogates",
    "to_session_units",
    "unit_attributes",
    "unit_train",
]


def __dir__() -> list[str]:
    return __all__
