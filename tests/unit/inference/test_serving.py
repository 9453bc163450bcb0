"""What the client of a cell asks for."""

from pathlib import Path

import pytest
import torch

from casesim.inference import serving
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


@pytest.mark.parametrize(("device", "threads"), [("cpu", 1), ("cuda", 2)])
def test_what_a_cell_of_more_threads_computes_with(device: str, threads: int) -> None:
    """Where a cluster's GPU turns out to be unusable, the result is a workstation's."""
    keeper = Keeper("cpu")
    keeper.device = torch.device(device)
    keeper.use_threads(2)
    assert torch.get_num_threads() == threads
