"""Changes of a warehouse that exists: what is added, removed and measured anew, and what stays as it was."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pytest

import warehouse
from tests.damage import edit, file_of, forge, with_column
from tests.reference import Reference
from tests.test_ingest import random_filters, write_dataset
from tests.test_maintenance import contents, kill
from warehouse import changes, lake
from warehouse.connection import connect
from warehouse.errors import LakeError, QueryError, SourceError, WarehouseError
from warehouse.maintenance import vacuum
from warehouse.verify import verify

CHANGES = sys.modules["warehouse.changes"]
OWN_LAYERS = [(4, 0, "0:49"), (4, 1, "50:129"), (9, 0, "130:199")]
OWN = random_filters(200, seed=5)
OWN[130:] = np.random.default_rng(6).choice([-1.0, 1.0], size=(70, 3, 3))  # as far out as a scaled filter can lie
SMALL_TABLES = "models layers layer_quality layer_moments layer_histograms layer_peaks layer_checksums".split()


@pytest.fixture
def target(sample_warehouse: Path, tmp_path: Path) -> Path:
    """A copy of the sample's warehouse, to be changed."""
    return shutil.copytree(sample_warehouse, tmp_path / "cnn.warehouse")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of two models and three layers."""
    columns = {"Task": np.array(["Mine", "Mine", "Other"], object), "Colour": np.array(["red", "red", "blue"], object)}
    return write_dataset(tmp_path_factory.mktemp("own") / "own.h5", OWN_LAYERS, OWN, columns=columns)


def ask(path: Path, query: str) -> list[tuple]:
    with connect(path) as con:
        return con.sql(query).fetchall()


def everything(path: Path) -> dict[str, list[tuple]]:
    """The rows of all tables that hold statistics."""
    with connect(path) as con:
        return {name: con.sql(f"from {name} order by all").fetchall() for name in SMALL_TABLES}


def coefficients(path: Path, filters: np.ndarray) -> np.ndarray:
    """``(n, 9)`` coefficients of filters ``(n, 9)`` on the basis of a warehouse."""
    loadings = np.array([row[0] for row in ask(path, "select loading from basis order by component")])
    ((mean,),) = ask(path, "select mean from basis_mean")
    peaks = np.abs(filters).max(axis=1, keepdims=True)
    return (filters / np.where(peaks == 0, 1, peaks) - np.array(mean)) @ loadings.T


def test_an_appended_dataset_continues_the_ids(target: Path, own: Path) -> None:
    change = changes.append(own, target)
    assert (change.model_ids, change.layers, change.filters) == ((12, 13), 3, 200)
    query = "select model_id, source, source_model_id, task, colour from models order by model_id desc limit 3"
    assert ask(target, query) == [
        (13, "own.h5", 9, "Other", "blue"),
        (12, "own.h5", 4, "Mine", "red"),
        (11, "dataset.h5", 11, *ask(target, "select task from models where model_id = 11")[0], None),
    ]
    query = "select layer_id, model_id, first_filter_id, n_filters from layers where layer_id >= 80 order by layer_id"
    assert ask(target, query) == [(80, 12, 20_000, 50), (81, 12, 20_050, 80), (82, 13, 20_130, 70)]
    assert ask(target, "select name, n_filters from sources order by n_filters") == [
        ("own.h5", 200),
        ("dataset.h5", 20_000),
    ]
    weights = ask(
        target, "select w0, w1, w2, w3, w4, w5, w6, w7, w8 from filters where filter_id >= 20000 order by all"
    )
    assert weights == sorted(map(tuple, OWN.reshape(-1, 9).astype(np.float32).tolist()))


def test_what_was_there_stays_to_the_last_bit(target: Path, own: Path) -> None:
    before, tables = contents(target), everything(target)
    basis = ask(target, "from basis")
    changes.append(own, target)
    after = contents(target)
    assert {name: digest for name, digest in after.items() if name in before and name != lake.DATABASE} == {
        name: digest for name, digest in before.items() if name != lake.DATABASE
    }
    assert ask(target, "from basis") == basis
    for name, rows in everything(target).items():
        width = len(tables[name][0])
        assert {row[:width] for row in map(str_rows, rows)} >= set(map(str_rows, tables[name])), name


def str_rows(row: tuple) -> tuple:
    return tuple(map(str, row))


def test_added_filters_are_counted_on_the_frozen_basis_and_range(target: Path, own: Path) -> None:
    change = changes.append(own, target)
    ((low, high),) = ask(target, "select lo, hi from histogram_range")
    own_coefficients = coefficients(target, OWN.reshape(-1, 9))
    outside = (own_coefficients < low - 1e-9) | (own_coefficients > high + 1e-9)
    assert outside.any(), "nothing is at stake"
    assert change.outside == outside.sum()
    assert ask(target, "select n_outside from sources order by n_filters") == [(outside.sum(),), (0,)]
    bins = np.clip(np.floor(70 * (own_coefficients - low) / (high - low) + 1e-9), 0, 69).astype(int)
    expected = {(k, b): int(n) for k in range(9) for b, n in enumerate(np.bincount(bins[:, k], minlength=70)) if n}
    query = "select component, bin, sum(n) from layer_histograms where layer_id >= 80 group by all"
    assert {(k, b): n for k, b, n in ask(target, query)} == expected


def test_quality_of_added_layers_is_that_of_a_warehouse_of_their_own(target: Path, own: Path, tmp_path: Path) -> None:
    changes.append(own, target)
    warehouse.ingest(own, tmp_path / "alone.warehouse")
    for name in ("layer_quality", "layer_peaks", "layer_checksums"):
        alone = ask(tmp_path / "alone.warehouse", f"select * exclude layer_id from {name} order by all")
        assert ask(target, f"select * exclude layer_id from {name} where layer_id >= 80 order by all") == alone


def test_the_same_file_twice_is_refused(target: Path, own: Path, tmp_path: Path) -> None:
    changes.append(own, target)
    before = contents(target)
    copied = shutil.copy(own, tmp_path / "renamed.h5")
    with pytest.raises(LakeError, match=r"holds renamed\.h5 already, as own\.h5"):
        changes.append(copied, target)
    assert contents(target) == before


def test_removing_what_was_added_gives_the_old_tables_back(target: Path, own: Path) -> None:
    tables = everything(target)
    added = changes.append(own, target)
    change = changes.remove(target, [str(model) for model in added.model_ids])
    assert (change.model_ids, change.layers, change.filters) == ((12, 13), 3, 200)
    after = everything(target)
    assert after.keys() == tables.keys()
    for name in SMALL_TABLES[1:]:
        assert after[name] == tables[name], name
    assert ask(target, "select count(*), max(filter_id) from filters") == [(20_000, 19_999)]
    assert ask(target, "select count(*) from files where path like '%model_id=12/%'") == [(0,)]


def test_a_removed_model_takes_nothing_of_another_with_it(target: Path) -> None:
    query = "select a, b, drift from drift(model_id, keep := model_id <> 3)"
    before = ask(target, query)
    operators = ask(target, "from model_operators where model_id <> 3 order by all")
    changes.remove(target, [3])
    assert ask(target, "select a, b, drift from drift(model_id)") == before
    assert ask(target, "from model_operators order by all") == operators
    assert ask(target, "select count(*) from models where model_id = 3") == [(0,)]


def test_the_last_models_are_not_removed(target: Path) -> None:
    before = contents(target)
    with pytest.raises(LakeError, match="all of its models"):
        changes.remove(target, list(range(12)))
    assert contents(target) == before


@pytest.mark.parametrize(("model", "message"), [("rsnet", "did you mean"), (99, "no model is called '99'")])
def test_an_unknown_model_is_not_removed(target: Path, model: str | int, message: str) -> None:
    before = contents(target)
    with pytest.raises(QueryError, match=message):
        changes.remove(target, [model])
    assert contents(target) == before


def test_refit_without_a_change_changes_no_number(target: Path) -> None:
    before = everything(target), ask(target, "from basis"), ask(target, "from histogram_range")
    changes.refit(target, threads=2)
    assert (everything(target), ask(target, "from basis"), ask(target, "from histogram_range")) == before


def test_refit_measures_all_filters_together(target: Path, sample: Path, own: Path, tmp_path: Path) -> None:
    both = tmp_path / "both.h5"
    with h5py.File(sample) as one:
        filters = np.concatenate([one["filters"][:], OWN])
    layers = [
        (model, 0, f"{first}:{first + n - 1}")
        for model, first, n in ask(target, "select model_id, first_filter_id, n_filters from layers")
    ]
    layers += [(12, 0, "20000:20049"), (12, 1, "20050:20129"), (13, 0, "20130:20199")]
    write_dataset(both, layers, filters, columns={"Task": np.full(len(layers), "any", object)})
    reference = Reference(both)
    changes.append(own, target)
    coordinates = changes.refit(target)
    np.testing.assert_allclose(coordinates.basis.loadings, reference.loadings, atol=1e-9)
    assert (coordinates.low, coordinates.high) == pytest.approx(reference.range, abs=1e-9)
    assert ask(target, "select n from basis_mean") == [(20_200,)]
    groups = reference.groups(lambda row: row["model_id"] >= 12)
    expected = reference.drifts(groups)
    for a, b, drift in ask(target, "from drift(model_id >= 12)"):
        assert drift == pytest.approx(expected[a, b], rel=1e-9, abs=1e-12)


def test_refit_knows_unclaimed_filters_and_layers_that_are_not_finite(tmp_path: Path) -> None:
    filters = random_filters(300, seed=8)
    filters[120, 1, 1] = np.nan
    source = write_dataset(tmp_path / "odd.h5", [(0, 0, "0:99"), (0, 1, "100:149"), (1, 0, "200:299")], filters)
    target = tmp_path / "odd.warehouse"
    warehouse.ingest(source, target, allow_nonfinite=True)
    before = everything(target), ask(target, "from basis"), ask(target, "from histogram_range")
    changes.refit(target)
    assert (everything(target), ask(target, "from basis"), ask(target, "from histogram_range")) == before


def test_refit_keeps_the_histograms_of_all_unclaimed_filters_that_are_finite(tmp_path: Path) -> None:
    filters = random_filters(40, seed=9)
    filters[35] = np.nan
    source = write_dataset(tmp_path / "gaps.h5", [(0, 0, "0:9"), (1, 0, "20:29")], filters)
    target = warehouse.ingest(source, tmp_path / "w", allow_nonfinite=True).path
    before = everything(target), ask(target, "from histogram_range")
    changes.refit(target)
    assert (everything(target), ask(target, "from histogram_range")) == before
    query = "select layer_id, sum(n) from layer_histograms group by all order by all"
    assert ask(target, query) == [(0, 90), (1, 90), (None, 90)]
    assert verify(target).is_sound


def test_refit_without_a_finite_layer_is_refused(tmp_path: Path) -> None:
    filters = random_filters(20)
    filters[15] = np.nan
    source = write_dataset(tmp_path / "bad.h5", [(0, 0, "0:9"), (1, 0, "10:19")], filters)
    target = warehouse.ingest(source, tmp_path / "w", allow_nonfinite=True).path
    changes.remove(target, [0])
    before = contents(target)
    with pytest.raises(LakeError, match="every layer has NaN or infinite weights"):
        changes.refit(target)
    assert contents(target) == before


def not_a_number(values: np.ndarray) -> np.ndarray:
    values[1] = np.nan
    return values


def one_more(values: np.ndarray) -> np.ndarray:
    return values + (np.arange(len(values)) == 1)


def without_numbers(table: pa.Table) -> pa.Table:
    position = table.column_names.index("scatter")
    column = pa.array([[np.nan] * 45] * len(table), table.schema.field("scatter").type)
    return table.set_column(position, table.schema.field("scatter"), column)


@pytest.mark.parametrize(
    ("name", "model", "damage", "message"),
    [
        ("filters", 3, with_column("w4", not_a_number), "parquet: filters .* were finite and are not any more"),
        ("layer_moments", None, with_column("n", one_more), r"layer_moments are of 20,001 filters and 20,000 are"),
        ("layer_moments", None, without_numbers, "layer_moments are not finite"),
    ],
)
def test_refit_refuses_a_damaged_lake(
    target: Path, name: str, model: int | None, damage: Callable[[pa.Table], pa.Table], message: str
) -> None:
    forge(target, file_of(target, name, model), damage)
    before = contents(target)
    with pytest.raises(LakeError, match=message):
        changes.refit(target)
    assert contents(target) == before


@pytest.mark.parametrize(
    "statement",
    [
        "update basis set loading = [case when i = 4 then 'nan'::double else 0 end for i in range(9)]",
        "update basis set loading = null where component = 3",
        "update basis_mean set mean = ['inf'::double, 0, 0, 0, 0, 0, 0, 0, 0]",
        "update histogram_range set lo = 'nan'",
        "update histogram_range set hi = null",
        "update histogram_range set hi = lo",
        "delete from basis_mean",
    ],
)
def test_nothing_is_counted_in_a_basis_or_range_that_is_none(target: Path, own: Path, statement: str) -> None:
    edit(target, statement)
    before = contents(target)
    with pytest.raises(LakeError, match="basis or range is not"):
        changes.append(own, target)
    assert contents(target) == before


FAILING: dict[str, Callable[[Path, Path], object]] = {
    "append": lambda target, own: changes.append(own, target),
    "remove": lambda target, _: changes.remove(target, [3]),
    "refit": lambda target, _: changes.refit(target),
}


@pytest.mark.parametrize("name", FAILING)
def test_a_change_that_fails_before_its_commit_leaves_nothing(
    target: Path, own: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    before = contents(target)

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(CHANGES, "commit", fail)
    with pytest.raises(KeyboardInterrupt):
        FAILING[name](target, own)
    monkeypatch.undo()
    assert contents(target) == before
    FAILING[name](target, own)


@pytest.mark.parametrize("name", FAILING)
def test_a_reader_finishes_with_the_old_state(target: Path, own: Path, name: str) -> None:
    with warehouse.open(target) as wh:
        FAILING[name](target, own)
        assert wh.sql("select count(*), sum(w0) is null from filters").fetchall() == [(20_000, False)]
        assert wh.sql("select count(*) from models").fetchall() == [(12,)]


@pytest.mark.parametrize(
    "moment",
    ["counting", *(pytest.param(other, marks=pytest.mark.slow) for other in ("converting", "catalog", "commit"))],
)
def test_a_killed_change_leaves_the_old_state_and_can_be_run_again(target: Path, own: Path, moment: str) -> None:
    before = contents(target)
    kill("changes.append(source, target, threads=1, progress=progress)", own, target, moment)
    assert {name: digest for name, digest in contents(target).items() if name in before} == before
    assert ask(target, "select count(*) from models") == [(12,)]
    changes.append(own, target)
    assert ask(target, "select count(*) from models") == [(14,)]
    vacuum(target)
    assert ask(target, "select count(*) from filters") == [(20_200,)]


def test_a_bad_dataset_changes_nothing(target: Path, tmp_path: Path) -> None:
    before = contents(target)
    filters = random_filters(30)
    filters[7] = np.inf
    bad = write_dataset(tmp_path / "bad.h5", [(0, 0, "0:29")], filters)
    with pytest.raises(SourceError, match="NaN or infinite"):
        changes.append(bad, target)
    with pytest.raises(SourceError, match="no such file"):
        changes.append(tmp_path / "none.h5", target)
    with pytest.raises(WarehouseError, match="is not a warehouse"):
        changes.append(bad, tmp_path / "nowhere")
    assert contents(target) == before


def test_files_of_the_lake_hold_what_the_database_holds(target: Path, own: Path) -> None:
    changes.append(own, target)
    changes.remove(target, [2])
    with warehouse.open(target) as wh:
        for name in SMALL_TABLES:
            assert len(wh.scan(name).collect()) == len(wh.sql(f"from {name}").fetchall()), name
        assert wh.scan("filters").select("filter_id").collect().height == len(wh.sql("from filters").fetchall())
        for path, digest in wh.sql("select path, sha256 from files").fetchall():
            assert hashlib.sha256((target / path).read_bytes()).hexdigest() == digest


@pytest.mark.parametrize("varies_first", [False, True])
def test_a_column_of_models_in_one_source_and_of_layers_in_another_is_found_in_one_table(
    varies_first: bool, tmp_path: Path
) -> None:
    def dataset(name: str, varies: bool) -> Path:
        filters = random_filters(20, seed=len(name))
        colour = np.array(["red", "blue" if varies else "red"], object)
        columns = {"Task": np.array(["a", "a"], object), "Colour": colour}
        return write_dataset(tmp_path / name, [(0, 0, "0:9"), (0, 1, "10:19")], filters, columns=columns)

    path = warehouse.ingest(dataset("first.h5", varies_first), tmp_path / "cnn.warehouse").path
    changes.append(dataset("second.h5", not varies_first), path)
    rows = ask(path, "select model_id, conv_depth, colour from layer_meta where colour is not null")
    if not varies_first:
        # what models have one of, layers have under a name of their own
        rows += ask(path, "select model_id, conv_depth, layer_colour from layers where layer_colour is not null")
    varied, constant = (0, 1) if varies_first else (1, 0)
    expected = [(varied, 0, "red"), (varied, 1, "blue"), (constant, 0, "red"), (constant, 1, "red")]
    assert sorted(rows) == sorted(expected)
