"""Published numbers beside a warehouse's: on other data they do not apply, on data of the same size they are judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest

import warehouse
from tests.analysed import Change, changed
from tests.reference import Reference

CNN, LENS = "CNN Filter DB v1.0.0", "Robustness through the lens of CNNs"
RESNET = "ImageNet ResNet-18 of torchvision"
PUBLISHED = Path(__file__).parents[1] / "sql" / "published"
RESNET_FILTERS = [64 * 64] * 4 + [64 * 128] + [128**2] * 3 + [128 * 256] + [256**2] * 3 + [256 * 512] + [512**2] * 3
COLUMNS = ["dataset", "quantity", "item", "published", "here", "difference", "tolerance", "agrees", "verdict"]


def reproduction(con: duckdb.DuckDBPyConnection, pairs: str | None = None) -> pd.DataFrame:
    """The analysis, run as its text stands."""
    if pairs is not None:
        con.execute("set variable pairs = $1", [pairs])
    ((text,),) = con.execute("select query from analyses where name = 'reproduction'").fetchall()
    found = con.execute(text).df()
    assert list(found) == COLUMNS
    assert not found.duplicated(["dataset", "quantity", "item"]).any()
    known = found.dropna(subset="here")
    np.testing.assert_allclose(known["difference"], known["here"] - known["published"], atol=1e-9)
    judged = found.dropna(subset="agrees")
    assert (judged["agrees"].astype(bool) == (judged["difference"].abs() <= judged["tolerance"])).all()
    assert judged["verdict"].str.match("agrees|differs").all()
    assert found["verdict"][found["agrees"].isna()].str.match("does not apply: |not comparable: ").all()
    # what applies comes first
    assert found["agrees"].notna().is_monotonic_decreasing
    return found


def of_size(filters: int, models: int) -> list[Change]:
    """What makes a warehouse of twelve models as large as published data."""
    return [
        ("update sources set n_filters = $1", [filters]),
        ("insert into models (model_id) select 1000 + i from range($1) as t(i)", [models - 12]),
    ]


def published_value(quantity: str, item: str, value: float) -> Change:
    return "update published_values set value = $3 where quantity = $1 and item = $2", [quantity, item, float(value)]


def published_drift(axis: str, a: str, b: str, drift: float) -> Change:
    return "update published_drift set drift = $4 where axis = $1 and a = $2 and b = $3", [axis, a, b, float(drift)]


def by_item(found: pd.DataFrame, dataset: str, quantity: str) -> pd.DataFrame:
    chosen = found[(found["dataset"] == dataset) & (found["quantity"] == quantity)]
    return chosen.set_index("item")


@pytest.mark.parametrize("name", ["sample_warehouse", "lens_warehouse", "zoo_warehouse", "lens_data_warehouse"])
def test_on_other_data_nothing_applies_and_the_reason_is_given(request: pytest.FixtureRequest, name: str) -> None:
    with warehouse.open(request.getfixturevalue(name)) as wh:
        found = wh.analysis("reproduction").df()
        ((filters, models),) = wh.sql("select count(*), count(distinct model_id) from filters").fetchall()
    assert found["agrees"].isna().all()
    size = f"does not apply: this warehouse holds {filters:,} filters of {models:,} models, {{}} has {{}}"
    reasons = {
        CNN: size.format(CNN, "1,464,797,156 of 647"),
        LENS: size.format(LENS, "1,008,168,592 of 119"),
        RESNET: "does not apply: no model here has the layers of ResNet-18",
    }
    assert dict(zip(found["dataset"], found["verdict"], strict=True)) == reasons
    assert found.groupby("dataset")["verdict"].nunique().eq(1).all()


def test_every_published_number_has_one_row(wh: warehouse.Warehouse) -> None:
    found = wh.analysis("reproduction").df()
    values = pd.read_csv(PUBLISHED / "values.csv", dtype={"item": str})
    drift = pd.read_csv(PUBLISHED / "drift.csv", dtype={"a": str, "b": str})
    drift = drift[drift["a"] < drift["b"]]
    expected = pd.concat(
        [
            values.set_index(["dataset", "quantity", "item"])[["value", "tolerance"]],
            pd.DataFrame(
                {"value": drift["drift"].to_numpy(), "tolerance": 0.006},
                index=pd.MultiIndex.from_arrays(
                    [[CNN] * len(drift), "drift by " + drift["axis"], drift["a"] + " / " + drift["b"]]
                ),
            ),
        ]
    ).sort_index()
    table = found.set_index(["dataset", "quantity", "item"])[["published", "tolerance"]].sort_index()
    assert table.index.tolist() == expected.index.tolist()
    np.testing.assert_allclose(table.to_numpy(), expected.to_numpy())


def test_published_drifts_are_symmetric_and_zero_on_the_diagonal() -> None:
    drift = pd.read_csv(PUBLISHED / "drift.csv", dtype={"a": str, "b": str})
    for _, own in drift.groupby("axis"):
        matrix = own.pivot_table("drift", "a", "b").to_numpy()
        assert (matrix == matrix.T).all()
        assert (matrix.diagonal() == 0).all()


def test_values_of_cnn_filter_db_are_judged_on_data_of_its_size(
    sample_warehouse: Path, reference: Reference, tmp_path: Path
) -> None:
    mean, ratios = reference.scaled.mean(axis=0), reference.pca.explained_variance_ratio_
    tasks = reference.groups(lambda row: row["task"])
    deciles = reference.groups(lambda row: row["depth_decile"])
    depth = {(str(int(a)), str(int(b))): drift for (a, b), drift in reference.drifts(deciles).items()}
    a, b, other = sorted(tasks)[:3]
    changes = [
        *of_size(1_464_797_156, 647),
        published_value("mean", "4", mean[4] + 0.0004),
        published_value("explained_variance_ratio", "8", ratios[8] - 0.0006),
        published_drift("task", a, b, reference.drift(tasks[a], tasks[b]) - 0.005),
        published_drift("task", a, other, reference.drift(tasks[a], tasks[other]) + 0.01),
    ]
    with changed(sample_warehouse, tmp_path, *changes) as con:
        found = reproduction(con)
    values = found[found["dataset"] == CNN]
    sizes = {quantity: by_item(found, CNN, quantity).loc["all"] for quantity in ("n_filters", "n_models", "n_layers")}
    assert sizes["n_filters"]["verdict"] == sizes["n_models"]["verdict"] == "agrees"
    assert (sizes["n_layers"]["here"], sizes["n_layers"]["verdict"]) == (len(reference.layers), "differs")
    np.testing.assert_allclose(by_item(found, CNN, "mean")["here"], mean, atol=1e-12)
    np.testing.assert_allclose(by_item(found, CNN, "explained_variance_ratio")["here"], ratios, rtol=1e-10)
    assert by_item(found, CNN, "mean").loc["4", "verdict"] == "agrees"
    assert by_item(found, CNN, "explained_variance_ratio").loc["8", "verdict"] == "differs"
    by_task = by_item(found, CNN, "drift by task")
    assert by_task.loc[f"{a} / {b}", "verdict"] == "agrees"
    assert by_task.loc[f"{a} / {other}", "verdict"] == "differs"
    assert by_task.loc["Auto-Encoder / GAN-Generator", "verdict"] == "does not apply: this warehouse has no such group"
    by_depth = by_item(found, CNN, "drift by depth_decile")
    assert {tuple(item.split(" / ")) for item in by_depth.index} == {pair for pair in depth if pair[0] < pair[1]}
    for item, row in by_depth.iterrows():
        assert row["here"] == pytest.approx(depth[tuple(item.split(" / "))])
    assert {*values["agrees"].dropna()} == {True, False}
    assert found["agrees"][found["dataset"] != CNN].isna().all()


def test_visual_categories_are_those_of_the_file_and_not_the_corrected_ones(
    sample_warehouse: Path, reference: Reference, tmp_path: Path
) -> None:
    groups = reference.groups(lambda row: row["Visual Category"])
    changes: list[Change] = [*of_size(1_464_797_156, 647), ("update models set visual_category = 'corrected'", [])]
    with changed(sample_warehouse, tmp_path, *changes) as con:
        found = by_item(reproduction(con), CNN, "drift by visual_category").dropna(subset="here")
    assert len(found) > 2
    for item, row in found.iterrows():
        a, b = item.split(" / ")
        assert row["here"] == pytest.approx(reference.drift(groups[a], groups[b]))


def test_values_of_the_robustness_study_are_judged_on_data_of_its_size(
    lens_warehouse: Path, lens_reference: Reference, tmp_path: Path
) -> None:
    layers = pd.concat([lens_reference.layers, lens_reference.qualities[["n_sparse"]]], axis=1)
    # bool(nan) is True: that is how the study counted its two unknown models
    kinds = {"robust": layers[layers["Robust"].map(bool)], "normal": layers[~layers["Robust"].map(bool)]}
    sparse = kinds["robust"]["n_sparse"].sum()
    rated = {kind: own[own["Robust"].notna()] for kind, own in kinds.items()}
    changes: list[Change] = [
        *of_size(1_008_168_592, 119),
        published_value("n_sparse", "robust", sparse + 100),
        ("update models set training_dataset = 'CIFAR-10' where training_dataset = 'cifar10'", []),
    ]
    with changed(lens_warehouse, tmp_path, *changes) as con:
        found = reproduction(con)
        pairs = con.execute("select a, b from model_pairs").fetchall()
        with_pairs = reproduction(con, pairs="model_pairs")
    for kind, own in kinds.items():
        n, n_sparse = own["n_filters"].sum(), own["n_sparse"].sum()
        for quantity, expected in {"n_filters": n, "n_sparse": n_sparse, "sparsity": n_sparse / n}.items():
            assert by_item(found, LENS, quantity).loc[kind, "here"] == pytest.approx(expected)
    assert by_item(found, LENS, "n_sparse").loc["robust", "verdict"] == "agrees"
    assert by_item(found, LENS, "n_sparse").loc["normal", "verdict"] == "differs"
    # without the study's list of pairs nothing is claimed
    for quantity in ("drift", "drift_pairs"):
        assert set(by_item(found, LENS, quantity)["verdict"]) == {
            "does not apply: set pairs to the list of pairs of the study"
        }
    caveat = "not comparable: published without sparse filters, on components of the others"
    paired = {model for pair in pairs for model in pair}
    for dataset, label in {"cifar10": "cifar10", "cifar100": "cifar100"}.items():
        sides = [own[(own["Training-Dataset"] == label) & own["model_id"].isin(paired)] for own in rated.values()]
        row = by_item(with_pairs, LENS, "drift").loc[dataset]
        assert row["here"] == pytest.approx(lens_reference.drift(*sides))
        assert pd.isna(row["agrees"])
        assert row["verdict"] == caveat
        one, other = (
            pd.concat([layers[(layers["model_id"] == p[i]) & (layers["Training-Dataset"] == label)] for p in pairs])
            for i in (0, 1)
        )
        row = by_item(with_pairs, LENS, "drift_pairs").loc[dataset]
        assert row["here"] == pytest.approx(lens_reference.drift(one, other))
    row = by_item(with_pairs, LENS, "drift").loc["imagenet"]
    assert pd.isna(row["agrees"])
    assert row["verdict"] == "does not apply: this warehouse has no such group"
    assert found["agrees"][found["dataset"] == CNN].isna().all()


Metrics = dict[int, tuple[float, float]]
"""Sparsity and normalised entropy of some layers, by their place in the order of depth."""


def resnet(model: int, metrics: Metrics, sizes: list[int] | None = None) -> list[Change]:
    """What adds a model with layers of such sizes."""
    changes: list[Change] = [("insert into models (model_id) values ($1)", [model])]
    for place, n in enumerate(sizes or RESNET_FILTERS):
        # the later layers come first, for a file need not be in the order of depth
        layer = 100 * model - place
        changes += [
            (
                "insert into layers (layer_id, model_id, conv_depth, first_filter_id, n_filters) "
                "values ($1, $2, $3, 0, $4)",
                [layer, model, place + 1, n],
            ),
            (
                "insert into layer_quality (layer_id, n_filters, sparsity, variance_entropy_norm) "
                "values ($1, $2, $3, $4)",
                [layer, n, *metrics.get(place, (0.5, 0.5))],
            ),
        ]
    return changes


EXACT: Metrics = {0: (513 / 4096, 0.8243831), 15: (471 / 512**2, 0.2192856)}
NEAR: Metrics = {0: (513 / 4096, 0.8243831), 15: (471 / 512**2, 0.22)}
FAR: Metrics = {0: (0.3, 0.7), 15: (0.002, 0.22)}


@pytest.mark.parametrize(
    ("models", "verdicts", "here"),
    [
        ([EXACT], ["agrees (model_id 500)"] * 4, EXACT),
        ([FAR], ["differs (model_id 500)"] * 4, FAR),
        ([FAR, EXACT, FAR], ["agrees (model_id 501, the nearest of 3 with these layers)"] * 4, EXACT),
        (
            [FAR, NEAR],
            [f"{word} (model_id 501, the nearest of 2 with these layers)" for word in ["agrees"] * 3 + ["differs"]],
            NEAR,
        ),
    ],
    ids=["one", "another", "one of three", "near"],
)
def test_resnet_18_is_known_by_its_layers_and_judged_by_the_nearest(
    sample_warehouse: Path,
    tmp_path: Path,
    models: list[Metrics],
    verdicts: list[str],
    here: Metrics,
) -> None:
    changes = [change for i, metrics in enumerate(models) for change in resnet(500 + i, metrics)]
    with changed(sample_warehouse, tmp_path, *changes) as con:
        found = reproduction(con)
    rows = found[found["dataset"] == RESNET]
    assert list(zip(rows["quantity"], rows["item"], strict=True)) == [
        (quantity, item)
        for quantity in ("sparsity", "variance_entropy_norm")
        for item in ("layer1.0.conv1", "layer4.1.conv2")
    ]
    assert rows["verdict"].tolist() == verdicts
    expected: list[Any] = [here[place][metric] for metric in (0, 1) for place in (0, 15)]
    assert rows["here"].tolist() == pytest.approx(expected)


def test_a_model_with_other_layers_is_no_resnet_18(sample_warehouse: Path, tmp_path: Path) -> None:
    changes = [*resnet(500, EXACT, RESNET_FILTERS[::-1]), *resnet(501, EXACT, RESNET_FILTERS[:-1])]
    with changed(sample_warehouse, tmp_path, *changes) as con:
        rows = reproduction(con)
    rows = rows[rows["dataset"] == RESNET]
    assert set(rows["verdict"]) == {"does not apply: no model here has the layers of ResNet-18"}
    assert rows["here"].isna().all()
