"""Checks the files of a lake one by one: that each is what the commit wrote, by its footer or byte by byte.

Gets the list of files and where the layers should be; hands on problems in words. No file is opened before its path is
known to be one that a commit writes, and to lead to a file of this very folder: the list may be hostile.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from warehouse.filter_file import FilterFile
from warehouse.lake import DATABASE, FILTER_SCHEMA, NO_MODEL, LakeFile, table_of, unnamed
from warehouse.layer_scan import LayerExtent, LayerScan
from warehouse.legible import printable
from warehouse.plan import BLOCK_FILTERS, SEGMENT_FILTERS, Run, runs_of
from warehouse.runner import Done
from warehouse.statistics import TRIANGLE, Moments

ROUNDING = 1e-9
"""By which moments may differ, as a share of the largest value that they can have."""


@dataclass(frozen=True)
class Problem:
    """What is wrong with a file, its path from the warehouse's folder, and what to do; one line of printable text."""

    path: str
    what: str
    remedy: str = "put back a sound copy of it, or make the warehouse anew with `warehouse ingest --replace`"

    def __str__(self) -> str:
        return printable(f"{self.path}: {self.what}; {self.remedy}")


def first_line(message: object) -> str:
    """A message of another library without what it tells its own developers."""
    return str(message).partition("\n")[0]


def unreadable(folder: Path, file: LakeFile) -> Problem | None:
    """Why a file that the warehouse lists must not or cannot be opened; None where it may."""
    if table_of(file.path) != file.name:
        what = f"table files lists {file.path!r} for table {file.name!r}, which no commit writes; it was not read"
        return Problem(DATABASE, what)
    path = folder / file.path
    if os.path.realpath(path) != os.path.join(os.path.realpath(folder), file.path):  # noqa: PTH118 - as text
        return Problem(file.path, "is reached by a symbolic link and was not read", "put the file itself there")
    if not path.is_file():
        return Problem(file.path, "is no regular file" if path.exists() else "is missing")
    return None


def strangers(folder: Path, named: Collection[str]) -> tuple[list[Problem], list[str]]:
    """Files that do not belong to a warehouse: foreign ones, and leftovers of its own that `vacuum` removes."""
    problems, leftovers = [], []
    for path, is_leftover in unnamed(folder, named):
        if is_leftover:
            leftovers.append(path)
        elif (folder / path).is_symlink():
            problems.append(Problem(path, "is a symbolic link", "put there what it leads to, or remove it"))
        else:
            problems.append(Problem(path, "is no part of the warehouse", "move it elsewhere"))
    return problems, leftovers


class Placement:
    """Where the filters of each layer are.

    Parameters
    ----------
    layers
        (layer_id, model_id, first filter, number of filters) in the order of the filters, without overlap.
    """

    def __init__(self, layers: Sequence[tuple[int, int, int, int]]) -> None:
        self.layers = layers
        self._starts = [first for _, _, first, _ in layers]

    def runs(self, ids: range) -> list[Run]:
        """Runs of filters from the first that begins within ``ids`` to the last."""
        inside = self.layers[bisect_left(self._starts, ids.start) : bisect_left(self._starts, ids.stop)]
        return list(runs_of(inside, ids.stop, ids.start))


@dataclass(frozen=True)
class Checked:
    """A file after its checks: what is wrong with it, and the ids of its filters if nothing is."""

    file: LakeFile
    problem: Problem | None = None
    filter_ids: range = range(0)


def check_file(
    folder: Path,
    file: LakeFile,
    columns: Mapping[str, Collection[str]],
    placement: Placement | None,
    *,
    quick: bool,
    done: Done,
) -> Checked:
    """Check one file whose path is known to be sound.

    Parameters
    ----------
    folder, file
        The warehouse's folder, and the file as the commit lists it.
    columns
        The columns of each table, as far as they are known.
    placement
        Where the filters of the layers are; None if that cannot be told.
    quick
        Read nothing but the footer.
    done
        Is told how many rows were checked.
    """
    try:
        with _telling_faults():
            return Checked(file, filter_ids=_check(folder / file.path, file, columns, placement, quick=quick))
    except _FileError as fault:
        return Checked(file, Problem(file.path, str(fault)))
    finally:
        done(file.n_rows)


class _FileError(Exception):
    """What is wrong with a file, in words."""


@contextlib.contextmanager
def _telling_faults() -> Iterator[None]:
    """Turn what reading a file may raise into a fault."""
    try:
        yield
    except (pa.ArrowException, ValueError) as error:
        raise _FileError(f"is no Parquet file that can be read: {first_line(error)}") from error
    except OSError as error:
        raise _FileError(f"cannot be read: {first_line(error.strerror or error)}") from error


def _check(
    path: Path,
    file: LakeFile,
    columns: Mapping[str, Collection[str]],
    placement: Placement | None,
    *,
    quick: bool,
) -> range:
    size = path.stat().st_size
    if size != file.bytes:
        raise _FileError(f"has {size:,} bytes instead of {file.bytes:,}")
    if not quick:
        with path.open("rb") as opened:
            if hashlib.file_digest(opened, "sha256").hexdigest() != file.sha256:
                raise _FileError("is damaged: its SHA-256 is not that in table files")
    with pq.ParquetFile(path) as parquet:
        if parquet.metadata.num_rows != file.n_rows:
            raise _FileError(f"has {parquet.metadata.num_rows:,} rows instead of {file.n_rows:,}")
        if file.name != "filters":
            unknown = set(parquet.schema_arrow.names) - set(columns.get(file.name, parquet.schema_arrow.names))
            if unknown:
                raise _FileError(f"has columns that table {file.name} has not: {', '.join(sorted(unknown))}")
            return range(0)
        if not parquet.schema_arrow.equals(FILTER_SCHEMA):
            raise _FileError("has not the columns of filters")
        ids = _filter_ids(parquet.metadata)
        if placement:
            _check_layers(file, ids, placement)
            if not quick:
                _check_ids(parquet, ids, placement)
        return ids


def _filter_ids(metadata: pq.FileMetaData) -> range:
    """The ids of a file's filters, by what its footer tells of each row group."""
    start, stop = None, 0
    for i in range(metadata.num_row_groups):
        group = metadata.row_group(i)
        told = group.column(0).statistics
        if told is None or not told.has_min_max:
            raise _FileError("does not tell the ids of its filters")
        start, stop = (told.min, told.min) if start is None else (start, stop)
        if (told.min, told.max) != (stop, stop + group.num_rows - 1):
            raise _FileError(f"has gaps in its filter ids at {stop}")
        # what reads a row group takes memory for all of it
        if group.num_rows > SEGMENT_FILTERS:
            raise _FileError(f"has {group.num_rows:,} filters in a row group, more than ingest writes")
        stop = told.max + 1
    if start is None:
        raise _FileError("holds no filters")
    return range(start, stop)


def _check_layers(file: LakeFile, ids: range, placement: Placement) -> None:
    """A model's file holds nothing but whole layers of that model."""
    partition = Path(file.path).parent.name.removeprefix("model_id=")
    model = None if partition == NO_MODEL else int(partition)
    runs = placement.runs(ids)
    if runs[-1].stop != ids.stop or any(run.model_id != model for run in runs):
        owner = "that no layer claims" if model is None else f"of whole layers of model_id {model}"
        raise _FileError(f"its filters {ids.start} to {ids.stop - 1} are, by table layers, not those {owner}")


def _check_ids(parquet: pq.ParquetFile, ids: range, placement: Placement) -> None:
    """Every filter has the id and the layer that its place calls for."""
    runs = placement.runs(ids)
    starts = np.array([run.start for run in runs])
    layers = np.array([-1 if run.layer_id is None else run.layer_id for run in runs])
    position = ids.start
    for batch in parquet.iter_batches(BLOCK_FILTERS, columns=["filter_id", "layer_id"], use_threads=False):
        found = batch["filter_id"].to_numpy()
        if not np.array_equal(found, np.arange(position, position + len(found))):
            raise _FileError(f"its filter ids from {position} on are not in order")
        wanted = layers[np.searchsorted(starts, found, side="right") - 1]
        if not np.array_equal(batch["layer_id"].fill_null(-1).to_numpy(zero_copy_only=False), wanted):
            raise _FileError(f"its filters from {position} on are of other layers than table layers tells")
        position += len(found)


@dataclass(frozen=True)
class Measured:
    """What a warehouse tells of one layer: ``n`` and the moments are None where weights are not finite."""

    sha256: str
    n: int | None
    mean: Sequence[float] | None
    scatter: Sequence[float] | None
    raw_mean: Sequence[float] | None
    raw_scatter: Sequence[float] | None


def recompute(
    path: Path, first: int, runs: Sequence[Run], told: Mapping[int | None, Measured], done: Done
) -> list[str]:
    """Compute checksum and moments of layers anew and tell which are not those that are stored.

    Parameters
    ----------
    path, first
        A sound file of filters, and the id of its first.
    runs
        The layers to look at.
    told
        What is stored of each.
    done
        Is told how many filters were worked off.
    """
    faults = []
    try:
        with _telling_faults(), FilterFile(path, first) as file:
            for run in runs:
                wrong = _difference(run, file, told[run.layer_id])
                if wrong:
                    faults.append(f"the filters of layer_id {run.layer_id} do not have the {wrong} that is stored")
                done(run.n)
    except _FileError as fault:
        faults.append(str(fault))
    return faults


def _difference(run: Run, file: FilterFile, stored: Measured) -> str | None:
    """The first statistic of a layer that is not what is stored; None where all are."""
    digest = hashlib.sha256()
    extent, scan = LayerExtent(), LayerScan()
    for block in run.blocks():
        weights = file.read(block.start, block.stop)
        digest.update(np.ascontiguousarray(weights.T, "<f4").data)
        extent = extent.merge(LayerExtent.of(weights))
        if extent.is_finite:
            scan = scan.merge(LayerScan.of(weights, extent))
    if digest.hexdigest() != stored.sha256:
        return "checksum"
    if not extent.is_finite:
        return None if stored.n is None else "number of measured filters"
    if not _agree(scan.raw, stored.raw_mean, stored.raw_scatter, extent.peak):
        return "mean and scatter of raw filters"
    return None if _agree(scan.scaled, stored.mean, stored.scatter, 1.0) else "mean and scatter of scaled filters"


def _agree(found: Moments, mean: Sequence[float] | None, scatter: Sequence[float] | None, peak: float) -> bool:
    """Whether moments are those stored, but for the rounding of sums of values up to ``peak``."""
    if mean is None or scatter is None:
        return False
    # the types of the table's columns fix the lengths; NULL becomes NaN
    means, scatters = np.array(mean, np.float64), np.array(scatter, np.float64)
    return bool(
        (np.abs(means - found.mean) <= ROUNDING * peak).all()
        and (np.abs(scatters - found.scatter[TRIANGLE]) <= ROUNDING * found.n * peak**2).all()
    )
