"""What a comparison tells of a model, for people and for programs: as text, JSON or a page.

Gets an open `Comparison`; hands on texts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import polars as pl

from warehouse.comparison import QUESTIONS, Comparison
from warehouse.html import Html, element, table
from warehouse.legible import LONGEST_CELL, printable, shortened
from warehouse.report import cards, document, figure, sql_block

TITLES = {
    "layers": "Its layers, and their percentiles among those of other models at the same depth",
    "tasks": "Drift to the models of each task, the nearest first",
    "visual_categories": "Drift to the models of each visual category, the nearest first",
    "families": "Drift to each architecture family, the nearest first",
    "nearest_models": "The nearest models",
    "nearest_layers": "The nearest layers of other models",
}
"""What is told, in this order."""
LAYER_COLUMNS = (
    *("layer_id", "conv_depth", "n_filters", "sparsity", "sparsity_percentile", "variance_entropy"),
    *("variance_entropy_norm", "variance_entropy_norm_percentile", "orthogonality", "orthogonality_percentile"),
    *("is_random", "is_degenerate", "n_peers"),
)
"""Columns of a layer that people are shown."""
_BESIDE_OTHERS = "case when model_id = {model} then '(this model)' else '(all others)' end", "this model and all others"
FIGURES = {
    "drift_heatmap": ("case when model_id = {model} then '(this model)' else task end", "task, this model apart"),
    "ridge": _BESIDE_OTHERS,
    "eigenimages": _BESIDE_OTHERS,
}
"""Figures of the page; the axis of each, and what it is called."""


def facts(about: dict[str, pl.DataFrame], comparison: Comparison, position: int) -> dict[str, Any]:
    """What to know of a model first, by name."""
    (model,) = about["model"].to_dicts()
    flags = about["layers"].select(pl.col("is_random", "is_degenerate").sum()).to_dicts()[0]
    return {
        "model": model["model"],
        "layers": model["n_layers"],
        "filters": model["n_filters"],
        "sparsity": model["sparsity"],
        "variance_entropy_norm": model["variance_entropy_norm"],
        "orthogonality": model["orthogonality"],
        "random_layers": flags["is_random"],
        "degenerate_layers": flags["is_degenerate"],
        "coefficients_outside_the_range": comparison.outside,
        "notes": list(comparison.models[position].notes),
    }


def as_json(comparison: Comparison) -> str:
    """One object a model: the facts, and the rows of everything that is asked."""
    found = []
    for position, model_id in enumerate(comparison.model_ids):
        about = comparison.about(model_id)
        rows = {name: about[name].to_dicts() for name in TITLES}
        found.append({**facts(about, comparison, position), **rows})
    return json.dumps({"warehouse": str(comparison.path), "models": found}, indent=2, ensure_ascii=False)


def as_page(comparison: Comparison) -> str:
    """A page that needs no network, with the figures."""
    sections = []
    for position, model_id in enumerate(comparison.model_ids):
        about = comparison.about(model_id)
        told = facts(about, comparison, position)
        sections.append((f"model-{model_id}", str(told["model"]), list(_section(comparison, model_id, about, told))))
    return document(f"Compared with {comparison.path.absolute().name}", sections)


def _section(
    comparison: Comparison, model_id: int, about: dict[str, pl.DataFrame], told: dict[str, Any]
) -> Iterator[Html]:
    numbers = {name.replace("_", " "): value for name, value in told.items() if name not in ("model", "notes")}
    yield element("dl", *cards(numbers), class_="counts")
    if told["notes"]:
        yield element("ul", *(element("li", printable(shortened(note, LONGEST_CELL))) for note in told["notes"]))
    for name, title in TITLES.items():
        yield element("h3", title)
        shown = about[name].select(LAYER_COLUMNS) if name == "layers" else about[name]
        yield table(shown, title) if not shown.is_empty() else element("p", "None.")
        yield sql_block(QUESTIONS[name].replace("$model", str(model_id)))
    for name, (pattern, words) in FIGURES.items():
        axis = pattern.format(model=model_id)
        yield from figure(comparison, name, {"axis": axis}, {axis: words})
