"""What an unfinished ingest has finished, on the disk: the next run of the same ingest goes on from there.

One file beside the lake, to which each finished piece of work is appended: a length, a checksum and the partial result
as an Arrow table. What was torn off by a crash is cut off. No commit depends on it and no reader knows of it.
"""

from __future__ import annotations

import json
import struct
import typing
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from warehouse.errors import LakeError
from warehouse.lake import JOURNAL, LakeFile, disk_errors, table_of

_FRAME = struct.Struct("<QI")
_VALUE = "value"


class Journal:
    """The finished pieces of one ingest; without a folder it only forgets.

    Parameters
    ----------
    folder
        Of the warehouse, locked by the caller.
    identity
        What has to be the same for the pieces to be of use, as JSON can hold it.

    Attributes
    ----------
    n_finished
        Pieces of work that were finished, in earlier runs and in this one.

    Raises
    ------
    LakeError
        The folder's journal is of another ingest.
    """

    def __init__(self, folder: Path | None = None, identity: Mapping[str, Any] | None = None) -> None:
        self.path = folder / JOURNAL if folder else None
        self.n_finished = 0
        self._known: dict[tuple[str, int], Any] = {}
        if self.path is None:
            return
        with disk_errors(self.path):
            frames = list(_frames(self.path)) if self.path.exists() else []
        own = json.dumps(identity, sort_keys=True).encode()
        if frames and frames[0] != own:
            raise LakeError(f"{folder} holds {_other(frames[0], own)}; use --restart to begin anew")
        for frame in frames[1:]:
            stage, index, value = _unpacked(frame)
            self._known[stage, index] = value
        self.n_finished = len(frames[1:])
        with disk_errors(self.path):
            if frames:
                # the next frame has to follow the last whole one
                with self.path.open("r+b") as file:
                    file.truncate(sum(_FRAME.size + len(frame) for frame in frames))
            else:
                self.path.write_bytes(_framed(own))

    def get(self, stage: str, index: int, kind: Any) -> Any:
        """Hand over the partial result of a piece of work, of type ``kind``; None if it is not known."""
        value = self._known.pop((stage, index), None)
        return None if value is None else _restored(kind, value)

    def put(self, stage: str, index: int, value: Any) -> None:
        """Remember a finished piece of work; whatever it relies on has to be on the disk already."""
        if self.path is not None:
            with disk_errors(self.path), self.path.open("ab") as file:
                file.write(_framed(_packed(stage, index, _plain(value))))
        self.n_finished += 1

    def remove(self) -> None:
        """Remove the journal alone, once the files that it names are committed."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def journaled_files(folder: Path) -> list[LakeFile]:
    """The files that the journal of a folder names, of paths that a lake writes; none where there is no journal."""
    path = folder / JOURNAL
    columns = [_table(frame)[_VALUE] for frame in list(_frames(path))[1:]] if path.exists() else []
    # only these few fields become Python's; the partial results beside them are large
    named = (column for column in columns if pa.types.is_struct(column.type) and "file" in column.type.names)
    files = [_restored(LakeFile, pc.struct_field(column, "file")[0].as_py()) for column in named]
    return [file for file in files if table_of(file.path) == file.name]


def _other(theirs: bytes, own: bytes) -> str:
    """Name the ingest that a journal is of, and what tells it from one's own."""
    known, wanted = json.loads(theirs), json.loads(own)
    differs = [key for key in wanted if wanted[key] != known.get(key)]
    return (
        f"an unfinished ingest of {known.get('name')} ({known.get('n_filters'):,} filters), "
        f"which differs from this one in {', '.join(differs)}"
    )


def _framed(content: bytes) -> bytes:
    return _FRAME.pack(len(content), zlib.crc32(content)) + content


def _frames(path: Path) -> Iterator[bytes]:
    """The contents of the whole frames of a journal, up to the first that is torn."""
    size = path.stat().st_size
    with path.open("rb") as file:
        while len(head := file.read(_FRAME.size)) == _FRAME.size:
            length, checksum = _FRAME.unpack(head)
            if length > size:
                return
            content = file.read(length)
            if len(content) < length or zlib.crc32(content) != checksum:
                return
            yield content


def _packed(stage: str, index: int, plain: Any) -> bytes:
    table = pa.table({_VALUE: pa.array([plain])}, metadata={"stage": stage, "index": str(index)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _table(frame: bytes) -> pa.Table:
    return pa.ipc.open_stream(frame).read_all()


def _unpacked(frame: bytes) -> tuple[str, int, Any]:
    table = _table(frame)
    told = table.schema.metadata
    return told[b"stage"].decode(), int(told[b"index"]), table[_VALUE][0].as_py()


def _plain(value: Any) -> Any:
    """A partial result as Arrow can hold it: arrays as their bytes, so that no bit is lost."""
    if is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, np.ndarray):
        return {"dtype": value.dtype.str, "shape": list(value.shape), "data": value.tobytes()}
    return value


def _restored(kind: Any, plain: Any) -> Any:
    """The partial result of type ``kind`` that `_plain` made ``plain`` of."""
    if is_dataclass(kind) and isinstance(kind, type):
        hints = typing.get_type_hints(kind)
        return kind(**{each.name: _restored(hints[each.name], plain[each.name]) for each in fields(kind)})
    if typing.get_origin(kind) is list:
        (item,) = typing.get_args(kind)
        return [_restored(item, each) for each in plain]
    if typing.get_origin(kind) is np.ndarray:
        return np.frombuffer(plain["data"], plain["dtype"]).reshape(plain["shape"])
    return plain
