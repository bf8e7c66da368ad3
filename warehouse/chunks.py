"""Check how a dataset is stored before HDF5 reads it, and unpack its chunks here, where nothing is taken on trust.

HDF5 unpacks a chunk to whatever it unpacks to: a thousand times its size, or less than the memory that it then hands
out as weights; and it reads chunks that were never written as zeros. Filters: HDF5 file format specification 3.0,
IV.A.2.l "The Data Storage - Filter Pipeline Message".
"""

import itertools
import math
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from warehouse.errors import SourceError

CACHE = 64 << 20
"""Bytes of unpacked chunks that are kept: a read may want a part of a chunk."""

_MAX_RATIO = 100
_HARMLESS = 1 << 30
_MAX_KEPT = 64
_CHECKSUM = 4
_CHECKED_WORDS = 1 << 15  # so few that the sums of a checksum fit in 64 bits
_DEFLATE, _SHUFFLE, _FLETCHER = h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32
_Bytes = NDArray[np.uint8]


def check_storage(dataset: h5py.Dataset) -> bool:
    """Check that a dataset holds what it declares, in pieces that fit in memory.

    Returns
    -------
    bool
        Whether its chunks are packed, and only `PackedDataset` may read them.

    Raises
    ------
    SourceError
        If it is smaller than it declares, was never written or not wholly, or is packed far beyond what weights can
        be; if its chunks are larger than `CACHE`, or packed by other filters than gzip, shuffle and Fletcher's
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
    if declared > _MAX_RATIO * stored + _HARMLESS:
        raise SourceError(f"{holds}: if it is meant, unpack it with h5repack -f {dataset.name[1:]}:NONE")
    is_packed = len(_filters(dataset)) > 0
    allowed = range(1, chunk_bytes + chunk_bytes // 8 + 1024) if is_packed else range(chunk_bytes, chunk_bytes + 1)
    for size in _chunk_sizes(dataset):
        if size not in allowed:
            raise SourceError(f"{dataset.name} holds a chunk of {size:,} bytes for one of {chunk_bytes:,}: damaged")
    return is_packed


def _filters(dataset: h5py.Dataset) -> list[tuple[int, tuple[int, ...]]]:
    """Code and parameters of the filters that pack the chunks of a dataset, in the order of packing."""
    plist = dataset.id.get_create_plist()
    found = [plist.get_filter(position) for position in range(plist.get_nfilters())]
    codes = [code for code, *_ in found]
    if codes.count(_DEFLATE) > 1 or not set(codes) <= {_DEFLATE, _SHUFFLE, _FLETCHER}:
        raise SourceError(f"{dataset.name} is packed by the filters {codes}; repack it with h5repack -f GZIP=1")
    return [(code, parameters) for code, _, parameters, *_ in found]


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


class PackedDataset:
    """A dataset in packed chunks, which `check_storage` has let through; some of its chunks are kept unpacked."""

    def __init__(self, dataset: h5py.Dataset) -> None:
        self._dataset = dataset
        chunk_bytes = math.prod(dataset.chunks) * dataset.dtype.itemsize
        self._chunk = lru_cache(min(_MAX_KEPT, max(1, CACHE // max(1, chunk_bytes))))(self._unpack)

    def fill(self, rows: np.ndarray, first: int = 0) -> None:
        """Fill an array with the rows of the dataset from `first` on.

        Raises
        ------
        SourceError
            If a chunk is damaged.
        """
        steps, shape = self._dataset.chunks, rows.shape
        start = first // steps[0] * steps[0]
        axes = [range(start, first + shape[0], steps[0])]
        axes += [range(0, size, step) for size, step in zip(shape[1:], steps[1:], strict=True)]
        for offset in itertools.product(*axes):
            begin = (offset[0] - first, *offset[1:])
            target = tuple(
                slice(max(0, at), min(at + step, size)) for at, step, size in zip(begin, steps, shape, strict=True)
            )
            inside = tuple(slice(part.start - at, part.stop - at) for part, at in zip(target, begin, strict=True))
            rows[target] = self._chunk(offset)[inside]

    def _unpack(self, offset: tuple[int, ...]) -> np.ndarray:
        """A chunk, in the type that h5py reads the dataset as."""
        stored_type, dtype, shape = self._dataset.id.get_type(), self._dataset.dtype, self._dataset.chunks
        n, width = math.prod(shape), stored_type.get_size()
        unpacked = read_chunk(self._dataset, offset, width)
        values = np.zeros(n * max(width, dtype.itemsize), np.uint8)
        values[: len(unpacked)] = unpacked
        h5py.h5t.convert(stored_type, h5py.h5t.py_create(dtype), n, values)
        converted: np.ndarray = values[: n * dtype.itemsize].view(dtype).reshape(shape)
        return converted


def read_chunk(dataset: h5py.Dataset, offset: Sequence[int], width: int) -> _Bytes:
    """Read a chunk and unpack it.

    Parameters
    ----------
    dataset
        A dataset of chunks that fit in memory.
    offset
        Where the chunk begins, along each axis.
    width
        Bytes of an element as stored.

    Returns
    -------
    np.ndarray
        The bytes of all elements, in the order and the type of the file.

    Raises
    ------
    SourceError
        If it does not unpack to exactly the size of a chunk, its checksum is wrong, or it is packed by other filters.
    """
    filters = _filters(dataset)
    mask, stored = dataset.id.read_direct_chunk(tuple(offset))
    filters = [used for position, used in enumerate(filters) if not mask >> position & 1]
    n_bytes = math.prod(dataset.chunks) * width
    unpacked: _Bytes | None = np.frombuffer(stored, np.uint8)
    while filters and unpacked is not None:
        code, parameters = filters.pop()
        if code == _DEFLATE:
            n_checksums = sum(earlier == _FLETCHER for earlier, _ in filters)
            unpacked = _inflate(unpacked, n_bytes + n_checksums * _CHECKSUM)
        else:
            unpacked = _unshuffle(unpacked, *parameters) if code == _SHUFFLE else _without_checksum(unpacked)
    if unpacked is None or len(unpacked) != n_bytes:
        raise SourceError(f"{dataset.name} holds a chunk that does not unpack to its {n_bytes:,} bytes: damaged")
    return unpacked


def _inflate(packed: _Bytes, n_bytes: int) -> _Bytes | None:
    """Undo gzip's packing, of so many bytes and no more."""
    stream = zlib.decompressobj()
    try:
        unpacked = stream.decompress(packed.data, n_bytes + 1)
    except zlib.error:
        return None
    return np.frombuffer(unpacked, np.uint8) if stream.eof else None


def _unshuffle(shuffled: _Bytes, width: int = 0, *_others: int) -> _Bytes | None:
    """Put together the bytes of each value, of which the file holds all first ones, all second ones and so on."""
    if width == 0:
        return None
    n = len(shuffled) // width * width
    return np.concatenate([shuffled[:n].reshape(width, -1).T.ravel(), shuffled[n:]])


def _without_checksum(checked: _Bytes) -> _Bytes | None:
    """Take off Fletcher's checksum, if it is right."""
    data, checksum = checked[:-_CHECKSUM], checked[-_CHECKSUM:].tobytes()
    low = high = 0
    words = np.concatenate([data, np.zeros(len(data) % 2, np.uint8)]).view(">u2")
    for start in range(0, len(words), _CHECKED_WORDS):
        piece = words[start : start + _CHECKED_WORDS].astype(np.int64)
        high += len(piece) * low + int(piece @ np.arange(len(piece), 0, -1))
        low += int(piece.sum())
    # zero counts as 65535, as HDF5 adds the carry to the sum
    found = [int.from_bytes(checksum[at : at + 2], "little") % 0xFFFF for at in (0, 2)]
    return data if found == [low % 0xFFFF, high % 0xFFFF] else None
