"""The database of a warehouse: its files of SQL, alone and together, what it says of itself, and its tables."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import warehouse
from tests.reference import EMPTY_DENSITY, Reference, assert_components, by_group, write_dataset
from warehouse import sqlfiles
from warehouse.coordinates import Basis
from warehouse.errors import CatalogError
from warehouse.statistics import Moments

STORED = ("tables", "views", "macros")
STORED_FILES = sorted(path for folder in STORED for path in (sqlfiles.sql_folder() / folder).glob("*.sql"))
UPPER = np.triu_indices(9)


def sql_text(name: str) -> str:
    return (sqlfiles.sql_folder() / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def plain(sample_warehouse: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """The database as anybody's DuckDB opens it, without this project."""
    with duckdb.connect(str(sample_warehouse / "warehouse.duckdb"), read_only=True) as con:
        con.execute("set file_search_path = ?", [str(sample_warehouse)])
        yield con


@pytest.mark.parametrize("path", STORED_FILES, ids=[path.stem for path in STORED_FILES])
def test_every_object_is_explained_in_help(plain: duckdb.DuckDBPyConnection, path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    query = "select kind, purpose, parameters, columns, example from help where name = ?"
    ((kind, purpose, parameters, columns, example),) = plain.execute(query, [path.stem]).fetchall()
    statement = text[text.index("create ") :]
    assert statement.startswith(f"create {kind.split()[-1]} {path.stem}")
    assert purpose
    assert sqlfiles.read_header(text)[0]["example"] == example
    if "macro" in kind:
        assert ("as table" in statement) == (kind == "table macro")
        for name in statement[statement.index("(") + 1 : statement.index(")")].split(","):
            assert name.split(":=")[0].strip() in parameters
    if kind != "scalar macro":
        assert columns
        assert "-- grain: one row" in text
    plain.execute(example).fetchall()


def test_help_holds_nothing_that_does_not_exist(plain: duckdb.DuckDBPyConnection) -> None:
    kinds = dict(plain.execute("select name, kind from help").fetchall())
    analyses = [path.stem for path in (sqlfiles.sql_folder() / "analyses").glob("*.sql")]
    assert sorted(kinds) == sorted([*(path.stem for path in STORED_FILES), *analyses])
    assert sorted(name for name, kind in kinds.items() if kind == "analysis") == sorted(analyses)


def test_every_column_of_a_table_is_explained(plain: duckdb.DuckDBPyConnection) -> None:
    wide = {
        "models",
        "layers",
        "filters",
        "kernels",
        "layer_meta",
        "filter_meta",
        "model_quality",
    }  # these refer to the source
    query = "select h.name, c.column_name, h.columns from help h join duckdb_columns() c on c.table_name = h.name"
    missing = [
        f"{table}.{column}"
        for table, column, text in plain.execute(query).fetchall()
        if table not in wide and (text is None or column not in text)
    ]
    assert missing == []


def test_every_object_carries_its_header_as_a_comment(plain: duckdb.DuckDBPyConnection) -> None:
    comments = dict(
        plain.execute(
            "select table_name, comment from duckdb_tables() where not internal union all "
            "select view_name, comment from duckdb_views() where not internal union all "
            "select function_name, comment from duckdb_functions() where not internal"
        ).fetchall()
    )
    query = "select name, purpose, example from help where kind <> 'analysis'"
    for name, purpose, example in plain.execute(query).fetchall():
        assert purpose in comments[name]
        assert example in comments[name]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset for what depends on its path or on the SQL files alone."""
    path = tmp_path_factory.mktemp("tiny") / "dataset.h5"
    warehouse.write_sample(path, filters=60, layers=6, models=3)
    return path


@pytest.fixture
def own_sql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the SQL files to break."""
    folder = tmp_path / "sql"
    shutil.copytree(sqlfiles.sql_folder(), folder)
    monkeypatch.setattr(sqlfiles, "sql_folder", lambda: folder)
    return folder


HEADER = "-- purpose: A test.\n-- example: from broken\n"
BROKEN = {
    "no statement": HEADER,
    "another statement": HEADER + "drop table models;",
    "syntax": HEADER + "create view broken as from models where;",
    "syntax in parentheses": HEADER + "create view broken as from (models;",
    "unknown column": HEADER + "create view broken as from models select nothing_of_that_name;",
    "unknown table": HEADER + "create view broken as from nothing_of_that_name;",
    "unknown function": HEADER + "create table broken as select nothing_of_that_name(1);",
    "unknown lake table": HEADER + "create table broken as from lake_nothing_of_that_name;",
    "no example": "-- purpose: A test.\ncreate view broken as from models;",
    "no header": "create view broken as from models;",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_an_sql_file_with_an_error_is_named(own_sql: Path, tiny: Path, tmp_path: Path, text: str) -> None:
    (own_sql / "views" / "broken.sql").write_text(text)
    with pytest.raises(CatalogError, match=r"broken\.sql"):
        warehouse.ingest(tiny, tmp_path / "new.warehouse")
    assert not (tmp_path / "new.warehouse" / "warehouse.duckdb").exists()


def test_two_files_for_one_name_and_circles_are_refused(own_sql: Path) -> None:
    one, other = own_sql / "views/one.sql", own_sql / "views/other.sql"
    one.write_text(HEADER + "create view one as from other;")
    other.write_text(HEADER + "create view other as from one;")
    with pytest.raises(CatalogError, match=r"circle.*one"):
        sqlfiles.load(*STORED)
    other.write_text(HEADER + "create view models as select 1;")
    with pytest.raises(CatalogError, match="models"):
        sqlfiles.load(*STORED)


@pytest.mark.parametrize("name", ["it's", 'größe; drop "%41 $x"', "[ab] or st*r"])
def test_a_folder_may_have_any_name(tiny: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / name / "cnn.warehouse"
    path.parent.mkdir()
    warehouse.ingest(tiny, path)
    weights = Reference(tiny).filters[:, 4]
    with warehouse.open(path) as wh:
        ((ids, total),) = wh.sql("select sum(filter_id), sum(w4::double) from filters").fetchall()
        assert (ids, total) == (sum(range(60)), pytest.approx(weights.sum()))
        assert wh.sql("select count(*) from drift(model_id)").fetchall() == [(9,)]
        assert wh.scan("filters").sort("filter_id").collect()["w4"].to_list() == weights.tolist()


def test_a_comma_in_the_path_is_refused_with_its_reason(sample_warehouse: Path, tiny: Path, tmp_path: Path) -> None:
    path = tmp_path / "a,b"
    with pytest.raises(CatalogError, match=r"a,b.*comma.*rename"):
        warehouse.ingest(tiny, path)
    shutil.copytree(sample_warehouse, path)
    with pytest.raises(CatalogError, match=r"a,b.*comma.*rename"):
        warehouse.open(path)


def test_a_comma_in_the_path_is_found_before_the_filters_are_read(tiny: Path, tmp_path: Path) -> None:
    stages: list[str] = []
    with pytest.raises(CatalogError, match="comma"):
        warehouse.ingest(tiny, tmp_path / "a,b", progress=lambda stage, *_: stages.append(stage))
    assert stages == []


def test_files_lists_exactly_what_is_in_the_lake(sample_warehouse: Path, plain: duckdb.DuckDBPyConnection) -> None:
    rows = plain.execute("select name, path, n_rows, bytes, sha256 from files").fetchall()
    assert {path for _, path, *_ in rows} == {
        path.relative_to(sample_warehouse).as_posix() for path in sample_warehouse.rglob("*.parquet")
    }
    for name, path, *facts in rows:
        content = (sample_warehouse / path).read_bytes()
        n_rows = pq.ParquetFile(sample_warehouse / path).metadata.num_rows
        assert path.split("/")[:2] == ["lake", name]
        assert facts == [n_rows, len(content), hashlib.sha256(content).hexdigest()]


def test_the_basis_is_scikit_learns(plain: duckdb.DuckDBPyConnection, reference: Reference) -> None:
    rows = plain.execute(
        "from basis select eigenvalue, explained_variance_ratio, loading order by component"
    ).fetchall()
    values, ratios, loadings = zip(*rows, strict=True)
    np.testing.assert_allclose(values, reference.pca.explained_variance_, rtol=1e-12)
    np.testing.assert_allclose(ratios, reference.pca.explained_variance_ratio_, rtol=1e-12)
    np.testing.assert_allclose(loadings, reference.loadings, atol=1e-12)
    ((n, mean),) = plain.execute("select n, mean from basis_mean").fetchall()
    assert n == len(reference.filters)
    np.testing.assert_allclose(mean, reference.pca.mean_, atol=1e-15)
    ((*found, bins),) = plain.execute("select lo, hi, bins from histogram_range").fetchall()
    np.testing.assert_allclose(found, reference.range, rtol=1e-13)
    assert bins == 70


@pytest.mark.parametrize("part", ["", "raw_", "clean_", "clean_raw_"])
def test_moments_of_layers_are_numpys(plain: duckdb.DuckDBPyConnection, reference: Reference, part: str) -> None:
    n = "n_clean" if "clean" in part else "n"
    rows = plain.execute(f"from layer_moments select {n}, {part}mean, {part}scatter order by layer_id").fetchall()
    assert len(rows) == len(reference.layers)
    for (found, mean, scatter), (_, layer) in zip(rows, reference.layers.iterrows(), strict=True):
        own = reference.rows(layer.to_frame().T)
        peaks = np.abs(reference.filters[own]).max(axis=1)
        if "clean" in part:
            own = own[(peaks >= 0.01 * peaks.max()) & (peaks > 0)]
        filters = (reference.filters if "raw" in part else reference.scaled)[own]
        assert found == len(filters)
        if len(filters):
            deviations = filters - filters.mean(axis=0)
            np.testing.assert_allclose(mean, filters.mean(axis=0), atol=1e-14)
            np.testing.assert_allclose(scatter, (deviations.T @ deviations)[UPPER], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("data", ["sample", "lens"])
def test_quality_of_layers_is_the_definitions(request: pytest.FixtureRequest, data: str) -> None:
    prefix = "" if data == "sample" else "lens_"
    wh, reference = (request.getfixturevalue(prefix + name) for name in ("wh", "reference"))
    rows = wh.sql("from layer_quality order by layer_id").pl().to_dicts()
    assert len(rows) == len(reference.layers)
    for row, (_, layer) in zip(rows, reference.layers.iterrows(), strict=True):
        for column, expected in reference.quality(layer).items():
            found = row[column]
            same = found is None if expected is None else found == pytest.approx(expected, rel=1e-9, abs=1e-12)
            assert same, (row["layer_id"], column, found, expected)


@pytest.mark.parametrize("n", [3, 10**6, 10**9, 10**11])
def test_only_empty_bins_are_raised_to_eps(n: int) -> None:
    """One filter apart from the others must count for what it is, in the largest data as well."""
    counts = np.zeros(70)
    counts[[0, 10]] = 1, n
    with duckdb.connect() as con:
        con.execute("create table histogram_range as select -2.0::double as lo, 2.0::double as hi, 70 as bins")
        con.execute("create table counted (grp text, component utinyint, bin utinyint, n bigint)")
        con.execute("insert into counted values ('all', 0, 0, 1), ('all', 0, 10, ?)", [n])
        con.execute(sql_text("macros/distributions_of_counts.sql"))
        query = "select density, probability from distributions_of_counts('counted')"
        found = con.execute(query).fetchnumpy()
    density = counts / counts.sum() * 70 / 4
    expected = np.where(counts == 0, EMPTY_DENSITY, density)
    np.testing.assert_allclose(found["density"], density, rtol=1e-12)
    np.testing.assert_allclose(found["probability"], expected / expected.sum(), rtol=1e-12)


@pytest.fixture(scope="module")
def jacobi() -> Iterator[Callable[[list[np.ndarray]], dict[object, list[tuple]]]]:
    """``components_of`` any covariance matrices: the macro's file alone over a table of them."""
    with duckdb.connect() as con:
        con.execute("create table matrices (grp int, covariance double[])")
        con.execute(sql_text("macros/few_groups.sql"))
        con.execute(sql_text("macros/components_of.sql"))

        def run(matrices: list[np.ndarray]) -> dict[object, list[tuple]]:
            con.execute("delete from matrices")
            rows = [(number, matrix.ravel().tolist()) for number, matrix in enumerate(matrices)]
            con.executemany("insert into matrices values (?, ?)", rows)
            return by_group(con.sql("from components_of('matrices')").fetchall())

        yield run


def rotated(eigenvalues: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    vectors = np.linalg.qr(rng.normal(size=(9, 9)))[0]
    matrix = vectors * eigenvalues @ vectors.T
    return (matrix + matrix.T) / 2


SPECTRA = {
    "random": lambda rng: rng.exponential(size=9),
    "equal": lambda rng: np.full(9, rng.exponential()),  # any rotation of it is rounding
    "pairs": lambda rng: np.repeat(rng.exponential(size=3), 3),
    "nearly equal": lambda rng: 1 + 1e-12 * rng.normal(size=9),
    "rank one": lambda rng: np.eye(9)[0] * rng.exponential(),
    "rank four": lambda rng: np.where(np.arange(9) < 4, rng.exponential(size=9), 0),
    "ill-conditioned": lambda rng: 10.0 ** -np.arange(0, 36, 4) * rng.exponential(),
    "tiny": lambda rng: 1e-20 * rng.exponential(size=9),
    "huge": lambda rng: 1e20 * rng.exponential(size=9),
}


@pytest.mark.parametrize("kind", SPECTRA)
def test_jacobi_finds_the_eigenvectors_of_any_spectrum(jacobi: Callable, kind: str) -> None:
    rng = np.random.default_rng(11)
    matrices = [rotated(SPECTRA[kind](rng), rng) for _ in range(40)]
    found = jacobi(matrices)
    for number, matrix in enumerate(matrices):
        assert_components(found[number], matrix)


def test_jacobi_takes_matrices_that_are_diagonal_zero_or_have_equal_entries(jacobi: Callable) -> None:
    rising = np.diag(np.arange(9.0))
    blocks = np.kron(np.eye(3), [[2.0, 1, 0], [1, 2, 1], [0, 1, 2]])
    matrices = [np.zeros((9, 9)), np.eye(9), rising, np.ones((9, 9)), blocks, np.ones((9, 9)) + 1e-9 * np.eye(9)]
    found = jacobi(matrices)
    for number, matrix in enumerate(matrices):
        assert_components(found[number], matrix)
    assert [row[4].index(1.0) for row in found[2]] == list(range(8, -1, -1))


def test_rounding_does_not_choose_the_signs_of_components(jacobi: Callable) -> None:
    rng = np.random.default_rng(3)
    filters = rng.normal(size=(400, 9)) * np.linspace(1, 2, 9)
    # some components of these are antisymmetric: their largest entries are a pair of opposite sign
    mirrored = np.concatenate([filters, filters.reshape(-1, 3, 3)[:, :, ::-1].reshape(-1, 9)])
    sets = [rng.permutation(mirrored) for _ in range(30)]
    covariances = [np.cov(x, rowvar=False) for x in sets]
    expected, *others = [[row[4] for row in rows] for rows in jacobi(covariances).values()]
    bases = [Basis.of(Moments(2, np.zeros(9), covariance)) for covariance in covariances]
    for loadings in [*others, *(basis.loadings for basis in bases)]:
        np.testing.assert_allclose(loadings, expected, atol=1e-9)


def test_jacobi_survives_entries_whose_squares_underflow(jacobi: Callable) -> None:
    matrix = np.eye(9)
    matrix[0, 1] = matrix[1, 0] = 1e-170  # between equal entries of the diagonal
    matrix[1, 2] = matrix[2, 1] = 0.5  # something is left to do
    assert_components(jacobi([matrix])[0], matrix)


@settings(max_examples=25, deadline=None)
@given(
    factor=arrays(float, (9, 9), elements=st.floats(-1, 1) | st.sampled_from([0.0, 1.0, -1.0, 1e-8])),
    exponents=arrays(int, 9, elements=st.integers(-12, 3)),
)
def test_jacobi_finds_the_eigenvectors_of_any_covariance(
    jacobi: Callable, factor: np.ndarray, exponents: np.ndarray
) -> None:
    # scaled filters are float32 below 1: nothing of them is smaller than this
    columns = np.where(np.abs(factor) < 1e-30, 0, factor) * 10.0**exponents
    matrix = columns.T @ columns
    assert_components(jacobi([matrix])[0], matrix)


def test_layers_with_nan_count_as_layers_but_in_no_statistic(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    sound = [("a", rng.normal(size=(40, 9))), ("b", rng.normal(size=(60, 9)) ** 3)]
    broken = [("a", np.full((3, 9), np.nan)), ("c", np.full((4, 9), np.inf))]
    results = {}
    for name, layers in ("sound", sound), ("mixed", sound + broken):
        write_dataset(tmp_path / name, layers, unclaimed=np.ones((1, 9)))
        warehouse.ingest(tmp_path / name, tmp_path / f"{name}.warehouse", allow_nonfinite=True)
        with warehouse.open(tmp_path / f"{name}.warehouse") as wh:
            results[name] = (
                wh.sql("from drift(task)").fetchall(),
                wh.sql("from pca(task)").fetchall(),
                wh.sql("from quality(task) select grp, sparsity, variance_entropy, l2 where grp != 'c'").fetchall(),
            )
            groups = wh.sql("from groups(task)").fetchall()
            alone = wh.sql("from quality('x', keep := task = 'c') select sparsity, variance_entropy, share_random, l1")
            assert name == "sound" or alone.fetchall() == [(None,) * 4]
    assert groups == [("a", 2, 2, 43), ("b", 1, 1, 60), ("c", 1, 1, 4)]
    for one, other in zip(results["sound"], results["mixed"], strict=True):
        np.testing.assert_array_equal([row[0] for row in one], [row[0] for row in other])
        flat = [np.hstack([v for row in rows for v in row if not isinstance(v, str)]) for rows in (one, other)]
        np.testing.assert_allclose(*flat, rtol=1e-9, atol=1e-12)
