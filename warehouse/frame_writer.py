"""Writes a frame into HDF5 in pandas' fixed layout, without pandas.

Gets an open PyTables file and NumPy arrays; leaves a group that ``pandas.read_hdf`` and the warehouse's own
reader take for a genuine one, down to the attributes: samples and extracted models are made of it.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import tables

Array = npt.NDArray[np.generic]

_PANDAS_LAYOUT_VERSION = "0.15.2"  # what every pandas since 2014 writes, whatever its own version
_LEVEL_KINDS = {"i": "integer", "u": "integer", "f": "float"}
_COLUMN_KINDS = "biufO"


def write_frame(
    file: tables.File, name: str, index: Mapping[str, np.ndarray], columns: Mapping[str, np.ndarray]
) -> None:
    """Write a frame with a multi-index as the group ``/<name>``.

    Parameters
    ----------
    file
        An HDF5 file open for writing that has no node of that name yet.
    name
        The frame's key, such as ``"meta"``.
    index
        The levels from the outermost inwards, each ``(rows,)`` integer or float; NaN is a missing value.
    columns
        The columns from left to right, each ``(rows,)`` boolean, integer, float, text or object. Columns
        of one dtype share a block; text and objects are pickled.

    Raises
    ------
    TypeError
        A level or column of a dtype that the layout has no place for.
    ValueError
        Levels and columns that do not all have the same one-dimensional shape.
    """
    levels = {level: np.asarray(values) for level, values in index.items()}
    blocks = _group_by_dtype(columns)
    shapes = {values.shape for values in [*levels.values(), *(v for b in blocks for v in b.values())]}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        raise ValueError(f"frame {name!r}: levels and columns must be of one length, not {sorted(shapes)}")

    group = file.create_group("/", name)
    _set_attributes(
        group,
        pandas_type="frame",
        pandas_version=_PANDAS_LAYOUT_VERSION,
        encoding="UTF-8",
        errors="strict",
        ndim=2,
        nblocks=len(blocks),
        axis0_variety="regular",
        axis1_variety="multi",
        axis1_nlevels=len(levels),
    )
    _write_names(file, group, "axis0", columns)
    for position, (level, values) in enumerate(levels.items()):
        _write_level(file, group, position, level, values)
    for number, block in enumerate(blocks):
        _set_attributes(group, **{f"block{number}_items_variety": "regular"})
        _write_array(file, group, f"block{number}_values", np.stack(list(block.values())))
        _write_names(file, group, f"block{number}_items", block)


def _group_by_dtype(columns: Mapping[str, np.ndarray]) -> list[dict[str, Array]]:
    """Gather the columns of each dtype, by name of dtype as pandas orders its blocks."""
    blocks: dict[str, dict[str, Array]] = {}
    for column, given in columns.items():
        values = np.asarray(given)
        if values.dtype.kind == "U":
            values = values.astype(object)
        if values.dtype.kind not in _COLUMN_KINDS:
            raise TypeError(f"column {column!r}: dtype {values.dtype} has no place in a fixed-format frame")
        blocks.setdefault(values.dtype.name, {})[column] = values
    return [blocks[dtype] for dtype in sorted(blocks)]


def _write_level(file: tables.File, group: tables.Group, position: int, level: str, values: Array) -> None:
    """Write one index level as its distinct values and, for each row, a code into them; -1 is missing."""
    kind = _LEVEL_KINDS.get(values.dtype.kind)
    if kind is None:
        raise TypeError(f"index level {level!r}: dtype {values.dtype} is neither integer nor float")
    missing = np.isnan(values)
    distinct, present_codes = np.unique(values[~missing], return_inverse=True)
    codes = np.full(values.shape, -1, dtype=_code_dtype(len(distinct)))
    codes[~missing] = present_codes

    node = _write_array(file, group, f"axis1_level{position}", distinct)
    _set_attributes(node, kind=kind, name=level, **{f"axis1_name{level}": level})
    _write_array(file, group, f"axis1_label{position}", codes)


def _code_dtype(n_values: int) -> np.dtype[np.signedinteger]:
    """Return the integer type that pandas gives the codes of a level of ``n_values`` distinct values."""
    for dtype in (np.int8, np.int16, np.int32):
        if n_values < np.iinfo(dtype).max:
            return np.dtype(dtype)
    return np.dtype(np.int64)


def _write_names(file: tables.File, group: tables.Group, key: str, names: Iterable[str]) -> None:
    node = _write_array(file, group, key, np.array([name.encode() for name in names]))
    _set_attributes(node, kind="string", name=None)


def _write_array(file: tables.File, group: tables.Group, key: str, values: Array) -> tables.Leaf:
    """Write an array as pandas does: transposed, objects as one pickled row, empty as a sentinel."""
    is_empty = values.size == 0
    stored = values if is_empty else values.T
    if values.dtype == object:
        node = file.create_vlarray(group, key, tables.ObjectAtom())
        node.append(stored)
    elif is_empty:
        # HDF5 arrays of PyTables have no empty dimensions: the true shape and type stand in the attributes.
        node = file.create_array(group, key, np.zeros((1,) * values.ndim))
        _set_attributes(node, value_type=str(values.dtype), shape=values.shape)
    else:
        node = file.create_array(group, key, stored)
    _set_attributes(node, transposed=not is_empty)
    return node


def _set_attributes(node: tables.Node, **attributes: object) -> None:
    for attribute, value in attributes.items():
        setattr(node._v_attrs, attribute, value)
