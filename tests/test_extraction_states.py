"""Models without a graph: safetensors, PyTorch checkpoints, Keras weights, mappings and objects with a state dict."""

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.extraction_models import (
    keras_layer,
    pickled_tensor,
    plain,
    raw,
    save_keras_2,
    save_keras_3,
    save_safetensors_header,
    save_torch,
    save_torch_legacy,
    state_pickle,
    torch_archive,
    weights,
)
from warehouse.errors import SourceError
from warehouse.extraction import extract

STATE = {
    "stem.weight": weights(4, 3, 3, 3),
    "stem.bias": weights(4),
    "layer2.0.weight": weights(4, 1, 3, 3),
    "layer10.0.weight": weights(6, 4, 3, 3),
    "head.weight": weights(5, 6, 1, 1),
    "position_embed": weights(1, 6, 3, 3),
}
CONVOLUTIONS = [("stem", 0, None), ("layer2.0", 1, "depthwise"), ("layer10.0", 2, None)]


def save_safetensors(path: Path, state: dict[str, np.ndarray]) -> Path:
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(values) for name, values in state.items()}, path)
    return path


SAVE: dict[str, Callable[[Path, dict[str, np.ndarray]], Path]] = {
    "torch": save_torch,
    "torch, before 1.6": save_torch_legacy,
    "safetensors": save_safetensors,
}


def assert_equal(model, state: dict[str, np.ndarray]) -> None:
    for layer, values in model.weights():
        np.testing.assert_array_equal(values, state[f"{layer.name}.weight"].astype(values.dtype))


@pytest.mark.parametrize("kind", ["torch", "torch, before 1.6"])
def test_checkpoints_keep_their_order(kind, tmp_path):
    model = extract(SAVE[kind](tmp_path / "net.pt", STATE), task="Classification")
    assert [(layer.name, layer.conv_depth, layer.kind) for layer in model.layers] == CONVOLUTIONS
    assert [layer.conv_depth_norm for layer in model.layers] == pytest.approx([0, 1 / 3, 2 / 3])
    assert model.kernels == {(3, 3): 12 + 4 + 24, (1, 1): 30}
    assert (model.name, model.format, model.labels["Task"]) == ("net", "torch", "Classification")
    assert "order of the convolutions in the checkpoint" in model.notes[-1]
    assert_equal(model, STATE)


def test_safetensors_are_ordered_by_name_and_number(tmp_path):
    model = extract(save_safetensors(tmp_path / "net.safetensors", STATE))
    assert [layer.name for layer in model.layers] == ["layer2.0", "layer10.0", "stem"]
    assert [layer.conv_depth for layer in model.layers] == [1, 2, 3]
    assert "order of the names" in model.notes[-1]
    assert_equal(model, STATE)


@pytest.mark.parametrize("kind", SAVE)
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_other_precisions_are_read_exactly(kind, dtype, tmp_path):
    state = {"a.weight": weights(2, 2, 3, 3, dtype=dtype)}
    model = extract(SAVE[kind](tmp_path / "net", state))
    ((_, values),) = model.weights()
    assert values.dtype == ("f8" if dtype == "f8" else "f4")
    assert_equal(model, state)


@pytest.mark.parametrize("kind", SAVE)
def test_bfloat16_is_the_upper_half_of_float32(kind, tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    exact = (weights(2, 2, 3, 3).view("u4") & 0xFFFF0000).view("f4")
    halves = (exact.view("u4") >> 16).astype("u2")
    state = {"a.weight": halves.view(ml_dtypes.bfloat16) if kind == "safetensors" else halves}
    ((_, values),) = extract(SAVE[kind](tmp_path / "net", state)).weights()
    np.testing.assert_array_equal(values, exact)


def test_tensors_of_other_strides_and_offsets_are_views(tmp_path):
    numbers = weights(200)
    tensors = {
        "a.weight": pickled_tensor(numbers, "0", shape=(2, 3, 3, 3), stride=(27, 1, 9, 3), offset=20),
        "b.weight": pickled_tensor(numbers, "0", shape=(1, 1, 3, 3), stride=(9, 9, 1, 3), offset=191),
    }
    path = torch_archive(tmp_path / "net.pt", state_pickle(tensors), {"0": raw(numbers)})
    (_, a), (_, b) = extract(path).weights()
    np.testing.assert_array_equal(a, numbers[20:74].reshape(2, 3, 3, 3).transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(b[0, 0], numbers[191:].reshape(3, 3).T)


def test_weights_are_found_within_a_checkpoint_and_their_prefix_goes(tmp_path):
    state = {f"module.{name}": values for name, values in STATE.items()}
    around = {"epoch": 3, "best": 0.91, "args": {"lr": [0.1, 0.2], "arch": "net"}, "names": ("a", None, True)}
    model = extract(save_torch(tmp_path / "net.pt", state, around))
    assert [layer.name for layer in model.layers] == ["stem", "layer2.0", "layer10.0"]
    assert model.notes[0] == "the weights under 'state_dict'"
    assert_equal(model, STATE)


def test_the_real_checkpoint_equals_the_dataset_made_of_it(shared_data):
    model = extract(shared_data / "models" / "resnet20_cifar10.th")
    rows = pd.read_hdf(shared_data / "zoo.h5", "meta").reset_index()
    rows = rows[rows["model"].str.contains("resnet20-")].sort_values("conv_depth")
    assert [layer.conv_depth for layer in model.layers] == list(rows["conv_depth"])
    with h5py.File(shared_data / "zoo.h5") as file:
        for (_, values), ids in zip(model.weights(), rows["filter_ids"], strict=True):
            first, last = map(int, ids.split(":"))
            np.testing.assert_array_equal(values.reshape(-1, 3, 3), file["filters"][first : last + 1])


def test_the_real_checkpoint_as_safetensors_gives_the_same_layers(shared_data, tmp_path):
    model = extract(shared_data / "models" / "resnet20_cifar10.th")
    state = {f"{layer.name}.weight": values for layer, values in model.weights()}
    again = extract(save_safetensors(tmp_path / "net.safetensors", state))
    assert [(layer.name, layer.shape, layer.conv_depth, layer.conv_depth_norm) for layer in again.layers] == [
        (layer.name, layer.shape, layer.conv_depth, layer.conv_depth_norm) for layer in model.layers
    ]
    assert_equal(again, state)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_checkpoints_read_like_with_torch(shared_data, tmp_path):
    torch = pytest.importorskip("torch")
    path = shared_data / "models" / "resnet20_cifar10.th"
    state = torch.load(path, weights_only=True, map_location="cpu")["state_dict"]
    assert_equal(extract(path), {name.removeprefix("module."): values.numpy() for name, values in state.items()})
    a = torch.quantize_per_tensor(torch.randn(2, 2, 3, 3), 0.013, 3, torch.quint8)
    b = torch.quantize_per_channel(torch.randn(2, 1, 3, 3), torch.rand(2) + 0.1, torch.tensor([1, 2]), 0, torch.qint8)
    state = {"a.weight": a, "b.weight": b, "c.weight": torch.randn(3, 3, 3, 3).to(memory_format=torch.channels_last)}
    for is_zip in (True, False):
        torch.save({"model": state}, tmp_path / "net.pt", _use_new_zipfile_serialization=is_zip)
        model = extract(tmp_path / "net.pt")
        assert_equal(model, {name: values.dequantize().numpy() for name, values in state.items()})
        assert model.notes[0] == "2 layers: dequantised"


def test_a_mapping_is_read_where_it_is():
    model = extract(STATE, name="mine")
    assert [(layer.name, layer.conv_depth, layer.kind) for layer in model.layers] == CONVOLUTIONS
    assert (model.name, model.format) == ("mine", "mapping")
    assert_equal(model, STATE)
    assert model.checksum == extract(dict(STATE)).checksum
    assert model.checksum != extract(STATE | {"stem.weight": 2 * STATE["stem.weight"]}).checksum


class Module:
    """As much of a torch.nn.Module as is asked for."""

    def __init__(self) -> None:
        self.modules = {
            "": SimpleNamespace(),
            "a": SimpleNamespace(weight=weights(4, 2, 3, 3), groups=2, transposed=False),
            "b": SimpleNamespace(weight=weights(4, 2, 3, 3), groups=2, transposed=True),
        }

    def state_dict(self) -> dict[str, np.ndarray]:
        return {f"{name}.weight": module.weight for name, module in self.modules.items() if name}

    def named_modules(self):
        return self.modules.items()


def test_a_module_tells_groups_and_kinds():
    module = Module()
    (layer,) = extract(module).layers
    assert (layer.name, layer.kind, layer.groups) == ("a", "grouped", 2)
    assert extract(module).name == "Module"
    _, (layer, values) = extract(module, transposed=True).weights()
    assert (layer.kind, layer.shape) == ("transposed", (4, 2, 3, 3))
    given = module.modules["b"].weight
    np.testing.assert_array_equal(values, np.stack([given[:2, 0], given[:2, 1], given[2:, 0], given[2:, 1]]))


def test_reparametrised_and_integer_weights_are_skipped_and_reported():
    model = extract(
        {
            "a.weight": weights(2, 2, 3, 3),
            "b.weight_v": weights(2, 2, 3, 3),
            "b.weight_g": weights(2, 1, 1, 1),
            "c.weight": np.ones((2, 2, 3, 3), np.int8),
        }
    )
    assert [layer.name for layer in model.layers] == ["a"]
    assert [note.split(" (")[0] for note in model.notes[:2]] == [
        "1 convolution skipped, their weights are reparametrised",
        "1 convolution skipped, their weights are integers without a scale: c",
    ]


KERNEL, DEPTHWISE, INNER = weights(3, 3, 2, 4), weights(3, 3, 4, 2), weights(3, 3, 8, 5)
CONFIG = {
    "class_name": "Functional",
    "config": {
        "layers": [
            keras_layer("Conv2D", "stem", groups=1),
            keras_layer("DepthwiseConv2D", "fan"),
            {"class_name": "Sequential", "config": {"name": "block", "layers": [keras_layer("Conv2D", "late")]}},
            keras_layer("SeparableConv2D", "split"),
            keras_layer("Conv2DTranspose", "up"),
        ]
    },
}
UP, POINT = weights(3, 3, 7, 5), weights(1, 1, 8, 5)
VARIABLES_2 = {
    "up": {"up/kernel:0": UP},
    "split": {"split/depthwise_kernel:0": DEPTHWISE, "split/pointwise_kernel:0": POINT},
    "block": {"late/kernel:0": INNER, "late/bias:0": weights(5)},
    "fan": {"fan/depthwise_kernel:0": DEPTHWISE},
    "stem": {"stem/kernel:0": KERNEL, "stem/bias:0": weights(4)},
}
GROUPS_3 = {
    "conv2d": ("stem", [KERNEL, weights(4)]),
    "conv2d_transpose": ("up", [UP]),
    "depthwise_conv2d": ("fan", [DEPTHWISE]),
    "separable_conv2d": ("split", [DEPTHWISE, POINT]),
    "sequential/layers/conv2d": ("late", [INNER, weights(5)]),
}
EXPECTED = {
    "stem": KERNEL.transpose(3, 2, 0, 1),
    "fan": DEPTHWISE.transpose(2, 3, 0, 1).reshape(8, 1, 3, 3),
    "late": INNER.transpose(3, 2, 0, 1),
    "split/depthwise_kernel": DEPTHWISE.transpose(2, 3, 0, 1).reshape(8, 1, 3, 3),
}


def save_keras_archive(path: Path, *, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", json.dumps(CONFIG))
        archive.write(save_keras_3(path.with_suffix(".h5"), GROUPS_3), "model.weights.h5")
    return path


KERAS = {
    "Keras 2": lambda folder: save_keras_2(folder / "net.h5", VARIABLES_2, json.dumps(CONFIG)),
    "archive": lambda folder: save_keras_archive(folder / "net.keras"),
}


@pytest.mark.parametrize("kind", KERAS)
def test_keras_kernels_come_in_the_order_of_the_layers(kind, tmp_path):
    model = extract(KERAS[kind](tmp_path))
    read = {layer.name.removesuffix("/depthwise_kernel") if layer.name.startswith("fan") else layer.name: values
            for layer, values in model.weights()}  # fmt: skip
    assert list(read) == list(EXPECTED)
    for name, values in read.items():
        np.testing.assert_array_equal(values, EXPECTED[name])
    assert [(layer.kind, layer.groups) for layer in model.layers] == [
        ("standard", 1),
        ("depthwise", 4),
        ("standard", 1),
        ("depthwise", 4),
    ]
    assert [layer.conv_depth for layer in model.layers] == [0, 1, 2, 3]
    assert model.kernels == {(3, 3): 8 + 8 + 40 + 8, (1, 1): 40}
    assert model.notes[0] == "1 transposed convolution left out"
    (*_, (layer, values)) = extract(KERAS[kind](tmp_path), transposed=True).weights()
    np.testing.assert_array_equal(values, UP.transpose(2, 3, 0, 1))
    assert layer.kind == "transposed"


def test_keras_weights_alone_know_classes_by_their_groups(tmp_path):
    model = extract(save_keras_3(tmp_path / "net.weights.h5", GROUPS_3))
    kinds = {layer.name: layer.kind for layer in model.layers}
    assert kinds == {"stem": None, "fan": "depthwise", "split/depthwise_kernel": "depthwise", "late": None}
    assert "no configuration" in model.notes[-1]


class Planted:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("container", ["pickle", "archive", "legacy"])
def test_a_pickle_that_needs_classes_is_refused_with_the_alternative_and_not_run(container, tmp_path):
    path, trace = tmp_path / "net.pt", tmp_path / "trace"
    bomb = pickle.dumps({"state_dict": Planted(trace)}, 2)
    if container == "pickle":
        path.write_bytes(bomb)
    elif container == "archive":
        torch_archive(path, bomb, {})
    else:
        header = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
        path.write_bytes(b"".join([*(pickle.dumps(part, 2) for part in header), bomb, pickle.dumps([], 2)]))
    with pytest.raises(SourceError, match=r"nothing was run.*safetensors") as caught:
        extract(path)
    assert "\n" not in str(caught.value)
    assert not trace.exists()


FLOATS = weights(18)
MANY = weights(64, 64, 3, 3)


def archive_of(tensor: bytes, content: bytes = raw(FLOATS), **settings: int) -> Callable[[Path], Path]:
    return lambda path: torch_archive(path, state_pickle({"a.weight": tensor}), {"0": content}, **settings)


def tensor_of(shape: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> bytes:
    return pickled_tensor(FLOATS, "0", shape=shape, stride=stride, offset=offset)


def repeated(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a/data.pkl", b"")
    return path


def header_of(**tensors: object) -> bytes:
    return json.dumps(tensors).encode()


def f32(*shape: int, end: int) -> dict[str, object]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}


def never_written(path: Path) -> Path:
    save_keras_3(path, {"conv2d": ("a", [])})
    with h5py.File(path, "a") as file:
        file.create_dataset("layers/conv2d/vars/0", (3, 3, 1 << 10, 1 << 10), "f4")
    return path


def linked(path: Path) -> Path:
    save_keras_3(path, {"conv2d": ("a", [])})
    with h5py.File(path, "a") as file:
        file["layers/conv2d/vars/0"] = h5py.ExternalLink("other.h5", "/secret")
    return path


def dataset_file(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file["filters"], file["meta"] = weights(2, 3, 3), 1
    return path


NAN = weights(2, 1, 3, 3)
NAN[0, 0, 1, 1] = np.inf
DUPLICATE = b'{"a":%b,"a":%b}' % ((json.dumps(f32(2, 1, 3, 3, end=72)).encode(),) * 2)
HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a view beyond its storage": (archive_of(tensor_of((2, 1, 3, 3), (9, 9, 3, 1), 4)), "does not fit into its"),
    "a view repeated without end": (archive_of(tensor_of((1 << 40, 1, 3, 3), (0, 9, 3, 1))), "does not fit into"),
    "negative strides": (archive_of(tensor_of((2, 1, 3, 3), (-9, 9, 3, 1))), "no possible shape"),
    "a storage too short": (archive_of(tensor_of((2, 1, 3, 3), (9, 9, 3, 1)), raw(FLOATS)[:-4]), "its tensors need 72"),
    "one storage over and over": (
        lambda path: torch_archive(
            path, state_pickle(dict.fromkeys([f"{i}.weight" for i in range(200)], pickled_tensor(MANY, "0"))),
            {"0": raw(MANY)}),
        r"7,372,800 weights in \d+,\d+ bytes: the same ones over and over"),
    "a compressed storage": (
        archive_of(tensor_of((2, 1, 3, 3), (9, 9, 3, 1)), compression=zipfile.ZIP_DEFLATED), "is compressed"),
    "a missing storage": (lambda path: torch_archive(path, state_pickle({"a": tensor_of((2,), (1,))}), {}), "missing"),
    "a pickle without an end": (lambda path: torch_archive(path, b"\x80\x02}", {}), "damaged"),
    "a checkpoint of a list": (lambda path: torch_archive(path, b"\x80\x02" + plain([1]) + b".", {}), "something else"),
    "a name twice in a zip": (repeated, "two files of one name"),
    "another zip": (lambda path: zipfile.ZipFile(path, "w").writestr("readme.txt", ""), "a zip archive of some"),
    "a huge safetensor": (
        lambda path: save_safetensors_header(path, header_of(a=f32(1 << 40, 1, 3, 3, end=72)), bytes(72)), "damaged"),
    "a type that NumPy lacks": (
        lambda path: save_safetensors_header(
            path, header_of(a={"dtype": "F8_E4M3", "shape": (2, 1, 3, 3), "data_offsets": (0, 18)}), bytes(18)),
        "'a' is of type F8_E4M3, which is not read"),
    "a truncated safetensor": (
        lambda path: save_safetensors_header(path, header_of(a=f32(2, 1, 3, 3, end=72)), bytes(40)), "damaged"),
    "a name twice in safetensors": (lambda path: save_safetensors_header(path, DUPLICATE, bytes(72)), "2 tensors are"),
    "NaN in safetensors": (lambda path: save_safetensors(path, {"net.a.weight": NAN}), "'net.a' has 1 NaN or infinite"),
    "no 3x3": (lambda path: save_safetensors(path, {"a.weight": weights(2, 1, 7, 7)}), r"are 7x7 \(2 filters\)"),
    "no tensors": (lambda path: save_safetensors(path, {"a": weights(3)}), "no 2-D convolution"),
    "a kernel never written": (never_written, "never written"),
    "a link out of the file": (linked, "link"),
    "other HDF5": (lambda path: h5py.File(path, "w").create_group("a"), "without Keras weights"),
    "a dataset": (dataset_file, "warehouse ingest"),
    "compressed Keras": (lambda path: save_keras_archive(path, compression=zipfile.ZIP_DEFLATED), "is compressed"),
    "an empty file": (lambda path: path.write_bytes(b""), "empty"),
    "text": (lambda path: path.write_text("weights"), "not a model"),
    "a pointer": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "TensorFlow Lite": (lambda path: path.write_bytes(b"\x1c\0\0\0TFL3" + bytes(20)), "tf2onnx"),
    "a folder": (lambda path: path.mkdir(), "a folder"),
    "nothing": (lambda _path: None, "no such file"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_end_in_one_line(kind, tmp_path):
    make, message = HOSTILE[kind]
    path = tmp_path / "model"
    make(path)
    with pytest.raises(SourceError, match=message) as caught:
        extract(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")


def test_several_sets_of_weights_are_not_guessed_at():
    part = {"a.weight": weights(2, 2, 3, 3)}
    with pytest.raises(SourceError, match=r"several sets of weights \(first, second\)"):
        extract({"first": part, "second": part, "optimizer": part})
    assert extract({"only": part, "optimizer": part}).notes[0] == "the weights under 'only'"


def test_a_checkpoint_within_itself_ends():
    loop: dict[str, object] = {}
    loop |= {str(number): loop for number in range(50)}
    with pytest.raises(SourceError, match="no 3x3"):
        extract(loop)


@pytest.mark.parametrize("model", [3, None, [weights(2, 2, 3, 3)]])
def test_what_is_no_model_is_refused(model):
    with pytest.raises(SourceError, match="is no model"):
        extract(model)


def test_an_unknown_label_is_answered_with_a_known_one():
    with pytest.raises(SourceError, match="did you mean 'visual_category'"):
        extract(STATE, visual_categry="natural")
    with pytest.raises(SourceError, match="'robust' is 'maybe', expected true or false"):
        extract(STATE, robust="maybe")


@pytest.mark.parametrize("kind", SAVE)
def test_a_file_cut_anywhere_is_refused(kind, tmp_path):
    path = SAVE[kind](tmp_path / "net", {"a.weight": weights(2, 2, 3, 3)})
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, 13):
        path.write_bytes(whole[:length])
        with pytest.raises(SourceError):
            extract(path)


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(sorted(SAVE)), st.integers(0, 100_000), st.integers(0, 255))
def test_a_damaged_file_is_read_or_refused(tmp_path_factory, kind, place, byte):
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.unlink(missing_ok=True)
    content = bytearray(SAVE[kind](path, {"a.weight": weights(2, 2, 3, 3)}).read_bytes())
    content[place % len(content)] = byte
    path.write_bytes(content)
    try:
        extract(path)
    except SourceError as error:
        assert "\n" not in str(error)  # noqa: PT017
