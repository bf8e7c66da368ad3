"""Bimodality of binned coefficients and the shapes of layers, on histograms and layers of known form."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import kurtosis, norm, skew

from tests.analysed import warehouse_of
from tests.reference import Reference
from warehouse import sqlfiles

Bimodality = Callable[[np.ndarray], tuple]


@pytest.fixture(scope="module")
def bimodality() -> Iterator[Bimodality]:
    """Number, skewness, kurtosis and bimodality of one group's histogram along one component."""
    with duckdb.connect() as con:
        con.execute("create table layer_histograms (layer_id int, component utinyint, bin utinyint, n bigint)")
        con.execute("create table members as select 'x' as grp, 0 as layer_id")
        con.execute(sqlfiles.load_one("macros", "bimodality").statement)

        def run(counts: np.ndarray) -> tuple:
            bins = np.flatnonzero(counts).tolist()
            con.execute("delete from layer_histograms")
            con.execute(
                "insert into layer_histograms select 0, 4, unnest($bins), unnest($n)",
                {"bins": bins, "n": counts[bins].tolist()},
            )
            ((grp, component, *found),) = con.sql("from bimodality('members')").fetchall()
            assert (grp, component) == ("x", 4)
            return tuple(found)

        yield run


def sarles(values: np.ndarray) -> float:
    n = len(values)
    correction = 3 * (n - 1) ** 2 / ((n - 2) * (n - 3))
    return (skew(values, bias=False) ** 2 + 1) / (kurtosis(values, bias=False) + correction)


@settings(max_examples=60, deadline=None)
@given(counts=arrays(np.int64, 70, elements=st.sampled_from([0, 0, 0, 1, 2, 40])))
@example(counts=np.eye(70, dtype=np.int64)[3] * 9)
@example(counts=np.eye(70, dtype=np.int64)[[0, 69]].sum(axis=0) * 500)
@example(counts=np.eye(70, dtype=np.int64)[0] * 3 + np.eye(70, dtype=np.int64)[69])
def test_it_is_sarles_coefficient_with_scipys_sample_moments(bimodality: Bimodality, counts: np.ndarray) -> None:
    if not counts.any():
        counts = counts + 1
    values = np.repeat(np.arange(70.0), counts)
    n, *found = bimodality(counts)
    assert n == len(values)
    if n < 4 or np.ptp(values) == 0:
        assert found == [None] * 3
    else:
        expected = skew(values, bias=False), kurtosis(values, bias=False), sarles(values)
        assert found == pytest.approx(expected, rel=1e-8, abs=1e-9)
        assert 0 < found[2] <= 1 + 1e-9
        assert bimodality(counts[::-1])[1:] == pytest.approx((-found[0], *found[1:]), rel=1e-8, abs=1e-9)


def test_known_distributions_have_known_coefficients(bimodality: Bimodality) -> None:
    bell = (1e9 * norm.pdf(np.arange(70), 34.5, 6)).astype(np.int64)
    two = np.zeros(70, np.int64)
    two[[10, 60]] = 10**6
    assert bimodality(bell)[-1] == pytest.approx(1 / 3, abs=1e-3)
    assert bimodality(np.full(70, 10**6))[-1] == pytest.approx(5 / 9, abs=1e-3)
    assert bimodality(two)[-1] == pytest.approx(1, abs=1e-3)
    skewed = (1e9 * np.exp(-np.arange(70) / 5)).astype(np.int64)
    assert bimodality(skewed)[-1] > 5 / 9  # one peak only: the limit that the header states


def judged(reference: Reference) -> list[str | None]:
    """The rule of the header, layer by layer."""
    found: list[str | None] = []
    for number, layer in reference.layers.iterrows():
        quality = reference.qualities.iloc[number]
        histograms = reference.histogram(reference.layers.iloc[[number]])[:2]
        peaks = [sarles(np.repeat(np.arange(70.0), counts)) for counts in histograms if np.count_nonzero(counts) > 1]
        if layer["n_filters"] < 16:
            found.append(None)
        elif quality["sparsity"] >= 0.5 or quality["variance_entropy_norm"] < 0.3:
            found.append("point")
        elif max(peaks, default=0) > 5 / 9:
            found.append("symbols")
        else:
            found.append("sun" if quality["variance_entropy_norm"] >= 0.95 else "spikes")
    return found


@pytest.mark.parametrize("data", ["sample", "lens"])
def test_layers_are_named_by_the_rule(request: pytest.FixtureRequest, data: str) -> None:
    prefix = "" if data == "sample" else "lens_"
    wh, reference = (request.getfixturevalue(prefix + name) for name in ("wh", "reference"))
    rows = wh.sql("select layer_id, shape, n_filters, sparsity, variance_entropy_norm from layer_shapes").fetchall()
    assert [row[0] for row in rows] == list(range(len(reference.layers)))
    assert [row[1] for row in rows] == judged(reference)
    assert len({row[1] for row in rows}) >= 3
    columns = ["n_filters", "sparsity", "variance_entropy_norm"]
    expected = reference.qualities[columns].astype(float).to_numpy()
    np.testing.assert_allclose(np.array([row[2:] for row in rows], float), expected, rtol=1e-9, atol=1e-12)


RNG = np.random.default_rng(12)
NOISE = RNG.normal(size=(400, 9))
CENTRES = np.outer(RNG.choice([-1, 1], 400), [1, 1, 0, 0, 0, 0, 0, 0, 0]) + 0.2 * NOISE
CLOUDS: dict[str, tuple[np.ndarray, str | None]] = {
    "sun": (NOISE, "sun"),
    "spikes": (NOISE * np.geomspace(1, 0.2, 9), "spikes"),
    "symbols": (CENTRES, "symbols"),
    "point, for its filters are multiples of one": (np.outer(RNG.uniform(0.1, 1, 400), np.ones(9)), "point"),
    "point, for all filters are alike": (np.ones((20, 9)), "point"),
    "point, for all filters are zero": (np.zeros((20, 9)), "point"),
    "point, for half of the filters are sparse, two centres or not": (
        np.concatenate([CENTRES[:200], CENTRES[200:] * 1e-4]),
        "point",
    ),
    "symbols, for fewer than half are sparse": (np.concatenate([CENTRES[:200], CENTRES[201:] * 1e-4]), "symbols"),
    "sun of sixteen": (NOISE[:16], "sun"),
    "none of fifteen": (NOISE[:15], None),
    "none where a weight is infinite": (np.where(np.arange(9) == np.arange(400)[:, None], np.inf, NOISE), None),
}


def test_clouds_have_the_shape_that_they_were_made_to_have(tmp_path: Path) -> None:
    layers: list[tuple[str | None, np.ndarray]] = [(name, cloud) for name, (cloud, _) in CLOUDS.items()]
    with warehouse_of(tmp_path, layers, allow_nonfinite=True) as wh:
        found = dict(wh.sql("select task, shape from layer_shapes join layer_meta using (layer_id)").fetchall())
        spoilt = wh.sql("from layer_shapes select * exclude (layer_id, n_filters) where sparsity is null").fetchall()
    assert found == {name: shape for name, (_, shape) in CLOUDS.items()}
    assert spoilt == [(None,) * 4]
