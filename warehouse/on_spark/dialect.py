"""Writes a query without macros in Spark's SQL, so that its result is DuckDB's.

Only what stands in the tables of `subset` and below is let through, each construct with its translation where Spark
computes it in another way: anything else is refused by name. Known differences that remain: a list without an order is
sorted by its values, the quotient of two float32 is a double, whole numbers without a sign or of 128 bits become larger
or decimal ones, and integers overflow without an error if Spark's ANSI mode is switched off.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from sqlglot import exp
from sqlglot.dialects.spark import Spark
from sqlglot.generators.spark import SparkGenerator

from warehouse.on_spark.functions import spark_name
from warehouse.on_spark.macros import uses_of_parameter
from warehouse.on_spark.rewrites import (
    inline_aliases,
    move_subqueries,
    move_unnest,
    require_known_order,
    require_plain_order,
)
from warehouse.on_spark.subset import AGGREGATES, FUNCTIONS, PLAIN, REMEDIES, TYPES, refusal

_WHOLE = {"tinyint", "smallint", "int", "bigint", "decimal(38, 0)", "decimal(20, 0)"}
_TEXT_LIKE = "'string', 'boolean', 'tinyint', 'smallint', 'int', 'bigint', 'decimal(38,0)', 'decimal(20,0)', 'void'"


def translate(query: exp.Expr, inlined: Collection[str] = ()) -> tuple[str, frozenset[str]]:
    """Write a query in Spark's SQL.

    Parameters
    ----------
    query
        As `macros.expand` leaves it.
    inlined
        Aliases of a select list to write out where its window functions name them, which Spark does not allow.

    Returns
    -------
    Spark's SQL, and the names of DuckDB's functions that it needs of `functions`.

    Raises
    ------
    QueryError
        Names the construct that is not let through, and what to write instead.
    """
    tree = query.copy()
    if not isinstance(tree, exp.Query | exp.Pivot):
        raise refusal(tree.key)
    inline_aliases(tree, inlined)
    for select in list(tree.find_all(exp.Select)):
        require_known_order(select)
        require_plain_order(select)
        move_unnest(select)
        move_subqueries(select)
    generator = _Generator(dialect=Spark, comments=False, identify=False)
    return generator.generate(tree, copy=False), frozenset(generator.used)


class _Generator(SparkGenerator):
    """Writes what the tables let through."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.used: set[str] = set()

    def sql(self, expression: str | exp.Expr | None, key: str | None = None, comment: bool = True) -> str:
        if not isinstance(expression, exp.Expr) or key:
            return super().sql(expression, key, comment)
        kind = type(expression)
        if kind in TRANSLATIONS:
            return TRANSLATIONS[kind](self, expression)
        name = expression.name.lower() if kind is exp.Anonymous else kind
        if name in FUNCTIONS:
            return FUNCTIONS[name].format(*self.arguments(expression))
        if kind in AGGREGATES:
            return AGGREGATES[kind].format(*self.arguments(expression)) + self.filter_of(expression)
        if kind in PLAIN:
            return super().sql(expression, key, comment)
        called = name if isinstance(name, str) else _sql_name(expression)
        if own := spark_name(called):
            self.used.add(called)
            return f"{own}({', '.join(self.arguments(expression))})"
        raise refusal(called, REMEDIES.get(name))

    def arguments(self, node: exp.Expr) -> list[str]:
        """The arguments of a function, in order; the order of those of an aggregate counts for lists alone."""
        values = [] if isinstance(node, exp.Anonymous) else [node.this, node.args.get("expression")]
        given = [value for value in [*values, *node.expressions] if isinstance(value, exp.Expr)]
        return [self.sql(value.this if isinstance(value, exp.Order) else value) for value in given]

    def filter_of(self, aggregate: exp.Expr) -> str:
        """The filter of an aggregate, which stands around it in the tree."""
        outer = aggregate.parent.parent if isinstance(aggregate.parent, exp.IgnoreNulls) else aggregate.parent
        return f" FILTER ({self.sql(outer.expression).strip()})" if isinstance(outer, exp.Filter) else ""


def _sql_name(node: exp.Expr) -> str:
    """What SQL calls a node."""
    if isinstance(node, exp.Anonymous):
        return node.name.lower()
    return node.sql("duckdb").partition("(")[0].lower() if isinstance(node, exp.Func) else type(node).__name__.lower()


def _lateral(g: _Generator, node: exp.Expr) -> str:
    if not isinstance(node.this, exp.Tuple):
        raise refusal("lateral", "join a subquery")
    lists = [g.sql(item) for item in node.this.expressions]
    rows = f"explode({lists[0]})" if len(lists) == 1 else f"inline(arrays_zip({', '.join(lists)}))"
    columns = ", ".join(item.name for item in node.args["alias"].columns)
    return f" LATERAL VIEW {rows} {node.alias} AS {columns}"


def _cast(g: _Generator, node: exp.Expr) -> str:
    """Whole numbers round half to even, decimals half up; a float as text is written in another way."""
    kind, value = _type(node.args["to"]), g.sql(node, "this")
    if kind in _WHOLE and not (isinstance(node.this, exp.Literal) and node.this.is_int):
        return (
            f"case when typeof({value}) in ('double', 'float') then cast(rint(cast({value} as double)) as {kind}) "
            f"when typeof({value}) like 'decimal%' and typeof({value}) not like '%,0)' "
            f"then cast(round(cast({value} as double)) as {kind}) else cast({value} as {kind}) end"
        )
    if kind == "string" and not isinstance(node.this, exp.Literal | exp.Null):
        return (
            f"case when typeof({value}) in ({_TEXT_LIKE}) then cast({value} as string) "
            f"else raise_error(concat('Spark writes a ', typeof({value}), ' in another way than DuckDB; "
            "do not cast it to varchar')) end"
        )
    return f"cast({value} as {kind})"


def _try_cast(g: _Generator, node: exp.Expr) -> str:
    kind, value = _type(node.args["to"]), g.sql(node, "this")
    return f"try_cast({f'rint(try_cast({value} as double))' if kind in _WHOLE else value} as {kind})"


def _type(node: exp.Expr) -> str:
    """Spark's name of a type; a list of fixed length is one like any other."""
    if node.this == exp.DType.ARRAY and node.expressions:
        return f"array<{_type(node.expressions[0])}>"
    if node.this not in TYPES:
        raise refusal(f"the type {node.sql('duckdb').lower()}")
    return TYPES[node.this]


def _divide(g: _Generator, node: exp.Expr) -> str:
    """Division by zero is an infinity or NaN in DuckDB, and an error or NULL in Spark."""
    dividend, divisor = f"cast({g.sql(node, 'this')} as double)", g.sql(node, "expression")
    quotient = f"({dividend} / cast({divisor} as double))"
    if _is_never_zero(node.expression):
        return quotient
    return f"case when {divisor} = 0 then {dividend} * double('Infinity') else {quotient} end"


def _is_never_zero(node: exp.Expr) -> bool:
    node = node.unnest()
    if isinstance(node, exp.Nullif):
        return isinstance(node.expression, exp.Literal) and float(node.expression.name) == 0
    return isinstance(node, exp.Literal) and not node.is_string and float(node.name) != 0


def _item(g: _Generator, node: exp.Expr) -> str:
    """Items count from 1, and from -1 backwards; there is NULL where there is none."""
    items, index = g.sql(node, "this"), node.expressions[0]
    if isinstance(index, exp.Literal) and index.is_string:
        return f"{items}.`{index.name}`"
    if not isinstance(index, exp.Slice):
        return f"try_element_at({items}, nullif(cast({g.sql(index)} as int), 0))"
    if index.this is None or index.expression is None:
        raise refusal("a slice with an open end", "give both ends")
    if isinstance(index.this, exp.Neg) or isinstance(index.expression, exp.Neg):
        raise refusal("a slice with negative ends", "count from the beginning")
    first, last = (f"cast({g.sql(index, key)} as int)" for key in ("this", "expression"))
    return (
        f"slice({items}, case when least({first}, {last}) < 0 then raise_error('a slice from the end of a list') "
        f"else greatest({first}, 1) end, greatest({last} - greatest({first}, 1) + 1, 0))"
    )


def _transformed(g: _Generator, node: exp.Expr) -> str:
    """Positions, the second parameter of a lambda, count from 0 in Spark."""
    function = node.expression.copy()
    if len(function.expressions) > 1:
        for name in list(uses_of_parameter(function.this, function.expressions[1].name)):
            name.replace(exp.Paren(this=exp.Add(this=name.copy(), expression=exp.Literal.number(1))))
    return f"transform({g.sql(node, 'this')}, {g.sql(function)})"


def _list(g: _Generator, node: exp.Expr) -> str:
    """A list keeps NULL and its order; without one it is sorted by value. NULL of no rows."""
    ordered = node.this if isinstance(node.this, exp.Order) else None
    value = g.sql(ordered.this if ordered else node.this)
    keys = []
    for position, item in enumerate(ordered.expressions if ordered else ()):
        if item.args.get("desc") or item.args.get("nulls_first"):
            raise refusal("list(x order by y desc)", "order by -y")
        key = g.sql(item, "this")
        keys.append(f"({key}) is null as n{position}, {key} as k{position}")
    fields = ", ".join([*keys, f"({value}) is null as n", f"{value} as v"])
    condition = g.filter_of(node)
    rows = f"array_sort(collect_list(struct({fields})){condition})"
    return f"case when count(1){condition} > 0 then transform({rows}, e -> e.v) end"


def _joined_text(g: _Generator, node: exp.Expr) -> str:
    separator = g.sql(node, "separator") or "','"
    return f"array_join({_list(g, node)}, {separator})"


def _filter(g: _Generator, node: exp.Expr) -> str:
    # the aggregate writes it, for it may stand within an expression
    inner = node.this.this if isinstance(node.this, exp.IgnoreNulls) else node.this
    if type(inner) not in AGGREGATES and not isinstance(inner, exp.ArrayAgg | exp.GroupConcat):
        raise refusal(f"a filter of {_sql_name(inner)}", "put its condition into a case")
    return g.sql(node, "this")


def _ignore_nulls(g: _Generator, node: exp.Expr) -> str:
    if not isinstance(node.this, exp.AnyValue):
        raise refusal(f"{_sql_name(node.this)}(... ignore nulls)", "write any_value")
    return g.sql(node, "this")


def _correlation(g: _Generator, node: exp.Expr) -> str:
    """A correlation without variance is NaN in DuckDB, and NULL only without rows."""
    if isinstance(node.parent, exp.Filter):
        raise refusal("a filter of corr", "put its condition into a case")
    x, y = g.arguments(node)
    return f"case when regr_count({y}, {x}) > 0 then coalesce(corr({x}, {y}), double('NaN')) end"


def _logarithm(g: _Generator, node: exp.Expr) -> str:
    base = node.this if node.expression else None
    value = g.sql(node, "expression" if base else "this")
    name = {None: "log10", "2": "log2", "10": "log10"}.get(base and base.name)
    if name is None:
        raise refusal("log to another base than 2 or 10", "write ln(x) / ln(base)")
    return (
        f"case when {value} = 0 then double('-Infinity') when {value} < 0 then double('NaN') else {name}({value}) end"
    )


def _round(g: _Generator, node: exp.Expr) -> str:
    digits = g.sql(node, "decimals")
    return f"round({g.sql(node, 'this')}{f', {digits}' if digits else ''})"


def _sequence(g: _Generator, node: exp.Expr) -> str:
    if node.args.get("step") is not None:
        raise refusal("range with a step", "multiply")
    first = g.sql(node, "start") or "0"
    end = g.sql(node, "end") if node.args.get("is_end_exclusive") else f"{g.sql(node, 'end')} + 1"
    if isinstance(node.parent, exp.Table):
        return f"range({first}, {end})"
    return (
        f"case when {end} > {first} then sequence(cast({first} as bigint), cast({end} as bigint) - 1) "
        "else cast(array() as array<bigint>) end"
    )


def _table(g: _Generator, node: exp.Table) -> str:
    if isinstance(node.this, exp.GenerateSeries):
        columns = ", ".join(g.sql(column) for column in node.args["alias"].columns) if node.alias else ""
        joins = "".join(g.sql(join) for join in node.args.get("joins") or ())
        alias = f"{node.alias}({columns or node.alias})" if node.alias else "range(range)"
        return f"{g.sql(node, 'this')} AS {alias}{joins}"
    if not isinstance(node.this, exp.Identifier):
        raise refusal(f"the table function {_sql_name(node.this)}")
    return SparkGenerator.table_sql(g, node)


def _join(g: _Generator, node: exp.Join) -> str:
    if node.method:
        raise refusal(f"{node.method.lower()} join", "name the columns with using or on")
    return SparkGenerator.join_sql(g, node)


def _unpivot(g: _Generator, node: exp.Expr) -> str:
    into = node.args.get("into")
    if not node.args.get("unpivot") or into is None:
        raise refusal("pivot", "write aggregates with a filter each")
    listed = ", ".join(g.sql(column) for column in node.expressions)
    names = f"{g.sql(into.expressions[0])} FOR {g.sql(into, 'this')}"
    return f"SELECT * FROM {g.sql(node, 'this')} UNPIVOT ({names} IN ({listed}))"  # noqa: S608 - written from a tree


def _star(g: _Generator, node: exp.Star) -> str:
    for what in ("replace", "rename"):
        if node.args.get(what):
            raise refusal(f"* {what}", "list the columns")
    return SparkGenerator.star_sql(g, node)


def _with(g: _Generator, node: exp.With) -> str:
    if node.args.get("recursive"):
        raise refusal("with recursive")
    for cte in node.expressions:
        cte.set("materialized", None)
    return SparkGenerator.with_sql(g, node)


def _ordered(g: _Generator, node: exp.Expr) -> str:
    nulls = "FIRST" if node.args.get("nulls_first") else "LAST"
    return f"{g.sql(node, 'this')}{' DESC' if node.args.get('desc') else ''} NULLS {nulls}"


def _concatenated(g: _Generator, node: exp.Expr) -> str:
    """NULL counts as empty."""
    return f"concat({', '.join(f'''coalesce(cast({g.sql(item)} as string), '')''' for item in node.expressions)})"


def _matches(g: _Generator, node: exp.Expr) -> str:
    flag = node.args.get("flag")
    if flag is not None and flag.name not in ("i", "c"):
        raise refusal(f"regexp_matches with the option {flag.sql()}", "write (?i) and the like into the pattern")
    pattern = g.sql(node, "expression")
    if flag is not None and flag.name == "i":
        pattern = f"concat('(?i)', {pattern})"
    return f"({g.sql(node, 'this')} RLIKE {pattern})"


def _replaced(g: _Generator, node: exp.Expr) -> str:
    new, modifiers = node.args.get("replacement"), node.args.get("modifiers")
    if modifiers is None or modifiers.name != "g":
        raise refusal("regexp_replace of the first match", "give the option 'g'")
    if not isinstance(new, exp.Literal) or set("\\$") & set(new.name):
        raise refusal("regexp_replace with parts of the match")
    return f"regexp_replace({g.sql(node, 'this')}, {g.sql(node, 'expression')}, {g.sql(new)})"


def _like(g: _Generator, node: exp.Expr) -> str:
    if not isinstance(node.expression, exp.Literal) or "\\" in node.expression.name:
        raise refusal("like with a pattern that is no plain text", "write regexp_matches")
    return f"({g.sql(node, 'this')} {type(node).__name__.upper()} {g.sql(node, 'expression')})"


TRANSLATIONS: Mapping[type[exp.Expr], Callable[[_Generator, Any], str]] = {
    exp.ArrayAgg: _list,
    exp.Bracket: _item,
    exp.Cast: _cast,
    exp.Concat: _concatenated,
    exp.Corr: _correlation,
    exp.Div: _divide,
    exp.Filter: _filter,
    exp.GenerateSeries: _sequence,
    exp.GroupConcat: _joined_text,
    exp.IgnoreNulls: _ignore_nulls,
    exp.ILike: _like,
    exp.Join: _join,
    exp.Lateral: _lateral,
    exp.Like: _like,
    exp.Log: _logarithm,
    exp.Ordered: _ordered,
    exp.Pivot: _unpivot,
    exp.RegexpLike: _matches,
    exp.RegexpReplace: _replaced,
    exp.Round: _round,
    exp.Star: _star,
    exp.Table: _table,
    exp.Transform: _transformed,
    exp.TryCast: _try_cast,
    exp.With: _with,
}
"""What writes a node whose translation is more than a template."""
