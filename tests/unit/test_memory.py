"""Threads share memory: never more than there is, and nobody waits for ever."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from casesim.memory import SharedMemory


@pytest.mark.parametrize("total", [1.0, 4.0, 9.0, float("inf")])
def test_never_more_is_taken_than_there_is(total: float) -> None:
    shared = SharedMemory(total)
    lock, taken, fits = threading.Lock(), list[float](), list[bool]()

    def job(needed: float) -> None:
        with shared.taken(needed):
            with lock:
                taken.append(needed)
                # What needs more than there is goes alone.
                fits.append(sum(taken) <= total or len(taken) == 1)
            threading.Event().wait(0.001)
            with lock:
                taken.remove(needed)

    needs = [1.0, 3.0, 7.0, 2.0, 12.0] * 4
    with ThreadPoolExecutor(6) as executor:
        list(executor.map(job, needs))
    assert taken == []
    assert fits == [True] * len(needs)


def test_what_fits_beside_others_does_not_wait() -> None:
    shared = SharedMemory(5)
    together = threading.Barrier(2)

    def job(needed: float) -> None:
        with shared.taken(needed):
            together.wait(timeout=60)

    with ThreadPoolExecutor(2) as executor:
        list(executor.map(job, [2.0, 3.0]))


def test_it_is_given_back_after_an_error() -> None:
    shared = SharedMemory(0)
    with pytest.raises(ValueError, match="broken"), shared.taken(3):
        raise ValueError("broken")
    with shared.taken(3):
        pass
