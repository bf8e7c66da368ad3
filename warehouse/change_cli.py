"""The commands ``add``, ``remove`` and ``refit``, which change a warehouse, and what each tells of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from warehouse import changes
from warehouse.changes import Change
from warehouse.engines import chosen_runner
from warehouse.extraction import LABELS, extract
from warehouse.label_files import read_labels
from warehouse.legible import counted
from warehouse.options import (
    ConfOption,
    EngineOption,
    MasterOption,
    MetaOption,
    ThreadsOption,
    WarehousePath,
    assignments,
)
from warehouse.output import errors, note
from warehouse.progress import bar


def add(
    path: WarehousePath,
    models: Annotated[
        list[Path], typer.Argument(metavar="MODEL...", help="Model files: ONNX, safetensors, PyTorch or Keras.")
    ],
    meta: MetaOption = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace models that are there already, by their checksums.")
    ] = False,
    threads: ThreadsOption = None,
    task: Annotated[str | None, typer.Option(help="What the models do, such as Classification.")] = None,
    visual_category: Annotated[str | None, typer.Option(help="What they see, such as natural.")] = None,
    training_dataset: Annotated[str | None, typer.Option(help="What they were trained on.")] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help=f"Any other label, repeatedly: {', '.join(LABELS)}."),
    ] = None,
) -> None:
    """Add models to a warehouse, on the basis and range that it has."""
    given: dict[str, Any] = {
        "task": task,
        "visual_category": visual_category,
        "training_dataset": training_dataset,
        **assignments(label, "--label"),
    }
    of_file = read_labels(meta, models) if meta else {}
    # what stands beside a model says more than what is said of all
    extracted = [extract(model, **{**given, **of_file.get(model, {})}) for model in models]
    for model in extracted:
        for remark in model.notes:
            note(f"{model.source}: {remark}")
    with bar(errors) as progress:
        change = changes.add(path, extracted, replace_known=replace, threads=threads, progress=progress)
    tell(change)


def remove(
    path: WarehousePath,
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Each by its model_id, file name or name.")],
) -> None:
    """Remove models from a warehouse; basis and range stay."""
    change = changes.remove(path, models)
    note(
        f"{path}: removed {_counts(change)}, {change.seconds:.1f} s; "
        f"free their files, once nobody reads them, with: warehouse vacuum {path}"
    )


def refit(
    path: WarehousePath,
    threads: ThreadsOption = None,
    engine: EngineOption = "local",
    master: MasterOption = None,
    conf: ConfOption = None,
) -> None:
    """Choose basis and range of the histograms anew, over all filters, after much was added or removed."""
    with chosen_runner(engine, threads, master, conf) as runner, bar(errors) as progress:
        coordinates = changes.refit(path, runner=runner, progress=progress)
    note(f"{path}: basis of {coordinates.n:,} filters, range {coordinates.low:.4f} to {coordinates.high:.4f}")


def _counts(change: Change) -> str:
    models, layers = counted(len(change.model_ids), "model"), counted(change.layers, "layer")
    return f"{models}, {layers}, {counted(change.filters, 'filter')}"


def nonfinite_note(layers: int) -> str:
    """Say how many layers have no statistics."""
    return f"NaN or infinite weights in {counted(layers, 'layer')}; statistics of these are NULL"


def tell(change: Change) -> None:
    """Say what was added."""
    ids = ", ".join(map(str, change.model_ids[:5])) + (", ..." if len(change.model_ids) > 5 else "")
    lines = [f"{change.path}: added {_counts(change)}, {change.seconds:.1f} s; model_id {ids}"]
    if change.nonfinite_layers:
        lines.append(nonfinite_note(change.nonfinite_layers))
    if change.outside:
        lines.append(
            f"{change.outside:,} coefficients lie outside the range of the histograms and count in the bins at its "
            f"ends; for a range over everything: warehouse refit {change.path}"
        )
    for line in lines:
        note(line)
