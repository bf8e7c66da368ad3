"""The pipeline from a dataset file to a committed warehouse.

Three passes: the first reads the source once, writes the filters as Parquet and takes their moments; the basis
follows. The second reads the Parquet files for what needs the basis or the layer's peak; the range of the
histograms follows. The third counts the histograms. Workers take whole segments; what they return merges.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import duckdb
import pyarrow as pa
from threadpoolctl import threadpool_limits

from warehouse import catalog, passes, rollups
from warehouse.errors import LakeError, SourceError
from warehouse.lake import DATABASE, LOCK, Lake, disk_errors, leftovers, lock
from warehouse.metadata import Metadata, tabulate
from warehouse.plan import runs_of, segments_of
from warehouse.rollups import Measurement
from warehouse.source import Source, naming, open_source
from warehouse.statistics import Basis, merge_moments
from warehouse.version import __version__

Progress = Callable[[str, int, int], None]
"""Called with a stage, filters done and filters in all; from any thread, one call at a time."""

T = TypeVar("T")


@dataclass(frozen=True)
class Summary:
    """What an ingest did.

    Attributes
    ----------
    path
        The warehouse's folder.
    filters, layers, models
        How many it holds.
    unclaimed_filters
        Filters that no layer claims; they are kept with NULL as their layer.
    nonfinite_layers
        Layers with NaN or infinite weights; their statistics are NULL.
    seconds
        Time taken.
    bytes
        Size of the committed files.
    leftover_bytes
        Size of files that a replaced warehouse or a broken ingest left behind.
    """

    path: Path
    filters: int
    layers: int
    models: int
    unclaimed_filters: int
    nonfinite_layers: int
    seconds: float
    bytes: int
    leftover_bytes: int

    @property
    def filters_per_second(self) -> float:
        """Rate over the whole ingest."""
        return self.filters / self.seconds


class _Counter:
    """Adds up what the workers have done and reports it, one call at a time."""

    def __init__(self, report: Progress | None, total: int) -> None:
        self._report, self._total, self._guard = report, total, Lock()
        self._stage, self._done = "", 0

    def begin(self, stage: str) -> None:
        self._stage, self._done = stage, 0

    def add(self, n: int) -> None:
        with self._guard:
            self._done += n
            if self._report:
                self._report(self._stage, self._done, self._total)


def ingest(
    source: str | Path,
    target: str | Path,
    *,
    replace: bool = False,
    allow_nonfinite: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Make a warehouse of a dataset file.

    Parameters
    ----------
    source
        ``dataset.h5`` or ``dataset.h5.xz`` in a layout of CNN Filter DB or its relatives.
    target
        The warehouse's folder, to be created.
    replace
        Replace the warehouse at ``target`` if there is one. Until the commit its readers see the old one.
    allow_nonfinite
        Keep layers with NaN or infinite weights, with NULL as their statistics, instead of refusing the file.
    threads
        Worker threads, by default one per core. The result does not depend on their number.
    progress
        Is told the stage, the filters done in it and the filters in all.

    Raises
    ------
    SourceError
        A file that is not what it should be.
    LakeError
        A target that exists, is locked or cannot be written.

    Notes
    -----
    Nothing that exists is changed before the last step, one rename. Memory depends on ``threads``, not on
    the number of filters.
    """
    begin = time.monotonic()
    target = Path(target)
    with (
        _locked_target(target, replace=replace) as lake,
        open_source(source, progress=for_stage(progress, "decompressing")) as opened,
    ):
        with naming(opened.path), threadpool_limits(limits=1, user_api="blas"):
            tables = tabulate(opened.meta(), opened.n_filters)
            pipeline = _Pipeline(opened, tables, lake, threads, progress)
            nonfinite = pipeline.run(allow_nonfinite=allow_nonfinite)
        _commit(lake)
        return Summary(
            path=target,
            filters=opened.n_filters,
            layers=tables.layers.num_rows,
            models=tables.models.num_rows,
            unclaimed_filters=pipeline.n_unclaimed,
            nonfinite_layers=nonfinite,
            seconds=time.monotonic() - begin,
            bytes=sum(file.bytes for file in lake.files) + (target / DATABASE).stat().st_size,
            leftover_bytes=sum(path.stat().st_size for path in leftovers(target, {file.path for file in lake.files})),
        )


def for_stage(progress: Progress | None, stage: str) -> Callable[[int, int], None] | None:
    """What reports one stage of work, done and in all, to ``progress``."""
    return partial(progress, stage) if progress else None


@contextlib.contextmanager
def _locked_target(target: Path, *, replace: bool) -> Iterator[Lake]:
    """Lock the folder for a new state; if anything fails before the commit, remove what was written there."""
    catalog.search_in(target)  # refuses a path below which DuckDB could not read
    with disk_errors(target):
        if target.exists() and not target.is_dir():
            raise LakeError(f"{target} is a file; name a folder for the warehouse")
        is_new = not target.exists() or not any(target.iterdir())
        if not is_new and not (target / DATABASE).exists() and not _is_unfinished(target):
            raise LakeError(f"{target} holds other files and is no warehouse; name a new folder")
        target.mkdir(parents=True, exist_ok=True)
    with lock(target):
        lake = Lake(target)
        try:
            if (target / DATABASE).exists() and not replace:
                raise LakeError(f"{target} is a warehouse already; use --replace to make it anew, or name another")
            yield lake
        except BaseException:
            lake.discard()
            if is_new and not lake.is_committed:
                (target / LOCK).unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    target.rmdir()
            raise


def _is_unfinished(target: Path) -> bool:
    """Whether a folder holds nothing but what a broken ingest leaves behind."""
    return all(path.name in ("lake", LOCK) or path.name.startswith(f"{DATABASE}.") for path in target.iterdir())


def _commit(lake: Lake) -> None:
    """Build the database beside the old one and put it in its place."""
    new = lake.folder / f"{DATABASE}.{uuid.uuid4().hex}.tmp"
    try:
        catalog.build(new, lake.folder, lake.files)
        lake.commit(new)
    finally:
        for path in lake.folder.glob(f"{new.name}*"):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


class _Pipeline:
    """The passes of one ingest, and the tables that come of them."""

    def __init__(
        self, source: Source, tables: Metadata, lake: Lake, threads: int | None, progress: Progress | None
    ) -> None:
        self.source, self.tables, self.lake = source, tables, lake
        self.threads = threads or os.cpu_count() or 1
        columns = ("layer_id", "model_id", "first_filter_id", "n_filters")
        layers = list(zip(*(tables.layers[name].to_pylist() for name in columns), strict=True))
        self.segments = list(segments_of(runs_of(layers, source.n_filters)))
        self.counter = _Counter(progress, source.n_filters)

    @property
    def n_unclaimed(self) -> int:
        """Filters that no layer claims."""
        return self.source.n_filters - int(sum(self.tables.layers["n_filters"].to_pylist()))

    def run(self, *, allow_nonfinite: bool) -> int:
        """Write all files of the lake; returns the number of layers with weights that are not finite."""
        done = self.counter.add
        self.counter.begin("converting")
        work = partial(passes.convert, self.source, self.lake, done=done, allow_nonfinite=allow_nonfinite)
        paths, scans, checksums = zip(*self._map(work, self.segments), strict=True)
        moments = merge_moments(scan.scaled for part in scans for scan in part)
        if moments.n == 0:
            raise SourceError("/filters: every layer has NaN or infinite weights, nothing can be computed")
        basis = Basis.of(moments)

        self.counter.begin("measuring")
        measure = partial(passes.measure, basis=basis, out_channels=self._out_channels(), done=done)
        details = list(self._map(measure, paths, self.segments, scans))
        low = min(detail.low for part in details for detail, _ in part)
        high = max(detail.high for part in details for detail, _ in part)
        if high == low:
            # all filters alike: any width will do, but none would make densities infinite
            high = low + 1

        self.counter.begin("counting")
        count = partial(passes.count, basis=basis, low=low, high=high, done=done)
        counts = list(self._map(count, paths, self.segments, scans))

        runs = [run for segment in self.segments for run in segment.runs]
        measurements = [
            Measurement(run.layer_id, checksum, scan, detail, orthogonality)
            for run, checksum, scan, (detail, orthogonality) in zip(
                runs, chain(*checksums), chain(*scans), chain(*details), strict=True
            )
        ]
        n_nonfinite = sum(not m.scan.is_finite for m in measurements)
        for name, table in vars(self.tables).items():
            self.lake.write_table(name, table)
        for name, table in rollups.basis_tables(basis, moments.n, low, high).items():
            self.lake.write_table(name, table)
        self.lake.write_table("layer_moments", rollups.layer_moments(measurements))
        self.lake.write_table("layer_quality", rollups.layer_quality(measurements))
        self.lake.write_table("layer_checksums", rollups.layer_checksums(measurements))
        self.lake.write_table("peak_edges", rollups.peak_edges())
        self.lake.write_batches("layer_peaks", *rollups.layer_peaks(measurements))
        histograms = rollups.layer_histograms([run.layer_id for run in runs], list(chain(*counts)))
        self.lake.write_batches("layer_histograms", *histograms)
        self.lake.write_table("sources", self._source_table(sum(m.scan.n_nonfinite for m in measurements)))
        return n_nonfinite

    def _map(self, work: Callable[..., T], *arguments: Iterable[Any]) -> Iterator[T]:
        """Results of ``work`` in order; the first error ends all."""
        with ThreadPoolExecutor(self.threads) as pool:
            futures = [pool.submit(work, *each) for each in zip(*arguments, strict=True)]
            try:
                for future in futures:
                    yield future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _out_channels(self) -> dict[int | None, int]:
        """Output channels of the layers whose filters they divide."""
        columns = ("layer_id", "out_channels", "n_filters")
        layers = zip(*(self.tables.layers[name].to_pylist() for name in columns), strict=True)
        return {layer: channels for layer, channels, n in layers if channels and channels > 0 and n % channels == 0}

    def _source_table(self, n_nonfinite: int) -> pa.Table:
        row = self.source.fingerprint() | {
            "dtype": str(self.source.dtype),
            "n_filters": self.source.n_filters,
            "n_unclaimed": self.n_unclaimed,
            "n_nonfinite": n_nonfinite,
            "ingested_at": datetime.now(UTC).replace(microsecond=0, tzinfo=None),
            "warehouse_version": __version__,
            "duckdb_version": duckdb.__version__,
        }
        return pa.Table.from_pylist([row])
