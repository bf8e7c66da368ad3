"""An ONNX file whose weights stay in the file: the graph as a message, each tensor read when it is asked for.

Gets a path; hands on a ``ModelProto`` without the graph's initialisers, and their values one at a time. A file
of any size thus takes the memory of its graph and of its largest tensor.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
from onnx import numpy_helper

from warehouse.errors import SourceError
from warehouse.extraction.model import Array

# Numbers of fields in onnx.proto, and the wire types of protocol buffers (protobuf.dev/programming-guides/encoding).
_MODEL_GRAPH = 7
_GRAPH_INITIALIZER = 5
_TENSOR_VALUES = {4, 5, 6, 7, 9, 10, 11}  # all the fields that hold values; 9 is raw_data
_TENSOR_RAW = 9
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

_MAX_ENTRIES = 2_000_000  # nodes and tensors of a graph; the largest real ones have some ten thousand
_MAX_GRAPH_BYTES = 1 << 29  # what is not an initialiser: nodes, and constants within them
_MAX_DIMENSIONS = 64  # what NumPy can hold


@dataclass(frozen=True)
class Stored:
    """Where an initialiser lies in the file, and its message without values."""

    start: int
    stop: int
    header: onnx.TensorProto


class OnnxFile:
    """An ONNX file, open for reading; a context manager.

    Attributes
    ----------
    model
        The message without the initialisers of its main graph.
    initializers
        These, by name; `array` reads them.

    Raises
    ------
    SourceError
        The file is no ONNX model, is truncated, declares tensors that it does not hold, or names external data
        that does not lie in the model's folder.
    """

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("rb")
        self._folder = path.absolute().parent
        try:
            self.initializers: dict[str, Stored] = {}
            self.model = onnx.ModelProto.FromString(self._without_initializers())
            if not self.model.graph.node or not self.model.opset_import:
                raise SourceError("not an ONNX model: it has no nodes, or does not say which operators it uses")
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> OnnxFile:
        return self

    def __exit__(self, *_error: object) -> None:
        self._file.close()

    def array(self, of: Stored | onnx.TensorProto) -> Array:
        """Read the values of an initialiser or of a tensor within the graph.

        Raises
        ------
        SourceError
            It does not hold what it declares.
        """
        tensor = onnx.TensorProto.FromString(_read(self._file, of.start, of.stop)) if isinstance(of, Stored) else of
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            tensor = self._with_external_data(tensor)
        elif tensor.HasField("raw_data"):
            _check_size(tensor, len(tensor.raw_data))
        try:
            values: Array = numpy_helper.to_array(tensor)
        except (ValueError, TypeError, KeyError) as error:
            raise SourceError(f"the tensor {tensor.name!r} does not hold its {_declared(tensor)}: {error}") from error
        return values

    def external_files(self) -> list[Path]:
        """The files beside the model that hold weights, each once."""
        found = {self._external(stored.header)[0] for stored in self.initializers.values() if _is_external(stored)}
        return sorted(found)

    def _without_initializers(self) -> bytes:
        """Read the model but for the initialisers, which are noted."""
        size = os.fstat(self._file.fileno()).st_size
        parts: list[bytes] = []
        for number, wire, first, start, stop in _fields(self._file, 0, size):
            if number != _MODEL_GRAPH or wire != _BYTES:
                parts.append(_read(self._file, first, stop))
                continue
            kept = []
            for entry, entry_wire, entry_first, entry_start, entry_stop in _fields(self._file, start, stop):
                if entry == _GRAPH_INITIALIZER and entry_wire == _BYTES:
                    self._note_initializer(entry_start, entry_stop)
                else:
                    kept.append(_read(self._file, entry_first, entry_stop))
            graph = b"".join(kept)
            parts += [bytes([_MODEL_GRAPH << 3 | _BYTES]), _encode_varint(len(graph)), graph]
        n_bytes = sum(map(len, parts))
        if n_bytes > _MAX_GRAPH_BYTES:
            raise SourceError(f"{n_bytes:,} bytes are not initialisers; {_MAX_GRAPH_BYTES:,} are read at most")
        return b"".join(parts)

    def _note_initializer(self, start: int, stop: int) -> None:
        header, n_raw = [], -1
        for number, _wire, first, value_start, value_stop in _fields(self._file, start, stop):
            if number not in _TENSOR_VALUES:
                header.append(_read(self._file, first, value_stop))
            elif number == _TENSOR_RAW:
                n_raw = value_stop - value_start
        tensor = onnx.TensorProto.FromString(b"".join(header))
        if tensor.name in self.initializers:
            raise SourceError(f"two initialisers are called {tensor.name!r}")
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            self._external(tensor)
        elif n_raw >= 0:
            _check_size(tensor, n_raw)
        self.initializers[tensor.name] = Stored(start, stop, tensor)

    def _with_external_data(self, tensor: onnx.TensorProto) -> onnx.TensorProto:
        path, offset, length = self._external(tensor)
        with path.open("rb") as file:
            values = _read(file, offset, offset + length)
        return onnx.TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type, raw_data=values)

    def _external(self, tensor: onnx.TensorProto) -> tuple[Path, int, int]:
        """Where external data lies: file, offset and length, all checked."""
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        parts = location.replace("\\", "/").split("/")
        if (
            not location
            or "\0" in location
            or location.startswith("/")
            or ".." in parts
            or Path(location).is_absolute()
        ):
            raise SourceError(
                f"the tensor {tensor.name!r} keeps its values in {location!r}; only the model's folder is read"
            )
        folder = self._folder.resolve()
        path = (self._folder / location).resolve()
        if not path.is_relative_to(folder):
            raise SourceError(
                f"the tensor {tensor.name!r} keeps its values in {location!r}, a link that leaves the model's folder"
            )
        try:
            status = path.stat()
        except OSError as error:
            raise SourceError(
                f"the tensor {tensor.name!r} keeps its values in {location!r}, which is not beside the model"
            ) from error
        if not stat.S_ISREG(status.st_mode):
            raise SourceError(f"the tensor {tensor.name!r} keeps its values in {location!r}, not a regular file")
        try:
            offset = int(entries.get("offset") or 0)
            length = int(entries["length"]) if entries.get("length") else status.st_size - offset
        except ValueError:
            raise SourceError(f"the tensor {tensor.name!r} has no number as offset or length in {location!r}") from None
        if offset < 0 or length < 0 or offset + length > status.st_size:
            raise SourceError(
                f"the tensor {tensor.name!r} lies at bytes {offset:,} to {offset + length:,} of {location!r}, "
                f"which has {status.st_size:,}"
            )
        _check_size(tensor, length)
        return path, offset, length


def _is_external(stored: Stored) -> bool:
    return bool(stored.header.data_location == onnx.TensorProto.EXTERNAL)


def _check_size(tensor: onnx.TensorProto, n_bytes: int) -> None:
    """Refuse a tensor whose bytes are not those of its shape, before anything is made of that shape."""
    try:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
    except (KeyError, TypeError) as error:
        raise SourceError(f"the tensor {tensor.name!r} is of an unknown type {tensor.data_type}") from error
    if dtype.kind == "O":  # text
        return
    type_name = onnx.TensorProto.DataType.Name(tensor.data_type)
    bits = (
        4 if "INT4" in type_name or type_name.startswith("FLOAT4") else 2 if "INT2" in type_name else 8 * dtype.itemsize
    )
    if len(tensor.dims) > _MAX_DIMENSIONS or any(n < 0 for n in tensor.dims):
        raise SourceError(f"the tensor {tensor.name!r} has no possible shape")
    expected = (math.prod(tensor.dims) * bits + 7) // 8
    if expected != n_bytes:
        raise SourceError(f"the tensor {tensor.name!r} declares {_declared(tensor)} and holds {n_bytes:,} bytes")


def _declared(tensor: onnx.TensorProto) -> str:
    return f"shape ({', '.join(map(str, tensor.dims[:8]))})"


def _fields(file: BinaryIO, start: int, stop: int) -> Iterator[tuple[int, int, int, int, int]]:
    """The fields of a message that lies at ``start`` to ``stop``.

    Yields
    ------
    Number and wire type of a field, where it begins, and where its content begins and ends.
    """
    n_entries = 0
    while start < stop:
        tag, position = _varint(file, start, stop)
        number, wire = tag >> 3, tag & 7
        first, content = start, position
        if wire == _VARINT:
            _, end = _varint(file, position, stop)
        elif wire == _BYTES:
            length, content = _varint(file, position, stop)
            end = content + length
        elif wire in (_FIXED32, _FIXED64):
            end = position + (4 if wire == _FIXED32 else 8)
        else:
            raise SourceError(f"not an ONNX model: byte {start:,} begins no field")
        if number == 0 or end > stop:
            what = (
                "begins no field" if number == 0 else f"declares {end - content:,} bytes and {stop - content:,} follow"
            )
            raise SourceError(f"not an ONNX model, or truncated: byte {start:,} {what}")
        n_entries += 1
        if n_entries > _MAX_ENTRIES:
            raise SourceError(f"more than {_MAX_ENTRIES:,} nodes and tensors in a graph")
        yield number, wire, first, content, end
        start = end


def _varint(file: BinaryIO, start: int, stop: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first; returns it and where it ends."""
    file.seek(start)
    value = 0
    for n, byte in enumerate(file.read(min(10, stop - start))):
        value |= (byte & 0x7F) << 7 * n
        if byte < 0x80:
            return value, start + n + 1
    raise SourceError(f"not an ONNX model, or truncated: byte {start:,} begins no number")


def _encode_varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def _read(file: BinaryIO, start: int, stop: int) -> bytes:
    file.seek(start)
    values = file.read(stop - start)
    if len(values) < stop - start:
        raise SourceError(f"truncated: {stop - start:,} bytes at {start:,} are not all there")
    return values
