"""Small models for the tests of extraction, made without the code under test."""

import pickle
import struct
import zipfile
from pathlib import Path

import h5py
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

RNG = np.random.default_rng(4)


def weights(*shape: int, dtype: str = "f4") -> np.ndarray:
    return RNG.normal(size=shape).astype(dtype)


def initializer(name: str, values: np.ndarray) -> onnx.TensorProto:
    return numpy_helper.from_array(np.ascontiguousarray(values), name)


def onnx_model(
    nodes: list[onnx.NodeProto],
    initializers: dict[str, np.ndarray] | None = None,
    *,
    inputs: tuple[str, ...] = ("x",),
    outputs: tuple[str, ...] = ("y",),
    opset: int = 13,
    extra_inputs: tuple[onnx.ValueInfoProto, ...] = (),
    functions: tuple[onnx.FunctionProto, ...] = (),
    **settings: object,
) -> onnx.ModelProto:
    def value(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)

    graph = helper.make_graph(
        nodes,
        "graph",
        [*map(value, inputs), *extra_inputs],
        list(map(value, outputs)),
        [initializer(name, values) for name, values in (initializers or {}).items()],
    )
    domains = [helper.make_opsetid("", opset), *(helper.make_opsetid(f.domain, 1) for f in functions)]
    return helper.make_model(graph, opset_imports=domains, functions=list(functions), **settings)


def conv_model(values: np.ndarray, **settings: object) -> onnx.ModelProto:
    """One convolution."""
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv")
    return onnx_model([node], {"w": values}, **settings)


def saved(model: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def plain(value: object) -> bytes:
    """The instructions that push a plain value, from the pickle module."""
    return pickle.dumps(value, 2)[2:-1]


def _name(name: str) -> bytes:
    module, _, attribute = name.rpartition(".")
    return b"c" + f"{module}\n{attribute}\n".encode()


STORAGE_NAMES = {"f4": "Float", "f8": "Double", "f2": "Half", "u2": "BFloat16", "i1": "QInt8", "i8": "Long"}


def pickled_tensor(
    values: np.ndarray,
    key: str,
    *,
    legacy: bool = False,
    shape: tuple[int, ...] | None = None,
    stride: tuple[int, ...] | None = None,
    offset: int = 0,
) -> bytes:
    """Instructions that rebuild a tensor over a storage."""
    shape = values.shape if shape is None else shape
    stride = tuple(step // values.itemsize for step in values.strides) if stride is None else stride
    storage = (
        b"(" + plain("storage") + _name(f"torch.{STORAGE_NAMES[values.dtype.str[1:]]}Storage")
        + plain(key) + plain("cuda:0") + plain(values.size) + (b"N" if legacy else b"") + b"tQ"
    )  # fmt: skip
    hooks = _name("collections.OrderedDict") + b")R"
    arguments = b"(" + storage + plain(offset) + plain(shape) + plain(stride) + b"\x89" + hooks + b"t"
    return _name("torch._utils._rebuild_tensor_v2") + arguments + b"R"


def state_pickle(tensors: dict[str, bytes], around: dict[str, object] | None = None) -> bytes:
    """A checkpoint's pickle: an ordered dictionary of tensors, alone or within a dictionary with plain values."""
    state = _name("collections.OrderedDict") + b")R("
    state += b"".join(plain(name) + tensor for name, tensor in tensors.items()) + b"u"
    if around is not None:
        rest = b"".join(plain(name) + plain(value) for name, value in around.items())
        state = b"}(" + rest + plain("state_dict") + state + b"u"
    return b"\x80\x02" + state + b"."


def raw(values: np.ndarray) -> bytes:
    """The numbers in the order in which they lie in memory."""
    return values.ravel(order="K").tobytes()


def torch_archive(
    path: Path, pickled: bytes, storages: dict[str, bytes], *, compression: int = zipfile.ZIP_STORED
) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        for key, content in storages.items():
            archive.writestr(f"archive/data/{key}", content)
    return path


def save_torch(path: Path, state: dict[str, np.ndarray], around: dict[str, object] | None = None) -> Path:
    """As torch.save writes a state dict since PyTorch 1.6."""
    keys = {name: str(number) for number, name in enumerate(state)}
    pickled = state_pickle({name: pickled_tensor(values, keys[name]) for name, values in state.items()}, around)
    return torch_archive(path, pickled, {keys[name]: raw(values) for name, values in state.items()})


def save_torch_legacy(path: Path, state: dict[str, np.ndarray]) -> Path:
    """As torch.save wrote it before."""
    keys = {name: str(100 - number) for number, name in enumerate(state)}
    tensors = {name: pickled_tensor(values, keys[name], legacy=True) for name, values in state.items()}
    header = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}]
    parts = [pickle.dumps(part, 2) for part in header]
    parts += [state_pickle(tensors), pickle.dumps(list(keys.values()), 2)]
    parts += [struct.pack("<q", values.size) + raw(values) for values in state.values()]
    path.write_bytes(b"".join(parts))
    return path


def save_safetensors_header(path: Path, header: bytes, data: bytes) -> Path:
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path


def keras_layer(class_name: str, name: str, **settings: object) -> dict[str, object]:
    return {"class_name": class_name, "config": {"name": name, **settings}}


def save_keras_2(path: Path, layers: dict[str, dict[str, np.ndarray]], config: str | None = None) -> Path:
    """As Keras 2 and the ``.h5`` of Keras 3 have it: weights by layer and name, with the order in attributes."""
    with h5py.File(path, "w") as file:
        if config is not None:
            file.attrs["model_config"] = config
        root = file.create_group("model_weights")
        root.attrs["layer_names"] = np.array([name.encode() for name in layers])
        for layer, variables in layers.items():
            group = root.create_group(layer)
            group.attrs["weight_names"] = np.array([name.encode() for name in variables])
            for name, values in variables.items():
                group[name] = values
        file.create_group("optimizer_weights")["conv/kernel/momentum:0"] = weights(3, 3, 5, 5)
    return path


def save_keras_3(path: Path, groups: dict[str, tuple[str, list[np.ndarray]]]) -> Path:
    """As Keras 3 has it: groups by class and number, the layer's name in an attribute, numbered variables."""
    with h5py.File(path, "w") as file:
        for group, (name, variables) in groups.items():
            target = file.create_group(f"layers/{group}/vars")
            target.attrs["name"] = name
            for number, values in enumerate(variables):
                target[str(number)] = values
        file["optimizer/vars/2"] = weights(3, 3, 5, 5)
    return path
