"""The two-dimensional histogram of coefficients of single filters, beside NumPy's and the histograms of layers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

import warehouse
from tests.reference import Reference, write_dataset
from warehouse.errors import QueryError

Refused = (duckdb.Error, QueryError)


def cells(reference: Reference, components: tuple[int, int], bins: int, rows: np.ndarray | slice) -> np.ndarray:
    """``(bins, bins)`` counts as histograms define them, with their nudge, what lies outside at the edges."""
    low, high = reference.range
    values = reference.coefficients[rows][:, components]
    places = np.floor(bins * (values - low) / (high - low) + 1e-9).clip(0, bins - 1).astype(int)
    counts = np.zeros((bins, bins), int)
    np.add.at(counts, tuple(places.T), 1)
    return counts


def table(rows: pd.DataFrame, bins: int) -> np.ndarray:
    counts = np.zeros((bins, bins), int)
    counts[rows["x_bin"], rows["y_bin"]] = rows["n"]
    return counts


@pytest.mark.parametrize(("x", "y", "bins"), [(0, 1, 16), (3, 2, 70), (8, 8, 5), (0, 8, 512), (4, 5, 1)])
def test_filters_are_counted_where_their_coefficients_lie(
    wh: warehouse.Warehouse, reference: Reference, x: int, y: int, bins: int
) -> None:
    frame = wh.sql(f"from density({x}, {y}, bins := {bins})").df()
    np.testing.assert_array_equal(table(frame, bins), cells(reference, (x, y), bins, slice(None)))
    assert len(frame) == np.count_nonzero(table(frame, bins))
    assert set(frame["x"]) == {x}
    assert set(frame["y"]) == {y}
    low, high = reference.range
    edges = np.linspace(low, high, bins + 1)
    for axis in ("x", "y"):
        np.testing.assert_allclose(frame[f"{axis}_lo"], edges[frame[f"{axis}_bin"]], atol=1e-12)
        np.testing.assert_allclose(frame[f"{axis}_hi"], edges[frame[f"{axis}_bin"] + 1], atol=1e-12)


def test_there_are_512_bins_by_default(wh: warehouse.Warehouse, reference: Reference) -> None:
    frame = wh.sql("from density(1, 0)").df()
    np.testing.assert_array_equal(table(frame, 512), cells(reference, (1, 0), 512, slice(None)))


def test_sums_along_an_axis_are_the_histograms_of_the_layers(wh: warehouse.Warehouse) -> None:
    frame = wh.sql("from density(0, 1, bins := 70)").df()
    histograms = wh.sql("select component, bin, sum(n) as n from layer_histograms group by all").df()
    for component, axis in enumerate("xy"):
        along = frame.groupby(f"{axis}_bin")["n"].sum()
        stored = histograms[histograms["component"] == component].set_index("bin")["n"].sort_index()
        assert along.to_dict() == stored.to_dict()


def test_swapped_components_swap_the_cells(wh: warehouse.Warehouse) -> None:
    one, other = (table(wh.sql(f"from density({pair}, bins := 40)").df(), 40) for pair in ("2, 6", "6, 2"))
    np.testing.assert_array_equal(one, other.T)


KEEPS: dict[str, Callable[[pd.Series], bool]] = {
    "task = 'Classification'": lambda row: row["task"] == "Classification",
    "model_id = 3 and conv_depth > 0": lambda row: row["model_id"] == 3 and row["conv_depth"] > 0,
}


@pytest.mark.parametrize("keep", KEEPS)
def test_keep_chooses_filters_by_their_layer(wh: warehouse.Warehouse, reference: Reference, keep: str) -> None:
    layers = pd.DataFrame([row for _, row in reference.layers.iterrows() if KEEPS[keep](row)])
    frame = wh.sql(f"from density(0, 1, keep := {keep}, bins := 20)").df()
    np.testing.assert_array_equal(table(frame, 20), cells(reference, (0, 1), 20, reference.rows(layers)))


def test_keep_chooses_filters_by_their_weights(wh: warehouse.Warehouse, reference: Reference) -> None:
    frame = wh.sql("from density(0, 1, keep := w4 > abs(w0), bins := 20)").df()
    chosen = np.flatnonzero(reference.filters[:, 4] > np.abs(reference.filters[:, 0]))
    np.testing.assert_array_equal(table(frame, 20), cells(reference, (0, 1), 20, chosen))


@pytest.mark.parametrize("keep", ["false", "null", "model_id = -1"])
def test_no_filters_fill_no_cells(wh: warehouse.Warehouse, keep: str) -> None:
    assert wh.sql(f"from density(0, 1, keep := {keep}, bins := 4)").fetchall() == []


@pytest.mark.parametrize("pair", ["0, 9", "-1, 0", "0.5, 1", "0, null", "null, 0"])
def test_what_is_no_component_is_refused(wh: warehouse.Warehouse, pair: str) -> None:
    with pytest.raises(Refused, match="a component is a whole number from 0 to 8"):
        wh.sql(f"from density({pair}, bins := 4)").fetchall()


@pytest.mark.parametrize("bins", ["0", "-3", "2.5", "4097", "null"])
def test_an_impossible_number_of_bins_is_refused(wh: warehouse.Warehouse, bins: str) -> None:
    with pytest.raises(Refused, match="bins must be a whole number between 1 and 4096"):
        wh.sql(f"from density(0, 1, bins := {bins})").fetchall()


@pytest.mark.parametrize("kind", ["spoilt", "zero"])
def test_odd_filters_are_counted_once_or_not_at_all(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(3)
    layers = [(None, np.zeros((6, 9))), ("a", np.zeros((4, 9)))]
    finite = 15
    if kind == "spoilt":
        layers[1][1][[0, 2], 3] = np.nan, np.inf
        layers.append(("b", rng.normal(size=(30, 9))))
        finite += 28
    write_dataset(tmp_path / "d.h5", layers, unclaimed=np.zeros((5, 9)))
    warehouse.ingest(tmp_path / "d.h5", tmp_path / "w", allow_nonfinite=True)
    with warehouse.open(tmp_path / "w") as wh:
        frame = wh.sql("from density(0, 1, bins := 64)").df()
        unclaimed = wh.sql("select sum(n) from density(0, 1, keep := layer_id is null)").fetchall()
        (zeros,) = wh.sql("select count(*), sum(n) from density(0, 1, keep := model_id = 0)").fetchall()
    assert frame["n"].sum() == finite
    assert unclaimed == [(5,)]
    assert zeros == (1, 6)
