"""The tables of partial results: every column against NumPy and SciPy over the whole layer."""

import math
from functools import reduce
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from tests.test_statistics import moments_of
from warehouse import rollups
from warehouse.coordinates import Basis, Coordinates
from warehouse.layer_scan import LayerExtent, LayerScan, Measurement
from warehouse.statistics import Counts

RNG = np.random.default_rng(21)
BASIS = Basis.of(moments_of(RNG.normal(size=(9, 60))))
STATISTICS = (
    "n_sparse sparsity variance_entropy variance_entropy_norm is_random is_degenerate variance_entropy_clean "
    "variance_entropy_clean_norm scaled_clean_entropy orthogonality l1 l2 l1_standardised l2_standardised"
).split()


def normal(n: int) -> np.ndarray:
    return RNG.normal(size=(9, n)).astype(np.float32)


def one_direction(n: int, n_sparse: int) -> np.ndarray:
    """Filters along one kernel, so that their entropy is low, the last of them sparse."""
    block = (np.outer(np.arange(1, 10), np.linspace(1, 2, n)) + 0.01 * normal(n)).astype(np.float32)
    block[:, n - n_sparse :] /= 1000
    return block


def stretched(n: int) -> np.ndarray:
    """Filters of middling entropy."""
    return normal(n) * (0.45 ** np.arange(9, dtype=np.float32))[:, None]


def threshold(n: int) -> float:
    return 1.2618047 / (1 + math.exp(-0.88767525 * (math.log2(n) - 2.30436435))) - 0.31050834


def entropy(filters: np.ndarray) -> float | None:
    if filters.shape[1] < 2:
        return None
    variances = np.linalg.svd(filters.T - filters.mean(axis=1), compute_uv=False) ** 2
    return float(stats.entropy(variances, base=10)) if variances.sum() > 1e-28 else 0.0


def almost_random(n: int) -> np.ndarray:
    """Filters of an entropy that is 0.01 below the threshold."""
    block = normal(n)
    while (entropy(block.astype(float)) or 0) > threshold(n) - 0.01:
        block[0] *= 1.01
    return block


LAYERS = {
    "random": normal(300),
    "almost random": almost_random(300),
    "stretched": stretched(300),
    "stretched, a third sparse": np.hstack([stretched(200), stretched(100) / 1000]).astype(np.float32),
    "low entropy, 13 % sparse": one_direction(100, 13),
    "low entropy, 14 % sparse": one_direction(50, 7),
    "low entropy, none sparse": one_direction(50, 0),
    "all zero": np.zeros((9, 20), np.float32),
    "equal filters": np.tile(normal(1), (1, 5)),
    "one weight": np.full((9, 4), 0.3, np.float32),
    "one filter": normal(1),
    "two filters": normal(2),
    "three filters, one sparse": normal(3) * np.array([1, 1, 1e-5], np.float32),
    "some zero": np.hstack([normal(30), np.zeros((9, 30), np.float32)]),
}


def measurement(layer_id: int | None, block: np.ndarray, orthogonality: float | None = None) -> Measurement:
    """What the passes find out about a layer that comes in three blocks."""
    blocks = [part for part in np.array_split(block, 3, axis=1) if part.shape[1]]
    extent, scan = reduce(LayerExtent.merge, map(LayerExtent.of, blocks)), LayerScan()
    if extent.is_finite:
        for part in blocks:
            scan = scan.merge(LayerScan.of(part, extent))
    return Measurement(layer_id, f"checksum of {layer_id}", extent, scan, orthogonality)


def ratio(h: float | None, n: int) -> float | None:
    return h / threshold(n) if n > 2 else None


def scaled_filters(filters: np.ndarray) -> np.ndarray:
    peak = np.abs(filters).max(axis=0)
    return filters / np.where(peak > 0, peak, 1)


def clean_filters(filters: np.ndarray) -> np.ndarray:
    peak = np.abs(filters).max(axis=0)
    return filters[:, (peak >= 0.01 * peak.max()) & (peak.max() > 0)]


def expected_quality(block: np.ndarray) -> dict[str, float | bool | None]:
    filters = block.astype(float)
    clean = clean_filters(filters)
    n, n_clean = filters.shape[1], clean.shape[1]
    h, sparsity = entropy(filters), (n - n_clean) / n
    weights = filters.ravel()
    standardised = stats.zscore(weights, ddof=1) if len(set(weights)) > 1 else None
    return {
        "n_filters": n,
        "n_sparse": n - n_clean,
        "sparsity": sparsity,
        "variance_entropy": h,
        "randomness_threshold": threshold(n),
        "variance_entropy_norm": ratio(h, n),
        "is_random": None if h is None else h > threshold(n),
        "is_degenerate": None if h is None else h >= threshold(n) - 0.02 or (h < 0.5 and sparsity >= 0.14),
        "variance_entropy_clean": entropy(clean),
        "variance_entropy_clean_norm": ratio(entropy(clean), n_clean),
        "scaled_clean_entropy": entropy(scaled_filters(clean)),
        "l1": np.linalg.norm(weights, 1),
        "l2": np.linalg.norm(weights),
        "l1_standardised": None if standardised is None else np.linalg.norm(standardised, 1),
        "l2_standardised": None if standardised is None else np.linalg.norm(standardised),
    }


@pytest.fixture(scope="module")
def quality() -> dict[str, dict]:
    """Rows of ``layer_quality`` by the names of ``LAYERS``."""
    rows = rollups.layer_quality([measurement(i, block) for i, block in enumerate(LAYERS.values())]).to_pylist()
    assert [row["layer_id"] for row in rows] == list(range(len(LAYERS)))
    return dict(zip(LAYERS, rows, strict=True))


@pytest.mark.parametrize("name", LAYERS)
def test_the_quality_of_a_layer_is_that_of_its_definition(quality: dict[str, dict], name: str) -> None:
    for column, value in expected_quality(LAYERS[name]).items():
        found = quality[name][column]
        assert found == (pytest.approx(value, rel=1e-9, abs=1e-12) if isinstance(value, float) else value), column


@pytest.mark.parametrize(
    ("name", "degenerate", "random"),
    [
        ("random", True, None),
        ("almost random", True, False),
        ("stretched", False, False),
        ("low entropy, 13 % sparse", False, False),
        ("low entropy, 14 % sparse", True, False),
        ("low entropy, none sparse", False, False),
        ("all zero", True, False),
        ("one filter", None, None),
    ],
)
def test_layers_are_degenerate_that_are_random_or_of_low_entropy_and_sparse(
    quality: dict[str, dict], name: str, degenerate: bool | None, random: bool | None
) -> None:
    assert quality[name]["is_degenerate"] is degenerate
    assert random is None or quality[name]["is_random"] is random


def test_edge_layers_have_the_values_and_nulls_of_the_rules(quality: dict[str, dict]) -> None:
    zero, single, pair, equal = (quality[name] for name in ("all zero", "one filter", "two filters", "one weight"))
    assert (zero["sparsity"], zero["variance_entropy"], zero["l1"], zero["l2"]) == (1.0, 0.0, 0.0, 0.0)
    assert zero["variance_entropy_clean"] is zero["scaled_clean_entropy"] is zero["l1_standardised"] is None
    assert single["variance_entropy"] is single["variance_entropy_norm"] is single["is_random"] is None
    assert pair["variance_entropy"] is not None
    assert pair["variance_entropy_norm"] is pair["variance_entropy_clean_norm"] is None
    assert (equal["variance_entropy"], equal["l1_standardised"], equal["l2_standardised"]) == (0.0, None, None)


def test_the_quality_of_a_layer_that_is_not_finite_is_unknown_but_for_its_size() -> None:
    block = normal(9)
    block[3, 3] = np.inf
    (row,) = rollups.layer_quality([measurement(4, block)]).to_pylist()
    assert (row["layer_id"], row["n_filters"]) == (4, 9)
    assert {name: row[name] for name in STATISTICS} == dict.fromkeys(STATISTICS)


def test_quality_has_a_row_for_each_layer_in_their_order_and_none_for_what_none_claims() -> None:
    table = rollups.layer_quality([measurement(i, normal(4), i) for i in (7, None, 2, 5)])
    assert table["layer_id"].to_pylist() == [2, 5, 7]
    assert table["orthogonality"].to_pylist() == [2.0, 5.0, 7.0]
    assert table.schema.field("n_sparse").type == pa.int64()
    assert table.schema.field("is_random").type == pa.bool_()


def covariance_of(packed: list[float], n: int) -> np.ndarray:
    """Undo the packing: entry by entry, row by row of the upper triangle."""
    covariance, entries = np.zeros((9, 9)), iter(packed)
    for i in range(9):
        for j in range(i, 9):
            covariance[i, j] = covariance[j, i] = next(entries) / (n - 1)
    return covariance


def test_moments_are_those_of_scaled_raw_and_clean_filters() -> None:
    names = ("stretched, a third sparse", "low entropy, none sparse", "some zero")
    table = rollups.layer_moments([measurement(i, LAYERS[name]) for i, name in enumerate(names)])
    for row, name in zip(table.to_pylist(), names, strict=True):
        filters = LAYERS[name].astype(float)
        clean = clean_filters(filters)
        assert (row["n"], row["n_clean"]) == (filters.shape[1], clean.shape[1])
        for prefix, x in {
            "": scaled_filters(filters),
            "raw_": filters,
            "clean_": scaled_filters(clean),
            "clean_raw_": clean,
        }.items():
            np.testing.assert_allclose(row[f"{prefix}mean"], x.mean(axis=1), atol=1e-13)
            np.testing.assert_allclose(covariance_of(row[f"{prefix}scatter"], x.shape[1]), np.cov(x), atol=1e-11)


def test_moments_keep_what_no_layer_claims_and_are_unknown_of_what_is_not_finite() -> None:
    spoilt = np.full((9, 3), np.nan, np.float32)
    rows = rollups.layer_moments(
        [measurement(None, normal(5)), measurement(1, spoilt), measurement(2, normal(6))]
    ).to_pylist()
    assert [(row["layer_id"], row["n"]) for row in rows] == [(None, 5), (1, None), (2, 6)]
    assert all(value is None for name, value in rows[1].items() if name != "layer_id")
    assert all(len(row["mean"]) == 9 and len(row["clean_raw_scatter"]) == 45 for row in (rows[0], rows[2]))


def test_an_all_zero_layer_has_no_clean_filters() -> None:
    (row,) = rollups.layer_moments([measurement(0, LAYERS["all zero"])]).to_pylist()
    assert (row["n"], row["n_clean"]) == (20, 0)
    assert row["clean_mean"] == [0.0] * 9
    assert row["scatter"] == row["clean_scatter"] == [0.0] * 45


@pytest.mark.parametrize("layers_a_table", [1, 2, 100])
def test_histograms_come_back_from_their_table(layers_a_table: int) -> None:
    histograms = RNG.integers(0, 2, (5, 9, 70)) * RNG.integers(1, 2**40, (5, 9, 70))
    histograms[3] = 0
    ids = [4, None, 0, 1, 2]
    counts = [Counts.of(histogram) for histogram in histograms]
    with patch.object(rollups, "HISTOGRAM_LAYERS", layers_a_table):
        schema, tables = rollups.layer_histograms(ids, counts)
        parts = list(tables)
    assert len(parts) == math.ceil(5 / layers_a_table)
    back = {layer_id: np.zeros((9, 70), np.int64) for layer_id in ids}
    rows = pa.concat_tables(parts).to_pylist()
    for row in rows:
        back[row["layer_id"]][row["component"], row["bin"]] += row["n"]
    assert len(rows) == np.count_nonzero(histograms), "a bin occurs twice or is empty"
    for layer_id, histogram in zip(ids, histograms, strict=True):
        np.testing.assert_array_equal(back[layer_id], histogram)
    assert all(part.schema == schema for part in parts)


@pytest.mark.parametrize("layers_a_table", [1, 2, 100])
def test_relative_peaks_come_with_their_layer_and_without_what_no_layer_claims(layers_a_table: int) -> None:
    spoilt = np.full((9, 3), np.nan, np.float32)
    blocks = {3: stretched(200), None: normal(8), 0: np.zeros((9, 4), np.float32), 7: spoilt, 5: normal(1)}
    with patch.object(rollups, "HISTOGRAM_LAYERS", layers_a_table):
        schema, tables = rollups.layer_peaks([measurement(layer_id, block) for layer_id, block in blocks.items()])
        table = pa.concat_tables(tables)
    assert table.schema == schema
    rows = table.to_pylist()
    assert list(dict.fromkeys(row["layer_id"] for row in rows)) == [3, 0, 5]
    assert [(row["bin"], row["n"]) for row in rows if row["layer_id"] in (0, 5)] == [(0, 4), (452, 1)]
    peak = np.abs(blocks[3].astype(float)).max(axis=0)
    edges = rollups.peak_edges().to_pylist()
    assert len(edges) == 451
    for edge in edges:
        below = sum(row["n"] for row in rows if row["layer_id"] == 3 and row["bin"] <= edge["bin"])
        assert below == (peak < edge["eps"] * peak.max()).sum()


def test_every_layer_has_its_checksum_and_what_no_layer_claims_has_none() -> None:
    spoilt = np.full((9, 3), np.nan, np.float32)
    table = rollups.layer_checksums([measurement(4, normal(2)), measurement(None, normal(1)), measurement(1, spoilt)])
    assert table.to_pylist() == [{"layer_id": i, "sha256": f"checksum of {i}"} for i in (4, 1)]


def test_the_tables_of_the_basis_hold_it() -> None:
    tables = rollups.basis_tables(Coordinates(BASIS, 60, -1.5, 2.5))
    basis = tables["basis"].to_pylist()
    assert [row["component"] for row in basis] == list(range(9))
    np.testing.assert_array_equal([row["loading"] for row in basis], BASIS.loadings)
    assert sum(row["explained_variance_ratio"] for row in basis) == pytest.approx(1)
    assert [row["eigenvalue"] for row in basis] == BASIS.eigenvalues.tolist()
    assert tables["basis_mean"].to_pylist() == [{"n": 60, "mean": BASIS.mean.tolist()}]
    assert tables["histogram_range"].to_pylist() == [{"lo": -1.5, "hi": 2.5, "bins": 70}]
