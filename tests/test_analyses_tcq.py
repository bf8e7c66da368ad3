"""The metrics of torchconvquality as analyses, against NumPy and scikit-learn on the filters."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import warehouse
from tests.analysed import DATASETS, WEIGHTS, Analysed, analysed, assert_table, quality_of
from warehouse.errors import QueryError

METRICS = [metric for metric in WEIGHTS if metric != "scaled_clean_entropy"]
NORMS = ["l1", "l2", "l1_standardised", "l2_standardised"]


@pytest.fixture(scope="module", params=DATASETS)
def data(request: pytest.FixtureRequest) -> Analysed:
    return analysed(request)


def layer_metrics(layers: pd.DataFrame) -> pd.DataFrame:
    names = ["model_id", "model", "layer_id", "conv_depth", "in_channels", "out_channels", "n_filters", "n_sparse"]
    return layers.sort_values(["model_id", "conv_depth", "layer_id"])[[*names, *METRICS, *NORMS]]


def model_metrics(layers: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for model_id, own in layers.groupby("model_id"):
        squares = {f"l2{kind}": np.sqrt((own[f"l2{kind}"].astype(float) ** 2).sum()) for kind in ("", "_standardised")}
        sums = {f"l1{kind}": own[f"l1{kind}"].astype(float).sum() for kind in ("", "_standardised")}
        counts = {"n_layers": len(own), "n_filters": own["n_filters"].sum(), "n_sparse": own["n_sparse"].sum()}
        names = {"model_id": model_id, "model": own["model"].iloc[0]}
        rows.append({**names, **counts, **quality_of(own)[METRICS], **sums, **squares})
    return pd.DataFrame(rows)[["model_id", "model", "n_layers", "n_filters", "n_sparse", *METRICS, *NORMS]]


def test_layer_metrics_are_those_of_the_filters_of_each_layer(data: Analysed) -> None:
    assert_table(data.wh.analysis("layer_metrics"), layer_metrics(data.layers), rtol=1e-8, atol=1e-9)


def test_model_metrics_are_those_of_all_layers_of_each_model(data: Analysed) -> None:
    assert_table(data.wh.analysis("model_metrics"), model_metrics(data.layers), rtol=1e-8, atol=1e-9)


def test_both_can_be_asked_of_one_model_by_number_or_name(data: Analysed) -> None:
    by_name = data.layers.groupby("model")["model_id"].nunique()
    name = by_name[by_name == 1].index[-1]
    own = data.layers[data.layers["model"] == name]
    for model in (name, int(own["model_id"].iloc[0])):
        found = data.wh.analysis("layer_metrics", model=model)
        assert_table(found, layer_metrics(own), rtol=1e-8, atol=1e-9)
        found = data.wh.analysis("model_metrics", model=model)
        assert_table(found, model_metrics(own), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", ["layer_metrics", "model_metrics"])
def test_an_unknown_model_is_an_error_that_names_a_known_one(wh: warehouse.Warehouse, name: str) -> None:
    ((known,),) = wh.sql("select model from models order by model_id limit 1").fetchall()
    with pytest.raises(QueryError, match=rf"no model is called '{known}x'; did you mean '"):
        wh.analysis(name, model=f"{known}x")
