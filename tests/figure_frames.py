"""What tests of figures draw: frames of the shapes that the macros give, and a look at the texts that drawing shows."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from unittest.mock import patch

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

HOSTILE = [
    "$\\frac{1}{$",
    "two\nlines\tand\rmore",
    "{braces} %s {0}",
    "<script>alert('x')</script>",
    "_under",
    "",
    "名前 🙂 \u202eright to left",
    "a" * 300,
    "many words " * 40,
]
"""Labels that a mathematics parser, a formatter or a font would trip over."""
MANY = [f"Org/model-family-{i:03}_of_a_long_name" for i in range(100)]
SHORT = ["Classification", "Segmentation", "Reinforcement Learning / Game"]

Frames = Callable[[list[str]], pl.DataFrame]


def pca_frame(groups: list[str]) -> pl.DataFrame:
    """Random components, of the shape that the macro ``pca`` gives."""
    rng = np.random.default_rng(1)
    frames = []
    for group in groups:
        eigenvalues = np.sort(rng.random(9))[::-1]
        loadings, _ = np.linalg.qr(rng.normal(size=(9, 9)))
        ratios = eigenvalues / eigenvalues.sum()
        columns = {
            "component": range(9),
            "eigenvalue": eigenvalues,
            "explained_variance_ratio": ratios,
            "cumulative_ratio": ratios.cumsum(),
            "loading": loadings.tolist(),
        }
        frames.append(pl.DataFrame(columns).with_columns(grp=pl.lit(group)))
    return pl.concat(frames)


def distributions_frame(groups: list[str]) -> pl.DataFrame:
    """Histograms of normal coefficients."""
    rng = np.random.default_rng(2)
    edges = np.linspace(-3, 3, 71)
    frames = []
    for group in groups:
        for component in range(9):
            n, _ = np.histogram(rng.normal(scale=0.3 + rng.random(), size=2000).clip(-3, 3), edges)
            columns = {"bin": range(70), "bin_lo": edges[:-1], "bin_hi": edges[1:], "density": n / 2000 * 70 / 6}
            frames.append(pl.DataFrame(columns).with_columns(grp=pl.lit(group), component=component))
    return pl.concat(frames)


def drift_frame(groups: list[str]) -> pl.DataFrame:
    """A symmetric matrix, long."""
    rng = np.random.default_rng(3)
    drift = np.triu(rng.gamma(2, 0.3, size=(len(groups), len(groups))), 1)
    drift += drift.T
    rows = [(a, b, drift[i, j]) for i, a in enumerate(groups) for j, b in enumerate(groups)]
    return pl.DataFrame(rows, schema=["a", "b", "drift"], orient="row")


def axes_frame(groups: list[str]) -> pl.DataFrame:
    """Drift between groups of as many axes as there are groups."""
    rng = np.random.default_rng(4)
    return pl.concat(
        pl.DataFrame({"axis": [group] * 10, "a": range(10), "b": range(1, 11), "drift": rng.gamma(2, size=10)})
        for group in groups
    )


def depth_frame(groups: list[str]) -> pl.DataFrame:
    """Drift between all pairs of groups at each depth."""
    rng = np.random.default_rng(5)
    rows = [(d, a, b, rng.gamma(2)) for d in range(1, 11) for a, b in combinations(groups, 2)]
    return pl.DataFrame(rows, schema=["depth_decile", "a", "b", "drift"], orient="row")


def quality_frame(groups: list[str]) -> pl.DataFrame:
    """Box-plot statistics of each group at each depth."""
    rng = np.random.default_rng(6)
    rows = []
    for group in groups:
        for depth in range(11):
            sample = rng.random(20)
            rows.append((group, depth, "sparsity", 20, *np.quantile(sample, [0, 0.25, 0.5, 0.75, 1]), sample.mean()))
    names = ["grp", "depth", "metric", "n_layers", "min", "q1", "median", "q3", "max", "mean"]
    return pl.DataFrame(rows, schema=names, orient="row")


def accuracy_frame(groups: list[str]) -> pl.DataFrame:
    """Models of each group."""
    rng = np.random.default_rng(7)
    n = 5 * len(groups)
    return pl.DataFrame({"robust": groups * 5, "sparsity": rng.random(n), "clean_accuracy": rng.random(n)})


def map_frame(groups: list[str]) -> pl.DataFrame:
    """Points, most of them in a crowd."""
    rng = np.random.default_rng(8)
    places = rng.standard_t(2, size=(2, len(groups)))
    return pl.DataFrame({"grp": groups, "x": places[0], "y": places[1], "share": [0.61] * len(groups)})


def density_frame(_: list[str]) -> pl.DataFrame:
    """Counts of a normal distribution in cells of a tenth."""
    rng = np.random.default_rng(9)
    cells = pl.DataFrame(np.floor(rng.normal(size=(50_000, 2)) * 10).astype(int), schema=["x_bin", "y_bin"])
    counts = cells.group_by("x_bin", "y_bin").agg(n=pl.len()).sort("x_bin", "y_bin")
    return counts.with_columns(
        x=2,
        y=5,
        x_lo=pl.col("x_bin") / 10,
        x_hi=(pl.col("x_bin") + 1) / 10,
        y_lo=pl.col("y_bin") / 10,
        y_hi=(pl.col("y_bin") + 1) / 10,
    )


def filters_frame(_: list[str]) -> pl.DataFrame:
    """Random filters."""
    weights = np.random.default_rng(10).normal(size=(50, 9)).astype(np.float32)
    return pl.DataFrame(weights, schema=[f"w{i}" for i in range(9)])


FRAMES: dict[str, Frames] = {
    "explained_variance": pca_frame,
    "eigenimages": pca_frame,
    "ridge": distributions_frame,
    "drift_heatmap": drift_frame,
    "drift_box_plot": axes_frame,
    "drift_by_depth": depth_frame,
    "quality_by_depth": quality_frame,
    "accuracy": accuracy_frame,
    "model_map": map_frame,
    "density": density_frame,
    "filter_grid": filters_frame,
}
MOST = {"eigenimages": 40, "drift_box_plot": 40, "drift_by_depth": 20, "quality_by_depth": 30, "accuracy": 12}
"""Of groups that a figure draws; the others draw all of ``MANY``."""


def drawn_texts(figure: Figure) -> list[tuple[str, Bbox]]:
    """Every text that drawing shows, with the box around it in pixels."""
    found: list[tuple[str, Bbox]] = []
    original = Text.draw

    def record(text: Text, renderer: object, *args: object, **kwargs: object) -> None:
        if text.get_visible() and text.get_text().strip():
            found.append((text.get_text(), Text.get_window_extent(text, renderer)))
        original(text, renderer, *args, **kwargs)

    with patch.object(Text, "draw", record):
        figure.draw_without_rendering()
    return found


def assert_readable(figure: Figure) -> None:
    """No text covers another, leaves the figure or is too small to read."""
    texts = drawn_texts(figure)
    assert texts
    page = figure.bbox.padded(0.01 * figure.dpi)
    for text, box in texts:
        assert page.x0 <= box.x0 <= box.x1 <= page.x1, text
        assert page.y0 <= box.y0 <= box.y1 <= page.y1, text
    for (one, a), (other, b) in combinations(texts, 2):
        # a hair is not an overlap: boxes include the space above and below letters
        width = min(a.x1, b.x1) - max(a.x0, b.x0)
        height = min(a.y1, b.y1) - max(a.y0, b.y0)
        assert min(width, height) < 0.01 * figure.dpi, f"{one!r} covers {other!r}"
    assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text().strip()) >= 4.5


def texts_of(figure: Figure) -> str:
    """All that a figure says, one line."""
    return " ".join(" ".join(text for text, _ in drawn_texts(figure)).split())
