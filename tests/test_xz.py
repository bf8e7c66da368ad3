"""Packed files: their size is known before they are unpacked, and nothing is left behind."""

import errno
import io
import lzma
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warehouse import xz
from warehouse.errors import SourceError
from warehouse.xz import unpacked, unpacked_size

PLAIN = bytes(range(256)) * 512
PACKED = lzma.compress(PLAIN)


@given(st.lists(st.tuples(st.binary(max_size=2000), st.integers(0, 3)), max_size=4))
def test_the_size_is_that_of_all_streams(streams: list[tuple[bytes, int]]) -> None:
    packed = b"".join(lzma.compress(plain) + bytes(4 * padding) for plain, padding in streams)
    assert unpacked_size(io.BytesIO(packed)) == sum(len(plain) for plain, _ in streams)


@pytest.mark.skipif(shutil.which("xz") is None, reason="the xz command is not here")
def test_the_size_is_that_of_all_blocks() -> None:
    command = ["xz", "--stdout", "--block-size=5000", "-"]
    packed = subprocess.run(command, input=PLAIN, capture_output=True, check=True).stdout
    assert unpacked_size(io.BytesIO(packed)) == len(PLAIN)


@pytest.mark.parametrize("length", range(1, len(PACKED)))
def test_every_truncation_is_found_from_the_end(length: int) -> None:
    with pytest.raises(SourceError, match="download"):
        unpacked_size(io.BytesIO(PACKED[:length]))


def test_a_preallocated_download_is_found_at_once() -> None:
    with pytest.raises(SourceError, match="incomplete"):
        unpacked_size(io.BytesIO(PACKED + bytes(1 << 20)))


@pytest.mark.parametrize("position", range(1, 25))
def test_damage_to_the_footer_or_the_index_is_found(position: int) -> None:
    damaged = bytearray(PACKED)
    damaged[-position] ^= 0x55
    with pytest.raises(SourceError, match="download"):
        unpacked_size(io.BytesIO(damaged))


def test_a_size_that_leads_outside_the_file_is_found() -> None:
    with pytest.raises(SourceError, match="download"):
        unpacked_size(io.BytesIO(PACKED[12:]))


@pytest.mark.parametrize("position", range(8))
def test_damage_to_the_header_of_a_stream_is_found(position: int) -> None:
    damaged = bytearray(PACKED)
    damaged[position] ^= 0x55
    with pytest.raises(SourceError, match=r"start of an \.xz stream"):
        unpacked_size(io.BytesIO(damaged))


def with_index(old: bytes, new: bytes) -> bytes:
    """The packed file with other numbers in its index, and the checksum that fits them."""
    start = len(PACKED) - 12 - (int.from_bytes(PACKED[-8:-4], "little") + 1) * 4
    index = PACKED[start:-16]
    assert index.count(old) == 1
    index = index.replace(old, new)
    return PACKED[:start] + index + crc32(index).to_bytes(4, "little") + PACKED[-12:]


def test_an_index_of_more_blocks_than_it_lists_is_found() -> None:
    with pytest.raises(SourceError, match=r"cut short"):
        unpacked_size(io.BytesIO(with_index(b"\0\x01", b"\0\x7f")))


def test_an_endless_integer_is_found_at_once() -> None:
    index = b"\0" + b"\xff" * (1 << 24)
    with pytest.raises(SourceError, match=r"index of the \.xz stream is damaged"):
        xz._parse_index(index + crc32(index).to_bytes(4, "little"))


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    path = tmp_path / "dataset.h5.xz"
    path.write_bytes(PACKED)
    return path


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def test_the_unpacked_file_lives_as_long_as_the_context(packed: Path, scratch: Path) -> None:
    steps: list[tuple[int, int]] = []
    with unpacked(packed, scratch, lambda done, total: steps.append((done, total))) as path:
        assert scratch in path.parents
        assert path.read_bytes() == PLAIN
    assert not list(scratch.iterdir())
    assert steps[-1] == (len(PACKED), len(PACKED))


def test_damage_inside_is_found_and_leaves_nothing(packed: Path, scratch: Path) -> None:
    damaged = bytearray(PACKED)
    damaged[40] ^= 0xFF
    packed.write_bytes(damaged)
    with (
        pytest.raises(SourceError, match=r"dataset\.h5\.xz: damaged, download it again"),
        unpacked(packed, scratch),
    ):
        pytest.fail("a damaged file was unpacked")
    assert not list(scratch.iterdir())


def test_a_file_that_unpacks_to_more_than_it_declares_is_refused(
    packed: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xz, "_PIECE", 1000)
    packed.write_bytes(with_index(b"\x80\x80\x08", b"\x80\x80\x01"))  # 131,072 and 16,384, seven bits a byte
    with pytest.raises(SourceError, match="more than the 16,384 bytes"), unpacked(packed, scratch):
        pytest.fail("more was unpacked than declared")
    assert not list(scratch.iterdir())


def test_a_full_disk_is_found_before_unpacking(packed: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with (
        pytest.raises(SourceError, match=r"131,072 bytes in .*scratch.*1,000 bytes are free.*make room"),
        unpacked(packed, scratch),
    ):
        pytest.fail("unpacked without room")
    assert not list(scratch.iterdir())


def test_a_disk_that_fills_up_while_unpacking_leaves_nothing(packed: Path, scratch: Path) -> None:
    def fill_up(_done: int, _total: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with (
        pytest.raises(SourceError, match=r"131,072 bytes in .*scratch.*No space left"),
        unpacked(packed, scratch, fill_up),
    ):
        pytest.fail("unpacked without room")
    assert not list(scratch.iterdir())


def test_a_missing_scratch_folder_is_named(packed: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nowhere.*No such file"), unpacked(packed, tmp_path / "nowhere"):
        pytest.fail("unpacked into nowhere")


def test_an_interruption_leaves_nothing(packed: Path, scratch: Path) -> None:
    def interrupt(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), unpacked(packed, scratch, interrupt):
        pytest.fail("the interruption was lost")
    assert not list(scratch.iterdir())


def test_an_error_of_the_caller_passes_unchanged(packed: Path, scratch: Path) -> None:
    with pytest.raises(OSError, match="elsewhere"), unpacked(packed, scratch):
        raise OSError("elsewhere")
