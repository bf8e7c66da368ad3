"""Datasets of extracted models: the genuine layout, whole or not at all, and the command that makes them."""

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import typer
from onnx import helper
from typer.testing import CliRunner, Result

import warehouse
from tests.extraction_models import conv_model, onnx_model, save_torch, saved, weights
from warehouse.errors import SourceError
from warehouse.extract_cli import extract as extract_command
from warehouse.extraction import extract, write_dataset


@pytest.fixture
def two_models(tmp_path) -> list[Path]:
    """An ONNX model and a checkpoint."""
    save_torch(tmp_path / "net.pt", {f"{number}.weight": weights(4, 4, 3, 3) for number in range(3)})
    return [saved(conv_model(weights(4, 2, 3, 3)), tmp_path / "one.onnx"), tmp_path / "net.pt"]


def test_models_of_different_kinds_make_one_dataset(two_models, tmp_path):
    models = [extract(path, task="Segmentation") for path in two_models]
    done: list[tuple[int, int]] = []
    write_dataset(models, tmp_path / "dataset.h5", progress=lambda *counts: done.append(counts))
    meta = pd.read_hdf(tmp_path / "dataset.h5", "meta")
    assert list(meta.index.names) == ["model_id", "conv_depth", "conv_depth_norm", "layer_id"]
    rows = meta.reset_index()
    assert list(rows["model"]) == ["one", "net", "net", "net"]
    assert list(rows["filter_ids"]) == ["0:7", "8:23", "24:39", "40:55"]
    assert list(rows["conv_depth"]) == [0, 0, 1, 2]
    assert list(rows["convolution"][:1]) == ["standard"]
    assert rows["layer_depth"].isna().tolist() == [False, True, True, True]
    assert set(rows["Task"]) == {"Segmentation"}
    assert rows["checksum"].str.len().eq(64).all()
    assert done == [(8, 56), (24, 56), (40, 56), (56, 56)]
    with h5py.File(tmp_path / "dataset.h5") as file:
        assert file["filters"].dtype == np.float64
        expected = np.concatenate([values.reshape(-1, 3, 3) for model in models for _, values in model.weights()])
        np.testing.assert_array_equal(file["filters"][:], expected)


def test_it_ingests_and_a_model_without_a_graph_has_null_where_nothing_is_known(two_models, tmp_path):
    write_dataset([extract(path) for path in two_models], tmp_path / "dataset.h5")
    warehouse.ingest(tmp_path / "dataset.h5", tmp_path / "cnn.warehouse")
    with warehouse.open(tmp_path / "cnn.warehouse") as wh:
        rows = wh.sql("select model, op_set, task, total_filters, share_3x3 from models order by 1").fetchall()
        operators = wh.sql("select operator, n from model_operators").fetchall()
        layers = wh.sql("select in_channels, out_channels, layer_depth from layers order by layer_id").fetchall()
    assert rows == [("net", None, None, 48, 1.0), ("one", 13, None, 8, 1.0)]
    assert operators == [("Conv", 1)]
    assert layers == [(2, 4, 0), (4, 4, None), (4, 4, None), (4, 4, None)]


def test_operators_named_like_columns_do_no_harm(tmp_path):
    model = conv_model(weights(2, 2, 3, 3))
    for number, name in enumerate(("model", "Task", "Robust", "filter_ids", "(3, 3) filters", "Custom")):
        model.graph.node.add(op_type=name, input=["y"], output=[f"o{number}"], domain="mine")
    write_dataset([extract(saved(model, tmp_path / "net.onnx"))], tmp_path / "dataset.h5")
    (row,) = pd.read_hdf(tmp_path / "dataset.h5", "meta").to_dict("records")
    assert (row["model"], row["filter_ids"], row["(3, 3) filters"], row["Custom"]) == ("net", "0:3", 4, 1)
    warehouse.ingest(tmp_path / "dataset.h5", tmp_path / "cnn.warehouse")


def test_two_models_of_one_name_are_refused(tmp_path):
    models = [extract({"a.weight": weights(2, 2, 3, 3)}, name="net") for _ in range(2)]
    with pytest.raises(SourceError, match="2 models are called 'net'"):
        write_dataset(models, tmp_path / "dataset.h5")
    with pytest.raises(SourceError, match="at least one model"):
        write_dataset([], tmp_path / "dataset.h5")
    assert list(tmp_path.iterdir()) == []


def test_a_failure_half_way_leaves_nothing(two_models, tmp_path):
    models = [extract(path) for path in two_models]
    two_models[1].unlink()
    with pytest.raises(SourceError, match="no such file"):
        write_dataset(models, tmp_path / "dataset.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["one.onnx"]


def test_what_exists_is_not_overwritten(two_models, tmp_path):
    (tmp_path / "dataset.h5").write_text("mine")
    with pytest.raises(SourceError, match="exists already"):
        write_dataset([extract(two_models[0])], tmp_path / "dataset.h5")
    assert (tmp_path / "dataset.h5").read_text() == "mine"


def run(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(extract_command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_writes_a_dataset_and_says_what_it_holds(two_models, tmp_path):
    target = tmp_path / "dataset.h5"
    result = run(*two_models, "-o", target, "--task", "Segmentation", "--label", "paper=none")
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert lines[0] == "one (onnx): 8 filters in 1 layer"
    assert lines[1].startswith("net (torch): 48 filters in 3 layers; conv_depth is the order")
    assert lines[2] == f"{target}: 56 filters, 4 layers, 2 models"
    assert set(pd.read_hdf(target, "meta")["Paper"]) == {"none"}


def test_the_command_refuses_bad_input_and_leaves_nothing(two_models, tmp_path):
    target = tmp_path / "dataset.h5"
    two_models[0].write_bytes(b"\x08\x07")
    result = run(*two_models, "-o", target)
    assert isinstance(result.exception, SourceError)
    assert run(two_models[1], "-o", target, "--label", "nothing").exit_code == 2
    assert not target.exists()


_PEAK = """
import resource, sys
from warehouse.extraction import extract, write_dataset
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
write_dataset([extract(sys.argv[1])], sys.argv[2])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_memory_is_that_of_the_largest_layer(tmp_path):
    n, each = 40, weights(256, 256, 3, 3)
    nodes = [helper.make_node("Conv", [f"v{i}" if i else "x", f"w{i}"], [f"v{i + 1}"]) for i in range(n)]
    model = onnx_model(nodes, {f"w{i}": each for i in range(n)}, outputs=(f"v{n}",))
    path = saved(model, tmp_path / "net.onnx")
    unit = 1 if sys.platform == "darwin" else 1024
    output = subprocess.run(
        [sys.executable, "-c", _PEAK, path, tmp_path / "dataset.h5"], check=True, capture_output=True, text=True
    ).stdout
    assert path.stat().st_size > 90e6
    assert int(output) * unit < 60e6
