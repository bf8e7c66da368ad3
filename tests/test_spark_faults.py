"""A cluster that loses a worker or its driver in the middle of an ingest."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import warehouse
from tests.test_spark_ingest import assert_same
from warehouse.maintenance import vacuum

pytest.importorskip("pyspark", reason="pyspark is not installed")
if shutil.which("java") is None:
    pytest.skip("Java is not installed", allow_module_level=True)

from tests.spark_cluster import Cluster, cluster
from warehouse.on_spark.engine import started
from warehouse.on_spark.runner import SparkRunner

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning"),
]
CONF = {"spark.executor.memory": "512m", "spark.driver.memory": "1g"}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large enough that something can happen meanwhile."""
    path = tmp_path_factory.mktemp("large") / "large.h5"
    warehouse.write_sample(path, filters=3_000_000, layers=600, models=60)
    return path


@pytest.fixture(scope="module")
def expected(dataset: Path) -> Path:
    target = dataset.with_name("threads.warehouse")
    warehouse.ingest(dataset, target)
    return target


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Cluster]:
    """A master and two workers."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    with cluster(folder) as processes:
        yield processes


def once_at(stage: str, action: Callable[[], None]) -> Callable[[str, int, int], None]:
    """Progress that does something when a stage has done its first filters."""
    todo = [action]

    def progress(name: str, done: int, _total: int) -> None:
        if name == stage and done and todo:
            todo.pop()()

    return progress


def test_a_worker_that_is_killed_changes_nothing_of_the_result(
    running: Cluster, dataset: Path, expected: Path, tmp_path: Path
) -> None:
    target = tmp_path / "w"
    killed = threading.Event()

    def kill() -> None:
        running.kill_worker(1)
        killed.set()

    with started(running.url, CONF) as session:
        warehouse.ingest(dataset, target, runner=SparkRunner(session), progress=once_at("converting", kill))
    assert killed.is_set()
    assert_same(target, expected)
    # what the lost worker had begun
    vacuum(target)
    assert warehouse.verify(target).leftovers == ()
    assert warehouse.verify(target).is_sound


def test_a_driver_that_is_killed_leaves_the_old_state_and_the_command_can_be_run_again(
    dataset: Path, sample_warehouse: Path, expected: Path, tmp_path: Path
) -> None:
    target = shutil.copytree(sample_warehouse, tmp_path / "w")
    command = [sys.executable, "-m", "warehouse", "ingest", str(dataset), str(target), "--replace"]
    command += ["--engine", "spark", "--master", "local[2]"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    before = set(target.rglob("*.parquet"))
    while process.poll() is None and not set(target.rglob("*.parquet")) - before:
        time.sleep(0.05)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert_same(target, sample_warehouse)
    wait_for_workers(target)
    vacuum(target)
    assert set(target.rglob("*.parquet")) == before
    assert warehouse.verify(target).is_sound
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    assert_same(target, expected)


def wait_for_workers(target: Path) -> None:
    """Until nothing is written any more: Python's workers end when they miss their driver."""
    sizes: list[int] = []
    while len(sizes) < 3 or len(set(sizes[-3:])) > 1:
        sizes.append(sum(path.stat().st_size for path in target.rglob("*.parquet") if path.exists()))
        time.sleep(0.5)
