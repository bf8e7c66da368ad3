"""Read the one variable-length value of a dataset: PyTables' pickled rows, or the text of a CSV file.

HDF5 would allocate whatever length a damaged file declares, up to 4 GiB; here nothing is taken that the file does not
hold. Layout: HDF5 file format specification 3.0, III.E "Disk Format: Level 1E - Global Heap".
"""

import math
import os
import struct
from pathlib import Path
from typing import BinaryIO

import h5py

from warehouse import chunks
from warehouse.errors import SourceError

MAX_BYTES = 64 << 20
"""The most that one value may occupy; those of real files take a few megabytes."""

_REFERENCE = struct.Struct("<IQI")  # length, address of the heap collection, index in it
_COLLECTION = struct.Struct("<4s4xQ")  # signature, size
_OBJECT = struct.Struct("<HHIQ")  # index, number of references, reserved, size


def read_value(dataset: h5py.Dataset) -> bytes:
    """Read the value of a dataset of one variable-length sequence of bytes or text.

    Raises
    ------
    SourceError
        If the value is larger than `MAX_BYTES`, not in the file, or stored in a way that is not read.
    """
    kind = dataset.id.get_type()
    is_text = isinstance(kind, h5py.h5t.TypeStringID)
    if not is_text and not (isinstance(kind, h5py.h5t.TypeVlenID) and kind.get_super().get_size() == 1):
        raise SourceError(f"{dataset.name} holds {kind.dtype}; text and sequences of bytes are read")
    file = dataset.file
    if file.id.get_create_plist().get_sizes() != (8, 8):
        raise SourceError(f"{file.filename} has addresses of another size than 8 bytes; repack it with h5repack")
    with Path(file.filename).open("rb") as raw:
        length, address, index = _REFERENCE.unpack(_reference(dataset, raw))
        if length > MAX_BYTES:
            raise SourceError(f"{dataset.name} declares {length:,} bytes: too many for a table of layers, or damaged")
        value = _object(raw, address + file.userblock_size, index) if length else b""
    if len(value) != length:
        raise SourceError(f"{dataset.name} declares {length:,} bytes and holds {len(value):,}: damaged")
    return value


def _reference(dataset: h5py.Dataset, raw: BinaryIO) -> bytes:
    """Length, collection and index of the value, as the dataset holds them."""
    if dataset.chunks is None:
        offset = dataset.id.get_offset()
        if offset is None:
            raise SourceError(f"{dataset.name} is stored within its header; repack it with h5repack -l CONTI")
        return _read(raw, offset, _REFERENCE.size)
    size = _REFERENCE.size * math.prod(dataset.chunks)
    if size > chunks.CACHE or dataset.id.get_storage_size() > os.fstat(raw.fileno()).st_size:
        raise SourceError(f"{dataset.name} is stored in chunks of {size:,} bytes, for one value: damaged")
    return chunks.read_chunk(dataset, (0,) * dataset.ndim, _REFERENCE.size)[: _REFERENCE.size].tobytes()


def _object(raw: BinaryIO, address: int, index: int) -> bytes:
    """An object of the heap collection at an address."""
    signature, size = _COLLECTION.unpack(_read(raw, address, _COLLECTION.size))
    position, end = address + _COLLECTION.size, address + size
    while signature == b"GCOL" and position + _OBJECT.size <= end:
        found, _, _, size = _OBJECT.unpack(_read(raw, position, _OBJECT.size))
        position += _OBJECT.size
        if found == index and index > 0:
            return _read(raw, position, size)
        if found == 0:
            break
        position += -(-size // 8) * 8
    raise SourceError(f"a variable-length value is missing at byte {address:,}: damaged")


def _read(raw: BinaryIO, position: int, size: int) -> bytes:
    if position + size > os.fstat(raw.fileno()).st_size:
        raise SourceError(f"a variable-length value leads to byte {position:,}, beyond the end of the file: damaged")
    raw.seek(position)
    return raw.read(size)
