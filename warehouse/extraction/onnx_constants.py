"""The value of what an ONNX graph computes from constants alone, as exporters leave weights behind.

Gets the name of a value; hands on its array if it is an initialiser or a constant, perhaps transposed, reshaped,
cast or quantised. Anything else counts as computed by the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto

from warehouse.errors import SourceError
from warehouse.extraction.model import Array
from warehouse.extraction.onnx_file import OnnxFile, Stored
from warehouse.extraction.onnx_graph import producers

_MAX_STEPS = 100  # from a weight back to its initialiser; exporters need three or four


@dataclass(frozen=True)
class Constant:
    """An array, and whether it was kept in fewer levels than its type has."""

    array: Array
    quantised: bool = False


class Computed(Exception):  # noqa: N818 - not an error: a finding
    """A value that the network computes; the text says by what."""


class Scope:
    """The values of a graph by name, and those of the graphs around it."""

    def __init__(self, file: OnnxFile, graph: onnx.GraphProto, around: Scope | None = None) -> None:
        self.nodes = list(graph.node)
        for number, node in enumerate(self.nodes):
            # what is not UTF-8 comes as bytes
            if not all(isinstance(text, str) for text in (node.name, node.op_type, *node.input, *node.output)):
                raise SourceError(f"node {number} has a name that is not text: damaged")
        self._file = file
        self._around = around
        self._makers = producers(self.nodes)
        self._tensors: dict[str, Stored | onnx.TensorProto] = dict(file.initializers) if around is None else {}
        for tensor in graph.initializer:
            if tensor.name in self._tensors:
                raise SourceError(f"two initialisers are called {tensor.name!r}")
            self._tensors[tensor.name] = tensor
        self.given = [value.name for value in graph.input if value.name not in self._tensors]

    def readers(self, name: str, op_type: str) -> list[NodeProto]:
        """The nodes of one operator that read a value."""
        return [node for node in self.nodes if node.op_type == op_type and name in node.input]

    def makers(self, names: list[str]) -> list[NodeProto]:
        """The nodes of this graph that make some values."""
        return [self.nodes[self._makers[name]] for name in names if name in self._makers]

    def constant(self, name: str, steps: int = 0) -> Constant:
        """Work out a value.

        Raises
        ------
        Computed
            It depends on an input, or on an operator that is not among those of a weight's layout.
        SourceError
            A tensor that does not hold what it declares, or operators that do not fit together.
        """
        if steps > _MAX_STEPS:
            raise Computed(f"more than {_MAX_STEPS} operators away from a constant")
        if name in self._tensors:
            return Constant(self._file.array(self._tensors[name]))
        if name in self._makers:
            node = self.nodes[self._makers[name]]
            if node.domain not in ("", "ai.onnx", "com.microsoft"):
                raise Computed(f"computed by {node.op_type} of {node.domain}")
            try:
                return self._evaluate(node, steps + 1)
            except (ValueError, TypeError, IndexError, KeyError) as error:
                raise SourceError(f"the node {node.name!r} ({node.op_type}) does not fit its input: {error}") from error
        if name in self.given or self._around is None:
            raise Computed("an input of the network")
        return self._around.constant(name, steps)

    def _evaluate(self, node: NodeProto, steps: int) -> Constant:
        settings = attributes(node)
        if node.op_type == "Constant":
            return Constant(self._literal(settings))
        read = [self.constant(name, steps) if name else None for name in node.input] if node.op_type in _STEPS else []
        if not read or read[0] is None:
            raise Computed(f"computed by {node.op_type}")
        step = _STEPS[node.op_type]
        arguments = [None if one is None else one.array for one in read[1:]]
        values = step(read[0].array, *arguments, **settings)
        return Constant(values, read[0].quantised or node.op_type == "DequantizeLinear")

    def _literal(self, settings: Mapping[str, Any]) -> Array:
        if "value" in settings:
            return self._file.array(settings["value"])
        for kind, dtype in (("value_float", "f4"), ("value_floats", "f4"), ("value_int", "i8"), ("value_ints", "i8")):
            if kind in settings:
                return np.array(settings[kind], dtype)
        raise Computed("a sparse or textual constant")


def attributes(node: NodeProto) -> dict[str, Any]:
    """The settings of a node as Python values."""
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def dequantise(
    x: Array, scale: Array, zero_point: Array | None = None, *, axis: int = 1, block_size: int = 0, **_others: Any
) -> Array:
    """What integers stand for: ``(x - zero_point) * scale``, in the type of the scale.

    ``scale`` and ``zero_point`` are single numbers, or one for each place, or block of places, along ``axis``.
    """
    dtype = np.float64 if scale.dtype == np.float64 else np.float32
    whole = x.astype(np.int64)
    if zero_point is not None:
        whole = whole - _spread(zero_point, x, axis, block_size).astype(np.int64)
    # int32, where accumulators may lie, has more digits than float32: ONNX rounds once, after the difference
    values: Array = whole.astype(dtype) * _spread(scale, x, axis, block_size).astype(dtype)
    return values


def _spread(parameter: Array, x: Array, axis: int, block_size: int) -> Array:
    """Lay the parameter of a quantisation along the axis that it belongs to."""
    if parameter.size == 1:
        return parameter.reshape(())
    if block_size:
        repeated: Array = np.repeat(parameter, block_size, axis=axis)
        return repeated[tuple(slice(0, n) for n in x.shape)]
    shape = [1] * x.ndim
    shape[axis] = parameter.size
    return parameter.reshape(shape)


def _quantise(
    x: Array, scale: Array, zero_point: Array | None = None, *, axis: int = 1, block_size: int = 0, **_others: Any
) -> Array:
    dtype = np.dtype(np.uint8) if zero_point is None else zero_point.dtype
    if dtype.kind not in "iu":
        raise Computed(f"quantised to {dtype}")
    bounds = np.iinfo(dtype)
    levels = np.rint(x / _spread(scale, x, axis, block_size))
    if zero_point is not None:
        levels = levels + _spread(zero_point, x, axis, block_size)
    quantised: Array = np.clip(levels, bounds.min, bounds.max).astype(dtype)
    return quantised


def _transpose(x: Array, *, perm: list[int] | None = None) -> Array:
    return np.transpose(x, perm)


def _reshape(x: Array, shape: Array | None = None, *, allowzero: int = 0, **settings: Any) -> Array:
    wanted = [int(n) for n in (settings["shape"] if shape is None else shape)]
    if not allowzero:
        wanted = [x.shape[place] if n == 0 else n for place, n in enumerate(wanted)]
    return x.reshape(wanted)


def _squeeze(x: Array, axes: Array | list[int] | None = None) -> Array:
    return np.squeeze(x, None if axes is None else tuple(int(axis) for axis in axes))


def _unsqueeze(x: Array, axes: Array | list[int]) -> Array:
    return np.expand_dims(x, tuple(int(axis) for axis in axes))


def _cast(x: Array, *, to: int, **_others: Any) -> Array:
    if x.dtype.kind in "OSU":
        raise Computed("cast from text")
    return x.astype(onnx.helper.tensor_dtype_to_np_dtype(to))


def _identity(x: Array) -> Array:
    return x


_STEPS: dict[str, Any] = {
    "Cast": _cast,
    "DequantizeLinear": dequantise,
    "Identity": _identity,
    "QuantizeLinear": _quantise,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
