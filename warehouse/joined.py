"""Several sources as one: dataset files, or model files, whose filters and layers follow one another.

Gets paths; hands on a source that reads across files, and tables with ids that continue from file to file. A file is a
description that any process opens when it reads it, so that thousands of them take no thousands of handles. Model files
become dataset files first, each a piece of work of its own.
"""

from __future__ import annotations

import hashlib
import uuid
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow.compute as pc

from warehouse import hdf5
from warehouse.errors import SourceError
from warehouse.extraction import extract, write_dataset
from warehouse.extraction.dataset import DTYPE
from warehouse.extraction.files import format_of, reading
from warehouse.lake import disk_errors
from warehouse.legible import encodable
from warehouse.metadata import Metadata, Start, source_tables
from warehouse.runner import Counter, Done, LocalRunner, Progress, Runner, for_stage
from warehouse.source import FilterSource, Source, SourceFile, close_reopened, is_packed, naming, open_source

_OF_DATASETS = ("filters", "filter", "meta")
_MODEL_SUFFIXES = (".onnx", ".safetensors", ".pt", ".pth", ".th", ".ckpt", ".keras")
_DATASET_SUFFIXES = (".h5", ".hdf5", ".xz")  # a file of such a name that is neither is no model, but a spoiled dataset


@dataclass(frozen=True)
class Part:
    """One of several files, closed.

    Attributes
    ----------
    file
        What opens it.
    path
        The file as the user named it: the dataset, or the model that the dataset was made of.
    n_filters, dtype
        As in `Source`; the type by its name.
    fingerprint
        As `Source.fingerprint` gives it; of a model's file both checksums are that of the whole file.
    checksum
        SHA-256 of the model's file; None for a dataset.
    """

    file: SourceFile
    path: Path
    n_filters: int
    dtype: str
    fingerprint: dict[str, str | int]
    checksum: str | None = None

    @classmethod
    def of(cls, source: Source) -> Part:
        """Describe a dataset that is open."""
        return cls(source.file, source.path, source.n_filters, source.dtype.name, source.fingerprint())

    def fingerprint_now(self) -> dict[str, str | int]:
        """The fingerprint taken anew; a model has been read for good."""
        return self.file.open().fingerprint() if self.checksum is None else self.fingerprint

    def tables(self, of_models: Collection[str] = (), of_layers: Collection[str] = ()) -> Metadata:
        """Its tables with ids of their own, as `source_tables` makes them."""
        with naming(self.path):
            source = self.file.open()
            return source_tables(source.meta(), source.n_filters, of_models=of_models, of_layers=of_layers)


@dataclass(frozen=True)
class Extracted:
    """A model whose filters are in a dataset file of its own.

    Attributes
    ----------
    part
        The dataset file.
    name, format
        As in `ExtractedModel`.
    n_layers
        Number of its 3x3 layers.
    notes
        What was changed or left out.
    """

    part: Part
    name: str
    format: str
    n_layers: int
    notes: list[str]


@dataclass(frozen=True)
class Bad:
    """A file that is left out, and what is wrong with it, in words that name it."""

    path: Path
    reason: str


class JoinedSource:
    """The filters of several files one after the other, read as `Source` reads those of one.

    Attributes
    ----------
    parts
        The files.
    path
        Names the first for messages, and how many more there are.
    n_filters
        Of all files.
    dtype
        The widest.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = list(parts)
        self.dtype: np.dtype[np.floating] = np.result_type(*{part.dtype for part in parts})
        self._starts = [0, *accumulate(part.n_filters for part in parts)]
        self.n_filters = self._starts[-1]
        self.path = parts[0].path.with_name(_named(parts[0].path.name, len(parts)))

    def path_of(self, filter_id: int) -> Path:
        """The file that holds a filter."""
        return self.parts[bisect_right(self._starts, filter_id) - 1].path

    def read(self, start: int, stop: int, out: np.ndarray | None = None) -> np.ndarray:
        """Read the filters ``start`` to ``stop - 1``, as `Source.read` does; opens only the files that hold them."""
        if not 0 <= start <= stop <= self.n_filters:
            raise SourceError(
                f"{self.path}: filters {start} to {stop} were asked for, the files hold {self.n_filters:,}"
            )
        rows = np.empty((stop - start, 9), np.float32) if out is None else out
        number, first = bisect_right(self._starts, start) - 1, start
        while first < stop:
            begin, end = self._starts[number : number + 2]
            last = min(stop, end)
            self.parts[number].file.open().read(first - begin, last - begin, out=rows[first - start : last - start])
            number, first = number + 1, last
        return rows

    def fingerprint(self) -> dict[str, str | int]:
        """Identify all files, by the keys of `Source.fingerprint`: sizes added, the last time, checksums of checksums.

        The fingerprint of a single file is its own.
        """
        return joined_fingerprint([part.fingerprint_now() for part in self.parts])


def joined_fingerprint(each: Sequence[dict[str, str | int]]) -> dict[str, str | int]:
    """One fingerprint of several."""
    if len(each) == 1:
        return each[0]

    def sha256(key: str) -> str:
        return hashlib.sha256("\n".join(str(one[key]) for one in each).encode()).hexdigest()

    return {
        "name": _named(str(each[0]["name"]), len(each)),
        "size": sum(int(one["size"]) for one in each),
        "mtime": max(str(one["mtime"]) for one in each),
        "sha256_header": sha256("sha256_header"),
        "sha256_samples": sha256("sha256_samples"),
    }


def _named(first: str, n: int) -> str:
    return f"{first} and {n - 1:,} more" if n > 1 else first


@dataclass(frozen=True)
class Opened:
    """What an ingest reads.

    Attributes
    ----------
    source
        The filters: a `Source` of one dataset, else a `JoinedSource`.
    parts
        The files, described before anything else was read of them.
    tables
        The tables of models and layers, as they go into the lake.
    extracted
        The models that were read, if these are model files.
    left_out
        Files that could not be read.
    """

    source: FilterSource
    parts: list[Part]
    tables: Metadata
    extracted: list[Extracted]
    left_out: list[Bad]


@contextmanager
def open_all(
    paths: Sequence[Path],
    folder: Path,
    *,
    labels: Mapping[Path, Mapping[str, object]] | None = None,
    allow_sources: Iterable[str | Path] = (),
    skip_bad: bool = False,
    runner: Runner | None = None,
    progress: Progress | None = None,
) -> Iterator[Opened]:
    """Open dataset files, or model files, as one source for as long as the context lasts.

    Parameters
    ----------
    paths
        Either datasets or models, told apart by their contents.
    folder
        Takes the filters of models, and is made for them. All workers see where it is; the caller removes it.
    labels
        What is known of models, by their files.
    allow_sources
        As in `open_source`.
    skip_bad
        Leave out files that cannot be read, instead of ending with the first.
    runner
        Extracts models; threads of this process by default.
    progress
        Is told of ``decompressing``, in bytes, and of ``extracting``, in files.

    Raises
    ------
    SourceError
        A file that cannot be read, datasets beside models, the same file twice, or columns that do not go together.
    """
    with ExitStack() as resources:
        resources.callback(close_reopened)
        found: list[Part | Bad]
        if kind_of_all(paths) == "model":
            with disk_errors(folder):
                folder.mkdir(exist_ok=True)
            counter = Counter(progress, len(paths))
            counter.begin("extracting")
            work = partial(extracted_model, folder=folder.absolute(), skip_bad=skip_bad)
            known = [dict((labels or {}).get(path, {})) for path in paths]
            # a worker's working directory may be another
            files = [path.absolute() for path in paths]
            results = list((runner or LocalRunner()).map(Extracted | Bad, work, files, known, done=counter.add))
            extracted = [each for each in results if isinstance(each, Extracted)]
            found = [each.part if isinstance(each, Extracted) else each for each in results]
        else:
            if labels:
                raise SourceError("labels are of model files; datasets have their own")
            allowed, unpacking = list(allow_sources), for_stage(progress, "decompressing")
            extracted = []
            found = [_opened_dataset(path, resources, allowed, unpacking, skip_bad=skip_bad) for path in paths]
        left_out = [each for each in found if isinstance(each, Bad)]
        parts = [each for each in found if isinstance(each, Part)]
        if not parts:
            raise SourceError(f"none of {len(paths):,} files can be read; {left_out[0].reason}")
        parts, doubled = without_copies(parts)
        if doubled and not skip_bad:
            raise SourceError(doubled[0].reason)
        left_out += doubled
        yield Opened(joined_source(parts), parts, joined_tables(parts), extracted, left_out)


def extracted_model(
    path: Path,
    labels: Mapping[str, object],
    done: Done,
    *,
    folder: Path,
    transposed: bool = False,
    skip_bad: bool = False,
) -> Extracted | Bad:
    """Extract a model's filters into a new dataset file in ``folder``; a piece of work for any worker.

    Parameters
    ----------
    path
        The model's file.
    labels, transposed
        As in `extract`.
    done
        Is told of this one file.
    skip_bad
        Return what is wrong with the file instead of raising it.

    Raises
    ------
    SourceError
        The file is no model, or has no 3x3 convolution; or the folder cannot be written, which no file is blamed for.
    """
    try:
        model = extract(path, transposed=transposed, **labels)
        status = path.stat()
    except SourceError as error:
        if not skip_bad:
            raise
        done(1)
        return Bad(path, str(error))
    # a piece may be worked off twice where a worker was lost
    dataset = folder / f"{uuid.uuid4().hex}.h5"
    write_dataset([model], dataset)
    fingerprint: dict[str, str | int] = {
        "name": encodable(path.name),
        "size": status.st_size,
        "mtime": datetime.fromtimestamp(status.st_mtime, UTC).isoformat(),
        "sha256_header": model.checksum,
        "sha256_samples": model.checksum,
    }
    file = SourceFile.of(dataset, dataset)
    done(1)
    return Extracted(
        Part(file, path, model.n_filters, DTYPE.name, fingerprint, model.checksum),
        model.name,
        model.format,
        len(model.layers),
        list(model.notes),
    )


def _opened_dataset(
    path: Path,
    resources: ExitStack,
    allow_sources: Sequence[str | Path],
    progress: Callable[[int, int], None] | None,
    *,
    skip_bad: bool,
) -> Part | Bad:
    """Open a dataset and close it again; what a packed one was unpacked to is left to ``resources``."""
    try:
        with ExitStack() as opened:
            source = opened.enter_context(open_source(path, allow_sources=allow_sources, progress=progress))
            part = Part.of(source)
            if skip_bad:
                part.tables()
            if source.file.is_packed:
                resources.push(opened.pop_all())
    except SourceError as error:
        if not skip_bad:
            raise
        return Bad(path, str(error))
    return part


def kind_of(path: Path) -> Literal["dataset", "model"] | None:
    """What a file is by its contents; None for what can be neither, or cannot be read."""
    try:
        with reading(path):
            if is_packed(path):
                return "dataset"
            if format_of(path) != "hdf5":
                return None if path.suffix.lower() in _DATASET_SUFFIXES else "model"
            with hdf5.open_file(path) as file:
                return "dataset" if any(name in file for name in _OF_DATASETS) else "model"
    except SourceError:
        return "model" if path.is_file() and path.suffix.lower() in _MODEL_SUFFIXES else None


def kind_of_all(paths: Sequence[Path]) -> Literal["dataset", "model"]:
    """What files are; those that are neither count as the others.

    Raises
    ------
    SourceError
        No file, or datasets beside models.
    """
    if not paths:
        raise SourceError("no source; name at least one dataset or model file")
    kinds = [kind_of(path) for path in paths]
    if "model" not in kinds:
        return "dataset"
    if "dataset" in kinds:
        dataset, model = paths[kinds.index("dataset")], paths[kinds.index("model")]
        raise SourceError(
            f"{dataset} is a dataset and {model} a model; make a warehouse of the datasets, "
            "then bring in the models by: warehouse add"
        )
    return "model"


def without_copies(parts: Iterable[Part]) -> tuple[list[Part], list[Bad]]:
    """The parts, and apart from them those of the same contents as one before, by size and checksums."""
    first: dict[tuple[str | int, ...], Part] = {}
    doubled = []
    for part in parts:
        contents = tuple(part.fingerprint[key] for key in ("size", "sha256_header", "sha256_samples"))
        if contents in first:
            doubled.append(Bad(part.path, f"{part.path} is the same as {first[contents].path}; name it once"))
        else:
            first[contents] = part
    return list(first.values()), doubled


def joined_source(parts: Sequence[Part]) -> FilterSource:
    """The filters of all parts; of a single dataset the `Source` itself."""
    if len(parts) == 1 and parts[0].checksum is None:
        return parts[0].file.open()
    return JoinedSource(parts)


def joined_tables(
    parts: Iterable[Part],
    *,
    start: Start | None = None,
    of_models: Collection[str] = (),
    of_layers: Collection[str] = (),
) -> Metadata:
    """The tables of all parts, as `warehouse.changes.append` would give them one after the other.

    Parameters
    ----------
    parts
        At least one.
    start, of_models, of_layers
        First free ids, and columns, of a warehouse that these parts go into. Without one the first part keeps its ids.

    Raises
    ------
    SourceError
        As `tabulate` does, or a column whose values in two files no type holds.
    """
    models, layers = set(of_models), set(of_layers)
    found: list[tuple[Path, Metadata]] = []
    for part in parts:
        own = part.tables(models, layers)
        checksums = None if part.checksum is None else [part.checksum] * own.models.num_rows
        with naming(part.path):
            tables = own.of_source(encodable(part.path.name), start, checksums)
        models |= set(tables.models.column_names)
        layers |= set(tables.layers.column_names)
        first = start or Start(0, 0, 0)
        start = Start(
            pc.max(tables.models["model_id"]).as_py() + 1,
            first.layer_id + tables.layers.num_rows,
            first.filter_id + part.n_filters,
        )
        found.append((part.path, tables))
    return Metadata.joined(found).finished()
