"""The demo: quick, honest about its data, and every command that it suggests runs."""

import re
import shlex
import time
from pathlib import Path

import pytest

from tests.test_cli import Result, call_main, run
from warehouse import demo


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "it's a demo"


@pytest.fixture(scope="module")
def first(folder: Path) -> tuple[Result, float]:
    """The first run, in a process of its own, and its seconds."""
    begin = time.monotonic()
    return run("demo", str(folder)), time.monotonic() - begin


def test_it_takes_less_than_thirty_seconds(first: tuple[Result, float]) -> None:
    result, seconds = first
    assert result.status == 0
    assert seconds < 30


def test_it_shows_a_table_for_every_question(first: tuple[Result, float]) -> None:
    out = first[0].out
    blocks = [block.splitlines() for block in out.strip().split("\n\n")][: len(demo.QUESTIONS)]
    assert [(title, question.strip()) for title, question, *_ in blocks] == list(demo.QUESTIONS)
    assert [header.split() for _, _, header, *_ in blocks] == [
        ["a", "b", "drift"],
        ["depth_decile", "n_layers", "sparsity", "variance_entropy", "share_random", "share_degenerate"],
        ["component", "eigenvalue", "explained_variance_ratio", "cumulative_ratio"],
    ]
    assert [len(rows) for _, _, _, *rows in blocks] == [12, 10, 9]


def test_its_numbers_are_those_of_a_varied_data_set(first: tuple[Result, float]) -> None:
    drifts = [float(line.split()[-1]) for line in re.findall(r"^\S.*\s\d\.\d+\s*$", first[0].out, re.MULTILINE)[:12]]
    assert drifts == sorted(drifts, reverse=True)
    assert 0 < drifts[-1] < drifts[0]


def test_it_says_that_its_data_is_synthetic(first: tuple[Result, float]) -> None:
    assert "synthetic" in first[0].out


def test_it_reports_the_ingest_on_stderr_only(first: tuple[Result, float], folder: Path) -> None:
    result, _ = first
    assert f"{folder / 'cnn.warehouse'}: 300,000 filters, 400 layers, 40 models\n" in result.err
    assert "filters/s" in result.err
    assert "filters/s" not in result.out


def test_the_commands_it_suggests_run(
    first: tuple[Result, float], folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    suggested = re.findall(r"^  warehouse (.*?)(?:\s{2,}\(.*)?$", first[0].out, re.MULTILINE)
    arguments = [shlex.split(line) for line in suggested]
    assert {line[0] for line in arguments} == {"query", "help", "shell", "ingest"}
    for command, *rest in arguments:
        if command in ("query", "help"):
            assert rest[0] == str(folder / "cnn.warehouse")
            status, out, _ = call_main(command, *rest)
            assert status == 0
            assert len(out.splitlines()) > 2
        if command == "shell":
            assert call_main(command, *rest, "-csv", "-c", "select count(*) > 20 as many from help").status == 0
            assert capfd.readouterr().out == "many\ntrue\n"


def test_it_runs_again_in_the_same_folder(first: tuple[Result, float], folder: Path) -> None:
    again = call_main("demo", str(folder))
    assert again.status == 0
    assert again.out == first[0].out
    assert "warehouse vacuum" in again.err


def test_a_folder_that_is_a_file_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("precious")
    status, out, err = call_main("demo", str(tmp_path / "demo"))
    assert (status, out) == (1, "")
    assert re.fullmatch(rf"error: [^\n]*{tmp_path / 'demo'}[^\n]*\n", err)
    assert (tmp_path / "demo").read_text() == "precious"
