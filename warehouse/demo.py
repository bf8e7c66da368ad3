"""The demo: a sample, its warehouse and what can be asked of it."""

from __future__ import annotations

import shlex
from pathlib import Path

from warehouse.ingest import Summary, ingest
from warehouse.lake import disk_errors
from warehouse.runner import Progress, for_stage
from warehouse.sample import write_sample

QUESTIONS = (
    (
        "How differently are the filters of two tasks shaped?",
        "from drift(task) where a < b order by drift desc limit 12",
    ),
    (
        "How good are the layers, from the first tenth of a model's depth to the last?",
        "select grp as depth_decile, n_layers, sparsity, variance_entropy, share_random, share_degenerate "
        "from quality(depth_decile)",
    ),
    (
        "How many dimensions do the filters fill?",
        "select component, eigenvalue, explained_variance_ratio, cumulative_ratio from pca('all')",
    ),
)
"""Titles and queries, in the order in which they are shown."""


def prepare(folder: Path, progress: Progress | None) -> Summary:
    """Make the sample in ``folder``, unless it is there, and its warehouse anew."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    dataset = folder / "sample.h5"
    if not dataset.exists():
        write_sample(dataset, progress=for_stage(progress, "generating"))
    return ingest(dataset, folder / "cnn.warehouse", replace=True, progress=progress)


def next_steps(path: Path) -> str:
    """What to type after the demo."""
    folder = shlex.quote(str(path))
    return f"""
The filters of this sample are synthetic. Next, try:
  warehouse query {folder} "from drift(visual_category) order by drift desc limit 5"
  warehouse query {folder} "select * exclude loading from pca(conv_depth = 0)"
  warehouse help {folder}
  warehouse shell {folder}            (the DuckDB shell; then type: from help;)
  warehouse ingest dataset.h5 cnn.warehouse   (with the real data, see the README)"""  # noqa: S608 - text for people, nothing that is run
