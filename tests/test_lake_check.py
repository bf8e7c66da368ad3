"""Files that are not what the commit wrote are found even if their checksums fit, and hostile paths are never read."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import warehouse
from tests.damage import NONFINITE, digest, edit, file_of, forge, lines, relative, with_column
from warehouse import lake, lake_check


def one_weight(values: np.ndarray) -> np.ndarray:
    values[150] += np.float32(1e-6)
    return values


def test_a_changed_weight_with_the_checksum_of_its_file_made_right_has_not_that_of_its_layer(target: Path) -> None:
    path = file_of(target, "filters", 0)
    forge(target, path, with_column("w4", one_weight))
    found = warehouse.verify(target)
    assert [(each.path, each.what) for each in found.problems] == [
        (relative(target, path), "the filters of layer_id 1 do not have the checksum that is stored")
    ]
    assert warehouse.verify(target, quick=True).is_sound


@pytest.mark.parametrize("layer_id", [1, NONFINITE])
def test_with_the_checksum_of_its_layer_made_right_too_it_has_not_the_moments(target: Path, layer_id: int) -> None:
    model, inside, weight = {1: (0, slice(100, 400), 0.01), NONFINITE: (1, slice(100, 180), None)}[layer_id]
    path = file_of(target, "filters", model)

    def changed(values: np.ndarray) -> np.ndarray:
        if weight is None:
            return np.nan_to_num(values)
        values[150] += np.float32(weight)
        return values

    forge(target, path, with_column("w5", changed))
    table = pq.read_table(path, columns=list(lake.WEIGHTS), partitioning=None)
    checksum = digest(np.stack([column.to_numpy()[inside] for column in table], axis=1).astype("<f4").tobytes())
    told = with_column("sha256", lambda values: np.where(np.arange(5) == layer_id, checksum, values))
    forge(target, file_of(target, "layer_checksums"), told)
    edit(target, f"update layer_checksums set sha256 = '{checksum}' where layer_id = {layer_id}")
    found = warehouse.verify(target)
    assert [(each.path, each.what) for each in found.problems] == [
        (
            relative(target, path),
            f"the filters of layer_id {layer_id} do not have the mean and scatter of raw filters that is stored",
        )
    ]


@pytest.mark.parametrize(
    ("column", "change", "told"),
    [
        ("filter_id", lambda ids: ids[::-1], "its filter ids from 0 on are not in order"),
        ("filter_id", lambda ids: np.where(ids == 7, 8, ids), "its filter ids from 0 on are not in order"),
        ("filter_id", lambda ids: ids * 2, "has gaps in its filter ids at 0"),
        ("filter_id", lambda ids: ids + 400, "its filters 400 to 799 are, by table layers, not those of whole layers"),
        ("layer_id", lambda ids: 1 - ids, "its filters from 0 on are of other layers than table layers tells"),
    ],
)
def test_ids_of_filters_that_are_not_those_of_the_layers_are_found(
    target: Path, column: str, change: Callable[[np.ndarray], Any], told: str
) -> None:
    path = file_of(target, "filters", 0)
    forge(target, path, with_column(column, change))
    found = warehouse.verify(target)
    assert f"{relative(target, path)}: {told}" in lines(found)


def test_filters_that_two_files_hold_are_found(target: Path) -> None:
    path = file_of(target, "filters", 2)
    twin = Path(shutil.copy(path, path.with_name("f" * 32 + ".parquet")))
    listed = f"select * replace ('{relative(target, twin)}' as path) from files"
    edit(target, f"insert into files {listed} where path = '{relative(target, path)}'")
    told = lines(warehouse.verify(target, quick=True))
    assert re.search(r"holds filters that lake/filters/model_id=2/.* holds too", told)
    assert "400 filters in the files of model_id=2 instead of 200" in told


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.rename_columns(["filter_id", "layer", *lake.WEIGHTS]),
        lambda table: table.drop_columns(["w8"]),
        lambda table: table.cast(pa.schema([*table.schema][:2] + [pa.field(w, pa.float64()) for w in lake.WEIGHTS])),
    ],
    ids=["other name", "fewer columns", "other type"],
)
def test_filters_of_another_schema_are_found(target: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    path = file_of(target, "filters", 0)
    forge(target, path, change)
    told = f"{relative(target, path)}: has not the columns of filters"
    assert told in lines(warehouse.verify(target, quick=True))


def test_a_table_of_another_schema_is_found(target: Path) -> None:
    path = file_of(target, "layer_peaks")
    forge(target, path, lambda table: table.append_column("own", pa.array(range(table.num_rows))))
    assert "has columns that table layer_peaks has not: own" in lines(warehouse.verify(target, quick=True))
    path = file_of(target, "basis")
    forge(target, path, lambda table: table.set_column(1, "eigenvalue", pc.cast(table["eigenvalue"], pa.float32())))
    assert "table basis: its rows are not those of its files" in lines(warehouse.verify(target))


HOSTILE_PATHS = {
    "basis": "../../../../../../../../etc/passwd",
    "basis_mean": "/etc/passwd",
    "layers": "lake/basis/../../../secret",
    "layer_peaks": "lake/basis/*.parquet",
    "layer_quality": "lake/layer_quality/0123456789abcdef0123456789abcdef.parquet\n",
    "models": "s3://bucket/lake/models/0123456789abcdef0123456789abcdef.parquet",
    "peak_edges": "lake/../lake/peak_edges/0123456789abcdef0123456789abcdef.parquet",
}


@pytest.mark.parametrize("quick", [False, True])
def test_a_path_that_no_commit_writes_is_refused_and_not_read(
    target: Path, quick: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    (target.parent / "secret").write_text("secret")
    edit(target, *(f"update files set path = '{path}' where name = '{name}'" for name, path in HOSTILE_PATHS.items()))
    checked = []
    check_file = lake_check.check_file

    def recording(folder: Path, file: lake.LakeFile, *rest: Any, **options: Any) -> Any:
        checked.append(file.path)
        return check_file(folder, file, *rest, **options)

    monkeypatch.setattr(lake_check, "check_file", recording)
    told = {each.what for each in warehouse.verify(target, quick=quick).problems if each.path == lake.DATABASE}
    assert len(checked) == 19 - len(HOSTILE_PATHS)
    assert not set(checked) & set(HOSTILE_PATHS.values())
    refused = "table files lists {!r} for table {!r}, which no commit writes; it was not read"
    assert told == {refused.format(path, name) for name, path in HOSTILE_PATHS.items()}


@pytest.mark.parametrize("level", ["file", "folder"])
def test_a_symbolic_link_in_the_folder_is_refused_and_not_followed(target: Path, level: str) -> None:
    path = file_of(target, "basis")
    link = path if level == "file" else path.parent
    moved = link.rename(target.parent / "elsewhere")
    link.symlink_to(moved)
    found = warehouse.verify(target)
    assert f"{relative(target, path)}: is reached by a symbolic link and was not read" in lines(found)


def test_the_folder_itself_may_be_reached_by_a_link(target: Path) -> None:
    (target.parent / "link").symlink_to(target)
    assert warehouse.verify(target.parent / "link").is_sound
