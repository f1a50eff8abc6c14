"""Synthetic spike trains, rates, slices and matrices; the same for the same seed."""

import numpy as np
import pandas as pd
import xarray as xr

from labtree.objects.pairwise import pairwise_matrix, pairwise_stack
from labtree.objects.rate_data import rate_data
from labtree.objects.rate_slice_stack import rate_slice_stack
from labtree.objects.spike_data import spike_data
from labtree.objects.spike_slice_stack import spike_slice_stack

__all__ = [
    "synthetic_pairwise_matrix",
    "synthetic_pairwise_stack",
    "synthetic_rate_data",
    "synthetic_rate_slice_stack",
    "synthetic_responses",
    "synthetic_spike_data",
    "synthetic_spike_slice_stack",
]


def synthetic_spike_data(
    n_units: int = 20, *, length: float = 1000.0, rate: float = 20.0, seed: int = 0
) -> xr.Dataset:
    """Make Poisson trains whose units fire together in bursts, with channels and quality.

    Parameters
    ----------
    n_units : int
    length : float
        In ms.
    rate : float
        Mean firing rate of a unit in Hz. Of the first unit most spikes lie in bursts that
        all share, of the last one none.
    seed : int

    Returns
    -------
    Dataset
        Of the kind ``spike_data``.

    Examples
    --------
    >>> synthetic_spike_data(5).sizes["unit"]
    5
    """
    random = np.random.default_rng(seed)
    bursts = random.uniform(0, length, max(1, int(length / 800)))
    trains = []
    for part in np.linspace(0.7, 0, n_units):
        mean = rate * length / 1000
        alone = random.uniform(0, length, random.poisson((1 - part) * mean))
        n_together = random.poisson(part * mean)
        together = random.choice(bursts, n_together) + random.normal(0, 12, n_together)
        trains.append(np.clip(np.concatenate([alone, together]), 0, length))
    attributes = [
        {"channel": unit // 2, "quality": "good" if unit % 3 else "mua"}
        for unit in range(n_units)
    ]
    return spike_data(
        trains,
        length=length,
        neuron_attributes=attributes,
        metadata={"source": "synthetic", "seed": seed},
    )


def synthetic_responses(
    n_units: int = 6, n_trials: int = 80, *, seed: int = 0
) -> tuple[xr.Dataset, pd.DataFrame]:
    """Make units that respond to a cue, and the table of the trials with its times.

    Parameters
    ----------
    n_units : int
        Every second one responds, most strongly the last.
    n_trials : int
    seed : int

    Returns
    -------
    units : Dataset
        A ``spike_data``, with the coordinate ``quality``.
    trials : DataFrame
        ``go``, when the cue came, in s; ``choice``, "left" or "right"; ``rewarded``.

    Examples
    --------
    >>> units, trials = synthetic_responses()
    >>> units.sizes["unit"], trials.columns.tolist()
    (6, ['go', 'choice', 'rewarded'])
    """
    random = np.random.default_rng(seed)
    go = 1000.0 + np.cumsum(random.uniform(2000, 4000, n_trials))
    length = float(np.ceil(go.max(initial=1000) + 2000))
    trains = []
    for unit in range(n_units):
        alone = random.uniform(0, length, random.poisson(6 * length / 1000))
        n_spikes = random.poisson(2 + unit, n_trials) if unit % 2 else np.zeros(n_trials, int)
        delays = 80 + random.gamma(2, 40, n_spikes.sum())
        answers = np.repeat(go, n_spikes) + delays
        trains.append(np.concatenate([alone, answers[answers < length]]))
    quality = [{"quality": "good" if unit else "mua"} for unit in range(n_units)]
    trials = pd.DataFrame(
        {
            "go": go / 1000,
            "choice": random.choice(["left", "right"], n_trials),
            "rewarded": random.random(n_trials) < 0.7,
        }
    )
    return spike_data(trains, length=length, neuron_attributes=quality), trials


def synthetic_rate_data(
    n_units: int = 20, n_times: int = 100, *, step: float = 10.0, seed: int = 0
) -> xr.Dataset:
    """Make rates in Hz that rise and fall, every `step` ms.

    Parameters
    ----------
    n_units, n_times : int
    step : float
        Time between two rates, in ms.
    seed : int
        The same seed gives the same values.

    Returns
    -------
    Dataset
        Of the kind ``rate_data``.

    Examples
    --------
    >>> synthetic_rate_data(5).rate.shape
    (5, 100)
    """
    random = np.random.default_rng(seed)
    time = np.arange(n_times) * step
    phase = random.uniform(0, 2 * np.pi, (n_units, 1))
    rates = 10 + 8 * np.sin(time / 100 + phase) + random.normal(0, 0.5, (n_units, n_times))
    return rate_data(rates, time, neuron_attributes={"channel": np.arange(n_units)})


def synthetic_rate_slice_stack(
    n_units: int = 20, n_times: int = 50, n_slices: int = 10, *, seed: int = 0
) -> xr.Dataset:
    """Make rates around events, with a response that differs from unit to unit.

    Parameters
    ----------
    n_units, n_times, n_slices : int
    seed : int
        The same seed gives the same values.

    Returns
    -------
    Dataset
        Of the kind ``rate_slice_stack``.

    Examples
    --------
    >>> synthetic_rate_slice_stack(5).rate.shape
    (5, 50, 10)
    """
    random = np.random.default_rng(seed)
    shape = (n_units, n_times, n_slices)
    response = np.exp(-(((np.arange(n_times) - n_times / 2) / 5) ** 2))
    gain = random.uniform(0, 20, (n_units, 1, 1))
    stack = 5 + gain * response[:, np.newaxis] + random.normal(0, 1, shape)
    starts = np.arange(n_slices) * 2.0 * n_times
    return rate_slice_stack(stack, np.stack([starts, starts + n_times], axis=1))


def synthetic_spike_slice_stack(
    n_units: int = 20, n_slices: int = 10, *, length: float = 200.0, seed: int = 0
) -> xr.Dataset:
    """Make spike trains around events, from 50 ms before each.

    Parameters
    ----------
    n_units, n_slices : int
    length : float
        Of each slice, in ms.
    seed : int
        The same seed gives the same values.

    Returns
    -------
    Dataset
        Of the kind ``spike_slice_stack``.

    Examples
    --------
    >>> synthetic_spike_slice_stack(5).row_size.shape
    (10, 5)
    """
    random = np.random.default_rng(seed)
    slices = []
    for _ in range(n_slices):
        trains = [
            np.clip(
                np.concatenate(
                    [random.uniform(-50, length - 50, 5), random.normal(30, 10, unit % 5)]
                ),
                -50,
                length - 50,
            )
            for unit in range(n_units)
        ]
        slices.append(spike_data(trains, start_time=-50, length=length))
    starts = np.arange(n_slices) * 2 * length
    return spike_slice_stack(slices, np.stack([starts, starts + length], axis=1))


def synthetic_pairwise_matrix(n_units: int = 20, *, seed: int = 0) -> xr.Dataset:
    """Make a symmetric matrix of correlations, with a label for each unit.

    Parameters
    ----------
    n_units : int
    seed : int
        The same seed gives the same values.

    Returns
    -------
    Dataset
        Of the kind ``pairwise_matrix``.

    Examples
    --------
    >>> synthetic_pairwise_matrix(5).label_i.values.tolist()
    ['u0', 'u1', 'u2', 'u3', 'u4']
    """
    return pairwise_matrix(
        _correlations(n_units, seed),
        labels=[f"u{unit}" for unit in range(n_units)],
        metadata={"method": "correlation"},
    )


def synthetic_pairwise_stack(
    n_units: int = 20, n_slices: int = 3, *, seed: int = 0
) -> xr.Dataset:
    """Make a symmetric matrix of correlations for each slice.

    Parameters
    ----------
    n_units, n_slices : int
    seed : int
        The same seed gives the same values.

    Returns
    -------
    Dataset
        Of the kind ``pairwise_stack``.

    Examples
    --------
    >>> synthetic_pairwise_stack(5).matrix.shape
    (5, 5, 3)
    """
    matrices = [_correlations(n_units, seed + at) for at in range(n_slices)]
    times = [(100.0 * at, 100.0 * (at + 1)) for at in range(n_slices)]
    return pairwise_stack(np.stack(matrices, axis=2), times=times)


def _correlations(n_units: int, seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    values = np.random.default_rng(seed).normal(size=(n_units, 200))
    return np.atleast_2d(np.corrcoef(values))
