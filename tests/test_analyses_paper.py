"""The analyses of the paper on CNN Filter DB, against NumPy and pandas on the filters."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

import warehouse
from tests.analysed import DATASETS, Analysed, analysed, assert_table, warehouse_of
from tests.reference import Groups
from warehouse.errors import QueryError

NAMES = (
    "drift_by_training_dataset drift_by_architecture_family drift_by_model drift_by_precision drift_by_pretraining "
    "drift_first_layer training_set_conditions degenerate_layers_by_model degenerate_layers_by_task "
    "quality_by_depth_and_family degenerate_filters drift_sample_size"
).split()


@pytest.fixture(scope="module", params=DATASETS)
def data(request: pytest.FixtureRequest) -> Analysed:
    return analysed(request)


def by_dataset(data: Analysed) -> Groups:
    """Layers by each training data set of their models."""
    listed = data.layers["training_dataset"].str.split(",")
    return data.groups("dataset", data.layers.assign(dataset=listed).explode("dataset").assign(dataset=_stripped))


def _stripped(layers: pd.DataFrame) -> pd.Series:
    return layers["dataset"].str.strip()


@pytest.mark.parametrize("one_by_one", [None, False, True])
def test_drift_between_training_datasets_takes_lists_whole_or_one_by_one(
    data: Analysed, one_by_one: bool | None
) -> None:
    groups = by_dataset(data) if one_by_one else data.groups("training_dataset")
    assert_table(data.wh.analysis("drift_by_training_dataset", one_by_one=one_by_one), data.drifts(groups))


def test_drift_between_architecture_families_is_the_definitions(data: Analysed) -> None:
    assert_table(data.wh.analysis("drift_by_architecture_family"), data.drifts(data.groups("architecture_family")))


def test_drift_between_models_has_every_pair_once(data: Analysed) -> None:
    names = data.layers.groupby("model_id")["model"].first()
    expected = data.drifts(data.groups("model_id")).query("a < b").reset_index(drop=True)
    expected.insert(2, "model_a", expected["a"].map(names))
    expected.insert(3, "model_b", expected["b"].map(names))
    assert len(expected) == len(names) * (len(names) - 1) / 2
    assert_table(data.wh.analysis("drift_by_model"), expected)
    assert_table(data.wh.analysis("drift_by_model", model=3), expected.query("a == 3 or b == 3"))


def test_drift_by_precision_has_precision_and_operator_sets(data: Analysed) -> None:
    tables = []
    for axis in ("precision", "op_set"):
        pairs = data.drifts(data.groups(axis)).query("a < b").assign(axis=axis)
        as_text = [pairs[name].map(str if axis == "precision" else "{:.0f}".format) for name in ("a", "b")]
        tables.append(pairs.assign(a=as_text[0], b=as_text[1])[["axis", "a", "b", "drift"]])
    assert_table(data.wh.analysis("drift_by_precision"), pd.concat(tables))


@pytest.mark.parametrize("given", [None, "depth_decile", "architecture_family"])
def test_drift_by_pretraining_is_that_within_strata_beside_that_of_all(data: Analysed, given: str | None) -> None:
    sides = data.groups("pretrained")
    strata = [
        side for layers in data.groups(given or "task").values() if len(side := data.groups("pretrained", layers)) == 2
    ]
    sizes = np.array([[side[value]["n_filters"].sum() for value in (False, True)] for side in strata]).reshape(-1, 2)
    weights = sizes.prod(axis=1) / sizes.sum(axis=1)
    row: dict[str, Any] = {"a": False, "b": True, "n_strata": len(strata), "drift_within": None}
    if strata:
        row["drift_within"] = np.average(
            [data.reference.drift(side[False], side[True]) for side in strata], weights=weights
        )
    row["drift"] = data.reference.drift(sides[False], sides[True])
    for name, value in (("share_a", False), ("share_b", True)):
        row[name] = sizes[:, int(value)].sum() / sides[value]["n_filters"].sum()
    assert_table(data.wh.analysis("drift_by_pretraining", given=given), pd.DataFrame([row]))


@pytest.mark.parametrize("columns", ["", "task", "visual_category training_dataset", "architecture_family", "model"])
def test_first_layers_drift_from_the_rest_component_by_component(data: Analysed, columns: str) -> None:
    known = data.layers.dropna(subset=columns.replace("model", "model_id").split())
    first_ones = known[known["conv_depth"] == 0]
    settings = data.settings(columns, first_ones.iloc[len(first_ones) // 2])
    layers = data.chosen(settings)
    first, rest = (layers[layers["conv_depth"].eq(0) == is_first] for is_first in (True, False))
    expected = pd.DataFrame(columns=["component", "drift", "share"])
    if len(rest):
        p, q = data.reference.probability(first), data.reference.probability(rest)
        parts = data.reference.pca.explained_variance_ratio_ * ((p - q) * np.log(p / q)).sum(axis=1)
        drift = [*parts, parts.sum()]
        expected = pd.DataFrame({"component": [*range(9), None], "drift": drift, "share": drift / parts.sum()})
    assert_table(data.wh.analysis("drift_first_layer", **settings), expected)


@pytest.mark.parametrize(
    "settings", [{}, {"min_models": 2}, {"min_filters": 3000}, {"min_models": 2, "min_filters": 5000}]
)
def test_conditions_of_training_sets_are_their_size_and_variance(data: Analysed, settings: dict[str, int]) -> None:
    rows = []
    for dataset, layers in by_dataset(data).items():
        n, n_models = layers["n_filters"].sum(), layers["model_id"].nunique()
        row = {"dataset": dataset, "n_models": n_models, "n_layers": len(layers), "n_filters": n}
        row["filters_per_model"] = n / n_models
        row["variance"] = data.reference.scaled[data.reference.rows(layers)].var(axis=0, ddof=1).sum()
        for name in ("variance_entropy", "variance_entropy_norm", "sparsity"):
            known = layers.dropna(subset=name)
            row[name] = np.average(known[name].astype(float), weights=known["n_filters"])
        for name in ("random", "degenerate"):
            row[f"share_{name}"] = layers[f"is_{name}"].dropna().astype(float).mean()
        rows.append(row)
    expected = pd.DataFrame(rows).sort_values(["n_filters", "dataset"], ascending=[False, True])
    expected = expected[expected["n_models"] >= settings.get("min_models", 1)]
    expected = expected[expected["n_filters"] >= settings.get("min_filters", 1)]
    assert_table(data.wh.analysis("training_set_conditions", **settings), expected)


def degenerate(layers: pd.DataFrame, min_sparsity: float) -> dict[str, float]:
    """Counts and shares of layers."""
    judged = layers.dropna(subset="is_degenerate")
    sparse = layers["sparsity"] >= min_sparsity
    counts = {"n_layers": len(layers), "n_judged": len(judged)}
    sums = {"degenerate": judged["is_degenerate"].sum(), "random": judged["is_random"].sum(), "sparse": sparse.sum()}
    shares = {
        "degenerate": judged["is_degenerate"].mean(),
        "random": judged["is_random"].mean(),
        "sparse": sparse.mean(),
    }
    return counts | {f"n_{k}": v for k, v in sums.items()} | {f"share_{k}": v for k, v in shares.items()}


@pytest.mark.parametrize("min_sparsity", [None, 0.4])
def test_degenerate_layers_are_counted_by_model(data: Analysed, min_sparsity: float | None) -> None:
    labels = ["model_id", "model", "task", "training_dataset", "architecture_family"]
    rows = [
        {**layers[labels].iloc[0].to_dict(), **degenerate(layers, min_sparsity or 0.14)}
        for layers in data.groups("model_id").values()
    ]
    expected = pd.DataFrame(rows).sort_values("share_degenerate", ascending=False, kind="stable")
    assert_table(data.wh.analysis("degenerate_layers_by_model", min_sparsity=min_sparsity), expected)


@pytest.mark.parametrize("min_sparsity", [None, 0.4])
def test_degenerate_layers_are_counted_by_task(data: Analysed, min_sparsity: float | None) -> None:
    rows = [
        {"task": task, "n_models": layers["model_id"].nunique(), **degenerate(layers, min_sparsity or 0.14)}
        for task, layers in data.groups("task").items()
    ]
    expected = pd.DataFrame(rows).sort_values("share_degenerate", ascending=False, kind="stable")
    assert_table(data.wh.analysis("degenerate_layers_by_task", min_sparsity=min_sparsity), expected)


@pytest.mark.parametrize("first_apart", [None, True])
@pytest.mark.parametrize("metric", [None, "variance_entropy_norm", "scaled_clean_entropy", "orthogonality"])
def test_quality_by_depth_and_family_is_numpys_percentiles(
    data: Analysed, metric: str | None, first_apart: bool | None
) -> None:
    layers = data.layers.assign(depth=data.layers["depth_decile"])
    if first_apart:
        layers.loc[layers["conv_depth"] == 0, "depth"] = 0
    rows = []
    for name in [metric] if metric else ["sparsity", "variance_entropy"]:
        for (family, depth), members in layers.groupby(["architecture_family", "depth"]):
            values = members[name].dropna().astype(float)
            if len(values):
                statistics = [*np.percentile(values, [0, 25, 50, 75, 100]), values.mean()]
                rows.append((family, depth, name, len(values), *statistics))
    columns = ["architecture_family", "depth", "metric", "n_layers", "min", "q1", "median", "q3", "max", "mean"]
    found = data.wh.analysis("quality_by_depth_and_family", metric=metric, first_apart=first_apart)
    assert_table(found, pd.DataFrame(rows, columns=columns))


def test_an_unknown_metric_is_refused(wh: warehouse.Warehouse) -> None:
    with pytest.raises(QueryError, match="metric is 'beauty'; expected sparsity"):
        wh.analysis("quality_by_depth_and_family", metric="beauty")


@pytest.mark.parametrize("axis", [None, "architecture_family", "depth_decile", "pretrained"])
def test_degenerate_filters_are_shares_of_all_and_of_each_group(data: Analysed, axis: str | None) -> None:
    rows = []
    for group, layers in [(None, data.layers), *data.groups(axis or "task").items()]:
        n, judged = layers["n_filters"], layers["is_degenerate"].notna()
        row = {"grp": group, "n_models": layers["model_id"].nunique(), "n_layers": len(layers), "n_filters": n.sum()}
        row["n_judged"] = n[judged].sum()
        row["n_in_degenerate"] = n[layers["is_degenerate"].eq(True)].sum()
        row["n_in_random"] = n[layers["is_random"].eq(True)].sum()
        row["n_sparse"] = layers["n_sparse"].sum()
        row["share_in_degenerate"] = row["n_in_degenerate"] / row["n_judged"]
        row["share_in_random"] = row["n_in_random"] / row["n_judged"]
        rows.append({**row, "sparsity": row["n_sparse"] / row["n_filters"]})
    assert_table(data.wh.analysis("degenerate_filters", axis=axis), pd.DataFrame(rows))


@pytest.mark.parametrize("settings", [{"replicates": 3}, {"replicates": 4, "seed": 5, "task": "Classification"}])
def test_drift_of_samples_is_that_of_the_layers_drawn(data: Analysed, settings: dict[str, Any]) -> None:
    layers = data.layers if "task" not in settings else data.groups("task")[settings["task"]]
    # each layer is drawn by the digest of its number, so that anyone can draw the same sample
    orders = [
        sorted(
            layers["layer_id"],
            key=lambda layer: hashlib.md5(
                f"{settings.get('seed', 0)},{k},{layer}".encode(), usedforsecurity=False
            ).digest(),
        )
        for k in range(settings["replicates"])
    ]
    whole = data.reference.probability(layers)
    by_number = layers.set_index("layer_id")
    rows = []
    for size in (m * 10**power for power in range(4) for m in (1, 2, 5) if m * 10**power < len(layers)):
        samples = [by_number.loc[order[:size]] for order in orders]
        drifts = [data.reference.divergence(data.reference.probability(sample), whole) for sample in samples]
        sizes = [sample["n_filters"].sum() for sample in samples]
        rows.append((size, np.mean(sizes), np.mean(drifts), *np.percentile(drifts, [0, 25, 50, 75, 100])))
    columns = ["n_layers", "n_filters", "mean", "min", "q1", "median", "q3", "max"]
    assert_table(data.wh.analysis("drift_sample_size", **settings), pd.DataFrame(rows, columns=columns))


@pytest.fixture(scope="module")
def unmeasured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[warehouse.Warehouse]:
    """Two models without labels but tasks: one of random filters, and one with infinite weights."""
    rng = np.random.default_rng(7)
    layers = [("fine", rng.normal(size=(30, 9))), ("broken", np.full((6, 9), np.inf))]
    with warehouse_of(tmp_path_factory.mktemp("unmeasured"), layers, allow_nonfinite=True) as opened:
        yield opened


def test_layers_without_statistics_are_counted_but_not_judged(unmeasured: warehouse.Warehouse) -> None:
    by_task = unmeasured.analysis("degenerate_layers_by_task").fetchall()
    assert by_task[1] == ("broken", 1, 1, 0, 0, 0, 0, None, None, None)
    assert [(row[0], row[3]) for row in by_task] == [("fine", 1), ("broken", 0)]
    assert unmeasured.analysis("degenerate_layers_by_model").fetchall()[1][5:] == (1, 0, 0, 0, 0, None, None, None)
    filters = {row[0]: row[3:] for row in unmeasured.analysis("degenerate_filters").fetchall()}
    assert filters["broken"] == (6, 0, 0, 0, 0, None, None, None)
    assert filters[None][:2] == (36, 30)


@pytest.mark.parametrize("name", sorted({*NAMES} - {"degenerate_layers_by_model", "degenerate_layers_by_task"}))
def test_models_without_labels_give_what_needs_none(unmeasured: warehouse.Warehouse, name: str) -> None:
    found = unmeasured.analysis(name).df()
    if name == "drift_by_model":
        assert found.empty  # one of the two has no distribution
    elif name == "degenerate_filters":
        assert found["grp"].isna().tolist() == [True, False, False]
    else:
        assert found.empty
