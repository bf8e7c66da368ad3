"""The benchmarks work end to end, on the real number of layers, and compare like with like."""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

import warehouse
from tests.benchmarks import dataset, full_size, measure, scaling, stages
from tests.benchmarks.dataset import REAL, Shape, make_dataset, plan_layers
from warehouse.metadata import tabulate
from warehouse.source import open_source

ROOT = Path(__file__).parents[1]
TINY = Shape(filters=20_000, layers=80, models=12)


def in_this_process(module: str, function: str, *arguments: object) -> measure.Cost:
    """Call ``function`` of ``module`` as `in_new_process` does, at once."""
    result = getattr(importlib.import_module(module), function)(*map(str, arguments))
    return measure.Cost(2.0, 100.0, json.loads(json.dumps(result)))


def rows_of(table: str) -> dict[str, list[str]]:
    """The cells of a Markdown table by the first of each row."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert {len(line) for line in lines} == {len(lines[0])}
    assert set(lines[1]) == {"---"}
    return {first: others for first, *others in [lines[0], *lines[2:]]}


def test_the_plan_at_scale_one_has_the_real_shape() -> None:
    plan = plan_layers(REAL)
    sizes = np.diff(plan.first_filter)
    assert (sizes.sum(), len(sizes), len(plan.models)) == (1_464_797_156, 21_436, 647)
    assert len(np.unique(plan.model_id)) == 647
    assert 9 <= sizes.min() < 100
    assert 10_000 < np.median(sizes) < 20_000
    assert 3_000_000 < sizes.max() < 5_000_000
    of_models = np.bincount(plan.model_id, weights=sizes)
    assert of_models.max() > 1000 * of_models.min()


@pytest.mark.parametrize("filters", [9 * 80, 9 * 80 + 1, 20_000])
def test_every_layer_of_a_smaller_plan_keeps_nine_filters(filters: int) -> None:
    sizes = np.diff(plan_layers(TINY._replace(filters=filters)).first_filter)
    assert len(sizes) == 80
    assert sizes.sum() == filters
    assert sizes.min() >= 9


def test_the_real_number_of_filters_takes_little_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "SOURCE_FILTERS", 300_000)
    make_dataset(str(tmp_path / "dataset.h5"), *map(str, REAL))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 50_000_000
    with h5py.File(tmp_path / "source.h5") as file:
        source = file["filters"][:].reshape(-1, 9).astype(np.float32)
    with open_source(tmp_path / "dataset.h5", allow_sources=[tmp_path]) as opened:
        tables = tabulate(opened.meta(), opened.n_filters)
        assert (opened.n_filters, opened.dtype) == (1_464_797_156, np.float64)
        assert (tables.layers.num_rows, tables.models.num_rows) == (21_436, 647)
        assert sum(tables.layers["n_filters"].to_pylist()) == 1_464_797_156
        last = opened.n_filters - 1000
        for start in (0, 299_500, last):
            expected = source.take(range(start, start + 1000), axis=0, mode="wrap")
            np.testing.assert_array_equal(opened.read(start, start + 1000), expected)


def test_the_rehearsal_measures_a_tiny_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(full_size, "in_new_process", in_this_process)
    table = rows_of(full_size.rehearse(tmp_path, TINY))
    assert "20,000 filters, 80 layers, 12 models" in table
    assert table["ingest"] == ["2.0 s, 0.01 million filters/s"]
    assert table["ingest / plain copy; reading / ingest"] == ["1.00; 1.00"]
    with warehouse.open(tmp_path / "cnn.warehouse") as wh:
        for question in full_size.QUESTIONS:
            assert table[f"`{question}`"][0].endswith(f" ms), {len(wh.sql(question).fetchall())} rows")
        ((filters,),) = wh.sql("select sum(bytes) from files where name = 'filters'").fetchall()
    assert table["filters on disk"] == [f"0.00 GB, {filters / 20_000:.1f} bytes a filter"]
    assert not (tmp_path / "copy").exists()


def test_the_rehearsal_reads_every_filter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ranges = []
    make_dataset(str(tmp_path / "dataset.h5"), *map(str, TINY))
    monkeypatch.setattr(full_size, "CHUNK_FILTERS", 3000)
    read = warehouse.source.Source.read
    monkeypatch.setattr(
        "warehouse.source.Source.read",
        lambda self, start, stop, out: ranges.append((start, stop)) or read(self, start, stop, out),
    )
    full_size.run_read(str(tmp_path / "dataset.h5"), str(tmp_path))
    assert sorted(ranges) == [*((start, start + 3000) for start in range(0, 18_000, 3000)), (18_000, 20_000)]


def test_a_rehearsal_with_room_has_the_real_size() -> None:
    assert full_size.fitting(1.0, 60_000_000_000) == (REAL, "scale 1: 1,464,797,156 filters")


def test_a_rehearsal_scales_down_to_what_the_disk_holds_and_says_so() -> None:
    shape, told = full_size.fitting(1.0, 39_000_000_000)
    assert shape == (1_000_000_000, 21_436, 647)
    assert told == (
        "scale 0.683: 1,000,000,000 filters in smaller layers, as the real number of layers and models is kept; "
        "for 1.0 it needs 55.7 GB of disk, and 39.0 GB are free"
    )


def test_a_rehearsal_takes_a_smaller_scale() -> None:
    shape, told = full_size.fitting(0.5, 39_000_000_000)
    assert shape.filters == 732_398_578
    assert "it needs" not in told


@pytest.mark.parametrize(("scale", "free"), [(1.0, 3_000_000_000), (1.0, 1_000_000), (1e-6, 60_000_000_000)])
def test_a_rehearsal_without_room_for_all_layers_is_refused(scale: float, free: int) -> None:
    with pytest.raises(SystemExit, match="GB are kept free; name another folder"):
        full_size.fitting(scale, free)


@pytest.mark.parametrize("scale", ["0", "1.5", "-1", "nan"])
def test_a_scale_that_is_no_share_is_refused(scale: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        full_size.main([f"--scale={scale}"])
    assert "--scale is above 0 and at most 1" in capsys.readouterr().err


@pytest.mark.slow
def test_scaling_compares_tiny_datasets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scaling, "in_new_process", in_this_process)
    monkeypatch.setattr(scaling, "NOTEBOOK_BYTES_A_FILTER", 1 << 40)
    scaling.main(["--filters", "20000", "9000", "--layers", "160", "80", "--folder", str(tmp_path)])
    told, _, text = capsys.readouterr().out.partition("\n\n")
    table = rows_of(text)
    assert f"{os.cpu_count()} cores, Python" in told
    assert table[""] == [
        "0.009 M filters, 80 layers",
        "0.02 M filters, 160 layers",
        "last / first: 2 x filters, 2 x layers",
    ]
    assert table["ingest"] == ["2.0 s, 100 MB", "2.0 s, 100 MB", "1.00"]
    assert table["the notebook's way"][1:] == ["needs about 21990233 GB of memory", ""]
    for question in scaling.QUESTIONS:
        assert all(re.fullmatch(r"[\d,.]+ m?s, 100 MB", cell) for cell in table[f"`{question}`"][:2])
    assert {*scaling.DIRECTLY} <= {*table}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("way", scaling.DIRECTLY.values())
@pytest.mark.parametrize("of", ["sample_warehouse", "zoo_warehouse"])
def test_drift_from_single_filters_is_drift(way: str, of: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(of)
    with warehouse.open(path) as wh:
        expected = wh.sql("from drift(task)").fetchall()
    rows = getattr(scaling, way)(str(path))
    assert len(rows) > 9
    assert [row[:2] for row in rows] == [row[:2] for row in expected]
    np.testing.assert_allclose([row[2] for row in rows], [row[2] for row in expected], rtol=1e-9, atol=1e-12)
    scaling.refuse_difference(way, rows, expected)


def test_ways_that_give_other_drifts_are_not_compared() -> None:
    expected = [("a", "a", 0.0), ("a", "b", 0.5)]
    for rows in ([("a", "a", 0.0), ("a", "b", 0.5001)], [("a", "a", 0.0), ("a", "c", 0.5)], expected[:1]):
        with pytest.raises(RuntimeError, match="polars gives other drifts than the warehouse"):
            scaling.refuse_difference("polars", rows, expected)


def test_filters_and_layers_of_scaling_come_in_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        scaling.main(["--filters", "1000", "2000"])
    assert "--filters and --layers go together" in capsys.readouterr().err


def test_work_in_a_new_process_has_its_own_cost(sample_warehouse: Path) -> None:
    held = np.ones(60_000_000)
    cost = measure.in_new_process("tests.benchmarks.measure", "ask", sample_warehouse, "from drift(task)")
    answer = measure.Answer(*cost.result)
    with warehouse.open(sample_warehouse) as wh:
        assert answer.rows == len(wh.sql("from drift(task)").fetchall())
    assert 0 < answer.warm < 1000 * cost.seconds
    assert 30 < cost.peak_mb < held.nbytes / 1e6


def test_work_that_fails_tells_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"measure\.ask failed:(.|\n)*FileNotFoundError"):
        measure.in_new_process("tests.benchmarks.measure", "ask", tmp_path, "select 1")


def leave_files_and(stop: Callable[[], object], parent: Path) -> None:
    """Begin to work in a folder within ``parent``, and do not end well."""
    with measure.working_folder(parent) as folder:
        (folder / "dataset.h5").touch()
        assert len(list(parent.iterdir())) == 1
        stop()


def test_an_interruption_leaves_nothing_in_the_working_folder(tmp_path: Path) -> None:
    # a job in the background begins with this signal ignored, which Python leaves as it is
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            leave_files_and(lambda: signal.raise_signal(signal.SIGINT), tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    assert list(tmp_path.iterdir()) == []


def test_a_request_to_end_leaves_nothing_in_the_working_folder(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit, match="143"):
        leave_files_and(lambda: signal.raise_signal(signal.SIGTERM), tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) == before


def start(name: str, *arguments: str) -> subprocess.Popen[str]:
    """A benchmark in a process of its own."""
    command = [sys.executable, "-m", f"tests.benchmarks.{name}", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_the_rehearsal_runs_with_the_real_number_of_layers(tmp_path: Path) -> None:
    with start("full_size", "--scale", "0.0005", "--folder", str(tmp_path)) as process:
        told, _, table = process.communicate()[0].partition("\n\n")
    assert told.startswith("scale 0.0005: 732,399 filters in smaller layers")
    assert "732,399 filters, 21,436 layers, 647 models" in rows_of(table)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_scaling_runs_with_the_notebook(tmp_path: Path) -> None:
    with start("scaling", "--filters", "20000", "--layers", "80", "--folder", str(tmp_path)) as process:
        _, _, table = process.communicate()[0].partition("\n\n")
    assert re.fullmatch(r"[\d,.]+ m?s, [\d,]+ MB", rows_of(table)["the notebook's way"][0])


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_rehearsal_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with start("full_size", "--scale", "0.005", "--folder", str(tmp_path)) as process:
        assert any(line == "ingesting it\n" for line in process.stderr)
        while not list(tmp_path.glob("*/cnn.warehouse/lake")):
            time.sleep(0.05)
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode != 0
    assert list(tmp_path.iterdir()) == []


def test_each_stage_of_ingest_stands_beside_its_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "in_new_process", in_this_process)
    rows = rows_of(stages.run(tmp_path, 5_000, 20))
    assert [name for name in rows if name.startswith("**")] == [
        "**converting**",
        "**measuring**",
        "**counting**",
        "**tables and database**",
    ]
    header, *measured = rows.values()
    assert header[:2] == ["s", "M filters/s"]
    assert all(float(seconds) >= 0 for seconds, *_ in measured)
