"""Files that declare more than they hold, and a process that opens them and tells what it took."""

from __future__ import annotations

import json
import os
import pickle
import resource
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from warehouse.errors import SourceError
from warehouse.metadata import tabulate
from warehouse.source import open_source

FILTERS = np.random.default_rng(3).normal(size=(100, 3, 3))
CSV = b"model_id,conv_depth,conv_depth_norm,filter_ids\n0,0,0.0,0:99\n"
GIB = 1 << 30


class Outcome(NamedTuple):
    """What a process met with a file."""

    message: str
    seconds: float
    peak: int


def write(path: Path, meta: Any = CSV, **filters: Any) -> h5py.File:
    """An open dataset file, for a test to spoil."""
    file = h5py.File(path, "w")
    if filters.get("data", 0) is not None:
        file.create_dataset("filters", **({"data": FILTERS} | filters))
    if meta is not None:
        file["meta"] = np.frombuffer(meta, "u1")
    return file


def frame_group(file: h5py.File) -> h5py.Group:
    """A frame in fixed format of one layer and the columns ``filter_ids`` and ``x``, as pandas lays it out."""
    meta = file.create_group("meta")
    meta.attrs.update(
        pandas_type=np.bytes_("frame"),
        nblocks=2,
        axis0_variety=np.bytes_("regular"),
        axis1_variety=np.bytes_("multi"),
        axis1_nlevels=2,
        block0_items_variety=np.bytes_("regular"),
        block1_items_variety=np.bytes_("regular"),
    )
    meta["axis0"] = np.array([b"filter_ids", b"x"])
    for level, name in enumerate(("model_id", "conv_depth")):
        meta[f"axis1_level{level}"] = np.array([0])
        meta[f"axis1_level{level}"].attrs["name"] = np.bytes_(name)
        meta[f"axis1_label{level}"] = np.array([0], "i1")
    meta["block0_items"] = np.array([b"filter_ids"])
    meta["block1_items"] = np.array([b"x"])
    meta["block1_values"] = np.array([[1.0]])
    put_objects(meta, "block0_values", pickle.dumps(np.array([["0:99"]], object)))
    return meta


def put_objects(meta: h5py.Group, name: str, pickled: bytes) -> None:
    """A block of objects: one row of variable length."""
    if name in meta:
        del meta[name]
    block = meta.create_dataset(name, (1,), h5py.vlen_dtype("u1"))
    block[0] = np.frombuffer(pickled, "u1")
    block.attrs["PSEUDOATOM"] = np.bytes_("object")


def with_pickle(pickled: bytes) -> Callable[[Path], None]:
    """A sound frame but for the pickle of its column of ids."""

    def make(path: Path) -> None:
        with write(path, None) as file:
            put_objects(frame_group(file), "block0_values", pickled)

    return make


def with_meta(change: Callable[[h5py.Group], object]) -> Callable[[Path], None]:
    """A sound frame but for one change."""

    def make(path: Path) -> None:
        with write(path, None) as file:
            change(frame_group(file))

    return make


def zeros(n_bytes: int) -> bytes:
    """So many zeros, packed."""
    packer = zlib.compressobj(9)
    header = packer.compress(b"") + packer.flush(zlib.Z_FULL_FLUSH)
    repeated = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return header + repeated * (n_bytes >> 20) + packer.flush()


def packed_far_beyond_the_chunk(path: Path) -> None:
    with write(path, data=None) as file:
        filters = file.create_dataset("filters", (1000, 3, 3), "f8", chunks=(1000, 3, 3), compression="gzip")
        filters.id.write_direct_chunk((0, 0, 0), zeros(2 * GIB))


def packed_meta(path: Path) -> None:
    with write(path, None) as file:
        meta = file.create_dataset("meta", (1 << 20,), "u1", chunks=(1 << 20,), compression="gzip")
        meta.id.write_direct_chunk((0,), zeros(GIB))


def packed_large_chunk(path: Path) -> None:
    """Stored in as many bytes as the chunk may have, unpacking to a thousand times as many: found when it is read."""
    with write(path, data=None) as file:
        filters = file.create_dataset("filters", (20_000, 3, 3), "f8", chunks=(20_000, 3, 3), compression="gzip")
        filters.id.write_direct_chunk((0, 0, 0), zeros(GIB + (1 << 28)))


def mostly_unwritten(path: Path) -> None:
    with write(path, data=None) as file:
        file.create_dataset("filters", (10**9, 3, 3), "f4", chunks=(1000, 3, 3))[:1000] = 1


def hardly_unwritten(path: Path) -> None:
    with write(path, data=None) as file:
        file.create_dataset("filters", (1200, 3, 3), "f4", chunks=(100, 3, 3))[:1100] = 1


def packed_beyond_weights(path: Path) -> None:
    with write(path, data=None) as file:
        n = 20_000_000
        filters = file.create_dataset("filters", (n, 3, 3), "f8", chunks=(n // 20, 3, 1), compression="gzip")
        chunk = zlib.compress(bytes(n // 20 * 24), 9)
        for row in range(0, n, n // 20):
            for column in range(3):
                filters.id.write_direct_chunk((row, 0, column), chunk)


def unknown_packing(path: Path) -> None:
    with write(path, data=None) as file:
        file.create_dataset("filters", data=FILTERS.astype("f4"), chunks=(100, 3, 3), scaleoffset=3)


def packed_by(pipeline: str, chunk: bytes | None = None, mask: int = 0) -> Callable[[Path], None]:
    """Filters in one chunk, packed by any filters in any order, or bytes that claim to be such a chunk."""

    def make(path: Path) -> None:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk(FILTERS.shape)
        for name in pipeline.split():
            getattr(plist, f"set_{name}")(*([9] if name == "deflate" else []))
        with write(path, data=None) as file:
            space = h5py.h5s.create_simple(FILTERS.shape)
            filters = h5py.h5d.create(file.id, b"filters", h5py.h5t.IEEE_F64LE, space, plist)
            if chunk is None:
                filters.write(space, space, FILTERS)
            else:
                filters.write_direct_chunk((0, 0, 0), chunk, mask)

    return make


def packed_by_lzf(path: Path) -> None:
    write(path, chunks=(100, 3, 3), compression="lzf").close()


def shuffled(data: bytes) -> bytes:
    """Bytes as HDF5 shuffles those of 8 bytes each, zeros added to the last."""
    return np.frombuffer(data + bytes(-len(data) % 8), "u1").reshape(-1, 8).T.tobytes()


def damaged_length(length: int) -> Callable[[Path], None]:
    """The length of a variable-length value, which HDF5 takes at its word."""

    def make(path: Path) -> None:
        pickled = pickle.dumps(np.array([["0:99" + " " * 2000]], object))
        with_pickle(pickled)(path)
        data = path.read_bytes()
        with h5py.File(path) as file:
            chunk = file["meta/block0_values"].id.get_offset()
        assert data[chunk : chunk + 4] == struct.pack("<I", len(pickled))
        path.write_bytes(data[:chunk] + struct.pack("<I", length) + data[chunk + 4 :])

    return make


def many_references(path: Path) -> None:
    """A text stored once and named by a million rows."""
    with write(path, None) as file:
        text = file.create_dataset("meta", (1 << 20,), h5py.string_dtype(), chunks=(1 << 20,))
        text[:1] = ["x" * (1 << 16)]
        chunk = text.id.read_direct_chunk((0,))[1]
        text.id.write_direct_chunk((0,), chunk[:16] * (1 << 20))


def huge_attribute(path: Path) -> None:
    with h5py.File(path, "w", libver="latest") as file:
        file["filters"] = FILTERS
        frame_group(file).attrs["axis0_variety"] = np.zeros(1 << 22)


def column_bomb(n: int) -> Callable[[h5py.Group], None]:
    """Blocks that all are the same array under other names."""

    def change(meta: h5py.Group) -> None:
        meta.attrs["nblocks"] = n
        del meta["block1_values"], meta["block1_items"]
        meta["block1_values"] = np.zeros((4, 1 << 21))
        for block in range(1, n):
            if block > 1:
                meta[f"block{block}_values"] = meta["block1_values"]
            meta[f"block{block}_items"] = np.array([f"{block}_{i}".encode() for i in range(4)])
            meta.attrs[f"block{block}_items_variety"] = np.bytes_("regular")

    return change


def declared(shape: tuple[int, ...], dtype: str = "f8", **storage: Any) -> Callable[[h5py.Group], None]:
    """A block of a shape that was never written."""

    def change(meta: h5py.Group) -> None:
        del meta["block1_values"]
        meta.create_dataset("block1_values", shape, dtype, **storage)

    return change


def nested(depth: int) -> bytes:
    """A list in a list in a list."""
    return b"\x80\x04" + b"]" * depth + b"a" * (depth - 1) + b"."


def doubling(n: int) -> bytes:
    """A tuple of a tuple of ... each twice: 2**n elements in 9 n bytes."""
    return b"\x80\x04)q\0" + b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(n)) + b"."


def _dtype(code: str) -> bytes:
    return b"cnumpy\ndtype\n\x8c%c%s\x85R" % (len(code), code.encode())


def _bytes(data: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(data)) + data


def _number(n: int) -> bytes:
    return b"J" + struct.pack("<i", n)


def array_of(cells: bytes, n: int) -> bytes:
    """The pickle of an array of objects, whose elements are given as instructions."""
    head = b"\x80\x04cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85C\1b\x87R"
    return head + b"(K\1" + _number(n) + b"\x85" + _dtype("O8") + b"\x89](" + cells + b"etb."


def repeated_arrays(n: int, size: int) -> bytes:
    """Many arrays over the same bytes, each to become a list of its own."""
    one = b"cnumpy.core.numeric\n_frombuffer\n"
    first = one + b"(" + _bytes(bytes(size)) + b"q\1" + _dtype("u1") + b"q\2" + _number(size) + b"\x85q\3\x8c\1Ctq\4R"
    return array_of(first + (one + b"(h\1h\2h\3\x8c\1CtR") * (n - 1), n)


def repeated_scalars(n: int, length: int) -> bytes:
    """Many scalars of the same long text: each call makes the text anew."""
    one = b"cnumpy.core.multiarray\nscalar\n"
    first = one + _dtype(f"U{length}") + b"q\1" + _bytes(b"a\0\0\0" * length) + b"q\2\x86R"
    return array_of(first + (one + b"h\1h\2\x86R") * (n - 1), n)


def repeated_encodings(n: int, length: int) -> bytes:
    """The bytes of the same long text, spelled many times."""
    one = b"c_codecs\nencode\n"
    first = one + b"X" + struct.pack("<I", length) + b"a" * length + b"q\1\x8c\x06latin1q\2\x86R"
    return array_of(first + (one + b"h\1h\2\x86R") * (n - 1), n)


def repeated_texts(n: int, length: int) -> bytes:
    """The same long text in every row."""
    return array_of(b"X" + struct.pack("<I", length) + b"a" * length + b"q\1" + b"h\1" * (n - 1), n)


def huge_integer(digits: int) -> bytes:
    """A whole number that takes long to spell."""
    return array_of(b"\x8b" + struct.pack("<I", digits) + b"\x7f" * digits, 1)


def declared_array(*shape: int) -> bytes:
    """A numeric array of a huge shape, over one byte."""
    sizes = b"(" + b"".join(b"\x8a\x08" + struct.pack("<q", n) for n in shape) + b"t"
    head = b"\x80\x04cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85C\1b\x87R"
    return head + b"(K\1" + sizes + _dtype("f8") + b"\x89C\1btb."


class Runs:
    """Would run a command if it were unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.trace}",)


def memo_index(index: int) -> bytes:
    """A value put where a table of memos would have to grow to."""
    return b"\x80\x04Nr" + struct.pack("<I", index) + b"."


PICKLES: dict[str, tuple[bytes, str]] = {
    "lists nested 1,000,000 deep": (nested(1_000_000), "holds a list|something other"),
    "tuples that double 200 times": (doubling(200), "holds a tuple"),
    "memo beyond the file": (memo_index((1 << 32) - 1), "memo entries"),
    "100,000 arrays of the same megabyte": (repeated_arrays(100_000, 1 << 20), "unfolds to more"),
    "100,000 scalars of the same long text": (repeated_scalars(100_000, 90_000), "unfolds to more"),
    "100,000 encodings of the same megabyte": (repeated_encodings(100_000, 1 << 20), "unfolds to more"),
    "5,000,000 empty lists": (array_of(b"]" * 5_000_000, 5_000_000), "instructions"),
    "an integer of 80,000,000 bits": (huge_integer(10_000_000), "holds a int"),
    "an array of 2**62 numbers": (declared_array(1 << 31, 1 << 31), "does not hold its bytes"),
    "an array of 2**186 numbers": (declared_array(1 << 62, 1 << 62, 1 << 62), "does not hold its bytes"),
    "bytes of 2**62 declared": (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b".", "damaged"),
    "a bytearray of 2**40 declared": (b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b".", "damaged"),
    "a frame of 2**62 declared": (b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"N.", "damaged"),
    "a text number of 1,000,000 digits": (b"L" + b"9" * 1_000_000 + b"L\n.", "damaged"),
    "a dictionary": (pickle.dumps({"a": 1}), "instruction EMPTY_DICT"),
    "a set": (pickle.dumps({1}), "instruction EMPTY_SET"),
    "an extension code": (b"\x80\x02\x82\x01.", "instruction EXT1"),
    "a persistent id": (b"Pevil\n.", "instruction PERSID"),
    "an instance": (b"(ios\nsystem\n.", "instruction INST"),
    "eval": (b"cbuiltins\neval\n(X\x01\x00\x00\x001tR.", "names 'builtins.eval'"),
    "a name on the stack": (b"\x80\x04\x8c\2os\x8c\6system\x93.", "names 'os.system'"),
    "a dotted name": (b"\x80\x04\x8c\x05numpy\x8c\x0edtype.__init__\x93.", "names 'numpy.dtype.__init__'"),
    "a state for a stand-in": (
        b"cnumpy\ndtype\n\x8c\2f8\x85RN.",
        "holds a NoneType|damaged|something other|holds a _Dtype",
    ),
    "nothing": (b"", "damaged"),
}
"""Pickles in place of the column of ids, and what is said of them."""

HUGE: dict[str, tuple[Callable[[Path], object], str]] = {
    **{f"pickle: {name}": (with_pickle(pickled), message) for name, (pickled, message) in PICKLES.items()},
    "filters: a chunk that unpacks to 2 GiB instead of 72 kB": (packed_far_beyond_the_chunk, "holds a chunk of"),
    "filters: a chunk of fit size that unpacks to 1 GiB": (packed_large_chunk, "does not unpack to"),
    "filters: 1 of 1,000,000 chunks written": (mostly_unwritten, "holds 36,000"),
    "filters: 11 of 12 chunks written": (hardly_unwritten, "11 of 12 chunks"),
    "filters: 1.4 GB of zeros in 1.4 MB": (packed_beyond_weights, "if it is meant"),
    "filters: packed by an unknown filter": (unknown_packing, "packed by the filters"),
    "filters: packed twice": (packed_by("deflate deflate"), "packed by the filters"),
    "filters: packed by LZF": (packed_by_lzf, "packed by the filters"),
    "filters: 16 bytes packed for 7200": (packed_by("deflate", zlib.compress(bytes(16))), "does not unpack to"),
    "filters: one byte too many, packed": (packed_by("deflate", zlib.compress(bytes(7201))), "does not unpack to"),
    "filters: packed, its end cut off": (packed_by("deflate", zlib.compress(bytes(7200))[:-1]), "does not unpack to"),
    "filters: not packed by all filters, and short": (packed_by("deflate", bytes(16), 1), "does not unpack to"),
    "filters: checksum of 2 bytes": (packed_by("fletcher32 deflate", zlib.compress(b"ab")), "does not unpack to"),
    "filters: 2 checksums in 6 bytes": (packed_by("deflate fletcher32 fletcher32", bytes(6)), "does not unpack to"),
    "filters: a wrong checksum": (packed_by("fletcher32", bytes(7200) + b"abcd"), "does not unpack to"),
    "filters: shuffled after packing": (packed_by("deflate shuffle", shuffled(zeros(7 << 20))), "does not unpack to"),
    "filters: 1 byte, shuffled": (packed_by("shuffle", b"a"), "does not unpack to"),
    "meta: a text chunk that unpacks to 1 GiB": (packed_meta, "does not unpack to"),
    "meta: a value of 4 GiB declared": (damaged_length((1 << 32) - 1), "declares 4,294,967,295 bytes"),
    "meta: a value longer than it is": (damaged_length(60_000), "declares 60,000 bytes and holds"),
    "meta: a value shorter than it is": (damaged_length(10), "declares 10 bytes and holds"),
    "meta: 1,000,000 references to one text": (many_references, "is an array|variable length"),
    "meta: an attribute of 32 MiB": (huge_attribute, "attribute 'axis0_variety' larger"),
    "meta: 500 blocks that are one array": (with_meta(column_bomb(500)), "cells: not a table"),
    "meta: 1 TB declared": (with_meta(declared((1, 1 << 37))), "larger than"),
    "meta: 200 MB declared, never written": (with_meta(declared((1, 25 << 20))), "never written"),
    "meta: 200 MB declared in chunks": (with_meta(declared((1, 25 << 20), chunks=(1, 1024))), "never written"),
    "meta: one element of 1 GiB": (with_meta(declared((1,), "S1073741824")), "larger than"),
    "meta: 2**60 levels": (with_meta(lambda meta: meta.attrs.modify("axis1_nlevels", 1 << 60)), "index levels"),
    "meta: 2**60 blocks": (with_meta(lambda meta: meta.attrs.modify("nblocks", 1 << 60)), "block2_items"),
    "csv: 4,000,000 columns": (lambda path: write(path, b"," * 4_000_000).close(), "not a table"),
    "csv: 20,000,000 empty cells": (lambda path: write(path, (b"," * 99 + b"\n") * 200_000).close(), "not a table"),
}
"""Files that declare far more than they hold, or unfold to it, and what is said of them."""


def probe(path: Path) -> str:
    """Read all of a dataset file; the error, or nothing."""
    try:
        with open_source(path) as source:
            tabulate(source.meta(), source.n_filters)
            for start in range(0, source.n_filters, 100_000):
                source.read(start, min(start + 100_000, source.n_filters))
    except SourceError as error:
        return str(error)
    return ""


def probe_all(paths: list[Path], timeout: float = 120) -> list[Outcome]:
    """Read files in a process of their own, one after the other."""
    command = [sys.executable, "-m", "tests.hostile", *map(str, paths)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=timeout)
    return [Outcome(*json.loads(line)) for line in done.stdout.splitlines()]


def main() -> None:
    """Tell of each file the error, the time it took and the peak of memory so far beyond that of a sound file."""
    base = 0
    for path in sys.argv[1:]:
        begin = time.monotonic()
        message = probe(Path(path))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        base = base or peak
        sys.stdout.write(json.dumps([message, time.monotonic() - begin, peak - base]) + "\n")


if __name__ == "__main__":
    main()
