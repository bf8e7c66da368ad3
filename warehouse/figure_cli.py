"""The commands ``figure`` and ``report``: pictures of a warehouse, for a paper and for a first look."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from warehouse import output, plots
from warehouse.errors import QueryError
from warehouse.options import WarehousePath
from warehouse.report import AXES
from warehouse.report import page as write_page
from warehouse.session import Warehouse

FORMATS = ("png", "pdf", "svg")


def figure(
    path: WarehousePath,
    name: Annotated[str | None, typer.Argument(help="Which figure; without it they are listed.")] = None,
    file: Annotated[Path | None, typer.Option("--output", "-o", help="The file to write: .png, .pdf or .svg.")] = None,
    width: Annotated[float, typer.Option(help="Inches: 3.5 for a column of a page, 7 for all of it.")] = 7.0,
    axis: Annotated[
        list[str] | None, typer.Option(help="An expression whose values are the groups; repeat it for several axes.")
    ] = None,
    keep: Annotated[str | None, typer.Option(help="A condition: what counts.")] = None,
    order: Annotated[str | None, typer.Option(help="drift_heatmap: auto, mean or given.")] = None,
    upper: Annotated[float | None, typer.Option(help="drift_heatmap: the drift at which colours end.")] = None,
    metric: Annotated[str | None, typer.Option(help="quality_by_depth, accuracy: which metric.")] = None,
    first_apart: Annotated[
        bool | None, typer.Option("--first-apart", help="quality_by_depth: the first layers apart, as depth 0.")
    ] = None,
    against: Annotated[str | None, typer.Option(help="accuracy: which accuracy.")] = None,
    colour: Annotated[str | None, typer.Option(help="accuracy: the column told apart by colour.")] = None,
    power: Annotated[float | None, typer.Option(help="model_map: the power of drift taken as distance.")] = None,
    x: Annotated[int | None, typer.Option(min=0, max=8, help="density: the component across.")] = None,
    y: Annotated[int | None, typer.Option(min=0, max=8, help="density: the component upwards.")] = None,
    bins: Annotated[int | None, typer.Option(min=1, max=4096, help="density: cells along each side.")] = None,
    layer: Annotated[int | None, typer.Option(min=0, help="filter_grid: the layer_id.")] = None,
) -> None:
    """Draw a figure fit for a paper, or list the figures."""
    if name is None:
        for plot in plots.PLOTS.values():
            typer.echo(f"{plot.name:<20}{plot.purpose}")
        return
    options: dict[str, Any] = {
        option: value
        for option, value in {
            "axis": axis and (axis[0] if len(axis) == 1 else tuple(axis)),
            "keep": keep,
            "order": order,
            "upper": upper,
            "metric": metric,
            "first_apart": first_apart,
            "against": against,
            "colour": colour,
            "power": power,
            "x": x,
            "y": y,
            "bins": bins,
            "layer": layer,
        }.items()
        if value is not None
    }
    plots.find(name)
    format_ = _format(file)
    with Warehouse(path) as warehouse:
        drawn = plots.prepare(warehouse, name, options).draw(width)
    # matplotlib is an extra: it is there, for something has been drawn
    from warehouse import figures

    with output.complete_or_nothing(file) as target:
        figures.save(drawn, target, format_)


def _format(file: Path | None) -> str:
    """What a file's name says it is."""
    ending = file.suffix[1:].lower() if file else ""
    if ending not in FORMATS:
        raise QueryError(f"{f'{file}: ' if file else ''}name a file that ends in .png, .pdf or .svg with -o FILE")
    return ending


def report(
    path: WarehousePath,
    file: Annotated[
        Path | None, typer.Option("--output", "-o", help="The page to write; by default standard output.")
    ] = None,
    axis: Annotated[
        list[str] | None,
        typer.Option(
            help=f"An expression whose values are the groups; repeat it for several. By default {', '.join(AXES)}."
        ),
    ] = None,
) -> None:
    """Write a page about a warehouse: contents, quality, drift and components, with the SQL of each."""
    with Warehouse(path) as warehouse:
        page = write_page(warehouse, axis or AXES)
    with output.complete_or_nothing(file) as target:
        target.write_text(page, encoding="utf-8")
