"""Reads a finished file of filters, through the system's page cache or past it.

A pass over a lake larger than memory finds little of it in the page cache, and has the system throw out one page for
each that it reads: which costs more time than the disk takes. Gets a path; hands on blocks ``(9, n) float32``.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from warehouse.errors import LakeError
from warehouse.lake import WEIGHTS
from warehouse.thread_memory import thread_memory

PAST_CACHE = getattr(os, "O_DIRECT", 0)
"""The flag that has a file read past the page cache; 0 where the system has none."""
ALIGNMENT = 4096
"""What the memory, position and size of such a read are multiples of: no disk's sectors are larger."""
CACHED_SHARE = 0.5
"""Share of the memory that is taken to hold what was written last."""


class _PastCache:
    """A file for Arrow to read, of which the thread that asked for a part holds that in memory.

    A buffer within that part is valid until the thread asks for another one, of whatever file.
    """

    closed = False

    def __init__(self, path: Path) -> None:
        self._held: tuple[int, NDArray[np.uint8]] = (0, np.empty(0, np.uint8))
        self._position = 0
        self._descriptor = os.open(path, os.O_RDONLY | PAST_CACHE)
        self._size = os.fstat(self._descriptor).st_size

    def hold(self, start: int, stop: int) -> None:
        """Have the bytes from ``start`` to ``stop`` in memory, in place of those before."""
        self._held = (0, np.empty(0, np.uint8))
        self._held = self._read(start, stop, thread_memory("part", _room(start, stop)))

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origins = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}
        self._position = origins[whence] + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, n: int) -> bytes:
        return bytes(self.read_buffer(n).to_pybytes())

    def read_buffer(self, n: int) -> pa.Buffer:
        """The next bytes, as many as there are up to ``n``; Arrow prefers it to `read`, as nothing is copied."""
        start, stop = self._position, min(self._position + n, self._size)
        self._position = stop
        first, found = self._held
        if not (first <= start and stop <= first + found.size):
            first, found = self._read(start, stop, np.empty(_room(start, stop), np.uint8))
        return pa.py_buffer(found[start - first : stop - first])

    def _read(self, start: int, stop: int, memory: NDArray[np.uint8]) -> tuple[int, NDArray[np.uint8]]:
        """Read from ``start`` to ``stop``, and beyond up to multiples of the alignment; tells where it began."""
        first = start - start % ALIGNMENT
        free = memory[-memory.ctypes.data % ALIGNMENT :][: _aligned(stop - first)]
        n = 0
        while n < stop - first:
            n_read = self._read_once(free[n:].data, first + n)
            if n_read == 0:
                raise OSError(errno.EIO, f"ends at byte {first + n:,}: truncated")
            n += n_read
        return first, free[:n]

    def _read_once(self, memory: memoryview, position: int) -> int:
        try:
            return os.preadv(self._descriptor, [memory], position)
        except OSError as error:
            flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
            # a file system that cannot do it may say so only now
            if error.errno != errno.EINVAL or not flags & PAST_CACHE:
                raise
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags & ~PAST_CACHE)
            return os.preadv(self._descriptor, [memory], position)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            os.close(self._descriptor)


def _aligned(n: int) -> int:
    return -(-n // ALIGNMENT) * ALIGNMENT


def _room(start: int, stop: int) -> int:
    """Memory for a part wherever it begins, as its address has to be a multiple of the alignment, too."""
    return _aligned(stop - start) + 2 * ALIGNMENT


class FilterFile:
    """A finished file of filters, to be read by one thread.

    Parameters
    ----------
    path
        The Parquet file.
    start
        ``filter_id`` of its first row; the ids have no gaps.
    is_cached
        Whether it may be in the page cache. One that is not is read past it, where the system can.
    """

    def __init__(self, path: Path, start: int, *, is_cached: bool = True) -> None:
        self.path = path
        with contextlib.ExitStack() as resources:
            self._source = resources.enter_context(contextlib.closing(_opened(path, is_cached=is_cached)))
            # without it Arrow may keep what it has read of a row group for longer than `hold` does
            self._file = resources.enter_context(pq.ParquetFile(self._source, pre_buffer=False))
            self._resources = resources.pop_all()
        sizes = [self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)]
        self._edges = start + np.concatenate([[0], np.cumsum(sizes)])
        self._memory = np.empty(9 * max(sizes, default=0), np.float32)
        self._cached: tuple[int, NDArray[np.float32]] = (-1, np.empty((9, 0), np.float32))

    def __enter__(self) -> FilterFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self._resources.close()

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Weights ``(9, stop - start) float32`` of filters ``start`` to ``stop``, valid until the next call."""
        first = int(np.searchsorted(self._edges, start, side="right")) - 1
        last = int(np.searchsorted(self._edges, stop, side="left"))
        parts = []
        for group in range(first, last):
            low, high = int(self._edges[group]), int(self._edges[group + 1])
            part = self._row_group(group)[:, max(start, low) - low : min(stop, high) - low]
            # the next row group comes into the same memory
            parts.append(part if group + 1 == last else part.copy())
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def _row_group(self, group: int) -> NDArray[np.float32]:
        if self._cached[0] != group:
            if isinstance(self._source, _PastCache):
                self._source.hold(*self._extent(group))
            table = self._file.read_row_group(group, columns=list(WEIGHTS), use_threads=False)
            # written over by the next row group: what `read` gives away is a view
            weights = self._memory[: 9 * table.num_rows].reshape(9, table.num_rows)
            for i, column in enumerate(table.columns):
                weights[i] = column.to_numpy()
            self._cached = (group, weights)
        return self._cached[1]

    def _extent(self, group: int) -> tuple[int, int]:
        """First byte of the weights of a row group, and the one behind them: their columns lie next to each other."""
        described = self._file.metadata.row_group(group)
        columns = [described.column(i) for i in range(described.num_columns)]
        weights = [column for column in columns if column.path_in_schema in WEIGHTS]
        last = weights[-1]
        return weights[0].data_page_offset, last.data_page_offset + last.total_compressed_size


def _opened(path: Path, *, is_cached: bool) -> _PastCache | pa.NativeFile:
    """What Arrow is to read a file from."""
    if PAST_CACHE and not is_cached:
        # of a file system without such reads, or of what another way of opening will tell
        with contextlib.suppress(OSError):
            return _PastCache(path)
    return pa.OSFile(str(path))


@contextlib.contextmanager
def naming_damage(path: Path) -> Iterator[None]:
    """Turn what reading a file of the lake may raise into an error that names it."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        known = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error).splitlines()[0]
        raise LakeError(
            f"{path}: cannot be read: {known}; `warehouse verify` names all damaged files of a warehouse"
        ) from error


def may_be_cached(sizes: Sequence[int]) -> list[bool]:
    """Whether each of these files, with ``sizes`` about in the order of writing, may still be in the page cache."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    written_later = np.cumsum([0, *reversed(sizes)])[-2::-1]
    found: list[bool] = (written_later < CACHED_SHARE * memory).tolist()
    return found
