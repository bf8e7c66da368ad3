"""Patience with a process of our own that answers questions: one that stays silent is ended.

Beside the process's own clock, which stands still while somebody has it stopped, and is not yet set while it starts.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SECONDS = 30
"""For the start of a process, or beyond what its question may take by its own clock."""


@contextmanager
def ended_after(process: subprocess.Popen[bytes], seconds: float) -> Iterator[threading.Event]:
    """End a process if the body takes longer.

    Parameters
    ----------
    process
        For whose answer the body waits.
    seconds
        Until it is killed.

    Yields
    ------
    Set if it came to that.
    """
    late = threading.Event()

    def end() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()
