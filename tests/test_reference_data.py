"""Real data against reference results of others; skips where that data is not at hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import warehouse


@pytest.mark.parametrize("name", ["onnx", "lens", "zoo"])
def test_a_warehouse_of_real_data_gives_the_reference_results(shared_data: Path, tmp_path: Path, name: str) -> None:
    check = shared_data.parent / "check_reference.py"
    if not check.exists():
        pytest.skip("the script that checks a warehouse is not here")
    warehouse.ingest(shared_data / f"{name}.h5", tmp_path / "cnn.warehouse")
    done = subprocess.run(
        [sys.executable, check, tmp_path / "cnn.warehouse", shared_data / f"{name}.expected.json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAIL" not in done.stdout
    assert done.stdout.count("ok  ") >= 6
