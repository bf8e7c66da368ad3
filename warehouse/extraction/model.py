"""What every reader hands on: the 2-D convolutions of one model, and how to read their weights one at a time.

Gets what a reader found in a file or a mapping; hands on an `ExtractedModel`: its 3x3 layers with their depths,
the counts of its kernels and operators, and notes of what was changed or left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

import numpy as np

from warehouse.errors import SourceError

KERNEL = (3, 3)

DEQUANTISED = "dequantised"
"""The note of weights that were kept as integers."""

Array = np.ndarray


@dataclass(frozen=True)
class Layer:
    """A 2-D convolution.

    Attributes
    ----------
    name
        The node's or, in a mapping, the weights' name without a trailing ``.weight``.
    shape
        ``(out channels, in channels of a group, height, width)`` of the weights.
    position
        What ``conv_depth`` ranks: the depth in the graph or, without one, the place in the mapping.
    layer_depth
        Nodes on the longest path from an input to this one; None without a graph.
    groups
        Groups of the channels; None where only the weights are known.
    kind
        ``standard``, ``grouped``, ``depthwise`` or ``transposed``; None where only the weights are known.
    notes
        What the weights are not as they stand in the file: ``dequantised``.
    conv_depth, conv_depth_norm
        Rank of ``position`` among the model's 2-D convolutions, from 0; divided by the last one, NaN if that is 0.
    key
        By which the reader finds the weights again.
    """

    name: str
    shape: tuple[int, int, int, int]
    position: int
    key: int | str
    layer_depth: int | None = None
    groups: int | None = None
    kind: str | None = None
    notes: tuple[str, ...] = ()
    conv_depth: int = -1
    conv_depth_norm: float = float("nan")

    @property
    def out_channels(self) -> int:
        """Filters of one input channel."""
        return self.shape[0]

    @property
    def in_channels(self) -> int:
        """Input channels that each output channel sees: those of its group."""
        return self.shape[1]

    @property
    def n_filters(self) -> int:
        """Two-dimensional filters: one for each pair of channels."""
        return self.shape[0] * self.shape[1]

    @property
    def kernel(self) -> tuple[int, int]:
        """Height and width of the filters."""
        return self.shape[2:]


Load = Callable[[Layer], Array]
"""Reads the weights of a layer, of its shape, float32 or float64."""


@dataclass(frozen=True)
class Found:
    """What a reader found: all 2-D convolutions in the order of the file, whatever their kernel.

    ``open`` gives access to the weights for the length of a ``with`` block; ``computed`` names convolutions
    without readable weights and why; ``other_dimensions`` counts 1-D and 3-D ones.
    """

    format: str
    layers: Sequence[Layer]
    open: Callable[[], AbstractContextManager[Load]]
    checksum: str
    producer: str | None = None
    op_set: int | None = None
    depth: int | None = None
    operators: Mapping[str, int] = field(default_factory=dict)
    computed: Sequence[tuple[str, str]] = ()
    other_dimensions: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExtractedModel:
    """A model as the warehouse takes it. Holds no weights: `weights` reads them anew, one layer at a time.

    Attributes
    ----------
    name
        By which the warehouse calls the model.
    source
        The file as given, or what else the model was: for messages.
    format
        ``onnx``, ``safetensors``, ``torch``, ``keras`` or ``mapping``.
    checksum
        SHA-256 of the file and of its external data, or of a mapping's convolutions.
    labels
        Source columns that the user gave, such as ``Task``.
    layers
        The 3x3 convolutions, by depth.
    kernels
        How many filters of each ``(height, width)`` the model has, transposed convolutions not counted unless taken.
    operators, producer, op_set, depth
        Of an ONNX model: how often each operator depends on an input, who wrote it, the version of its operators,
        at how many depths there are nodes.
    notes
        What was changed or left out, a sentence each.
    """

    name: str
    source: str
    format: str
    checksum: str
    labels: Mapping[str, object]
    layers: tuple[Layer, ...]
    kernels: Mapping[tuple[int, int], int]
    operators: Mapping[str, int]
    producer: str | None
    op_set: int | None
    depth: int | None
    notes: tuple[str, ...]
    open: Callable[[], AbstractContextManager[Load]] = field(repr=False)

    @property
    def n_filters(self) -> int:
        """Number of 3x3 filters."""
        return sum(layer.n_filters for layer in self.layers)

    @property
    def total_filters(self) -> int:
        """Filters of all kernels but 1x1, which the authors leave out."""
        return sum(n for kernel, n in self.kernels.items() if kernel != (1, 1))

    def weights(self) -> Iterator[tuple[Layer, Array]]:
        """Read the weights of the 3x3 layers, one at a time.

        Yields
        ------
        Each layer with its weights, ``(out_channels, in_channels, 3, 3)`` float32 or float64, all finite.

        Raises
        ------
        SourceError
            The file can no longer be read, was changed, or holds NaN or infinite weights.
        """
        with self.open() as load:
            for layer in self.layers:
                values = load(layer)
                if values.shape != layer.shape:
                    raise SourceError(
                        f"{self.source}: {layer.name!r} had the shape {layer.shape} and now has {values.shape}; "
                        "the model was changed in the meantime"
                    )
                n_bad = int(values.size - np.isfinite(values).sum())
                if n_bad:
                    raise SourceError(
                        f"{self.source}: layer {layer.name!r} has {n_bad:,} NaN or infinite weights of {values.size:,}"
                    )
                yield layer, values


def assemble(
    found: Found, *, name: str, source: str, labels: Mapping[str, object], transposed: bool = False
) -> ExtractedModel:
    """Pick the 3x3 layers out of what a reader found, and rank their depths.

    Raises
    ------
    SourceError
        There is no 3x3 convolution, or some weights cannot be read or are not finite.
    """
    taken = [layer for layer in found.layers if transposed or layer.kind != "transposed"]
    ranks = {position: rank for rank, position in enumerate(sorted({layer.position for layer in taken}))}
    last = len(ranks) - 1
    layers = [
        replace(
            layer,
            conv_depth=ranks[layer.position],
            conv_depth_norm=ranks[layer.position] / last if last else float("nan"),
        )
        for layer in sorted(taken, key=lambda layer: layer.position)
        if layer.kernel == KERNEL
    ]
    kernels: Counter[tuple[int, int]] = Counter()
    for layer in taken:
        kernels[layer.kernel] += layer.n_filters
    left_out = len(found.layers) - len(taken)
    notes = tuple(_notes(found, layers, left_out))
    if not layers:
        raise SourceError("; ".join([f"{source}: no 3x3 convolution", _kernels_text(kernels), *notes]))
    model = ExtractedModel(
        name=name,
        source=source,
        format=found.format,
        checksum=found.checksum,
        labels=dict(labels),
        layers=tuple(layers),
        kernels=dict(kernels),
        operators=dict(found.operators),
        producer=found.producer,
        op_set=found.op_set,
        depth=found.depth,
        notes=(*notes, *found.notes),
        open=found.open,
    )
    for _layer, _weights in model.weights():
        pass  # reading them is the check
    return model


def convolution_kind(groups: int, in_channels: int) -> str:
    """What a convolution that is not transposed is called, by its groups and the channels of one group."""
    if groups == 1:
        return "standard"
    return "depthwise" if in_channels == 1 else "grouped"


def out_channels_first(values: Array, groups: int) -> Array:
    """Weights of a transposed convolution, ``(in, out of a group, h, w)``, as ``(out, in of a group, h, w)``.

    Raises
    ------
    SourceError
        The channels do not make so many groups.
    """
    n_in, n_out, height, width = values.shape
    if groups < 1 or n_in % groups:
        raise SourceError(f"a transposed convolution has {n_in} channels in {groups} groups")
    grouped = values.reshape(groups, n_in // groups, n_out, height, width).swapaxes(1, 2)
    return grouped.reshape(groups * n_out, n_in // groups, height, width)


def _kernels_text(kernels: Mapping[tuple[int, int], int]) -> str:
    if not kernels:
        return "it has no 2-D convolution whose weights can be read"
    listed = ", ".join(f"{height}x{width} ({n:,} filters)" for (height, width), n in sorted(kernels.items()))
    return f"its kernels are {listed}"


def _notes(found: Found, layers: Sequence[Layer], left_out: int) -> Iterator[str]:
    changed = Counter(note for layer in layers for note in layer.notes)
    for note, n in changed.items():
        yield f"{_count(n, 'layer')}: {note}"
    if left_out:
        yield f"{_count(left_out, 'transposed convolution')} left out"
    if found.other_dimensions:
        yield f"{_count(found.other_dimensions, 'convolution')} of other than two dimensions left out"
    by_reason: dict[str, list[str]] = {}
    for name, reason in found.computed:
        by_reason.setdefault(reason, []).append(name)
    for reason, names in by_reason.items():
        listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        yield f"{_count(len(names), 'convolution')} skipped, {reason}: {listed}"


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
