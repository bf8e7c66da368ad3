"""Checksums of layers, recomputed with hashlib, and the copies that they find."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

import warehouse
from tests.test_ingest import Layer, write_dataset
from warehouse import plan


def checksum(filters: np.ndarray) -> str:
    """What the header of ``layer_checksums`` tells a user to compute."""
    return hashlib.sha256(filters.reshape(-1, 9).astype("<f4").tobytes()).hexdigest()


def model_checksum(layers: list[np.ndarray]) -> str:
    return hashlib.sha256("".join(map(checksum, layers)).encode()).hexdigest()


RNG = np.random.default_rng(4)
A, B, C = (RNG.normal(size=(n, 3, 3)).astype(np.float32) for n in (40, 25, 25))
NEGATIVE_ZERO = np.full((3, 3, 3), -0.0, np.float32)
MODELS: list[list[np.ndarray]] = [
    [A, B],
    [A, B],  # a copy
    [B, A],  # the same layers in another order
    [A, C],  # shares a layer
    [C[::-1]],  # the same filters in another order
    [C.swapaxes(1, 2)],  # transposed
    [np.zeros((3, 3, 3)), np.zeros((3, 3, 3)), NEGATIVE_ZERO],
    [A[:20]],
    [np.full((2, 3, 3), np.nan), np.full((2, 3, 3), np.nan)],
]


def write_models(path: Path, models: list[list[np.ndarray]], gap: int = 0) -> None:
    """A dataset of models, each a list of layers ``(n, 3, 3)``, with unclaimed filters between all layers."""
    layers: list[Layer] = []
    parts: list[np.ndarray] = []
    position = 0
    for model, weights in enumerate(models):
        for depth, filters in enumerate(weights):
            layers.append((model, depth, f"{position}:{position + len(filters) - 1}"))
            parts += [filters, np.ones((gap, 3, 3))]
            position += len(filters) + gap
    write_dataset(path, layers, np.concatenate(parts))


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[warehouse.Warehouse]:
    folder = tmp_path_factory.mktemp("copies")
    write_models(folder / "a.h5", MODELS, gap=2)
    warehouse.ingest(folder / "a.h5", folder / "w", allow_nonfinite=True)
    with warehouse.open(folder / "w") as wh:
        yield wh


def test_a_layers_checksum_is_that_of_its_weights_as_the_source_has_them(sample: Path, sample_warehouse: Path) -> None:
    with h5py.File(sample) as file:
        filters = file["filters"][:]
    with warehouse.open(sample_warehouse) as wh:
        layers = wh.sql("select layer_id, first_filter_id, n_filters from layers order by layer_id").fetchall()
        found = wh.sql("from layer_checksums order by layer_id").fetchall()
    assert found == [(layer, checksum(filters[first : first + n])) for layer, first, n in layers]


def test_the_cut_into_blocks_does_not_change_a_checksum(
    sample: Path, sample_warehouse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "BLOCK_FILTERS", 37)
    monkeypatch.setattr(plan, "CHUNK_FILTERS", 100)
    warehouse.ingest(sample, tmp_path / "w")
    with warehouse.open(tmp_path / "w") as cut, warehouse.open(sample_warehouse) as whole:
        query = "from layer_checksums order by layer_id"
        assert cut.sql(query).fetchall() == whole.sql(query).fetchall()


def test_every_layer_has_a_checksum_but_filters_that_no_layer_claims_have_none(copies: warehouse.Warehouse) -> None:
    expected = [checksum(filters) for model in MODELS for filters in model]
    assert copies.sql("select sha256 from layer_checksums order by layer_id").fetchall() == [(c,) for c in expected]


def test_identical_layers_are_found_wherever_they_are(copies: warehouse.Warehouse) -> None:
    rows = copies.sql("from duplicates where kind = 'layer'").fetchall()
    found: dict[str, list[tuple]] = {}
    for _, sha256, n_copies, model_id, _, _, conv_depth, n_filters in rows:
        found.setdefault(sha256, []).append((model_id, conv_depth))
        assert (n_copies, n_filters) == {
            checksum(A): (4, 40),
            checksum(B): (3, 25),
            checksum(np.zeros(27)): (2, 3),
            checksum(np.full(18, np.nan)): (2, 2),
        }[sha256]
    assert found == {
        checksum(A): [(0, 0), (1, 0), (2, 1), (3, 0)],
        checksum(B): [(0, 1), (1, 1), (2, 0)],
        checksum(np.zeros(27)): [(6, 0), (6, 1)],
        checksum(np.full(18, np.nan)): [(8, 0), (8, 1)],
    }


def test_models_are_copies_if_their_layers_are_in_the_same_order(copies: warehouse.Warehouse) -> None:
    rows = copies.sql("from duplicates where kind = 'model'").fetchall()
    sha256 = model_checksum([A, B])
    assert [row[:4] + row[5:] for row in rows] == [("model", sha256, 2, model, None, None, 65) for model in (0, 1)]


def test_rows_come_in_one_order_with_the_names_of_models(copies: warehouse.Warehouse) -> None:
    rows = copies.sql("select kind, n_filters, sha256, model_id, layer_id from duplicates").fetchall()
    assert rows == sorted(rows, key=lambda row: (row[0], -row[1], row[2], row[3], row[4] or -1))
    assert {row[0] for row in rows} == {"layer", "model"}
    named = (
        "select count(*) from duplicates as d join models as m using (model_id) where d.model is distinct from m.model"
    )
    assert copies.sql(named).fetchall() == [(0,)]


def test_without_copies_there_are_no_rows(tmp_path: Path) -> None:
    write_models(tmp_path / "a.h5", [[A], [B], [C]])
    warehouse.ingest(tmp_path / "a.h5", tmp_path / "w")
    with warehouse.open(tmp_path / "w") as wh:
        assert wh.sql("from duplicates").fetchall() == []
        assert wh.scan("layer_checksums").collect().height == 3
