"""The statistics of blocks of filters, against NumPy, SciPy, scikit-learn and plain loops."""

import math
from collections.abc import Callable
from dataclasses import asdict
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from sklearn.decomposition import PCA

from warehouse.coordinates import EDGE_ROUNDING, Basis, Coordinates, estimated_ends, extremes, histogram
from warehouse.kernels import TILE
from warehouse.layer_scan import LayerExtent, LayerScan
from warehouse.statistics import (
    PEAK_EDGES,
    Counts,
    Moments,
    entropy10,
    merge_moments,
    orthogonality,
    peaks,
    relative_peaks,
    variance_entropies,
)

MAX_ENTROPY = math.log10(9)
NUMBERS = [1, 2, 40, TILE - 1, TILE, TILE + 1, 3 * TILE + 17]
"""Of filters: what a kernel takes at a time, and more."""
RANDOM = np.random.default_rng(7).normal(size=(9, 500)).astype(np.float32)


def blocks(max_filters: int = 30, min_filters: int = 1) -> st.SearchStrategy[np.ndarray]:
    """Blocks ``(9, n) float32`` of a few different values, so that ties, zeros and equal filters occur."""
    values = st.integers(-300, 300).map(lambda k: k / 64) | st.sampled_from([0.0, 1.0, -1.0])
    shapes = st.integers(min_filters, max_filters).map(lambda n: (9, n))
    return shapes.flatmap(lambda shape: arrays(np.float32, shape, elements=values, fill=st.just(0.0)))


def cut(block: np.ndarray, data: st.DataObject) -> list[np.ndarray]:
    """The block in pieces, some of them empty."""
    edges = data.draw(st.lists(st.integers(0, block.shape[1]), max_size=5).map(sorted))
    return np.split(block, edges, axis=1)


def merge_in_any_grouping(parts: list, data: st.DataObject) -> object:
    """Merge neighbours until one is left, in an order that hypothesis picks."""
    while len(parts) > 1:
        at = data.draw(st.integers(0, len(parts) - 2))
        parts[at : at + 2] = [parts[at].merge(parts[at + 1])]
    return parts[0]


def scaled_filters(block: np.ndarray) -> np.ndarray:
    """One filter at a time, in float64."""
    columns = [f / max(abs(f)) if any(f) else f for f in block.T.astype(float)]
    return np.array(columns).T.reshape(9, -1)


def entropy_by_svd(x: np.ndarray) -> float:
    """Entropy of the squared singular values of the centred filters, as the authors compute it."""
    variances = np.linalg.svd((x.T - x.mean(axis=1)).astype(float), compute_uv=False) ** 2
    return float(stats.entropy(variances, base=10)) if variances.sum() > 0 else 0.0


def moments_of(x: np.ndarray) -> Moments:
    """Moments of the columns of ``x (9, n)``, by NumPy."""
    return Moments(x.shape[1], x.mean(axis=1), np.cov(x, bias=True) * x.shape[1]) if x.size else Moments()


def variance_entropy(block: np.ndarray) -> float | None:
    """Variance entropy of a layer of one block."""
    return variance_entropies([scan_of(block.astype(np.float32)).raw])[0]


def basis_of(block: np.ndarray) -> Basis:
    return Basis.of(moments_of(scaled_filters(block)))


def scan_of(block: np.ndarray, data: st.DataObject | None = None) -> LayerScan:
    """Scan of a layer, in pieces that hypothesis picks."""
    parts = [part for part in cut(block, data) if part.shape[1]] if data else [block]
    scans = [LayerScan.of(part, LayerExtent.of(block)) for part in parts]
    return merge_in_any_grouping([LayerScan(), *scans], data) if data else scans[0]


@given(blocks(min_filters=2), st.data())
def test_moments_of_any_pieces_in_any_grouping_are_those_of_all(block: np.ndarray, data: st.DataObject) -> None:
    merged = scan_of(block, data).raw
    assert merged.n == block.shape[1]
    np.testing.assert_allclose(merged.mean, block.astype(float).mean(axis=1), atol=1e-13)
    np.testing.assert_allclose(merged.covariance(), np.cov(block.astype(float)), atol=1e-11)


def test_moments_keep_their_digits_far_from_zero() -> None:
    far = (np.round(RANDOM * 64) / 64 + 2**15).astype(np.float32)  # each weight is exact
    exact = np.cov(far.astype(float) - 2**15)
    parts = np.split(far, [3, 100, 101], axis=1)
    merged = merge_moments(LayerScan.of(part, LayerExtent.of(far)).raw for part in parts)
    np.testing.assert_allclose(merged.covariance(), exact, rtol=1e-12, atol=1e-12)


@given(arrays(np.float32, 9, elements=st.floats(-(2.0**99), 2.0**99, width=32)), st.sampled_from(NUMBERS), st.data())
def test_a_layer_of_equal_filters_has_a_scatter_of_exactly_zero(
    kernel: np.ndarray, n: int, data: st.DataObject
) -> None:
    block = np.repeat(kernel[:, None], n, axis=1)
    scan = scan_of(block, data)
    assert not scan.raw.scatter.any()
    assert not scan.scaled.scatter.any()
    np.testing.assert_array_equal(scan.raw.mean, kernel.astype(float))
    assert variance_entropies([scan.raw]) == [0.0 if n > 1 else None]


def test_a_layer_of_one_weight_has_a_standard_deviation_of_exactly_zero() -> None:
    for weight in RANDOM[0]:
        assert scan_of(np.full((9, 33), weight, np.float32)).weight_std == 0.0


def test_no_filters_have_no_moments_and_change_none() -> None:
    one = moments_of(RANDOM.astype(float))
    for merged in (one.merge(Moments()), Moments().merge(one), merge_moments([Moments(), one, Moments()])):
        assert merged is one
    assert merge_moments([]).n == 0


@pytest.mark.parametrize("moments", [Moments(), moments_of(RANDOM[:, :1].astype(float))])
def test_fewer_than_two_filters_have_no_entropy(moments: Moments) -> None:
    assert variance_entropies([moments]) == [None]


@given(blocks(min_filters=2))
def test_variance_entropy_is_that_of_the_singular_values(block: np.ndarray) -> None:
    entropy = variance_entropy(block)
    assert 0.0 <= entropy <= MAX_ENTROPY + 1e-12
    assert entropy == pytest.approx(entropy_by_svd(block.astype(float)), abs=1e-9)


@given(blocks(min_filters=2), st.integers(-20, 20), st.randoms())
def test_variance_entropy_ignores_the_order_of_filters_and_the_scale_of_the_layer(
    block: np.ndarray, power: int, random: object
) -> None:
    order = list(range(block.shape[1]))
    random.shuffle(order)
    assert variance_entropy(block[:, order] * 2.0**power) == pytest.approx(variance_entropy(block), abs=1e-9)


def test_variance_in_one_direction_has_no_entropy_and_in_all_directions_the_most() -> None:
    assert variance_entropy(np.outer(np.arange(1, 10), [1.0, 2.0, 5.0])) == pytest.approx(0, abs=1e-12)
    assert variance_entropy(np.hstack([np.eye(9), -np.eye(9)])) == pytest.approx(MAX_ENTROPY, abs=1e-14)


@given(arrays(np.float64, st.integers(1, 12), elements=st.just(0.0) | st.floats(1e-12, 1e6)))
def test_entropy10_is_scipys_with_zero_shares_left_out(weights: np.ndarray) -> None:
    entropy = entropy10(weights)
    assert math.copysign(1, entropy) == 1
    assert entropy == pytest.approx(stats.entropy(weights, base=10) if weights.any() else 0.0, abs=1e-12)


def test_entropy10_takes_rounding_below_zero_for_zero() -> None:
    assert entropy10(np.array([-1e-18, 0.5, 0.5])) == pytest.approx(math.log10(2), abs=1e-15)
    assert entropy10(np.array([-1e-18, 0.0])) == 0.0


@given(blocks())
def test_a_peak_is_the_largest_magnitude(block: np.ndarray) -> None:
    np.testing.assert_array_equal(peaks(block), np.abs(block).max(axis=0))


@given(blocks(), st.data())
def test_scans_of_any_pieces_in_any_grouping_describe_the_layer(block: np.ndarray, data: st.DataObject) -> None:
    scan = scan_of(block, data)
    weights = block.astype(float).ravel()
    assert (scan.raw.n, scan.n_weights) == (block.shape[1], weights.size)
    assert scan.l1 == pytest.approx(np.linalg.norm(weights, 1), rel=1e-12)
    assert scan.l2 == pytest.approx(np.linalg.norm(weights), rel=1e-12)
    assert scan.weight_std == pytest.approx(weights.std(ddof=1), rel=1e-10, abs=1e-13)
    assert scan.absolute_deviation == pytest.approx(np.abs(weights - weights.mean()).sum(), abs=1e-9)
    np.testing.assert_allclose(scan.scaled.mean, scaled_filters(block).mean(axis=1), atol=1e-14)
    peak = np.array([max(map(abs, f)) for f in block.T.astype(float)])
    sparse = (peak < 0.01 * peak.max()) | (peak.max() == 0)
    assert scan.n_sparse == sparse.sum()
    for moments, filters in (
        (scan.raw, block),
        (scan.clean_raw, block[:, ~sparse]),
        (scan.scaled, scaled_filters(block)),
        (scan.clean_scaled, scaled_filters(block)[:, ~sparse]),
    ):
        assert moments.n == filters.shape[1]
        if moments.n > 1:
            np.testing.assert_allclose(moments.covariance(), np.cov(filters.astype(float)), atol=1e-11)


@given(blocks(), st.data())
def test_extents_of_any_pieces_in_any_grouping_describe_the_layer(block: np.ndarray, data: st.DataObject) -> None:
    extent = merge_in_any_grouping([LayerExtent.of(part) for part in cut(block, data)], data)
    assert (extent.n_filters, extent.n_nonfinite, extent.is_finite) == (block.shape[1], 0, True)
    assert extent.peak == np.abs(block).max()
    assert extent.weight_mean == pytest.approx(block.astype(float).mean(), abs=1e-13)


@given(blocks(), st.sampled_from([math.nan, math.inf, -math.inf]), st.data())
def test_one_weight_that_is_not_finite_leaves_the_layer_without_statistics(
    block: np.ndarray, weight: float, data: st.DataObject
) -> None:
    spoilt = data.draw(st.sets(st.integers(0, block.shape[1] - 1), min_size=1))
    for column in spoilt:
        block[data.draw(st.integers(0, 8)), column] = weight
    extent = merge_in_any_grouping([LayerExtent.of(part) for part in cut(block, data)], data)
    assert extent == LayerExtent(block.shape[1], len(spoilt))
    assert not extent.is_finite


def test_the_basis_is_the_principal_components_of_scikit_learn() -> None:
    scaled = scaled_filters(RANDOM)
    basis, pca = basis_of(RANDOM), PCA(svd_solver="full").fit(scaled.T)
    np.testing.assert_allclose(basis.mean, pca.mean_, atol=1e-14)
    np.testing.assert_allclose(basis.eigenvalues, pca.explained_variance_, rtol=1e-11)
    np.testing.assert_allclose(basis.explained_variance_ratio, pca.explained_variance_ratio_, rtol=1e-11)
    np.testing.assert_allclose(np.abs((basis.loadings * pca.components_).sum(axis=1)), 1, rtol=1e-11)
    np.testing.assert_allclose(
        np.abs((basis.loadings @ scaled - basis.offset[:, None]).T), np.abs(pca.transform(scaled.T)), atol=1e-11
    )


@given(blocks(min_filters=2))
def test_loadings_are_orthonormal_sorted_and_have_a_sign(block: np.ndarray) -> None:
    basis = basis_of(block)
    np.testing.assert_allclose(basis.loadings @ basis.loadings.T, np.eye(9), atol=1e-12)
    assert (np.diff(basis.eigenvalues) <= 0).all()
    assert (basis.eigenvalues >= 0).all()
    for loading in basis.loadings:
        strongest = np.abs(loading)
        assert loading[strongest > (1 - 1e-9) * strongest.max()][0] > 0
    assert basis.explained_variance_ratio.sum() == pytest.approx(1 if basis.eigenvalues.any() else 0)


def test_a_dataset_without_variance_explains_none() -> None:
    np.testing.assert_array_equal(basis_of(np.ones((9, 5))).explained_variance_ratio, np.zeros(9))


def test_a_filter_is_sparse_below_one_hundredth_of_the_layers_peak_but_not_at_it() -> None:
    block = np.zeros((9, 4), np.float32)
    block[4] = [-100, 1, np.nextafter(np.float32(1), np.float32(0)), -1]
    assert scan_of(block).n_sparse == 1


def test_only_bins_that_are_not_empty_are_kept() -> None:
    counts = np.zeros((9, 70), np.int64)
    counts[0, 0], counts[3, 69], counts[8, 69] = 1, 2**40, 3
    kept = Counts.of(counts)
    assert kept.positions.tolist() == [0, 3 * 70 + 69, 629]
    assert kept.n.tolist() == [1, 2**40, 3]


@given(st.lists(st.lists(st.integers(0, 3), min_size=5, max_size=5), min_size=1, max_size=5), st.data())
def test_kept_bins_add_up_like_whole_histograms(histograms: list[list[int]], data: st.DataObject) -> None:
    merged = merge_in_any_grouping([Counts(), *(Counts.of(np.array(h)) for h in histograms)], data)
    total = np.sum(histograms, axis=0)
    assert dict(zip(merged.positions.tolist(), merged.n.tolist(), strict=True)) == {
        place: n for place, n in enumerate(total.tolist()) if n
    }


def test_thresholds_are_the_decimals_of_two_digits() -> None:
    decimals = [f"{digits // 10}.{digits % 10}e-{k}" for k in range(5, 0, -1) for digits in range(10, 100)]
    assert PEAK_EDGES.tolist() == [*map(float, decimals), 1.0]
    assert {1e-5, 0.00023, 0.01, 0.05, 0.1, 0.99} <= set(PEAK_EDGES.tolist())


def close_to_thresholds(layer_peak: float) -> np.ndarray:
    """A block whose peaks are the layer's, each threshold's and the next float32 on both sides of it."""
    at = (PEAK_EDGES * layer_peak).astype(np.float32)
    near = np.concatenate([[layer_peak], at, np.nextafter(at, np.float32(0)), np.nextafter(at, np.float32(np.inf))])
    return np.outer(np.arange(9) == 4, np.minimum(near, layer_peak)).astype(np.float32)


@pytest.mark.parametrize("layer_peak", np.float32([1, 0.3, 7.77e-7, 1e-37, 3e38, 1e-42]).tolist())
def test_relative_peaks_agree_with_the_definition_of_sparsity_on_both_sides_of_every_threshold(
    layer_peak: float,
) -> None:
    block = close_to_thresholds(layer_peak)
    block[0, 5:8] = 0
    block[4, 5:8] = 0
    counts = relative_peaks(peaks(block), layer_peak)
    single = [max(map(abs, f)) for f in block.T.astype(float)]
    for i, eps in enumerate(PEAK_EDGES.tolist()):
        assert counts.n[counts.positions <= i + 1].sum() == sum(p < eps * layer_peak for p in single), eps
    assert dict(zip(counts.positions.tolist(), counts.n.tolist(), strict=True)).get(0, 0) == single.count(0)
    assert counts.n.sum() == len(single)


@given(blocks(), st.data())
def test_relative_peaks_of_any_pieces_add_up_to_the_sparse_filters(block: np.ndarray, data: st.DataObject) -> None:
    scan = scan_of(block, data)
    bin_of_one_hundredth = 1 + PEAK_EDGES.tolist().index(0.01)
    counts = scan.relative_peaks
    assert counts.n[counts.positions <= bin_of_one_hundredth].sum() == scan.n_sparse
    assert counts.n.sum() == block.shape[1]


def test_sparsity_compares_with_the_peak_of_the_whole_layer() -> None:
    loud, faint = RANDOM[:, :10] * 1000, RANDOM[:, 10:30] / 1000
    layer = LayerExtent.of(loud).merge(LayerExtent.of(faint))
    assert LayerScan.of(faint, layer).n_sparse == 20
    assert scan_of(faint).n_sparse == 0


@pytest.mark.parametrize("n", [1, 2, 50])
def test_every_filter_of_an_all_zero_layer_is_sparse_and_its_entropy_zero(n: int) -> None:
    block = np.zeros((9, n), np.float32)
    scan = scan_of(block)
    assert (scan.n_sparse, scan.clean_raw.n) == (n, 0)
    assert (scan.relative_peaks.positions.tolist(), scan.relative_peaks.n.tolist()) == ([0], [n])
    assert variance_entropies([scan.raw]) == [0.0 if n > 1 else None]
    assert (scan.l1, scan.l2, scan.weight_std) == (0.0, 0.0, 0.0)


@given(blocks(), st.floats(-3, -0.1), st.floats(0.1, 3))
def test_histograms_count_as_a_loop_over_single_coefficients_does(block: np.ndarray, low: float, high: float) -> None:
    basis = basis_of(RANDOM)
    expected, beyond = np.zeros((9, 70), int), 0
    for scaled in scaled_filters(block).T:
        for k, loading in enumerate(basis.loadings):
            coefficient = float(loading @ (scaled - basis.mean))
            beyond += not low - 1e-9 <= coefficient <= high + 1e-9
            place = math.floor(70 * (coefficient - low) / (high - low) + 1e-9)
            expected[k, min(max(place, 0), 69)] += 1
    counts, outside = histogram(block, Coordinates(basis, 1, low, high))
    np.testing.assert_array_equal(counts, expected)
    assert counts.sum(axis=1).tolist() == [block.shape[1]] * 9
    assert outside == beyond


def test_zero_filters_share_a_bin_when_they_lie_on_the_middle_edge() -> None:
    centred = Basis(np.zeros(9), np.ones(9), np.eye(9))
    bounds = np.random.default_rng(3).uniform(0.5, 3, 300)
    assert len({math.floor(bound * (70 / (2 * bound))) for bound in bounds}) == 2, "no tie is at stake"
    for bound in bounds:
        counts, _ = histogram(np.zeros((9, 4), np.float32), Coordinates(centred, 1, -bound, bound))
        assert counts[:, 35].tolist() == [4] * 9


def test_coefficients_outside_the_range_count_in_the_edge_bins() -> None:
    basis = Basis(np.zeros(9), np.ones(9), np.eye(9))
    block = np.tile(np.array([-1, -0.5, 0.5, 1], np.float32), (9, 1))
    block[0] = [1, 1, 1, 1]
    block[:, 1:3] *= 2
    counts, outside = histogram(block, Coordinates(basis, 1, -0.25, 0.25))
    assert outside == block.size
    assert counts[0, 69] == 4
    assert (counts[1:, 0] == 2).all()
    assert (counts[1:, 69] == 2).all()


def rows_of(weights: np.ndarray) -> Callable[[int, int], np.ndarray]:
    return lambda first, last: weights[first:last]


@given(st.integers(2, 9), st.integers(1, 4), st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_orthogonality_is_that_of_a_loop_for_every_panel(m: int, in_channels: int, seed: int) -> None:
    weights = np.random.default_rng(seed).integers(-2, 3, (m, in_channels * 9)).astype(float)
    weights[seed % m] = 0
    overlap = 0.0
    for i in range(m):
        for j in range(m):
            lengths = (np.linalg.norm(weights[i]) or 1) * (np.linalg.norm(weights[j]) or 1)
            overlap += abs(weights[i] @ weights[j] / lengths - (i == j))
    for panel in range(1, m + 2):
        found = orthogonality(rows_of(weights), m, panel)
        assert found == pytest.approx(1 - overlap / (m * (m - 1)), abs=1e-12)


@pytest.mark.parametrize("in_channels", [40, 512])
@pytest.mark.parametrize("weight", [0.1, 0.3])
def test_orthogonality_of_many_equal_channels_is_zero_up_to_rounding(in_channels: int, weight: float) -> None:
    # their inner products are sums of equal numbers, whose rounding errors do not cancel
    weights = np.full((300, in_channels * 9), np.float32(weight), float)
    assert orthogonality(rows_of(weights), 300, 100) == pytest.approx(0, abs=1e-12)


def test_orthogonality_is_one_for_orthogonal_zero_for_equal_and_unknown_for_single_channels() -> None:
    assert orthogonality(rows_of(np.eye(9) * 5), 9, 4) == 1.0
    assert orthogonality(rows_of(np.tile(np.arange(9.0), (6, 1))), 6, 4) == pytest.approx(0, abs=1e-12)
    assert orthogonality(rows_of(np.eye(9)), 1, 4) is None


@pytest.mark.parametrize("n", NUMBERS)
@pytest.mark.parametrize("share_sparse", [0.0, 0.001, 0.3, 0.999, 1.0])
def test_blocks_of_several_tiles_are_measured_like_one(n: int, share_sparse: float) -> None:
    rng = np.random.default_rng(n)
    block = rng.normal(0.01, size=(9, n)).astype(np.float32)
    block[:, rng.random(n) < share_sparse] *= np.float32(1e-4)
    extent = LayerExtent.of(block)
    scan = LayerScan.of(block, extent, basis := basis_of(RANDOM))
    raw, scaled, peak = block.astype(float), scaled_filters(block), np.abs(block).max(axis=0)
    clean = peak >= 0.01 * float(peak.max())
    assert (extent.n_filters, extent.peak) == (n, peak.max())
    assert extent.total == pytest.approx(raw.sum(), rel=1e-10, abs=1e-10)
    assert scan.n_sparse == n - clean.sum()
    for found, x in [
        (scan.raw, raw), (scan.scaled, scaled), (scan.clean_raw, raw[:, clean]), (scan.clean_scaled, scaled[:, clean])
    ]:  # fmt: skip
        assert found.n == x.shape[1]
        np.testing.assert_allclose(found.mean, x.mean(axis=1) if found.n else 0, rtol=1e-10, atol=1e-13)
        centred = x - (x.mean(axis=1, keepdims=True) if found.n else 0)
        np.testing.assert_allclose(found.scatter, centred @ centred.T, rtol=1e-10, atol=1e-10)
    assert scan.l1 == pytest.approx(np.abs(raw).sum(), rel=1e-12)
    assert scan.absolute_deviation == pytest.approx(np.abs(raw - raw.mean()).sum(), rel=1e-12)
    projections = basis.loadings @ scaled
    lowest, highest = projections.min(axis=1), projections.max(axis=1)
    np.testing.assert_allclose(scan.boxes[0], np.stack([lowest, highest], axis=1), atol=1e-6)
    ends = (lowest - basis.offset).min(), (highest - basis.offset).max()
    assert extremes(block, basis) == pytest.approx(ends, abs=1e-12)
    counts, outside = histogram(block, Coordinates(basis, 1, -2, 1))
    positions = 70 * (projections - basis.offset[:, None] + 2) / 3
    assert (np.abs(positions - np.rint(positions)) > 1e-8).all()
    for component, own in enumerate(np.clip(positions, 0, 69).astype(int)):
        np.testing.assert_array_equal(counts[component], np.bincount(own, minlength=70))
    assert outside == ((positions < 0) | (positions > 70)).sum()


@pytest.mark.parametrize("n", [1, 300, 500])
def test_a_block_is_the_same_wherever_it_lies_in_memory(n: int) -> None:
    block = RANDOM[:, :n].copy()
    wide, sparse_rows = np.zeros((9, n + 40), np.float32), np.zeros((n, 3, 9), np.float32)
    wide[:, 7 : n + 7] = block
    sparse_rows[:, 1] = block.T
    coordinates = Coordinates(basis_of(RANDOM), 1, -2, 2)
    extent, scan, (counts, _) = LayerExtent.of(block), scan_of(block), histogram(block, coordinates)
    upside_down = block[::-1].copy()[::-1]
    for view in (wide[:, 7 : n + 7], sparse_rows[:, 1].T, np.asfortranarray(block), upside_down):
        assert LayerExtent.of(view) == extent
        np.testing.assert_equal(asdict(scan_of(view)), asdict(scan))
        np.testing.assert_array_equal(histogram(view, coordinates)[0], counts)
        assert extremes(view, coordinates.basis) == extremes(block, coordinates.basis)


@given(blocks(), st.data())
def test_histograms_of_pieces_add_up(block: np.ndarray, data: st.DataObject) -> None:
    coordinates = Coordinates(basis_of(RANDOM), 1, -0.5, 0.5)
    parts, outside = zip(*(histogram(part, coordinates) for part in cut(block, data) if part.shape[1]), strict=True)
    whole, whole_outside = histogram(block, coordinates)
    np.testing.assert_array_equal(reduce(np.add, parts), whole)
    assert sum(outside) == whole_outside


@given(blocks())
def test_the_range_that_spans_all_coefficients_leaves_none_outside(block: np.ndarray) -> None:
    basis = basis_of(RANDOM)
    low, high = extremes(block, basis)
    coefficients = basis.loadings @ (scaled_filters(block) - basis.mean[:, None])
    assert (low, high) == pytest.approx((coefficients.min(), coefficients.max()), abs=1e-12)
    _, outside = histogram(block, Coordinates.spanning(basis, 1, low, high))
    assert outside == 0


@pytest.mark.parametrize("n", [1, 300])
def test_ends_are_estimated_exactly_where_the_axes_are_the_components_in_any_order_and_direction(n: int) -> None:
    basis, block = basis_of(RANDOM), RANDOM[:, :n]
    signs = np.array([1, -1, 1, 1, -1, -1, 1, -1, 1])
    trial = Basis(basis.mean, basis.eigenvalues, (basis.loadings * signs[:, None])[[3, 1, 0, 2, 8, 4, 5, 7, 6]])
    boxes = LayerScan.of(block, LayerExtent.of(block), trial).boxes
    (low,), (high,) = estimated_ends(boxes, trial, basis)
    assert (low, high) == pytest.approx(extremes(block, basis), abs=1e-6)


def test_ends_are_estimated_closely_where_the_axes_are_close_to_the_components() -> None:
    rng = np.random.default_rng(5)
    basis, blocks = basis_of(RANDOM), np.split(RANDOM, 10, axis=1)
    turned = np.linalg.qr(np.eye(9) + 0.01 * rng.normal(size=(9, 9)))[0]
    trial = Basis(basis.mean, basis.eigenvalues, turned @ basis.loadings)
    boxes = np.concatenate([LayerScan.of(block, LayerExtent.of(block), trial).boxes for block in blocks])
    estimated = np.transpose(estimated_ends(boxes, trial, basis))
    exact = np.array([extremes(block, basis) for block in blocks])
    assert np.ptp(exact, axis=0).min() > 0.2, "the blocks hardly differ"
    np.testing.assert_allclose(estimated, exact, atol=0.1)


@given(blocks())
def test_with_a_margin_inside_the_range_what_lies_at_its_ends_is_told(block: np.ndarray) -> None:
    basis = basis_of(RANDOM)
    low, high = extremes(block, basis)
    coordinates = Coordinates.spanning(basis, 1, low, high)
    counts, at_ends = histogram(block, coordinates, -EDGE_ROUNDING)
    assert at_ends >= (1 if low == high else 2)
    np.testing.assert_array_equal(counts, histogram(block, coordinates)[0])
    assert histogram(block, Coordinates(basis, 1, low - 1, high + 1), -EDGE_ROUNDING)[1] == 0


def test_a_range_is_never_empty() -> None:
    coordinates = Coordinates.spanning(basis_of(RANDOM), 1, 0.5, 0.5)
    assert (coordinates.low, coordinates.high) == (0.5, 1.5)
