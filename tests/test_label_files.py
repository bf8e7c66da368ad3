"""Tables of what is known of models: read strictly, and what is wrong is named with a suggestion."""

from __future__ import annotations

from pathlib import Path

import pytest

from warehouse.errors import SourceError
from warehouse.label_files import read_labels

MODELS = [Path("models/one.onnx"), Path("two.pth")]


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_csv_file_labels_models_by_path_or_name(tmp_path: Path) -> None:
    path = write(tmp_path, "m.csv", '\ufefffile,task,training_dataset\none.onnx,Segmentation,"A, B"\ntwo.pth,,C\n')
    assert read_labels(path, MODELS) == {
        MODELS[0]: {"task": "Segmentation", "training_dataset": "A, B"},
        MODELS[1]: {"training_dataset": "C"},
    }
    assert read_labels(write(tmp_path, "n.csv", "file,task\nmodels/one.onnx,T\n"), MODELS) == {MODELS[0]: {"task": "T"}}


def test_a_toml_file_labels_models_by_table(tmp_path: Path) -> None:
    text = '["one.onnx"]\ntask = "Segmentation"\nrobust = true\n["two.pth"]\nclean_accuracy = 0.9\n'
    assert read_labels(write(tmp_path, "m.toml", text), MODELS) == {
        MODELS[0]: {"task": "Segmentation", "robust": True},
        MODELS[1]: {"clean_accuracy": 0.9},
    }


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.csv", "file,task\noen.onnx,T\n", r"'oen.onnx' is none of the models; did you mean 'one.onnx'\?"),
        ("m.csv", "file,tsk\none.onnx,T\n", r"no label 'tsk'; did you mean 'task'\?"),
        ("m.csv", "model,task\none.onnx,T\n", "has no column 'file', only model, task"),
        ("m.csv", "", "has no column 'file'"),
        ("m.csv", "file,task\none.onnx\n", "line 2 has another number of cells"),
        ("m.csv", "file,task\none.onnx,T,U\n", "line 2 has another number of cells"),
        ("m.csv", "file,task\none.onnx,T\nmodels/one.onnx,U\n", "is there twice"),
        ("m.csv", 'file,task\none.onnx,"T\n', "cannot be read"),
        ("m.toml", 'task = "T"\n', "'task' is no table of labels"),
        ("m.toml", "[one\n", "cannot be read"),
        ("m.toml", '["one.onnx"]\ncolour = "red"\n', "no label 'colour'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = write(tmp_path, name, text)
    with pytest.raises(SourceError, match=message) as error:
        read_labels(path, MODELS)
    assert str(error.value).startswith(f"{path}: ")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="No such file"):
        read_labels(tmp_path / "none.csv", MODELS)
    binary = tmp_path / "b.csv"
    binary.write_bytes(b"file\n\xff\xfe")
    with pytest.raises(SourceError, match="cannot be read"):
        read_labels(binary, MODELS)
