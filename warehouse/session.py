"""An open warehouse: read-only, with the UDFs registered and the raw filters within reach.

Gets the folder of a warehouse; hands on DuckDB relations and polars frames.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import polars as pl

import udfs
from warehouse import analyses, catalog, changes, sqlfiles
from warehouse.analyses import Analysis, Parameter
from warehouse.changes import Change
from warehouse.connection import connect
from warehouse.errors import LakeError, QueryError, duckdb_message
from warehouse.extraction import ExtractedModel, extract
from warehouse.legible import shortened

if TYPE_CHECKING:
    from warehouse.comparison import Comparison


class Warehouse:
    """A warehouse, open for reading.

    Attributes
    ----------
    path
        Its folder.
    connection
        The DuckDB connection, for everything that ``sql`` does not offer.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        # the paths of a lazy frame must outlive a change of the working directory
        self._folder = self.path.absolute()
        self._open()

    def _open(self) -> None:
        self.connection = connect(self.path)
        try:
            udfs.register(self.connection)
            for item in sqlfiles.load("session"):
                catalog.create(self.connection, item, {}, temporary=True)
            self._complete_help()
        except BaseException:
            self.connection.close()
            raise

    def __enter__(self) -> Warehouse:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    def close(self) -> None:
        """Close the connection; its relations end with it."""
        self.connection.close()

    def sql(self, query: str, params: Sequence[Any] | dict[str, Any] | None = None) -> duckdb.DuckDBPyRelation:
        """Ask a question in SQL.

        Parameters
        ----------
        query
            DuckDB's SQL over the objects that ``from help`` lists.
        params
            Values for ``?`` or ``$name`` in the query.

        Returns
        -------
        A lazy relation: ``.pl()``, ``.arrow()``, ``.df()``, ``.fetchall()`` or ``.show()`` run it. What goes
        wrong only then is a ``duckdb.Error``.

        Raises
        ------
        QueryError
            DuckDB's message, if it refuses the query.
        """
        if not query.strip(" \n\t;"):
            raise QueryError("the query is empty; try: from help")
        try:
            relation = self.connection.sql(query, params=params)
        except duckdb.Error as error:
            raise QueryError(duckdb_message(error)) from error
        if relation is None:
            # an empty query, or a statement such as SET: an empty result spares callers a special case
            return self.connection.sql("select true as success limit 0")
        return relation

    def analysis(self, name: str, /, **settings: Any) -> duckdb.DuckDBPyRelation:
        """Run one of the analyses that ``from analyses`` lists.

        Parameters
        ----------
        name
            Of the analysis.
        settings
            Values of its parameters; text is converted to the declared type. What is not set, or None, is the default.

        Returns
        -------
        A relation over the finished result.

        Raises
        ------
        QueryError
            No analysis or parameter of that name, a value that is not of its type, or DuckDB's message.
        """
        with self.prepared(name, settings) as found:
            try:
                # to the end, for what is lazy would see the next one's settings
                result = self.sql(found.text).to_arrow_table()
            except duckdb.Error as error:
                raise QueryError(duckdb_message(error)) from error
        return self.connection.from_arrow(result)

    @contextlib.contextmanager
    def prepared(self, name: str, settings: Mapping[str, Any]) -> Iterator[Analysis]:
        """Bind settings of an analysis, as `analysis` takes them, to its variables within the context."""
        found = self.find_analysis(name)
        parameters = {parameter.name: parameter for parameter in found.parameters}
        for unknown in settings.keys() - parameters.keys():
            hint = did_you_mean(unknown, set(parameters)) if parameters else "; it has no parameters"
            raise QueryError(f"analysis {name} has no parameter {unknown!r}{hint}")
        with self._own_variables(parameters):
            for parameter in parameters.values():
                self._set_variable(parameter, settings.get(parameter.name))
            yield found

    @contextlib.contextmanager
    def _own_variables(self, names: Iterable[str]) -> Iterator[None]:
        """Variables that are unset within the context, and after it what the user has made of them."""
        before = {name: self.connection.execute(f"select getvariable('{name}')").fetchall()[0][0] for name in names}
        try:
            for name in before:
                self.connection.execute(f"reset variable {name}")
            yield
        finally:
            for name, value in before.items():
                self.connection.execute(f"reset variable {name}")
                if value is not None:
                    self.connection.execute(f"set variable {name} = $1", [value])

    def find_analysis(self, name: str) -> Analysis:
        """The analysis of that name, as it was stored with the macros that it uses.

        Raises
        ------
        QueryError
            There is none; tells which one may be meant.
        """
        texts = dict(self.sql("select name, query from analyses").fetchall())
        if name not in texts:
            raise QueryError(f"there is no analysis {name!r}{did_you_mean(name, set(texts))}")
        return analyses.parse(name, texts[name], {"portable": "no: the warehouse is older than this entry"})

    def _set_variable(self, parameter: Parameter, value: Any) -> None:
        """Bind a value to the variable of an analysis; None leaves it unset."""
        if value is None:
            return
        kind = "varchar" if parameter.type == "column" else parameter.type
        plain = value.item() if isinstance(value, np.generic) else value
        query = f"select try_cast($1 as {kind}), try_cast($1 as double)"
        ((converted, number),) = self.connection.execute(query, [plain]).fetchall()
        # casts of numbers with a fraction round
        if converted is None or (kind == "integer" and converted != number):
            told = shortened(repr(value))
            raise QueryError(f"{parameter.name} is {told}, expected {parameter.type}: {parameter.meaning}")
        if parameter.type == "column":
            columns = set(self.connection.sql("from layer_meta limit 0").columns)
            if converted not in columns:
                hint = did_you_mean(value, columns)
                raise QueryError(f"{parameter.name}: layer_meta has no column {shortened(repr(value))}{hint}")
        self.connection.execute(f"set variable {parameter.name} = $1", [converted])

    def scan(self, name: str) -> pl.LazyFrame:
        """Scan the committed Parquet files of a table with polars.

        Parameters
        ----------
        name
            A table of the lake: ``filters``, ``models``, ``layers``, ``layer_quality``, ...

        Raises
        ------
        QueryError
            No table of that name is in the lake.
        LakeError
            A file is missing, or polars would misread the path.
        """
        paths = self.lake_paths(name)
        if name == "filters":
            if "=" in str(self._folder):
                raise LakeError(f"{self._folder}: polars takes a folder with = for a partition; rename it, or use .sql")
            return pl.scan_parquet(paths, glob=False, hive_partitioning=True, hive_schema={"model_id": pl.Int32})
        # what was added later may have other columns
        parts = [pl.scan_parquet(path, glob=False, hive_partitioning=False) for path in paths]
        return pl.concat(parts, how="diagonal_relaxed")

    def lake_paths(self, name: str) -> list[Path]:
        """The committed files of a table, absolute; the errors are those of `scan`."""
        rows = self.connection.sql("select name, path from warehouse.files order by rowid").fetchall()
        paths = [self._folder / path for found, path in rows if found == name]
        if not paths:
            raise QueryError(f"the lake has no table {name!r}{did_you_mean(name, {found for found, _ in rows})}")
        missing = next((path for path in paths if not path.is_file()), None)
        if missing:
            raise LakeError(f"{missing} is missing; copy the folder {self.path} whole, or ingest the source again")
        return paths

    def add(self, *models: object, replace: bool = False, **labels: object) -> Change:
        """Add models to the warehouse, on its basis and range, and go on with the new state.

        Parameters
        ----------
        models
            Files, mappings of names to arrays, objects with ``state_dict()``, or what `extract` made of them.
        replace
            Replace models that are there already, by their checksums.
        labels
            Of all of them, as `extract` takes them.

        Raises
        ------
        SourceError
            A model that `extract` refuses.
        LakeError
            The warehouse cannot be written, or holds one of the models already.
        """
        change = changes.add(self.path, _extracted(models, labels), replace_known=replace)
        self.close()
        self._open()
        return change

    def compare(self, *models: object, **labels: object) -> Comparison:
        """Open the warehouse once more with models mixed in, without adding them; close it after use.

        Parameters
        ----------
        models, labels
            As in `add`.
        """
        # a comparison is a warehouse itself
        from warehouse.comparison import Comparison

        return Comparison(self.path, _extracted(models, labels))

    def _complete_help(self) -> None:
        """Add what lives only in this session to ``help``."""
        self.connection.execute("create temp table help as from help")
        rows = [catalog.help_row(item) for item in sqlfiles.load("session")]
        for udf in udfs.UDFS:
            told = {"purpose": udf.purpose, "parameters": udf.parameters, "example": f"select {udf.example}"}
            rows.append({"name": udf.name, "kind": "function", "columns": None, **told})
        catalog.insert(self.connection, "temp.help", rows)


def did_you_mean(name: str, known: set[str]) -> str:
    """A suggestion for a mistyped name, and else the list of names."""
    # names from Python may be anything
    close = difflib.get_close_matches(str(name), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; it has {', '.join(sorted(known))}"


def _extracted(models: Sequence[object], labels: Mapping[str, Any]) -> list[ExtractedModel]:
    """What `extract` makes of models, unless it has been done."""
    return [model if isinstance(model, ExtractedModel) else extract(model, **labels) for model in models]
