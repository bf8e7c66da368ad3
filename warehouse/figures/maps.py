"""Groups as points in the plane, with names that never cover each other."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from warehouse.figures import labels, style
from warehouse.figures.frames import at_most, draws

MOST_POINTS = 2_000
DOT = 4.0
"""Diameter of a point, in points."""
DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
"""Where a name may stand, first to last: right, left, above, below and at the corners."""
REACHES = (0.75, 2.5)
"""How far from the point a name may stand, in diameters."""


@draws("grp", "x", "y")
def model_map(
    frame: pl.DataFrame, *, title: str = "Groups by their drift", note: str = "", width: float = 7.0
) -> Figure:
    """Draw groups in the plane, close together where the drift between them is small.

    Parameters
    ----------
    frame
        ``from drift_map(axis)``, at most 2,000 groups; a column ``share`` tells the share of the variance that the
        plane holds.
    title, note
        Texts above and below.
    width
        Inches.

    Returns
    -------
    The figure; a name that would cover another, or a point, is left out, and a count tells how many are there.

    Raises
    ------
    QueryError
        More than 2,000 groups.
    """
    at_most(MOST_POINTS, frame["grp"].to_list(), "model_map")
    size = style.base_size(width)
    if "share" in frame.columns and frame["share"][0] is not None:
        note = labels.sentences(note, f"The plane holds {100 * frame['share'][0]:.0f} % of the variance")
    points = frame.select("x", "y").to_numpy().astype(np.float64)
    names = labels.shorten_labels(frame["grp"], size - 2, 0.3 * width)
    figure = style.sheet(title, note, width=width, height=min(0.8 * width, 6.0))
    axes = figure.add_subplot()
    axes.plot(*points.T, "o", markersize=DOT, color=style.COLOURS[0], markeredgecolor="white", markeredgewidth=0.3)
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.12)
    axes.set_xlabel("dimension 1", fontsize=size)
    axes.set_ylabel("dimension 2", fontsize=size)
    axes.tick_params(labelsize=size - 1)
    axes.grid(visible=True)
    # keeps the place for the count, which is known once the names have theirs
    count = axes.set_title(" ", loc="right", fontsize=size - 1.5, color=style.FAINT)
    figure.draw_without_rendering()
    named = _place_names(axes, points, names, size - 2)
    if named < len(names):
        count.set_text(f"{named} of {len(names)} groups are named")
    return figure


def _place_names(axes: Axes, points: npt.NDArray[np.float64], names: list[str], size: float) -> int:
    """Write each name beside its point where that is free, and return how many found a place."""
    pixels_per_point = axes.figure.dpi / labels.POINTS
    places = axes.transData.transform(points)
    dot = DOT * pixels_per_point
    dots = [Bbox.from_bounds(x - dot / 2, y - dot / 2, dot, dot) for x, y in places]
    taken: list[Bbox] = []
    # those with the most room around them first: theirs are the names that a reader misses
    crowding = np.sum(np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1)) < 30 * pixels_per_point, axis=1)
    for i in np.argsort(crowding, kind="stable"):
        width = labels.text_width(names[i], size) * axes.figure.dpi
        height = size * labels.LINE * pixels_per_point
        for reach, (right, up) in itertools.product(REACHES, DIRECTIONS):
            x, y = places[i] + np.multiply((right, up), reach * dot)
            box = Bbox.from_bounds(x - width * (1 - right) / 2, y - height * (1 - up) / 2, width, height)
            others = itertools.chain(taken, dots[:i], dots[i + 1 :])
            if axes.bbox.containsx(box.x0) and axes.bbox.containsx(box.x1) and not box.count_overlaps(others):
                taken.append(box)
                axes.annotate(
                    names[i],
                    points[i],
                    (reach * DOT * right, reach * DOT * up),
                    textcoords="offset points",
                    fontsize=size,
                    ha={1: "left", 0: "center", -1: "right"}[right],
                    va={1: "bottom", 0: "center", -1: "top"}[up],
                    in_layout=False,
                    arrowprops={
                        "arrowstyle": "-",
                        "linewidth": 0.3,
                        "color": style.FAINT,
                        "shrinkA": 0,
                        "shrinkB": 1,
                        "relpos": ((1 - right) / 2, (1 - up) / 2),
                    },
                )
                break
    return len(taken)
