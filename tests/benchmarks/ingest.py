"""Ingest against a plain copy and against the notebook's way, and what a query costs then.

    python -m tests.benchmarks.ingest [--filters 20000000] [--layers 2000] [--folder DIR]

Makes a synthetic float64 dataset and a quarter of it, and prints one table. All runs read the same file from
the page cache and use the same number of threads; compare the ratios, not the seconds.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sysconfig
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import h5py
import numpy as np

import warehouse
from tests.benchmarks.measure import Cost, ask, in_new_process, working_folder
from warehouse.lake import Lake
from warehouse.metadata import tabulate
from warehouse.plan import Segment, runs_of, segments_of
from warehouse.source import open_source

HERE = "tests.benchmarks.ingest"


def make_sample(path: str, filters: str, layers: str) -> None:
    """Write the synthetic dataset."""
    warehouse.write_sample(path, filters=int(filters), layers=int(layers), models=min(200, int(layers)))


def run_ingest(source: str, target: str, *allowed: str) -> int:
    """Ingest; returns the bytes on disk."""
    return warehouse.ingest(source, target, allow_sources=allowed).bytes


def compile_kernels(folder: Path) -> None:
    """Ingest a few filters, so that Numba has compiled all loops before anything is measured."""
    source, target = folder / "few.h5", folder / "few.warehouse"
    in_new_process(HERE, "make_sample", source, 2000, 20)
    in_new_process(HERE, "run_ingest", source, target)
    source.unlink()
    shutil.rmtree(target)


def run_plain_copy(source: str, target: str, *allowed: str) -> int:
    """Write the same Parquet files from the same reader, without any statistic; returns their bytes."""
    with open_source(source, allow_sources=allowed) as opened, ThreadPoolExecutor(os.cpu_count()) as pool:
        layers = tabulate(opened.meta(), opened.n_filters).layers
        columns = [layers[name].to_pylist() for name in ("layer_id", "model_id", "first_filter_id", "n_filters")]
        lake = Lake(Path(target))

        def copy(segment: Segment) -> None:
            with lake.write_filters(segment.model_id) as (_, writer):
                for chunk in segment.chunks():
                    writer.write(np.ascontiguousarray(opened.read(chunk[0].start, chunk[-1].stop).T), chunk)

        list(pool.map(copy, segments_of(runs_of(list(zip(*columns, strict=True)), opened.n_filters))))
        lake.wait_for_disk()
    return sum(file.bytes for file in lake.files)


def run_notebook(source: str) -> int:
    """Do what the notebook of CNN Filter DB does: all in memory, float16, scikit-learn PCA, an SVD per layer."""
    import pandas as pd
    from sklearn.decomposition import PCA

    meta = pd.read_hdf(source, "meta")
    with h5py.File(source) as file:
        filters = file["filters"].astype(np.float16)[:].reshape(-1, 9)
    scaled = filters / np.maximum(np.abs(filters).max(axis=1, keepdims=True), np.float16(1e-7))
    pca = PCA().fit(scaled)
    coefficients = pca.transform(scaled)
    low, high = coefficients.min(), coefficients.max()
    rows = 0
    for ids in meta["filter_ids"]:
        first, last = map(int, ids.split(":"))
        layer = filters[first : last + 1].astype(np.float32)
        peaks = np.abs(layer).max(axis=1)
        rows += int((peaks >= 0.01 * peaks.max()).sum())
        np.linalg.svd(layer - layer.mean(axis=0), compute_uv=False, full_matrices=False)
        for component in coefficients[first : last + 1].T:
            np.histogram(component, bins=70, range=(low, high), density=True)
    return rows


def shell_milliseconds(path: Path, sql: str, repeats: int = 5) -> float:
    """Median time of a query in the shell, its start included."""
    shell = shutil.which("duckdb", path=sysconfig.get_path("scripts")) or "duckdb"
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        command = [shell, "-readonly", str(path / "warehouse.duckdb"), "-c", sql]
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - begin)
    return 1000 * statistics.median(times)


def sample_arguments(description: str | None) -> argparse.Namespace:
    """What a benchmark on a sample is asked for: ``filters``, ``layers`` and ``folder``."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--filters", type=int, default=20_000_000)
    parser.add_argument("--layers", type=int, default=2000)
    parser.add_argument("--folder", type=Path, default=None, help="where to work; needs 150 bytes a filter")
    return parser.parse_args()


def main() -> None:
    """Run everything and print the tables."""
    arguments = sample_arguments(__doc__)
    with working_folder(arguments.folder) as folder:
        compile_kernels(folder)
        run(folder, arguments.filters, arguments.layers)


def run(folder: Path, filters: int, layers: int) -> None:
    """Benchmark with datasets of ``filters`` and of a quarter of them in ``folder``."""
    large, small = folder / "large.h5", folder / "small.h5"
    in_new_process(HERE, "make_sample", str(large), filters, layers)
    in_new_process(HERE, "make_sample", str(small), filters // 4, layers)
    target = folder / "large.warehouse"
    costs: dict[str, Cost] = {
        "plain copy": in_new_process(HERE, "run_plain_copy", str(large), str(folder / "copy")),
        "ingest": in_new_process(HERE, "run_ingest", str(large), str(target)),
        "ingest of a quarter": in_new_process(HERE, "run_ingest", str(small), str(folder / "small.warehouse")),
        "the notebook's way": in_new_process(HERE, "run_notebook", str(large)),
    }
    copy, ingest = costs["plain copy"], costs["ingest"]
    print(f"{filters:,} filters, {layers:,} layers, float64; {os.cpu_count()} cores; duckdb {duckdb.__version__}\n")
    print(f"{'':22}{'seconds':>9}{'peak MB':>9}{'/ copy':>9}{'filters/s':>13}")
    for name, cost in costs.items():
        n = filters // 4 if "quarter" in name else filters
        row = f"{name:22}{cost.seconds:9.1f}{cost.peak_mb:9.0f}{cost.seconds / copy.seconds:9.2f}"
        print(f"{row}{n / cost.seconds:13,.0f}")
    notebook = costs["the notebook's way"]
    print(f"\nthe notebook's way / ingest: {notebook.seconds / ingest.seconds:.1f} times the time, ", end="")
    print(f"{notebook.peak_mb / ingest.peak_mb:.1f} times the memory")
    print(f"peak memory, all / a quarter: {ingest.peak_mb / costs['ingest of a quarter'].peak_mb:.2f}")
    print(f"bytes a filter on disk: {ingest.result / filters:.1f} (copy {copy.result / filters:.1f})\n")
    for question in ("drift(task)", "drift(depth_decile)", "drift(model_id)", "quality(task)", "pca(task)"):
        print(f"{f'from {question}':30}{ask(str(target), f'from {question}').warm:8.1f} ms")
    print(f"{'from pca(task), in the shell':30}{shell_milliseconds(target, 'from pca(task)'):8.1f} ms")


if __name__ == "__main__":
    main()
