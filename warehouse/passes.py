"""The three passes over the filters of one segment; any worker can do any segment.

The first reads the source, writes the segment's file and scans its layers. The second and third read that
file. Each returns one partial result per run of the segment, in order.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from warehouse.errors import SourceError
from warehouse.lake import FilterFile, Lake
from warehouse.plan import BLOCK_FILTERS, Run, Segment
from warehouse.source import Source
from warehouse.statistics import (
    BINS,
    SIZE,
    Basis,
    Coordinates,
    Counts,
    LayerDetail,
    LayerScan,
    Workspace,
    extremes,
    histogram,
    orthogonality,
    peaks,
)

PANEL_BYTES = 32 << 20
"""Memory for the output channels that orthogonality holds at a time, and for their products."""

Done = Callable[[int], None]
"""Is told how many filters were worked off."""


def convert(
    source: Source, lake: Lake, segment: Segment, done: Done, *, allow_nonfinite: bool
) -> tuple[Path, list[LayerScan], list[str]]:
    """Write the segment's filters as a file of the lake, scan its layers and take their checksums.

    Returns
    -------
    The file's path; of each run its scan and the SHA-256, in hexadecimal digits, of its weights as little-endian
    float32, filter by filter, each row by row.

    Raises
    ------
    SourceError
        A NaN or infinite weight, unless these are allowed; names the filter and its layer.
    """
    scans = {run.layer_id: LayerScan() for run in segment.runs}
    hashes = {run.layer_id: hashlib.sha256() for run in segment.runs}
    work = Workspace()
    with lake.write_filters(segment.model_id) as (path, writer):
        for chunk in segment.chunks():
            start = chunk[0].start
            n = chunk[-1].stop - start
            weights = source.read(start, chunk[-1].stop, out=work.matrix("weights", n, np.float32))
            for run in chunk:
                block = weights[:, run.start - start : run.stop - start]
                scan = LayerScan.of(block, work)
                if scan.n_nonfinite and not allow_nonfinite:
                    raise SourceError(_nonfinite(run, block))
                scans[run.layer_id] = scans[run.layer_id].merge(scan)
                rows = work.matrix("rows", run.n, "<f4").reshape(run.n, SIZE)
                np.copyto(rows, block.T)
                hashes[run.layer_id].update(rows.data)
            writer.write(weights, chunk)
            done(n)
    return path, list(scans.values()), [each.hexdigest() for each in hashes.values()]


def _nonfinite(run: Run, block: NDArray[np.float32]) -> str:
    first = run.start + int(np.flatnonzero(~np.isfinite(peaks(block)))[0])
    owner = "that no layer claims" if run.layer_id is None else f"of layer_id {run.layer_id}, model_id {run.model_id},"
    return (
        f"/filters: filter {first} {owner} has a NaN or infinite weight; repair the file, or use --allow-nonfinite "
        "to keep such layers with NULL statistics"
    )


def measure(
    path: Path,
    segment: Segment,
    scans: Sequence[LayerScan],
    basis: Basis,
    out_channels: Mapping[int | None, int],
    done: Done,
) -> list[tuple[LayerDetail, float | None]]:
    """Detail and orthogonality of each run; empty where weights are not finite."""
    scan_of = {run.layer_id: scan for run, scan in zip(segment.runs, scans, strict=True)}
    details = {run.layer_id: LayerDetail() for run in segment.runs}
    orthogonalities: dict[int | None, float | None] = {}
    run_of = {run.layer_id: run for run in segment.runs}
    work = Workspace(BLOCK_FILTERS)
    with FilterFile(path, segment.runs[0].start) as file:
        for chunk in segment.chunks():
            for block in chunk:
                layer, scan = block.layer_id, scan_of[block.layer_id]
                if scan.is_finite:
                    weights = file.read(block.start, block.stop)
                    details[layer] = details[layer].merge(LayerDetail.of(weights, scan, basis, work))
                    # at the layer's end: a layer of one chunk is then still in memory
                    if block.stop == run_of[layer].stop and layer in out_channels:
                        orthogonalities[layer] = _orthogonality(file, run_of[layer], out_channels[layer])
                done(block.n)
    return [(detail, orthogonalities.get(layer)) for layer, detail in details.items()]


def _orthogonality(file: FilterFile, run: Run, channels: int) -> float | None:
    per_channel = run.n // channels

    def rows(first: int, last: int) -> NDArray[np.float64]:
        weights = file.read(run.start + first * per_channel, run.start + last * per_channel)
        return weights.T.reshape(last - first, per_channel * SIZE).astype(np.float64)

    panel = min(PANEL_BYTES // (per_channel * SIZE * 8), math.isqrt(PANEL_BYTES // 8))
    return orthogonality(rows, channels, max(1, panel))


@dataclass(frozen=True)
class Tally:
    """The histograms of a run: the bins that are not empty, and how many coefficients lie outside the range."""

    counts: Counts
    outside: int


def count(
    path: Path, segment: Segment, scans: Sequence[LayerScan], coordinates: Coordinates, done: Done
) -> list[Tally]:
    """Histograms of each run; empty where weights are not finite."""
    finite = {run.layer_id: scan.is_finite for run, scan in zip(segment.runs, scans, strict=True)}
    counts = {run.layer_id: np.zeros((SIZE, BINS), dtype=np.int64) for run in segment.runs}
    outside = dict.fromkeys(counts, 0)
    work = Workspace(BLOCK_FILTERS)
    with FilterFile(path, segment.runs[0].start) as file:
        for chunk in segment.chunks():
            for block in chunk:
                layer = block.layer_id
                if finite[layer]:
                    found, beyond = histogram(file.read(block.start, block.stop), coordinates, work)
                    counts[layer] += found
                    outside[layer] += beyond
                done(block.n)
    return [Tally(Counts.of(found), outside[layer]) for layer, found in counts.items()]


def coefficient_range(
    path: Path, segment: Segment, scans: Sequence[LayerScan], basis: Basis, done: Done
) -> tuple[float, float]:
    """Least and greatest coefficient of any component over the runs whose weights are finite."""
    finite = {run.layer_id: scan.is_finite for run, scan in zip(segment.runs, scans, strict=True)}
    low, high = math.inf, -math.inf
    work = Workspace(BLOCK_FILTERS)
    with FilterFile(path, segment.runs[0].start) as file:
        for chunk in segment.chunks():
            for block in chunk:
                if finite[block.layer_id]:
                    lowest, highest = extremes(file.read(block.start, block.stop), basis, work)
                    low, high = min(low, lowest), max(high, highest)
                done(block.n)
    return low, high
