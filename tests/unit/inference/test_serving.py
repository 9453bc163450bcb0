"""What the client of a cell asks for."""

from pathlib import Path

import pytest
import torch

from casesim.cells import ALWAYS_ENOUGH
from casesim.errors import UserError
from casesim.inference import compiled_network, serving
from casesim.inference.keeping import Keeper


def test_job_of_the_workflows_command_line() -> None:
    job = serving.parse_job(
        "/work place",
        [
            *("--model", "finetuned/a", "--case", "b", "--checkpoint", "m/c.pth"),
            *("--data", "b.b2nd", "--label", "/l/b.nii.gz"),
            *("--prediction", "p/b.nii.gz", "--score", "s/b.json"),
            *("--threads", "8", "--gpu", "1", "--no-mirroring", "--resident"),
            *("--tile-step", "0.25", "--labels", "edema=1;non-enhancing_tumor=2"),
            *("--regions", "WT=1,2;x=y=2"),
        ],
    )
    assert job.checkpoint == Path("/work place/m/c.pth")
    assert job.label == Path("/l/b.nii.gz")
    assert job.threads == 8
    assert job.labels == {"edema": (1,), "non-enhancing_tumor": (2,)}
    assert job.ignore is None
    assert job.regions == {"WT": (1, 2), "x=y": (2,)}
    assert job.options == {"mirroring": False, "tile_step": 0.25, "bfloat16": False}
    assert job.first_stage is None


@pytest.mark.parametrize("text", ["1,2", "=1", "a=", "a=x"])
def test_malformed_regions(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        serving.parse_regions(text)


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> serving.NnunetPredictor:
    """A predictor that compiles, where the compiler fails."""
    monkeypatch.setenv(compiled_network.CELLS_VARIABLE, "5000")
    predictor = serving.NnunetPredictor("cpu")
    predictor._compiles = True
    return predictor


def _segment(compiled: bool) -> dict[str, float]:
    if compiled:
        raise RuntimeError("inductor raised:\nFailed to find C compiler.")
    return {"network": 1.0}


def test_a_predictor_goes_on_without_a_compiler(
    no_compiler: serving.NnunetPredictor,
) -> None:
    seconds, said = no_compiler._segment(_segment, True)
    assert seconds == {"network": 1.0}
    assert "could not be compiled (Failed to find C compiler.): going on" in said
    assert no_compiler._compiles is False


def test_a_compiler_that_is_asked_for_and_fails(
    no_compiler: serving.NnunetPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(compiled_network.CELLS_VARIABLE, str(ALWAYS_ENOUGH))
    with pytest.raises(UserError, match=r"C compiler.*inference\.compile to auto"):
        no_compiler._segment(_segment, True)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), UserError("damaged")]
)
def test_what_is_not_the_compilers_is_raised(
    no_compiler: serving.NnunetPredictor, error: Exception
) -> None:
    tries = []

    def segment(compiled: bool) -> dict[str, float]:
        tries.append(compiled)
        raise error

    with pytest.raises(type(error)):
        no_compiler._segment(segment, True)
    assert tries == [True]


def test_a_failure_after_a_cell_is_not_the_compilers(
    no_compiler: serving.NnunetPredictor,
) -> None:
    no_compiler._segment(lambda compiled: {"network": 1.0}, True)
    with pytest.raises(RuntimeError, match="C compiler"):
        no_compiler._segment(_segment, True)


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_memory_that_runs_out_is_made_room_for_once(failures: int) -> None:
    keeper = Keeper("cpu")
    kept: list[str] = ["model"]
    tries = []

    def run() -> str:
        tries.append(list(kept))
        if len(tries) <= failures:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return "done"

    keeper.release = kept.clear  # type: ignore[method-assign]
    if failures == 2:
        with pytest.raises(UserError, match=r"too small for this case.*nvidia-smi"):
            keeper.try_twice(run)
    else:
        assert keeper.try_twice(run) == "done"
    assert tries == [["model"], [], []][: min(failures + 1, 2)]


@pytest.mark.parametrize(("device", "threads"), [("cpu", 1), ("cuda", 2)])
def test_what_a_cell_of_more_threads_computes_with(device: str, threads: int) -> None:
    """Where a cluster's GPU turns out to be unusable, the result is a workstation's."""
    keeper = Keeper("cpu")
    keeper.device = torch.device(device)
    keeper.use_threads(2)
    assert torch.get_num_threads() == threads
