"""The command ``compare``: a model beside a warehouse, nothing written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from warehouse import comparison_page, output
from warehouse.comparison import QUESTIONS, Comparison
from warehouse.extraction import extract
from warehouse.legible import printable
from warehouse.output import errors
from warehouse.progress import bar


def compare(
    model: Annotated[Path, typer.Argument(help="A model file: ONNX, safetensors, PyTorch or Keras.")],
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The folder of the warehouse.")],
    format_: Annotated[
        Literal["text", "json", "html"] | None,
        typer.Option("--format", help="By default what the file's name says, and else text."),
    ] = None,
    file: Annotated[Path | None, typer.Option("--output", "-o", help="Write to a file.")] = None,
) -> None:
    """Compare a model with a warehouse: its layers among others', what it resembles, its nearest relatives."""
    kind = format_ or {".json": "json", ".html": "html"}.get(file.suffix.lower() if file else "", "text")
    extracted = extract(model)
    with bar(errors) as progress:
        comparison = Comparison(path, [extracted], progress=progress)
    with comparison:
        if kind == "text":
            _write_text(comparison, file)
            return
        text = comparison_page.as_json(comparison) if kind == "json" else comparison_page.as_page(comparison)
    with output.complete_or_nothing(file) as target:
        target.write_text(text + "\n", encoding="utf-8")


def _write_text(comparison: Comparison, file: Path | None) -> None:
    (model_id,) = comparison.model_ids
    told = comparison_page.facts(comparison.about(model_id, ("model", "layers")), comparison, 0)
    lines = [f"{name.replace('_', ' ')}: {value}" for name, value in told.items() if name != "notes"]
    with output.complete_or_nothing(file) as target, target.open("w", encoding="utf-8") as stream:
        for line in [*lines, *told["notes"]]:
            stream.write(f"{printable(line)}\n")
        for name, title in comparison_page.TITLES.items():
            relation = comparison.sql(QUESTIONS[name], {"model": model_id})
            if name == "layers":
                relation = relation.project(", ".join(comparison_page.LAYER_COLUMNS))
            stream.write(f"\n{title}\n")
            output.write_table(relation, stream)
