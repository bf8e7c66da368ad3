"""Distances between two histograms over the same equal bins.

Each takes and gives Arrow columns of equal length and raises `ValueError` for arguments that cannot be meant.
Counts, densities and probabilities are all accepted: both histograms are divided by their sums first.
A histogram that sums to 0, two empty lists and NULL give NULL.
"""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.special import rel_entr

from udfs.arrays import Doubles, Integers, Lists, Mask, Scalars, equal_rows, evaluate, scaled


def wasserstein(p: pa.ChunkedArray, q: pa.ChunkedArray, width: pa.ChunkedArray) -> pa.Array:
    """Wasserstein-1 (earth mover's) distance, ``width * sum|CDF_p - CDF_q|``, in the unit of `width`.

    Parameters
    ----------
    p, q
        Histograms of equal length; no entry is negative.
    width
        The width of a bin, above 0.
    """
    widths = Scalars.from_arrow("width", width)
    widths.require((widths.values > 0) & np.isfinite(widths.values), "a number above 0")
    return pc.multiply(_compare(p, q, _cumulative_difference), widths.to_arrow())


def jensen_shannon(p: pa.ChunkedArray, q: pa.ChunkedArray) -> pa.Array:
    """Jensen-Shannon divergence, natural logarithm, 0 to ln 2; its square root is the distance (a metric).

    ``KL(p, m) / 2 + KL(q, m) / 2`` with ``m = (p + q) / 2`` (Lin, 1991).

    Parameters
    ----------
    p, q
        Histograms of equal length; no entry is negative.
    """
    return _compare(p, q, _jensen_shannon)


def kolmogorov_smirnov(p: pa.ChunkedArray, q: pa.ChunkedArray) -> pa.Array:
    """Kolmogorov-Smirnov statistic, ``max|CDF_p - CDF_q|`` at the edges of the bins, 0 to 1.

    Parameters
    ----------
    p, q
        Histograms of equal length; no entry is negative.
    """
    return _compare(p, q, _largest_cumulative_difference)


def _compare(p: pa.ChunkedArray, q: pa.ChunkedArray, kernel: Callable[[Doubles, Doubles], Doubles]) -> pa.Array:
    """Apply a kernel, two ``(g, bins)`` blocks of probabilities to ``(g,)``, to all rows that have them."""
    first, second = _histograms("p", p), _histograms("q", q)
    unequal = np.flatnonzero(first.valid & second.valid & (first.lengths != second.lengths))
    if unequal.size:
        p_bins, q_bins = first.lengths[unequal[0]], second.lengths[unequal[0]]
        raise ValueError(f"p has {p_bins} bins and q has {q_bins}; expected the same bins")

    def compare(rows: Integers) -> Doubles:
        return kernel(_probabilities(first.block(rows)), _probabilities(second.block(rows)))

    defined = _has_mass(first) & _has_mass(second)
    return evaluate(equal_rows(defined, first.lengths, size=first.lengths), len(p), compare)


def _histograms(name: str, column: pa.ChunkedArray) -> Lists:
    histograms = Lists.from_arrow(name, column)
    negative = histograms.values[histograms.values < 0]
    if negative.size:
        raise ValueError(f"a list of {name} holds {negative[0]}; a histogram has no negative entries")
    return histograms


def _has_mass(histograms: Lists) -> Mask:
    filled_bins = np.concatenate([[0], np.cumsum(histograms.values > 0)])
    mass: Mask = filled_bins[histograms.ends] > filled_bins[histograms.starts]
    return mass


def _probabilities(block: Doubles) -> Doubles:
    shares = scaled(block, axis=1)
    probabilities: Doubles = shares / shares.sum(axis=1, keepdims=True)
    return probabilities


def _cumulative_difference(p: Doubles, q: Doubles) -> Doubles:
    total: Doubles = np.abs(np.cumsum(p - q, axis=1)).sum(axis=1)
    return total


def _largest_cumulative_difference(p: Doubles, q: Doubles) -> Doubles:
    largest: Doubles = np.abs(np.cumsum(p - q, axis=1)).max(axis=1)
    return largest


def _jensen_shannon(p: Doubles, q: Doubles) -> Doubles:
    # KL(p, m) is written with 2 p and 2 m: halving the smallest numbers would make m zero where p is not.
    doubled = p + q
    divergence: Doubles = (rel_entr(2 * p, doubled) + rel_entr(2 * q, doubled)).sum(axis=1) / 4
    return divergence.clip(0, np.log(2))
