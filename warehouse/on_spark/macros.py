"""Puts the bodies of macros in place of their calls: a query over macros becomes one over tables.

Gets a tree of DuckDB's dialect; hands on a tree without macros, query_table and variables. The names that a macro's
body brings along (CTEs, parameters of lambdas, tables) neither hide nor are hidden by those of the query around it.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import sqlglot
from sqlglot import exp
from sqlglot.dialects.duckdb import DuckDB
from sqlglot.parsers.duckdb import DuckDBParser

from warehouse import sqlfiles
from warehouse.errors import QueryError
from warehouse.sqlfiles import SqlObject

REPLACED = "spark"
"""The folder of ``sql/`` with the macros that Spark computes in another way."""

_HEAD = re.compile(r"create macro (?P<name>\w+)\(", re.IGNORECASE)
_ORIGINAL = "original name"


class Question(DuckDB):
    """DuckDB's dialect as it is written: sqlglot would move the indices of lists to begin with 0."""

    INDEX_OFFSET = 0

    class Parser(DuckDBParser):
        """Keeps len, for lists, apart from length, for text."""

        FUNCTIONS: ClassVar = {
            **DuckDBParser.FUNCTIONS,
            "LEN": lambda arguments: exp.Anonymous(this="len", expressions=arguments),
        }


@dataclass(frozen=True)
class Macro:
    """A macro of ``sql/macros``.

    Attributes
    ----------
    name
        Its name.
    parameters
        In their order.
    defaults
        Values of the parameters that have one.
    body
        A query, or the expression of a scalar macro.
    """

    name: str
    parameters: tuple[str, ...]
    defaults: Mapping[str, exp.Expr]
    body: exp.Expr

    def bind(self, arguments: list[exp.Expr]) -> dict[str, exp.Expr]:
        """Values of all parameters in a call."""
        named = {item.name.lower(): item.expression for item in arguments if isinstance(item, exp.PropertyEQ)}
        positional = [item for item in arguments if not isinstance(item, exp.PropertyEQ)]
        return {**self.defaults, **dict(zip(self.parameters, positional, strict=False)), **named}


@functools.cache
def load() -> Mapping[str, Macro]:
    """All macros by name; those of ``sql/spark`` stand in for their namesakes."""
    return {item.name: parse(item) for item in [*sqlfiles.load("macros"), *sqlfiles.load(REPLACED)]}


def parse(item: SqlObject) -> Macro:
    """Read the statement that creates a macro."""
    head = _HEAD.match(item.statement)
    if head is None:
        raise QueryError(f"{item.name} is no macro")
    depth, end = 1, head.end()
    while depth:
        depth += {"(": 1, ")": -1}.get(item.statement[end], 0)
        end += 1
    declared = sqlglot.parse_one(f"f({item.statement[head.end() : end - 1]})", dialect=Question).expressions
    body = re.sub(r"\A\s*as\s+(table\s+)?", "", item.statement[end:], flags=re.IGNORECASE)
    return Macro(
        item.name,
        tuple(parameter.name.lower() for parameter in declared),
        {item.name.lower(): item.expression for item in declared if isinstance(item, exp.PropertyEQ)},
        sqlglot.parse_one(body, dialect=Question),
    )


@dataclass(frozen=True)
class Names:
    """What a query may name.

    Attributes
    ----------
    table
        Gives the name of Spark's view for a table or view of the warehouse; raises `QueryError` if there is none.
    constant
        The value of an expression that names no column: DuckDB computes it.
    """

    table: Callable[[str], str]
    constant: Callable[[exp.Expr], exp.Expr]


def expand(query: exp.Expr, names: Names) -> exp.Expr:
    """Expand all macros of a query, and tell its tables by the names of Spark's views."""
    tree = query.copy()
    _bind_variables(tree, names)
    _resolve_tables(tree, names)
    numbers = itertools.count(1)
    while (call := next(_calls(tree), None)) is not None:
        tree = _replaced(tree, call, _expansion(call, next(numbers), names))
    return _without_dead_cases(_with_constant_ranges(tree, names), names)


def _calls(tree: exp.Expr) -> Iterator[exp.Expr]:
    """Calls of macros and of query_table, the outer before the inner."""
    macros = load()
    for node in tree.find_all(exp.Anonymous):
        name = node.name.lower()
        if name in macros or name == "query_table":
            yield node


def _expansion(call: exp.Expr, number: int, names: Names) -> exp.Expr:
    """What stands in place of a call."""
    if call.name.lower() == "query_table":
        return _named_table(call.expressions[0], call, names)
    macro = load()[call.name.lower()]
    arguments = macro.bind(call.expressions)
    missing = [parameter for parameter in macro.parameters if parameter not in arguments]
    if missing:
        raise QueryError(f"{macro.name} has no value for its parameter {missing[0]}")
    for parameter in _table_parameters(macro.name):
        arguments[parameter] = _named_table(arguments[parameter], call, names)
    body = macro.body.copy()
    _rename_ctes(body, number)
    _rename_lambdas(body, number)
    _resolve_tables(body, names)
    return _substituted(body, arguments)


def _replaced(tree: exp.Expr, call: exp.Expr, expansion: exp.Expr) -> exp.Expr:
    """The tree with an expansion in place of a call."""
    parent = call.parent
    if isinstance(parent, exp.Table):
        alias = parent.args.get("alias") or exp.TableAlias(this=exp.to_identifier(call.name))
        if isinstance(expansion, exp.Table):
            alias = parent.args.get("alias") or expansion.args.get("alias")
            source: exp.Expr = exp.Table(this=expansion.this.copy(), alias=alias)
        else:
            source = exp.Subquery(this=expansion, alias=alias)
        source.set("joins", parent.args.get("joins"))
        parent.replace(source)
        return tree
    inner = expansion if isinstance(expansion, exp.Subquery) else exp.Paren(this=expansion)
    if call is tree:
        return inner
    call.replace(inner)
    return tree


def _bind_variables(tree: exp.Expr, names: Names) -> None:
    """Put the values of variables in place of getvariable."""
    for node in list(tree.find_all(exp.Anonymous)):
        if node.name.lower() == "getvariable":
            node.replace(names.constant(node))
    for extract in list(tree.find_all(exp.StructExtract)):
        row, field = extract.this, names.constant(extract.expression)
        if isinstance(row, exp.Column) and not row.table:
            # a table's name stands for its whole row
            extract.replace(exp.column(field.name, table=row.name, quoted=True))
        else:
            extract.replace(exp.Dot(this=row, expression=exp.to_identifier(field.name, quoted=True)))


def _with_constant_ranges(tree: exp.Expr, names: Names) -> exp.Expr:
    """Compute the ends of ranges that stand for tables: Spark takes nothing but constants."""
    for node in list(tree.find_all(exp.GenerateSeries)):
        if isinstance(node.parent, exp.Table):
            for key in ("start", "end"):
                if node.args.get(key) is not None:
                    node.set(key, names.constant(node.args[key]))
    return tree


def _without_dead_cases(tree: exp.Expr, names: Names) -> exp.Expr:
    """Decide what is the same for all rows: what is not reached may mean nothing without the value of a parameter."""
    holder = exp.Paren(this=tree)
    pending = [case for case in holder.find_all(exp.Case) if case.this is None]
    for case in pending:
        while case.args["ifs"] and _is_constant(case.args["ifs"][0].this):
            first = case.args["ifs"].pop(0)
            if names.constant(first.this) == exp.true():
                case.set("ifs", [])
                case.set("default", first.args["true"])
        if not case.args["ifs"]:
            remaining = case.args.get("default") or exp.Null()
            if isinstance(remaining, exp.Anonymous) and remaining.name.lower() == "error" and _is_constant(remaining):
                names.constant(remaining)
            case.replace(_enclosed(remaining))
    decided: exp.Expr = holder.this
    return decided


def _is_constant(expression: exp.Expr) -> bool:
    return expression.find(exp.Identifier, exp.Query, exp.AggFunc, exp.Window) is None


def _visible_ctes(node: exp.Expr) -> Mapping[str, str]:
    """CTEs that a node can name, with the names that they have in the tree."""
    visible: dict[str, str] = {}
    inner: exp.Expr = node
    outer = node.parent
    while outer is not None:
        with_ = outer.args.get("with_")
        ctes = [] if with_ is None else list(with_.expressions)
        if isinstance(outer, exp.With):
            # a CTE sees those before it
            ctes = outer.expressions
            if not outer.args.get("recursive"):
                ctes = ctes[: next(position for position, cte in enumerate(ctes) if cte is inner)]
        elif inner is with_:
            ctes = []
        for cte in ctes:
            visible.setdefault(cte.meta.get(_ORIGINAL, cte.alias).lower(), cte.alias)
        inner, outer = outer, outer.parent
    return visible


def _resolve_tables(tree: exp.Expr, names: Names) -> None:
    """Give tables of the warehouse the names of Spark's views; the names they had become their aliases."""
    for node in list(tree.find_all(exp.Table)):
        if not isinstance(node.this, exp.Identifier):
            continue
        if node.args.get("db"):
            raise QueryError(f"on Spark a table is told by its name alone; write {node.name}")
        _point(node, _visible_ctes(node).get(node.name.lower()) or names.table(node.name))


def _point(table: exp.Table, target: str) -> None:
    """Make a table stand for another one, under the name it had."""
    if target != table.name:
        if not table.alias:
            table.set("alias", exp.TableAlias(this=table.this.copy()))
        table.set("this", exp.to_identifier(target))


def _named_table(name: exp.Expr, call: exp.Expr, names: Names) -> exp.Table:
    """The table that the text in a call names, as it is seen from there."""
    if isinstance(name, exp.Table):
        return name
    text = names.constant(name).name
    target = _visible_ctes(call).get(text.lower()) or names.table(text)
    return exp.Table(this=exp.to_identifier(target), alias=exp.TableAlias(this=exp.to_identifier(text)))


@functools.cache
def _table_parameters(name: str) -> frozenset[str]:
    """Parameters of a macro that end up in query_table."""
    macro = load()[name]
    found = set()
    for call in _calls(macro.body):
        if call.name.lower() == "query_table":
            passed = call.expressions[:1]
        else:
            values = load()[call.name.lower()].bind(call.expressions)
            passed = [values[parameter] for parameter in _table_parameters(call.name.lower())]
        found |= {value.name.lower() for value in passed if isinstance(value, exp.Column) and not value.table}
    return frozenset(found & set(macro.parameters))


def _rename_ctes(body: exp.Expr, number: int) -> None:
    """Give the CTEs of a macro's body names that no query has."""
    ctes = list(body.find_all(exp.CTE))
    for cte in ctes:
        cte.meta[_ORIGINAL] = cte.alias
        cte.args["alias"].set("this", exp.to_identifier(f"{cte.alias}__{number}"))


def _rename_lambdas(body: exp.Expr, number: int) -> None:
    """Give the parameters of lambdas in a macro's body names that no column has."""
    for node in list(body.find_all(exp.Lambda)):
        for name in {item.name for item in node.expressions}:
            for item in list(uses_of_parameter(node, name)):
                item.set("this", f"{name}__{number}")


def uses_of_parameter(function: exp.Expr, name: str) -> Iterator[exp.Identifier]:
    """Where a lambda, or its body, names one of its parameters."""
    for item in function.find_all(exp.Identifier):
        is_field = isinstance(item.parent, exp.Dot) and item.arg_key == "expression"
        if item.name == name and not is_field and not isinstance(item.parent, exp.Column | exp.PropertyEQ):
            yield item


def _substituted(body: exp.Expr, arguments: Mapping[str, exp.Expr]) -> exp.Expr:
    """A macro's body with arguments in place of its parameters."""
    for node in list(body.find_all(exp.Column)):
        if not node.table and node.name.lower() in arguments:
            replacement = _enclosed(arguments[node.name.lower()])
        elif node.table.lower() in arguments and not node.args.get("db"):
            row = arguments[node.table.lower()]
            if isinstance(row, exp.Column) and not row.table:
                replacement = exp.column(node.this.copy(), table=row.this.copy())
            else:
                replacement = exp.Dot(this=_enclosed(row), expression=node.this.copy())
        else:
            continue
        if node is body:
            return replacement
        node.replace(replacement)
    return body


def _enclosed(argument: exp.Expr) -> exp.Expr:
    """A copy of an argument, in parentheses where an operator beside it might take a part of it alone."""
    copied = argument.copy()
    atomic = (exp.Column, exp.Identifier, exp.Literal, exp.Func, exp.Table, exp.Boolean, exp.Null, exp.Paren)
    # some operators are functions to sqlglot
    return copied if isinstance(copied, atomic) and not isinstance(copied, exp.Binary) else exp.Paren(this=copied)
