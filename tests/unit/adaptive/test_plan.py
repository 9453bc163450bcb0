"""What a config asks of this stage, without Snakemake."""

import copy
from pathlib import Path
from typing import Any

import pytest

from casesim import settings
from casesim.adaptive.plan import Plan
from casesim.errors import UserError
from casesim.study import Study

SCHEMA = Path(__file__).parents[3] / "config/schemas/config.schema.json"
CONFIG: dict[str, Any] = {
    "cohort": {
        "source": "phantom",
        "pool": 5,
        "train_cases": 4,
        "held_out": 2,
        "calibration": 3,
        "new": 2,
    },
    "clusters": {"max_removed_share": 0.5},
    "adaptive": {"enabled": True, "seeds": [0, 7], "random_ensembles": 1},
}


def plan(**changes: Any) -> Plan:
    config = copy.deepcopy(CONFIG)
    for section, values in changes.items():
        config[section] = {**config.get(section, {}), **values}
    return Plan(Study.load(settings.validate(config, SCHEMA)))


def test_nothing_is_asked_for_unless_it_is_enabled() -> None:
    off = plan(adaptive={"enabled": False})
    off.check()
    assert list(off.targets()) == []
    assert off.roles == {}
    assert off.finetuned == []


def test_cases_and_models() -> None:
    asked = plan()
    asked.check()
    cohort = asked.study.cohort
    assert [len(asked.calibration), len(asked.held_out), len(asked.new)] == [3, 2, 2]
    assert set(asked.roles) == {*cohort.calibration, *cohort.held_out, *cohort.new}
    assert set(asked.roles).isdisjoint(cohort.pool)
    assert asked.candidates == ["base", *(f"finetuned/{case}" for case in cohort.train)]
    assert asked.continued == [
        *("continued_full/seed0", "continued_full/seed7"),
        *("continued_kept/seed0", "continued_kept/seed7"),
    ]


def test_where_models_lie() -> None:
    asked, end = plan(), "fold_all/checkpoint_final.pth"
    assert asked.checkpoint("base", "c") == f"results/models/base/{end}"
    assert asked.checkpoint("finetuned/t", "c") == f"results/models/finetuned/t/{end}"
    own = "results/adaptive/models"
    assert asked.checkpoint("continued_kept/seed7", "c") == (
        f"{own}/continued_kept/seed7/{end}"
    )
    assert asked.checkpoint("finetuned_for_case", "c") == (
        f"{own}/finetuned_for_case/c/{end}"
    )


def test_methods_of_a_case() -> None:
    asked = plan(adaptive={"finetune": 1})
    first, second = asked.held_out
    assert asked.finetuned == [first]
    assert asked.methods(asked.calibration[0]) == {
        "adaptive": f"ensembles/adaptive/{asked.calibration[0]}.nii.gz"
    }
    ensembles = ["adaptive", "uniform_all", "uniform_without_worst", "random_1"]
    assert list(asked.methods(second)) == [*ensembles, *asked.continued]
    assert list(asked.methods(first)) == [
        *ensembles,
        *asked.continued,
        "finetuned_for_case",
    ]


def test_finetuning_for_a_new_case_is_a_target() -> None:
    new = plan().new[0]
    asked = plan(adaptive={"finetune": [new, plan().held_out[0]]})
    own = f"label_maps/finetuned_for_case/{new}.nii.gz"
    assert asked.finetuned_new == {new: own}
    assert f"adaptive/{own}" in list(asked.targets())
    assert list(plan().targets()) == [
        "cohort.tsv",
        "config.yaml",
        "adaptive/table.tsv",
        "adaptive/summary.md",
        "adaptive/new.html",
        "adaptive/validation.png",
        "adaptive/labelling_order.tsv",
    ]
    assert plan(cohort={"new": None}).look_at == ["validation.png"]
    assert plan(cohort={"held_out": 0}).look_at == ["new.html"]


def test_what_is_hardly_wanted_is_told_at_the_start() -> None:
    assert "3 cases are too few to predict a Dice (at least 20)" in " ".join(
        plan().hints()
    )
    assert list(plan(cohort={"calibration": 20}).hints()) == []
    off = {"enabled": False}
    assert "2 new cases, which nothing is done with" in " ".join(
        plan(adaptive=off).hints()
    )
    assert list(plan(adaptive=off, cohort={"new": None}).hints()) == []


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("cohort", {"calibration": 0}, r"cohort\.calibration: 0 cases"),
        ("cohort", {"held_out": 0, "new": None}, "no case to segment"),
        ("adaptive", {"region": "liver"}, "'liver' is not among mean, edema"),
        ("adaptive", {"finetune": ["phantom_001"]}, "phantom_001 are neither held out"),
    ],
)
def test_what_cannot_work_is_said_at_the_start(
    section: str, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        plan(**{section: values}).check()
