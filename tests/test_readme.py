"""Everything that the README tells to type is run, in the order of the page."""

from __future__ import annotations

import contextlib
import lzma
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import warehouse
from tests.test_cli import call_main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
SET_UP = [text for kind, text in BLOCKS if kind == "sh" and "venv" in text]
COMMANDS = [line for kind, text in BLOCKS if kind == "sh" and "venv" not in text for line in text.splitlines()]
SCRIPTS = [text for kind, text in BLOCKS if kind == "python"]
CLUSTER = [text.splitlines() for kind, text in BLOCKS if kind == "bash"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, sample: Path, sample_warehouse: Path) -> Path:
    """A user's folder: with datasets, a model, and the warehouse that the first command makes."""
    folder = tmp_path_factory.mktemp("user")
    shutil.copy(sample, folder / "dataset.h5")
    with lzma.open(folder / "dataset.h5.xz", "wb", preset=0) as packed:
        packed.write(sample.read_bytes())
    shutil.copytree(sample_warehouse, folder / "cnn.warehouse")
    weights = np.random.default_rng(3).normal(size=(8, 4, 3, 3)).astype(np.float32)
    save_file({"conv.weight": weights}, folder / "mine.safetensors")
    return folder


def run(command: list[str] | str, folder: Path) -> str:
    """Run a program, or a script of the Bourne shell, with the programs of this environment on the path."""
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PATH": path},
        shell=isinstance(command, str),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_command_of_the_readme_runs(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if command == "warehouse ingest dataset.h5 cnn.warehouse":
        shutil.rmtree(folder / "cnn.warehouse")
    monkeypatch.chdir(folder)
    program, *arguments = shlex.split(command)
    assert program == "warehouse"
    result = call_main(*arguments)
    assert result.status == 0, result.err


@pytest.mark.parametrize("script", SCRIPTS)
def test_python_of_the_readme_runs(
    script: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    (folder / "script.py").write_text(script, encoding="utf-8")
    runpy.run_path("script.py")
    assert capsys.readouterr().out


@pytest.mark.slow
def test_all_of_the_readme_runs_as_it_is_typed(folder: Path) -> None:
    shutil.rmtree(folder / "cnn.warehouse")
    shutil.rmtree(folder / "real.warehouse", ignore_errors=True)
    run("\n".join(["set -e", *COMMANDS]), folder)
    for script in SCRIPTS:
        assert run([sys.executable, "-W", "error", "-c", script], folder)


def test_queries_of_the_readme_run_in_the_shell(folder: Path) -> None:
    (text,) = [text for kind, text in BLOCKS if kind == "sql"]
    queries = [query.strip() for query in text.split(";") if query.strip()]
    answered = [part for query in queries for part in ("-c", query, "-c", ".print answered")]
    answers = run(["warehouse", "shell", "cnn.warehouse", "-bail", *answered], folder).split("answered\n")
    assert [bool(answer) for answer in answers] == [True] * len(queries) + [False]


def test_every_object_is_named_in_the_readme(wh: warehouse.Warehouse) -> None:
    names = [name for (name,) in wh.sql("select name from help").fetchall()]
    assert len(names) > 40
    missing = [name for name in names if not re.search(rf"`{name}[`(]", README)]
    assert missing == []


def test_ci_runs_the_readme_s_command_for_the_tests() -> None:
    _, tests = SET_UP
    assert tests.strip() in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


@pytest.mark.slow
def test_first_command_of_the_readme_runs_the_demo_in_a_fresh_clone(tmp_path: Path) -> None:
    subprocess.run(["git", "clone", "-q", str(ROOT), str(tmp_path / "clone")], check=True)
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", str(tmp_path))}
    done = subprocess.run(
        SET_UP[0], shell=True, cwd=tmp_path / "clone", env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "explained_variance_ratio" in done.stdout
    assert "synthetic" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None, reason="Java is not installed")
def test_cluster_of_the_readme_starts_and_runs_both_jobs(folder: Path, tmp_path: Path) -> None:
    processes, jobs = CLUSTER
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    with contextlib.ExitStack() as undo:
        for i, command in enumerate(processes):
            log = undo.enter_context((tmp_path / f"{i}.log").open("wb"))
            started = subprocess.Popen(
                shlex.split(command), env=os.environ | {"PATH": path}, cwd=tmp_path, stdout=log, stderr=log
            )
            undo.callback(started.wait)
            undo.callback(started.terminate)
            deadline = time.monotonic() + 60
            said = "I have been elected leader" if i == 0 else "Successfully registered with master"
            while said not in (tmp_path / f"{i}.log").read_text() and time.monotonic() < deadline:
                time.sleep(0.2)
        told = [run(shlex.split(job), folder) for job in jobs]
    assert "x_bin" in told[-1]
