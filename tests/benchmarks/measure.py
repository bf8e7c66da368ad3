"""Runs a piece of work in a process of its own and tells how long it took and how much memory it held."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple


class Cost(NamedTuple):
    """Seconds of wall time, peak resident memory in MB, and whatever the work returned."""

    seconds: float
    peak_mb: float
    result: Any


def in_new_process(module: str, function: str, *arguments: str | int) -> Cost:
    """Call ``function`` of ``module``, which takes texts and returns JSON, in a new process."""
    # what earlier work left to write would slow this one down
    os.sync()
    command = [sys.executable, "-m", "tests.benchmarks.measure", module, function, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{module}.{function} failed:\n{done.stderr}")
    return Cost(*json.loads(done.stdout.splitlines()[-1]))


def _main(module: str, function: str, *arguments: str) -> None:
    __import__(module)
    work: Callable[..., Any] = getattr(sys.modules[module], function)
    begin = time.perf_counter()
    result = work(*arguments)
    seconds = time.perf_counter() - begin
    # kilobytes on Linux
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(json.dumps([seconds, peak, result]))


if __name__ == "__main__":
    _main(*sys.argv[1:])
