"""The process in which the queries of a `RestrictedWarehouse` run; nothing else starts it.

Gets requests as lines of JSON on standard input; answers each on standard output with a line of JSON and an Arrow
stream. Whatever it does, the other side reads JSON and Arrow from it, never a pickle.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any, BinaryIO

import duckdb
import pyarrow as pa

from warehouse.catalog import text_literal
from warehouse.connection import record_batches
from warehouse.errors import QueryError, WarehouseError, duckdb_message
from warehouse.restricted import Limits
from warehouse.session import Warehouse

MESSAGE_LENGTH = 2_000
"""Characters of an error; a query can make one of any length."""
BATCH_ROWS = 8_192
"""Rows between two looks at the limits of a result."""


def main(folder: str, limits: Limits) -> None:
    """Answer until standard input ends."""
    # here the database's own relative paths find the filters
    os.chdir(folder)
    _bound_process(limits)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    with Path(os.devnull).open("wb") as nowhere:
        # what a library prints, or the last words of a crash, belong into no answer
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere.fileno(), stream.fileno())
    for line in sys.stdin.buffer:
        # the kernel ends the process on time, whatever it is doing
        signal.setitimer(signal.ITIMER_REAL, limits.seconds)
        head, body = _reply(json.loads(line), limits)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _send(answers, head, body)


def _bound_process(limits: Limits) -> None:
    """Have the kernel refuse to write files, to dump memory into one, and to take more memory than allowed."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    statm = Path("/proc/self/statm")
    if statm.exists():
        taken = int(statm.read_text().split()[0]) * resource.getpagesize()
        most = taken + limits.memory_mb * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _reply(request: list[Any], limits: Limits) -> tuple[dict[str, Any], bytes]:
    """What to tell of the answer, and the answer."""
    try:
        return {}, _answer(request, limits)
    except Exception as error:  # whatever it is, the query is the reason
        message = duckdb_message(error)
        if isinstance(error.__cause__ or error, (MemoryError, duckdb.OutOfMemoryException)):
            # DuckDB's own message advises to change settings
            message = f"the query needs more memory than {limits.memory_mb:,} MB; ask for less"
        kind = type(error) if isinstance(error, WarehouseError) else QueryError
        return {"error": kind.__name__, "message": message[:MESSAGE_LENGTH]}, b""


def _send(answers: BinaryIO, head: dict[str, Any], body: bytes) -> None:
    answers.write(json.dumps({**head, "bytes": len(body)}).encode() + b"\n" + body)
    answers.flush()


def _answer(request: list[Any], limits: Limits) -> bytes:
    """The result as an Arrow stream, from a DuckDB that no earlier query has seen."""
    with Warehouse(".") as warehouse:
        lock(warehouse.connection, limits)
        call, name, arguments = request
        if call == "analysis":
            return _within(warehouse.analysis(name, **arguments), limits)
        require_one_read(warehouse.connection, name)
        return _within(warehouse.sql(name, arguments), limits)


def lock(connection: duckdb.DuckDBPyConnection, limits: Limits) -> None:
    """Close a connection to a warehouse against all but reading it, for good."""
    paths = connection.execute("select path from warehouse.files where name = 'filters'").fetchall()
    for setting, value in {
        "threads": str(limits.threads),
        "memory_limit": f"'{limits.memory_mb * 3 // 4} MiB'",
        "temp_directory": "''",
        "arrow_lossless_conversion": "true",
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "allow_community_extensions": "false",
        "allow_persistent_secrets": "false",
        "python_enable_replacements": "false",
        "allowed_paths": f"[{', '.join(text_literal(path) for (path,) in paths)}]",
        "enable_external_access": "false",
        "lock_configuration": "true",
    }.items():
        connection.execute(f"set {setting} = {value}")


def require_one_read(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    """Refuse whatever is not one statement that reads.

    Raises
    ------
    QueryError
        With the kinds of the statements.
    """
    kinds = [statement.type.name for statement in connection.extract_statements(query)]
    if kinds != ["SELECT"]:
        found = ", ".join(kinds) or "none"
        raise QueryError(f"expected one statement that reads (SELECT, FROM, WITH, DESCRIBE, SUMMARIZE), found: {found}")


def _within(relation: duckdb.DuckDBPyRelation, limits: Limits) -> bytes:
    """Run a relation and give its rows as an Arrow stream, unless it has too many of them."""
    reader = record_batches(relation, BATCH_ROWS)
    sink, rows = pa.BufferOutputStream(), 0
    with pa.ipc.new_stream(sink, reader.schema) as stream:
        for batch in reader:
            rows += batch.num_rows
            if rows > limits.rows:
                raise QueryError(f"the result has more than {limits.rows:,} rows; aggregate, or end with a limit")
            stream.write_batch(batch)
            if sink.tell() > limits.result_mb * 2**20:
                raise QueryError(f"the result is larger than {limits.result_mb:,} MB; ask for fewer rows or columns")
    return bytes(sink.getvalue())


if __name__ == "__main__":
    main(sys.argv[1], Limits(**json.loads(sys.argv[2])))
