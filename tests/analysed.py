"""Analyses beside what they should give: an open warehouse, its reference, and the labels of its layers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest

import warehouse
from tests.reference import Groups, Reference, write_dataset


@dataclass(frozen=True)
class Analysed:
    """A dataset of which everything is known.

    Labels come from the warehouse, for other tests check them; every statistic comes from the reference.
    """

    wh: warehouse.Warehouse
    reference: Reference

    @cached_property
    def layers(self) -> pd.DataFrame:
        """``layer_meta`` in filter order, with the reference's bounds and quality of each layer."""
        labels = (
            self.wh.sql("from layer_meta order by first_filter_id").df().drop(columns=["n_filters", "out_channels"])
        )
        bounds = self.reference.layers[["first", "stop"]]
        assert labels["first_filter_id"].tolist() == bounds["first"].tolist()
        return pd.concat([labels, bounds, self.reference.qualities], axis=1)

    def groups(self, column: str, layers: pd.DataFrame | None = None) -> Groups:
        """Layers, all unless told, by a column; none of them where it is NULL."""
        return dict(iter((self.layers if layers is None else layers).groupby(column)))

    def drifts(self, groups: Groups) -> pd.DataFrame:
        """Columns a, b and drift of every ordered pair of groups, in their order."""
        found = self.reference.drifts(groups)
        return pd.DataFrame(
            [(a, b, drift) for (a, b), drift in found.items()], columns=["a", "b", "drift"]
        ).sort_values(["a", "b"], ignore_index=True)

    def settings(self, columns: str, layer: pd.Series) -> dict[str, Any]:
        """The values that a layer has in some columns, as settings; model stands for its number."""
        values = {name: layer["model_id" if name == "model" else name] for name in columns.split()}
        return {name: value if isinstance(value, str) else int(value) for name, value in values.items()}

    def chosen(self, settings: dict[str, Any]) -> pd.DataFrame:
        """The layers that have the values of ``settings``."""
        layers = self.layers
        for name, value in settings.items():
            layers = layers[layers["model_id" if name == "model" else name] == value]
        assert len(layers)
        return layers


DATASETS = {
    "sample": ("wh", "reference"),
    "lens_sample": ("lens_wh", "lens_reference"),
    "zoo": ("zoo_wh", "zoo_reference"),
}
"""Two synthetic datasets and one of real models: the fixtures of open warehouse and reference."""

ROBUSTNESS_DATASETS = {
    "lens_sample": ("lens_wh", "lens_reference"),
    "lens_data": ("lens_data_wh", "lens_data_reference"),
}
"""One synthetic dataset and one of real models that tell robust models from normal ones."""


def analysed(request: pytest.FixtureRequest) -> Analysed:
    """The dataset that a fixture asks for."""
    return _analysed(*map(request.getfixturevalue, {**DATASETS, **ROBUSTNESS_DATASETS}[request.param]))


_analysed = cache(Analysed)
"""One of each dataset, for its tables take long to make."""


WEIGHTS = {
    "sparsity": "n_filters",
    "variance_entropy": "n_filters",
    "variance_entropy_norm": "n_filters",
    "variance_entropy_clean": "n_filters",
    "variance_entropy_clean_norm": "n_filters",
    "scaled_clean_entropy": "n_clean",
    "orthogonality": "out_channels",
}
"""Metrics of layers that groups average, and what weights a layer."""


def quality_of(layers: pd.DataFrame) -> pd.Series:
    """The metrics of ``WEIGHTS`` of layers together; None where no layer has it."""
    found = {}
    for metric, weight in WEIGHTS.items():
        known = layers[[metric, weight]].dropna()
        values, weights = known[metric].to_numpy(float), known[weight].to_numpy(float)
        found[metric] = np.average(values, weights=weights) if weights.sum() else None
    return pd.Series(found, dtype=object)


@contextmanager
def warehouse_of(
    folder: Path, layers: Sequence[tuple[str | None, np.ndarray]], **options: Any
) -> Iterator[warehouse.Warehouse]:
    """Open a warehouse of layers ``(task, (n, 9) weights)`` of which nothing else is known."""
    write_dataset(folder / "dataset.h5", layers, unclaimed=np.zeros((0, 9)))
    warehouse.ingest(folder / "dataset.h5", folder / "cnn.warehouse", **options)
    with warehouse.open(folder / "cnn.warehouse") as wh:
        yield wh


@contextmanager
def temporary_table(wh: warehouse.Warehouse, query: str) -> Iterator[str]:
    """The name of a table of what a query gives, in an open warehouse that others use too."""
    wh.connection.execute(f"create temp table of_this_test as {query}")
    try:
        yield "of_this_test"
    finally:
        wh.connection.execute("drop table of_this_test")


Change = tuple[str, list[Any]]
"""An SQL statement and its values."""


@contextmanager
def changed(source: Path, folder: Path, *changes: Change) -> Iterator[duckdb.DuckDBPyConnection]:
    """A copy of a warehouse's database, open and changed as if it held other data."""
    shutil.copy(source / "warehouse.duckdb", folder / "changed.duckdb")
    with duckdb.connect(folder / "changed.duckdb") as con:
        for statement, values in changes:
            con.execute(statement, values)
        yield con


def assert_table(
    found: duckdb.DuckDBPyRelation, expected: pd.DataFrame, rtol: float = 1e-10, atol: float = 1e-12
) -> None:
    """The same columns and rows in the same order; NULL, None and NaN are one."""
    frame = found.df()
    assert list(frame.columns) == list(expected.columns)
    assert len(frame) == len(expected)
    for name in frame.columns:
        one, other = (_plain(table[name]) for table in (frame, expected))
        if all(value is None or isinstance(value, int | float | np.number) for value in [*one, *other]):
            np.testing.assert_allclose(
                np.array(one, float), np.array(other, float), rtol=rtol, atol=atol, err_msg=str(name)
            )
        else:
            assert one == other, name


def _plain(column: pd.Series) -> list[Any]:
    return [None if pd.isna(value) else value for value in column]
