"""Queries of strangers: what reads the warehouse is answered, and everything else is refused and changes nothing."""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

import warehouse
from tests.test_cli import call_main
from warehouse.errors import QueryError
from warehouse.restricted import RestrictedWarehouse
from warehouse.sandbox import refused_functions, require_one_read

CANARY = "the canary that no answer may hold"

ESCAPES = [
    "select * from read_text('{secret}')",
    "select * from read_blob('{secret}')",
    "select * from read_csv('{secret}')",
    "from '{secret}'",
    "select * from read_text('../secret.csv')",
    "select * from read_text('.lock')",
    "select * from glob('{folder}/*')",
    "select * from sniff_csv('{secret}')",
    "select * from parquet_metadata('{secret}')",
    "select * from query('select * from read_text(''{secret}'')')",
    "select * from drift((select content from read_text('{secret}')))",
    "from groups('all', keep := exists (from read_text('{secret}')))",
    "copy models to '{folder}/stolen.csv'",
    "copy (select 1) to 'inside.csv'",
    "export database '{folder}/copy'",
    "import database '{folder}/copy'",
    "attach '{folder}/new.duckdb' as new",
    "attach ':memory:' as other",
    "detach warehouse",
    "use memory",
    "install httpfs",
    "load httpfs",
    "set threads = 64",
    "set enable_external_access = true",
    "reset lock_configuration",
    "pragma enable_profiling",
    "set variable axis = 'task'",
    "create table t as select 1",
    "create temp view models as select 1",
    "create macro drift(x) as 1",
    "insert into models select * from models",
    "delete from models",
    "update models set task = 'x'",
    "drop table models",
    "begin",
    "checkpoint",
    "prepare p as select 1",
    "call duckdb_settings()",
    "create secret (type s3, key_id 'a', secret 'b')",
    "select 1; select 2",
    "select 1; drop table models",
    "",
    "explain analyze select 1",
    "from CANARY",
    "select * from read_json('{secret}')",
    "select * from read_json_objects('{secret}')",
    "select * from read_ndjson('{secret}')",
    "select * from read_csv_auto('{secret}')",
    "select * from read_csv('{secret}', all_varchar = true, header = false)",
    "select * from read_text(['{secret}', '{secret}'])",
    "select * from read_text('{link}')",
    "select * from read_text('{folder}/./secret.csv')",
    "select * from read_text('{folder}/x/../secret.csv')",
    "select * from read_text('{folder}/secret.cs*')",
    "select * from read_text('{folder}/**')",
    "select * from read_text('file:{secret}')",
    "select * from read_text('file://{secret}')",
    "select * from read_text('file://localhost{secret}')",
    "select * from read_text('/proc/self/root{secret}')",
    "select * from read_text('/proc/self/environ')",
    "select * from read_text('/proc/self/cmdline')",
    "select * from read_blob('/dev/stdin')",
    "select * from read_text('~/.profile')",
    "select * from read_csv('http://127.0.0.1:1/x.csv')",
    "select * from read_csv('https://127.0.0.1:1/x.csv')",
    "select * from read_csv('s3://bucket/x.csv')",
    "select * from read_csv('hf://datasets/x/x.csv')",
    "from '{other}'",
    "select * from read_parquet('{other}')",
    "select * from parquet_scan('{other}')",
    "select * from parquet_schema('{other}')",
    "select * from parquet_file_metadata('{other}')",
    "select * from parquet_kv_metadata('{other}')",
    "select * from parquet_bloom_probe('{other}', 'filter_id', 1)",
    "select * from read_parquet('{own}/../../../../../other.parquet')",
    "select * from read_parquet('{folder}/*/lake/filters/model_id=*/*.parquet', hive_partitioning = true)",
    "from '{folder}/new.duckdb'",
    "select * from glob('*')",
    "select * from glob('lake/**')",
    "select * from sniff_csv('../secret.csv')",
    "select * from query_table('{secret}')",
    "from bimodality('{secret}')",
    "from drift_of_distributions('{secret}')",
    "describe '{secret}'",
    "summarize '{secret}'",
    "copy models from '{secret}'",
    "from query('select 1')",
    "from system.main.\"QUERY\"('select 1')",
    "from json_execute_serialized_sql(json_serialize_sql('select 1'))",
    "call json_execute_serialized_sql(json_serialize_sql('select 1'))",
    "from query('from json_execute_serialized_sql(json_serialize_sql(''select 1''))')",
    "from (with x as (from query('select 1')) from x)",
    "from destroy_external_resource('query', 'select 1')",
    "from Destroy_External_Resource('json_execute_serialized_sql', json_serialize_sql('select 1'))",
    "from register_external_resource_type('t', 'range', 'range')",
    "with x as (copy (select 1) to '{own}' (format csv, use_tmp_file false)) select 1",
    "with x as (copy (select 1) to '{database}' (format csv, use_tmp_file false)) from x",
    "(with x as (copy (select 1) to '{own}' (format csv, use_tmp_file false)) select 1)",
    "from (with x as (copy (select 1) to '{own}' (use_tmp_file false)) select 1)",
    "from query('with x as (copy (select 1) to ''{own}'' (format csv, use_tmp_file false)) select 1')",
    "from json_execute_serialized_sql(json_serialize_sql('with x as (copy models to ''{own}'') select 1'))",
    "with x as (copy models to '{folder}/stolen.csv' (format csv, use_tmp_file false)) from x",
    "with x as (insert into models select * from models returning *) from x",
    "with x as (delete from temp.help returning *) from x",
    "with x as materialized (update models set task = 'x' returning *) from x",
    "with x as (create table t as select 1) from x",
    "copy (select 1) to '/dev/stdout'",
    "copy (select 1) to '{own}' (format csv, use_tmp_file false)",
    "copy (select 1) to '{folder}/parts' (format csv, partition_by (a))",
    "copy from database warehouse to memory",
    "explain analyze copy models to '{folder}/stolen.csv'",
    "explain analyze insert into models from models",
    "create temp table t as select 1",
    "create table memory.main.t as select 1",
    "create schema memory.s",
    "create or replace view models as select 1",
    "create type e as enum ('a')",
    "create sequence s",
    "create index i on models(model_id)",
    "create or replace temp macro drift(axis) as table select 1",
    "delete from temp.help",
    "drop table temp.help",
    "drop macro drift",
    "drop schema main cascade",
    "alter table models rename to m",
    "truncate models",
    "comment on table models is 'x'",
    "vacuum models",
    "analyze",
    "merge into models using models as s on (true) when matched then delete",
    "pivot models on task using count(*)",
    "attach '{database}' as again (read_only)",
    "attach 'sqlite:{folder}/x.db' as other",
    "attach 'https://127.0.0.1:1/x.duckdb' as other",
    "detach database memory",
    "force install httpfs",
    "install httpfs from 'http://127.0.0.1:1'",
    "install '{folder}/x.duckdb_extension'",
    "load '{folder}/x.duckdb_extension'",
    "update extensions",
    "create persistent secret s (type s3)",
    "drop secret s",
    "set global threads = 1",
    "set session threads = 1",
    "set local threads = 1",
    "set lock_configuration = false",
    "set allowed_directories = ['/']",
    "set file_search_path = '/'",
    "set temp_directory = '{folder}'",
    "set profiling_output = '{folder}/profile'",
    "set python_enable_replacements = true",
    "set schema = 'memory.main'",
    "reset threads",
    "reset variable x",
    "pragma threads = 9",
    "pragma memory_limit = '8GB'",
    "pragma database_list",
    "pragma import_database('{folder}')",
    "from enable_logging(storage = 'file', storage_path = '{folder}/logs')",
    "call enable_logging(storage = 'file', storage_path = '{folder}/logs')",
    "select * from enable_profiling()",
    "select 1 /* ; */ ; drop table models",
    "select '/*'; drop table models; --*/'",
    "select $$;$$; drop table models",
    "select 1\uff1b drop table models",
    "-- nothing",
    ";",
    "execute p",
    "deallocate p",
    "rollback",
    "begin transaction read only",
    "explain select 1",
    ".shell ls",
    "select * from arrow_scan(1::bigint, 2::bigint, 3::bigint)",
    "select * from pandas_scan(1)",
    "select getenv('HOME')",
    "select * from secret",
    "from limits",
    'from "connection"',
]


@pytest.fixture(scope="module")
def opened(sample_warehouse: Path) -> Iterator[RestrictedWarehouse]:
    with warehouse.open(sample_warehouse, restricted=True) as restricted:
        yield restricted
        assert restricted.sql("select 42").fetchall() == [(42,)]


def contents(folder: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("query", ESCAPES)
def test_what_does_more_than_read_the_warehouse_is_refused(
    query: str, opened: RestrictedWarehouse, sample_warehouse: Path, tmp_path: Path
) -> None:
    secret, link, other = (tmp_path / name for name in ("secret.csv", "link.csv", "other.parquet"))
    secret.write_text(CANARY)
    link.symlink_to(secret)
    own = next(sample_warehouse.glob("lake/filters/*/*.parquet"))
    shutil.copy(own, other)
    places = {"secret": secret, "link": link, "other": other, "own": own, "folder": tmp_path}
    before = contents(sample_warehouse), contents(tmp_path)
    with pytest.raises(QueryError) as raised:
        opened.sql(query.format(**places, database=sample_warehouse / "warehouse.duckdb")).fetchall()
    assert CANARY not in str(raised.value)
    assert "Stack" not in str(raised.value)
    assert (contents(sample_warehouse), contents(tmp_path)) == before


def test_every_function_of_duckdb_that_is_not_known_to_read_is_refused_by_name() -> None:
    with duckdb.connect() as con:
        for name in refused_functions():
            for query in (f"from {name}()", f"with a as (select 1 from main.{name.upper()}(1, x := 'y')) from a"):
                with pytest.raises(QueryError, match=f"a call of {name}, which may do more"):
                    require_one_read(con, query)
    assert {"query", "json_execute_serialized_sql", "arrow_scan", "checkpoint"} <= refused_functions()


def test_what_reads_the_warehouse_is_answered_as_ever(opened: RestrictedWarehouse, sample_warehouse: Path) -> None:
    questions = (
        "from drift(task) order by all",
        "from pca(task) order by all",
        "select count(*), max(w0) from filters",
    )
    with warehouse.open(sample_warehouse) as free:
        for question in questions:
            assert str(opened.sql(question).fetchall()) == str(free.sql(question).fetchall())
        assert opened.analysis("drift_by_task").fetchall() == free.analysis("drift_by_task").fetchall()


@pytest.mark.slow
def test_the_command_line_restricts_too(sample_warehouse: Path, tmp_path: Path) -> None:
    query = "query", str(sample_warehouse), "--restricted"
    assert call_main(*query, "select 42 as n", "--format", "csv").out == "n\n42\n"
    status, out, err = call_main(*query, "from '/etc/hosts'")
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    for format_ in ("table", "csv", "json"):
        assert "42" in call_main(*query, "select 42 as n", "--format", format_).out
    assert call_main(*query, "select 42 as n", "-o", str(tmp_path / "n.parquet")) == (0, "", "")
    assert duckdb.read_parquet(str(tmp_path / "n.parquet")).fetchall() == [(42,)]


@pytest.mark.parametrize("name", ["name", "self", "wharehouse"])
def test_a_setting_that_an_analysis_does_not_have_is_refused(opened: RestrictedWarehouse, name: str) -> None:
    with pytest.raises(QueryError, match=name):
        opened.analysis("drift_by_task", **{name: "x"})


@pytest.mark.parametrize(
    ("limit", "status", "message"),
    [
        ("rows=2", 1, "more than 2 rows"),
        ("rows=0", 1, "limit rows is 0, expected a number above 0"),
        ("seconds=nan", 1, "limit seconds is nan"),
        ("seconds=1e12", 1, "at most 1,000,000,000"),
        ("rows=1.5", 1, "limit rows is '1.5'"),
        ("memory=1", 1, "there is no limit 'memory'; there are seconds, memory_mb, threads, rows, result_mb"),
        ("rows", 2, "'rows' is not name=value"),
    ],
)
def test_a_limit_of_the_command_line_holds_or_is_refused(
    sample_warehouse: Path, limit: str, status: int, message: str
) -> None:
    done = call_main("query", str(sample_warehouse), "--restricted", "from range(3)", "--limit", limit)
    assert (done.status, done.out) == (status, "")
    assert message in done.err
    assert status == 2 or done.err.count("\n") == 1
