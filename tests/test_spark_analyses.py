"""Every analysis that is marked portable gives on Spark what it gives in DuckDB, and no mark lies."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import warehouse
from tests.spark_sessions import SparkSession, difference, session
from warehouse import analyses
from warehouse.analyses import Analysis
from warehouse.errors import QueryError

__all__ = ["session"]

SETTINGS: dict[str, dict[str, Any]] = {
    "coefficient_density": {"bins": 16, "model": "3"},
    "degenerate_layers_by_model": {"min_sparsity": 0.3},
    "distributions_by_group": {"component": 2},
    "drift_confidence": {"replicates": 3},
    "drift_sample_size": {"replicates": 2},
    "model_drift_matrix": {"pattern": "1"},
    "robust_accuracy_correlation_by_architecture": {"min_models": 1},
    "robust_drift": {"pairs": "model_pairs"},
}
ROBUST = "robust_"
"""The beginning of the names of analyses of the robustness data set."""
EMPTY = {"duplicate_filters"}
"""Those of which synthetic filters give no rows."""
BY_COMPONENTS = {"component_correlation", "eigenimages", "explained_variance", "robust_pca_clean"}
"""Eigenvectors by two methods agree to the rounding of their largest entries."""


def marked(portable: bool) -> list[Any]:
    found = [item for item in analyses.load() if item.header["portable"].startswith("yes") == portable]
    return [pytest.param(item, id=item.name, marks=pytest.mark.slow) for item in found]


@pytest.mark.parametrize("analysis", marked(portable=True))
def test_portable_analyses_agree(
    session: SparkSession, sample_warehouse: Path, lens_warehouse: Path, analysis: Analysis
) -> None:
    path = lens_warehouse if analysis.name.startswith(ROBUST) else sample_warehouse
    settings = SETTINGS.get(analysis.name, {})
    with warehouse.open(path) as duck:
        expected = duck.analysis(analysis.name, **settings)
        frame = warehouse.spark(path, session).analysis(analysis.name, **settings)
        assert frame.columns == expected.columns
        found = [tuple(row.values()) for row in frame.toArrow().to_pylist()]
        rows = expected.fetchall()
        told = difference(found, rows, absolute=1e-12 if analysis.name in BY_COMPONENTS else 1e-14)
    assert rows or analysis.name in EMPTY
    assert told is None, told


@pytest.mark.parametrize("analysis", marked(portable=False))
def test_others_are_refused_by_the_construct_in_their_mark(
    session: SparkSession, sample_warehouse: Path, analysis: Analysis
) -> None:
    construct = analysis.header["portable"].split(": ")[1]
    with pytest.raises(QueryError, match=re.escape(construct)):
        warehouse.spark(sample_warehouse, session).analysis(analysis.name)


def test_marks_are_in_the_table_of_analyses(sample_warehouse: Path) -> None:
    with warehouse.open(sample_warehouse) as duck:
        stored = dict(duck.sql("select name, portable from analyses").fetchall())
    assert stored == {item.name: item.header["portable"] for item in analyses.load()}


def test_a_mark_is_yes_or_no_with_a_reason() -> None:
    assert all(re.match(r"yes$|no: [^:]+: .", item.header["portable"]) for item in analyses.load())
