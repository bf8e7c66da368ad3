"""Columns of a source that are named like what our SQL names inside: they change no answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import duckdb
import h5py
import numpy as np
import polars as pl
import pytest
import tables
from polars.testing import assert_frame_equal

import warehouse
from tests.test_shell import DATABASE, SHELL, ask, assert_same_rows
from warehouse import analyses, plots, sqlfiles
from warehouse.frame_writer import write_frame
from warehouse.metadata import RESERVED
from warehouse.source import open_source

pytestmark = pytest.mark.slow

NEUTRAL = "a_column_of_mine"
ODD = {"e" * 1000: "e" * 1000, "Größe": "gr_e", "größe": "gr_e_2", "漢字": "column_2"}
"""Names that SQL does not know, and what becomes of them; a keyword has the name column already."""
MACROS = {item.name: item for item in sqlfiles.load("macros", "session")}
WHOLE_ROWS = {"models", "layers", "layer_meta", "filter_meta", "model_quality"}
"""What shows the columns of a source."""
OBJECTS = sorted({*MACROS, *(item.name for item in sqlfiles.load("tables", "views"))} - {"sources", "files"})
"""What is the same in two warehouses of the same filters."""


def own_names() -> list[str]:
    """Every word of the SQL files, but of comments, and every keyword: more than all the names that they give."""
    paths = list(sqlfiles.sql_folder().rglob("*.sql"))
    text = "\n".join(re.sub(r"--.*", "", path.read_text(encoding="utf-8")) for path in paths)
    keywords = {keyword for (keyword,) in duckdb.sql("select keyword_name from duckdb_keywords()").fetchall()}
    words = {word.lower() for word in re.findall(r"[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)*", text)}
    return sorted(words | keywords | {path.stem for path in paths})


class Pair(NamedTuple):
    """A warehouse, and one of the same filters whose source has the columns too."""

    plain: warehouse.Warehouse
    named: warehouse.Warehouse


@pytest.fixture(scope="module", params=["texts of models", "numbers of layers"])
def pair(
    request: pytest.FixtureRequest, lens_sample: Path, lens_warehouse: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    """Texts take the place of texts, numbers of numbers without an error; models and layers are joined elsewhere."""
    folder = tmp_path_factory.mktemp("own_names")
    with open_source(lens_sample) as source:
        frame = source.meta()
    models = frame.index["model_id"]
    texts = np.array([f"text {model % 3}" for model in models], object)
    numbers = 0.5 + np.arange(len(models)) % 7
    values = texts if request.param == "texts of models" else numbers
    # in capitals no name is that of a column which is known
    added = dict.fromkeys([*map(str.upper, [*own_names(), NEUTRAL]), *ODD], values)
    with tables.open_file(folder / "dataset.h5", "w") as file:
        write_frame(file, "meta", frame.index, frame.columns | added)
    with h5py.File(lens_sample) as original, h5py.File(folder / "dataset.h5", "a") as copy:
        original.copy("filters", copy)
    warehouse.ingest(folder / "dataset.h5", folder / "cnn.warehouse")
    with warehouse.open(lens_warehouse) as plain, warehouse.open(folder / "cnn.warehouse") as named:
        yield Pair(plain, named)


def assert_same(found: pl.DataFrame, expected: pl.DataFrame, *, whole_rows: bool = False, ordered: bool = True) -> None:
    """The same rows; of whole rows only the columns that are not the source's own."""
    found = found.select(expected.columns) if whole_rows else found
    # sums in another order differ in the last digits
    assert_frame_equal(found, expected, rel_tol=1e-9, abs_tol=1e-9, check_row_order=ordered)


def test_the_columns_keep_their_names(pair: Pair) -> None:
    """But those that a user's query could not tell from ours."""
    ours, found = (wh.sql("from layer_meta").pl() for wh in pair)
    numbered = {*ours.columns, *RESERVED}
    kept = {f"{name}_2" if name in numbered else name for name in own_names()} | {NEUTRAL, *ODD.values()}
    assert {*found.columns} == {*ours.columns} | kept
    assert [name for name in kept if not found[name].equals(found[NEUTRAL])] == []


@pytest.mark.parametrize("name", ["select", "order", "table", "group", "columns", *ODD.values()])
def test_an_axis_of_any_name_stands_in_quotes(pair: Pair, name: str) -> None:
    expected = pair.named.sql(f"from drift({NEUTRAL})").pl()
    assert_same(pair.named.sql(f'from drift("{name}")').pl(), expected)
    compared = pair.named.analysis("drift_beside_distances", axis=name).pl().select("a", "b", "drift")
    assert_same(compared, expected.filter(pl.col("a") < pl.col("b")))
    assert_same(plots.prepare(pair.named, "drift_heatmap", {"axis": f'"{name}"'}).rows, expected)
    if SHELL is not None:
        found = ask(DATABASE, f'from drift("{name}")', folder=pair.named.path)
        assert_same_rows(found, expected.to_dicts())


@pytest.mark.parametrize("name", [analysis.name for analysis in analyses.load()])
def test_no_analysis_takes_them_for_its_own(pair: Pair, name: str) -> None:
    example = pair.plain.find_analysis(name).header["example"]
    settings = dict(part.split("=", 1) for part in re.findall(r"--set (\S+)", example))
    for values in {}, settings:
        expected, found = (wh.analysis(name, **values).pl() for wh in pair)
        assert_same(found, expected)


@pytest.mark.parametrize("name", OBJECTS)
def test_no_macro_or_view_takes_them_for_its_own(pair: Pair, name: str) -> None:
    ((example,),) = pair.plain.sql("select example from help where name = $1", [name]).fetchall()
    query = re.sub(r" limit \d+$", "", example)  # of rows in no order
    expected, found = (wh.sql(query).pl() for wh in pair)
    assert_same(found, expected, whole_rows=name in WHOLE_ROWS, ordered=False)


@pytest.mark.parametrize("name", plots.PLOTS)
def test_no_figure_takes_them_for_its_own(pair: Pair, name: str) -> None:
    expected, found = (plots.prepare(wh, name, {}).rows for wh in pair)
    assert_same(found, expected, whole_rows=name in {"accuracy", "filter_grid"})


@pytest.mark.parametrize("path", sorted((sqlfiles.sql_folder() / "report").glob("*.sql")), ids=lambda path: path.stem)
def test_no_table_of_the_report_takes_them_for_its_own(pair: Pair, path: Path) -> None:
    expected, found = (wh.sql(path.read_text(encoding="utf-8")).pl() for wh in pair)
    assert_same(found, expected)


def test_no_check_takes_them_for_its_own(pair: Pair) -> None:
    assert warehouse.verify(pair.named.path).problems == ()


ARGUMENTS = {
    "axis": "{0}", "given": "{0}", "keep": "keep := {0} <> 'text 2'", "a": "{0} = 'text 0'", "b": "{0} = 'text 1'",
    "eps": "0.05", "weights": "null", "model": "0", "layer": "0", "x": "0", "y": "1",
    "pairs": "'model_pairs'", "replicates": "replicates := 2",
}  # fmt: skip
"""What each parameter gets where a macro asks about a column."""


def parameters(macro: str) -> list[str]:
    """Of a macro, in their order."""
    told = re.match(r"create macro \w+\(([^)]*)\)", MACROS[macro].statement)
    assert told is not None
    return re.findall(r"(\w+)(?: := [^,]+)?(?:, |$)", told[1])


def inner_parameters(macro: str) -> set[str]:
    """Those of a macro and of all that it uses."""
    used = (inner_parameters(name) for name in MACROS[macro].uses if name in MACROS)
    return {*parameters(macro)}.union(*used)


ASKING = sorted(name for name in MACROS if {"axis", "keep", "a"} & {*parameters(name)})
"""Macros that take an expression over the columns."""


@pytest.mark.parametrize("macro", ASKING)
@pytest.mark.parametrize("pair", ["texts of models"], indirect=True)
def test_an_axis_may_be_named_like_a_parameter(pair: Pair, macro: str) -> None:
    def ask(column: str) -> pl.DataFrame:
        arguments = [ARGUMENTS[name].format(f'"{column}"') for name in parameters(macro) if name in ARGUMENTS]
        return pair.named.sql(f"from {macro}({', '.join(arguments)})").pl()

    expected = ask(NEUTRAL)
    for name in sorted(inner_parameters(macro) - {*RESERVED, *pair.plain.sql("from layer_meta limit 0").columns}):
        assert_same(ask(name), expected)
