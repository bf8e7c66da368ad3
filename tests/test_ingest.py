"""What an ingest makes of a dataset: every filter unchanged, and statistics that no cut, storage or thread alters."""

import hashlib
import lzma
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import polars as pl
import pytest
import tables

import warehouse
from tests.benchmarks.measure import in_new_process
from warehouse import changes, filter_file, passes, pipeline, plan
from warehouse.connection import connect
from warehouse.frame_writer import write_frame

Layer = tuple[int, int, str]
WEIGHTS = [f"w{i}" for i in range(9)]
STATISTICS = ("layer_moments", "layer_quality")


def random_filters(n: int, seed: int = 0) -> np.ndarray:
    """Filters ``(n, 3, 3) float64``, correlated, of float32 precision; every seventh all zero."""
    rng = np.random.default_rng(seed)
    filters = rng.normal(size=(n, 9)) @ rng.normal(size=(9, 9))
    filters[::7] = 0
    return filters.astype(np.float32).astype(np.float64).reshape(n, 3, 3)


def write_dataset(
    path: Path,
    layers: Iterable[Layer],
    filters: np.ndarray,
    *,
    name: str = "filters",
    columns: dict[str, Any] | None = None,
    **storage: Any,
) -> Path:
    """Write a dataset of layers (model_id, conv_depth, filter_ids) in pandas' fixed layout."""
    models, depths, ids = zip(*layers, strict=True)
    index = {"model_id": np.array(models), "conv_depth": np.array(depths), "conv_depth_norm": np.zeros(len(ids))}
    filter_ids = np.empty(len(ids), object)
    filter_ids[:] = ids
    with tables.open_file(path, "w") as file:
        write_frame(file, "meta", index, {"filter_ids": filter_ids} | (columns or {}))
    with h5py.File(path, "a") as file:
        file.create_dataset(name, data=filters, **storage)
    return path


LAYERS: list[Layer] = [(0, 0, "0:99"), (0, 1, "100:399"), (1, 0, "400:599")]
CHANNELS = {"in_channels": np.array([10, 20, 5]), "out_channels": np.array([10, 15, 40])}


def checksums(path: Path) -> list[tuple[Any, ...]]:
    """Checksums of all tables of the lake but those that name the source; filters also by partition; and the models."""
    with connect(path) as con:
        query = (
            "select name, parse_dirpath(path), sha256 from files where name not in ('sources', 'models') order by all"
        )
        return [*con.sql(query).fetchall(), *con.sql("from models select * exclude source").fetchall()]


def frame(path: Path, query: str) -> pl.DataFrame:
    with connect(path) as con:
        return con.sql(query).pl()


def assert_same_statistics(one: Path, other: Path, *, without_layer: int = -1) -> None:
    """Counts are equal; moments and quality are to rounding. ``without_layer`` of ``other`` is left out."""
    for name in STATISTICS:
        a = frame(one, f"from {name} order by layer_id").drop("layer_id")
        b = frame(other, f"from {name} where layer_id <> {without_layer} order by layer_id").drop("layer_id")
        assert a.columns == b.columns
        for column in a.columns:
            x, y = a[column], b[column]
            if x.dtype.is_nested() or x.dtype.is_float():
                assert x.is_null().equals(y.is_null()), column
                x, y = (np.array(s.drop_nulls().to_list(), float) for s in (x, y))
                np.testing.assert_allclose(y, x, rtol=1e-12, atol=1e-12 * np.abs(x).max(initial=0), err_msg=column)
            else:
                assert x.equals(y), column


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "dataset.h5"


def test_lake_filters_are_the_source_filters_bit_for_bit_in_order(path: Path, tmp_path: Path) -> None:
    filters = random_filters(600)
    filters[3, 0] = [-0.0, 1e-45, -3.4e38]
    filters[4] = np.arange(9).reshape(3, 3) / 7  # not of float32 precision
    warehouse.ingest(write_dataset(path, LAYERS, filters), tmp_path / "w")
    expected = filters.reshape(-1, 9).astype(np.float32)
    with warehouse.open(tmp_path / "w") as wh:
        by_sql = wh.sql("select filter_id, columns('w[0-8]') from filters order by filter_id").pl()
        by_scan = wh.scan("filters").sort("filter_id").select("filter_id", *WEIGHTS).collect()
    for found in (by_sql, by_scan):
        assert found["filter_id"].to_list() == list(range(600))
        weights = found.select(WEIGHTS).to_numpy()
        assert weights.dtype == np.float32
        np.testing.assert_array_equal(weights.view(np.uint32), expected.view(np.uint32))


def test_every_filter_of_a_sample_arrives_with_its_layer_and_model(sample: Path, sample_warehouse: Path) -> None:
    with h5py.File(sample) as file:
        expected = file["filters"][:].reshape(-1, 9).astype(np.float32)
    with warehouse.open(sample_warehouse) as wh:
        found = wh.scan("filters").sort("filter_id").collect()
        layers = wh.sql("select layer_id, model_id, first_filter_id, n_filters from layers").fetchall()
    np.testing.assert_array_equal(found.select(WEIGHTS).to_numpy(), expected)
    for layer, model, first, n in layers:
        rows = found[first : first + n]
        assert rows["layer_id"].unique().to_list() == [layer]
        assert rows["model_id"].unique().to_list() == [model]


def test_the_file_list_tells_true_sizes_checksums_and_rows(sample_warehouse: Path) -> None:
    with warehouse.open(sample_warehouse) as wh:
        files = wh.sql("from files").pl().to_dicts()
    assert {row["path"] for row in files} == {
        str(file.relative_to(sample_warehouse)) for file in sample_warehouse.rglob("*.parquet")
    }
    for row in files:
        data = (sample_warehouse / row["path"]).read_bytes()
        assert (row["bytes"], row["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        assert row["n_rows"] == pl.read_parquet(sample_warehouse / row["path"]).height


def test_the_summary_counts_what_is_there(sample: Path, tmp_path: Path) -> None:
    summary = warehouse.ingest(sample, tmp_path / "w")
    assert (summary.filters, summary.layers, summary.models) == (20_000, 80, 12)
    assert (summary.unclaimed_filters, summary.nonfinite_layers, summary.leftover_bytes) == (0, 0, 0)
    files = [file for file in (tmp_path / "w").rglob("*") if file.is_file() and file.name != ".lock"]
    assert summary.bytes == sum(file.stat().st_size for file in files)
    assert summary.filters_per_second == pytest.approx(20_000 / summary.seconds)


@pytest.mark.parametrize(
    "gaps",
    [[(50, 50), (300, 420)], [(0, 4), (100, 109), (400, 409), (599, 599)]],
    ids=["within", "everywhere"],
)
def test_unclaimed_filters_are_kept_without_layer_and_counted(
    path: Path, tmp_path: Path, gaps: list[tuple[int, int]]
) -> None:
    unclaimed = np.concatenate([np.arange(a, b + 1) for a, b in gaps])
    claimed = np.setdiff1d(np.arange(600), unclaimed)
    runs = np.split(claimed, np.flatnonzero(np.diff(claimed) > 1) + 1)
    layers = [(0 if i < 2 else 1, i, f"{run[0]}:{run[-1]}") for i, run in enumerate(runs)]
    filters = random_filters(600)
    summary = warehouse.ingest(write_dataset(path, layers, filters), tmp_path / "w")
    assert summary.unclaimed_filters == len(unclaimed)
    with warehouse.open(tmp_path / "w") as wh:
        assert wh.sql("select n_filters, n_unclaimed from sources").fetchall() == [(600, len(unclaimed))]
        without = "filter_id from filters where layer_id is null and model_id is null order by filter_id"
        assert [i for (i,) in wh.sql(f"select {without}").fetchall()] == unclaimed.tolist()
        scanned = wh.scan("filters").sort("filter_id").collect()
        assert wh.sql("select sum(n) from layer_moments where layer_id is null").fetchall() == [(len(unclaimed),)]
        assert wh.sql("select n_layers, n_filters from groups('all')").fetchall() == [(len(layers), len(claimed))]
    np.testing.assert_array_equal(scanned.select(WEIGHTS).to_numpy(), filters.reshape(-1, 9))
    for column in ("layer_id", "model_id"):
        assert scanned.filter(pl.col(column).is_null())["filter_id"].to_list() == unclaimed.tolist()


def test_threads_do_not_change_a_bit(lens_sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "SEGMENT_FILTERS", 500)
    for threads in (1, 2, 3):
        warehouse.ingest(lens_sample, tmp_path / f"{threads}", threads=threads)
    one = checksums(tmp_path / "1")
    assert len(one) > 40
    assert checksums(tmp_path / "2") == checksums(tmp_path / "3") == one


@pytest.mark.parametrize("share", [-1.0, 0.5, 2000 * 36 / 16e9], ids=["no file", "all files", "some files"])
def test_what_is_cached_does_not_change_a_bit(
    lens_sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    monkeypatch.setattr(plan, "SEGMENT_FILTERS", 500)
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 1_000_000, "SC_PAGE_SIZE": 16_000}.__getitem__)
    plain = warehouse.ingest(lens_sample, tmp_path / "plain", threads=2).path
    monkeypatch.setattr(filter_file, "CACHED_SHARE", share)
    told = []
    count = passes.count

    def watched(path: Path, *rest: Any, **named: Any) -> passes.Counted:
        told.append((path, rest[2]))
        return count(path, *rest, **named)

    monkeypatch.setattr(passes, "count", watched)
    other = warehouse.ingest(lens_sample, tmp_path / "other", threads=1).path
    assert checksums(other) == checksums(plain)
    cached = [is_cached for _, is_cached in told]
    assert len({path for path, _ in told}) == len(told) >= 40
    assert {-1.0: not any(cached), 0.5: all(cached)}.get(share, 0 < sum(cached) < 10)
    if any(cached) and not all(cached):
        assert cached[-10:] != sorted(cached[-10:]), "cached files are not spread among the others"
    changes.refit(other)
    assert checksums(other) == checksums(plain)


STORAGES: dict[str, dict[str, Any]] = {
    "gzip": {"chunks": (64, 3, 3), "compression": "gzip", "shuffle": True},
    "float32 in chunks": {"dtype": "<f4", "chunks": (50, 3, 3)},
    "big-endian": {"dtype": ">f8"},
    "filter": {"name": "filter"},
}


@pytest.fixture(scope="module")
def contiguous(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    """Checksums of what a contiguous float64 (N, 3, 3) dataset becomes."""
    folder = tmp_path_factory.mktemp("contiguous")
    warehouse.ingest(write_dataset(folder / "a.h5", LAYERS, random_filters(600), columns=CHANNELS), folder / "w")
    return checksums(folder / "w")


@pytest.mark.parametrize("storage", STORAGES.values(), ids=STORAGES)
def test_storage_does_not_change_a_bit(
    path: Path, tmp_path: Path, contiguous: list[tuple[Any, ...]], storage: dict[str, Any]
) -> None:
    warehouse.ingest(write_dataset(path, LAYERS, random_filters(600), columns=CHANNELS, **storage), tmp_path / "w")
    assert checksums(tmp_path / "w") == contiguous


def test_flat_and_packed_filters_do_not_change_a_bit(
    path: Path, tmp_path: Path, contiguous: list[tuple[Any, ...]]
) -> None:
    write_dataset(path, LAYERS, random_filters(600).reshape(-1, 9), columns=CHANNELS)
    packed = tmp_path / "dataset.h5.xz"
    packed.write_bytes(lzma.compress(path.read_bytes(), preset=0))
    for source in (path, packed):
        warehouse.ingest(source, tmp_path / "w", replace=True)
        assert checksums(tmp_path / "w") == contiguous


def test_one_changed_weight_changes_the_checksums(
    path: Path, tmp_path: Path, contiguous: list[tuple[Any, ...]]
) -> None:
    filters = random_filters(600)
    filters[1, 1, 1] = np.nextafter(np.float32(filters[1, 1, 1]), np.float32(9))
    warehouse.ingest(write_dataset(path, LAYERS, filters, columns=CHANNELS), tmp_path / "w")
    changed = set(checksums(tmp_path / "w")) - set(contiguous)
    assert {name for name, *_ in changed} >= {"filters", "layer_moments", "layer_quality", "basis"}


@pytest.mark.parametrize(("block", "chunk", "segment"), [(64, 200, 1000), (100, 100, 1)])
def test_layers_over_many_blocks_have_the_statistics_of_one(
    lens_sample: Path,
    lens_warehouse: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    block: int,
    chunk: int,
    segment: int,
) -> None:
    monkeypatch.setattr(plan, "BLOCK_FILTERS", block)
    monkeypatch.setattr(plan, "CHUNK_FILTERS", chunk)
    monkeypatch.setattr(plan, "SEGMENT_FILTERS", segment)
    monkeypatch.setattr(passes, "PANEL_BYTES", 3000)
    warehouse.ingest(lens_sample, tmp_path / "w")
    assert_same_statistics(lens_warehouse, tmp_path / "w")
    for name, order in (("layer_histograms", "all"), ("filters", "filter_id")):
        one, other = (frame(path, f"from {name} order by {order}") for path in (lens_warehouse, tmp_path / "w"))
        assert one.equals(other), name
    assert len([c for c in checksums(tmp_path / "w") if c[0] == "filters"]) != len(
        [c for c in checksums(lens_warehouse) if c[0] == "filters"]
    )


def test_a_layer_with_nonfinite_weights_counts_as_absent(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "BLOCK_FILTERS", 64)
    filters = random_filters(600)
    filters[250, 1, 1], filters[300, 0, 0] = np.nan, -np.inf
    summary = warehouse.ingest(
        write_dataset(path, LAYERS, filters, columns=CHANNELS), tmp_path / "with", allow_nonfinite=True
    )
    assert (summary.filters, summary.layers, summary.nonfinite_layers) == (600, 3, 1)
    rest = [(0, 0, "0:99"), (1, 0, "100:299")]
    channels = {name: values[[0, 2]] for name, values in CHANNELS.items()}
    without = write_dataset(tmp_path / "b.h5", rest, np.delete(filters, np.s_[100:400], axis=0), columns=channels)
    warehouse.ingest(without, tmp_path / "without")

    assert_same_statistics(tmp_path / "without", tmp_path / "with", without_layer=1)
    for query in ("from basis order by component", "from basis_mean", "from histogram_range"):
        one, other = (frame(tmp_path / name, query) for name in ("without", "with"))
        for column in one.columns:
            a, b = (np.array(f[column].to_list()) for f in (one, other))
            np.testing.assert_allclose(b, a, rtol=1e-12, atol=1e-14, err_msg=query)
    counts = "select component, bin, n from layer_histograms order by layer_id, component, bin"
    assert frame(tmp_path / "with", counts).equals(frame(tmp_path / "without", counts))


def test_only_the_statistics_of_a_nonfinite_layer_are_null(path: Path, tmp_path: Path) -> None:
    filters = random_filters(600)
    filters[250, 1, 1], filters[251, 0, 0] = np.nan, 1e300  # too large for float32
    write_dataset(path, LAYERS, filters, columns=CHANNELS)
    warehouse.ingest(path, tmp_path / "w", allow_nonfinite=True)
    for name in STATISTICS:
        rows = frame(tmp_path / "w", f"from {name} order by layer_id").to_dicts()
        assert [row["layer_id"] for row in rows] == [0, 1, 2]
        kept = ("layer_id", "n_filters", "randomness_threshold")  # these depend on the number of filters alone
        assert all(value is None for key, value in rows[1].items() if key not in kept)
        assert all(value is not None for row in (rows[0], rows[2]) for value in row.values())
    assert frame(tmp_path / "w", "select n_nonfinite from sources").item() == 2
    weights = frame(tmp_path / "w", "select w4 from filters where filter_id = 250").item()
    assert np.isnan(weights)


def test_progress_rises_in_every_stage_to_the_total(lens_sample: Path, tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    warehouse.ingest(lens_sample, tmp_path / "w", threads=2, progress=lambda *call: calls.append(call))
    stages = list(dict.fromkeys(stage for stage, _, _ in calls))
    assert stages == ["converting", "measuring", "counting"]
    for stage in stages:
        done = [n for name, n, _ in calls if name == stage]
        assert done == sorted(set(done))
        assert done[-1] == 20_000
    assert {total for _, _, total in calls} == {20_000}


@pytest.mark.slow
def test_peak_memory_does_not_grow_with_the_filters(tmp_path: Path) -> None:
    peaks = []
    for millions in (1, 4):
        source = tmp_path / f"{millions}.h5"
        warehouse.write_sample(source, filters=millions * 1_000_000, layers=200, models=20, layout="v1")
        cost = in_new_process("tests.benchmarks.ingest", "run_ingest", source, tmp_path / f"{millions}.warehouse")
        peaks.append(cost.peak_mb)
    assert peaks[1] * 1e6 < 1 << 30
    assert peaks[1] < 1.15 * peaks[0], peaks


def test_a_range_that_is_found_too_narrow_while_counting_is_widened_and_all_counted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(2)
    filters = rng.normal(size=(3 * 400, 3, 3))
    filters[400 + 17], filters[800 + 5] = 1, -1  # the extremes lie in the last two models
    layers = [(model, 0, f"{400 * model}:{400 * model + 399}") for model in range(3)]
    source = write_dataset(tmp_path / "dataset.h5", layers, filters)
    plain = warehouse.ingest(source, tmp_path / "plain").path
    monkeypatch.setattr(pipeline, "promising", lambda *_: [0])
    counting = []
    count = passes.count
    monkeypatch.setattr(passes, "count", lambda *rest, **named: counting.append(1) or count(*rest, **named))
    narrowed = warehouse.ingest(source, tmp_path / "narrow").path
    assert len(counting) == 2 * 3
    for table in ("histogram_range", "layer_histograms", "basis"):
        query = f"from {table} order by all"
        with connect(narrowed) as found, connect(plain) as expected:
            assert found.sql(query).fetchall() == expected.sql(query).fetchall()


def test_equal_filters_alone_do_not_make_the_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # all coefficients of the first layer are 0, as the filters' mean is, and no coefficient is as large as 1
    pair = np.zeros((2, 9))
    pair[0, :2], pair[1, :2] = (1, 0.1), (0.1, 1)
    filters = np.concatenate([np.zeros((50, 9)), np.tile(np.concatenate([pair, -pair]), (25, 1))])
    layers = [(0, 0, "0:49"), (1, 0, "50:149")]
    source = write_dataset(tmp_path / "dataset.h5", layers, filters.reshape(-1, 3, 3))
    monkeypatch.setattr(pipeline, "promising", lambda *_: [0])
    with connect(warehouse.ingest(source, tmp_path / "w").path) as con:
        (found,) = con.sql("select lo, hi from histogram_range").fetchall()
    assert found == pytest.approx((-1.1 / np.sqrt(2), 1.1 / np.sqrt(2)), abs=1e-7)
