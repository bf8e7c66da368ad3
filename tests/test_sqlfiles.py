"""The SQL files and what reads them: headers, one object a file, the order of creation, and errors that name files."""

import re
from pathlib import Path

import duckdb
import pytest
import sqlglot
from hypothesis import given
from hypothesis import strategies as st

from warehouse import analyses, sqlfiles
from warehouse.errors import CatalogError
from warehouse.sqlfiles import CSV_PREFIX, LAKE_PREFIX, SqlObject, in_order, parse, read_header

CREATING = ("tables", "views", "macros", "session")
KEYS = {"purpose", "source", "grain", "parameters", "columns", "reading", "units", "nulls", "example", "portable"}
PATHS = sorted(sqlfiles.sql_folder().rglob("*.sql"))
OBJECTS = {item.name: item for item in sqlfiles.load(*CREATING)}


def where(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def objects_in(folder: str) -> list[SqlObject]:
    return sqlfiles.load(folder)


def without_comments(sql: str) -> str:
    return re.sub(r"--.*", "", sql)


def as_macro(text: str) -> str:
    """A statement that sqlglot reads: the body of the macro alone."""
    return re.sub(r"(?is)^create macro \w+\(.*?\) as( table)?", "", text) if text.startswith("create macro") else text


@pytest.mark.parametrize("path", PATHS, ids=where)
def test_every_file_is_one_statement_that_parses_after_a_header(path: Path) -> None:
    header, statement = read_header(path.read_text(encoding="utf-8"))
    assert header["purpose"]
    assert header.keys() <= KEYS
    assert len(duckdb.extract_statements(statement)) == 1
    body = as_macro(statement)
    (tree,) = (tree for tree in sqlglot.parse(body, dialect="duckdb") if tree is not None)
    assert not isinstance(tree, sqlglot.exp.Command), "sqlglot does not understand it"
    assert statement == statement.strip()
    assert "\t" not in statement


@pytest.mark.parametrize("path", [p for p in PATHS if p.parent.name in CREATING], ids=where)
def test_a_file_is_named_after_the_object_that_it_creates_and_documents_it(path: Path) -> None:
    item = parse(path.read_text(encoding="utf-8"), where(path))
    assert item.name == path.stem
    assert {"tables": "table", "views": "view"}.get(path.parent.name, "macro") in item.kind
    assert {"purpose", "example"} <= item.header.keys()
    if item.kind != "scalar macro":
        assert {"grain", "columns"} <= item.header.keys()
    assert item.header.get("grain", "one row").startswith("one row")
    assert ("parameters" in item.header) == ("macro" in item.kind)
    assert re.search(rf"\b{item.name}\b", item.header["example"]), "the example does not use the object"
    assert sqlglot.parse_one(item.header["example"], dialect="duckdb")


@pytest.mark.parametrize("path", [p for p in PATHS if p.parent.name == "staging"], ids=where)
def test_a_staging_query_says_its_grain_and_what_it_reads(path: Path) -> None:
    header, query = read_header(path.read_text(encoding="utf-8"))
    assert header["grain"].startswith("one row")
    source = header["parameters"].split(":")[0]
    assert re.search(rf"\bfrom {source}\b", query)
    assert sqlfiles.load_query("staging", path.stem) == query


@pytest.mark.parametrize("item", [i for i in OBJECTS.values() if "macro" in i.kind], ids=lambda item: item.name)
def test_the_header_of_a_macro_names_all_its_parameters(item: SqlObject) -> None:
    signature = re.match(r"create macro \w+\((.*?)\)", item.statement)[1]
    documented = re.findall(r"(?:^|; |, )(\w+)(?=[:,])", item.header["parameters"])
    assert [part.split(":=")[0].strip() for part in signature.split(",")] == [
        name for name in documented if name in signature
    ]


@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_comes_after_all_those_that_its_text_mentions(name: str) -> None:
    item, order = OBJECTS[name], list(OBJECTS)
    body = without_comments(item.statement).split(" as", 1)[-1]
    ours = {mentioned for mentioned in set(re.findall(r"\w+", body)) if mentioned in OBJECTS and mentioned != name}
    assert item.uses & OBJECTS.keys() <= ours
    mentioned = {other for other in ours if re.search(rf"\b(from|join) {other}\b|\b{other}\(", body)}
    assert mentioned - ctes(body) <= item.uses
    assert all(order.index(other) < order.index(name) for other in mentioned - ctes(body))


def ctes(body: str) -> set[str]:
    return set(re.findall(r"\b(\w+)(?:\([\w, ]*\))? as \(", body))


def test_tables_read_only_tables_of_the_lake_and_published_numbers() -> None:
    published = {f"{CSV_PREFIX}{path.stem}" for path in (sqlfiles.sql_folder() / "published").glob("*.csv")}
    assert published
    for item in objects_in("tables"):
        assert item.uses <= {f"{LAKE_PREFIX}{item.name}"} | published, f"{item.name} reads {item.uses}"
    assert published == {name for item in objects_in("tables") for name in item.uses if name.startswith(CSV_PREFIX)}


ANALYSES = [path for path in PATHS if path.parent.name == "analyses"]


@pytest.mark.parametrize("path", ANALYSES, ids=where)
def test_an_analysis_is_explained_and_declares_exactly_the_variables_that_it_asks_for(path: Path) -> None:
    analysis = analyses.parse(path.stem, path.read_text(encoding="utf-8"))
    assert analysis.header["grain"].startswith("one row")
    assert f"warehouse analyses cnn.warehouse {path.stem}" in analysis.header["example"]
    _, query = read_header(analysis.text)
    asked = set(re.findall(r"getvariable\('(\w+)'\)::(\w+)", query))
    assert len(re.findall("getvariable", query)) == len(re.findall(r"getvariable\('\w+'\)::\w+", query))
    assert asked == {(p.name, "varchar" if p.type == "column" else p.type) for p in analysis.parameters}
    assert set(re.findall(r"--set (\w+)=", analysis.header["example"])) <= {p.name for p in analysis.parameters}


def test_a_header_is_its_keys_with_continued_lines_joined() -> None:
    text = "-- purpose: What it is\n--   for, in two lines: really.\n-- nulls: no\n--\n-- and no: more\n\nselect 1 -- x"
    header, statement = read_header(text)
    assert header == {"purpose": "What it is for, in two lines: really.", "nulls": "no and no: more"}
    assert statement == "select 1 -- x"
    assert read_header("select 1") == ({}, "select 1")
    assert read_header("-- purpose: nothing") == ({"purpose": "nothing"}, "")


@pytest.mark.parametrize(
    ("text", "kind", "target", "uses"),
    [
        ("create table a as from b", "table", "table", {"b"}),
        ("create table a (x int, y int)", "table", "table", set()),
        ("CREATE VIEW a AS SELECT * FROM b JOIN c USING (x)", "view", "view", {"b", "c"}),
        ("create macro a(x) as b(x) + abs(x)", "scalar macro", "macro", {"b"}),
        ("create macro a(x) as (select list(y) from b)", "scalar macro", "macro", {"b"}),
        (
            "create macro a(x, y := 1) as table with c as (from b) from c, d(x)",
            "table macro",
            "macro table",
            {"b", "d"},
        ),
    ],
)
def test_an_object_knows_its_name_kind_and_what_it_uses(text: str, kind: str, target: str, uses: set[str]) -> None:
    item = parse(f"-- purpose: p\n{text}", "sql/x/a.sql")
    assert (item.name, item.kind, item.comment_target) == ("a", kind, target)
    assert item.uses == uses
    assert item.comment == "purpose: p"


def test_a_default_that_calls_a_function_does_not_hide_the_body() -> None:
    item = parse("create macro a(x := abs(1)) as table from b", "sql/x/a.sql")
    assert (item.kind, item.uses) == ("table macro", {"b"})


@pytest.mark.parametrize(
    "statement",
    [
        "",
        "select 1",
        "drop table a",
        "create index a on b(c)",
        "create view a as select from from (",
        "create view a as select 'it",
        "create macro a(x) as (x + 1",
        "create table a as select 1; create table b as select 2",
    ],
)
def test_a_file_that_is_no_single_definition_is_an_error_of_one_line_that_names_it(statement: str) -> None:
    with pytest.raises(CatalogError, match=r"^sql/views/a\.sql: ") as raised:
        parse(f"-- purpose: p\n{statement}", "sql/views/a.sql")
    assert "\n" not in str(raised.value)


def test_the_place_of_a_mistake_is_told() -> None:
    with pytest.raises(CatalogError, match=r"line 2, column \d+ of its query"):
        parse("create view a as select 1\nfrom b where (", "sql/views/a.sql")


def test_two_files_that_create_the_same_object_are_an_error() -> None:
    with pytest.raises(CatalogError, match="two SQL files create a"):
        in_order([parse(f"create {kind} a as select 1", kind) for kind in ("table", "view")])


def test_files_that_use_each_other_in_a_circle_are_an_error_that_names_them() -> None:
    circle = [parse(f"create view {a} as from {b}", a) for a, b in ("xy", "yz", "zx", "wx")]
    with pytest.raises(CatalogError, match="in a circle") as raised:
        in_order(circle)
    assert set(re.findall(r"\b[xyzw]\b", str(raised.value))) == {"x", "y", "z"}


@given(st.permutations(range(7)), st.sets(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12))
def test_objects_come_after_those_that_they_use_whatever_the_order_of_files(
    order: list[int], pairs: set[tuple[int, int]]
) -> None:
    uses = {n: {f"v{a}" for a, b in pairs if b == n and a < b} | {"elsewhere"} for n in range(7)}
    objects = [SqlObject(f"v{n}", "view", "", {}, frozenset(uses[n])) for n in order]
    names = [item.name for item in in_order(objects)]
    assert sorted(names) == [f"v{n}" for n in range(7)]
    for n in range(7):
        assert all(names.index(used) < names.index(f"v{n}") for used in uses[n] - {"elsewhere"})


def test_single_files_load_by_their_name() -> None:
    assert sqlfiles.load_one("macros", "peak") == OBJECTS["peak"]
    assert sqlfiles.load_query("staging", "layers").startswith("select")
