"""Partial results as bytes and back, without pickle: one row of an Arrow table, in which arrays lose no bit.

Gets values of dataclasses, lists, tuples, arrays, ranges and scalars; hands on bytes that a journal or another process
keeps. Decoding takes the type that is expected, so that bytes never say what is to be made of them.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

VALUE = "value"
"""The column that holds the value."""


def encode(value: Any, told: Mapping[str, str] | None = None) -> bytes:
    """A value as bytes, with what else is ``told`` beside it."""
    table = pa.table({VALUE: pa.array([plain(value)])}, metadata=told)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def decode(kind: Any, content: bytes) -> Any:
    """The value of type ``kind`` that `encode` made bytes of."""
    return restored(kind, table_of(content)[VALUE][0].as_py())


def table_of(content: bytes) -> pa.Table:
    """The table that the bytes are: the column ``VALUE``, and what is told in the schema's metadata."""
    return pa.ipc.open_stream(content).read_all()


def plain(value: Any) -> Any:
    """A value as Arrow can hold it: arrays as their bytes, so that no bit is lost."""
    if is_dataclass(value):
        return {each.name: plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, np.ndarray):
        return {"dtype": value.dtype.str, "shape": list(value.shape), "data": value.tobytes()}
    if isinstance(value, range):
        return [value.start, value.stop]
    return str(value) if isinstance(value, Path) else value


def restored(kind: Any, given: Any) -> Any:
    """The value of type ``kind`` that `plain` made ``given`` of."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return None if given is None else restored(_alternative(parts, given), given)
    if is_dataclass(kind) and isinstance(kind, type):
        hints = typing.get_type_hints(kind)
        return kind(**{each.name: restored(hints[each.name], given[each.name]) for each in fields(kind)})
    if origin is list:
        return [restored(parts[0], each) for each in given]
    if origin is tuple:
        kinds = parts[:1] * len(given) if parts[1:] == (...,) else parts
        return tuple(restored(part, each) for part, each in zip(kinds, given, strict=True))
    if origin is np.ndarray:
        return np.frombuffer(given["data"], given["dtype"]).reshape(given["shape"])
    if kind is range:
        return range(*given)
    return Path(given) if kind is Path else given


def _alternative(kinds: tuple[Any, ...], given: Any) -> Any:
    """That of several types which a value was of: of dataclasses the one with its fields."""
    present = [kind for kind in kinds if kind is not types.NoneType]
    if isinstance(given, dict):
        return next(k for k in present if is_dataclass(k) and {each.name for each in fields(k)} == given.keys())
    return present[0]
