"""Verifies a warehouse: that its files are whole, and that its tables agree with them and with each other.

Gets the folder; hands on a report of everything that is wrong. The database's blocks are checked before DuckDB reads
them, and paths that it names before they are opened. Of the database only tables are read, never its views and macros:
it may be anybody's.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import duckdb
import numpy as np
from threadpoolctl import threadpool_limits

from warehouse import block_checksums, catalog, catalog_check, lake_check
from warehouse.connection import connect
from warehouse.errors import LakeError
from warehouse.lake import DATABASE, LakeFile, lake_tables
from warehouse.lake_check import Checked, Placement, Problem
from warehouse.runner import Counter, LocalRunner, Progress, Runner

LAYERS = 500
"""Layers that are computed anew by default."""


@dataclass(frozen=True)
class Verification:
    """What was found.

    Attributes
    ----------
    path
        The warehouse's folder.
    problems
        Everything that is wrong, each as one line of text.
    leftovers
        Paths of files that no commit names and ``warehouse vacuum`` removes; no problem.
    files, filters, layers
        How many of them belong to the warehouse: what was checked.
    recomputed
        Layers whose checksum and moments were computed anew from their filters.
    quick
        Whether nothing was read whole.
    """

    path: Path
    problems: tuple[Problem, ...]
    leftovers: tuple[str, ...] = ()
    files: int = 0
    filters: int = 0
    layers: int = 0
    recomputed: int = 0
    quick: bool = False

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify(
    path: str | Path,
    quick: bool = False,
    *,
    layers: int = LAYERS,
    threads: int | None = None,
    runner: Runner | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Check that a warehouse is whole and undamaged. Nothing is changed, and nothing outside its folder is read.

    Every byte of ``warehouse.duckdb`` is checked against the checksums of its blocks; every file that it lists by
    presence, size, SHA-256, schema and number of rows; tables against their files; id and layer of each filter against
    table ``layers``; the numbers of filters in all tables against each other. Of evenly spaced layers, the checksum and
    the moments are computed anew from their filters.

    Parameters
    ----------
    path
        The warehouse's folder.
    quick
        Leave out what reads whole files of the lake: their SHA-256, the contents of tables, and the filters.
    layers
        How many layers to compute anew, at most.
    threads
        Worker threads, by default one per core.
    progress
        Is told the stage, the rows or filters done in it and those in all.

    Raises
    ------
    LakeError
        No warehouse is there.
    """
    folder = Path(path)
    database = folder / DATABASE
    damage = block_checksums.damage(database) if database.is_file() else None
    problems = [Problem(DATABASE, damage.what)] if damage else []
    # what is no database of DuckDB's it would take for another program's, and look for an extension
    if damage and not damage.is_database:
        return Verification(folder, tuple(problems), quick=quick)
    try:
        con = connect(folder)
    except LakeError:
        if not problems:
            raise
        return Verification(folder, tuple(problems), quick=quick)
    with con, threadpool_limits(limits=1, user_api="blas"):
        con.execute(f"set memory_limit = '{catalog.MEMORY_LIMIT}'")
        # away from the macros of the warehouse, which may bear the names of DuckDB's own
        con.execute("use memory")
        # queries over a sound warehouse fit in memory; over another one they shall not fill the disk
        con.execute("set temp_directory = ''")
        runner = runner or LocalRunner(threads)
        runner.prepare([folder / DATABASE])
        verifier = _Verifier(folder, con, problems, quick=quick, runner=runner, progress=progress)
        return verifier.run(layers)


class _Verifier:
    """The checks of one warehouse, in the order in which each relies on those before.

    Parameters
    ----------
    folder, con
        The warehouse, and its database, attached as ``warehouse``.
    problems
        Those of the database as a file: if there are any, its tables are not relied on.
    quick, runner, progress
        As in `verify`.
    """

    def __init__(
        self,
        folder: Path,
        con: duckdb.DuckDBPyConnection,
        problems: list[Problem],
        *,
        quick: bool,
        runner: Runner,
        progress: Progress | None,
    ) -> None:
        self.folder, self.con, self.problems, self.is_readable = folder, con, problems, not problems
        self.quick, self.runner, self.progress = quick, runner, progress
        self.columns: dict[str, list[str]] = {}
        self.placement: Placement | None = None

    def run(self, n_layers: int) -> Verification:
        """Do all of them; compute at most ``n_layers`` anew."""
        files: list[LakeFile] = []
        with self._telling("does not tell its files"):
            self.columns = catalog_check.stored_tables(self.con)
            files = catalog_check.listed_files(self.con) if "files" in self.columns else []
        if not files:
            self.problems.append(Problem(DATABASE, "lists no files, so that the lake cannot be checked"))
            return Verification(self.folder, tuple(self.problems), quick=self.quick)
        if self.is_readable:
            self._check_tables()
        foreign, leftovers = lake_check.strangers(self.folder, {file.path for file in files})
        self.problems += foreign
        checked = self._check_files(files)
        self.problems += _overlaps(checked)
        recomputed = 0
        if self.is_readable:
            self._compare_tables(checked)
        if self.placement and not self.quick:
            with self._telling("table layer_moments or layer_checksums cannot be read"):
                recomputed = self._recompute(self.placement, checked, n_layers)
        return Verification(
            self.folder,
            tuple(self.problems),
            tuple(leftovers),
            len(files),
            sum(file.n_rows for file in files if file.name == "filters"),
            len(self.placement.layers) if self.placement else 0,
            recomputed,
            self.quick,
        )

    @contextlib.contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        """Take an error of DuckDB for a problem with the database."""
        try:
            yield
        except duckdb.Error as error:
            self.problems.append(Problem(DATABASE, f"{what}: {catalog_check.reason(error)}"))

    def _check_tables(self) -> None:
        missing = (lake_tables() - {"filters"} | {"analyses", "files", "help"}) - self.columns.keys()
        self.problems += [Problem(DATABASE, f"has no table {name}") for name in sorted(missing)]
        if missing:
            return
        faults = catalog_check.faults(self.con)
        self.problems += faults.values()
        if "layers" not in faults:
            with self._telling("table layers cannot be read"):
                self.placement = Placement(catalog_check.stored_layers(self.con))

    def _check_files(self, files: Sequence[LakeFile]) -> list[Checked]:
        refused = [lake_check.unreadable(self.folder, file) for file in files]
        readable = [file for file, problem in zip(files, refused, strict=True) if not problem]
        counter = Counter(self.progress, sum(file.n_rows for file in readable))
        counter.begin("checking files")

        check = partial(
            lake_check.check_file,
            self.folder.absolute(),
            columns=self.columns,
            placement=self.placement,
            quick=self.quick,
        )
        checked = [Checked(file, problem) for file, problem in zip(files, refused, strict=True) if problem]
        checked += self.runner.map(Checked, check, readable, done=counter.add)
        self.problems += [each.problem for each in checked if each.problem]
        return checked

    def _compare_tables(self, checked: Sequence[Checked]) -> None:
        of_table: dict[str, list[Checked]] = defaultdict(list)
        for each in checked:
            of_table[each.file.name].append(each)
        for name in sorted(lake_tables() & self.columns.keys()):
            # what a broken file holds is not the table's fault
            if not any(each.problem for each in of_table[name]):
                files = [each.file for each in of_table[name]]
                self.problems += catalog_check.table_faults(self.con, name, files, quick=self.quick)

    def _recompute(self, placement: Placement, checked: Sequence[Checked], n_layers: int) -> int:
        """Compute evenly spaced layers anew, as far as their files are sound; return how many."""
        layers = placement.layers
        positions = np.linspace(0, len(layers) - 1, min(n_layers, len(layers))).astype(int)
        told = catalog_check.measured(self.con, [layers[i][0] for i in positions.tolist()])
        chosen = [(each, [run for run in placement.runs(each.filter_ids) if run.layer_id in told]) for each in checked]
        chosen = [(each, runs) for each, runs in chosen if runs]
        counter = Counter(self.progress, sum(run.n for _, runs in chosen for run in runs))
        counter.begin("recomputing")
        found = self.runner.map(
            list[str],
            lake_check.recompute,
            [self.folder.absolute() / each.file.path for each, _ in chosen],
            [each.filter_ids.start for each, _ in chosen],
            [runs for _, runs in chosen],
            [{run.layer_id: told[run.layer_id] for run in runs} for _, runs in chosen],
            done=counter.add,
        )
        for (each, _), faults in zip(chosen, found, strict=True):
            self.problems += [Problem(each.file.path, fault) for fault in faults]
        return sum(len(runs) for _, runs in chosen)


def _overlaps(checked: Sequence[Checked]) -> Iterator[Problem]:
    """Files of filters that hold some that another holds too."""
    ordered = sorted((each for each in checked if each.filter_ids), key=lambda each: each.filter_ids.start)
    for one, other in pairwise(ordered):
        if other.filter_ids.start < one.filter_ids.stop:
            yield Problem(other.file.path, f"holds filters that {one.file.path} holds too")
