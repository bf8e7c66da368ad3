"""Tables that contradict each other or their files are found, by their contents and by counts alone."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

import warehouse
from tests.damage import edit, lines, named
from warehouse import catalog_check, lake

FAULTS = {
    "update layers set n_filters = n_filters + 1 where layer_id = 0": "layer_id 1 .* shares filters with another layer",
    "update layers set n_filters = n_filters - 1 where layer_id = 0": "layer_id 0 has 99 filters, but 100 in",
    "update layers set n_filters = 1e9::bigint where layer_id = 4": "layer_id 4 .* is no range of the filters of the",
    "update layers set n_filters = 0 where layer_id = 4": "layer_id 4 .* is no range of the filters of the sources",
    "update layers set first_filter_id = null where layer_id = 2": "layer_id 2 .* from NULL on",
    "update layers set first_filter_id = -5 where layer_id = 0": "layer_id 0 .* from -5 on, 100 of them, is no range",
    "update layers set model_id = 7 where layer_id = 0": "layer_id 0 of model_id 7 .* is of no model",
    "update layers set model_id = 1 where layer_id = 4": "180 filters in the files of model_id=1 instead of 380",
    "insert into layers from layers where layer_id = 1": "layer_id 1 .* has other rows too",
    "delete from layers where layer_id = 4": "layer_id 4 has 1 rows instead of 0",
    "delete from layer_moments where layer_id = 1": "layer_moments: layer_id 1 has 0 rows instead of 1",
    "delete from layer_checksums where layer_id = 3": "layer_checksums: layer_id 3 has 0 rows instead of 1",
    "insert into layer_quality from layer_quality": "layer_quality: layer_id 0 has 2 rows instead of 1 .and 4 more",
    "update layer_moments set n = n - 1 where layer_id = 1": "layer_id 1 has 300 filters, but 299 in layer_moments",
    "update layer_moments set n = 19 where layer_id is null": "20 filters that no layer claims, but 19 in layer_mom",
    "update layer_quality set n_filters = 5 where layer_id = 2": "100 in layer_moments and 5 in layer_quality",
    "update layer_quality set n_sparse = n_sparse + 1": "layer_id 0 .* of them not sparse .and 3 more of the kind",
    "update layer_histograms set n = n + 1 where layer_id = 4 and component = 2": "layer_id 4, component 2: 2",
    "delete from layer_histograms where layer_id is null": "layer_id NULL, component 0: 0 .* of 20 .and 8 more",
    "delete from layer_histograms where component = 8": "component 8: 0 filters in sound bins instead of",
    "insert into layer_histograms values (3, 0, 0, 80)": "layer_id 3, component 0: 80 .* instead of 0",
    "update layer_histograms set bin = 70 where layer_id = 1": "layer_id 1, component 0: 0 filters in sound bins",
    "delete from layer_peaks where layer_id = 2": "layer_peaks: layer_id 2: 0 filters in sound bins instead of 100",
    "insert into layer_peaks values (3, 1, 80)": "layer_peaks: layer_id 3: 80 filters in sound bins instead of 0",
    "update layer_peaks set bin = 1000 where layer_id = 1": "layer_peaks: layer_id 1: 0 filters in sound bins",
    "update sources set n_filters = 799": "799 filters, but 800 belong to layers or to none",
    "update sources set n_unclaimed = 0": "20 filters in the files of model_id=__HIVE_DEFAULT_PARTITION__ instead of 0",
    "delete from files where path like '%model_id=2/%'": "0 filters in the files of model_id=2 instead of 200",
    "drop view filters": "view filters is missing",
    "drop macro table drift": "table macro drift is missing",
    "drop macro peak": "scalar macro peak is missing",
    "create table own as select 1": "table own was not made by ingest",
    "delete from analyses where name = 'layer_metrics'": "analysis layer_metrics is missing",
    "delete from help where name = 'pca'": "table macro pca was not made by ingest",
    "alter table layers drop column n_filters": "cannot be checked for layers: .*n_filters",
    "alter table layer_peaks alter n type varchar": "cannot be checked for peak_totals: .*VARCHAR",
}
"""Edits of tables, and what is told of them without a look at any file."""


@pytest.fixture(scope="module")
def writable(sound: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    """The database of ``sound``, to be edited and rolled back."""
    copied = shutil.copy(sound / lake.DATABASE, tmp_path_factory.mktemp("writable"))
    with duckdb.connect() as con:
        con.execute(f"attach '{copied}' as warehouse")
        yield con


def test_a_sound_database_has_no_faults(writable: duckdb.DuckDBPyConnection) -> None:
    assert catalog_check.faults(writable) == {}


@pytest.mark.parametrize("statement", FAULTS)
def test_an_edit_by_which_tables_contradict_each_other_is_found(
    writable: duckdb.DuckDBPyConnection, statement: str
) -> None:
    writable.execute("use warehouse")
    writable.execute("begin")
    try:
        writable.execute(statement)
        writable.execute("use memory")
        told = "\n".join(map(str, catalog_check.faults(writable).values()))
    finally:
        writable.execute("rollback")
    assert re.search(FAULTS[statement], told), told


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("update layers set first_filter_id = 401 where layer_id = 2", "400 to 419 are, by table layers, not those"),
        ("delete from sources", "table sources has 0 rows instead of the 1 of its files"),
        ("delete from files where name = 'basis'", "table basis has 9 rows instead of the 0 of its files"),
        ("update files set n_rows = n_rows + 1 where name = 'basis'", "lake/basis/.*: has 9 rows instead of 10"),
        ("update files set name = 'layers' where name = 'basis'", "for table 'layers', which no commit writes"),
        ("insert into files from files where name = 'basis'", "table basis has 9 rows instead of the 18 of its files"),
        ("delete from files", "lists no files"),
        ("drop table files", "lists no files"),
        ("drop table layer_peaks", "has no table layer_peaks"),
        ("alter table files drop column sha256", "does not tell its files: .*sha256"),
        ("alter table layers alter layer_id type varchar", "cannot be checked for layer_rows"),
    ],
)
def test_an_edited_table_is_found_even_quickly(target: Path, statement: str, told: str) -> None:
    edit(target, statement)
    found = warehouse.verify(target, quick=True)
    assert re.search(told, lines(found)), lines(found)


def test_an_edit_that_no_count_betrays_is_found_by_comparing_a_table_with_its_files(target: Path) -> None:
    edits = {
        "models": "update models set task = 'edited' where model_id = 1",
        "basis": "update basis set eigenvalue = eigenvalue * (1 + 1e-15) where component = 8",
        "layers": "update layers set in_channels = 3 where layer_id = 1",
        "layer_quality": "update layer_quality set sparsity = null where layer_id = 1",
        "layer_moments": "update layer_moments set clean_mean = raw_mean where layer_id = 1",
        "layer_histograms": "update layer_histograms set component = 8 - component",
        "peak_edges": "alter table peak_edges add column own integer default 1",
        "sources": "update sources set name = 'another.h5'",
    }
    edit(target, *edits.values())
    found = warehouse.verify(target)
    assert {each.what for each in found.problems} == {
        f"table {name}: its rows are not those of its files" for name in edits
    }
    assert named(found) == {lake.DATABASE}
