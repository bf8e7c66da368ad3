"""SQL analytics for trained convolution filters.

>>> import warehouse
>>> warehouse.ingest("dataset.h5", "cnn.warehouse")            # doctest: +SKIP
>>> with warehouse.open("cnn.warehouse") as wh:                # doctest: +SKIP
...     wh.sql("from drift(task)").pl()
"""

from __future__ import annotations

from pathlib import Path

from warehouse.errors import CatalogError, LakeError, QueryError, SourceError, WarehouseError
from warehouse.extraction import ExtractedModel, extract
from warehouse.ingest import Summary, ingest
from warehouse.sample import write_sample
from warehouse.session import Warehouse
from warehouse.verify import Verification, verify
from warehouse.version import __version__

__all__ = [
    "CatalogError",
    "ExtractedModel",
    "LakeError",
    "QueryError",
    "SourceError",
    "Summary",
    "Verification",
    "Warehouse",
    "WarehouseError",
    "__version__",
    "extract",
    "ingest",
    "open",
    "verify",
    "write_sample",
]


def open(path: str | Path) -> Warehouse:
    """Open a warehouse for reading, with the UDFs registered; a context manager.

    Parameters
    ----------
    path
        The warehouse's folder.

    Raises
    ------
    LakeError
        No warehouse is there, or it cannot be opened.
    """
    return Warehouse(path)
