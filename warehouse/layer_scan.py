"""What is known of a layer's filters before the basis is: first its extent, and with it everything else.

Gets blocks ``(9, n) float32`` of one layer; hands on partial results that merge in any grouping.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from warehouse.coordinates import Basis
from warehouse.statistics import SIZE, Counts, Float32, Moments, relative_peaks

SPARSE_EPS = 0.01
"""A filter is sparse where its peak is below this share of its layer's largest peak."""


@dataclass(frozen=True)
class LayerExtent:
    """What a layer's filters are measured against.

    Attributes
    ----------
    n_filters, n_nonfinite
        Filters seen, and those with a NaN or infinite weight. Where there is one, the rest stays zero.
    peak
        Largest magnitude of a weight.
    total
        Sum of all weights.
    """

    n_filters: int = 0
    n_nonfinite: int = 0
    peak: float = 0.0
    total: float = 0.0

    @classmethod
    def of(cls, block: Float32) -> LayerExtent:
        """Extent of a block ``(9, n)``."""
        from warehouse import kernels

        values, step, n = kernels.flat(block)
        n_nonfinite, peak, total = kernels.extent(values, values.view(np.int32), step, n)
        if n_nonfinite:
            return cls(n, n_nonfinite)
        return cls(n, 0, float(np.int32(peak).view(np.float32)), total)

    def merge(self, other: LayerExtent) -> LayerExtent:
        """Extent of both parts of a layer together."""
        n, n_nonfinite = self.n_filters + other.n_filters, self.n_nonfinite + other.n_nonfinite
        if n_nonfinite:
            return LayerExtent(n, n_nonfinite)
        return LayerExtent(n, 0, max(self.peak, other.peak), self.total + other.total)

    @property
    def is_finite(self) -> bool:
        """Whether the statistics of the layer exist."""
        return self.n_nonfinite == 0

    @property
    def weight_mean(self) -> float:
        """Mean of all single weights; NaN where there are none."""
        return self.total / (SIZE * self.n_filters) if self.n_filters else math.nan


@dataclass(frozen=True)
class LayerScan:
    """All sums over a layer that need no basis.

    Attributes
    ----------
    raw, scaled
        Moments of the filters as they are and of the filters divided by their peaks.
    n_sparse
        Filters whose peak is below ``SPARSE_EPS`` times the layer's; all filters of an all-zero layer.
    clean_raw, clean_scaled
        Moments of the other filters.
    l1
        Sum of the magnitudes of all weights.
    absolute_deviation
        Sum of the distances of all weights from their mean.
    relative_peaks
        Filters by the ratio of their peak to the layer's, in the bins of ``statistics.relative_peaks``.
    boxes
        ``(blocks, 9, 2)`` the box of each block in the trial basis, in order; none without one.
    """

    raw: Moments = field(default_factory=Moments)
    scaled: Moments = field(default_factory=Moments)
    n_sparse: int = 0
    clean_raw: Moments = field(default_factory=Moments)
    clean_scaled: Moments = field(default_factory=Moments)
    l1: float = 0.0
    absolute_deviation: float = 0.0
    relative_peaks: Counts = field(default_factory=Counts)
    boxes: Float32 = field(default_factory=lambda: np.empty((0, SIZE, 2), np.float32))

    @classmethod
    def of(cls, block: Float32, extent: LayerExtent, trial: Basis | None = None) -> LayerScan:
        """Scan a block ``(9, n)``, n above 0, of the layer that ``extent`` describes, without NaN or infinity."""
        from warehouse import kernels

        values, step, n = kernels.flat(block)
        axes = (np.eye(SIZE) if trial is None else trial.loadings).astype(np.float32)
        peaks, box = np.empty(n, np.float32), np.empty((SIZE, 2), np.float32)
        counts, means, scatters = np.zeros(2, np.int64), np.zeros((2, 2, SIZE)), np.zeros((2, 2, SIZE, SIZE))
        l1, absolute_deviation = kernels.scan(
            values, step, n, SPARSE_EPS * extent.peak, extent.weight_mean, axes, peaks, box, counts, means, scatters
        )
        # a view would keep all four
        clean_raw, clean_scaled, sparse_raw, sparse_scaled = (
            Moments(int(counts[i]), means[i, kind].copy(), scatters[i, kind].copy())
            for i in range(2)
            for kind in range(2)
        )
        return cls(
            clean_raw.merge(sparse_raw),
            clean_scaled.merge(sparse_scaled),
            int(counts[1]),
            clean_raw,
            clean_scaled,
            l1,
            absolute_deviation,
            relative_peaks(peaks, extent.peak),
            cls().boxes if trial is None else box[None],
        )

    def merge(self, other: LayerScan) -> LayerScan:
        """Scan of both parts of a layer together."""
        return LayerScan(
            self.raw.merge(other.raw),
            self.scaled.merge(other.scaled),
            self.n_sparse + other.n_sparse,
            self.clean_raw.merge(other.clean_raw),
            self.clean_scaled.merge(other.clean_scaled),
            self.l1 + other.l1,
            self.absolute_deviation + other.absolute_deviation,
            self.relative_peaks.merge(other.relative_peaks),
            np.concatenate([self.boxes, other.boxes]),
        )

    @property
    def n_weights(self) -> int:
        """Number of single weights."""
        return SIZE * self.raw.n

    @property
    def weight_std(self) -> float:
        """Sample standard deviation (n - 1) of all single weights."""
        between = self.raw.n * float(((self.raw.mean - self.raw.mean.mean()) ** 2).sum())
        return math.sqrt((float(np.trace(self.raw.scatter)) + between) / (self.n_weights - 1))

    @property
    def l2(self) -> float:
        """Euclidean norm of all weights."""
        return math.sqrt(float(np.trace(self.raw.scatter)) + self.raw.n * float((self.raw.mean**2).sum()))


@dataclass(frozen=True)
class Measurement:
    """All that is known of one run of filters before the basis is.

    Attributes
    ----------
    layer_id
        None where no layer claims them.
    checksum
        SHA-256, in hexadecimal digits, of the weights as little-endian float32, filter by filter, each row by row.
    extent, scan
        Its partial results, merged; the scan is empty where weights are not finite.
    orthogonality
        Of its output channels; None where it has no channels or fewer than two.
    """

    layer_id: int | None
    checksum: str
    extent: LayerExtent
    scan: LayerScan
    orthogonality: float | None
