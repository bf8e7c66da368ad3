"""What users give as an axis or a condition: one expression over known columns, or a refusal in one line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import warehouse
from warehouse.errors import QueryError
from warehouse.expressions import check, check_groups

EXPRESSIONS = [
    "task",
    " TASK\n",
    '"task"',
    "layer_meta.task",
    "concat(task, '/', visual_category)",
    "case when sparsity > 0.5 then 'sparse' end",
    "row_number() over (partition by model_id order by conv_depth)",
    "list_transform([1, 2], lambda x: x + conv_depth)",
    "(select max(depth) from models)",
    "model_id in (select model_id from model_datasets where dataset = 'x')",
    "task /* which */",
    "'--); drop table models'",
    "1",
    "not is_degenerate and conv_depth between 1 and 3",
]
NOT_ONE = [
    "",
    "  ",
    "task, model",
    "task,",
    "task, /* more */",
    "1 then 2 end, case when 3",
    "task)",
    "task) --",
    "(task) --",
    "(task",
    "task -- a comment",
    "task /* a comment",
    "task;",
    "task; drop table models",
    "task as t",
    "*",
    "columns('.*')",
    "task from layer_meta",
    "task where true",
    "task order by 1",
    "task limit 1",
    "distinct task",
    "keep := false",
    "task, keep := false",
    "1) union select (2",
    "select 1",
    "'open",
]


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_one_expression_is_taken_as_it_stands(wh: warehouse.Warehouse, text: str) -> None:
    checked = check(wh, text, "axis")
    assert checked == text.strip()
    assert wh.sql(f"from layer_groups({checked})").fetchall()


@pytest.mark.parametrize("text", NOT_ONE)
def test_all_else_is_refused_in_one_line_that_names_it(wh: warehouse.Warehouse, text: str) -> None:
    with pytest.raises(QueryError, match=r"^--axis .*(expression|is empty)") as refusal:
        check(wh, text, "--axis")
    message = str(refusal.value)
    assert "\n" not in message
    assert text.strip() in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("taks", "axis 'taks': there is no column 'taks'; did you mean 'task'?"),
        ("upper(visual_categry)", "there is no column 'visual_categry'; did you mean 'visual_category'?"),
        ("list_transform([1], lambda x: x + y)", "there is no column 'y'; "),
        ("a.b", "there is no column 'a.b'; see: describe layer_meta"),
        ("w0 > 0", "there is no column 'w0'"),
    ],
)
def test_an_unknown_column_is_named_with_what_was_meant(wh: warehouse.Warehouse, text: str, message: str) -> None:
    with pytest.raises(QueryError) as refusal:
        check(wh, text, "axis")
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_other_tables_have_other_columns(wh: warehouse.Warehouse) -> None:
    assert check(wh, "w0 > 0 and task = 'x'", "keep", ["filter_meta"])
    with pytest.raises(QueryError, match="no column 'sparsity'"):
        check(wh, "sparsity > 0", "keep", ["filter_meta"])


@dataclass
class Stub:
    """As much of a warehouse as the check of an expression needs."""

    connection: duckdb.DuckDBPyConnection

    def sql(self, query: str, params: dict[str, str] | None = None) -> duckdb.DuckDBPyRelation:
        return self.connection.sql(query, params=params)


@pytest.fixture(scope="module")
def stub() -> Iterator[Stub]:
    """With the tables of layers, and a macro that takes two expressions."""
    with duckdb.connect() as con:
        con.execute("create table k as select 1 as t, 2 as k, 3 as tk")
        for name in ("layer_meta", "layer_quality"):
            con.execute(f"create view {name} as from k")
        con.execute("create macro two(a, b) as [a is null, b]")
        yield Stub(con)


@settings(max_examples=150, deadline=None)
@given(text=st.text(st.sampled_from("()',;-/*\n tk1\"$:=[]"), max_size=12))
def test_what_is_taken_never_changes_the_question_around_it(stub: Stub, text: str) -> None:
    try:
        checked = check(stub, text, "axis")
    except QueryError:
        return
    # as the argument of a macro it is one argument, and nothing after it is lost
    try:
        (row,) = stub.connection.execute(f"select two({checked}, 'end') from k").fetchall()
    except (duckdb.BinderException, duckdb.CatalogException, duckdb.ConversionException, duckdb.InvalidInputException):
        return
    assert row[0][1] == "end"


def test_an_axis_without_groups_or_with_too_many_is_refused_with_the_count(wh: warehouse.Warehouse) -> None:
    check_groups(wh, "task", "task")
    check_groups(wh, "layer_id", "layer_id")
    with pytest.raises(QueryError, match="'null' is NULL everywhere, or no layer is kept"):
        check_groups(wh, "null", "null")
    with pytest.raises(QueryError, match="no layer is kept"):
        check_groups(wh, "task", "task, keep := false")
    with pytest.raises(QueryError, match=r"the axis 'unnest.range.2001..' has 2,001 groups, more than 2,000"):
        check_groups(wh, "unnest(range(2001))", "unnest(range(2001))")


def test_what_duckdb_refuses_later_is_one_line(wh: warehouse.Warehouse) -> None:
    with pytest.raises(QueryError) as refusal:
        check_groups(wh, "sum(conv_depth)", "sum(conv_depth)")
    assert "\n" not in str(refusal.value)
