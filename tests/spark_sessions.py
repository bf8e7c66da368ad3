"""A Spark session for the tests of a module, and how results of both engines are compared."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("pyspark", reason="pyspark is not installed")
if shutil.which("java") is None:
    pytest.skip("Java is not installed", allow_module_level=True)

from pyspark.sql import SparkSession

from warehouse.on_spark.engine import started

CONF = {
    "spark.driver.memory": "1g",
    "spark.sql.shuffle.partitions": "2",
    # tables of some rows: compiling a query takes longer than running it
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.codegen.wholeStage": "false",
}


@pytest.fixture(scope="module")
def session() -> Iterator[SparkSession]:
    with started("local[2]", CONF) as session:
        yield session


def difference(found: Any, expected: Any, absolute: float = 1e-14) -> str | None:
    """Where two results differ by more than 1e-12 of the value, if anywhere."""
    if isinstance(expected, (list, tuple)) and isinstance(found, (list, tuple)):
        if len(found) != len(expected):
            return f"{len(found)} and {len(expected)} items"
        differences = (difference(one, other, absolute) for one, other in zip(found, expected, strict=True))
        return next((told for told in differences if told), None)
    if isinstance(expected, dict) and isinstance(found, dict):
        return difference([*found.items()], [*expected.items()], absolute)
    if isinstance(expected, float) and isinstance(found, float):
        same = math.isclose(found, expected, rel_tol=1e-12, abs_tol=absolute) or (
            found != found and expected != expected
        )
    else:
        same = type(found) is type(expected) and found == expected
    return None if same else f"{found!r} and {expected!r}"
