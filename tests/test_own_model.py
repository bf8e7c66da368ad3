"""A model among the others: percentiles of its layers, drift to groups and nearest layers, against SciPy and NumPy."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from scipy.stats import percentileofscore

import warehouse
from tests.analysed import changed
from tests.reference import Reference

METRICS = ("sparsity", "variance_entropy", "variance_entropy_norm", "orthogonality")


@pytest.mark.parametrize("model", [0, 5, 11])
def test_percentiles_are_scipys_among_other_models_at_the_same_depth(
    lens_wh: warehouse.Warehouse, lens_reference: Reference, model: int
) -> None:
    layers = lens_reference.layers[["model_id", "depth_decile"]].join(lens_reference.qualities)
    own = layers[layers["model_id"] == model]
    rows = lens_wh.sql(f"from layer_percentiles({model})").pl().to_dicts()
    assert [row["layer_id"] for row in rows] == list(own.index)
    for row, (_, layer) in zip(rows, own.iterrows(), strict=True):
        others = layers[layers["model_id"] != model]
        if not pd.isna(layer["depth_decile"]):
            others = others[others["depth_decile"] == layer["depth_decile"]]
        assert row["n_peers"] == len(others)
        for metric in METRICS:
            peers = others[metric].dropna().astype(float).round(12)
            if pd.isna(layer[metric]) or peers.empty:
                assert row[f"{metric}_percentile"] is None
            else:
                expected = percentileofscore(peers, round(layer[metric], 12), kind="mean")
                assert row[f"{metric}_percentile"] == pytest.approx(expected)
                assert row[metric] == pytest.approx(layer[metric], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("metric", METRICS[1:])
def test_rounding_errors_are_no_percentiles(lens_warehouse: Path, tmp_path: Path, metric: str) -> None:
    with changed(lens_warehouse, tmp_path, (f"update layer_quality set {metric} = 0.5 + 2e-16 * layer_id", [])) as con:
        assert con.sql(f"select distinct {metric}_percentile from layer_percentiles(0)").fetchall() == [(50,)]


def test_a_percentile_counts_ties_half(wh: warehouse.Warehouse) -> None:
    query = (
        "select percentile_of(2, [1, 2, 2, 3]), percentile_of(0, [1]), percentile_of(9, [1]), percentile_of(null, [1])"
    )
    assert wh.sql(query).fetchall() == [(50.0, 0.0, 100.0, None)]
    assert wh.sql("select percentile_of(1, [])").fetchall() == [(None,)]


def test_drift_to_groups_leaves_the_model_out_of_them(wh: warehouse.Warehouse, reference: Reference) -> None:
    layers = reference.layers
    own, others = layers[layers["model_id"] == 2], layers[layers["model_id"] != 2]
    rows = wh.sql("from drift_to_groups(2, task)").fetchall()
    assert {grp for grp, *_ in rows} == set(others["task"].dropna())
    assert [row[3] for row in rows] == sorted(row[3] for row in rows)
    for grp, n_models, n_layers, drift in rows:
        group = others[others["task"] == grp]
        assert (n_models, n_layers) == (group["model_id"].nunique(), len(group))
        assert drift == pytest.approx(reference.drift(own, group), rel=1e-9)


def test_keep_chooses_the_layers_of_both_sides(wh: warehouse.Warehouse, reference: Reference) -> None:
    layers = reference.layers[reference.layers["conv_depth"] > 0]
    own, others = layers[layers["model_id"] == 2], layers[layers["model_id"] != 2]
    rows = {
        grp: drift for grp, *_, drift in wh.sql("from drift_to_groups(2, 'all', keep := conv_depth > 0)").fetchall()
    }
    assert rows == {"all": pytest.approx(reference.drift(own, others), rel=1e-9)}
    assert wh.sql("from drift_to_groups(2, task, keep := false)").fetchall() == []


def test_each_layer_has_its_nearest_in_another_model(wh: warehouse.Warehouse, reference: Reference) -> None:
    layers = reference.layers
    own, others = layers[layers["model_id"] == 4], layers[layers["model_id"] != 4]
    rows = wh.sql("from nearest_layers_of(4)").pl().to_dicts()
    assert sorted(row["layer_id"] for row in rows) == list(own.index)
    assert [row["drift"] for row in rows] == sorted(row["drift"] for row in rows)
    for row in rows[:3]:
        drifts = {other: reference.drift(own.loc[[row["layer_id"]]], others.loc[[other]]) for other in others.index}
        nearest = min(drifts, key=lambda other: drifts[other])
        assert row["other_layer_id"] == nearest
        assert row["drift"] == pytest.approx(drifts[nearest], rel=1e-9)
        assert row["other_model_id"] == layers.loc[nearest, "model_id"]
        assert row["conv_depth"] == layers.loc[row["layer_id"], "conv_depth"]
        assert row["other_conv_depth"] == layers.loc[nearest, "conv_depth"]


@pytest.mark.parametrize("macro", ["layer_percentiles({})", "drift_to_groups({}, task)", "nearest_layers_of({})"])
def test_an_unknown_model_is_an_error_with_a_suggestion(wh: warehouse.Warehouse, macro: str) -> None:
    with pytest.raises(Exception, match="no model is called 'resnet'; did you mean '"):
        wh.sql(f"from {macro.format(repr('resnet'))}").fetchall()
