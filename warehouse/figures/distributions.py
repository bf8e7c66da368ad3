"""How coefficients are distributed: silhouettes of each group and the joint density of two components."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl
from matplotlib.collections import PolyCollection
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from warehouse.figures import labels, style
from warehouse.figures.frames import at_most, draws, in_order

MOST_RIDGES = 120
TALLEST = 1.6
"""Height of the tallest silhouette, in rows."""
CUT = 1.5
"""Silhouettes are cut at so many times the median of their heights: sparse layers make spikes."""
VISIBLE = 0.01
"""Share of the tallest silhouette below which a density cannot be seen."""


@draws("grp", "component", "bin", "bin_lo", "bin_hi", "density")
def ridge(
    frame: pl.DataFrame, *, title: str = "Distributions of coefficients", note: str = "", width: float = 7.0
) -> Figure:
    """Draw the distribution of each group's coefficients along each component as a silhouette.

    Parameters
    ----------
    frame
        ``from distributions(axis)``, at most 120 groups.
    title, note
        Texts above and below.
    width
        Inches.

    Returns
    -------
    The figure: rows are groups, columns are components. All columns have the same range of coefficients, which ends
    where no silhouette can be seen any more; within a column heights are comparable, up to 1.5 times
    their median, where spikes are cut.

    Raises
    ------
    QueryError
        More than 120 groups.
    """
    groups = in_order(frame)
    at_most(MOST_RIDGES, groups, "ridge")
    components = sorted(frame["component"].unique().to_list())
    size = style.base_size(width)
    pitch = max(0.11, min(0.3, 7.0 / len(groups)))
    label_size, _ = labels.fit_labels(len(groups), pitch, size - 1)
    label_room = 0.3 * width
    names = labels.shorten_labels(groups, label_size, label_room)
    frame = frame.sort("bin", maintain_order=True).with_columns(
        peak=CUT * pl.col("density").max().over("grp", "component").median().over("component")
    )
    spikes = frame.filter(pl.col("density") > pl.col("peak")).select("grp", "component").n_unique()
    if spikes:
        note = labels.sentences(note, f"{spikes:,} spikes are cut at {CUT:g} times the median height of their column")
    seen = frame.filter(pl.col("density") > VISIBLE * pl.col("peak"))
    reach = float(np.abs([seen["bin_lo"].to_numpy().min(), seen["bin_hi"].to_numpy().max()]).max())
    figure = style.sheet(title, note, width=width, height=(len(groups) + TALLEST) * pitch + 0.4, gap=0)
    panels = figure.subplots(1, len(components), sharex=True, sharey=True, squeeze=False)[0]
    for component, axes in zip(components, panels, strict=True):
        of_component = frame.filter(pl.col("component") == component)
        of_group = {key[0]: bins for key, bins in of_component.partition_by("grp", as_dict=True).items()}
        outlines = [_outline(of_group[group], row) for row, group in enumerate(groups) if group in of_group]
        axes.add_collection(PolyCollection(outlines, facecolor="#7fb8da", edgecolor="#0b4f7a", linewidth=0.4, zorder=2))
        axes.set_title(str(component), fontsize=size - 1, pad=2, loc="center")
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.grid(visible=True, axis="both")
        axes.tick_params(axis="y", length=0)
    panels[0].set_xlim(-reach, reach)
    panels[0].set_ylim(len(groups) - 0.8, -TALLEST - 0.1)
    panels[0].set_yticks(range(len(groups)), names, fontsize=label_size)
    end = float(f"{0.7 * reach:.1g}")
    panels[0].set_xticks([-end, 0, end])
    narrow = (width - label_room) / len(components) < 5 * labels.text_width("\N{MINUS SIGN}0", size - 2)
    for position, axes in enumerate(panels):
        # narrow panels have no room for three numbers, nor for those of their neighbours
        shown = [f"{-end:g}".replace("-", "\N{MINUS SIGN}"), "" if narrow else "0", f"{end:g}"]
        axes.set_xticks([-end, 0, end], shown if position % 2 == 0 or not narrow else [""] * 3, fontsize=size - 2)
    return figure


def _outline(bins: pl.DataFrame, row: int) -> npt.NDArray[np.float64]:
    """The corners ``(n, 2)`` of a silhouette that stands on a row: the tops of the bins, joined at their middles."""
    centres = (bins["bin_lo"].to_numpy() + bins["bin_hi"].to_numpy()) / 2
    heights = np.minimum(bins["density"].to_numpy() / np.maximum(bins["peak"].to_numpy(), np.finfo(float).tiny), 1.0)
    # of empty bins only those beside others shape the outline
    shapes = np.convolve(heights > 0, [1, 1, 1])[1:-1] > 0
    x, y = centres[shapes], row - TALLEST * heights[shapes]
    return np.column_stack([np.r_[x[:1], x, x[-1:]], np.r_[row, y, row]])


@draws("x_bin", "y_bin", "x_lo", "x_hi", "y_lo", "y_hi", "n")
def density(
    frame: pl.DataFrame, *, title: str = "Density of coefficients", note: str = "", width: float = 7.0
) -> Figure:
    """Draw how often each pair of coefficients on two components occurs.

    Parameters
    ----------
    frame
        ``from density(x, y)``: the cells that hold filters, with their edges.
    title, note
        Texts above and below.
    width
        Inches.

    Returns
    -------
    The figure: filters per cell on a logarithmic colour scale, white where there is none.
    """
    size = style.base_size(width)
    x = frame["x_bin"].to_numpy().astype(np.int64)
    y = frame["y_bin"].to_numpy().astype(np.int64)
    counts = np.full((np.ptp(y) + 1, np.ptp(x) + 1), np.nan)
    counts[y - y.min(), x - x.min()] = frame["n"].to_numpy()
    names = [f"component {frame[column][0]}" if column in frame.columns else column for column in ("x", "y")]
    figure = style.sheet(title, note, width=width, height=1.2 * width)
    axes = figure.add_subplot()
    left, right, bottom, top = (
        float(end(frame[edge].to_numpy()))
        for edge, end in {"x_lo": np.min, "x_hi": np.max, "y_lo": np.min, "y_hi": np.max}.items()
    )
    image = axes.imshow(
        counts,
        extent=(left, right, bottom, top),
        origin="lower",
        interpolation="nearest",
        cmap=style.COUNTS,
        norm=LogNorm(vmin=1, vmax=max(float(np.nanmax(counts)), 10.0)),
        aspect="auto",
    )
    axes.set_box_aspect(1)
    axes.set_xlabel(names[0], fontsize=size)
    axes.set_ylabel(names[1], fontsize=size)
    axes.tick_params(labelsize=size - 1)
    bar = style.colour_bar(figure, axes, image, "filters per cell", size=size - 1)
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))
    bar.ax.yaxis.set_minor_locator(NullLocator())
    style.trim(figure, axes)
    return figure
