"""Functions that Spark lacks: workers compute them by ``udfs``, or by DuckDB, one batch of Arrow at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

import udfs
from warehouse.errors import QueryError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PREFIX = "warehouse_"
"""Of the functions' names in a Spark session, where the user may have others."""
OF_DUCKDB = {"format": "string", "jaro_winkler_similarity": "double", "md5_number_lower": "decimal(20, 0)"}
"""Functions of DuckDB with the types of their results."""

_UDFS = {udf.name: udf for udf in udfs.UDFS}
_SPARK_TYPES = {
    "DOUBLE": "double",
    "DOUBLE[]": "array<double>",
    "DOUBLE[][]": "array<array<double>>",
    "STRUCT(eigenvalues DOUBLE[], eigenvectors DOUBLE[][])": (
        "struct<eigenvalues: array<double>, eigenvectors: array<array<double>>>"
    ),
    "STRUCT(coordinates DOUBLE[][], held_share DOUBLE)": (
        "struct<coordinates: array<array<double>>, held_share: double>"
    ),
}


def spark_name(name: str) -> str | None:
    """What a session calls a function of ``udfs`` or DuckDB; None if it is not one of these."""
    return f"{PREFIX}{name}" if name in _UDFS or name in OF_DUCKDB else None


def register(session: SparkSession, names: Iterable[str]) -> None:
    """Make functions callable in a session."""
    try:
        from pyspark.sql.pandas.functions import arrow_udf
    except ImportError as error:
        needed = ", ".join(names)
        raise QueryError(f"{needed}: needs Spark 4.1; ask DuckDB: warehouse.open, or no --engine spark") from error
    for name in names:
        kind = _SPARK_TYPES[_UDFS[name].return_type] if name in _UDFS else OF_DUCKDB[name]
        # pyspark reads the annotations, and its own ask for a second name of the kind of function
        session.udf.register(f"{PREFIX}{name}", arrow_udf(_function(name), returnType=kind))  # type: ignore[call-overload]


def _function(name: str) -> Callable[..., pa.Array]:
    def compute(*columns: pa.Array) -> pa.Array:
        return _computed(name, *columns)

    return compute


def _computed(name: str, *columns: pa.Array) -> pa.Array:
    if name in _UDFS:
        return _UDFS[name].function(*(pa.chunked_array([column]) for column in columns))
    arguments = {f"x{position}": column for position, column in enumerate(columns)}
    with duckdb.connect() as con:
        call = f"{name}({', '.join(arguments)})"
        kind = {"string": "varchar"}.get(OF_DUCKDB[name], OF_DUCKDB[name])
        result = con.from_arrow(pa.table(arguments)).project(f"cast({call} as {kind}) as result").to_arrow_table()
    return result["result"].combine_chunks()
