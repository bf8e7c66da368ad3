"""Maps of groups by their drift, against scikit-learn-free classical scaling in NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb
import numpy as np
import pytest
from scipy.spatial.distance import pdist

import warehouse


def rows(wh: warehouse.Warehouse, arguments: str) -> list[tuple]:
    return wh.sql(f"from drift_map({arguments})").fetchall()


def drift_matrix(wh: warehouse.Warehouse, axis: str) -> tuple[list[object], np.ndarray]:
    found = wh.sql(f"select a, b, drift from drift({axis}) order by a, b").fetchall()
    groups = list(dict.fromkeys(a for a, _, _ in found))
    return groups, np.array([drift for *_, drift in found]).reshape(len(groups), -1)


def torgerson(distances: np.ndarray) -> tuple[np.ndarray, float]:
    """Two coordinates a point, and the share of the positive eigenvalues that they hold."""
    centring = np.eye(len(distances)) - 1 / len(distances)
    values, vectors = np.linalg.eigh(-centring @ distances**2 @ centring / 2)
    values, vectors = values[::-1].clip(min=0), vectors[:, ::-1]
    return vectors[:, :2] * np.sqrt(values[:2]), values[:2].sum() / values.sum()


def coordinates(found: Sequence[tuple]) -> np.ndarray:
    return np.array([(x, y) for _, x, y, _ in found])


@pytest.mark.parametrize("axis", ["task", "depth_decile", "model_id", "concat(task, '/', visual_category)"])
@pytest.mark.parametrize("power", [1, 0.5])
def test_the_map_is_the_classical_scaling_of_the_drifts(wh: warehouse.Warehouse, axis: str, power: float) -> None:
    groups, drift = drift_matrix(wh, axis)
    expected, share = torgerson(drift**power)
    found = rows(wh, f"{axis}, power := {power}")
    assert [grp for grp, *_ in found] == groups
    assert [row[3] for row in found] == pytest.approx([share] * len(groups))
    points = coordinates(found)
    # free of the signs of the axes
    np.testing.assert_allclose(np.abs(points), np.abs(expected), atol=1e-7)
    np.testing.assert_allclose(pdist(points), pdist(expected), atol=1e-7)
    strongest = np.abs(points).argmax(axis=0)
    assert (points[strongest, [0, 1]] > 0).all()


def test_three_groups_keep_the_roots_of_their_drifts_as_distances(wh: warehouse.Warehouse) -> None:
    axis = "model_id % 3"
    _, drift = drift_matrix(wh, axis)
    wanted = np.sqrt(drift[np.triu_indices(3, 1)])
    assert 2 * wanted.max() < wanted.sum(), "the three roots make no triangle"
    found = rows(wh, f"{axis}, power := 0.5")
    np.testing.assert_allclose(pdist(coordinates(found)), wanted, atol=1e-9)
    assert found[0][3] == pytest.approx(1)


def test_two_groups_lie_on_a_line_and_one_at_the_origin(wh: warehouse.Warehouse) -> None:
    ((drift,),) = wh.sql("select drift from drift(conv_depth = 0) where a < b").fetchall()
    found = rows(wh, "conv_depth = 0")
    assert [grp for grp, *_ in found] == [False, True]
    np.testing.assert_allclose(np.abs(coordinates(found)), [[drift / 2, 0]] * 2, atol=1e-12)
    assert rows(wh, "'all'") == [("all", 0.0, 0.0, None)]


def test_no_groups_make_an_empty_map(wh: warehouse.Warehouse) -> None:
    assert rows(wh, "null") == rows(wh, "task, keep := false") == []


def test_keep_leaves_layers_out(wh: warehouse.Warehouse) -> None:
    _, drift = drift_matrix(wh, "task, keep := conv_depth > 2")
    expected, _ = torgerson(drift)
    np.testing.assert_allclose(pdist(coordinates(rows(wh, "task, keep := conv_depth > 2"))), pdist(expected), atol=1e-7)


def test_the_map_is_the_same_every_time(wh: warehouse.Warehouse, sample_warehouse: Path) -> None:
    first = rows(wh, "model_id, power := 0.5")
    with warehouse.open(sample_warehouse) as other:
        for threads in (1, 4):
            other.connection.execute(f"set threads = {threads}")
            assert rows(other, "model_id, power := 0.5") == first


@pytest.mark.parametrize("power", ["0", "-1", "null"])
def test_the_power_must_be_above_zero(wh: warehouse.Warehouse, power: str) -> None:
    with pytest.raises((duckdb.Error, warehouse.QueryError), match="drift_map: power is not above 0"):
        rows(wh, f"task, power := {power}")
