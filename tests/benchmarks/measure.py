"""What benchmarks share: a piece of work in a process of its own, a question to a warehouse, a folder, a table."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import polars as pl

REPEATS = 9
ENOUGH_SECONDS = 5


class Cost(NamedTuple):
    """Seconds of wall time, peak resident memory in MB, and whatever the work returned."""

    seconds: float
    peak_mb: float
    result: Any


class Answer(NamedTuple):
    """Milliseconds that a question took, results fetched, and the number of its rows.

    Attributes
    ----------
    cold
        Of the first time, opening the file included, after the system was told to forget what it holds of it.
    warm
        Median of the times after that, on the open connection.
    rows
        Of the result.
    """

    cold: float
    warm: float
    rows: int


def in_new_process(module: str, function: str, *arguments: str | int | Path) -> Cost:
    """Call ``function`` of ``module``, which takes texts and returns JSON, in a new process."""
    # what earlier work left to write would slow this one down
    os.sync()
    command = [sys.executable, "-m", "tests.benchmarks.measure", module, function, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{module}.{function} failed:\n{done.stderr}")
    return Cost(*json.loads(done.stdout.splitlines()[-1]))


def ask(path: str, sql: str) -> Answer:
    """Ask a warehouse a question several times, without the functions of Python."""
    database = Path(path) / "warehouse.duckdb"
    forget([database])
    begin = time.perf_counter()
    times: list[float] = []
    with duckdb.connect(str(database), read_only=True) as con:
        while len(times) < REPEATS and sum(times) < ENOUGH_SECONDS:
            rows = len(con.sql(sql).fetchall())
            end = time.perf_counter()
            times.append(end - begin)
            begin = end
    cold, *warm = (1000 * seconds for seconds in times)
    return Answer(cold, statistics.median(warm or [cold]), rows)


def forget(paths: Iterable[Path]) -> None:
    """Have the system forget what it holds of files in memory, where it can."""
    if hasattr(os, "posix_fadvise"):
        for path in paths:
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextlib.contextmanager
def working_folder(parent: Path | None) -> Iterator[Path]:
    """A folder to work in that is gone afterwards, also when the process is interrupted or asked to end."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with tempfile.TemporaryDirectory(prefix="warehouse-benchmark-", dir=parent) as folder:
            yield Path(folder)
    finally:
        signal.signal(signal.SIGTERM, before)


def tell(message: str) -> None:
    """Say what goes on, beside the results."""
    print(message, file=sys.stderr, flush=True)


def environment() -> str:
    """What the numbers of a run depend on."""
    versions = f"Python {platform.python_version()}, duckdb {duckdb.__version__}, polars {pl.__version__}"
    return f"{os.cpu_count()} cores, {versions}"


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))


def _peak_mb() -> float:
    """Peak resident memory of this process alone; a new process inherits the system's other count from its parent."""
    status = Path("/proc/self/status")
    if status.exists():
        (kibibytes,) = re.findall(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.MULTILINE)
        return int(kibibytes) * 1024 / 1e6
    # bytes on macOS
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def _main(module: str, function: str, *arguments: str) -> None:
    __import__(module)
    work: Callable[..., Any] = getattr(sys.modules[module], function)
    begin = time.perf_counter()
    result = work(*arguments)
    seconds = time.perf_counter() - begin
    print(json.dumps([seconds, _peak_mb(), result]))


if __name__ == "__main__":
    _main(*sys.argv[1:])
