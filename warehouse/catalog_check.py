"""Checks the tables of ``warehouse.duckdb`` against each other and against their files.

Gets a connection in which it is attached as ``warehouse``; hands on problems in words. Only tables are read, by queries
of ``sql/verify`` that name the catalog: views and macros of the warehouse never run, for it may be anybody's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import duckdb

from warehouse import catalog, sqlfiles
from warehouse.errors import duckdb_message
from warehouse.lake import DATABASE, LakeFile
from warehouse.lake_check import Measured, Problem, first_line

FAULTS = ("objects", "layers", "layer_rows", "layer_counts", "histogram_totals", "peak_totals", "model_filters")
"""The queries of ``sql/verify`` whose rows are faults between tables."""


def stored_tables(con: duckdb.DuckDBPyConnection) -> dict[str, list[str]]:
    """The tables that there are, and their columns."""
    tables: dict[str, list[str]] = {}
    for table, column in con.execute(sqlfiles.load_query("verify", "columns")).fetchall():
        tables.setdefault(table, []).append(column)
    return tables


def listed_files(con: duckdb.DuckDBPyConnection) -> list[LakeFile]:
    """What the commit names."""
    return [LakeFile(*row) for row in con.execute(sqlfiles.load_query("verify", "files")).fetchall()]


def faults(con: duckdb.DuckDBPyConnection) -> dict[str, Problem]:
    """What the queries of ``FAULTS`` find, by their names: of each one fault in words, and how many more there are."""
    found = {}
    for name in FAULTS:
        try:
            query = sqlfiles.load_query("verify", name).removesuffix(";")
            ((n, first),) = con.execute(f"from ({query}) select count(*), min(fault)").fetchall()
        except duckdb.Error as error:
            found[name] = Problem(DATABASE, f"cannot be checked for {name}: {reason(error)}")
            continue
        if n:
            more = f" (and {n - 1:,} more of the kind)" if n > 1 else ""
            found[name] = Problem(DATABASE, f"{first}{more}")
    return found


def table_faults(
    con: duckdb.DuckDBPyConnection, name: str, files: Sequence[LakeFile], *, quick: bool
) -> Iterator[Problem]:
    """Compare a table with its files, which are sound: their rows, or if ``quick`` only how many there are.

    Their paths start in the folder that the connection searches.
    """
    try:
        ((n_rows,),) = con.execute(f"from warehouse.{name} select count(*)").fetchall()
        n_wanted = sum(file.n_rows for file in files)
        if n_rows != n_wanted:
            yield Problem(DATABASE, f"table {name} has {n_rows:,} rows instead of the {n_wanted:,} of its files")
        elif files and not quick:
            paths = ", ".join(catalog.text_literal(file.path) for file in files)
            scan = f"read_parquet([{paths}], hive_partitioning = false, union_by_name = true)"
            con.execute(f"create or replace temp view stored as from warehouse.{name}")
            con.execute(f"create or replace temp view committed as from {scan}")
            for (fault,) in con.execute(sqlfiles.load_query("verify", "contents")).fetchall():
                yield Problem(DATABASE, f"table {name}: {fault}")
    except duckdb.Error as error:
        yield Problem(DATABASE, f"table {name} cannot be compared with its files: {reason(error)}")


def stored_layers(con: duckdb.DuckDBPyConnection) -> list[tuple[int, int, int, int]]:
    """(layer_id, model_id, first filter, number of filters) of each layer, in the order of the filters."""
    return con.execute(sqlfiles.load_query("verify", "placement")).fetchall()


def measured(con: duckdb.DuckDBPyConnection, layer_ids: Sequence[int]) -> dict[int | None, Measured]:
    """What is stored of layers that can be computed again."""
    rows = con.execute(sqlfiles.load_query("verify", "measured"), [list(layer_ids)]).fetchall()
    return {layer: Measured(*rest) for layer, *rest in rows}


def reason(error: duckdb.Error) -> str:
    """What DuckDB says of an error, in a line."""
    return first_line(duckdb_message(error))
