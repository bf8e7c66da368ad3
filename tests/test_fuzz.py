"""What reads a stranger's bytes ends with ``SourceError`` or success, whatever the bytes; past findings stay mended."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import targets

IN_PROCESS = sorted(targets.TARGETS.keys() - {"dataset", "torch_file"})
"""Targets in Python alone; HDF5 and the readers of archives get a process of their own."""
FINDINGS = sorted(path for path in targets.CORPUS.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", IN_PROCESS)
@settings(max_examples=60, deadline=None)
@given(which=st.integers(0, 100), seed=st.integers(0, 2**32))
def test_spoiled_bytes_are_refused_or_read(name: str, which: int, seed: int) -> None:
    sound = targets.seeds(name)
    targets.TARGETS[name](targets.mutate(sound[which % len(sound)], seed))


@pytest.mark.parametrize("name", targets.TARGETS)
def test_sound_bytes_are_taken(name: str) -> None:
    for sound in targets.seeds(name):
        targets.TARGETS[name](sound)


@pytest.mark.parametrize("path", FINDINGS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_was_found_once_stays_mended(path: Path) -> None:
    code = (
        "import sys, pathlib; from tests.fuzz.targets import TARGETS; from warehouse import probe; probe.SECONDS = 2.0;"
        "TARGETS[sys.argv[1]](pathlib.Path(sys.argv[2]).read_bytes())"
    )
    done = subprocess.run([sys.executable, "-c", code, path.parent.name, str(path)], check=False, timeout=60)
    assert done.returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")
def test_a_minute_of_fuzzing_guided_by_coverage_finds_nothing() -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--seconds", "10"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stdout + done.stderr[-5000:]


def test_the_corpus_is_small() -> None:
    assert sum(path.stat().st_size for path in FINDINGS) < 200_000
