"""The passes from an open dataset file to files of the lake.

Two passes: the first reads the source once, writes the filters as Parquet and measures all that needs no basis; the
basis follows, unless there is one that is kept, and with another look at the few blocks that are likely to hold the
extremes the range of the histograms. The second reads the Parquet files and counts the histograms; should it find what
lies beyond the range, that is widened and all is counted again. Workers take whole segments; what they return merges.
Gets an open source and its tables; hands on a lake that only needs the commit.
"""

from __future__ import annotations

import contextlib
import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import accumulate, chain, groupby, pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import duckdb
import numpy as np
import pyarrow as pa

from warehouse import passes, rollups
from warehouse.coordinates import Basis, Coordinates, estimated_ends
from warehouse.errors import SourceError
from warehouse.filter_file import may_be_cached
from warehouse.joined import Part, joined_fingerprint
from warehouse.journal import Journal
from warehouse.lake import Lake, LakeFile
from warehouse.layer_scan import LayerExtent, Measurement
from warehouse.metadata import Metadata
from warehouse.plan import Run, Segment, runs_of, segments_of
from warehouse.runner import Counter, Done, LocalRunner, Progress, Runner
from warehouse.source import FilterSource
from warehouse.statistics import Float64, merge_moments
from warehouse.version import __version__

T = TypeVar("T")

FIRST_LOOK = 128
"""Blocks to look at for each end of the range before counting: the extremes are most likely among them."""


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


class Block(NamedTuple):
    """Filters of one layer: the file that holds them, the first filter of that, and which they are."""

    path: Path
    first: int
    filters: Run


def promising(lowest: Float64, highest: Float64) -> list[int]:
    """Where to look for the ends of a range: positions of the least and of the greatest of some estimates.

    Of equal ones the first: they are likely to be of copies of one filter.
    """
    ends = (np.unique(estimates, return_index=True)[1][:FIRST_LOOK] for estimates in (lowest, -highest))
    positions: list[int] = np.union1d(*ends).tolist()
    return positions


def range_of(
    blocks: Iterable[Block], basis: Basis, runner: Runner, done: Done, *, is_cached: bool = True
) -> tuple[float, float]:
    """Least and greatest coefficient of any component in blocks.

    Parameters
    ----------
    blocks
        File by file.
    basis
        Gives the coefficients.
    runner
        Applies the function that looks at them.
    done
        Is told of the progress.
    is_cached
        Whether their files may be in the page cache.
    """
    files = [list(group) for _, group in groupby(blocks, key=itemgetter(0, 1))]
    runs = [[block.filters for block in file] for file in files]
    paths, firsts = [file[0].path for file in files], [file[0].first for file in files]
    look = partial(passes.extremes_in, basis=basis, is_cached=is_cached)
    ends = runner.map(tuple[float, float], look, paths, firsts, runs, done=done, waits=not is_cached)
    lows, highs = zip(*ends, strict=True)
    return min(lows), max(highs)


def interleaved(kinds: Iterable[Sequence[int]]) -> list[int]:
    """All pieces of work, those of each kind in their order and evenly spread over the whole."""
    shares = [(i / len(pieces), each) for pieces in kinds for i, each in enumerate(pieces)]
    return [each for _, each in sorted(shares)]


class Pipeline:
    """The passes over one source.

    Parameters
    ----------
    source
        The open dataset.
    parts
        The files of the source, described before anything of them was read: at the end they have to be the same.
    tables
        Its tables, with the ids that they have in the warehouse.
    lake
        Where the files go.
    coordinates
        Basis and range to measure in; None takes those of this source and writes them too.
    journal
        Knows what an earlier run has finished, and is told what this one does.
    name
        Of a source of one file in the table ``sources``, by default the file's.
    runner
        Applies the functions of the stages; threads of this process by default.
    progress
        Is told the stage, the filters done in it and the filters in all.
    """

    def __init__(
        self,
        source: FilterSource,
        parts: Sequence[Part],
        tables: Metadata,
        lake: Lake,
        *,
        coordinates: Coordinates | None = None,
        journal: Journal | None = None,
        name: str | None = None,
        runner: Runner | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.source, self.parts, self.tables, self.lake = source, parts, tables, lake
        self.coordinates, self.journal, self.runner = coordinates, journal or Journal(), runner or LocalRunner()
        self.name = name
        self.fingerprint = joined_fingerprint([part.fingerprint for part in parts])
        columns = ("layer_id", "model_id", "first_filter_id", "n_filters")
        layers = [
            (layer, model, first - lake.first_filter_id, n)
            for layer, model, first, n in zip(*(tables.layers[name].to_pylist() for name in columns), strict=True)
        ]
        self.segments: list[Segment] = []
        # no file of the lake is of two files of the source
        for start, stop in pairwise(accumulate((part.n_filters for part in parts), initial=0)):
            own = layers[bisect_left(layers, start, key=itemgetter(2)) : bisect_left(layers, stop, key=itemgetter(2))]
            self.segments += segments_of(runs_of(own, stop, start))
        self.counter = Counter(progress, source.n_filters)

    @property
    def n_unclaimed(self) -> int:
        """Filters that no layer claims."""
        return self.source.n_filters - int(sum(self.tables.layers["n_filters"].to_pylist()))

    def plan_checksum(self) -> str:
        """SHA-256 of what is measured of which filters: the layers and how they are cut."""
        return hashlib.sha256(repr((self.segments, self._out_channels())).encode()).hexdigest()

    def run(self, *, allow_nonfinite: bool) -> Measured:
        """Write all files of the lake.

        Raises
        ------
        SourceError
            A file that is not what it should be, or that is another one at the end than it was before.
        LakeError
            A file that cannot be written, or is not read back as it was written.
        """
        if self.coordinates:
            converted, coordinates = self._convert(None, allow_nonfinite), self.coordinates
        else:
            trial = passes.trial_basis(self.source)
            converted = self._convert(trial, allow_nonfinite)
            coordinates = self._own_coordinates(trial, converted)
        files = [segment.file for segment in converted]
        extents = [[(m.layer_id, m.extent) for m in segment.measurements] for segment in converted]
        self._write_measurements([m for segment in converted for m in segment.measurements])
        # before the histograms need as much room
        del converted
        finite = [[extent.is_finite for _, extent in segment] for segment in extents]
        counted = self._count(files, finite, coordinates, is_kept=self.coordinates is not None)
        low = min(coordinates.low, *(each.low for each in counted))
        high = max(coordinates.high, *(each.high for each in counted))
        if (low, high) != (coordinates.low, coordinates.high):
            coordinates = Coordinates.spanning(coordinates.basis, coordinates.n, low, high)
            counted = self._count(files, finite, coordinates, is_kept=True)
        tallies = [tally for each in counted for tally in each.tallies]
        if self.source.fingerprint() != self.fingerprint:
            raise SourceError("changed while it was read; run it again when the file is complete")

        for name, table in vars(self.tables).items():
            self.lake.write_table(name, table)
        if not self.coordinates:
            for name, table in rollups.basis_tables(coordinates).items():
                self.lake.write_table(name, table)
            self.lake.write_table("peak_edges", rollups.peak_edges())
        layers = list(chain(*extents))
        histograms = rollups.layer_histograms([layer_id for layer_id, _ in layers], [tally.counts for tally in tallies])
        self.lake.write_batches("layer_histograms", *histograms)
        self.lake.write_table("sources", self._source_table([extent for _, extent in layers], tallies))
        return Measured(sum(not extent.is_finite for _, extent in layers), sum(tally.outside for tally in tallies))

    def _write_measurements(self, measurements: Sequence[Measurement]) -> None:
        self.lake.write_table("layer_moments", rollups.layer_moments(measurements))
        self.lake.write_table("layer_quality", rollups.layer_quality(measurements))
        self.lake.write_table("layer_checksums", rollups.layer_checksums(measurements))
        self.lake.write_batches("layer_peaks", *rollups.layer_peaks(measurements))

    def _convert(self, trial: Basis | None, allow_nonfinite: bool) -> list[passes.Converted]:
        self.counter.begin("converting")
        convert = partial(
            passes.convert,
            self.source,
            self.lake,
            out_channels=self._out_channels(),
            trial=trial,
            allow_nonfinite=allow_nonfinite,
        )
        return self._resumed(
            "converted",
            passes.Converted,
            convert,
            self.segments,
            is_usable=lambda known: self.lake.take(known.file),
            settle=lambda result: self.lake.wait_for(result.file),
        )

    def _resumed(
        self,
        stage: str,
        kind: Any,
        work: Callable[..., T],
        *arguments: Sequence[Any],
        is_usable: Callable[[T], bool] = lambda _: True,
        settle: Callable[[T], None] = lambda _: None,
        order: Sequence[int] | None = None,
        waits: bool = False,
    ) -> list[T]:
        """Results of ``work`` on each segment: those that the journal knows and that are usable, and the others anew.

        A new one is noted once ``settle`` has made sure of what it relies on. ``order`` is that of beginning them.
        """
        noted = ((i, self.journal.get(stage, i, kind)) for i in range(len(self.segments)))
        known: dict[int, T] = {i: result for i, result in noted if result is not None}
        found: dict[int, T] = {}
        # here, where the list of files is
        with contextlib.closing(LocalRunner().map(bool, is_usable, known.values())) as usable:
            for (i, result), is_whole in zip(known.items(), usable, strict=True):
                if is_whole:
                    found[i] = result
                    self.counter.add(self.segments[i].n)
        missing = [i for i in order or range(len(self.segments)) if i not in found]
        todo = [[each[i] for i in missing] for each in arguments]
        # closed at once if the disk fails here, so that no worker goes on behind the error
        with contextlib.closing(self.runner.map(kind, work, *todo, done=self.counter.add, waits=waits)) as results:
            for i, result in zip(missing, results, strict=True):
                settle(result)
                self.journal.put(stage, i, result)
                found[i] = result
        return [found[i] for i in range(len(self.segments))]

    def _count(
        self,
        files: Sequence[LakeFile],
        finite: Sequence[Sequence[bool]],
        coordinates: Coordinates,
        *,
        is_kept: bool,
    ) -> list[passes.Counted]:
        self.counter.begin("counting")
        paths = self._paths(files)
        count = partial(passes.count, coordinates=coordinates, is_kept=is_kept)
        is_cached = may_be_cached([file.bytes for file in files])
        # one kind keeps the processor busy, the other the disk
        order = interleaved([[i for i, cached in enumerate(is_cached) if cached == kind] for kind in (True, False)])
        return self._resumed(
            f"counted from {float(coordinates.low)!r} to {float(coordinates.high)!r}",
            passes.Counted,
            count,
            paths,
            self.segments,
            finite,
            is_cached,
            order=order,
            waits=not all(is_cached),
        )

    def _paths(self, files: Iterable[LakeFile]) -> list[Path]:
        # a worker's working directory may be another
        return [self.lake.folder.absolute() / file.path for file in files]

    def _own_coordinates(self, trial: Basis, converted: Sequence[passes.Converted]) -> Coordinates:
        """Basis and likely range."""
        moments = merge_moments(m.scan.scaled for file in converted for m in file.measurements)
        if moments.n == 0:
            raise SourceError("/filters: every layer has NaN or infinite weights, nothing can be computed")
        basis = Basis.of(moments)
        self.counter.begin("measuring")
        paths = self._paths(each.file for each in converted)
        finite = [
            (path, segment.runs[0].start, run, m.scan.boxes)
            for path, segment, each in zip(paths, self.segments, converted, strict=True)
            for run, m in zip(segment.runs, each.measurements, strict=True)
            if m.extent.is_finite
        ]
        blocks = [Block(path, first, filters) for path, first, run, _ in finite for filters in run.blocks()]
        boxes = np.concatenate([boxes for *_, boxes in finite])
        chosen = [blocks[i] for i in promising(*estimated_ends(boxes, trial, basis))]
        low, high = range_of(chosen, basis, self.runner, self.counter.add)
        if low == high:  # equal filters, which tell nothing of the others
            self.counter.begin("measuring")
            chosen = blocks
            is_cached = all(may_be_cached([each.file.bytes for each in converted]))
            low, high = range_of(chosen, basis, self.runner, self.counter.add, is_cached=is_cached)
        self.counter.add(self.source.n_filters - sum(block.filters.n for block in chosen))
        return Coordinates.spanning(basis, moments.n, low, high)

    def _out_channels(self) -> dict[int | None, int]:
        """Output channels of the layers whose filters they divide."""
        columns = ("layer_id", "out_channels", "n_filters")
        layers = zip(*(self.tables.layers[name].to_pylist() for name in columns), strict=True)
        return {layer: channels for layer, channels, n in layers if channels and channels > 0 and n % channels == 0}

    def _source_table(self, extents: Sequence[LayerExtent], tallies: Sequence[passes.Tally]) -> pa.Table:
        """A row a file, with what was found in its runs."""
        runs = [run for segment in self.segments for run in segment.runs]
        stops = list(accumulate(part.n_filters for part in self.parts))
        of_part = [bisect_right(stops, run.start) for run in runs]

        def added(numbers: Iterable[int]) -> list[int]:
            total = [0] * len(stops)
            for i, number in zip(of_part, numbers, strict=True):
                total[i] += number
            return total

        found = {
            "n_unclaimed": added(run.n if run.layer_id is None else 0 for run in runs),
            "n_nonfinite": added(extent.n_nonfinite for extent in extents),
            "n_outside": added(tally.outside for tally in tallies),
        }
        same = {
            "ingested_at": datetime.now(UTC).replace(microsecond=0, tzinfo=None),
            "warehouse_version": __version__,
            "duckdb_version": duckdb.__version__,
        }
        rows = [
            {
                **part.fingerprint,
                "name": self.name or part.fingerprint["name"],
                "dtype": part.dtype,
                "n_filters": part.n_filters,
                **{name: numbers[i] for name, numbers in found.items()},
                **same,
            }
            for i, part in enumerate(self.parts)
        ]
        return pa.Table.from_pylist(rows)
