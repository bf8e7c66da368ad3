"""The cut of a dataset into runs, segments, chunks and blocks."""

from itertools import pairwise
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warehouse import plan
from warehouse.plan import BLOCK_FILTERS, CHUNK_FILTERS, SEGMENT_FILTERS, Run, Segment, runs_of, segments_of

Layers = list[tuple[int, int, int, int]]


@st.composite
def datasets(draw: st.DrawFn) -> tuple[Layers, int]:
    """Layers with and without gaps between them, and the number of filters."""
    layers: Layers = []
    position = 0
    for layer_id in range(draw(st.integers(0, 12))):
        position += draw(st.sampled_from([0, 0, 0, 1, 7]))
        n = draw(st.integers(1, 120))
        layers.append((layer_id, draw(st.integers(0, 2)), position, n))
        position += n
    return layers, max(1, position + draw(st.sampled_from([0, 0, 1, 150])))


def filters_of(runs: list[Run]) -> list[int]:
    return [filter_id for run in runs for filter_id in range(run.start, run.stop)]


@given(datasets())
def test_runs_cover_every_filter_once_and_say_which_no_layer_claims(dataset: tuple[Layers, int]) -> None:
    layers, n_filters = dataset
    runs = list(runs_of(layers, n_filters))
    assert filters_of(runs) == list(range(n_filters))
    claimed = [(run.layer_id, run.model_id, run.start, run.n) for run in runs if run.layer_id is not None]
    assert claimed == layers
    assert all(run.model_id is None and run.n > 0 for run in runs if run.layer_id is None)
    assert sum(run.n for run in runs if run.layer_id is None) == n_filters - sum(n for *_, n in layers)


@given(datasets(), st.integers(1, 200))
def test_segments_hold_whole_runs_of_one_model_up_to_the_limit(dataset: tuple[Layers, int], limit: int) -> None:
    runs = list(runs_of(*dataset))
    with patch.object(plan, "SEGMENT_FILTERS", limit):
        segments = list(segments_of(iter(runs)))
    assert [run for segment in segments for run in segment.runs] == runs
    for segment in segments:
        assert {run.model_id for run in segment.runs} == {segment.model_id}
        assert segment.n == sum(run.n for run in segment.runs)
        assert segment.n <= limit or len(segment.runs) == 1
    for one, other in pairwise(segments):
        assert one.model_id != other.model_id or one.n + other.runs[0].n > limit, "cut without need"


@given(datasets(), st.integers(1, 50), st.integers(1, 4))
def test_chunks_cover_a_segment_once_in_blocks_of_one_layer_within_both_limits(
    dataset: tuple[Layers, int], block_limit: int, blocks_a_chunk: int
) -> None:
    chunk_limit = block_limit * blocks_a_chunk
    for segment in segments_of(runs_of(*dataset)):
        with patch.multiple(plan, BLOCK_FILTERS=block_limit, CHUNK_FILTERS=chunk_limit):
            chunks = list(segment.chunks())
        blocks = [block for chunk in chunks for block in chunk]
        assert filters_of(blocks) == filters_of(list(segment.runs))
        owner = {i: run for run in segment.runs for i in range(run.start, run.stop)}
        for block in blocks:
            assert 0 < block.n <= block_limit
            for end in (block.start, block.stop - 1):
                assert (block.layer_id, block.model_id) == (owner[end].layer_id, owner[end].model_id)
        sizes = [chunk[-1].stop - chunk[0].start for chunk in chunks]
        assert max(sizes) <= chunk_limit
        for chunk, after in pairwise(chunks):
            run = owner[after[0].start]
            whole = run.n if run.n <= chunk_limit else after[0].n
            assert chunk[-1].stop + whole - chunk[0].start > chunk_limit, "cut without need"
            if run.n <= chunk_limit:
                assert run.start == after[0].start, "a layer that fits a chunk is divided"


def test_a_layer_larger_than_a_segment_is_one_segment_in_full_chunks() -> None:
    n = 3 * SEGMENT_FILTERS + 5
    small, large, last = segments_of(runs_of([(0, 4, 0, 10), (1, 4, 10, n), (2, 4, 10 + n, 1)], n + 11))
    assert [len(segment.runs) for segment in (small, large, last)] == [1, 1, 1]
    assert large.n == n
    sizes = [sum(block.n for block in chunk) for chunk in large.chunks()]
    assert set(sizes[:-1]) == {CHUNK_FILTERS}
    assert sum(sizes) == n


@pytest.mark.parametrize(("n", "segments"), [(SEGMENT_FILTERS - 1, 1), (SEGMENT_FILTERS, 2)])
def test_layers_that_fill_a_segment_to_the_limit_share_it(n: int, segments: int) -> None:
    assert len(list(segments_of(runs_of([(0, 4, 0, 1), (1, 4, 1, n)], n + 1)))) == segments


def test_limits_nest() -> None:
    assert BLOCK_FILTERS <= CHUNK_FILTERS <= SEGMENT_FILTERS
    assert CHUNK_FILTERS % BLOCK_FILTERS == 0, "a chunk of full blocks is full"


def test_a_dataset_without_layers_is_one_run_that_no_layer_claims() -> None:
    (segment,) = segments_of(runs_of([], 3))
    assert segment == Segment((Run(None, None, 0, 3),))
    assert segment.model_id is None


def test_filters_between_layers_of_a_model_are_not_counted_to_it() -> None:
    segments = list(segments_of(runs_of([(0, 1, 2, 3), (1, 1, 6, 4)], 10)))
    assert [(s.model_id, s.runs[0].start, s.n) for s in segments] == [(None, 0, 2), (1, 2, 3), (None, 5, 1), (1, 6, 4)]
