"""Synthetic data: spikes, recordings, CMOS-MEA files, Murine Shift Work sessions."""

from labtree.testing.mea import (
    MeaTruth as MeaTruth,
    write_recording as write_recording,
)
from labtree.testing.msw import (
    ERAS as ERAS,
    make_trials as make_trials,
    make_ttl_edges as make_ttl_edges,
    write_log as write_log,
    write_session as write_session,
)
from labtree.testing.recordings import (
    CLASS_NAMES as CLASS_NAMES,
    record_emg as record_emg,
    simulate_emg as simulate_emg,
)
from labtree.testing.spikes import (
    synthetic_pairwise_matrix as synthetic_pairwise_matrix,
    synthetic_pairwise_stack as synthetic_pairwise_stack,
    synthetic_rate_data as synthetic_rate_data,
    synthetic_rate_slice_stack as synthetic_rate_slice_stack,
    synthetic_responses as synthetic_responses,
    synthetic_spike_data as synthetic_spike_data,
    synthetic_spike_slice_stack as synthetic_spike_slice_stack,
)
