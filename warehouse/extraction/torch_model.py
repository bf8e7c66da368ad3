"""The convolutions of a PyTorch checkpoint, read without PyTorch: a zip archive, or the older single file.

The pickle inside is interpreted by `torch_pickle`, which runs nothing; the numbers lie beside it, uncompressed,
and are read tensor by tensor.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from warehouse.errors import SourceError
from warehouse.extraction import torch_pickle
from warehouse.extraction.files import checksum, require_stored
from warehouse.extraction.mapping import ORDER_NOTE, Tensor, find_state, found_in
from warehouse.extraction.model import Array, Found
from warehouse.extraction.torch_pickle import Storage, Stored

_MAX_PICKLE = 1 << 24  # bytes; a state dict takes some 200 a tensor
_LOCAL_HEADER = 30  # bytes before a member's name in a zip archive


@dataclass(frozen=True)
class _Numbers:
    """Where in the file the elements of each storage begin, by key, and their byte order."""

    starts: Mapping[str, int]
    order: str = "<"


def read_archive(path: Path) -> Found:
    """Find the convolutions of a checkpoint of PyTorch 1.6 or later, a zip archive.

    Raises
    ------
    SourceError
        It is damaged, compressed, or needs classes that a state dict does not.
    """
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        members = {info.filename: info for info in archive.infolist()}
        pickled = next(name for name in members if name == "data.pkl" or name.endswith("/data.pkl"))
        folder = pickled.removesuffix("data.pkl")
        if members[pickled].file_size > _MAX_PICKLE:
            raise SourceError(f"its pickle has {members[pickled].file_size:,} bytes; {_MAX_PICKLE:,} are read at most")
        described, _ = torch_pickle.load(archive.read(pickled))
        order = _byte_order(archive, members.get(f"{folder}byteorder"))
        starts = {}
        for storage in {tensor.storage for tensor in _tensors(described)}:
            member = members.get(f"{folder}data/{storage.key}")
            if member is None:
                raise SourceError(f"the storage {storage.key!r} is missing")
            n_bytes = storage.n * _item_size(storage)
            if member.compress_type != zipfile.ZIP_STORED:
                raise SourceError(f"{member.filename} is compressed, which torch.save never does; unpack and store it")
            if member.file_size < n_bytes or member.file_size != member.compress_size:
                raise SourceError(f"{member.filename} has {member.file_size:,} bytes, its tensors need {n_bytes:,}")
            starts[storage.key] = _start(file, member)
    return _found(path, described, _Numbers(starts, order))


def read_legacy(path: Path) -> Found:
    """Find the convolutions of a checkpoint in the single-file form, from before PyTorch 1.6.

    Five pickles lie in a row (a magic number, a version, the writer's types, the state, the keys of the storages),
    then for each storage its number of elements and these.

    Raises
    ------
    SourceError
        It is damaged, or needs classes that a state dict does not.
    """
    with path.open("rb") as file:
        head = file.read(_MAX_PICKLE)
        size = path.stat().st_size
        position, parts = 0, []
        for _ in range(5):
            part, position = torch_pickle.load(head, position)
            parts.append(part)
        _magic, _version, system, described, keys = parts
        storages = {tensor.storage.key: tensor.storage for tensor in _tensors(described)}
        if not isinstance(keys, list) or set(storages) - set(map(str, keys)):
            raise SourceError("its storages are not those of its tensors")
        order = "<" if not isinstance(system, dict) or system.get("little_endian", True) else ">"
        starts = {}
        for key in map(str, keys):
            file.seek(position)
            n = int.from_bytes(file.read(8), "little" if order == "<" else "big", signed=True)
            if key not in storages:
                raise SourceError(f"the storage {key!r} is used by no tensor, so that its end is unknown")
            starts[key] = position + 8
            position += 8 + n * _item_size(storages[key])
            if n != storages[key].n or position > size:
                raise SourceError(f"the storage {key!r} should have {storages[key].n:,} elements: damaged or truncated")
    return _found(path, described, _Numbers(starts, order))


def _found(path: Path, described: Any, numbers: _Numbers) -> Found:
    if not isinstance(described, Mapping):
        raise SourceError(f"a checkpoint of something else than named weights ({type(described).__name__})")
    state, notes = find_state(described, lambda value: isinstance(value, Stored))
    tensors = [
        Tensor(name, tensor.shape, is_number=_is_floating(tensor), quantised=tensor.scale is not None)
        for name, tensor in state.items()
    ]
    require_stored((tensor.shape for tensor in tensors), [path])

    @contextmanager
    def open_() -> Iterator[Callable[[str], Array]]:
        with path.open("rb") as file:
            yield lambda name: _values(file, numbers, state[name])

    notes = (*notes, ORDER_NOTE.format("checkpoint"))
    return found_in(tensors, open_, format_="torch", checksum=checksum([path]), notes=notes)


def _tensors(described: Any) -> Iterator[Stored]:
    """All tensors of a description, those of optimizers too: each thing that is repeated once."""
    seen: set[int] = set()
    waiting = [described]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Stored):
            yield one
            waiting += [one.scale, one.zero_point]
        elif isinstance(one, dict | list | tuple) and id(one) not in seen:
            seen.add(id(one))
            waiting += one.values() if isinstance(one, dict) else one


def _values(file: BinaryIO, numbers: _Numbers, tensor: Stored) -> Array:
    """The elements of a tensor as an array; of a quantised one, what they stand for."""
    dtype = tensor.dtype
    raw = np.dtype(numbers.order + ("u2" if dtype == "bfloat16" else dtype))
    file.seek(numbers.starts[tensor.storage.key] + tensor.offset * raw.itemsize)
    data = file.read(tensor.n_span * raw.itemsize)
    if len(data) < tensor.n_span * raw.itemsize:
        raise SourceError(f"the storage {tensor.storage.key!r} is truncated")
    flat = np.frombuffer(data, raw)
    steps = [step * raw.itemsize for step in tensor.stride]
    values = np.lib.stride_tricks.as_strided(flat, tensor.shape, steps, writeable=False)
    if dtype == "bfloat16":
        # the upper half of a float32
        widened: Array = (values.astype(np.uint32) << 16).view(np.float32)
        return widened
    values = values.astype(raw.newbyteorder("="))
    if tensor.scale is None:
        return values
    part = partial(_parameter, file, numbers, tensor)
    levels = values.astype(np.float64) - part(tensor.zero_point)
    dequantised: Array = levels.astype(np.float32) * part(tensor.scale).astype(np.float32)
    return dequantised


def _parameter(file: BinaryIO, numbers: _Numbers, tensor: Stored, given: float | Stored | None) -> Array:
    """A scale or zero point in float64, laid along the axis that it belongs to."""
    if not isinstance(given, Stored):
        return np.array(given, np.float64)
    shape = [1] * len(tensor.shape)
    shape[tensor.axis] = -1
    return _values(file, numbers, given).astype(np.float64).reshape(shape)


def _is_floating(tensor: Stored) -> bool:
    return tensor.dtype == "bfloat16" or np.dtype(tensor.dtype).kind == "f"


def _item_size(storage: Storage) -> int:
    return 2 if storage.dtype == "bfloat16" else np.dtype(storage.dtype).itemsize


def _byte_order(archive: zipfile.ZipFile, member: zipfile.ZipInfo | None) -> str:
    return ">" if member is not None and member.file_size < 16 and archive.read(member) == b"big" else "<"


def _start(file: BinaryIO, member: zipfile.ZipInfo) -> int:
    """Where in the archive a stored member's content begins: after its own header, which may be padded."""
    file.seek(member.header_offset)
    header = file.read(_LOCAL_HEADER)
    if len(header) < _LOCAL_HEADER or not header.startswith(b"PK\x03\x04"):
        raise SourceError(f"{member.filename} does not lie where the archive says: damaged")
    return (
        member.header_offset
        + _LOCAL_HEADER
        + int.from_bytes(header[26:28], "little")
        + int.from_bytes(header[28:30], "little")
    )
