"""What is fuzzed, the sound inputs to begin with, and how they are spoiled.

A target gets bytes and returns; whatever it lets through but ``SourceError`` is a finding, and so is a process started,
code compiled or a name looked up on behalf of the bytes.
"""

from __future__ import annotations

import functools
import importlib
import lzma
import pickle
import random
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from tests import hostile
from tests.extraction_models import pickled_tensor, save_torch, save_torch_legacy, state_pickle
from warehouse import xz
from warehouse.errors import SourceError
from warehouse.extraction import extract, torch_pickle
from warehouse.frames import parse_csv
from warehouse.unpickle import loads

CORPUS = Path(__file__).parent / "corpus"
_CALLS = {"os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.Popen", "compile", "pickle.find_class"}
_PROBE = "probe_process.py"
"""The one process that reading a file may start."""
_WEIGHTS = {"conv.weight": np.ones((2, 1, 3, 3), "f4")}
_watching = False
for _reader in (
    "keras_model",
    "onnx_model",
    "safetensors_model",
    "torch_model",
):  # or their first use would count as code compiled
    importlib.import_module(f"warehouse.extraction.{_reader}")


class Called(BaseException):
    """The bytes made something be called."""


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching and event in _CALLS and _PROBE not in str(arguments):
        raise Called(f"{event} {arguments!r:.200}")


sys.addaudithook(_watch)


@contextmanager
def _guarded() -> Iterator[None]:
    global _watching
    _watching = True
    try:
        with suppress(SourceError), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of NumPy, about the values
            yield
    finally:
        _watching = False


@functools.cache
def _scratch() -> Path:
    """A folder in memory where there is one, for readers that want a file."""
    shared = Path("/dev/shm")  # noqa: S108
    folder = tempfile.TemporaryDirectory(prefix="fuzz-", dir=shared if shared.is_dir() else None)
    _KEPT.append(folder)
    return Path(folder.name)


_KEPT: list[tempfile.TemporaryDirectory[str]] = []


def unpickle(data: bytes) -> None:
    """A pickle of a block of columns."""
    with _guarded():
        loads(data)


def torch_state(data: bytes) -> None:
    """The pickle of a checkpoint."""
    with _guarded():
        torch_pickle.load(data)


def torch_file(data: bytes) -> None:
    """A checkpoint, as an archive or in the legacy form."""
    path = _scratch() / "model.pt"
    path.write_bytes(data)
    with _guarded():
        extract(path)


def csv(data: bytes) -> None:
    """A table of layers as text."""
    with _guarded():
        parse_csv(data)


def xz_file(data: bytes) -> None:
    """A packed file."""
    path = _scratch() / "dataset.h5.xz"
    path.write_bytes(data)
    with _guarded(), xz.unpacked(path, _scratch()):
        pass


def dataset(data: bytes) -> None:
    """A dataset file: all that ingest reads of it."""
    path = _scratch() / "dataset.h5"
    path.write_bytes(data)
    with _guarded():
        message = hostile.probe(path)
        assert "\n" not in message, message


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (unpickle, torch_state, torch_file, csv, xz_file, dataset)
}


def seeds(target: str) -> list[bytes]:
    """Sound inputs of a target."""
    with tempfile.TemporaryDirectory() as folder:
        return list(_SEEDS[target](Path(folder)))


def _pickles(_folder: Path) -> Iterator[bytes]:
    values = np.array([["0:9", None, 1.5], [3, True, [1, 2]]], object)
    for protocol in range(6):
        yield pickle.dumps(values, protocol)
        yield pickle.dumps(np.arange(6, dtype="f4").reshape(2, 3).T, protocol)
        yield pickle.dumps([np.float64(1.5), np.str_("x"), 7, "y", None], protocol)
    yield pickle.dumps(np.array([np.arange(3), np.array(["a", "b"])], object), 4)
    yield hostile.repeated_arrays(3, 4)
    yield hostile.repeated_scalars(3, 2)
    yield hostile.repeated_encodings(3, 4)


def _torch_pickles(_folder: Path) -> Iterator[bytes]:
    tensor = pickled_tensor(_WEIGHTS["conv.weight"], "0")
    yield state_pickle({"conv.weight": tensor})
    yield state_pickle({"conv.weight": tensor, "b": tensor}, {"epoch": 3, "name": "x"})
    yield from (pickle.dumps({"a": [1, (2.5, None)], 3: b"x"}, protocol) for protocol in range(6))


def _torch_files(folder: Path) -> Iterator[bytes]:
    yield save_torch(folder / "a.pt", _WEIGHTS, {"epoch": 3}).read_bytes()
    yield save_torch_legacy(folder / "b.pt", _WEIGHTS).read_bytes()


def _texts(_folder: Path) -> Iterator[bytes]:
    yield hostile.CSV
    yield b"\xef\xbb\xbf" + hostile.CSV.replace(b"0,0,", b'"a ""b"",\n",,', 1) + b"\0\0"


def _packed(_folder: Path) -> Iterator[bytes]:
    yield lzma.compress(b"abc" * 50)
    yield lzma.compress(b"") + bytes(8) + lzma.compress(bytes(300), check=lzma.CHECK_SHA256)


def _datasets(folder: Path) -> Iterator[bytes]:
    index = pd.MultiIndex.from_tuples(
        [(0, 0, 0.0), (1, 0, np.nan)], names=["model_id", "conv_depth", "conv_depth_norm"]
    )
    columns = {
        "filter_ids": ["0:1", "2:3"],
        "Task": ["a", None],
        "depth": [3, 4],
        "Conv": [1.5, np.nan],
        "b": [True, False],
    }
    frame = pd.DataFrame(columns, index=index).astype({"filter_ids": object, "Task": object})
    weights = np.arange(36.0).reshape(4, 3, 3)
    packed = {"chunks": (2, 3, 3), "compression": "gzip", "shuffle": True, "fletcher32": True}
    path = folder / "table.h5"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTables, about what it pickles
        frame.to_hdf(path, key="meta", index=False, format="table")
    with h5py.File(path, "a") as file:
        file.create_dataset("filters", data=weights, **packed)
    yield path.read_bytes()
    hostile.with_meta(lambda _meta: None)(folder / "fixed.h5")
    yield (folder / "fixed.h5").read_bytes()
    text = hostile.CSV.replace(b"0:99", b"0:3")
    for version in ("earliest", "latest"):
        path = folder / f"{version}.h5"
        with h5py.File(path, "w", libver=version) as file:
            file.create_dataset(
                "filter",
                data=weights.reshape(4, 9).astype("f2"),
                **({} if version == "latest" else packed | {"chunks": (2, 9)}),
            )
            file["meta"] = np.frombuffer(text, "u1") if version == "latest" else text.decode()
        yield path.read_bytes()
    for pipeline in ("fletcher32 shuffle deflate", "shuffle deflate fletcher32", "deflate shuffle"):
        hostile.packed_by(pipeline)(folder / "packed.h5")
        yield (folder / "packed.h5").read_bytes()
    path = folder / "virtual.h5"
    layout = h5py.VirtualLayout((4, 3, 3), "f8")
    layout[:] = h5py.VirtualSource(".", "stored", (4, 3, 3))
    with h5py.File(path, "w", libver="latest") as file:
        file["stored"] = weights
        file.create_virtual_dataset("filters", layout)
        file["meta"] = np.frombuffer(text, "u1")
    yield path.read_bytes()


_SEEDS: dict[str, Callable[[Path], Iterator[bytes]]] = {
    "unpickle": _pickles,
    "torch_state": _torch_pickles,
    "torch_file": _torch_files,
    "csv": _texts,
    "xz_file": _packed,
    "dataset": _datasets,
}

_NUMBERS = (
    0,
    1,
    2,
    7,
    8,
    127,
    128,
    255,
    256,
    2**15 - 1,
    2**16 - 1,
    2**16,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63,
    2**64 - 1,
)


def mutate(data: bytes, seed: int) -> bytes:
    """Spoil an input as a binary format is spoiled: numbers of 1 to 8 bytes changed, parts moved or cut off."""
    choose = random.Random(seed)  # noqa: S311
    spoiled = bytearray(data or b"\0")
    for _ in range(choose.choice((1, 1, 1, 2, 3, 8))):
        size = choose.choice((1, 1, 2, 4, 8))
        starts = [choose.randrange(max(1, len(spoiled) - size)) for _ in range(8)]
        # most of a file is often empty
        start = next((start for start in starts if any(spoiled[start : start + 8])), starts[0])
        old = int.from_bytes(spoiled[start : start + size], "little")
        what = choose.randrange(10)
        if what < 4:
            number = choose.choice(_NUMBERS)
        elif what < 7:
            number = old + choose.choice((-8, -1, 1, 8, len(data)))
        elif what < 8:
            number = old ^ 1 << choose.randrange(8 * size)
        elif what < 9:
            other = choose.randrange(len(spoiled))
            number = int.from_bytes(spoiled[other : other + size], "little")
        else:
            other, length = choose.randrange(len(spoiled)), choose.randrange(64)
            spoiled[start : start + length] = spoiled[other : other + length]
            continue
        spoiled[start : start + size] = (number % (1 << 8 * size)).to_bytes(size, "little")
    return bytes(spoiled[: choose.randrange(len(spoiled))] if choose.random() < 0.02 else spoiled)
