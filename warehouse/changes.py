"""Changes of a warehouse that exists: add models or a dataset, remove models, choose basis and range anew.

Each writes new files beside those that stay and commits by one rename, as ingest does; until then, and if it fails,
the warehouse is what it was. Files that no longer belong to it stay for its readers until ``vacuum``.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits

from warehouse import passes, rollups
from warehouse.connection import connect
from warehouse.coordinates import Basis, Coordinates
from warehouse.errors import LakeError, QueryError, duckdb_message
from warehouse.extraction import ExtractedModel, write_dataset
from warehouse.filter_file import may_be_cached, naming_damage
from warehouse.ingest import commit
from warehouse.joined import Part
from warehouse.lake import LOCK, Lake, LakeFile, lock
from warehouse.legible import encodable
from warehouse.metadata import Start, tabulate
from warehouse.pipeline import Block, Pipeline, range_of
from warehouse.plan import Segment, runs_of
from warehouse.runner import Counter, LocalRunner, Progress, Runner, for_stage
from warehouse.source import Source, naming, open_source
from warehouse.statistics import SIZE, TRIANGLE, Moments, merge_moments

COORDINATE_TABLES = ("basis", "basis_mean", "histogram_range", "layer_histograms")
"""What depends on basis and range."""


@dataclass(frozen=True)
class Change:
    """What a change did.

    Attributes
    ----------
    path
        The warehouse's folder.
    model_ids
        Of the models added or removed.
    layers, filters
        How many came or went.
    nonfinite_layers
        Added layers with NaN or infinite weights; their statistics are NULL.
    outside
        Coefficients of added filters that lie outside the range of the histograms; they count in the bins at its ends.
    seconds
        Time taken.
    """

    path: Path
    model_ids: tuple[int, ...]
    layers: int
    filters: int
    nonfinite_layers: int
    outside: int
    seconds: float


@dataclass(frozen=True)
class State:
    """A warehouse as its last commit left it.

    Attributes
    ----------
    files
        That belong to it.
    start
        The first ids that are free.
    coordinates
        Basis and range.
    model_columns, layer_columns
        Names of the columns of ``models`` and ``layers``.
    """

    files: tuple[LakeFile, ...]
    start: Start
    coordinates: Coordinates
    model_columns: tuple[str, ...]
    layer_columns: tuple[str, ...]


def read_state(con: duckdb.DuckDBPyConnection) -> State:
    """Read what a change has to know of an open warehouse."""

    def rows(query: str) -> list[tuple[Any, ...]]:
        return con.sql(query).fetchall()

    files = tuple(
        LakeFile(*row) for row in rows("select name, path, n_rows, bytes, sha256 from warehouse.files order by rowid")
    )
    ((model, layer),) = rows("select max(model_id), max(layer_id) from layers")
    ((filters,),) = rows("select sum(n_filters)::bigint from sources")
    axes = rows("select eigenvalue, loading from basis order by component")
    try:
        ((n, mean),) = rows("select n, mean from basis_mean")
        # NULL becomes NaN
        ((low, high),) = np.array(rows("select lo, hi from histogram_range"), float).tolist()
        eigenvalues, loadings = zip(*axes, strict=True)
        basis = Basis(np.array(mean, float), np.array(eigenvalues, float), np.array(loadings, float))
    except ValueError as error:
        raise LakeError("basis or range is not there: table basis, basis_mean or histogram_range is damaged") from error
    columns = (tuple(con.sql(f"from {table}").columns) for table in ("models", "layers"))
    return State(files, Start(model + 1, layer + 1, filters), Coordinates(basis, n, low, high), *columns)


@contextlib.contextmanager
def _changing(folder: Path) -> Iterator[tuple[Lake, State, duckdb.DuckDBPyConnection]]:
    """Lock a warehouse; commit what is in the lake when the context ends, or remove what was written if it fails."""
    connect(folder).close()
    with lock(folder), connect(folder) as con:
        state = read_state(con)
        lake = Lake(folder, state.files)
        try:
            yield lake, state, con
            con.close()
            commit(lake)
        except BaseException:
            lake.discard()
            raise


def append(
    source: str | Path,
    target: str | Path,
    *,
    allow_nonfinite: bool = False,
    allow_sources: Iterable[str | Path] = (),
    threads: int | None = None,
    runner: Runner | None = None,
    progress: Progress | None = None,
) -> Change:
    """Add a dataset file to a warehouse, measured in the basis and range that it has.

    Parameters
    ----------
    source
        ``dataset.h5`` or ``dataset.h5.xz``. Its models get new ids; ``models.source`` and ``source_model_id`` tell
        where they came from.
    target
        The warehouse's folder.
    allow_nonfinite, allow_sources, threads, runner, progress
        As in `ingest`.

    Raises
    ------
    SourceError
        A file that is not what it should be.
    LakeError
        No warehouse is there, it is locked or cannot be written, or it holds this file already.
    """
    begin = time.monotonic()
    with (
        _changing(Path(target)) as (lake, state, con),
        open_source(source, allow_sources=allow_sources, progress=for_stage(progress, "decompressing")) as opened,
    ):
        told = opened.fingerprint()
        known = con.execute("select name from sources where sha256_samples = $1", [told["sha256_samples"]]).fetchall()
        if known:
            raise LakeError(f"{target} holds {opened.path.name} already, as {known[0][0]}")
        change = append_source(
            opened,
            Origin(encodable(opened.path.name)),
            lake,
            state,
            allow_nonfinite=allow_nonfinite,
            runner=runner or LocalRunner(threads),
            progress=progress,
        )
    return replace(change, seconds=time.monotonic() - begin)


@dataclass(frozen=True)
class Origin:
    """Where the models of a source came from: one name for all, or one a model with its checksum."""

    names: str | Sequence[str]
    sha256: Sequence[str] | None = None

    @property
    def name(self) -> str:
        """One for all of them."""
        return self.names if isinstance(self.names, str) else ", ".join(self.names)


def append_source(
    source: Source,
    origin: Origin,
    lake: Lake,
    state: State,
    *,
    allow_nonfinite: bool = False,
    runner: Runner | None = None,
    progress: Progress | None = None,
) -> Change:
    """Write the files of a source beside those of a warehouse, with ids and in coordinates that continue it."""
    with naming(source.path), threadpool_limits(limits=1, user_api="blas"):
        part = Part.of(source)
        tables = tabulate(
            source.meta(), source.n_filters, of_models=state.model_columns, of_layers=state.layer_columns
        ).of_source(origin.names, state.start, origin.sha256)
        lake.first_filter_id = state.start.filter_id
        runner = runner or LocalRunner()
        runner.prepare([source.path, lake.folder / LOCK])
        pipeline = Pipeline(
            source,
            [part],
            tables,
            lake,
            coordinates=state.coordinates,
            name=origin.name,
            runner=runner,
            progress=progress,
        )
        measured = pipeline.run(allow_nonfinite=allow_nonfinite)
    return Change(
        lake.folder,
        tuple(tables.models["model_id"].to_pylist()),
        tables.layers.num_rows,
        source.n_filters,
        measured.nonfinite_layers,
        measured.outside,
        0.0,
    )


def add(
    path: str | Path,
    models: Sequence[ExtractedModel],
    *,
    replace_known: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Change:
    """Add models to a warehouse, measured in the basis and range that it has; all of them or none.

    Parameters
    ----------
    path
        The warehouse's folder.
    models
        What `extract` found, each with its labels.
    replace_known
        Models that are there already, by the checksums of their files, are replaced and get new ids.
    threads, progress
        As in `ingest`.

    Raises
    ------
    SourceError
        Weights that are not finite or can no longer be read.
    LakeError
        No warehouse is there, it is locked or cannot be written, or it holds one of the models already.
    """
    begin = time.monotonic()
    with _changing(Path(path)) as (lake, state, con):
        known = dict(con.sql("select source_sha256, model_id from models where source_sha256 is not null").fetchall())
        _refuse_copies(lake.folder, models, known if not replace_known else {})
        with as_dataset(models) as dataset, open_source(dataset) as opened:
            change = append_source(
                opened, origin_of(models), lake, state, runner=LocalRunner(threads), progress=progress
            )
        stale = {known[model.checksum] for model in models if model.checksum in known}
        if stale:
            drop_models(lake, con, stale)
    return replace(change, seconds=time.monotonic() - begin)


def _refuse_copies(folder: Path, models: Sequence[ExtractedModel], known: Mapping[str, int]) -> None:
    seen: dict[str, str] = {}
    for model in models:
        if model.checksum in known:
            raise LakeError(
                f"{folder} holds {model.source} already, as model_id {known[model.checksum]}; "
                "use --replace to replace it"
            )
        if model.checksum in seen:
            raise LakeError(f"{model.source} is the same as {seen[model.checksum]}; name it once")
        seen[model.checksum] = model.source


def origin_of(models: Sequence[ExtractedModel]) -> Origin:
    """The files that models came from."""
    return Origin([encodable(Path(model.source).name) for model in models], [model.checksum for model in models])


@contextlib.contextmanager
def as_dataset(models: Sequence[ExtractedModel]) -> Iterator[Path]:
    """The models as a dataset file, for as long as the context lasts."""
    with tempfile.TemporaryDirectory(prefix="warehouse-models-") as folder:
        dataset = Path(folder) / "models.h5"
        write_dataset(models, dataset)
        yield dataset


def remove(path: str | Path, models: Sequence[str | int]) -> Change:
    """Remove models from a warehouse. Basis and range stay.

    Parameters
    ----------
    path
        The warehouse's folder.
    models
        Each by its model_id, file name or name.

    Raises
    ------
    LakeError
        No warehouse is there, it is locked or cannot be written, or nothing would be left.
    QueryError
        A model that is not there, or whose name several have.
    """
    begin = time.monotonic()
    with _changing(Path(path)) as (lake, _, con):
        ids = {model_id(con, model) for model in models}
        if ids >= {model for (model,) in con.sql("select model_id from models").fetchall()}:
            raise LakeError(f"{lake.folder}: these are all of its models; remove the folder instead")
        change = drop_models(lake, con, ids)
    return replace(change, seconds=time.monotonic() - begin)


def model_id(con: duckdb.DuckDBPyConnection, model: str | int) -> int:
    """The id of a model by its id, file name or name."""
    try:
        ((found,),) = con.execute("select model_id_of($1)", [str(model)]).fetchall()
    except duckdb.Error as error:
        raise QueryError(duckdb_message(error)) from error
    return int(found)


def drop_models(lake: Lake, con: duckdb.DuckDBPyConnection, model_ids: Collection[int]) -> Change:
    """Take models out of the files that the next commit names."""
    chosen = sorted(model_ids)
    query = "select layer_id, n_filters from layers where list_contains($1, model_id)"
    layers = con.execute(query, [chosen]).fetchall()
    gone = {"model_id": pa.array(chosen, pa.int32()), "layer_id": pa.array([layer for layer, _ in layers], pa.int32())}
    partitions = {f"model_id={model}" for model in chosen}
    for file in list(lake.files):
        if file.name == "filters":
            if Path(file.path).parent.name in partitions:
                lake.files.remove(file)
            continue
        names = pq.read_schema(lake.folder / file.path).names
        column = next((name for name in gone if name in names), None)
        if column is None:
            continue
        ids = pq.read_table(lake.folder / file.path, columns=[column])[column]
        if pc.any(pc.is_in(ids, gone[column])).as_py():
            lake.rewrite(file, partial(_without, column, gone[column]))
    return Change(lake.folder, tuple(chosen), len(layers), sum(n for _, n in layers), 0, 0, 0.0)


def _without(column: str, values: pa.Array, table: pa.Table) -> pa.Table:
    return table.filter(pc.invert(pc.is_in(table[column], values)))


def refit(
    path: str | Path, *, threads: int | None = None, runner: Runner | None = None, progress: Progress | None = None
) -> Coordinates:
    """Choose basis and range anew, over all filters that a warehouse holds, and count all histograms anew.

    The basis comes from the moments that are stored; the filters are read twice. Memory does not depend on their
    number.

    Parameters
    ----------
    path
        The warehouse's folder.
    threads, runner, progress
        As in `ingest`.

    Raises
    ------
    LakeError
        No warehouse is there, it is locked or cannot be written, one of its files is damaged, or no layer is finite.
    """
    with _changing(Path(path)) as (lake, state, con), threadpool_limits(limits=1, user_api="blas"):
        basis, n = _stored_basis(lake)
        segments, paths, unmeasured = _stored_segments(lake, con)
        counter = Counter(progress, sum(segment.n for segment in segments))
        runner = runner or LocalRunner(threads)
        runner.prepare([lake.folder / LOCK])
        finite = list(runner.map(list[bool], partial(passes.finite_runs, unmeasured=unmeasured), paths, segments))
        measured = [
            [run for run, is_finite in zip(segment.runs, each, strict=True) if is_finite]
            for segment, each in zip(segments, finite, strict=True)
        ]
        n_finite = sum(run.n for runs in measured for run in runs)
        if n_finite != n:
            raise LakeError(f"{lake.folder}: layer_moments are of {n:,} filters and {n_finite:,} are finite: damaged")

        counter.begin("measuring")
        blocks = [
            Block(path, segment.runs[0].start, filters)
            for path, segment, runs in zip(paths, segments, measured, strict=True)
            for run in runs
            for filters in run.blocks()
        ]
        # the second time they are in memory if there is room for all of them
        is_cached = all(may_be_cached([path.stat().st_size for path in paths]))
        low, high = range_of(blocks, basis, runner, counter.add, is_cached=is_cached)
        coordinates = Coordinates.spanning(basis, n, low, high)

        counter.begin("counting")
        count = partial(passes.count, coordinates=coordinates, is_kept=True)
        pieces = paths, segments, finite, [is_cached] * len(paths)
        counted = runner.map(passes.Counted, count, *pieces, done=counter.add, waits=not is_cached)
        tallies = [tally for each in counted for tally in each.tallies]

        lake.files = [file for file in state.files if file.name not in COORDINATE_TABLES]
        for name, table in rollups.basis_tables(coordinates).items():
            lake.write_table(name, table)
        layer_ids = [run.layer_id for segment in segments for run in segment.runs]
        lake.write_batches("layer_histograms", *rollups.layer_histograms(layer_ids, [each.counts for each in tallies]))
    return coordinates


def _stored_basis(lake: Lake) -> tuple[Basis, int]:
    """Basis of all filters, and their number, from the moments of the layers."""
    merged = Moments()
    for file in lake.files:
        if file.name == "layer_moments":
            table = pq.read_table(lake.folder / file.path, columns=["n", "mean", "scatter"])
            merged = merge_moments([merged, *_moments(table.filter(pc.greater(table["n"], 0)))])
    if not merged.n:
        raise LakeError(f"{lake.folder}: every layer has NaN or infinite weights, there is no basis of them")
    if not np.isfinite(merged.scatter).all():
        raise LakeError(f"{lake.folder}: layer_moments are not finite: damaged")
    return Basis.of(merged), merged.n


def _moments(table: pa.Table) -> Iterator[Moments]:
    """Moments from their packed columns."""
    columns = (table[name].to_pylist() for name in ("n", "mean", "scatter"))
    for n, mean, packed in zip(*columns, strict=True):
        scatter = np.zeros((SIZE, SIZE))
        scatter[TRIANGLE] = packed
        yield Moments(n, np.array(mean), np.triu(scatter) + np.triu(scatter, 1).T)


def _stored_segments(lake: Lake, con: duckdb.DuckDBPyConnection) -> tuple[list[Segment], list[Path], set[int]]:
    """The runs in each file of filters, in the order of the filters; the files; the layers that are not measured."""
    query = "select layer_id, model_id, first_filter_id, n_filters from layers order by first_filter_id"
    layers = con.sql(query).fetchall()
    starts = [first for _, _, first, _ in layers]
    query = "select layer_id from layer_moments where n is null and layer_id is not null"
    unmeasured = {layer for (layer,) in con.sql(query).fetchall()}
    found = []
    for file in lake.files:
        if file.name == "filters":
            path = lake.folder.absolute() / file.path
            first = _first_filter(path)
            inside = layers[bisect_left(starts, first) : bisect_left(starts, first + file.n_rows)]
            found.append((first, Segment(tuple(runs_of(inside, first + file.n_rows, first))), path))
    _, segments, paths = zip(*sorted(found, key=itemgetter(0)), strict=True)
    return list(segments), list(paths), unmeasured


def _first_filter(path: Path) -> int:
    with naming_damage(path):
        return int(pq.read_metadata(path).row_group(0).column(0).statistics.min)
