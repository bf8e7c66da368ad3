"""The stages of an ingest on the workers of Spark: the same warehouse as threads of one process make."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import polars as pl
import pytest

import warehouse
from tests.damage import file_of, flip, lines
from tests.test_ingest import random_filters, write_dataset
from warehouse import changes
from warehouse.connection import connect
from warehouse.errors import EngineError, LakeError, SourceError

pytest.importorskip("pyspark", reason="pyspark is not installed")
if shutil.which("java") is None:
    pytest.skip("Java is not installed", allow_module_level=True)

from warehouse.on_spark import runner as spark_runner
from warehouse.on_spark.engine import started
from warehouse.on_spark.runner import SparkRunner

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning"),
]
RELATIVE = 1e-12
LAYERS = [(4, 0, "0:49"), (4, 1, "50:129"), (9, 0, "130:199")]


@pytest.fixture(scope="module")
def session() -> Iterator[Any]:
    with started("local[2]", {"spark.driver.memory": "1g"}) as session:
        yield session


@pytest.fixture
def runner(session: Any) -> SparkRunner:
    return SparkRunner(session)


@pytest.fixture(scope="module")
def on_spark(session: Any, sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The warehouse of the sample as Spark makes it."""
    target = tmp_path_factory.mktemp("spark") / "cnn.warehouse"
    warehouse.ingest(sample, target, runner=SparkRunner(session))
    return target


def tables(path: Path) -> dict[str, pl.DataFrame]:
    """All tables but those that tell file names, times and our own text."""
    with connect(path) as con:
        names = con.sql(
            "select table_name from duckdb_tables() where table_name not in ('files', 'sources')"
        ).fetchall()
        return {name: con.sql(f"from {name} order by all").pl() for (name,) in names}


def contents(path: Path) -> list[tuple[str, str]]:
    """Table and checksum of each committed file of filters."""
    with connect(path) as con:
        return con.sql("select name, sha256 from files where name = 'filters' order by all").fetchall()


def assert_same(one: Path, other: Path) -> None:
    """Equal but for the rounding of floating-point numbers, and files of filters byte by byte."""
    expected, found = tables(other), tables(one)
    assert found.keys() == expected.keys()
    for name, frame in expected.items():
        assert frame.columns == found[name].columns
        for column in frame:
            inner = column.explode() if isinstance(column.dtype, pl.List | pl.Array) else column
            mine = found[name][column.name]
            mine = mine.explode() if isinstance(mine.dtype, pl.List | pl.Array) else mine
            if inner.dtype.is_float():
                np.testing.assert_allclose(mine.to_numpy(), inner.to_numpy(), rtol=RELATIVE, atol=1e-15, err_msg=name)
            else:
                assert mine.equals(inner, null_equal=True), (name, column.name)
    assert contents(one) == contents(other)


def test_a_warehouse_made_on_spark_is_that_of_threads(on_spark: Path, sample_warehouse: Path) -> None:
    assert_same(on_spark, sample_warehouse)
    assert warehouse.verify(on_spark).is_sound


@pytest.mark.parametrize(("pieces", "tasks"), [(1, 1), (1000, 1), (3, 64)])
def test_the_number_of_partitions_changes_nothing(
    pieces: int,
    tasks: int,
    runner: SparkRunner,
    on_spark: Path,
    sample: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spark_runner, "PIECES_A_TASK", pieces)
    monkeypatch.setattr(spark_runner, "TASKS_A_CORE", tasks)
    warehouse.ingest(sample, tmp_path / "w", runner=runner)
    assert_same(tmp_path / "w", on_spark)


def test_progress_is_counted_by_spark_up_to_all_filters(runner: SparkRunner, sample: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    summary = warehouse.ingest(sample, tmp_path / "w", runner=runner, progress=lambda *each: told.append(each))
    assert {stage: max(done for name, done, _ in told if name == stage) for stage, _, _ in told} == dict.fromkeys(
        ("converting", "measuring", "counting"), summary.filters
    )


def test_appended_and_refitted_on_spark_it_is_as_with_threads(
    runner: SparkRunner, sample_warehouse: Path, tmp_path: Path
) -> None:
    own = write_dataset(tmp_path / "own.h5", LAYERS, random_filters(200, seed=5))
    paths = [shutil.copytree(sample_warehouse, tmp_path / name) for name in ("spark", "threads")]
    for path, engine in zip(paths, (runner, None), strict=True):
        assert changes.append(own, path, runner=engine).filters == 200
        changes.refit(path, runner=engine)
    assert_same(*paths)


def test_verify_on_spark_names_the_same_damage(runner: SparkRunner, sample_warehouse: Path, tmp_path: Path) -> None:
    path = shutil.copytree(sample_warehouse, tmp_path / "w")
    assert warehouse.verify(path, runner=runner).is_sound
    damaged = file_of(path, "filters", 3)
    flip(damaged, damaged.stat().st_size // 2)
    found = warehouse.verify(path, runner=runner)
    assert not found.is_sound
    assert lines(found) == lines(warehouse.verify(path))


def test_a_bad_weight_is_named_and_the_old_state_stays(
    runner: SparkRunner, sample: Path, sample_warehouse: Path, tmp_path: Path
) -> None:
    filters = random_filters(200, seed=5)
    filters[140, 1, 1] = np.nan
    bad = write_dataset(tmp_path / "bad.h5", LAYERS, filters)
    path = shutil.copytree(sample_warehouse, tmp_path / "w")
    with pytest.raises(SourceError, match=r"bad\.h5: /filters: filter 140 of layer_id 2, model_id 9, has a NaN"):
        warehouse.ingest(bad, path, replace=True, runner=runner)
    assert_same(path, sample_warehouse)
    warehouse.ingest(sample, path, replace=True, runner=runner)


def test_a_disk_that_workers_cannot_write_to_is_named(runner: SparkRunner, sample: Path, tmp_path: Path) -> None:
    (tmp_path / "w" / "lake").mkdir(parents=True)
    (tmp_path / "w" / "lake" / "filters").touch()
    with pytest.raises(LakeError, match=r"cannot write .*lake/filters"):
        warehouse.ingest(sample, tmp_path / "w", runner=runner)


def test_a_source_that_workers_do_not_see_is_refused(runner: SparkRunner, sample: Path, tmp_path: Path) -> None:
    with sample.open("rb") as opened:
        # each process has its own
        only_here = Path(f"/proc/self/fd/{opened.fileno()}")
        if not only_here.exists():
            pytest.skip("needs /proc")
        with pytest.raises(EngineError, match=r"/proc/self/fd/\d+.*storage that all workers see"):
            warehouse.ingest(only_here, tmp_path / "w", runner=runner)


def test_what_travels_grows_with_layers_and_not_with_filters(session: Any, tmp_path: Path) -> None:
    def travelled(n: int) -> int:
        layers = [(0, 0, f"0:{n - 1}"), (0, 1, f"{n}:{2 * n - 1}")]
        dataset = write_dataset(tmp_path / f"{n}.h5", layers, random_filters(2 * n, seed=1))
        runner = SparkRunner(session)
        warehouse.ingest(dataset, tmp_path / f"{n}.warehouse", runner=runner)
        return runner.result_bytes

    assert travelled(60_000) < 1.5 * travelled(6_000)


def test_an_interrupted_ingest_goes_on_with_what_is_noted(
    runner: SparkRunner, on_spark: Path, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "w"
    with monkeypatch.context() as patch:
        patch.setattr("warehouse.pipeline.range_of", interrupted)
        with pytest.raises(KeyboardInterrupt):
            warehouse.ingest(sample, target, runner=runner)
    converted = set(target.glob("lake/filters/*/*.parquet"))
    assert converted
    warehouse.ingest(sample, target, runner=runner)
    assert_same(target, on_spark)
    assert set(target.glob("lake/filters/*/*.parquet")) == converted


def interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


def test_nothing_to_do_is_done(runner: SparkRunner, sample_warehouse: Path) -> None:
    assert list(runner.map(int, len, [])) == []
    assert warehouse.verify(sample_warehouse, layers=0, runner=runner).recomputed == 0


def test_a_refused_source_leaves_nothing(runner: SparkRunner, tmp_path: Path) -> None:
    filters = random_filters(200, seed=5)
    filters[140, 1, 1] = np.nan
    with pytest.raises(SourceError, match="filter 140"):
        warehouse.ingest(write_dataset(tmp_path / "bad.h5", LAYERS, filters), tmp_path / "w", runner=runner)
    assert not (tmp_path / "w").exists()


def test_a_source_is_closed_when_the_ingest_ends(runner: SparkRunner, tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "own.h5", LAYERS, random_filters(200, seed=5))
    warehouse.ingest(dataset, tmp_path / "w", runner=runner)
    with h5py.File(dataset, "r+") as file:
        file.attrs["written"] = True
