"""The convolutions of an ONNX model: their weights, and their depths in the graph.

Follows what the authors of CNN Filter DB derive, by its definition: only nodes that depend on an input count,
``Conv`` is what makes a depth a convolution's, and a node's depth is its longest path from an input. It goes
further where their pipeline stops: weights that are not plain initialisers, quantised convolutions, subgraphs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
from onnx import ModelProto, NodeProto

from warehouse.errors import SourceError
from warehouse.extraction.files import checksum, require_stored
from warehouse.extraction.model import DEQUANTISED, Array, Found, Layer, Load, convolution_kind, out_channels_first
from warehouse.extraction.onnx_constants import Computed, Constant, Scope, attributes, dequantise
from warehouse.extraction.onnx_file import OnnxFile
from warehouse.extraction.onnx_graph import MAX_NESTING, longest_paths, subgraphs

# Where an operator has its weights, their scale and their zero point among its inputs.
_CONVOLUTIONS: dict[str, tuple[int, int | None, int | None]] = {
    "Conv": (1, None, None),
    "FusedConv": (1, None, None),  # of ONNX Runtime: with an activation
    "ConvTranspose": (1, None, None),
    "QLinearConv": (3, 4, 5),
    "ConvInteger": (1, None, 3),
}
_DOMAINS = ("", "ai.onnx", "com.microsoft")
_MAX_INLINED = 1_000_000  # nodes
_MAX_BETWEEN = 4  # operators from a ConvInteger to the product with its scale


@dataclass(frozen=True)
class _Site:
    """A convolution where it stands."""

    node: NodeProto
    scope: Scope
    depth: int


class _Walk:
    """A walk through the graph of a file: the convolutions that depend on an input, and those that do not."""

    def __init__(self, file: OnnxFile) -> None:
        self.model = _inlined(file.model)
        self.scope = Scope(file, self.model.graph)
        inputs = dict.fromkeys(self.scope.given, 0)
        self.depths = longest_paths(self.scope.nodes, inputs)
        self.sites: list[_Site] = []
        self.constant: list[str] = []
        self.n_in_subgraphs = 0
        self._visit(file, self.scope, self.depths, inputs, 0)

    def _visit(
        self, file: OnnxFile, scope: Scope, depths: list[int | None], live: Mapping[str, int], nesting: int
    ) -> None:
        """Note the convolutions of a graph and of those within; ``live`` are the values that depend on an input."""
        if nesting > MAX_NESTING:
            raise SourceError(f"graphs lie more than {MAX_NESTING} deep within each other")
        reached = list(zip(scope.nodes, depths, strict=True))
        around = [*live, *(name for node, depth in reached if depth is not None for name in node.output)]
        for node, depth in reached:
            is_convolution = node.op_type in _CONVOLUTIONS and node.domain in _DOMAINS
            if depth is None:
                if is_convolution:
                    self.constant.append(node.name or node.output[0])
                continue
            if is_convolution:
                self.sites.append(_Site(node, scope, depth))
                self.n_in_subgraphs += nesting > 0
            for graph in subgraphs(node):
                # a body begins one node further on than what runs it, and all that it reads is there by then
                inner = Scope(file, graph, scope)
                sources = dict.fromkeys([*around, *inner.given], depth + 1)
                self._visit(file, inner, longest_paths(inner.nodes, sources), sources, nesting + 1)


def read(path: Path) -> Found:
    """Find the convolutions of an ONNX file.

    Raises
    ------
    SourceError
        It is no ONNX model, or is damaged.
    """
    with OnnxFile(path) as file:
        walk = _Walk(file)
        model, depths = walk.model, walk.depths
        operators = Counter(node.op_type for node, n in zip(walk.scope.nodes, depths, strict=True) if n is not None)
        layers, computed, others = [], [], 0
        for number, site in enumerate(walk.sites):
            name = site.node.name or next((name for name in site.node.input[1:2] if name), f"convolution {number}")
            try:
                weights, notes = _weights(site)
            except Computed as finding:
                computed.append((name, f"their weights are {finding}"))
                continue
            if weights.ndim != 4:
                others += 1
                continue
            layers.append(_layer(site, weights.shape, number=number, name=name, notes=notes))
        computed += [(name, "they depend on no input") for name in walk.constant]
        files = [path, *file.external_files()]
        require_stored((layer.shape for layer in layers), files)

    notes = (f"{walk.n_in_subgraphs:,} convolutions in loops or conditions",) if walk.n_in_subgraphs else ()
    return Found(
        format="onnx",
        layers=layers,
        open=lambda: _open(path),
        checksum=checksum(files),
        producer=f"{model.producer_name} {model.producer_version}".strip() or None,
        op_set=_op_set(model),
        depth=len(set(depths) - {None}),
        operators=operators,
        computed=computed,
        other_dimensions=others,
        notes=notes,
    )


@contextmanager
def _open(path: Path) -> Iterator[Load]:
    with OnnxFile(path) as file:
        sites = _Walk(file).sites

        def load(layer: Layer) -> Array:
            try:
                return _weights(sites[int(layer.key)])[0]
            except (Computed, IndexError):
                raise SourceError(f"{layer.name!r} is not what it was; the model was changed in the meantime") from None

        yield load


def _op_set(model: ModelProto) -> int:
    """The version of ONNX's own operators; that of the first others where there are none of these."""
    versions = {opset.domain: opset.version for opset in reversed(model.opset_import)}
    return int(versions.get("", versions.get("ai.onnx", model.opset_import[0].version)))


def _layer(site: _Site, shape: tuple[int, ...], *, number: int, name: str, notes: tuple[str, ...]) -> Layer:
    out_channels, in_channels, height, width = shape
    groups = int(attributes(site.node).get("group", 1))
    transposed = site.node.op_type == "ConvTranspose"
    return Layer(
        name=name,
        shape=(out_channels, in_channels, height, width),
        position=site.depth,
        key=number,
        layer_depth=site.depth,
        groups=groups,
        kind="transposed" if transposed else convolution_kind(groups, in_channels),
        notes=notes,
    )


def _weights(site: _Site) -> tuple[Array, tuple[str, ...]]:
    """The weights of a convolution, out channels first, and what was done to them."""
    weight, scale, zero_point = _CONVOLUTIONS[site.node.op_type]
    found = _input(site, weight)
    if found is None:
        raise Computed("not given")
    values, notes = found.array, (DEQUANTISED,) if found.quantised else ()
    if site.node.op_type in ("QLinearConv", "ConvInteger"):
        by = _input(site, scale) if scale is not None else _scale_of_integers(site)
        zero = _input(site, zero_point) if zero_point is not None else None
        unit = np.ones((), np.float32)
        values = _fitting(site, values, unit if by is None else by.array, None if zero is None else zero.array)
        notes = (DEQUANTISED if by is not None else f"{DEQUANTISED} but for a common factor, which is computed",)
    if values.dtype.kind in "iub":
        raise Computed("integers without a scale")
    if values.dtype != np.float64:
        values = values.astype(np.float32)
    if site.node.op_type == "ConvTranspose" and values.ndim == 4:
        values = out_channels_first(values, int(attributes(site.node).get("group", 1)))
    return values, notes


def _input(site: _Site, place: int) -> Constant | None:
    names = site.node.input
    return site.scope.constant(names[place]) if place < len(names) and names[place] else None


def _fitting(site: _Site, values: Array, scale: Array, zero_point: Array | None) -> Array:
    try:
        return dequantise(values, scale, zero_point, axis=0)
    except ValueError as error:
        raise SourceError(f"the scale of {site.node.name!r} does not fit its weights: {error}") from error


def _scale_of_integers(site: _Site) -> Constant | None:
    """The scale of the weights of a ``ConvInteger``, which dynamic quantisation applies after it.

    The sum, perhaps with a bias and cast, is multiplied by the activation's scale, which is computed, times the
    weights', which is constant.
    """
    scope, value = site.scope, site.node.output[0]
    for _ in range(_MAX_BETWEEN):
        for product in scope.readers(value, "Mul"):
            others = [name for name in product.input if name != value]
            factors = [name for node in scope.makers(others) if node.op_type == "Mul" for name in node.input]
            for name in (*others, *factors):
                with suppress(Computed):
                    return Constant(scope.constant(name).array.reshape(-1))
        following = [*scope.readers(value, "Cast"), *scope.readers(value, "Add")]
        if not following:
            break
        value = following[0].output[0]
    return None


def _inlined(model: ModelProto) -> ModelProto:
    """The model with the bodies of its own functions in place of their calls."""
    if not model.functions:
        return model
    bodies = {(function.domain, function.name, function.overload): function for function in model.functions}
    sizes: dict[tuple[str, str, str], int] = {}

    def size_of(nodes: list[NodeProto], callers: tuple[tuple[str, str, str], ...]) -> int:
        n = 0
        for node in nodes:
            called = (node.domain, node.op_type, node.overload)
            n += 1 + sum(size_of(list(graph.node), callers) for graph in subgraphs(node))
            if called in bodies:
                if called in callers or len(callers) > MAX_NESTING:
                    raise SourceError(f"the function {node.op_type!r} calls itself")
                if called not in sizes:
                    sizes[called] = size_of(list(bodies[called].node), (*callers, called))
                n += sizes[called]
        return n

    n_nodes = size_of(list(model.graph.node), ())
    if n_nodes > _MAX_INLINED:
        raise SourceError(f"its functions make {n_nodes:,} nodes; {_MAX_INLINED:,} are read at most")
    inlined: ModelProto = onnx.inliner.inline_local_functions(model)
    return inlined
