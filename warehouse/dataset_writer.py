"""Writes a dataset file in the genuine layout: ``/filters`` and ``/meta``, whole or not at all.

Gets the frame of layers and the filters block by block; memory does not grow with their number.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import h5py
import numpy as np
import tables

from warehouse.errors import SourceError
from warehouse.frame_writer import write_frame

_HEADER_BYTES = 65_536  # more than HDF5 needs to enter one more dataset into a file


def refuse_existing(target: Path, what: str) -> None:
    """Refuse to write where something is already.

    Raises
    ------
    SourceError
        Something is there, be it a link to nothing.
    """
    if os.path.lexists(target):
        raise SourceError(f"{target} exists already: remove it or give {what} another name")


def write_file(
    target: Path,
    *,
    what: str,
    title: str,
    attributes: Mapping[str, str],
    frame: tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]],
    n_filters: int,
    dtype: np.dtype[np.floating],
    blocks: Iterable[np.ndarray],
) -> None:
    """Write a dataset; the file appears under its name when it is complete.

    Parameters
    ----------
    target
        Where the file shall be; nothing may be there yet.
    what
        What it is called in messages, such as ``the sample``.
    title, attributes
        Of the root group.
    frame
        Index and columns of ``/meta``, as `write_frame` takes them.
    n_filters, dtype
        Number of 3x3 filters and the type that they are stored in.
    blocks
        The filters in their order, each block of any shape that ends in 9 or 3x3 weights.

    Raises
    ------
    SourceError
        A path that is taken or cannot be written, a full disk, and what ``blocks`` raises.
    """
    refuse_existing(target, what)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        needed, free = n_filters * 9 * dtype.itemsize, shutil.disk_usage(target.parent).free
        if needed > free:
            raise SourceError(f"{what} {target} needs {needed / 1e9:.2f} GB and its disk has {free / 1e9:.2f} GB left")
        offset = _write_skeleton(partial, title, attributes, frame, n_filters, dtype)
        with partial.open("r+b") as raw:
            raw.seek(offset)
            for block in blocks:
                raw.write(np.ascontiguousarray(block, dtype).data)
        partial.rename(target)
    except OSError as error:
        raise SourceError(f"cannot write {what} {target}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def _write_skeleton(
    path: Path,
    title: str,
    attributes: Mapping[str, str],
    frame: tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]],
    n_filters: int,
    dtype: np.dtype[np.floating],
) -> int:
    """Write the file with its metadata and room for ``/filters``; return where in the file the room begins.

    A failed write inside HDF5 can crash the process later on, so whatever may fill a disk is written by
    Python: HDF5 makes the metadata in memory and finds the space for the rest in place.
    """
    with tables.open_file(path.name, "w", title=title, driver="H5FD_CORE", driver_core_backing_store=0) as in_memory:
        for name, value in attributes.items():
            setattr(in_memory.root._v_attrs, name, value)
        write_frame(in_memory, "meta", *frame)
        image = in_memory.get_file_image()
    with path.open("wb") as raw:
        raw.write(image)
        raw.write(bytes(_HEADER_BYTES))
        raw.truncate(raw.tell() + n_filters * 9 * dtype.itemsize)

    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    with h5py.File(path, "r+") as file:
        dataset = file.create_dataset("filters", (n_filters, 3, 3), dtype, dcpl=creation)
        return int(dataset.id.get_offset())
