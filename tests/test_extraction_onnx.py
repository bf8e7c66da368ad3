"""ONNX models: equal to what the authors' pipeline made, and right where that stops."""

import os
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import onnx
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import warehouse
from tests.extraction_models import conv_model, initializer, onnx_model, saved, weights
from warehouse.errors import SourceError
from warehouse.extraction import ExtractedModel, extract, write_dataset
from warehouse.extraction.onnx_graph import longest_paths

# The order in which the authors' pipeline came upon the files.
MODELS = ("deeplab_nchw", "SINet", "mobilenet_v2_128_0.5", "version-RFB-640", "prisma_nchw")
# The authors' tables go through text, which can cost the last digit.
ROUNDING = 2e-16


def frame_of(path: Path) -> pd.DataFrame:
    """The metadata of a dataset with the bytes of each layer's filters, layers of one depth in the order of these."""
    rows = pd.read_hdf(path, "meta").reset_index()
    with h5py.File(path) as file:
        filters = file["filters"][:]
    bounds = [tuple(map(int, ids.split(":"))) for ids in rows["filter_ids"]]
    rows["filters"] = [filters[first : last + 1].tobytes() for first, last in bounds]
    return rows.sort_values(["model_id", "conv_depth", "filters"]).reset_index(drop=True)


@pytest.fixture(scope="module")
def both(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What the authors' pipeline made of the five files, and what ours does."""
    path = tmp_path_factory.mktemp("onnx") / "dataset.h5"
    labels = {"task": "Classification", "visual_category": "natural", "training_dataset": "x"}
    write_dataset([extract(shared_data / "models" / f"{name}.onnx", **labels) for name in MODELS], path)
    return frame_of(shared_data / "onnx.h5"), frame_of(path)


def test_filters_equal_the_authors_bit_for_bit(both):
    theirs, ours = both
    assert len(ours) == len(theirs) == 122
    assert list(ours["filters"]) == list(theirs["filters"])


def test_metadata_equals_the_authors(both):
    theirs, ours = both
    arbitrary = {"filter_ids", "layer_id", "conv_depth_norm"}  # the order within a model is chance there
    given = [name for name in theirs if not theirs[name].isna().all() and name not in arbitrary]
    assert len(given) > 45
    for name in given:
        pd.testing.assert_series_equal(ours[name], theirs[name])
    np.testing.assert_allclose(ours["conv_depth_norm"], theirs["conv_depth_norm"], rtol=0, atol=ROUNDING)


def test_a_dataset_of_extracted_models_ingests_and_gives_the_same_filters(shared_data, tmp_path):
    model = extract(shared_data / "models" / "version-RFB-640.onnx", task="Face Detection")
    write_dataset([model], tmp_path / "dataset.h5")
    warehouse.ingest(tmp_path / "dataset.h5", tmp_path / "cnn.warehouse")
    with warehouse.open(tmp_path / "cnn.warehouse") as wh:
        columns = ", ".join(f"w{i}" for i in range(9))
        rows = wh.sql(f"select {columns} from filters order by filter_id").fetchnumpy()
        assert wh.sql("select task, op_set, producer from models").fetchall() == [("Face Detection", 9, "pytorch 1.3")]
        depths = [row[0] for row in wh.sql("select conv_depth from layers order by layer_id").fetchall()]
    assert depths == [layer.conv_depth for layer in model.layers]
    stored = np.stack([rows[f"w{i}"] for i in range(9)], axis=1)
    read = np.concatenate([values.reshape(-1, 9) for _, values in model.weights()])
    np.testing.assert_array_equal(stored, read)


@pytest.mark.parametrize("name", MODELS)
def test_weights_equal_the_initialisers(shared_data, name):
    path = shared_data / "models" / f"{name}.onnx"
    graph = onnx.load(path).graph
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    expected = Counter(tensors[node.input[1]].tobytes() for node in graph.node
                       if node.op_type == "Conv" and tensors[node.input[1]].shape[2:] == (3, 3))  # fmt: skip
    assert Counter(values.tobytes() for _, values in extract(path).weights()) == expected


def naive_depth(node: int, makers: dict[int, list[int]], sources: set[int]):
    """The longest path by trying all."""
    before = [depth for one in makers[node] if (depth := naive_depth(one, makers, sources)) is not None]
    own = [0] if node in sources else []
    return max([*own, *(depth + 1 for depth in before)], default=None)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_depth_is_the_longest_path_from_an_input(data):
    n = data.draw(st.integers(1, 9))
    makers = {i: data.draw(st.lists(st.integers(0, i - 1), unique=True, max_size=3)) if i else [] for i in range(n)}
    sources = data.draw(st.sets(st.integers(0, n - 1), min_size=1))
    order = data.draw(st.permutations(range(n)))
    nodes = [
        helper.make_node("Op", [*(f"v{j}" for j in makers[i]), *(["x"] if i in sources else ["constant"])], [f"v{i}"])
        for i in order
    ]
    expected = [naive_depth(i, makers, sources) for i in order]
    assert longest_paths(nodes, {"x": 0}) == expected


def only(model: ExtractedModel) -> np.ndarray:
    """The weights of a model's only layer."""
    ((_, values),) = model.weights()
    return values


W = weights(4, 2, 3, 3)


def behind(nodes: list[onnx.NodeProto], tensors: dict[str, np.ndarray], opset: int = 13) -> onnx.ModelProto:
    return onnx_model([*nodes, helper.make_node("Conv", ["x", "w"], ["y"])], tensors, opset=opset)


LAYOUTS = {
    "transpose": behind([helper.make_node("Transpose", ["k"], ["w"], perm=[3, 2, 0, 1])],
                        {"k": W.transpose(2, 3, 1, 0)}),
    "reshape": behind([helper.make_node("Reshape", ["k", "s"], ["w"])],
                      {"k": W.reshape(4, -1), "s": np.array([0, 2, -1, 3])}),
    "identities": behind([helper.make_node("Identity", ["k"], ["i"]), helper.make_node("Identity", ["i"], ["w"])],
                         {"k": W}),
    "constant": behind([helper.make_node("Constant", [], ["w"], value=initializer("", W))], {}),
    "unsqueeze": behind([helper.make_node("Unsqueeze", ["k", "a"], ["w"])],
                        {"k": W.reshape(8, 3, 3), "a": np.array([1])}),
    "unsqueeze by an attribute": behind([helper.make_node("Unsqueeze", ["k"], ["w"], axes=[1])],
                                        {"k": W.reshape(8, 3, 3)}, opset=11),
    "squeeze": behind([helper.make_node("Squeeze", ["k", "a"], ["w"])], {"k": W[None], "a": np.array([0])}),
    "cast": behind([helper.make_node("Cast", ["k"], ["w"], to=TensorProto.FLOAT)], {"k": W.astype("f8")}),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_are_found_behind(layout, tmp_path):
    found = only(extract(saved(LAYOUTS[layout], tmp_path / "model.onnx")))
    np.testing.assert_array_equal(found.reshape(-1, 3, 3), W.reshape(-1, 3, 3))


Q = np.arange(-36, 36, dtype=np.int8).reshape(4, 2, 3, 3)
SCALES, ZEROS = np.array([0.5, 0.25, 2, 0.1], "f4"), np.array([0, 3, -2, 1], np.int8)
PER_CHANNEL = (Q.astype("f4") - ZEROS.reshape(4, 1, 1, 1)) * SCALES.reshape(4, 1, 1, 1)
ONE = np.float32(0.02)
DYNAMIC = [
    helper.make_node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"]),
    helper.make_node("ConvInteger", ["xq", "q", "xz"], ["sum"]),
    helper.make_node("Cast", ["sum"], ["float"], to=TensorProto.FLOAT),
    helper.make_node("Mul", ["xs", "s"], ["scale"]),
    helper.make_node("Mul", ["float", "scale"], ["y"]),
]
QUANTISED = {
    "per channel": (behind([helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"], axis=0)],
                           {"q": Q, "s": SCALES, "z": ZEROS}), PER_CHANNEL),
    "per tensor, transposed after": (
        behind([helper.make_node("DequantizeLinear", ["q", "s"], ["d"]),
                helper.make_node("Transpose", ["d"], ["w"], perm=[3, 2, 0, 1])],
               {"q": Q.transpose(2, 3, 1, 0), "s": ONE}), Q * ONE),
    "fake": (behind([helper.make_node("QuantizeLinear", ["k", "s", "z"], ["q"]),
                     helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"])],
                    {"k": W, "s": ONE, "z": np.int8(0)}), np.clip(np.rint(W / ONE), -128, 127).astype("f4") * ONE),
    "QLinearConv": (onnx_model([helper.make_node("QLinearConv", ["x", "s", "z", "q", "qs", "qz", "s", "z"], ["y"])],
                               {"s": ONE, "z": np.uint8(3), "q": Q, "qs": SCALES, "qz": ZEROS}), PER_CHANNEL),
    "ConvInteger": (onnx_model(DYNAMIC, {"q": Q, "s": ONE}), Q * ONE),
}  # fmt: skip


@pytest.mark.parametrize("kind", QUANTISED)
def test_quantised_weights_are_dequantised_and_noted(kind, tmp_path):
    model, expected = QUANTISED[kind]
    found = extract(saved(model, tmp_path / "model.onnx"))
    np.testing.assert_array_equal(only(found), expected.astype("f4"))
    assert found.layers[0].notes == ("dequantised",)
    assert found.notes == ("1 layer: dequantised",)


def test_integers_whose_scale_is_computed_are_taken_up_to_it(tmp_path):
    nodes = [helper.make_node("ConvInteger", ["x", "q", "", "z"], ["y"])]
    found = extract(saved(onnx_model(nodes, {"q": Q, "z": np.int8(2)}), tmp_path / "model.onnx"))
    np.testing.assert_array_equal(only(found), Q.astype("f4") - 2)
    assert "but for a common factor" in found.notes[0]


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE])
@pytest.mark.parametrize("is_raw", [True, False])
def test_other_precisions_are_read_exactly(dtype, is_raw, tmp_path):
    values = np.round(weights(2, 2, 3, 3) * 4) / 4  # exact in all of them
    if is_raw:
        typed = values.astype(helper.tensor_dtype_to_np_dtype(dtype))
        tensor = helper.make_tensor("w", dtype, values.shape, typed.tobytes(), raw=True)
    else:
        tensor = helper.make_tensor("w", dtype, values.shape, values.ravel())
    model = conv_model(values)
    model.graph.initializer[0].CopyFrom(tensor)
    np.testing.assert_array_equal(only(extract(saved(model, tmp_path / "model.onnx"))), values)


def test_initialisers_that_are_inputs_too_are_weights_and_not_inputs(tmp_path):
    value = helper.make_tensor_value_info("w", TensorProto.FLOAT, W.shape)
    nodes = [helper.make_node("Relu", ["w"], ["r"]), helper.make_node("Conv", ["x", "w"], ["y"])]
    model = onnx_model(nodes, {"w": W}, extra_inputs=(value,), outputs=("y", "r"), opset=7, ir_version=3)
    found = extract(saved(model, tmp_path / "model.onnx"))
    np.testing.assert_array_equal(only(found), W)
    assert found.operators == {"Conv": 1}
    assert (found.depth, found.op_set) == (1, 7)


def test_depths_rank_all_2d_convolutions_and_shared_weights_count_twice(tmp_path):
    k, square = weights(2, 2, 1, 1), weights(2, 2, 3, 3)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "k"], ["c"], name="point"),
        helper.make_node("Add", ["c", "a"], ["d"]),
        helper.make_node("Conv", ["d", "w"], ["y"], name="last"),
        helper.make_node("Conv", ["x2", "w"], ["z"], name="other input"),
    ]
    model = onnx_model(nodes, {"w": square, "k": k}, inputs=("x", "x2"), outputs=("y", "z"), producer_name="me")
    found = extract(saved(model, tmp_path / "model.onnx"))
    assert [(layer.name, layer.layer_depth, layer.conv_depth, layer.conv_depth_norm) for layer in found.layers] == [
        ("first", 0, 0, 0.0),
        ("other input", 0, 0, 0.0),
        ("last", 4, 2, 1.0),
    ]
    assert found.kernels == {(3, 3): 12, (1, 1): 4}
    assert (found.total_filters, found.depth, found.producer) == (12, 5, "me")


def test_the_depth_of_a_model_of_one_has_no_norm(tmp_path):
    (layer,) = extract(saved(conv_model(W), tmp_path / "model.onnx")).layers
    assert layer.conv_depth == 0
    assert np.isnan(layer.conv_depth_norm)


def test_kinds_of_convolutions_are_marked(tmp_path):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="standard"),
        helper.make_node("Conv", ["a", "g"], ["b"], name="grouped", group=2),
        helper.make_node("Conv", ["b", "d"], ["c"], name="depthwise", group=4),
        helper.make_node("ConvTranspose", ["c", "t"], ["e"], name="transposed", group=2),
        helper.make_node("Conv", ["e", "line"], ["f"], name="one dimension"),
        helper.make_node("Conv", ["f", "a"], ["y"], name="computed"),
    ]
    tensors = {"w": W, "g": weights(4, 2, 3, 3), "d": weights(4, 1, 3, 3), "t": weights(4, 3, 3, 3)}
    path = saved(onnx_model(nodes, {**tensors, "line": weights(2, 6, 3)}), tmp_path / "model.onnx")
    found = extract(path)
    assert [(layer.kind, layer.groups) for layer in found.layers] == [
        ("standard", 1),
        ("grouped", 2),
        ("depthwise", 4),
    ]
    assert found.notes == (
        "1 transposed convolution left out",
        "1 convolution of other than two dimensions left out",
        "1 convolution skipped, their weights are computed by Conv: computed",
    )
    last = extract(path, transposed=True).layers[-1]
    assert (last.kind, last.groups, last.shape, last.conv_depth) == ("transposed", 2, (6, 2, 3, 3), 3)
    *_, (_, values) = extract(path, transposed=True).weights()
    for out in range(6):
        for place in range(2):
            # out channel 4 is the second of the second group, whose inputs are 2 and 3
            np.testing.assert_array_equal(values[out, place], tensors["t"][out // 3 * 2 + place, out % 3])


def test_convolutions_in_a_condition_are_found_below_it(tmp_path):
    def branch(name: str) -> onnx.GraphProto:
        node = helper.make_node("Conv", ["a", name], [f"{name}_out"], name=name)
        value = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)
        return helper.make_graph([node], name, [], [value], [initializer(name, weights(2, 2, 3, 3))])

    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="before"),
        helper.make_node("If", ["flag"], ["b"], then_branch=branch("then"), else_branch=branch("else")),
        helper.make_node("Conv", ["b", "v"], ["y"], name="after"),
    ]
    flag = helper.make_tensor_value_info("flag", TensorProto.BOOL, [])
    model = onnx_model(nodes, {"w": weights(2, 2, 3, 3), "v": weights(2, 2, 3, 3)}, extra_inputs=(flag,))
    found = extract(saved(model, tmp_path / "model.onnx"))
    assert {layer.name: layer.layer_depth for layer in found.layers} == {"before": 0, "after": 2, "then": 2, "else": 2}
    assert found.operators == {"Conv": 2, "If": 1}


def test_functions_are_opened(tmp_path):
    body = [helper.make_node("Conv", ["u", "k"], ["v"], name="inside"), helper.make_node("Relu", ["v"], ["out"])]
    block = helper.make_function("mine", "Block", ["u", "k"], ["out"], body, [helper.make_opsetid("", 13)])
    nodes = [
        helper.make_node("Block", ["x", "w"], ["a"], domain="mine"),
        helper.make_node("Block", ["a", "v"], ["y"], domain="mine"),
    ]
    tensors = {"w": weights(2, 2, 3, 3), "v": weights(2, 2, 3, 3)}
    found = extract(saved(onnx_model(nodes, tensors, functions=(block,)), tmp_path / "model.onnx"))
    assert [layer.layer_depth for layer in found.layers] == [0, 2]
    assert found.operators == {"Conv": 2, "Relu": 2}
    for (_, values), expected in zip(found.weights(), tensors.values(), strict=True):
        np.testing.assert_array_equal(values, expected)


def test_functions_that_multiply_or_call_themselves_are_refused(tmp_path):
    def function(name: str, called: str) -> onnx.FunctionProto:
        body = [
            helper.make_node(called, ["u"], ["v"], domain="mine"),
            helper.make_node(called, ["v"], ["w"], domain="mine"),
        ]
        return helper.make_function("mine", name, ["u"], ["w"], body, [helper.make_opsetid("mine", 1)])

    chain = [function(f"f{i}", f"f{i + 1}") for i in range(40)]
    last = helper.make_function("mine", "f40", ["u"], ["w"], [helper.make_node("Relu", ["u"], ["w"])], [])
    start = helper.make_node("f0", ["x"], ["y"], domain="mine")
    with pytest.raises(SourceError, match="nodes; 1,000,000 are read at most"):
        extract(saved(onnx_model([start], functions=(*chain, last)), tmp_path / "model.onnx"))
    with pytest.raises(SourceError, match="calls itself"):
        extract(saved(onnx_model([start], functions=(function("f0", "f0"),)), tmp_path / "loop.onnx"))


def external_model(location: str, values: np.ndarray, **entries: str) -> onnx.ModelProto:
    model = conv_model(values)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    return model


def test_external_data_beside_the_model_is_read_and_part_of_the_checksum(tmp_path):
    data = tmp_path / "weights" / "data.bin"
    data.parent.mkdir()
    data.write_bytes(b"pad!" + W.tobytes())
    model = external_model("weights/data.bin", W, offset="4", length=str(W.nbytes))
    path = saved(model, tmp_path / "model.onnx")
    found = extract(path)
    np.testing.assert_array_equal(only(found), W)
    data.write_bytes(b"pad!" + (2 * W).tobytes())
    assert extract(path).checksum != found.checksum


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("../secret.bin", "only the model's folder is read"),
        ("/etc/passwd", "only the model's folder is read"),
        ("a/../../secret.bin", "only the model's folder is read"),
        ("link.bin", "a link that leaves the model's folder"),
        ("linked/secret.bin", "a link that leaves the model's folder"),
        ("missing.bin", "not beside the model"),
        ("pipe", "not a regular file"),
        ("short.bin", "declares shape"),
        ("", "only the model's folder is read"),
    ],
)
def test_external_data_from_elsewhere_is_refused(location, message, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(W.tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    (folder / "linked").symlink_to(tmp_path)
    (folder / "short.bin").write_bytes(b"1234")
    os.mkfifo(folder / "pipe")
    with pytest.raises(SourceError, match=message):
        extract(saved(external_model(location, W), folder / "model.onnx"))


def test_external_data_within_bounds_only(tmp_path):
    (tmp_path / "data.bin").write_bytes(W.tobytes())
    for entries in ({"offset": "4"}, {"offset": "-4"}, {"length": str(1 << 60)}, {"offset": "x"}):
        with pytest.raises(SourceError, match="'w'"):
            extract(saved(external_model("data.bin", W, **entries), tmp_path / "model.onnx"))


def with_dims(*dims: int) -> onnx.ModelProto:
    model = conv_model(W)
    del model.graph.initializer[0].dims[:]
    model.graph.initializer[0].dims.extend(dims)
    return model


def twice_made() -> onnx.ModelProto:
    return onnx_model([helper.make_node("Conv", ["x", "w"], ["y"]), helper.make_node("Relu", ["x"], ["y"])], {"w": W})


def cyclic() -> onnx.ModelProto:
    return onnx_model([helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])])


def doubled_initializer() -> onnx.ModelProto:
    model = conv_model(W)
    model.graph.initializer.append(initializer("w", W))
    return model


def unknown_type() -> onnx.ModelProto:
    model = conv_model(W)
    model.graph.initializer[0].data_type = 99
    return model


NAN = W.copy()
NAN[1, 0, 2, 1] = np.nan
HOSTILE = {
    "a huge tensor": (with_dims(1 << 40, 1 << 20, 3, 3), r"'w' declares shape \(1099511627776, 1048576, 3, 3\) and"),
    "a negative shape": (with_dims(-4, -2, 3, 3), "'w' has no possible shape"),
    "an unknown type": (unknown_type(), "'w' is of an unknown type 99"),
    "a value made twice": (twice_made(), "two nodes make the value 'y'"),
    "a cycle": (cyclic(), "a cycle"),
    "a name used twice": (doubled_initializer(), "two initialisers are called 'w'"),
    "one tensor over and over": (
        onnx_model(
            [helper.make_node("Conv", ["x", "w"], ["y" if i == 0 else f"y{i}"]) for i in range(200)],
            {"w": weights(64, 64, 3, 3)},
        ),
        r"7,372,800 weights in \d+,\d+ bytes: the same ones over and over",
    ),
    "NaN": (conv_model(NAN), "layer 'conv' has 1 NaN or infinite weights of 72"),
    "no 3x3": (conv_model(weights(4, 2, 5, 5)), r"no 3x3 convolution; its kernels are 5x5 \(8 filters\)"),
    "a shape that does not fit": (
        behind([helper.make_node("Reshape", ["k", "s"], ["w"])], {"k": W, "s": np.array([5, 2, 3, 3])}),
        "does not fit its input",
    ),
    "no convolution": (onnx_model([helper.make_node("Relu", ["x"], ["y"])]), "no 3x3 convolution; it has no 2-D"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_models_end_in_one_line(kind, tmp_path):
    model, message = HOSTILE[kind]
    with pytest.raises(SourceError, match=message) as caught:
        extract(saved(model, tmp_path / "model.onnx"))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "model.onnx"))


def test_a_model_cut_anywhere_is_refused(tmp_path):
    whole = conv_model(W).SerializeToString()
    path = tmp_path / "model.onnx"
    for length in range(0, len(whole) - 20, 7):
        path.write_bytes(whole[:length])
        with pytest.raises(SourceError, match=r"model\.onnx"):
            extract(path)


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_damaged_model_is_read_or_refused(tmp_path_factory, place, byte):
    content = bytearray(conv_model(W).SerializeToString())
    content[place % len(content)] = byte
    path = tmp_path_factory.getbasetemp() / "damaged.onnx"
    path.write_bytes(content)
    try:
        extract(path)
    except SourceError as error:
        assert "\n" not in str(error)  # noqa: PT017


def test_weights_are_read_anew_so_that_a_changed_file_is_noticed(tmp_path):
    path = saved(conv_model(W), tmp_path / "model.onnx")
    found = extract(path)
    saved(conv_model(weights(4, 4, 3, 3)), path)
    with pytest.raises(SourceError, match="changed in the meantime"):
        list(found.weights())
