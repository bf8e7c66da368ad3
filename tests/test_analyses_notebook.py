"""The analyses of the notebook of CNN Filter DB, against NumPy, pandas, scikit-learn and matplotlib on the filters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.cbook import boxplot_stats

import warehouse
from tests.analysed import DATASETS, Analysed, analysed, assert_table, warehouse_of
from tests.reference import assert_components
from warehouse.errors import QueryError

NAMES = (
    "explained_variance component_correlation eigenimages distributions_by_group drift_by_task "
    "drift_by_visual_category drift_by_depth_decile drift_box_plots coefficient_density layer_sparsity_and_entropy"
).split()
AXES = (
    "task visual_category training_dataset architecture_family depth_decile pretrained op_set precision robust"
).split()


@pytest.fixture(scope="module", params=DATASETS)
def data(request: pytest.FixtureRequest) -> Analysed:
    return analysed(request)


@pytest.fixture
def subset(data: Analysed, request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings that choose what has the labels of one of the layers."""
    known = data.layers.dropna(subset=request.param.replace("model", "model_id").split())
    return data.settings(request.param, known.iloc[len(known) // 2])


SUBSETS = ["task", "visual_category training_dataset", "architecture_family", "model", "task depth_decile", "layer_id"]


def components(filters: np.ndarray) -> pd.DataFrame:
    """What PCA of ``(n, 9)`` filters has beside the components."""
    values = np.linalg.eigvalsh(np.cov(filters.T))[::-1]
    columns = {"component": range(9), "eigenvalue": values, "explained_variance_ratio": values / values.sum()}
    return pd.DataFrame(columns).assign(cumulative_ratio=np.cumsum(values) / values.sum())


def test_explained_variance_is_that_of_all_filters_and_of_each_group(data: Analysed) -> None:
    whole = components(data.reference.scaled)
    whole.insert(0, "grp", None)
    assert_table(data.wh.analysis("explained_variance"), whole)
    for axis in ("task", "depth_decile", "pretrained"):
        tables = {
            group: components(data.reference.scaled[data.reference.rows(layers)])
            for group, layers in data.groups(axis).items()
        }
        grouped = pd.concat([table.assign(grp=group) for group, table in tables.items()])
        expected = pd.concat([whole.astype({"grp": object}), grouped.astype({"grp": object})])[whole.columns]
        assert_table(data.wh.analysis("explained_variance", axis=axis), expected, atol=1e-11)


@pytest.mark.parametrize(
    ("subset", "axis"),
    list(zip(SUBSETS, [None, "depth_decile", "visual_category", "n_filters", None, "task"], strict=True)),
    indirect=["subset"],
)
def test_component_covariance_is_numpys_within_each_group(
    data: Analysed, subset: dict[str, Any], axis: str | None
) -> None:
    rows = []
    for group, layers in data.groups(axis or "task", data.chosen(subset)).items():
        coefficients = data.reference.coefficients[data.reference.rows(layers)]
        covariance, correlation = np.cov(coefficients.T), np.corrcoef(coefficients.T)
        rows += [(group, i, j, covariance[i, j], correlation[i, j]) for i in range(9) for j in range(9)]
    expected = pd.DataFrame(rows, columns=["grp", "i", "j", "covariance", "correlation"])
    assert_table(data.wh.analysis("component_correlation", axis=axis, **subset), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    ("subset", "filters"),
    list(zip(["", *SUBSETS[:-1]], ["scaled", "clean", "raw", "clean_raw", None, "clean"], strict=True)),
    indirect=["subset"],
)
def test_eigenimages_are_the_components_of_the_subset_and_of_its_groups(
    data: Analysed, subset: dict[str, Any], filters: str | None
) -> None:
    values = data.reference.filters if filters in ("raw", "clean_raw") else data.reference.scaled
    layers = data.chosen(subset)
    groups = {None: layers, **data.groups("depth_decile", layers)}
    found = data.wh.analysis("eigenimages", filters=filters, axis="depth_decile", **subset)
    assert found.columns == [
        *("grp", "component", "eigenvalue", "explained_variance_ratio", "cumulative_ratio"),
        *(f"w{i}" for i in range(9)),
    ]
    rows = iter(found.fetchall())
    for group, members in groups.items():
        chosen = data.reference.rows(members)
        if filters in ("clean", "clean_raw"):
            chosen = chosen[data.reference.clean[chosen]]
        images = [next(rows) for _ in range(9)]
        assert [image[0] for image in images] == [group] * 9
        assert_components([(*image[1:5], list(image[5:])) for image in images], np.cov(values[chosen].T))
    assert next(rows, None) is None


def test_eigenimages_without_settings_are_the_basis(data: Analysed) -> None:
    rows = data.wh.analysis("eigenimages").fetchall()
    assert [row[0] for row in rows] == [None] * 9
    claimed = data.reference.rows(data.layers)
    assert_components([(*row[1:5], list(row[5:])) for row in rows], np.cov(data.reference.scaled[claimed].T))


def test_an_unknown_kind_of_filters_is_refused(wh: warehouse.Warehouse) -> None:
    with pytest.raises(QueryError, match="expected scaled, clean, raw or clean_raw"):
        wh.analysis("eigenimages", filters="pretty")


@pytest.mark.parametrize(("axis", "component"), [(None, None), ("depth_decile", None), ("visual_category", 3)])
def test_distributions_of_groups_are_histograms(data: Analysed, axis: str | None, component: int | None) -> None:
    low, high = data.reference.range
    edges = low + np.arange(71) * (high - low) / 70
    tables = []
    for group, layers in data.groups(axis or "task").items():
        counts, probability = data.reference.histogram(layers), data.reference.probability(layers)
        for k in range(9) if component is None else [component]:
            density = counts[k] / counts[k].sum() / np.diff(edges)
            table = {"grp": group, "component": k, "bin": range(70), "bin_lo": edges[:-1], "bin_hi": edges[1:]}
            tables.append(pd.DataFrame(table).assign(n=counts[k], density=density, probability=probability[k]))
    found = data.wh.analysis("distributions_by_group", axis=axis, component=component)
    assert_table(found, pd.concat(tables, ignore_index=True))


@pytest.mark.parametrize("axis", ["task", "visual_category", "depth_decile"])
def test_drift_by_a_label_is_the_definitions(data: Analysed, axis: str) -> None:
    assert_table(data.wh.analysis(f"drift_by_{axis}"), data.drifts(data.groups(axis)))


def test_box_plots_of_drift_are_matplotlibs(data: Analysed) -> None:
    rows: list[dict[str, Any]] = []
    for axis in AXES:
        groups = data.groups(axis)
        drifts = data.drifts(groups).query("a < b")["drift"]
        row: dict[str, Any] = {"axis": axis, "n_groups": len(groups), "pairs": len(drifts)}
        if len(drifts):
            (box,) = boxplot_stats(drifts.to_numpy())
            row |= {"mean": box["mean"], "min": drifts.min(), "q1": box["q1"], "median": box["med"], "q3": box["q3"]}
            row |= {"max": drifts.max(), "whisker_low": box["whislo"], "whisker_high": box["whishi"]}
            row["n_outliers"] = len(box["fliers"])
        rows.append(row)
    assert_table(data.wh.analysis("drift_box_plots"), pd.DataFrame(rows))


@pytest.mark.parametrize(
    ("settings", "columns"),
    [
        ({}, ""),
        ({"bins": 40}, "task visual_category"),
        ({"x": 8, "y": 3, "bins": 7}, "layer_id"),
        ({"x": 2, "y": 2, "bins": 100}, "model"),
    ],
)
def test_density_of_coefficients_is_a_histogram_of_two_dimensions(
    data: Analysed, settings: dict[str, int], columns: str
) -> None:
    subset = data.settings(columns, data.layers.iloc[3])
    # without settings, filters that no layer claims count too
    chosen = data.reference.rows(data.chosen(subset)) if subset else slice(None)
    x, y, bins = settings.get("x", 0), settings.get("y", 1), settings.get("bins", 512)
    low, high = data.reference.range
    width = (high - low) / bins
    cells = np.floor((data.reference.coefficients[chosen][:, [x, y]] - low) / width + 1e-9).clip(0, bins - 1)
    (found, counts) = np.unique(cells.astype(int), axis=0, return_counts=True)
    expected = pd.DataFrame({"x": x, "y": y, "x_bin": found[:, 0], "y_bin": found[:, 1]})
    for name in ("x", "y"):
        expected[f"{name}_lo"] = low + expected[f"{name}_bin"] * width
        expected[f"{name}_hi"] = low + (expected[f"{name}_bin"] + 1) * width
    assert_table(data.wh.analysis("coefficient_density", **settings, **subset), expected.assign(n=counts))


@pytest.mark.parametrize("subset", ["", *SUBSETS[:4]], indirect=True)
def test_sparsity_and_entropy_of_layers_are_the_definitions(data: Analysed, subset: dict[str, Any]) -> None:
    columns = (
        "layer_id model_id model task visual_category architecture_family conv_depth conv_depth_norm n_filters "
        "n_sparse sparsity variance_entropy randomness_threshold variance_entropy_norm is_random is_degenerate"
    ).split()
    expected = data.chosen(subset).sort_values("layer_id")[columns]
    assert_table(data.wh.analysis("layer_sparsity_and_entropy", **subset), expected)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[warehouse.Warehouse]:
    """A warehouse of two layers that tells nothing of its models."""
    layers = [(None, np.random.default_rng(7).normal(size=(30, 9))), (None, np.zeros((4, 9)))]
    with warehouse_of(tmp_path_factory.mktemp("bare"), layers) as opened:
        yield opened


@pytest.mark.parametrize("name", NAMES)
def test_models_without_labels_give_what_needs_none(bare: warehouse.Warehouse, name: str) -> None:
    found = bare.analysis(name).df()
    if name in ("explained_variance", "eigenimages"):
        assert found["component"].tolist() == list(range(9))
    elif name == "layer_sparsity_and_entropy":
        assert found["sparsity"].tolist() == [0, 1]
    elif name == "coefficient_density":
        assert found["n"].sum() == 34
    elif name == "drift_box_plots":
        assert found["axis"].tolist() == AXES
        assert (found[["n_groups", "pairs"]] == 0).all(axis=None)
        assert found.drop(columns=["axis", "n_groups", "pairs"]).isna().all(axis=None)
    else:
        assert found.empty
