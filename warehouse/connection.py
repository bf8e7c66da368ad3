"""Opens the database of a warehouse: read-only, in a DuckDB instance of its own, the raw filters within reach."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa

from warehouse import catalog
from warehouse.errors import LakeError, duckdb_message
from warehouse.lake import DATABASE


def connect(folder: Path) -> duckdb.DuckDBPyConnection:
    """Open the database of a warehouse read-only, with its folder as search path.

    It is attached to a DuckDB instance of its own: functions belong to an instance, but die with the connection
    that registered them, and connections to the same file share one.

    Raises
    ------
    LakeError
        No warehouse is there, or DuckDB cannot open it.
    """
    database = folder / DATABASE
    if not database.is_file():
        if folder.is_file():
            raise LakeError(f"{folder} is a file; name the folder of the warehouse")
        reason = "there is no such folder" if not folder.exists() else f"it has no {DATABASE}"
        raise LakeError(f"{folder} is not a warehouse: {reason}; make one with `warehouse ingest`")
    setting = catalog.search_in(folder)
    connection = duckdb.connect()
    # a path that begins with ~, or with a word and a colon, would mean another file, and the first bytes of a file that
    # is not DuckDB's would have an extension fetched
    literal = catalog.text_literal(str(database.absolute()))
    try:
        connection.execute(f"attach {literal} as warehouse (read_only, type duckdb)")
        connection.execute("use warehouse")
        connection.execute(setting)
    except duckdb.Error as error:
        connection.close()
        raise LakeError(f"cannot open {database}: {duckdb_message(error)}") from error
    return connection


def record_batches(relation: duckdb.DuckDBPyRelation, rows: int = 1_000_000) -> pa.RecordBatchReader:
    """Run a relation and stream its result, at most so many rows at a time."""
    # the method was renamed in DuckDB 1.5
    read = getattr(relation, "to_arrow_reader", None) or relation.fetch_record_batch
    return read(rows)
