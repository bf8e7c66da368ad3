"""Names that users choose: of models, of the tables that macros take, and of the columns of a source."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import duckdb
import h5py
import numpy as np
import pandas as pd
import pytest

import warehouse
from tests.analysed import changed
from tests.reference import write_dataset
from warehouse import sqlfiles
from warehouse.errors import QueryError

Refused = (duckdb.Error, QueryError)
MACROS = {item.name: item for item in sqlfiles.load("macros")}
FILE_NAMES = {
    0: "it's",
    1: 'say "a".pth',
    2: "twins.pth",
    3: "twins.pth",
    4: "7",
    5: "",
    6: "%_",
    7: "plain",
    8: "größe; drop table models --",
}


@pytest.fixture(scope="module")
def named(sample_warehouse: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    """The sample's database with file names that are hard to tell apart; model 9 is named like the file of model 7."""
    changes = [
        ("update models set model = $1, name = null where model_id = $2", [name, i]) for i, name in FILE_NAMES.items()
    ]
    changes += [("update models set model = null, name = 'plain' where model_id = 9", [])]
    with changed(sample_warehouse, tmp_path_factory.mktemp("named"), *changes) as con:
        yield con


@pytest.mark.parametrize("model", [0, 1, 6, 8])
def test_a_model_is_found_by_any_name_as_it_is_written(named: duckdb.DuckDBPyConnection, model: int) -> None:
    assert named.execute("select model_id_of($1)", [FILE_NAMES[model]]).fetchall() == [(model,)]


@pytest.mark.parametrize("value", ["7", "'7'", "7::bigint", "7::utinyint", "7::hugeint"])
def test_a_number_is_a_model_id_before_it_is_a_name(named: duckdb.DuckDBPyConnection, value: str) -> None:
    assert named.sql(f"select model_id_of({value})").fetchall() == [(7,)]


@pytest.mark.parametrize("value", ["6.6", "true", "' 7 '", "'7.0'", "'007'", "'1e0'", "-1", "12", "'IT''S'"])
def test_what_is_no_name_is_not_rounded_or_trimmed_to_one(named: duckdb.DuckDBPyConnection, value: str) -> None:
    with pytest.raises(duckdb.Error, match=r"no model is called '.*'; did you mean '"):
        named.sql(f"select model_id_of({value})").fetchall()


def test_an_empty_name_is_a_name_and_null_is_none(named: duckdb.DuckDBPyConnection) -> None:
    assert named.sql("select model_id_of('')").fetchall() == [(5,)]
    with pytest.raises(duckdb.Error, match="no model is called 'NULL'"):
        named.sql("select model_id_of(null)").fetchall()


@pytest.mark.parametrize(("name", "ids"), [("twins.pth", "2, 3"), ("plain", "7, 9")])
def test_a_name_of_several_models_is_refused_with_their_ids(
    named: duckdb.DuckDBPyConnection, name: str, ids: str
) -> None:
    with pytest.raises(
        duckdb.Error, match=rf"2 models are called '{name}'; choose one of them by its model_id: {ids}$"
    ):
        named.execute("select model_id_of($1)", [name]).fetchall()
    found = [named.sql(f"select count(*) from nearest_models({i})").fetchall() for i in ids.split(", ")]
    assert found == [[(10,)]] * 2


def test_the_closest_name_is_offered(named: duckdb.DuckDBPyConnection) -> None:
    with pytest.raises(duckdb.Error, match=r"did you mean 'twins\.pth'"):
        named.sql("select model_id_of('twinz.pth')").fetchall()


def test_a_column_named_like_those_of_models_is_looked_up_row_by_row(named: duckdb.DuckDBPyConnection) -> None:
    query = "select model_id_of(model) from (values ('it''s'), ('%_'), ('8')) as t(model)"
    assert sorted(named.sql(query).fetchall()) == [(0,), (6,), (8,)]


GROUPED = "select layer_id % 3 as grp, layer_id from layers"
TAKING = {
    "distributions_of('{}')": GROUPED,
    "distributions_of_counts('{}')": "select layer_id as grp, component, bin, n from layer_histograms",
    "drift_of_distributions('{}')": "from distributions(layer_id % 3)",
    "drift_from('{}', 1)": "from distributions(layer_id % 3)",
    "drift_vectors('{}')": "from distributions(layer_id % 3)",
    "covariances_of('{}')": GROUPED,
    "components_of('{}')": "from covariances(layer_id % 3)",
    "drift_paired('{}')": "select 0 as a, 1 as b",
    "bimodality('{}')": GROUPED,
    "distributions_resampled('grouping', '{}')":
        "select grp, grp as sample, list(1 order by layer_id) as times from grouping group by grp",
}  # fmt: skip


def own_names(macro: str) -> set[str]:
    """The CTEs of a macro and of all those that it uses."""
    item = MACROS[macro]
    code = re.sub(r"--.*", "", item.statement)
    names = set(re.findall(r"\b(\w+)(?:\([\w, ]*\))? as (?:materialized )?\(", code))
    return names.union(*(own_names(used) for used in item.uses if used in MACROS)) - MACROS.keys()


CLASHES = [(call, name) for call in TAKING for name in sorted(own_names(call.split("(")[0]))]
CLASHES = [
    (call, name) for call, name in CLASHES if not ("resampled" in call and name == "listed")
]  # as its header says


@pytest.mark.parametrize(("call", "name"), CLASHES)
def test_a_table_may_be_named_like_what_a_macro_names_inside(wh: warehouse.Warehouse, call: str, name: str) -> None:
    def ask(own: str) -> duckdb.DuckDBPyRelation:
        # sorted, for ranked sums need not agree in the last digit
        return wh.sql(f"with grouping as ({GROUPED}), {own} as ({TAKING[call]}) from {call.format(own)} order by all")

    found, expected = (ask(own).df() for own in (name, "a_name_of_mine"))
    pd.testing.assert_frame_equal(found, expected, rtol=1e-9, atol=1e-9)
    assert len(found) > 0


def test_a_source_may_have_columns_named_like_those_of_the_results(tmp_path: Path) -> None:
    """Some for models, some that differ between the layers of a model."""
    for_models = ["drift", "rank", "grp", "which", "top", "sparsity", "n_layers", "shape", "a", "b", "metric", "n"]
    for_layers = ["Layer", "value", "stratum", "q1", "sha256", "component", "times", "kept", "nearest"]
    rng = np.random.default_rng(1)
    path = tmp_path / "dataset.h5"
    write_dataset(path, [("a", rng.normal(size=(20, 9))) for _ in range(6)], unclaimed=np.zeros((0, 9)))
    with h5py.File(path) as file:
        filters = file["filters"][:]
    meta = pd.read_hdf(path, "meta").reset_index()
    meta["model_id"], meta["conv_depth"], meta["conv_depth_norm"] = [0, 0, 0, 1, 1, 1], [0, 1, 2] * 2, [0, 0.5, 1] * 2
    for name in for_models:
        meta[name] = [f"{name} {model}" for model in meta["model_id"]]
    for name in for_layers:
        meta[name] = [f"{name} {layer}" for layer in range(6)]
    path.unlink()
    meta.set_index(["model_id", "conv_depth", "conv_depth_norm"]).to_hdf(path, key="meta")
    with h5py.File(path, "a") as file:
        file["filters"] = filters
    warehouse.ingest(path, tmp_path / "w")
    with warehouse.open(tmp_path / "w") as wh:
        for name, example in wh.sql("select name, example from help where kind in ('view', 'table macro')").fetchall():
            assert wh.sql(example).fetchall() is not None, name
        assert wh.sql("select count(*) from nearest_models(0)").fetchall() == [(1,)]
        assert [row[0] for row in wh.sql("from nearest_layers(0, top := 3)").fetchall()] == [1, 2, 3]
        assert wh.sql("select layer_id from nearest_layers(0, keep := layer = 'Layer 4')").fetchall() == [(4,)]
        assert {a for (a,) in wh.sql('select a from drift("rank")').fetchall()} == {"rank 0", "rank 1"}
        assert wh.sql("select count(*) from quality_by_depth(grp)").fetchall() == [(2 * 3 * 6,)]
