"""The macro distances: SciPy's on any histograms, and its bounds, on tables that the test makes up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import jensenshannon
from scipy.stats import wasserstein_distance

import warehouse
from tests.analysed import warehouse_of
from tests.reference import EMPTY_DENSITY
from warehouse import sqlfiles

LOW, HIGH, BINS = -1.5, 2.0, 70
WIDTH = (HIGH - LOW) / BINS
WEIGHTS = np.arange(9, 0, -1) / 45
Distances = Callable[[np.ndarray], np.ndarray]


def alone(*bins: int) -> np.ndarray:
    """``(len(bins), 70)`` histograms of 1000 filters, each in a single bin."""
    counts = np.zeros((len(bins), BINS), int)
    counts[np.arange(len(bins)), bins] = 1000
    return counts


@pytest.fixture(scope="module")
def of() -> Iterator[Distances]:
    """Distances of the first two of groups with the same histogram along each component, in the order of columns."""
    with duckdb.connect() as con:
        con.execute("create table layer_meta (layer_id int, model_id int, n_filters int, out_channels int)")
        con.execute("create table layer_quality as select layer_id, n_filters from layer_meta")
        con.execute("create table layer_histograms (layer_id int, component utinyint, bin utinyint, n bigint)")
        con.execute(f"create table histogram_range as select {LOW}::double lo, {HIGH}::double hi, {BINS} as bins")
        con.execute("create table basis (component utinyint, explained_variance_ratio double)")
        con.executemany("insert into basis values (?, ?)", list(enumerate(WEIGHTS.tolist())))
        wanted = sqlfiles.load_one("macros", "distances")
        for item in sqlfiles.load("macros"):
            if item.name in needed(wanted.name):
                con.execute(item.statement)

        def run(histograms: np.ndarray) -> np.ndarray:
            for table in ("layer_meta", "layer_quality", "layer_histograms"):
                con.execute(f"delete from {table}")
            for layer, counts in enumerate(histograms):
                con.execute("insert into layer_meta values (?, 0, 1, null)", [layer])
                bins = np.flatnonzero(counts).tolist()
                con.execute(
                    "insert into layer_histograms select $layer, k, unnest($bins), unnest($n) from range(9) as t(k)",
                    {"layer": layer, "bins": bins, "n": counts[bins].tolist()},
                )
            con.execute("insert into layer_quality select layer_id, n_filters from layer_meta")
            ((a, b, *found),) = con.sql("from distances(layer_id)").fetchall()
            assert (a, b) == (0, 1)
            return np.array(found)

        yield run


def needed(name: str) -> set[str]:
    """A macro and all those that it uses."""
    macros = {item.name: item for item in sqlfiles.load("macros")}
    return {name}.union(*(needed(used) for used in macros[name].uses if used in macros))


def scipys(histograms: np.ndarray) -> list[float]:
    p, q = histograms / histograms.sum(axis=1, keepdims=True)
    densities = np.array([p, q]) / WIDTH
    densities[densities == 0] = EMPTY_DENSITY
    one, other = densities / densities.sum(axis=1, keepdims=True)
    centres = WIDTH * np.arange(BINS)
    return [
        float(((one - other) * np.log(one / other)).sum()),
        float(jensenshannon(p, q) ** 2),
        float(wasserstein_distance(centres, centres, p, q)),
        float(np.abs(np.cumsum(p) - np.cumsum(q)).max()),
    ]


histograms = arrays(np.int64, (2, BINS), elements=st.integers(0, 3) | st.sampled_from([0, 0, 0, 10**9])).filter(
    lambda counts: counts.any(axis=1).all()
)


@settings(max_examples=20, deadline=None)
@given(counts=histograms)
@example(counts=alone(0, 69))
@example(counts=alone(7, 7))
@example(counts=np.ones((2, BINS), np.int64))
@example(counts=np.array([np.eye(BINS, dtype=np.int64)[3], np.arange(BINS)]))
def test_they_are_scipys_symmetric_and_bounded(of: Distances, counts: np.ndarray) -> None:
    found = of(counts)
    np.testing.assert_allclose(found, scipys(counts), rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(of(counts[::-1]), found, rtol=1e-9, atol=1e-12)
    assert (found >= 0).all()
    _, shannon, wasserstein, smirnov = found
    assert shannon <= np.log(2) + 1e-12
    assert wasserstein <= HIGH - LOW
    assert smirnov <= 1 + 1e-12
    # what moves at all moves at least a bin and at most all of them
    assert smirnov * WIDTH <= wasserstein + 1e-12


@settings(max_examples=8, deadline=None)
@given(counts=histograms, factor=st.integers(2, 1000))
def test_equal_shares_have_no_distance_whatever_the_number(of: Distances, counts: np.ndarray, factor: int) -> None:
    _, *found = of(np.array([counts[0], counts[0] * factor]))
    np.testing.assert_allclose(found, 0, atol=1e-12)


@pytest.mark.parametrize(("one", "other"), [(0, 1), (3, 40), (69, 0)])
def test_groups_that_share_no_bin_are_as_far_as_can_be(of: Distances, one: int, other: int) -> None:
    _, shannon, wasserstein, smirnov = of(alone(one, other))
    assert shannon == pytest.approx(np.log(2))
    assert wasserstein == pytest.approx(abs(one - other) * WIDTH)
    assert smirnov == pytest.approx(1)


@pytest.mark.parametrize(
    ("axis", "kinds"), [("conv_depth > 2", bool), ("conv_depth / 4", float), ("{'depth': conv_depth % 2}", dict)]
)
def test_groups_may_be_of_any_type(wh: warehouse.Warehouse, axis: str, kinds: type) -> None:
    rows = wh.sql(f"from distances({axis})").fetchall()
    drifts = {(str(a), str(b)): drift for a, b, drift in wh.sql(f"from drift({axis})").fetchall()}
    n = wh.sql(f"select count(*) from groups({axis})").fetchall()[0][0]
    assert len(rows) == n * (n - 1) / 2 > 0
    for a, b, drift, *_ in rows:
        assert isinstance(a, kinds)
        assert drift == pytest.approx(drifts[str(a), str(b)], rel=1e-12, abs=1e-13)


def test_constant_and_all_zero_layers_and_such_without_statistics(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    layers = [
        ("constant", np.tile(rng.normal(size=9), (20, 1))),
        ("nan", np.full((5, 9), np.nan)),
        ("zero", np.zeros((8, 9))),
        ("zeros", np.zeros((3, 9))),
    ]
    with warehouse_of(tmp_path, layers, allow_nonfinite=True) as wh:
        rows = {(a, b): rest for a, b, *rest in wh.sql("from distances(task)").fetchall()}
    assert rows.keys() == {("constant", "zero"), ("constant", "zeros"), ("zero", "zeros")}
    assert rows["zero", "zeros"] == pytest.approx([0] * 4, abs=1e-12)
    assert rows["constant", "zero"][1:] == pytest.approx(rows["constant", "zeros"][1:])
    assert rows["constant", "zero"][1] == pytest.approx(np.log(2))  # one component explains everything
    assert rows["constant", "zero"][3] == pytest.approx(1)
