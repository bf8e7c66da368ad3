"""Reads what is known of models from a table beside them: a CSV file, or TOML with a table a model."""

from __future__ import annotations

import csv
import difflib
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

from warehouse.errors import SourceError
from warehouse.extraction import LABELS

FILE = "file"
"""The column of a CSV file that names the model's file."""


def read_labels(path: Path, models: Sequence[Path]) -> dict[Path, dict[str, object]]:
    """Labels of models, by their files.

    Parameters
    ----------
    path
        ``.csv``, with a column ``file`` and one a label, or ``.toml``, with a table a model's file:
        ``["resnet18.onnx"]``, ``task = "Classification"``. Empty cells say nothing.
    models
        The files of the models; each may be named as given or by its file name alone.

    Raises
    ------
    SourceError
        A file that cannot be read, or that names a model or a label that there is not, or a model twice.
    """
    try:
        rows = _csv_rows(path) if path.suffix.lower() == ".csv" else _toml_rows(path)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error, tomllib.TOMLDecodeError) as error:
        raise SourceError(f"{path}: cannot be read: {error}") from error
    known = {name: model for model in models for name in (model.name, str(model))}
    found: dict[Path, dict[str, object]] = {}
    for name, labels in rows:
        if name not in known:
            raise SourceError(f"{path}: {name!r} is none of the models{_hint(name, known)}")
        if known[name] in found:
            raise SourceError(f"{path}: {name!r} is there twice")
        for label in labels:
            if label not in LABELS:
                raise SourceError(f"{path}: a model has no label {label!r}{_hint(label, LABELS)}")
        found[known[name]] = labels
    return found


def _csv_rows(path: Path) -> list[tuple[str, dict[str, object]]]:
    with path.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream, strict=True)
        if FILE not in (reader.fieldnames or ()):
            raise SourceError(f"{path}: has no column {FILE!r}, only {', '.join(reader.fieldnames or ())}")
        rows = []
        for row in reader:
            if None in row or None in row.values():
                raise SourceError(f"{path}: line {reader.line_num} has another number of cells than the first")
            rows.append((row.pop(FILE), {label: value for label, value in row.items() if value}))
        return rows


def _toml_rows(path: Path) -> list[tuple[str, dict[str, object]]]:
    with path.open("rb") as stream:
        tables = tomllib.load(stream)
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise SourceError(f'{path}: {name!r} is no table of labels; write ["{name}"] above them')
    return list(tables.items())


def _hint(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(sorted(known))}"
