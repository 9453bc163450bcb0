"""What the scripts of rules that train hand to the job that does it."""

import inspect
import runpy
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import model_training
from casesim.processes import devices, warm
from casesim.training import cascade, jobs

SCRIPTS = Path(model_training.__file__).parent


class Given(dict):
    """What Snakemake names: by attribute, and by `get`."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


def rule(folder: Path, **inputs: Any) -> SimpleNamespace:
    return SimpleNamespace(
        input=Given(plans="p.json", dataset="d.json", **inputs),
        output=Given(plans=f"{folder}/model/plans.json"),
        params=Given(training={"seed": 3}, top=1),
        config={"training": {"checkpoint_minutes": 5}},
        resources=Given(gpu=1, mem_mb=16000),
        threads=1,
        log=[str(folder / "log")],
    )


@pytest.mark.parametrize(
    ("script", "inputs", "cases"),
    [
        ("training/train_base", {"cases": ["x/a.b2nd", "x/b.b2nd"]}, ["x/a", "x/b"]),
        (
            "training/finetune",
            {"copies": ["c_0.b2nd", "c_0_seg.b2nd", "c_0.pkl"], "base": "base.pth"},
            ["c_0"],
        ),
        (
            "training/retrain",
            {"cases": ["x/a.b2nd", "x/b.b2nd"], "training_cases": "kept.txt"},
            ["x/b"],
        ),
        (
            "adaptive/continue_base",
            {"cases": ["x/a.b2nd"], "training_cases": [], "base": "base.pth"},
            ["x/a"],
        ),
    ],
)
def test_what_is_trained_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    inputs: dict[str, Any],
    cases: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("kept.txt").write_text("b\n")
    asked: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(warm, "run", lambda name, values: asked.append((name, values)))
    given = rule(tmp_path, **inputs)
    # The script logs into a file, and this process would go on doing so.
    monkeypatch.setattr("casesim.files.logged", lambda path: nullcontext())
    runpy.run_path(str(SCRIPTS / f"{script}.py"), {"snakemake": given}, "__main__")
    ((name, values),) = asked
    assert name == "casesim.training.jobs:train"
    assert values["cases"] == cases
    assert values["model"] == str(tmp_path / "model")
    assert values.get("start_from") == inputs.get("base")
    assert (values["threads"], values["gpu"], values["memory_mb"]) == (1, 1, 16000)
    # Nothing that the job does not take, and all that it needs.
    inspect.signature(jobs.train).bind(**values)


@pytest.mark.parametrize(("device", "threads"), [("cpu", 1), ("cuda:0", 4)])
def test_threads_are_the_job_s_on_a_gpu_alone(
    monkeypatch: pytest.MonkeyPatch, device: str, threads: int
) -> None:
    """A device that was asked for may turn out to be the CPU."""
    given: dict[str, Any] = {}
    monkeypatch.setattr(devices, "acquire", lambda number: nullcontext(device))
    monkeypatch.setattr(cascade, "train", lambda cases, *_, **rest: given.update(rest))
    jobs.train(
        *([], "plans.json", "dataset.json", "model", {"seed": 0}),
        {"checkpoint_minutes": 5, "validate_every": 0},
        threads=4,
        gpu=1,
        memory_mb=1000,
    )
    assert (given["device"], given["threads"]) == (device, threads)
