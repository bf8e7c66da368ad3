"""Running an analysis: its parameters are declared, bound and forgotten; what is wrong is said with a suggestion."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import warehouse
from tests.test_cli import call_main
from warehouse import analyses
from warehouse.errors import CatalogError, QueryError

HEADER = """-- purpose: p
-- source: s
-- parameters: {parameters}
-- grain: one row
-- columns: c
-- reading: r
-- example: warehouse analyses cnn.warehouse a
-- portable: yes
select 1 as c
"""


def test_the_table_lists_every_file_with_its_text(wh: warehouse.Warehouse) -> None:
    texts = dict(wh.sql("select name, query from analyses").fetchall())
    assert texts == {analysis.name: analysis.text for analysis in analyses.load()}
    assert len(texts) > 40


def test_a_value_replaces_a_default(wh: warehouse.Warehouse) -> None:
    default = wh.analysis("coefficient_density").pl()
    chosen = wh.analysis("coefficient_density", x=2, y="3", bins=16).pl()
    assert default["x"].unique().to_list() == [0]
    assert (chosen["x"].unique().to_list(), chosen["y"].unique().to_list()) == ([2], [3])
    assert chosen["x_bin"].max() < 16
    assert default["n"].sum() == chosen["n"].sum() == 20_000


def test_a_numpy_number_is_a_number(wh: warehouse.Warehouse) -> None:
    assert wh.analysis("coefficient_density", bins=np.int32(4)).pl().height <= 16


def test_settings_are_bound_and_never_pasted(wh: warehouse.Warehouse) -> None:
    hostile = "x' or 1=1 --"
    assert wh.analysis("coefficient_density", task=hostile).fetchall() == []


def test_settings_do_not_leak_into_the_next_analysis(wh: warehouse.Warehouse) -> None:
    before = wh.analysis("coefficient_density", bins=32).fetchall()
    with pytest.raises(QueryError):
        wh.analysis("coefficient_density", bins=8, model="none")
    wh.analysis("coefficient_density", bins=8, layer_id=3)
    assert wh.analysis("coefficient_density", bins=32).fetchall() == before


def test_a_result_stays_what_it_was_when_another_analysis_runs(wh: warehouse.Warehouse) -> None:
    first = wh.analysis("coefficient_density", bins=4)
    wh.analysis("coefficient_density", bins=8)
    assert max(row[2] for row in first.fetchall()) < 4


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("drift_by_tsk", {}, "there is no analysis 'drift_by_tsk'; did you mean 'drift_by_task'"),
        ("coefficient_density", {"bin": 3}, "has no parameter 'bin'; did you mean 'bins'"),
        ("drift_by_task", {"bins": 3}, "has no parameter 'bins'; it has no parameters"),
        ("coefficient_density", {"bins": "many"}, "bins is 'many', expected integer: cells along each side"),
        ("explained_variance", {"axis": "tsk"}, "axis: layer_meta has no column 'tsk'; did you mean 'task'"),
        ("coefficient_density", {"model": "resnet0"}, "no model is called 'resnet0'; did you mean '"),
    ],
)
def test_what_is_not_there_is_said_with_a_suggestion(
    wh: warehouse.Warehouse, name: str, settings: dict, message: str
) -> None:
    with pytest.raises(QueryError, match=message):
        wh.analysis(name, **settings)


def test_the_command_lists_shows_and_runs(sample_warehouse: Path, tmp_path: Path) -> None:
    path = str(sample_warehouse)
    status, out, err = call_main("analyses", path)
    assert (status, err) == (0, "")
    assert all(analysis.name in out for analysis in analyses.load())
    status, out, _ = call_main("analyses", path, "drift_by_task", "--sql")
    assert (status, out) == (0, analyses.load()[[a.name for a in analyses.load()].index("drift_by_task")].text + "\n")
    settings = ["--set", "x=1", "--set", "bins=4", "--format", "json"]
    status, out, _ = call_main("analyses", path, "coefficient_density", *settings)
    rows = json.loads(out)
    assert status == 0
    assert {row["x"] for row in rows} == {1}
    assert sum(row["n"] for row in rows) == 20_000
    file = tmp_path / "drift.csv"
    assert call_main("analyses", path, "drift_by_task", "-o", str(file)) == (0, "", "")
    assert file.read_text().splitlines()[0] == "a,b,drift"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["drift_by_tsk"], 1, "error: there is no analysis 'drift_by_tsk'; did you mean 'drift_by_task'?"),
        (["drift_by_tsk", "--sql"], 1, "did you mean 'drift_by_task'"),
        (["drift_by_task", "--set", "x=1"], 1, "it has no parameters"),
        (["drift_by_task", "--set", "x"], 2, "is not name=value"),
        (["drift_by_task", "--format", "parquet"], 1, "parquet is not text"),
    ],
)
def test_the_command_says_what_is_wrong(
    sample_warehouse: Path, arguments: list[str], status: int, message: str
) -> None:
    found, out, err = call_main("analyses", str(sample_warehouse), *arguments)
    assert (found, out) == (status, "")
    assert message in err


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ("none", []),
        (
            "x (integer, 0): what; y (varchar, all of them): more",
            [("x", "integer", "0"), ("y", "varchar", "all of them")],
        ),
    ],
)
def test_parameters_are_read_from_the_header(parameters: str, expected: list[tuple[str, str, str]]) -> None:
    found = analyses.parse("a", HEADER.format(parameters=parameters))
    assert [(p.name, p.type, p.default) for p in found.parameters] == expected


@pytest.mark.parametrize("parameters", ["x: what", "x (integer): what", "x (integer, 0)", "x (integer, 0): a; y"])
def test_parameters_of_another_form_are_refused_with_the_file(parameters: str) -> None:
    with pytest.raises(CatalogError, match=r"sql/analyses/a\.sql: expected parameters as"):
        analyses.parse("a", HEADER.format(parameters=parameters))


@pytest.mark.parametrize("key", analyses.KEYS)
def test_a_header_without_an_entry_is_refused_with_the_file(key: str) -> None:
    lines = HEADER.format(parameters="none").splitlines()
    text = "\n".join(line for line in lines if not line.startswith(f"-- {key}:"))
    with pytest.raises(CatalogError, match=rf"sql/analyses/a\.sql: the header has no line `-- {key}"):
        analyses.parse("a", text)
