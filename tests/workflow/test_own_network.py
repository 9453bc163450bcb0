"""A study around plans and a network that were there before it."""

import json
import shutil
from pathlib import Path
from typing import Any

import SimpleITK

from .conftest import SMALL, Checkout, succeeded
from .test_dry_run import job_counts

ONCE = {"epochs": 1, "iterations_per_epoch": 1}


def study(finished: Checkout, folder: Path) -> tuple[Checkout, Path]:
    """A study whose base model is a copy of the finished one's."""
    model = folder / "trained elsewhere"
    shutil.copytree(finished.path("results/models/base"), model)
    checkpoint = model / "fold_all/checkpoint_final.pth"
    training: dict[str, Any] = {
        "base": {**ONCE, "checkpoint": str(checkpoint)},
        "finetune": ONCE,
    }
    return Checkout(folder / "study", {**SMALL, "training": training}), checkpoint


def test_the_plan(finished: Checkout, tmp_path: Path) -> None:
    checkout, _ = study(finished, tmp_path)
    counts = job_counts(succeeded(checkout.run("-n", "--quiet", "rules")))
    assert counts["adopt_base"] == counts["plan"] == 1
    assert "train_base" not in counts
    # Two arms, and the whole pool, which the base model does not stand for.
    assert counts["retrain"] == 3
    assert counts["finetune"] == 6


def test_the_network_is_the_base_model(finished: Checkout, tmp_path: Path) -> None:
    checkout, checkpoint = study(finished, tmp_path)
    models = ("base", "finetuned/phantom_001")
    cells = [f"results/scores/{model}/phantom_002.json" for model in models]
    succeeded(checkout.run(*cells))
    plans = "results/nnunet/preprocessed/Dataset001_Cohort/nnUNetPlans.json"
    assert checkout.path(plans).read_text() == finished.path(plans).read_text()
    # The same weights and the same case.
    prediction = "results/predictions/base/phantom_002.nii.gz"
    ours, theirs = (
        SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(study.path(prediction))))
        for study in (checkout, finished)
    )
    assert (ours == theirs).all()
    assert ours.any()
    assert "Nothing to be done" in succeeded(checkout.run("-n", *cells))

    checkpoint.touch()  # is the same network
    assert "Nothing to be done" in succeeded(checkout.run("-n", *cells))
    checkpoint.write_bytes(checkpoint.read_bytes() + b" ")
    again = succeeded(checkout.run(*cells, "-n", "--quiet", "rules"))
    assert job_counts(again)["adopt_base"] == job_counts(again)["finetune"] == 1
    assert "plan" not in job_counts(again)
    own_plans = checkpoint.parent.with_name("plans.json")
    content = json.loads(own_plans.read_text())
    content["configurations"]["2d"]["batch_size"] += 1
    own_plans.write_text(json.dumps(content))
    again = succeeded(checkout.run(*cells, "-n", "--quiet", "rules"))
    assert job_counts(again)["plan"] == 1


def test_another_architecture_ends_with_its_message(
    finished: Checkout, tmp_path: Path
) -> None:
    checkout, checkpoint = study(finished, tmp_path)
    dataset = checkpoint.parent.with_name("dataset.json")
    dataset.write_text(dataset.read_text().replace('"edema"', '"oedema"'))
    result = checkout.run("-n")
    assert result.returncode != 0
    assert "was trained on the labels background = 0, oedema = 1" in result.stdout
    assert "Traceback" not in result.stdout
