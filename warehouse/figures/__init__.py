"""Figures fit for a paper: functions that take a relation or polars frame and return a matplotlib figure.

>>> import warehouse
>>> from warehouse import figures
>>> with warehouse.open("cnn.warehouse") as wh:                           # doctest: +SKIP
...     figures.drift_heatmap(wh.sql("from drift(task)")).savefig("drift.pdf")

They read best at a width of 3.5 (a column of a page) or 7 inches (the page), and are told apart without colours.
Needs matplotlib: ``pip install 'cnn-filter-warehouse[figures]'``.
"""

from __future__ import annotations

from warehouse.errors import WarehouseError

try:
    from warehouse.figures.components import eigenimages, explained_variance, filter_grid
    from warehouse.figures.distributions import density, ridge
    from warehouse.figures.drift import drift_box_plot, drift_by_depth, drift_heatmap
    from warehouse.figures.maps import model_map
    from warehouse.figures.quality import accuracy, quality_by_depth
    from warehouse.figures.style import FORMATS, save
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "matplotlib":
        raise
    raise WarehouseError("figures need matplotlib; get it with: pip install 'cnn-filter-warehouse[figures]'") from error

__all__ = [
    "FORMATS",
    "accuracy",
    "density",
    "drift_box_plot",
    "drift_by_depth",
    "drift_heatmap",
    "eigenimages",
    "explained_variance",
    "filter_grid",
    "model_map",
    "quality_by_depth",
    "ridge",
    "save",
]
