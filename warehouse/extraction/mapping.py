"""The convolutions among named arrays: which of them are weights of one, in which order, and of what kind.

Gets a state dict, an object that has one, or what a reader of files found of the like; hands on the layers.
Names and shapes are all there is: a graph there is none, so depth is order.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from warehouse.errors import SourceError
from warehouse.extraction.model import DEQUANTISED, Array, Found, Layer, Load, convolution_kind, out_channels_first

ORDER_NOTE = "conv_depth is the order of the convolutions in the {}, which holds no graph"

_STATES = (
    *("state_dict", "model_state_dict", "model_state", "params_ema", "params", "model", "net", "network", "weights"),
    *("generator", "netG", "module"),
)
"""Under what name checkpoints keep the weights, those first that are used for inference."""

_BESIDE_THE_MODEL = re.compile(r"optim|sched|scaler|momentum|loss|amp|lr|args|config|hyper", re.IGNORECASE)
_PREFIXES = ("module.", "_orig_mod.", "model.module.")
_WEIGHT_ENDINGS = re.compile(r"[./](weight|kernel|kernel:0|w)$")
_NO_WEIGHTS = re.compile(r"bias|embed|token|mask|anchor|running|mean|var$|scale|gamma|beta|grid|table", re.IGNORECASE)
_REPARAMETRISED = re.compile(r"(weight_[gv]|weight_orig|parametrizations\.weight\.original\d*)$")
_TRANSPOSED = re.compile(r"transpose|deconv", re.IGNORECASE)
_MAX_NESTING = 5


@dataclass(frozen=True)
class Tensor:
    """A named array, its axes in PyTorch's order: ``(out, in of a group, height, width)``.

    The first two are the other way round where it belongs to a transposed convolution. ``kind`` and ``groups`` are
    what is known of the layer.
    """

    name: str
    shape: tuple[int, ...]
    is_number: bool = True
    quantised: bool = False
    kind: str | None = None
    groups: int | None = None


def found_in(
    tensors: Sequence[Tensor],
    open_: Callable[[], AbstractContextManager[Callable[[str], Array]]],
    *,
    format_: str,
    checksum: str,
    notes: tuple[str, ...],
) -> Found:
    """What a reader of named arrays found, by their names and shapes.

    Parameters
    ----------
    tensors
        All named arrays in the order of the model.
    open_
        Gives access to the values by name, for the length of a ``with`` block.
    format_, checksum, notes
        As in `Found`.
    """
    for name, n in Counter(tensor.name for tensor in tensors).items():
        if n > 1:
            raise SourceError(f"{n} tensors are called {name!r}")
    layers, unreadable = _layers(tensors)

    @contextmanager
    def opened() -> Iterator[Load]:
        with open_() as read:

            def load(layer: Layer) -> Array:
                values = read(str(layer.key))
                if values.dtype != np.float64:
                    values = values.astype(np.float32)
                return out_channels_first(values, layer.groups or 1) if layer.kind == "transposed" else values

            yield load

    return Found(format_, layers, opened, checksum, computed=unreadable, notes=notes)


def _layers(tensors: Sequence[Tensor]) -> tuple[list[Layer], list[tuple[str, str]]]:
    """The 2-D convolutions among tensors, and those that cannot be read, with the reason.

    A layer with one input channel is taken for depthwise, unless it is the first: that may see one channel.
    """
    layers: list[Layer] = []
    unreadable: list[tuple[str, str]] = []
    for tensor in tensors:
        if len(tensor.shape) != 4 or 0 in tensor.shape or _NO_WEIGHTS.search(re.split(r"[./]", tensor.name)[-1]):
            continue
        name = _WEIGHT_ENDINGS.sub("", tensor.name)
        if _REPARAMETRISED.search(tensor.name):
            if not tensor.name.endswith(("weight_g", "original0")):
                unreadable.append((name, "their weights are reparametrised (fold them before saving)"))
            continue
        if not (tensor.is_number or tensor.quantised):
            unreadable.append((name, "their weights are integers without a scale"))
            continue
        out_channels, in_channels, height, width = tensor.shape
        kind, groups = tensor.kind, tensor.groups
        if kind is None and _TRANSPOSED.search(tensor.name):
            kind = "transposed"
        if kind is None and in_channels == 1 and out_channels > 1 and layers:
            kind = "depthwise"
        if kind == "transposed":
            out_channels, in_channels = in_channels * (groups or 1), out_channels // (groups or 1)
        layers.append(
            Layer(
                name=name,
                shape=(out_channels, in_channels, height, width),
                position=len(layers),
                key=tensor.name,
                groups=groups,
                kind=kind,
                notes=(DEQUANTISED,) if tensor.quantised else (),
            )
        )
    return layers, unreadable


def by_number(name: str) -> list[tuple[int, str]]:
    """Sort ``layer2`` before ``layer10``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", name)]


def find_state(given: Mapping[Any, Any], is_array: Callable[[object], bool]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The named arrays of a checkpoint, which may lie within others and carry a prefix.

    Returns
    -------
    tuple
        Names and arrays, and notes: under what name they were found.

    Raises
    ------
    SourceError
        Several parts could be the model.
    """
    path: list[str] = []
    while not any(is_array(value) and len(value.shape) == 4 for value in given.values()) and len(path) < _MAX_NESTING:
        inner = {str(key): value for key, value in given.items() if isinstance(value, Mapping)}
        holders = [key for key, value in inner.items() if _holds_weights(value, is_array)]
        known = [key for key in _STATES if key in holders]
        likely = known[:1] or [key for key in holders if not _BESIDE_THE_MODEL.search(key)]
        if not likely:
            break
        if len(likely) > 1:
            raise SourceError(
                f"it holds several sets of weights ({', '.join(likely[:6])}); save the one that is meant by itself"
            )
        path.append(likely[0])
        given = inner[likely[0]]
    arrays = {str(key): value for key, value in given.items() if is_array(value)}
    for prefix in _PREFIXES:
        if arrays and all(name.startswith(prefix) for name in arrays):
            arrays = {name.removeprefix(prefix): value for name, value in arrays.items()}
    return arrays, (f"the weights under {'.'.join(path)!r}",) if path else ()


def _holds_weights(given: Mapping[Any, Any], is_array: Callable[[object], bool]) -> bool:
    """Whether some array of four axes lies in a mapping or in those within; each is looked at once."""
    seen, waiting = {id(given)}, [given]
    while waiting:
        for value in waiting.pop().values():
            if is_array(value) and len(value.shape) == 4:
                return True
            if isinstance(value, Mapping) and id(value) not in seen:
                seen.add(id(value))
                waiting.append(value)
    return False


def read_object(model: object) -> Found:
    """Find the convolutions of a mapping of names to arrays, or of an object with ``state_dict()``.

    Raises
    ------
    SourceError
        It is neither.
    """
    known: dict[str, tuple[str, int]] = {}
    if isinstance(model, Mapping):
        state: Any = model
    elif callable(getattr(model, "state_dict", None)):
        state = model.state_dict()  # type: ignore[attr-defined]
        known = _known_convolutions(model)
    else:
        raise SourceError(
            f"a {type(model).__name__} is no model: give the path of a file, a mapping of names to arrays, "
            "or an object with state_dict()"
        )
    arrays, notes = find_state(state, _is_array)
    tensors = []
    for name, array in arrays.items():
        kind, groups = known.get(name, (None, None))
        quantised = bool(getattr(array, "is_quantized", False))
        tensors.append(Tensor(name, tuple(map(int, array.shape)), _is_floating(array), quantised, kind, groups))

    @contextmanager
    def open_() -> Iterator[Callable[[str], Array]]:
        yield lambda name: _as_numpy(arrays[name])

    notes = (*notes, ORDER_NOTE.format("mapping"))
    found = found_in(tensors, open_, format_="mapping", checksum="", notes=notes)
    return replace(found, checksum=_checksum(found))


def _checksum(found: Found) -> str:
    digest = hashlib.sha256()
    with found.open() as load:
        for layer in found.layers:
            values = load(layer)
            digest.update(f"{layer.name} {layer.shape} {values.dtype.str} ".encode(errors="replace"))
            digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def _known_convolutions(model: Any) -> dict[str, tuple[str, int]]:
    """By the name of their weights, kind and groups of the 2-D convolutions of a module that lists its own."""
    known: dict[str, tuple[str, int]] = {}
    if not callable(getattr(model, "named_modules", None)):
        return known
    for name, module in model.named_modules():
        weight: Any = getattr(module, "weight", None)
        groups = getattr(module, "groups", None)
        if callable(weight):  # quantised modules make it when asked
            weight = weight()
        if isinstance(groups, int) and len(getattr(weight, "shape", ())) == 4:
            kind = "transposed" if getattr(module, "transposed", False) else convolution_kind(groups, weight.shape[1])
            known[_without_prefix(f"{name}.weight" if name else "weight")] = (kind, groups)
    return known


def _without_prefix(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _is_array(value: object) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _is_floating(array: Any) -> bool:
    if isinstance(array.dtype, np.dtype):
        return array.dtype.kind == "f" or array.dtype.name == "bfloat16"
    return "float" in str(array.dtype)


def _as_numpy(array: Any) -> Array:
    """An array of NumPy's, of PyTorch's on whatever device, or of anything that NumPy takes."""
    if getattr(array, "is_quantized", False):
        array = array.dequantize()
    if hasattr(array, "detach"):
        array = array.detach().cpu()
        if "bfloat16" in str(array.dtype):
            array = array.float()
    return np.asarray(array)
