"""Fuzz what reads a stranger's file, guided by the coverage of the Python that reads it.

Run it as ``python -m tests.fuzz [TARGET ...] [--seconds 10]``, with ``pip install atheris``. A finding is kept in
``tests/fuzz/corpus/TARGET``, where the tests replay it.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

SECONDS = 10
MEMORY_MB = 1024
SECONDS_PER_INPUT = 20
SECONDS_TO_OPEN = 2.0


def guided(target: str, seconds: int, begin: Path) -> None:
    """Fuzz one target; ends the process."""
    import atheris

    with atheris.instrument_imports(include=["warehouse"]):
        from tests.fuzz import targets
        from warehouse import probe

    probe.SECONDS = SECONDS_TO_OPEN

    for number, seed in enumerate(targets.seeds(target)):
        (begin / str(number)).write_bytes(seed)
    kept = targets.CORPUS / target
    kept.mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_total_time={seconds}",
        f"-rss_limit_mb={MEMORY_MB}",
        f"-timeout={SECONDS_PER_INPUT}",
        f"-artifact_prefix={kept}/",
        "-print_final_stats=1",
        "-verbosity=0",
    ]
    atheris.Setup(
        [sys.argv[0], *options, str(begin), str(kept)],
        targets.TARGETS[target],
        custom_mutator=lambda data, size, seed: targets.mutate(data, seed)[:size],
    )
    atheris.Fuzz()


def main() -> int:
    """Fuzz each target in a process of its own: damaged HDF5 can end the process that reads it."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="for each target")
    parser.add_argument("--guided", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        print("not fuzzed: atheris is not installed (pip install atheris; Linux and macOS, CPython)")
        return 0
    if chosen.guided:
        with tempfile.TemporaryDirectory() as begin:
            guided(chosen.guided, chosen.seconds, Path(begin))
    from tests.fuzz import targets

    failed = []
    for target in chosen.targets or targets.TARGETS:
        print(f"{target}: {chosen.seconds} s", flush=True)
        command = [sys.executable, "-m", "tests.fuzz", "--guided", target, "--seconds", str(chosen.seconds)]
        if subprocess.run(command, check=False).returncode:
            failed.append(target)
    print(f"findings in {', '.join(failed)}: see {targets.CORPUS}" if failed else "no findings")
    return len(failed) > 0


if __name__ == "__main__":
    sys.exit(main())
