"""Checks what users give as an axis or a condition: one SQL expression over columns that there are.

A macro takes its arguments as text, so that a stray comma or parenthesis would change the question. DuckDB's own
parser judges: what it read is what it will run.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import duckdb
import polars as pl

from warehouse.errors import QueryError, duckdb_message
from warehouse.session import Warehouse

MOST_GROUPS = 2_000
"""As many groups as drift compares."""
LAYER_SOURCES = ("layer_meta", "layer_quality")
"""Where the columns of an axis over layers come from."""


def check(warehouse: Warehouse, text: str, what: str, sources: Sequence[str] = LAYER_SOURCES) -> str:
    """Refuse all but one expression over known columns.

    Parameters
    ----------
    warehouse
        Whose columns and parser count.
    text
        What the user gave.
    what
        What to call it in messages, such as ``--axis``.
    sources
        Tables and views whose columns it may name.

    Returns
    -------
    The text without white space around it.

    Raises
    ------
    QueryError
        No expression, more than one, or an unknown column.
    """
    text = text.strip()
    if not text:
        raise QueryError(f"{what} is empty; give an expression over the columns of {' and '.join(sources)}")
    # alone it cannot close what it did not open, and within `case` nothing but an expression can stand
    items = _select(warehouse, text, text, what)["select_list"]
    if len(items) != 1:
        raise QueryError(f"{what} {text!r} is {len(items)} expressions; give one")
    _select(warehouse, f"case when {text} then 0 end", text, what)
    if items[0]["class"] == "STAR":
        raise QueryError(f"{what} {text!r} is no single expression")
    known = {name.lower(): name for source in sources for name in _columns(warehouse, source)}
    for parts in _column_names(items[0]):
        if not any(part.lower() in known for part in parts):
            close = difflib.get_close_matches(parts[-1].lower(), known, n=1)
            hint = f"did you mean {known[close[0]]!r}?" if close else f"see: describe {sources[0]}"
            raise QueryError(f"{what} {text!r}: there is no column {'.'.join(parts)!r}; {hint}")
    return text


def check_groups(warehouse: Warehouse, axis: str, arguments: str) -> None:
    """Refuse an axis that has no groups, or too many to compare.

    Parameters
    ----------
    warehouse
        Where to count.
    axis
        The axis, for messages.
    arguments
        Of the macro ``layer_groups``: the axis, and perhaps a condition.

    Raises
    ------
    QueryError
        No group, or more than 2,000.
    """
    question = f"select count(distinct grp) from layer_groups({arguments})"  # noqa: S608 - checked
    n = rows(warehouse, question).item()
    if n == 0:
        raise QueryError(f"no layer has a group: {axis!r} is NULL everywhere, or no layer is kept")
    if n > MOST_GROUPS:
        raise QueryError(f"the axis {axis!r} has {n:,} groups, more than {MOST_GROUPS:,}; choose a coarser one")


def rows(warehouse: Warehouse, query: str) -> pl.DataFrame:
    """The result of a query.

    Raises
    ------
    QueryError
        What DuckDB refuses, in a line.
    """
    try:
        frame: pl.DataFrame = warehouse.sql(query).pl()
    except (duckdb.Error, QueryError) as error:
        raise QueryError(duckdb_message(error).splitlines()[0]) from error
    return frame


def _select(warehouse: Warehouse, expression: str, text: str, what: str) -> dict[str, Any]:
    """The parsed ``select`` of an expression."""
    ((told,),) = warehouse.sql("select json_serialize_sql($query)", {"query": f"select {expression}"}).fetchall()
    parsed = json.loads(told)
    if parsed.get("error") or len(parsed["statements"]) != 1:
        reason = parsed.get("error_message", "it is more than one statement").splitlines()[0]
        raise QueryError(f"{what} {text!r} is not one SQL expression: {reason}")
    node: dict[str, Any] = parsed["statements"][0]["node"]
    return node


def _columns(warehouse: Warehouse, source: str) -> list[str]:
    return list(warehouse.sql(f"from {source} limit 0").columns)


def _column_names(node: Any, parameters: frozenset[str] = frozenset()) -> Iterator[list[str]]:
    """The columns that an expression names, but those of its subqueries and the parameters of its lambdas."""
    if isinstance(node, list):
        for item in node:
            yield from _column_names(item, parameters)
    elif isinstance(node, dict):
        if node.get("class") == "COLUMN_REF":
            if node["column_names"][0] not in parameters:
                yield node["column_names"]
        elif node.get("class") == "LAMBDA":
            own = frozenset(names[0] for names in _column_names(node["lhs"]))
            yield from _column_names(node["expr"], parameters | own)
        else:
            yield from _column_names([value for key, value in node.items() if key != "subquery"], parameters)
