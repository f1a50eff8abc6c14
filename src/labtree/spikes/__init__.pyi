"""Verbs on spike trains: plain functions, Dataset in, xarray or pandas out."""

from labtree.objects.pairwise import (
    matrix_values as matrix_values,
)
from labtree.objects.unit_attributes import (
    unit_attributes as unit_attributes,
)
from labtree.spikes.correlations import (
    correlograms as correlograms,
    sttc as sttc,
)
from labtree.spikes.counts import (
    binned_counts as binned_counts,
    firing_rates as firing_rates,
    population_rate as population_rate,
    smoothed_rates as smoothed_rates,
    spike_counts as spike_counts,
)
from labtree.spikes.curation import (
    curate as curate,
)
from labtree.spikes.events import (
    latencies as latencies,
    peri_event as peri_event,
    peri_event_counts as peri_event_counts,
    psth as psth,
)
from labtree.spikes.intervals import (
    bursts as bursts,
    isi_statistics as isi_statistics,
)
from labtree.spikes.selection import (
    concatenate_time as concatenate_time,
    concatenate_units as concatenate_units,
    select_slices as select_slices,
    select_time as select_time,
    select_units as select_units,
    slices_of as slices_of,
)
from labtree.spikes.session_units import (
    from_session as from_session,
    to_session_units as to_session_units,
)
from labtree.spikes.surrogate_trains import (
    surrogates as surrogates,
)
from labtree.spikes.trains import (
    from_times as from_times,
    spike_trains as spike_trains,
    unit_train as unit_train,
)
