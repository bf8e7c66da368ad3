"""Types and names of the columns of a source, which come as NumPy wrote them.

Gets arrays of anything; hands on Python values of one type, None where missing, and names for SQL.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from warehouse.errors import SourceError

MISSING_TEXT = frozenset({"", "?", "nan"})
"""Texts that mean NULL."""

MAX_CHARACTERS = 1 << 26
"""Of all texts of a column; a short file can repeat a long text in every row."""

TEXT, INTEGER, NUMBER, BOOLEAN = pa.string(), pa.int64(), pa.float64(), pa.bool_()

_BOOLEANS = {0: False, 1: True, "false": False, "true": True}


def is_missing(value: object) -> bool:
    """Whether a value is None or NaN, as pandas writes what is missing."""
    return value is None or (isinstance(value, (float, np.floating)) and math.isnan(value))


def inferred_type(values: np.ndarray) -> pa.DataType:
    """The type that holds all values of a column; text where there are none or they mix."""
    if values.dtype.kind == "b":
        return BOOLEAN
    if values.dtype.kind in "iu":
        # text keeps the digits of what no column of integers holds
        return INTEGER if values.size == 0 or int(values.max()) < 2**63 else TEXT
    present: Iterable[Any] = [value for value in values.tolist() if not is_missing(value)]
    kinds = {type(value) for value in present}
    if kinds == {bool}:
        return BOOLEAN
    if kinds and kinds <= {int, float}:
        whole = all(abs(v) < (2**63 if isinstance(v, int) else 2**53) and v == int(v) for v in present)
        return INTEGER if whole else NUMBER
    return TEXT


def convert(source: str, values: np.ndarray, kind: pa.DataType) -> list[Any]:
    """Python values of one type, None where missing."""
    if values.dtype.kind == "f" and kind in (INTEGER, NUMBER):
        # most columns of a source are of this kind; one by one they would take seconds
        present = np.isfinite(values)
        numbers = np.where(present, values, 0)
        if kind == NUMBER or bool(((numbers == np.floor(numbers)) & (np.abs(numbers) < 2**53)).all()):
            objects = numbers.astype(np.int64 if kind == INTEGER else np.float64).astype(object)
            objects[~present] = None
            return list(objects)
    result: list[Any] = []
    n_characters = 0
    for row, value in enumerate(values.tolist()):
        try:
            result.append(_convert_one(value, kind))
            n_characters += len(result[-1] or "") if kind == TEXT else 0
            if n_characters > MAX_CHARACTERS:
                raise SourceError(f"/meta, row {row}: {source!r} has more than {MAX_CHARACTERS:,} characters in all")
        except (ValueError, TypeError, OverflowError, KeyError):
            raise SourceError(f"/meta, row {row}: {source!r} is {value!r:.60}, expected {_expected(kind)}") from None
    return result


def _expected(kind: pa.DataType) -> str:
    return {TEXT: "valid text", INTEGER: "a whole number", NUMBER: "a number", BOOLEAN: "true or false"}[kind]


def _convert_one(value: Any, kind: pa.DataType) -> Any:
    """One value of a type; raises where it is none."""
    if is_missing(value) or (isinstance(value, str) and value.strip().lower() in MISSING_TEXT):
        return None
    if kind == TEXT:
        text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        text.encode()
        return text
    if kind == BOOLEAN:
        return _BOOLEANS[value.lower() if isinstance(value, str) else value]
    if isinstance(value, int) or (isinstance(value, str) and re.fullmatch(r"\s*-?\d+\s*", value)):
        # not by way of a float, which holds whole numbers only up to 2**53
        number: int | float = int(value)
    else:
        number = float(value)
        if math.isinf(number):
            return None
    if kind == NUMBER:
        return float(number)
    if number != int(number) or not -(2**63) <= number < 2**63:
        raise ValueError
    return int(number)


def snake_case(name: str) -> str:
    """``Clean Accuracy`` as ``clean_accuracy``."""
    words = re.sub(r"[^0-9a-zA-Z]+", "_", name).strip("_").lower()
    return words if words and not words[0].isdigit() else f"column_{words}".rstrip("_")


def unique_name(name: str, taken: set[str]) -> str:
    """``name``, numbered if it is taken; marks it as taken."""
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    taken.add(candidate)
    return candidate
