"""The command ``extract``: from model files to a dataset file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from warehouse.dataset_writer import refuse_existing
from warehouse.extraction import LABELS, ExtractedModel, write_dataset
from warehouse.extraction import extract as extract_model
from warehouse.legible import counted
from warehouse.options import assignments
from warehouse.output import errors, note
from warehouse.progress import bar
from warehouse.runner import for_stage


def extract(
    models: Annotated[
        list[Path],
        typer.Argument(metavar="MODEL...", help="ONNX, safetensors, PyTorch checkpoints, Keras weights (.h5, .keras)."),
    ],
    file: Annotated[Path, typer.Option("--output", "-o", help="The dataset file to make.")],
    task: Annotated[str | None, typer.Option(help="What the models do, such as Classification.")] = None,
    visual_category: Annotated[str | None, typer.Option(help="What they see, such as natural.")] = None,
    training_dataset: Annotated[str | None, typer.Option(help="What they were trained on.")] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help=f"Any other label, repeatedly: {', '.join(LABELS)}."),
    ] = None,
    transposed: Annotated[
        bool, typer.Option("--transposed", help="Take transposed convolutions too, which the authors left out.")
    ] = False,
) -> None:
    """Make a dataset file of the 3x3 filters of models."""
    refuse_existing(file, "the dataset")
    labels = {"task": task, "visual_category": visual_category, "training_dataset": training_dataset}
    labels |= assignments(label, "--label")
    extracted = [extract_model(path, transposed=transposed, **labels) for path in models]
    with bar(errors) as progress:
        write_dataset(extracted, file, progress=for_stage(progress, "writing"))
    for model in extracted:
        note(summary(model))
    n_filters, n_layers = sum(m.n_filters for m in extracted), sum(len(m.layers) for m in extracted)
    counts = counted(n_filters, "filter"), counted(n_layers, "layer"), counted(len(extracted), "model")
    note(f"{file}: {', '.join(counts)}")


def summary(model: ExtractedModel) -> str:
    """A line on a model: what it holds, and what was changed or left out."""
    counts = f"{counted(model.n_filters, 'filter')} in {counted(len(model.layers), 'layer')}"
    return "; ".join([f"{model.name} ({model.format}): {counts}", *model.notes])
