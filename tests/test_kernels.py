"""The compiled loops run wherever they cannot be kept; what they compute is tested where they are called."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from warehouse import kernels

pytestmark = pytest.mark.slow  # they compile

ALONE = """
import resource, sys
import numpy as np
from warehouse import kernels
if sys.argv[2:] == ["full"]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
vector, step, n = kernels.flat(np.load(sys.argv[1]))
print(*kernels.extent(vector, vector.view(np.int32), step, n))
"""


@pytest.mark.parametrize("disk", ["empty", "full"])
def test_a_full_disk_keeps_no_compiled_loop_and_runs_it(tmp_path: Path, disk: str) -> None:
    block = np.random.default_rng(0).normal(size=(9, 100)).astype(np.float32)
    block[3, 5] = np.inf
    np.save(tmp_path / "block.npy", block)
    (tmp_path / "cache").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(tmp_path / "block.npy"), disk],
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")},
        check=True,
        capture_output=True,
        text=True,
    )
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.stat().st_size]
    assert bool(kept) == (disk == "empty")
    damaged, magnitude, _ = done.stdout.split()
    assert (int(damaged), int(magnitude)) == (1, int(kernels.INFINITY))
