"""The macros over groups of layers, compared with what NumPy, SciPy and scikit-learn make of the same filters."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import entropy
from sklearn.decomposition import PCA

import warehouse
from tests.reference import Groups, Reference, assert_components, by_group, randomness_threshold, write_dataset

Row = Callable[[pd.Series], object]
AXES: list[tuple[str, Row]] = [
    ("task", lambda row: row["task"]),
    ("concat(task, '/', visual_category)", lambda row: f"{row['task']}/{row['Visual Category']}"),
    ("conv_depth = 0", lambda row: row["conv_depth"] == 0),
    ("depth_decile", lambda row: row["depth_decile"]),
    ("conv_depth / 4", lambda row: row["conv_depth"] / 4),
    ("model_id % 5 - 2", lambda row: row["model_id"] % 5 - 2),
    ("case when n_filters > 100 then task end", lambda row: row["task"] if row["n_filters"] > 100 else None),
    ("1", lambda row: 1),  # noqa: ARG005
]
KEEPS: list[tuple[str, Row]] = [
    ("conv_depth > 0", lambda row: row["conv_depth"] > 0),
    ("depth_decile between 2 and 8 or n_filters > 500", lambda r: 2 <= r["depth_decile"] <= 8 or r["n_filters"] > 500),
]


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[warehouse.Warehouse, Reference]]:
    """Layers that are alone, constant, zero, flat or without a task, and filters that no layer claims."""
    rng = np.random.default_rng(5)
    layers = [
        ("one", rng.normal(size=(1, 9))),
        ("constant", np.tile(rng.normal(size=9), (20, 1))),
        ("zero", np.zeros((5, 9))),
        (None, rng.normal(size=(30, 9))),
        ("two", rng.normal(size=(2, 9))),
        ("constants", np.tile(rng.normal(size=9), (7, 1))),
        ("constants", np.tile(rng.normal(size=9), (3, 1))),
        ("flat", rng.normal(size=(50, 2)) @ rng.normal(size=(2, 9))),
        ("ordinary", rng.normal(size=(300, 9)) * np.linspace(0.3, 2, 9)),
    ]
    path = tmp_path_factory.mktemp("odd") / "dataset.h5"
    write_dataset(path, layers, unclaimed=rng.normal(size=(40, 9)))
    warehouse.ingest(path, path.with_name("odd.warehouse"))
    with warehouse.open(path.with_name("odd.warehouse")) as opened:
        yield opened, Reference(path)


def drifts(wh: warehouse.Warehouse, arguments: str) -> dict[tuple[object, object], float]:
    rows = wh.sql(f"from drift({arguments})").fetchall()
    found = {(a, b): drift for a, b, drift in rows}
    assert len(found) == len(rows)
    return found


def assert_drifts(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for pair, drift in expected.items():
        assert found[pair] == pytest.approx(drift, rel=1e-11, abs=1e-12), pair


@pytest.mark.parametrize(("axis", "value"), AXES, ids=[axis for axis, _ in AXES])
def test_drift_between_all_groups_of_an_axis_is_the_definitions(
    wh: warehouse.Warehouse, reference: Reference, axis: str, value: Row
) -> None:
    groups = reference.groups(value)
    assert_drifts(drifts(wh, axis), reference.drifts(groups))


@pytest.mark.parametrize(("condition", "holds"), KEEPS, ids=[keep for keep, _ in KEEPS])
def test_keep_leaves_layers_out(wh: warehouse.Warehouse, reference: Reference, condition: str, holds: Row) -> None:
    groups = reference.groups(lambda row: row["task"], keep=holds)
    assert_drifts(drifts(wh, f"task, keep := {condition}"), reference.drifts(groups))


def test_layers_without_a_value_and_filters_without_a_layer_belong_to_no_group(
    odd: tuple[warehouse.Warehouse, Reference],
) -> None:
    wh, reference = odd
    groups = reference.groups(lambda row: row["task"])
    assert groups.keys() == {"one", "constant", "zero", "two", "constants", "flat", "ordinary"}
    assert_drifts(drifts(wh, "task"), reference.drifts(groups))
    assert dict(wh.sql("select grp, n_filters from groups(task)").fetchall()) == {
        task: layers["n_filters"].sum() for task, layers in groups.items()
    }


@pytest.mark.parametrize("query", ["task", "layer_id", "depth_decile", "conv_depth / 3"])
def test_drift_is_symmetric_to_the_last_bit_and_zero_on_the_diagonal(wh: warehouse.Warehouse, query: str) -> None:
    found = drifts(wh, query)
    assert list(found) == sorted(found)
    assert len(found) > 1
    for (a, b), drift in found.items():
        assert drift == found[b, a]
        assert drift == 0 if a == b else drift >= 0


@pytest.mark.parametrize("macro", ["drift", "distributions", "pca", "quality", "groups"])
@pytest.mark.parametrize("arguments", ["task, keep := false", "task, keep := null", "null", "task, keep := depth < 0"])
def test_no_layers_give_no_rows(wh: warehouse.Warehouse, macro: str, arguments: str) -> None:
    assert wh.sql(f"from {macro}({arguments})").fetchall() == []


@pytest.mark.parametrize(("axis", "value"), AXES[:4], ids=[axis for axis, _ in AXES[:4]])
def test_summary_describes_the_unordered_pairs(
    wh: warehouse.Warehouse, reference: Reference, axis: str, value: Row
) -> None:
    groups = reference.groups(value)
    expected = [reference.drift(groups[a], groups[b]) for a, b in itertools.combinations(groups, 2)]
    (row,) = wh.sql(f"from drift_summary({axis}) select pairs, min, q1, median, q3, max, mean").fetchall()
    assert row[0] == len(expected)
    wanted = [*np.percentile(expected, [0, 25, 50, 75, 100]), np.mean(expected)]
    np.testing.assert_allclose(row[1:], wanted, rtol=1e-11)


@pytest.mark.parametrize("arguments", ["1", "task, keep := false"])
def test_summary_of_less_than_two_groups_is_null(wh: warehouse.Warehouse, arguments: str) -> None:
    (row,) = wh.sql(f"from drift_summary({arguments})").fetchall()
    assert row == (0, *[None] * 6)


BETWEEN: list[tuple[str, str, Row, Row]] = [
    ("task = 'Classification'", "task = 'Segmentation'",
     lambda r: r["task"] == "Classification", lambda r: r["task"] == "Segmentation"),
    ("conv_depth = 0", "depth_decile > 5", lambda r: r["conv_depth"] == 0, lambda r: r["depth_decile"] > 5),
    ("conv_depth < 6", "conv_depth > 3 or model_id = 1",
     lambda r: r["conv_depth"] < 6, lambda r: r["conv_depth"] > 3 or r["model_id"] == 1),
    ("true", "model_id = 0", lambda r: True, lambda r: r["model_id"] == 0),  # noqa: ARG005
]  # fmt: skip


@pytest.mark.parametrize(("a", "b", "in_a", "in_b"), BETWEEN)
def test_drift_between_two_sets_adds_up_over_the_components(
    wh: warehouse.Warehouse, reference: Reference, a: str, b: str, in_a: Row, in_b: Row
) -> None:
    one, other = reference.groups(lambda r: bool(in_a(r)))[True], reference.groups(lambda r: bool(in_b(r)))[True]
    rows = wh.sql(f"from drift_between({a}, {b})").fetchall()
    p, q = reference.probability(one), reference.probability(other)
    parts = reference.pca.explained_variance_ratio_ * ((p - q) * np.log(p / q)).sum(axis=1)
    assert [component for component, _, _ in rows] == [*range(9), None]
    np.testing.assert_allclose([drift for _, drift, _ in rows], [*parts, parts.sum()], rtol=1e-11)
    np.testing.assert_allclose([share for _, _, share in rows], [*parts / parts.sum(), 1], rtol=1e-11)
    assert rows[-1][1] == pytest.approx(reference.drift(one, other), rel=1e-11)


def test_drift_between_disjoint_sets_is_that_of_their_axis(wh: warehouse.Warehouse) -> None:
    pair = drifts(wh, "conv_depth = 0")[True, False]
    (total,) = wh.sql("from drift_between(conv_depth = 0, conv_depth != 0) where component is null").fetchall()
    assert total[1] == pytest.approx(pair, rel=1e-12)


@pytest.mark.parametrize(("a", "b"), [("true", "true"), ("conv_depth > 2", "not conv_depth <= 2")])
def test_drift_between_equal_sets_is_zero_and_has_no_shares(wh: warehouse.Warehouse, a: str, b: str) -> None:
    for _ in range(5):  # sums in another order differ in the last bit, which may happen or not
        rows = wh.sql(f"from drift_between({a}, {b})").fetchall()
        assert rows == [(component, 0.0, None) for component in [*range(9), None]]


@pytest.mark.parametrize("sets", ["true, false", "false, true", "task = 'none', task = 'Segmentation'", "null, true"])
def test_drift_between_an_empty_set_and_another_has_no_rows(wh: warehouse.Warehouse, sets: str) -> None:
    assert wh.sql(f"from drift_between({sets})").fetchall() == []


@pytest.mark.parametrize("arguments", ["task", "depth_decile", "task, keep := conv_depth > 0"])
def test_distributions_are_those_of_the_coefficients(
    wh: warehouse.Warehouse, reference: Reference, arguments: str
) -> None:
    holds = KEEPS[0][1] if "keep" in arguments else None
    groups = reference.groups(lambda row: row[arguments.split(",")[0]], keep=holds)
    found = wh.sql(f"from distributions({arguments})").df()
    low, high = reference.range
    edges = np.linspace(low, high, 71)
    assert len(found) == 630 * len(groups)
    for name, rows in found.groupby("grp", sort=False):
        n, density, probability = (
            rows.pivot_table(column, "component", "bin").to_numpy() for column in ("n", "density", "probability")
        )
        np.testing.assert_array_equal(n, reference.histogram(groups[name]))
        np.testing.assert_array_equal(n.sum(axis=1), np.full(9, groups[name]["n_filters"].sum()))
        np.testing.assert_allclose(density.sum(axis=1) * (high - low) / 70, 1, rtol=1e-12)
        np.testing.assert_allclose(probability.sum(axis=1), 1, rtol=1e-12)
        np.testing.assert_allclose(probability, reference.probability(groups[name]), rtol=1e-12)
        for component in range(9):
            bins = rows[rows["component"] == component]
            assert bins["bin"].tolist() == list(range(70))
            np.testing.assert_allclose(bins["bin_lo"], edges[:-1], atol=1e-12)
            np.testing.assert_allclose(bins["bin_hi"], edges[1:], atol=1e-12)


def assert_pca(wh: warehouse.Warehouse, reference: Reference, axis: str, groups: Groups) -> None:
    found = by_group(wh.sql(f"from pca({axis})").fetchall())
    assert found.keys() == groups.keys()
    for name, layers in groups.items():
        scaled = reference.scaled[reference.rows(layers)]
        assert_components(found[name], np.cov((scaled - scaled[0]).T) if len(scaled) > 1 else np.zeros((9, 9)))
        if len(scaled) < 9 or not np.ptp(scaled, axis=0).any():
            continue
        fit = PCA(svd_solver="full").fit(scaled)
        _, values, ratios, _, loadings = (np.array(column) for column in zip(*found[name], strict=True))
        np.testing.assert_allclose(values, fit.explained_variance_, rtol=0, atol=1e-13)
        np.testing.assert_allclose(ratios, fit.explained_variance_ratio_, rtol=0, atol=1e-13)
        gaps = np.abs(np.diff(fit.explained_variance_, prepend=np.inf, append=-np.inf))
        apart = np.minimum(gaps[:-1], gaps[1:]) > 1e-4  # else the eigenvectors are not unique
        cosines = (loadings * fit.components_).sum(axis=1)
        np.testing.assert_allclose(np.abs(cosines[apart]), 1, atol=1e-9)


@pytest.mark.parametrize(("axis", "value"), AXES, ids=[axis for axis, _ in AXES])
def test_pca_of_groups_is_scikit_learns(wh: warehouse.Warehouse, reference: Reference, axis: str, value: Row) -> None:
    assert_pca(wh, reference, axis, reference.groups(value))


def test_pca_of_layers_is_scikit_learns(wh: warehouse.Warehouse, reference: Reference) -> None:
    layers = reference.layers
    groups = {layer: layers.iloc[[layer]] for layer in range(len(layers))}
    assert_pca(wh, reference, "layer_id", groups)


def test_pca_of_one_filter_and_of_constant_filters_has_no_variance(odd: tuple[warehouse.Warehouse, Reference]) -> None:
    wh, reference = odd
    assert_pca(wh, reference, "task", reference.groups(lambda row: row["task"]))
    rows = wh.sql("select * exclude (loading, component) from pca(task, keep := n_filters < 30)").fetchall()
    flat = {"one", "constant", "zero"}
    assert {row for row in rows if row[0] in flat} == {(task, 0.0, 0.0, 0.0) for task in flat}


# Columns of `quality` that are means, and what weights the layers.
MEANS = {
    "sparsity": "n_filters",
    "variance_entropy": "n_filters",
    "variance_entropy_norm": "n_filters",
    "variance_entropy_clean": "n_filters",
    "variance_entropy_clean_norm": "n_filters",
    "scaled_clean_entropy": "n_clean",
    "orthogonality": "out_channels",
    "is_random": "one",
    "is_degenerate": "one",
}


@pytest.mark.parametrize("column", MEANS)
@pytest.mark.parametrize(
    ("opened", "expected", "axis"), [("wh", "reference", "task"), ("lens_wh", "lens_reference", "model_id")]
)
def test_quality_of_a_group_is_the_weighted_mean_of_its_layers(
    request: pytest.FixtureRequest, opened: str, expected: str, axis: str, column: str
) -> None:
    wh, reference = request.getfixturevalue(opened), request.getfixturevalue(expected)
    name = column.replace("is_", "share_")
    found = dict(wh.sql(f"from quality({axis}) select grp, {name}").fetchall())
    groups = reference.groups(lambda row: row[axis])
    assert found.keys() == groups.keys()
    for group, layers in groups.items():
        table = reference.qualities.loc[layers.index].assign(one=1)
        known = table[table[column].notna()].astype(float)
        if known.empty:
            assert found[group] is None
        else:
            assert found[group] == pytest.approx(np.average(known[column], weights=known[MEANS[column]]), rel=1e-9)


def test_quality_counts_and_adds_up(wh: warehouse.Warehouse, reference: Reference) -> None:
    found = wh.sql("from quality(task) select grp, n_models, n_layers, n_filters, n_sparse, l1, l2").fetchall()
    assert wh.sql("from groups(task)").fetchall() == [row[:4] for row in found]
    groups = reference.groups(lambda row: row["task"])
    assert [row[0] for row in found] == sorted(groups)
    for task, *row in found:
        layers, filters = groups[task], reference.filters[reference.rows(groups[task])]
        sparse = reference.qualities.loc[layers.index, "n_sparse"].sum()
        counts = layers["model_id"].nunique(), len(layers), len(filters), sparse
        assert row == pytest.approx([*counts, np.abs(filters).sum(), np.linalg.norm(filters)], rel=1e-9)


P, Q = np.random.default_rng(9).dirichlet(np.ones(12), 2).tolist()
SCALARS = [
    ("peak([0.5, -2, 1])", 2),
    ("peak([])", None),
    ("peak(null)", None),
    ("scale([0.5, -2, 1])", [0.25, -1, 0.5]),
    ("scale([0, 0])", [0, 0]),
    ("randomness_threshold(9)", pytest.approx(0.5515, abs=5e-5)),
    ("randomness_threshold(64)", pytest.approx(0.9056, abs=5e-5)),
    ("randomness_threshold(4096)", pytest.approx(0.9511, abs=5e-5)),
    ("randomness_threshold(null)", None),
    *[(f"randomness_threshold({n})", pytest.approx(randomness_threshold(n), rel=1e-12)) for n in (1, 2, 3, 10**6)],
    (f"entropy10({P})", pytest.approx(entropy(P, base=10), rel=1e-12)),
    ("entropy10([3, 0, 1, 0])", pytest.approx(entropy([3, 1], base=10), rel=1e-12)),
    ("entropy10([1] * 9)".replace("[1] * 9", str([1] * 9)), pytest.approx(np.log10(9), rel=1e-12)),
    ("entropy10([0, 0])", 0),
    ("entropy10([7])", 0),
    ("entropy10([])", None),
    ("entropy10(null)", None),
    (f"kl_divergence({P}, {Q})", pytest.approx(entropy(P, Q), rel=1e-12)),
    ("kl_divergence([1, 0], [0.5, 0.5])", pytest.approx(np.log(2))),
    ("kl_divergence([0.5, 0.5], [1, 0])", np.inf),
    ("kl_divergence(null, [1])", None),
    ("kl_divergence([1], null)", None),
    (f"drift_of({P}, {Q})", pytest.approx(entropy(P, Q) + entropy(Q, P), rel=1e-12)),
    (f"drift_of({P}, {Q}) = drift_of({Q}, {P})", True),
    *[(f"depth_decile({x})", tenth) for x, tenth in [(0, 1), (0.1, 1), (0.2, 2), (1, 10), ("0.1 + 0.2", 3)]],
    *[(f"depth_decile({x}::double)", tenth) for x, tenth in [("0.1000001", 2), ("0.1 + 0.2", 3), ("0.7", 7)]],
    *[(f"depth_decile({x})", None) for x in ("null", -0.1, 1.1, "'nan'::double", "'inf'::double")],
]


@pytest.mark.parametrize(("expression", "expected"), SCALARS, ids=[expression[:40] for expression, _ in SCALARS])
def test_scalar_macro(wh: warehouse.Warehouse, expression: str, expected: object) -> None:
    ((found,),) = wh.sql(f"select {expression}").fetchall()
    assert found is None if expected is None else found == expected


def test_depth_decile_is_that_of_the_layers(wh: warehouse.Warehouse, reference: Reference) -> None:
    found = wh.sql("select depth_decile(conv_depth_norm), depth_decile from layers order by layer_id").fetchnumpy()
    for column in found.values():
        np.testing.assert_array_equal(np.ma.filled(column.astype(float), np.nan), reference.layers["depth_decile"])


def test_project_gives_the_coefficients_of_scikit_learns_pca(wh: warehouse.Warehouse, reference: Reference) -> None:
    rows = wh.sql("select project(scale(kernel)), peak(kernel) from kernels order by filter_id").fetchall()
    np.testing.assert_allclose([row[0] for row in rows], reference.coefficients, atol=1e-12)
    np.testing.assert_array_equal([row[1] for row in rows], np.abs(reference.filters).max(axis=1))


def test_weighted_mean_leaves_out_what_is_null(wh: warehouse.Warehouse) -> None:
    rows = "values ('a', 1.0, 2), ('a', null, 9), ('a', 4.0, 1), ('a', 7.0, null), ('b', null, 1), ('c', 5.0, 0)"
    found = wh.sql(f"from ({rows}) t(g, x, w) select g, weighted_mean(x, w) group by g order by g").fetchall()
    assert found == [("a", 2.0), ("b", None), ("c", None)]


def test_an_axis_may_be_a_window_function_or_name_the_quality_of_a_layer(wh: warehouse.Warehouse) -> None:
    thirds = dict(wh.sql("select grp, n_layers from groups(ntile(3) over (order by layer_id))").fetchall())
    assert thirds == {1: 27, 2: 27, 3: 26}
    sparse = wh.sql("select count(*) from layer_quality where sparsity > 0.1").fetchall()[0][0]
    assert dict(wh.sql("select grp, n_layers from quality(sparsity > 0.1)").fetchall())[True] == sparse
    assert len(wh.sql("from drift(is_degenerate)").fetchall()) == 4


@pytest.mark.parametrize(
    "query", ["drift(component)", "drift(n > 5)", "pca(mean[1] > 0)", "quality(q.l1)", "pca(position)"]
)
def test_an_axis_cannot_reach_the_tables_within_a_macro(wh: warehouse.Warehouse, query: str) -> None:
    with pytest.raises(warehouse.QueryError, match="not found"):
        wh.sql(f"from {query}")


def test_filters_that_are_all_alike_have_no_drift(tmp_path: Path) -> None:
    """The range of their histograms would be a point."""
    source = tmp_path / "alike.h5"
    write_dataset(source, [("A", np.full((4, 9), 0.5)), ("B", np.full((6, 9), 0.25))], np.empty((0, 9)))
    warehouse.ingest(source, tmp_path / "w")
    with warehouse.open(tmp_path / "w") as alike:
        assert [row[2] for row in alike.sql("from drift(task)").fetchall()] == [0, 0, 0, 0]
        assert alike.sql("select sum(n) from distributions(task)").fetchall() == [(90,)]
