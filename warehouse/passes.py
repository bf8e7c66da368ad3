"""The two passes over the filters of one segment; any worker can do any segment.

The first reads the source, writes the segment's file and measures its layers. The second reads that file and counts
histograms. Each returns one partial result per run of the segment, in order.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from warehouse.coordinates import BINS, EDGE_ROUNDING, Basis, Coordinates, extremes, histogram
from warehouse.errors import LakeError, SourceError
from warehouse.filter_file import FilterFile, naming_damage
from warehouse.lake import Lake, LakeFile
from warehouse.layer_scan import LayerExtent, LayerScan, Measurement
from warehouse.plan import CHUNK_FILTERS, SEGMENT_FILTERS, Run, Segment
from warehouse.runner import Done
from warehouse.source import FilterSource
from warehouse.statistics import SIZE, Counts, orthogonality, peaks
from warehouse.thread_memory import thread_memory

PANEL_BYTES = 16 << 20
"""Memory for the output channels that orthogonality holds at a time, and for their products."""
TRIAL_PIECES = 1024
TRIAL_FILTERS = 128
"""A trial basis is that of so many evenly spaced pieces of so many filters: 13 MB of them."""

Read = Callable[[int, int], NDArray[np.float32]]
"""Gives the weights ``(9, n)`` of the filters between two ids, valid until the next call."""


def trial_basis(source: FilterSource) -> Basis:
    """A basis close to that of all filters, from a sample of them; filters that are not finite are left out."""
    size = min(TRIAL_FILTERS, source.n_filters)
    starts = np.unique(np.linspace(0, source.n_filters - size, TRIAL_PIECES).astype(np.int64))
    weights = np.concatenate([source.read(start, start + size) for start in starts.tolist()]).T
    finite = weights[:, np.isfinite(peaks(weights))]
    return Basis.of(LayerScan.of(finite, LayerExtent.of(finite)).scaled)


@dataclass(frozen=True)
class Converted:
    """A segment whose file is written: the file, and what was measured of its runs."""

    file: LakeFile
    measurements: list[Measurement]


def convert(
    source: FilterSource,
    lake: Lake,
    segment: Segment,
    out_channels: Mapping[int | None, int],
    trial: Basis | None,
    done: Done,
    *,
    allow_nonfinite: bool,
) -> Converted:
    """Write the segment's filters as a file of the lake and measure its runs.

    Parameters
    ----------
    source, lake, segment
        What to read, where to write, and which filters.
    out_channels
        Number of output channels of the layers that have a known one.
    trial
        The basis to box blocks in; None where the range is known.
    done
        Is told of the progress.
    allow_nonfinite
        Take weights that are not finite, without measuring their run.

    Raises
    ------
    SourceError
        A NaN or infinite weight, unless these are allowed; names the filter and its layer.
    """
    extents = {run.layer_id: LayerExtent() for run in segment.runs}
    hashes = {run.layer_id: hashlib.sha256() for run in segment.runs}
    measured: dict[int | None, tuple[LayerScan, float | None]] = {}
    is_held = segment.n <= SEGMENT_FILTERS
    held = _memory_for("weights", segment.n if is_held else CHUNK_FILTERS)

    def measure(run: Run, read: Read) -> None:
        extent = extents[run.layer_id]
        scan = scan_layer(run, read, extent, trial)
        channels = out_channels.get(run.layer_id) if extent.is_finite else None
        measured[run.layer_id] = scan, channel_orthogonality(run, read, channels) if channels else None

    with lake.write_filters(segment.model_id) as (path, writer):
        for chunk in segment.chunks():
            start, stop = chunk[0].start, chunk[-1].stop
            n = stop - start
            first = segment.runs[0].start if is_held else start
            weights, rows = held[:, start - first : stop - first], _memory_for("rows", n).reshape(n, SIZE)
            source.read(start, stop, out=rows)
            for block in chunk:
                inside = slice(block.start - start, block.stop - start)
                np.copyto(weights[:, inside], rows[inside].T)
                extent = LayerExtent.of(weights[:, inside])
                if extent.n_nonfinite and not allow_nonfinite:
                    raise SourceError(f"{source.path_of(block.start)}: {_nonfinite(block, weights[:, inside])}")
                extents[block.layer_id] = extents[block.layer_id].merge(extent)
                hashes[block.layer_id].update(rows[inside].astype("<f4", copy=False).data)
            writer.write(weights, chunk)
            for run in segment.runs:
                if first <= run.start and start < run.stop <= stop:
                    measure(run, lambda begin, end: held[:, begin - first : end - first])  # noqa: B023
            done(n)
    divided = [run for run in segment.runs if run.layer_id not in measured]
    if divided:
        with naming_damage(path), FilterFile(path, segment.runs[0].start) as file:
            for run in divided:
                measure(run, partial(_read_measured, file))
    return Converted(
        lake.finished(path),
        [
            Measurement(run.layer_id, hashes[run.layer_id].hexdigest(), extents[run.layer_id], *measured[run.layer_id])
            for run in segment.runs
        ],
    )


def _memory_for(name: str, n: int) -> NDArray[np.float32]:
    """Memory of this thread for the weights ``(9, n)`` of filters."""
    itemsize = np.dtype(np.float32).itemsize
    return thread_memory(name, SIZE * n * itemsize).view(np.float32).reshape(SIZE, n)


def _nonfinite(block: Run, weights: NDArray[np.float32]) -> str:
    first = block.start + int(np.flatnonzero(~np.isfinite(peaks(weights)))[0])
    owner = f"of layer_id {block.layer_id}, model_id {block.model_id},"
    return (
        f"/filters: filter {first} {'that no layer claims' if block.layer_id is None else owner} has a NaN or infinite "
        "weight, or one beyond float32 (3.4e38); repair the file, or use --allow-nonfinite to keep such layers with "
        "NULL statistics"
    )


def scan_layer(run: Run, read: Read, extent: LayerExtent, trial: Basis | None) -> LayerScan:
    """Scan of a run's filters; empty where weights are not finite."""
    scan = LayerScan()
    if extent.is_finite:
        for block in run.blocks():
            scan = scan.merge(LayerScan.of(read(block.start, block.stop), extent, trial))
    return scan


def channel_orthogonality(run: Run, read: Read, channels: int) -> float | None:
    """Orthogonality of the output channels among which a run's filters are divided."""
    per_channel = run.n // channels

    def rows(first: int, last: int) -> NDArray[np.float64]:
        weights = read(run.start + first * per_channel, run.start + last * per_channel)
        return weights.T.reshape(last - first, per_channel * SIZE).astype(np.float64)

    panel = min(PANEL_BYTES // (per_channel * SIZE * 8), math.isqrt(PANEL_BYTES // 8))
    return orthogonality(rows, channels, max(1, panel))


def _read_measured(file: FilterFile, start: int, stop: int) -> NDArray[np.float32]:
    """Read weights that were finite when they were measured: at a NaN the kernels would write anywhere in memory."""
    weights = file.read(start, stop)
    if not LayerExtent.of(weights).is_finite:
        raise LakeError(
            f"{file.path}: filters {start} to {stop - 1} were finite and are not any more: damaged; "
            "`warehouse verify` names all damaged files of a warehouse"
        )
    return weights


def finite_runs(path: Path, segment: Segment, unmeasured: Collection[int]) -> list[bool]:
    """Whether each run has statistics: a layer unless it is ``unmeasured``, others if their weights are finite."""

    def is_finite(run: Run) -> bool:
        if run.layer_id is not None:
            return run.layer_id not in unmeasured
        with naming_damage(path), FilterFile(path, segment.runs[0].start) as file:
            return all(LayerExtent.of(file.read(block.start, block.stop)).is_finite for block in run.blocks())

    return [is_finite(run) for run in segment.runs]


def extremes_in(
    path: Path, first: int, blocks: Iterable[Run], basis: Basis, done: Done, *, is_cached: bool
) -> tuple[float, float]:
    """Least and greatest coefficient of any component in blocks of a file whose first filter is ``first``."""
    low, high = math.inf, -math.inf
    with naming_damage(path), FilterFile(path, first, is_cached=is_cached) as file:
        for block in blocks:
            lowest, highest = extremes(_read_measured(file, block.start, block.stop), basis)
            low, high = min(low, lowest), max(high, highest)
            done(block.n)
    return low, high


@dataclass(frozen=True)
class Tally:
    """The histograms of a run: the bins that are not empty, and how many coefficients lie outside of a kept range."""

    counts: Counts = field(default_factory=Counts)
    outside: int = 0


@dataclass(frozen=True)
class Counted:
    """The tallies of a segment's runs, and the least and greatest coefficient in the blocks that were looked at."""

    tallies: list[Tally]
    low: float = math.inf
    high: float = -math.inf


def count(
    path: Path,
    segment: Segment,
    finite: Sequence[bool],
    is_cached: bool,
    coordinates: Coordinates,
    done: Done,
    *,
    is_kept: bool,
) -> Counted:
    """Histograms of each run, empty where weights are not finite.

    Parameters
    ----------
    path, segment
        What to count.
    finite
        Whether each run has statistics.
    is_cached
        Whether the file may be in the page cache.
    coordinates, done
        Basis and range; is told of the progress.
    is_kept
        Whether the range stays as it is, so that what lies outside is counted as such. Otherwise the blocks that hold
        coefficients at its ends or beyond are looked at.
    """
    margin = EDGE_ROUNDING if is_kept else -EDGE_ROUNDING
    tallies, low, high = [], math.inf, -math.inf
    with naming_damage(path), FilterFile(path, segment.runs[0].start, is_cached=is_cached) as file:
        for run, is_finite in zip(segment.runs, finite, strict=True):
            counts, outside = np.zeros((SIZE, BINS), np.int64), 0
            for block in run.blocks() if is_finite else ():
                weights = _read_measured(file, block.start, block.stop)
                found, beyond = histogram(weights, coordinates, margin)
                counts += found
                if is_kept:
                    outside += beyond
                elif beyond:
                    lowest, highest = extremes(weights, coordinates.basis)
                    low, high = min(low, lowest), max(high, highest)
            tallies.append(Tally(Counts.of(counts), outside))
            done(run.n)
    return Counted(tallies, low, high)
