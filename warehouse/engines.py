"""What runs the stages of an ingest: threads of this process, or the workers of a Spark cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import typer

from warehouse.options import assignments
from warehouse.runner import LocalRunner, Runner

Engine = Literal["local", "spark"]


@dataclass(frozen=True)
class Choice:
    """An engine as the command line names it.

    Attributes
    ----------
    engine
        Its name.
    threads
        Of this process; with ``local`` alone.
    master, conf
        Where Spark runs, and its settings as ``name=value``; with ``spark`` alone.
    """

    engine: Engine = "local"
    threads: int | None = None
    master: str | None = None
    conf: tuple[str, ...] = ()

    @contextlib.contextmanager
    def runner(self) -> Iterator[Runner]:
        """Start the engine, and end it with the context."""
        if self.engine == "local":
            for option, value in (("--master", self.master), ("--conf", self.conf)):
                if value:
                    raise typer.BadParameter("goes with --engine spark", param_hint=option)
            yield LocalRunner(self.threads)
            return
        if self.threads:
            raise typer.BadParameter("goes with --engine local; see --master", param_hint="--threads")
        from warehouse.on_spark.engine import started
        from warehouse.on_spark.runner import SparkRunner

        with started(self.master, assignments(self.conf, "--conf")) as session:
            yield SparkRunner(session)
