"""The similarity classifier, added to a study that is finished."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import SimpleITK

from benchmarks import shift

from .conftest import Checkout, succeeded
from .test_dry_run import job_counts

# Too few calibration cases to predict a Dice, so that the test takes seconds; what
# enough of them teach is tested on the scripts (tests/unit/adaptive).
MORE: dict[str, dict[str, Any]] = {
    "cohort": {"calibration": 2, "new": 1},
    "adaptive": {
        **{"enabled": True, "seeds": [0], "random_ensembles": 1, "top": 2},
        "finetune": 1,
    },
}


@pytest.fixture(scope="module")
def study(
    finished: Checkout, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Checkout, dict[str, int]]:
    """The checkout, and the jobs that were run for the new stage."""
    folder = tmp_path_factory.mktemp("adaptive")
    shutil.copytree(finished.folder, folder, symlinks=True, dirs_exist_ok=True)
    config = copy.deepcopy(finished.config)
    for section, values in MORE.items():
        config[section] = {**config.get(section, {}), **values}
    checkout = Checkout(folder, config)
    return checkout, job_counts(succeeded(checkout.run("adaptive")))


def read(checkout: Checkout, path: str) -> np.ndarray:
    image = SimpleITK.ReadImage(str(checkout.path("results", path)))
    return SimpleITK.GetArrayFromImage(image)


def names(checkout: Checkout, pattern: str) -> list[str]:
    return sorted(p.name.split(".")[0] for p in checkout.path("results").glob(pattern))


def test_nothing_that_was_finished_is_done_again(
    study: tuple[Checkout, dict[str, int]],
) -> None:
    _, counts = study
    again = {"train_base", "finetune", "predict", "retrain", "plan", "refit"}
    assert not again & set(counts)
    # Base and six rows on two calibration, two held-out and one new case; two controls
    # on those that judge, and one fine-tune for a case.
    assert counts["predict_label_free"] == 7 * 5 + 2 * 2 + 1
    assert counts["import_case"] == 2
    assert counts["import_new_case"] == 1
    # What is new has been checked.
    assert counts["check_cohort"] == 1


def test_a_new_case_needs_no_label(study: tuple[Checkout, dict[str, int]]) -> None:
    checkout, _ = study
    told = pd.read_csv(checkout.path("results/adaptive/new.tsv"), sep="\t")
    (case,) = told["case"]
    raw = checkout.path("results/nnunet/raw/Dataset001_Cohort")
    assert not list(raw.glob(f"labels*/{case}*"))
    segmented = read(checkout, f"predictions/adaptive/{case}.nii.gz")
    image = SimpleITK.ReadImage(str(raw / f"imagesTs/{case}_0000.nii.gz"))
    assert segmented.shape == image.GetSize()[::-1]
    assert told["predicted_dice"].isna().all()
    assert told["words"].str.startswith("not calibrated").all()
    page = checkout.path("results/adaptive/new.html").read_text()
    assert "2 calibration cases with a defined Dice are too few" in page
    order = pd.read_csv(checkout.path("results/adaptive/labelling_order.tsv"), sep="\t")
    assert list(order["case"]) == [case]


def test_cells_of_fine_tuned_models_outside_the_pool_lie_apart(
    study: tuple[Checkout, dict[str, int]],
) -> None:
    checkout, _ = study
    cohort = pd.read_csv(checkout.path("results/cohort.tsv"), sep="\t")
    pool = sorted(cohort["case"][cohort["role"] == "pool"])
    others = sorted(cohort["case"][cohort["role"] != "pool"])
    for model in (f"finetuned/{pool[0]}", "base"):
        assert names(checkout, f"adaptive/label_maps/{model}/*.nii.gz") == others
    assert names(checkout, f"predictions/finetuned/{pool[0]}/*.nii.gz") == pool
    assert names(checkout, f"scores/finetuned/{pool[0]}/*.json") == pool


def test_both_clients_segment_alike(study: tuple[Checkout, dict[str, int]]) -> None:
    checkout, _ = study
    held_out = names(checkout, "adaptive/method_scores/*.tsv")
    compared = 0
    for case in held_out:
        if checkout.path(f"results/predictions/base/{case}.nii.gz").exists():
            np.testing.assert_array_equal(
                read(checkout, f"adaptive/label_maps/base/{case}.nii.gz"),
                read(checkout, f"predictions/base/{case}.nii.gz"),
            )
            compared += 1
    assert compared == 2


def test_all_methods_are_judged(study: tuple[Checkout, dict[str, int]]) -> None:
    checkout, _ = study
    found = json.loads(checkout.path("results/adaptive/validation.json").read_text())
    assert not found["calibrated"]
    assert set(found["contrasts"]) == {"adaptive", "pick", "finetuned_for_case"}
    assert set(found["contrasts"]["adaptive"]) == {
        *("base", "continued_full", "continued_kept", "uniform_all", "random_1"),
        *("uniform_without_worst", "best_row_mean", "confidence_alone"),
        *("nearest_by_image", "oracle"),
    }
    table = pd.read_csv(checkout.path("results/adaptive/table.tsv"), sep="\t")
    undefined = table.groupby("role")["dice"].apply(lambda dice: dice.isna().all())
    assert undefined.to_dict() == {"calibration": False, "held_out": False, "new": True}


def test_a_second_start_has_nothing_to_do(
    study: tuple[Checkout, dict[str, int]],
) -> None:
    checkout, _ = study
    said = succeeded(checkout.run("adaptive"))
    assert "Nothing to be done" in said
    assert checkout.path("results/adaptive/summary.md").read_text().strip() in said
    assert "1 new case segmented." in said


def test_a_case_that_is_made_again_is_told_about_alike(
    study: tuple[Checkout, dict[str, int]], tmp_path: Path
) -> None:
    """What is measured on cases of another kind is what the workflow would say."""
    checkout, _ = study
    run = shift.Run(checkout.folder)
    case = run.plan.held_out[0]
    again = shift.segment(run, case, "", tmp_path)
    assert again.pop("kind") == ""
    before = shift.as_it_was(run, case)
    assert before.pop("kind") == shift.SAME
    assert again == pytest.approx(before, nan_ok=True)
    assert 0 < again["ensemble_dice"] < 1
