"""What every analysis and every table macro costs on a warehouse of many filters.

    python -m tests.benchmarks.analyses [--filters 20000000] [--layers 2000] [--folder DIR] [--warehouse PATH]

Makes a synthetic warehouse, unless one is named, asks each analysis with its defaults and each macro by its example in
`help`, on one open connection without the functions of Python, and prints one table.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb

import warehouse
from tests.benchmarks.ingest import make_sample

REPEATS = 5
READS_FILTERS = {"coefficient_density", "density", "filter_pca"}
"""What cannot be answered from the rollups."""


def questions(con: duckdb.DuckDBPyConnection) -> Iterator[tuple[str, str, str]]:
    """Kind, name and SQL of everything to ask."""
    for name, query in con.sql("select name, query from analyses order by name").fetchall():
        yield "analysis", name, query
    for name, example in con.sql("from help select name, example where kind = 'table macro' order by name").fetchall():
        yield "macro", name, example


def cost(con: duckdb.DuckDBPyConnection, query: str) -> tuple[int, float]:
    """Rows of the result, and the median time in milliseconds, results fetched; a slow one is asked once."""
    times: list[float] = []
    rows = 0
    while len(times) < REPEATS and sum(times) < 2000:
        begin = time.perf_counter()
        rows = len(con.sql(query).fetchall())
        times.append(1000 * (time.perf_counter() - begin))
    return rows, statistics.median(times)


def run(path: Path) -> None:
    """Ask everything of the warehouse at ``path`` and print the table."""
    with duckdb.connect(str(path / "warehouse.duckdb"), read_only=True) as con:
        con.execute("set file_search_path = ?", [str(path.absolute())])
        ((n_filters, n_layers),) = con.sql("select sum(n_filters), count(*) from layers").fetchall()
        print(f"{n_filters:,} filters, {n_layers:,} layers; duckdb {duckdb.__version__}\n")
        print(f"{'kind':10}{'name':36}{'rows':>9}{'ms':>9}")
        for kind, name, query in questions(con):
            rows, milliseconds = cost(con, query)
            note = "  reads the filters" if name in READS_FILTERS else ""
            print(f"{kind:10}{name:36}{rows:9,}{milliseconds:9.0f}{note}")


def main() -> None:
    """Run everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--filters", type=int, default=20_000_000)
    parser.add_argument("--layers", type=int, default=2000)
    parser.add_argument("--folder", type=Path, default=None, help="where to work; needs 110 bytes a filter")
    parser.add_argument("--warehouse", type=Path, default=None, help="one that is there already")
    arguments = parser.parse_args()
    if arguments.warehouse:
        run(arguments.warehouse)
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        source, target = Path(folder) / "sample.h5", Path(folder) / "cnn.warehouse"
        make_sample(str(source), str(arguments.filters), str(arguments.layers))
        warehouse.ingest(source, target)
        run(target)


if __name__ == "__main__":
    main()
