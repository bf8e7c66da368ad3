"""A dataset file in: trained 3x3 filters in pieces, and the table of the layers they belong to.

Gets the path of a ``dataset.h5`` (or ``.h5.xz``) of the CNN Filter DB family and hands on `float32` rows of
shape (n, 9) and a `MetaFrame`. The file is hostile until proven otherwise: nothing that it holds is run.
"""

import hashlib
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import h5py
import numpy as np

from warehouse import chunks, hdf5, virtual, xz
from warehouse.errors import SourceError
from warehouse.frames import MetaFrame, read_frame
from warehouse.legible import encodable

_WEIGHTS = 9
_PIECE = 1 << 15  # filters converted at a time: few enough for the cache, enough to keep calls rare
_SAMPLE = 1 << 16
_N_SAMPLES = 16
_MOST_SAMPLES = 1 << 10  # of all files that a virtual dataset reads, but for two of each
_MOST_OPEN = 8  # reopened files of a process: each may hold two caches of `chunks.CACHE`
# The types whose bytes NumPy reads as they lie in the file.
_RAW_TYPES = (h5py.h5t.IEEE_F16LE, h5py.h5t.IEEE_F32LE, h5py.h5t.IEEE_F64LE)


class FilterSource(Protocol):
    """What the passes read: the filters of one file, or of several as one; the members are those of `Source`.

    It can be pickled: wherever it is unpickled it reads the same files.
    """

    @property
    def path(self) -> Path: ...  # noqa: D102 - as in `Source`
    @property
    def n_filters(self) -> int: ...  # noqa: D102
    @property
    def dtype(self) -> np.dtype[np.floating]: ...  # noqa: D102
    def read(self, start: int, stop: int, out: np.ndarray | None = None) -> np.ndarray: ...  # noqa: D102
    def path_of(self, filter_id: int) -> Path: ...  # noqa: D102
    def fingerprint(self) -> dict[str, str | int]: ...  # noqa: D102


@dataclass(frozen=True)
class SourceFile:
    """A dataset file that was opened once, or written by us, so that any process can open it again.

    Attributes
    ----------
    path
        The file as the user named it.
    unpacked
        The HDF5 file, absolute: the same one, or what it was unpacked to.
    size, modified
        Of the HDF5 file: bytes, and time in whole seconds, which all file systems keep.
    allow_sources
        As in `open_source`, absolute.
    """

    path: Path
    unpacked: Path
    size: int
    modified: int
    allow_sources: tuple[Path, ...] = ()

    @classmethod
    def of(cls, path: Path, unpacked: Path, allow_sources: Iterable[str | os.PathLike[str]] = ()) -> Self:
        """Describe a file as it is now."""
        status = unpacked.stat()
        allowed = tuple(Path(each).absolute() for each in allow_sources)
        return cls(path, unpacked.absolute(), status.st_size, int(status.st_mtime), allowed)

    @property
    def is_packed(self) -> bool:
        """Whether it had to be unpacked."""
        return self.path.absolute() != self.unpacked

    def open(self) -> "Source":
        """Open the file again, or hand over what this process has open of it.

        It is shared by all who ask for it and stays open for those who hold it; `Source.close` does nothing to it.

        Raises
        ------
        SourceError
            It is not here, or not what it was, or what it was unpacked to cannot be seen from here.
        """
        with _reading(self.path):
            if self.is_packed and not self.unpacked.exists():
                raise SourceError(
                    f"what it was unpacked to, {self.unpacked}, cannot be seen from here; unpack it by xz -d, to where "
                    "all workers see it, and ingest that"
                )
            status = self.unpacked.stat()
            if (status.st_size, int(status.st_mtime)) != (self.size, self.modified):
                raise SourceError("changed while it was read; run it again when the file is complete")
        return _open_again(self, status.st_mtime_ns)


@lru_cache(_MOST_OPEN)
def _open_again(file: SourceFile, _modified_ns: int) -> "Source":
    with ExitStack() as resources, _reading(file.path):
        # Not tried in a process that may be lost: HDF5 has survived a file of this size and time, or we wrote it. Other
        # files, which a virtual dataset reads, are tried as ever.
        opened = resources.enter_context(h5py.File(file.unpacked, "r", rdcc_nbytes=chunks.CACHE))
        found = _find_filters(opened, file.unpacked, file.allow_sources)
        source = Source(file, *found, resources)
    # Another thread may read on in what is forgotten here, so that it is closed with its last use.
    weakref.finalize(source, source.keep_open())
    return source


def close_reopened() -> None:
    """Close what `SourceFile.open` opened and nobody holds: an open file cannot be written by HDF5 elsewhere."""
    _open_again.cache_clear()


class Source:
    """A dataset file, open for reading; made by `open_source`, closed by `close` or as a context manager.

    Pickled, it becomes its `SourceFile`, which is opened where it is unpickled.

    Attributes
    ----------
    path
        The file as the user named it.
    file
        What opens it again.
    n_filters
        Number of 3x3 filters.
    dtype
        Type of the weights as stored: float16, float32 or float64.
    n_bytes
        Size of the HDF5 file, unpacked.
    """

    path: Path
    file: SourceFile
    n_filters: int
    dtype: np.dtype[np.floating]
    n_bytes: int

    def __init__(self, file: SourceFile, filters: h5py.Dataset, others: Sequence[Path], resources: ExitStack) -> None:
        self.path = file.path
        self.file = file
        self.n_filters = filters.shape[0]
        self.dtype = filters.dtype
        self.n_bytes = file.size
        self._unpacked = file.unpacked
        self._others = others
        self._filters = filters
        self._lock = threading.Lock()
        self._local = threading.local()
        self._offset = _raw_offset(filters)
        is_packed = not filters.is_virtual and chunks.check_storage(filters)
        self._packed = chunks.PackedDataset(filters) if is_packed else None
        self._descriptor = -1
        if self._offset is not None:
            self._descriptor = os.open(file.unpacked, os.O_RDONLY)
            resources.callback(os.close, self._descriptor)
        self._resources = resources.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[[SourceFile], "Source"], tuple[SourceFile]]:
        return SourceFile.open, (self.file,)

    def close(self) -> None:
        """Close the file and remove what was unpacked for it."""
        self._resources.close()

    def keep_open(self) -> Callable[[], None]:
        """Take from `close` what it would do, and hand it over."""
        return self._resources.pop_all().close

    def meta(self) -> MetaFrame:
        """Read the table of layers.

        Raises
        ------
        SourceError
            If ``/meta`` is missing, of another kind, damaged, or names anything to be run.
        """
        with _reading(self.path), self._lock:
            return read_frame(self._filters.file)

    def read(self, start: int, stop: int, out: np.ndarray | None = None) -> np.ndarray:
        """Read the filters ``start`` to ``stop - 1``; safe to call from several threads at once.

        Parameters
        ----------
        start, stop
            Half-open range of filter ids, within ``0 .. n_filters``.
        out
            Memory for the result; reused, it saves the system from clearing new memory for each call.

        Returns
        -------
        np.ndarray
            Weights ``w0 .. w8``, a filter a row, (stop - start, 9) float32, C-contiguous. A weight beyond the range of
            float32 comes as infinity.

        Raises
        ------
        SourceError
            If the range leaves the dataset or the file does not hold what it declares.
        """
        if not 0 <= start <= stop <= self.n_filters:
            raise SourceError(
                f"{self.path}: filters {start} to {stop} were asked for, the file holds {self.n_filters:,}"
            )
        rows = np.empty((stop - start, _WEIGHTS), np.float32) if out is None else out
        step = _step(self._filters)
        stored = self._scratch(min(step, stop - start))
        # A float64 too large for float32 is the caller's to find, by its value.
        with _reading(self.path), np.errstate(over="ignore", invalid="ignore"):
            first = start
            while first < stop:
                last = min(stop, (first // step + 1) * step)
                piece = stored[: last - first]
                self._fill(piece, first)
                rows[first - start : last - start] = piece.reshape(-1, _WEIGHTS)
                first = last
        return rows

    def path_of(self, filter_id: int) -> Path:  # noqa: ARG002 - all are in one
        """The file that holds a filter."""
        return self.path

    def fingerprint(self) -> dict[str, str | int]:
        """Identify the file, and those that a virtual dataset reads, without reading all of them.

        Returns
        -------
        dict
            ``name`` and ``mtime`` (ISO 8601, UTC) of the file as named; of the file unpacked its ``size``
            (bytes), ``sha256_header`` (first 64 KiB) and ``sha256_samples`` (16 evenly spaced 64 KiB pieces). Each
            other file that it reads counts in the two checksums: its size, time and header in the first, its samples
            in the second, of which there are fewer where there are many files.
        """
        header, samples = hashlib.sha256(), hashlib.sha256()
        files = [self._unpacked, *self._others]
        n_samples = max(2, min(_N_SAMPLES, _MOST_SAMPLES // len(files)))
        with _reading(self.path):
            for path in files:
                beginning, *pieces = _samples(path, n_samples)
                header.update(beginning)
                samples.update(b"".join(pieces))
            for path in self._others:
                status = path.stat()
                header.update(f"{status.st_size} {status.st_mtime_ns}\n".encode())
            size = self._unpacked.stat().st_size
            modified = datetime.fromtimestamp(self.path.stat().st_mtime, UTC)
        return {
            "name": encodable(self.path.name),
            "size": size,
            "mtime": modified.isoformat(),
            "sha256_header": header.hexdigest(),
            "sha256_samples": samples.hexdigest(),
        }

    def _scratch(self, n: int) -> np.ndarray:
        """Memory of this thread for ``n`` filters as stored."""
        rows: np.ndarray | None = getattr(self._local, "rows", None)
        if rows is None or len(rows) < n:
            rows = self._local.rows = np.empty((n, *self._filters.shape[1:]), self.dtype)
        return rows[:n]

    def _fill(self, rows: np.ndarray, first: int) -> None:
        """Fill ``rows`` with filters as stored, from `first` on."""
        if self._offset is None:
            with self._lock:
                if self._packed is None:
                    self._filters.read_direct(rows, np.s_[first : first + len(rows)])
                else:
                    self._packed.fill(rows, first)
            return
        # Reading past HDF5 needs no lock and lets other threads run.
        view = rows.data.cast("B")
        position = self._offset + first * _WEIGHTS * self.dtype.itemsize
        while view:
            n_read = os.preadv(self._descriptor, [view], position)
            if n_read == 0:
                raise SourceError(f"the file ends at byte {position:,}, within {self._filters.name}: truncated")
            view = view[n_read:]
            position += n_read


def open_source(
    path: str | os.PathLike[str],
    *,
    allow_sources: Iterable[str | os.PathLike[str]] = (),
    scratch: Path | None = None,
    progress: xz.Progress | None = None,
) -> Source:
    """Open a dataset file.

    Parameters
    ----------
    path
        An HDF5 file with ``/filters`` (or ``/filter``), of shape (N, 3, 3) or (N, 9), and ``/meta``; or such
        a file packed by ``xz``, whatever its name.
    allow_sources
        Files, and folders of files, from which ``/filters`` may draw if it is a virtual dataset. Without them it may
        map only its own file.
    scratch
        The folder for what a packed file unpacks to; by default the system's folder for temporary files.
    progress
        Called while unpacking with the compressed bytes done and in total.

    Returns
    -------
    Source
        The open file.

    Raises
    ------
    SourceError
        If there is no such file, or it is not a dataset file, or it cannot be unpacked.
    """
    path = Path(path)
    with ExitStack() as resources:
        with _reading(path):
            packed = is_packed(path)
        unpacked = resources.enter_context(xz.unpacked(path, scratch, progress)) if packed else path
        with _reading(path):
            if not h5py.is_hdf5(unpacked):
                raise SourceError("not an HDF5 file; expected dataset.h5 or dataset.h5.xz")
            file = resources.enter_context(hdf5.open_file(unpacked, rdcc_nbytes=chunks.CACHE))
            described = SourceFile.of(path, unpacked, allow_sources)
            return Source(described, *_find_filters(file, unpacked, described.allow_sources), resources)


def require_file(path: Path, expected: str) -> None:
    """Refuse what is no regular file: reading a pipe would wait for ever."""
    if path.is_dir():
        raise SourceError(f"a folder; {expected}")
    if not path.is_file():
        path.stat()  # an error of its own where there is nothing
        raise SourceError(f"not a regular file; {expected}")


def is_packed(path: Path) -> bool:
    """Whether a file is packed by ``xz``."""
    require_file(path, "expected a dataset file (dataset.h5 or dataset.h5.xz)")
    with path.open("rb") as file:
        return file.read(len(xz.MAGIC)) == xz.MAGIC


def _find_filters(
    file: h5py.File, path: Path, allow_sources: Iterable[str | os.PathLike[str]]
) -> tuple[h5py.Dataset, list[Path]]:
    """The dataset of filters, and the other files that it reads if it is a virtual one."""
    name = next((name for name in ("filters", "filter") if hdf5.member(file, name) is not None), None)
    if name is None:
        raise SourceError(f"no /filters dataset; the file holds {sorted(file)[:10]}")
    filters = hdf5.dataset(file, name, virtual=True)
    read = virtual.check(filters, path, allow_sources) if filters.is_virtual else []
    shape: tuple[int, ...] = filters.shape or ()
    if shape[1:] not in {(3, 3), (9,)}:
        raise SourceError(f"/{name} has shape {shape}; expected (N, 3, 3) or (N, 9)")
    if filters.dtype.kind != "f" or filters.dtype.itemsize not in {2, 4, 8}:
        raise SourceError(f"/{name} holds {filters.dtype}; expected float16, float32 or float64")
    if shape[0] == 0:
        raise SourceError(f"/{name} holds no filters")
    return filters, [other for other in read if other != path.resolve()]


def _samples(path: Path, n: int) -> Iterator[bytes]:
    """The beginning of a file, and then ``n`` evenly spaced pieces of it, from its beginning to its end."""
    with path.open("rb") as file:
        yield file.read(_SAMPLE)
        size = path.stat().st_size
        for sample in range(n):
            file.seek(max(0, size - _SAMPLE) * sample // (n - 1))
            yield file.read(_SAMPLE)


def _raw_offset(filters: h5py.Dataset) -> int | None:
    """Return the byte at which the coefficients lie in one piece, or ``None`` if only HDF5 can read them."""
    stored_type = filters.id.get_type()
    if filters.chunks is not None or filters.is_virtual or not any(stored_type.equal(raw) for raw in _RAW_TYPES):
        return None
    offset: int | None = filters.id.get_offset() if hasattr(os, "preadv") else None
    return offset


def _step(filters: h5py.Dataset) -> int:
    """Return the number of filters to convert at a time: whole chunks, so that none is unpacked twice."""
    chunk = filters.chunks[0] if filters.chunks else 1
    return int(chunk * max(1, _PIECE // chunk))


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Make an error of what the file holds name the file, once."""
    try:
        yield
    except SourceError as error:
        named = str(error).startswith(f"{path}: ")
        raise SourceError(str(error) if named else f"{path}: {error}") from error


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Make one line that names the file of whatever goes wrong in reading it."""
    try:
        with naming(path):
            yield
    except FileNotFoundError as error:
        raise SourceError(f"{path}: no such file") from error
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, MemoryError) as error:
        reason = " ".join(str(error).split()).strip("'")
        raise SourceError(f"{path}: cannot be read, damaged or incomplete: {reason}") from error
