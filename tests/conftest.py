"""Shared samples and warehouses, each built once a session, and the real data where it is at hand."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import settings

import warehouse
from tests.damage import make_warehouse
from tests.reference import Reference

# no test is timed: the first call of a compiled kernel takes seconds
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def _shared_data() -> Path:
    return Path(os.environ.get("WAREHOUSE_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data with reference results; skips where it is absent."""
    folder = _shared_data()
    if not (folder / "zoo.h5").exists():
        pytest.skip("the shared reference data is not here")
    return folder


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthetic dataset of 20,000 filters, 80 layers and 12 models, in the layout of CNN Filter DB v1.0.0."""
    path = tmp_path_factory.mktemp("sample") / "dataset.h5"
    warehouse.write_sample(path, filters=20_000, layers=80, models=12, seed=1)
    return path


@pytest.fixture(scope="session")
def lens_sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in the layout of the robustness data set, with channels."""
    path = tmp_path_factory.mktemp("lens") / "dataset.h5"
    warehouse.write_sample(path, filters=20_000, layers=80, models=12, seed=2, layout="lens")
    return path


@pytest.fixture(scope="session")
def sample_warehouse(sample: Path) -> Path:
    """The warehouse of ``sample``; do not write into it."""
    path = sample.parent / "cnn.warehouse"
    warehouse.ingest(sample, path)
    return path


@pytest.fixture(scope="session")
def lens_warehouse(lens_sample: Path) -> Path:
    """The warehouse of ``lens_sample``; do not write into it."""
    path = lens_sample.parent / "lens.warehouse"
    warehouse.ingest(lens_sample, path)
    return path


@pytest.fixture(scope="session")
def zoo_warehouse(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The warehouse of the real models of ``zoo.h5``; do not write into it."""
    return warehouse.ingest(shared_data / "zoo.h5", tmp_path_factory.mktemp("zoo") / "zoo.warehouse").path


@pytest.fixture(scope="session")
def lens_data_warehouse(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The warehouse of the real models of ``lens.h5``; do not write into it."""
    return warehouse.ingest(shared_data / "lens.h5", tmp_path_factory.mktemp("lens_data") / "lens.warehouse").path


@contextmanager
def _shared(path: Path) -> Iterator[warehouse.Warehouse]:
    """Open a warehouse for many tests, which leave it as it is."""
    with warehouse.open(path) as opened:
        before = _state(opened)
        yield opened
        assert _state(opened) == before, f"a test changed {path.name}, which all have open; give it one of its own"


def _state(opened: warehouse.Warehouse) -> list[tuple[str, str]]:
    """Settings, variables and temporary tables of a session."""
    return opened.sql(
        "select name, value from duckdb_settings() union all select name, value::varchar from duckdb_variables() "
        "union all select table_name, sql from duckdb_tables() where temporary order by all"
    ).fetchall()


@pytest.fixture(scope="session")
def wh(sample_warehouse: Path) -> Iterator[warehouse.Warehouse]:
    """``sample_warehouse``, open for all tests; do not change its settings."""
    with _shared(sample_warehouse) as opened:
        yield opened


@pytest.fixture(scope="session")
def lens_wh(lens_warehouse: Path) -> Iterator[warehouse.Warehouse]:
    """``lens_warehouse``, open for all tests; do not change its settings."""
    with _shared(lens_warehouse) as opened:
        yield opened


@pytest.fixture(scope="session")
def zoo_wh(zoo_warehouse: Path) -> Iterator[warehouse.Warehouse]:
    """``zoo_warehouse``, open for all tests; do not change its settings."""
    with _shared(zoo_warehouse) as opened:
        yield opened


@pytest.fixture(scope="session")
def lens_data_wh(lens_data_warehouse: Path) -> Iterator[warehouse.Warehouse]:
    """``lens_data_warehouse``, open for all tests; do not change its settings."""
    with _shared(lens_data_warehouse) as opened:
        yield opened


@pytest.fixture(scope="session")
def reference(sample: Path) -> Reference:
    """Everything about ``sample``, computed another way."""
    return Reference(sample)


@pytest.fixture(scope="session")
def lens_reference(lens_sample: Path) -> Reference:
    """Everything about ``lens_sample``, computed another way."""
    return Reference(lens_sample)


@pytest.fixture(scope="session")
def zoo_reference(shared_data: Path) -> Reference:
    """Everything about ``zoo.h5``, computed another way."""
    return Reference(shared_data / "zoo.h5")


@pytest.fixture(scope="session")
def lens_data_reference(shared_data: Path) -> Reference:
    """Everything about ``lens.h5``, computed another way."""
    return Reference(shared_data / "lens.h5")


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small warehouse with everything that can occur in one; do not write into it."""
    return make_warehouse(tmp_path_factory.mktemp("sound"))


@pytest.fixture
def target(sound: Path, tmp_path: Path) -> Path:
    """A copy of ``sound``, to be damaged."""
    return shutil.copytree(sound, tmp_path / "w")
