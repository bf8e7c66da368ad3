"""Statistics of 3x3 filters as partial results that merge.

Partial results of blocks of filters of one layer merge in any grouping. All sums are float64, but where it is said
otherwise. Definitions follow CNN Filter DB (Gavrikov & Keuper, CVPR 2022) and torchconvquality, with their edge cases
made explicit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

SIZE = 9
"""Weights of a filter: its 3x3 kernel row by row."""
PEAK_EDGES = np.array([float(f"{m}e-{k}") for k in range(6, 1, -1) for m in range(10, 100)] + [1.0])
"""Shares of a layer's largest peak: all of two significant digits from 1e-5 to 1. Parsed from decimals, so that 0.01 is
the 0.01 of SQL."""
TRIANGLE = np.triu_indices(SIZE)
"""Row and column numbers of the packed upper triangle, row by row: 45 entries."""


@dataclass(frozen=True)
class Moments:
    """Count, mean and centred scatter of filters.

    Attributes
    ----------
    n
        Number of filters.
    mean
        ``(9,)`` mean weight.
    scatter
        ``(9, 9)`` sum of outer products of the deviations from the mean.
    """

    n: int = 0
    mean: Float64 = field(default_factory=lambda: np.zeros(SIZE))
    scatter: Float64 = field(default_factory=lambda: np.zeros((SIZE, SIZE)))

    def merge(self, other: Moments) -> Moments:
        """Moments of both sets together (Chan, Golub & LeVeque 1983)."""
        if self.n == 0 or other.n == 0:
            return other if self.n == 0 else self
        n = self.n + other.n
        delta = other.mean - self.mean
        return Moments(
            n,
            self.mean + delta * (other.n / n),
            self.scatter + other.scatter + np.outer(delta, delta) * (self.n * other.n / n),
        )

    def covariance(self) -> Float64:
        """``(9, 9)`` sample covariance (n - 1); zero for fewer than two filters."""
        return self.scatter / max(self.n - 1, 1)


def merge_moments(parts: Iterable[Moments]) -> Moments:
    """Moments of all parts together, merged in the order given."""
    return reduce(Moments.merge, parts, Moments())


def variance_entropies(parts: Sequence[Moments]) -> list[float | None]:
    """Entropy (log10) of the shares of variance along the principal axes of each; None for fewer than two filters."""
    eigenvalues = np.linalg.eigvalsh(np.stack([moments.scatter for moments in parts]))
    entropies = entropy10(eigenvalues).tolist()
    return [h if moments.n >= 2 else None for moments, h in zip(parts, entropies, strict=True)]


def entropy10(weights: NDArray[np.floating[Any]]) -> Float64:
    """-sum p log10 p along the last axis, p the weights divided by their sum.

    Weights below zero, which only rounding makes, count as zero. 0 log 0 = 0, and 0 where all are zero.
    """
    weights = np.clip(weights, 0.0, None)
    total = weights.sum(axis=-1, keepdims=True)
    p = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    # the addition turns the negative zero of a single share into zero
    entropy: Float64 = -(p * np.log10(p, out=np.zeros_like(p), where=p > 0)).sum(axis=-1) + 0.0
    return entropy


@dataclass(frozen=True)
class Counts:
    """The bins of a histogram that are not empty: their positions in it, flat and rising, and their counts.

    Counts are of the smallest type that holds them: those of all layers together are the most that an ingest remembers.
    """

    positions: NDArray[np.uint16] = field(default_factory=lambda: np.empty(0, np.uint16))
    n: NDArray[np.unsignedinteger[Any]] = field(default_factory=lambda: np.empty(0, np.uint8))

    @classmethod
    def of(cls, histogram: Int64) -> Counts:
        """Keep what is not zero."""
        flat = histogram.ravel()
        positions = np.flatnonzero(flat)
        smallest = np.min_scalar_type(flat.max(initial=0))
        return cls(positions.astype(np.uint16), flat[positions].astype(smallest))

    def merge(self, other: Counts) -> Counts:
        """Counts of both histograms together."""
        if not self.n.size or not other.n.size:
            return self if self.n.size else other
        total = np.zeros(1 + int(max(self.positions[-1], other.positions[-1])), np.int64)
        for counts in (self, other):
            total[counts.positions] += counts.n
        return Counts.of(total)


def peaks(x: Float32) -> Float32:
    """``(n,)`` largest magnitude of each column of ``x (9, n)``; NaN or infinite where a weight is."""
    highest: Float32 = np.maximum(x.max(axis=0), -x.min(axis=0))
    return highest


def relative_peaks(peak: Float32, layer_peak: float) -> Counts:
    """Count the peaks ``(n,)`` of filters by their ratio to the largest of their layer.

    Returns
    -------
    Bin 0 holds the filters that are sparse at every threshold: those of zeros, and all of an all-zero layer; bin
    i + 1 the others below ``PEAK_EDGES[i]``, and the last those that reach 1. So bins up to i + 1 hold exactly
    the filters for which ``peak < PEAK_EDGES[i] * layer_peak``.
    """
    if layer_peak == 0:
        return Counts.of(np.array([peak.size]))
    # one sort a block is much faster than one search a filter
    ordered = np.sort(peak)
    zero = np.searchsorted(ordered, 0.0, side="right")
    below = np.searchsorted(ordered, PEAK_EDGES * layer_peak)
    return Counts.of(np.diff(np.concatenate([[0, zero], below, [peak.size]])))


def orthogonality(rows: Callable[[int, int], Float64], out_channels: int, panel: int) -> float | None:
    """1 - mean overlap of the output channels of a layer, 1 where all are orthogonal.

    Parameters
    ----------
    rows
        ``rows(i, j)`` gives the weights ``(j - i, in_channels * 9)`` of output channels i to j.
    out_channels
        Number of rows, m.
    panel
        Rows to hold at a time: memory is two panels and their product.

    Returns
    -------
    ``1 - sum |W W^T - I| / (m (m - 1))`` with rows of length 1 (zero rows stay zero); None where m < 2.
    """
    if out_channels < 2:
        return None

    def unit(start: int) -> Float64:
        w = rows(start, min(start + panel, out_channels))
        norm = np.linalg.norm(w, axis=1, keepdims=True)
        return w / np.where(norm == 0, 1.0, norm)

    overlap = 0.0
    for i in range(0, out_channels, panel):
        upper = unit(i)
        products = upper @ upper.T
        products[np.diag_indices_from(products)] -= 1
        overlap += float(np.abs(products, out=products).sum())
        for j in range(i + panel, out_channels, panel):
            products = upper @ unit(j).T
            overlap += 2 * float(np.abs(products, out=products).sum())
    return 1 - overlap / (out_channels * (out_channels - 1))
