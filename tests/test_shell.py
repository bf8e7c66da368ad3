"""A warehouse in the plain ``duckdb`` shell, a program that knows nothing of this project."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import warehouse
from tests.reference import Reference
from warehouse import sqlfiles

SHELL = shutil.which("duckdb", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
pytestmark = pytest.mark.skipif(SHELL is None, reason="the duckdb shell is not installed")

DATABASE = "warehouse.duckdb"
EXAMPLES = {
    path.stem: sqlfiles.read_header(path.read_text())[0]["example"]
    for folder in ("tables", "views", "macros")
    for path in sorted((sqlfiles.sql_folder() / folder).glob("*.sql"))
}
WITH_RAW_FILTERS = {
    name
    for name, text in EXAMPLES.items()
    if re.search(r"\bfrom (filters|kernels|filter_meta|density|filter_pca)\b", text)
}
ANSWERS = [
    "from drift(task)",
    "from drift(concat(task, '/', visual_category), keep := depth_decile > 5)",
    "from drift_summary(visual_category)",
    "from drift_between(conv_depth = 0, conv_depth > 0)",
    "from pca(conv_depth = 0) select * exclude loading",
    "from quality(task)",
    "from groups(depth_decile)",
    "from basis select * exclude loading",
    "from layer_quality order by layer_id",
]


def run(
    database: Path | str, *queries: str, folder: Path, options: tuple[str, ...] = ("-readonly",)
) -> subprocess.CompletedProcess[str]:
    assert SHELL is not None
    arguments = [part for query in queries for part in ("-c", query)]
    environment = {**os.environ, "HOME": str(folder)}  # no ~/.duckdbrc, no extensions from earlier
    return subprocess.run(
        [SHELL, *options, "-json", "-bail", str(database), *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def ask(database: Path | str, *queries: str, folder: Path) -> list[dict]:
    """Rows that the shell prints for the last query with a result."""
    done = run(database, *queries, folder=folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout.strip() or "[]")


def assert_same_rows(found: list[dict], expected: list[dict]) -> None:
    assert len(found) == len(expected) > 0
    for row, wanted in zip(found, expected, strict=True):
        assert row.keys() == wanted.keys()
        for name, value in wanted.items():
            same = row[name] == value or row[name] == pytest.approx(value, rel=1e-9, abs=1e-9)
            assert same, (name, row[name], value)


def test_the_examples_are_those_of_help(sample_warehouse: Path) -> None:
    rows = ask(DATABASE, "select name, example from help where kind <> 'analysis'", folder=sample_warehouse)
    assert {row["name"]: row["example"] for row in rows} == EXAMPLES


def test_what_needs_no_raw_filters_runs_anywhere(sample_warehouse: Path, tmp_path: Path) -> None:
    assert {"filters", "filter_meta", "kernels", "project"} <= WITH_RAW_FILTERS
    queries = [example for name, example in EXAMPLES.items() if name not in WITH_RAW_FILTERS]
    done = run(sample_warehouse / DATABASE, *queries, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_database_alone_under_another_name_answers_the_same(
    sample_warehouse: Path, wh: warehouse.Warehouse, tmp_path: Path
) -> None:
    copy = tmp_path / "sent by 'mail'.db"
    shutil.copy(sample_warehouse / DATABASE, copy)
    done = run(copy, *(part for query in ANSWERS for part in (query, ".print ---")), folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for query, answer in zip(ANSWERS, done.stdout.split("---\n")[:-1], strict=True):
        assert_same_rows(json.loads(answer), wh.sql(query).pl().to_dicts())


def test_filters_are_found_by_the_search_path(sample_warehouse: Path, reference: Reference, tmp_path: Path) -> None:
    query = "select count(*) as n, sum(w4) as w4 from filter_meta where task is not null"
    missing = run(sample_warehouse / DATABASE, query, folder=tmp_path)
    assert missing.returncode != 0
    assert "lake/filters" in missing.stderr
    setting = f"set file_search_path = '{sample_warehouse}'"
    (row,) = ask(sample_warehouse / DATABASE, setting, query, folder=tmp_path)
    assert row["n"] == 20_000
    assert row["w4"] == pytest.approx(reference.filters[:, 4].sum(), rel=1e-9)


def test_a_moved_folder_works(sample_warehouse: Path, reference: Reference, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "it's moved"
    shutil.copytree(sample_warehouse, tmp_path / "copy")
    moved.parent.mkdir()
    shutil.move(tmp_path / "copy", moved)
    (row,) = ask(DATABASE, "select count(*) as n, sum(abs(w0)::double) as w0 from filters", folder=moved)
    assert row == {"n": 20_000, "w0": pytest.approx(np.abs(reference.filters[:, 0]).sum(), rel=1e-9)}


def test_filters_agree_with_their_layers(sample_warehouse: Path) -> None:
    query = """
        select count(*) as n from (
            select layer_id, count(*) as n_filters, min(filter_id) as first_filter_id, any_value(model_id) as model_id
            from filters group by layer_id
        ) join layers using (layer_id, n_filters, first_filter_id, model_id)
    """
    assert ask(DATABASE, query, folder=sample_warehouse) == [{"n": 80}]


def test_files_that_belong_to_no_commit_are_not_read(sample_warehouse: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(sample_warehouse, tmp_path / "copy")
    for folder in [path for path in (copy / "lake").rglob("*") if path.is_dir()]:
        (folder / "killed.parquet").write_bytes(b"PAR1 half a file")
        for file in list(folder.glob("*.parquet"))[:1]:
            shutil.copy(file, folder / "leftover.parquet")
    (copy / "lake" / "filters" / "model_id=999").mkdir()
    (copy / "lake" / "filters" / "model_id=999" / "killed.parquet").write_bytes(b"")
    query = "select count(*) as n, count(distinct filter_id) as ids, max(model_id) as model from filters"
    assert ask(DATABASE, query, folder=copy) == [{"n": 20_000, "ids": 20_000, "model": 11}]


def test_only_the_models_that_are_asked_for_are_read(sample_warehouse: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(sample_warehouse, tmp_path / "copy")
    for file in (copy / "lake" / "filters").rglob("*.parquet"):
        if file.parent.name not in ("model_id=0", "model_id=3"):  # the first one tells the columns
            file.write_bytes(b"PAR1 broken")
    expected = ask(DATABASE, "select sum(n_filters)::bigint as n from layers where model_id = 3", folder=copy)
    assert ask(DATABASE, "select count(w0) as n from filters where model_id = 3", folder=copy) == expected


def test_comments_are_there_for_the_shell(sample_warehouse: Path) -> None:
    query = """
        select table_name as name, comment from duckdb_tables() where not internal
        union all select view_name, comment from duckdb_views() where not internal
        union all select function_name, comment from duckdb_functions() where not internal
    """
    rows = ask(DATABASE, query, folder=sample_warehouse)
    comments = {row["name"]: row["comment"] for row in rows}
    assert comments.keys() == EXAMPLES.keys()
    for name, example in EXAMPLES.items():
        assert comments[name].startswith("purpose: ")
        assert example in comments[name]


def test_every_example_runs_in_the_folder_and_none_needs_an_extension(sample_warehouse: Path, tmp_path: Path) -> None:
    extensions = "select extension_name, loaded, installed from duckdb_extensions() order by all"
    before = json.loads(run(":memory:", extensions, folder=tmp_path, options=()).stdout)
    copy = shutil.copytree(sample_warehouse, tmp_path / "copy")
    setting = "set autoinstall_known_extensions = false; set autoload_known_extensions = false;"
    done = run(DATABASE, setting, *EXAMPLES.values(), folder=copy)
    assert (done.returncode, done.stderr) == (0, "")
    done = run(DATABASE, *EXAMPLES.values(), ".print ---", extensions, folder=copy)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout.split("---\n")[-1]) == before
    assert not (copy / ".duckdb").exists()


@pytest.mark.parametrize("statement", ["insert into models (model_id) values (1)", "drop macro table drift"])
def test_a_reader_cannot_change_it(sample_warehouse: Path, statement: str) -> None:
    done = run(DATABASE, statement, folder=sample_warehouse)
    assert done.returncode != 0
    assert "read-only" in done.stderr
