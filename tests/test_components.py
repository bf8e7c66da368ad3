"""Means, covariances and correlations of groups of layers, and components of any set of filters, beside NumPy's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

import warehouse
from tests.analysed import warehouse_of
from tests.reference import Reference, assert_components, by_group, write_dataset
from warehouse.errors import QueryError

Refused = (duckdb.Error, QueryError)
KINDS = ["scaled", "clean", "raw", "clean_raw"]


def chosen(reference: Reference, layers: pd.DataFrame, kind: str) -> np.ndarray:
    """The filters of some layers that a kind means, as it means them."""
    rows = reference.rows(layers)
    values = (reference.filters if "raw" in kind else reference.scaled)[rows]
    return values[reference.clean[rows]] if "clean" in kind else values


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep", ["true", "conv_depth > 1"])
def test_means_and_covariances_are_numpys(wh: warehouse.Warehouse, reference: Reference, kind: str, keep: str) -> None:
    groups = reference.groups(lambda row: row["task"], keep=lambda row: keep == "true" or row["conv_depth"] > 1)
    rows = wh.sql(f"from covariances(task, keep := {keep}, filters := '{kind}')").fetchall()
    assert [row[0] for row in rows] == sorted(groups)
    for task, n, mean, covariance in rows:
        filters = chosen(reference, groups[task], kind)
        assert n == len(filters)
        np.testing.assert_allclose(mean, filters.mean(axis=0), rtol=1e-10, atol=1e-13)
        expected = np.cov(filters, rowvar=False)
        np.testing.assert_allclose(np.reshape(covariance, (9, 9)), expected, rtol=1e-9, atol=1e-12)


def test_a_layer_that_is_listed_twice_counts_twice(wh: warehouse.Warehouse, reference: Reference) -> None:
    query = """
        with listed as (select 'x' as grp, layer_id from layers where layer_id in (3, 4)
            union all select 'x', 4 union all select 'y', 4)
        from covariances_of('listed')
    """
    rows = {grp: (n, np.reshape(covariance, (9, 9))) for grp, n, _, covariance in wh.sql(query).fetchall()}
    for group, listed in ("x", [3, 4, 4]), ("y", [4]):
        filters = chosen(reference, reference.layers.iloc[listed], "scaled")
        assert rows[group][0] == len(filters)
        np.testing.assert_allclose(rows[group][1], np.cov(filters, rowvar=False), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["'all'", "''", "null", "'Clean'"])
@pytest.mark.parametrize("macro", ["covariances", "pca"])
def test_an_unknown_kind_of_filters_is_refused(wh: warehouse.Warehouse, macro: str, kind: str) -> None:
    with pytest.raises(Refused, match=r"filters is '\w*'; expected scaled, clean, raw or clean_raw"):
        wh.sql(f"from {macro}(task, filters := {kind})").fetchall()


@pytest.fixture(scope="module")
def constants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[warehouse.Warehouse]:
    """Layers of equal filters, of many sizes, two of them in each task."""
    rng = np.random.default_rng(5)
    layers: list[tuple[str | None, np.ndarray]] = []
    for task in range(20):
        filters = np.tile(rng.normal(size=9), (60, 1))
        layers += [(f"constant {task:02}", filters[: 3 + task]), (f"constant {task:02}", filters[: 7 + 2 * task])]
    with warehouse_of(tmp_path_factory.mktemp("constants"), layers) as opened:
        yield opened


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axis", ["task", "layer_id"])
def test_equal_filters_do_not_vary_by_rounding(constants: warehouse.Warehouse, kind: str, axis: str) -> None:
    call = f"{axis}, filters := '{kind}'"
    found = constants.sql(f"select grp, max(eigenvalue), max(explained_variance_ratio) from pca({call}) group by grp")
    assert {tuple(row[1:]) for row in found.fetchall()} == {(0.0, 0.0)}
    assert len(found) == (20 if axis == "task" else 40)


def test_what_does_not_vary_has_no_correlation(constants: warehouse.Warehouse, tmp_path: Path) -> None:
    rows = constants.sql("from component_covariance(layer_id)").fetchall()
    assert {row[-1] for row in rows} == {None}
    hollow = np.random.default_rng(0).normal(size=(2, 200, 9)) * (np.arange(9) != 4)  # the last component is the centre
    with warehouse_of(tmp_path, [("a", hollow[0]), ("b", hollow[1])]) as wh:
        rows = wh.sql("from component_covariance(task)").fetchall()
    assert len(rows) == 2 * 81
    for _, i, j, _, correlation in rows:
        assert (correlation is None) == (8 in (i, j))
        assert correlation is None or abs(correlation) <= 1 + 1e-9


@pytest.mark.parametrize("keep", ["true", "conv_depth > 1"])
def test_coefficients_of_a_group_correlate_as_numpy_finds(
    wh: warehouse.Warehouse, reference: Reference, keep: str
) -> None:
    groups = reference.groups(lambda row: row["task"], keep=lambda row: keep == "true" or row["conv_depth"] > 1)
    rows = by_group(wh.sql(f"from component_covariance(task, keep := {keep})").fetchall())
    assert rows.keys() == groups.keys()
    for task, found in rows.items():
        coefficients = reference.coefficients[reference.rows(groups[task])]
        i, j, covariance, correlation = (np.array(column, float).reshape(9, 9) for column in zip(*found, strict=True))
        np.testing.assert_array_equal(i, np.indices((9, 9))[0])
        np.testing.assert_array_equal(j, np.indices((9, 9))[1])
        np.testing.assert_allclose(covariance, np.cov(coefficients, rowvar=False), rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(correlation, np.corrcoef(coefficients, rowvar=False), rtol=1e-7, atol=1e-9)


def test_all_filters_together_have_uncorrelated_coefficients(wh: warehouse.Warehouse, reference: Reference) -> None:
    rows = wh.sql("from component_covariance('all')").fetchall()
    covariance, correlation = (np.reshape([row[k] for row in rows], (9, 9)) for k in (3, 4))
    np.testing.assert_allclose(covariance, np.diag(reference.pca.explained_variance_), atol=1e-12)
    np.testing.assert_allclose(correlation, np.eye(9), atol=1e-9)


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[warehouse.Warehouse, np.ndarray]]:
    """All-zero filters among others, some with NaN, and some that no layer claims."""
    rng = np.random.default_rng(8)
    first = rng.normal(size=(50, 9))
    first[::10] = 0
    spoilt = rng.normal(size=(20, 9))
    spoilt[5, 2], spoilt[6, 8] = np.nan, -np.inf
    unclaimed = rng.normal(size=(15, 9)) * np.linspace(0.1, 3, 9)
    folder = tmp_path_factory.mktemp("odd")
    write_dataset(folder / "dataset.h5", [("a", first), ("b", spoilt)], unclaimed)
    warehouse.ingest(folder / "dataset.h5", folder / "w", allow_nonfinite=True)
    with warehouse.open(folder / "w") as opened:
        yield opened, np.concatenate([first, spoilt, unclaimed]).astype(np.float32).astype(float)


@pytest.mark.parametrize(
    ("call", "groups"),
    [
        ("coalesce(task, 'nobody')", {"a": range(50), "b": [*range(50, 55), *range(57, 70)], "nobody": range(70, 85)}),
        ("task", {"a": range(50), "b": [*range(50, 55), *range(57, 70)]}),
        ("filter_id % 2 = 0, keep := task is null", {True: range(70, 85, 2), False: range(71, 85, 2)}),
        ("1, keep := filter_id % 10 = 0 and filter_id < 50", {1: range(0, 50, 10)}),
        ("case when filter_id = 80 then 'one' end", {"one": [80]}),
    ],
)
def test_components_of_any_set_of_filters_are_numpys(
    odd: tuple[warehouse.Warehouse, np.ndarray], call: str, groups: dict
) -> None:
    wh, filters = odd
    peaks = np.abs(filters).max(axis=1, keepdims=True)
    scaled = np.divide(filters, peaks, out=np.zeros_like(filters), where=(peaks > 0) & np.isfinite(peaks))
    found = by_group(wh.sql(f"from filter_pca({call})").fetchall())
    assert found.keys() == groups.keys()
    for group, numbers in groups.items():
        own = scaled[list(numbers)]
        assert_components(found[group], np.cov(own, rowvar=False) if len(own) > 1 else np.zeros((9, 9)))


def test_no_filters_have_no_components(odd: tuple[warehouse.Warehouse, np.ndarray]) -> None:
    wh, _ = odd
    for call in ("1, keep := false", "1, keep := null", "null", "1, keep := filter_id in (55, 56)"):
        assert wh.sql(f"from filter_pca({call})").fetchall() == []


def test_moments_need_no_filters(sample_warehouse: Path, tmp_path: Path) -> None:
    # away from the folder of the raw filters, which filter_pca alone reads
    with duckdb.connect(str(sample_warehouse / "warehouse.duckdb"), read_only=True) as con:
        con.execute("set file_search_path = ?", [str(tmp_path)])
        assert len(con.sql("from component_covariance(task)").fetchall()) % 81 == 0
        with pytest.raises(duckdb.Error, match="lake/filters"):
            con.sql("from filter_pca(task)").fetchall()
