"""The labels that a user may give a model, and the columns of a dataset that they go into."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from warehouse.columns import snake_case
from warehouse.errors import SourceError
from warehouse.metadata import KNOWN_TYPES, PRETRAINING

TEXT_COLUMNS = (
    *("Name", "Paper", PRETRAINING, "Training-Dataset", "Visual Category", "Task", "Accessible", "Dataset URL"),
)
"""Columns of text that every dataset of the authors has, in their order."""

_TRUTHS: dict[object, bool] = {True: True, False: False, "true": True, "false": False}

LABELS = {snake_case(column): column for column in (*TEXT_COLUMNS, *KNOWN_TYPES)}
"""The labels by their names in SQL, and the source columns that hold them."""


def source_columns(labels: Mapping[str, object]) -> dict[str, object]:
    """Labels by the names of their source columns; those that are None are left out.

    Raises
    ------
    SourceError
        A label that no warehouse has, or a value that is not of its type.
    """
    columns: dict[str, object] = {}
    for label, value in labels.items():
        if label not in LABELS:
            close = difflib.get_close_matches(label, LABELS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(LABELS)}"
            raise SourceError(f"a model has no label {label!r}; {hint}")
        if value is not None:
            columns[LABELS[label]] = _typed(label, value)
    return columns


def _typed(label: str, value: object) -> object:
    kind = str(KNOWN_TYPES.get(LABELS[label], "string"))
    try:
        if kind == "bool":
            return _TRUTHS[value.lower() if isinstance(value, str) else value]
        if kind == "double":
            return float(str(value))
    except (KeyError, TypeError, ValueError):
        expected = "true or false" if kind == "bool" else "a number"
        raise SourceError(f"the label {label!r} is {value!r:.60}, expected {expected}") from None
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
