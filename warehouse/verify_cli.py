"""The command ``verify``, which tells what is wrong with a warehouse."""

from __future__ import annotations

from typing import Annotated

import typer

from warehouse.engines import chosen_runner
from warehouse.options import ConfOption, EngineOption, MasterOption, ThreadsOption, WarehousePath
from warehouse.output import errors, note
from warehouse.progress import bar
from warehouse.verify import LAYERS, Verification
from warehouse.verify import verify as run_verify


def verify(
    path: WarehousePath,
    quick: Annotated[
        bool, typer.Option("--quick", help="By presence, size, footers and counts alone; read no file whole.")
    ] = False,
    layers: Annotated[
        int, typer.Option(min=0, help="Layers, evenly spaced, whose checksums and moments to compute anew.")
    ] = LAYERS,
    threads: ThreadsOption = None,
    engine: EngineOption = "local",
    master: MasterOption = None,
    conf: ConfOption = None,
) -> None:
    """Check that a warehouse is whole and undamaged; one line a problem, and exit status 1 if there is any."""
    with chosen_runner(engine, threads, master, conf) as runner, bar(errors) as progress:
        found = run_verify(path, quick, layers=layers, runner=runner, progress=progress)
    for problem in found.problems:
        typer.echo(problem)
    if found.leftovers:
        note(_leftovers(found))
    if not found.is_sound:
        n = len(found.problems)
        note(f"{path}: {n:,} problem{'s' * (n > 1)}")
        raise typer.Exit(1)
    how = "by sizes and counts" if quick else f"of which {found.recomputed:,} were computed anew from their filters"
    typer.echo(f"{path} is sound: {found.files:,} files, {found.filters:,} filters, {found.layers:,} layers, {how}")


def _leftovers(found: Verification) -> str:
    shown = ", ".join(found.leftovers[:5]) + (", ..." if len(found.leftovers) > 5 else "")
    return f"{found.path}: {len(found.leftovers):,} leftovers, removed by `warehouse vacuum {found.path}`: {shown}"
