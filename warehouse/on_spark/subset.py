"""What of DuckDB's SQL is let through to Spark: tables of constructs, and the error that names any other."""

from __future__ import annotations

from collections.abc import Mapping

from sqlglot import exp

from warehouse.errors import QueryError

_LIST_SUM = "aggregate({0}, cast(null as double), (s, e) -> coalesce(s + cast(e as double), s, cast(e as double)))"

PLAIN = frozenset(
    {
        # queries
        *(exp.Select, exp.From, exp.Where, exp.Group, exp.GroupingSets, exp.Having, exp.Qualify, exp.Order, exp.Limit),
        *(exp.Offset, exp.Distinct, exp.With, exp.CTE, exp.Subquery, exp.Union, exp.Except, exp.Intersect, exp.Values),
        *(exp.Table, exp.TableAlias, exp.Window, exp.WindowSpec),
        # expressions
        *(exp.Alias, exp.Column, exp.Dot, exp.Identifier, exp.Literal, exp.Boolean, exp.Null, exp.Paren, exp.Tuple),
        *(exp.Array, exp.Struct, exp.PropertyEQ, exp.Case, exp.If, exp.Var, exp.DataType, exp.Lambda),
        *(exp.And, exp.Or, exp.Not, exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.Is, exp.In, exp.Between),
        *(exp.NullSafeEQ, exp.NullSafeNEQ, exp.Exists, exp.Add, exp.Sub, exp.Mul, exp.Mod, exp.Neg, exp.DPipe),
        # functions that are the same
        *(
            exp.RowNumber,
            exp.Rank,
            exp.DenseRank,
            exp.Grouping,
            exp.Abs,
            exp.Exp,
            exp.Greatest,
            exp.Least,
            exp.Coalesce,
        ),
        *(exp.Nullif, exp.Lower, exp.Upper, exp.Split, exp.StartsWith, exp.EndsWith, exp.Contains, exp.ConcatWs),
    }
)
"""Nodes that sqlglot writes as Spark understands them, with the same meaning."""

FUNCTIONS: Mapping[type[exp.Expr] | str, str] = {
    # lists: those of DuckDB pass over NULL, and give NULL where nothing is left
    exp.ArrayMax: "array_max({0})",
    exp.ArrayMin: "array_min({0})",
    exp.ArrayToString: "array_join({0}, {1})",
    exp.Flatten: "flatten({0})",
    "len": "array_size({0})",
    "list_avg": f"({_LIST_SUM} / nullif(array_size(array_compact({{0}})), 0))",
    "list_dot_product": (
        "coalesce(aggregate(zip_with({0}, {1}, (l, r) -> cast(l as double) * cast(r as double)), 0D, (s, e) -> s + e), "
        "case when {0} is null or {1} is null then null "
        "else raise_error('list_dot_product: lists of other lengths, or NULL in them') end)"
    ),
    "list_position": "nullif(array_position({0}, {1}), 0)",
    "list_sum": _LIST_SUM,
    # numbers: those of Spark know no NaN and no infinity, and round to whole numbers of 64 bits
    exp.Ceil: "case when abs({0}) < 9e15 then cast(ceil({0}) as double) else cast({0} as double) end",
    exp.Floor: "case when abs({0}) < 9e15 then cast(floor({0}) as double) else cast({0} as double) end",
    exp.IntDiv: "({0} div {1})",
    exp.IsNan: "isnan({0})",
    exp.Ln: "case when {0} = 0 then double('-Infinity') when {0} < 0 then double('NaN') else ln({0}) end",
    exp.Pow: "power({0}, {1})",
    exp.Sign: "sign({0})",
    exp.Sqrt: "sqrt({0})",
    "isfinite": "(abs({0}) < double('Infinity'))",
    # text
    exp.Length: "char_length({0})",
    exp.MD5: "md5({0})",
    exp.SHA2: "sha2({0}, 256)",
    exp.Trim: "trim({0})",
    "error": "raise_error({0})",
}
"""Templates of Spark's SQL by class of sqlglot or name of DuckDB; ``{0}`` is the first argument."""

AGGREGATES: Mapping[type[exp.Expr], str] = {
    exp.AnyValue: "any_value({0}, true)",
    exp.ArgMax: "max_by({0}, {1})",
    exp.ArgMin: "min_by({0}, {1})",
    exp.Avg: "avg(cast({0} as double))",
    exp.Count: "count({0})",
    exp.CovarPop: "covar_pop({0}, {1})",
    exp.CovarSamp: "covar_samp({0}, {1})",
    exp.LogicalAnd: "bool_and({0})",
    exp.LogicalOr: "bool_or({0})",
    exp.Max: "max({0})",
    exp.Median: "percentile({0}, 0.5D)",
    exp.Min: "min({0})",
    exp.PercentileCont: "percentile({0}, {1})",
    exp.Stddev: "stddev_samp({0})",
    exp.StddevPop: "stddev_pop({0})",
    exp.StddevSamp: "stddev_samp({0})",
    exp.Sum: "sum({0})",
    exp.Variance: "var_samp({0})",
    exp.VariancePop: "var_pop({0})",
}
"""Templates of aggregates; a filter goes behind them."""

TYPES: Mapping[exp.DType, str] = {
    exp.DType.BOOLEAN: "boolean",
    exp.DType.TINYINT: "tinyint",
    exp.DType.SMALLINT: "smallint",
    exp.DType.INT: "int",
    exp.DType.BIGINT: "bigint",
    exp.DType.INT128: "decimal(38, 0)",
    exp.DType.UTINYINT: "smallint",
    exp.DType.USMALLINT: "int",
    exp.DType.UINT: "bigint",
    exp.DType.UBIGINT: "decimal(20, 0)",
    exp.DType.FLOAT: "float",
    exp.DType.DOUBLE: "double",
    exp.DType.TEXT: "string",
    exp.DType.VARCHAR: "string",
}
"""Spark's types for DuckDB's: the next larger one where there is none without a sign."""

REMEDIES: Mapping[type[exp.Expr] | str, str] = {
    "list_reduce": "write list_sum, list_max or list_dot_product",
    exp.ArraySort: "write list(x order by y)",
    "list_slice": "write x[1 : 3]",
}
"""What to write instead of a construct that is refused."""


ELSEWHERE = "ask DuckDB: warehouse.open, or no --engine spark"


def refusal(construct: str, remedy: str | None = None) -> QueryError:
    """The error that names a construct which is not let through."""
    advice = f"{remedy}, or {ELSEWHERE}" if remedy else ELSEWHERE
    return QueryError(f"{construct} is not among what Spark can be asked here; {advice}")
