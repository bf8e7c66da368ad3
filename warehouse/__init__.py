"""SQL analytics for trained convolution filters.

>>> import warehouse
>>> warehouse.ingest("dataset.h5", "cnn.warehouse")            # doctest: +SKIP
>>> with warehouse.open("cnn.warehouse") as wh:                # doctest: +SKIP
...     wh.sql("from drift(task)").pl()
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

from warehouse.errors import CatalogError, EngineError, LakeError, QueryError, SourceError, WarehouseError
from warehouse.extraction import ExtractedModel, extract
from warehouse.ingest import Summary, ingest
from warehouse.restricted import Limits, RestrictedWarehouse
from warehouse.sample import write_sample
from warehouse.session import Warehouse
from warehouse.verify import Verification, verify
from warehouse.version import __version__

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from warehouse.on_spark.session import SparkWarehouse

__all__ = [
    "CatalogError",
    "EngineError",
    "ExtractedModel",
    "LakeError",
    "Limits",
    "QueryError",
    "RestrictedWarehouse",
    "SourceError",
    "Summary",
    "Verification",
    "Warehouse",
    "WarehouseError",
    "__version__",
    "extract",
    "ingest",
    "open",
    "spark",
    "verify",
    "write_sample",
]


@overload
def open(path: str | Path) -> Warehouse: ...
@overload
def open(path: str | Path, *, restricted: Literal[False]) -> Warehouse: ...
@overload
def open(path: str | Path, *, restricted: Literal[True], limits: Limits | None = None) -> RestrictedWarehouse: ...
def open(
    path: str | Path, *, restricted: bool = False, limits: Limits | None = None
) -> Warehouse | RestrictedWarehouse:
    """Open a warehouse for reading, with the UDFs registered; a context manager.

    Parameters
    ----------
    path
        The warehouse's folder.
    restricted
        For queries that a stranger wrote: see `RestrictedWarehouse` for what they can do, and what it does not protect
        from.
    limits
        What each query may take, if restricted.

    Raises
    ------
    LakeError
        No warehouse is there, or it cannot be opened.
    """
    return RestrictedWarehouse(path, limits) if restricted else Warehouse(path)


def spark(path: str | Path, session: SparkSession) -> SparkWarehouse:
    """Open a warehouse for reading in a Spark session: the same SQL, over the committed files.

    Parameters
    ----------
    path
        The warehouse's folder, which all workers see under the same path.
    session
        A session of pyspark 4.1 or newer; it gets temporary views with names of their own.

    Raises
    ------
    LakeError
        No warehouse is there, or it cannot be opened.
    """
    # pyspark is an extra
    from warehouse.on_spark.session import SparkWarehouse

    return SparkWarehouse(path, session)
