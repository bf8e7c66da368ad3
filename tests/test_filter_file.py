"""Files of filters read back bit for bit, through the page cache and past it, whatever the file system can."""

import contextlib
import errno
import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.test_lake import CHUNKS, any_bits, write
from warehouse import filter_file
from warehouse.errors import LakeError
from warehouse.filter_file import FilterFile, may_be_cached, naming_damage
from warehouse.lake import Lake
from warehouse.plan import Run

LARGE_CHUNKS = [[Run(0, 1, start, start + n)] for start, n in ((0, 3000), (3000, 1), (3001, 5000))]
N = 8001
ways = pytest.mark.parametrize("is_cached", [True, False])


@pytest.fixture
def past_cache(tmp_path: Path) -> None:
    """Skips where nothing can be read past the page cache."""
    if not filter_file.PAST_CACHE:
        pytest.skip("the system has no reads past the page cache")
    (tmp_path / "tried").touch()
    try:
        os.close(os.open(tmp_path / "tried", os.O_RDONLY | filter_file.PAST_CACHE))
    except OSError:
        pytest.skip("the file system has no reads past the page cache")


def assert_same_bits(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))


def assert_read_back(path: Path, weights: np.ndarray) -> None:
    """Compare all of a file of `LARGE_CHUNKS`, in pieces across its row groups."""
    with FilterFile(path, 0, is_cached=False) as file:
        for start in range(0, N, 1700):
            stop = min(start + 1700, N)
            assert_same_bits(file.read(start, stop), weights[:, start:stop])


@ways
def test_every_range_of_filters_reads_back_bit_for_bit(tmp_path: Path, is_cached: bool) -> None:
    weights = any_bits(13)
    path = write(Lake(tmp_path), 8, weights, CHUNKS)
    with FilterFile(path, 100, is_cached=is_cached) as file:
        for start in range(13):
            for stop in range(start + 1, 14):
                read = file.read(100 + start, 100 + stop)
                assert read.shape == (9, stop - start)
                assert_same_bits(read, weights[:, start:stop])


@ways
def test_filter_numbers_beyond_32_bits_are_kept(tmp_path: Path, is_cached: bool) -> None:
    start, weights = 2**31 - 2, any_bits(4)
    path = write(Lake(tmp_path), 1, weights, [[Run(5, 1, start, start + 4)]])
    with FilterFile(path, start, is_cached=is_cached) as file:
        assert_same_bits(file.read(start + 3, start + 4), weights[:, 3:])


@pytest.mark.usefixtures("past_cache")
def test_a_file_is_read_past_the_page_cache_only_where_it_is_not_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = any_bits(N)
    path = write(Lake(tmp_path), 8, weights, LARGE_CHUNKS)
    reads = []
    preadv = os.preadv

    def watched(descriptor: int, buffers: Sequence[Any], offset: int) -> int:
        reads.append(fcntl.fcntl(descriptor, fcntl.F_GETFL) & filter_file.PAST_CACHE)
        return preadv(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", watched)
    with FilterFile(path, 0) as file:
        assert_same_bits(file.read(0, 3000), weights[:, :3000])
    assert not reads
    assert_read_back(path, weights)
    assert reads


def test_two_open_files_do_not_share_what_they_read(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    many = [any_bits(N)[:, ::step].copy() for step in (1, -1)]
    paths = [write(lake, 8, weights, LARGE_CHUNKS) for weights in many]
    with FilterFile(paths[0], 0, is_cached=False) as one, FilterFile(paths[1], 0, is_cached=False) as other:
        for start, stop in ((0, 3000), (3001, 8001), (0, 10)):
            found = one.read(start, stop), other.read(start, stop)
            assert_same_bits(found[0], many[0][:, start:stop])
            assert_same_bits(found[1], many[1][:, start:stop])
    for path, weights in zip(paths, many, strict=True):
        assert_read_back(path, weights)


@pytest.mark.usefixtures("past_cache")
def test_a_file_system_that_refuses_reads_past_the_page_cache_when_it_opens_is_read_through_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = any_bits(N)
    path = write(Lake(tmp_path), 8, weights, LARGE_CHUNKS)
    opened = os.open

    def refuse(file: Any, flags: int, *rest: Any, **named: Any) -> int:
        if filter_file.PAST_CACHE and flags & filter_file.PAST_CACHE:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return opened(file, flags, *rest, **named)

    monkeypatch.setattr(os, "open", refuse)
    assert_read_back(path, weights)


@pytest.mark.usefixtures("past_cache")
def test_a_file_system_that_refuses_them_when_it_reads_is_read_through_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = any_bits(N)
    path = write(Lake(tmp_path), 8, weights, LARGE_CHUNKS)
    preadv = os.preadv

    def refuse(descriptor: int, buffers: Sequence[Any], offset: int) -> int:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & filter_file.PAST_CACHE:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return preadv(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", refuse)
    assert_read_back(path, weights)


@pytest.mark.usefixtures("past_cache")
def test_a_disk_that_hands_over_little_at_a_time_is_read_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = any_bits(N)
    path = write(Lake(tmp_path), 8, weights, LARGE_CHUNKS)
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, buffers, offset: preadv(file, [buffers[0][:8192]], offset))
    assert_read_back(path, weights)


@pytest.mark.usefixtures("past_cache")
def test_weights_are_read_past_the_page_cache_in_one_piece_a_row_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(Lake(tmp_path), 8, any_bits(N), LARGE_CHUNKS)
    with FilterFile(path, 0, is_cached=False) as file:
        sizes = []
        preadv = os.preadv

        def watched(descriptor: int, buffers: Sequence[Any], offset: int) -> int:
            sizes.append(preadv(descriptor, buffers, offset))
            return sizes[-1]

        monkeypatch.setattr(os, "preadv", watched)
        file.read(0, 3000)
        file.read(3001, N)
        file.read(N - 1, N)
    assert len(sizes) == 2
    assert sizes[0] > 9 * 3 * 3000
    assert sizes[1] > 9 * 3 * 5000


@pytest.mark.usefixtures("past_cache")
def test_a_disk_that_fails_is_an_error_that_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(Lake(tmp_path), 8, any_bits(N), LARGE_CHUNKS)

    def fail(*_: Any) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(LakeError, match=f"^{path}: cannot be read: Input/output error; `warehouse verify` names"):
        read_damaged(path, is_cached=False)


@ways
@pytest.mark.parametrize("size", [0, 100, 50_000])
def test_a_file_that_is_cut_off_is_an_error_that_names_it_and_leaves_nothing_open(
    tmp_path: Path, size: int, is_cached: bool
) -> None:
    lake = Lake(tmp_path)
    path = write(lake, 8, any_bits(N), LARGE_CHUNKS)
    lake.wait_for_disk()
    os.truncate(path, size)
    with pytest.raises(LakeError, match=rf"^{path}: cannot be read: .*; `warehouse verify`") as raised:
        read_damaged(path, is_cached=is_cached)
    assert "\n" not in str(raised.value)
    assert not descriptors_of(path)


def descriptors_of(path: Path) -> list[str]:
    """Names of those of this process that are open on a file."""
    found = []
    for name in os.listdir("/dev/fd"):  # noqa: PTH208 - a path of a descriptor that is closed meanwhile cannot be asked
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(int(name)), path.stat()):
                found.append(name)
    return found


def read_damaged(path: Path, *, is_cached: bool) -> None:
    with naming_damage(path), FilterFile(path, 0, is_cached=is_cached) as file:
        file.read(0, N)


@pytest.mark.usefixtures("past_cache")
def test_a_file_that_is_cut_off_while_it_is_read_is_an_error_too(tmp_path: Path) -> None:
    path = write(Lake(tmp_path), 8, any_bits(N), LARGE_CHUNKS)
    with FilterFile(path, 0, is_cached=False) as file:
        os.truncate(path, 50_000)
        with pytest.raises(OSError, match="truncated"):
            file.read(7000, N)


def test_a_file_that_is_gone_is_an_error_that_names_it(tmp_path: Path) -> None:
    for is_cached in (True, False):
        with pytest.raises(LakeError, match=r"gone\.parquet: cannot be read: No such file or directory"):
            read_damaged(tmp_path / "gone.parquet", is_cached=is_cached)


def test_what_was_written_last_may_be_cached_up_to_half_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 50, "SC_PAGE_SIZE": 4}.__getitem__)
    assert may_be_cached([]) == []
    assert may_be_cached([99]) == [True]
    assert may_be_cached([1000, 30, 40, 50, 9]) == [False, True, True, True, True]
    assert may_be_cached([1000, 31, 41, 50, 10]) == [False, False, True, True, True]
