"""Spike-triggered averages of a movie, for all units at once.

With ``counts[u, f]`` spikes of unit u in frame f, the sum of the frames before each
spike is a correlation in time of counts and pixels. Two ways compute it, whichever
costs less: a sparse matrix product per lag, where there are few spikes, and Fourier
transforms of short blocks, whose products are added up before one transform back.
The second needs about a twentieth of the operations of a dense matrix product.
"""

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from labtree.errors import ConfigurationError
from labtree.optional import require
from labtree.storage.arguments import integer

SLAB_BYTES = 256 * 2**20  # of the movie, read at a time
TILE_BYTES = 64 * 2**20  # working memory of one tile of its pixels
# Seconds per elementary operation, measured; only their ratio matters.
SPARSE_S, FOURIER_S = 7e-10, 5e-11


def lags_of(cover_range: tuple[int, int]) -> tuple[int, int]:
    """Return the first lag and the one after the last, in frames.

    Raises
    ------
    ConfigurationError
        If there is no lag between them.
    """
    first, last = map(int, cover_range) if np.shape(cover_range) == (2,) else (0, 0)
    if not first < last:
        raise ConfigurationError(
            f"cover_range must be (first, last) with first < last, in frames, got "
            f"{cover_range!r}"
        )
    return first, last


def valid_counts(counts: np.ndarray, cover_range: tuple[int, int]) -> np.ndarray:
    """Return the counts of spikes whose frames all exist, shifted to the first frame.

    A spike in frame f is valid if ``f + cover_range[0] >= 0`` and ``f +
    cover_range[1] <= n_frames``. Column g of the result holds the spikes whose first
    frame is g.

    Examples
    --------
    >>> valid_counts(np.array([[1, 2, 3, 4]]), (-2, 0))
    array([[3, 4]])
    """
    first, last = lags_of(cover_range)
    n_frames = counts.shape[1]
    low, high = max(-first, 0), min(n_frames - last, n_frames - 1)
    lead = max(first, 0)  # frames that no window reaches back to
    shifted = counts[:, low : max(high + 1, low)]
    return np.pad(shifted, ((0, 0), (lead, 0))) if lead else shifted


def _block(n_lags: int, n_frames: int) -> tuple[int, int]:
    """Return the transform's length and how many frames each block advances."""
    length = 1 << max(int(np.ceil(np.log2(4 * n_lags))), 5)
    while length > 2 * n_lags and length // 2 >= n_frames + n_lags:
        length //= 2
    return length, length - n_lags + 1


def _fourier_counts(counts: np.ndarray, n_lags: int, n_frames: int) -> np.ndarray:
    """Return the conjugate transform of blocks of counts, (frequency, unit, block)."""
    fft = require("scipy.fft", purpose="spike-triggered averages", extra="mea")
    length, hop = _block(n_lags, n_frames)
    n_blocks = max(-(-counts.shape[1] // hop), 1)
    blocks = np.zeros((len(counts), n_blocks, length))
    padded = np.zeros((len(counts), n_blocks * hop))
    padded[:, : counts.shape[1]] = counts
    blocks[:, :, :hop] = padded.reshape(len(counts), n_blocks, hop)
    return np.ascontiguousarray(np.conj(fft.rfft(blocks, axis=2)).transpose(2, 0, 1))


def _fourier_movie(pixels: np.ndarray, n_lags: int, n_blocks: int) -> np.ndarray:
    """Return the transform of overlapping blocks of frames, (frequency, block, pixel)."""
    fft = require("scipy.fft", purpose="spike-triggered averages", extra="mea")
    length, hop = _block(n_lags, len(pixels))
    blocks = np.zeros((n_blocks, length, pixels.shape[1]))
    for index in range(n_blocks):
        part = pixels[index * hop : index * hop + length]
        blocks[index, : len(part)] = part
    return np.asarray(fft.rfft(blocks, axis=1)).transpose(1, 0, 2)


def _back(product: np.ndarray, n_lags: int, length: int) -> np.ndarray:
    """Return the first lags of the inverse transform, (unit, lag, pixel)."""
    fft = require("scipy.fft", purpose="spike-triggered averages", extra="mea")
    n_frequencies, n_units, n_pixels = product.shape
    flat = product.reshape(n_frequencies, -1)
    whole = fft.irfft(flat, n=length, axis=0)[:n_lags]
    return np.asarray(whole).reshape(n_lags, n_units, n_pixels).transpose(1, 0, 2)


def _prefers_sparse(counts: np.ndarray, n_lags: int, n_frames: int) -> bool:
    length, hop = _block(n_lags, n_frames)
    n_blocks = max(-(-counts.shape[1] // hop), 1)
    sparse = np.count_nonzero(counts) * n_lags * SPARSE_S
    # products of all blocks, the movie's transform, and the transform back
    fourier = (
        4 * length * n_blocks * len(counts) + 60 * length * (n_blocks + len(counts))
    ) * FOURIER_S
    return bool(sparse < fourier)


def _prepare(counts: np.ndarray, n_lags: int, n_frames: int, sparse: bool | None) -> Any:
    """Return counts as `_sums` takes them; by default for the way that costs less."""
    if sparse is None:
        sparse = _prefers_sparse(counts, n_lags, n_frames)
    if sparse:
        matrices = require("scipy.sparse", purpose="spike-triggered averages", extra="mea")
        return matrices.csr_matrix(counts.astype(np.float64))
    return _fourier_counts(counts, n_lags, n_frames)


def _sums(
    movie: np.ndarray, prepared: Any, n_lags: int, transformed: np.ndarray | None = None
) -> np.ndarray:
    """Return ``sum over g of counts[u, g] * movie[g + lag, p]`` as (unit, lag, pixel).

    Sums of an integer movie are exact. `transformed` is the movie's transform, where it is
    known.
    """
    if not isinstance(prepared, np.ndarray):
        pixels = np.ascontiguousarray(movie, np.float64)
        out = np.empty((prepared.shape[0], n_lags, movie.shape[1]))
        for lag in range(n_lags):
            out[:, lag] = prepared @ pixels[lag : lag + prepared.shape[1]]
        return out
    if transformed is None:
        transformed = _fourier_movie(movie, n_lags, prepared.shape[2])
    length, _ = _block(n_lags, len(movie))
    sums = _back(np.matmul(prepared, transformed), n_lags, length)
    return np.rint(sums) if movie.dtype.kind in "bui" else sums


def _tiles(
    n_pixels: int, n_frames: int, n_units: int, n_lags: int, wide: bool
) -> Iterator[slice]:
    length, hop = _block(n_lags, n_frames)
    n_blocks = n_frames // hop + 1
    per_pixel = 8 * (n_frames + 3 * length * n_blocks + 3 * length * n_units)
    return _slices(n_pixels, TILE_BYTES * (4 if wide else 1) // per_pixel)


def _slices(size: int, step: int) -> Iterator[slice]:
    step = max(step, 1)
    for start in range(0, size, step):
        yield slice(start, min(start + step, size))


@contextlib.contextmanager
def _workers() -> Iterator[int]:
    """Return how many tiles to work on at the same time.

    The products of one tile are too small for several threads, which would spend their
    time waiting for each other; so each tile has one thread, if threadpoolctl is there.
    """
    try:
        import threadpoolctl
    except ImportError:
        yield 1
        return
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        if hasattr(os, "sched_getaffinity"):
            yield len(os.sched_getaffinity(0))
        else:
            yield os.cpu_count() or 1


def spike_triggered_average(
    movie: np.ndarray,
    counts: np.ndarray,
    cover_range: tuple[int, int] = (-60, 0),
    *,
    subtract_mean: bool = False,
    permutations: int = 0,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return the mean of the movie's frames around each unit's spikes.

    Parameters
    ----------
    movie : array (frame, ...)
        Any numeric array or memory map; it is read in tiles of pixels. Of a dask array
        each block of pixels is averaged where dask computes: on a cluster, if there is
        one.
    counts : int array (unit, frame)
        Spikes of each unit in each frame.
    cover_range : (int, int)
        Frames relative to the spike's own, the last one excluded.
    subtract_mean : bool
        Whether the movie's mean frame is subtracted.
    permutations : int
        If above 0, the average is compared with that many averages after each unit's
        counts were rotated in time by a random amount: ``z = (average - mean) / sd``.
    seed : int
        Of the rotations.

    Returns
    -------
    average : array of float32 (unit, lag, ...)
        NaN for a unit without a valid spike.
    n_spikes : array of int64 (unit,)
        Valid spikes.
    z : array of float32 (unit, lag, ...) or None
        NaN where the rotations do not vary.

    Raises
    ------
    ConfigurationError
        If the movie is not numeric or not finite.

    Examples
    --------
    >>> movie = np.arange(5)[:, None]
    >>> counts = np.array([[0, 0, 1, 0, 1]])
    >>> average, n_spikes, _ = spike_triggered_average(movie, counts, (-2, 0))
    >>> average.ravel(), n_spikes
    (array([1., 2.], dtype=float32), array([2]))
    """
    if movie.ndim < 1 or movie.dtype.kind not in "buif":
        raise ConfigurationError(
            f"a movie must be a numeric array (frame, ...), got {movie.dtype} {movie.shape}"
        )
    integer("permutations", permutations, 0, error=ConfigurationError)
    n_frames, n_units = len(movie), len(counts)
    if counts.shape[1] != n_frames:
        raise ValueError(f"counts of {counts.shape[1]} frames for a movie of {n_frames}")
    if hasattr(movie, "dask"):
        return _by_blocks(
            movie, counts, cover_range,
            subtract_mean=subtract_mean, permutations=permutations, seed=seed,
        )  # fmt: skip
    first, last = lags_of(cover_range)
    n_lags = last - first
    shifted = valid_counts(counts, cover_range)
    n_spikes = shifted.sum(axis=1).astype(np.int64)
    flat = movie.reshape(n_frames, -1)
    whole = np.full((n_units, n_lags, *movie.shape[1:]), np.nan, np.float32)
    whole_z = np.full_like(whole, np.nan) if permutations else None
    used = np.flatnonzero(n_spikes)
    if not len(used):
        return whole, n_spikes, whole_z
    average = whole.reshape(n_units, n_lags, -1)  # views, filled tile by tile
    z = None if whole_z is None else whole_z.reshape(average.shape)
    own = shifted[used]
    divisor = n_spikes[used, None, None].astype(np.float64)
    prepared = _prepare(own, n_lags, n_frames, None)
    random = np.random.default_rng(seed)
    turns = random.integers(1, max(own.shape[1], 2), size=(permutations, len(used)))
    dense = isinstance(prepared, np.ndarray)

    def work(pixels: np.ndarray, place: slice) -> None:
        movie_blocks = _fourier_movie(pixels, n_lags, prepared.shape[2]) if dense else None
        mean = _sums(pixels, prepared, n_lags, movie_blocks) / divisor
        if z is not None:
            z[used, :, place] = _z_score(
                mean, pixels, own, turns, n_lags, divisor, dense, movie_blocks
            )
        if subtract_mean:
            mean -= pixels.mean(axis=0, dtype=np.float64)
        average[used, :, place] = mean

    with _workers() as n_workers, ThreadPoolExecutor(n_workers) as pool:
        for slab in _slices(flat.shape[1], SLAB_BYTES // (n_frames * movie.dtype.itemsize)):
            pixels = np.ascontiguousarray(flat[:, slab])
            if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
                bad = int(np.flatnonzero(~np.isfinite(pixels).all(axis=1))[0])
                raise ConfigurationError(
                    f"the movie's frame {bad} holds NaN or infinite values"
                )
            # fewer and larger products where BLAS divides each among its own threads, and
            # where each tile has the counts of all permutations to transform
            wide = n_workers == 1 or permutations > 0
            tiles = list(_tiles(pixels.shape[1], n_frames, len(used), n_lags, wide))
            places = [slice(slab.start + t.start, slab.start + t.stop) for t in tiles]
            list(pool.map(work, [pixels[:, tile] for tile in tiles], places))
    return whole, n_spikes, whole_z


def _by_blocks(
    movie: Any, counts: np.ndarray, cover_range: tuple[int, int], **options: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return the same of a dask array; pixels need nothing of each other, so they are split."""
    dask = require("dask", purpose="a movie in a dask array", extra="dask")
    pixels = movie.reshape(len(movie), -1).rechunk({0: -1, 1: "auto"})
    shared = dask.delayed(counts)  # sent once, not with every block
    average = dask.delayed(spike_triggered_average, nout=3)
    parts = dask.compute(
        *(average(block, shared, cover_range, **options) for block in pixels.to_delayed()[0])
    )
    averages, n_spikes, scores = zip(*parts, strict=True)

    def joined(blocks: tuple[np.ndarray, ...]) -> np.ndarray:
        whole = np.concatenate(blocks, axis=2)
        return whole.reshape(*whole.shape[:2], *movie.shape[1:])

    return joined(averages), n_spikes[0], None if scores[0] is None else joined(scores)


def _z_score(
    mean: np.ndarray,
    pixels: np.ndarray,
    counts: np.ndarray,
    turns: np.ndarray,
    n_lags: int,
    divisor: np.ndarray,
    dense: bool,
    movie_blocks: np.ndarray | None,
) -> np.ndarray:
    """Return the average's z-score among averages of rotated counts."""
    index = np.arange(counts.shape[1])
    center = np.zeros_like(mean)
    spread = np.zeros_like(mean)
    for number, turn in enumerate(turns, start=1):  # Welford's running variance
        rotated = np.take_along_axis(counts, (index - turn[:, None]) % len(index), axis=1)
        prepared = _prepare(rotated, n_lags, len(pixels), not dense)
        other = _sums(pixels, prepared, n_lags, movie_blocks) / divisor
        step = other - center
        center += step / number
        spread += step * (other - center)
    deviation = np.sqrt(spread / len(turns))
    with np.errstate(divide="ignore", invalid="ignore"):
        score = (mean - center) / deviation
    return np.asarray(np.where(deviation > 0, score, np.nan))
