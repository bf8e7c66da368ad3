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
from typing import Any, TextIO

import duckdb
import typer
from rich.console import Console
from rich.table import Table

from warehouse.catalog import text_literal
from warehouse.connection import record_batches
from warehouse.errors import LakeError, QueryError, duckdb_message
from warehouse.lake import disk_errors
from warehouse.legible import LONGEST_CELL, printable, shortened
from warehouse.restricted import RestrictedWarehouse
from warehouse.session import Warehouse

NUMERIC = {
    *("tinyint", "smallint", "integer", "bigint", "hugeint", "utinyint", "usmallint", "uinteger", "ubigint"),
    *("float", "double", "decimal"),
}
"""DuckDB's types that a table shows flush right."""
LIST_ITEMS = 9
"""Items of a list that a table shows."""
OPTIONS = {"csv": "format csv, header", "json": "format json, array", "parquet": "format parquet"}
"""What DuckDB is told to write each format but tables."""
FORMATS = ("table", *OPTIONS)
errors = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)
"""Where all goes that is no result."""


def write(
    warehouse: Warehouse | RestrictedWarehouse,
    query: str,
    format_: str | None = "table",
    file: Path | None = None,
    *,
    max_rows: int = 200,
) -> None:
    """Run a query and write its result.

    Parameters
    ----------
    warehouse
        Where to ask.
    query
        One or more statements of SQL; the result is that of the last.
    format_
        One of ``FORMATS``; None takes what the file's name ends with, and else ``table``.
    file
        None writes to standard output. An existing file is replaced once the result is complete.
    max_rows
        Rows of a table to show on standard output; a line on standard error tells of more.

    Raises
    ------
    QueryError
        Parquet to standard output, or a query that DuckDB refuses.
    """
    format_ = chosen_format(format_, file)
    write_relation(warehouse.sql(query), format_, file, max_rows=max_rows)


def chosen_format(format_: str | None, file: Path | None) -> str:
    """The format to write: what is asked for, or else what the file's name ends with, or else ``table``."""
    if format_ is None:
        ending = file.suffix[1:].lower() if file else ""
        if ending not in ("", "txt", *FORMATS):
            raise QueryError(f"{file}: .{ending} is no format; name one with --format {'|'.join(FORMATS)}")
        format_ = ending if ending in OPTIONS else "table"
    if format_ == "parquet" and file is None:
        raise QueryError("parquet is not text; name a file with -o FILE.parquet")
    return format_


def write_relation(
    relation: duckdb.DuckDBPyRelation, format_: str = "table", file: Path | None = None, *, max_rows: int = 200
) -> None:
    """Run a relation and write its result, as `write` does with that of a query."""
    with complete_or_nothing(file) as target:
        try:
            if format_ == "table":
                with target.open("w", encoding="utf-8") as stream:
                    write_table(relation, stream, None if file else max_rows)
            else:
                _copy(relation, target, OPTIONS[format_])
        except duckdb.Error as error:
            raise QueryError(duckdb_message(error)) from error


def _copy(relation: duckdb.DuckDBPyRelation, target: Path, options: str) -> None:
    """Stream a result into a file, through a second DuckDB that knows how to write it."""
    with duckdb.connect() as writer:
        writer.register("result", record_batches(relation))
        writer.execute(f"copy result to {text_literal(str(target))} ({options})")


@contextlib.contextmanager
def complete_or_nothing(file: Path | None) -> Iterator[Path]:
    """A file to write to, that becomes ``file`` when complete, or goes to standard output, a pipe or a device."""
    if file is None or (file.exists() and not file.is_file()):
        with tempfile.TemporaryDirectory() as folder:
            result = Path(folder) / "result"
            yield result
            with result.open("rb") as stream:
                if file is None:
                    shutil.copyfileobj(stream, sys.stdout.buffer)
                else:
                    with disk_errors(file), file.open("wb") as device:
                        shutil.copyfileobj(stream, device)
        return
    if not file.parent.is_dir():
        raise LakeError(f"cannot write {file}: there is no folder {file.parent}")
    partial = file.with_name(f".{file.name}.{uuid.uuid4().hex}.partial")
    try:
        with disk_errors(file):
            yield partial
            partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def write_table(relation: duckdb.DuckDBPyRelation, stream: TextIO, max_rows: int | None = None) -> None:
    """Write a relation as a table for people; a line on standard error tells of rows beyond ``max_rows``."""
    rows = (relation if max_rows is None else relation.limit(max_rows + 1)).fetchall()
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name, kind in zip(relation.columns, relation.types, strict=True):
        table.add_column(_shown(name), justify="right" if kind.id in NUMERIC else "left", overflow="fold")
    for row in rows[:max_rows]:
        table.add_row(*map(_text, row))
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000
    Console(file=stream, width=width, highlight=False, markup=False, emoji=False).print(table)
    if max_rows is not None and len(rows) > max_rows:
        typer.echo(f"the first {max_rows:,} rows; see more with --max-rows, or all with --format csv", err=True)


def _text(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        shown = ", ".join(map(_text, value[:LIST_ITEMS]))
        return f"[{shown}{', ...' if len(value) > LIST_ITEMS else ''}]"
    return _shown(str(value))


def _shown(text: str) -> str:
    return printable(shortened(text, LONGEST_CELL))


def note(text: str) -> None:
    """Tell people something, as a line on standard error."""
    errors.print(_shown(text), markup=False)


def heading(title: str, detail: str = "") -> None:
    """A line above a table."""
    typer.echo(f"\n{title}{os.linesep + '  ' + detail if detail else ''}")
