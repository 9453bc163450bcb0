"""Who computes where: locks on devices, and the folder that they are in."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from casesim.processes import devices, locks, service


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


def test_device_of_a_killed_job_is_free(runtime: Path) -> None:
    code = (
        "from casesim.processes import devices; import time; s = devices.reserve(0);"
        "print(s.name, flush=True); time.sleep(60)"
    )
    path = str(Path(devices.__file__).parents[2])
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    ) as job:
        assert job.stdout is not None
        assert job.stdout.readline().strip() == "cpu0"
        with devices.reserve(0) as slot:
            assert slot.name == "cpu1"
        job.kill()
        job.wait()
        with devices.reserve(0) as slot:
            assert slot.name == "cpu0"


def test_slurm_jobs_number_their_gpus_apart(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with devices.reserve(1) as first:
        monkeypatch.setenv("SLURM_JOB_ID", "8")
        with devices.reserve(1) as second:
            assert (first.name, second.name) == ("job7-gpu0", "job8-gpu0")


def test_a_gpu_that_slurm_calls_by_another_name_is_used(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    with devices.reserve(0) as slot:
        assert slot.gpu is None
    monkeypatch.setenv("SLURM_STEP_GPUS", "2")
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
