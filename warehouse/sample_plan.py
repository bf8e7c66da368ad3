"""Which models and layers a synthetic dataset has, and what its metadata says about them.

Gets totals, a seed and a layout; hands a plan to `warehouse.sample`, which draws the weights. Architectures,
tasks and categories are those of CNN Filter DB; that the data is synthetic stands in the text columns.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Column = npt.NDArray[np.generic]

_STEM_KERNELS = {"7x7", "11x11"}  # a network that opens with one has no 3x3 convolution at depth 0
_UNTRAINED_MODEL = 2
_UNRATED_MODELS = (4, 5)  # the layout "lens" knows two models whose robustness is missing


class Architecture(NamedTuple):
    """What a family of networks is made of; ``layers`` is its usual number of 3x3 convolutions."""

    layers: int
    other_kernels: str
    operators: str


class Network(NamedTuple):
    """What a model is for, as the text columns say it; ``training`` is a comma-separated list."""

    architecture: str
    task: str
    category: str
    training: str
    pretraining: str | float = np.nan


_ARCHITECTURES = {
    "alexnet": Architecture(3, "5x5 11x11", "Relu MaxPool Flatten Gemm Dropout"),
    "compnet": Architecture(30, "1x1", "BatchNormalization Relu Concat ConvTranspose MaxPool Sigmoid"),
    "dcgan": Architecture(8, "", "BatchNormalization LeakyRelu ConvTranspose Tanh Reshape"),
    "deeplabv3_resnet50": Architecture(22, "1x1 7x7", "BatchNormalization Relu Add Concat MaxPool Resize"),
    "densenet121": Architecture(58, "1x1 7x7", "BatchNormalization Relu Concat AveragePool MaxPool Gemm"),
    "edsr": Architecture(37, "", "Relu Add Mul DepthToSpace"),
    "efficientnet_b0": Architecture(17, "1x1 5x5", "BatchNormalization Sigmoid Mul Add GlobalAveragePool Gemm"),
    "inception_v3": Architecture(28, "1x1 5x5", "BatchNormalization Relu Concat AveragePool MaxPool Gemm"),
    "johnson": Architecture(13, "9x9", "InstanceNormalization Relu Add Pad Upsample"),
    "lenet": Architecture(2, "5x5", "Relu MaxPool Flatten Gemm Softmax"),
    "midas": Architecture(60, "1x1 7x7", "BatchNormalization Relu Add Resize MaxPool"),
    "mobilenet_v2": Architecture(18, "1x1", "BatchNormalization Clip Add GlobalAveragePool Gemm"),
    "resnet18": Architecture(16, "1x1 7x7", "BatchNormalization Relu Add MaxPool GlobalAveragePool Gemm"),
    "resnet50": Architecture(16, "1x1 7x7", "BatchNormalization Relu Add MaxPool GlobalAveragePool Gemm"),
    "retinaface": Architecture(34, "1x1", "BatchNormalization LeakyRelu Add Concat Softmax Transpose Reshape"),
    "sphereface20": Architecture(20, "", "PRelu Add Flatten Gemm"),
    "squeezenet1_1": Architecture(9, "1x1", "Relu Concat MaxPool GlobalAveragePool Dropout Softmax"),
    "stylegan2": Architecture(17, "1x1", "LeakyRelu Mul Add Gemm Resize Identity"),
    "unet": Architecture(18, "1x1", "BatchNormalization Relu Concat ConvTranspose MaxPool"),
    "vgg16_bn": Architecture(13, "", "BatchNormalization Relu MaxPool Flatten Gemm Dropout"),
    "wide_resnet28_10": Architecture(25, "1x1", "BatchNormalization Relu Add AveragePool Flatten Gemm"),
    "yolov3": Architecture(39, "1x1", "BatchNormalization LeakyRelu Add Concat Upsample Transpose"),
}
_OPERATORS = sorted({name for a in _ARCHITECTURES.values() for name in a.operators.split()})
_KERNELS = sorted({kernel for a in _ARCHITECTURES.values() for kernel in a.other_kernels.split()})
_OPERATORS_PER_CONVOLUTION = {
    **dict.fromkeys(("BatchNormalization", "InstanceNormalization"), 1.0),
    **dict.fromkeys(("Relu", "LeakyRelu", "PRelu", "Clip"), 0.9),
    **dict.fromkeys(("Add", "Concat", "Mul", "Sigmoid"), 0.3),
}

# Most models of the genuine files classify natural images; the others come first in the odd places, so that
# a sample of few models has several tasks and categories.
_COMMON_NETWORKS = tuple(
    Network(architecture, "Classification", "natural", "ImageNet")
    for architecture in (
        "resnet50", "vgg16_bn", "densenet121", "mobilenet_v2", "inception_v3",
        "efficientnet_b0", "alexnet", "squeezenet1_1", "resnet18",
    )
)  # fmt: skip
_OTHER_NETWORKS = (
    Network("unet", "Semantic Segmentation", "medical xray", "Shenzhen, Montgomery"),
    Network("dcgan", "GAN-Generator", "natural", "CIFAR-10"),
    Network("yolov3", "Object Detection", "natural", "COCO", "ImageNet"),
    Network("lenet", "Classification", "handwriting", "MNIST"),
    Network("retinaface", "Face Detection", "faces", "WIDER FACE", "ImageNet"),
    Network("johnson", "Style Transfer", "art", "COCO, WikiArt"),
    Network("edsr", "Super Resolution", "natural", "DIV2K, Flickr2K"),
    Network("midas", "Depth Estimation", "depth", "MegaDepth, ReDWeb, WSVD", "ImageNet"),
    Network("compnet", "Segmentation (binary)", "medical ct", "OASIS"),
    Network("dcgan", "GAN-Discriminator", "faces", "CelebA"),
    Network("sphereface20", "Face Recognition", "faces", "CASIA-WebFace"),
    Network("unet", "Auto-Encoder", "textures", "DTD"),
    Network("unet", "Segmentation", "medical mri", "LGG"),
    Network("resnet18", "Classification", "fractals", "FractalDB-1k"),
    Network("deeplabv3_resnet50", "Segmentation", "seismic", "F3", "ImageNet, COCO"),
    Network("stylegan2", "GAN-Generator", "astronomy", "Galaxy Zoo"),
    Network("unet", "Instance Segmentation", "map", "SpaceNet"),
    Network("yolov3", "Object Detection", "thermal", "FLIR ADAS", "COCO"),
    Network("resnet50", "Classification", "cars", "Stanford Cars", "ImageNet"),
    Network("mobilenet_v2", "Classification", "plants", "PlantVillage", "ImageNet"),
)
_ROBUSTNESS_NETWORKS = tuple(
    Network(architecture, "Classification", "natural", dataset)
    for dataset in ("cifar10", "cifar100", "imagenet")
    for architecture in ("wide_resnet28_10", "resnet18", "resnet50")
)
_TASK_MISSING_IN_V0_1 = "Auto-Encoder"
CATEGORIES = sorted({network.category for network in (*_COMMON_NETWORKS, *_OTHER_NETWORKS)})


@dataclass(frozen=True, slots=True)
class Model:
    """One model of the plan; ``robust`` is None where nothing is known, as in all layouts but "lens"."""

    network: Network
    n_conv_depths: int
    robust: bool | None
    is_trained: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything about a sample but its weights: models, and arrays with one entry per layer, in row order.

    ``layer_id`` counts within the model, in the order of depth; ``first_filter`` ends with one entry more,
    the number of filters.
    """

    seed: int
    layout: str
    models: list[Model]
    model_id: Integers
    layer_id: Integers
    conv_depth: Integers
    conv_depth_norm: Floats
    in_channels: Integers
    out_channels: Integers
    first_filter: Integers


def plan_sample(*, filters: int, layers: int, models: int, seed: int, layout: str) -> Plan:
    """Lay out a sample: which models, their layers, and how many filters each layer has."""
    rng = np.random.default_rng(seed)
    networks = _networks(rng, models, layout)
    layer_counts = _layer_counts(rng, networks, layers)

    planned_models, rows = [], []
    for number, (network, n_layers) in enumerate(zip(networks, layer_counts, strict=True)):
        is_last = models > 1 and number == models - 1
        kernels = _ARCHITECTURES[network.architecture].other_kernels.split()
        opens_with_stem = not is_last and not _STEM_KERNELS.isdisjoint(kernels)
        depths = np.cumsum(rng.choice(3, size=n_layers, p=(0.1, 0.6, 0.3)))
        depths += int(opens_with_stem) - depths[0]
        n_depths = 1 if is_last else int(depths[-1]) + 1 + int(rng.integers(2))
        is_rated = layout == "lens" and number not in _UNRATED_MODELS
        robust = number % 2 == 0 if is_rated else None
        planned_models.append(Model(network, n_depths, robust, number != _UNTRAINED_MODEL))

        order = np.argsort(np.arange(n_layers) + rng.uniform(0, 2.5, n_layers))
        size = rng.lognormal(0, 0.8)
        rows += [(number, layer, depths[layer], size * 64.0 ** (layer / n_layers)) for layer in order]

    model_id, layer_id, conv_depth = np.array([row[:3] for row in rows], dtype=np.int64).T
    n_depths_of_row = np.array([model.n_conv_depths for model in planned_models])[model_id]
    in_channels, out_channels = _channels(filters, np.array([row[3] for row in rows]), conv_depth == 0)
    return Plan(
        seed=seed,
        layout=layout,
        models=planned_models,
        model_id=model_id,
        layer_id=layer_id,
        conv_depth=conv_depth,
        conv_depth_norm=np.divide(
            conv_depth, n_depths_of_row - 1, where=n_depths_of_row > 1, out=np.full(layers, np.nan)
        ),
        in_channels=in_channels,
        out_channels=out_channels,
        first_filter=np.concatenate([[0], np.cumsum(in_channels * out_channels)]),
    )


def _networks(rng: np.random.Generator, models: int, layout: str) -> list[Network]:
    if layout == "lens":  # two of each kind, one trained robustly and one normally
        return [_ROBUSTNESS_NETWORKS[number // 2 % len(_ROBUSTNESS_NETWORKS)] for number in range(models)]
    others = [n for n in _OTHER_NETWORKS if layout == "v1" or n.task != _TASK_MISSING_IN_V0_1]
    chosen = []
    for number in range(models):
        if number % 2 and number // 2 < len(others):
            chosen.append(others[number // 2])
        elif number >= 2 * len(others) and rng.random() < 0.15:
            chosen.append(others[rng.integers(len(others))])
        else:
            chosen.append(_COMMON_NETWORKS[number // 2 % len(_COMMON_NETWORKS)])
    return chosen


def _layer_counts(rng: np.random.Generator, networks: list[Network], layers: int) -> Integers:
    """Give every model one layer, and share out the others by what is usual for its architecture."""
    usual = np.array([_ARCHITECTURES[network.architecture].layers for network in networks])
    weights = usual * rng.lognormal(0, 0.3, len(networks))
    if len(networks) > 1:
        weights[-1] = 0
    return 1 + _split(layers - len(networks), weights)


def _channels(filters: int, weights: Floats, sees_image: npt.NDArray[np.bool_]) -> tuple[Integers, Integers]:
    """Return the in and out channels of each layer, whose products sum to ``filters``.

    A layer gets at most its share by weight and what earlier layers left of theirs; the last layer is
    depthwise (one in channel) and gets what is left over. Unlike in a real network, the out channels of a
    layer are not the in channels of the next.
    """
    ceilings = np.cumsum(1 + _split(filters - len(weights), weights[:-1]))
    channels, used = [], 0
    for ceiling, is_first in zip(ceilings.tolist(), sees_image[:-1], strict=True):
        room = ceiling - used
        out_channels = 1 << round(np.log2(room) / 2)
        in_channels = room // out_channels
        if is_first and room > 3 * 16:
            out_channels = min(64, 1 << int(np.log2(room // 3)))
            in_channels = 3
        channels.append((in_channels, out_channels))
        used += in_channels * out_channels
    channels.append((1, filters - used))
    in_channels_of_row, out_channels_of_row = np.array(channels, dtype=np.int64).T
    return in_channels_of_row, out_channels_of_row


def _split(total: int, weights: Floats) -> Integers:
    """Split ``total`` into whole parts, one for each weight, that sum to it exactly."""
    bounds = np.rint(np.cumsum(weights) / weights.sum() * total).astype(np.int64)
    parts: Integers = np.diff(bounds, prepend=0)
    return parts


def sample_frame(plan: Plan) -> tuple[dict[str, Column], dict[str, Column]]:
    """Return index and columns of the sample's metadata, one entry per layer, as `write_frame` takes them."""
    index: dict[str, Column] = {
        "model_id": plan.model_id,
        "conv_depth": plan.conv_depth,
        "conv_depth_norm": plan.conv_depth_norm,
    }
    first, stop = plan.first_filter[:-1].tolist(), plan.first_filter[1:].tolist()
    columns: dict[str, Column] = {}
    if plan.layout == "lens":
        index["layer_id"] = plan.layer_id
        columns["layer_depth"] = 3 * plan.conv_depth  # a convolution, its normalisation, its activation
        columns["in_channels"] = plan.in_channels
        columns["out_channels"] = plan.out_channels
    ids = [f"{start}:{end - 1}" for start, end in zip(first, stop, strict=True)]
    columns["filter_ids"] = np.array(ids, dtype=object)

    n_3x3 = np.bincount(plan.model_id, weights=np.diff(plan.first_filter), minlength=len(plan.models))
    records = [
        _text(number, model, plan.layout)
        | _counts(number, model, int(n_filters))
        | (_robustness(number, model) if plan.layout == "lens" else {})
        for number, (model, n_filters) in enumerate(zip(plan.models, n_3x3, strict=True))
    ]
    for column in records[0]:
        values = [record[column] for record in records]
        is_mixed = column == "Robust" or any(isinstance(value, str) for value in values)
        columns[column] = np.array(values, dtype=object if is_mixed else None)[plan.model_id]
    return index, columns


def _text(number: int, model: Model, layout: str) -> dict[str, object]:
    """Return the text columns of a model, with the defects of the genuine ones: '?', '' and NaN."""
    network = model.network
    name = f"{network.architecture}-synthetic-{number:03d}"
    category = "formula" if layout == "v0.1" and network.category == "fractals" else network.category
    return {
        "model": name,
        "producer": ("pytorch 1.10", "keras2onnx 1.8.0", "tf2onnx 1.9.3", np.nan)[number % 4],
        "Name": f"{network.architecture} (synthetic{'' if model.is_trained else ', untrained'})",
        "Paper": ("synthetic data, no paper", "", np.nan)[number % 3],
        "Pretraining-Dataset": number % 3 == 0 if layout == "lens" else network.pretraining,
        "Training-Dataset": "?" if number % 8 == 6 else network.training,
        "Datatype" if layout == "v0.1" else "Visual Category": category,
        "Task": network.task,
        "Accessible": "synthetic: random numbers, never trained",
        "Dataset URL": np.nan if number % 2 else "https://example.org/synthetic",
    }


def _counts(number: int, model: Model, n_3x3: int) -> dict[str, float]:
    """Return the numeric columns of a model: graph, kernels and operators; what is absent is NaN."""
    architecture = _ARCHITECTURES[model.network.architecture]
    present = architecture.operators.split()
    n_convolutions = model.n_conv_depths
    operators = {
        operator: float(max(1, round(n_convolutions * _OPERATORS_PER_CONVOLUTION.get(operator, 0))))
        for operator in present
    }
    kernels = {
        kernel: float(max(1, n_3x3 // 2) if kernel == "1x1" else 192) for kernel in architecture.other_kernels.split()
    }
    n_beyond_1x1 = n_3x3 + sum(n for kernel, n in kernels.items() if kernel != "1x1")
    return {
        "op_set": float(9 + number % 4),
        "depth": n_convolutions + sum(operators.values()),
        "total_filters": float(n_beyond_1x1),
        "3x3_filter_share": n_3x3 / n_beyond_1x1,
        "(3, 3) filters": float(n_3x3),
        **{f"({kernel.replace('x', ', ')}) filters": kernels.get(kernel, np.nan) for kernel in _KERNELS},
        "Conv": float(n_convolutions),
        **{operator: operators.get(operator, np.nan) for operator in _OPERATORS},
    }


def _robustness(number: int, model: Model) -> dict[str, object]:
    """Return the columns of a model that only "Robustness through the lens" has."""
    network = model.network
    side = 224 if network.training == "imagenet" else 32
    return {
        "path": f"synthetic/{network.architecture}-{number:03d}.onnx",
        "Robust": np.nan if model.robust is None else model.robust,
        "Clean Accuracy": 84.0 + number % 7 if model.robust else 93.0 + number % 5,
        "Robust Accuracy": {True: 50.0 + number % 9, False: 0.0, None: np.nan}[model.robust],
        "Network": network.architecture,
        "Backbone": network.architecture.partition("_")[0],
        "Framework": "PyTorch",
        "Precision": "fp32",
        "Optimizer": np.nan if number % 5 == 4 else "SGD",
        "Input Shape": f"(3, {side}, {side})",
        "Hide": np.nan,
        "Selection": np.nan if number % 2 else "x",
    }
