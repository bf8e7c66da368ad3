"""Runs the queries of ``sql/staging``, which finish tables before they go into the lake.

Gets Arrow tables by the names that the query uses; hands on its result.
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pyarrow as pa

from warehouse import sqlfiles


def run(query: str, inputs: dict[str, pa.Table], uses: Sequence[tuple[str, str]]) -> pa.Table:
    """Result of ``sql/staging/<query>.sql``.

    Parameters
    ----------
    query
        Name of the file.
    inputs
        The tables that it reads.
    uses
        Sub-folder and name of the tables and macros of ``sql/`` that it needs.
    """
    with duckdb.connect() as con:
        for folder, name in uses:
            con.execute(sqlfiles.load_one(folder, name).statement)
        for name, table in inputs.items():
            con.register(name, table)
        return con.sql(sqlfiles.load_query("staging", query)).to_arrow_table()
