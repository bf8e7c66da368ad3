"""From the source's frame of layers to typed tables of models, layers, operators, kernels and data sets.

Gets a ``MetaFrame`` and the number of filters; hands on Arrow tables as they go into the lake. Labels are fixed
and families derived by ``sql/staging/models.sql``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from warehouse import staging
from warehouse.columns import (
    BOOLEAN,
    INTEGER,
    MISSING_TEXT,
    NUMBER,
    TEXT,
    convert,
    inferred_type,
    is_missing,
    snake_case,
    unique_name,
)
from warehouse.errors import SourceError
from warehouse.frames import MetaFrame
from warehouse.onnx_operators import ONNX_OPERATORS

MODEL_COLUMNS: dict[str, tuple[tuple[str, ...], pa.DataType]] = {
    "model": (("model",), TEXT),
    "name": (("Name",), TEXT),
    "task": (("Task",), TEXT),
    "visual_category": (("Visual Category", "Datatype"), TEXT),
    "training_dataset": (("Training-Dataset",), TEXT),
    "producer": (("producer",), TEXT),
    "op_set": (("op_set",), INTEGER),
    "depth": (("depth",), INTEGER),
    "paper": (("Paper",), TEXT),
    "accessible": (("Accessible",), TEXT),
    "dataset_url": (("Dataset URL",), TEXT),
    "total_filters": (("total_filters",), INTEGER),
    "share_3x3": (("3x3_filter_share",), NUMBER),
}
"""Columns that every warehouse's ``models`` has: the source's names for them and their type."""

PRETRAINING = "Pretraining-Dataset"
"""A comma-separated list in CNN Filter DB, a boolean in the robustness data set."""

KNOWN_TYPES = {
    "Robust": BOOLEAN,
    "Clean Accuracy": NUMBER,
    "Robust Accuracy": NUMBER,
    "Network": TEXT,
    "Backbone": TEXT,
    "Precision": TEXT,
}
"""Further columns, of the robustness data set, that analyses ask for: every warehouse has them, NULL where the source
does not, and their types do not depend on their values."""

LAYER_COLUMNS = ("in_channels", "out_channels", "layer_depth")
"""Whole numbers that vary within a model and that every warehouse's ``layers`` has."""

EXTRACTED_LAYER_COLUMNS = ("layer_name", "groups", "convolution", "layer_notes")
"""What extraction tells of each layer, and what is therefore no model's, though all its layers may agree."""

DATASETS = {"model_id": pa.int32(), "role": TEXT, "dataset": TEXT}
"""Columns of ``model_datasets``."""

RESERVED = (
    # what a user writes beside a column: the parameters of the macros, and in an axis the whole row of layer_meta
    *("axis", "keep", "layer_meta"),
    # columns that are added to models later
    *("source", "source_model_id", "source_sha256"),
    # columns of filters, which filter_meta joins
    *("filter_id", *(f"w{i}" for i in range(9))),
    # columns of layer_quality, which an axis may name
    *("n_sparse", "sparsity", "variance_entropy", "randomness_threshold", "variance_entropy_norm", "is_random"),
    *("is_degenerate", "variance_entropy_clean", "variance_entropy_clean_norm", "scaled_clean_entropy"),
    *("orthogonality", "l1", "l2", "l1_standardised", "l2_standardised"),
    # further columns of quality, which model_quality joins
    *("n_layers", "share_random", "share_degenerate"),
)
"""Names that a source's column may not take, for they would stand beside ours in what a user asks. All others it keeps:
within the queries of ``sql/`` no column of a source hides a name."""

_KERNEL = re.compile(r"\((\d+), ?(\d+)\) filters")
_LIST = re.compile(r"\s*\[\s*\d{1,99}(\s*,\s*\d{1,99})*\s*\]\s*")
_RANGE = re.compile(r"\s*(-?\d{1,99})\s*:\s*(-?\d{1,99})\s*")


@dataclass(frozen=True)
class Start:
    """The first ids that a warehouse has not given yet."""

    model_id: int
    layer_id: int
    filter_id: int


@dataclass(frozen=True)
class Metadata:
    """The tables ``models``, ``layers``, ``model_operators``, ``model_kernels`` and ``model_datasets``."""

    models: pa.Table
    layers: pa.Table
    model_operators: pa.Table
    model_kernels: pa.Table
    model_datasets: pa.Table

    @classmethod
    def joined(cls, parts: Sequence[tuple[Path, Metadata]]) -> Metadata:
        """Tables of several sources, one after the other: all their columns, NULL where a source has none.

        Parameters
        ----------
        parts
            The tables of each source and its file, with ids that continue those before it.

        Raises
        ------
        SourceError
            A column that two sources have with values that no type holds; it names both files.
        """
        return cls(*(_joined([(path, getattr(part, each.name)) for path, part in parts]) for each in fields(cls)))

    def finished(self) -> Metadata:
        """The tables with labels fixed and what follows from them, as they go into the lake."""
        fixes = [("tables", "label_fixes"), ("tables", "architecture_patterns")]
        models = staging.run("models", {"source_models": self.models}, uses=fixes)
        layers = staging.run("layers", {"source_layers": self.layers}, uses=[("macros", "depth_decile")])
        return replace(self, models=models, layers=layers, model_datasets=_model_datasets(models))

    def of_source(
        self, name: str | Sequence[str], start: Start | None = None, sha256: Sequence[str] | None = None
    ) -> Metadata:
        """The tables with the origin of each model, and with ids that continue those of a warehouse.

        Parameters
        ----------
        name
            Of the source, one for all models or one a model.
        start
            The first ids that are free; None keeps the source's.
        sha256
            Checksum of each model's own file; None where the source is a dataset.
        """
        ids = self.models["model_id"]
        names = [name] * len(ids) if isinstance(name, str) else list(name)
        models = (
            self.models.append_column("source", pa.array(names, TEXT))
            .append_column("source_model_id", ids)
            .append_column(
                "source_sha256", pa.nulls(len(ids), TEXT) if sha256 is None else pa.array(list(sha256), TEXT)
            )
        )
        if start is None:
            return replace(self, models=models)
        if start.model_id + len(ids) > 2**31:
            raise SourceError(f"/meta: {len(ids):,} models get ids from {start.model_id} on, beyond 32 bits")
        renumbered = dict(zip(ids.to_pylist(), range(start.model_id, start.model_id + len(ids)), strict=True))

        def with_model_ids(table: pa.Table) -> pa.Table:
            column = pa.array([renumbered[model] for model in table["model_id"].to_pylist()], pa.int32())
            return table.set_column(table.column_names.index("model_id"), "model_id", column)

        layers = with_model_ids(self.layers)
        for column, first in (("layer_id", start.layer_id), ("first_filter_id", start.filter_id)):
            position = layers.column_names.index(column)
            shifted = pc.add(layers[column], pa.scalar(first, layers[column].type))
            layers = layers.set_column(position, column, shifted)
        return Metadata(
            with_model_ids(models),
            layers,
            *map(with_model_ids, (self.model_operators, self.model_kernels, self.model_datasets)),
        )


@dataclass(frozen=True)
class _Column:
    """A source column, converted: ``values`` are Python values, None where missing."""

    source: str
    values: list[Any]
    type: pa.DataType


class _Rows:
    """The rows of the frame in the order of their filters, and the models that they belong to."""

    def __init__(self, frame: MetaFrame, n_filters: int) -> None:
        first, last = _filter_ranges(frame.columns["filter_ids"], n_filters)
        self.order = np.argsort(first, kind="stable")
        self.first, self.n = first[self.order], (last - first + 1)[self.order]
        ids = convert("model_id", frame.index["model_id"], INTEGER)
        for row, value in enumerate(ids):
            if value is None or not -(2**31) <= value < 2**31:
                found = frame.index["model_id"].tolist()[row]
                raise SourceError(f"/meta, row {row}: model_id is {found!r:.60}, expected a whole number of 32 bits")
        self.model_id = [ids[row] for row in self.order]
        _refuse_overlaps(self.first, self.n, self.order, self.model_id)
        by_model: dict[int, list[int]] = {}
        for position, model in enumerate(self.model_id):
            by_model.setdefault(model, []).append(position)
        self.by_model = dict(sorted(by_model.items()))

    def column(self, source: str, values: np.ndarray, kind: pa.DataType | None = None) -> _Column:
        """Convert a source column, its rows in the order of the filters."""
        kind = kind or inferred_type(values)
        converted = convert(source, values, kind)
        return _Column(source, [converted[row] for row in self.order], kind)

    def per_model(self, column: _Column) -> list[Any] | None:
        """One value a model, or None where a model's layers differ."""
        result = []
        for positions in self.by_model.values():
            value = column.values[positions[0]]
            if any(column.values[position] != value for position in positions):
                return None
            result.append(value)
        return result

    def per_model_strictly(self, column: _Column) -> list[Any]:
        """One value a model; two values are an error that names both."""
        values = self.per_model(column)
        if values is not None:
            return values
        for model, positions in self.by_model.items():
            for position in positions[1:]:
                one, other = column.values[positions[0]], column.values[position]
                if one != other:
                    raise SourceError(
                        f"/meta, rows {self.order[positions[0]]} and {self.order[position]}: model_id {model} has two "
                        f"values of {column.source!r}, {one!r} and {other!r}; give each model an id of its own"
                    )
        raise AssertionError("per_model found a difference")


def tabulate(
    frame: MetaFrame, n_filters: int, *, of_models: Collection[str] = (), of_layers: Collection[str] = ()
) -> Metadata:
    """Make the tables of models and layers, as they go into the lake.

    Parameters
    ----------
    frame
        One row per layer.
    n_filters
        Filters in the source, the bound of the ids.
    of_models, of_layers
        Columns that the tables have already: one of the same name is found in the same table.

    Returns
    -------
    The tables; ``layers`` in the order of the filters, with ``layer_id`` from 0.

    Raises
    ------
    SourceError
        Ids malformed, reversed, out of range or overlapping; a model with two values of a model's column;
        a value that is not of its column's type. It names the rows.
    """
    return source_tables(frame, n_filters, of_models=of_models, of_layers=of_layers).finished()


def source_tables(
    frame: MetaFrame, n_filters: int, *, of_models: Collection[str] = (), of_layers: Collection[str] = ()
) -> Metadata:
    """The tables that `tabulate` makes, with labels as the source has them; ``model_datasets`` follows from those."""
    rows = _Rows(frame, n_filters)
    columns = dict(frame.columns)
    del columns["filter_ids"]
    known = {source: snake_case(source) for source in KNOWN_TYPES}
    taken = {*RESERVED, *known.values()}

    models: dict[str, pa.Array] = {"model_id": pa.array(list(rows.by_model), pa.int32())}
    layers: dict[str, pa.Array] = _layer_columns(rows, frame, columns)
    for name, (sources, kind) in MODEL_COLUMNS.items():
        source = next((s for s in sources if s in columns), None)
        if source is None:
            models[name] = pa.nulls(len(rows.by_model), kind)
            continue
        values = columns.pop(source)
        models[name] = pa.array(rows.per_model_strictly(rows.column(source, values, kind)), kind)
        if name in ("task", "visual_category"):
            models[f"raw_{name}"] = pa.array(_raw_text(rows, values), TEXT)
    for name in ("raw_task", "raw_visual_category"):
        models.setdefault(name, pa.nulls(len(rows.by_model), TEXT))
    models |= _pretraining(rows, columns.pop(PRETRAINING, None))
    models["architecture_family"] = pa.nulls(len(rows.by_model), TEXT)

    operators = _pop_counts(rows, columns, lambda name: name in ONNX_OPERATORS)
    kernels = _pop_counts(rows, columns, lambda name: _KERNEL.fullmatch(name) is not None)
    taken |= models.keys() | layers.keys()
    for source, values in columns.items():
        column = rows.column(source, values, KNOWN_TYPES.get(source))
        name = known.get(source) or unique_name(snake_case(source), taken)
        per_model = rows.per_model(column)
        if per_model is None or name in (*EXTRACTED_LAYER_COLUMNS, *of_layers):
            # a column of models that differs between layers keeps its name there, with nothing known
            name = unique_name(f"layer_{name}", taken) if source in KNOWN_TYPES or name in of_models else name
            layers[name] = pa.array(column.values, column.type)
        else:
            models[name] = pa.array(per_model, column.type)
    for source, kind in KNOWN_TYPES.items():
        models.setdefault(known[source], pa.nulls(len(rows.by_model), kind))

    return Metadata(
        pa.table(models),
        pa.table(layers),
        _table(sorted(operators), {"model_id": pa.int32(), "operator": TEXT, "n": INTEGER}),
        _model_kernels(kernels),
        _table([], DATASETS),
    )


def _joined(parts: Sequence[tuple[Path, pa.Table]]) -> pa.Table:
    """One table of several, by the names of their columns."""
    valued: dict[str, list[tuple[Path, pa.DataType]]] = {}
    types: dict[str, pa.DataType] = {}
    for path, table in parts:
        for name, column in zip(table.column_names, table.columns, strict=True):
            types.setdefault(name, column.type)
            if _has_values(column):  # the type of one without says nothing
                valued.setdefault(name, []).append((path, column.type))
    types |= {name: _common_type(name, found) for name, found in valued.items()}

    def column_of(table: pa.Table, name: str, kind: pa.DataType) -> pa.Array | pa.ChunkedArray:
        if name not in table.column_names or not _has_values(table[name]):
            return pa.nulls(table.num_rows, kind)
        # as within a file, whole numbers beyond 2**53 lose digits where others are none
        return table[name].cast(kind, safe=False)

    return pa.concat_tables(
        [pa.table({name: column_of(table, name, kind) for name, kind in types.items()}) for _, table in parts]
    )


def _has_values(column: pa.ChunkedArray) -> bool:
    return bool(column.null_count < len(column))


def _common_type(name: str, found: Sequence[tuple[Path, pa.DataType]]) -> pa.DataType:
    """The type that holds the values of a column of several files."""
    kinds = {kind for _, kind in found}
    path, kind = found[0]
    if len(kinds) == 1:
        return kind
    if kinds == {INTEGER, NUMBER}:
        return NUMBER
    second, other = next(each for each in found if {kind, each[1]} not in ({kind}, {INTEGER, NUMBER}))
    raise SourceError(
        f"column {name!r} of the table of layers is {kind} in {path} and {other} in {second}; "
        "rename it in one of them, or make a warehouse of each"
    )


def _layer_columns(rows: _Rows, frame: MetaFrame, columns: dict[str, np.ndarray]) -> dict[str, pa.Array]:
    """The columns that every ``layers`` has; those found are taken out of ``columns``."""
    n = frame.n_rows

    def optional(name: str, found: np.ndarray | None, kind: pa.DataType) -> pa.Array:
        return pa.nulls(n, kind) if found is None else pa.array(rows.column(name, found, kind).values, kind)

    return {
        "layer_id": pa.array(range(n), pa.int32()),
        "model_id": pa.array(rows.model_id, pa.int32()),
        "conv_depth": optional("conv_depth", frame.index["conv_depth"], INTEGER),
        "conv_depth_norm": optional("conv_depth_norm", frame.index.get("conv_depth_norm"), NUMBER),
        "depth_decile": pa.nulls(n, pa.int8()),
        "first_filter_id": pa.array(rows.first, INTEGER),
        "n_filters": pa.array(rows.n, INTEGER),
        **{name: optional(name, columns.pop(name, None), INTEGER) for name in LAYER_COLUMNS},
        "source_layer_id": optional("layer_id", frame.index.get("layer_id"), INTEGER),
    }


def _pretraining(rows: _Rows, values: np.ndarray | None) -> dict[str, pa.Array]:
    """``pretrained`` and ``pretraining_dataset`` from the source's one column, a list or a boolean."""
    if values is None:
        n = len(rows.by_model)
        return {"pretrained": pa.nulls(n, BOOLEAN), "pretraining_dataset": pa.nulls(n, TEXT)}
    present = [value for value in values.tolist() if not is_missing(value)]
    if present and all(value in (0, 1) for value in present):
        flags = rows.per_model_strictly(rows.column(PRETRAINING, values, BOOLEAN))
        names: list[str | None] = [None] * len(flags)
    else:
        names = rows.per_model_strictly(rows.column(PRETRAINING, values, TEXT))
        raw = _raw_text(rows, values)
        flags = [None if text == "?" else name is not None for text, name in zip(raw, names, strict=True)]
    return {"pretrained": pa.array(flags, BOOLEAN), "pretraining_dataset": pa.array(names, TEXT)}


def _raw_text(rows: _Rows, values: np.ndarray) -> list[str | None]:
    """A model's label exactly as the source has it."""
    firsts = (values[rows.order[positions[0]]] for positions in rows.by_model.values())
    return [None if is_missing(value) else str(value) for value in firsts]


def _pop_counts(
    rows: _Rows, columns: dict[str, np.ndarray], chosen: Callable[[str], bool]
) -> list[tuple[int, str, int]]:
    """Take the columns that have a chosen name and hold a count a model out of ``columns``.

    Returns (model_id, column, count) for every count above zero. A column of another kind, whatever its name,
    is left.
    """
    found = []
    for name in [name for name in columns if chosen(name)]:
        if inferred_type(columns[name]) not in (INTEGER, TEXT) or columns[name].dtype.kind not in "iuf":
            continue
        counts = rows.per_model(rows.column(name, columns[name], INTEGER))
        if counts is not None and all(count is None or count >= 0 for count in counts):
            del columns[name]
            found += [(model, name, n) for model, n in zip(rows.by_model, counts, strict=True) if n]
    return found


def _model_kernels(counts: Iterable[tuple[int, str, int]]) -> pa.Table:
    found = []
    for model, name, n in counts:
        height, width = map(int, re.findall(r"\d+", name)[:2])
        found.append((model, height, width, n))
    schema = {"model_id": pa.int32(), "height": pa.int32(), "width": pa.int32(), "n_filters": INTEGER}
    return _table(sorted(found), schema)


def _model_datasets(models: pa.Table) -> pa.Table:
    found = {
        (model["model_id"], role, part.strip())
        for model in models.select(["model_id", "training_dataset", "pretraining_dataset"]).to_pylist()
        for role in ("training", "pretraining")
        for part in (model[f"{role}_dataset"] or "").split(",")
        if part.strip().lower() not in MISSING_TEXT
    }
    return _table(sorted(found), DATASETS)


def _table(rows: Sequence[tuple[Any, ...]], schema: dict[str, pa.DataType]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    return pa.table(
        {name: pa.array(values, kind) for (name, kind), values in zip(schema.items(), columns, strict=True)}
    )


def _filter_ranges(ids: np.ndarray, n_filters: int) -> tuple[np.ndarray, np.ndarray]:
    """First and last filter of each row of ``filter_ids``, both inclusive."""
    bounds = np.empty((len(ids), 2), dtype=np.int64)
    claimed = 0
    for row, value in enumerate(ids):
        first, last = _filter_range(value, row)
        if first > last:
            raise SourceError(f"/meta, row {row}: filter_ids '{first}:{last}' runs backwards, expected start:end")
        if first < 0 or last >= n_filters:
            raise SourceError(
                f"/meta, row {row}: filter_ids '{first}:{last}' is out of range, the file has filters 0:{n_filters - 1}"
            )
        bounds[row] = first, last
        claimed += last - first + 1
        if claimed > 2 * n_filters:  # a short file can repeat a long list in every row
            raise SourceError(
                f"/meta, row {row}: the layers up to here claim filters twice, {claimed:,} of {n_filters:,}"
            )
    return bounds[:, 0], bounds[:, 1]


def _filter_range(value: object, row: int) -> tuple[int, int]:
    if isinstance(value, str) and (match := _RANGE.fullmatch(value)):
        return int(match[1]), int(match[2])
    if isinstance(value, str) and _LIST.fullmatch(value):
        value = json.loads(value)
    if isinstance(value, (list, tuple, np.ndarray)) and len(value):
        ids = np.asarray(value)
        if ids.dtype.kind in "iu" and ids.ndim == 1:
            first, last = int(ids.min()), int(ids.max())
            if last - first + 1 == len(ids) == len(np.unique(ids)):
                return first, last
            raise SourceError(f"/meta, row {row}: filter_ids lists ids with gaps or repeats, expected one run of ids")
    raise SourceError(f"/meta, row {row}: filter_ids is {value!r:.60}, expected 'start:end' or a list of ids")


def _refuse_overlaps(first: np.ndarray, n: np.ndarray, order: np.ndarray, model_id: list[int]) -> None:
    ends = first + n
    for i in np.flatnonzero(first[1:] < ends[:-1])[:1]:
        raise SourceError(
            f"/meta: the layers in rows {order[i]} (model {model_id[i]}) and {order[i + 1]} (model {model_id[i + 1]}) "
            f"both claim filters {first[i + 1]}:{min(ends[i], ends[i + 1]) - 1}"
        )
