"""Whether the HDF5 library survives a file, found out in a process that may be lost.

Gets paths; hands on nothing, or one clear error. The library takes much of a file at its word, and damaged files,
virtual datasets above all, have crashed it or held it forever: there is no other way to tell them from sound ones.
"""

from __future__ import annotations

import atexit
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path

from warehouse import patience
from warehouse.errors import SourceError, WarehouseError

SECONDS = 30.0
"""The most that opening all objects of a file may take; files with thousands of layers take less than one."""

MEMORY_BYTES = 4 << 30
"""The most address space of the process, itself included."""

_SCRIPT = Path(__file__).with_name("probe_process.py")
_lock = threading.Lock()
_running: subprocess.Popen[bytes] | None = None  # kept, as the start takes a quarter of a second


def require_survivable(path: Path, member: str | None = None) -> None:
    """Have HDF5 open everything in a file, in another process.

    Parameters
    ----------
    path
        A file; what HDF5 refuses with an error passes, as that is for the reader to report.
    member
        If the file is a zip archive, the HDF5 file within it.

    Raises
    ------
    SourceError
        If HDF5 crashes, or takes longer than `SECONDS`.
    WarehouseError
        If the other process does not start.
    """
    question = json.dumps([str(path.absolute()), member]).encode() + b"\n"
    with _lock:
        try:
            # one that has ended since the last file says nothing of this one
            if _running is None or not _takes(_running, question):
                _end()
                _takes(_start(), question)
            assert _running is not None  # noqa: S101 - just started
            with patience.limited(SECONDS + patience.SECONDS, _running.kill) as late:
                if _answers(_running):
                    return
                status = _running.wait()
        except BaseException:
            _end()
            raise
        _end()
    raise SourceError(f"{_obituary(status, late=late.is_set())} {path.name!r}: damaged, or made to do harm")


def _start() -> subprocess.Popen[bytes]:
    global _running
    # -P: our own modules do not stand in for those of Python
    command = [sys.executable, "-P", str(_SCRIPT), str(SECONDS), str(MEMORY_BYTES)]
    _running = subprocess.Popen(  # noqa: S603 - our own module
        # of its own session, so that Ctrl-C reaches this process alone
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    with patience.limited(patience.SECONDS, _running.kill):
        if _answers(_running):
            return _running
        raise WarehouseError(
            f"the process that tries HDF5 files out does not start (status {_running.wait()}); "
            f"{shlex.join(command)} tells why"
        )


def _takes(process: subprocess.Popen[bytes], question: bytes) -> bool:
    """Whether the process is still there to take a question."""
    assert process.stdin is not None  # noqa: S101 - a pipe
    try:
        process.stdin.write(question)
        process.stdin.flush()
    except BrokenPipeError:
        return False
    return True


def _answers(process: subprocess.Popen[bytes]) -> bool:
    """Whether the process says that it is ready, or that it survived, before it ends."""
    assert process.stdout is not None  # noqa: S101 - a pipe
    return process.stdout.readline() == b"\n"


def _end() -> None:
    global _running
    if _running is not None:
        _running.kill()
        _running.communicate()
        _running = None


def _forget() -> None:
    """After a fork the process is the parent's."""
    global _lock, _running
    _lock, _running = threading.Lock(), None


atexit.register(_end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _obituary(status: int, *, late: bool) -> str:
    if late or status == -getattr(signal, "SIGALRM", 0):
        return f"the HDF5 library takes longer than {SECONDS:g} s to open"
    return f"the HDF5 library crashes (status {status}) on opening"
