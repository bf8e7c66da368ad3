"""Arrow columns of lists to NumPy blocks and back.

DuckDB hands a function one Arrow column an argument, at most 2,048 rows of lists of any length. Rows of
equal length become one matrix, so that a kernel runs once a length and not once a row.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# 1 MB: a kernel's blocks stay in the cache of a core, and its memory stays small however long the lists are.
BLOCK_VALUES = 2**17


@dataclass(frozen=True)
class Lists:
    """One column of lists of numbers.

    Attributes
    ----------
    name
        The name of the argument, for messages.
    values
        The numbers of all rows, one after the other.
    lengths
        ``(rows,)``: how many numbers each row holds; 0 where the row is NULL.
    valid
        ``(rows,)``: False where the row is NULL.
    """

    name: str
    values: Doubles
    lengths: Integers
    valid: Mask

    @classmethod
    def from_arrow(cls, name: str, column: pa.ChunkedArray) -> "Lists":
        """Read a column of DOUBLE lists without copying its numbers.

        Raises
        ------
        ValueError
            If a list holds a NULL, a NaN or an infinity.
        """
        array = _single_chunk(column)
        # Unlike `values`, `flatten` leaves out what lies outside a slice or below a NULL row.
        flat = array.flatten()
        if flat.null_count:
            raise ValueError(f"a list of {name} holds a NULL; filter it out or coalesce it to a number")
        values = flat.to_numpy()
        if not np.isfinite(values).all():
            raise ValueError(f"a list of {name} holds a NaN or an infinity; only finite numbers are accepted")
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy().astype(np.int64)
        return cls(name, values, lengths, _validity(array))

    @cached_property
    def ends(self) -> Integers:
        """``(rows,)``: where each row ends in `values`."""
        return np.cumsum(self.lengths)

    @cached_property
    def starts(self) -> Integers:
        """``(rows,)``: where each row begins in `values`."""
        return self.ends - self.lengths

    def block(self, rows: Integers) -> Doubles:
        """Stack rows of equal length.

        Parameters
        ----------
        rows
            ``(g,)`` ascending row numbers of lists of one length.

        Returns
        -------
        ``(g, length)``: a read-only view where the rows are neighbours, else a copy.
        """
        length = int(self.lengths[rows[0]])
        starts = self.starts[rows]
        if starts[-1] - starts[0] == (len(rows) - 1) * length:
            return self.values[starts[0] : starts[-1] + length].reshape(len(rows), length)
        copied: Doubles = self.values[starts[:, np.newaxis] + np.arange(length)]
        return copied

    def require(self, accepted: Mask, expected: str) -> None:
        """Reject the first list whose length is not accepted.

        Parameters
        ----------
        accepted
            ``(rows,)``: whether the length of the row is a good one. Rows that are NULL are not looked at.
        expected
            What a good length is, to complete "expected ...".

        Raises
        ------
        ValueError
            With the length found and the one expected.
        """
        rejected = np.flatnonzero(self.valid & ~accepted)
        if rejected.size:
            found = self.lengths[rejected[0]]
            raise ValueError(f"a list of {self.name} has length {found}; expected {expected}")


@dataclass(frozen=True)
class Scalars:
    """One column of numbers: ``values`` and ``valid``, both ``(rows,)``; 0 where the row is NULL."""

    name: str
    values: npt.NDArray[Any]
    valid: Mask

    @classmethod
    def from_arrow(cls, name: str, column: pa.ChunkedArray) -> "Scalars":
        """Read a column of numbers."""
        array = _single_chunk(column)
        return cls(name, pc.fill_null(array, 0).to_numpy(), _validity(array))

    def to_arrow(self) -> pa.Array:
        """Return the column, NULL where it was NULL."""
        return pa.array(self.values, mask=~self.valid)

    def require(self, accepted: Mask, expected: str) -> None:
        """Reject the first number that is not accepted; rows that are NULL are not looked at.

        Raises
        ------
        ValueError
            With the number found and what was expected.
        """
        rejected = np.flatnonzero(self.valid & ~accepted)
        if rejected.size:
            raise ValueError(f"{self.name} is {self.values[rejected[0]]}; expected {expected}")


def equal_rows(where: Mask, *keys: Integers, size: Integers) -> Iterator[Integers]:
    """Group rows whose keys are all equal.

    Parameters
    ----------
    where
        ``(rows,)``: the rows to group.
    keys
        ``(rows,)`` each: what has to be equal within a group, usually the length of a list.
    size
        ``(rows,)``: how many numbers a kernel holds a row; groups are cut to stay near `BLOCK_VALUES`.

    Yields
    ------
    Ascending row numbers, at least one.
    """
    rows = np.flatnonzero(where)
    if not rows.size:
        return
    table = np.stack([key[rows] for key in keys])
    order = np.lexsort(table)
    table = table[:, order]
    changes = np.flatnonzero((table[:, 1:] != table[:, :-1]).any(axis=0)) + 1
    for group in np.split(rows[order], changes):
        step = max(1, BLOCK_VALUES // max(1, int(size[group[0]])))
        for start in range(0, len(group), step):
            yield group[start : start + step]


def evaluate(groups: Iterator[Integers], rows: int, kernel: Callable[[Integers], Doubles]) -> pa.Array:
    """Apply a kernel group by group.

    Parameters
    ----------
    groups
        Row numbers, as `equal_rows` yields them.
    rows
        The number of rows of the batch.
    kernel
        Maps ``(g,)`` row numbers to ``(g,)`` results.

    Returns
    -------
    DOUBLE, ``(rows,)``; NULL in the rows that are in no group.
    """
    results = np.zeros(rows)
    missing = np.ones(rows, dtype=np.bool_)
    for group in groups:
        results[group] = kernel(group)
        missing[group] = False
    return pa.array(results, mask=missing)


def scaled(values: Doubles, axis: int | tuple[int, ...]) -> Doubles:
    """Divide by the largest magnitude along the axes, so that no square of it can over- or underflow.

    What is all zero stays so.
    """
    peak = np.abs(values).max(axis=axis, keepdims=True)
    return values / np.where(peak == 0, 1, peak)


def slots(ends: Integers, length: int) -> Integers:
    """``(g, length)``: where lists of one length lie in a flat column, given where they end."""
    return ends[:, np.newaxis] - length + np.arange(length)


def list_array(items: pa.Array, ends: Integers) -> pa.ListArray:
    """Cut a flat column of items into lists, given where each ends."""
    offsets = np.zeros(len(ends) + 1, dtype=np.int32)
    offsets[1:] = ends
    return pa.ListArray.from_arrays(pa.array(offsets), items)


def _single_chunk(column: pa.ChunkedArray) -> pa.Array:
    # `combine_chunks` copies even a single chunk.
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _validity(array: pa.Array) -> Mask:
    valid: Mask = array.is_valid().to_numpy(zero_copy_only=False)
    return valid
