"""Queries of strangers: what they may take, what a process leaves behind, and that answers are those of an open one."""

import contextlib
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest

import warehouse
from warehouse.errors import LakeError, QueryError
from warehouse.restricted import Limits, RestrictedWarehouse

ENDLESS = "select sum(a.range * b.range) from range(9999999) a, range(9999999) b"
TOO_MUCH = {
    "rows that never end": ("from range(1000000000000000000)", "more than 1,000,000 rows"),
    "one row too many": ("from range(1000001)", "more than 1,000,000 rows"),
    "columns of NULL": (f"select {'null, ' * 100} from range(1000000)", "larger than 64 MB"),
    "structures of NULL": (
        f"select struct_pack({', '.join(f'f{i} := null' for i in range(100))}) from range(1000000)",
        "larger than 64 MB",
    ),
    "long lists of NULL": ("select list_resize([null], 100) from range(1000000)", "larger than 64 MB|memory"),
    "text": ("select repeat('x', 1000) from range(100000)", "larger than 64 MB"),
    "one text": ("select repeat('a', 10000000000)", "Out of Range"),
    "a text that doubles": ("with recursive t as (select 'a' as n union all select n || n from t) from t", "memory"),
    "list": ("select range(1000000000)", "memory"),
    "lists": ("select list(a.range) from range(100000) a, range(100000) b", "memory"),
    "resized list": ("select list_resize([1], 4000000000)", "memory"),
    "joined text": ("select string_agg(range::varchar, ',') from range(1000000000)", "memory"),
    "sort": ("from range(500000000) order by hash(range)", "memory"),
    "groups": ("select range, count(*) from range(1000000000) group by 1", "memory"),
    "window": ("select sum(range) over (order by hash(range)) from range(100000000)", "memory"),
    "map": ("select map(range(100000000), range(100000000))", "memory"),
    "joins": (f"select count(*) from {', '.join(f'models m{i}' for i in range(60))}", "memory|longer"),
    "padding": ("select printf('%2000000000d', 1)", "memory"),
    "sample": ("select reservoir_quantile(range, 0.5, 2000000000) from range(10)", "memory"),
    "parentheses": (f"select {'(' * 100_000}1{')' * 100_000}", "memory|[Dd]ep"),
    "signs": (f"select {'- ' * 100_000}1", "memory|depth"),
    "subqueries": (f"{'from (' * 5_000}from models{')' * 5_000}", "memory|depth"),
    "nested lists": (f"select {'[' * 500}1{']' * 500}", "memory|longer|nest|depth|Recursion level"),
    "nested structures": (f"select s from {'(select {a: s, b: s} as s from ' * 18}(select 1 as s){')' * 18}", "memory"),
    "dimensions": ("select classical_mds([3.0], 2147483647)", "memory"),
    "matrix": ("select eigh(range(50005000)::double[])", "memory"),
    "channels": ("select orthogonality_udf(range(9 * 30000)::double[], 30000)", "memory"),
    "error": ("select error(repeat('x', 10000000))", "x{1900}"),
    "replicates": ("from drift_interval(task, replicates := 1000000000)", "between 2 and"),
}
"""Names, queries that take too much, and what is said of them."""
HOSTILE_ARGUMENTS = [
    *("null", "[]", "['nan'::double]", "['inf'::double]", "[null]", "[1, 2]", "range(100000)::double[]", "'text'"),
    *("'''; drop table models; --'", "-1", "9223372036854775807", "'nan'::double"),
]
TYPES = r"""select 170141183460469231731687303715884105727::hugeint, 340282366920938463463374607431768211455::uhugeint,
    '101'::bit, interval '1 month 2 days 3 seconds', '2020-01-01 01:02:03.123456789'::timestamp_ns,
    '2020-01-01'::timestamp_s, '2020-01-01'::timestamp_ms, 99999999999999999999999999999999999999::decimal(38, 0),
    [1, 2]::integer[2], map {'a': [1]}, {'a': {'b': null}}, 'x'::enum('x', 'y'), '01:02:03+04'::timetz,
    union_value(num := 1)::union(num integer, text varchar), '{"a": 1}'::json,
    uuid '00112233-4455-6677-8899-aabbccddeeff', '\x00\xff'::blob, 'nan'::double, '-inf'::float, null, true, [null],
    1 as "a", 3 as "say ""x""; drop", 4 as "a
b", [[[[1]]]], time '01:02:03.5', 255::utinyint, {'a': [{'b': 1}, null]}"""


@pytest.fixture(scope="module")
def opened(sample_warehouse: Path) -> Iterator[RestrictedWarehouse]:
    with warehouse.open(sample_warehouse, restricted=True) as restricted:
        yield restricted


def runs(pid: int) -> bool:
    """Whether a process has not ended, be it waited for or not."""
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    return False


def becomes_true(condition: Callable[[], bool], seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


@pytest.mark.slow
@pytest.mark.parametrize("name", TOO_MUCH)
def test_what_takes_too_much_is_refused_in_a_line_and_the_next_query_is_answered(
    opened: RestrictedWarehouse, name: str
) -> None:
    query, message = TOO_MUCH[name]
    with pytest.raises(QueryError, match=message) as raised:
        opened.sql(query)
    # but for where in the query it is
    assert "\n" not in str(raised.value).split("\n\nLINE")[0]
    assert len(str(raised.value)) <= 2_000
    assert len(opened.sql("from drift(task)").fetchall()) > 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limits", "query", "message"),
    [
        (Limits(seconds=3), ENDLESS, "longer than 3 s"),
        (Limits(memory_mb=400), "select list(range::varchar) from range(100000000)", "more memory than 400 MB"),
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
        assert restricted.sql("from range(10)").fetchall() == [(i,) for i in range(10)]


@pytest.mark.parametrize("limit", [0, -1, math.nan, math.inf, 10**12])
def test_a_limit_that_limits_nothing_is_refused(limit: float) -> None:
    for name in ("seconds", "memory_mb", "threads", "rows", "result_mb"):
        with pytest.raises(QueryError, match=f"limit {name} is"):
            Limits(**{name: limit})


def test_every_type_comes_back_as_it_is(opened: RestrictedWarehouse, sample_warehouse: Path) -> None:
    with warehouse.open(sample_warehouse) as free:
        found, expected = opened.sql(TYPES), free.sql(TYPES)
        assert str(found.fetchall()) == str(expected.fetchall())
        assert found.columns == expected.columns


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, None, True, "'; drop table models; --", "\0", [1, 2], {"a": 1}, 2**62, "x" * 10**6]
)
def test_a_parameter_is_a_value_whatever_it_holds(opened: RestrictedWarehouse, value: object) -> None:
    ((found,),) = opened.sql("select ?", [value]).fetchall()
    assert str(found) == str(value)


@pytest.mark.parametrize("value", [object(), b"x", {1, 2}, [10**5000], "\ud800"])
def test_a_parameter_that_cannot_be_passed_on_is_refused(opened: RestrictedWarehouse, value: object) -> None:
    with pytest.raises(QueryError):
        opened.sql("select ?", [value])


@pytest.mark.slow
def test_hostile_arguments_end_in_an_answer_or_an_error(opened: RestrictedWarehouse) -> None:
    told = opened.sql("select name, kind, parameters from help where kind in ('macro', 'table macro', 'function')")
    tried = 0
    for name, kind, parameters in told.fetchall():
        count = len([part for part in (parameters or "").split("; ") if ":" in part])
        for argument in HOSTILE_ARGUMENTS:
            call = f"{name}({', '.join([argument] * max(count, 1))})"
            with contextlib.suppress(QueryError):
                opened.sql(f"from {call}" if kind == "table macro" else f"select {call}")
            tried += 1
    assert tried > 100
    assert len(opened.sql("from drift(task)").fetchall()) > 1


@pytest.mark.slow
def test_every_example_and_analysis_gives_what_it_gives_without_restriction(
    opened: RestrictedWarehouse, sample_warehouse: Path
) -> None:
    with warehouse.open(sample_warehouse) as free:
        for name, example in free.sql("select name, example from help where kind <> 'analysis'").fetchall():
            # which rows a limit leaves is up to chance
            whole = example.split(" limit ")[0]
            assert_same_rows(opened.sql(whole), free.sql(whole), name)
        for (name,) in free.sql("select name from analyses").fetchall():
            assert_same_rows(opened.analysis(name), free.analysis(name), name)


def assert_same_rows(found: duckdb.DuckDBPyRelation, expected: duckdb.DuckDBPyRelation, name: str) -> None:
    """Equal but for order, where a query asks for none, and for the rounding of sums in another order."""
    assert found.columns == expected.columns, name
    rows, expected_rows = (sorted(map(rounded, relation.fetchall())) for relation in (found, expected))
    assert rows == expected_rows, name


def rounded(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return f"({', '.join(map(rounded, value))})"
    if isinstance(value, dict):
        return f"({', '.join(f'{key}: {rounded(item)}' for key, item in value.items())})"
    if isinstance(value, float):
        return f"{value:.6g}" if abs(value) > 1e-9 else "0"
    return str(value)


def test_threads_that_ask_at_once_each_get_their_answer(opened: RestrictedWarehouse) -> None:
    answers = {}

    def ask(number: int) -> None:
        answers[number] = [opened.sql(f"select {number} + range from range(1000)").fetchall()[-1][0] for _ in range(5)]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: [number + 999] * 5 for number in range(4)}


def test_closing_ends_the_query_of_another_thread(sample_warehouse: Path) -> None:
    restricted = warehouse.open(sample_warehouse, restricted=True)
    said = []

    def ask() -> None:
        with pytest.raises(QueryError) as raised:
            restricted.sql(ENDLESS)
        said.append(str(raised.value))

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.5)
    process = restricted._process
    restricted.close()
    thread.join(60)
    assert said == [f"{sample_warehouse} was closed while the query ran"]
    assert process.returncode is not None
    with pytest.raises(QueryError, match="is closed"):
        restricted.sql("select 1")


@pytest.mark.slow
def test_a_process_that_is_stopped_or_killed_does_no_lasting_harm(
    sample_warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warehouse.open(sample_warehouse, restricted=True, limits=Limits(seconds=5)) as restricted:
        # by then it has started, which takes a busy machine longer than the patience below
        assert restricted.sql("select 1").fetchall() == [(1,)]
        os.kill(restricted._process.pid, signal.SIGSTOP)
        with monkeypatch.context() as impatient:
            impatient.setattr("warehouse.patience.SECONDS", 0)
            with pytest.raises(QueryError, match="longer than 5 s"):
                restricted.sql("select 1")
        assert restricted.sql("select 1").fetchall() == [(1,)]
        os.kill(restricted._process.pid, signal.SIGKILL)
        restricted._process.wait()
        assert restricted.sql("select 1").fetchall() == [(1,)]


def test_forgetting_to_close_leaves_no_process(sample_warehouse: Path) -> None:
    restricted = warehouse.open(sample_warehouse, restricted=True)
    restricted.sql("select 1")
    process = restricted._process
    del restricted
    assert process.returncode is not None


PARENT = """
import signal, sys, warehouse
# which a process begins with that a shell has put into the background
signal.signal(signal.SIGINT, signal.default_int_handler)
opened = warehouse.open(sys.argv[1], restricted=True, limits=warehouse.Limits(seconds=600))
opened.sql("select 1")
print(opened._process.pid, flush=True)
opened.sql(sys.argv[2])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_query_ends_with_whoever_asked(sample_warehouse: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-c", PARENT, str(sample_warehouse), ENDLESS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        pid = int(parent.stdout.readline())
        time.sleep(0.5)
        assert runs(pid)
        parent.send_signal(number)
        parent.wait(60)
    assert becomes_true(lambda: not runs(pid))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_is_told_to_open_it_again_and_leaves_the_process_alone(opened: RestrictedWarehouse) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            opened.sql("select 1")
        except QueryError as error:
            os.write(writer, str(error).encode())
        finally:
            opened.close()
            opened._end()
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as said:
        assert "forked; open it again" in said.read()
    assert opened.sql("select 1").fetchall() == [(1,)]


def test_it_follows_a_folder_that_moves_until_the_process_has_to_be_started_again(target: Path) -> None:
    with warehouse.open(target, restricted=True) as restricted:
        assert restricted.sql("select count(*) > 0 from filters").fetchall() == [(True,)]
        moved = target.rename(target.with_name("moved"))
        assert restricted.sql("select count(*) > 0 from filters").fetchall() == [(True,)]
        restricted._process.kill()
        restricted._process.wait()
        with pytest.raises(LakeError, match="no such folder"):
            restricted.sql("select 1")
        moved.rename(target)
        assert restricted.sql("select 1").fetchall() == [(1,)]


def test_it_answers_from_the_warehouse_that_replaced_the_one_it_was_opened_on(sample: Path, target: Path) -> None:
    count = "select count(*) from models"
    with warehouse.open(target, restricted=True) as restricted:
        before = restricted.sql(count).fetchall()
        warehouse.ingest(sample, target, replace=True)
        assert restricted.sql(count).fetchall() == [(12,)] != before
        assert restricted.sql("select count(*) from filters").fetchall() == [(20_000,)]


@pytest.mark.skipif(sys.platform != "linux", reason="Landlock is Linux's")
def test_the_kernel_refuses_to_change_files_whatever_a_query_says(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("as it was")
    script = """
import os, sys
from warehouse.sandbox import _refuse_changes
_refuse_changes()
os.chdir(sys.argv[1])
assert open("kept").read() == "as it was"
tries = [lambda: open("kept", "wb"), lambda: open("new", "wb"), lambda: os.unlink("kept"), lambda: os.mkdir("x"),
         lambda: os.rename("kept", "other"), lambda: os.symlink("kept", "link"), lambda: os.execv("/bin/ls", ["ls"])]
for attempt in tries:
    try:
        attempt()
    except PermissionError:
        continue
    sys.exit("not refused")
"""
    done = subprocess.run([sys.executable, "-c", script, tmp_path], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert kept.read_text() == "as it was"
