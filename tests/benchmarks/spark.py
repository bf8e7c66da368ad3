"""An ingest by threads, by Spark in one process, and by a standalone cluster, one worker of which is killed half-way.

    python -m tests.benchmarks.spark [--filters 20000000] [--layers 2000] [--folder DIR]

All on the same two cores, with the same dataset in the page cache. Tells what travelled between the processes, by
Spark's own event log, and what 100 times the data would take. Prints Markdown tables.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import warehouse
from tests.benchmarks.ingest import compile_kernels, sample_arguments
from tests.benchmarks.measure import environment, in_new_process, markdown, tell, working_folder
from tests.spark_cluster import cluster
from warehouse.on_spark.engine import started
from warehouse.on_spark.runner import SparkRunner

HERE = "tests.benchmarks.spark"
QUESTIONS = {
    "drift(task)": "from drift(task)",
    "pca(task)": "from pca(task)",
    "density(0, 1) of all filters": "from density(0, 1)",
    "filter_pca(w4 > 0)": "from filter_pca(w4 > 0)",
}
CONF = {"spark.driver.memory": "1g", "spark.executor.memory": "512m"}
TIMES = 100


def run_spark(dataset: str, target: str, folder: str, kind: str) -> dict[str, Any]:
    """Ingest on ``local[2]``, on a ``cluster``, or on one of which a worker is ``killed``; what it took and moved."""
    place = Path(folder)
    place.mkdir()
    if kind == "local":
        return _ingest(dataset, target, place, "local[2]", lambda: None)
    with cluster(place) as running:
        kill = (lambda: running.kill_worker(1)) if kind == "killed" else (lambda: None)
        return _ingest(dataset, target, place, running.url, kill)


def _ingest(dataset: str, target: str, place: Path, master: str, half_way: Callable[[], None]) -> dict[str, Any]:
    todo = [half_way]

    def progress(stage: str, done: int, total: int) -> None:
        if todo and stage == "converting" and 2 * done > total:
            todo.pop()()

    begin = time.perf_counter()
    with started(master, CONF | _logging(place)) as session:
        ready = time.perf_counter()
        summary = warehouse.ingest(dataset, target, runner=SparkRunner(session), progress=progress)
        seconds = time.perf_counter() - ready
    return {"start": ready - begin, "seconds": seconds, "leftover": summary.leftover_bytes, **moved(place)}


def run_questions(target: str, folder: str) -> dict[str, Any]:
    """Milliseconds of each question the second time, and the bytes that it shuffled."""
    place = Path(folder)
    place.mkdir()
    found = {}
    for i, (name, query) in enumerate(QUESTIONS.items()):
        log = place / str(i)
        log.mkdir()
        with started("local[2]", CONF | _logging(log)) as session:
            opened = warehouse.spark(target, session)
            times = []
            for _ in range(2):
                begin = time.perf_counter()
                opened.sql(query).toArrow()
                times.append(time.perf_counter() - begin)
        found[name] = {"milliseconds": 1000 * times[-1], **{key: n / 2 for key, n in moved(log).items()}}
    return found


def _logging(folder: Path) -> dict[str, str]:
    return {
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": folder.absolute().as_uri(),
        "spark.eventLog.compress": "false",
        "spark.eventLog.rolling.enabled": "false",
    }


def moved(folder: Path) -> dict[str, float]:
    """Tasks that ended well, their seconds, bytes of results and of what was shuffled, by the event log in a folder."""
    total = {"tasks": 0, "busy": 0.0, "results": 0, "shuffled": 0}
    for event in _events(folder):
        if event["Event"] == "SparkListenerTaskEnd" and event["Task End Reason"]["Reason"] == "Success":
            told = event["Task Metrics"]
            total["tasks"] += 1
            total["busy"] += told["Executor Run Time"] / 1000
            total["results"] += told["Result Size"]
            total["shuffled"] += told["Shuffle Write Metrics"]["Shuffle Bytes Written"]
    return total


def _events(folder: Path) -> Iterator[dict[str, Any]]:
    for path in folder.iterdir():
        if path.name.startswith(("app-", "local-")):
            with path.open(encoding="utf-8") as log:
                yield from map(json.loads, log)


def main() -> None:
    """Run everything and print the tables."""
    arguments = sample_arguments(__doc__)
    with working_folder(arguments.folder) as folder:
        compile_kernels(folder)
        print(f"{environment()}.\n\n{compared(folder, arguments.filters, arguments.layers)}")


def compared(folder: Path, filters: int, layers: int) -> str:
    """The tables: engines, questions, and a projection."""
    large = folder / "large.h5"
    tell("making the dataset")
    in_new_process("tests.benchmarks.ingest", "make_sample", large, filters, layers)
    tell("threads")
    threads = in_new_process("tests.benchmarks.ingest", "run_ingest", large, folder / "threads.warehouse").seconds
    found = {}
    runs = {
        "Spark, local[2]": "local",
        "cluster of two workers": "cluster",
        "the same, one worker killed half-way": "killed",
    }
    for name, kind in runs.items():
        tell(name)
        target, events = folder / f"{kind}.warehouse", folder / f"{kind}.events"
        found[name] = in_new_process(HERE, "run_spark", large, target, events, kind).result
    rows = [("threads", f"{threads:.1f} s", "", "1.00", "", "", "", "")]
    for name, each in found.items():
        times = [f"{each['seconds']:.1f} s", f"{each['start']:.1f} s", f"{each['seconds'] / threads:.2f}"]
        sizes = [f"{each['results'] / 1e6:.1f} MB", f"{each['shuffled'] / 1e6:.1f} MB"]
        rows.append((name, *times, str(each["tasks"]), f"{each['busy']:.1f} s", *sizes))
    named = f"{filters:,} filters, {layers:,} layers"
    header = (named, "ingest", "start", "/ threads", "tasks", "tasks together", "results", "shuffled")
    tell("questions")
    asked = in_new_process(HERE, "run_questions", folder / "local.warehouse", folder / "asked").result
    questions = [
        (name, f"{each['milliseconds']:,.0f} ms", f"{each['results'] / 1e6:.3f} MB", f"{each['shuffled'] / 1e6:.3f} MB")
        for name, each in asked.items()
    ]
    return "\n\n".join(
        [
            markdown(header, rows),
            markdown(("question", "second time", "results", "shuffled"), questions),
            projected(found["cluster of two workers"], filters, layers),
        ]
    )


def projected(measured: dict[str, Any], filters: int, layers: int) -> str:
    """What ``TIMES`` the filters and layers would take, if tasks take in proportion and all else stays what it is."""
    busy, fixed = TIMES * measured["busy"], measured["seconds"] - measured["busy"] / 2
    rows = [(f"on {cores} cores", f"{(fixed + busy / cores) / 60:,.1f} min") for cores in (2, 16, 128)]
    rows.append(("partial results that the driver merges", f"{TIMES * measured['results'] / 1e9:.1f} GB"))
    return markdown((f"projected: {TIMES * filters:,} filters, {TIMES * layers:,} layers", ""), rows)


if __name__ == "__main__":
    main()
