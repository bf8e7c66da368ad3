"""A virtual dataset, whose data lies in other files: what it may read, and that it holds all that it declares.

Gets the dataset and the files and folders that the user allows; hands on nothing, or one clear error. HDF5 would
follow any mapping to any file of the machine, and read what no mapping covers as zeros.
"""

import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import h5py

from warehouse import chunks, hdf5
from warehouse.errors import SourceError

_PREFIX = "HDF5_VDS_PREFIX"
_Box = tuple[tuple[int, ...], tuple[int, ...]]


def check(virtual: h5py.Dataset, path: Path, allowed: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Check a virtual dataset and each dataset that it reads.

    Parameters
    ----------
    virtual
        The dataset, of which nothing but its creation properties has been looked at.
    path
        Its file.
    allowed
        The files, and the folders of files, that it may read beside its own file.

    Returns
    -------
    The files that it reads, its own among them if it is one, each once.

    Raises
    ------
    SourceError
        If it may read anything else, by any of the ways in which HDF5 looks for a file; if a source is missing, is no
        plain dataset or cannot be read piece by piece; or if the mappings do not cover each filter exactly once.
    """
    plist = virtual.id.get_create_plist()
    needed: dict[tuple[str, str], list[tuple[_Box | None, int]]] = {}
    covered = []
    for mapping in range(plist.get_virtual_count()):
        names = plist.get_virtual_filename(mapping), plist.get_virtual_dsetname(mapping)
        if "%" in "".join(names):
            raise SourceError(f"{virtual.name} numbers its sources, {names[0]!r}; map each by its own name")
        target, n = _box(virtual.name, plist.get_virtual_vspace(mapping))
        space = plist.get_virtual_srcspace(mapping)
        # All of a source is stored without its extent, whose bounds h5py must not be asked for: it would crash.
        origin = None if space.get_select_type() == h5py.h5s.SEL_ALL else _box(virtual.name, space)
        if origin is not None and origin[1] != n:
            raise SourceError(f"{virtual.name} maps {origin[1]:,} values to {n:,}: the virtual dataset is damaged")
        covered.append(target)
        needed.setdefault(names, []).append((origin and origin[0], n))
    roots = [path.resolve(), *(_existing(Path(root)) for root in allowed)]
    # Asking a virtual dataset for its shape may open its sources, which therefore come first.
    read = []
    for (file, dataset), mapped in needed.items():
        read.append(_locate(virtual.name, file, path, roots))
        with hdf5.open_file(read[-1]) as opened:
            source = _plain_dataset(opened, dataset)
            if chunks.check_storage(source):
                raise SourceError(f"{source.name!r} of {file!r} has packed chunks; h5repack -f NONE unpacks them")
            if not all(_lies_in(source, box, n) for box, n in mapped):
                raise SourceError(f"{virtual.name} maps other filters than {source.name} of {file!r} holds")
    _refuse_gaps(virtual, covered)
    return list(dict.fromkeys(file.resolve() for file in read))


def _box(name: str, space: h5py.h5s.SpaceID) -> tuple[_Box, int]:
    """First and last corner of a selection, and its number of elements; it has to fill the box between them."""
    try:
        n = space.get_select_npoints() if space.get_simple_extent_ndims() else 0
    except RuntimeError:  # of a selection without end
        n = 0
    if n > 0:
        first, last = space.get_select_bounds()
        if n == math.prod(end - start + 1 for start, end in zip(first, last, strict=True)):
            return (first, last), n
    raise SourceError(f"{name} maps scattered, empty or unlimited selections; whole runs of filters are read")


def _lies_in(source: h5py.Dataset, box: _Box | None, n: int) -> bool:
    """Whether a dataset has all of a box, or without one has so many elements."""
    if box is None:
        return bool(source.size == n)
    last = box[1]
    return len(last) == source.ndim and all(end < size for end, size in zip(last, source.shape, strict=True))


def _existing(path: Path) -> Path:
    try:
        return path.resolve(strict=True)
    except OSError as error:
        raise SourceError(f"--allow-source {path}: {error.strerror}; name a file or a folder that exists") from error


def _locate(name: str, file: str, path: Path, roots: list[Path]) -> Path:
    """Return the file that a mapping names, if it and all others that HDF5 might take for it are allowed."""
    found = [candidate for candidate in _candidates(file, path) if candidate.exists()]
    for candidate in found:
        real = candidate.resolve()
        if not any(root == real or root in real.parents for root in roots):
            raise SourceError(
                f"{name} is a virtual dataset that reads {str(real)!r}; if you trust it, "
                "allow that file or its folder with --allow-source (allow_sources=[...])"
            )
        if not real.is_file():
            raise SourceError(f"{name} is a virtual dataset that reads {str(real)!r}, which is no file")
    if not found:
        raise SourceError(f"{name} is a virtual dataset that reads {file!r}, which is missing beside {path.name}")
    return found[0]


def _candidates(file: str, path: Path) -> Iterator[Path]:
    """Where HDF5 looks for a source file, in its order (``H5F_prefix_open_file``)."""
    if file == ".":
        yield path
        return
    folder = path.absolute().parent
    relative = Path(file)
    if relative.is_absolute():
        yield relative
        relative = Path(relative.name)
    for prefix in os.environ.get(_PREFIX, "").split(os.pathsep):
        if prefix:
            yield Path(prefix.replace("${ORIGIN}", str(folder))) / relative
    yield folder / relative
    yield relative
    yield path.resolve().parent / relative


def _plain_dataset(file: h5py.File, name: str) -> h5py.Dataset:
    group: h5py.Group = file
    *groups, last = [part for part in name.split("/") if part not in ("", ".")] or [""]
    for part in groups:
        group = hdf5.member(group, part)
        if not isinstance(group, h5py.Group):
            raise SourceError(f"{file.filename}: {name} is missing, which a virtual dataset reads")
    return hdf5.dataset(group, last)


def _refuse_gaps(virtual: h5py.Dataset, covered: list[_Box]) -> None:
    """Refuse mappings that do not cover the rows one after the other, each whole and once."""
    shape: tuple[int, ...] = virtual.shape or ()
    row = 0
    for first, last in sorted(covered):
        whole = len(first) == len(shape) and not any(first[1:]) and tuple(end + 1 for end in last[1:]) == shape[1:]
        if not whole or first[0] != row:
            break
        row = last[0] + 1
    if row != shape[0]:
        raise SourceError(
            f"{virtual.name} declares {shape[0]:,} filters, and its mappings cover them in one piece up to {row:,}; "
            "map every filter exactly once, whole"
        )
