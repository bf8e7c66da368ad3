"""Statistics of 3x3 filters as partial results that merge.

Every statistic is a pure function of a block ``(9, n) float32`` of filters of one layer that returns a
partial result; partial results of one layer merge in any grouping. All sums are float64. Definitions follow
CNN Filter DB (Gavrikov & Keuper, CVPR 2022) and torchconvquality, with their edge cases made explicit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

SIZE = 9
"""Weights of a filter: its 3x3 kernel row by row."""
BINS = 70
"""Bins of a coefficient histogram."""
EDGE_ROUNDING = 1e-6
"""Bins by which a coefficient may miss the range by rounding alone."""
SPARSE_EPS = 0.01
"""A filter is sparse where its peak is below this share of its layer's largest peak."""
PEAK_EDGES = np.array([float(f"{m}e-{k}") for k in range(6, 1, -1) for m in range(10, 100)] + [1.0])
"""Shares of a layer's largest peak: all of two significant digits from 1e-5 to 1. Parsed from decimals, so that 0.01 is
the 0.01 of SQL."""
TRIANGLE = np.triu_indices(SIZE)
"""Row and column numbers of the packed upper triangle, row by row: 45 entries."""


class Workspace:
    """Scratch memory for blocks of filters, to be used by one thread at a time.

    Fresh memory for every intermediate result costs more than the arithmetic, and threads that ask the system
    for it wait for each other.

    Parameters
    ----------
    capacity
        Filters of the largest block; a larger one makes it grow.
    """

    def __init__(self, capacity: int = 0) -> None:
        self._buffers: dict[str, NDArray[Any]] = {}
        self._capacity = capacity

    def matrix(self, name: str, n: int, dtype: DTypeLike = np.float64) -> NDArray[Any]:
        """``(9, n)``, C-contiguous, with whatever was there before."""
        self._capacity = max(self._capacity, n)
        if name not in self._buffers or self._buffers[name].size < SIZE * n:
            self._buffers[name] = np.empty(SIZE * self._capacity, dtype)
        return self._buffers[name][: SIZE * n].reshape(SIZE, n)


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

    @classmethod
    def of(cls, x: Float64, work: Workspace | None = None) -> Moments:
        """Moments of the columns of ``x (9, n)``.

        Deviations are taken from the first filter and only then from their mean, so that a block of equal
        filters has a scatter of exactly zero.
        """
        n = x.shape[1]
        if n == 0:
            return cls()
        first = x[:, :1]
        deviation = np.subtract(x, first, out=(work or Workspace()).matrix("deviation", n))
        shift = deviation.mean(axis=1, keepdims=True)
        deviation -= shift
        return cls(n, (first + shift)[:, 0], deviation @ deviation.T)

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

    def variance_entropy(self) -> float | None:
        """Entropy (log10) of the shares of variance along the principal axes; None for fewer than two."""
        return variance_entropies([self])[0]


def merge_moments(parts: Iterable[Moments]) -> Moments:
    """Moments of all parts together, merged in the order given."""
    return reduce(Moments.merge, parts, Moments())


def variance_entropies(parts: Sequence[Moments]) -> list[float | None]:
    """``variance_entropy`` of many layers; one call for all is much faster."""
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
    """The bins of a histogram that are not empty: their positions in it, flat and rising, and their counts."""

    positions: NDArray[np.uint16] = field(default_factory=lambda: np.empty(0, np.uint16))
    n: Int64 = field(default_factory=lambda: np.empty(0, np.int64))

    @classmethod
    def of(cls, histogram: Int64) -> Counts:
        """Keep what is not zero."""
        flat = histogram.ravel()
        positions = np.flatnonzero(flat)
        return cls(positions.astype(np.uint16), flat[positions])

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


def scale(x: Float64, peak: Float64, out: Float64 | None = None) -> Float64:
    """``x (9, n)`` divided by its peaks ``(n,)``; zero where the peak is."""
    scaled: Float64 = np.divide(x, np.where(peak == 0, 1.0, peak), out=out)
    return scaled


def _prepare(block: Float32, peak: Float64, work: Workspace) -> tuple[Float64, Float64]:
    """A block ``(9, n)`` as float64, and scaled by its peaks ``(n,)``."""
    n = block.shape[1]
    x = work.matrix("x", n)
    np.copyto(x, block)
    return x, scale(x, peak, out=work.matrix("scaled", n))


@dataclass(frozen=True)
class LayerScan:
    """First pass over a layer: everything that needs no other filter's value.

    Attributes
    ----------
    n_filters, n_nonfinite
        Filters seen, and those with a NaN or infinite weight. Where there is one, the rest stays empty.
    raw, scaled
        Moments of the filters as they are and of the filters divided by their peaks.
    peak, lowest_peak
        Largest magnitude of a weight in any filter, and in the filter where it is least.
    l1
        Sum of the magnitudes of all weights.
    """

    n_filters: int = 0
    n_nonfinite: int = 0
    raw: Moments = field(default_factory=Moments)
    scaled: Moments = field(default_factory=Moments)
    peak: float = 0.0
    lowest_peak: float = math.inf
    l1: float = 0.0

    @classmethod
    def of(cls, block: Float32, work: Workspace | None = None) -> LayerScan:
        """Scan a block ``(9, n)``."""
        work = work or Workspace()
        n = block.shape[1]
        peak = peaks(block).astype(np.float64)
        n_nonfinite = n - int(np.isfinite(peak).sum())
        if n_nonfinite:
            return cls(n, n_nonfinite)
        x, scaled = _prepare(block, peak, work)
        return cls(
            n,
            0,
            Moments.of(x, work),
            Moments.of(scaled, work),
            float(peak.max(initial=0.0)),
            float(peak.min(initial=math.inf)),
            float(np.abs(x, out=x).sum()),
        )

    def merge(self, other: LayerScan) -> LayerScan:
        """Scan of both parts of a layer together."""
        n, n_nonfinite = self.n_filters + other.n_filters, self.n_nonfinite + other.n_nonfinite
        if n_nonfinite:
            return LayerScan(n, n_nonfinite)
        return LayerScan(
            n,
            0,
            self.raw.merge(other.raw),
            self.scaled.merge(other.scaled),
            max(self.peak, other.peak),
            min(self.lowest_peak, other.lowest_peak),
            self.l1 + other.l1,
        )

    @property
    def is_finite(self) -> bool:
        """Whether the statistics of the layer exist."""
        return self.n_nonfinite == 0

    @property
    def has_sparse(self) -> bool:
        """Whether any filter of the layer is sparse; all are where every weight is zero."""
        return self.peak == 0 or self.lowest_peak < SPARSE_EPS * self.peak

    @property
    def n_weights(self) -> int:
        """Number of single weights."""
        return SIZE * self.n_filters

    @property
    def weight_mean(self) -> float:
        """Mean of all single weights."""
        return float(self.raw.mean.mean())

    @property
    def weight_std(self) -> float:
        """Sample standard deviation (n - 1) of all single weights."""
        between = self.n_filters * float(((self.raw.mean - self.weight_mean) ** 2).sum())
        return math.sqrt((float(np.trace(self.raw.scatter)) + between) / (self.n_weights - 1))

    @property
    def l2(self) -> float:
        """Euclidean norm of all weights."""
        return math.sqrt(float(np.trace(self.raw.scatter)) + self.n_filters * float((self.raw.mean**2).sum()))


@dataclass(frozen=True)
class Basis:
    """Principal components of all scaled filters.

    Attributes
    ----------
    mean
        ``(9,)`` mean scaled filter.
    eigenvalues
        ``(9,)`` variances along the components, falling.
    loadings
        ``(9, 9)``, one component a row; its entry with the largest magnitude is positive.
    """

    mean: Float64
    eigenvalues: Float64
    loadings: Float64

    @classmethod
    def of(cls, moments: Moments) -> Basis:
        """Eigen-decomposition of the covariance of scaled filters."""
        values, vectors = np.linalg.eigh(moments.covariance())
        loadings = vectors[:, ::-1].T
        strongest = np.abs(loadings).argmax(axis=1)
        signs = np.where(loadings[np.arange(SIZE), strongest] < 0, -1.0, 1.0)
        return cls(
            moments.mean,
            np.clip(values[::-1], 0.0, None),
            np.ascontiguousarray(loadings * signs[:, None]),
        )

    @property
    def explained_variance_ratio(self) -> Float64:
        """``(9,)`` shares of the variance; zero where there is none."""
        total = self.eigenvalues.sum()
        return self.eigenvalues / total if total > 0 else np.zeros(SIZE)

    @property
    def offset(self) -> Float64:
        """``(9,)`` projections of the mean: a coefficient is a filter's projection less these."""
        offset: Float64 = self.loadings @ self.mean
        return offset


@dataclass(frozen=True)
class Coordinates:
    """What distributions are measured in: once chosen, it stays, so that histograms of later filters add up.

    Attributes
    ----------
    basis
        Gives the coefficients.
    n
        Filters that the basis is of.
    low, high
        The one range of all components' histograms, not empty.
    """

    basis: Basis
    n: int
    low: float
    high: float

    @classmethod
    def spanning(cls, basis: Basis, n: int, low: float, high: float) -> Coordinates:
        """Take the least and the greatest coefficient as range; where they are equal, any width will do."""
        return cls(basis, n, low, high if high > low else low + 1)


@dataclass(frozen=True)
class LayerDetail:
    """Second pass over a layer: what needs the layer's largest peak and mean, or the basis.

    Attributes
    ----------
    n_sparse
        Filters whose peak is below ``SPARSE_EPS`` times the layer's; all filters of an all-zero layer.
    clean_raw, clean_scaled
        Moments of the other filters; empty where no filter is sparse, for they are the scan's then.
    absolute_deviation
        Sum of the distances of all weights from their mean.
    low, high
        Least and greatest coefficient of any component.
    relative_peaks
        Filters by the ratio of their peak to the layer's, in the bins of ``relative_peaks``.
    """

    n_sparse: int = 0
    clean_raw: Moments = field(default_factory=Moments)
    clean_scaled: Moments = field(default_factory=Moments)
    absolute_deviation: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    relative_peaks: Counts = field(default_factory=Counts)

    @classmethod
    def of(cls, block: Float32, scan: LayerScan, basis: Basis, work: Workspace | None = None) -> LayerDetail:
        """Detail of a block ``(9, n)`` of the layer that ``scan`` describes."""
        work = work or Workspace()
        single = peaks(block)
        peak = single.astype(np.float64)
        x, scaled = _prepare(block, peak, work)
        n_sparse, clean_raw, clean_scaled = 0, Moments(), Moments()
        if scan.has_sparse:
            clean = (peak > 0) & (peak >= SPARSE_EPS * scan.peak)
            n_sparse = int(clean.size - clean.sum())
            clean_raw, clean_scaled = (Moments.of(each.compress(clean, axis=1), work) for each in (x, scaled))
        low, high = _extremes(scaled, basis, work)
        x -= scan.weight_mean
        return cls(
            n_sparse,
            clean_raw,
            clean_scaled,
            float(np.abs(x, out=x).sum()),
            low,
            high,
            relative_peaks(single, scan.peak),
        )

    def merge(self, other: LayerDetail) -> LayerDetail:
        """Detail of both parts of a layer together."""
        return LayerDetail(
            self.n_sparse + other.n_sparse,
            self.clean_raw.merge(other.clean_raw),
            self.clean_scaled.merge(other.clean_scaled),
            self.absolute_deviation + other.absolute_deviation,
            min(self.low, other.low),
            max(self.high, other.high),
            self.relative_peaks.merge(other.relative_peaks),
        )

    def clean(self, scan: LayerScan) -> tuple[Moments, Moments]:
        """Moments of the filters that are not sparse, raw and scaled, of the layer that ``scan`` describes."""
        return (self.clean_raw, self.clean_scaled) if scan.has_sparse else (scan.raw, scan.scaled)


def extremes(block: Float32, basis: Basis, work: Workspace | None = None) -> tuple[float, float]:
    """Least and greatest coefficient of any component in a block ``(9, n)``, n above 0."""
    work = work or Workspace()
    _, scaled = _prepare(block, peaks(block).astype(np.float64), work)
    return _extremes(scaled, basis, work)


def _extremes(scaled: Float64, basis: Basis, work: Workspace) -> tuple[float, float]:
    projections = np.matmul(basis.loadings, scaled, out=work.matrix("coefficients", scaled.shape[1]))
    low = (projections.min(axis=1) - basis.offset).min()
    high = (projections.max(axis=1) - basis.offset).max()
    return float(low), float(high)


def histogram(block: Float32, coordinates: Coordinates, work: Workspace | None = None) -> tuple[Int64, int]:
    """Count the coefficients of a block in equal bins over the range.

    Parameters
    ----------
    block
        ``(9, n)`` filters.
    coordinates
        Basis and range.

    Returns
    -------
    ``(9, 70)`` counts, and how many coefficients lie outside the range by more than rounding: they count in the
    bins at its ends. The nudge of 1e-9 bins makes ties on an edge repeatable: all-zero filters sit exactly
    on the middle edge wherever ``low`` and ``high`` come from opposite sign patterns.
    """
    work = work or Workspace()
    n = block.shape[1]
    _, scaled = _prepare(block, peaks(block).astype(np.float64), work)
    # 70 (c - lo) / (hi - lo) + 1e-9 in one product and one sum
    basis, low = coordinates.basis, coordinates.low
    bins_per_unit = BINS / (coordinates.high - low)
    position = np.matmul(basis.loadings * bins_per_unit, scaled, out=work.matrix("coefficients", n))
    position += (1e-9 - (basis.offset + low) * bins_per_unit)[:, None]
    outside = 0
    if n and (position.min() < -EDGE_ROUNDING or position.max() > BINS + EDGE_ROUNDING):
        outside = int(((position < -EDGE_ROUNDING) | (position > BINS + EDGE_ROUNDING)).sum())
    np.clip(position, 0, BINS - 1, out=position)
    bins = work.matrix("bins", n, np.intp)
    np.copyto(bins, position, casting="unsafe")
    return np.stack([np.bincount(row, minlength=BINS) for row in bins]), outside


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
