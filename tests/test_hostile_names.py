"""Names that a stranger chose: they are data, or refused; they are no SQL, no markup, no path and no command."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import duckdb
import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest

import warehouse
from tests.test_bad_input import FILTERS
from tests.test_cli import call_main
from tests.test_ingest import write_dataset
from warehouse import plots
from warehouse.errors import SourceError
from warehouse.legible import LONGEST_CELL, LONGEST_NAME, printable, shortened, shortened_sql

NAMES = [
    "nul\0inside",
    "two\nlines\r\nand\ttabs",
    "'; drop table models; --",
    "\" or 1=1; copy (select 1) to '/tmp/x'; --",
    "\x1b[2J\x1b]0;title\x07\x1b[31mred",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "../../../../etc/passwd",
    "/dev/null",
    "a" * 1_000_000,
    "b" * 5_000 + "1",
    "b" * 5_000 + "2",
    r"$\frac{1}{",
    "{0.__class__} %s %(x)s {{",
    "\u202eesrever\u2066\u200b\ufeff",
    "größe 🦆 \U0010ffff",
    "[bold red]markup[/]",
    "NULL",
    "COM1",
    "-rf",
    "\x9b31m\x85",
    "🦆\0" * 200,
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing in it but a warehouse of models, tasks and data sets by these names."""
    folder = tmp_path_factory.mktemp("names")
    n = len(NAMES)
    step = len(FILTERS) // n
    layers = [(i, 0, f"{i * step}:{(i + 1) * step - 1}") for i in range(n)]
    texts = np.array(NAMES, object)
    columns = dict.fromkeys(("model", "Name", "Task", "Visual Category", "Training-Dataset", "remark"), texts)
    source = write_dataset(folder.parent / "names.h5", layers, FILTERS, columns=columns)
    warehouse.ingest(source, folder / "cnn.warehouse")
    return folder


@pytest.fixture(scope="module")
def wh(folder: Path) -> Iterator[warehouse.Warehouse]:
    with warehouse.open(folder / "cnn.warehouse") as opened:
        yield opened


@pytest.mark.slow
def test_every_name_survives_as_it_is(wh: warehouse.Warehouse) -> None:
    for column in ("model", "raw_task", "raw_visual_category", "remark", "training_dataset"):
        assert wh.sql(f"from models select {column} order by model_id").fetchall() == [(name,) for name in NAMES]
    ((path,),) = wh.sql("from files select path where name = 'models'").fetchall()
    assert pq.read_table(wh.path / path)["model"].to_pylist() == NAMES
    groups = {group for (group,) in wh.sql("from groups(task) select grp").fetchall()}
    assert groups == {name for (name,) in wh.sql("select distinct task from models").fetchall()}
    assert len(groups) == len(NAMES)
    drift = wh.sql("from drift(task) select drift where a = b").fetchall()
    assert [value for (value,) in drift] == pytest.approx([0] * len(NAMES), abs=1e-9)


def test_no_name_becomes_a_path(folder: Path) -> None:
    assert [path.name for path in folder.iterdir()] == ["cnn.warehouse"]
    for path in folder.rglob("*"):
        assert re.fullmatch(r"[A-Za-z0-9_.=-]+", path.name), path


@pytest.mark.parametrize("name", [name for name in NAMES if "\0" not in name])
def test_a_name_is_found_by_a_parameter_and_by_a_literal(wh: warehouse.Warehouse, name: str) -> None:
    literal = "'" + name.replace("'", "''") + "'"
    assert wh.sql(f"from models select model_id where model = {literal}").fetchall() == [(NAMES.index(name),)]
    assert wh.sql(f"select model_id_of({literal})").fetchall() == [(NAMES.index(name),)]


def test_tables_for_people_hold_no_control_characters(folder: Path) -> None:
    done = call_main("query", str(folder / "cnn.warehouse"), "from models select model_id, task")
    assert done.status == 0
    assert done.out.replace("\n", "").isprintable()
    assert max(map(len, done.out.splitlines())) < 2 * LONGEST_CELL
    assert r"\x1b[2J\x1b]0;title\x07\x1b[31mred" in done.out
    assert "[bold red]markup[/]" in done.out


def test_files_for_programs_hold_every_name(folder: Path) -> None:
    query = ["query", str(folder / "cnn.warehouse"), "from models select task order by model_id", "--format"]
    assert [row["task"] for row in json.loads(call_main(*query, "json").out)] == NAMES
    csv.field_size_limit(2_000_000)
    rows = list(csv.reader(io.StringIO(call_main(*query, "csv").out.replace("\0", "␀"), newline="")))
    assert rows[1:] == [[name.replace("\0", "␀")] for name in NAMES]


@pytest.mark.slow
def test_the_report_and_the_figures_take_any_name(folder: Path, tmp_path: Path) -> None:
    path = str(folder / "cnn.warehouse")
    page = tmp_path / "report.html"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Matplotlib, about glyphs that its font lacks
        assert call_main("report", path, "-o", str(page), "--axis", "task").status == 0
    text = page.read_text(encoding="utf-8")
    assert "a" * (LONGEST_NAME + 1) not in text
    assert "Not drawn" not in text
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    figure = tmp_path / "drift.png"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Matplotlib, about glyphs that its font lacks
        done = call_main("figure", path, "drift_heatmap", "--axis", "task", "-o", str(figure))
    assert (done.status, figure.exists()) == (0, True), done.err


def test_groups_with_long_names_stay_apart_in_figures(wh: warehouse.Warehouse) -> None:
    found = {(a, b): drift for a, b, drift in plots.prepare(wh, "drift_heatmap", {"axis": "task"}).rows.rows()}
    tasks = [shortened(task) for (task,) in wh.sql("select task from models order by model_id").fetchall()]
    assert len(set(tasks)) == len(NAMES)
    by_model = {(tasks[a], tasks[b]): drift for a, b, drift in wh.sql("from drift(model_id)").fetchall()}
    assert found == pytest.approx(by_model, rel=1e-9, abs=1e-12)


def test_a_long_name_is_shortened_alike_in_python_and_in_sql() -> None:
    texts = [*NAMES, "x" * LONGEST_NAME, "x" * (LONGEST_NAME + 1)]
    with duckdb.connect() as con:
        for text in texts:
            ((found,),) = con.execute(f"select {shortened_sql('$text')}", {"text": text}).fetchall()
            assert found == shortened(text)
            assert len(found) == min(len(text), LONGEST_NAME)
    assert shortened("x" * LONGEST_NAME) == "x" * LONGEST_NAME


def test_no_sentence_of_help_is_shortened(wh: warehouse.Warehouse) -> None:
    longest = wh.sql("from help select max(greatest(len(purpose), len(parameters), len(columns), len(example)))")
    assert 100 < longest.fetchall()[0][0] <= LONGEST_CELL


@pytest.mark.parametrize("command", ["extract", "add"])
def test_notes_on_a_model_hold_no_control_characters(command: str, tmp_path: Path, sample_warehouse: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    weights = {"conv.weight": np.ones((2, 2, 3, 3), "f4"), "\x1b[31m\u2028:smile:": np.ones((2, 2, 3, 3), "i4")}
    path = tmp_path / "\x1b[32mmodel.safetensors"
    safetensors.save_file(weights, path)
    if command == "extract":
        done = call_main("extract", str(path), "-o", str(tmp_path / "dataset.h5"))
    else:
        done = call_main("add", str(shutil.copytree(sample_warehouse, tmp_path / "w")), str(path))
    assert done.status == 0
    assert done.err.replace("\n", "").isprintable()
    assert r"\x1b[31m\u2028:smile:" in done.err
    assert r"\x1b[32mmodel" in done.err


def test_an_error_on_the_terminal_holds_no_control_characters(tmp_path: Path) -> None:
    path = tmp_path / "\x1b[31mdataset.h5"
    path.write_bytes(b"no dataset")
    done = call_main("ingest", str(path), str(tmp_path / "new"))
    assert (done.status, done.out) == (1, "")
    assert "\x1b" not in done.err
    assert r"\x1b[31mdataset.h5" in done.err


def test_printable_text_stays_as_it_is() -> None:
    assert printable("größe 🦆 'a' \\x1b") == "größe 🦆 'a' \\x1b"
    assert printable("a\x1bb\nc\x9b\u202e") == r"a\x1bb\nc\x9b\u202e"


def test_text_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    for number, (meta, message) in enumerate(
        [
            (b"model_id,conv_depth,filter_ids,model\n0,0,0:9,\xff\xfe\n", "no CSV text in UTF-8"),
            ("model_id,conv_depth,filter_ids,model\n0,0,0:9,\ud800\n".encode(errors="surrogatepass"), "UTF-8"),
        ]
    ):
        path = tmp_path / f"{number}.h5"
        with h5py.File(path, "w") as file:
            file["filters"], file["meta"] = FILTERS, np.frombuffer(meta, "u1")
        with pytest.raises(SourceError, match=message):
            warehouse.ingest(path, tmp_path / "new")
    path = write_dataset(tmp_path / "2.h5", [(0, 0, "0:9")], FILTERS, columns={"model": np.array(["\ud800"], object)})
    with pytest.raises(SourceError, match=r"'model' is .*, expected valid text"):
        warehouse.ingest(path, tmp_path / "new")


@pytest.mark.parametrize(
    ("texts", "message"),
    [(["x" * 50_000_000] * 3, "characters in all"), ([["y" * 40_000_000] * 2] * 3, "characters in all")],
)
def test_a_text_repeated_in_every_row_is_refused(texts: list[object], message: str, tmp_path: Path) -> None:
    column = np.empty(3, object)
    column[:] = texts
    layers = [(i, 0, f"{i}:{i}") for i in range(3)]
    path = write_dataset(tmp_path / "dataset.h5", layers, FILTERS, columns={"own": column})
    with pytest.raises(SourceError, match=message):
        warehouse.ingest(path, tmp_path / "new")


def test_a_list_of_ids_repeated_in_every_row_is_refused_early(tmp_path: Path) -> None:
    layers = [(i, 0, list(range(600))) for i in range(200)]
    with pytest.raises(SourceError, match="/meta, row 2: the layers up to here claim filters twice"):
        warehouse.ingest(write_dataset(tmp_path / "dataset.h5", layers, FILTERS), tmp_path / "new")


def test_columns_that_become_one_name_are_numbered(tmp_path: Path) -> None:
    sources = [
        "a b",
        "a-b",
        "A_B",
        "a_b_2",
        "\0",
        "\n",
        "'",
        '"',
        "🦆",
        "1",
        "../x",
        "x; drop table models",
        "\x1b[2J",
        "e" * 999,
    ]
    columns = {name: np.array([f"{number}"], object) for number, name in enumerate(sources)}
    path = write_dataset(tmp_path / "dataset.h5", [(0, 0, "0:599")], FILTERS, columns=columns)
    warehouse.ingest(path, tmp_path / "cnn.warehouse")
    with warehouse.open(tmp_path / "cnn.warehouse") as wh:
        found = wh.sql("from models").pl().to_dicts()[0]
    assert set(map(str, range(len(sources)))) <= set(map(str, found.values()))
    assert all(re.fullmatch(r"[a-z_][a-z0-9_]*", name) for name in found)


@pytest.mark.parametrize("name", ["e" * 1_000_000, "e" * 1001])
def test_a_column_name_without_end_is_refused(name: str, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "dataset.h5", "w") as file:
        file["filters"] = FILTERS
        file["meta"] = np.frombuffer(f"model_id,conv_depth,filter_ids,{name}\n0,0,0:9,1\n".encode(), "u1")
    with pytest.raises(SourceError, match=r"a column whose name has 1,00.* characters"):
        warehouse.ingest(tmp_path / "dataset.h5", tmp_path / "new")
