"""Sparsity at any threshold, from the stored counts, against NumPy on the filters themselves."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import duckdb
import h5py
import numpy as np
import pytest

import warehouse
from tests.reference import Reference, write_dataset
from warehouse.errors import QueryError

DIGITS = [f"{m}e-{k}" for k in range(6, 1, -1) for m in range(10, 100)] + ["1"]
"""The thresholds where the counts are exact, as a user would write them."""
EDGES = [float(text) for text in DIGITS]
AXIS = "model_id % 10"


@dataclass
class Filters:
    """The filters of a source and the warehouse made of it."""

    wh: warehouse.Warehouse
    source: Path

    @cached_property
    def layers(self) -> list[tuple[int, object, int, int]]:
        """Number, a group, first filter and end of each layer."""
        query = f"select layer_id, {AXIS}, first_filter_id, n_filters from layers order by layer_id"
        return [(i, group, first, first + n) for i, group, first, n in self.wh.sql(query).fetchall()]

    @cached_property
    def peaks(self) -> np.ndarray:
        """``(n,)`` largest magnitude of each filter, as float64 of what float32 holds."""
        with h5py.File(self.source) as file:
            data = file["filters"] if "filters" in file else file["filter"]
            return np.abs(data[:].reshape(-1, 9).astype(np.float32).astype(np.float64)).max(axis=1)

    def n_sparse(self, first: int, stop: int, eps: float) -> int:
        """The definition: a peak below eps times the layer's largest, and every filter of an all-zero layer."""
        peak = self.peaks[first:stop]
        return int(peak.size if peak.max() == 0 else (peak < eps * peak.max()).sum())

    def by_group(self, eps: float) -> dict[object, tuple[int, int]]:
        """Filters and sparse filters of each group."""
        found: dict[object, tuple[int, int]] = {}
        for _, group, first, stop in self.layers:
            n, n_sparse = found.get(group, (0, 0))
            found[group] = (n + stop - first, n_sparse + self.n_sparse(first, stop, eps))
        return found


@pytest.fixture(scope="module", params=["wh", "lens_wh", "odd", "zoo_wh", "lens_data_wh"])
def filters(request: pytest.FixtureRequest) -> Filters:
    """A source of synthetic, odd or real filters, and its warehouse."""
    wh = request.getfixturevalue(request.param)
    real = {"zoo_wh": "zoo.h5", "lens_data_wh": "lens.h5"}
    if request.param in real:
        return Filters(wh, request.getfixturevalue("shared_data") / real[request.param])
    return Filters(wh, wh.path.with_name("dataset.h5"))


def write_odd(path: Path) -> None:
    """Layers with peaks on and beside thresholds, of zeros, with zeros, of one filter and of equal filters."""
    rng = np.random.default_rng(8)
    largest = np.float32(0.3)
    at = (np.array(EDGES) * largest).astype(np.float32)
    on_edges = np.concatenate([[largest], at, np.nextafter(at, np.float32(0)), np.nextafter(at, np.float32(1))])
    peaked = np.outer(np.minimum(on_edges, largest), np.arange(9) == 3)
    layers = [
        ("on edges", peaked),
        ("zero", np.zeros((5, 9))),
        ("half zero", rng.normal(size=(30, 9)) * (np.arange(30) % 2)[:, None]),
        ("tiny", rng.normal(size=(50, 9)) * np.geomspace(1, 1e-9, 50)[:, None]),
        ("one", rng.normal(size=(1, 9))),
        ("equal", np.tile(rng.normal(size=9), (4, 1))),
        (None, rng.normal(size=(3, 9))),
    ]
    write_dataset(path, layers, unclaimed=rng.normal(size=(9, 9)))


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[warehouse.Warehouse]:
    folder = tmp_path_factory.mktemp("odd")
    write_odd(folder / "dataset.h5")
    warehouse.ingest(folder / "dataset.h5", folder / "w")
    with warehouse.open(folder / "w") as wh:
        yield wh


def test_at_one_hundredth_it_is_what_layer_quality_says_of_every_layer(filters: Filters) -> None:
    query = """
        select q.layer_id, q.n_filters, q.n_sparse, s.n_filters, s.n_sparse, q.sparsity, s.sparsity
        from layer_quality as q left join sparsity_at(layer_id, 0.01) as s on s.grp = q.layer_id
    """
    rows = filters.wh.sql(query).fetchall()
    assert len(rows) == len(filters.layers)
    for layer_id, n, n_sparse, own_n, own_n_sparse, sparsity, own_sparsity in rows:
        assert (own_n, own_n_sparse, own_sparsity) == (n, n_sparse, sparsity), layer_id


def test_the_thresholds_are_the_numbers_that_sql_reads(odd: warehouse.Warehouse) -> None:
    literals = ", ".join(f"{text}::double" for text in DIGITS)
    (row,) = odd.sql(f"select list(eps order by bin) = [{literals}], list(bin order by bin) from peak_edges").fetchall()
    assert row == (True, list(range(1, 452)))
    decimals = "0.00001, 0.00002, 0.00037, 0.001, 0.0015, 0.01, 0.05, 0.1, 0.25, 0.99, 1"
    assert odd.sql(f"select count(*) from peak_edges where eps in ({decimals})").fetchall() == [(11,)]


@pytest.mark.parametrize("text", ["1e-5", "0.00037", "0.001", "0.01", "0.05", "0.1", "0.5::float", "0.99", "1"])
def test_at_a_threshold_of_two_digits_it_is_exact(filters: Filters, text: str) -> None:
    ((eps,),) = filters.wh.sql(f"select ({text})::double").fetchall()
    rows = filters.wh.sql(f"from sparsity_at({AXIS}, {text})").fetchall()
    found = {grp: (n, n_sparse) for grp, n, n_sparse, *_ in rows}
    assert found == filters.by_group(eps)
    for _, n, n_sparse, *shares in rows:
        assert shares == [n_sparse / n] * 3


@pytest.mark.parametrize("eps", [1e-9, 3e-6, 0.000123, 0.00995, 0.010001, 0.0999, 0.31415, 0.995, 1 - 1e-12])
def test_anywhere_else_it_keeps_within_bounds_that_hold_the_truth(filters: Filters, eps: float) -> None:
    above = min(edge for edge in EDGES if edge >= eps)
    below = max((edge for edge in EDGES if edge <= eps), default=0.0)
    exact = filters.by_group(eps)
    lower = filters.by_group(below or 1e-300)
    upper = filters.by_group(above)
    rows = filters.wh.sql(f"from sparsity_at({AXIS}, ?)", params=[eps]).fetchall()
    assert {row[0] for row in rows} == exact.keys()
    for grp, n, n_sparse, sparsity, low, high in rows:
        assert (low, high) == (lower[grp][1] / n, upper[grp][1] / n)
        assert low <= exact[grp][1] / n <= high
        assert sparsity == pytest.approx(np.interp(eps, [below, above], [low, high]), abs=1e-15)
        assert n_sparse == (exact[grp][1] if low == high else None)


def test_the_curve_has_all_thresholds_of_all_groups_and_is_exact(filters: Filters) -> None:
    rows = filters.wh.sql(f"from sparsity_curve({AXIS})").fetchall()
    assert rows == sorted(rows)
    groups = sorted(filters.by_group(1))
    assert [(grp, eps) for grp, eps, *_ in rows] == [(grp, eps) for grp in groups for eps in EDGES]
    by_eps: dict[float, dict[object, tuple[int, float]]] = {}
    for grp, eps, n_sparse, sparsity in rows:
        by_eps.setdefault(eps, {})[grp] = (n_sparse, sparsity)
    for eps in EDGES[:: 7 if len(filters.layers) > 300 else 1]:
        expected = {grp: (n_sparse, n_sparse / n) for grp, (n, n_sparse) in filters.by_group(eps).items()}
        assert by_eps[eps] == expected, eps


def test_layers_of_the_sample_differ_from_the_definition_at_no_threshold(
    wh: warehouse.Warehouse, reference: Reference
) -> None:
    found = wh.sql("select grp, list(n_sparse order by eps) from sparsity_curve(layer_id) group by grp order by grp")
    for (_, layer), (_, n_sparse) in zip(reference.layers.iterrows(), found.fetchall(), strict=True):
        peaks = np.abs(reference.filters[layer["first"] : layer["stop"]]).max(axis=1)
        assert n_sparse == [(peaks < eps * peaks.max()).sum() if peaks.any() else peaks.size for eps in EDGES]


def test_all_filters_of_an_all_zero_layer_are_sparse_however_low_the_threshold(odd: warehouse.Warehouse) -> None:
    for eps in ("1e-300", "1e-5", "0.01", "1"):
        rows = odd.sql(f"from sparsity_at(task, {eps}) where grp in ('zero', 'equal')").fetchall()
        assert rows == [("equal", 4, 0, 0.0, 0.0, 0.0), ("zero", 5, 5, 1.0, 1.0, 1.0)]
    assert odd.sql("select distinct n_sparse from sparsity_curve(task) where grp = 'zero'").fetchall() == [(5,)]


def test_below_the_lowest_threshold_the_zeros_are_what_is_certain(odd: warehouse.Warehouse) -> None:
    rows = odd.sql("from sparsity_at(task, 1e-7) where grp in ('half zero', 'tiny')").fetchall()
    assert rows[0] == ("half zero", 30, 15, 0.5, 0.5, 0.5)
    grp, n, n_sparse, sparsity, low, high = rows[1]
    assert (grp, n, n_sparse, low) == ("tiny", 50, None, 0.0)
    assert 0 < sparsity < high


@pytest.mark.parametrize("macro", ["sparsity_at(task, 0.05, {})", "sparsity_curve(task, {})"])
def test_keep_leaves_layers_out_and_layers_without_a_value_form_no_group(odd: warehouse.Warehouse, macro: str) -> None:
    def groups(keep: str) -> set[str]:
        return {grp for (grp,) in odd.sql(f"select grp from {macro.format('keep := ' + keep)}").fetchall()}

    assert groups("true") == {"on edges", "zero", "half zero", "tiny", "one", "equal"}
    assert groups("n_filters > 20") == {"on edges", "half zero", "tiny"}
    assert groups("false") == groups("null") == set()


@pytest.mark.parametrize("axis", ["concat(task, '/', conv_depth)", "sparsity > 0.01", "n_filters // 100", "depth * 2"])
def test_any_expression_is_an_axis(wh: warehouse.Warehouse, axis: str) -> None:
    at = wh.sql(f"select grp, n_filters, n_sparse from sparsity_at({axis}, 0.01) order by grp").fetchall()
    assert at == wh.sql(f"select grp, n_filters, n_sparse from quality({axis}) order by grp").fetchall()
    curve = wh.sql(f"select grp, n_sparse from sparsity_curve({axis}) where eps = 0.01 order by grp").fetchall()
    assert curve == [(grp, n_sparse) for grp, _, n_sparse in at]


@pytest.mark.parametrize("eps", ["0", "-0.1", "1.0001", "100", "null", "'nan'::double", "'inf'::double"])
def test_a_threshold_that_is_none_is_refused_with_its_value(wh: warehouse.Warehouse, eps: str) -> None:
    # DuckDB may see only in running it what is wrong
    with pytest.raises((QueryError, duckdb.Error), match=r"sparsity_at: eps is .*; expected above 0 and at most 1"):
        wh.sql(f"from sparsity_at(task, {eps})").fetchall()


def test_groups_without_statistics_are_named_and_their_sparsity_unknown(tmp_path: Path) -> None:
    spoilt = np.ones((4, 9))
    spoilt[2, 2] = math.nan
    layers = [("spoilt", spoilt), ("mixed", spoilt), ("mixed", np.diag([1.0] * 8 + [1e-4]))]
    write_dataset(tmp_path / "a.h5", layers, unclaimed=np.empty((0, 9)))
    warehouse.ingest(tmp_path / "a.h5", tmp_path / "w", allow_nonfinite=True)
    with warehouse.open(tmp_path / "w") as wh:
        assert wh.sql("select distinct layer_id from layer_peaks").fetchall() == [(2,)]
        assert wh.sql("from sparsity_at(task, 0.01)").fetchall() == [
            ("mixed", 9, 1, 1 / 9, 1 / 9, 1 / 9),
            ("spoilt", 0, None, None, None, None),
        ]
        curve = wh.sql("select distinct grp, n_sparse, sparsity from sparsity_curve(task) where eps >= 0.01 order by 1")
        assert curve.fetchall()[-1] == ("spoilt", None, None)
        assert wh.sql("select count(*) from sparsity_curve(task)").fetchall() == [(2 * 451,)]
