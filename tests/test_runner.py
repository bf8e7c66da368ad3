"""Threads of this process apply the functions of stages: as many as asked for, more where they wait, in order."""

import contextlib
import gc
import threading
import time
import weakref

import pytest

from warehouse.runner import LocalRunner


@pytest.mark.parametrize(("threads", "waits", "expected"), [(1, False, 1), (1, True, 2), (2, False, 2), (2, True, 4)])
def test_work_that_waits_has_twice_as_many_threads(threads: int, waits: bool, expected: int) -> None:
    running, most, guard = 0, 0, threading.Lock()
    together = threading.Barrier(expected)

    def work(i: int) -> int:
        nonlocal running, most
        with guard:
            running += 1
            most = max(most, running)
        together.wait(60)
        with guard:
            running -= 1
        return i

    assert list(LocalRunner(threads).map(int, work, range(20), waits=waits)) == list(range(20))
    assert most == expected


def test_the_first_error_ends_all() -> None:
    begun = []

    def work(i: int) -> int:
        begun.append(i)
        time.sleep(0.01)
        return 1 // (i - 3)

    with pytest.raises(ZeroDivisionError):
        list(LocalRunner(1).map(int, work, range(100)))
    assert len(begun) < 10


def test_an_error_holds_nothing_open_once_it_is_handled() -> None:
    class Resource:
        pass

    held: list[weakref.ref[Resource]] = []

    def work(i: int) -> int:
        resource = Resource()
        held.append(weakref.ref(resource))
        return 1 // (i - 3)

    gc.disable()
    try:
        with contextlib.suppress(ZeroDivisionError):
            list(LocalRunner(2).map(int, work, range(10)))
        assert {reference() for reference in held} == {None}
    finally:
        gc.enable()
