"""What an unfinished ingest has finished, on the disk: the next run of the same ingest goes on from there.

One file beside the lake, to which each finished piece of work is appended: a length, a checksum and the partial result
as an Arrow table. What was torn off by a crash is cut off. No commit depends on it and no reader knows of it.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from warehouse import codec
from warehouse.errors import LakeError
from warehouse.lake import JOURNAL, LakeFile, disk_errors, table_of

_FRAME = struct.Struct("<QI")


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
        self._known: dict[tuple[str, int], bytes] = {}
        if self.path is None:
            return
        with disk_errors(self.path):
            frames = list(_frames(self.path)) if self.path.exists() else []
        own = json.dumps(identity, sort_keys=True).encode()
        if frames and frames[0] != own:
            raise LakeError(f"{folder} holds {_other(frames[0], own)}; use --restart to begin anew")
        for frame in frames[1:]:
            told = codec.table_of(frame).schema.metadata
            self._known[told[b"stage"].decode(), int(told[b"index"])] = frame
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
        frame = self._known.pop((stage, index), None)
        return None if frame is None else codec.decode(kind, frame)

    def put(self, stage: str, index: int, value: Any) -> None:
        """Remember a finished piece of work; whatever it relies on has to be on the disk already."""
        if self.path is not None:
            with disk_errors(self.path), self.path.open("ab") as file:
                file.write(_framed(codec.encode(value, {"stage": stage, "index": str(index)})))
        self.n_finished += 1

    def remove(self) -> None:
        """Remove the journal alone, once the files that it names are committed."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def journaled_files(folder: Path) -> list[LakeFile]:
    """The files that the journal of a folder names, of paths that a lake writes; none where there is no journal."""
    path = folder / JOURNAL
    columns = [codec.table_of(frame)[codec.VALUE] for frame in list(_frames(path))[1:]] if path.exists() else []
    # only these few fields become Python's; the partial results beside them are large
    named = (column for column in columns if pa.types.is_struct(column.type) and "file" in column.type.names)
    files = [codec.restored(LakeFile, pc.struct_field(column, "file")[0].as_py()) for column in named]
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
            # of no length is what a power cut leaves as zeros, whose checksum is right
            if not 0 < length <= size:
                return
            content = file.read(length)
            if len(content) < length or zlib.crc32(content) != checksum:
                return
            yield content
