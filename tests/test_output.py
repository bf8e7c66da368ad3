"""Results of a query: what each format holds, what parses back, and files that appear whole or not at all."""

import csv
import io
import json
import math
import os
import re
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest

import warehouse
from tests.test_cli import call_main

ODD_VALUES = """
select * from (values
    (1, 'a, "b"', 0.1::double, true, date '2024-02-29', [1.5, 2.5]),
    (2, 'über
zwei Zeilen', 1e-300, false, null, []),
    (9007199254740993, null, 0.30000000000000004, null, date '1999-12-31', [0.1::double])
) as odd (n, name, x, flag, day, list) order by n
"""
QUERIES = {
    "odd values": ODD_VALUES,
    "models": "select * exclude (accessible) from models order by model_id",
    "quality": "select layer_id, n_filters, sparsity, variance_entropy, is_random from layer_quality order by layer_id",
    "moments": "select layer_id, n, mean, scatter from layer_moments order by layer_id",
    "no rows": "select layer_id, sparsity from layer_quality where false",
}


def ask(path: Path, sql: str, *options: str) -> str:
    status, out, err = call_main("query", str(path), sql, *options)
    assert (status, err) == (0, "")
    return out


def expected(wh: warehouse.Warehouse, sql: str) -> list[dict[str, Any]]:
    """Rows as Python sees them; lists as such and dates as text."""
    relation = wh.sql(sql)
    rows = [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]
    plain = {date: str, tuple: list}
    return [{name: plain.get(type(v), lambda v: v)(v) for name, v in row.items()} for row in rows]


@pytest.mark.parametrize("name", QUERIES)
def test_json_parses_back_equal(sample_warehouse: Path, wh: warehouse.Warehouse, name: str) -> None:
    rows = json.loads(ask(sample_warehouse, QUERIES[name], "--format", "json"))
    assert rows == expected(wh, QUERIES[name])


@pytest.mark.parametrize("name", ["odd values", "quality"])
def test_csv_parses_back_equal(sample_warehouse: Path, wh: warehouse.Warehouse, name: str) -> None:
    text = ask(sample_warehouse, QUERIES[name], "--format", "csv")
    wanted = expected(wh, QUERIES[name])
    found = pl.read_csv(text.encode(), infer_schema_length=None).to_dicts()
    for row in wanted:
        if "list" in row:
            row["list"] = str(row["list"])
    assert found == wanted


def test_csv_of_no_rows_is_its_header(sample_warehouse: Path) -> None:
    assert ask(sample_warehouse, QUERIES["no rows"], "--format", "csv") == "layer_id,sparsity\n"


@pytest.mark.parametrize("name", QUERIES)
def test_parquet_reads_back_equal(sample_warehouse: Path, wh: warehouse.Warehouse, tmp_path: Path, name: str) -> None:
    file = tmp_path / "result.parquet"
    assert ask(sample_warehouse, QUERIES[name], "-o", str(file)) == ""
    rows = pq.read_table(file).to_pylist()
    for row in rows:
        row.update({key: str(value) for key, value in row.items() if isinstance(value, date)})
    assert rows == expected(wh, QUERIES[name])


def test_a_table_shows_six_digits_nulls_and_the_beginning_of_lists(sample_warehouse: Path) -> None:
    sql = "select 1/3::double as third, null as nothing, range(12) as list, 'two words' as text, [1.25, null] as pair"
    header, row = ask(sample_warehouse, sql).splitlines()
    assert header.split() == ["third", "nothing", "list", "text", "pair"]
    cells = re.split(r"\s{2,}", row.strip())
    assert cells == ["0.333333", "NULL", "[0, 1, 2, 3, 4, 5, 6, 7, 8, ...]", "two words", "[1.25, NULL]"]


def test_a_table_has_a_line_per_row_however_wide(sample_warehouse: Path) -> None:
    lines = ask(sample_warehouse, "select i, repeat('x', 500) as wide from range(3) t(i)").splitlines()
    assert [line.split() for line in lines[1:]] == [[str(i), "x" * 500] for i in range(3)]


def test_text_that_looks_like_markup_stays_as_it_is(sample_warehouse: Path) -> None:
    assert "[red]a[/red] :smile:" in ask(sample_warehouse, "select '[red]a[/red] :smile:' as t")


def test_a_long_table_is_cut_and_says_so_on_stderr(sample_warehouse: Path) -> None:
    status, out, err = call_main("query", str(sample_warehouse), "from range(50)", "--max-rows", "7")
    assert status == 0
    assert out.split() == ["range", *map(str, range(7))]
    assert err == "the first 7 rows; see more with --max-rows, or all with --format csv\n"


def test_a_table_of_exactly_the_rows_to_show_is_not_said_to_be_cut(sample_warehouse: Path) -> None:
    assert len(ask(sample_warehouse, "from range(7)", "--max-rows", "7").splitlines()) == 8


def test_other_formats_hold_all_rows_whatever_a_table_shows(sample_warehouse: Path) -> None:
    text = ask(sample_warehouse, "from range(500)", "--format", "csv", "--max-rows", "7")
    assert len(list(csv.reader(io.StringIO(text)))) == 501


READERS = {
    "csv": lambda file: pl.read_csv(file)["n"].to_list(),
    "json": lambda file: [row["n"] for row in json.loads(file.read_text())],
    "parquet": lambda file: pq.read_table(file)["n"].to_pylist(),
    "txt": lambda file: [int(line) for line in file.read_text().split()[1:]],
}


@pytest.mark.parametrize("name", ["r.csv", "r.json", "r.parquet", "R.CSV", "r.txt", "it's 100 %.csv", "r.tar.json"])
def test_the_name_of_a_file_tells_its_format(sample_warehouse: Path, tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    assert ask(sample_warehouse, "select range as n from range(3)", "--output", str(file)) == ""
    assert READERS[file.suffix[1:].lower()](file) == [0, 1, 2]
    assert list(tmp_path.iterdir()) == [file]


def test_a_named_format_outweighs_the_name_of_the_file(sample_warehouse: Path, tmp_path: Path) -> None:
    ask(sample_warehouse, "select 1 as n", "-o", str(tmp_path / "r.csv"), "--format", "json")
    assert json.loads((tmp_path / "r.csv").read_text()) == [{"n": 1}]


def test_parquet_is_not_written_to_a_terminal(sample_warehouse: Path) -> None:
    result = call_main("query", str(sample_warehouse), "select 1", "--format", "parquet")
    assert result == (1, "", "error: parquet is not text; name a file with -o FILE.parquet\n")


@pytest.mark.parametrize("format_", ["table", "csv", "json", "parquet"])
@pytest.mark.parametrize("sql", ["selec 1", "select error('late ' || range) from range(100000)"], ids=["early", "late"])
def test_a_failing_query_leaves_the_old_file(sample_warehouse: Path, tmp_path: Path, format_: str, sql: str) -> None:
    file = tmp_path / "result"
    file.write_text("precious")
    status, out, err = call_main("query", str(sample_warehouse), sql, "--format", format_, "-o", str(file))
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert file.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("format_", ["table", "csv", "json", "parquet"])
def test_a_file_is_replaced_in_one_step(sample_warehouse: Path, tmp_path: Path, format_: str) -> None:
    file, reader = tmp_path / "result", tmp_path / "reader"
    file.write_text("precious")
    os.link(file, reader)
    ask(sample_warehouse, "select 1 as n", "--format", format_, "-o", str(file))
    assert file.read_bytes() != b"precious"
    assert reader.read_text() == "precious"


@pytest.mark.parametrize("format_", ["table", "csv", "json", "parquet"])
@pytest.mark.parametrize("place", ["nowhere/result", "folder"])
def test_a_file_that_cannot_be_written_is_one_clear_line(
    sample_warehouse: Path, tmp_path: Path, format_: str, place: str
) -> None:
    (tmp_path / "folder").mkdir()
    file = tmp_path / place
    status, out, err = call_main("query", str(sample_warehouse), "select 1", "--format", format_, "-o", str(file))
    assert (status, out) == (1, "")
    assert re.fullmatch(rf"error: cannot write {file}: (there is no folder {file.parent}|Is a directory[^\n]*)\n", err)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("format_", ["csv", "parquet"])
def test_a_pipe_or_a_device_is_never_replaced_by_a_file(sample_warehouse: Path, tmp_path: Path, format_: str) -> None:
    file = tmp_path / "pipe"
    os.mkfifo(file)
    reader = os.open(file, os.O_RDONLY | os.O_NONBLOCK)  # so that a writer does not wait
    try:
        call_main("query", str(sample_warehouse), "select 1 as n", "--format", format_, "-o", str(file))
        assert file.is_fifo()
    finally:
        os.close(reader)


def test_results_have_the_values_of_the_python_session(sample_warehouse: Path, wh: warehouse.Warehouse) -> None:
    rows = json.loads(ask(sample_warehouse, "from pca('all') order by component", "--format", "json"))
    ratios = wh.sql("select explained_variance_ratio from basis order by component").fetchall()
    assert all(
        math.isclose(row["explained_variance_ratio"], r, rel_tol=1e-9) for row, (r,) in zip(rows, ratios, strict=True)
    )
