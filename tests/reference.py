"""The statistics of a dataset computed another way: pandas reads, NumPy and scikit-learn compute, all in memory.

Shares no code with the project. Slow and simple on purpose.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.stats import entropy
from sklearn.decomposition import PCA
from threadpoolctl import ThreadpoolController

ONE_THREAD = ThreadpoolController().wrap(limits=1, user_api="blas")
"""For functions that decompose small matrices: threads would wait for each other most of the time."""
EMPTY_DENSITY = 1.1920929e-07
"""What an empty bin counts as: float32's eps, as published."""

Groups = dict[object, pd.DataFrame]


class Reference:
    """One dataset file, its filters ``(n, 9) float64`` of float32 precision, and its layers in filter order."""

    @ONE_THREAD
    def __init__(self, path: Path) -> None:
        with h5py.File(path) as file:
            self.filters = file["filters"][:].reshape(-1, 9).astype(np.float32).astype(np.float64)
        meta = pd.read_hdf(path, "meta").reset_index()
        bounds = meta["filter_ids"].str.split(":", expand=True).astype(int)
        meta["first"], meta["stop"] = bounds[0], bounds[1] + 1
        task = meta["Task"].replace({"": None, "?": None, "nan": None})
        meta["task"] = task.mask(task.str.contains("Segmentation", na=False), "Segmentation")
        depth = meta["conv_depth_norm"].where(np.isfinite(meta["conv_depth_norm"]))
        # searchsorted puts 0.1 before 0.1: the upper edge belongs to the tenth
        meta["depth_decile"] = (np.searchsorted(np.arange(1, 10) / 10, depth) + 1.0).astype(float)
        meta.loc[depth.isna(), "depth_decile"] = np.nan
        meta["n_filters"] = meta["stop"] - meta["first"]
        self.layers = meta.sort_values("first", kind="stable").reset_index(drop=True)
        peaks = np.abs(self.filters).max(axis=1, keepdims=True)
        self.scaled = np.divide(self.filters, peaks, out=np.zeros_like(self.filters), where=peaks > 0)
        self.pca = PCA(svd_solver="full").fit(self.scaled)
        self.coefficients = (self.scaled - self.pca.mean_) @ self.loadings.T
        self.range = self.coefficients.min(), self.coefficients.max()

    @property
    def loadings(self) -> np.ndarray:
        """``(9, 9)``, one component a row, the strongest entry positive."""
        rows = self.pca.components_
        strongest = np.take_along_axis(rows, np.abs(rows).argmax(axis=1)[:, None], axis=1)
        return rows * np.sign(strongest)

    def rows(self, layers: pd.DataFrame) -> np.ndarray:
        """Numbers of the filters of some layers."""
        return np.concatenate([np.arange(a, b) for a, b in zip(layers["first"], layers["stop"], strict=True)])

    def histogram(self, layers: pd.DataFrame) -> np.ndarray:
        """``(9, 70)`` counts of the coefficients of some layers."""
        known, chosen = (table["first"].to_numpy() for table in (self.layers, layers))
        return self._layer_histograms[np.searchsorted(known, chosen)].sum(axis=0)

    @cached_property
    def _layer_histograms(self) -> np.ndarray:
        """``(layers, 9, 70)`` counts of the coefficients of each layer."""
        low, high = self.range
        bins = np.floor(70 * (self.coefficients - low) / (high - low) + 1e-9).clip(0, 69).astype(int)
        return np.array(
            [
                [np.bincount(column, minlength=70) for column in bins[first:stop].T]
                for first, stop in zip(self.layers["first"], self.layers["stop"], strict=True)
            ]
        )

    def probability(self, layers: pd.DataFrame) -> np.ndarray:
        """``(9, 70)`` probabilities of some layers."""
        counts = self.histogram(layers).astype(float)
        width = (self.range[1] - self.range[0]) / 70
        density = counts / (counts.sum(axis=1, keepdims=True) * width)
        density[density == 0] = EMPTY_DENSITY
        return density / density.sum(axis=1, keepdims=True)

    def drift(self, one: pd.DataFrame, other: pd.DataFrame) -> float:
        """Drift between two sets of layers."""
        return self.divergence(self.probability(one), self.probability(other))

    def divergence(self, p: np.ndarray, q: np.ndarray) -> float:
        """Drift between two distributions, ``(9, 70)`` probabilities each."""
        return float(self.pca.explained_variance_ratio_ @ ((p - q) * np.log(p / q)).sum(axis=1))

    def groups(self, axis: Callable[[pd.Series], object], keep: Callable[[pd.Series], object] | None = None) -> Groups:
        """Layers by what ``axis`` says of each; None and NaN form no group."""
        chosen = [row for _, row in self.layers.iterrows() if keep is None or keep(row)]
        values = [axis(row) for row in chosen]
        return {
            value: pd.DataFrame([row for row, own in zip(chosen, values, strict=True) if own == value])
            for value in set(values)
            if not pd.isna(value)
        }

    def drifts(self, groups: Groups) -> dict[tuple[object, object], float]:
        """Drift of each ordered pair of groups."""
        found = {group: self.probability(layers) for group, layers in groups.items()}
        return {(a, b): self.divergence(found[a], found[b]) for a in found for b in found}

    @cached_property
    def clean(self) -> np.ndarray:
        """``(n,)`` whether a filter belongs to a layer and is not sparse."""
        clean = np.zeros(len(self.filters), bool)
        for first, stop in zip(self.layers["first"], self.layers["stop"], strict=True):
            peaks = np.abs(self.filters[first:stop]).max(axis=1)
            clean[first:stop] = (peaks >= 0.01 * peaks.max()) & (peaks.max() > 0)
        return clean

    @cached_property
    @ONE_THREAD
    def qualities(self) -> pd.DataFrame:
        """`quality` of every layer, and what else weights a layer."""
        table = pd.DataFrame([self.quality(layer) for _, layer in self.layers.iterrows()])
        channels = self.layers.get("out_channels", np.nan)
        return table.assign(n_clean=table["n_filters"] - table["n_sparse"], out_channels=channels)

    def quality(self, layer: pd.Series) -> dict[str, float | bool | None]:
        """The columns of ``layer_quality`` of one layer."""
        raw = self.filters[layer["first"] : layer["stop"]]
        n = len(raw)
        peaks = np.abs(raw).max(axis=1)
        clean = (peaks >= 0.01 * peaks.max()) & (peaks.max() > 0)
        entropy = variance_entropy(raw)
        spread = raw.std(ddof=1)
        standardised = (raw - raw.mean()) / spread if np.ptp(raw) else None
        sparsity = 1 - clean.mean()
        threshold = randomness_threshold(n)
        entropy_clean = variance_entropy(raw[clean])
        return {
            "n_filters": n,
            "n_sparse": n - clean.sum(),
            "sparsity": sparsity,
            "variance_entropy": entropy,
            "randomness_threshold": threshold,
            "variance_entropy_norm": entropy / threshold if n > 2 else None,
            "is_random": None if entropy is None else entropy > threshold,
            "is_degenerate": None
            if entropy is None
            else entropy >= threshold - 0.02 or (entropy < 0.5 and sparsity >= 0.14),
            "variance_entropy_clean": entropy_clean,
            "variance_entropy_clean_norm": entropy_clean / randomness_threshold(clean.sum())
            if clean.sum() > 2
            else None,
            "scaled_clean_entropy": variance_entropy(self.scaled[layer["first"] : layer["stop"]][clean]),
            "orthogonality": orthogonality(raw, int(layer["out_channels"])) if "out_channels" in layer else None,
            "l1": np.abs(raw).sum(),
            "l2": np.sqrt((raw**2).sum()),
            "l1_standardised": None if standardised is None else np.abs(standardised).sum(),
            "l2_standardised": None if standardised is None else np.sqrt((standardised**2).sum()),
        }


@ONE_THREAD
def variance_entropy(filters: np.ndarray) -> float | None:
    """Entropy (log10) of the explained variance ratios, by singular values."""
    if len(filters) < 2:
        return None
    if not np.ptp(filters, axis=0).any():
        return 0.0
    # `scipy.stats.entropy` divides by the sum
    return float(entropy(np.linalg.svd(filters - filters.mean(axis=0), compute_uv=False) ** 2, base=10))


def randomness_threshold(n: int) -> float:
    """The published fit, a logistic function of log2 n."""
    return float(1.2618047 * expit(0.88767525 * (np.log2(n) - 2.30436435)) - 0.31050834)


def orthogonality(filters: np.ndarray, out_channels: int) -> float | None:
    """The definition over all pairs of output channels."""
    rows = np.array([row / (np.linalg.norm(row) or 1) for row in filters.reshape(out_channels, -1)])
    if out_channels == 1:
        return None
    total = np.abs(rows @ rows.T - np.eye(out_channels)).sum()
    return float(1 - total / (out_channels * (out_channels - 1)))


def write_dataset(path: Path, layers: Sequence[tuple[str | None, np.ndarray]], unclaimed: np.ndarray) -> None:
    """A dataset file of layers ``(task, (n, 9) weights)``, one model a layer, then filters that no layer claims."""
    stops = np.cumsum([len(filters) for _, filters in layers])
    meta = pd.DataFrame(
        {
            "model_id": range(len(layers)),
            "conv_depth": 0,
            "conv_depth_norm": np.nan,
            "filter_ids": [f"{b - len(filters)}:{b - 1}" for b, (_, filters) in zip(stops, layers, strict=True)],
            "Task": pd.Series([task for task, _ in layers], dtype=object),
        }
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTables pickles text and says so
        meta.set_index(["model_id", "conv_depth", "conv_depth_norm"]).to_hdf(path, key="meta")
    with h5py.File(path, "a") as file:
        file["filters"] = np.concatenate([*(filters for _, filters in layers), unclaimed]).reshape(-1, 3, 3)


def by_group(rows: Iterable[Sequence]) -> dict[object, list[tuple]]:
    """Rows without their first column, by it."""
    found: dict[object, list] = {}
    for group, *row in rows:
        found.setdefault(group, []).append(tuple(row))
    return found


def assert_components(rows: list[tuple], covariance: np.ndarray) -> None:
    """Rows of ``pca`` without the group are the eigenvalues and eigenvectors of a covariance matrix."""
    assert [row[0] for row in rows] == list(range(9))
    values, ratios, cumulative, loadings = (np.array(column) for column in list(zip(*rows, strict=True))[1:])
    norm = np.abs(covariance).max()
    expected = np.linalg.eigvalsh(covariance)[::-1]
    assert (values >= 0).all()
    assert (np.diff(values) <= 0).all()
    np.testing.assert_allclose(values, expected, rtol=0, atol=3e-14 * norm)
    np.testing.assert_allclose(loadings @ loadings.T, np.eye(9), atol=2e-13)
    np.testing.assert_allclose(loadings.T * values @ loadings, covariance, rtol=0, atol=5e-14 * norm)
    assert all(row[np.isclose(np.abs(row), np.abs(row).max(), rtol=1e-9, atol=0)][0] > 0 for row in loadings)
    total = values.sum() or 1
    np.testing.assert_allclose(ratios, values / total, rtol=1e-12)
    np.testing.assert_allclose(cumulative, np.cumsum(values) / total, rtol=1e-12)
