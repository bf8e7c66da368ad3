"""The passes over a segment, cut into small chunks and blocks, against whole arrays in NumPy and plain loops."""

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.test_statistics import moments_of
from warehouse import passes, pipeline, plan
from warehouse.coordinates import Basis, Coordinates, estimated_ends
from warehouse.errors import LakeError, SourceError
from warehouse.filter_file import FilterFile
from warehouse.lake import Lake
from warehouse.layer_scan import Measurement
from warehouse.plan import Run, Segment
from warehouse.runner import LocalRunner

FIRST = 50
SIZES = {10: 12, 11: 1, 12: 6, 13: 60, 14: 7, 15: 30}
ALL_ZERO, NOT_FINITE = 12, 14
OUT_CHANNELS = {10: 4, 11: 1, 12: 3, 13: 6, 14: 7}


class MemorySource:
    """A dataset file that is an array."""

    def __init__(self, weights: np.ndarray) -> None:
        self.weights = weights
        self.n_filters = weights.shape[1]

    def read(self, start: int, stop: int, out: np.ndarray | None = None) -> np.ndarray:
        rows = np.empty((stop - start, 9), np.float32) if out is None else out
        rows[:] = self.weights[:, start:stop].T
        return rows

    def path_of(self, _: int) -> Path:
        return Path("memory.h5")


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
SPREAD = np.random.default_rng(2).normal(size=(9, 100)) * np.arange(1, 10)[:, None]
BASIS = Basis.of(moments_of(SPREAD))
TRIAL = Basis.of(moments_of(SPREAD + np.random.default_rng(3).normal(size=SPREAD.shape) / 10))


def layer(layer_id: int) -> np.ndarray:
    return WEIGHTS[:, RUN[layer_id].start : RUN[layer_id].stop].astype(float)


def coefficients(layer_id: int) -> np.ndarray:
    filters = layer(layer_id)
    peak = np.abs(filters).max(axis=0)
    return BASIS.loadings @ (filters / np.where(peak > 0, peak, 1) - BASIS.mean[:, None])


@pytest.fixture(autouse=True)
def small_cut() -> Iterator[None]:
    """Blocks of 8 filters, chunks of 16, no more of a file in memory, three output channels of layer 13 at a time."""
    with (
        patch.multiple(plan, BLOCK_FILTERS=8, CHUNK_FILTERS=16),
        patch.multiple(passes, SEGMENT_FILTERS=16, PANEL_BYTES=3 * 10 * 72),
    ):
        yield


def convert(
    lake: Lake, weights: np.ndarray = WEIGHTS, segment: Segment = SEGMENT, *, allow_nonfinite: bool = True
) -> tuple[Path, list[Measurement], int]:
    """Convert, and give the file's path, what was measured and the progress told."""
    done = Progress()
    converted = passes.convert(
        MemorySource(weights), lake, segment, OUT_CHANNELS, TRIAL, done, allow_nonfinite=allow_nonfinite
    )
    assert converted.file in lake.files
    return lake.folder / converted.file.path, converted.measurements, done.total


@pytest.fixture
def converted(tmp_path: Path) -> tuple[Path, list[Measurement]]:
    path, measurements, _ = convert(Lake(tmp_path))
    return path, measurements


def test_converting_writes_the_filters_bit_for_bit_and_says_whose_they_are(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    path, _, done = convert(lake)
    table = pq.ParquetFile(path).read()
    written = np.array([table[f"w{i}"].to_numpy() for i in range(9)])
    np.testing.assert_array_equal(written.view(np.uint32), WEIGHTS[:, FIRST:].view(np.uint32))
    assert table["layer_id"].to_pylist() == [layer for layer, n in SIZES.items() for _ in range(n)]
    assert [(tmp_path / file.path, file.n_rows) for file in lake.files] == [(path, SEGMENT.n)]
    assert done == SEGMENT.n


def test_converting_measures_each_layer_across_its_chunks(converted: tuple[Path, list[Measurement]]) -> None:
    for run, m in zip(SEGMENT.runs, converted[1], strict=True):
        assert m.layer_id == run.layer_id
        if run.layer_id == NOT_FINITE:
            assert (m.extent.n_filters, m.extent.n_nonfinite, m.scan.raw.n, m.orthogonality) == (7, 1, 0, None)
            continue
        filters = layer(run.layer_id)
        peak = np.abs(filters).max(axis=0)
        assert (m.extent.n_filters, m.extent.peak) == (run.n, peak.max())
        assert m.scan.l1 == pytest.approx(np.abs(filters).sum())
        assert m.scan.absolute_deviation == pytest.approx(np.abs(filters - filters.mean()).sum())
        clean = (peak > 0) & (peak >= 0.01 * peak.max())
        assert m.scan.n_sparse == (~clean).sum()
        below_a_tenth = run.n if run.layer_id == ALL_ZERO else (peak < 0.1 * peak.max()).sum()
        up_to_a_tenth = m.scan.relative_peaks.positions <= 1 + 4 * 90
        assert m.scan.relative_peaks.n.sum() == run.n
        assert m.scan.relative_peaks.n[up_to_a_tenth].sum() == below_a_tenth
        scaled = filters / np.where(peak > 0, peak, 1)
        for moments, of in (
            (m.scan.raw, filters),
            (m.scan.scaled, scaled),
            (m.scan.clean_raw, filters[:, clean]),
            (m.scan.clean_scaled, scaled[:, clean]),
        ):
            assert moments.n == of.shape[1]
            if of.shape[1] > 1:
                np.testing.assert_allclose(moments.mean, of.mean(axis=1), atol=1e-14)
                np.testing.assert_allclose(moments.covariance(), np.cov(of), atol=1e-13)
    assert converted[1][3].scan.n_sparse >= 10, "the sample has no sparse filters"


def test_what_is_measured_does_not_depend_on_whether_a_layer_fits_a_chunk_and_its_file_the_memory(
    tmp_path: Path,
) -> None:
    _, divided, _ = convert(Lake(tmp_path))
    with patch.object(plan, "CHUNK_FILTERS", 1000):
        _, whole, _ = convert(Lake(tmp_path))
    with (
        patch.object(passes, "SEGMENT_FILTERS", 1000),
        patch.object(FilterFile, "read", side_effect=AssertionError("nothing is read back")),
    ):
        _, held, _ = convert(Lake(tmp_path))
    for one, *others in zip(divided, whole, held, strict=True):
        for other in others:
            np.testing.assert_equal(dataclasses.asdict(one), dataclasses.asdict(other))


def test_converting_takes_the_checksum_of_each_layer_across_its_chunks_whatever_its_weights(
    converted: tuple[Path, list[Measurement]],
) -> None:
    for run, m in zip(SEGMENT.runs, converted[1], strict=True):
        filters = np.array([[WEIGHTS[i, k] for i in range(9)] for k in range(run.start, run.stop)])
        assert m.checksum == hashlib.sha256(filters.astype("<f4").tobytes()).hexdigest()


def test_a_weight_that_is_not_finite_is_an_error_that_names_its_filter(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    filter_id = RUN[NOT_FINITE].start + 3
    with pytest.raises(
        SourceError, match=rf"filter {filter_id} of layer_id 14, model_id 2, has a NaN or inf"
    ) as raised:
        convert(lake, allow_nonfinite=False)
    assert "\n" not in str(raised.value)
    assert lake.files == []


def test_a_weight_that_is_not_finite_and_that_no_layer_claims_is_an_error_too(tmp_path: Path) -> None:
    weights = np.zeros((9, 30), np.float32)
    weights[8, 27] = -np.inf
    segment = Segment((Run(None, None, 0, 30),))
    with pytest.raises(SourceError, match="filter 27 that no layer claims"):
        convert(Lake(tmp_path), weights, segment, allow_nonfinite=False)


def blocks_of(path: Path, measurements: list[Measurement]) -> list[pipeline.Block]:
    """The blocks of all finite layers."""
    measured = zip(SEGMENT.runs, measurements, strict=True)
    return [pipeline.Block(path, FIRST, block) for run, m in measured if m.extent.is_finite for block in run.blocks()]


def test_the_range_of_blocks_is_that_of_their_coefficients(converted: tuple[Path, list[Measurement]]) -> None:
    done = Progress()
    found = pipeline.range_of(blocks_of(*converted), BASIS, LocalRunner(2), done)
    c = np.hstack([coefficients(layer_id) for layer_id in SIZES if layer_id != NOT_FINITE])
    assert found == pytest.approx((c.min(), c.max()), abs=1e-12)
    assert done.total == SEGMENT.n - SIZES[NOT_FINITE]


def test_the_boxes_of_blocks_tell_where_the_ends_of_the_range_are(converted: tuple[Path, list[Measurement]]) -> None:
    blocks = blocks_of(*converted)
    boxes = np.concatenate([m.scan.boxes for m in converted[1]])
    with patch.object(pipeline, "FIRST_LOOK", 1):
        chosen = pipeline.promising(*estimated_ends(boxes, TRIAL, BASIS))
    assert 1 <= len(chosen) <= 2 < len(blocks)
    found = pipeline.range_of([blocks[i] for i in chosen], BASIS, LocalRunner(1), Progress())
    c = np.hstack([coefficients(layer_id) for layer_id in SIZES if layer_id != NOT_FINITE])
    assert found == pytest.approx((c.min(), c.max()), abs=1e-12)


def test_pieces_of_two_kinds_are_interleaved_each_in_its_order() -> None:
    assert pipeline.interleaved([[7, 3], [0, 1, 2, 4, 5, 6]]) == [0, 7, 1, 2, 3, 4, 5, 6]
    assert pipeline.interleaved([[], [2, 0, 1]]) == [2, 0, 1]
    assert pipeline.interleaved([[], []]) == []


def test_the_most_promising_blocks_hold_the_least_and_the_greatest_and_of_equal_ones_the_first() -> None:
    lowest = np.array([-1.0, -3, -3, -2, -3, 0])
    highest = np.array([0.5, 1, 1, 4, 1, 0])
    with patch.object(pipeline, "FIRST_LOOK", 2):
        assert pipeline.promising(lowest, highest) == [1, 3]
    assert pipeline.promising(lowest, highest) == [0, 1, 3, 5]


def test_a_trial_basis_is_close_to_that_of_all_filters_and_leaves_out_what_is_not_finite() -> None:
    rng = np.random.default_rng(4)
    weights = rng.normal(size=(9, 30_000)).astype(np.float32) * (0.7 ** np.arange(9, dtype=np.float32))[:, None]
    exact = Basis.of(moments_of(weights / np.abs(weights).max(axis=0).astype(float)))
    weights[3, ::1000] = np.nan
    trial = passes.trial_basis(MemorySource(weights))
    np.testing.assert_allclose(np.abs((trial.loadings * exact.loadings).sum(axis=1)), 1, atol=1e-3)
    assert passes.trial_basis(MemorySource(np.zeros((9, 1), np.float32))).loadings.shape == (9, 9)


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
def test_orthogonality_does_not_depend_on_panels_and_chunks(tmp_path: Path, panel_bytes: int) -> None:
    with patch.object(passes, "PANEL_BYTES", panel_bytes):
        _, measurements, _ = convert(Lake(tmp_path))
    found = {m.layer_id: m.orthogonality for m in measurements}
    assert found[15] is None, "no channels are known of layer 15"
    assert found[NOT_FINITE] is None
    for layer_id in (10, 11, ALL_ZERO, 13):
        expected = naive_orthogonality(layer_id)
        assert found[layer_id] == (None if expected is None else pytest.approx(expected, abs=1e-12))


def test_counting_gives_each_layers_histograms(converted: tuple[Path, list[Measurement]]) -> None:
    path, measurements = converted
    finite = [m.extent.is_finite for m in measurements]
    done = Progress()
    low, high = -2.0, 2.5
    coordinates = Coordinates(BASIS, 1, low, high)
    counted = passes.count(path, SEGMENT, finite, True, coordinates, done, is_kept=True)
    counts = [tally.counts for tally in counted.tallies]
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


@pytest.mark.parametrize("is_cached", [True, False])
def test_counting_finds_what_lies_beyond_a_range_that_may_be_widened(
    converted: tuple[Path, list[Measurement]], is_cached: bool
) -> None:
    path, measurements = converted
    finite = [m.extent.is_finite for m in measurements]
    c = np.hstack([coefficients(layer_id) for layer_id in SIZES if layer_id != NOT_FINITE])
    low, high = (float(each) for each in np.partition(c.ravel(), (3, -4))[[3, -4]])

    def count(low: float, high: float, *, is_kept: bool) -> passes.Counted:
        coordinates = Coordinates(BASIS, 1, low, high)
        return passes.count(path, SEGMENT, finite, is_cached, coordinates, Progress(), is_kept=is_kept)

    kept = count(low, high, is_kept=True)
    assert sum(tally.outside for tally in kept.tallies) == 6
    assert (kept.low, kept.high) == (np.inf, -np.inf)
    for narrow in ((low, high), (low, c.max()), (c.min(), c.max())):
        widened = count(*narrow, is_kept=False)
        assert (widened.low, widened.high) == pytest.approx((c.min(), c.max()), abs=1e-12)
        assert sum(tally.outside for tally in widened.tallies) == 0


@pytest.mark.parametrize("weight", [np.nan, -np.inf])
def test_a_weight_that_is_not_finite_any_more_is_an_error_that_names_file_and_filters(
    tmp_path: Path, weight: float
) -> None:
    weights = WEIGHTS.copy()
    weights[4, RUN[NOT_FINITE].start + 3] = weight
    path, _, _ = convert(Lake(tmp_path), weights)
    coordinates = Coordinates(BASIS, 1, -2.0, 2.5)
    expected = f"{path}: filters {RUN[NOT_FINITE].start} to {RUN[NOT_FINITE].stop - 1} were finite"
    with pytest.raises(LakeError, match=expected):
        passes.count(path, SEGMENT, [True] * len(SEGMENT.runs), True, coordinates, Progress(), is_kept=True)
    blocks = [block for run in SEGMENT.runs for block in run.blocks()]
    with pytest.raises(LakeError, match=expected):
        passes.extremes_in(path, FIRST, blocks, BASIS, Progress(), is_cached=True)


def test_a_divided_layer_that_is_not_read_back_as_it_was_written_is_an_error(tmp_path: Path) -> None:
    with (
        patch.object(FilterFile, "read", lambda _, start, stop: np.full((9, stop - start), np.nan, np.float32)),
        pytest.raises(LakeError, match=r"parquet: filters \d+ to \d+ were finite and are not any more"),
    ):
        convert(Lake(tmp_path))


@pytest.mark.parametrize(
    ("low", "high", "basis"),
    [
        (np.nan, 1.0, BASIS),
        (0.0, np.inf, BASIS),
        (1.0, 1.0, BASIS),
        (1.0, -1.0, BASIS),
        (0.0, 5e-324, BASIS),
        (0.0, 1.0, dataclasses.replace(BASIS, loadings=np.full((9, 9), 1e308))),
        (0.0, 1.0, dataclasses.replace(BASIS, mean=np.full(9, np.nan))),
        (0.0, 1.0, dataclasses.replace(BASIS, loadings=np.eye(9)[:8])),
    ],
)
def test_coordinates_that_would_count_outside_of_the_bins_cannot_be_made(low: float, high: float, basis: Basis) -> None:
    with pytest.raises(LakeError, match="basis or range"):
        Coordinates(basis, 1, low, high)
