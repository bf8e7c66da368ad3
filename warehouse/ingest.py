"""From a dataset file to a committed warehouse: locks the target, runs the pipeline and commits by one rename."""

from __future__ import annotations

import contextlib
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from threadpoolctl import threadpool_limits

from warehouse import catalog
from warehouse.errors import EngineError, LakeError, SourceError, system_error_number
from warehouse.joined import open_all
from warehouse.journal import Journal, journaled_files
from warehouse.lake import (
    DATABASE,
    EXTRACTED,
    JOURNAL,
    LOCK,
    Lake,
    disk_errors,
    is_unfinished,
    leftovers,
    lock,
    make_folder,
    remove_empty_folders,
)
from warehouse.maintenance import committed_paths
from warehouse.pipeline import Pipeline
from warehouse.runner import LocalRunner, Progress, Runner
from warehouse.source import naming
from warehouse.version import __version__


@dataclass(frozen=True)
class Summary:
    """What an ingest did.

    Attributes
    ----------
    path
        The warehouse's folder.
    filters, layers, models
        How many it holds.
    unclaimed_filters
        Filters that no layer claims; they are kept with NULL as their layer.
    nonfinite_layers
        Layers with NaN or infinite weights; their statistics are NULL.
    seconds
        Time taken.
    bytes
        Size of the committed files.
    leftover_bytes
        Size of files that a replaced warehouse or a broken ingest left behind.
    notes
        What was changed or left out of models, by their files.
    left_out
        What is wrong with files that were skipped.
    """

    path: Path
    filters: int
    layers: int
    models: int
    unclaimed_filters: int
    nonfinite_layers: int
    seconds: float
    bytes: int
    leftover_bytes: int
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def filters_per_second(self) -> float:
        """Rate over the whole ingest."""
        return self.filters / self.seconds


def ingest(
    source: str | Path | Sequence[str | Path],
    target: str | Path,
    *,
    replace: bool = False,
    restart: bool = False,
    allow_nonfinite: bool = False,
    allow_sources: Iterable[str | Path] = (),
    labels: Mapping[Path, Mapping[str, object]] | None = None,
    skip_bad: bool = False,
    threads: int | None = None,
    runner: Runner | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Make a warehouse of a dataset file, of several, or of model files.

    Parameters
    ----------
    source
        ``dataset.h5`` or ``dataset.h5.xz`` in a layout of CNN Filter DB or its relatives; or a list of such files,
        or of models in any format of `extract`.
    target
        The warehouse's folder, to be created.
    replace
        Replace the warehouse at ``target`` if there is one. Until the commit its readers see the old one.
    restart
        Begin anew where an interrupted ingest of the same source would go on.
    allow_nonfinite
        Keep layers with NaN or infinite weights, with NULL as their statistics, instead of refusing the file.
    allow_sources
        Files, and folders of files, from which a virtual ``/filters`` dataset may draw; by default only its own file.
    labels
        What is known of models, by their files, as `extract` takes it.
    skip_bad
        Leave out files that cannot be read, and tell of them in the summary, instead of ending with the first.
    threads
        Threads that compute, by default one per core. What is read back from a disk has twice as many, half of which
        wait for it. The result does not depend on their number.
    runner
        Applies the stages elsewhere, such as `warehouse.on_spark.SparkRunner`; ``threads`` of this process by default.
    progress
        Is told the stage, the filters done in it and the filters in all.

    Raises
    ------
    SourceError
        A file that is not what it should be.
    LakeError
        A target that exists, is locked or cannot be written.

    Notes
    -----
    Nothing that exists is changed before the last step, one rename. Memory depends on ``threads``, not on
    the number of filters. What was finished before a crash, a full disk or an interruption is kept, and the same call
    goes on from there.
    """
    begin = time.monotonic()
    target = Path(target)
    paths = [Path(source)] if isinstance(source, str | Path) else [Path(each) for each in source]
    runner = runner or LocalRunner(threads)
    with (
        _locked_target(target, replace=replace, restart=restart, runner=runner, files=paths) as work,
        _scratch(target) as scratch,
        open_all(
            paths,
            scratch,
            labels=labels,
            allow_sources=allow_sources,
            skip_bad=skip_bad,
            runner=runner,
            progress=progress,
        ) as opened,
    ):
        lake, tables, n_filters = work.lake, opened.tables, opened.source.n_filters
        with naming(opened.source.path), threadpool_limits(limits=1, user_api="blas"):
            pipeline = Pipeline(opened.source, opened.parts, tables, lake, runner=runner, progress=progress)
            told = {"n_filters": n_filters, "allow_nonfinite": allow_nonfinite, "version": __version__}
            pipeline.journal = work.journal = Journal(
                target, {**pipeline.fingerprint, **told, "layers": pipeline.plan_checksum()}
            )
            measured = pipeline.run(allow_nonfinite=allow_nonfinite)
        commit(lake)
        work.journal.remove()
        return Summary(
            path=target,
            filters=n_filters,
            layers=tables.layers.num_rows,
            models=tables.models.num_rows,
            unclaimed_filters=pipeline.n_unclaimed,
            nonfinite_layers=measured.nonfinite_layers,
            seconds=time.monotonic() - begin,
            bytes=sum(file.bytes for file in lake.files) + (target / DATABASE).stat().st_size,
            leftover_bytes=sum(
                path.stat().st_size
                for path in leftovers(target, {file.path for file in lake.files})
                if path.parent != scratch
            ),
            notes=tuple(f"{each.part.path}: {note}" for each in opened.extracted for note in each.notes),
            left_out=tuple(each.reason for each in opened.left_out),
        )


@contextlib.contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Where in a locked folder there may be one for what is extracted from models, until the context ends."""
    scratch = folder / f"{EXTRACTED}{uuid.uuid4().hex}"
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@dataclass
class _Work:
    """What an ingest writes, and once its source is open the journal of what is finished."""

    lake: Lake
    journal: Journal | None = None

    def clear(self, error: BaseException) -> None:
        """Remove what an ingest that failed has written, but for what its next run can use."""
        if self.journal and self.journal.n_finished and not _is_refused(error):
            self.lake.discard(but=journaled_files(self.lake.folder))
        else:
            if self.journal and not self.lake.is_committed:
                _forget(self.lake.folder, {file.path for file in journaled_files(self.lake.folder)})
            self.lake.discard()


def _is_refused(error: BaseException) -> bool:
    """Whether a source is refused for what it holds, so that it will be another one when it is not; else try again."""
    return isinstance(error, SourceError) and not system_error_number(error)


@contextlib.contextmanager
def _locked_target(
    target: Path, *, replace: bool, restart: bool, runner: Runner, files: Sequence[Path]
) -> Iterator[_Work]:
    """Lock the folder for a new state; if anything fails before the commit, clear up there.

    All workers have to see the folder and the files to read, of which the latter need not exist.
    """
    catalog.search_in(target)  # refuses a path below which DuckDB could not read
    with disk_errors(target):
        if target.exists() and not target.is_dir():
            raise LakeError(f"{target} is a file; name a folder for the warehouse")
        is_empty = not target.exists() or not any(target.iterdir())
        if not is_empty and not (target / DATABASE).exists() and not is_unfinished(target):
            raise LakeError(f"{target} holds other files and is no warehouse; name a new folder")
        make_folder(target)
    with lock(target):
        # another ingest may have had the lock until now
        is_new = not any(path.name != LOCK for path in target.iterdir())
        work = _Work(Lake(target))
        try:
            if (target / DATABASE).exists() and not replace:
                raise LakeError(
                    f"{target} is a warehouse already; use --replace to make it anew, --append to add to it, "
                    "or name another"
                )
            runner.prepare([*filter(Path.is_file, files), target / LOCK])
            _tidy_journal(target, restart=restart)
            yield work
        except BaseException as error:
            work.clear(error)
            kept = (target / JOURNAL).exists()
            if is_new and not kept and not work.lake.is_committed:
                # what workers wrote and could not tell of; nothing else was here
                for path in leftovers(target, committed_paths(target)):
                    path.unlink(missing_ok=True)
                remove_empty_folders(target)
                (target / LOCK).unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    target.rmdir()
            if kept and isinstance(error, (EngineError, LakeError, SourceError)) and work.journal:
                raise type(error)(
                    f"{error}; what is finished is kept, and the same command goes on from there"
                ) from error
            raise


def _tidy_journal(target: Path, *, restart: bool) -> None:
    """Remove a journal that has been committed, and with ``restart`` any, with the files that only it names."""
    if not (target / JOURNAL).exists():
        return
    files = {file.path for file in journaled_files(target)}
    committed = committed_paths(target)
    if restart or files & committed:
        _forget(target, files - committed)


def _forget(target: Path, files: Iterable[str]) -> None:
    """Remove the journal and those files that it names."""
    for path in files:
        (target / path).unlink(missing_ok=True)
    (target / JOURNAL).unlink(missing_ok=True)


def commit(lake: Lake) -> None:
    """Build the database beside the old one and put it in its place."""
    new = lake.folder / f"{DATABASE}.{uuid.uuid4().hex}.tmp"
    try:
        catalog.build(new, lake.folder, lake.files)
        lake.commit(new)
    finally:
        for path in lake.folder.glob(f"{new.name}*"):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
