"""The analyses of the robustness study, against NumPy, SciPy, pandas and scikit-learn on the filters."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

import warehouse
from tests.analysed import (
    ROBUSTNESS_DATASETS,
    WEIGHTS,
    Analysed,
    analysed,
    assert_table,
    changed,
    quality_of,
    temporary_table,
)
from tests.reference import assert_components
from warehouse.errors import QueryError

NAMES = (
    "robust_drift robust_drift_pairs robust_drift_by_depth robust_quality_by_depth robust_accuracy_correlation "
    "robust_accuracy_correlation_by_architecture robust_pca_clean"
).split()


@pytest.fixture(scope="module", params=ROBUSTNESS_DATASETS)
def data(request: pytest.FixtureRequest) -> Analysed:
    return analysed(request)


def sides(layers: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Layers of the robust models, and of the normal ones."""
    return layers[layers["robust"].eq(True)], layers[layers["robust"].eq(False)]


def with_all_together(layers: pd.DataFrame) -> list[tuple[str | None, pd.DataFrame]]:
    """All layers, and those of each training data set."""
    return [(None, layers), *layers.groupby("training_dataset")]


def depths(layers: pd.DataFrame) -> pd.Series:
    return layers["depth_decile"].mask(layers["conv_depth"] == 0, 0)


@pytest.mark.parametrize("unknown_as_robust", [None, True])
def test_sparsity_is_counted_for_robust_normal_and_unknown_models(
    data: Analysed, unknown_as_robust: bool | None
) -> None:
    rows = []
    for dataset, layers in with_all_together(data.layers):
        robust, normal = sides(layers)
        unknown = layers[layers["robust"].isna()]
        kinds = [(True, robust), (False, normal), (None, unknown)]
        if unknown_as_robust:
            kinds = [(True, pd.concat([robust, unknown])), (False, normal)]
        for kind, own in kinds:
            if len(own):
                filters, sparse = own["n_filters"].sum(), own["n_sparse"].sum()
                counts = own["model_id"].nunique(), len(own), filters, sparse, sparse / filters
                rows.append((dataset, kind, *counts))
    columns = ["training_dataset", "robust", "n_models", "n_layers", "n_filters", "n_sparse", "sparsity"]
    found = data.wh.analysis("robust_sparsity", unknown_as_robust=unknown_as_robust)
    assert_table(found, pd.DataFrame(rows, columns=columns))


def drifts(data: Analysed, layers: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for dataset, own in layers.groupby("training_dataset"):
        robust, normal = sides(own)
        if len(robust) and len(normal):
            models = robust["model_id"].nunique(), normal["model_id"].nunique()
            filters = robust["n_filters"].sum(), normal["n_filters"].sum()
            rows.append((dataset, data.reference.drift(robust, normal), *models, *filters))
    names = ["n_models_robust", "n_models_normal", "n_filters_robust", "n_filters_normal"]
    return pd.DataFrame(rows, columns=["training_dataset", "drift", *names])


def test_drift_is_between_the_distinct_models_of_a_data_set(data: Analysed) -> None:
    expected = drifts(data, data.layers)
    assert len(expected) > 1
    assert_table(data.wh.analysis("robust_drift"), expected)


def test_drift_can_be_of_the_models_in_a_list_of_pairs_alone(data: Analysed) -> None:
    pairs = data.wh.sql("from model_pairs select a, b").fetchall()[1:]
    assert pairs
    listed = data.layers[data.layers["model_id"].isin({model for pair in pairs for model in pair})]
    with temporary_table(data.wh, "from model_pairs select a, b offset 1") as name:
        assert_table(data.wh.analysis("robust_drift", pairs=name), drifts(data, listed))


def pair_drifts(data: Analysed, pairs: list[tuple[int, int]]) -> pd.DataFrame:
    """Layers of a model count once per pair."""
    rows = []
    layers = {side: pd.concat([data.layers[data.layers["model_id"] == p[side]] for p in pairs]) for side in (0, 1)}
    for dataset in sorted(set.intersection(*(set(own["training_dataset"].dropna()) for own in layers.values()))):
        one, other = (own[own["training_dataset"] == dataset] for own in layers.values())
        rows.append((dataset, data.reference.drift(one, other), len(one), len(other)))
    return pd.DataFrame(rows, columns=["training_dataset", "drift", "n_layers_a", "n_layers_b"])


def test_pairs_are_by_default_all_robust_and_normal_models_of_a_backbone_and_data_set(data: Analysed) -> None:
    models = data.layers.drop_duplicates("model_id")
    robust, normal = sides(models)
    joined = robust.merge(normal, on=["training_dataset", "backbone"])
    joined = joined[joined["training_dataset"].notna() & joined["backbone"].notna()]
    pairs = list(zip(joined["model_id_x"], joined["model_id_y"], strict=True))
    assert pairs
    assert data.wh.sql("from model_pairs select a, b").fetchall() == sorted(pairs)
    assert_table(data.wh.analysis("robust_drift_pairs"), pair_drifts(data, pairs))


def test_pairs_come_from_a_csv_file_or_a_table_and_a_model_counts_once_per_pair(data: Analysed, tmp_path: Path) -> None:
    (one, other), *_ = data.wh.sql("from model_pairs select a, b").fetchall()
    dataset = data.layers.loc[data.layers["model_id"] == other, "training_dataset"].iloc[0]
    third, *_ = set(data.layers.loc[data.layers["training_dataset"] == dataset, "model_id"]) - {one, other}
    pairs = [(one, other), (third, other), (one, other)]
    expected = pair_drifts(data, pairs)
    assert not np.isclose(expected["drift"], pair_drifts(data, pairs[:1])["drift"]).all()
    names = data.layers.drop_duplicates("model_id").set_index("model_id")["model"]
    frame = pd.DataFrame([(names[a], names[b]) for a, b in pairs], columns=["a", "b"])
    frame.assign(architecture="any").to_csv(tmp_path / "pairs.csv", index_label="number")
    assert_table(data.wh.analysis("robust_drift_pairs", pairs=str(tmp_path / "pairs.csv")), expected)
    rows = ", ".join(map(str, pairs))
    with temporary_table(data.wh, f"from (values {rows}) as t(a, b)") as name:
        assert_table(data.wh.analysis("robust_drift_pairs", pairs=name), expected)


@pytest.mark.parametrize("name", ["robust_drift", "robust_drift_pairs"])
def test_a_pair_of_an_unknown_model_is_an_error_that_names_a_known_one(lens_wh: warehouse.Warehouse, name: str) -> None:
    ((known,),) = lens_wh.sql("select model from models order by model_id limit 1").fetchall()
    wrong = f"select '{known}' as a, '{known}x' as b"
    with (
        temporary_table(lens_wh, wrong) as pairs,
        pytest.raises(QueryError, match=f"no model is called '{known}x'; did you mean '{known}'"),
    ):
        lens_wh.analysis(name, pairs=pairs)
    with pytest.raises(QueryError, match="no_such_table"):
        lens_wh.analysis(name, pairs="no_such_table")


def test_drift_by_depth_has_first_layers_apart(data: Analysed) -> None:
    rows = []
    for dataset, own in with_all_together(data.layers):
        for depth, there in own.groupby(depths(own)):
            robust, normal = sides(there)
            if len(robust) and len(normal):
                filters = robust["n_filters"].sum(), normal["n_filters"].sum()
                rows.append((dataset, int(depth), data.reference.drift(robust, normal), *filters))
    columns = ["training_dataset", "depth", "drift", "n_filters_robust", "n_filters_normal"]
    expected = pd.DataFrame(rows, columns=columns)
    assert_table(data.wh.analysis("robust_drift_by_depth"), expected)
    dataset = expected["training_dataset"].dropna().iloc[0]
    found = data.wh.analysis("robust_drift_by_depth", training_dataset=dataset)
    assert_table(found, expected[expected["training_dataset"] == dataset])


@cache
def quality_by_depth(data: Analysed) -> pd.DataFrame:
    """The quality of each model at each depth."""
    known = data.layers[data.layers["robust"].notna()]
    known = known.assign(depth=depths(known)).dropna(subset="depth")
    keys = ["training_dataset", "robust", "model_id", "depth"]
    return known.groupby(keys, dropna=False)[known.columns.tolist()].apply(quality_of).reset_index()


@pytest.mark.parametrize("metric", [None, *WEIGHTS])
def test_quality_by_depth_is_boxed_over_the_models(data: Analysed, metric: str | None) -> None:
    rows = []
    for dataset, own in with_all_together(quality_by_depth(data)):
        for name in [metric] if metric else ["orthogonality", "scaled_clean_entropy", "sparsity"]:
            for (depth, robust), there in own.dropna(subset=name).groupby(["depth", "robust"]):
                values = there[name].to_numpy(float)
                box = [*np.percentile(values, [0, 25, 50, 75, 100]), values.mean()]
                rows.append((dataset, name, int(depth), robust, len(values), *box))
    columns = ["training_dataset", "metric", "depth", "robust", "n_models", *"min q1 median q3 max mean".split()]
    expected = pd.DataFrame(rows, columns=columns)
    assert_table(data.wh.analysis("robust_quality_by_depth", metric=metric), expected, rtol=1e-8, atol=1e-10)
    dataset = expected["training_dataset"].dropna().iloc[-1]
    found = data.wh.analysis("robust_quality_by_depth", metric=metric, training_dataset=dataset)
    assert_table(found, expected[expected["training_dataset"] == dataset], rtol=1e-8, atol=1e-10)


def test_quality_by_depth_knows_no_other_metrics(lens_wh: warehouse.Warehouse) -> None:
    with pytest.raises(QueryError, match="metric is 'sparse'; expected sparsity, variance_entropy"):
        lens_wh.analysis("robust_quality_by_depth", metric="sparse")


def correlation(one: pd.Series, other: pd.Series) -> tuple[int, float | None]:
    """How many have both, and SciPy's correlation of their ranks."""
    known = pd.concat([one, other], axis=1).dropna().astype(float).round(12)
    if len(known) < 3 or (known.nunique() < 2).any():
        return len(known), None
    return len(known), float(spearmanr(known).statistic)


def correlations(layers: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    rows = []
    for group, own in layers.groupby(keys):
        models = own.groupby("model_id")[own.columns.tolist()].apply(quality_of)
        labels = own.drop_duplicates("model_id").set_index("model_id")
        clean, robust = labels["clean_accuracy"], labels["robust_accuracy"]
        for metric in sorted([*WEIGHTS, "clean_accuracy"]):
            values = models[metric] if metric in WEIGHTS else clean
            with_clean = (0, None) if metric == "clean_accuracy" else correlation(values, clean)
            with_robust = correlation(values, robust)
            if with_clean[0] or with_robust[0]:
                rows.append((*group, metric, *with_clean, *with_robust))
    counts = ["metric", "n_clean", "with_clean_accuracy", "n_robust", "with_robust_accuracy"]
    return pd.DataFrame(rows, columns=["architecture" if key == "backbone" else key for key in keys] + counts)


@pytest.mark.parametrize("settings", [{}, {"robust_only": False}, {"robust_only": False, "first_layers": True}])
def test_correlation_with_accuracy_is_scipys_over_the_models_of_a_data_set(
    data: Analysed, settings: dict[str, Any]
) -> None:
    layers = data.layers if settings else sides(data.layers)[0]
    if settings.get("first_layers"):
        layers = layers[layers["conv_depth"] == 0]
    expected = correlations(layers, ["training_dataset"])
    found = data.wh.analysis("robust_accuracy_correlation", **settings)
    assert_table(found, expected, atol=1e-10)
    assert len(settings) != 1 or expected["with_clean_accuracy"].notna().any()


@pytest.mark.parametrize("settings", [{}, {"robust_only": False, "min_models": 1}])
def test_correlation_by_architecture_is_scipys_over_its_models(data: Analysed, settings: dict[str, Any]) -> None:
    layers = data.layers if settings else sides(data.layers)[0]
    expected = correlations(layers, ["training_dataset", "backbone"])
    most = expected[["n_clean", "n_robust"]].max(axis=1)
    found = data.wh.analysis("robust_accuracy_correlation_by_architecture", **settings)
    assert_table(found, expected[most >= settings.get("min_models", 3)], atol=1e-10)


def test_ties_share_their_mean_rank_and_too_few_or_equal_values_correlate_with_nothing(
    lens_warehouse: Path, tmp_path: Path
) -> None:
    # few different accuracies; of b there are two models, in c all have the same clean one
    change = """
        update models set
            training_dataset = case when model_id < 6 then 'a' when model_id < 8 then 'b' else 'c' end,
            clean_accuracy = case when model_id < 8 then 80.1 + model_id % 3 else 80.1 end,
            robust_accuracy = 50.5 + model_id // 2 % 2"""
    with changed(lens_warehouse, tmp_path, (change, [])) as con:
        models = con.execute("from models join (select model_id, sparsity from model_quality) using (model_id)").df()
        found = con.execute("from accuracy_correlation(training_dataset)").fetchall()
    rows = {(group, metric): row for group, metric, *row in found}
    for group, own in models.groupby("training_dataset"):
        for metric, other in (("sparsity", "clean"), ("sparsity", "robust"), ("clean_accuracy", "robust")):
            n, expected = correlation(own[metric], own[f"{other}_accuracy"])
            assert (expected is None) == (group == "b" or (group == "c" and "clean" in metric + other))
            part = rows[group, metric][0:2] if other == "clean" else rows[group, metric][2:4]
            assert part == [n, pytest.approx(expected)]


@pytest.mark.parametrize("of_one_data_set", [False, True])
def test_components_are_those_of_the_filters_that_are_not_sparse(data: Analysed, of_one_data_set: bool) -> None:
    dataset = data.layers.groupby("training_dataset").size().idxmax() if of_one_data_set else None
    layers = data.layers if dataset is None else data.layers[data.layers["training_dataset"] == dataset]
    robust, normal = sides(layers)
    groups = {"all": pd.concat([robust, normal]), "robust": robust, "normal": normal}
    groups = {group: own for group, own in groups.items() if len(own)}
    found = data.wh.analysis("robust_pca_clean", training_dataset=dataset).df()
    images = [f"w{i}" for i in range(9)]
    ratios = ["component", "eigenvalue", "explained_variance_ratio", "cumulative_ratio"]
    assert list(found) == ["grp", *ratios, *images]
    assert found["grp"].tolist() == [group for group in groups for _ in range(9)]
    for group, own in groups.items():
        chosen = data.reference.rows(own)
        filters = data.reference.scaled[chosen[data.reference.clean[chosen]]]
        table = found[found["grp"] == group]
        rows = zip(*(table[name] for name in ratios), table[images].to_numpy().tolist(), strict=True)
        assert_components(list(rows), np.cov(filters.T))


@pytest.mark.parametrize("name", NAMES)
def test_there_are_no_rows_where_nothing_is_known_of_robustness(wh: warehouse.Warehouse, name: str) -> None:
    assert wh.analysis(name).fetchall() == []


def test_sparsity_says_that_nothing_is_known_of_robustness(wh: warehouse.Warehouse) -> None:
    rows = wh.analysis("robust_sparsity").fetchall()
    assert {robust for _, robust, *_ in rows} == {None}
    assert rows[0][2] == 12
