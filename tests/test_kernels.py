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


def run(folder: Path, disk: str) -> dict[Path, int]:
    """Run a compiled loop in a new process; the sizes of what it has kept in the folder ``cache``."""
    block = np.random.default_rng(0).normal(size=(9, 100)).astype(np.float32)
    block[3, 5] = np.inf
    np.save(folder / "block.npy", block)
    (folder / "cache").mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(folder / "block.npy"), disk],
        env={**os.environ, "NUMBA_CACHE_DIR": str(folder / "cache")},
        check=True,
        capture_output=True,
        text=True,
    )
    damaged, magnitude, _ = done.stdout.split()
    assert (int(damaged), int(magnitude)) == (1, int(kernels.INFINITY))
    return {path: path.stat().st_size for path in (folder / "cache").rglob("*.nb?")}


def test_a_full_disk_keeps_no_compiled_loop_and_runs_it(tmp_path: Path) -> None:
    assert sum(run(tmp_path, "full").values()) == 0


def test_what_is_kept_and_damaged_is_compiled_anew(tmp_path: Path) -> None:
    sound = run(tmp_path, "empty")
    assert {path.suffix for path, size in sound.items() if size} == {".nbi", ".nbc"}
    for suffix, share in ((".nbi", 0.5), (".nbc", 0)):
        for path, size in sound.items():
            if path.suffix == suffix:
                os.truncate(path, int(share * size))
        again = run(tmp_path, "empty")
        assert again.keys() == sound.keys()
        assert all(again[path] > 0.9 * sound[path] for path in sound)
