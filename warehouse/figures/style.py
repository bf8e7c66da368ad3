"""How all figures look: colours, fonts, the sheet with its title, legend and note, and saving.

Hands on matplotlib figures that never touch pyplot or its settings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from warehouse.errors import QueryError
from warehouse.figures.labels import FONT, LINE, POINTS, label, wrap

FORMATS = ("png", "pdf", "svg")
WIDTHS = (2.5, 20.0)
"""Narrowest and widest figure, in inches."""
SEQUENTIAL = "cividis"
COUNTS = "viridis_r"
"""Its pale end fades into the white of what was never counted."""
DIVERGING = "PuOr_r"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours that stand out from white."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", "-.", ":")
HATCHES = ("", "////", "....", "\\\\\\\\", "xxxx", "----")
INK = "#222222"
FAINT = "#666666"
RULE = "#d5d5d5"

LEGEND_LINE = 1.5
"""Height of a line of a legend, in font sizes."""
MARGIN = 0.05
"""Inches around titles and notes."""
DPI = 300
"""Of pixels; texts are measured as they are drawn then."""

STYLE: dict[Any, Any] = {
    "font.family": FONT,
    "text.parse_math": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "grid.color": RULE,
    "grid.linewidth": 0.5,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.5,
    "legend.frameon": False,
}

BOX: dict[str, Any] = {
    "boxprops": {"facecolor": "#cfe2f0", "edgecolor": INK, "linewidth": 0.6},
    "medianprops": {"color": INK, "linewidth": 1.2},
    "whiskerprops": {"color": INK, "linewidth": 0.6},
    "capprops": {"color": INK, "linewidth": 0.6},
    "flierprops": {"marker": ".", "markersize": 2.5, "markerfacecolor": FAINT, "markeredgecolor": "none"},
    "meanprops": {"marker": "D", "markersize": 3.2, "markerfacecolor": COLOURS[1], "markeredgecolor": "white"},
}
"""How a box plot looks."""


def base_size(width: float) -> float:
    """Font size in points for a figure of this width in inches."""
    return 7.0 if width < 5 else 8.0


def sheet(title: str, note: str, *, width: float, height: float, legend: float = 0.0, gap: float = 0.02) -> Figure:
    """An empty figure with its title above and room for a legend and its note below.

    Parameters
    ----------
    title, note
        Texts that are wrapped to the width.
    width
        Of the figure, in inches.
    height
        Of what is drawn between title and legend, in inches.
    legend
        Height of the legend, in inches.
    gap
        Between axes side by side, as a share of their width.

    Raises
    ------
    QueryError
        A width that no page has.
    """
    if not WIDTHS[0] <= width <= WIDTHS[1]:
        raise QueryError(f"a figure is {WIDTHS[0]:g} to {WIDTHS[1]:g} inches wide, not {width:g}")
    size = base_size(width)
    titles = wrap(label(title), size + 1, width - 2 * MARGIN) if title else []
    notes = wrap(label(note), size - 1.5, width - 2 * MARGIN, most=4) if note else []
    above = len(titles) * (size + 1) * LINE / POINTS
    below = len(notes) * (size - 1.5) * LINE / POINTS + MARGIN + legend
    total = above + height + below
    layout = ConstrainedLayoutEngine(
        w_pad=0.03, h_pad=0.03, wspace=gap, hspace=0.02, rect=(0, below / total, 1, 1 - below / total)
    )
    figure = Figure(figsize=(width, total), dpi=DPI, layout=layout)
    figure.suptitle("\n".join(titles), x=MARGIN / width, ha="left", fontsize=size + 1, linespacing=1.1)
    # not figure.supxlabel: constrained layout puts that where the legend goes
    figure.text(
        MARGIN,
        MARGIN,
        "\n".join(notes),
        transform=figure.dpi_scale_trans,
        va="bottom",
        fontsize=size - 1.5,
        color=FAINT,
        linespacing=1.1,
        gid="note",
    )
    return figure


def trim(figure: Figure, axes: Axes) -> None:
    """Make a figure as high as axes of a fixed aspect need it, which its width decides."""
    for _ in range(2):
        figure.draw_without_rendering()
        height = figure.get_figheight()
        unused = (axes.get_position(original=True).height - axes.get_position().height) * height
        _, bottom, _, _ = _engine(figure).get()["rect"]
        share = bottom * height / (height - unused)
        _engine(figure).set(rect=(0, share, 1, 1 - share))
        figure.set_figheight(height - unused)


def _engine(figure: Figure) -> ConstrainedLayoutEngine:
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine), "a sheet has this one"  # noqa: S101
    return engine


def look(position: int) -> dict[str, Any]:
    """Colour, marker and dashes of a category, together different from those of 55 others."""
    return {
        "color": COLOURS[position % len(COLOURS)],
        "marker": MARKERS[position % len(MARKERS)],
        "linestyle": DASHES[position // len(COLOURS) % len(DASHES)],
    }


def legend_height(n: int, columns: int, size: float) -> float:
    """Height in inches of a legend of ``n`` names."""
    return (math.ceil(n / columns) * size * LEGEND_LINE + size) / POINTS


def legend_below(figure: Figure, handles: Sequence[Artist], names: Sequence[str], *, columns: int, size: float) -> None:
    """Name the categories in the room that the sheet has for them."""
    _, bottom, _, _ = _engine(figure).get()["rect"]
    legend = figure.legend(
        handles,
        names,
        loc="lower left",
        bbox_to_anchor=(0, bottom - legend_height(len(names), columns, size) / figure.get_figheight()),
        ncols=columns,
        fontsize=size,
        handlelength=2.4,
        labelspacing=LEGEND_LINE - 1.15,
        columnspacing=1.0,
        borderpad=0.2,
        borderaxespad=0.2,
    )
    legend.set_in_layout(False)


def colour_bar(
    figure: Figure, axes: Axes, drawn: ScalarMappable, name: str, *, size: float, more: bool = False
) -> Colorbar:
    """Explain the colours beside the axes; ``more`` tells by an arrow that values go on."""
    bar = figure.colorbar(drawn, ax=axes, fraction=0.045, pad=0.02, aspect=25, extend="max" if more else "neither")
    bar.set_label(name, fontsize=size)
    bar.ax.tick_params(labelsize=size - 0.5)
    bar.outline.set_linewidth(0.4)
    return bar


def save(figure: Figure, target: Path | BinaryIO, format_: str) -> None:
    """Write a figure, the same bytes every time.

    Parameters
    ----------
    figure
        What to write.
    target
        A file, or a stream of bytes.
    format_
        One of ``FORMATS``.
    """
    undated = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}[format_]
    settings: dict[Any, Any] = {"svg.hashsalt": "warehouse", "pdf.fonttype": 42, "svg.fonttype": "path"}
    with mpl.rc_context(settings):
        figure.savefig(target, format=format_, metadata=undated)
