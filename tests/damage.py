"""A small warehouse with everything that can occur in one, and ways to damage it."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import warehouse
from tests.test_ingest import Layer, random_filters, write_dataset
from warehouse import lake
from warehouse.verify import Verification

LAYERS: list[Layer] = [(0, 0, "0:99"), (0, 1, "100:399"), (1, 0, "420:519"), (1, 1, "520:599"), (2, 0, "600:799")]
UNCLAIMED = 20
NONFINITE = 3
"""The layer_id with a NaN."""


def make_warehouse(folder: Path) -> Path:
    """A warehouse of models with two, two and one layers; one layer has a NaN, and some filters no layer."""
    filters = random_filters(800, seed=4)
    filters[555, 1, 2] = np.nan
    return warehouse.ingest(write_dataset(folder / "d.h5", LAYERS, filters), folder / "w", allow_nonfinite=True).path


def file_of(folder: Path, name: str, model: int | str | None = None) -> Path:
    """A file of a table, of filters that of a model."""
    where = folder / "lake" / name
    return next((where / f"model_id={model}" if model is not None else where).glob("*.parquet"))


def named(found: Verification) -> set[str]:
    return {problem.path for problem in found.problems}


def lines(found: Verification) -> str:
    return "\n".join(map(str, found.problems))


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def relative(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


def edit(folder: Path, *statements: str) -> None:
    """Change the database as any program could: all of its own checksums are right afterwards."""
    with duckdb.connect(folder / lake.DATABASE) as con:
        for statement in statements:
            con.execute(statement)


def flip(path: Path, position: int, mask: int = 1) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= mask
    path.write_bytes(data)


def tell(folder: Path, path: Path, n_rows: int) -> None:
    """Let the database tell the size and checksum that a file has now."""
    told = f"n_rows = {n_rows}, bytes = {path.stat().st_size}, sha256 = '{digest(path.read_bytes())}'"
    edit(folder, f"update files set {told} where path = '{relative(folder, path)}'")


def forge(folder: Path, path: Path, change: Callable[[pa.Table], pa.Table], **options: Any) -> None:
    """Change what a file holds, and what the database tells of its size and checksum too."""
    with pq.ParquetFile(path) as file:
        table = change(file.read())
    pq.write_table(table, path, **options)
    tell(folder, path, table.num_rows)


def with_column(name: str, change: Callable[[np.ndarray], Any]) -> Callable[[pa.Table], pa.Table]:
    """A table with other values in a column."""

    def changed(table: pa.Table) -> pa.Table:
        values = change(table[name].to_numpy().copy())
        position = table.column_names.index(name)
        return table.set_column(position, table.schema.field(name), pa.array(values, table.schema.field(name).type))

    return changed
