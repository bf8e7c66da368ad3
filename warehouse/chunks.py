"""Check how a dataset is stored before HDF5 reads it: that it holds what it declares, and unpacks to no more.

HDF5 unpacks a chunk to whatever it unpacks to, a thousand times its size, and reads chunks that were never written
as zeros.
"""

import itertools
import math
import zlib
from collections.abc import Iterable
from typing import Any

import h5py

from warehouse.errors import SourceError

CACHE = 64 << 20
"""Bytes of unpacked chunks that HDF5 keeps: a read may want a part of a chunk."""

MAX_UNPACKED = 512 << 20
"""Bytes that a chunk may unpack to, if it lies about its size, without being looked into first."""

_MAX_RATIO = 100
_CHECKSUM = 4
_DEFLATE, _LZF = h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_LZF
_EXPANSION = {_DEFLATE: 1032, _LZF: 88}
"""The most that one byte can unpack to."""
_KEEPING_SIZE = (h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32)


def check_storage(dataset: h5py.Dataset) -> bool:
    """Check that a dataset holds what it declares, in pieces that fit in memory.

    Returns
    -------
    bool
        Whether a chunk, by its stored size, might unpack to more than `MAX_UNPACKED`: `check_unpacked` knows.

    Raises
    ------
    SourceError
        If it is smaller than it declares, was never written or not wholly, or is packed far beyond what weights can
        be; if its chunks are larger than `CACHE`, or packed by other filters than gzip, LZF, shuffle and Fletcher's
        checksum.
    """
    stored, declared = dataset.id.get_storage_size(), dataset.size * dataset.dtype.itemsize
    holds = f"{dataset.name} declares the shape {dataset.shape}, {declared:,} bytes, and holds {stored:,}"
    if stored == 0 < declared:
        raise SourceError(f"{holds}: it was never written")
    if stored > dataset.file.id.get_filesize():
        raise SourceError(f"{holds}, more than the file: damaged or incomplete")
    if dataset.chunks is None:
        if stored < declared:
            raise SourceError(f"{holds}: damaged or incomplete")
        return False
    chunk_bytes = math.prod(dataset.chunks) * dataset.dtype.itemsize
    if chunk_bytes > CACHE:
        raise SourceError(
            f"{dataset.name} is stored in chunks of {chunk_bytes >> 20:,} MiB, which every read would unpack whole; "
            f"repack it with h5repack -l {dataset.name[1:]}:CHUNK=100000x{'x'.join(map(str, dataset.shape[1:]))}"
        )
    if declared > _MAX_RATIO * stored + 2 * MAX_UNPACKED:
        raise SourceError(f"{holds}: if it is meant, unpack it with h5repack -f {dataset.name[1:]}:NONE")
    packing = _packing(dataset)
    smallest, largest = _chunk_sizes(dataset)
    # HDF5 subtracts the size of a checksum from that of its chunk, without looking
    if smallest <= _CHECKSUM or (packing is None and smallest < chunk_bytes):
        raise SourceError(f"{dataset.name} holds a chunk of {smallest:,} bytes for one of {chunk_bytes:,}: damaged")
    if largest > chunk_bytes + chunk_bytes // 8 + 1024:
        raise SourceError(f"{dataset.name} holds a chunk of {largest:,} bytes for one of {chunk_bytes:,}: damaged")
    suspicious = packing is not None and largest * _EXPANSION[packing] > MAX_UNPACKED
    if suspicious and packing != _DEFLATE:
        raise SourceError(f"{dataset.name} holds large chunks packed by LZF; repack it with h5repack -f GZIP=1")
    return suspicious


def _packing(dataset: h5py.Dataset) -> int | None:
    """The filter that packs a dataset, of the two that are read."""
    plist = dataset.id.get_create_plist()
    codes = [plist.get_filter(position)[0] for position in range(plist.get_nfilters())]
    packing = [code for code in codes if code not in _KEEPING_SIZE]
    if len(packing) > 1 or not set(packing) <= _EXPANSION.keys():
        raise SourceError(f"{dataset.name} is packed by the filters {codes}; repack it with h5repack -f GZIP=1")
    return packing[0] if packing else None


def _chunk_sizes(dataset: h5py.Dataset) -> tuple[int, int]:
    """Bytes of the smallest and the largest chunk as stored, once all are known to be there."""
    expected = math.prod(-(-size // step) for size, step in zip(dataset.shape, dataset.chunks, strict=True))
    end = dataset.file.id.get_filesize()
    n, smallest, largest = 0, end, 0

    def look(chunk: Any) -> bool | None:
        nonlocal n, smallest, largest
        n += 1
        smallest, largest = min(smallest, chunk.size), max(largest, chunk.size)
        if chunk.byte_offset is None or chunk.byte_offset + chunk.size > end:
            smallest = 0
        return True if n > expected or smallest == 0 else None

    dataset.id.chunk_iter(look)
    if n != expected and smallest > 0:
        raise SourceError(f"{dataset.name} holds {n:,} of {expected:,} chunks: not wholly written, or damaged")
    return smallest, largest


def check_unpacked(dataset: h5py.Dataset, rows: range | None = None) -> None:
    """Check that the chunks of some rows, or all chunks, unpack to no more than they declare.

    Raises
    ------
    SourceError
        If one does.
    """
    limit = math.prod(dataset.chunks) * dataset.dtype.itemsize
    axes: list[Iterable[int]] = [range(0, size, step) for size, step in zip(dataset.shape, dataset.chunks, strict=True)]
    if rows is not None:
        step = dataset.chunks[0]
        axes[0] = range(rows.start // step * step, rows.stop, step)
    for offset in itertools.product(*axes):
        _, packed = dataset.id.read_direct_chunk(offset)
        try:
            size = len(zlib.decompressobj().decompress(packed, limit + 1))
        except zlib.error:
            continue  # HDF5 tells better what is wrong, and stops at the same byte
        if size > limit:
            raise SourceError(f"{dataset.name} holds a chunk that unpacks to more than its {limit:,} bytes: damaged")
