"""Principal components and single filters as pictures of 3x3 weights, and the variance that components explain."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import polars as pl
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, QuadMesh
from matplotlib.figure import Figure

from warehouse.figures import labels, style
from warehouse.figures.frames import at_most, draws, in_order

MOST_LINES = 24
"""Groups that a legend can name; of more, the extremes are named."""
EXTREMES = 5
MOST_IMAGES = 40
MOST_FILTERS = 400
WEIGHTS = [f"w{i}" for i in range(9)]


@draws("grp", "component", "cumulative_ratio")
def explained_variance(
    frame: pl.DataFrame, *, title: str = "Cumulative explained variance", note: str = "", width: float = 7.0
) -> Figure:
    """Draw how much variance the first components of each group explain.

    Parameters
    ----------
    frame
        ``from pca(axis)``. Of more than 24 groups the five with the most and the five with the least variance on
        the first component are named and the rest is grey.
    title, note
        Texts above and below.
    width
        Inches.

    Returns
    -------
    The figure, with one line per group.
    """
    frame = frame.sort("component", maintain_order=True)
    of_group = {key[0]: rows for key, rows in frame.partition_by("grp", as_dict=True, maintain_order=True).items()}
    named = list(of_group)
    if len(of_group) > MOST_LINES:
        ranked = sorted(of_group, key=lambda group: -of_group[group]["cumulative_ratio"][0])
        named = ranked[:EXTREMES] + ranked[-EXTREMES:]
        note = labels.sentences(
            note, f"{len(of_group)} groups; named are those with the most and with the least variance on component 0"
        )
    size = style.base_size(width)
    columns = 2 if width < 5 else 4
    names = labels.shorten_labels(named, size - 1, width / columns - 0.5)
    legend = style.legend_height(len(named), columns, size - 1)
    figure = style.sheet(title, note, width=width, height=0.5 * width + 0.4, legend=legend)
    axes = figure.add_subplot()
    for group in of_group:
        if group not in named:
            rows = of_group[group]
            axes.plot(rows["component"], rows["cumulative_ratio"], color=style.RULE, linewidth=0.7)
    lines = []
    for position, group in enumerate(named):
        rows = of_group[group]
        look = style.look(position)
        lines += axes.plot(rows["component"], rows["cumulative_ratio"], **look)
    axes.set_ylim(max(0.0, math.floor(frame["cumulative_ratio"].to_numpy().min() * 10) / 10), 1.02)
    axes.set_xticks(frame["component"].unique().sort().to_list())
    axes.set_xlabel("component", fontsize=size)
    axes.set_ylabel("explained variance, cumulative", fontsize=size)
    axes.tick_params(labelsize=size - 1)
    axes.grid(visible=True, axis="y")
    style.legend_below(figure, lines, names, columns=columns, size=size - 1)
    return figure


@draws("grp", "component", "loading", "explained_variance_ratio")
def eigenimages(
    frame: pl.DataFrame, *, title: str = "Principal components", note: str = "", width: float = 7.0
) -> Figure:
    """Draw the components of each group as 3x3 images, with their share of the variance below.

    Parameters
    ----------
    frame
        ``from pca(axis)``, at most 40 groups; ``loading`` holds nine weights row by row.
    title, note
        Texts above and below.
    width
        Inches.

    Returns
    -------
    The figure: rows are groups, columns are components, colours go from -1 to +1.

    Raises
    ------
    QueryError
        More than 40 groups.
    """
    groups = in_order(frame)
    at_most(MOST_IMAGES, groups, "eigenimages")
    components = sorted(frame["component"].unique().to_list())
    size = style.base_size(width)
    label_room = min(labels.widest(map(labels.label, groups), size - 1) + 0.15, 0.3 * width)
    unit = (width - label_room - 0.85) / (len(components) * _IMAGE_PITCH)
    ratio_size, decimals = _ratio_format(3 * unit, size - 1.5)
    below = max(1.0, ratio_size * labels.LINE / labels.POINTS / unit + 0.3)
    images = np.full((len(groups), len(components), 3, 3), np.nan)
    for group, component, loading in frame.select("grp", "component", "loading").rows():
        images[groups.index(group), components.index(component)] = np.reshape(loading, (3, 3))
    figure = style.sheet(title, note, width=width, height=1.5 * len(groups) * (3 + below) * unit + 0.5)
    axes = figure.add_subplot()
    mesh = _mosaic(axes, images, gap_x=_IMAGE_PITCH - 3, gap_y=below, limit=1.0)
    if ratio_size:
        for group, component, ratio in frame.select("grp", "component", "explained_variance_ratio").rows():
            axes.text(
                components.index(component) * _IMAGE_PITCH + 1.5,
                groups.index(group) * (3 + below) + 3.15,
                f"{100 * ratio:.{decimals}f}%",
                fontsize=ratio_size,
                ha="center",
                va="top",
            )
    axes.set_xticks([i * _IMAGE_PITCH + 1.5 for i in range(len(components))], [str(c) for c in components])
    axes.set_yticks(
        [i * (3 + below) + 1.5 for i in range(len(groups))],
        labels.shorten_labels(groups, size - 1, label_room),
    )
    axes.tick_params(labelsize=size - 1, length=0, labeltop=True, labelbottom=False)
    style.colour_bar(figure, axes, mesh, "weight", size=size - 1)
    style.trim(figure, axes)
    return figure


_IMAGE_PITCH = 3.6
"""From one image to the next, in pixels of an image."""


def _ratio_format(room: float, size: float) -> tuple[float, int]:
    """Font size and decimals of percentages in ``room`` inches; size 0 where none fits."""
    for decimals in (1, 0):
        fitting = min(size, size * room / labels.text_width(f"{88.8:.{decimals}f}%", size))
        if fitting >= labels.SMALLEST - 0.5:
            return fitting, decimals
    return 0.0, 0


@draws(*WEIGHTS)
def filter_grid(
    frame: pl.DataFrame, *, title: str = "Filters of a layer", note: str = "", width: float = 7.0
) -> Figure:
    """Draw filters as 3x3 images.

    Parameters
    ----------
    frame
        Rows of ``filters``; the first 400 are drawn. Where there is a column ``n_filters``, it tells how many filters
        the layer has, and else that is the number of rows.
    title, note
        Texts above and below.
    width
        Inches.

    Returns
    -------
    The figure; colours are symmetric about 0 and reach as far as the largest magnitude shown.
    """
    size = style.base_size(width)
    kernels = frame.select(WEIGHTS).head(MOST_FILTERS).to_numpy().astype(np.float64).reshape(-1, 3, 3)
    total = frame["n_filters"][0] if "n_filters" in frame.columns else frame.height
    if total > len(kernels):
        note = labels.sentences(note, f"The first {len(kernels)} of {total:,} filters")
    columns = min(len(kernels), 24 if width >= 5 else 16)
    rows = math.ceil(len(kernels) / columns)
    images = np.full((rows * columns, 3, 3), np.nan)
    images[: len(kernels)] = kernels
    unit = (width - 0.85) / (max(columns, 8) * _IMAGE_PITCH)
    figure = style.sheet(title, note, width=width, height=1.2 * rows * _IMAGE_PITCH * unit + 0.5)
    axes = figure.add_subplot()
    finite = np.abs(kernels[np.isfinite(kernels)])
    limit = float(finite.max(initial=0.0)) or 1.0
    gap = _IMAGE_PITCH - 3
    mesh = _mosaic(axes, images.reshape(rows, columns, 3, 3), gap_x=gap, gap_y=gap, limit=limit)
    axes.set_xticks([])
    axes.set_yticks([])
    style.colour_bar(figure, axes, mesh, "weight", size=size - 1)
    style.trim(figure, axes)
    return figure


def _mosaic(axes: Axes, images: npt.NDArray[np.float64], *, gap_x: float, gap_y: float, limit: float) -> QuadMesh:
    """Draw images ``(rows, columns, 3, 3)`` as one mesh: sharp at any size, in any viewer."""
    rows, columns = images.shape[:2]
    cells = np.full((rows, 4, columns, 4), np.nan)
    cells[:, :3, :, :3] = images.transpose(0, 2, 1, 3)
    edges_x = np.add.outer(np.arange(columns) * (3 + gap_x), np.arange(4)).ravel()
    edges_y = np.add.outer(np.arange(rows) * (3 + gap_y), np.arange(4)).ravel()
    mesh = axes.pcolormesh(
        np.append(edges_x, columns * (3 + gap_x)),
        np.append(edges_y, rows * (3 + gap_y)),
        np.ma.masked_invalid(cells.reshape(4 * rows, 4 * columns)),
        cmap=style.DIVERGING,
        vmin=-limit,
        vmax=limit,
    )
    frames = [
        _square(x * (3 + gap_x), y * (3 + gap_y))
        for y, x in np.ndindex(rows, columns)
        if np.isfinite(images[y, x]).any()
    ]
    axes.add_collection(LineCollection(frames, colors=style.FAINT, linewidths=0.3))
    axes.set_xlim(-0.1, columns * (3 + gap_x) - gap_x + 0.1)
    axes.set_ylim(rows * (3 + gap_y), -0.1)
    axes.set_aspect("equal")
    axes.spines[:].set_visible(False)
    return mesh


def _square(left: float, top: float) -> list[tuple[float, float]]:
    """The outline of an image."""
    return [(left, top), (left + 3, top), (left + 3, top + 3), (left, top + 3), (left, top)]
