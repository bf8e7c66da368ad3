"""Look into an HDF5 file that nobody vouches for: its own data only, sizes within reason, no pickle run.

Gets groups and names, and hands on datasets, arrays and the attributes that PyTables wrote.
"""

import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from warehouse import chunks, probe
from warehouse.errors import SourceError
from warehouse.unpickle import loads

MAX_BYTES = 256 << 20
"""The most that one dataset of the meta frame may occupy; those of real files take up to 60 megabytes."""

MAX_ATTRIBUTE_BYTES = 1 << 20
"""The most that an attribute may occupy; PyTables writes up to 64 KiB."""


def open_file(path: Path, **options: Any) -> h5py.File:
    """Open a file for reading, if HDF5 survives that; `options` are those of ``h5py.File``.

    Raises
    ------
    SourceError
        If HDF5 crashes on the file, or takes forever.
    """
    probe.require_survivable(path)
    return h5py.File(path, "r", **options)


def member(group: h5py.Group, name: str) -> Any:
    """Return the member of a group, or ``None`` if there is none.

    Raises
    ------
    SourceError
        If the member is a soft or external link, which can lead out of the file.
    """
    # The low level asks for the link itself, where `in` and `get` follow it to see whether it leads anywhere.
    links, key = group.id.links, name.encode()
    if "/" in name or not links.exists(key):
        return None
    if links.get_info(key).type != h5py.h5l.TYPE_HARD:
        raise SourceError(f"{place(group, name)} is a soft or external link; copy the data itself (h5copy)")
    return group[name]


def dataset(group: h5py.Group, name: str, *, virtual: bool = False) -> h5py.Dataset:
    """Return a dataset whose data lies in this file, or also a virtual one, for `warehouse.virtual` to check.

    Raises
    ------
    SourceError
        If it is missing, not a dataset, a link, or stored in other files.
    """
    found = member(group, name)
    if found is None:
        raise SourceError(f"{place(group, name)} is missing; the file is damaged or of another kind")
    if not isinstance(found, h5py.Dataset):
        raise SourceError(f"{place(group, name)} is not a dataset; the file is damaged or of another kind")
    if found.external or (found.is_virtual and not virtual):
        raise SourceError(f"{found.name} keeps its data in other files; store it in this one (h5repack)")
    return found


def array(source: h5py.Dataset) -> np.ndarray:
    """Read all of a small dataset, PyTables' bit fields as booleans.

    Raises
    ------
    SourceError
        If the dataset is empty, larger than `MAX_BYTES`, of values that lie elsewhere in the file, or does not hold
        what it declares.
    """
    if source.size is None or source.size * source.dtype.itemsize > MAX_BYTES:
        raise SourceError(f"{source.name} is empty or larger than {MAX_BYTES:,} bytes: not a table of layers")
    if source.dtype.hasobject:
        raise SourceError(f"{source.name} holds {source.shape} values of variable length; plain values are read")
    values = contents(source)
    return values.astype(bool) if source.id.get_type().get_class() == h5py.h5t.BITFIELD else values


def contents(source: h5py.Dataset) -> np.ndarray:
    """Read all of a dataset of plain values.

    Raises
    ------
    SourceError
        If it does not hold what it declares.
    """
    if not chunks.check_storage(source):
        return np.asarray(source[()])
    values = np.empty(source.shape, source.dtype)
    chunks.PackedDataset(source).fill(values)
    return values


def attribute(node: h5py.Group | h5py.Dataset, name: str) -> object:
    """Return an attribute that PyTables wrote, or ``None`` if there is none.

    Text comes as ``str``, numbers as Python's. PyTables stores everything else as a pickle, which like
    PyTables itself this recognises by the last byte, a full stop.

    Raises
    ------
    SourceError
        If the attribute is larger than `MAX_ATTRIBUTE_BYTES`, or a pickle of anything but plain values.
    """
    if name not in node.attrs:
        return None
    stored = node.attrs.get_id(name)
    if stored.dtype.hasobject:
        raise SourceError(f"{node.name} has an attribute {name!r} of variable length, which pandas does not write")
    if math.prod(stored.shape or ()) * stored.dtype.itemsize > MAX_ATTRIBUTE_BYTES:
        raise SourceError(f"{node.name} has an attribute {name!r} larger than {MAX_ATTRIBUTE_BYTES:,} bytes")
    value = node.attrs[name]
    if isinstance(value, h5py.Empty):
        return ""
    if isinstance(value, bytes):
        return loads(bytes(value)) if value.endswith(b".") else value.decode()
    return value.item() if isinstance(value, np.generic) else value


def place(group: h5py.Group, name: str) -> str:
    """Return the path of a member inside the file."""
    return f"{group.name.rstrip('/')}/{name}"
