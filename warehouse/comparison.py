"""A model beside the warehouse: measured in its coordinates and mixed into its tables for one session, nothing written.

Gets a dataset of models and the folder of a warehouse; hands on an open warehouse in which every table, view and
macro sees the models too.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

import polars as pl

from warehouse import catalog, sqlfiles
from warehouse.changes import append_source, as_dataset, origin_of, read_state
from warehouse.extraction import ExtractedModel
from warehouse.lake import Lake
from warehouse.runner import Progress
from warehouse.session import Warehouse
from warehouse.source import open_source

QUESTIONS = {
    "model": "from model_quality where model_id = $model",
    "layers": "from layer_percentiles($model)",
    "tasks": "from drift_to_groups($model, task)",
    "visual_categories": "from drift_to_groups($model, visual_category)",
    "families": "from drift_to_groups($model, architecture_family)",
    "nearest_models": "from nearest_models($model)",
    "nearest_layers": "from nearest_layers_of($model) limit 10",
}
"""What a comparison tells of a model."""


class Comparison(Warehouse):
    """A warehouse with further models mixed in, until it is closed. Nothing is written into the warehouse.

    The schema ``own`` holds the tables of the models alone; under their plain names the tables hold all, so that any
    query and macro mixes them: ``from drift(case when model_id = 647 then 'mine' else task end)``.

    Parameters
    ----------
    path
        The warehouse's folder.
    models
        What `extract` found.
    progress
        As in `ingest`.

    Attributes
    ----------
    models
        The models.
    model_ids
        The ids that they have here, in their order.
    outside
        Coefficients outside the range of the histograms; they count in the bins at its ends.
    """

    def __init__(self, path: str | Path, models: Sequence[ExtractedModel], *, progress: Progress | None = None) -> None:
        with ExitStack() as resources:
            super().__init__(path)
            resources.callback(super().close)
            folder = Path(resources.enter_context(tempfile.TemporaryDirectory(prefix="warehouse-compare-")))
            lake = Lake(folder)
            state = read_state(self.connection)
            with as_dataset(models) as dataset, open_source(dataset) as opened:
                change = append_source(opened, origin_of(models), lake, state, progress=progress)
            lake.wait_for_disk()
            self._mix(lake)
            self.models, self.model_ids, self.outside = tuple(models), change.model_ids, change.outside
            self._resources = resources.pop_all()

    def close(self) -> None:
        """Close the connection and forget the models."""
        self._resources.close()

    def about(self, model: int | str, names: Iterable[str] = tuple(QUESTIONS)) -> dict[str, pl.DataFrame]:
        """What ``QUESTIONS`` asks of a model, by name; all of them unless some are named."""
        return {name: self.sql(QUESTIONS[name], {"model": model}).pl() for name in names}

    def _mix(self, lake: Lake) -> None:
        """Make the tables of the models, and views of the same names over those and the warehouse's."""
        paths: dict[str, list[str]] = {}
        for file in lake.files:
            paths.setdefault(file.name, []).append(str(lake.folder / file.path))
        self.connection.execute("attach ':memory:' as own")
        self.connection.execute("use own")
        views = [sqlfiles.load_one("views", "filters")]
        for item in [*sqlfiles.load("tables"), *views]:
            if item.name in paths:
                catalog.create(self.connection, item, paths)
        self.connection.execute("use warehouse")
        for name in paths:
            union = f"from warehouse.{name} union all by name from own.{name}"
            self.connection.execute(f"create temp view {name} as {union}")
