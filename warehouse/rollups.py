"""From the merged partial results of layers to the tables of the lake.

Gets, per run, what the passes returned; hands on Arrow tables. Pure functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from warehouse import staging
from warehouse.coordinates import BINS, Coordinates
from warehouse.layer_scan import Measurement
from warehouse.statistics import PEAK_EDGES, SIZE, TRIANGLE, Counts, Moments, variance_entropies

HISTOGRAM_LAYERS = 1024
"""Layers whose histograms make up one row group."""


def layer_moments(measurements: Sequence[Measurement]) -> pa.Table:
    """Raw, scaled and clean moments, one row a run, NULL where weights are not finite."""
    columns = {
        "": [m.scan.scaled for m in measurements],
        "raw_": [m.scan.raw for m in measurements],
        "clean_": [m.scan.clean_scaled for m in measurements],
        "clean_raw_": [m.scan.clean_raw for m in measurements],
    }
    missing = np.array([not m.extent.is_finite for m in measurements])
    table = {
        "layer_id": pa.array([m.layer_id for m in measurements], pa.int32()),
        "n": pa.array([m.n for m in columns[""]], pa.int64(), mask=missing),
        "n_clean": pa.array([m.n for m in columns["clean_"]], pa.int64(), mask=missing),
    }
    for prefix, moments in columns.items():
        table[f"{prefix}mean"] = _vectors(np.stack([m.mean for m in moments]), missing)
        table[f"{prefix}scatter"] = _vectors(np.stack([_packed(m) for m in moments]), missing)
    return pa.table(table)


def _packed(moments: Moments) -> np.ndarray:
    packed: np.ndarray = moments.scatter[TRIANGLE]
    return packed


def _vectors(values: np.ndarray, missing: np.ndarray | None = None) -> pa.FixedSizeListArray:
    """Rows of ``values`` as lists of fixed size."""
    mask = None if missing is None else pa.array(missing)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1], mask=mask)


def layer_quality(measurements: Sequence[Measurement]) -> pa.Table:
    """Quality of each layer; runs that no layer claims are left out."""
    layers = [m for m in measurements if m.layer_id is not None]
    measured: dict[str, Sequence[float | None]] = {
        "n_sparse": [m.scan.n_sparse for m in layers],
        "variance_entropy": variance_entropies([m.scan.raw for m in layers]),
        "variance_entropy_clean": variance_entropies([m.scan.clean_raw for m in layers]),
        "scaled_clean_entropy": variance_entropies([m.scan.clean_scaled for m in layers]),
        "orthogonality": [m.orthogonality for m in layers],
        "l1": [m.scan.l1 for m in layers],
        "l2": [m.scan.l2 for m in layers],
        "l1_standardised": [_ratio(m.scan.absolute_deviation, m.scan.weight_std) for m in layers],
        # the sum of squares after standardisation is n - 1 by definition
        "l2_standardised": [math.sqrt(m.scan.n_weights - 1) if m.scan.weight_std else None for m in layers],
    }
    missing = np.array([not m.extent.is_finite for m in layers])
    columns = {name: pa.array(values, pa.float64()) for name, values in measured.items()}
    columns = {name: pc.if_else(pa.array(missing), None, column) for name, column in columns.items()}
    columns["n_sparse"] = columns["n_sparse"].cast(pa.int64())
    columns["layer_id"] = pa.array([m.layer_id for m in layers], pa.int32())
    columns["n_filters"] = pa.array([m.extent.n_filters for m in layers], pa.int64())
    return staging.run(
        "layer_quality", {"measured_quality": pa.table(columns)}, uses=[("macros", "randomness_threshold")]
    )


def _ratio(value: float, by: float) -> float | None:
    return value / by if by else None


def layer_histograms(layer_ids: Sequence[int | None], counts: Sequence[Counts]) -> tuple[pa.Schema, Iterator[pa.Table]]:
    """Schema and tables of the bins that are not empty, some layers at a time."""
    schema = pa.schema([("layer_id", pa.int32()), ("component", pa.uint8()), ("bin", pa.uint8()), ("n", pa.int64())])

    def bins(positions: np.ndarray) -> list[np.ndarray]:
        return [(positions // BINS).astype(np.uint8), (positions % BINS).astype(np.uint8)]

    return schema, _count_tables(schema, layer_ids, counts, bins)


def layer_peaks(measurements: Sequence[Measurement]) -> tuple[pa.Schema, Iterator[pa.Table]]:
    """Schema and tables of the bins of relative peaks that are not empty; runs that no layer claims are left out."""
    layers = [m for m in measurements if m.layer_id is not None]
    schema = pa.schema([("layer_id", pa.int32()), ("bin", pa.uint16()), ("n", pa.int64())])
    counts = [m.scan.relative_peaks for m in layers]
    return schema, _count_tables(schema, [m.layer_id for m in layers], counts, lambda positions: [positions])


def _count_tables(
    schema: pa.Schema,
    layer_ids: Sequence[int | None],
    counts: Sequence[Counts],
    bins: Callable[[np.ndarray], list[np.ndarray]],
) -> Iterator[pa.Table]:
    """Tables of some layers at a time; ``bins`` gives the columns that tell where a position lies."""
    for start in range(0, len(counts), HISTOGRAM_LAYERS):
        part = counts[start : start + HISTOGRAM_LAYERS]
        ids = np.repeat(
            [-1 if layer is None else layer for layer in layer_ids[start : start + HISTOGRAM_LAYERS]],
            [len(c.n) for c in part],
        ).astype(np.int32)
        columns = [*bins(np.concatenate([c.positions for c in part])), np.concatenate([c.n for c in part])]
        yield pa.table([pa.array(ids, mask=ids < 0), *map(pa.array, columns)], schema=schema)


def peak_edges() -> pa.Table:
    """The threshold of each bin of relative peaks: filters in bins up to this one are sparse at it."""
    bins = np.arange(1, 1 + len(PEAK_EDGES), dtype=np.uint16)
    return pa.table({"bin": bins, "eps": PEAK_EDGES})


def layer_checksums(measurements: Sequence[Measurement]) -> pa.Table:
    """The checksum of each layer; runs that no layer claims are left out."""
    layers = [m for m in measurements if m.layer_id is not None]
    return pa.table(
        {
            "layer_id": pa.array([m.layer_id for m in layers], pa.int32()),
            "sha256": pa.array([m.checksum for m in layers], pa.string()),
        }
    )


def basis_tables(coordinates: Coordinates) -> dict[str, pa.Table]:
    """``basis``, ``basis_mean`` and ``histogram_range``."""
    basis = coordinates.basis
    return {
        "basis": pa.table(
            {
                "component": pa.array(range(SIZE), pa.uint8()),
                "eigenvalue": basis.eigenvalues,
                "explained_variance_ratio": basis.explained_variance_ratio,
                "loading": _vectors(basis.loadings),
            }
        ),
        "basis_mean": pa.table({"n": pa.array([coordinates.n], pa.int64()), "mean": _vectors(basis.mean[None])}),
        "histogram_range": pa.table(
            {"lo": [coordinates.low], "hi": [coordinates.high], "bins": pa.array([BINS], pa.int32())}
        ),
    }
