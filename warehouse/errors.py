"""The errors that users see: one base, a few kinds, each a single clear line.

A message says what was found, where (file, dataset, row) and what to do about it. The command line prints
it without a traceback and exits with status 1.
"""

import errno
import re


class WarehouseError(Exception):
    """Anything that a user can put right; the base of the kinds below."""


class SourceError(WarehouseError):
    """A dataset file that cannot be read as one."""


class LakeError(WarehouseError):
    """A folder that cannot be written, locked or read as a warehouse."""


class CatalogError(WarehouseError):
    """A ``warehouse.duckdb`` that cannot be built or opened, or an SQL file that cannot be loaded."""


class EngineError(WarehouseError):
    """An engine that cannot be started or reached, or whose workers cannot do what is asked of them."""


class QueryError(WarehouseError):
    """A query that DuckDB rejects, or a name that the warehouse does not have."""


def duckdb_message(error: Exception) -> str:
    """What DuckDB says of an error, without the stacks that it appends: Python's of a UDF, its own of its errors."""
    return re.split(r"\n\nAt:|\nTraceback|\n\nStack Trace", str(error), maxsplit=1)[0].rstrip()


def system_error_number(error: BaseException | None) -> int:
    """The number that the system gave the first error of a chain of causes that has one, if only for memory; else 0.

    HDF5 makes an OSError of damage as well, but without a number.
    """
    while error:
        if isinstance(error, MemoryError):
            return errno.ENOMEM
        if isinstance(error, OSError) and error.errno:
            return error.errno
        error = error.__cause__
    return 0
