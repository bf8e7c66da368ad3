"""DuckDB's SQL on Spark: each construct that is let through gives DuckDB's values, and any other is refused by name."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import warehouse
from tests.spark_sessions import SparkSession, difference, session
from warehouse.cli import app
from warehouse.errors import EngineError, LakeError, QueryError
from warehouse.on_spark.session import SparkWarehouse
from warehouse.session import Warehouse

__all__ = ["session"]

pytestmark = pytest.mark.slow

EXPRESSIONS = {
    "division": ("a / 2", "a / b", "b / a", "x / 0", "-x / 0", "0 / 0.0", "a / nullif(b, 0)", "1 / 3", "2.5 / 2"),
    "whole numbers": ("a // 2", "-7 // 2", "-7 % 2", "a % 3", "a * 100000000", "2 ** a", "abs(-a)", "a::bigint"),
    "casts": (
        *(
            "2.5::double::integer",
            "3.5::double::integer",
            "2.5::integer",
            "x::tinyint",
            "true::integer",
            "'7'::integer",
        ),
        *("a::varchar", "null::varchar", "(a > 1)::varchar", "a::double", "'nan'::double", "sum(a) over ()::bigint"),
        *("try_cast('1.5' as integer)", "try_cast('x' as double)", "try_cast('12' as integer)", "[1, a]::double[]"),
    ),
    "numbers": (
        *("ln(x)", "ln(0.0::double)", "ln(-1.0::double)", "log10(0.0::double)", "log2(8)", "log(100)", "exp(1000)"),
        *("floor(x)", "ceil(-x)", "floor('nan'::double)", "ceil('infinity'::double)", "round(0.125::double, 2)"),
        *("round(-2.5::double)", "sqrt(x)", "sign(-x)", "isfinite(x / 0)", "isfinite(x)", "isfinite(null::double)"),
        *("isnan(0 / 0)", "pow(x, 0.5)", "pow(0, -1)", "greatest(1, null, a)", "least(null, a)", "1e-20", "0.1 + 0.2"),
    ),
    "lists": (
        *(
            "[a, 5, 6][1]",
            "[a, 5][2]",
            "[a][0]",
            "[a][2]",
            "[a, 5][-1]",
            "[a, 5, 6][2:3]",
            "[a, 5, 6][2:9]",
            "[a][0:1]",
        ),
        *(
            "[a][3:2]",
            "range(a)",
            "range(0)",
            "range(2, 5)",
            "len([a, b])",
            "flatten([[a], [b, 1]])",
            "list_max([a, 5])",
        ),
        *("list_sum([x, null, 2])", "list_sum([]::double[])", "list_avg([x, null])", "list_max([x, 'nan'::double])"),
        *("list_min([a, 5])", "list_position([a, 5], 5)", "list_position([a], -1)", "list_dot_product([x, 2], [3, x])"),
        *("list_dot_product([]::double[], []::double[])", "list_transform([a, 7], lambda v: v + b)"),
        *("list_transform([7, 8, 9], lambda v, i: i)", "list_transform([x, 8], lambda v, i: [x, 1][i] * v)"),
        *(
            "array_to_string(['a', null, 'b'], '-')",
            "list_transform([1], lambda v: list_sum(list_transform([v], lambda w: w + v)))",
        ),
        *(
            "list_transform([{'v': a}], lambda item: item.v + 1)",
            "peak([a, -9, 1])",
            "scale([x, -2.0])",
            "entropy10([x, 2])",
        ),
    ),
    "text": (
        *(
            "lower('Ab')",
            "upper(s)",
            "length(s)",
            "trim('  a ')",
            "s || '-' || a",
            "concat(s, null, a)",
            "concat_ws(',', a, null, s)",
        ),
        *("regexp_matches(s, 'A', 'i')", "regexp_matches(s, '^b')", "regexp_replace(s, '[a-c]', 'x', 'g')", "md5('a')"),
        *("sha256('a')", "string_split('a.b', '.')", "s like 'a%'", "starts_with(s, 'a')", r"'back\slash'", "'it''s'"),
        *("jaro_winkler_similarity(s, 'abd')", "format('{:,} of {}', a * 1000, s)", "md5_number_lower(s) % 7"),
    ),
    "conditions": (
        *(
            "case when a > 1 then 1 else 0 end",
            "case a when 1 then 'one' end",
            "coalesce(null, b)",
            "a is distinct from b",
        ),
        *("a is not distinct from null", "a in (1, 2)", "a not in (1, 2)", "a between 1 and 2", "not (a = 1 or b = 0)"),
        *(
            "{'u': a, 'v': s}",
            "{'u': a}.u",
            "{'u': a, 'v': 1} < {'u': 2, 'v': 0}",
            "'nan'::double = 'nan'::double",
            "'nan'::double > x",
        ),
    ),
    "windows": (
        *("row_number() over (order by a desc)", "rank() over (order by b)", "dense_rank() over (order by b)"),
        *("sum(a) over (order by b)", "count(*) over (partition by b)", "max(x) filter (a > 1) over (partition by b)"),
        "avg(a) over ()",
    ),
    "aggregates": (),
}
TABLE = "(values (1, 0, 0.5::double, 'abc'), (2, 3, 2.5::double, 'bcd'), (3, 3, 7.0::double, 'a')) as t(a, b, x, s)"
QUERIES = (
    "select count(*), count(b), count(distinct b), sum(a), avg(a), min(s), max(x), median(x), stddev_samp(x) from {t}",
    "select quantile_cont(x, 0.3), quantile_cont(x, [0.25, 0.75]), covar_samp(a, x), corr(a, x), corr(a, 1) from {t}",
    "select stddev_pop(x), var_pop(x), stddev_pop(x) filter (a = 1), var_pop(x) filter (a > 9), var_samp(x) from {t}",
    "select list(s order by x), list(a order by b, a), list(a) filter (a > 9), list(nullif(b, 0) order by a) from {t}",
    "select string_agg(s, '' order by a), max_by(s, x), arg_min(s, x), bool_or(a > 2) from {t}",
    "select any_value(nullif(a, 1)), min(nullif(b, 0)) from {t} where a < 3",
    "select sum(x) filter (where a > 9), count(*) filter (a > 1), min({{'v': -x, 's': s}}) from {t}",
    "select b, sum(a) as total, total + 1 as more from {t} group by b order by all",
    "select b % 2 as odd, grouping(b % 2) as g, sum(x) from {t} group by grouping sets ((b % 2), ()) order by g, odd",
    "select nullif(b, 0) as v from {t} order by v desc, a",
    "select s from {t} where a > 1 order by nullif(b, 3) nulls first, s limit 1",
    "from {t} select * exclude (s) where x > (select avg(a) from {t}) order by a",
    "select distinct b from {t} order by b",
    "select unnest([a, b]) as v, a from {t} order by a, v",
    "select *, unnest([b, a]) as v from {t} order by a, v",
    "select unnest([1, 2]) + a as v, unnest(['p', 'q']) as w from {t} order by v, w",
    "select i from range(2, 5) as r(i) order by i desc",
    "with u as (unpivot (select a, b, s from {t}) on a, b into name k value v) from u order by k, v, s",
    "select a, rank() over (order by x) as r from {t} qualify r <= 2 order by a",
    "select x.a, y.b from (from {t}) as x left join (select 1 as a, 9 as b) as y using (a) order by x.a",
    "select * from (from {t}) as x join (select 3 as b, 1 as c) as y using (b) order by a",
    "from {t} semi join (select 3 as b) as other using (b) order by a",
    "select a from {t} union all select b from {t} order by a",
    "select a from {t} union select b from {t} order by a",
    "select a, a + 1 as next, sum(next) over (order by a) as total from {t} order by a",
    "select b, list(a order by a) as v, list_sum(v) as total from {t} group by b order by b",
)


@pytest.fixture(scope="module")
def spark(session: SparkSession, sample_warehouse: Path) -> SparkWarehouse:
    return warehouse.spark(sample_warehouse, session)


@pytest.fixture(scope="module")
def duck(sample_warehouse: Path) -> Iterator[Warehouse]:
    with warehouse.open(sample_warehouse) as opened:
        yield opened


def compare(spark: SparkWarehouse, duck: Warehouse, query: str, absolute: float = 1e-14) -> None:
    found, expected = spark.collected(query), duck.sql(query)
    assert found.columns == expected.columns
    assert found.types == expected.types
    rows = expected.fetchall()
    assert rows, query
    told = difference(found.fetchall(), rows, absolute)
    assert told is None, f"{told}: {query}"


@pytest.mark.parametrize("kind", [kind for kind, listed in EXPRESSIONS.items() if listed])
def test_expressions_have_duckdbs_values(spark: SparkWarehouse, duck: Warehouse, kind: str) -> None:
    listed = ", ".join(f"{expression} as c{position}" for position, expression in enumerate(EXPRESSIONS[kind]))
    compare(spark, duck, f"select {listed} from {TABLE} order by a")


@pytest.mark.parametrize("query", QUERIES)
def test_queries_have_duckdbs_rows(spark: SparkWarehouse, duck: Warehouse, query: str) -> None:
    compare(spark, duck, query.format(t=TABLE))


@pytest.mark.parametrize("kind", ["division", "whole numbers", "numbers", "lists"])
def test_values_do_not_depend_on_ansi_mode(spark: SparkWarehouse, duck: Warehouse, kind: str) -> None:
    spark.session.conf.set("spark.sql.ansi.enabled", "false")
    try:
        test_expressions_have_duckdbs_values(spark, duck, kind)
    finally:
        spark.session.conf.unset("spark.sql.ansi.enabled")


@pytest.mark.parametrize(
    "query",
    [
        "select filter_id, peak(kernel) as p, project(scale(kernel)) as c from kernels order by filter_id limit 20",
        "from groups(concat(task, '/', visual_category), keep := depth_decile > 5)",
        "select *, project(kernel) as c from kernels where model_id = 3 order by filter_id limit 3",
        "select task, count(*) as n, sum(w0) as s, min(w8) from filter_meta group by task order by task",
        "from density(0, 1, keep := model_id < 3, bins := 8)",
        "from quality(conv_depth = 0)",
        "from model_quality select model_id, n_layers, sparsity order by model_id",
        "from layer_percentiles(3)",
        "from drift_to_groups(3, task)",
        "from sparsity_at(task, 0.013)",
        "from drift_summary(task)",
    ],
)
def test_filters_and_rollups_are_asked_as_in_duckdb(spark: SparkWarehouse, duck: Warehouse, query: str) -> None:
    compare(spark, duck, query)


def test_components_of_filters_are_those_of_duckdb(spark: SparkWarehouse, duck: Warehouse) -> None:
    # eigenvectors by two methods agree to rounding of the largest entry
    compare(spark, duck, "from filter_pca(model_id % 2, keep := model_id < 4)", absolute=1e-12)


def test_a_macro_and_the_query_around_it_do_not_share_names(spark: SparkWarehouse, duck: Warehouse) -> None:
    query = """
    with grouped as (select layer_id from layers where layer_id % 2 = 0),
    counted as (from distributions(task, keep := layer_meta.layer_id in (select grouped.layer_id from grouped)))
    select grp, sum(n) as n from counted group by grp order by grp
    """
    compare(spark, duck, query)


def test_a_list_named_as_the_parameter_of_a_lambda_is_not_taken_for_it(spark: SparkWarehouse) -> None:
    assert spark.collected("select scale(x) from (select [1.0, -2.0]::double[] as x)").fetchall() == [([0.5, -1.0],)]


@pytest.mark.parametrize(
    ("query", "construct"),
    [
        ("select list_reduce([1, 2], lambda a, b: a + b)", "list_reduce.*write list_sum"),
        ("select list(a order by a desc) from (select 1 as a)", "order by y desc"),
        ("select * replace (1 as layer_id) from layers", "replace"),
        ("with recursive r as (select 1 as n union all select n + 1 from r where n < 3) from r", "recursive"),
        ("select log(3, 9)", "log to another base"),
        ("select [1, 2, 3][2:]", "open end"),
        ("select regexp_replace('aa', 'a', 'b')", "first match"),
        ("select * from layers join models using (model_id) union all from layer_meta", "list the columns"),
        ("select count(*), unnest([1, 2])", "unnest beside an aggregate"),
        ("select date '2020-01-01'", "type date"),
        ("select * from layers positional join models", "positional"),
        ("select list_reverse([1])", "list_reverse"),
        ("select [1, 2, 3][-2:-1]", "negative"),
        ("select count(*) over () from layers group by model_id order by sum(n_filters)", "beside a window function"),
        ("select 1; select 2", "one query at a time"),
        ("drop table layers", "nothing but queries"),
        ("", "empty"),
        ("select nothing from layers", "nothing"),
        ("from layer", "layer"),
        ("from density(9, 1)", "a component is a whole number"),
    ],
)
def test_what_is_not_translated_is_refused_by_name(spark: SparkWarehouse, query: str, construct: str) -> None:
    with pytest.raises(QueryError, match=construct):
        spark.sql(query)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("select case when layer_id >= 0 then error('no ' || layer_id) end from layers", "no "),
        ("select list_dot_product([layer_id]::double[], [1.0, 2.0]) from layers", "list_dot_product"),
        ("select conv_depth_norm::varchar from layers", "do not cast"),
        ("select (layer_id + 1)::integer * 2000000000::integer from layers", "overflow"),
    ],
)
def test_what_fails_when_it_runs_tells_its_message(spark: SparkWarehouse, query: str, message: str) -> None:
    with pytest.raises((QueryError, EngineError), match=message):
        spark.collected(query)


def test_two_warehouses_are_open_in_one_session(
    spark: SparkWarehouse, session: SparkSession, lens_warehouse: Path, duck: Warehouse
) -> None:
    query = "select count(*) as n, sum(n_filters) as filters from layers"
    other = warehouse.spark(lens_warehouse, session)
    with warehouse.open(lens_warehouse) as opened:
        compare(other, opened, query)
    compare(spark, duck, query)
    assert {"filters", "layers", "layer_meta", "published_drift"} <= set(spark.tables)


def test_committed_files_alone_are_read_whatever_the_folder_is_called(
    session: SparkSession, sample_warehouse: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "a [b] %20 {c}*.warehouse"
    shutil.copytree(sample_warehouse, copy)
    file = next(copy.glob("lake/filters/*/*.parquet"))
    shutil.copy(file, file.with_name(f"{'0' * 32}.parquet"))
    with warehouse.open(copy) as opened:
        spark = warehouse.spark(copy, session)
        compare(spark, opened, "select model_id, count(*) as n from filters group by model_id order by model_id")
    file.unlink()
    with pytest.raises(LakeError, match=r"is missing; copy the folder"):
        warehouse.spark(copy, session).sql("from filters")


@pytest.mark.usefixtures("session")
def test_the_command_line_writes_what_duckdb_writes(sample_warehouse: Path, tmp_path: Path) -> None:
    asked = ["query", str(sample_warehouse), "from groups(task)"]

    def run(*options: str) -> Any:
        result = CliRunner().invoke(app, [*asked, *options])
        assert result.exit_code == 0, result.output
        return result.stdout

    for format_ in ("table", "csv", "json"):
        assert run("--engine", "spark", "--format", format_) == run("--format", format_)
    run("--engine", "spark", "-o", str(tmp_path / "groups.parquet"))
    assert (tmp_path / "groups.parquet").stat().st_size > 0


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("from layer", 'Did you mean "layers"'),
        ("select modell from models", "modell"),
        ("describe layers", "nothing but queries; ask DuckDB: warehouse.open, or no --engine spark"),
        ("select 1 +", "the query cannot be read for Spark"),
    ],
)
def test_what_is_no_query_is_told_before_spark_is_started(
    sample_warehouse: Path, monkeypatch: pytest.MonkeyPatch, query: str, told: str
) -> None:
    monkeypatch.setattr("warehouse.on_spark.engine.started", lambda *_: pytest.fail("Spark is started"))
    result = CliRunner().invoke(app, ["query", str(sample_warehouse), query, "--engine", "spark"])
    assert result.exit_code == 1
    assert told in str(result.exception)


@pytest.mark.parametrize("options", [["--engine", "spark", "--restricted"], ["--master", "local[2]"]])
def test_options_that_do_not_go_together_are_refused(sample_warehouse: Path, options: list[str]) -> None:
    result = CliRunner().invoke(app, ["query", str(sample_warehouse), "select 1", *options])
    assert result.exit_code == 2
    assert options[-1] in result.output or "--master" in result.output
