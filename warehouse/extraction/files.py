"""Tells from a file's first bytes what kind of model it is, and calls the reader of that kind.

Gets a path; hands on what the reader found. Whatever goes wrong in reading becomes one line that names the file.
"""

from __future__ import annotations

import hashlib
import math
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from warehouse import hdf5
from warehouse.errors import SourceError, WarehouseError
from warehouse.extraction.model import Array, Found, Layer, Load
from warehouse.source import naming, require_file

_HDF5 = b"\x89HDF\r\n\x1a\n"
_ZIP = b"PK\x03\x04"
_TORCH_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_FOREIGN = (
    (0, b"version https://git-lfs", "a Git LFS pointer, not the model itself; fetch it with `git lfs pull`"),
    (4, b"TFL3", "a TensorFlow Lite model; convert it to ONNX with tf2onnx"),
    (4, b"ORTM", "a model in ONNX Runtime's own format; give the .onnx file that it was made of"),
    (0, b"\x93NUMPY", "a single NumPy array; give Python a mapping of names to arrays"),
    (0, b"\x1f\x8b", "packed with gzip; unpack it first"),
    (0, b"\xfd7zXZ", "packed with xz; unpack it first"),
    (0, b"GGUF", "a GGUF file, which holds no convolutions"),
)
_EXPECTED = "expected ONNX, safetensors, a PyTorch checkpoint, or Keras weights (.h5, .keras)"
_PIECE = 1 << 20
_MOST_PER_BYTE = 32
"""Weights of all convolutions for each byte of a model's files: types of 4 bits, shared by 16 layers."""


def read_file(path: Path) -> Found:
    """Find the convolutions of a model file.

    Raises
    ------
    SourceError
        It is not a model file, or it is damaged, or it would have to run code.
    """
    with reading(path):
        require_file(path, _EXPECTED)
        found = _reader(path)(path)
        return replace(found, open=_opener(path, found.open))


def format_of(path: Path) -> str:
    """What a model file is, by its first bytes: ``hdf5``, ``zip``, ``torch``, ``safetensors`` or ``onnx``.

    Raises
    ------
    SourceError
        It is no model, or one that nothing here reads.
    """
    with path.open("rb") as file:
        head = file.read(64)
    for offset, magic, what in _FOREIGN:
        if head[offset:].startswith(magic):
            raise SourceError(f"{what}; {_EXPECTED}")
    for magic, name in ((_HDF5, "hdf5"), (_ZIP, "zip"), (_TORCH_LEGACY, "torch")):
        if head.startswith(magic):
            return name
    # the length of the header, below 2**48, and its first letter; the length may begin with any byte
    if head[6:9] == b"\0\0{":
        return "safetensors"
    if head[:1] == b"\x80":
        raise SourceError(
            "a pickle, which could run anything, and not a checkpoint of torch.save; nothing was run. "
            "Save the weights as safetensors or, in PyTorch, `torch.save(model.state_dict(), file)`"
        )
    if not head.strip(b"\0"):
        raise SourceError(f"empty; {_EXPECTED}")
    # ONNX has no magic number, but every writer begins with the first field.
    if head[:1] == b"\x08" or path.suffix.lower() == ".onnx":
        return "onnx"
    raise SourceError(f"not a model; {_EXPECTED}")


def _reader(path: Path) -> Callable[[Path], Found]:
    # The readers are imported where they are needed: most users have one kind of model, and ONNX is an extra.
    match format_of(path):
        case "hdf5":
            return _hdf5_reader(path)
        case "zip":
            return _zip_reader(path)
        case "torch":
            from warehouse.extraction import torch_model

            return torch_model.read_legacy
        case "safetensors":
            with _extra("safetensors"):
                from warehouse.extraction import safetensors_model
            return safetensors_model.read
        case _:
            with _extra("ONNX models"):
                from warehouse.extraction import onnx_model
            return onnx_model.read


@contextmanager
def _extra(what: str) -> Iterator[None]:
    """Say how to get what reading ``what`` needs and is not there: the file may be sound."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise WarehouseError(
            f"reading {what} needs the package {error.name}; get it with: pip install 'cnn-filter-warehouse[models]'"
        ) from error


def _hdf5_reader(path: Path) -> Callable[[Path], Found]:
    from warehouse.extraction import keras_model

    with hdf5.open_file(path) as file:
        if "meta" in file and ("filters" in file or "filter" in file):
            raise SourceError("a dataset of filters, not a model; make a warehouse of it with: warehouse ingest")
    return keras_model.read_hdf5


def _zip_reader(path: Path) -> Callable[[Path], Found]:
    from warehouse.extraction import keras_model, torch_model

    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if len(set(names)) < len(names):
        raise SourceError("a zip archive that holds two files of one name")
    if keras_model.WEIGHTS in names:
        return keras_model.read_archive
    if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        return torch_model.read_archive
    raise SourceError(f"a zip archive of something else ({', '.join(names[:3])}); {_EXPECTED}")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Make one line that names the file of whatever goes wrong in reading it."""
    try:
        # damaged numbers overflow; that the weights are not finite is found later, by their values
        with naming(path), np.errstate(all="ignore"):
            yield
    except WarehouseError:
        raise
    except FileNotFoundError as error:
        raise SourceError(f"{error.filename or path}: no such file") from error
    except PermissionError as error:
        raise SourceError(f"{error.filename or path}: cannot be read: {error.strerror}") from error
    except Exception as error:  # the parsers promise no particular error for damaged data
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise SourceError(f"{path}: cannot be read, damaged or incomplete: {reason}") from error


def _opener(
    path: Path, open_: Callable[[], AbstractContextManager[Load]]
) -> Callable[[], AbstractContextManager[Load]]:
    """Make errors of opening and loading name the file, but not those of what is done with the weights."""

    @contextmanager
    def opened() -> Iterator[Load]:
        with ExitStack() as resources:
            with reading(path):
                load = resources.enter_context(open_())

            def named(layer: Layer) -> Array:
                with reading(path):
                    return load(layer)

            yield named

    return opened


def require_stored(shapes: Iterable[tuple[int, ...]], paths: Iterable[Path]) -> None:
    """Refuse weights that repeat what is stored so often that a small file would fill a disk.

    Parameters
    ----------
    shapes
        Of the weights of all convolutions.
    paths
        The files that hold them.

    Raises
    ------
    SourceError
        There are more than `_MOST_PER_BYTE` weights for each byte.
    """
    n_weights, n_bytes = sum(map(math.prod, shapes)), sum(path.stat().st_size for path in paths)
    if n_weights > _MOST_PER_BYTE * n_bytes:
        raise SourceError(
            f"its convolutions have {n_weights:,} weights in {n_bytes:,} bytes: the same ones over and over, "
            "which is no trained model"
        )


def checksum(paths: Iterable[Path]) -> str:
    """SHA-256 of the contents of files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
    return digest.hexdigest()
