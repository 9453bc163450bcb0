"""How jobs share a machine without a GPU."""

import os

import pytest

from casesim.processes import places


def test_available_memory_is_within_the_machine() -> None:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < places.available_memory() <= total


@pytest.mark.parametrize(
    ("gpus", "limit", "on_cpu"),
    [
        ("", None, True),
        ("", 1, True),
        ("0", None, False),
        ("0", 1, False),
        # Who has a GPU and gives the run none wants the CPU.
        ("0", 0, True),
    ],
)
def test_who_computes_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, gpus: str, limit: int | None, on_cpu: bool
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    assert places.computes_here(limit) is on_cpu


@pytest.mark.parametrize(
    ("cores", "gigabytes", "number"), [(8, 16, 8), (16, 6, 6), (4, 0, 1), (1, 64, 1)]
)
def test_a_job_on_each_core_as_far_as_memory_goes(
    monkeypatch: pytest.MonkeyPatch, cores: int, gigabytes: int, number: int
) -> None:
    monkeypatch.setattr(places, "available_memory", lambda: gigabytes << 30)
    assert places.how_many(cores) == number


@pytest.mark.parametrize(("device", "threads"), [("cpu", 1), ("cuda:0", 8)])
def test_only_beside_a_gpu_the_number_of_threads_is_the_job_s(
    device: str, threads: int
) -> None:
    assert places.threads_on(device, 8) == threads


def test_jobs_share_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(places.VARIABLE, "4")
    assert places.share_of_memory() == 0.25
    # Not told by a workflow: alone.
    monkeypatch.delenv(places.VARIABLE)
    assert places.share_of_memory() == 1
