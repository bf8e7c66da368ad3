"""How the filters of a source are cut for streaming: runs of layers, segments (files), chunks and blocks.

The cut depends on the layers alone, never on the number of threads, so that sums round alike on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

SEGMENT_FILTERS = 1 << 20
"""A file takes layers of one model up to this many filters; a larger layer has a file of its own. So much is in memory
while it is written, 38 MB a thread."""
CHUNK_FILTERS = 1 << 17
"""Filters read at a time: a row group of a file."""
BLOCK_FILTERS = 1 << 15
"""Filters of one layer that statistics see at a time: 2.3 MB as float64, about a core's cache."""


@dataclass(frozen=True)
class Run:
    """A contiguous range of filters of one layer; ``layer_id`` is None where no layer claims them."""

    layer_id: int | None
    model_id: int | None
    start: int
    stop: int

    @property
    def n(self) -> int:
        """Number of filters."""
        return self.stop - self.start

    def blocks(self) -> Iterator[Run]:
        """Cut into what statistics see at a time."""
        for start in range(self.start, self.stop, BLOCK_FILTERS):
            yield Run(self.layer_id, self.model_id, start, min(start + BLOCK_FILTERS, self.stop))


@dataclass(frozen=True)
class Segment:
    """Whole runs of one model, next to each other: what one file holds and one worker takes."""

    runs: tuple[Run, ...]

    @property
    def model_id(self) -> int | None:
        """The model of all runs."""
        return self.runs[0].model_id

    @property
    def n(self) -> int:
        """Number of filters."""
        return self.runs[-1].stop - self.runs[0].start

    def chunks(self) -> Iterator[list[Run]]:
        """Blocks of one layer each, packed into chunks to read at a time; only a run larger than a chunk is divided."""
        chunk: list[Run] = []
        for run in self.runs:
            if chunk and run.n <= CHUNK_FILTERS < run.stop - chunk[0].start:
                yield chunk
                chunk = []
            for block in run.blocks():
                if chunk and block.stop - chunk[0].start > CHUNK_FILTERS:
                    yield chunk
                    chunk = []
                chunk.append(block)
        yield chunk


def runs_of(layers: Sequence[tuple[int, int, int, int]], stop: int, start: int = 0) -> Iterator[Run]:
    """Runs of all filters from ``start`` to ``stop``.

    Parameters
    ----------
    layers
        (layer_id, model_id, first filter, number of filters), in the order of the filters, not overlapping.
    stop, start
        Where the filters end and begin; what lies between the layers becomes runs without a layer.
    """
    position = start
    for layer_id, model_id, first, n in layers:
        if first > position:
            yield Run(None, None, position, first)
        yield Run(layer_id, model_id, first, first + n)
        position = first + n
    if stop > position:
        yield Run(None, None, position, stop)


def segments_of(runs: Iterator[Run]) -> Iterator[Segment]:
    """Group runs of the same model that lie next to each other."""
    group: list[Run] = []
    for run in runs:
        if group and (run.model_id != group[0].model_id or run.stop - group[0].start > SEGMENT_FILTERS):
            yield Segment(tuple(group))
            group = []
        group.append(run)
    yield Segment(tuple(group))
