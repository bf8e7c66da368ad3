"""The loops over single filters, compiled by Numba.

Each reads a block ``(9, n) float32`` once, a tile of filters at a time that stays in the nearest cache, where NumPy
would carry every intermediate result through memory; and holds no lock of Python's, so that threads do not wait for
each other. All sums are float64. What they compute is defined where they are called: `layer_scan`, `coordinates`. All
but `extent` have to be kept from NaN and infinity, for which a bin could lie anywhere in memory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numba
import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from warehouse.statistics import SIZE

TILE = 256
"""Filters worked on at a time: few enough for the cache, enough to fill the registers."""
MAGNITUDE = np.int32(0x7FFFFFFF)
"""The bits of a float32 but for its sign; as integers they are ordered as magnitudes are."""
INFINITY = np.int32(0x7F800000)
"""The magnitude of infinity; that of NaN is greater."""


# Sums are taken in any order, a product and a sum rounded together, and no value is NaN; the rules of division by zero
# are NumPy's, as Python's would be a branch in each loop.
_compiled = partial(numba.njit, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz", "nnan"})


def _kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function when it is first called, and keep the result for later processes where there is a place."""
    try:
        kernel: Callable[..., Any] = _compiled(function, cache=True)
    except RuntimeError:  # neither the package's folder nor the user's can be written
        return _compiled(function)
    cache = getattr(kernel, "_cache", None)
    if cache is not None:
        _tolerate(cache)
    return kernel


def _tolerate(cache: Any) -> None:
    """Have Numba's cache of a function do without: a full disk or a damaged file is no reason not to run it."""
    load, save = cache.load_overload, cache.save_overload

    def load_if_sound(*wanted: Any) -> Any:
        try:
            return load(*wanted)
        except Exception:  # unpickling promises no particular error
            with contextlib.suppress(OSError):
                cache.flush()
            return None

    def save_if_possible(*compiled: Any) -> None:
        with contextlib.suppress(OSError):
            save(*compiled)

    cache.load_overload, cache.save_overload = load_if_sound, save_if_possible


def flat(block: NDArray[np.float32]) -> tuple[NDArray[np.float32], int, int]:
    """The memory of a block ``(9, n)`` as a vector, the distance of its rows in it, and n.

    Numba's loops are fast over contiguous vectors only, and a block is often a part of a larger one.
    """
    n = block.shape[1]
    if n and (block.strides[1] != block.itemsize or block.strides[0] < 0):
        block = np.ascontiguousarray(block)
    step = block.strides[0] // block.itemsize
    return as_strided(block, ((SIZE - 1) * step + n if n else 0,), (block.itemsize,), writeable=False), step, n


@_kernel
def extent(values: Any, bits: Any, step: int, n: int) -> tuple[int, np.int32, float]:
    """Filters with a NaN or infinite weight, the bits of the largest magnitude, and the sum of all weights.

    Parameters
    ----------
    values, bits
        The memory of the block as float32 and as int32.
    step, n
        As `flat` gives them.
    """
    peak = np.empty(TILE, np.int32)
    n_nonfinite, highest, total = 0, np.int32(0), 0.0
    for start in range(0, n, TILE):
        m = min(TILE, n - start)
        peak[:m] = 0
        for i in range(SIZE):
            first = i * step + start
            row, row_bits = values[first : first + m], bits[first : first + m]
            for j in range(m):
                total += np.float64(row[j])
            for j in range(m):
                peak[j] = max(peak[j], row_bits[j] & MAGNITUDE)
        for j in range(m):
            n_nonfinite += peak[j] >= INFINITY
            highest = max(highest, peak[j])
    return n_nonfinite, highest, total


@_kernel
def scan(
    values: Any,
    step: int,
    n: int,
    threshold: float,
    weight_mean: float,
    trial: Any,
    peaks: Any,
    box: Any,
    counts: Any,
    means: Any,
    scatters: Any,
) -> tuple[float, float]:
    """All sums over a block without NaN or infinity; returns those of magnitudes and of distances from the mean.

    Parameters
    ----------
    values, step, n
        As `flat` gives them.
    threshold
        Peak below which a filter is sparse; one of zeros always is.
    weight_mean
        Of all weights of the layer.
    trial
        ``(9, 9) float32`` axes of the box.
    peaks
        ``(n,) float32``, out: the largest magnitude of each filter, in any order.
    box
        ``(9, 2) float32``, out: least and greatest projection on each axis.
    counts
        ``(2,) int64``, out: clean and sparse filters.
    means, scatters
        ``(2, 2, 9)`` and ``(2, 2, 9, 9)`` zeros, out: moments of clean and of sparse filters, as they are and scaled.
    """
    x, scaled = np.empty((SIZE, TILE)), np.empty((SIZE, TILE))
    single = np.empty((SIZE, TILE), np.float32)
    low, high = np.full((SIZE, TILE), np.float32(np.inf)), np.full((SIZE, TILE), np.float32(-np.inf))
    magnitudes, distances = 0.0, 0.0
    for start in range(0, n, TILE):
        m = min(TILE, n - start)
        peak = peaks[start : start + m]
        _load(values, step, start, x, peak)
        n_clean = _clean_first(x, peak, threshold)
        _divide(x, peak, scaled)
        for i in range(SIZE):
            for j in range(m):
                magnitudes += abs(x[i, j])
                distances += abs(x[i, j] - weight_mean)
                single[i, j] = scaled[i, j]
        _widen(trial, single, m, low, high)
        for sparse, first, last in ((0, 0, n_clean), (1, n_clean, m)):
            if last > first:
                _add(x, first, last, counts[sparse], means[sparse, 0], scatters[sparse, 0])
                _add(scaled, first, last, counts[sparse], means[sparse, 1], scatters[sparse, 1])
                counts[sparse] += last - first
    _ends(low, high, box)
    return magnitudes, distances


@_kernel
def extremes(values: Any, step: int, n: int, loadings: Any, ends: Any) -> None:
    """``ends (9, 2)``, out: least and greatest projection of the scaled filters on each row of ``loadings (9, 9)``."""
    x, peak = np.empty((SIZE, TILE)), np.empty(TILE, np.float32)
    low, high = np.full((SIZE, TILE), np.inf), np.full((SIZE, TILE), -np.inf)
    for start in range(0, n, TILE):
        m = min(TILE, n - start)
        _load(values, step, start, x, peak[:m])
        _divide(x, peak[:m], x)
        _widen(loadings, x, m, low, high)
    _ends(low, high, ends)


@_kernel
def histogram(values: Any, step: int, n: int, loadings: Any, shift: Any, margin: float, counts: Any) -> int:
    """Count positions, products of ``loadings (9, 9)`` and scaled filters plus ``shift (9,)``, by their whole parts.

    Returns
    -------
    How many lie outside of 0 to the number of bins by more than ``margin``. What lies outside counts in the bins at the
    ends of ``counts (9, bins) int64``, to which all are added.
    """
    x, peak = np.empty((SIZE, TILE)), np.empty(TILE, np.float32)
    bins = np.empty((SIZE, TILE), np.int32)
    n_bins, outside = counts.shape[1], 0
    for start in range(0, n, TILE):
        m = min(TILE, n - start)
        _load(values, step, start, x, peak[:m])
        _divide(x, peak[:m], x)
        for i in range(SIZE):
            for j in range(m):
                position = _product(loadings, i, x, j) + shift[i]
                outside += (position < -margin) | (position > n_bins + margin)
                bins[i, j] = np.int32(min(max(position, 0.0), n_bins - 1.0))
        # filter by filter, as equal bins one after the other would wait for each other
        for j in range(m):
            for i in range(SIZE):
                counts[i, bins[i, j]] += 1
    return outside


@_kernel
def _load(values: Any, step: int, start: int, x: Any, peak: Any) -> None:
    """Filters from ``start`` on as float64, as many as ``peak``, out, has room for the largest magnitudes of."""
    peak[:] = 0
    for i in range(SIZE):
        row = values[i * step + start : i * step + start + peak.size]
        for j in range(peak.size):
            x[i, j] = row[j]
            peak[j] = max(peak[j], abs(row[j]))


@_kernel
def _divide(x: Any, peak: Any, scaled: Any) -> None:
    """Filters divided by their peaks; zeros stay."""
    for i in range(SIZE):
        for j in range(peak.size):
            scaled[i, j] = x[i, j] / np.float64(peak[j] if peak[j] > 0 else np.float32(1))


@_kernel
def _product(loadings: Any, i: int, x: Any, j: int) -> Any:
    """Row i of a matrix times column j of another."""
    total = loadings[i, 0] * x[0, j]
    for k in range(1, SIZE):
        total += loadings[i, k] * x[k, j]
    return total


@_kernel
def _widen(axes: Any, x: Any, m: int, low: Any, high: Any) -> None:
    """Widen ``low`` and ``high (9, TILE)``, one range for each place in a tile, to the projections of a tile."""
    for i in range(SIZE):
        for j in range(m):
            projection = _product(axes, i, x, j)
            low[i, j], high[i, j] = min(low[i, j], projection), max(high[i, j], projection)


@_kernel
def _ends(low: Any, high: Any, ends: Any) -> None:
    """``ends (9, 2)``, out: of the ranges of all places in a tile together."""
    for i in range(SIZE):
        ends[i, 0], ends[i, 1] = low[i].min(), high[i].max()


@_kernel
def _clean_first(x: Any, peak: Any, threshold: float) -> int:
    """Change places in a tile so that the sparse filters are the last ones; how many are clean."""
    first, last = 0, peak.size
    while first < last:
        if peak[first] > 0 and np.float64(peak[first]) >= threshold:
            first += 1
        else:
            last -= 1
            peak[first], peak[last] = peak[last], peak[first]
            for i in range(SIZE):
                x[i, first], x[i, last] = x[i, last], x[i, first]
    return first


@_kernel
def _add(x: Any, first: int, last: int, n: int, mean: Any, scatter: Any) -> None:
    """Merge the moments of a part of a tile, which it centres in place, into those of n (Chan, Golub & LeVeque 1983).

    Deviations are taken from the first filter and only then from their mean, so that equal filters have a scatter of
    exactly zero.
    """
    m = last - first
    delta = np.empty(SIZE)
    for i in range(SIZE):
        row = x[i, first:last]
        origin, total = row[0], 0.0
        for j in range(m):
            row[j] -= origin
        for j in range(m):
            total += row[j]
        shift = total / m
        for j in range(m):
            row[j] -= shift
        delta[i] = (origin + shift) - mean[i] if n else origin + shift
    weight = n * (m / (n + m))
    for i in range(SIZE):
        for k in range(i, SIZE):
            product, row, other = 0.0, x[i, first:last], x[k, first:last]
            for j in range(m):
                product += row[j] * other[j]
            scatter[i, k] += product + delta[i] * delta[k] * weight
            scatter[k, i] = scatter[i, k]
    for i in range(SIZE):
        mean[i] += delta[i] * (m / (n + m))
