"""How the cost of an ingest and of questions grows, against what one would do without a warehouse.

    python -m tests.benchmarks.scaling [--filters 2000000 20000000 100000000] [--layers 500 5000 21436] [--folder DIR]

The n-th dataset has the n-th number of filters in the n-th number of layers. Each piece of work has a process of its
own. Needs 40 bytes of disk for each filter of the largest; the notebook's way is left out where it would not fit in
memory. Prints one Markdown table; compare its ratios, not its seconds.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl

import warehouse
from tests.benchmarks.dataset import REAL, Shape, source_of
from tests.benchmarks.ingest import compile_kernels
from tests.benchmarks.measure import Answer, Cost, environment, forget, in_new_process, markdown, tell, working_folder

HERE = "tests.benchmarks.scaling"
INGEST = "tests.benchmarks.ingest"
QUESTIONS = (
    "from drift(task)",
    "from drift(depth_decile)",
    "from drift(model_id)",
    "from pca(task)",
    "from quality(task)",
)
NOTEBOOK = "the notebook's way"
DIRECTLY = {
    "drift by task in DuckDB, from the Parquet files": "drift_in_duckdb",
    "drift by task in polars, from the Parquet files": "drift_in_polars",
}
COMPARED = {"ingest": "plain copy", NOTEBOOK: "ingest", **dict.fromkeys(DIRECTLY, f"`{QUESTIONS[0]}`")}
"""What each is divided by."""
NOTEBOOK_BYTES_A_FILTER = 200
"""Its peak memory at 20 million filters, of which most is scikit-learn's copies in float64."""
EMPTY_DENSITY = 1.1920929e-07
WEIGHTS = [f"w{i}" for i in range(9)]

Found = dict[str, Cost | str]
"""The cost of each piece of work, or why it was left out."""


def drift_in_duckdb(path: str) -> list[tuple[str, str, float]]:
    """Drift by task from the filters of a warehouse, in SQL alone."""
    query = Path(__file__).with_name("drift_from_filters.sql").read_text()
    with duckdb.connect(str(Path(path) / "warehouse.duckdb"), read_only=True) as con:
        con.execute("set file_search_path = ?", [path])
        return con.sql(query).fetchall()


def drift_in_polars(path: str) -> list[tuple[str, str, float]]:
    """Drift by task from the filters of a warehouse, in polars alone."""
    with warehouse.open(path) as wh:
        filters, basis = wh.scan("filters"), wh.scan("basis").sort("component").collect()
        tasks = wh.sql("select layer_id, task from layer_meta where task is not null").pl()
        (mean,) = wh.scan("basis_mean").collect()["mean"].to_list()
        low, high, bins = wh.scan("histogram_range").select("lo", "hi", "bins").collect().row(0)
    loadings = np.array(basis["loading"].to_list())
    bins_per_unit = bins / (high - low)
    peak = pl.max_horizontal(pl.col(WEIGHTS).abs())
    scaled = pl.col(WEIGHTS).cast(pl.Float64) / pl.when(peak > 0).then(peak).otherwise(1)

    def places(component: int, loading: list[float]) -> pl.Expr:
        origin = float(np.dot(loading, mean)) + low
        coefficient = pl.sum_horizontal(pl.col(name) * weight for name, weight in zip(WEIGHTS, loading, strict=True))
        # 1e-9 bins: filters of zeros lie on an edge
        place: pl.Expr = ((coefficient - origin) * bins_per_unit + 1e-9).floor().clip(0, bins - 1)
        return place.cast(pl.Int32).alias(str(component))

    counts = (
        filters.join(tasks.lazy(), on="layer_id")
        .select("task", scaled)
        .select("task", *(places(component, loading) for component, loading in enumerate(loadings.tolist())))
        .unpivot(index="task", variable_name="component", value_name="bin")
        .group_by("task", "component", "bin")
        .agg(n=pl.len())
        .collect(engine="streaming")
    )
    everything = (
        counts.select(pl.col("task").unique())
        .join(basis.select(pl.col("component").cast(pl.String), weight="explained_variance_ratio"), how="cross")
        .join(pl.select(bin=pl.int_range(bins, dtype=pl.Int32)), how="cross")
    )
    group = ("task", "component")
    density = (pl.col("n") / pl.col("n").sum().over(group) * bins_per_unit).fill_null(EMPTY_DENSITY)
    probabilities = (
        everything.join(counts, on=["task", "component", "bin"], how="left")
        .with_columns(density=density)
        .with_columns(p=pl.col("density") / pl.col("density").sum().over(group))
    )
    p, q = pl.col("p"), pl.col("p_right")
    return (
        probabilities.join(probabilities, on=["component", "bin"])
        .group_by(a="task", b="task_right")
        .agg(drift=(pl.col("weight") * (p - q) * (p / q).log()).sum())
        .sort("a", "b")
        .rows()
    )


def measure(folder: Path, shape: Shape, memory_bytes: int) -> Found:
    """Make a dataset in an empty folder and do everything with it."""
    dataset, copy, target = folder / "dataset.h5", folder / "copy", folder / "cnn.warehouse"
    source = source_of(dataset)
    tell(f"{shape.filters:,} filters in {shape.layers:,} layers")
    in_new_process("tests.benchmarks.dataset", "make_dataset", dataset, *shape)
    found: Found = {"plain copy": in_new_process(INGEST, "run_plain_copy", dataset, copy, source)}
    shutil.rmtree(copy)
    found["ingest"] = in_new_process(INGEST, "run_ingest", dataset, target, source)
    needed = NOTEBOOK_BYTES_A_FILTER * shape.filters
    found[NOTEBOOK] = (
        in_new_process(INGEST, "run_notebook", dataset)
        if needed < memory_bytes
        else f"needs about {needed / 1e9:.0f} GB of memory"
    )
    for question in QUESTIONS:
        cost = in_new_process("tests.benchmarks.measure", "ask", target, question)
        found[f"`{question}`"] = cost._replace(seconds=Answer(*cost.result).cold / 1000)
    with duckdb.connect(str(target / "warehouse.duckdb"), read_only=True) as con:
        expected = con.sql("from drift(task)").fetchall()
    for name, function in DIRECTLY.items():
        forget(target.rglob("*.parquet"))
        found[name] = cost = in_new_process(HERE, function, target)
        refuse_difference(name, cost.result, expected)
    return found


def refuse_difference(name: str, rows: Sequence[Sequence[Any]], expected: Sequence[Sequence[Any]]) -> None:
    """Stop where what is to be compared does not do the same."""
    same_pairs = [(a, b) for a, b, _ in rows] == [(a, b) for a, b, _ in expected]
    if not same_pairs or not np.allclose([row[2] for row in rows], [row[2] for row in expected], rtol=1e-9, atol=1e-12):
        raise RuntimeError(f"{name} gives other drifts than the warehouse")


def table(columns: dict[Shape, Found]) -> str:
    """The Markdown table of what `measure` found for each dataset, smallest first."""
    shapes = list(columns)
    smallest, largest = shapes[0], shapes[-1]
    more_filters, more_layers = largest.filters / smallest.filters, largest.layers / smallest.layers
    growth = f"last / first: {more_filters:.0f} x filters, {more_layers:.0f} x layers"
    header = ["", *(f"{shape.filters / 1e6:g} M filters, {shape.layers:,} layers" for shape in shapes), growth]
    return markdown(header, _rows(list(columns.values())))


def _rows(columns: list[Found]) -> Iterator[list[str]]:
    for name in columns[0]:
        costs = [found[name] for found in columns]
        yield [name, *map(_told, costs), _ratio(costs[-1], costs[0])]
        if name in COMPARED:
            ratios = [_ratio(found[name], found[COMPARED[name]]) for found in columns]
            yield [f"... / {COMPARED[name]}", *ratios, ""]


def _told(cost: Cost | str) -> str:
    if isinstance(cost, str):
        return cost
    time = f"{cost.seconds:,.1f} s" if cost.seconds >= 1 else f"{1000 * cost.seconds:,.0f} ms"
    return f"{time}, {cost.peak_mb:,.0f} MB"


def _ratio(cost: Cost | str, other: Cost | str) -> str:
    return "" if isinstance(cost, str) or isinstance(other, str) else f"{cost.seconds / other.seconds:,.2f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--filters", type=int, nargs="+", default=[2_000_000, 20_000_000, 100_000_000])
    parser.add_argument("--layers", type=int, nargs="+", default=[500, 5000, REAL.layers])
    parser.add_argument("--folder", type=Path, default=None, help="where to work, by default where temporary files go")
    options = parser.parse_args(arguments)
    if len(options.filters) != len(options.layers):
        parser.error("--filters and --layers go together, one of each for a dataset")
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 2 // 3
    columns = {}
    for filters, layers in sorted(zip(options.filters, options.layers, strict=True)):
        shape = Shape(filters, layers, models=max(1, layers * REAL.models // REAL.layers))
        with working_folder(options.folder) as folder:
            compile_kernels(folder)
            columns[shape] = measure(folder, shape, memory_bytes)
    print(f"{environment()}. Time and peak memory; of questions the first time, nothing of the file in memory.\n")
    print(table(columns))


if __name__ == "__main__":
    main()
