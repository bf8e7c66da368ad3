"""The process in which `warehouse.probe` opens files that may be hostile; nothing else starts it.

Says by an empty line that it is ready. Gets the paths of HDF5 files as lines of JSON on standard input, opens all that
HDF5 decodes before it reads data, and answers each with an empty line: whether the file is any good is not its matter,
only that HDF5 survives it.
"""

import json
import os
import signal
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

import h5py


def main(seconds: float, memory_bytes: int) -> None:
    """Answer until standard input ends; the kernel ends the process if a file takes too long."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - one import less
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
    _limit(memory_bytes)
    _answer(answers)
    for line in sys.stdin.buffer:
        path, member = json.loads(line)
        _alarm(seconds)
        with suppress(Exception), _opened(path, member) as opened, h5py.File(opened, "r") as file:
            _look_at(file)
        _alarm(0)
        _answer(answers)


def _answer(answers: IO[bytes]) -> None:
    answers.write(b"\n")
    answers.flush()


def _limit(memory_bytes: int) -> None:
    """Bound the memory, leave no memory images, and let the alarm through, all as far as the system can."""
    if hasattr(signal, "pthread_sigmask"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    with suppress(ImportError):  # of Windows
        import resource

        for kind, most in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_AS, memory_bytes)):
            _, hard = resource.getrlimit(kind)
            allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
            with suppress(OSError, ValueError):  # macOS refuses to bound the memory
                resource.setrlimit(kind, (allowed, allowed))


def _alarm(seconds: float) -> None:
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


@contextmanager
def _opened(path: str, member: str | None) -> Iterator[str | IO[bytes]]:
    """The file at a path, or a file within that archive."""
    if member is None:
        yield path
        return
    with zipfile.ZipFile(path) as archive, archive.open(member) as part:
        yield part


def _look_at(file: h5py.File) -> None:
    """Open every object that hard links reach, and decode what describes its attributes and its data."""
    seen, waiting = set(), [file]
    while waiting:
        with suppress(Exception):  # the next one is looked at all the same
            node = waiting.pop()
            address = h5py.h5o.get_info(node.id).addr
            if address in seen:
                continue
            seen.add(address)
            if isinstance(node, h5py.Group):
                for name in node:
                    with suppress(Exception):
                        if node.id.links.get_info(name.encode()).type == h5py.h5l.TYPE_HARD:
                            waiting.append(node[name])
            else:
                _look_at_data(node)
            for name in node.attrs:
                with suppress(Exception):
                    node.attrs.get_id(name).get_type()


def _look_at_data(dataset: h5py.Dataset) -> None:
    properties = dataset.id.get_create_plist()
    if properties.get_layout() == h5py.h5d.VIRTUAL:
        # asked for its shape, it would open whatever file it maps
        for mapping in range(properties.get_virtual_count()):
            properties.get_virtual_filename(mapping)
            properties.get_virtual_vspace(mapping).get_select_npoints()
        return
    dataset.id.get_space()
    dataset.id.get_type()
    dataset.id.get_storage_size()


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
