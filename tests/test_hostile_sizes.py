"""Files that declare, or unfold to, far more than they hold: refused in bounded memory and time, by one clear line."""

import lzma
import re
import struct
import zlib
from binascii import crc32
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests import hostile
from warehouse import xz
from warehouse.errors import SourceError
from warehouse.source import open_source

MAX_PEAK = 256 << 20
"""Bytes beyond what a sound file takes."""
MAX_SECONDS = 30


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, hostile.Outcome]:
    """What one process meets with a sound file and then with all others."""
    folder = tmp_path_factory.mktemp("huge")
    paths = [folder / "sound.h5"]
    hostile.write(paths[0]).close()
    for number, (make, _) in enumerate(hostile.HUGE.values()):
        paths.append(folder / f"{number}.h5")
        make(paths[-1])
    first, *others = hostile.probe_all(paths)
    assert first.message == ""
    for path, outcome in zip(paths[1:], others, strict=True):
        assert outcome.message.startswith(f"{path}: ")
    return dict(zip(hostile.HUGE, others, strict=True))


@pytest.mark.parametrize("name", hostile.HUGE)
def test_it_is_refused_in_bounded_memory_and_time(outcomes: dict[str, hostile.Outcome], name: str) -> None:
    outcome = outcomes[name]
    assert re.search(hostile.HUGE[name][1], outcome.message), outcome.message
    assert "\n" not in outcome.message
    assert len(outcome.message) < 600
    assert outcome.seconds < MAX_SECONDS
    assert outcome.peak < MAX_PEAK


@pytest.mark.parametrize("chunk", [(8192, 3, 3), (1000, 3, 3), (700, 2, 1), (9000, 1, 3)], ids=str)
def test_honest_chunks_of_any_size_are_read(tmp_path: Path, chunk: tuple[int, ...]) -> None:
    filters = np.random.default_rng(5).normal(size=(9000, 3, 3))
    hostile.write(tmp_path / "dataset.h5", data=filters, chunks=chunk, compression="gzip", shuffle=True).close()
    with open_source(tmp_path / "dataset.h5") as source:
        np.testing.assert_array_equal(source.read(100, 8900), filters[100:8900].reshape(-1, 9).astype("f4"))


@pytest.mark.parametrize(
    "pipeline",
    [
        *("deflate", "shuffle", "fletcher32", "shuffle deflate", "shuffle deflate fletcher32"),
        *("fletcher32 shuffle deflate", "deflate shuffle", "fletcher32 deflate fletcher32"),
    ],
)
def test_filters_of_hdf5_in_any_order_are_undone(tmp_path: Path, pipeline: str) -> None:
    hostile.packed_by(pipeline)(tmp_path / "dataset.h5")
    with open_source(tmp_path / "dataset.h5") as source:
        np.testing.assert_array_equal(source.read(0, 100), hostile.FILTERS.reshape(-1, 9).astype("f4"))


def test_a_chunk_that_some_filters_were_not_applied_to_is_read(tmp_path: Path) -> None:
    hostile.packed_by("shuffle deflate", zlib.compress(hostile.FILTERS.tobytes()), mask=1)(tmp_path / "dataset.h5")
    with open_source(tmp_path / "dataset.h5") as source:
        np.testing.assert_array_equal(source.read(0, 100), hostile.FILTERS.reshape(-1, 9).astype("f4"))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunks": (4,)},
        {"chunks": (4,), "compression": "gzip", "shuffle": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("userblock", [0, 512])
def test_a_value_of_variable_length_is_read_wherever_it_lies(
    tmp_path: Path, options: dict[str, Any], userblock: int
) -> None:
    maximum = (None,) if "chunks" in options else None
    for name, dtype in (("text", h5py.string_dtype()), ("bytes", h5py.vlen_dtype("u1"))):
        path = tmp_path / f"{name}.h5"
        with h5py.File(path, "w", userblock_size=userblock) as file:
            file["filters"] = hostile.FILTERS
            file.create_dataset("other", (50,), h5py.string_dtype())[:] = ["another value"] * 50
            value = hostile.CSV.decode() if name == "text" else np.frombuffer(hostile.CSV, "u1")
            file.create_dataset("meta", (1,), dtype, maxshape=maximum, **options)[0] = value
        with open_source(path) as source:
            assert source.meta().columns["filter_ids"].tolist() == ["0:99"]


def _index(*records: tuple[int, int]) -> bytes:
    """The index and the footer of an .xz stream that declares blocks."""

    def number(n: int) -> bytes:
        low = bytes(
            (n >> shift & 0x7F) | 0x80 for shift in range(0, max(n.bit_length() - 7, 0) + 6, 7) if n >> shift + 7
        )
        return low + bytes([n >> 7 * len(low)])

    body = b"\0" + number(len(records)) + b"".join(number(n) for record in records for n in record)
    body += bytes(-len(body) % 4)
    index = body + struct.pack("<I", crc32(body))
    flags = struct.pack("<I", len(index) // 4 - 1) + b"\0\4"
    return index + struct.pack("<I", crc32(flags)) + flags + b"YZ"


def dictionary(path: Path) -> None:
    """Unpacking it takes a dictionary of 1 GiB."""
    packed = bytearray(lzma.compress(bytes(1000), check=lzma.CHECK_CRC32, filters=[{"id": lzma.FILTER_LZMA2}]))
    header_end = 12 + (packed[12] + 1) * 4
    packed[16] = 36  # the size of the dictionary, 2**(36 / 2 + 12)
    packed[header_end - 4 : header_end] = struct.pack("<I", crc32(packed[12 : header_end - 4]))
    path.write_bytes(packed)


def many_streams(path: Path) -> None:
    path.write_bytes(lzma.compress(b"") * 10_001)


def lying_index(path: Path) -> None:
    packed = lzma.compress(bytes(1000), check=lzma.CHECK_CRC64)
    (backward,) = struct.unpack("<I", packed[-8:-4])
    start = len(packed) - 12 - (backward + 1) * 4
    path.write_bytes(packed[:start] + _index((start - 12, 1 << 60)))


@pytest.mark.parametrize(
    ("make", "message"),
    [(dictionary, "Memory usage limit"), (many_streams, "10,000 .xz streams"), (lying_index, "unpacks to 1,152,921")],
)
def test_an_xz_file_that_takes_too_much_is_refused(
    make: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    make(tmp_path / "bomb.h5.xz")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SourceError, match=message):
        open_source(tmp_path / "bomb.h5.xz", scratch=tmp_path)
    assert sorted(tmp_path.iterdir()) == before


def test_streams_and_padding_of_any_division_unpack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.random.default_rng(1).integers(0, 4, 50_000, dtype="u1").tobytes()
    parts = [data[:7], b"", data[7:40_000], data[40_000:]]
    path = tmp_path / "data.xz"
    path.write_bytes(b"".join(lzma.compress(part) + bytes(4 * number) for number, part in enumerate(parts)))
    for piece in (1, 5, 64, 1 << 20):
        monkeypatch.setattr(xz, "_PIECE", piece)
        with xz.unpacked(path, tmp_path) as unpacked:
            assert unpacked.read_bytes() == data
