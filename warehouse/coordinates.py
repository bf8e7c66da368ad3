"""What distributions of coefficients are measured in: the basis, the range, and the histograms in them.

Gets merged moments and blocks ``(9, n) float32``; hands on partial results that merge, as in ``statistics``. The
range depends on the basis, and the basis on every filter: so that the range costs no pass of its own, blocks are
boxed in the axes of a trial basis, and only those whose box reaches far enough in the true one are looked at again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from warehouse.statistics import SIZE, Float32, Float64, Int64, Moments, Workspace, as_doubles, peaks

BINS = 70
"""Bins of a coefficient histogram."""
EDGE_ROUNDING = 1e-6
"""Bins by which a coefficient may miss the range by rounding alone."""
ROUNDING = 16 * float(np.finfo(np.float32).eps)
"""What a sum of ten float32 products may be off by, as a share of the sum of their magnitudes."""


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


def box(scaled: Float64, trial: Basis, work: Workspace) -> Float32:
    """``(9, 2)`` least and greatest projection of scaled filters ``(9, n)``, n above 0, on each trial component."""
    n = scaled.shape[1]
    single = work.matrix("single", n, np.float32)
    np.copyto(single, scaled, casting="same_kind")
    projections = np.matmul(trial.loadings.astype(np.float32), single, out=work.matrix("projections", n, np.float32))
    return np.stack([projections.min(axis=1), projections.max(axis=1)], axis=1)


def reach(boxes: Float32, trial: Basis, basis: Basis) -> tuple[Float64, Float64]:
    """Bounds of the coefficients of the filters in each box.

    Parameters
    ----------
    boxes
        ``(m, 9, 2)``, each as `box` gives it.
    trial
        The basis of their axes.
    basis
        The one that the coefficients are of. As both are orthonormal, its components are combinations of the axes.

    Returns
    -------
    ``(m,)`` no coefficient of any component is less than, and ``(m,)`` none greater.
    """
    rotation = basis.loadings @ trial.loadings.T
    ends = rotation[None, :, :, None] * boxes[:, None].astype(np.float64)
    # a filter's length is at most 3, and so is the sum of a row's magnitudes
    slack = SIZE * ROUNDING
    low = (ends.min(axis=3).sum(axis=2) - basis.offset).min(axis=1) - slack
    high = (ends.max(axis=3).sum(axis=2) - basis.offset).max(axis=1) + slack
    return low, high


def extremes(block: Float32, basis: Basis, work: Workspace | None = None) -> tuple[float, float]:
    """Least and greatest coefficient of any component in a block ``(9, n)``, n above 0."""
    work = work or Workspace()
    _, scaled = as_doubles(block, peaks(block), work)
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
    _, scaled = as_doubles(block, peaks(block), work)
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
    return _count(bins), outside


def _count(bins: NDArray[np.intp]) -> Int64:
    """``(9, 70)`` how often each bin occurs in each row of ``bins (9, n)``."""
    counts = np.empty((SIZE, BINS), np.int64)
    # a joint count of two rows costs no more than that of one
    for i, pair in enumerate(bins[:-1:2] * BINS + bins[1::2]):
        joint = np.bincount(pair, minlength=BINS * BINS).reshape(BINS, BINS)
        counts[2 * i], counts[2 * i + 1] = joint.sum(axis=1), joint.sum(axis=0)
    counts[-1] = np.bincount(bins[-1], minlength=BINS)
    return counts
