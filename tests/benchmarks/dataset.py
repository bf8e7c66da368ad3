"""A dataset of any size in the real one's shape that takes a few hundred megabytes of disk.

Its metadata is a sample's, its filters are an HDF5 virtual dataset: a small file of synthetic filters, over and over.
As the layers are cut without regard to where that file begins anew, each has a piece of its own.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import tables

import warehouse
from warehouse.frame_writer import write_frame
from warehouse.sample_plan import Plan, plan_sample, sample_frame

SOURCE_FILTERS = 1 << 22
"""Filters in the file that is repeated: 302 MB as float64, more than any processor caches."""
SMALLEST_LAYER = 9
UNEVENNESS = 1.2
"""Power of a sample's layer sizes that gives the median and the maximum of real ones, about 16,000 and 4 million."""


class Shape(NamedTuple):
    """How large a dataset is."""

    filters: int
    layers: int
    models: int


REAL = Shape(filters=1_464_797_156, layers=21_436, models=647)
"""CNN Filter DB v1.0.0."""


def plan_layers(shape: Shape) -> Plan:
    """Models and layers of a dataset, of uneven sizes as in trained networks."""
    plan = plan_sample(**shape._asdict(), seed=0, layout="v1")
    weights = np.cumsum(np.diff(plan.first_filter) ** UNEVENNESS)
    spare = shape.filters - SMALLEST_LAYER * shape.layers
    stops = SMALLEST_LAYER * np.arange(1, shape.layers + 1) + np.rint(spare * (weights / weights[-1])).astype(np.int64)
    return dataclasses.replace(plan, first_filter=np.concatenate([[0], stops]))


def make_dataset(path: str, filters: str, layers: str, models: str) -> None:
    """Write the dataset, and beside it the file ``source.h5`` that it repeats, for which an ingest needs permission."""
    shape = Shape(int(filters), int(layers), int(models))
    target = Path(path)
    n_source = min(SOURCE_FILTERS, shape.filters)
    n_layers = min(2000, shape.layers)
    n_models = min(200, shape.models)
    warehouse.write_sample(source_of(target), filters=n_source, layers=n_layers, models=n_models)
    source = h5py.VirtualSource(source_of(target).name, "filters", (n_source, 3, 3))
    layout = h5py.VirtualLayout((shape.filters, 3, 3), "<f8")
    for start in range(0, shape.filters, n_source):
        stop = min(start + n_source, shape.filters)
        layout[start:stop] = source[: stop - start]
    with tables.open_file(target, "w") as file:
        write_frame(file, "meta", *sample_frame(plan_layers(shape)))
    with h5py.File(target, "r+") as file:
        file.create_virtual_dataset("filters", layout)


def source_of(dataset: Path) -> Path:
    """The file whose filters a dataset repeats."""
    return dataset.with_name("source.h5")
