"""A warehouse in a Spark session: its committed files as views, and DuckDB's SQL over them.

Gets the folder of a warehouse and a session; hands on Spark's data frames. DuckDB reads each query first, without
running it: what it refuses is refused here with its words, and it tells the names and types of the result.
"""

from __future__ import annotations

import contextlib
import logging
import re
import uuid
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import sqlglot
from sqlglot import exp

from warehouse import sqlfiles
from warehouse.errors import QueryError, duckdb_message
from warehouse.lake import lake_tables
from warehouse.on_spark import dialect, functions, macros
from warehouse.on_spark.failures import explain
from warehouse.on_spark.subset import ELSEWHERE
from warehouse.session import Warehouse, did_you_mean

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

FILTERS = "filters"
"""The one table that is partitioned: by model_id, which only its folders tell."""

_RAISED = re.compile(r"\[USER_RAISED_EXCEPTION\] (?P<message>.*?)(?: SQLSTATE|$)", re.MULTILINE)


class SparkWarehouse:
    """A warehouse whose queries run on Spark, as it was when opened.

    Attributes
    ----------
    path
        Its folder, which all workers see under the same path.
    session
        The Spark session. Its temporary views are named apart for each warehouse.
    """

    def __init__(self, path: str | Path, session: SparkSession) -> None:
        self.path = Path(path)
        self.session = session
        self._folder = self.path.absolute()
        self._catalog = Warehouse(path)
        self._prefix = f"warehouse_{uuid.uuid4().hex[:12]}_"
        self._views: set[str] = set()
        self._functions: set[str] = set()
        self._statements = {
            item.name: item.statement for item in sqlfiles.load("tables", "views") if item.kind == "view"
        }

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    @cached_property
    def tables(self) -> tuple[str, ...]:
        """Names of all tables and views, without the session's prefix."""
        query = "select name from (show all tables) where database = 'warehouse' order by name"
        return tuple(name for (name,) in self._catalog.connection.execute(query).fetchall())

    def sql(self, query: str) -> DataFrame:
        """Ask a question in DuckDB's SQL.

        Parameters
        ----------
        query
            One query over the objects that ``from help`` lists.

        Returns
        -------
        A lazy data frame with the columns that DuckDB gives, of its types or the next larger ones.

        Raises
        ------
        QueryError
            DuckDB or Spark refuses the query, or it has a construct that is not translated.
        """
        tree, relation = understood(query, self._catalog)
        return self._converted(self._run(tree), relation)

    def analysis(self, name: str, /, **settings: Any) -> DataFrame:
        """Run one of the analyses that ``from analyses`` lists, with settings as `Warehouse.analysis` takes them."""
        with self._catalog.prepared(name, settings) as analysis:
            return self.sql(analysis.text)

    def collected(self, query: str) -> duckdb.DuckDBPyRelation:
        """Ask a question, and bring its whole result here, with the very types that DuckDB gives.

        Raises
        ------
        QueryError
            As in `sql`, and where the query itself raises an error.
        EngineError
            Spark cannot run it.
        """
        frame = self.sql(query)
        try:
            result = frame.toArrow()
        except Exception as error:
            raised = _RAISED.search(str(error))
            if raised:
                raise QueryError(raised["message"]) from error
            raise explain(error) or error from error
        relation = self._catalog.sql(query)
        columns = zip(relation.columns, relation.types, result.column_names, strict=True)
        casts = ", ".join(f"{_quoted(here)}::{kind} as {_quoted(name)}" for name, kind, here in columns)
        return self._catalog.connection.from_arrow(result).project(casts)

    def _run(self, tree: exp.Expr, inlined: frozenset[str] = frozenset()) -> DataFrame:
        """Translate a query and have Spark analyse it."""
        from pyspark.errors import AnalysisException, ParseException

        names = macros.Names(self._view, self._constant)
        text, used = dialect.translate(macros.expand(tree, names), inlined)
        functions.register(self.session, used - self._functions)
        self._functions |= used
        try:
            with _silent_logger():
                return self.session.sql(text)
        except (AnalysisException, ParseException) as error:
            # only Spark knows that the name is no column's
            if error.getCondition() == "UNSUPPORTED_FEATURE.LATERAL_COLUMN_ALIAS_IN_WINDOW":
                alias = (error.getMessageParameters() or {}).get("lca", "").strip("`")
                if alias and alias not in inlined:
                    return self._run(tree, inlined | {alias})
            raise QueryError(f"Spark refuses the query as translated: {_first_line(str(error))}") from error

    def _converted(self, frame: DataFrame, relation: duckdb.DuckDBPyRelation) -> DataFrame:
        """Give columns the names, order and types of DuckDB."""
        here = [name.lower() for name in frame.columns]
        wanted = [name.lower() for name in relation.columns]
        # after a join by using, Spark has another order
        if sorted(here) == sorted(wanted) and len(set(here)) == len(here):
            order = [here.index(name) for name in wanted]
        elif any(name in wanted and wanted.index(name) != position for position, name in enumerate(here)):
            raise QueryError("Spark gives the columns in another order than DuckDB; name each of them with `as`")
        else:
            order = list(range(len(here)))
        frame = frame.toDF(*(f"c{position}" for position in range(len(here))))
        targets = zip(order, relation.types, relation.columns, strict=True)
        return frame.selectExpr(
            *(f"cast(c{at} as {_spark_type(kind)}) as `{_escaped(name)}`" for at, kind, name in targets)
        )

    def _view(self, name: str) -> str:
        """The name of Spark's view of a table or view, which is made when it is first asked for."""
        name = name.lower()
        if name not in self.tables:
            raise QueryError(f"there is no table {name!r}{did_you_mean(name, set(self.tables))}")
        if name not in self._views:
            self._frame(name).createOrReplaceTempView(self._prefix + name)
            self._views.add(name)
        return self._prefix + name

    def _frame(self, name: str) -> DataFrame:
        """The rows of a table or view of the warehouse."""
        if name in lake_tables():
            return self._scan(name)
        if name in self._statements:
            body = re.sub(r"\A.*?\bas\b", "", self._statements[name], count=1, flags=re.IGNORECASE | re.DOTALL)
            return self._run(_parsed(body))
        relation = self._catalog.sql(f"from {name}")
        return self._converted(self.session.createDataFrame(relation.to_arrow_table()), relation)

    def _scan(self, name: str) -> DataFrame:
        """The committed files of a table of the lake, with the columns of the whole table."""
        paths = self._catalog.lake_paths(name)
        relation = self._catalog.sql(f"from {name}")
        columns = zip(relation.columns, relation.types, strict=True)
        schema = ", ".join(f"`{_escaped(column)}` {_spark_type(kind)}" for column, kind in columns)
        # the paths are those of files, whatever characters they have
        reader = self.session.read.schema(schema).option("__globPaths__", "false")
        if name == FILTERS:
            reader = reader.option("basePath", f"file:{self._folder / 'lake' / FILTERS}")
        frame = reader.parquet(*(f"file:{path}" for path in paths))
        return frame.select(*(f"`{_escaped(column)}`" for column in relation.columns))

    def _constant(self, expression: exp.Expr) -> exp.Expr:
        """The value of an expression without columns, as DuckDB computes it."""
        if expression.find(exp.Column, exp.Query):
            raise QueryError(f"on Spark, {expression.sql('duckdb')} must be a constant")
        if isinstance(expression, exp.Literal | exp.Boolean | exp.Null):
            return expression.copy()
        text = expression.sql(macros.Question)
        try:
            ((value,),) = self._catalog.connection.execute(f"select {text}").fetchall()
        except duckdb.Error as error:
            raise QueryError(duckdb_message(error)) from error
        return exp.convert(value)


@contextlib.contextmanager
def _silent_logger() -> Iterator[None]:
    """Keep pyspark from writing pages to standard error for a refusal that becomes one line."""
    logger = logging.getLogger("SQLQueryContextLogger")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def understood(query: str, catalog: Warehouse) -> tuple[exp.Expr, duckdb.DuckDBPyRelation]:
    """Read a query that DuckDB takes, without running it; and what DuckDB makes of it.

    Raises
    ------
    QueryError
        DuckDB refuses it, or it is something else than one query.
    """
    return _parsed(query), catalog.sql(query)


def _parsed(query: str) -> exp.Expr:
    try:
        trees = [tree for tree in sqlglot.parse(query, dialect=macros.Question) if tree is not None]
    except sqlglot.errors.SqlglotError as error:
        raise QueryError(f"the query cannot be read for Spark: {_first_line(str(error))}") from error
    if not trees:
        raise QueryError("the query is empty; try: from help")
    if len(trees) > 1 or not isinstance(trees[0], exp.Query | exp.Pivot):
        raise QueryError(f"Spark can be asked one query at a time, and nothing but queries; {ELSEWHERE}")
    return trees[0]


def _spark_type(kind: Any) -> str:
    """Spark's type for one of DuckDB's."""
    if kind.id in ("list", "array"):
        return f"array<{_spark_type(kind.children[0][1])}>"
    if kind.id == "struct":
        return f"struct<{', '.join(f'`{_escaped(name)}`: {_spark_type(child)}' for name, child in kind.children)}>"
    known = {"varchar": "string", "integer": "int", "timestamp": "timestamp_ntz", "hugeint": "decimal(38, 0)"}
    known |= {"utinyint": "smallint", "usmallint": "int", "uinteger": "bigint", "ubigint": "decimal(20, 0)"}
    known |= {"timestamp with time zone": "timestamp", "null": "int", '"null"': "int"}
    return known.get(kind.id, str(kind).lower())


def _quoted(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'


def _escaped(name: str) -> str:
    return name.replace("`", "``")


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0]
