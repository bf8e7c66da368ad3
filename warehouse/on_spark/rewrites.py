"""Moves what Spark does not let stand where DuckDB does: trees in, trees out, the meaning stays."""

from __future__ import annotations

from collections.abc import Collection

from sqlglot import exp

from warehouse.on_spark.subset import FUNCTIONS, refusal

_HIGHER_ORDER = (exp.Transform, exp.Anonymous)


def inline_aliases(tree: exp.Expr, inlined: Collection[str]) -> None:
    """Write out aliases of a select list where a window function beside them names them."""
    for select in tree.find_all(exp.Select) if inlined else ():
        known: dict[str, exp.Expr] = {}
        for item in select.expressions:
            for window in item.find_all(exp.Window):
                for column in list(window.find_all(exp.Column)):
                    if column.name in known and not column.table:
                        column.replace(exp.Paren(this=known[column.name].copy()))
            if isinstance(item, exp.Alias) and item.alias in inlined:
                known[item.alias] = item.this


def require_known_order(select: exp.Select) -> None:
    """Refuse a star whose columns count by their position: after using, Spark puts the columns in another order."""
    uses = any(join.args.get("using") for join in select.args.get("joins") or ())
    outer = select.parent
    counted = isinstance(outer, exp.SetOperation) or (
        isinstance(outer, exp.CTE | exp.Subquery) and outer.alias_column_names
    )
    if uses and counted and any(isinstance(item, exp.Star) for item in select.expressions):
        raise refusal("* of tables joined by using, by position", "list the columns")


def require_plain_order(select: exp.Select) -> None:
    """Refuse an order by aggregates beside window functions, which Spark resolves when the rows are gone."""
    order = select.args.get("order")
    if order is not None and order.find(exp.AggFunc) and any(item.find(exp.Window) for item in select.expressions):
        raise refusal("order by an aggregate beside a window function", "compute it in a subquery")


def move_unnest(select: exp.Select) -> None:
    """Move unnest from the select list into a lateral view: it may stand within an expression only in DuckDB."""
    found = [node for item in select.expressions for node in item.find_all(exp.Explode) if node.parent_select is select]
    if not found:
        return
    if select.args.get("group") or any(item.find(exp.AggFunc) for item in select.expressions):
        raise refusal("unnest beside an aggregate", "write it in a subquery")
    columns = [exp.to_identifier(f"unnested_{number}") for number in range(len(found))]
    lists = [node.this.copy() for node in found]
    for node, column in zip(found, columns, strict=True):
        node.replace(exp.column(column.copy(), table="unnested"))
        _hide(select, exp.column(column.copy()))
    if select.args.get("from_") is None:
        one = exp.Subquery(
            this=exp.select(exp.Literal.number(1)), alias=exp.TableAlias(this=exp.to_identifier("one_row"))
        )
        select.set("from_", exp.From(this=one))
    alias = exp.TableAlias(this=exp.to_identifier("unnested"), columns=columns)
    select.append("laterals", exp.Lateral(this=exp.Tuple(expressions=lists), view=True, alias=alias))


def move_subqueries(select: exp.Select) -> None:
    """Join the value of a subquery where Spark does not let it stand: within what goes through a list."""
    found = [
        node
        for node in select.find_all(exp.Subquery)
        if node.parent_select is select and _goes_through_list(node.find_ancestor(*_HIGHER_ORDER, exp.Select))
    ]
    for number, node in enumerate(found):
        name = f"joined_{number}"
        node.replace(exp.column(name))
        value = exp.Subquery(
            this=exp.select(exp.alias_(node, name)), alias=exp.TableAlias(this=exp.to_identifier(f"t_{name}"))
        )
        if select.args.get("from_") is None:
            select.set("from_", exp.From(this=value))
        else:
            select.append("joins", exp.Join(this=value, kind="CROSS"))
        _hide(select, exp.column(name))


def _hide(select: exp.Select, column: exp.Column) -> None:
    """Keep a column that a rewrite has added out of the stars of a select list."""
    for star in select.expressions:
        if isinstance(star, exp.Star):
            star.set("except_", [*(star.args.get("except_") or ()), column])


def _goes_through_list(node: exp.Expr | None) -> bool:
    if isinstance(node, exp.Anonymous):
        return "->" in FUNCTIONS.get(node.name.lower(), "") or _goes_through_list(
            node.find_ancestor(*_HIGHER_ORDER, exp.Select)
        )
    return isinstance(node, exp.Transform)
