"""How pandas lays a frame out in HDF5 through PyTables: the "fixed" and the "table" format.

Gets the group of a frame and hands on its index levels and its columns; which of them a dataset needs is not
decided here. The layouts are those of pandas' ``io/pytables.py``, from its first releases to version 3.
"""

import re
from collections.abc import Iterable

import h5py
import numpy as np

from warehouse import hdf5, heap
from warehouse.errors import SourceError
from warehouse.unpickle import loads

Levels = list[tuple[str | None, np.ndarray]]
Columns = dict[str, np.ndarray]

MAX_COLUMNS = 4096
"""The most columns of a table of layers; real ones have up to 150."""

MAX_CELLS = 1 << 23
"""The most cells of a table of layers; CNN Filter DB has 2.7 million."""

_MAX_LEVELS = 8
_DATETIME = re.compile(r"datetime64(?:\[(s|ms|us|ns)\])?")


def read_fixed(meta: h5py.Group) -> tuple[Levels, Columns]:
    """Read a frame in fixed format: ``axis0`` (columns), ``axis1`` (index) and blocks of equal type.

    Parameters
    ----------
    meta
        The group, whose ``pandas_type`` is ``frame``.

    Returns
    -------
    Levels
        Name (``None`` if pandas had none) and values of every index level; none for an unnamed plain index.
    Columns
        Values of every column, in the order of the frame.

    Raises
    ------
    SourceError
        If a part is missing, damaged or of a kind that is not read.
    """
    columns: Columns = {}
    for block in range(_count(meta, "nblocks")):
        names = _labels(meta, f"block{block}_items")
        node = hdf5.dataset(meta, f"block{block}_values")
        values = _node_values(node)
        if values.ndim == 1:
            values = values.reshape(-1, 1)
        elif not hdf5.attribute(node, "transposed"):
            values = values.T
        _add(columns, names, values, node.name)
    order = _labels(meta, "axis0")
    if set(order) != set(columns):
        raise SourceError(f"{meta.name}/axis0 and the blocks disagree on the columns: the frame is damaged")
    return _fixed_levels(meta), {name: columns[name] for name in order}


def read_table(meta: h5py.Group) -> tuple[Levels, Columns]:
    """Read a frame in table format: the compound dataset ``table``, one field a block or data column.

    Parameters
    ----------
    meta
        The group, whose ``pandas_type`` is ``frame_table``.

    Returns
    -------
    Levels
        Name (``None`` if pandas had none) and values of every level of a multi-index; none for a plain index.
    Columns
        Values of every column.

    Raises
    ------
    SourceError
        If a part is missing, damaged or of a kind that is not read.
    """
    columns = _table_columns(meta)
    levels: Levels = []
    names = hdf5.attribute(meta, "levels")
    for name in map(str, names) if isinstance(names, list) else ():
        if name not in columns:
            raise SourceError(f"{meta.name}/table lacks the index level {name!r} that its attributes name")
        levels.append((None if re.fullmatch(r"level_\d+", name) else name, columns.pop(name)))
    return levels, columns


def _fixed_levels(meta: h5py.Group) -> Levels:
    if hdf5.attribute(meta, "axis1_variety") != "multi":
        node = hdf5.dataset(meta, "axis1")
        name = _name(node)
        return [] if name is None else [(name, _node_values(node))]
    levels: Levels = []
    n_levels = _count(meta, "axis1_nlevels")
    if n_levels > _MAX_LEVELS:
        raise SourceError(f"{meta.name} declares {n_levels:,} index levels; up to {_MAX_LEVELS} are read")
    for level in range(n_levels):
        node = hdf5.dataset(meta, f"axis1_level{level}")
        codes = hdf5.array(hdf5.dataset(meta, f"axis1_label{level}"))
        levels.append((_name(node), _take(_node_values(node), codes, node.name)))
    return levels


def _name(node: h5py.Dataset) -> str | None:
    name = hdf5.attribute(node, "name")
    return None if name is None else str(name)


def _count(meta: h5py.Group, name: str) -> int:
    count = hdf5.attribute(meta, name)
    if not isinstance(count, int):
        raise SourceError(f"{meta.name} lacks the attribute {name!r}: the frame is damaged")
    return count


def _labels(meta: h5py.Group, name: str) -> list[str]:
    if hdf5.attribute(meta, f"{name}_variety") != "regular":
        raise SourceError(f"{meta.name}/{name} has columns of several levels; flatten them before writing")
    return [str(label) for label in _node_values(hdf5.dataset(meta, name)).ravel()]


def _node_values(node: h5py.Dataset) -> np.ndarray:
    """Values of one node of the fixed format, as stored: numbers, booleans, text or a pickle of objects."""
    if "shape" in node.attrs:  # pandas' mark for an empty array, which it stores as one meaningless element
        return np.empty(0)
    if hdf5.attribute(node, "kind") == "category":
        raise SourceError(f"{node.name} is a categorical index; convert it to plain values before writing")
    if hdf5.attribute(node, "PSEUDOATOM") == "object":
        return _objects(node)
    return _typed(hdf5.array(node), hdf5.attribute(node, "value_type"), node.name)


def _objects(node: h5py.Dataset) -> np.ndarray:
    if node.shape != (1,) or not isinstance(node.id.get_type(), h5py.h5t.TypeVlenID):
        raise SourceError(f"{node.name} should hold one pickle and has shape {node.shape}: the frame is damaged")
    pickled = heap.read_value(node)
    try:
        values = loads(pickled)
    except SourceError as error:
        raise SourceError(f"{node.name}: {error}") from error
    if not isinstance(values, np.ndarray) or values.ndim not in {1, 2}:
        raise SourceError(f"{node.name} holds a pickle of something other than a column or a block of columns")
    return values


def _table_columns(meta: h5py.Group) -> Columns:
    table = hdf5.dataset(meta, "table")
    rows = hdf5.array(table)
    if rows.dtype.names is None or rows.ndim != 1:
        raise SourceError(f"{table.name} is not a table: type {rows.dtype}, shape {rows.shape}")
    columns: Columns = {}
    for field in rows.dtype.names:
        if field == "index":
            continue
        names = hdf5.attribute(table, f"{field}_kind")
        if not isinstance(names, list):
            raise SourceError(f"{table.name} does not say which columns its field {field!r} holds")
        where = f"{table.name}[{field!r}]"
        stored = rows[field].reshape(len(rows), -1)
        if hdf5.attribute(table, f"{field}_meta") == "category":
            values = _take(_categories(meta, field), stored, where)
        else:
            values = _typed(stored, hdf5.attribute(table, f"{field}_dtype"), where)
        if stored.dtype.kind == "S" and (missing := _missing_text(meta, field)) is not None:
            values[values == missing] = None
        _add(columns, map(str, names), values, where)
    return columns


def _categories(meta: h5py.Group, field: str) -> np.ndarray:
    """Values of a categorical field, which pandas keeps in a table ``meta/<field>/meta`` of its own."""
    group = meta
    for name in ("meta", field, "meta"):
        group = hdf5.member(group, name)
        if not isinstance(group, h5py.Group):
            raise SourceError(f"{meta.name}/table lacks the categories of its field {field!r}: damaged")
    return _table_columns(group)["values"]


def _missing_text(meta: h5py.Group, field: str) -> str | None:
    """Text that stands for a missing value: noted for each column by pandas 3, before that for the table."""
    own = hdf5.attribute(hdf5.dataset(meta, "table"), f"{field}_nan_rep")
    if own is not None or hdf5.attribute(meta, "data_col_nan_rep"):
        return None if own is None else str(own)
    return str(hdf5.attribute(meta, "nan_rep") or "nan")


def _add(columns: Columns, names: Iterable[str], values: np.ndarray, where: str) -> None:
    """Add the columns of a block of shape (rows, columns)."""
    names = list(names)
    if values.ndim != 2 or values.shape[1] != len(names):
        raise SourceError(f"{where} has shape {values.shape} for {len(names)} columns: the frame is damaged")
    if len(columns) + len(names) > MAX_COLUMNS or (len(columns) + len(names)) * len(values) > MAX_CELLS:
        raise SourceError(f"{where}: more than {MAX_COLUMNS:,} columns or {MAX_CELLS:,} cells: not a table of layers")
    for name, column in zip(names, values.T, strict=True):
        if name in columns:
            raise SourceError(f"{where}: the column {name!r} occurs twice; rename one before writing")
        columns[name] = np.ascontiguousarray(column)


def _take(values: np.ndarray, codes: np.ndarray, where: str) -> np.ndarray:
    """Return ``values[codes]``, where the code -1 is a missing value (NaN, or None for objects)."""
    _check_cells(codes, where)
    if codes.dtype.kind not in "iu" or np.any(codes < -1) or np.any(codes >= len(values)):
        raise SourceError(f"{where} has codes outside its {len(values)} values: the frame is damaged")
    missing = codes < 0
    if not missing.any():
        found: np.ndarray = values[codes]
        return found
    numeric = values.dtype.kind in "iuf"
    taken = np.full(codes.shape, np.nan if numeric else None, float if numeric else object)
    taken[~missing] = values[codes[~missing]]
    return taken


def _typed(values: np.ndarray, stored_as: object, where: str) -> np.ndarray:
    """Give values the type that pandas noted beside them; times become ISO 8601 text (UTC, if zoned)."""
    _check_cells(values, where)
    note = "" if stored_as is None else str(stored_as)
    if values.dtype.kind == "S":
        return _text(values, where)
    time = _DATETIME.fullmatch(note)
    if values.dtype.kind not in "biuf" or (not time and note.startswith(("timedelta", "period", "date"))):
        raise SourceError(f"{where} holds {note[:40] or str(values.dtype)!r}; numbers, text and datetimes are read")
    if time:
        moments = values.astype(np.int64).view(f"M8[{time[1] or 'ns'}]")
        texts = np.datetime_as_string(moments).astype(object)
        texts[np.isnat(moments)] = None
        return texts
    return values.astype(bool) if note == "bool" else values


def _check_cells(values: np.ndarray, where: str) -> None:
    if values.size > MAX_CELLS:
        raise SourceError(f"{where} holds {values.size:,} values, more than {MAX_CELLS:,}: not a table of layers")


def _text(values: np.ndarray, where: str) -> np.ndarray:
    texts = np.empty(values.shape, object)
    try:
        for position, text in enumerate(values.ravel().tolist()):
            texts.flat[position] = text.decode()
    except UnicodeDecodeError as error:
        raise SourceError(f"{where} holds text that is not UTF-8: {error}") from error
    return texts
