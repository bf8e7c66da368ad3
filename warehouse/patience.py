"""Patience with what answers from elsewhere: after a time it is given up, and whoever waits is told so."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SECONDS = 30
"""For the start of a process of our own, or beyond what its question may take by its own clock: that is not yet set
while it starts, and stands still while somebody has it stopped."""


@contextmanager
def limited(seconds: float, give_up: Callable[[], object]) -> Iterator[threading.Event]:
    """Give up what the body waits for if it takes longer.

    Parameters
    ----------
    seconds
        Until then.
    give_up
        Ends what is waited for, in another thread.

    Yields
    ------
    Set if it came to that.
    """
    late = threading.Event()

    def expire() -> None:
        late.set()
        give_up()

    timer = threading.Timer(seconds, expire)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()
