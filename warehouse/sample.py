"""A synthetic dataset in the layout of the genuine files, for demonstrations, tests and benchmarks.

Gets sizes, a seed and a layout; streams an HDF5 file of any size that ``ingest`` takes like a download. No
weight in it was ever trained, and the file says so in its root attributes and in the text columns.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from warehouse.dataset_writer import refuse_existing, write_file
from warehouse.errors import SourceError
from warehouse.sample_plan import CATEGORIES, Plan, plan_sample, sample_frame

Floats = npt.NDArray[np.float64]
Weights = npt.NDArray[np.float32]

LAYOUTS = ("v1", "v0.1", "lens")

_TITLE = "Synthetic filters in the layout of CNN Filter DB: random numbers, no trained weights"
_BLOCK_FILTERS = 65_536  # one random stream and one write: 24 MB of working memory

# By task: shares of the edge-like, smooth, redundant and random family, then the sparsity of the last layer.
_TASK_STYLES = {
    "Auto-Encoder": (0.10, 0.50, 0.20, 0.20, 0.10),
    "Classification": (0.30, 0.25, 0.25, 0.20, 0.50),
    "Depth Estimation": (0.20, 0.45, 0.20, 0.15, 0.30),
    "Face Detection": (0.35, 0.15, 0.40, 0.10, 0.40),
    "Face Recognition": (0.15, 0.20, 0.50, 0.15, 0.75),
    "GAN-Discriminator": (0.15, 0.15, 0.10, 0.60, 0.05),
    "GAN-Generator": (0.05, 0.15, 0.10, 0.70, 0.02),
    "Object Detection": (0.25, 0.25, 0.35, 0.15, 0.60),
    "Segmentation": (0.20, 0.35, 0.20, 0.25, 0.25),
    "Style Transfer": (0.40, 0.30, 0.10, 0.20, 0.05),
    "Super Resolution": (0.45, 0.35, 0.05, 0.15, 0.03),
}


def _derivative_filters() -> tuple[Floats, Floats]:
    """Return edge prototypes ``(4, 9)`` (first and second derivatives) and smooth blobs ``(2, 9)``."""
    y, x = np.mgrid[-1:2, -1:2].reshape(2, 9).astype(float)
    wide, narrow = np.exp(-(x**2 + y**2) / 2), np.exp(-2 * (x**2 + y**2))
    edges = np.stack([x, y, x**2 - y**2, x * y]) * wide * np.array([[1.4], [1.4], [0.5], [0.5]])
    return edges, np.stack([wide, narrow])


_EDGES, _BLOBS = _derivative_filters()


class Recipe(NamedTuple):
    """How the filters of one layer are drawn: a mixture of four Gaussians, then a gain for each filter.

    ``shares (4,)``, ``means (4, 9)`` and ``factors (4, 9, 9)`` describe the edge-like, smooth, redundant and
    random family; a share ``sparsity`` of the filters becomes negligible or zero; ``scale`` is the layer's.
    """

    shares: Floats
    means: Weights
    factors: Weights
    sparsity: float
    scale: float


def write_sample(
    path: str | os.PathLike[str],
    *,
    filters: int = 300_000,
    layers: int = 400,
    models: int = 40,
    seed: int = 0,
    layout: str = "v1",
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a synthetic dataset; the same arguments give the same data.

    Memory does not grow with ``filters``. The file appears under its name when it is complete.

    Parameters
    ----------
    path
        Where the file shall be; nothing may be there yet.
    filters, layers, models
        The exact totals: ``filters >= layers >= models >= 1``. Every layer has ``in_channels *
        out_channels`` filters; what such products leave over goes into the last layer: a depthwise
        convolution, the only layer of the last model where there are several.
    seed
        A number from 0 upwards.
    layout
        One of `LAYOUTS`: CNN Filter DB v1.0.0 or v0.1.0, or "Robustness through the lens".
    progress
        Called with the filters written so far and the total, after each block.

    Raises
    ------
    SourceError
        Impossible totals, an unknown layout, a path that is taken or cannot be written, a full disk.
    """
    target = Path(path)
    if layout not in LAYOUTS:
        raise SourceError(f"a sample has no layout {layout!r}: choose one of {', '.join(LAYOUTS)}")
    if not filters >= layers >= models >= 1:
        raise SourceError(
            "a sample needs filters >= layers >= models >= 1, "
            f"not {filters} filters, {layers} layers and {models} models"
        )
    if seed < 0:
        raise SourceError(f"a sample needs a seed from 0 upwards, not {seed}")
    refuse_existing(target, "the sample")

    plan = plan_sample(filters=filters, layers=layers, models=models, seed=seed, layout=layout)
    write_file(
        target,
        what="the sample",
        title=_TITLE,
        attributes={
            "synthetic": f"layout={layout} filters={filters} layers={layers} models={models} seed={seed}",
        },
        frame=sample_frame(plan),
        n_filters=filters,
        dtype=_dtype(layout),
        blocks=_blocks(plan, progress),
    )


def _dtype(layout: str) -> np.dtype[np.floating]:
    return np.dtype("<f4" if layout == "lens" else "<f8")


def _blocks(plan: Plan, progress: Callable[[int, int], None] | None) -> Iterator[Weights]:
    done, total = 0, int(plan.first_filter[-1])
    for layer in range(len(plan.model_id)):
        for block in layer_filters(plan, layer):
            yield block
            done += len(block)
            if progress is not None:
                progress(done, total)


def layer_filters(plan: Plan, layer: int) -> Iterator[Weights]:
    """Yield the filters of a layer in blocks ``(n, 9) float32``, the filters of an out channel together.

    They depend on the seed and on the layer's place in the plan, not on what was drawn before.
    """
    n_filters = int(plan.first_filter[layer + 1] - plan.first_filter[layer])
    starts = range(0, n_filters, _BLOCK_FILTERS)
    recipe_seed, *block_seeds = np.random.SeedSequence(plan.seed, spawn_key=(layer,)).spawn(1 + len(starts))
    recipe = _recipe(plan, layer, np.random.default_rng(recipe_seed))
    for start, block_seed in zip(starts, block_seeds, strict=True):
        n_block = min(_BLOCK_FILTERS, n_filters - start)
        yield _draw(recipe, n_block, np.random.default_rng(block_seed))


def _recipe(plan: Plan, layer: int, rng: np.random.Generator) -> Recipe:
    """Choose how a layer's filters are drawn, by task, category and depth of its model.

    Deeper layers are sparser and more redundant, the first ones edge-like; robustly trained models are less
    sparse. One layer in a hundred is all zero and four are degenerate: two directions, many filters sparse.
    """
    model = plan.models[plan.model_id[layer]]
    depth = float(np.nan_to_num(plan.conv_depth_norm[layer]))
    task = "Segmentation" if "Segmentation" in model.network.task else model.network.task
    *families, last_sparsity = _TASK_STYLES[task]
    emphasis = (6.0 if plan.layer_id[layer] == 0 else 1.6 - 1.2 * depth, 1.0, 0.4 + 1.2 * depth, 1.0)
    shares = rng.dirichlet(8 * np.array(families) * emphasis)
    sparsity = last_sparsity * depth**1.5 * rng.lognormal(0, 0.4)
    if model.robust:
        sparsity *= 0.2
    n_prototypes, noise, scale = int(rng.integers(1, 4)), rng.uniform(0.1, 0.45), rng.lognormal(-3, 0.6)

    fate = rng.random()
    if not model.is_trained:
        shares, sparsity = np.array([0.0, 0.0, 0.0, 1.0]), 0.0
    elif fate < 0.01:
        scale = 0.0
    elif fate < 0.05:
        shares, sparsity = np.array([0.0, 0.0, 1.0, 0.0]), max(0.3, sparsity)
        n_prototypes, noise = 2, 0.02

    # Categories lie evenly around a circle: by the sign of their blobs and the direction of their edges.
    angle = 2 * np.pi * CATEGORIES.index(model.network.category) / len(CATEGORIES)
    edges = _EDGES * np.exp([[0.5 * np.sin(angle)], [-0.5 * np.sin(angle)], [0.0], [0.0]])
    prototypes = rng.standard_normal((n_prototypes, 9))
    covariances = np.stack([edges.T @ edges, _BLOBS.T @ _BLOBS / 2, prototypes.T @ prototypes, np.eye(9)])
    factors = np.linalg.cholesky(covariances + noise**2 * np.eye(9)).swapaxes(1, 2)
    means = np.zeros((4, 9))
    means[1] = 0.8 * np.cos(angle) * _BLOBS[0]
    return Recipe(
        shares, means.astype(np.float32), factors.astype(np.float32), min(float(sparsity), 0.85), float(scale)
    )


def _draw(recipe: Recipe, n_filters: int, rng: np.random.Generator) -> Weights:
    """Draw filters ``(n_filters, 9) float32`` in random order."""
    counts = rng.multinomial(n_filters, recipe.shares)
    filters = rng.standard_normal((n_filters, 9), dtype=np.float32)
    for mean, factor, count, stop in zip(recipe.means, recipe.factors, counts, counts.cumsum(), strict=True):
        family = slice(stop - count, stop)
        filters[family] = filters[family] @ factor + mean
    gain = recipe.scale * np.exp(0.3 * rng.standard_normal(n_filters, dtype=np.float32))
    fate = rng.random(n_filters, dtype=np.float32)
    gain[fate < recipe.sparsity] *= 0.001
    gain[fate < recipe.sparsity / 2] = 0
    filters *= gain[:, np.newaxis]
    return rng.permutation(filters)
