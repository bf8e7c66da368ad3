"""The analyses that nobody published, against NumPy and SciPy on the filters and on data with a known answer."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import kurtosis, skew, wasserstein_distance

import warehouse
from tests.analysed import DATASETS, Analysed, analysed, assert_table, warehouse_of
from tests.reference import Groups
from warehouse.errors import QueryError

AXES = [None, "visual_category", "depth_decile"]


@pytest.fixture(scope="module", params=DATASETS)
def data(request: pytest.FixtureRequest) -> Analysed:
    return analysed(request)


def pairs(groups: Groups) -> list[tuple[Any, Any]]:
    return [(a, b) for a in groups for b in groups if a < b]


def nearest(data: Analysed, groups: Groups, reference: Any, top: int) -> pd.DataFrame:
    """Columns grp and drift of the nearest groups."""
    own = data.reference.probability(groups[reference])
    drifts = {
        group: data.reference.divergence(own, data.reference.probability(layers))
        for group, layers in groups.items()
        if group != reference
    }
    table = pd.DataFrame(drifts.items(), columns=["grp", "drift"]).sort_values(["drift", "grp"])[:top]
    return table.assign(rank=range(1, len(table) + 1))


@pytest.mark.parametrize(("position", "top"), [(None, None), (3, 4), (-1, 1000)])
def test_nearest_models_are_those_of_the_least_drift(data: Analysed, position: int | None, top: int | None) -> None:
    models = data.groups("model_id")
    reference = list(models)[position or 0]
    labels = ["model_id", "model", "task", "visual_category", "training_dataset", "architecture_family"]
    known = data.layers.drop_duplicates("model_id")[labels]
    expected = nearest(data, models, reference, top or 10).merge(known, left_on="grp", right_on="model_id", how="left")
    found = data.wh.analysis("similar_models", model=None if position is None else int(reference), top=top)
    assert_table(found, expected[["rank", *labels, "drift"]])


@pytest.mark.parametrize(
    "settings",
    [{}, {"layer_id": 7, "top": 3}, {"layer_id": 7, "min_filters": 100}, {"other_models": True, "top": 1000}],
)
def test_nearest_layers_are_those_of_the_least_drift(data: Analysed, settings: dict[str, Any]) -> None:
    layers = data.layers
    reference = settings.get("layer_id", layers["layer_id"].min())
    own = layers[layers["layer_id"] == reference].iloc[0]
    keep = layers["n_filters"] >= settings.get("min_filters", 1)
    if settings.get("other_models"):
        keep &= layers["model_id"] != own["model_id"]
    chosen = layers[keep | (layers["layer_id"] == reference)]
    found = nearest(data, dict(iter(chosen.groupby("layer_id"))), reference, settings.get("top", 10))
    labels = ["layer_id", "model_id", "model", "task", "conv_depth", "conv_depth_norm", "n_filters"]
    expected = found.merge(layers[labels], left_on="grp", right_on="layer_id", how="left")
    # copies are as near as each other, but for rounding
    relation = data.wh.analysis("similar_layers", **settings)
    if expected["drift"].diff().abs().min() > 1e-11:
        assert_table(relation, expected[["rank", *labels, "drift"]], atol=1e-11)
    else:
        np.testing.assert_allclose(relation.df()["drift"], expected["drift"], atol=1e-11)


def test_what_is_nearest_to_nothing_known_is_an_error(wh: warehouse.Warehouse) -> None:
    with pytest.raises(QueryError, match="no model is called 'resnet'; did you mean '"):
        wh.analysis("similar_models", model="resnet")
    with pytest.raises(QueryError, match="there is no layer with layer_id 80"):
        wh.analysis("similar_layers", layer_id=80)


@pytest.mark.parametrize("axis", [None, "pretrained"])
def test_drift_by_depth_compares_the_groups_in_each_tenth(data: Analysed, axis: str | None) -> None:
    name = axis or "task"
    layers = data.layers.dropna(subset=[name, "depth_decile"])
    rows = []
    for depth, there in layers.groupby("depth_decile"):
        groups = dict(iter(there.groupby(name)))
        for a, b in pairs(data.groups(name, layers)):
            sizes = [groups[group]["n_filters"].sum() if group in groups else 0 for group in (a, b)]
            drift = data.reference.drift(groups[a], groups[b]) if all(sizes) else None
            rows.append((int(depth), a, b, drift, *sizes))
    columns = ["depth_decile", "a", "b", "drift", "n_filters_a", "n_filters_b"]
    assert_table(data.wh.analysis("drift_by_depth_and_group", axis=axis), pd.DataFrame(rows, columns=columns))


@pytest.mark.parametrize(("axis", "given"), [(None, None), ("visual_category", "task"), ("depth_decile", "model_id")])
def test_drift_controlled_averages_over_the_shared_strata(data: Analysed, axis: str | None, given: str | None) -> None:
    axis_name, given_name = axis or "task", given or "depth_decile"
    groups = data.groups(axis_name)
    strata = [dict(iter(own.groupby(axis_name))) for own in data.groups(given_name).values()]
    rows = []
    for a, b in pairs(groups):
        shared = [stratum for stratum in strata if a in stratum and b in stratum]
        drifts = [data.reference.drift(stratum[a], stratum[b]) for stratum in shared]
        sizes = np.array([[stratum[group]["n_filters"].sum() for group in (a, b)] for stratum in shared])
        weights = sizes.prod(axis=1) / sizes.sum(axis=1) if shared else []
        within = np.average(drifts, weights=weights) if shared else None
        shares = [sizes[:, i].sum() / groups[g]["n_filters"].sum() if shared else 0 for i, g in enumerate((a, b))]
        rows.append((a, b, len(shared), within, data.reference.drift(groups[a], groups[b]), *shares))
    columns = ["a", "b", "n_strata", "drift_within", "drift", "share_a", "share_b"]
    found = data.wh.analysis("drift_held_fixed", axis=axis, given=given)
    assert_table(found, pd.DataFrame(rows, columns=columns), atol=1e-11)


@pytest.mark.parametrize("axis", AXES)
def test_distances_are_scipys_weighted_by_the_explained_variance(data: Analysed, axis: str | None) -> None:
    groups = data.groups(axis or "task")
    shares = {group: data.reference.histogram(own) / own["n_filters"].sum() for group, own in groups.items()}
    weights = data.reference.pca.explained_variance_ratio_
    width = (data.reference.range[1] - data.reference.range[0]) / 70
    centres = width * np.arange(70)
    rows = []
    for a, b in pairs(groups):
        both = list(zip(shares[a], shares[b], strict=True))
        shannon = [jensenshannon(p, q) ** 2 for p, q in both]
        moved = [wasserstein_distance(centres, centres, p, q) for p, q in both]
        gaps = [np.abs(np.cumsum(p - q)).max() for p, q in both]
        drift = data.reference.drift(groups[a], groups[b])
        rows.append((a, b, drift, *(weights @ np.array([shannon, moved, gaps]).T)))
    columns = ["a", "b", "drift", "jensen_shannon", "wasserstein", "kolmogorov_smirnov"]
    found = data.wh.analysis("drift_beside_distances", axis=axis)
    assert_table(found, pd.DataFrame(rows, columns=columns), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    ("axis", "replicates", "level", "seed"), [(None, 12, None, None), ("depth_decile", 7, 0.5, 42)]
)
def test_confidence_is_the_bootstrap_of_the_layers(
    data: Analysed, axis: str | None, replicates: int, level: float | None, seed: int | None
) -> None:
    groups = {g: own.sort_values("layer_id") for g, own in data.groups(axis or "task").items()}
    histograms = {g: np.array([data.reference.histogram(own[i : i + 1]) for i in range(len(own))])
                  for g, own in groups.items()}  # fmt: skip

    def probability(counts: np.ndarray) -> np.ndarray:
        width = (data.reference.range[1] - data.reference.range[0]) / 70
        density = counts / (counts.sum(axis=1, keepdims=True) * width)
        density[density == 0] = 1.1920929e-07
        return density / density.sum(axis=1, keepdims=True)

    def drawn(group: Any, replicate: int) -> np.ndarray:
        """The draws are no secret: the lower half of the MD5 of seed, replicate and layer, modulo the layers."""
        layers = groups[group]["layer_id"]
        digests = [hashlib.md5(f"{seed or 0},{replicate},{layer}".encode()).digest() for layer in layers]
        numbers = [int.from_bytes(digest[8:], "little") % len(layers) for digest in digests]
        return probability(histograms[group][numbers].sum(axis=0).astype(float))

    samples = {group: [drawn(group, replicate) for replicate in range(replicates)] for group in groups}
    rows = []
    for a, b in pairs(groups):
        drift = data.reference.drift(groups[a], groups[b])
        drifts = [data.reference.divergence(p, q) for p, q in zip(samples[a], samples[b], strict=True)]
        tail = 50 * (1 - (level or 0.95))
        bias = np.mean(drifts) - drift
        interval = np.maximum(0, np.percentile(drifts, [tail, 100 - tail]) - bias)
        assert len(drifts) < 10 or interval[0] <= drift <= interval[1]
        spread = (*interval, np.std(drifts, ddof=1), bias)
        sizes = len(groups[a]), len(groups[b])
        rows.append((a, b, drift, *(spread if min(sizes) > 1 else [None] * 4), *sizes))
    columns = ["a", "b", "drift", "low", "high", "standard_error", "bias", "n_layers_a", "n_layers_b"]
    settings = {"axis": axis, "replicates": replicates, "level": level, "seed": seed}
    found = data.wh.analysis("drift_confidence", **settings)
    assert_table(found, pd.DataFrame(rows, columns=columns), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    "settings", [{}, {"kind": "layer"}, {"kind": "model", "min_filters": 1}, {"min_filters": 9}, {"min_filters": 10**9}]
)
def test_duplicates_are_the_layers_and_models_of_equal_weights(data: Analysed, settings: dict[str, Any]) -> None:
    layers = data.layers
    weights = data.reference.filters.astype("<f4")
    digests = [
        hashlib.sha256(weights[first:stop].tobytes()).hexdigest()
        for first, stop in layers[["first", "stop"]].itertuples(index=False)
    ]
    names = ["model_id", "model", "layer_id", "conv_depth", "n_filters"]
    single = layers[names].assign(kind="layer", sha256=digests)
    whole = [
        {
            "kind": "model",
            "sha256": hashlib.sha256("".join(own.sort_values("first")["sha256"]).encode()).hexdigest(),
            "model_id": model,
            "model": own["model"].iloc[0],
            "n_filters": own["n_filters"].sum(),
        }
        for model, own in layers.assign(sha256=digests).groupby("model_id")
    ]
    table = pd.concat([single, pd.DataFrame(whole)])
    table["n_copies"] = table.groupby(["kind", "sha256"])["sha256"].transform("size")
    table = table[(table["n_copies"] > 1) & (table["n_filters"] >= settings.get("min_filters", 2))]
    table = table[table["kind"].isin([settings.get("kind", "layer"), settings.get("kind", "model")])]
    order = ["kind", "n_filters", "sha256", "model_id", "layer_id"]
    expected = table.sort_values(order, ascending=[True, False, True, True, True])
    found = data.wh.analysis("duplicate_filters", **settings)
    assert_table(found, expected[["kind", "sha256", "n_copies", *names]])


def test_there_are_copies_of_layers_and_models_only(wh: warehouse.Warehouse) -> None:
    with pytest.raises(QueryError, match="kind is 'filter'; expected layer or model"):
        wh.analysis("duplicate_filters", kind="filter")


def shape(data: Analysed, layer: pd.Series) -> str | None:
    """The rule that the view ``layer_shapes`` states."""
    if layer["n_filters"] < 16 or pd.isna(layer["sparsity"]):
        return None
    if layer["sparsity"] >= 0.5 or layer["variance_entropy_norm"] < 0.3:
        return "point"
    low, high = data.reference.range
    bins = np.floor(70 * (data.reference.coefficients[layer["first"] : layer["stop"], :2] - low) / (high - low) + 1e-9)
    bins = bins.clip(0, 69)
    if (bimodality(bins[:, np.ptp(bins, axis=0) > 0]) > 5 / 9).any():
        return "symbols"
    return "sun" if layer["variance_entropy_norm"] >= 0.95 else "spikes"


def bimodality(samples: np.ndarray) -> np.ndarray:
    """Sarle's coefficient of each column."""
    n = len(samples)
    excess = kurtosis(samples, bias=False) + 3 * (n - 1) ** 2 / ((n - 2) * (n - 3))
    return (skew(samples, bias=False) ** 2 + 1) / excess


@cache
def shapes(data: Analysed) -> list[str | None]:
    """The shape of every layer."""
    return [shape(data, layer) for _, layer in data.layers.iterrows()]


@pytest.mark.parametrize("axis", AXES)
def test_shapes_are_counted_by_their_rule(data: Analysed, axis: str | None) -> None:
    layers = data.layers.assign(shape=shapes(data))
    rows = []
    for group, own in layers.groupby(axis or "task"):
        judged = own["shape"].notna().sum()
        for name, alike in own.groupby("shape", dropna=False):
            share = None if pd.isna(name) else len(alike) / judged
            means = [alike[metric].astype(float).mean() for metric in ("sparsity", "variance_entropy_norm")]
            rows.append((group, name, len(alike), alike["n_filters"].sum(), share, *means))
    columns = ["grp", "shape", "n_layers", "n_filters", "share", "mean_sparsity", "mean_variance_entropy_norm"]
    found = data.wh.analysis("layer_shapes_by_group", axis=axis)
    assert_table(found, pd.DataFrame(rows, columns=columns), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(
    ("axis", "thresholds"), [(None, None), ("depth_decile", "0.3, 1e-5,0.01"), ("visual_category", "1")]
)
def test_sparsity_is_swept_over_the_chosen_thresholds(data: Analysed, axis: str | None, thresholds: str | None) -> None:
    chosen = sorted({float(text) for text in (thresholds or "0.001,0.002,0.005,0.01,0.02,0.05,0.1,0.2,0.5").split(",")})
    peaks = np.abs(data.reference.filters).max(axis=1)
    rows = []
    for group, own in data.groups(axis or "task").items():
        for eps in chosen:
            n = 0
            for first, stop in own[["first", "stop"]].itertuples(index=False):
                largest = peaks[first:stop].max()
                n += (peaks[first:stop] < eps * largest).sum() if largest else stop - first
            rows.append((group, eps, n, n / own["n_filters"].sum()))
    found = data.wh.analysis("sparsity_sweep", axis=axis, thresholds=thresholds)
    assert_table(found, pd.DataFrame(rows, columns=["grp", "eps", "n_sparse", "sparsity"]))


@pytest.mark.parametrize("threshold", ["0.0123", "0", "2", "1e-6", "much", ""])
def test_a_threshold_that_is_not_counted_is_an_error(wh: warehouse.Warehouse, threshold: str) -> None:
    with pytest.raises(QueryError, match=f"threshold '{threshold}' is not a number of at most two significant digits"):
        wh.analysis("sparsity_sweep", thresholds=f"0.01,{threshold}")


def test_shapes_of_made_up_layers_are_known(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    noise = rng.normal(size=(400, 9))
    centre = np.outer(rng.choice([-1, 1], 400), [1, 1, 0, 0, 0, 0, 0, 0, 0])
    clouds = {
        "sun": noise,
        "point": np.outer(rng.uniform(0.01, 1, 400), np.ones(9)) + 1e-4 * noise,
        "symbols": centre + 0.2 * noise,
        "spikes": noise * np.geomspace(1, 0.2, 9),
    }
    with warehouse_of(tmp_path, [*clouds.items(), ("small", rng.normal(size=(15, 9)))]) as wh:
        found = wh.analysis("layer_shapes_by_group").fetchall()
    assert [row[:5] for row in found] == [
        *((name, name, 1, len(cloud), 1.0) for name, cloud in sorted(clouds.items()) if name < "small"),
        ("small", None, 1, 15, None),
        *((name, name, 1, len(cloud), 1.0) for name, cloud in sorted(clouds.items()) if name > "small"),
    ]
