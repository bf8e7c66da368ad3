"""The lake: immutable Parquet files with unique names, the list of those that belong together, and the lock.

Gets blocks of filters and Arrow tables; hands on the list of written files. Nothing here decides what a
warehouse consists of: only the commit of ``warehouse.duckdb``, which names the files, does.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import itertools
import os
import re
import threading
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from warehouse import sqlfiles
from warehouse.errors import LakeError
from warehouse.plan import Run
from warehouse.sqlfiles import LAKE_PREFIX

DATABASE = "warehouse.duckdb"
LOCK = ".lock"
EXTRACTED = "extracted-"
"""The beginning of the name of a folder for the filters of models while they are ingested; 32 digits follow."""
JOURNAL = "ingest.journal"
WEIGHTS = tuple(f"w{i}" for i in range(9))
FILTER_SCHEMA = pa.schema(
    [
        pa.field("filter_id", pa.int64(), nullable=False),
        pa.field("layer_id", pa.int32()),
        *(pa.field(name, pa.float32(), nullable=False) for name in WEIGHTS),
    ]
)
TABLE_OPTIONS = {"compression": "zstd"}
# weights hardly compress but for their sign and exponent, which byte-stream-split puts next to each other;
# lz4 costs 3 % of space against zstd and half the time
FILTER_OPTIONS = {
    "compression": "lz4",
    "use_dictionary": ["layer_id"],
    "column_encoding": {"filter_id": "DELTA_BINARY_PACKED", **dict.fromkeys(WEIGHTS, "BYTE_STREAM_SPLIT")},
    "write_statistics": ["filter_id", "layer_id"],
}
BUFFER_BYTES = 4 << 20
NO_MODEL = "__HIVE_DEFAULT_PARTITION__"
"""What hive partitions call NULL."""
_WRITTEN = re.compile(
    rf"lake/(filters/model_id=(-?[0-9]{{1,10}}|{NO_MODEL})|(?P<table>(?!filters/)[a-z_]+))/[0-9a-f]{{32}}\.parquet"
)
_UNFINISHED = re.compile(
    rf"{re.escape(DATABASE)}\.[0-9a-f]{{32}}\.tmp.*|{re.escape(JOURNAL)}"
    rf"|{EXTRACTED}[0-9a-f]{{32}}(/([0-9a-f]{{32}}\.h5|\.[0-9a-f]{{32}}\.h5\.[0-9]+\.partial))?",
    re.DOTALL,
)


@dataclass(frozen=True)
class LakeFile:
    """A finished Parquet file: what it holds a part of, its path from the warehouse's folder, size and checksum."""

    name: str
    path: str
    n_rows: int
    bytes: int
    sha256: str


class _HashingFile:
    """A file for Arrow to write to, that sums up its bytes and their SHA-256."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.bytes = 0

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        self.bytes += self._file.write(data)
        return len(data)

    def flush(self) -> None:
        self._file.flush()

    def tell(self) -> int:
        return self.bytes

    def close(self) -> None:
        """Leave the file open: its owner closes it."""

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


class FilterWriter:
    """Writes the filters of one segment, a chunk at a time; its ids begin at that of the source's first filter."""

    def __init__(self, writer: pq.ParquetWriter, first_filter_id: int) -> None:
        self._writer, self._first = writer, first_filter_id

    def write(self, weights: NDArray[np.float32], runs: Sequence[Run]) -> None:
        """Append ``weights (9, n)`` of runs that lie next to each other, as one row group."""
        ids = np.arange(self._first + runs[0].start, self._first + runs[-1].stop, dtype=np.int64)
        layers = np.repeat([-1 if run.layer_id is None else run.layer_id for run in runs], [run.n for run in runs])
        columns = [pa.array(ids), pa.array(layers.astype(np.int32), mask=layers < 0), *map(pa.array, weights)]
        self._writer.write_table(pa.table(columns, schema=FILTER_SCHEMA))


class Lake:
    """Writes files into the folder of a warehouse and keeps their list; safe to use from many threads.

    Attributes
    ----------
    folder
        The warehouse's folder.
    files
        What the next commit names, in no particular order: what is kept of the state before, and what was written.
    first_filter_id
        Of the first filter of the source that is being written.

    Parameters
    ----------
    folder
        The warehouse's folder.
    kept
        Files of the state before that stay.
    """

    def __init__(self, folder: Path, kept: Iterable[LakeFile] = ()) -> None:
        self.folder = folder
        self.files: list[LakeFile] = list(kept)
        self.first_filter_id = 0
        self._begun: set[Path] = set()
        self._committed = -1
        # the disk is slow to confirm: a thread of its own waits for it while the statistics go on
        self._syncer = ThreadPoolExecutor(1)
        self._syncing: dict[str, Future[None]] = {}
        self._guard = threading.Lock()

    def __reduce__(self) -> tuple[Callable[..., Lake], tuple[Path, int]]:
        """What a worker in another process writes with: it returns the files, and `wait_for` takes them up here."""
        return _for_worker, (self.folder.absolute(), self.first_filter_id)

    def write_table(self, name: str, table: pa.Table) -> None:
        """Write a table as one file of ``name``."""
        self.write_batches(name, table.schema, iter([table]))

    def write_batches(self, name: str, schema: pa.Schema, tables: Iterator[pa.Table]) -> None:
        """Write tables, one after the other, as one file of ``name``."""
        with (
            self._new_file(name, f"lake/{name}") as (_, sink),
            _parquet(sink, schema, TABLE_OPTIONS) as writer,
        ):
            for table in tables:
                writer.write_table(table)

    @contextlib.contextmanager
    def write_filters(self, model_id: int | None) -> Iterator[tuple[Path, FilterWriter]]:
        """Open a new file for filters of a model; complete when the context ends."""
        folder = f"lake/filters/model_id={NO_MODEL if model_id is None else model_id}"
        with (
            self._new_file("filters", folder) as (path, sink),
            _parquet(sink, FILTER_SCHEMA, FILTER_OPTIONS) as writer,
        ):
            yield path, FilterWriter(writer, self.first_filter_id)

    @contextlib.contextmanager
    def _new_file(self, name: str, folder: str) -> Iterator[tuple[Path, _HashingFile]]:
        relative = f"{folder}/{uuid.uuid4().hex}.parquet"
        path = self.folder / relative
        with self._guard:
            self._begun.add(path)
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                sink = _HashingFile(file)
                yield path, sink
            n_rows = pq.read_metadata(path).num_rows
        with self._guard:
            self.files.append(LakeFile(name, relative, n_rows, sink.bytes, sink.sha256))
            self._syncing[relative] = self._syncer.submit(_sync_named, path)

    def finished(self, path: Path) -> LakeFile:
        """What is known of a file that was written; on the disk it may not be yet."""
        relative = path.relative_to(self.folder).as_posix()
        with self._guard:
            return next(file for file in reversed(self.files) if file.path == relative)

    def rewrite(self, file: LakeFile, keep: Callable[[pa.Table], pa.Table]) -> None:
        """Put what ``keep`` leaves of a file, a row group at a time, into a new one that takes its place."""
        with pq.ParquetFile(self.folder / file.path) as old:
            groups = (keep(old.read_row_group(i)) for i in range(old.num_row_groups))
            self.write_batches(file.name, old.schema_arrow, groups)
        self.files[self.files.index(file)] = self.files.pop()

    def take(self, file: LakeFile) -> bool:
        """Name a file that an earlier run has finished, if it still is what that wrote."""
        path = self.folder / file.path
        if table_of(file.path) != file.name or not path.is_file() or path.stat().st_size != file.bytes:
            return False
        # what cannot be read is not there either
        with contextlib.suppress(OSError), path.open("rb") as content:
            if hashlib.file_digest(content, "sha256").hexdigest() == file.sha256:
                with self._guard:
                    self._begun.add(path)
                    self.files.append(file)
                return True
        return False

    def wait_for(self, file: LakeFile) -> None:
        """Return when a file that was written is on the disk, and name it if a worker in another process wrote it."""
        with self._guard:
            syncing = self._syncing.get(file.path)
            if syncing is None:
                self._begun.add(self.folder / file.path)
                self.files.append(file)
        if syncing:
            syncing.result()

    def wait_for_disk(self) -> None:
        """Return when every file is on the disk; no more can be written then."""
        self._syncer.shutdown()
        for done in self._syncing.values():
            done.result()

    def commit(self, database: Path) -> None:
        """Make a finished database that of the warehouse: the one step that changes what readers see."""
        self.wait_for_disk()
        with disk_errors(database):
            folders = {parent for file in self.files for parent in Path(file.path).parents}
            for path in [*(self.folder / folder for folder in folders), database]:
                sync(path)
            self._committed = database.stat().st_ino
            database.replace(self.folder / DATABASE)
            sync(self.folder)

    @property
    def is_committed(self) -> bool:
        """Whether the warehouse's database is the one of ``commit``, whatever happened since."""
        database = self.folder / DATABASE
        return database.exists() and database.stat().st_ino == self._committed

    def discard(self, but: Iterable[LakeFile] = ()) -> None:
        """Remove everything written, finished or not, and the folders then empty; once committed, do nothing."""
        if self.is_committed:
            return
        self._syncer.shutdown(cancel_futures=True)
        for path in self._begun - {self.folder / file.path for file in but}:
            path.unlink(missing_ok=True)
        remove_empty_folders(self.folder)


class _WorkerLake(Lake):
    """A lake in a worker's process: a file is on the disk before the worker tells of it."""

    def finished(self, path: Path) -> LakeFile:
        file = super().finished(path)
        self.wait_for(file)
        return file

    @contextlib.contextmanager
    def _new_file(self, name: str, folder: str) -> Iterator[tuple[Path, _HashingFile]]:
        try:
            with super()._new_file(name, folder) as opened:
                yield opened
        except BaseException:
            # nobody else will hear of it
            with contextlib.suppress(OSError):
                self.discard()
            raise


def _for_worker(folder: Path, first_filter_id: int) -> Lake:
    lake = _WorkerLake(folder)
    lake.first_filter_id = first_filter_id
    return lake


@functools.cache
def lake_tables() -> frozenset[str]:
    """The tables whose rows are files of the lake; filters among them, which are a view."""
    used = {name for item in sqlfiles.load("tables", "views") for name in item.uses}
    return frozenset(name.removeprefix(LAKE_PREFIX) for name in used if name.startswith(LAKE_PREFIX))


def table_of(path: str) -> str | None:
    """The table that a file of this path belongs to; None where no lake writes such a path."""
    match = _WRITTEN.fullmatch(path)
    table = (match["table"] or "filters") if match else None
    return table if table in lake_tables() else None


def unnamed(folder: Path, named: Collection[str]) -> Iterator[tuple[str, bool]]:
    """What is in a warehouse's folder and does not belong to the warehouse.

    Parameters
    ----------
    folder
        The folder.
    named
        Paths of the files that belong to it.

    Yields
    ------
    The path of a file, or of a symbolic link whatever its name, and whether it is a leftover: a file that a lake has
    written or a broken ingest or change leaves behind. All others are somebody else's. Links are not followed.
    """
    for parent, folders, files in os.walk(folder):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        for path in sorted(Path(parent, name) for name in [*files, *links]):
            relative = path.relative_to(folder).as_posix()
            if path.is_symlink():
                yield relative, False
            elif relative not in named and relative not in (DATABASE, LOCK):
                yield relative, table_of(relative) is not None or _UNFINISHED.fullmatch(relative) is not None


def is_unfinished(folder: Path) -> bool:
    """Whether a folder holds nothing but what a broken ingest leaves behind."""
    return all(path.name in ("lake", LOCK) or _UNFINISHED.fullmatch(path.name) for path in folder.iterdir())


def leftovers(folder: Path, named: Collection[str]) -> list[Path]:
    """Files of our own that are not among the paths ``named``: what may be removed, and nothing else."""
    return [folder / path for path, is_leftover in unnamed(folder, named) if is_leftover]


def remove_empty_folders(folder: Path) -> None:
    """Remove the empty folders of the lake, and those that an unfinished ingest has made."""
    of_tables = (folder / "lake" / table for table in lake_tables())
    spills = [*folder.glob(f"{DATABASE}.*.tmp.spill"), *folder.glob(f"{EXTRACTED}*")]
    for path in [*folder.glob("lake/filters/model_id=*"), *of_tables, folder / "lake", *spills]:
        with contextlib.suppress(OSError):
            path.rmdir()


@contextlib.contextmanager
def _parquet(sink: _HashingFile, schema: pa.Schema, options: Mapping[str, object]) -> Iterator[pq.ParquetWriter]:
    # Arrow writes in pieces of a page, for each of which a thread would have to wait for Python
    with (
        pa.BufferedOutputStream(pa.PythonFile(sink, mode="w"), BUFFER_BYTES) as buffered,
        pq.ParquetWriter(buffered, schema, **options) as writer,
    ):
        yield writer


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a failing disk into a ``LakeError`` that names the path."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        known = os.strerror(error.errno) if error.errno else str(error)
        reason = "the disk is full; make room and try again" if full else known
        raise LakeError(f"cannot write {path}: {reason}") from error


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the right to write into ``folder``; the system frees it if the process dies."""
    with disk_errors(folder / LOCK):
        file = (folder / LOCK).open("a+")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # its last holder may have removed the file between the two lines above
            if not (folder / LOCK).exists() or os.fstat(file.fileno()).st_ino != (folder / LOCK).stat().st_ino:
                raise BlockingIOError
        except BlockingIOError:
            file.seek(0)
            raise LakeError(
                f"{folder} is being written by another process (process id {file.read().strip() or 'unknown'}); "
                "wait for it to end"
            ) from None
        with disk_errors(folder / LOCK):
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            # so that other machines see it, too
            os.fsync(file.fileno())
        yield
        file.truncate(0)


def make_folder(path: Path) -> None:
    """Make a folder and those above it that are not there, durably."""
    missing = list(itertools.takewhile(lambda folder: not folder.exists(), [path, *path.parents]))
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        sync(folder.parent)


def _sync_named(path: Path) -> None:
    with disk_errors(path):
        sync(path)


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
