"""Queries of strangers: what reads the warehouse is answered, and everything else is refused and changes nothing."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import warehouse
from tests.test_cli import call_main
from warehouse.errors import QueryError
from warehouse.restricted import Limits, RestrictedWarehouse

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
]


@pytest.fixture(scope="module")
def opened(sample_warehouse: Path) -> Iterator[RestrictedWarehouse]:
    with warehouse.open(sample_warehouse, restricted=True) as restricted:
        yield restricted


def contents(folder: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("query", ESCAPES)
def test_what_does_more_than_read_the_warehouse_is_refused(
    query: str, opened: RestrictedWarehouse, sample_warehouse: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text(CANARY)
    before = contents(sample_warehouse), contents(tmp_path)
    with pytest.raises(QueryError) as raised:
        opened.sql(query.format(secret=secret, folder=tmp_path)).fetchall()
    assert CANARY not in str(raised.value)
    assert (contents(sample_warehouse), contents(tmp_path)) == before


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


@pytest.mark.parametrize(
    ("limits", "query", "message"),
    [
        (
            Limits(seconds=1),
            "select sum(a.range * b.range) from range(9999999) a, range(9999999) b",
            "longer than 1",
        ),
        (Limits(memory_mb=800), "select list(range::varchar) from range(100000000)", "memory|Memory"),
        (Limits(rows=10), "from range(11)", "more than 10 rows"),
        (Limits(result_mb=1), "select repeat('x', 1000) from range(5000)", "larger than 1 MB"),
    ],
)
def test_a_limit_ends_a_query_and_the_next_one_is_answered(
    sample_warehouse: Path, limits: Limits, query: str, message: str
) -> None:
    with warehouse.open(sample_warehouse, restricted=True, limits=limits) as restricted:
        with pytest.raises(QueryError, match=message):
            restricted.sql(query)
        assert restricted.sql("select 1").fetchall() == [(1,)]


def test_the_command_line_restricts_too(sample_warehouse: Path) -> None:
    query = "query", str(sample_warehouse), "--restricted"
    assert call_main(*query, "select 42 as n", "--format", "csv").out == "n\n42\n"
    status, out, err = call_main(*query, "from '/etc/hosts'")
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
