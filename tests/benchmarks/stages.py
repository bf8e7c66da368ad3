"""Each stage of ingest against what bounds it: reading, writing the same bytes, moving the filters through memory.

    python -m tests.benchmarks.stages [--filters 20000000] [--layers 2000] [--folder DIR]

All from the page cache, with as many threads as there are cores, in one run. Prints one Markdown table.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

import warehouse
from tests.benchmarks.ingest import compile_kernels, make_sample, sample_arguments
from tests.benchmarks.measure import environment, in_new_process, markdown, working_folder
from warehouse.plan import CHUNK_FILTERS
from warehouse.runner import LocalRunner
from warehouse.source import open_source

HERE = "tests.benchmarks.stages"
MEMORY_FILTERS = 32 * CHUNK_FILTERS


def stage_seconds(source: str, target: str, *allowed: str) -> dict[str, float]:
    """How long each stage of an ingest takes; the first one begins with the call."""
    begin = time.perf_counter()
    begun: dict[str, float] = {}
    latest = begin

    def progress(stage: str, _done: int, _total: int) -> None:
        nonlocal latest
        latest = time.perf_counter()
        begun.setdefault(stage, latest)

    warehouse.ingest(source, target, progress=progress, allow_sources=allowed)
    begun["tables and database"] = latest
    edges = [begin, *list(begun.values())[1:], time.perf_counter()]
    return {stage: end - start for stage, start, end in zip(begun, edges, edges[1:], strict=False)}


def _seconds(work: Callable[[Any], object], pieces: Iterable[Any]) -> float:
    begin = time.perf_counter()
    for _ in LocalRunner().map(None, work, pieces):
        pass
    return time.perf_counter() - begin


def bounds(source: str, target: str, scratch: str) -> dict[str, float]:
    """Seconds for what no ingest can do without."""
    files = sorted(Path(target).glob("lake/filters/*/*.parquet"))
    with open_source(source) as opened:
        n = opened.n_filters
        starts = range(0, n, CHUNK_FILTERS)
        reading = _seconds(lambda start: opened.read(start, min(start + CHUNK_FILTERS, n)), starts)

    def write(file: Path) -> None:
        with (Path(scratch) / file.name).open("wb") as copy:
            copy.write(file.read_bytes())
            copy.flush()
            os.fsync(copy.fileno())

    writing = _seconds(write, files)
    reading_files = _seconds(lambda file: len(file.read_bytes()), files)
    # more than any cache holds, and shared by all threads
    filters = np.ones((9, MEMORY_FILTERS))

    def move(start: int) -> None:
        first = start % (MEMORY_FILTERS - CHUNK_FILTERS)
        np.copyto(np.empty((9, CHUNK_FILTERS)), filters[:, first : first + CHUNK_FILTERS])

    memory = _seconds(move, starts)
    return {"reading": reading, "writing": writing, "reading files": reading_files, "memory": memory}


def main() -> None:
    """Run everything and print the table."""
    arguments = sample_arguments(__doc__)
    with working_folder(arguments.folder) as folder:
        compile_kernels(folder)
        print(run(folder, arguments.filters, arguments.layers))


def run(folder: Path, filters: int, layers: int) -> str:
    """Table of the stages of an ingest of so many filters in ``folder``."""
    source, target, scratch = folder / "source.h5", folder / "stages.warehouse", folder / "scratch"
    scratch.mkdir()
    in_new_process("tests.benchmarks.ingest", make_sample.__name__, str(source), filters, layers)
    stages = in_new_process(HERE, stage_seconds.__name__, str(source), str(target)).result
    bound = in_new_process(HERE, bounds.__name__, str(source), str(target), str(scratch)).result
    needs = {
        "converting": ("reading", "writing", "memory"),
        "measuring": ("reading files", "memory"),
        "counting": ("reading files", "memory"),
    }
    meanings = {
        "reading": "reading the source as float32",
        "writing": "writing the same bytes, fsync included",
        "reading files": "reading the same files",
        "memory": "moving the filters once through memory as float64",
    }
    rows = []
    for stage, seconds in stages.items():
        rows.append((f"**{stage}**", f"{seconds:.2f}", f"{filters / seconds / 1e6:,.1f}", ""))
        for name in needs.get(stage, ()):
            share = f"{bound[name] / seconds:.0%} of the stage"
            rows.append((meanings[name], f"{bound[name]:.2f}", f"{filters / bound[name] / 1e6:,.1f}", share))
    header = (f"{filters:,} filters, {layers:,} layers; {environment()}", "s", "M filters/s", "")
    return markdown(header, rows)


if __name__ == "__main__":
    main()
