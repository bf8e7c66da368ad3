"""Functions that need the matrix of a layer's filters: spectra, entropy, orthogonality and sparsity.

Each takes and gives Arrow columns of equal length, one row a layer (or a group of layers), and raises
`ValueError` for arguments that cannot be meant. A filter is 9 numbers, its 3x3 kernel row by row.
"""

from functools import reduce

import numpy as np
import pyarrow as pa
from scipy.special import entr

from udfs.arrays import Doubles, Integers, Lists, Mask, Scalars, equal_rows, evaluate, list_array, scaled, slots

FILTER_SIZE = 9
TIE = 1e-9
"""Magnitudes that differ by less than this share are taken for equal."""


def eigh(matrix: pa.ChunkedArray) -> pa.StructArray:
    """Decompose symmetric matrices.

    Parameters
    ----------
    matrix
        Packed upper triangles row by row: ``(0,0), (0,1) .. (0,k-1), (1,1) ..``, ``k (k + 1) / 2`` numbers.
        A full ``k x k`` matrix is not accepted: 36 numbers would be 6x6 in full and 8x8 packed.

    Returns
    -------
    ``eigenvalues``, falling, and ``eigenvectors`` in the same order, of length 1 each; the entry of a vector
    with the largest magnitude is positive, the first of those that tie. NULL for NULL and for an empty list.
    """
    triangles = Lists.from_arrow("matrix", matrix)
    orders = _triangle_orders(triangles.lengths)
    triangles.require(
        orders * (orders + 1) // 2 == triangles.lengths,
        "k(k+1)/2, the packed upper triangle of a k x k matrix (45 for 9x9)",
    )
    ends = np.cumsum(orders)
    vector_ends = np.cumsum(orders**2)
    values = np.empty(orders.sum())
    vectors = np.empty((orders**2).sum())
    for rows in equal_rows(orders > 0, orders, size=orders**2):
        order = int(orders[rows[0]])
        group_values, group_vectors = _eigh_of_triangles(triangles.block(rows), order)
        values[slots(ends[rows], order)] = group_values
        vectors[slots(vector_ends[rows], order**2)] = group_vectors.reshape(len(rows), -1)
    vector_lists = list_array(pa.array(vectors), np.cumsum(np.repeat(orders, orders)))
    return pa.StructArray.from_arrays(
        [list_array(pa.array(values), ends), list_array(vector_lists, ends)],
        names=["eigenvalues", "eigenvectors"],
        mask=pa.array(orders == 0),
    )


def variance_entropy(weights: pa.ChunkedArray) -> pa.Array:
    """Entropy of the spectrum of each layer's covariance: how evenly its filters spread, 0 to log10 9.

    ``H = -sum p_i log10 p_i`` with ``p_i = eigenvalue_i / sum`` of the centred covariance of the raw filters,
    after Gavrikov and Keuper, *CNN Filter DB* (2022).

    Parameters
    ----------
    weights
        The n filters of a layer one after the other, 9 n numbers.

    Returns
    -------
    H; 0 without variance. NULL for NULL and for fewer than 2 filters.
    """
    layers = _filter_lists(weights)
    enough = layers.valid & (layers.lengths >= 2 * FILTER_SIZE)
    groups = equal_rows(enough, layers.lengths, size=layers.lengths)
    return evaluate(groups, len(weights), lambda rows: _entropies(layers.block(rows)))


def orthogonality(weights: pa.ChunkedArray, out_channels: pa.ChunkedArray) -> pa.Array:
    """Orthogonality of each layer's output channels: 1 if pairwise orthogonal, 0 if all are parallel.

    ``1 - sum|W W^T - I| / (m (m - 1))``, W being the weights as ``(m, in_channels * 9)`` with rows of unit
    length and m the number of output channels.

    Parameters
    ----------
    weights
        The filters of a layer one after the other, those of an output channel together.
    out_channels
        m, at least 1.

    Returns
    -------
    The orthogonality. NULL if an argument is NULL, if m is 1 and for an empty list.
    """
    layers = _filter_lists(weights)
    channels = Scalars.from_arrow("out_channels", out_channels)
    channels.require(channels.values >= 1, "1 or more")
    counts = np.maximum(channels.values.astype(np.int64), 1)
    divisors = FILTER_SIZE * counts
    ragged = np.flatnonzero(channels.valid & (layers.lengths % divisors != 0))
    if ragged.size:
        length, divisor = layers.lengths[ragged[0]], divisors[ragged[0]]
        raise ValueError(f"a list of weights has length {length}; expected a multiple of 9 * out_channels = {divisor}")
    defined = channels.valid & (counts > 1) & (layers.lengths > 0)
    groups = equal_rows(defined, layers.lengths, counts, size=np.maximum(layers.lengths, counts**2))

    def kernel(rows: Integers) -> Doubles:
        return _orthogonalities(layers.block(rows).reshape(len(rows), counts[rows[0]], -1))

    return evaluate(groups, len(weights), kernel)


def sparsity(weights: pa.ChunkedArray, eps: pa.ChunkedArray) -> pa.Array:
    """Share of sparse filters: those whose peak, ``max|f_i|``, is below eps times the layer's largest.

    Parameters
    ----------
    weights
        The n filters of a layer one after the other, 9 n numbers.
    eps
        A share of the largest peak, 0 or more; 0.01 is usual.

    Returns
    -------
    0 to 1; 1 for a layer of zeros. NULL if an argument is NULL and for an empty list.
    """
    layers = _filter_lists(weights)
    shares = Scalars.from_arrow("eps", eps)
    shares.require((shares.values >= 0) & np.isfinite(shares.values), "a share, 0 or more")
    groups = equal_rows(shares.valid & (layers.lengths > 0), layers.lengths, size=layers.lengths)
    return evaluate(
        groups,
        len(weights),
        lambda rows: _sparsities(layers.block(rows), shares.values[rows]),
    )


def _filter_lists(weights: pa.ChunkedArray) -> Lists:
    layers = Lists.from_arrow("weights", weights)
    layers.require(layers.lengths % FILTER_SIZE == 0, "a multiple of 9, one filter after the other")
    return layers


def _triangle_orders(lengths: Integers) -> Integers:
    """Return the k of ``k (k + 1) / 2 = length``, rounded down."""
    orders: Integers = ((np.sqrt(8 * lengths + 1) - 1) / 2).astype(np.int64)
    return orders


def _eigh_of_triangles(triangles: Doubles, order: int) -> tuple[Doubles, Doubles]:
    """Map packed triangles to falling ``(g, k)`` eigenvalues and ``(g, k, k)`` eigenvectors, one a row."""
    matrices = np.zeros((len(triangles), order, order))
    matrices[:, *np.triu_indices(order)] = triangles
    rising, columns = np.linalg.eigh(matrices, UPLO="U")
    vectors = columns[:, :, ::-1].swapaxes(1, 2)
    return rising[:, ::-1], oriented(vectors)


def oriented(vectors: Doubles) -> Doubles:
    """Vectors ``(..., k)`` or their opposites: the entry of largest magnitude positive, the first of those that tie.

    Without the ties, rounding would choose the sign of components that mirror images make symmetric.
    """
    magnitudes = np.abs(vectors)
    ties = magnitudes >= (1 - TIE) * magnitudes.max(axis=-1, keepdims=True)
    strongest = np.take_along_axis(vectors, ties.argmax(axis=-1, keepdims=True), axis=-1)
    turned: Doubles = vectors * np.where(strongest < 0, -1.0, 1.0)
    return turned


def _entropies(block: Doubles) -> Doubles:
    filters = scaled(block, axis=1).reshape(len(block), -1, FILTER_SIZE)
    # The mean of equal numbers can differ from them by rounding: without this shift, a layer of equal
    # filters would get the entropy of that rounding error and not 0.
    centred = filters - filters[:, :1]
    centred -= centred.mean(axis=1, keepdims=True)
    scatters = scaled(centred, axis=(1, 2))
    eigenvalues = np.linalg.eigvalsh(scatters.swapaxes(1, 2) @ scatters).clip(min=0)
    totals = eigenvalues.sum(axis=1, keepdims=True)
    shares = eigenvalues / np.where(totals == 0, 1, totals)
    entropies: Doubles = entr(shares).sum(axis=1) / np.log(10)
    return entropies


def _orthogonalities(matrices: Doubles) -> Doubles:
    """Map ``(g, m, d)`` weights to ``(g,)``."""
    rows = scaled(matrices, axis=2)
    norms = np.linalg.norm(rows, axis=2, keepdims=True)
    rows /= np.where(norms == 0, 1, norms)
    channels = matrices.shape[1]
    deviations = rows @ rows.swapaxes(1, 2) - np.eye(channels)
    result: Doubles = 1 - np.abs(deviations).sum(axis=(1, 2)) / (channels * (channels - 1))
    return result


def _sparsities(block: Doubles, eps: Doubles) -> Doubles:
    magnitudes = np.abs(block).reshape(len(block), -1, FILTER_SIZE)
    # Four times as fast as `max` along an axis of nine.
    peaks = reduce(np.maximum, np.moveaxis(magnitudes, 2, 0))
    largest = peaks.max(axis=1, keepdims=True)
    sparse: Mask = (peaks < eps[:, np.newaxis] * largest) | (largest == 0)
    result: Doubles = sparse.mean(axis=1)
    return result
