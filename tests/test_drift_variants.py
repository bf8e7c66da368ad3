"""The kinds of drift: within strata, held fixed, by depth, over pairs of models, from one group, to the nearest."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

import warehouse
from tests.analysed import warehouse_of
from tests.reference import Groups, Reference
from warehouse.errors import QueryError

Row = Callable[[pd.Series], object]
Refused = (duckdb.Error, QueryError)
AXES: dict[str, Row] = {
    "task": lambda row: row["task"],
    "conv_depth > 2": lambda row: row["conv_depth"] > 2,
    "model_id % 3 - 1": lambda row: row["model_id"] % 3 - 1,
    "conv_depth / 4": lambda row: row["conv_depth"] / 4,
    "case when n_filters > 100 then task end": lambda row: row["task"] if row["n_filters"] > 100 else None,
    "1": lambda row: 1,  # noqa: ARG005
}
STRUCT = "{'deep': conv_depth > 2, 'none': null::integer}"


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[warehouse.Warehouse]:
    """Six layers, one a model: two alike, two that cannot be measured, of which one has no sound one in its task."""
    rng = np.random.default_rng(4)
    same = rng.normal(size=(40, 9))
    layers = [
        ("a", same),
        ("b", same),
        ("a", np.full((90, 9), np.nan)),
        ("b", rng.normal(size=(60, 9)) ** 3),
        ("spoilt", np.full((7, 9), np.inf)),
        (None, rng.normal(size=(30, 9))),
    ]
    with warehouse_of(tmp_path_factory.mktemp("odd"), layers, allow_nonfinite=True) as opened:
        yield opened


def pairs(groups: Groups) -> list[tuple]:
    return list(itertools.combinations(sorted(groups), 2))


def size(layers: pd.DataFrame) -> int:
    return int(layers["n_filters"].sum())


def within(reference: Reference, axis: Row, given: Row, keep: Row | None = None) -> dict[tuple, tuple]:
    """Drift and sizes by stratum and pair."""
    found = {}
    for stratum, layers in reference.groups(given, keep).items():
        rows = [row for _, row in layers.iterrows()]
        values = {axis(row) for row in rows} - {None}
        own = {v: pd.DataFrame([row for row in rows if axis(row) == v]) for v in values if not pd.isna(v)}
        for a, b in pairs(own):
            found[stratum, a, b] = (reference.drift(own[a], own[b]), size(own[a]), size(own[b]))
    return found


def assert_rows(found: list[tuple], expected: dict[tuple, tuple]) -> None:
    assert [row[:3] for row in found] == sorted(expected)
    for row in found:
        assert row[3:] == pytest.approx(expected[row[:3]], rel=1e-10, abs=1e-12), row[:3]


@pytest.mark.parametrize("axis", [axis for axis in AXES if axis != "1"])
@pytest.mark.parametrize("given", ["depth_decile", "conv_depth > 2"])
def test_drift_within_compares_what_each_stratum_has(
    wh: warehouse.Warehouse, reference: Reference, axis: str, given: str
) -> None:
    strata: Row = AXES.get(given, lambda row: row["depth_decile"])
    assert_rows(wh.sql(f"from drift_within({axis}, {given})").fetchall(), within(reference, AXES[axis], strata))


def test_drift_within_keeps_only_what_it_is_told(wh: warehouse.Warehouse, reference: Reference) -> None:
    found = wh.sql("from drift_within(task, depth_decile, keep := n_filters > 150)").fetchall()
    expected = within(reference, AXES["task"], lambda row: row["depth_decile"], keep=lambda row: row["n_filters"] > 150)
    assert 0 < len(expected) < len(within(reference, AXES["task"], lambda row: row["depth_decile"]))
    assert_rows(found, expected)


def test_an_axis_and_strata_may_be_structs_with_null_fields(wh: warehouse.Warehouse) -> None:
    plain = wh.sql("from drift_within(conv_depth > 2, task)").fetchall()
    structs = wh.sql(f"from drift_within({STRUCT}, {{'task': task, 'none': null::integer}})").fetchall()
    assert [(s["task"], a["deep"], b["deep"]) for s, a, b, *_ in structs] == [row[:3] for row in plain]
    assert len(plain) > 0
    np.testing.assert_allclose([row[3:] for row in structs], [row[3:] for row in plain], rtol=1e-12)


@pytest.mark.parametrize(
    "macro", ["drift_within({}, {})", "drift_controlled({}, {})", "drift_by_depth({})", "distances({})"]
)
def test_one_group_or_none_compares_nothing(wh: warehouse.Warehouse, macro: str) -> None:
    for axis in ("1", "null", "task, keep := false", "task, keep := null"):
        first, *rest = axis.split(", ", 1)
        call = ", ".join([macro.format(first, "1")[:-1], *rest]) + ")"
        assert wh.sql(f"from {call}").fetchall() == [], call


def test_drift_held_fixed_vanishes_where_only_the_mix_of_strata_differs(tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    wide, narrow = rng.normal(size=(200, 9)), rng.normal(size=(200, 9)) * np.geomspace(1, 0.05, 9)
    # x has much of the wide and little of the narrow, y the other way round
    layers = [("x", wide), ("x", wide), ("x", narrow), ("y", wide), ("y", narrow), ("y", narrow)]
    with warehouse_of(tmp_path, layers) as wh:
        given = "variance_entropy > 0.9"
        assert wh.sql(f"select count(*) from groups({given})").fetchall() == [(2,)]
        ((a, b, n_strata, drift_within, drift, *shares),) = wh.sql(f"from drift_controlled(task, {given})").fetchall()
    assert (a, b, n_strata, shares) == ("x", "y", 2, [1.0, 1.0])
    assert drift_within < 1e-12
    assert drift > 0.05


def test_drift_held_fixed_weights_strata_by_their_filters(wh: warehouse.Warehouse, reference: Reference) -> None:
    deep: Row = lambda row: row["conv_depth"] > 2  # noqa: E731
    strata = within(reference, AXES["task"], deep)
    groups = reference.groups(AXES["task"])
    rows = {row[:2]: row[2:] for row in wh.sql("from drift_controlled(task, conv_depth > 2)").fetchall()}
    assert list(rows) == pairs(groups)
    for (a, b), (n_strata, mean, drift, share_a, share_b) in rows.items():
        own = np.array([strata[s, a, b] for s in (False, True) if (s, a, b) in strata]).reshape(-1, 3)
        weights = own[:, 1] * own[:, 2] / own[:, 1:].sum(axis=1)
        assert n_strata == len(own)
        assert mean == (pytest.approx(weights @ own[:, 0] / weights.sum(), rel=1e-10) if len(own) else None)
        assert drift == pytest.approx(reference.drift(groups[a], groups[b]), rel=1e-10, abs=1e-12)
        shares = [own[:, i].sum() / size(groups[g]) for i, g in ((1, a), (2, b))]
        assert (share_a, share_b) == pytest.approx(tuple(shares))


@pytest.mark.parametrize("given", ["null", "task"])
def test_groups_that_share_no_stratum_have_no_drift_held_fixed(wh: warehouse.Warehouse, given: str) -> None:
    found = wh.sql(f"from drift_controlled(task, {given})").fetchall()
    plain = wh.sql("from drift(task) where a < b").fetchall()
    assert [(a, b, *rest) for a, b, *rest in found] == [(a, b, 0, None, drift, 0.0, 0.0) for a, b, drift in plain]


def test_layers_that_cannot_be_measured_weigh_nothing(odd: warehouse.Warehouse) -> None:
    ((stratum, a, b, drift, *sizes),) = odd.sql("from drift_within(task, 's')").fetchall()
    assert (stratum, a, b, sizes) == ("s", "a", "b", [40, 100])
    ((*_, n_strata, inside, plain, share_a, share_b),) = odd.sql("from drift_controlled(task, 's')").fetchall()
    assert (n_strata, share_a, share_b) == (1, 1, 1)
    assert drift == plain == pytest.approx(inside, rel=1e-14)
    assert {a for (a,) in odd.sql("select a from drift(task)").fetchall()} == {"a", "b"}


@pytest.mark.parametrize("keep", ["true", "conv_depth > 0"])
def test_drift_by_depth_has_every_tenth_of_every_pair(wh: warehouse.Warehouse, reference: Reference, keep: str) -> None:
    kept: Row = lambda row: keep == "true" or row["conv_depth"] > 0  # noqa: E731
    groups = reference.groups(AXES["task"], keep=lambda row: kept(row) and not pd.isna(row["depth_decile"]))
    there = within(reference, AXES["task"], lambda row: row["depth_decile"], keep=kept)
    found = wh.sql(f"from drift_by_depth(task, keep := {keep})").fetchall()
    tenths = [(depth, *pair) for depth in range(1, 11) for pair in pairs(groups)]
    assert [row[:3] for row in found] == tenths
    for row in found:
        sizes = []
        for group in row[1:3]:
            layers = groups[group]
            sizes.append(size(layers[layers["depth_decile"] == row[0]]))
        assert list(row[4:]) == sizes
        assert row[3] == (pytest.approx(there[row[:3]][0], rel=1e-10, abs=1e-12) if all(sizes) else None)


def test_without_depths_there_is_no_drift_by_depth(odd: warehouse.Warehouse) -> None:
    assert odd.sql("from drift_by_depth(task)").fetchall() == []


def sides(reference: Reference, listed: list[tuple[int, int]], holds: Row) -> list[pd.DataFrame]:
    """The layers of both sides, a model's as often as it is listed."""
    kept = reference.layers[[bool(holds(row)) for _, row in reference.layers.iterrows()]]
    return [pd.concat([kept[kept["model_id"] == model] for model in side]) for side in zip(*listed, strict=True)]


@pytest.mark.parametrize("listed", [[(0, 1)], [(0, 1), (2, 1), (3, 1)], [(0, 1), (0, 1), (1, 0)], [(2, 2)]])
def test_a_model_counts_once_per_pair(
    wh: warehouse.Warehouse, reference: Reference, listed: list[tuple[int, int]]
) -> None:
    values = ", ".join(f"({a}, {b})" for a, b in listed)
    query = f"with listed as (select * from (values {values}) as t(a, b)) from drift_paired('listed', keep := {{}})"
    for keep, holds in ("true", lambda _: True), ("conv_depth > 1", lambda row: row["conv_depth"] > 1):
        one, other = sides(reference, listed, holds)
        ((group, drift, *sizes),) = wh.sql(query.format(keep)).fetchall()
        assert (group, sizes) == ("all", [len(one), len(other)])
        assert drift == pytest.approx(reference.drift(one, other), rel=1e-10, abs=1e-12)


def test_pairs_are_compared_within_groups_that_both_sides_have(wh: warehouse.Warehouse, reference: Reference) -> None:
    query = "with listed as (select 0 as a, 1 as b) from drift_paired('listed', conv_depth)"
    both = sides(reference, [(0, 1)], lambda _: True)
    one, other = (dict(iter(side.groupby("conv_depth"))) for side in both)
    found = wh.sql(query).fetchall()
    assert [row[0] for row in found] == sorted(one.keys() & other.keys())
    for depth, drift, *sizes in found:
        assert drift == pytest.approx(reference.drift(one[depth], other[depth]), rel=1e-10, abs=1e-12)
        assert sizes == [len(one[depth]), len(other[depth])]


def test_pairs_come_from_a_file_and_name_models_in_any_way(wh: warehouse.Warehouse, tmp_path: Path) -> None:
    ((file, name),) = wh.sql("select model, name from models where model_id = 3").fetchall()
    expected = wh.sql("with p as (select 0 as a, 3 as b) from drift_paired('p')").fetchall()
    for own in (3, file, name):
        if own is not None:
            pd.DataFrame({"a": ["0"], "b": [own]}).to_csv(tmp_path / "it's pairs.csv", index=False)
            path = str(tmp_path / "it's pairs.csv").replace("'", "''")
            assert wh.sql(f"from drift_paired('{path}')").fetchall() == expected
    assert wh.sql("with p as (select 0 as a, 1 as b where false) from drift_paired('p')").fetchall() == []


@pytest.mark.parametrize(("model", "message"), [("null", "no model is called 'NULL'"), ("'none'", "did you mean '")])
def test_a_pair_of_an_unknown_model_is_refused(wh: warehouse.Warehouse, model: str, message: str) -> None:
    with pytest.raises(Refused, match=message):
        wh.sql(f"with p as (select 0 as a, {model} as b) from drift_paired('p')").fetchall()


def test_drift_from_one_group_is_its_row_of_the_matrix(wh: warehouse.Warehouse, reference: Reference) -> None:
    groups = reference.groups(AXES["task"])
    for task in groups:
        query = f"with d as (from distributions(task)) from drift_from('d', '{task}')"
        found = wh.sql(query).fetchall()
        assert [grp for grp, _ in found] == sorted(groups.keys() - {task})
        for other, drift in found:
            assert drift == pytest.approx(reference.drift(groups[task], groups[other]), rel=1e-10, abs=1e-12)
    assert wh.sql("with d as (from distributions(task)) from drift_from('d', 'none')").fetchall() == []


def test_drift_of_what_is_not_there_is_null(wh: warehouse.Warehouse) -> None:
    query = """
        with halves as (from distributions(layer_id % 2)), vectors as (from drift_vectors('halves'))
        select drift_of_vectors(x, y), drift_of_vectors(y, x), drift_of_vectors(x, x)
        from vectors as x left join (from vectors where false) as y on true
    """
    assert wh.sql(query).fetchall() == [(None, None, 0.0)] * 2


def test_the_nearest_layers_are_those_of_the_least_drift_among_the_kept(
    wh: warehouse.Warehouse, reference: Reference
) -> None:
    layers = reference.layers
    for layer, keep in (0, lambda row: row["n_filters"] < 200), (5, lambda row: row["conv_depth"] == 2):
        condition = "n_filters < 200" if layer == 0 else "conv_depth = 2"
        kept = [i for i, row in layers.iterrows() if keep(row) and i != layer]
        drift = {i: reference.drift(layers.iloc[[layer]], layers.iloc[[i]]) for i in kept}
        expected = sorted(kept, key=drift.__getitem__)[:4]
        query = f"from nearest_layers({layer}, top := 4, keep := {condition})"
        found = wh.sql(query).fetchall()
        assert [(row[0], row[1]) for row in found] == list(enumerate(expected, start=1))
        np.testing.assert_allclose([row[-1] for row in found], [drift[i] for i in expected], rtol=1e-10)


@pytest.mark.parametrize("macro", ["nearest_models", "nearest_layers"])
def test_of_equal_drifts_the_smaller_number_is_nearer(odd: warehouse.Warehouse, macro: str) -> None:
    rows = odd.sql(f"from {macro}(3)").fetchall()  # one layer a model, so that their numbers agree
    found = {row[1]: (row[0], row[-1]) for row in rows}
    (first, drift), (second, same) = found[0], found[1]
    assert (second, same) == (first + 1, drift)
    (nearest, *_) = odd.sql(f"from {macro}(0)").fetchall()
    assert (nearest[1], nearest[-1]) == (1, 0.0)


@pytest.mark.parametrize("query", ["nearest_models(2)", "nearest_layers(2)", "nearest_layers(0, top := 0)"])
def test_nothing_is_near_what_cannot_be_measured(odd: warehouse.Warehouse, query: str) -> None:
    assert odd.sql(f"from {query}").fetchall() == []


def test_what_cannot_be_measured_is_near_nothing(odd: warehouse.Warehouse) -> None:
    assert {row[1] for row in odd.sql("from nearest_models(0, top := 100)").fetchall()} == {1, 3, 5}
    assert {row[1] for row in odd.sql("from nearest_layers(0, top := 100)").fetchall()} == {1, 3, 5}


@pytest.mark.parametrize("layer", ["80", "-1", "null", "0.5"])
def test_a_layer_that_is_not_there_is_refused(wh: warehouse.Warehouse, layer: str) -> None:
    with pytest.raises(Refused, match="there is no layer with layer_id"):
        wh.sql(f"from nearest_layers({layer})").fetchall()
