"""Applies a stage's function to its pieces of work, and counts what is done.

A stage is a pure function of one piece that returns a partial result; how the pieces are spread over threads or
machines, and nothing else, is a runner's. Partial results come back in the order of the pieces, and merge.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

Progress = Callable[[str, int, int], None]
"""Called with a stage, filters done and filters in all; from any thread, one call at a time."""
Done = Callable[[int], None]
"""Is told how many filters were worked off."""


class Counter:
    """Adds up what the workers have done and reports it, one call at a time."""

    def __init__(self, report: Progress | None, total: int) -> None:
        self._report, self._total, self._guard = report, total, Lock()
        self._stage, self._done = "", 0

    def begin(self, stage: str) -> None:
        """Start counting a stage."""
        self._stage, self._done = stage, 0

    def add(self, n: int) -> None:
        """Count filters as done."""
        with self._guard:
            self._done += n
            if self._report and n:
                self._report(self._stage, self._done, self._total)


def for_stage(progress: Progress | None, stage: str) -> Callable[[int, int], None] | None:
    """What reports one stage of work, done and in all, to ``progress``."""
    return partial(progress, stage) if progress else None


class Runner(Protocol):
    """What applies the functions of stages."""

    def prepare(self, files: Sequence[Path]) -> None:
        """Make sure that all workers see files as this process does.

        Raises
        ------
        EngineError
            One that a worker does not see, or sees another of.
        """

    def map(
        self,
        kind: Any,
        work: Callable[..., T],
        *arguments: Iterable[Any],
        done: Done | None = None,
        waits: bool = False,
    ) -> Generator[T, None, None]:
        """Results of ``work``, in order; the first error ends all.

        Parameters
        ----------
        kind
            Type of the results, as `codec` takes it.
        work
            Pure but for the files that it writes, which have names of their own; it may be applied to a piece again
            where a worker was lost.
        arguments
            For each parameter those of all pieces.
        done
            Is told of the progress. If there is one, ``work`` gets a ``done`` to call, too.
        waits
            Whether ``work`` waits for a disk about as long as it computes.
        """


class LocalRunner:
    """Threads of this process.

    Parameters
    ----------
    threads
        How many compute, by default one per core; of work that waits for a disk as long, there are twice as many.
    """

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads or os.cpu_count() or 1

    def prepare(self, files: Sequence[Path]) -> None:
        """Nothing: threads see what the process does."""

    def map(
        self,
        kind: Any,  # noqa: ARG002 - results stay what they are
        work: Callable[..., T],
        *arguments: Iterable[Any],
        done: Done | None = None,
        waits: bool = False,
    ) -> Generator[T, None, None]:
        """Results of ``work``, as `Runner` says."""
        told = {"done": done} if done else {}
        with ThreadPoolExecutor(self._threads * (2 if waits else 1)) as pool:
            futures = deque(pool.submit(work, *each, **told) for each in zip(*arguments, strict=True))
            try:
                while futures:
                    # not kept: an error that knew this frame, and the frame it, would hold open what its own frames do
                    yield futures.popleft().result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
