"""The analyses of the medical follow-up, against NumPy and pandas on the filters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import warehouse
from tests.analysed import DATASETS, Analysed, analysed, assert_table, quality_of
from warehouse.errors import QueryError

BY_NAME, BY_CATEGORY = {"pattern": "NET.*[1-4]"}, {"category": "^(?:nat|med)"}
CHOICES = [{}, BY_NAME, BY_CATEGORY, {"pattern": "net", "category": "FACES|natural"}, {"pattern": "no such name"}]


@pytest.fixture(scope="module", params=DATASETS)
def data(request: pytest.FixtureRequest) -> Analysed:
    return analysed(request)


def chosen(data: Analysed, pattern: str = "", category: str | None = None) -> pd.DataFrame:
    """Layers of the models that a pattern finds, case or not."""
    layers = data.layers
    called = [layers[name].str.contains(pattern, case=False, regex=True).fillna(False) for name in ("model", "name")]
    found = called[0] | called[1]
    if category is not None:
        found &= layers["visual_category"].str.contains(category, case=False).fillna(False)
    return layers[found]


@pytest.mark.parametrize("settings", CHOICES)
def test_the_table_lists_the_models_of_a_subset_with_their_sizes(data: Analysed, settings: dict[str, str]) -> None:
    rows = []
    labels = "model_id model name task visual_category training_dataset architecture_family".split()
    source = "total_filters share_3x3 depth".split()
    for _, own in chosen(data, **settings).groupby("model_id"):
        metrics = quality_of(own)
        sizes = len(own), own["n_filters"].sum()
        quality = metrics["sparsity"], metrics["variance_entropy_norm"]
        first = own.iloc[0]
        rows.append((*first[labels], *sizes, *first[source], *quality, first["paper"]))
    columns = [*labels, "n_layers", "n_filters", *source, "sparsity", "variance_entropy_norm", "paper"]
    expected = pd.DataFrame(rows, columns=columns).sort_values(["visual_category", "task", "model_id"])
    assert_table(data.wh.analysis("model_table", **settings), expected, rtol=1e-8)
    assert settings or len(expected) > 10


@pytest.mark.parametrize("settings", [{"component": 3}, BY_NAME, {**BY_CATEGORY, "component": 0}])
def test_distributions_of_each_model_are_on_the_basis_of_all_filters(data: Analysed, settings: dict[str, Any]) -> None:
    subset = {name: value for name, value in settings.items() if name != "component"}
    components = [settings["component"]] if "component" in settings else list(range(9))
    low, high = data.reference.range
    edges = np.linspace(low, high, 71)
    tables = []
    for model_id, own in chosen(data, **subset).groupby("model_id"):
        counts, probability = data.reference.histogram(own), data.reference.probability(own)
        for component in components:
            n = counts[component]
            density = n / n.sum() / (edges[1] - edges[0])
            columns = {"bin": range(70), "bin_lo": edges[:-1], "bin_hi": edges[1:], "n": n, "density": density}
            labels = {"model_id": model_id, "model": own["model"].iloc[0], "component": component}
            tables.append(pd.DataFrame({**labels, **columns, "probability": probability[component]}))
    assert_table(data.wh.analysis("model_distributions", **settings), pd.concat(tables))


@pytest.mark.parametrize("settings", CHOICES)
def test_the_matrix_weights_all_components_alike(data: Analysed, settings: dict[str, str]) -> None:
    groups = dict(iter(chosen(data, **settings).groupby("model_id")))
    probabilities = {model: data.reference.probability(own) for model, own in groups.items()}
    rows = []
    for a, p in probabilities.items():
        for b, q in probabilities.items():
            drift = ((p - q) * np.log(p / q)).sum(axis=1).mean()
            rows.append((a, b, groups[a]["model"].iloc[0], groups[b]["model"].iloc[0], drift))
    expected = pd.DataFrame(rows, columns=["a", "b", "model_a", "model_b", "drift"])
    assert_table(data.wh.analysis("model_drift_matrix", **settings), expected)


@pytest.mark.parametrize("name", ["model_table", "model_distributions", "model_drift_matrix"])
def test_a_pattern_that_is_none_is_an_error(wh: warehouse.Warehouse, name: str) -> None:
    with pytest.raises(QueryError, match=r"missing \)"):
        wh.analysis(name, pattern="(")


def scores(means: pd.Series) -> pd.Series:
    """Distance above the third quartile in widths of the box."""
    known = means.dropna()
    if len(known) < 4:
        return means * np.nan
    q1, q3 = np.percentile(known, [25, 75])
    return (means - q3) / (q3 - q1) if q3 > q1 else means * np.nan


def weighted(pairs: list[tuple[float, float]]) -> float:
    """Mean of values, each with its weight."""
    values, weights = np.array(pairs).T
    return float(np.average(values, weights=weights))


@pytest.mark.parametrize(
    ("axis", "given"), [(None, None), ("task", None), (None, "depth_decile"), ("model_id", "task"), ("task", "robust")]
)
def test_outliers_are_told_with_and_without_the_family_held_fixed(
    data: Analysed, axis: str | None, given: str | None
) -> None:
    axis_name, given_name = axis or "visual_category", given or "architecture_family"
    groups = data.groups(axis_name)
    drift = data.reference.drifts(groups)
    within: dict[tuple[Any, Any], list[tuple[float, float]]] = {pair: [] for pair in drift}
    for _, stratum in data.layers.groupby(given_name):
        inside = dict(iter(stratum.groupby(axis_name)))
        sizes = {group: own["n_filters"].sum() for group, own in inside.items()}
        for (a, b), value in data.reference.drifts(inside).items():
            within[a, b].append((value, sizes[a] * sizes[b] / (sizes[a] + sizes[b])))
    rows = []
    for group in groups:
        others = [other for other in groups if other != group]
        shared = [other for other in others if within[group, other]]
        controlled = [
            np.dot(*np.array(within[group, other]).T) / sum(w for _, w in within[group, other]) for other in shared
        ]
        plain = [drift[group, other] for other in shared]
        if others:
            means = (np.mean(part) if part else np.nan for part in (plain, controlled))
            rows.append((group, len(others), np.mean([drift[group, other] for other in others]), len(shared), *means))
    columns = ["grp", "n_others", "mean_drift", "n_comparable", "mean_drift_comparable", "mean_drift_within"]
    table = pd.DataFrame(rows, columns=columns)
    for suffix in ("", "_within"):
        score = scores(table[f"mean_drift{suffix}"].astype(float))
        table[f"score{suffix}"] = score
        table[f"is_outlier{suffix}"] = (score > 1.5).astype(object).mask(score.isna(), None)
    expected = table.sort_values(
        ["mean_drift_within", "mean_drift", "grp"],
        ascending=[False, False, True],
        # two models that are alone in a task drift equally far from each other, but for rounding
        key=lambda column: column.round(12) if column.dtype == float else column,
    )
    columns[3:3] = ["score", "is_outlier"]
    found = data.wh.analysis("drift_within_family", axis=axis, given=given)
    assert_table(found, expected[[*columns, "score_within", "is_outlier_within"]], rtol=1e-7, atol=1e-9)
