"""Real data against reference results of others; skips where that data is not at hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import warehouse


@pytest.fixture(scope="session")
def onnx_warehouse(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return warehouse.ingest(shared_data / "onnx.h5", tmp_path_factory.mktemp("onnx") / "onnx.warehouse").path


@pytest.mark.parametrize(
    ("name", "fixture"), [("onnx", "onnx_warehouse"), ("lens", "lens_data_warehouse"), ("zoo", "zoo_warehouse")]
)
def test_a_warehouse_of_real_data_gives_the_reference_results(
    request: pytest.FixtureRequest, shared_data: Path, tmp_path: Path, name: str, fixture: str
) -> None:
    check = shared_data.parent / "check_reference.py"
    if not check.exists():
        pytest.skip("the script that checks a warehouse is not here")
    done = subprocess.run(
        [sys.executable, check, request.getfixturevalue(fixture), shared_data / f"{name}.expected.json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAIL" not in done.stdout
    assert done.stdout.count("ok  ") >= 6
