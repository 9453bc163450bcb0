"""What is in effect: a user's file stands for itself, wherever a run is started."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.experiments import pretend_decathlon
from casesim.settings import validate

from .conftest import ROOT, Checkout, succeeded

SCHEMA = ROOT / "config/schemas/config.schema.json"
KEPT = "results/config.yaml"


def in_effect(checkout: Checkout, *arguments: str, folder: Path) -> dict[str, Any]:
    output = succeeded(checkout.run(KEPT, *arguments))
    kept: dict[str, Any] = yaml.safe_load((folder / KEPT).read_text())
    schedule = kept["training"]["base"]
    said = f"base {schedule['epochs']} epochs of {schedule['iterations_per_epoch']}"
    assert said in output
    return kept


@pytest.mark.parametrize("elsewhere", [False, True])
def test_real_patients_are_never_trained_by_the_demo(
    tmp_path: Path, elsewhere: bool
) -> None:
    checkout = Checkout(tmp_path / "checkout")
    folder = tmp_path / "study" if elsewhere else checkout.folder
    pretend_decathlon(folder / "data", 8)
    cohort = {"source": "msd", "path": "data", "pool": 5, "train_cases": 5}
    mine: dict[str, Any] = {"cohort": {**cohort, "held_out": 2}}
    mine["clusters"] = {"max_removed_share": 0.5}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(mine))
    where = ["--directory", str(folder)] if elsewhere else []
    files = ["--configfile", str(tmp_path / "mine.yaml")]
    kept = in_effect(checkout, *where, *files, folder=folder)
    assert kept == validate(mine, SCHEMA)
    assert kept["training"]["base"]["iterations_per_epoch"] == 250
    assert kept["nnunet"]["batch_size"] is None


def test_a_synthetic_cohort_has_no_defects_but_its_own(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    phantom = {"defects": {"other_patient": 2}}
    mine = {"cohort": {"source": "phantom", "phantom": phantom}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(mine))
    kept = in_effect(checkout, "--configfile", "mine.yaml", folder=tmp_path)
    defects = kept["cohort"]["phantom"]["defects"]
    assert {name: number for name, number in defects.items() if number} == {
        "other_patient": 2
    }


def test_without_a_file_it_is_the_demo_from_any_folder(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path / "checkout")
    demo = validate(yaml.safe_load((ROOT / "config/config.yaml").read_text()), SCHEMA)
    study = tmp_path / "study"
    assert in_effect(checkout, "--directory", str(study), folder=study) == demo
    # A file of that name where the run works goes before the checkout's.
    (study / "config").mkdir()
    text = (
        (ROOT / "config/config.yaml").read_text().replace("held_out: 6", "held_out: 5")
    )
    (study / "config/config.yaml").write_text(text)
    kept = in_effect(checkout, "--directory", str(study), folder=study)
    assert kept["cohort"]["held_out"] == 5
