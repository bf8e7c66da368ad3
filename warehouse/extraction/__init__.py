"""From a trained model to its 3x3 filters: ONNX, safetensors, PyTorch checkpoints, Keras weights and mappings.

Gets a file or an object with weights; hands on an `ExtractedModel`, which `write_dataset` turns into a file
that `ingest` reads. Nothing that a file holds is ever run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from warehouse.errors import SourceError
from warehouse.extraction import mapping
from warehouse.extraction.dataset import write_dataset
from warehouse.extraction.files import read_file
from warehouse.extraction.labels import LABELS, source_columns
from warehouse.extraction.model import ExtractedModel, Layer, assemble
from warehouse.legible import encodable

__all__ = ["LABELS", "ExtractedModel", "Layer", "extract", "write_dataset"]


def extract(model: object, *, transposed: bool = False, **labels: object) -> ExtractedModel:
    """Find the 3x3 filters of a model.

    Parameters
    ----------
    model
        The path of an ONNX file, a safetensors file, a PyTorch checkpoint (``.pt``, ``.pth``, ``.th``), Keras
        weights (``.h5``, ``.keras``); or a mapping of names to arrays in PyTorch's order of axes (out channels,
        in channels, height, width); or an object with ``state_dict()``, such as a ``torch.nn.Module``. What a
        file is shows in its first bytes, not in its name.
    transposed
        Take transposed convolutions too, which the authors of CNN Filter DB left out.
    **labels
        What is known of the model, by the names in `LABELS`: ``name``, ``task``, ``visual_category``,
        ``training_dataset``, ``pretraining_dataset``, ``paper`` and so on. The name is the file's by default.

    Returns
    -------
    The model: its layers, counts and notes. The weights stay where they are until they are asked for.

    Raises
    ------
    SourceError
        It is no such file, is damaged, or would have to run code; it has no 3x3 convolution; its weights are
        not finite; a label is unknown.

    Notes
    -----
    ``conv_depth`` of an ONNX model ranks the depths in its graph, the longest paths from an input, at which it
    has any 2-D convolution. The other formats hold no graph: there it is the order of the convolutions in the
    file or mapping, and the model says so in its notes.
    """
    columns = source_columns(labels)
    if isinstance(model, str | os.PathLike):
        path = Path(model)
        found, source = read_file(path), str(path)
        name = encodable(path.stem)
    else:
        found, source, name = mapping.read_object(model), f"the {type(model).__name__}", _name_of(model)
    name = str(columns.setdefault("Name", name))
    if not name.strip():
        raise SourceError(f"{source}: the model needs a name that is not empty")
    return assemble(found, name=name, source=source, labels=columns, transposed=transposed)


def _name_of(model: object) -> str:
    """A module's class is a name of sorts; that of a mapping says nothing."""
    return "model" if isinstance(model, Mapping) else type(model).__name__
