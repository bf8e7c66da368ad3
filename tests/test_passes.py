"""The passes over a segment, cut into small chunks and blocks, against whole arrays in NumPy and plain loops."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow.parquet as pq
import pytest

from warehouse import passes, plan
from warehouse.errors import SourceError
from warehouse.lake import Lake
from warehouse.plan import Run, Segment
from warehouse.statistics import Basis, Coordinates, LayerScan, Moments

FIRST = 50
SIZES = {10: 12, 11: 1, 12: 6, 13: 60, 14: 7, 15: 30}
ALL_ZERO, NOT_FINITE = 12, 14
OUT_CHANNELS = {10: 4, 11: 1, 12: 3, 13: 6, 14: 7}


class MemorySource:
    """A dataset file that is an array."""

    def __init__(self, weights: np.ndarray) -> None:
        self.weights = weights

    def read(self, start: int, stop: int, out: np.ndarray | None = None) -> np.ndarray:
        block = np.empty((9, stop - start), np.float32) if out is None else out
        block[:] = self.weights[:, start:stop]
        return block


class Progress:
    """Adds up what it is told."""

    def __init__(self) -> None:
        self.total = 0

    def __call__(self, n: int) -> None:
        self.total += n


def runs() -> tuple[Run, ...]:
    edges = FIRST + np.cumsum([0, *SIZES.values()])
    return tuple(Run(layer, 2, int(a), int(b)) for layer, a, b in zip(SIZES, edges, edges[1:], strict=False))


SEGMENT = Segment(runs())
RUN = {run.layer_id: run for run in SEGMENT.runs}


def made_weights() -> np.ndarray:
    rng = np.random.default_rng(11)
    weights = rng.normal(size=(9, FIRST + SEGMENT.n)).astype(np.float32)
    weights[:, RUN[ALL_ZERO].start : RUN[ALL_ZERO].stop] = 0
    weights[:, RUN[13].start + 5 : RUN[13].start + 40 : 3] /= 1000
    weights[4, RUN[NOT_FINITE].start + 3] = np.nan
    return weights


WEIGHTS = made_weights()
BASIS = Basis.of(Moments.of(np.random.default_rng(2).normal(size=(9, 100))))


def layer(layer_id: int) -> np.ndarray:
    return WEIGHTS[:, RUN[layer_id].start : RUN[layer_id].stop].astype(float)


def coefficients(layer_id: int) -> np.ndarray:
    filters = layer(layer_id)
    peak = np.abs(filters).max(axis=0)
    return BASIS.loadings @ (filters / np.where(peak > 0, peak, 1) - BASIS.mean[:, None])


@pytest.fixture(autouse=True)
def small_cut() -> Iterator[None]:
    """Blocks of 8 filters, chunks of 16, and three output channels of layer 13 at a time."""
    with patch.multiple(plan, BLOCK_FILTERS=8, CHUNK_FILTERS=16), patch.object(passes, "PANEL_BYTES", 3 * 10 * 72):
        yield


@pytest.fixture
def converted(tmp_path: Path) -> tuple[Path, list[LayerScan]]:
    path, scans, _ = passes.convert(MemorySource(WEIGHTS), Lake(tmp_path), SEGMENT, Progress(), allow_nonfinite=True)
    return path, scans


def test_converting_writes_the_filters_bit_for_bit_and_says_whose_they_are(tmp_path: Path) -> None:
    lake, done = Lake(tmp_path), Progress()
    path, _, _ = passes.convert(MemorySource(WEIGHTS), lake, SEGMENT, done, allow_nonfinite=True)
    table = pq.ParquetFile(path).read()
    written = np.array([table[f"w{i}"].to_numpy() for i in range(9)])
    np.testing.assert_array_equal(written.view(np.uint32), WEIGHTS[:, FIRST:].view(np.uint32))
    assert table["layer_id"].to_pylist() == [layer for layer, n in SIZES.items() for _ in range(n)]
    assert [(tmp_path / file.path, file.n_rows) for file in lake.files] == [(path, SEGMENT.n)]
    assert done.total == SEGMENT.n


def test_converting_scans_each_layer_across_its_chunks(converted: tuple[Path, list[LayerScan]]) -> None:
    for run, scan in zip(SEGMENT.runs, converted[1], strict=True):
        if run.layer_id == NOT_FINITE:
            assert (scan.n_filters, scan.n_nonfinite) == (7, 1)
            continue
        filters = layer(run.layer_id)
        assert (scan.n_filters, scan.peak) == (run.n, np.abs(filters).max())
        assert scan.l1 == pytest.approx(np.abs(filters).sum())
        np.testing.assert_allclose(scan.raw.mean, filters.mean(axis=1), atol=1e-14)
        if run.n > 1:
            np.testing.assert_allclose(scan.raw.covariance(), np.cov(filters), atol=1e-13)


def test_converting_takes_the_checksum_of_each_layer_across_its_chunks_whatever_its_weights(tmp_path: Path) -> None:
    checksums = passes.convert(MemorySource(WEIGHTS), Lake(tmp_path), SEGMENT, Progress(), allow_nonfinite=True)[2]
    for run, checksum in zip(SEGMENT.runs, checksums, strict=True):
        filters = np.array([[WEIGHTS[i, k] for i in range(9)] for k in range(run.start, run.stop)])
        assert checksum == hashlib.sha256(filters.astype("<f4").tobytes()).hexdigest()


def test_a_weight_that_is_not_finite_is_an_error_that_names_its_filter(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    filter_id = RUN[NOT_FINITE].start + 3
    with pytest.raises(
        SourceError, match=rf"filter {filter_id} of layer_id 14, model_id 2, has a NaN or inf"
    ) as raised:
        passes.convert(MemorySource(WEIGHTS), lake, SEGMENT, Progress(), allow_nonfinite=False)
    assert "\n" not in str(raised.value)
    assert lake.files == []


def test_a_weight_that_is_not_finite_and_that_no_layer_claims_is_an_error_too(tmp_path: Path) -> None:
    weights = np.zeros((9, 30), np.float32)
    weights[8, 27] = -np.inf
    segment = Segment((Run(None, None, 0, 30),))
    with pytest.raises(SourceError, match="filter 27 that no layer claims"):
        passes.convert(MemorySource(weights), Lake(tmp_path), segment, Progress(), allow_nonfinite=False)


def test_measuring_gives_each_layers_detail(converted: tuple[Path, list[LayerScan]]) -> None:
    path, scans = converted
    done = Progress()
    measured = passes.measure(path, SEGMENT, scans, BASIS, OUT_CHANNELS, done)
    assert done.total == SEGMENT.n
    for run, (detail, _) in zip(SEGMENT.runs, measured, strict=True):
        if run.layer_id == NOT_FINITE:
            assert (detail.n_sparse, detail.absolute_deviation, detail.low, detail.high) == (0, 0.0, np.inf, -np.inf)
            assert detail.relative_peaks.n.size == 0
            continue
        filters = layer(run.layer_id)
        peak = np.abs(filters).max(axis=0)
        sparse = run.n if run.layer_id == ALL_ZERO else (peak < 0.01 * peak.max()).sum()
        assert detail.n_sparse == sparse
        assert detail.relative_peaks.n.sum() == run.n
        up_to_a_tenth = detail.relative_peaks.positions <= 1 + 4 * 90
        below_a_tenth = run.n if run.layer_id == ALL_ZERO else (peak < 0.1 * peak.max()).sum()
        assert detail.relative_peaks.n[up_to_a_tenth].sum() == below_a_tenth
        assert detail.absolute_deviation == pytest.approx(np.abs(filters - filters.mean()).sum())
        c = coefficients(run.layer_id)
        assert (detail.low, detail.high) == pytest.approx((c.min(), c.max()), abs=1e-12)
    assert measured[3][0].n_sparse >= 10, "the sample has no sparse filters"


def naive_orthogonality(layer_id: int) -> float | None:
    """Output channel by output channel, its input channels and their weights in the order of the file."""
    m = OUT_CHANNELS[layer_id]
    if m == 1:
        return None
    filters = layer(layer_id).T
    per_channel = len(filters) // m
    rows = [np.concatenate(filters[i * per_channel : (i + 1) * per_channel]) for i in range(m)]
    rows = [row / (np.linalg.norm(row) or 1) for row in rows]
    overlap = sum(abs(rows[i] @ rows[j] - (i == j)) for i in range(m) for j in range(m))
    return 1 - overlap / (m * (m - 1))


@pytest.mark.parametrize("panel_bytes", [1, 720, 3 * 720, 1 << 20])
def test_orthogonality_does_not_depend_on_panels_and_chunks(
    converted: tuple[Path, list[LayerScan]], panel_bytes: int
) -> None:
    path, scans = converted
    with patch.object(passes, "PANEL_BYTES", panel_bytes):
        measured = passes.measure(path, SEGMENT, scans, BASIS, OUT_CHANNELS, Progress())
    found = {run.layer_id: orthogonality for run, (_, orthogonality) in zip(SEGMENT.runs, measured, strict=True)}
    assert found[15] is None, "no channels are known of layer 15"
    assert found[NOT_FINITE] is None
    for layer_id in (10, 11, ALL_ZERO, 13):
        expected = naive_orthogonality(layer_id)
        assert found[layer_id] == (None if expected is None else pytest.approx(expected, abs=1e-12))


def test_counting_gives_each_layers_histograms(converted: tuple[Path, list[LayerScan]]) -> None:
    path, scans = converted
    done = Progress()
    low, high = -2.0, 2.5
    tallies = passes.count(path, SEGMENT, scans, Coordinates(BASIS, 1, low, high), done)
    counts = [tally.counts for tally in tallies]
    assert done.total == SEGMENT.n
    for run, count in zip(SEGMENT.runs, counts, strict=True):
        if run.layer_id == NOT_FINITE:
            assert len(count.n) == len(count.positions) == 0
            continue
        expected: dict[tuple[int, int], int] = {}
        for k, row in enumerate(coefficients(run.layer_id)):
            for c in row:
                place = min(max(int(np.floor(70 * (c - low) / (high - low) + 1e-9)), 0), 69)
                expected[k, place] = expected.get((k, place), 0) + 1
        found = {divmod(int(p), 70): int(n) for p, n in zip(count.positions, count.n, strict=True)}
        assert found == expected
