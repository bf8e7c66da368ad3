"""Whether the HDF5 library survives a file, found out in a process that may be lost.

Gets paths; hands on nothing, or one clear error. The library takes much of a file at its word, and damaged files,
virtual datasets above all, have crashed it or held it forever: there is no other way to tell them from sound ones.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from warehouse.errors import SourceError

SECONDS = 30.0
"""The most that opening all objects of a file may take; files with thousands of layers take less than one."""

MEMORY_BYTES = 4 << 30
"""The most address space of the process, itself included."""

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
    """
    global _running
    with _lock:
        if _running is None or _running.poll() is not None:
            _end()
            _running = _start()
        questions, answers = _running.stdin, _running.stdout
        assert questions is not None  # noqa: S101 - both are pipes
        assert answers is not None  # noqa: S101
        try:
            questions.write(json.dumps([str(path.absolute()), member]).encode() + b"\n")
            questions.flush()
            survived = answers.readline()
        except BaseException:
            _end()
            raise
        if not survived:
            status = _running.wait()
            _end()
            raise SourceError(f"{_obituary(status)} {path.name!r}: damaged, or made to do harm")


def _start() -> subprocess.Popen[bytes]:
    script = Path(__file__).with_name("probe_process.py")
    # -P: our own modules do not stand in for those of Python
    command = [sys.executable, "-P", str(script), str(SECONDS), str(MEMORY_BYTES)]
    return subprocess.Popen(  # noqa: S603 - our own module
        # of its own session, so that Ctrl-C reaches this process alone
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


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


def _obituary(status: int) -> str:
    if status == -getattr(signal, "SIGALRM", 0):
        return f"the HDF5 library takes longer than {SECONDS:g} s to open"
    return f"the HDF5 library crashes (status {status}) on opening"
