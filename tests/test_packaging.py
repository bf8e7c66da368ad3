"""The built wheel works in a clean environment, far from the checkout."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_wheel_holds_every_sql_file_and_only_the_packages(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {f"warehouse/{path.relative_to(ROOT)}" for path in (ROOT / "sql").rglob("*") if path.is_file()}
    assert {path.rpartition(".")[2] for path in expected} == {"sql", "csv"}
    assert expected <= names
    assert {"warehouse/py.typed", "udfs/py.typed", "warehouse/report.html", "warehouse/report.js"} <= names
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"warehouse", "udfs"}


def test_wheel_makes_and_answers_a_warehouse_in_a_clean_environment(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    programs = environment / "bin"
    subprocess.run([programs / "pip", "install", "-q", f"{wheel}[shell]"], check=True, capture_output=True)

    def run(*command: str) -> str:
        return subprocess.run(
            [programs / command[0], *command[1:]], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    run("warehouse", "sample", "s.h5", "--filters", "3000", "--layers", "20", "--models", "5")
    run("python", "-m", "warehouse", "ingest", "s.h5", "cnn.warehouse")
    drift = run("warehouse", "query", "cnn.warehouse", "from drift(task)", "--format", "csv").splitlines()
    assert drift[0] == "a,b,drift"
    assert len(drift) > 1
    shell = run("duckdb", "-readonly", "-csv", "cnn.warehouse/warehouse.duckdb", "-c", "from drift(task)")
    assert shell.splitlines()[0] == "a,b,drift"
    assert len(shell.splitlines()) == len(drift)
