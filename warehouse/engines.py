"""What runs the stages of an ingest: threads of this process, or the workers of a Spark cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import typer

from warehouse.options import assignments
from warehouse.runner import LocalRunner, Runner


@contextlib.contextmanager
def chosen_runner(engine: str, threads: int | None, master: str | None, conf: Sequence[str] | None) -> Iterator[Runner]:
    """Start an engine as the command line names it, and end it with the context.

    Parameters
    ----------
    engine
        ``local`` or ``spark``.
    threads
        Of this process; with ``local`` alone.
    master, conf
        Where Spark runs, and its settings as ``name=value``; with ``spark`` alone.
    """
    if engine == "local":
        for option, value in (("--master", master), ("--conf", conf)):
            if value:
                raise typer.BadParameter("goes with --engine spark", param_hint=option)
        yield LocalRunner(threads)
        return
    if threads:
        raise typer.BadParameter("goes with --engine local; see --master", param_hint="--threads")
    from warehouse.on_spark.engine import started
    from warehouse.on_spark.runner import SparkRunner

    with started(master, assignments(conf, "--conf")) as session:
        yield SparkRunner(session)
