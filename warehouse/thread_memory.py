"""Memory of a thread's own that is used again and again, as the system takes its time to hand out new."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

_local = threading.local()


def thread_memory(name: str, size: int) -> NDArray[np.uint8]:
    """``size`` bytes of any contents: of one name in one thread the same memory, until more is asked for."""
    memory: NDArray[np.uint8] = getattr(_local, name, np.empty(0, np.uint8))
    if memory.size < size:
        memory = np.empty(size, np.uint8)
        setattr(_local, name, memory)
    return memory[:size]
