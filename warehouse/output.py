"""Writes the result of a query as a table for people, or as CSV, JSON or Parquet."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import typer
from rich.console import Console
from rich.table import Table

from warehouse.errors import QueryError
from warehouse.lake import disk_errors

NUMERIC = {
    *("tinyint", "smallint", "integer", "bigint", "hugeint", "utinyint", "usmallint", "uinteger", "ubigint"),
    *("float", "double", "decimal"),
}
"""DuckDB's types that a table shows flush right."""
LIST_ITEMS = 9
"""Items of a list that a table shows."""
FORMATS = ("table", "csv", "json", "parquet")


def write(relation: duckdb.DuckDBPyRelation, format_: str | None, file: Path | None, *, max_rows: int = 200) -> None:
    """Write a result.

    Parameters
    ----------
    relation
        The result; it is run here, streamed but for tables.
    format_
        One of ``FORMATS``; None takes what the file's name ends with, and else ``table``.
    file
        None writes to standard output. An existing file is replaced once the result is complete.
    max_rows
        Rows of a table to show; a line on standard error tells of more.

    Raises
    ------
    QueryError
        Parquet to standard output.
    """
    if format_ is None:
        ending = file.suffix[1:].lower() if file else ""
        format_ = ending if ending in FORMATS else "table"
    if format_ == "parquet" and file is None:
        raise QueryError("parquet is not text; name a file with -o FILE.parquet")
    if format_ == "table":
        _write_table(relation, file, max_rows)
        return
    options = {"csv": "format csv, header", "json": "format json, array", "parquet": "format parquet"}
    with _complete_or_nothing(file) as target:
        relation.query("result", f"copy result to '{target}' ({options[format_]})")


@contextlib.contextmanager
def _complete_or_nothing(file: Path | None) -> Iterator[str]:
    """A name to write to: standard output, or one that becomes ``file`` when all is written."""
    if file is None:
        # not /dev/stdout: DuckDB would write to its beginning where output is appended to a file
        with tempfile.TemporaryDirectory() as folder:
            result = Path(folder) / "result"
            yield str(result)
            with result.open("rb") as stream:
                sys.stdout.flush()
                shutil.copyfileobj(stream, sys.stdout.buffer)
        return
    partial = file.with_name(f".{file.name}.{uuid.uuid4().hex}.partial")
    try:
        with disk_errors(file):
            yield str(partial).replace("'", "''")
            partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def _write_table(relation: duckdb.DuckDBPyRelation, file: Path | None, max_rows: int) -> None:
    rows = relation.limit(max_rows + 1).fetchall()
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name, kind in zip(relation.columns, relation.types, strict=True):
        table.add_column(name, justify="right" if kind.id in NUMERIC else "left", overflow="fold")
    for row in rows[:max_rows]:
        table.add_row(*map(_text, row))
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(file.open("w", encoding="utf-8")) if file else sys.stdout
        wide = not stream.isatty()
        Console(file=stream, width=10_000 if wide else None, soft_wrap=wide, highlight=False, markup=False).print(table)
    if len(rows) > max_rows:
        typer.echo(f"the first {max_rows:,} rows; see more with --max-rows, or all with --format csv", err=True)


def _text(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        shown = ", ".join(map(_text, value[:LIST_ITEMS]))
        return f"[{shown}{', ...' if len(value) > LIST_ITEMS else ''}]"
    return str(value)


def heading(title: str, detail: str = "") -> None:
    """A line above a table."""
    typer.echo(f"\n{title}{os.linesep + '  ' + detail if detail else ''}")
