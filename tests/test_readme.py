"""Everything that the README tells to type is run, in the order of the page."""

from __future__ import annotations

import lzma
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
SET_UP = [text for kind, text in BLOCKS if kind == "sh" and "venv" in text]
COMMANDS = [text for kind, text in BLOCKS if kind == "sh" and "venv" not in text]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, sample: Path, sample_warehouse: Path) -> Path:
    """A user's folder: with datasets, the warehouse that the first command makes, and the programs on the path."""
    folder = tmp_path_factory.mktemp("user")
    shutil.copy(sample, folder / "dataset.h5")
    with lzma.open(folder / "dataset.h5.xz", "wb", preset=0) as packed:
        packed.write(sample.read_bytes())
    shutil.copytree(sample_warehouse, folder / "cnn.warehouse")
    weights = np.random.default_rng(3).normal(size=(8, 4, 3, 3)).astype(np.float32)
    save_file({"conv.weight": weights}, folder / "mine.safetensors")
    return folder


def run(command: list[str] | str, folder: Path) -> str:
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


@pytest.mark.parametrize("command", [line for text in COMMANDS for line in text.splitlines()])
def test_command_of_the_readme_runs(command: str, folder: Path) -> None:
    if command == "warehouse ingest dataset.h5 cnn.warehouse":
        shutil.rmtree(folder / "cnn.warehouse")
    run(command, folder)


@pytest.mark.parametrize("script", [text for kind, text in BLOCKS if kind == "python"])
def test_python_of_the_readme_runs(script: str, folder: Path) -> None:
    assert run([sys.executable, "-W", "error", "-c", script], folder)


def test_queries_of_the_readme_run_in_the_shell(folder: Path) -> None:
    (queries,) = [text for kind, text in BLOCKS if kind == "sql"]
    for query in filter(None, map(str.strip, queries.split(";"))):
        assert run(["warehouse", "shell", "cnn.warehouse", "-bail", "-c", query], folder), query


def test_every_object_is_named_in_the_readme(folder: Path) -> None:
    names = run(
        ["warehouse", "query", "cnn.warehouse", "select name from help", "--format", "csv"], folder
    ).splitlines()[1:]
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
