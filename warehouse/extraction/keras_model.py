"""The convolutions of Keras weights: an HDF5 file of Keras 2 or 3, or a ``.keras`` archive.

Kernels lie as (height, width, in, out) and are handed on in PyTorch's order of axes. The configuration beside them
tells the order and the classes of the layers; no layer is ever made, so code in it, such as a Lambda's, stays text.
"""

from __future__ import annotations

import json
import math
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py

from warehouse import hdf5, probe
from warehouse.errors import SourceError
from warehouse.extraction.files import checksum
from warehouse.extraction.mapping import Tensor, by_number, found_in
from warehouse.extraction.model import Array, Found, convolution_kind

WEIGHTS = "model.weights.h5"
"""The weights' place in a ``.keras`` archive."""

_CONFIG = "config.json"
_MAX_CONFIG = 1 << 26  # bytes
_MAX_NESTING = 20
_MAX_NAMES = 100_000  # of layers, or of the weights of one
_CLASS_IN_NAME = re.compile(r"(separable_conv2d|depthwise_conv2d|conv2d_transpose|conv2d)(_\d+)?")
_ORDERED = "conv_depth is the order of the layers in the model's configuration, whose graph is not followed"
_UNORDERED = "conv_depth is the order of the layers in the file, which has no configuration and no graph"


class _Class(NamedTuple):
    """What the configuration says of a layer."""

    name: str
    groups: int


@dataclass(frozen=True)
class _Kernel:
    """A dataset that may be a kernel, by the layer that it belongs to."""

    path: str
    layer: str
    variable: str
    class_name: str
    groups: int | None


OpenFile = Callable[[], AbstractContextManager[h5py.File]]


def read_hdf5(path: Path) -> Found:
    """Find the convolutions of an HDF5 file of Keras.

    Raises
    ------
    SourceError
        It holds no Keras weights, or is damaged.
    """
    with h5py.File(path, "r") as file:
        text = _attribute(file, "model_config", 1)
        config = json.loads(text) if isinstance(text, str | bytes) else None
    return _found(path, config, lambda: h5py.File(path, "r"))


def read_archive(path: Path) -> Found:
    """Find the convolutions of a ``.keras`` archive.

    Raises
    ------
    SourceError
        Its weights are compressed, which Keras never does, or it is damaged.
    """
    config = None
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
        if members[WEIGHTS].compress_type != zipfile.ZIP_STORED:
            raise SourceError(f"{WEIGHTS} is compressed, which Keras never does; unpack it and give it by itself")
        if _CONFIG in members:
            if members[_CONFIG].file_size > _MAX_CONFIG:
                raise SourceError(f"{_CONFIG} has more than {_MAX_CONFIG:,} bytes")
            config = json.loads(archive.read(_CONFIG))
    probe.require_survivable(path, WEIGHTS)

    @contextmanager
    def open_file() -> Iterator[h5py.File]:
        with zipfile.ZipFile(path) as archive, archive.open(WEIGHTS) as member, h5py.File(member, "r") as file:
            yield file

    return _found(path, config, open_file)


def _found(path: Path, config: object, open_file: OpenFile) -> Found:
    classes = dict(_classes(config, 0))
    with open_file() as file:
        kernels = list(_kernels(file, classes))
        place = {layer: number for number, layer in enumerate(classes)}
        kernels.sort(key=lambda kernel: place.get(kernel.layer, len(place)))
        tensors = [_tensor(file, kernel) for kernel in kernels]
    by_name = {tensor.name: kernel for tensor, kernel in zip(tensors, kernels, strict=True)}

    @contextmanager
    def open_() -> Iterator[Callable[[str], Array]]:
        with open_file() as opened:
            yield lambda name: _torch_axes(hdf5.contents(_dataset(opened, by_name[name].path)), by_name[name])

    notes = (_ORDERED if classes else _UNORDERED,)
    return found_in(tensors, open_, format_="keras", checksum=checksum([path]), notes=notes)


def _classes(config: object, nesting: int) -> Iterator[tuple[str, _Class]]:
    """The layers of a model and of the models within it, in their order, by name."""
    inner = config.get("config") if isinstance(config, dict) else None
    layers = inner.get("layers") if isinstance(inner, dict) else inner  # old sequential models are a bare list
    if not isinstance(layers, list) or nesting > _MAX_NESTING:
        return
    for layer in layers:
        settings = layer.get("config") if isinstance(layer, dict) else None
        if isinstance(settings, dict):
            groups = settings.get("groups", 1)
            class_ = _Class(str(layer.get("class_name")).lower(), groups if isinstance(groups, int) else 1)
            yield str(settings.get("name")), class_
        yield from _classes(layer, nesting + 1)


def _kernels(file: h5py.File, classes: Mapping[str, _Class]) -> Iterator[_Kernel]:
    root = hdf5.member(file, "model_weights") or file
    found = _named(root) if "layer_names" in root.attrs else _numbered(file)
    for path, layer, variable in found:
        dataset = _dataset(file, path)
        if len(dataset.shape or ()) == 4:
            in_name = _CLASS_IN_NAME.search(path.split("/vars/")[0] if "/vars/" in path else layer)
            class_ = classes.get(layer, _Class("" if in_name is None else in_name[1].replace("_", ""), 0))
            if class_.name == "separableconv2d":
                is_pointwise = variable in ("1", "pointwise_kernel")
                class_, variable = (
                    (_Class("conv2d", 1), "pointwise_kernel")
                    if is_pointwise
                    else (_Class("depthwiseconv2d", 1), "depthwise_kernel")
                )
            yield _Kernel(path, layer, "kernel" if variable == "0" else variable, class_.name, class_.groups or None)


def _named(root: h5py.Group) -> Iterator[tuple[str, str, str]]:
    """Path, layer and variable as Keras 2 keeps them: each layer lists the names of its weights, in order."""
    for top in _texts(root, "layer_names"):
        group = _descend(root, top)
        if not isinstance(group, h5py.Group):
            raise SourceError(f"the layer {top!r} has no weights; the file is damaged")
        for weight in _texts(group, "weight_names"):
            # of a model within the model, the layer is in the names of the weights
            *_, layer, variable = ["", top, *weight.split("/")][-3:] if "/" in weight else ("", top, weight)
            yield f"{group.name}/{weight}", layer, variable.removesuffix(":0")


def _numbered(file: h5py.File) -> Iterator[tuple[str, str, str]]:
    """Path, layer and variable as Keras 3 keeps them: groups by class and number, their variables numbered."""
    paths = [path for path in _datasets(file, "", 0) if "/vars/" in path and not path.startswith("/optimizer")]
    if not paths:
        raise SourceError(f"an HDF5 file without Keras weights; it holds {sorted(file)[:5]}")
    for path in sorted(paths, key=by_number):
        owner, _, variable = path.rpartition("/vars/")
        name = _attribute(_descend(file, f"{owner}/vars"), "name", 1)
        yield path, str(name) if name is not None else owner.replace("/layers/", "/").strip("/"), variable


def _datasets(group: h5py.Group, path: str, nesting: int) -> Iterator[str]:
    if nesting > _MAX_NESTING:
        raise SourceError(f"groups lie more than {_MAX_NESTING} deep within each other")
    for name in group:
        member = hdf5.member(group, name)
        if isinstance(member, h5py.Group):
            yield from _datasets(member, f"{path}/{name}", nesting + 1)
        elif isinstance(member, h5py.Dataset):
            yield f"{path}/{name}"


def _tensor(file: h5py.File, kernel: _Kernel) -> Tensor:
    dataset = _dataset(file, kernel.path)
    if dataset.size * dataset.dtype.itemsize > hdf5.MAX_BYTES:
        raise SourceError(f"{dataset.name} declares {dataset.shape}, more than {hdf5.MAX_BYTES:,} bytes")
    if dataset.size and not dataset.id.get_storage_size():
        raise SourceError(f"{dataset.name} declares {dataset.shape} and holds nothing: it was never written")
    height, width, n_in, n_out = map(int, dataset.shape)
    shape, kind, groups = (n_out, n_in, height, width), None, kernel.groups
    if _is_depthwise(kernel):
        shape, kind, groups = (n_in * n_out, 1, height, width), "depthwise", n_in
    elif "transpose" in kernel.class_name:
        kind = "transposed"
    elif groups is not None:
        kind = convolution_kind(groups, n_in)
    return Tensor(f"{kernel.layer}/{kernel.variable}", shape, dataset.dtype.kind == "f", kind=kind, groups=groups)


def _is_depthwise(kernel: _Kernel) -> bool:
    return "depthwise" in kernel.class_name or "depthwise" in kernel.variable


def _torch_axes(values: Array, kernel: _Kernel) -> Array:
    """A kernel (height, width, in, out) as (out, in, height, width); a depthwise one as (in * out, 1, ...)."""
    if _is_depthwise(kernel):
        height, width, n_in, n_out = values.shape
        return values.transpose(2, 3, 0, 1).reshape(n_in * n_out, 1, height, width)
    return values.transpose(3, 2, 0, 1)


def _dataset(file: h5py.File, path: str) -> h5py.Dataset:
    folder, _, name = path.rpartition("/")
    group = _descend(file, folder)
    if not isinstance(group, h5py.Group):
        raise SourceError(f"{path} is missing; the file is damaged")
    return hdf5.dataset(group, name)


def _descend(group: h5py.Group, path: str) -> Any:
    """The member at a path, links not followed; None if there is none."""
    found: Any = group
    for name in filter(None, path.split("/")):
        if not isinstance(found, h5py.Group):
            return None
        found = hdf5.member(found, name)
    return found


def _texts(group: h5py.Group, attribute: str) -> list[str]:
    """The names in an attribute, none where there is none."""
    names = _attribute(group, attribute, _MAX_NAMES)
    return [] if names is None else [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _attribute(group: h5py.Group, name: str, most: int) -> Any:
    """An attribute of at most so many elements; None if there is none."""
    if name not in group.attrs:
        return None
    n = math.prod(group.attrs.get_id(name).shape)
    if n > most:
        raise SourceError(f"{group.name} declares {n:,} elements in {name}: damaged")
    return group.attrs[name]
