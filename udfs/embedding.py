"""Points in few dimensions from the distances between them.

Takes and gives Arrow columns of equal length, one row a set of points, and raises `ValueError` for arguments
that cannot be meant.
"""

import numpy as np
import pyarrow as pa

from udfs.arrays import Doubles, Lists, Scalars, equal_rows, list_array, slots
from udfs.linear_algebra import oriented

ROUNDING = 1e-12
"""Eigenvalues below this share of the largest magnitude are taken for zero: their axes would hold rounding errors."""


def classical_mds(distances: pa.ChunkedArray, dimensions: pa.ChunkedArray) -> pa.StructArray:
    """Classical multidimensional scaling: points whose distances come as near to the given ones as few axes allow.

    The squared distances, centred twice, are the scalar products of the points; their leading eigenvectors, times
    the root of the eigenvalue, are the coordinates (Torgerson, 1952). Distances between points of as many
    dimensions come back exactly. Any others do approximately: what does not fit in, and what no Euclidean space
    could hold (negative eigenvalues), is left out.

    Parameters
    ----------
    distances
        Packed strict upper triangles row by row: ``(0,1), (0,2) .. (0,n-1), (1,2) ..``, ``n (n - 1) / 2`` numbers,
        0 or more. The diagonal is left out; an empty list is a single point.
    dimensions
        How many coordinates a point gets, 1 or more.

    Returns
    -------
    ``coordinates``: n lists of as many numbers, centred, axes by falling eigenvalue; the coordinate with the
    largest magnitude on an axis is positive, the first of those that tie. Axes of eigenvalues that are not
    positive are 0. ``held_share``: sum of the eigenvalues of these axes / sum of all positive eigenvalues; NULL where
    all points are the same. NULL if an argument is NULL.
    """
    triangles = Lists.from_arrow("distances", distances)
    counts = ((1 + np.sqrt(1 + 8 * triangles.lengths)) / 2).astype(np.int64)
    triangles.require(
        counts * (counts - 1) // 2 == triangles.lengths,
        "n(n-1)/2, the packed upper triangle without the diagonal of an n x n matrix (45 for 10 points)",
    )
    negative = triangles.values < 0
    if negative.any():
        raise ValueError(f"a list of distances holds {triangles.values[negative][0]}; a distance is 0 or more")
    axes = Scalars.from_arrow("dimensions", dimensions)
    axes.require(axes.values >= 1, "1 or more")

    valid = triangles.valid & axes.valid
    widths = np.where(valid, axes.values, 0).astype(np.int64)
    counts[~valid] = 0
    ends = np.cumsum(counts)
    coordinates = np.empty((counts * widths).sum())
    shares = np.zeros(len(counts))
    value_ends = np.cumsum(counts * widths)
    for rows in equal_rows(valid, counts, widths, size=counts * np.maximum(counts, widths)):
        n, width = int(counts[rows[0]]), int(widths[rows[0]])
        points, shares[rows] = _scale(triangles.block(rows), n, width)
        coordinates[slots(value_ends[rows], n * width)] = points.reshape(len(rows), -1)
    vectors = list_array(pa.array(coordinates), np.cumsum(np.repeat(widths, counts)))
    return pa.StructArray.from_arrays(
        [list_array(vectors, ends), pa.array(shares, mask=np.isnan(shares))],
        names=["coordinates", "held_share"],
        mask=pa.array(~valid),
    )


def _scale(triangles: Doubles, n: int, width: int) -> tuple[Doubles, Doubles]:
    """Map packed ``(g, n (n - 1) / 2)`` distances to ``(g, n, width)`` coordinates and ``(g,)`` shares."""
    # the largest distance is divided out, so that no square can over- or underflow
    unit = triangles.max(axis=1, initial=0.0)
    squares = np.zeros((len(triangles), n, n))
    rows, columns = np.triu_indices(n, 1)
    squares[:, rows, columns] = (triangles / np.where(unit == 0, 1, unit)[:, np.newaxis]) ** 2
    squares += squares.swapaxes(1, 2)
    squares -= squares.mean(axis=1, keepdims=True)
    squares -= squares.mean(axis=2, keepdims=True)
    rising, vectors = np.linalg.eigh(squares / -2)
    values, vectors = rising[:, ::-1], vectors[:, :, ::-1]
    values = np.where(values > ROUNDING * np.abs(values).max(axis=1, keepdims=True), values, 0)

    kept = min(n, width)
    leading = oriented(vectors[:, :, :kept].swapaxes(1, 2)).swapaxes(1, 2)
    points = np.zeros((len(triangles), n, width))
    lengths = np.sqrt(values[:, np.newaxis, :kept]) * unit[:, np.newaxis, np.newaxis]
    # the addition turns the negative zeros of axes without length into zeros
    points[:, :, :kept] = leading * lengths + 0.0
    total = values.sum(axis=1)
    return points, np.divide(values[:, :kept].sum(axis=1), total, out=np.full(len(total), np.nan), where=total > 0)
