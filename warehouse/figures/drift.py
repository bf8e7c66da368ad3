"""Distribution shifts between groups: as a matrix, as box plots and by depth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from matplotlib.axes import Axes
from matplotlib.cbook import boxplot_stats
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch

from warehouse.errors import QueryError
from warehouse.figures import labels, style
from warehouse.figures.frames import at_most, draws, in_order

MOST_CELLS = 250
MOST_BOXES = 40
MOST_PAIRS = 6
OUTLIERS = 0.95
FAR = 2.0
"""Drift beyond so many times the quantile ``OUTLIERS`` is off the colour scale."""

Order = Literal["auto", "mean", "given"]
ORDERS: tuple[Order, ...] = ("auto", "mean", "given")


@draws("a", "b", "drift")
def drift_heatmap(
    frame: pl.DataFrame,
    *,
    order: Order = "auto",
    upper: float | None = None,
    title: str = "Drift between groups",
    note: str = "",
    width: float = 7.0,
) -> Figure:
    """Draw the drift between all groups as a matrix.

    Parameters
    ----------
    frame
        ``from drift(axis)``, at most 250 groups.
    order
        ``mean`` puts the groups with the smallest mean drift to all others first; ``given`` keeps the frame's order;
        ``auto`` does that where the groups are numbers, which have an order of their own, and else the former.
    upper
        The drift, in nats, at which the colours end, so that matrices can be compared. By default the largest, or, if
        that is more than twice the 95th percentile, the latter.
    title, note
        Texts above and below.
    width
        Inches.

    Returns
    -------
    The figure; values are printed where they fit.

    Raises
    ------
    QueryError
        More than 250 groups, fewer than two, or an order that is none.
    """
    groups = in_order(frame, "a")
    at_most(MOST_CELLS, groups, "drift_heatmap")
    if len(groups) < 2:
        raise QueryError(f"drift_heatmap compares groups, and there is only one: {labels.label(groups[0])}")
    if order not in ORDERS:
        raise QueryError(f"the order of a heatmap is {' or '.join(ORDERS)}, not {order!r}")
    matrix = _matrix(frame, groups)
    if order == "mean" or (order == "auto" and not frame["a"].dtype.is_numeric()):
        ranks = np.argsort(np.nanmean(_off_diagonal(matrix), axis=1), kind="stable")
        groups = [groups[i] for i in ranks]
        matrix = matrix[np.ix_(ranks, ranks)]

    n = len(groups)
    size = style.base_size(width)
    room = min(labels.widest(map(labels.label, groups), size - 1) + 0.05, 0.3 * width)
    cell = (width - room - 0.8) / n
    label_size, step = labels.fit_labels(n, cell, size - 1)
    names = labels.shorten_labels(groups, label_size, room)
    if step > 1:
        note = labels.sentences(note, f"Of {n} groups one in {step} is named")
    upright = labels.widest(names, label_size) > 0.9 * cell
    largest = float(np.nanmax(matrix))
    if upper is None:
        upper = _colour_end(matrix)
    elif not 0 < upper < math.inf:
        raise QueryError(f"upper is {upper:g}; colours end at a drift above 0")
    if upper < largest:
        note = labels.sentences(note, f"Colours end at {upper:.3g}, the largest drift is {largest:.3g}")
    below = labels.widest(names, label_size) if upright else label_size / labels.POINTS
    figure = style.sheet(title, note, width=width, height=1.1 * n * cell + below + 0.2)
    axes = figure.add_subplot()
    image = axes.imshow(matrix, cmap=style.SEQUENTIAL, vmin=0, vmax=upper)
    axes.spines[:].set_visible(False)
    places = range(0, n, step)
    axes.set_xticks(places, names[::step], rotation=90 if upright else 0, fontsize=label_size)
    axes.set_yticks(places, names[::step], fontsize=label_size)
    axes.tick_params(length=0 if step == 1 else 2)
    _print_values(axes, matrix, image, cell, size - 1)
    style.colour_bar(figure, axes, image, "drift (nats)", size=size - 1, more=upper < largest)
    style.trim(figure, axes)
    return figure


def _colour_end(matrix: npt.NDArray[np.float64]) -> float:
    """The largest drift, or where colours should end so that a few outliers do not take all of them."""
    largest = float(np.nanmax(matrix)) or 1.0
    most = float(np.nanquantile(_off_diagonal(matrix), OUTLIERS))
    return most if 0 < FAR * most < largest else largest


def _matrix(frame: pl.DataFrame, groups: Sequence[Any]) -> npt.NDArray[np.float64]:
    place = {group: i for i, group in enumerate(groups)}
    matrix = np.full((len(groups), len(groups)), np.nan)
    for a, b, drift in frame.select("a", "b", "drift").rows():
        if b in place:
            matrix[place[a], place[b]] = drift
    return matrix


def _off_diagonal(matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(np.eye(len(matrix), dtype=bool), np.nan, matrix)


def _print_values(axes: Axes, matrix: npt.NDArray[np.float64], image: AxesImage, cell: float, size: float) -> None:
    """Print each value into its cell of ``cell`` inches, unless the cells are too small for text."""
    largest = np.nanmax(matrix)
    for decimals in (2, 1):
        widest = f"{largest:.{decimals}f}"
        fitting = min(size, size * 0.88 * cell / labels.text_width(widest, size))
        if fitting >= labels.SMALLEST - 0.5:
            break
    else:
        return
    shades = np.asarray(image.to_rgba(matrix))[..., :3] @ np.array([0.299, 0.587, 0.114])
    for (row, column), value in np.ndenumerate(matrix):
        if np.isfinite(value):
            ink = "black" if shades[row, column] > 0.5 else "white"
            axes.text(column, row, f"{value:.{decimals}f}", fontsize=fitting, color=ink, ha="center", va="center")


@draws("a", "b", "drift")
def drift_box_plot(
    frame: pl.DataFrame, *, title: str = "Drift between groups", note: str = "", width: float = 7.0
) -> Figure:
    """Draw box plots of the drift between the groups of one or several axes.

    Parameters
    ----------
    frame
        Pairs of groups with their drift, each pair once: ``from drift(axis) where a < b``; a column ``axis`` tells
        several axes apart, at most 40.
    title, note
        Texts above and below.
    width
        Inches.

    Returns
    -------
    The figure: boxes from the first to the third quartile with the median as a line and the mean as a diamond,
    whiskers to the last value within 1.5 times the box's length, and the values beyond as dots.

    Raises
    ------
    QueryError
        More than 40 axes.
    """
    if "axis" not in frame.columns:
        frame = frame.with_columns(axis=pl.lit("all pairs"))
    axes_of_groups = in_order(frame, "axis")
    at_most(MOST_BOXES, axes_of_groups, "drift_box_plot")
    size = style.base_size(width)
    drifts = [frame.filter(pl.col("axis") == name)["drift"].to_numpy() for name in axes_of_groups]
    names = [
        f"{name}\n{len(drift):,} {'pair' if len(drift) == 1 else 'pairs'}"
        for name, drift in zip(labels.shorten_labels(axes_of_groups, size - 1, 0.35 * width), drifts, strict=True)
    ]
    figure = style.sheet(title, note, width=width, height=0.45 * len(names) + 0.55)
    axes = figure.add_subplot()
    axes.bxp(
        [boxplot_stats(drift)[0] | {"label": name} for drift, name in zip(drifts, names, strict=True)],
        orientation="horizontal",
        widths=0.55,
        patch_artist=True,
        showmeans=True,
        **style.BOX,
    )
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel("drift (nats)", fontsize=size)
    axes.tick_params(labelsize=size - 1)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=True, axis="x")
    return figure


@draws("depth_decile", "a", "b", "drift")
def drift_by_depth(frame: pl.DataFrame, *, title: str = "Drift by depth", note: str = "", width: float = 7.0) -> Figure:
    """Draw the drift between pairs of groups in each tenth of the depth as bars.

    Parameters
    ----------
    frame
        ``from drift_by_depth(axis)``. Of more than six pairs those with the largest mean drift are drawn.
    title, note
        Texts above and below.
    width
        Inches.

    Returns
    -------
    The figure, with one bar per tenth and pair.

    Raises
    ------
    QueryError
        There is no pair of different groups.
    """
    # both orders of a pair hold the same drift
    both = {(a, b): None for a, b, drift in frame.select("a", "b", "drift").rows() if a != b and drift is not None}
    pairs = [pair for i, pair in enumerate(both) if pair[::-1] not in list(both)[:i]]
    if not pairs:
        raise QueryError("drift_by_depth compares groups, and at no depth do two of them have filters")
    depths = sorted(depth for depth in frame["depth_decile"].unique().to_list() if depth is not None)
    drift = {tuple(row[:3]): row[3] for row in frame.select("a", "b", "depth_decile", "drift").rows()}
    heights = {pair: [drift.get((*pair, depth)) for depth in depths] for pair in pairs}
    shown = sorted(pairs, key=lambda pair: -_mean(heights[pair]))[:MOST_PAIRS]
    if len(pairs) > len(shown):
        note = labels.sentences(note, f"The {len(shown)} of {len(pairs):,} pairs with the largest mean drift")
    if any(height is None for pair in shown for height in heights[pair]):
        note = labels.sentences(note, "No bar where one of the two has no filters")

    size = style.base_size(width)
    columns = 1 if width < 5 else 2
    ends = labels.shorten_labels([group for pair in shown for group in pair], size - 1, width / columns / 2 - 0.35)
    names = [" — ".join(ends[2 * i : 2 * i + 2]) for i in range(len(shown))]
    legend = style.legend_height(len(shown), columns, size - 1)
    figure = style.sheet(title, note, width=width, height=0.4 * width + 0.4, legend=legend)
    axes = figure.add_subplot()
    bar = 0.84 / len(shown)
    handles = []
    for position, pair in enumerate(shown):
        places = np.arange(len(depths)) - 0.42 + (position + 0.5) * bar
        look: dict[str, Any] = {"facecolor": style.COLOURS[position], "hatch": style.HATCHES[position]}
        tops = [np.nan if height is None else height for height in heights[pair]]
        axes.bar(places, tops, bar, edgecolor="white", linewidth=0.3, **look)
        handles.append(Patch(edgecolor="white", linewidth=0.3, **look))
    axes.set_xticks(range(len(depths)), [str(depth) for depth in depths])
    axes.set_xlabel("tenth of the depth", fontsize=size)
    axes.set_ylabel("drift (nats)", fontsize=size)
    axes.tick_params(labelsize=size - 1)
    axes.tick_params(axis="x", length=0)
    axes.grid(visible=True, axis="y")
    style.legend_below(figure, handles, names, columns=columns, size=size - 1)
    return figure


def _mean(heights: Sequence[float | None]) -> float:
    known = [height for height in heights if height is not None]
    return sum(known) / len(known) if known else 0.0
