"""The command line: results on standard output, all else on standard error, and the exit status."""

import io
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import duckdb
import pytest

import warehouse
from tests.test_ingest import random_filters, write_dataset
from warehouse import cli

COMMANDS = sorted(command.name or command.callback.__name__ for command in cli.app.registered_commands)


class Result(NamedTuple):
    """Exit status and what was written to standard output and standard error."""

    status: int
    out: str
    err: str


def call_main(*arguments: str, stdin: str = "") -> Result:
    """Run the command line in this process."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    with (
        patch.object(sys, "argv", ["warehouse", *arguments]),
        patch.object(sys, "stdin", io.StringIO(stdin)),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as stop,
    ):
        cli.main()
    texts = (stream.buffer.getvalue().decode() for stream in (out, err))
    return Result(int(stop.value.code or 0), *texts)


def run(*arguments: str, **options: object) -> Result:
    """Run ``python -m warehouse`` in a process of its own."""
    command = [sys.executable, "-m", "warehouse", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, **options)
    return Result(done.returncode, done.stdout, done.stderr)


def test_python_m_and_the_command_tell_the_version() -> None:
    expected = f"warehouse {warehouse.__version__}, duckdb {duckdb.__version__}\n"
    assert run("--version") == (0, expected, "")
    script = Path(sysconfig.get_path("scripts")) / "warehouse"
    assert subprocess.run([script, "--version"], check=True, capture_output=True, text=True).stdout == expected


def test_the_commands_of_the_design_are_there() -> None:
    assert set(COMMANDS) >= {"demo", "help", "info", "ingest", "query", "sample", "shell", "vacuum"}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_shows_an_example(command: str) -> None:
    status, out, err = call_main(command, "--help")
    assert (status, err) == (0, "")
    assert re.search(rf"Example: warehouse {command}\b", out)


def test_without_a_command_the_help_is_shown() -> None:
    status, out, err = call_main()
    assert status == 2
    for command in COMMANDS:
        assert f" {command} " in out + err


@pytest.mark.parametrize(
    "arguments",
    [
        ("frobnicate",),
        ("--frobnicate",),
        ("ingest",),
        ("ingest", "a.h5"),
        ("ingest", "a.h5", "w", "--threads", "0"),
        ("ingest", "a.h5", "w", "--threads", "many"),
        ("query", "w"),
        ("query", "w", "select 1", "--format", "xml"),
        ("query", "w", "select 1", "--max-rows", "0"),
        ("query", "w", "select 1", "-o"),
        ("query", "w", "select 1", "surplus"),
        ("sample", "a.h5", "--layout", "v9"),
        ("info",),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_status_2_and_says_so_on_stderr(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = call_main(*arguments)
    assert (status, out) == (2, "")
    assert re.search("Usage: warehouse|Error", err)
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_ingest_reports_on_stderr_only(sample: Path, tmp_path: Path) -> None:
    status, out, err = call_main("ingest", str(sample), str(tmp_path / "w"))
    assert (status, out) == (0, "")
    assert f"{tmp_path / 'w'}: 20,000 filters, 80 layers, 12 models\n" in err
    assert re.search(r"\d+\.\d s, [\d,]+ filters/s, \d+\.\d MB\n", err)
    assert "\x1b" not in err


def test_ingest_tells_of_unclaimed_filters_and_nonfinite_layers(tmp_path: Path) -> None:
    filters = random_filters(30)
    filters[15] = float("nan")
    write_dataset(tmp_path / "a.h5", [(0, 0, "0:9"), (0, 1, "10:19")], filters)
    status, _, err = call_main("ingest", str(tmp_path / "a.h5"), str(tmp_path / "w"), "--allow-nonfinite")
    assert status == 0
    assert "10 filters of no layer" in err
    assert "NaN or infinite weights in 1 layer;" in err


def test_a_query_writes_its_result_to_stdout_only(sample_warehouse: Path) -> None:
    status, out, err = run("query", str(sample_warehouse), "select count(*) as n from filters")
    assert (status, err) == (0, "")
    assert out.split() == ["n", "20000"]


def test_a_query_may_come_from_standard_input(sample_warehouse: Path) -> None:
    sql = "-- a comment\nselect count(*) as n\nfrom layers\n"
    assert call_main("query", str(sample_warehouse), "-", "--format", "csv", stdin=sql) == (0, "n\n80\n", "")


def test_paths_may_hold_any_common_character(
    sample_warehouse: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "it's Größe [b]* c"
    shutil.copytree(sample_warehouse, path)
    question = "select count(*) as n from filters"
    assert call_main("query", str(path), question, "--format", "csv") == (0, "n\n20000\n", "")
    # the shell is a program, which writes past `sys.stdout`
    assert call_main("shell", str(path), "-csv", "-c", question) == (0, "", "")
    assert capfd.readouterr() == ("n\n20000\n", "")


def test_the_shell_reaches_filters_and_macros_from_any_directory(
    sample_warehouse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = os.path.relpath(sample_warehouse, tmp_path)
    drift = "select count(*) > 1, min(drift) >= 0 from drift(task)"
    assert call_main("shell", path, "-csv", "-c", "from filters limit 1", "-c", drift) == (0, "", "")
    out, err = capfd.readouterr()
    assert err == ""
    header, row, _, answer = out.splitlines()
    assert header == "filter_id,layer_id,model_id,w0,w1,w2,w3,w4,w5,w6,w7,w8"
    assert len(row.split(",")) == 12
    assert answer == "true,true"
    assert not list(tmp_path.iterdir())


def test_the_shell_reads_questions_from_standard_input_and_cannot_write(sample_warehouse: Path) -> None:
    questions = "select count(*) as n from models;\ndrop table models;\n"
    status, out, err = run("shell", str(sample_warehouse), "-csv", input=questions)
    assert (status != 0, out) == (True, "n\n12\n")
    assert "read-only" in err


def test_a_missing_shell_is_one_line_that_tells_how_to_get_it(
    sample_warehouse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    status, out, err = call_main("shell", str(sample_warehouse))
    assert (status, out) == (1, "")
    assert err.startswith("error: the DuckDB shell `duckdb` is not installed; get it with `pip install duckdb-cli`")
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", ["info", "shell", "help", "vacuum", "query"])
def test_a_folder_without_warehouse_is_one_clear_line(command: str, tmp_path: Path) -> None:
    arguments = [str(tmp_path / "nowhere"), *(["select 1"] if command == "query" else [])]
    status, out, err = call_main(command, *arguments)
    assert (status, out) == (1, "")
    assert re.fullmatch(r"error: \S+nowhere is not a warehouse: there is no such folder; make one .*\n", err)


def test_a_damaged_database_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "warehouse.duckdb").write_bytes(b"no database" * 1000)
    status, out, err = call_main("info", str(tmp_path))
    assert (status, out) == (1, "")
    assert re.match(rf"error: cannot open {tmp_path}/warehouse\.duckdb: ", err)
    assert err.count("\n") == 1


def test_info_shows_counts_source_basis_and_versions(sample: Path, sample_warehouse: Path) -> None:
    status, out, err = call_main("info", str(sample_warehouse))
    assert (status, err) == (0, "")
    with warehouse.open(sample_warehouse) as wh:
        counts = wh.sql("select n_models, n_layers, n_filters from groups('all')").fetchall()[0]
        source = wh.sql("select size, columns('sha256') from sources").fetchall()[0]
        ratio = wh.sql("select explained_variance_ratio from basis where component = 0").fetchall()[0][0]
        n_bytes = wh.sql("select sum(bytes) from files where name = 'filters'").fetchall()[0][0]
    assert counts == (12, 80, 20_000)
    shown = out.split()
    expected = [*counts, sample.name, *source, n_bytes, f"{ratio:.6g}", warehouse.__version__, duckdb.__version__]
    assert [value for value in map(str, expected) if value not in shown] == []


def test_help_lists_every_object(sample_warehouse: Path) -> None:
    status, out, err = call_main("help", str(sample_warehouse))
    assert (status, err) == (0, "")
    with warehouse.open(sample_warehouse) as wh:
        names = [name for (name,) in wh.sql("select name from help").fetchall()]
    assert len(names) > 30
    assert {line.split()[0] for line in out.splitlines()[1:]} == set(names)


def test_help_describes_one_object_with_an_example_that_runs(sample_warehouse: Path) -> None:
    status, out, err = call_main("help", str(sample_warehouse), "drift")
    assert (status, err) == (0, "")
    described = dict(line.split(": ", 1) for line in out.splitlines())
    assert (described["name"], described["kind"]) == ("drift", "table macro")
    assert "\n    keep: " in out
    assert call_main("query", str(sample_warehouse), described["example"]).status == 0


def test_help_suggests_a_name_for_a_mistyped_one(sample_warehouse: Path) -> None:
    result = call_main("help", str(sample_warehouse), "drfit")
    assert result == (1, "", "error: nothing is called 'drfit'; did you mean 'drift'?\n")


def test_sample_makes_the_file_asked_for_and_reports_on_stderr(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    options = ("--filters", "500", "--layers", "10", "--models", "3", "--layout", "lens", "--seed", "4")
    status, out, err = call_main("sample", str(path), *options)
    assert (status, out, err) == (0, "", f"{path}: 500 synthetic filters, 10 layers, 3 models\n")
    summary = warehouse.ingest(path, tmp_path / "w")
    assert (summary.filters, summary.layers, summary.models) == (500, 10, 3)


def test_sample_refuses_a_file_that_exists(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    path.write_text("precious")
    status, out, err = call_main("sample", str(path))
    assert (status, out) == (1, "")
    assert re.fullmatch(r"error: \S+s\.h5 exists already: .*\n", err)
    assert path.read_text() == "precious"


@pytest.mark.parametrize(
    ("lines", "arguments"),
    [
        pytest.param(1, ("query", "from range(12000)", "--max-rows", "12000"), marks=pytest.mark.slow),
        (1, ("query", "from range(300000)", "--format", "csv")),
        (0, ("query", "select 1")),
        pytest.param(0, ("info",), marks=pytest.mark.slow),
        pytest.param(1, ("help",), marks=pytest.mark.slow),
    ],
    ids=["table", "csv", "before the first line", "info", "help"],
)
def test_a_pipe_closed_early_is_no_traceback(sample_warehouse: Path, lines: int, arguments: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "warehouse", arguments[0], str(sample_warehouse), *arguments[1:]]
    # what is buffered is written late, when the process ends
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=buffered) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for _ in range(lines):
            process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read().decode()
    assert err == ""
    assert process.returncode in (0, 1)
