"""The table of layers: one row a layer, its index levels and its columns, whatever the file keeps it in.

Gets an open HDF5 file, reads ``/meta`` as a pandas frame or as the text of a CSV file, and hands on a
`MetaFrame`. What its columns mean is for the next module to say.
"""

from dataclasses import dataclass

import h5py
import numpy as np
import polars as pl

from warehouse import hdf5, heap, pytables
from warehouse.errors import SourceError

INDEX_LEVELS = ("model_id", "conv_depth", "conv_depth_norm", "layer_id")
"""The index levels of a dataset in their order; ``layer_id`` occurs in newer files only."""


_MAX_NAME = 1000


@dataclass(frozen=True, eq=False)
class MetaFrame:
    """The table of layers as the file holds it, no value changed.

    Attributes
    ----------
    index
        Level name to values of shape (rows,). ``model_id`` and ``conv_depth`` are always there.
    columns
        Column name to values of shape (rows,): a numeric or boolean dtype, or objects that are ``str``,
        ``int``, ``float``, ``bool``, ``None`` or lists of these. ``filter_ids`` is always there. Missing
        is NaN, or among objects NaN or None.
    """

    index: dict[str, np.ndarray]
    columns: dict[str, np.ndarray]

    @property
    def n_rows(self) -> int:
        """Number of layers."""
        return len(self.index["model_id"])


def read_frame(root: h5py.Group) -> MetaFrame:
    """Read ``/meta``.

    Parameters
    ----------
    root
        The open file.

    Returns
    -------
    MetaFrame
        The layers in the order of the file.

    Raises
    ------
    SourceError
        If ``/meta`` is missing, of another kind, damaged, or lacks what every dataset has.
    """
    meta = hdf5.member(root, "meta")
    if meta is None:
        raise SourceError(f"no /meta, the table of layers; the file holds {sorted(root)[:10]}")
    if isinstance(meta, h5py.Dataset):
        return _frame([], parse_csv(_csv_bytes(hdf5.dataset(root, "meta"))))
    kind = hdf5.attribute(meta, "pandas_type")
    if kind == "frame":
        return _frame(*pytables.read_fixed(meta))
    if kind == "frame_table":
        return _frame(*pytables.read_table(meta))
    raise SourceError(f"/meta is not a pandas DataFrame or a CSV text: pandas_type is {kind!r}")


def parse_csv(data: bytes) -> dict[str, np.ndarray]:
    """Parse the UTF-8 text of a CSV file with a header line.

    Parameters
    ----------
    data
        The text, optionally with a byte order mark and with NUL bytes as padding.

    Returns
    -------
    dict
        Column name to values of shape (rows,): int64, float64 (empty cells are NaN) or bool where every cell
        reads as one, else objects that are ``str``, or None for empty cells.

    Raises
    ------
    SourceError
        If the text is not UTF-8 or not a table.
    """
    n_columns = data.partition(b"\n")[0].count(b",") + 1
    n_cells = n_columns * data.count(b"\n")
    if n_columns > pytables.MAX_COLUMNS or n_cells > pytables.MAX_CELLS or len(data) > heap.MAX_BYTES:
        raise SourceError(f"/meta is a text of {len(data):,} bytes and {n_cells:,} cells: not a table of layers")
    try:
        text = data.rstrip(b"\0").decode("utf-8-sig")
        table = pl.read_csv(text.encode(), infer_schema=False)
    except (UnicodeDecodeError, pl.exceptions.PolarsError) as error:
        raise SourceError(f"/meta is no CSV text in UTF-8: {str(error).splitlines()[0]}") from error
    return {column.name: _typed_cells(column) for column in table}


def _typed_cells(texts: pl.Series) -> np.ndarray:
    texts = texts.replace("", None)
    n_empty = texts.null_count()
    if n_empty < len(texts):
        if n_empty == 0 and texts.is_in(["True", "False"]).all():
            return (texts == "True").to_numpy(writable=True)
        for dtype in (pl.Int64, pl.Float64) if n_empty == 0 else (pl.Float64,):
            numbers = texts.cast(dtype, strict=False)
            if numbers.null_count() == n_empty:
                return numbers.to_numpy(writable=True)
    cells = np.empty(len(texts), object)
    cells[:] = texts.to_list()
    return cells


def _csv_bytes(meta: h5py.Dataset) -> bytes:
    if meta.dtype == object and meta.size == 1:
        return heap.read_value(meta)
    stored = hdf5.array(meta)
    if stored.dtype.kind in "SV" or stored.dtype in (np.uint8, np.int8):
        return stored.tobytes()
    raise SourceError(
        f"/meta is an array of {stored.dtype} with shape {meta.shape}, "
        "neither a pandas DataFrame nor the bytes of a CSV text"
    )


def _frame(levels: pytables.Levels, columns: pytables.Columns) -> MetaFrame:
    """Fetch the index levels that are stored as columns, and check what all datasets share."""
    index = _named(levels)
    for name in INDEX_LEVELS:
        if name not in index and name in columns:
            index[name] = columns.pop(name)
    for name, found in (("model_id", index), ("conv_depth", index), ("filter_ids", columns)):
        if name not in found:
            raise SourceError(
                f"/meta has no {name}; its index levels are {list(index)}, its columns {list(columns)[:12]}"
            )
    frame = MetaFrame(index, columns)
    if frame.n_rows == 0:
        raise SourceError("/meta has no rows")
    for name, values in (index | columns).items():
        if len(name) > _MAX_NAME:
            raise SourceError(f"/meta has a column whose name has {len(name):,} characters; up to {_MAX_NAME} are read")
        if len(values) != frame.n_rows:
            raise SourceError(f"/meta is damaged: {name!r} has {len(values)} rows, model_id {frame.n_rows}")
    return frame


def _named(levels: pytables.Levels) -> dict[str, np.ndarray]:
    """Name the levels that pandas left unnamed by their position."""
    index: dict[str, np.ndarray] = {}
    for position, (name, values) in enumerate(levels):
        if name is None and position < len(INDEX_LEVELS):
            name = INDEX_LEVELS[position]
        if name is None or name in index:
            raise SourceError(f"/meta has {len(levels)} index levels; number {position + 1} is named {name!r}")
        index[name] = values
    return index
