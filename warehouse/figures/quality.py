"""Quality of layers by depth, and of models against their accuracy."""

from __future__ import annotations

from typing import Any

import polars as pl
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from warehouse.errors import QueryError
from warehouse.figures import labels, style
from warehouse.figures.frames import at_most, draws, in_order, require
from warehouse.session import did_you_mean

MOST_PANELS = 30
MOST_COLOURS = 12
ROBUST = "robust"
STATISTICS = {"min": "whislo", "q1": "q1", "median": "med", "q3": "q3", "max": "whishi", "mean": "mean"}
"""Columns of ``quality_by_depth`` and what matplotlib calls them."""


@draws("grp", "metric", "n_layers", *STATISTICS)
def quality_by_depth(
    frame: pl.DataFrame,
    metric: str = "sparsity",
    *,
    title: str = "Quality by depth",
    note: str = "",
    width: float = 7.0,
) -> Figure:
    """Draw box plots of a metric of the layers at each depth, for each group.

    Parameters
    ----------
    frame
        ``from quality_by_depth(axis)``, at most 30 groups.
    metric
        Which of the frame's metrics.
    title, note
        Texts above and below.
    width
        Inches.

    Returns
    -------
    The figure: boxes are quartiles, whiskers reach from the smallest to the largest layer, diamonds are means. A few
    groups stand side by side, more have a panel each.

    Raises
    ------
    QueryError
        An unknown metric, or more than 30 groups.
    """
    depth = next((name for name in ("depth", "depth_decile") if name in frame.columns), None)
    if depth is None:
        raise QueryError(f"quality_by_depth needs a column 'depth'; it has {', '.join(frame.columns)}")
    known = in_order(frame, "metric")
    frame = frame.filter((pl.col("metric") == metric) & pl.col("median").is_not_null() & pl.col(depth).is_not_null())
    if frame.is_empty():
        if metric not in known:
            raise QueryError(f"no metric is called {metric!r}{did_you_mean(metric, set(known))}")
        raise QueryError(f"quality_by_depth has nothing to draw: no layer has a {metric}")
    groups = in_order(frame)
    at_most(MOST_PANELS, groups, "quality_by_depth")
    depths = sorted(frame[depth].unique().to_list(), key=int)
    note = labels.sentences(note, "Boxes: quartiles; whiskers: smallest and largest layer; diamonds: means")
    boxes = {(row["grp"], row[depth]): _box(row) for row in frame.to_dicts()}
    if len(groups) <= (4 if width >= 5 else 2):
        figure = _side_by_side(boxes, groups, depths, title=title, note=note, width=width)
    else:
        figure = _panels(boxes, groups, depths, title=title, note=note, width=width)
    figure.supylabel(labels.label(metric), fontsize=style.base_size(width))
    return figure


def _box(row: dict[str, Any]) -> dict[str, Any]:
    return {theirs: row[ours] for ours, theirs in STATISTICS.items()} | {"fliers": []}


Boxes = dict[tuple[Any, Any], dict[str, Any]]


def _side_by_side(boxes: Boxes, groups: list[Any], depths: list[Any], *, title: str, note: str, width: float) -> Figure:
    size = style.base_size(width)
    names = labels.shorten_labels(groups, size - 1, width / 2 - 0.5)
    legend = style.legend_height(len(groups), 2, size - 1) if len(groups) > 1 else 0.0
    figure = style.sheet(title, note, width=width, height=0.42 * width + 0.4, legend=legend)
    axes = figure.add_subplot()
    step = 0.8 / len(groups)
    for position, group in enumerate(groups):
        places = {depth: i - 0.4 + (position + 0.5) * step for i, depth in enumerate(depths)}
        _draw_boxes(axes, boxes, group, places, step * 0.85, style.COLOURS[position])
    _name_depths(axes, depths, size)
    axes.set_xlabel("tenth of the depth", fontsize=size)
    handles = [Patch(facecolor=_pale(style.COLOURS[i]), edgecolor=style.COLOURS[i]) for i in range(len(groups))]
    if len(groups) > 1:
        style.legend_below(figure, handles, names, columns=2, size=size - 1)
    return figure


def _panels(boxes: Boxes, groups: list[Any], depths: list[Any], *, title: str, note: str, width: float) -> Figure:
    size = style.base_size(width)
    columns = 2 if width < 5 else 3
    rows = -(-len(groups) // columns)
    figure = style.sheet(title, note, width=width, height=rows * (0.85 if width < 5 else 1.05) + 0.35)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    names = labels.shorten_labels(groups, size - 1, width / columns - 0.35)
    for axes, group, name in zip(panels, groups, names, strict=False):
        _draw_boxes(axes, boxes, group, {depth: i for i, depth in enumerate(depths)}, 0.65, style.COLOURS[0])
        axes.set_title(name, fontsize=size - 1, pad=2)
        _name_depths(axes, depths, size)
    for axes in panels[len(groups) :]:
        axes.set_visible(False)
    for position, axes in enumerate(panels[: len(groups)]):
        if position + columns >= len(groups):
            axes.tick_params(labelbottom=True)
            axes.set_xlabel("tenth of the depth", fontsize=size - 1)
            # above an empty panel there is room enough: no row need move
            axes.xaxis.set_in_layout(position + columns >= len(panels))
    return figure


def _draw_boxes(axes: Axes, boxes: Boxes, group: Any, places: dict[Any, float], box_width: float, colour: str) -> None:
    present = [depth for depth in places if (group, depth) in boxes]
    look = style.BOX | {"boxprops": {"facecolor": _pale(colour), "edgecolor": colour, "linewidth": 0.6}}
    axes.bxp(
        [boxes[group, depth] for depth in present],
        positions=[places[depth] for depth in present],
        widths=box_width,
        patch_artist=True,
        showmeans=True,
        showfliers=False,
        manage_ticks=False,
        **look,
    )


def _pale(colour: str) -> tuple[float, float, float]:
    red, green, blue = (0.72 + 0.28 * part for part in to_rgb(colour))
    return red, green, blue


def _name_depths(axes: Axes, depths: list[Any], size: float) -> None:
    axes.set_xticks(range(len(depths)), [str(depth) for depth in depths])
    axes.set_xlim(-0.6, len(depths) - 0.4)
    axes.tick_params(labelsize=size - 1.5)
    axes.tick_params(axis="x", length=0)
    axes.grid(visible=True, axis="y")


@draws()
def accuracy(
    frame: pl.DataFrame,
    metric: str = "sparsity",
    *,
    against: str = "clean_accuracy",
    colour: str | None = ROBUST,
    title: str = "Quality and accuracy",
    note: str = "",
    width: float = 7.0,
) -> Figure:
    """Draw a metric of each model against its accuracy.

    Parameters
    ----------
    frame
        ``from model_quality``, one row per model.
    metric
        The column on the horizontal axis.
    against
        The column on the vertical axis: ``clean_accuracy`` or ``robust_accuracy``.
    colour
        The column whose values are told apart by colour and marker, at most 12; None for none. By default ``robust``,
        if there is that column.
    title, note
        Texts above and below.
    width
        Inches.

    Returns
    -------
    The figure, with one point per model; the note tells how many models lack one of the two numbers.

    Raises
    ------
    QueryError
        No such column, no model with both numbers, or more than 12 colours.
    """
    require(frame, (metric, against), "accuracy")
    complete = frame.filter(pl.col(metric).is_not_null() & pl.col(against).is_not_null())
    if complete.is_empty():
        raise QueryError(f"accuracy has nothing to draw: no model has both {metric} and {against}")
    if complete.height < frame.height:
        missing = frame.height - complete.height
        note = labels.sentences(note, f"{missing:,} of {frame.height:,} models lack {metric} or {against}")
    if colour == ROBUST and ROBUST not in complete.columns:
        colour = None
    require(frame, [colour] if colour else [], "accuracy")
    groups = in_order(complete.sort(colour, maintain_order=True, nulls_last=True), colour) if colour else [None]
    at_most(MOST_COLOURS, groups, "accuracy")
    size = style.base_size(width)
    columns = 2 if width < 5 else 4
    legend = style.legend_height(len(groups), columns, size - 1) if colour else 0.0
    figure = style.sheet(title, note, width=width, height=0.6 * width + 0.35, legend=legend)
    axes = figure.add_subplot()
    handles = []
    for position, group in enumerate(groups):
        rows = complete.filter(pl.col(colour).eq_missing(pl.lit(group))) if colour else complete
        look = style.look(position) | {"linestyle": "none", "markeredgecolor": "white", "markeredgewidth": 0.4}
        handles += axes.plot(rows[metric], rows[against], markersize=5, **look)
    axes.set_xlabel(labels.label(metric), fontsize=size)
    axes.set_ylabel(labels.label(against), fontsize=size)
    axes.tick_params(labelsize=size - 1)
    axes.grid(visible=True)
    if colour:
        room = width / columns - 0.5
        names = labels.shorten_labels([f"{colour}: {labels.label(group)}" for group in groups], size - 1, room)
        style.legend_below(figure, handles, names, columns=columns, size=size - 1)
    return figure
