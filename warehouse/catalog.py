"""Builds ``warehouse.duckdb``: the tables, views and macros of ``sql/`` over the files of the lake.

Gets the list of files; hands on a database that the plain DuckDB shell can use.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from warehouse import analyses, sqlfiles
from warehouse.errors import CatalogError, duckdb_message
from warehouse.lake import LakeFile, disk_errors
from warehouse.legible import encodable
from warehouse.sqlfiles import CSV_PREFIX, LAKE_PREFIX, SqlObject

STORAGE_VERSION = "v1.2.0"
"""The oldest format that holds everything: shells are often older than the library that made a file."""
MEMORY_LIMIT = "384MB"

_LAKE_NAME = re.compile(rf"\b{LAKE_PREFIX}(\w+)")
_CSV_NAME = re.compile(rf"\b{CSV_PREFIX}(\w+)")


def build(database: Path, folder: Path, files: Iterable[LakeFile]) -> None:
    """Create the database of a warehouse.

    Parameters
    ----------
    database
        The file to create.
    folder
        The warehouse's folder: the files' paths start there.
    files
        All files of the lake that belong to the warehouse.

    Raises
    ------
    CatalogError
        An SQL file that DuckDB refuses, by its name and with DuckDB's message.
    """
    # filters come from many threads; of the other tables the oldest file tells the order of the columns
    files = sorted(files, key=lambda file: file.path if file.name == "filters" else "")
    objects = sqlfiles.load("tables", "views", "macros")
    with _named_errors(database), duckdb.connect() as con:
        con.execute(f"set memory_limit = '{MEMORY_LIMIT}'")
        con.execute(f"set temp_directory = {text_literal(f'{database}.spill')}")
        con.execute(search_in(folder))
        con.execute(f"attach {text_literal(str(database))} as warehouse (storage_version '{STORAGE_VERSION}')")
        con.execute("use warehouse")
        paths = {name: [file.path for file in files if file.name == name] for name in {f.name for f in files}}
        for item in objects:
            create(con, item, paths)
        insert(con, "files", [asdict(file) for file in files])
        ready = analyses.load()
        insert(con, "analyses", [analysis.row for analysis in ready])
        insert(con, "help", [*(help_row(item) for item in objects), *(analysis.help_row for analysis in ready)])
        con.execute("checkpoint warehouse")
        con.execute("use memory")
        con.execute("detach warehouse")


@contextlib.contextmanager
def _named_errors(database: Path) -> Iterator[None]:
    """Turn DuckDB's errors into ours that name the database."""
    with disk_errors(database):
        try:
            yield
        except duckdb.Error as error:
            if _is_disk_full(error):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            raise CatalogError(f"cannot build {database}: {duckdb_message(error)}") from error


def _is_disk_full(error: duckdb.Error) -> bool:
    """Whether DuckDB reports a full disk, which it tells by the system's words alone."""
    return os.strerror(errno.ENOSPC) in str(error)


def create(
    con: duckdb.DuckDBPyConnection,
    item: SqlObject,
    paths: Mapping[str, Sequence[str]],
    *,
    temporary: bool = False,
) -> None:
    """Run an object's ``create`` statement and make its header its comment."""
    unknown = [name for name in _LAKE_NAME.findall(item.statement) if name not in paths]
    if unknown:
        raise CatalogError(f"sql/**/{item.name}.sql: the lake has no table {unknown[0]}, only {', '.join(paths)}")
    statement = _LAKE_NAME.sub(lambda match: _scan(paths[match[1]]), item.statement)
    statement = _CSV_NAME.sub(lambda match: _read_csv(match[1]), statement)
    if temporary:
        statement = statement.replace("create", "create temp", 1)
    try:
        con.execute(statement)
        con.execute(f"comment on {item.comment_target} {item.name} is {text_literal(item.comment)}")
    except duckdb.Error as error:
        if _is_disk_full(error):
            raise
        raise CatalogError(f"sql/**/{item.name}.sql: {duckdb_message(error)}") from error


def insert(con: duckdb.DuckDBPyConnection, name: str, rows: list[dict[str, Any]]) -> None:
    """Insert rows into a table, by the names of its columns."""
    con.register("new_rows", pa.Table.from_pylist(rows))
    con.execute(f"insert into {name} by name from new_rows")
    con.unregister("new_rows")


def help_row(item: SqlObject) -> dict[str, str | None]:
    """A row of ``help``."""
    told = {key: item.header.get(key) for key in ("purpose", "parameters", "columns", "example")}
    missing = [key for key in ("purpose", "example") if told[key] is None]
    if missing:
        raise CatalogError(f"sql/**/{item.name}.sql: the header has no line `-- {missing[0]}: ...`")
    return {"name": item.name, "kind": item.kind, **told}


def _scan(paths: Sequence[str]) -> str:
    """SQL that reads these files; they are listed, for a pattern would also find leftovers."""
    listed = ", ".join(text_literal(path) for path in paths)
    if "model_id=" in listed:
        return f"read_parquet([{listed}], hive_partitioning = false, filename = true)"
    # what was added later may have other columns
    return f"read_parquet([{listed}], hive_partitioning = false, union_by_name = {len(paths) > 1})"


def _read_csv(name: str) -> str:
    """SQL that reads a CSV file of ``sql/published``, every column as text."""
    path = sqlfiles.sql_folder() / "published" / f"{name}.csv"
    return f"read_csv({text_literal(str(path.absolute()))}, header = true, all_varchar = true)"


def text_literal(text: str) -> str:
    """Text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def search_in(folder: Path) -> str:
    """SQL that makes relative paths start in a folder.

    Raises
    ------
    CatalogError
        A path that DuckDB would take for several or for a pattern, as it knows no way to quote one, or that is no text.
    """
    absolute = str(folder.absolute())
    if encodable(absolute) != absolute:
        raise CatalogError(f"{absolute}: DuckDB cannot read files below a path that is not UTF-8; rename the folder")
    for character, name in {",": "comma", "?": "question mark", "\\": "backslash"}.items():
        if character in absolute:
            raise CatalogError(f"{absolute}: DuckDB cannot read files below a path with a {name}; rename the folder")
    return f"set file_search_path = {text_literal(absolute)}"
