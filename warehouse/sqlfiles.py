"""The SQL files: finds them, reads their header comments and puts them in the order of creation.

One object a file. A header of ``-- key: text`` lines tells purpose, grain, parameters, columns, NULL rule and
an example; it becomes the object's comment and its row in ``help``.
"""

from __future__ import annotations

import functools
import graphlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import sqlglot
from sqlglot import exp

from warehouse.errors import CatalogError

LAKE_PREFIX = "lake_"
"""In a file of tables or views, ``lake_layers`` stands for the committed Parquet files of ``layers``."""

CSV_PREFIX = "csv_"
"""In a file of tables, ``csv_drift`` stands for ``sql/published/drift.csv``, facts that others published."""

_HEADER_LINE = re.compile(r"--(?: (?P<key>[a-z]+):)? *(?P<text>.*)")
_CREATE = re.compile(r"create\s+(?P<kind>table|view|macro)\s+(?P<name>\w+)\s*(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
_BODY = re.compile(r"\s*as\s+(?P<table>table\b)?(?P<query>.*)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class SqlObject:
    """A table, view or macro, as its file describes it.

    Attributes
    ----------
    name, kind
        ``kind`` is ``table``, ``view``, ``table macro`` or ``scalar macro``.
    statement
        The file's text after the header: one ``create`` statement.
    header
        The ``-- key: text`` entries of the header.
    uses
        Names of tables, views and macros in the body.
    """

    name: str
    kind: str
    statement: str
    header: dict[str, str]
    uses: frozenset[str]

    @property
    def comment(self) -> str:
        """The header as the text of ``COMMENT ON``."""
        return "\n".join(f"{key}: {text}" for key, text in self.header.items())

    @property
    def comment_target(self) -> str:
        """What ``COMMENT ON`` calls the object."""
        return {"table macro": "macro table", "scalar macro": "macro"}.get(self.kind, self.kind)


def sql_folder() -> Path:
    """The folder of the SQL files: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    installed = package / "sql"
    return installed if installed.is_dir() else package.parent / "sql"


def read_header(text: str) -> tuple[dict[str, str], str]:
    """Split a file's text into its header entries and the SQL after them."""
    header: dict[str, str] = {}
    key = ""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        match = _HEADER_LINE.match(line)
        if not match:
            return header, "\n".join(lines[number:]).strip()
        key = match["key"] or key
        header[key] = f"{header.get(key, '')} {match['text'].strip()}".strip()
    return header, ""


@functools.cache
def parse(text: str, where: str) -> SqlObject:
    """Read one file's text; ``where`` names it in errors."""
    header, statement = read_header(text)
    match = _CREATE.match(statement)
    if not match:
        raise CatalogError(f"{where}: expected one `create table|view|macro` after the header")
    kind = match["kind"].lower()
    body = _BODY.match(_after_parentheses(match["rest"]))
    if kind == "macro":
        kind = "table macro" if body and body["table"] else "scalar macro"
    return SqlObject(match["name"], kind, statement, header, _names_in(body["query"] if body else "", where))


def _after_parentheses(text: str) -> str:
    """What follows the parameters of a macro or the columns of a table, if there are any."""
    depth = 0
    for position, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return text[position + (character == ")") :]
    return ""


def _names_in(body: str, where: str) -> frozenset[str]:
    """Tables and functions that a query or an expression names, without its own CTEs."""
    try:
        trees = sqlglot.parse(body, dialect="duckdb")
    except sqlglot.errors.ParseError as error:
        detail = error.errors[0]
        message = f"{where}: {detail['description']}, line {detail['line']}, column {detail['col']} of its query"
        raise CatalogError(message) from None
    except sqlglot.errors.TokenError as error:
        raise CatalogError(f"{where}: {str(error).splitlines()[0]}") from None
    if len(trees) > 1:
        raise CatalogError(f"{where}: expected one statement, found {len(trees)}")
    names: set[str] = set()
    for tree in trees:
        if tree is not None:
            names |= {table.name for table in tree.find_all(exp.Table)}
            names |= {function.name.lower() for function in tree.find_all(exp.Anonymous)}
            names -= {cte.alias for cte in tree.find_all(exp.CTE)}
    # a table function is a table without a name
    return frozenset(names - {""})


def load(*folders: str) -> list[SqlObject]:
    """All objects of these sub-folders of ``sql/``, each after those that it uses."""
    paths = [path for folder in folders for path in sorted((sql_folder() / folder).glob("*.sql"))]
    return in_order(parse(path.read_text(encoding="utf-8"), f"sql/{path.parent.name}/{path.name}") for path in paths)


def load_one(folder: str, name: str) -> SqlObject:
    """The object in ``sql/<folder>/<name>.sql``."""
    path = sql_folder() / folder / f"{name}.sql"
    return parse(path.read_text(encoding="utf-8"), f"sql/{folder}/{name}.sql")


def load_query(folder: str, name: str) -> str:
    """The query in ``sql/<folder>/<name>.sql``, a file that creates nothing."""
    return read_header((sql_folder() / folder / f"{name}.sql").read_text(encoding="utf-8"))[1]


def in_order(objects: Iterable[SqlObject]) -> list[SqlObject]:
    """Sort so that every object comes after those that it uses."""
    by_name: dict[str, SqlObject] = {}
    for item in objects:
        if item.name in by_name:
            raise CatalogError(f"two SQL files create {item.name}")
        by_name[item.name] = item
    graph = {name: [used for used in sorted(item.uses) if used in by_name] for name, item in by_name.items()}
    try:
        return [by_name[name] for name in graphlib.TopologicalSorter(graph).static_order()]
    except graphlib.CycleError as error:
        raise CatalogError(f"these SQL files use each other in a circle: {', '.join(error.args[1])}") from None
