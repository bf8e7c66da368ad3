"""Groups at the edges: too many to compare, empty ones, single filters, chosen weights, pairs of models."""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from scipy.stats import kurtosis, skew

import warehouse
from tests.analysed import WEIGHTS, quality_of
from tests.reference import Reference, assert_components, by_group, write_dataset

COMPARING = [
    *("drift({})", "drift_summary({})", "drift_weighted({}, null)", "drift_within({}, 1)", "drift_controlled({}, 1)"),
    *("drift_by_depth({})", "drift_interval({})", "distances({})", "pca({})", "drift_map({})"),
]

QUARTILES = [0, 25, 50, 75, 100]


@pytest.fixture(scope="module")
def many(sample_warehouse: Path, tmp_path_factory: pytest.TempPathFactory) -> warehouse.Warehouse:
    """A copy of the sample's warehouse in which layers come 26 times, 2,080 in all."""
    path = tmp_path_factory.mktemp("many") / "cnn.warehouse"
    shutil.copytree(sample_warehouse, path)
    with duckdb.connect(str(path / "warehouse.duckdb")) as con:
        for name in ("layers", "layer_quality", "layer_histograms", "layer_moments"):
            columns = f"* replace (layer_id + 80 * copy as layer_id) from {name} cross join range(1, 26) as t(copy)"
            con.execute(f"insert into {name} by name select * exclude (copy) from (select {columns})")
    return warehouse.open(path)


@pytest.mark.parametrize("call", COMPARING)
def test_more_than_two_thousand_groups_are_refused_with_their_number(many: warehouse.Warehouse, call: str) -> None:
    with pytest.raises((duckdb.Error, warehouse.QueryError), match=r"the axis has 20\d\d groups, and at most 2000"):
        many.sql(f"from {call.format('layer_id')}").fetchall()


@pytest.mark.parametrize("call", ["quality({})", "groups({})", "distributions({})", "covariances({})"])
def test_what_compares_no_groups_takes_any_number(many: warehouse.Warehouse, call: str) -> None:
    assert many.sql(f"select count(distinct grp) from {call.format('layer_id')}").fetchall() == [(2080,)]


def test_two_thousand_groups_are_compared(many: warehouse.Warehouse) -> None:
    query = "select count(*) from drift(layer_id, keep := layer_id < 2000) where a = 7"
    assert many.sql(query).fetchall() == [(2000,)]


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> tuple[warehouse.Warehouse, np.ndarray]:
    """Layers of two tasks that can be measured, one that cannot, and filters that no layer claims."""
    rng = np.random.default_rng(3)
    spoilt = rng.normal(size=(5, 9))
    spoilt[3, 3] = np.inf
    layers = [
        ("a", rng.normal(size=(40, 9))),
        ("b", rng.normal(size=(3, 9))),
        ("spoilt", spoilt),
        (None, np.ones((2, 9))),
    ]
    unclaimed = rng.normal(size=(6, 9))
    path = tmp_path_factory.mktemp("odd") / "odd.h5"
    write_dataset(path, layers, unclaimed)
    warehouse.ingest(path, path.with_name("w"), allow_nonfinite=True)
    filters = np.concatenate([*(filters for _, filters in layers), unclaimed]).astype(np.float32).astype(np.float64)
    return warehouse.open(path.with_name("w")), filters


def test_empty_groups_are_named_with_the_reason(odd: tuple[warehouse.Warehouse, np.ndarray]) -> None:
    wh, _ = odd
    assert wh.sql("from empty_groups(task)").fetchall() == [("spoilt", 1, "its layers have NaN or infinite weights")]
    assert wh.sql("from empty_groups(task, keep := n_filters > 4)").fetchall() == [
        ("b", 1, "keep leaves none of its layers"),
        ("spoilt", 1, "its layers have NaN or infinite weights"),
    ]
    assert {a for (a,) in wh.sql("select a from drift(task)").fetchall()} == {"a", "b"}
    assert wh.sql("from empty_groups(null)").fetchall() == []


def test_components_of_single_filters_are_numpys(odd: tuple[warehouse.Warehouse, np.ndarray]) -> None:
    wh, filters = odd
    finite = np.isfinite(filters).all(axis=1)
    with np.errstate(invalid="ignore"):
        scaled = filters / np.abs(filters).max(axis=1, keepdims=True)
    groups = by_group(wh.sql("from filter_pca(w4 > 0)").fetchall())
    assert groups.keys() == {True, False}
    for above, rows in groups.items():
        chosen = scaled[finite & ((filters[:, 4] > 0) == above)]
        assert_components(rows, np.cov(chosen, rowvar=False))
    alone = by_group(wh.sql("from filter_pca('one', keep := filter_id = 0)").fetchall())["one"]
    assert [row[1] for row in alone] == [0.0] * 9
    assert wh.sql("from filter_pca(1, keep := false)").fetchall() == []


def test_components_of_whole_layers_are_those_of_their_filters(wh: warehouse.Warehouse) -> None:
    from_filters = wh.sql("select eigenvalue from filter_pca(task) order by grp, component").fetchall()
    from_layers = wh.sql("select eigenvalue from pca(task) order by grp, component").fetchall()
    np.testing.assert_allclose(from_filters, from_layers, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("filters", ["scaled", "clean", "raw", "clean_raw"])
def test_components_of_any_kind_of_filters_are_numpys(
    wh: warehouse.Warehouse, reference: Reference, filters: str
) -> None:
    groups = reference.groups(lambda row: row["task"])
    found = by_group(wh.sql(f"from pca(task, filters := '{filters}')").fetchall())
    for task, layers in groups.items():
        chosen = []
        for _, layer in layers.iterrows():
            rows = slice(layer["first"], layer["stop"])
            peaks = np.abs(reference.filters[rows]).max(axis=1)
            clean = (peaks >= 0.01 * peaks.max()) & (peaks.max() > 0)
            values = (reference.filters if "raw" in filters else reference.scaled)[rows]
            chosen.append(values[clean] if "clean" in filters else values)
        assert_components(found[task], np.cov(np.concatenate(chosen), rowvar=False))


def test_an_unknown_kind_of_filters_is_refused(wh: warehouse.Warehouse) -> None:
    with pytest.raises((duckdb.Error, warehouse.QueryError), match="filters is 'all'; expected scaled, clean, raw"):
        wh.sql("from pca(task, filters := 'all')").fetchall()


def test_weights_replace_the_explained_variance(wh: warehouse.Warehouse, reference: Reference) -> None:
    weights = np.arange(1.0, 10)
    groups = reference.groups(lambda row: row["task"])
    found = {(a, b): drift for a, b, drift in wh.sql(f"from drift_weighted(task, {weights.tolist()})").fetchall()}
    for a, b in found:
        p, q = reference.probability(groups[a]), reference.probability(groups[b])
        expected = weights @ ((p - q) * np.log(p / q)).sum(axis=1)
        assert found[a, b] == pytest.approx(expected, rel=1e-10, abs=1e-12)
    equal = wh.sql("from drift_weighted(task, null)").fetchall()
    assert equal == wh.sql("from drift(task)").fetchall()


@pytest.mark.parametrize("weights", ["[1, 2]", "[]", "range(10)"])
def test_another_number_of_weights_is_refused(wh: warehouse.Warehouse, weights: str) -> None:
    with pytest.raises((duckdb.Error, warehouse.QueryError), match=r"weights has \d+ numbers; expected nine"):
        wh.sql(f"from drift_weighted(task, {weights})").fetchall()


def test_bimodality_is_sarles_of_the_binned_coefficients(wh: warehouse.Warehouse, reference: Reference) -> None:
    query = "with tasks as (from layer_groups(task)) from bimodality('tasks')"
    rows = {row[:2]: row[2:] for row in wh.sql(query).fetchall()}
    for task, layers in reference.groups(lambda row: row["task"]).items():
        for component, counts in enumerate(reference.histogram(layers)):
            bins = np.repeat(np.arange(70.0), counts)
            n = len(bins)
            g1, g2 = skew(bins, bias=False), kurtosis(bins, bias=False)
            expected = (g1**2 + 1) / (g2 + 3 * (n - 1) ** 2 / ((n - 2) * (n - 3)))
            assert rows[task, component] == pytest.approx((n, g1, g2, expected), rel=1e-8, abs=1e-10)


def test_pairs_are_robust_and_normal_models_of_one_architecture_and_data_set(tmp_path: Path, lens_sample: Path) -> None:
    warehouse.ingest(lens_sample, tmp_path / "w")
    with duckdb.connect(str(tmp_path / "w" / "warehouse.duckdb")) as con:
        con.execute(
            "update models set robust = model_id < 2, training_dataset = 'd', backbone = 'b' where model_id < 4"
        )
        con.execute("update models set robust = null, training_dataset = 'd', backbone = 'b' where model_id = 4")
        con.execute("update models set training_dataset = null where model_id > 4")
    with warehouse.open(tmp_path / "w") as wh:
        pairs = wh.sql("select a, b, training_dataset, architecture from model_pairs").fetchall()
    assert pairs == [(a, b, "d", "b") for a in (0, 1) for b in (2, 3)]


def test_the_quality_of_a_model_is_that_of_its_layers(wh: warehouse.Warehouse, reference: Reference) -> None:
    layers = pd.concat([reference.layers.drop(columns="n_filters"), reference.qualities], axis=1)
    layers = layers.loc[:, ~layers.columns.duplicated(keep="last")]
    rows = wh.sql("from model_quality").pl().to_dicts()
    assert [row["model"] for row in rows] == [m for (m,) in wh.sql("select model from models").fetchall()]
    for row in rows:
        own = layers[layers["model_id"] == row["model_id"]]
        assert (row["n_layers"], row["n_filters"]) == (len(own), own["n_filters"].sum())
        for metric, expected in quality_of(own).items():
            assert row[metric] == (None if expected is None else pytest.approx(expected, rel=1e-9)), metric
        assert row["share_degenerate"] == pytest.approx(own["is_degenerate"].dropna().astype(float).mean())
        assert row["l2"] == pytest.approx(np.sqrt((own["l2"] ** 2).sum()))


@pytest.mark.parametrize("axis", ["task", "conv_depth > 2", "model_id % 2"])
@pytest.mark.parametrize("apart", ["", ", first_apart := true", ", keep := n_filters > 100"])
def test_quality_by_depth_is_boxed_as_numpy_does(
    wh: warehouse.Warehouse, reference: Reference, axis: str, apart: str
) -> None:
    layers = pd.concat([reference.layers.drop(columns="n_filters"), reference.qualities], axis=1)
    layers["depth"] = layers["depth_decile"]
    if "first" in apart:
        layers.loc[layers["conv_depth"] == 0, "depth"] = 0
    if "keep" in apart:
        layers = layers[layers["n_filters"] > 100]
    by = {"task": layers["task"], "conv_depth > 2": layers["conv_depth"] > 2, "model_id % 2": layers["model_id"] % 2}
    expected = {}
    for (grp, depth), own in layers.groupby([by[axis], "depth"]):
        for metric in WEIGHTS:
            values = own[metric].dropna().to_numpy(float)
            if len(values):
                expected[metric, grp, int(depth)] = [len(values), *np.percentile(values, QUARTILES), values.mean()]
    rows = wh.sql(f"from quality_by_depth({axis}{apart})").fetchall()
    assert [(metric, grp, depth) for grp, depth, metric, *_ in rows] == sorted(expected)
    for grp, depth, metric, *box in rows:
        np.testing.assert_allclose(box, expected[metric, grp, depth], rtol=1e-9, atol=1e-12)


def test_without_depths_only_first_layers_have_quality_by_depth(odd: tuple[warehouse.Warehouse, np.ndarray]) -> None:
    wh, _ = odd
    assert wh.sql("from quality_by_depth(task)").fetchall() == []
    rows = wh.sql("from quality_by_depth(task, first_apart := true)").fetchall()
    assert {(grp, depth) for grp, depth, *_ in rows} == {("a", 0), ("b", 0)}
