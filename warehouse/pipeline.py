"""The passes from an open dataset file to files of the lake.

Three passes: the first reads the source once, writes the filters as Parquet and takes their moments; the basis
follows, unless there is one that is kept. The second reads the Parquet files for what needs the basis or the layer's
peak; the range of the histograms follows. The third counts the histograms. Workers take whole segments; what they
return merges. Gets an open source and its tables; hands on a lake that only needs the commit.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from threading import Lock
from typing import Any, TypeVar

import duckdb
import pyarrow as pa

from warehouse import passes, rollups
from warehouse.errors import SourceError
from warehouse.lake import Lake
from warehouse.metadata import Metadata
from warehouse.plan import Segment, runs_of, segments_of
from warehouse.rollups import Measurement
from warehouse.source import Source
from warehouse.statistics import Basis, Coordinates, LayerScan, merge_moments
from warehouse.version import __version__

Progress = Callable[[str, int, int], None]
"""Called with a stage, filters done and filters in all; from any thread, one call at a time."""

T = TypeVar("T")


class Counter:
    """Adds up what the workers have done and reports it, one call at a time."""

    def __init__(self, report: Progress | None, total: int) -> None:
        self._report, self._total, self._guard = report, total, Lock()
        self._stage, self._done = "", 0

    def begin(self, stage: str) -> None:
        """Start counting a stage."""
        self._stage, self._done = stage, 0

    def add(self, n: int) -> None:
        """Count filters as done."""
        with self._guard:
            self._done += n
            if self._report:
                self._report(self._stage, self._done, self._total)


def for_stage(progress: Progress | None, stage: str) -> Callable[[int, int], None] | None:
    """What reports one stage of work, done and in all, to ``progress``."""
    return partial(progress, stage) if progress else None


def in_parallel(threads: int | None, work: Callable[..., T], *arguments: Iterable[Any]) -> Iterator[T]:
    """Results of ``work`` in order, by default with a thread per core; the first error ends all."""
    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        futures = [pool.submit(work, *each) for each in zip(*arguments, strict=True)]
        try:
            for future in futures:
                yield future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


@dataclass(frozen=True)
class Measured:
    """What the passes found out beside the tables.

    Attributes
    ----------
    nonfinite_layers
        Layers with NaN or infinite weights.
    outside
        Coefficients outside the range of the histograms, counted in the bins at its ends.
    """

    nonfinite_layers: int
    outside: int


class Pipeline:
    """The passes over one source.

    Parameters
    ----------
    source
        The open dataset.
    tables
        Its tables, with the ids that they have in the warehouse.
    lake
        Where the files go.
    coordinates
        Basis and range to measure in; None takes those of this source and writes them too.
    name
        Of the source in the table ``sources``, by default its file's.
    threads
        Worker threads, by default one per core.
    progress
        Is told the stage, the filters done in it and the filters in all.
    """

    def __init__(
        self,
        source: Source,
        tables: Metadata,
        lake: Lake,
        *,
        coordinates: Coordinates | None = None,
        name: str | None = None,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.source, self.tables, self.lake = source, tables, lake
        self.coordinates, self.threads = coordinates, threads
        self.name = name or source.path.name
        columns = ("layer_id", "model_id", "first_filter_id", "n_filters")
        layers = [
            (layer, model, first - lake.first_filter_id, n)
            for layer, model, first, n in zip(*(tables.layers[name].to_pylist() for name in columns), strict=True)
        ]
        self.segments: list[Segment] = list(segments_of(runs_of(layers, source.n_filters)))
        self.counter = Counter(progress, source.n_filters)

    @property
    def n_unclaimed(self) -> int:
        """Filters that no layer claims."""
        return self.source.n_filters - int(sum(self.tables.layers["n_filters"].to_pylist()))

    def run(self, *, allow_nonfinite: bool) -> Measured:
        """Write all files of the lake."""
        done = self.counter.add
        self.counter.begin("converting")
        work = partial(passes.convert, self.source, self.lake, done=done, allow_nonfinite=allow_nonfinite)
        paths, scans, checksums = zip(*in_parallel(self.threads, work, self.segments), strict=True)
        basis = self.coordinates.basis if self.coordinates else self._own_basis(chain(*scans))

        self.counter.begin("measuring")
        measure = partial(passes.measure, basis=basis, out_channels=self._out_channels(), done=done)
        details = list(in_parallel(self.threads, measure, paths, self.segments, scans))
        coordinates = self.coordinates or Coordinates.spanning(
            basis,
            sum(scan.scaled.n for scan in chain(*scans)),
            min(detail.low for detail, _ in chain(*details)),
            max(detail.high for detail, _ in chain(*details)),
        )

        self.counter.begin("counting")
        count = partial(passes.count, coordinates=coordinates, done=done)
        counts = list(in_parallel(self.threads, count, paths, self.segments, scans))

        runs = [run for segment in self.segments for run in segment.runs]
        measurements = [
            Measurement(run.layer_id, checksum, scan, detail, orthogonality)
            for run, checksum, scan, (detail, orthogonality) in zip(
                runs, chain(*checksums), chain(*scans), chain(*details), strict=True
            )
        ]
        measured = Measured(
            sum(not m.scan.is_finite for m in measurements), sum(tally.outside for tally in chain(*counts))
        )
        for name, table in vars(self.tables).items():
            self.lake.write_table(name, table)
        if not self.coordinates:
            for name, table in rollups.basis_tables(coordinates).items():
                self.lake.write_table(name, table)
            self.lake.write_table("peak_edges", rollups.peak_edges())
        self.lake.write_table("layer_moments", rollups.layer_moments(measurements))
        self.lake.write_table("layer_quality", rollups.layer_quality(measurements))
        self.lake.write_table("layer_checksums", rollups.layer_checksums(measurements))
        self.lake.write_batches("layer_peaks", *rollups.layer_peaks(measurements))
        histograms = rollups.layer_histograms(
            [run.layer_id for run in runs], [tally.counts for tally in chain(*counts)]
        )
        self.lake.write_batches("layer_histograms", *histograms)
        self.lake.write_table("sources", self._source_table(measurements, measured))
        return measured

    def _own_basis(self, scans: Iterable[LayerScan]) -> Basis:
        moments = merge_moments(scan.scaled for scan in scans)
        if moments.n == 0:
            raise SourceError("/filters: every layer has NaN or infinite weights, nothing can be computed")
        return Basis.of(moments)

    def _out_channels(self) -> dict[int | None, int]:
        """Output channels of the layers whose filters they divide."""
        columns = ("layer_id", "out_channels", "n_filters")
        layers = zip(*(self.tables.layers[name].to_pylist() for name in columns), strict=True)
        return {layer: channels for layer, channels, n in layers if channels and channels > 0 and n % channels == 0}

    def _source_table(self, measurements: Iterable[Measurement], measured: Measured) -> pa.Table:
        row = self.source.fingerprint() | {
            "name": self.name,
            "dtype": str(self.source.dtype),
            "n_filters": self.source.n_filters,
            "n_unclaimed": self.n_unclaimed,
            "n_nonfinite": sum(m.scan.n_nonfinite for m in measurements),
            "n_outside": measured.outside,
            "ingested_at": datetime.now(UTC).replace(microsecond=0, tzinfo=None),
            "warehouse_version": __version__,
            "duckdb_version": duckdb.__version__,
        }
        return pa.Table.from_pylist([row])
