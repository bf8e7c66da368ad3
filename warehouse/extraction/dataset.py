"""Writes extracted models as a dataset file in the genuine layout, which ``ingest`` reads like a download.

Gets models; leaves one file. The filters of one layer are in memory at a time.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from warehouse.columns import is_missing
from warehouse.dataset_writer import refuse_existing, write_file
from warehouse.errors import SourceError
from warehouse.extraction.labels import LABELS, TEXT_COLUMNS
from warehouse.extraction.model import KERNEL, Array, ExtractedModel
from warehouse.legible import encodable

_TITLE = "3x3 filters of trained models, extracted from their files"
_OPERATOR = re.compile(r"[A-Za-z]\w*", re.ASCII)
_INDEX_AND_LAYERS = (
    *("model_id", "conv_depth", "conv_depth_norm", "layer_id", "layer_depth", "in_channels", "out_channels"),
    *("filter_ids", "layer_name", "groups", "convolution", "layer_notes"),
)
DTYPE = np.dtype("<f8")
"""Of the filters: what the genuine file has, and wide enough for every model's weights."""


def write_dataset(
    models: Sequence[ExtractedModel],
    path: str | os.PathLike[str],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write models as a dataset file; it appears under its name when it is complete.

    Parameters
    ----------
    models
        At least one, no two of one name.
    path
        Where the file shall be; nothing may be there yet.
    progress
        Called with the filters written so far and the total, after each layer.

    Raises
    ------
    SourceError
        No model, or two of one name; a path that is taken or cannot be written; a model's file that can no
        longer be read.
    """
    target = Path(path)
    refuse_existing(target, "the dataset")
    if not models:
        raise SourceError("a dataset needs at least one model")
    names = Counter(model.name for model in models)
    for name, n in names.items():
        if n > 1:
            sources = ", ".join(model.source for model in models if model.name == name)
            raise SourceError(f"{n} models are called {name!r} ({sources}); give each a name of its own")
    write_file(
        target,
        what="the dataset",
        title=_TITLE,
        attributes={},
        frame=frame(models),
        n_filters=sum(model.n_filters for model in models),
        dtype=DTYPE,
        blocks=_blocks(models, progress),
    )


def _blocks(models: Sequence[ExtractedModel], progress: Callable[[int, int], None] | None) -> Iterator[Array]:
    total, done = sum(model.n_filters for model in models), 0
    for model in models:
        for layer, weights in model.weights():
            yield weights
            done += layer.n_filters
            if progress is not None:
                progress(done, total)


def frame(models: Sequence[ExtractedModel]) -> tuple[dict[str, Array], dict[str, Array]]:
    """The metadata of models as a dataset has it.

    Returns
    -------
    tuple
        Index levels and columns, one entry per layer, as `write_frame` takes them. ``filter_ids`` counts from 0.
    """
    layers = [
        (number, model, place, layer) for number, model in enumerate(models) for place, layer in enumerate(model.layers)
    ]
    bounds = np.cumsum([0, *(layer.n_filters for *_, layer in layers)]).tolist()
    index: dict[str, Array] = {
        "model_id": np.array([number for number, *_ in layers], np.int32),
        "conv_depth": np.array([layer.conv_depth for *_, layer in layers], np.int32),
        "conv_depth_norm": np.array([layer.conv_depth_norm for *_, layer in layers], np.float64),
        "layer_id": np.array([place for _, _, place, _ in layers], np.int64),
    }
    depths = [layer.layer_depth for *_, layer in layers]
    columns: dict[str, Array] = {
        "layer_depth": np.array(depths, np.int32) if None not in depths else _column(depths),
        "in_channels": np.array([layer.in_channels for *_, layer in layers], np.int64),
        "out_channels": np.array([layer.out_channels for *_, layer in layers], np.int64),
        "filter_ids": np.array([f"{a}:{b - 1}" for a, b in pairwise(bounds)], object),
        "layer_name": _column([layer.name for *_, layer in layers]),
        "groups": _column([layer.groups for *_, layer in layers]),
        "convolution": _column([layer.kind for *_, layer in layers]),
        "layer_notes": _column(["; ".join(layer.notes) or None for *_, layer in layers]),
    }
    records = [_record(model) for model in models]
    names = list(dict.fromkeys(name for record in records for name in record))
    columns |= {name: _column([records[number].get(name) for number, *_ in layers]) for name in names}
    return index, columns


def _record(model: ExtractedModel) -> dict[str, object]:
    """The columns of a model, in the order of the authors' file."""
    first = {
        "model": model.name,
        "path": encodable(Path(model.source).name) if model.format != "mapping" else None,
        "producer": model.producer,
        "op_set": model.op_set,
    }
    kernels = {f"({height}, {width}) filters": n for (height, width), n in model.kernels.items()}
    last = {
        "depth": model.depth,
        **dict.fromkeys(TEXT_COLUMNS),
        **model.labels,
        "total_filters": float(model.total_filters),
        "3x3_filter_share": model.kernels[KERNEL] / model.total_filters,
        "model_format": model.format,
        "checksum": model.checksum,
        "extraction_notes": "; ".join(model.notes) or None,
    }
    # a model can name an operator as it likes, a column of the dataset too
    taken = {*first, *last, *LABELS.values(), *_INDEX_AND_LAYERS, "Datatype"}
    operators = {name: n for name, n in model.operators.items() if _OPERATOR.fullmatch(name) and name not in taken}
    return first | operators | kernels | last


def _column(values: Sequence[object]) -> Array:
    """Values as pandas would hold them: NaN where missing, which makes whole numbers and truths floats and objects."""
    filled = [np.nan if is_missing(value) else value for value in values]
    kinds = {type(value) for value in filled}
    return np.array(filled, None if kinds in ({int}, {bool}) or kinds <= {int, float} else object)
