"""Unpack an ``.xz`` file to a temporary one, after checking that it is complete and that it fits.

Gets a path and hands on the path of the unpacked file. The layout is that of the .xz file format 1.2.1,
https://tukaani.org/xz/xz-file-format.txt.
"""

import errno
import lzma
import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

from warehouse.errors import SourceError

MAGIC = b"\xfd7zXZ\0"
Progress = Callable[[int, int], None]

_FRAMING = 12  # bytes of a stream's header, and of its footer
_MAX_INDEX = 1 << 24
_MAX_SHIFT = 56  # of the ninth byte of an integer, which is its last
_MAX_STREAMS = 10_000
_MAX_RATIO = 100
_HARMLESS = 1 << 30
_MAX_MEMORY = 512 << 20  # for unpacking: `xz -9` needs 65 MiB
_MAX_PADDING = 1 << 16
_PIECE = 1 << 22


@contextmanager
def unpacked(path: Path, scratch: Path | None = None, progress: Progress | None = None) -> Iterator[Path]:
    """Unpack a file for as long as the context lasts.

    Parameters
    ----------
    path
        The ``.xz`` file.
    scratch
        The folder for the unpacked file; by default the system's folder for temporary files.
    progress
        Called with the compressed bytes done and in total.

    Yields
    ------
    Path
        The unpacked file, removed on leaving.

    Raises
    ------
    SourceError
        If the file is truncated or damaged, or if `scratch` cannot take what it unpacks to.
    """
    folder = Path(tempfile.gettempdir()) if scratch is None else scratch
    with ExitStack() as resources:
        with path.open("rb") as packed, _naming(path):
            size = unpacked_size(packed)
            if size > _MAX_RATIO * path.stat().st_size + _HARMLESS:
                raise SourceError(
                    f"it unpacks to {size:,} bytes, too much for weights; if it is meant, unpack it by xz -d"
                )
            with _room(size, folder):
                temporary = Path(resources.enter_context(tempfile.TemporaryDirectory(prefix="warehouse-", dir=folder)))
                free = shutil.disk_usage(temporary).free
                if free < size:
                    raise OSError(errno.ENOSPC, f"{free:,} bytes are free")
                target = temporary / "dataset.h5"
                _unpack(packed, target, size, progress)
        yield target


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except SourceError as error:
        raise SourceError(f"{path}: {error}") from error
    except (lzma.LZMAError, EOFError, MemoryError) as error:
        raise SourceError(f"{path}: damaged, download it again ({error})") from error


@contextmanager
def _room(size: int, folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SourceError(
            f"unpacking needs {size:,} bytes in {folder}, which failed: {error.strerror or error}; "
            "make room there or name another folder for temporary files"
        ) from error


def unpacked_size(file: BinaryIO) -> int:
    """Return the size that an ``.xz`` file unpacks to, as the index of each of its streams says.

    Parameters
    ----------
    file
        An open file that can seek.

    Returns
    -------
    int
        Bytes.

    Raises
    ------
    SourceError
        If the file does not end in a complete stream, or an index does not match its checksum.
    """
    end = file.seek(0, os.SEEK_END)
    total = padding = n_streams = 0
    while end > 0:
        footer = _read(file, end - _FRAMING, _FRAMING)
        if footer.endswith(bytes(4)):  # streams may be followed by padding
            end -= 4
            padding += 4
            if padding > _MAX_PADDING:
                raise SourceError("the file ends in zeros: its download is incomplete, finish it")
            continue
        checksum, backward_size, flags, magic = struct.unpack("<II2s2s", footer)
        index_size = (backward_size + 1) * 4
        if magic != b"YZ" or crc32(footer[4:10]) != checksum or index_size > _MAX_INDEX:
            raise SourceError("the end of the .xz stream is missing or damaged, download the file again")
        index = _read(file, end - _FRAMING - index_size, index_size)
        blocks_size, unpacked_bytes = _parse_index(index)
        end -= _FRAMING + blocks_size + index_size + _FRAMING
        if _read(file, end, _FRAMING)[:8] != MAGIC + flags:
            raise SourceError("the start of an .xz stream is damaged, download the file again")
        total += unpacked_bytes
        n_streams += 1
        if n_streams > _MAX_STREAMS:
            raise SourceError(f"the file has more than {_MAX_STREAMS:,} .xz streams; pack it anew as one")
    return total


def _parse_index(index: bytes) -> tuple[int, int]:
    """Return the sizes of a stream's blocks, as stored with padding and unpacked."""
    if index[0] != 0 or crc32(index[:-4]) != int.from_bytes(index[-4:], "little"):
        raise SourceError("the index of the .xz stream is damaged, download the file again")
    numbers = _integers(index[1:-4])
    blocks_size = unpacked_bytes = 0
    for _ in range(next(numbers)):
        blocks_size += (next(numbers) + 3) // 4 * 4
        unpacked_bytes += next(numbers)
    return blocks_size, unpacked_bytes


def _integers(data: bytes) -> Iterator[int]:
    """Decode integers of seven bits a byte, least significant first, and of nine bytes at most."""
    value = shift = 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield value
            value = shift = 0
        elif shift > _MAX_SHIFT:
            raise SourceError("the index of the .xz stream is damaged, download the file again")
    raise SourceError("the index of the .xz stream is cut short, download the file again")


def _read(file: BinaryIO, start: int, size: int) -> bytes:
    if start < 0:
        raise SourceError("the .xz stream is cut short, download the file again")
    file.seek(start)
    return file.read(size)


def _unpack(packed: BinaryIO, target: Path, size: int, progress: Progress | None) -> None:
    packed_size = packed.seek(0, os.SEEK_END)
    packed.seek(0)
    with target.open("wb") as plain:
        for piece in _pieces(packed):
            if plain.tell() + len(piece) > size:
                raise lzma.LZMAError(f"it unpacks to more than the {size:,} bytes it declares")
            plain.write(piece)
            if progress is not None:
                progress(packed.tell(), packed_size)


def _pieces(packed: BinaryIO) -> Iterator[bytes]:
    """What the streams of a file unpack to, in bounded memory, which `lzma.open` leaves to the file."""
    data = packed.read(_PIECE)
    while data:
        stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, _MAX_MEMORY)
        while not stream.eof:
            if stream.needs_input and not data:
                raise EOFError("its end is missing")
            yield stream.decompress(data, _PIECE)
            data = packed.read(_PIECE) if stream.needs_input else b""
        data = stream.unused_data.lstrip(b"\0")
        while not data and (padding := packed.read(_PIECE)):
            data = padding.lstrip(b"\0")
