"""The checksums that DuckDB keeps of every block of a database file, checked without opening it.

DuckDB checks a block when a query first needs it, so that damage may show much later, or never. Gets the path of a
database; hands on what is damaged. The layout: https://duckdb.org/docs/stable/internals/storage
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HEADER_BYTES = 4096
HEADERS = 3
"""The main header, and two that take turns in describing the blocks."""
BLOCK_SIZES = [1 << k for k in range(14, 19)]
"""Those that DuckDB allows; ours are of the largest, its default."""
FACTOR = np.uint64(0xBF58476D1CE4E5B9)
SEED = 5381


@dataclass(frozen=True)
class Damage:
    """What is damaged, in words, and whether it is a DuckDB file nevertheless."""

    what: str
    is_database: bool = True


def damage(database: Path) -> Damage | None:
    """What is damaged in a DuckDB file; None where every byte agrees with its checksum."""
    size = database.stat().st_size
    with database.open("rb") as file:
        headers = [file.read(HEADER_BYTES) for _ in range(HEADERS)]
        if not all(len(header) == HEADER_BYTES and _is_sound(header) for header in headers):
            return Damage(f"its header, the first {HEADERS * HEADER_BYTES:,} bytes, is damaged", is_database=False)
        n_blocks, block_bytes = _blocks(headers[1:])
        if block_bytes not in BLOCK_SIZES:
            return Damage(f"its header tells of blocks of {block_bytes:,} bytes", is_database=False)
        expected = HEADERS * HEADER_BYTES + n_blocks * block_bytes
        if size != expected:
            return Damage(f"it has {size:,} bytes instead of {expected:,}")
        damaged = [i for i in range(n_blocks) if not _is_sound(file.read(block_bytes))]
    if not damaged:
        return None
    first = HEADERS * HEADER_BYTES + damaged[0] * block_bytes
    return Damage(f"{len(damaged)} of its {n_blocks} blocks are damaged, the first at byte {first:,}")


def _is_sound(part: bytes) -> bool:
    """Whether a header or a block, which begins with its checksum, has that checksum."""
    words: NDArray[np.uint64] = np.frombuffer(part, "<u8")
    return int(np.bitwise_xor.reduce(words[1:] * FACTOR)) ^ SEED == int(words[0])


def _blocks(headers: list[bytes]) -> tuple[int, int]:
    """Number and size of the blocks, by the header that was written last."""
    # checksum, iteration, meta block, free list, number of blocks, size of a block
    fields = max((struct.unpack_from("<QQqqQQ", header) for header in headers), key=lambda each: each[1])
    return fields[4], fields[5]
