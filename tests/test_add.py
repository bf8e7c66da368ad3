"""Models added to a warehouse and compared with one: equal to a warehouse of them all, and nothing else touched."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import warehouse
from tests.reference import orthogonality, randomness_threshold, variance_entropy
from tests.test_changes import ask
from tests.test_cli import call_main
from tests.test_maintenance import contents
from warehouse import changes, lake, sqlfiles
from warehouse.comparison import Comparison
from warehouse.errors import LakeError, SourceError
from warehouse.extraction import ExtractedModel

CHANGES = sys.modules["warehouse.changes"]
RNG = np.random.default_rng(17)
WEIGHTS = {
    "stem.weight": RNG.normal(size=(8, 3, 3, 3)).astype(np.float32),
    "body.0.weight": RNG.normal(size=(16, 8, 3, 3)).astype(np.float32) * (RNG.random((16, 8, 1, 1)) > 0.3),
    "body.1.weight": RNG.normal(size=(16, 16, 1, 1)).astype(np.float32),
    "body.2.weight": RNG.normal(size=(4, 16, 3, 3)).astype(np.float32) @ RNG.normal(size=(3, 3)).astype(np.float32),
    "head.weight": RNG.normal(size=(10, 4)).astype(np.float32),
}
LAYERS = [WEIGHTS[name] for name in ("stem.weight", "body.0.weight", "body.2.weight")]


@pytest.fixture
def target(sample_warehouse: Path, tmp_path: Path) -> Path:
    """A copy of the sample's warehouse, to be changed."""
    return shutil.copytree(sample_warehouse, tmp_path / "cnn.warehouse")


@pytest.fixture(scope="module")
def model() -> ExtractedModel:
    """A model of three 3x3 layers."""
    return warehouse.extract(WEIGHTS, name="mine", task="Segmentation", training_dataset="A, B")


@pytest.fixture(scope="module")
def compared(sample_warehouse: Path, model: ExtractedModel) -> Iterator[Comparison]:
    """The sample's warehouse with the model mixed in."""
    with warehouse.open(sample_warehouse) as wh, wh.compare(model) as comparison:
        yield comparison


def metrics(weights: np.ndarray) -> list[float | bool | None]:
    """What torchconvquality tells of a layer, by its definitions, with NumPy."""
    filters = weights.reshape(-1, 9).astype(np.float64)
    peaks = np.abs(filters).max(axis=1)
    sparse = peaks < 0.01 * peaks.max()
    entropy, threshold = variance_entropy(filters), randomness_threshold(len(filters))
    assert entropy is not None
    return [sparse.mean(), entropy, entropy / threshold, orthogonality(filters, len(weights)), entropy > threshold]


COLUMNS = "sparsity, variance_entropy, variance_entropy_norm, orthogonality, is_random"


def test_an_added_model_has_its_labels_its_layers_and_their_metrics(target: Path, model: ExtractedModel) -> None:
    change = changes.add(target, [model])
    assert (change.model_ids, change.layers) == ((12,), 3)
    assert change.filters == sum(weights.size // 9 for weights in LAYERS)
    query = "select name, task, training_dataset, source_sha256 from models where model_id = 12"
    assert ask(target, query) == [("mine", "Segmentation", "A, B", model.checksum)]
    assert ask(target, "select dataset from model_datasets where model_id = 12 order by 1") == [("A",), ("B",)]
    query = f"select {COLUMNS} from layer_quality join layers using (layer_id) where model_id = 12 order by conv_depth"
    for found, weights in zip(ask(target, query), LAYERS, strict=True):
        assert list(found) == pytest.approx(metrics(weights), rel=1e-9, abs=1e-12)
    query = "select in_channels, out_channels, n_filters from layers where model_id = 12 order by conv_depth"
    assert ask(target, query) == [(w.shape[1], w.shape[0], w.size // 9) for w in LAYERS]
    query = "select layer_name from layers where model_id = 12 order by conv_depth"
    assert ask(target, query) == [("stem",), ("body.0",), ("body.2",)]
    query = "select w0, w1, w2, w3, w4, w5, w6, w7, w8 from filters where model_id = 12 order by filter_id"
    np.testing.assert_array_equal(ask(target, query), np.concatenate([w.reshape(-1, 9) for w in LAYERS]))


def test_files_of_other_models_are_not_touched(target: Path, model: ExtractedModel) -> None:
    before = contents(target)
    changes.add(target, [model])
    after = contents(target)
    assert {name: after[name] for name in before if name != lake.DATABASE} == {
        name: digest for name, digest in before.items() if name != lake.DATABASE
    }


def test_the_same_model_twice_is_refused_unless_it_replaces_itself(target: Path, model: ExtractedModel) -> None:
    changes.add(target, [model])
    before = contents(target)
    with pytest.raises(LakeError, match=r"holds .* already, as model_id 12; use --replace"):
        changes.add(target, [model])
    with pytest.raises(LakeError, match=r"is the same as"):
        changes.add(target, [model, model], replace_known=True)
    assert contents(target) == before
    again = warehouse.extract(WEIGHTS, name="renamed", task="Classification")
    change = changes.add(target, [again], replace_known=True)
    assert ask(target, "select model_id, name, task from models where model_id >= 12") == [
        (change.model_ids[0], "renamed", "Classification")
    ]
    assert ask(target, "select count(*) from layers where model_id >= 12") == [(3,)]


def test_adding_fails_as_a_whole(target: Path, model: ExtractedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(target)

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(CHANGES, "commit", fail)
    with pytest.raises(KeyboardInterrupt):
        changes.add(target, [model])
    assert contents(target) == before


def test_a_session_goes_on_with_what_it_added(target: Path) -> None:
    with warehouse.open(target) as wh:
        assert wh.add(WEIGHTS, name="mine", task="Segmentation").model_ids == (12,)
        assert wh.sql("select name from models where model_id = 12").fetchall() == [("mine",)]
        assert wh.sql("select count(*) from drift_map(task)").fetchall() == [
            (len(wh.sql("from groups(task)").fetchall()),)
        ]
        with pytest.raises(SourceError, match="no label 'tsk'; did you mean 'task'"):
            wh.add({"a.weight": LAYERS[0]}, tsk="x")


def test_a_comparison_sees_the_model_everywhere_and_writes_nothing(
    compared: Comparison, sample_warehouse: Path, wh: warehouse.Warehouse
) -> None:
    assert compared.model_ids == (12,)
    assert compared.sql("select count(*) from models").fetchall() == [(13,)]
    assert compared.sql("select count(*), max(filter_id) from filters").fetchall() == [
        (20_000 + sum(w.size // 9 for w in LAYERS), 20_000 + sum(w.size // 9 for w in LAYERS) - 1)
    ]
    assert compared.sql("select name from own.models").fetchall() == [("mine",)]
    assert wh.sql("select count(*) from models").fetchall() == [(12,)]
    assert ask(sample_warehouse, "select count(*) from models") == [(12,)]


def test_a_comparison_gives_the_numbers_of_a_warehouse_to_which_the_model_was_added(
    compared: Comparison, target: Path, model: ExtractedModel
) -> None:
    changes.add(target, [model])
    for query in (
        "from drift(model_id)",
        "from quality(task)",
        "from layer_percentiles(12)",
        "from nearest_models(12)",
        "from drift_to_groups(12, task)",
        "select * exclude loading from pca(task)",
        "select count(*), sum(w4::double) from filter_meta where task = 'Segmentation'",
    ):
        found, expected = compared.sql(query).fetchall(), ask(target, query)
        assert len(found) == len(expected) > 0
        for one, other in zip(found, expected, strict=True):
            for value, wanted in zip(one, other, strict=True):
                assert value == wanted or value == pytest.approx(wanted, rel=1e-12, abs=1e-12), query


def test_the_closest_relative_of_a_copy_is_the_original(sample_warehouse: Path) -> None:
    query = "select w0, w1, w2, w3, w4, w5, w6, w7, w8 from filters where layer_id = 20 order by filter_id"
    copied = np.array(ask(sample_warehouse, query), np.float32).reshape(-1, 1, 3, 3)
    with warehouse.open(sample_warehouse) as wh, wh.compare({"conv.weight": copied}) as comparison:
        ((layer, drift),) = comparison.sql("select other_layer_id, drift from nearest_layers_of(12)").fetchall()
        assert (layer, drift) == (20, 0.0)
        duplicates = comparison.sql("select layer_id from duplicates where kind = 'layer' and n_filters > 1").fetchall()
        assert {20, 80} <= {layer for (layer,) in duplicates}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The model as a safetensors file."""
    from safetensors.numpy import save_file

    path = tmp_path / "mine.safetensors"
    save_file({name: np.ascontiguousarray(weights) for name, weights in WEIGHTS.items()}, path)
    return path


def test_the_commands_compare_add_and_remove(file: Path, target: Path, tmp_path: Path) -> None:
    status, out, err = call_main("compare", str(file), str(target))
    assert (status, err) == (0, "")
    assert status == 0
    assert "degenerate layers: " in out
    assert "The nearest models" in out
    status, out, _ = call_main("compare", str(file), str(target), "--format", "json")
    (told,) = json.loads(out)["models"]
    assert sorted(layer["n_filters"] for layer in told["layers"]) == [24, 64, 128]
    assert len(told["nearest_models"]) == 10
    page = tmp_path / "mine.html"
    assert call_main("compare", str(file), str(target), "-o", str(page)).status == 0
    text = page.read_text(encoding="utf-8")
    assert text.count("<figure>") == 3
    assert re.findall("<figcaption>(.*?):", text)[0] == "Drift by task, this model apart"
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", text)
    meta = tmp_path / "m.csv"
    meta.write_text("file,task,visual_category\nmine.safetensors,Segmentation,art\n")
    status, out, err = call_main("add", str(target), str(file), "--meta", str(meta), "--training-dataset", "D")
    assert (status, out) == (0, "")
    assert "added 1 model, 3 layers, " in err
    query = "select name, source, task, visual_category, training_dataset from models where model_id = 12"
    assert ask(target, query) == [("mine", "mine.safetensors", "Segmentation", "art", "D")]
    status, _, err = call_main("add", str(target), str(file))
    assert status == 1
    assert "holds" in err
    assert call_main("add", str(target), str(file), "--replace").status == 0
    assert call_main("remove", str(target), "mine.safetensors").status == 0
    assert ask(target, "select count(*) from models") == [(12,)]
    held = sqlfiles.load_query("report", "contents").rstrip(";")
    assert ask(target, f"select filters = (select count(*) from filters) from ({held})") == [(True,)]
    assert call_main("refit", str(target)).status == 0


@pytest.mark.parametrize("command", [["add"], ["compare"]])
def test_what_is_no_model_changes_nothing(target: Path, tmp_path: Path, command: list[str]) -> None:
    before = contents(target)
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"no model at all")
    arguments = [str(target), str(bad)] if command == ["add"] else [str(bad), str(target)]
    status, out, err = call_main(*command, *arguments)
    assert (status, out) == (1, "")
    assert err.startswith(f"error: {bad}: ")
    assert err.count("\n") == 1
    assert contents(target) == before
