"""A rehearsal at the size of the real dataset: what ingest takes, what it leaves on disk, and what questions cost then.

    python -m tests.benchmarks.full_size [--scale 1.0] [--folder DIR]

Makes a dataset of 1,464,797,156 filters in 21,436 layers of 647 models, which takes 0.3 GB of disk as its filters are
a virtual dataset, and ingests it. Needs 36 bytes a filter, 56 GB in all; where the disk has less, there are fewer
filters in as many layers and models. Prints one Markdown table.
"""

from __future__ import annotations

import argparse
import os
import shutil
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import numpy as np

from tests.benchmarks.dataset import REAL, SMALLEST_LAYER, Shape, source_of
from tests.benchmarks.ingest import compile_kernels
from tests.benchmarks.measure import Answer, Cost, ask, environment, in_new_process, markdown, tell, working_folder
from warehouse.lake import DATABASE
from warehouse.plan import CHUNK_FILTERS
from warehouse.source import open_source

HERE = "tests.benchmarks.full_size"
QUESTIONS = (
    "from drift(task)",
    "from drift(visual_category)",
    "from drift(depth_decile)",
    "from drift(model_id)",
    "from pca(task)",
    "from quality(task)",
)
BYTES_A_FILTER = 36
RESERVE_BYTES = 3_000_000_000
"""For the source, the tables, the database while it is built, and what a system needs to go on working."""


def fitting(scale: float, free_bytes: int) -> tuple[Shape, str]:
    """The shape of a dataset of ``scale``, or of the largest that the disk has room for, and a sentence about it."""
    room = int((free_bytes - RESERVE_BYTES) / BYTES_A_FILTER)
    shape = REAL._replace(filters=min(round(scale * REAL.filters), room))
    if shape.filters < SMALLEST_LAYER * REAL.layers:
        raise SystemExit(
            f"{free_bytes / 1e9:.1f} GB of disk are free, and {RESERVE_BYTES / 1e9:.0f} GB are kept free; "
            "name another folder with --folder, or a larger --scale"
        )
    told = f"scale {shape.filters / REAL.filters:.3g}: {shape.filters:,} filters"
    if shape.filters < REAL.filters:
        told += " in smaller layers, as the real number of layers and models is kept"
    if shape.filters == room:
        needed = RESERVE_BYTES + BYTES_A_FILTER * round(scale * REAL.filters)
        told += f"; for {scale} it needs {needed / 1e9:.1f} GB of disk, and {free_bytes / 1e9:.1f} GB are free"
    return shape, told


def run_read(dataset: str, *allowed: str) -> None:
    """Read all filters as an ingest does, and do nothing with them."""
    with open_source(dataset, allow_sources=allowed) as opened, ThreadPoolExecutor(os.cpu_count()) as pool:
        memory = threading.local()

        def read(start: int) -> None:
            if not hasattr(memory, "rows"):
                memory.rows = np.empty((CHUNK_FILTERS, 9), np.float32)
            stop = min(start + CHUNK_FILTERS, opened.n_filters)
            opened.read(start, stop, out=memory.rows[: stop - start])

        deque(pool.map(read, range(0, opened.n_filters, CHUNK_FILTERS)), maxlen=0)


def rehearse(folder: Path, shape: Shape) -> str:
    """Make, read, copy and ingest a dataset in an empty folder, ask the questions; returns the table."""
    dataset, copy, target = folder / "dataset.h5", folder / "copy", folder / "cnn.warehouse"
    source = source_of(dataset)
    tell("making the dataset")
    in_new_process("tests.benchmarks.dataset", "make_dataset", dataset, *shape)
    tell("reading it")
    reading = in_new_process(HERE, "run_read", dataset, source)
    tell("copying it")
    copying = in_new_process("tests.benchmarks.ingest", "run_plain_copy", dataset, copy, source)
    shutil.rmtree(copy)
    tell("ingesting it")
    ingest = in_new_process("tests.benchmarks.stages", "stage_seconds", dataset, target, source)
    tell("asking")
    return markdown(
        (f"{shape.filters:,} filters, {shape.layers:,} layers, {shape.models} models", "measured"),
        [
            *_costs(shape, reading, copying, ingest),
            *_sizes(target, shape),
            *((f"`{question}`", _milliseconds(ask(str(target), question))) for question in QUESTIONS),
        ],
    )


def _costs(shape: Shape, reading: Cost, copying: Cost, ingest: Cost) -> Iterator[tuple[str, str]]:
    def rate(cost: Cost) -> str:
        return f"{cost.seconds:,.1f} s, {shape.filters / cost.seconds / 1e6:,.2f} million filters/s"

    yield "reading alone, from the page cache", rate(reading)
    yield "plain copy: the same reader and writer, nothing computed", rate(copying)
    yield "ingest", rate(ingest)
    yield (
        "ingest / plain copy; reading / ingest",
        f"{ingest.seconds / copying.seconds:.2f}; {reading.seconds / ingest.seconds:.2f}",
    )
    yield "; ".join(ingest.result), f"{'; '.join(f'{seconds:,.1f}' for seconds in ingest.result.values())} s"
    yield "peak memory of ingest", f"{ingest.peak_mb:,.0f} MB"


def _sizes(target: Path, shape: Shape) -> Iterator[tuple[str, str]]:
    database = target / DATABASE
    with duckdb.connect(str(database), read_only=True) as con:
        sizes = dict(con.sql("select name = 'filters', sum(bytes) from files group by all").fetchall())
    yield "filters on disk", f"{sizes[True] / 1e9:,.2f} GB, {sizes[True] / shape.filters:.1f} bytes a filter"
    yield "other tables of the lake", f"{sizes[False] / 1e6:,.1f} MB"
    yield f"`{DATABASE}`", f"{database.stat().st_size / 1e6:,.1f} MB"


def _milliseconds(answer: Answer) -> str:
    return f"{answer.warm:,.0f} ms (cold {answer.cold:,.0f} ms), {answer.rows:,} rows"


def main(arguments: Sequence[str] | None = None) -> None:
    """Rehearse and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the real number of filters, up to 1")
    parser.add_argument("--folder", type=Path, default=None, help="where to work, by default where temporary files go")
    options = parser.parse_args(arguments)
    if not 0 < options.scale <= 1:
        parser.error("--scale is above 0 and at most 1")
    with working_folder(options.folder) as folder:
        shape, told = fitting(options.scale, shutil.disk_usage(folder).free)
        tell(told)
        compile_kernels(folder)
        table = rehearse(folder, shape)
    print(f"{told}. {environment()}.\n\n{table}")


if __name__ == "__main__":
    main()
