"""Drift by resampling layers: on data with a known answer, and beside a bootstrap with draws of its own.

That the draws are those of the documentation is tested with the analyses drift_confidence and drift_sample_size.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pytest

import warehouse
from tests.analysed import warehouse_of
from tests.reference import EMPTY_DENSITY, Reference
from warehouse.errors import QueryError

Refused = (duckdb.Error, QueryError)
COLUMNS = ["a", "b", "drift", "low", "high", "standard_error", "bias", "n_layers_a", "n_layers_b"]


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[warehouse.Warehouse]:
    """Tasks of three and four copies of one layer, and of one other layer beside one that cannot be measured."""
    rng = np.random.default_rng(1)
    same = rng.normal(size=(50, 9))
    layers = [
        *[("a", same)] * 3,
        *[("b", same)] * 4,
        ("c", rng.normal(size=(60, 9)) ** 3),
        ("c", np.full((9, 9), np.nan)),
    ]
    with warehouse_of(tmp_path_factory.mktemp("copies"), layers, allow_nonfinite=True) as opened:
        yield opened


def interval(wh: warehouse.Warehouse, arguments: str) -> list[dict]:
    relation = wh.sql(f"from drift_interval({arguments})")
    assert relation.columns == COLUMNS
    return relation.pl().to_dicts()


def test_copies_of_one_layer_drift_by_nothing_however_they_are_drawn(copies: warehouse.Warehouse) -> None:
    first, *_ = interval(copies, "task, replicates := 20")
    assert (first["a"], first["b"], first["n_layers_a"], first["n_layers_b"]) == ("a", "b", 3, 4)
    for column in ("drift", "low", "high", "standard_error", "bias"):
        assert first[column] == pytest.approx(0, abs=1e-12)


def test_a_single_layer_that_can_be_measured_has_no_interval(copies: warehouse.Warehouse) -> None:
    rows = interval(copies, "task, replicates := 5")
    assert [(row["a"], row["b"], row["n_layers_b"]) for row in rows] == [("a", "b", 4), ("a", "c", 1), ("b", "c", 1)]
    for row in rows[1:]:
        assert row["drift"] > 0.1
        assert [row[column] for column in ("low", "high", "standard_error", "bias")] == [None] * 4


@pytest.mark.parametrize("arguments", ["1", "null", "task, keep := false", "task, keep := task = 'Segmentation'"])
def test_less_than_two_groups_have_no_interval(wh: warehouse.Warehouse, arguments: str) -> None:
    assert interval(wh, arguments) == []


def test_a_seed_draws_the_same_and_another_one_anew(wh: warehouse.Warehouse) -> None:
    one, again, other = (interval(wh, f"conv_depth > 2, replicates := 9, seed := {seed}") for seed in (3, 3, 4))
    for (first,), close in ((again, True), (other, False)):
        for column in ("low", "high", "standard_error"):
            assert (first[column] == pytest.approx(one[0][column], rel=1e-9)) is close, column
        assert first["drift"] == pytest.approx(one[0]["drift"], rel=1e-12)
    assert (one[0]["a"], one[0]["b"]) == (False, True)


def test_an_interval_widens_with_its_level_around_the_same_replicates(wh: warehouse.Warehouse) -> None:
    rows = [interval(wh, f"conv_depth > 2, replicates := 50, level := {level}")[0] for level in (0.5, 0.9, 0.99)]
    lows, highs = ([row[end] for row in rows] for end in ("low", "high"))
    assert lows == sorted(lows, reverse=True)
    assert highs == sorted(highs)
    assert lows[0] < highs[0]
    assert rows[0]["standard_error"] == pytest.approx(rows[2]["standard_error"], rel=1e-9)


def test_another_bootstrap_spreads_alike(wh: warehouse.Warehouse, reference: Reference) -> None:
    rng = np.random.default_rng(17)
    groups = reference.groups(lambda row: row["conv_depth"] > 2)
    histograms = {
        deep: np.array([reference.histogram(layers.iloc[[i]]) for i in range(len(layers))])
        for deep, layers in groups.items()
    }

    def drawn(deep: bool) -> np.ndarray:
        own = histograms[deep]
        counts = own[rng.integers(len(own), size=len(own))].sum(axis=0)
        width = (reference.range[1] - reference.range[0]) / 70
        density = counts / counts.sum(axis=1, keepdims=True) / width
        density[density == 0] = EMPTY_DENSITY
        return density / density.sum(axis=1, keepdims=True)

    drifts = np.array([reference.divergence(drawn(False), drawn(True)) for _ in range(2000)])
    (found,) = interval(wh, "conv_depth > 2, replicates := 400")
    assert found["drift"] == pytest.approx(reference.drift(groups[False], groups[True]), rel=1e-10)
    # a mean of 400 lies within four standard errors, their spread and the ends of the interval within a third of it
    spread = drifts.std(ddof=1)
    assert found["bias"] == pytest.approx(drifts.mean() - found["drift"], abs=4 * spread / 20)
    assert found["standard_error"] == pytest.approx(spread, rel=0.2)
    bias = drifts.mean() - found["drift"]
    for end, percent in (("low", 2.5), ("high", 97.5)):
        expected = max(0, np.percentile(drifts, percent) - bias)
        assert found[end] == pytest.approx(expected, abs=spread / 3), end


@pytest.mark.parametrize("wrong", ["replicates := 1", "replicates := null", "replicates := 10001"])
@pytest.mark.parametrize("macro", ["drift_interval(task, {})", "drift_by_sample_size({})"])
def test_an_impossible_number_of_replicates_is_refused(wh: warehouse.Warehouse, macro: str, wrong: str) -> None:
    if macro.startswith("drift_by") and wrong == "replicates := 1":
        wrong = "replicates := 0"
    with pytest.raises(Refused, match="replicates"):
        wh.sql(f"from {macro.format(wrong)}").fetchall()


@pytest.mark.parametrize("level", ["0", "1", "95", "null"])
def test_an_impossible_level_is_refused(wh: warehouse.Warehouse, level: str) -> None:
    with pytest.raises(Refused, match="level between 0 and 1"):
        wh.sql(f"from drift_interval(task, level := {level})").fetchall()


def test_samples_of_copies_do_not_drift(copies: warehouse.Warehouse) -> None:
    rows = copies.sql("from drift_by_sample_size(keep := task in ('a', 'b'))").fetchall()
    assert [row[:2] for row in rows] == [(1, 50.0), (2, 100.0), (5, 250.0)]
    np.testing.assert_allclose([row[2:] for row in rows], 0, atol=1e-12)


def test_larger_samples_drift_less(wh: warehouse.Warehouse) -> None:
    frame = wh.sql("from drift_by_sample_size()").df()
    assert frame["n_layers"].tolist() == [1, 2, 5, 10, 20, 50]
    assert (np.diff(frame["mean"]) < 0).all()
    assert (np.diff(frame["n_filters"]) > 0).all()
    box = frame[["min", "q1", "median", "q3", "max"]].to_numpy()
    assert (np.diff(box, axis=1) >= 0).all()
    assert ((box[:, 0] <= frame["mean"]) & (frame["mean"] <= box[:, -1])).all()


def test_samples_hold_only_layers_that_can_be_measured(copies: warehouse.Warehouse) -> None:
    rows = copies.sql("from drift_by_sample_size(keep := task in ('a', 'c'))").fetchall()
    assert [row[0] for row in rows] == [1, 2]  # of four layers, the fifth has no statistics


@pytest.mark.parametrize("keep", ["false", "null", "layer_id = 0"])
def test_fewer_than_two_layers_have_no_samples(wh: warehouse.Warehouse, keep: str) -> None:
    assert wh.sql(f"from drift_by_sample_size(keep := {keep})").fetchall() == []


def test_a_sample_of_every_layer_once_is_the_group_itself(wh: warehouse.Warehouse, reference: Reference) -> None:
    # the second sample has each layer as often as its rank, and one layer not at all
    query = """
        with halves as (select layer_id % 2 as grp, layer_id from layers),
        draws as (
            select grp, grp as sample, list(1 order by layer_id) as times from halves group by grp
            union all
            select 1, 9, list(position order by layer_id)
            from (select *, row_number() over (order by layer_id) - 1 as position from halves where grp = 1)
        )
        from distributions_resampled('halves', 'draws')
    """
    frame = wh.sql(query).df()
    layers = reference.layers
    odd = layers.iloc[1::2]
    weighted = odd.iloc[np.repeat(np.arange(len(odd)), np.arange(len(odd)))]
    for sample, own in ((0, layers.iloc[::2]), (1, odd), (9, weighted)):
        rows = frame[frame["grp"] == sample].sort_values(["component", "bin"])
        np.testing.assert_allclose(
            rows["probability"].to_numpy().reshape(9, 70), reference.probability(own), rtol=1e-11
        )
        assert rows["n"].sum() == 9 * own["n_filters"].sum()
    assert sorted(frame["grp"].unique()) == [0, 1, 9]


def test_the_drawn_layers_do_not_depend_on_the_path_or_the_order_of_the_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    layers = [("ab"[i % 2], rng.normal(size=(30, 9)) ** (1 + 2 * (i % 3))) for i in range(8)]
    shuffled = [(task, rng.permutation(filters)) for task, filters in layers]
    found = []
    for name, own in ("one", layers), ("other", shuffled):
        (tmp_path / name).mkdir()
        with warehouse_of(tmp_path / name, own) as wh:
            found.append(
                wh.sql("from drift_interval(task, replicates := 10) select columns(* exclude (a, b))").fetchall()
            )
    np.testing.assert_allclose(*found, rtol=1e-6, atol=1e-9)
