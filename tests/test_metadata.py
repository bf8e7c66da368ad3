"""From the frame of layers to typed tables: types, NULLs, fixes, long tables, names, families, and bad input."""

import math
import re
from fractions import Fraction
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.reference import Reference
from warehouse import sqlfiles
from warehouse.errors import SourceError
from warehouse.frames import MetaFrame
from warehouse.metadata import (
    EXTRACTED_LAYER_COLUMNS,
    KNOWN_TYPES,
    LAYER_COLUMNS,
    MODEL_COLUMNS,
    PRETRAINING,
    RESERVED,
    Metadata,
    tabulate,
)
from warehouse.source import open_source

NAN = math.nan
FILTERS_A_LAYER = 10


def cells(values: list) -> np.ndarray:
    """Values as a source has them: objects."""
    array = np.empty(len(values), object)
    array[:] = values
    return array


def table(columns: dict[str, list | np.ndarray], **index: list) -> Metadata:
    """Tables of layers of ten filters each; each layer is a model of its own unless ``model_id`` says otherwise."""
    n = len(next(iter((columns | index).values())))
    levels = {"model_id": list(range(n)), "conv_depth": [0] * n} | index
    ranges = cells([f"{FILTERS_A_LAYER * i}:{FILTERS_A_LAYER * i + 9}" for i in range(n)])
    found = {name: v if isinstance(v, np.ndarray) else cells(v) for name, v in columns.items()}
    frame = MetaFrame({name: np.asarray(v) for name, v in levels.items()}, {"filter_ids": ranges} | found)
    return tabulate(frame, FILTERS_A_LAYER * n)


def ranges_of(ids: list, models: list[int] | None = None, n_filters: int = 100) -> pa.Table:
    index = {"model_id": np.array(models or range(len(ids))), "conv_depth": np.zeros(len(ids))}
    return tabulate(MetaFrame(index, {"filter_ids": cells(ids)}), n_filters).layers


def models(columns: dict[str, list | np.ndarray], **index: list) -> dict[str, list]:
    return table(columns, **index).models.to_pydict()


def refusal(columns: dict[str, list | np.ndarray], **index: list) -> str:
    with pytest.raises(SourceError) as raised:
        table(columns, **index)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_layers_and_models_of_a_dataset_are_those_that_pandas_reads(sample: Path, reference: Reference) -> None:
    with open_source(sample) as source:
        tables = tabulate(source.meta(), source.n_filters)
    layers, expected = tables.layers, reference.layers
    for column, found in {"model_id": "model_id", "conv_depth": "conv_depth", "first_filter_id": "first"}.items():
        assert layers[column].to_pylist() == expected[found].tolist()
    assert layers["n_filters"].to_pylist() == (expected["stop"] - expected["first"]).tolist()
    per_model = expected.groupby("model_id").first()
    assert tables.models["model_id"].to_pylist() == per_model.index.tolist()
    assert tables.models["task"].to_pylist() == per_model["task"].tolist()
    assert tables.models["model"].to_pylist() == per_model["model"].tolist()
    relu = {row["model_id"]: row["n"] for row in tables.model_operators.to_pylist() if row["operator"] == "Relu"}
    assert relu == per_model["Relu"].dropna().loc[lambda n: n > 0].astype(int).to_dict()


def test_a_warehouse_always_has_its_columns_typed_even_if_the_source_lacks_them() -> None:
    found = table({"model": ["a"]}).models
    for name, (_, kind) in MODEL_COLUMNS.items():
        assert found.schema.field(name).type == kind
    assert found.schema.field("pretrained").type == pa.bool_()
    assert found["task"].to_pylist() == found["raw_task"].to_pylist() == [None]


@pytest.mark.parametrize("missing", ["", "?", "nan", "NaN", " ? ", None, NAN])
def test_text_that_says_nothing_is_null_and_stays_in_the_raw_label(missing: object) -> None:
    found = models({"Task": [missing, "Segmentation"], "Paper": [missing, "x"], "Note": [missing, "y"]})
    assert (found["task"], found["paper"], found["note"]) == ([None, "Segmentation"], [None, "x"], [None, "y"])
    assert found["raw_task"][0] == (missing if isinstance(missing, str) else None)


@pytest.mark.parametrize(
    ("label", "value", "name", "fixed"),
    [
        ("Task", "Semantic Segmentation", "x", "Segmentation"),
        ("Task", "Classification", "Segmentation-Net", "Classification"),
        ("Visual Category", "formula", "x", "fractals"),
        ("Datatype", "formula", "x", "fractals"),
        ("Visual Category", "formula sheets", "x", "formula sheets"),
        ("Visual Category", "medical ct", "CompNet (sagittal)", "medical mri"),
        ("Visual Category", "medical ct", "unet", "medical ct"),
        ("Visual Category", "natural", "compnet", "natural"),
    ],
)
def test_labels_are_fixed_and_the_raw_ones_kept(label: str, value: str, name: str, fixed: str) -> None:
    column = "task" if label == "Task" else "visual_category"
    for naming in ({"Name": [name]}, {"model": [name]}):
        found = models({label: [value]} | naming)
        assert (found[column], found[f"raw_{column}"]) == ([fixed], [value])


def test_pretraining_is_a_list_of_names_or_a_flag() -> None:
    found = models({"Pretraining-Dataset": ["ImageNet, COCO", NAN]})
    assert (found["pretraining_dataset"], found["pretrained"]) == (["ImageNet, COCO", None], [True, False])
    for flags in (np.array([True, False]), [True, False], [True, NAN, False]):
        found = models({"Pretraining-Dataset": flags})
        expected = [None if value is NAN else bool(value) for value in flags]
        assert (found["pretrained"], set(found["pretraining_dataset"])) == (expected, {None})


def test_a_pretraining_flag_stored_as_a_number_is_a_flag() -> None:
    found = models({"Pretraining-Dataset": np.array([1.0, 0.0])})
    assert (found["pretrained"], found["pretraining_dataset"]) == ([True, False], [None, None])


@pytest.mark.parametrize("robust", [[True, False, NAN], [1.0, 0.0, NAN]])
def test_robustness_that_is_missing_is_null_and_not_true(robust: list) -> None:
    for column in (robust, np.array(robust, dtype=float)):
        found = table({"Robust": column}).models
        assert found["robust"].to_pylist() == [True, False, None]
        assert found.schema.field("robust").type == pa.bool_()
    assert table({"Robust": [NAN]}).models.schema.field("robust").type == pa.bool_()


def test_numbers_take_the_type_of_their_values() -> None:
    found = table({
        "op_set": np.array([9.0, NAN]),
        "whole": np.array([3.0, NAN]),
        "broken": np.array([0.5, NAN]),
        "both": [1, 0.5],
        "flag": np.array([True, False]),
        "mixed": [1, "one"],
        "empty": np.array([NAN, NAN]),
        "Clean Accuracy": np.array([90.0, NAN]),
    }).models  # fmt: skip
    kinds = {name: str(found.schema.field(name).type) for name in found.column_names}
    assert [kinds[n] for n in ("op_set", "whole", "broken", "both")] == ["int64", "int64", "double", "double"]
    assert [kinds[n] for n in ("flag", "mixed", "empty", "clean_accuracy")] == ["bool", "string", "string", "double"]
    assert (found["whole"].to_pylist(), found["mixed"].to_pylist()) == ([3, None], ["1", "one"])


@pytest.mark.parametrize("number", [2**53 + 1, 2**63 - 1, -(2**63), 2**63, 2**64 - 1])
def test_large_whole_numbers_keep_their_digits(number: int) -> None:
    assert int(models({"seed": np.array([number])})["seed"][0]) == number


def test_operators_kernels_and_data_sets_come_in_long_tables() -> None:
    tables = table(
        {
            "Conv": np.array([5.0, NAN, 2.0, 2.0]),
            "Relu": np.array([0, 0, 1, 1]),
            "(3, 3) filters": np.array([64.0, 8.0, NAN, NAN]),
            "(1,7) filters": np.array([NAN, 4.0, NAN, NAN]),
            "Training-Dataset": ["COCO, VOC,COCO", "?", " ImageNet ", " ImageNet "],
            "Pretraining-Dataset": ["ImageNet", NAN, NAN, NAN],
        },
        model_id=[3, 1, 2, 2],
    )
    assert [tuple(row.values()) for row in tables.model_operators.to_pylist()] == [
        (2, "Conv", 2), (2, "Relu", 1), (3, "Conv", 5),
    ]  # fmt: skip
    assert [tuple(row.values()) for row in tables.model_kernels.to_pylist()] == [
        (1, 1, 7, 4),
        (1, 3, 3, 8),
        (3, 3, 3, 64),
    ]
    assert [tuple(row.values()) for row in tables.model_datasets.to_pylist()] == [
        (2, "training", "ImageNet"), (3, "pretraining", "ImageNet"), (3, "training", "COCO"), (3, "training", "VOC"),
    ]  # fmt: skip
    assert not {"conv", "relu", "3_3_filters"} & set(tables.models.column_names)


def test_a_column_that_is_no_count_is_kept_though_it_is_named_like_an_operator() -> None:
    tables = table({"Mean": np.array([0.25, 0.5]), "Scale": ["small", "small"]}, model_id=[1, 1])
    assert tables.layers["mean"].to_pylist() == [0.25, 0.5]
    assert tables.models["scale"].to_pylist() == ["small"]


def test_other_columns_belong_to_models_if_constant_within_each_and_to_layers_if_not() -> None:
    tables = table(
        {"constant": [1, 1, 2], "absent": [NAN, NAN, NAN], "varying": [1, 2, 2], "partly": ["x", NAN, "x"]},
        model_id=[7, 7, 8],
    )
    assert tables.models.select(["constant", "absent"]).to_pydict() == {"constant": [1, 2], "absent": [None, None]}
    assert tables.layers.select(["varying", "partly"]).to_pydict() == {"varying": [1, 2, 2], "partly": ["x", None, "x"]}


def test_names_become_snake_case_and_stay_unique() -> None:
    reserved = [*RESERVED, "layer_id", "model_id", "N Filters", "Architecture Family"]
    sources = ["Input Shape", "input-shape", "INPUT  SHAPE!", "3rd", "???", "Model", "raw_task", *reserved]
    tables = table({source: [f"value of {source}"] for source in sources})
    assert [tables.models[name].to_pylist() for name in ("input_shape", "input_shape_2", "input_shape_3")] == [
        [f"value of {source}"] for source in sources[:3]
    ]
    assert tables.models.select(["column_3rd", "column"]).to_pylist() == [
        {"column_3rd": "value of 3rd", "column": "value of ???"}
    ]
    for name in ("model", "raw_task", "layer_id", "n_filters", *RESERVED):
        assert str(tables.models[f"{name}_2"][0]).startswith("value of ")
    assert set(tables.models.column_names) & set(tables.layers.column_names) == {"model_id"}
    assert not {*RESERVED} & set(tables.models.column_names)


@given(st.lists(st.text(max_size=12), min_size=1, max_size=5, unique=True))
@settings(max_examples=25, deadline=None)
def test_a_column_of_any_name_survives(sources: list[str]) -> None:
    own = {name for names, _ in MODEL_COLUMNS.values() for name in names}
    own |= {"filter_ids", PRETRAINING, *KNOWN_TYPES, *LAYER_COLUMNS, *EXTRACTED_LAYER_COLUMNS}
    added = {source: [f"#{i}"] for i, source in enumerate(sources) if source not in own}
    tables = table(added | {"marker": ["#"]})
    found = [value for column in tables.models.columns for value in column.to_pylist() if str(value).startswith("#")]
    assert sorted(found) == sorted(["#", *(value for (value,) in added.values())])
    assert all(re.fullmatch(r"[a-z_][a-z0-9_]*", name) for name in tables.models.column_names)


@pytest.mark.parametrize(
    "name", "Label Value Naming Replacement Since Family Pattern Model_Pattern Priority Order X Grp".split()
)
def test_a_column_may_be_named_like_one_of_our_own_queries_columns(name: str) -> None:
    assert models({name: ["kept"], "Task": ["Segmentation"], "model": ["unet"]})[name.lower()] == ["kept"]


def test_the_depth_decile_of_a_rank_is_exact() -> None:
    ranks = [(k, last) for last in range(1, 80) for k in range(last + 1)]
    layers = table({"a": [1] * len(ranks)}, conv_depth_norm=[k / last for k, last in ranks]).layers
    exact = [max(1, math.ceil(Fraction(10 * k, last))) for k, last in ranks]
    assert layers["depth_decile"].to_pylist() == exact
    assert table({"a": [1]}, conv_depth_norm=[0.1 + 0.2]).layers["depth_decile"].to_pylist() == [3]


def test_depth_deciles_are_right_closed_bins_and_null_outside() -> None:
    depths = [*np.random.default_rng(3).uniform(0, 1, 300), 0.0, 0.1, 0.1000001, 0.5, 0.9, 1.0]
    cut = pd.cut(depths, np.arange(11) / 10, labels=False, include_lowest=True) + 1
    layers = table({"a": [1] * (len(depths) + 3)}, conv_depth_norm=[*depths, NAN, math.inf, -0.1]).layers
    assert layers["depth_decile"].to_pylist() == [*cut.tolist(), None, None, None]
    assert layers["conv_depth_norm"].to_pylist()[-3:] == [None, None, -0.1]


FAMILIES = {
    "ResNet": "resnet50 seresnet50 resnet18-5c106cde PreActResNet-18 BiT-M-R50x1 miniresnetv2_1stacks",
    "WideResNet": "wide_resnet50_2 WRN-28-10 Wang2023Better_WRN-70-16 WideResNet-34-10 wide_resnet28_10",
    "ResNeXt": "resnext101_32x8d ig_resnext101_32x16d seresnext50_32x4d ResNeXt29",
    "ResNeSt": "resnest50d", "Res2Net": "res2net50_26w_4s res2next50", "SENet": "legacy_senet154 senet154",
    "DenseNet": "densenet121 DenseNet-121-12 tv_densenet121", "DLA": "dla34 dla46x_c dla", "DPN": "dpn68 dpn68b dpn107",
    "MobileNet": "mobilenetv2_100 mobilenet_v3_large tf_mobilenetv3_small_075 MobileNetV1-0.25 ssd_mobilenet_v1",
    "MnasNet": "mnasnet mnasnet1_0 semnasnet_100 spnasnet_100", "NASNet": "nasnetalarge pnasnet5large",
    "FBNet": "fbnetc_100", "GhostNet": "ghostnet_100", "ReXNet": "rexnet_100", "RegNet": "regnetx_002 regnety_320",
    "EfficientNet": "efficientnet_b0 tf_efficientnet_lite0 EfficientNet-B7 efficientnetv2_rw_s efficientnet-lite4-11",
    "Inception": "inception_v3 googlenet bvlcgooglenet-9 inception_resnet_v2 tf_inception_v3",
    "Xception": "xception gluon_xception65 mini_XCEPTION", "VGG": "vgg16_bn vgg11 repvgg_a2 ssd300_vgg16",
    "AlexNet": "alexnet bvlcalexnet-9 caffenet-12", "SqueezeNet": "squeezenet1_1 squeezenet1.0-9",
    "ShuffleNet": "shufflenet_v2_x1_0 shufflenet-v2-10", "HRNet": "hrnet_w18 HRNet-W48",
    "LeNet": "lenet LeNet-5 mnist_lenet5", "DarkNet": "darknet53 cspdarknet53",
    "YOLO": "yolov3 tinyyolov2-8 YOLOv4 yolov3_mobilenetv2", "FCN": "fcn_resnet50 fcn-resnet101-11 FCN8s",
    "U-Net": "unet UNet2Sigmoid u-net attention_unet_resnet34 ai85-camvid-unet-large nnUNet unet_vgg16",
    "DeepLab": "deeplabv3_resnet101 deeplabv3_mobilenet_v3_large DeepLabV3-MobileNetV2-0.5 deeplab_nchw",
    "GAN": "dcgan stylegan2 stylegan3-t biggan-128 srgan sngan_resnet cyclegan_horse2zebra DCGAN_discriminator",
    "MTCNN": "mtcnn facenet-pytorch_pnet.pt R-Net",
    None: "model_17 doodlenet DOODLENET simplenet multi_organ_ct bitmap dlarge serpent yamnet mosaic-9 dncnn_25 edsr",
}  # fmt: skip


def test_every_family_of_the_table_of_patterns_is_tried() -> None:
    statement = sqlfiles.load_one("tables", "architecture_patterns").statement
    with duckdb.connect() as connection:
        families = connection.execute(statement).execute("select family from architecture_patterns").fetchall()
    assert {family for (family,) in families} == FAMILIES.keys() - {None}


def test_the_architecture_family_of_a_model_shows_in_its_names() -> None:
    expected = {name: family for family, names in FAMILIES.items() for name in names.split()}
    names = list(expected)
    for naming in ({"model": names}, {"Name": names}, {"model": [f"{name}.onnx" for name in names], "Name": names}):
        assert dict(zip(names, models(naming)["architecture_family"], strict=True)) == expected


def test_layers_are_numbered_in_the_order_of_their_filters_whatever_the_order_of_rows() -> None:
    layers = ranges_of(["50:69", [9, 7, 8], "0:6", "[10, 11]", " 70 : 99 ", np.arange(20, 30)], [5, 4, 4, 9, 5, 5])
    assert layers["layer_id"].to_pylist() == list(range(6))
    assert layers["first_filter_id"].to_pylist() == [0, 7, 10, 20, 50, 70]
    assert layers["n_filters"].to_pylist() == [7, 3, 2, 10, 20, 30]
    assert layers["model_id"].to_pylist() == [4, 4, 9, 5, 5, 5]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ("0:100", r"row 1: filter_ids '0:100' is out of range, the file has filters 0:99"),
        ("-1:5", r"row 1: .*out of range"),
        ("9:99999999999999999999", r"row 1: .*out of range"),
        ([98, 99, 100], r"row 1: .*out of range"),
        (list(range(50, 5000)), r"row 1: .*out of range"),
        ("7:3", r"row 1: filter_ids '7:3' runs backwards"),
        ("3-7", r"row 1: filter_ids is '3-7', expected 'start:end'"),
        (NAN, r"row 1: filter_ids is nan"),
        ([1, "a"], r"row 1: filter_ids is \[1, 'a'\]"),
        ([1.0, 2.0], r"row 1: filter_ids is \[1.0, 2.0\]"),
        ([1, 2, 4], r"row 1: filter_ids lists ids with gaps or repeats"),
        ([1, 2, 2], r"row 1: filter_ids lists ids with gaps or repeats"),
        ("x" * 5000, r"row 1: filter_ids is 'xxx"),
    ],
)
def test_filter_ids_that_make_no_range_are_an_error_of_one_line(ids: object, message: str) -> None:
    with pytest.raises(SourceError, match=message) as raised:
        ranges_of(["0:0", ids])
    assert len(str(raised.value)) < 300
    assert "\n" not in str(raised.value)


def test_layers_that_claim_the_same_filters_are_an_error_that_names_both() -> None:
    for ids, shared in (("40:59", "40:49"), ("49:59", "49:49")):
        with pytest.raises(SourceError, match=rf"rows 2 \(model 11\) and 0 \(model 33\) both claim filters {shared}"):
            ranges_of([ids, "70:75", "0:49"], [33, 22, 11])


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("Task", ["Depth", "Style"], r"rows 0 and 1: model_id 4 has two values of 'Task', 'Depth' and 'Style'"),
        ("depth", [5, NAN], r"rows 0 and 1: model_id 4 has two values of 'depth', 5 and None"),
        ("op_set", ["9", "nine"], r"row 1: 'op_set' is 'nine', expected a whole number"),
        ("depth", [2.5, 2.5], r"row 0: 'depth' is 2.5, expected a whole number"),
        ("total_filters", [1, 10**400], r"row 1: 'total_filters' is 1000\d*\.*, expected a whole number"),
        ("3x3_filter_share", ["half", 0.5], r"row 0: '3x3_filter_share' is 'half', expected a number"),
        ("Robust", [True, "maybe"], r"row 1: 'Robust' is 'maybe', expected true or false"),
        ("in_channels", [[3], [3]], r"row 0: 'in_channels' is \[3\], expected a whole number"),
    ],
)
def test_values_that_a_column_cannot_have_are_an_error_that_names_the_row(
    column: str, values: list | np.ndarray, message: str
) -> None:
    assert re.search(message, refusal({column: values}, model_id=[4, 4]))


@pytest.mark.parametrize(("model_id", "shown"), [(NAN, "nan"), (2**31, "2147483648"), (1.5, "1.5"), ("a", "'a'")])
def test_a_model_id_that_is_none_is_an_error_that_shows_it_plainly(model_id: object, shown: str) -> None:
    assert re.search(rf"row 1: '?model_id'? is {shown},", refusal({"a": [1, 2]}, model_id=[0, model_id]))


def test_text_that_is_no_unicode_is_an_error_of_one_line() -> None:
    assert "row 1" in refusal({"Name": ["fine", "\ud800"]})


@pytest.mark.parametrize("column", ["Robust", "Precision", "Backbone", "Clean Accuracy"])
def test_what_analyses_ask_of_a_model_stays_a_column_of_models_when_its_layers_differ(column: str) -> None:
    values = {"Robust": [True, False], "Clean Accuracy": [0.5, 0.6]}.get(column, ["x", "y"])
    tables = table({column: values}, model_id=[7, 7])
    name = column.lower().replace(" ", "_")
    assert tables.models[name].to_pylist() == [None]
    assert tables.layers[f"layer_{name}"].to_pylist() == values
    assert name not in tables.layers.column_names
