"""An open warehouse: what it answers, what it refuses, and that SQL, UDFs and polars tell the same numbers."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from scipy import stats
from scipy.spatial.distance import jensenshannon

import udfs
import warehouse
from tests.reference import Reference, write_dataset
from warehouse.errors import LakeError, QueryError

LAKE_TABLES = [
    "basis",
    "basis_mean",
    "filters",
    "histogram_range",
    "layer_histograms",
    "layer_moments",
    "layer_quality",
    "layers",
    "model_datasets",
    "model_kernels",
    "model_operators",
    "models",
    "sources",
]


@pytest.fixture
def copy(sample_warehouse: Path, tmp_path: Path) -> Path:
    return shutil.copytree(sample_warehouse, tmp_path / "copy.warehouse")


def test_a_query_gives_a_relation_in_every_form(wh: warehouse.Warehouse, reference: Reference) -> None:
    relation = wh.sql("select model_id, sum(n_filters)::bigint as n from layers group by model_id order by model_id")
    expected = reference.layers.groupby("model_id")["n_filters"].sum()
    assert relation.fetchall() == list(expected.items())
    assert relation.pl()["n"].to_list() == expected.to_list()
    assert relation.df()["n"].to_list() == expected.to_list()


def test_a_query_takes_parameters(wh: warehouse.Warehouse) -> None:
    assert wh.sql("select $a + $b", {"a": 1, "b": 2}).fetchall() == [(3,)]
    (few,) = wh.sql("select count(*) from layers where n_filters > ?", [1000]).fetchall()
    assert few == (wh.scan("layers").filter(pl.col("n_filters") > 1000).collect().height,)


def test_a_statement_without_a_result_gives_an_empty_relation(sample_warehouse: Path) -> None:
    with warehouse.open(sample_warehouse) as wh:
        assert wh.sql("set threads = 1").fetchall() == []


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("from nosuch", "nosuch"),
        ("selec 1", "selec"),
        ("from drift(nosuch)", "nosuch"),
        ("from drift(task, keep := nosuch > 1)", "nosuch"),
        ("insert into models (model_id) values (1)", "read-only"),
        ("drop table models", "read-only"),
    ],
)
def test_what_duckdb_refuses_is_a_query_error(wh: warehouse.Warehouse, query: str, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        wh.sql(query).fetchall()


def test_every_example_of_help_runs(wh: warehouse.Warehouse) -> None:
    rows = wh.sql("select name, example from help").fetchall()
    assert len({name for name, _ in rows}) == len(rows)
    for _, example in rows:
        assert wh.sql(example).pl() is not None


def test_help_lists_what_only_a_session_has(wh: warehouse.Warehouse) -> None:
    kinds = dict(wh.sql("select name, kind from help").fetchall())
    assert {name for name, kind in kinds.items() if kind == "function"} == {udf.name for udf in udfs.UDFS}
    assert kinds["drift_map"] == "table macro"
    assert kinds["drift_by_task"] == "analysis"
    assert kinds["drift"] == "table macro"


def test_a_session_goes_on_when_another_of_the_same_warehouse_ends(sample_warehouse: Path) -> None:
    script = """
import sys, warehouse
first, second = warehouse.open(sys.argv[1]), warehouse.open(sys.argv[1])
query = "select count(*) from distances(task)"
assert first.sql(query).fetchall() == second.sql(query).fetchall() == [(15,)]
first.close()
assert second.sql(query).fetchall() == [(15,)]
assert second.sql("select count(*) from filters").fetchall() == [(20_000,)]
"""
    # in a process of its own: a crash of the interpreter shall fail this test and no other
    done = subprocess.run([sys.executable, "-c", script, sample_warehouse], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_closed_session_answers_no_more(sample_warehouse: Path) -> None:
    with warehouse.open(sample_warehouse) as wh:
        wh.sql("select 1").fetchall()
    with pytest.raises((QueryError, duckdb.Error)):
        wh.sql("select 1").fetchall()


@pytest.mark.parametrize("name", ["nosuch.warehouse", ""])
def test_no_warehouse_is_a_lake_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(LakeError, match="is not a warehouse"):
        warehouse.open(tmp_path / name)


def test_a_database_that_is_none_is_a_lake_error(tmp_path: Path) -> None:
    (tmp_path / "warehouse.duckdb").write_text("This is no database. " * 1000)
    with pytest.raises(LakeError, match=r"warehouse\.duckdb"):
        warehouse.open(tmp_path)


@pytest.mark.parametrize("name", LAKE_TABLES)
def test_scan_and_sql_see_the_same_rows(lens_wh: warehouse.Warehouse, name: str) -> None:
    scanned = lens_wh.scan(name).collect()
    table = lens_wh.sql(f"from {name}").pl().select(scanned.columns)
    keys = [column for column, kind in scanned.schema.items() if not isinstance(kind, pl.List | pl.Array)]
    lists = pl.selectors.by_dtype(pl.List) | pl.selectors.array()
    frames = [frame.with_columns(lists.cast(pl.List(pl.Float64))).sort(keys) for frame in (scanned, table)]
    assert frames[0].height > 0
    assert_frame_equal(*frames, check_dtypes=False, check_exact=True)


def test_scan_and_sql_see_filters_without_a_layer(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    write_dataset(tmp_path / "dataset.h5", [("a", rng.normal(size=(6, 9)))], unclaimed=rng.normal(size=(4, 9)))
    warehouse.ingest(tmp_path / "dataset.h5", tmp_path / "cnn.warehouse")
    with warehouse.open(tmp_path / "cnn.warehouse") as wh:
        table = wh.sql("select * from filters order by filter_id").pl()
        assert wh.sql("select count(*) from filter_meta where task is null").fetchall() == [(4,)]
        scanned = wh.scan("filters").sort("filter_id").select(table.columns).collect()
    assert_frame_equal(scanned, table)
    assert table["layer_id"].to_list() == table["model_id"].to_list() == [0] * 6 + [None] * 4


def test_filters_are_those_of_the_dataset(wh: warehouse.Warehouse, reference: Reference) -> None:
    columns = [f"w{i}" for i in range(9)]
    table = wh.scan("filters").sort("filter_id").collect()
    np.testing.assert_array_equal(table.select(columns).to_numpy(), reference.filters)
    kernels = wh.sql("from kernels select kernel order by filter_id").fetchall()
    np.testing.assert_array_equal([kernel for (kernel,) in kernels], reference.filters)
    assert table["model_id"].to_list() == np.repeat(
        reference.layers["model_id"].to_numpy(), reference.layers["n_filters"]
    ).tolist()  # fmt: skip


def test_scan_names_the_table_that_was_meant(wh: warehouse.Warehouse) -> None:
    with pytest.raises(QueryError, match="did you mean 'layers'"):
        wh.scan("layer")
    with pytest.raises(QueryError, match=r"basis, .*sources"):
        wh.scan("?")


def test_scan_reads_no_leftover_and_misses_what_is_gone(copy: Path) -> None:
    with warehouse.open(copy) as wh:
        folder = copy / "lake" / "filters" / "model_id=0"
        (file,) = folder.iterdir()
        shutil.copy(file, folder / "leftover.parquet")
        (folder / "killed.parquet").write_bytes(b"PAR1 and no footer")
        assert wh.scan("filters").collect().height == 20_000
        assert wh.sql("select count(*), count(distinct filter_id) from filters").fetchall() == [(20_000, 20_000)]
        file.unlink()
        with pytest.raises(LakeError, match=file.name):
            wh.scan("filters")


def test_a_session_survives_a_change_of_folder(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copy.parent)
    with warehouse.open(copy.name) as wh:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert wh.sql("select count(*) from filters").fetchall() == [(20_000,)]
        assert wh.scan("filters").collect().height == 20_000


def test_pca_and_eigh_agree(wh: warehouse.Warehouse) -> None:
    query = """
        select layer_id, eigh(list_transform(scatter::double[], lambda x: x / greatest(n - 1, 1))) as e
        from layer_moments
    """
    found = {layer: (e["eigenvalues"], e["eigenvectors"]) for layer, e in wh.sql(query).fetchall()}
    rows = wh.sql("from pca(layer_id) select grp, list(eigenvalue order by component), list(loading order by component)"
                  " group by grp").fetchall()  # fmt: skip
    assert len(rows) == len(found) == 80
    for layer, values, loadings in rows:
        np.testing.assert_allclose(values, found[layer][0], rtol=0, atol=1e-13)
        gaps = np.abs(np.diff(values, prepend=np.inf, append=-np.inf))
        for k in np.flatnonzero(np.minimum(gaps[:-1], gaps[1:]) > 1e-3):
            cosine = np.dot(loadings[k], found[layer][1][k])
            strongest, second = np.sort(np.abs(loadings[k]))[[-1, -2]]
            assert cosine == pytest.approx(1, abs=1e-9) if strongest - second > 1e-9 else abs(cosine) > 1 - 1e-9


UDF_COLUMNS = {
    "variance_entropy": "variance_entropy_udf(weights)",
    "sparsity": "sparsity_udf(weights, 0.01)",
    "orthogonality": "orthogonality_udf(weights, out_channels::int)",
    "variance_entropy_clean": "variance_entropy_udf(clean)",
    "scaled_clean_entropy": "variance_entropy_udf(flatten(list_transform(kernels, lambda k: scale(k))))",
}


@pytest.mark.parametrize("column", UDF_COLUMNS)
def test_udfs_and_the_table_of_layer_quality_agree(lens_wh: warehouse.Warehouse, column: str) -> None:
    clean = "filter (peak(kernel) >= 0.01 * largest)" if column == "scaled_clean_entropy" else ""
    query = f"""
        with peaks as (from kernels select *, max(peak(kernel)) over (partition by layer_id) as largest),
        lists as (
            select
                layer_id,
                list(kernel order by filter_id) {clean} as kernels,
                flatten(list(kernel order by filter_id)) as weights,
                flatten(list(kernel order by filter_id) filter (peak(kernel) >= 0.01 * largest)) as clean
            from peaks
            group by layer_id
        )
        select {column}, {UDF_COLUMNS[column]}
        from lists join layers using (layer_id) join layer_quality using (layer_id)
    """
    found = np.array(lens_wh.sql(query).fetchall(), dtype=float)
    assert len(found) == 80
    np.testing.assert_allclose(found[:, 0], found[:, 1], rtol=1e-9, atol=1e-12)


def test_entropy_of_eigenvalues_in_sql_is_that_of_the_udf(wh: warehouse.Warehouse) -> None:
    query = """
        select variance_entropy, entropy10(list_transform(eigh(raw_scatter::double[]).eigenvalues,
                                                          lambda x: greatest(x, 0)))
        from layer_moments join layer_quality using (layer_id)
        order by layer_id
    """
    np.testing.assert_allclose(*np.array(wh.sql(query).fetchall(), dtype=float).T, rtol=1e-9, atol=1e-12)


def test_distances_of_groups_are_scipys(wh: warehouse.Warehouse, reference: Reference) -> None:
    groups = reference.groups(lambda row: row["task"])
    low, high = reference.range
    centres = low + (np.arange(70) + 0.5) * (high - low) / 70
    weights = reference.pca.explained_variance_ratio_
    rows = {
        row[:2]: row[2:]
        for row in wh.sql(
            "select a, b, wasserstein, jensen_shannon, kolmogorov_smirnov from distances(task)"
        ).fetchall()
    }
    assert list(rows) == list(itertools.combinations(sorted(groups), 2))
    for (a, b), found in rows.items():
        p, q = (c / c.sum(axis=1, keepdims=True) for c in map(reference.histogram, (groups[a], groups[b])))
        expected = [
            [
                stats.wasserstein_distance(centres, centres, x, y),
                jensenshannon(x, y) ** 2,
                np.abs(np.cumsum(x) - np.cumsum(y)).max(),
            ]
            for x, y in zip(p, q, strict=True)
        ]
        np.testing.assert_allclose(found, weights @ expected, rtol=1e-9)


def test_an_error_in_a_udf_says_which_and_hides_the_stack(wh: warehouse.Warehouse) -> None:
    with pytest.raises((QueryError, duckdb.Error), match=r"variance_entropy_udf: .*multiple of 9"):
        wh.sql("select variance_entropy_udf([1, 2])").fetchall()


def test_a_folder_named_like_a_partition_changes_no_model(sample_warehouse: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model_id=9" / "cnn.warehouse"
    shutil.copytree(sample_warehouse, folder)
    query = "select model_id, count(*) from filters group by 1 order by 1"
    with warehouse.open(sample_warehouse) as one, warehouse.open(folder) as other:
        assert other.sql(query).fetchall() == one.sql(query).fetchall()
        with pytest.raises(warehouse.LakeError, match="polars takes a folder with ="):
            other.scan("filters")
