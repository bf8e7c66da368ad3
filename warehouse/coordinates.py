"""What distributions of coefficients are measured in: the basis, the range, and the histograms in them.

Gets merged moments and blocks ``(9, n) float32``; hands on partial results that merge, as in ``statistics``. The
range depends on the basis, and the basis on every filter: so that the range costs no pass of its own, blocks are
boxed in the axes of a trial basis, which tells where its ends are likely to be, and counting tells whether they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from udfs.linear_algebra import oriented
from warehouse.errors import LakeError
from warehouse.statistics import SIZE, Float32, Float64, Int64, Moments

BINS = 70
"""Bins of a coefficient histogram."""
EDGE_ROUNDING = 1e-6
"""Bins by which a coefficient may miss the range by rounding alone, and what lies at its ends may be off them."""


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
        ``(9, 9)``, one component a row; its entry with the largest magnitude is positive, the first of those that tie.
    """

    mean: Float64
    eigenvalues: Float64
    loadings: Float64

    @classmethod
    def of(cls, moments: Moments) -> Basis:
        """Eigen-decomposition of the covariance of scaled filters."""
        values, vectors = np.linalg.eigh(moments.covariance())
        loadings = oriented(vectors[:, ::-1].T)
        return cls(moments.mean, np.clip(values[::-1], 0.0, None), np.ascontiguousarray(loadings))

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

    Raises
    ------
    LakeError
        Basis and range give no positions among the bins: they were stored and are damaged.
    """

    basis: Basis
    n: int
    low: float
    high: float

    def __post_init__(self) -> None:
        shapes = self.basis.loadings.shape, self.basis.mean.shape
        with np.errstate(all="ignore"):
            # finite for any scaled filter, none of whose weights is greater than 1
            is_usable = (
                shapes == ((SIZE, SIZE), (SIZE,))
                and self.low < self.high < np.inf
                and np.isfinite(sum(np.abs(each).sum() for each in self.to_bins))
            )
        if not is_usable:
            raise LakeError("basis or range is not of numbers: table basis, basis_mean or histogram_range is damaged")

    @property
    def to_bins(self) -> tuple[Float64, Float64]:
        """``(9, 9)`` that scaled filters are multiplied by, and ``(9,)`` added, to get their positions in bins."""
        # 70 (c - lo) / (hi - lo) + 1e-9 in one product and one sum
        bins_per_unit = BINS / np.float64(self.high - self.low)
        return self.basis.loadings * bins_per_unit, 1e-9 - (self.basis.offset + self.low) * bins_per_unit

    @classmethod
    def spanning(cls, basis: Basis, n: int, low: float, high: float) -> Coordinates:
        """Take the least and the greatest coefficient as range; where they are equal, any width will do."""
        return cls(basis, n, low, high if high > low else low + 1)


def estimated_ends(boxes: Float32, trial: Basis, basis: Basis) -> tuple[Float64, Float64]:
    """About the least and the greatest coefficient of the filters in each box.

    Parameters
    ----------
    boxes
        ``(m, 9, 2)`` least and greatest projection of scaled filters on each component of ``trial``.
    trial
        The basis of their axes.
    basis
        The one that the coefficients are of. A component is taken for the axis that it is closest to.

    Returns
    -------
    ``(m,)`` about the least coefficient of any component, and ``(m,)`` about the greatest.
    """
    cosines = basis.loadings @ trial.loadings.T
    axes = np.abs(cosines).argmax(axis=1)
    signs = np.sign(cosines[np.arange(SIZE), axes])
    ends = boxes[:, axes] * signs[:, None] - basis.offset[:, None]
    return ends.min(axis=(1, 2)), ends.max(axis=(1, 2))


def extremes(block: Float32, basis: Basis) -> tuple[float, float]:
    """Least and greatest coefficient of any component in a block ``(9, n)``, n above 0, without NaN or infinity."""
    from warehouse import kernels

    ends = np.empty((SIZE, 2))
    kernels.extremes(*kernels.flat(block), basis.loadings, ends)
    ends -= basis.offset[:, None]
    return float(ends.min()), float(ends.max())


def histogram(block: Float32, coordinates: Coordinates, margin: float = EDGE_ROUNDING) -> tuple[Int64, int]:
    """Count the coefficients of a block in equal bins over the range.

    Parameters
    ----------
    block
        ``(9, n)`` filters, without NaN or infinity: there the kernel would write anywhere in memory.
    coordinates
        Basis and range.
    margin
        Bins by which the range is taken to be wider on both sides when it is told what lies outside; below 0 narrower.

    Returns
    -------
    ``(9, 70)`` counts, and how many coefficients lie outside the range by more than ``margin``; whatever lies outside
    counts in the bins at its ends. The nudge of 1e-9 bins makes ties on an edge repeatable: all-zero filters sit
    exactly on the middle edge wherever ``low`` and ``high`` come from opposite sign patterns.
    """
    from warehouse import kernels

    counts = np.zeros((SIZE, BINS), np.int64)
    outside = kernels.histogram(*kernels.flat(block), *coordinates.to_bins, margin, counts)
    return counts, outside
