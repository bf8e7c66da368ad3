"""The process in which the queries of a `RestrictedWarehouse` run; nothing else starts it.

Gets requests as lines of JSON on standard input; answers each on standard output with a line of JSON and an Arrow
stream. Whatever it does, the other side reads JSON and Arrow from it, never a pickle.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import resource
import select
import signal
import struct
import sys
import threading
from functools import cache
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
READING_NODES = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
"""Parts of a parsed query that read; since DuckDB 2.0 a CTE may also insert, update, delete or copy to a file."""
READING_FUNCTIONS = re.compile(
    r"(duckdb|parquet|pragma|read)_\w+|generate_series|glob|icu_calendar_names|json_each|json_tree|pg_timezone_names|"
    "query_table|range|repeat|repeat_row|sniff_csv|summary|test_all_types|test_vector_types|unnest|which_secret"
)
"""Table functions of DuckDB that do no more than read what they may; there are more with each of its versions."""
LANDLOCK_CREATE_RULESET, LANDLOCK_RESTRICT_SELF, PR_SET_NO_NEW_PRIVS = 444, 446, 38
CHANGES = 0b1_1111_1111_0011
"""Landlock's rights to execute and write files, and to remove and make whatever a folder holds."""

_NO_MEMORY = re.compile("MemoryError|Out of Memory|[Mm]emory allocation fail")
_NODE = re.compile(r'"type":"(\w+_NODE)"')
_FUNCTION = re.compile(r'"function_name":"([^"]*)"')


def main(folder: str, limits: Limits) -> None:
    """Answer until standard input ends."""
    # here the database's own relative paths find the filters
    os.chdir(folder)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    with Path(os.devnull).open("wb") as nowhere:
        # what a library prints, or the last words of a crash, belong into no answer
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere.fileno(), stream.fileno())
    # before DuckDB starts its threads, which inherit it
    _refuse_changes()
    # what it takes to open one is no query's
    Warehouse(".").close()
    refused_functions()
    idle = _address_space()
    _bound_process(limits, idle)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for line in sys.stdin.buffer:
        # the kernel ends the process on time, whatever it is doing
        signal.setitimer(signal.ITIMER_REAL, limits.seconds)
        head, body = _reply(json.loads(line), limits)
        signal.setitimer(signal.ITIMER_REAL, 0)
        # what a query has not given back, the next one would lack
        head["spent"] = _address_space() > idle + limits.memory_mb * 2**20 // 2
        _send(answers, head, body)


def _refuse_changes() -> None:
    """Have the kernel refuse to change any file or folder, where it has Landlock (Linux 5.13).

    DuckDB may write what it may read: without this, only `require_one_read` stands before the warehouse's own files.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    rights = struct.pack("Q", CHANGES)
    # without a rule that allows any of them, for any path
    ruleset = libc.syscall(LANDLOCK_CREATE_RULESET, rights, ctypes.c_size_t(len(rights)), 0)
    if ruleset >= 0:
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if libc.syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0):
            raise OSError("the kernel has Landlock, but cannot apply it")
        os.close(ruleset)


def _bound_process(limits: Limits, idle: int) -> None:
    """Have the kernel refuse to write files, to dump memory into one, and to take more memory than allowed."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if idle:
        most = idle + limits.memory_mb * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _address_space() -> int:
    """Bytes that the kernel counts against the limit of memory; 0 where it counts none."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[0]) * resource.getpagesize() if statm.exists() else 0


def _end_with_parent() -> None:
    """End in the midst of a query if nobody is left to answer."""
    hung_up = select.poll()
    hung_up.register(sys.stdin.fileno(), 0)
    hung_up.poll()
    os._exit(0)


def _reply(request: list[Any], limits: Limits) -> tuple[dict[str, Any], bytes]:
    """What to tell of the answer, and the answer."""
    try:
        return {}, _answer(request, limits)
    except Exception as error:  # whatever it is, the query is the reason
        message = duckdb_message(error)
        out_of_memory = isinstance(error.__cause__ or error, (MemoryError, duckdb.OutOfMemoryException))
        if out_of_memory or _NO_MEMORY.search(message):
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


@cache
def refused_functions() -> frozenset[str]:
    """Table functions of this DuckDB that may do more than read.

    Some run a text, which may hold what is refused outside of it (``query``, ``json_execute_serialized_sql``, and since
    DuckDB 2.0 ``destroy_external_resource``, which calls a function by its name); others change settings or files.
    """
    with duckdb.connect() as con:
        found = con.execute("select function_name from duckdb_functions() where function_type = 'table'").fetchall()
    return frozenset(name for (name,) in found if not READING_FUNCTIONS.fullmatch(name))


def require_one_read(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    """Refuse whatever is not one statement that reads.

    Raises
    ------
    QueryError
        With the kinds of the statements.
    """
    expected = "expected one statement that reads (SELECT, FROM, WITH, VALUES, DESCRIBE, SUMMARIZE, SHOW)"
    try:
        kinds = [statement.type.name for statement in connection.extract_statements(query)]
    except ValueError:
        # of a statement that DuckDB's Python interface has no name for
        kinds = ["another"]
    except TypeError:
        raise QueryError("the query is no text, or holds characters that are none (surrogates)") from None
    if kinds != ["SELECT"]:
        raise QueryError(f"{expected}, found: {', '.join(kinds) or 'none'}")
    ((parsed,),) = connection.execute("select json_serialize_sql($1)", [query]).fetchall()
    nodes = set(_NODE.findall(parsed))
    if not nodes:
        raise QueryError(f"the query cannot be looked through: {json.loads(parsed)['error_message']}")
    if nodes - READING_NODES:
        found = ", ".join(sorted(node.split("_")[0] for node in nodes - READING_NODES))
        raise QueryError(f"{expected}, found within it: {found}")
    refused = refused_functions().intersection(map(str.lower, _FUNCTION.findall(parsed)))
    if refused:
        raise QueryError(f"{expected}, found within it a call of {', '.join(sorted(refused))}, which may do more")


def _within(relation: duckdb.DuckDBPyRelation, limits: Limits) -> bytes:
    """Run a relation and give its rows as an Arrow stream, unless it has too many of them."""
    reader = record_batches(relation, BATCH_ROWS)
    sink, rows, values = pa.BufferOutputStream(), 0, 0
    with pa.ipc.new_stream(sink, reader.schema) as stream:
        for batch in reader:
            rows += batch.num_rows
            if rows > limits.rows:
                raise QueryError(f"the result has more than {limits.rows:,} rows; aggregate, or end with a limit")
            stream.write_batch(batch)
            values += sum(map(_n_values, batch.columns))
            # NULLs may take no byte in Arrow, but do where they are read
            _require_size(max(sink.tell(), values), limits)
    # without rows there still are names and types
    _require_size(sink.tell(), limits)
    return bytes(sink.getvalue())


def _n_values(array: pa.Array) -> int:
    """Values of a column, those within its values included."""
    kind = array.type
    if pa.types.is_struct(kind) or pa.types.is_union(kind):
        return len(array) + sum(_n_values(array.field(i)) for i in range(kind.num_fields))
    if pa.types.is_map(kind):
        return len(array) + _n_values(array.keys) + _n_values(array.items)
    if pa.types.is_nested(kind):  # lists of all kinds
        return len(array) + _n_values(array.flatten())
    return len(array)


def _require_size(taken: int, limits: Limits) -> None:
    if taken > limits.result_mb * 2**20:
        raise QueryError(f"the result is larger than {limits.result_mb:,} MB; ask for fewer rows or columns")


if __name__ == "__main__":
    main(sys.argv[1], Limits(**json.loads(sys.argv[2])))
