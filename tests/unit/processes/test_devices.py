"""Who computes where: locks on devices, and the folder that they are in."""

import os
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from casesim.errors import UserError
from casesim.processes import card_memory, devices, locks, service


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", []),
        ("-1", []),
        ("0", ["0"]),
        ("2, 0", ["2", "0"]),
        ("1,-1,0", ["1"]),
        ("MIG-5c89852c-d268-c3f3", ["MIG-5c89852c-d268-c3f3"]),
    ],
)
def test_visible_gpus_as_cuda_reads_the_variable(
    monkeypatch: pytest.MonkeyPatch, value: str, expected: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert devices.visible_gpus() == expected


def test_visible_gpus_from_device_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(
        os,
        "listdir",
        lambda folder: ["nvidia1", "nvidia0", "nvidiactl", "nvidia-uvm", "null"],
    )
    assert devices.visible_gpus() == ["0", "1"]


def test_each_job_on_the_cpu_has_a_place_of_its_own(runtime: Path) -> None:
    with devices.reserve(0) as first, devices.reserve(0, shared=True) as second:
        assert (first.name, second.name) == ("cpu0", "cpu1")
        assert first.gpu is None
    with devices.reserve(0) as again:
        assert again.name == "cpu0"


def test_without_a_gpu_the_cpu_is_used(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with devices.reserve(1) as slot:
        assert slot.name == "cpu0"


def test_jobs_take_free_gpus(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,MIG-1")
    with devices.reserve(1) as first, devices.reserve(1, shared=True) as second:
        assert (first.gpu, second.gpu) == ("3", "MIG-1")
        assert first.name == "gpu3"
        # Clients queue for what clients hold, never for what a training holds.
        with devices.reserve(1, shared=True) as third:
            assert third.gpu == "MIG-1"


def test_training_waits_for_the_clients_of_a_gpu(
    runtime: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    order: list[str] = []
    client = devices.reserve(1, shared=True)

    def train() -> None:
        with devices.reserve(1) as slot:
            order.append(slot.name)

    waiting = threading.Thread(target=train)
    waiting.start()
    waiting.join(4 * devices._SECONDS_BETWEEN_LOOKS)
    order.append("client ends")
    client.close()
    waiting.join(30)
    assert order == ["client ends", "gpu0"]
    assert "Waiting for a free GPU" in capsys.readouterr().err


def look_beside_a_job_that_is_killed(gpus: int) -> list[str]:
    """The device that a job gets, what is left beside it, and what is free when it was
    killed."""
    code = (
        "from casesim.processes import devices; import time;"
        f"s = devices.reserve({gpus}); print(s.name, flush=True); time.sleep(60)"
    )
    path = str(Path(devices.__file__).parents[2])
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    ) as job:
        assert job.stdout is not None
        names = [job.stdout.readline().strip()]
        with devices.reserve(gpus) as slot:
            names.append(slot.name)
        job.kill()
        job.wait()
        with devices.reserve(gpus) as slot:
            names.append(slot.name)
    return names


def test_device_of_a_killed_job_is_free(runtime: Path) -> None:
    assert look_beside_a_job_that_is_killed(0) == ["cpu0", "cpu1", "cpu0"]


def test_trainings_share_gpus_of_two_slots(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each GPU has one training before any has two; the last place is the first slot's,
    where the predictor of the GPU is."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv(devices.VARIABLE, "2")
    monkeypatch.setattr(devices, "_LONGEST_SECONDS", 0.1)
    with ExitStack() as held:
        # Clients take the first slot, beside whatever trains in the second.
        client = held.enter_context(devices.reserve(1, shared=True))
        assert client.name == "gpu0"
        slots = [held.enter_context(devices.reserve(1)) for _ in range(3)]
        assert [slot.name for slot in slots] == ["gpu0.1", "gpu1.1", "gpu1"]
        assert [slot.gpu for slot in slots] == ["0", "1", "1"]
        assert {devices.first_slot(slot.name) for slot in slots} == {"gpu0", "gpu1"}
        with pytest.raises(UserError, match="a free GPU"):
            devices.reserve(1)
        client.close()
        held.enter_context(devices.reserve(1))
        # All slots train now, and cells wait.
        with pytest.raises(UserError, match="a free GPU"):
            devices.reserve(1, shared=True)
        held.pop_all()
        for slot in slots:
            slot.close()


def test_a_slot_is_free_when_its_training_dies(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv(devices.VARIABLE, "2")
    assert look_beside_a_job_that_is_killed(1) == ["gpu0.1", "gpu0", "gpu0.1"]


@pytest.mark.parametrize("text", ["0", "two", "-1", "1.5"])
def test_a_number_of_slots_that_is_none(
    runtime: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv(devices.VARIABLE, text)
    with pytest.raises(UserError, match="share a GPU, 1 or more"):
        devices.reserve(0)


class Card:
    """A GPU as torch shows it: what is free at each look, and the part taken of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *free: int) -> None:
        torch = pytest.importorskip("torch")
        self.free, self.asked, self.part = list(free), [""], 0.0
        del self.asked[0]
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
        monkeypatch.setattr(service, "release", self.asked.append)
        monkeypatch.setattr(card_memory, "_SECONDS_BETWEEN_LOOKS", 0.01)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "mem_get_info", self.look)
        monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", self.take)
        self.out_of_memory = torch.OutOfMemoryError

    def look(self, _: object = None) -> tuple[int, int]:
        free = self.free.pop(0) if len(self.free) > 1 else self.free[0]
        return free << 30, 80 << 30

    def take(self, part: float) -> None:
        self.part = part


def test_a_training_keeps_to_its_part_of_the_memory(
    runtime: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card = Card(monkeypatch, 5, 6, 17, 18)
    monkeypatch.setenv(devices.VARIABLE, "4")
    with devices.acquire(1) as device:
        assert device == "cuda:0"
    # The predictor is asked for its memory, once; then others are waited for.
    assert card.asked == ["gpu0.3", "gpu0"]
    assert card.part == pytest.approx(0.225)
    said = capsys.readouterr().err
    assert "Waiting for 18.0 GB of the GPU's memory, of which 6.0 GB are free" in said
    with pytest.raises(UserError, match="fewer slots than 4"), devices.acquire(1):
        raise card.out_of_memory("CUDA out of memory")


def test_memory_that_nobody_gives_back(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Card(monkeypatch, 1)
    monkeypatch.setenv(devices.VARIABLE, "2")
    monkeypatch.setattr(card_memory, "_LONGEST_SECONDS", 0.05)
    with pytest.raises(UserError, match="Other programs hold it"), devices.acquire(1):
        pass
    # The slot is not kept.
    assert locks.try_lock(str(runtime / "casesim/gpu0.1.device")) is not None


def test_a_gpu_of_one_slot_has_all_its_memory(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = Card(monkeypatch, 0)
    with devices.acquire(1) as device:
        assert device == "cuda:0"
    assert card.part == 0
    with (
        pytest.raises(UserError, match=r"of memory.*gpu_memory_target_gb"),
        devices.acquire(1),
    ):
        raise card.out_of_memory("CUDA out of memory")


@pytest.mark.parametrize(
    ("slots", "free", "expected"), [("4", 60, 18 - 7 + 2), ("4", 5, 7), ("1", 60, 62)]
)
def test_a_predictor_leaves_the_other_parts_alone(
    monkeypatch: pytest.MonkeyPatch, slots: str, free: int, expected: int
) -> None:
    """Of a card of 80 GB, on which the predictor has 7 GB and uses 5."""
    torch = pytest.importorskip("torch")
    card = Card(monkeypatch, free)
    monkeypatch.setattr(card_memory, "_part", 1.0)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 7 << 30)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 5 << 30)
    monkeypatch.setenv(devices.VARIABLE, slots)
    assert devices.predictor_device("0") == "cuda:0"
    assert card.part == pytest.approx(0.225 if slots == "4" else 0)
    assert card_memory.available(torch.device("cuda:0")) == expected << 30


def test_slurm_jobs_number_their_gpus_apart(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with devices.reserve(1) as first:
        monkeypatch.setenv("SLURM_JOB_ID", "8")
        with devices.reserve(1) as second:
            assert (first.name, second.name) == ("job7-gpu0", "job8-gpu0")


@pytest.mark.parametrize("variable", ["SLURM_STEP_GPUS", "SLURM_SHARDS_ON_NODE"])
def test_a_gpu_that_slurm_calls_by_another_name_is_used(
    runtime: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    with devices.reserve(0) as slot:
        assert slot.gpu is None
    monkeypatch.setenv(variable, "2")
    with devices.reserve(0) as slot:
        assert slot.gpu == "2"


def test_acquire_gives_a_torch_device_and_frees_it(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(service, "release", lambda name: asked.append(name))
    with devices.acquire(0) as device:
        assert device == "cpu"
        assert asked == ["cpu0"]
        assert locks.try_lock(str(runtime / "casesim/cpu0.device")) is None
    lock = locks.try_lock(str(runtime / "casesim/cpu0.device"))
    assert lock is not None
    os.close(lock)


def test_gpu_that_torch_cannot_use_falls_back_to_the_cpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.torch_device("1") == "cpu"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
    assert "cannot be used" in capsys.readouterr().err
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert devices.torch_device("1") == "cuda:0"
