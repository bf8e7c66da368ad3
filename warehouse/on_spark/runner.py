"""Applies a stage's function to its pieces of work on the workers of a Spark cluster.

Pieces go out in waves of tasks, each a job of Spark's; partial results come back as bytes of `codec`, so that what
travels is what a piece amounts to, and no filter. Files are written and read by the workers themselves.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from warehouse import codec, errors
from warehouse.errors import WarehouseError
from warehouse.on_spark.failures import check_workers, explained
from warehouse.on_spark.tasks import RESULTS, apply
from warehouse.runner import Done

if TYPE_CHECKING:
    from pyspark.accumulators import Accumulator
    from pyspark.sql import SparkSession

T = TypeVar("T")

TASKS_A_CORE = 16
"""Tasks of a wave, for each core: enough that cores are rarely idle at its end."""
PIECES_A_TASK = 16
"""At most, so that little is lost with a worker."""
SECONDS_BETWEEN_LOOKS = 0.2
"""How often Spark's counters are asked for the progress."""


class SparkRunner:
    """The workers of a Spark session.

    Parameters
    ----------
    session
        A classic one, not of Spark Connect.

    Attributes
    ----------
    result_bytes
        Size of all partial results that came back so far.
    """

    def __init__(self, session: SparkSession) -> None:
        self._session = session
        self.result_bytes = 0

    def prepare(self, files: Sequence[Path]) -> None:
        """Make sure that all workers see files as this process does, and have the same package."""
        check_workers(self._session, [file.absolute() for file in files])

    def map(
        self,
        kind: Any,
        work: Callable[..., T],
        *arguments: Iterable[Any],
        done: Done | None = None,
        waits: bool = False,  # noqa: ARG002 - how many tasks run at a time is the session's
    ) -> Generator[T, None, None]:
        """Results of ``work``, as `warehouse.runner.Runner` says; an error ends all with the wave that it is in."""
        pieces = list(zip(*arguments, strict=True))
        cores = max(1, self._session.sparkContext.defaultParallelism)
        size = min(PIECES_A_TASK, math.ceil(len(pieces) / (TASKS_A_CORE * cores)) or 1)
        for wave in _batches(pieces, size * TASKS_A_CORE * cores):
            for row in self._run(work, wave, math.ceil(len(wave) / size), done):
                if row["error"]:
                    raise _error(row) from (OSError(row["number"], row["message"]) if row["number"] else None)
                self.result_bytes += len(row["value"])
                yield codec.decode(kind, row["value"])

    def _run(
        self, work: Callable[..., Any], pieces: list[Any], n_tasks: int, done: Done | None
    ) -> list[dict[str, Any]]:
        """The rows of one wave, in the order of the pieces."""
        from pyspark import cloudpickle
        from pyspark.sql.pandas.types import from_arrow_schema

        counted = self._session.sparkContext.accumulator(0)
        # packed apart from the function that Spark calls, so that what fails when they are unpacked is told as an error
        # of a piece: a source is opened then
        todo = cloudpickle.dumps((work, pieces))
        frame = self._session.range(0, len(pieces), numPartitions=n_tasks)
        results = frame.mapInArrow(partial(apply, todo, counted if done else None), from_arrow_schema(RESULTS))
        with explained(), _reporting(counted, done):
            rows: list[dict[str, Any]] = results.toArrow().sort_by("index").to_pylist()
        return rows


def _batches(pieces: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(pieces), size):
        yield pieces[start : start + size]


def _error(row: dict[str, Any]) -> WarehouseError:
    kind: type[WarehouseError] = getattr(errors, row["error"])
    return kind(row["message"])


@contextlib.contextmanager
def _reporting(counted: Accumulator[int], done: Done | None) -> Iterator[None]:
    """Pass on what Spark has counted of finished tasks, while the context lasts and at its end."""
    if done is None:
        yield
        return
    told, ended = 0, threading.Event()

    def look() -> None:
        nonlocal told
        now = counted.value
        done(now - told)
        told = now

    def watch() -> None:
        while not ended.wait(SECONDS_BETWEEN_LOOKS):
            look()

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        try:
            yield
        finally:
            ended.set()
            watching.result()
            look()
