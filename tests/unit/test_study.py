"""What a config asks for, without Snakemake and without a file."""

import copy
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from casesim import settings
from casesim.cohort.table import channel_files
from casesim.errors import UserError
from casesim.inference.serving import parse_job
from casesim.study import Study

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "config/schemas/config.schema.json"
CONFIG: dict[str, Any] = {
    "cohort": {
        "source": "phantom",
        "pool": 5,
        "train_cases": 4,
        "held_out": 2,
        "phantom": {"defects": {"swapped_labels": 1}},
    },
    "clusters": {"max_removed_share": 0.5},
    "training": {"base": {"epochs": 3, "iterations_per_epoch": 100}},
    "pruning": {"arms": ["worst_cluster"], "random_arms": 1, "seeds": [0, 7]},
    "stability": {"refits": 2, "seed": 9},
    "evidence": {"cleanlab_folds": 2},
}
POOL = [f"phantom_00{i}" for i in range(1, 6)]
TRAIN, HELD_OUT = POOL[:4], ["phantom_006", "phantom_007"]


def study(cells: int | None = None, **changes: Any) -> Study:
    config = copy.deepcopy(CONFIG)
    for section, values in changes.items():
        config[section] = {**config.get(section, {}), **values}
    return Study.load(settings.validate(config, SCHEMA), cells)


def test_models_and_the_cases_that_they_segment() -> None:
    asked = study()
    retrained = [f"retrained/{arm}" for arm in ("worst_cluster", "random_1")]
    other_seed = ["full", "worst_cluster", "random_1"]
    retrained += [f"retrained/{arm}-seed7" for arm in other_seed]
    assert asked.models == [
        "base",
        *(f"finetuned/{case}" for case in TRAIN),
        *(f"refitted/{case}" for case in asked.refitted),
        *retrained,
        "folds/0",
        "folds/1",
    ]
    assert len(asked.refitted) == 2
    assert asked.full == ["base", "retrained/full-seed7"]
    assert set(asked.reduced) == set(retrained) - {"retrained/full-seed7"}
    assert asked.arms == ["worst_cluster", "random_1", "full"]
    assert (asked.headline, asked.headline_before) == ("worst_cluster", "base")
    for model in ("finetuned/phantom_001", "refitted/phantom_001"):
        assert asked.cells.of(model) == POOL  # no decision sees a held-out case
    for model in ("base", "retrained/random_1"):
        assert asked.cells.of(model) == POOL + HELD_OUT


def test_folds_leave_each_case_out_once() -> None:
    asked = study()
    assert sorted(asked.folds) == POOL
    left_out = [set(POOL) - set(asked.outside(fold)) for fold in (0, 1)]
    assert left_out[0] | left_out[1] == set(POOL)
    assert not left_out[0] & left_out[1]
    assert asked.judged == TRAIN
    assert study(evidence={"cleanlab_folds": 0}).judged == []


def test_trainings_name_all_that_weights_depend_on() -> None:
    asked = study()
    assert asked.training("base") == {
        "seed": 0,
        # Without the key `checkpoint`: it changes the base model, not the schedule.
        "schedule": {
            "epochs": 3,
            "iterations_per_epoch": 100,
            "initial_lr": 0.01,
        },
        "storage": "float32",
        "configuration": "2d",
    }
    assert asked.training("finetune", 9)["seed"] == 9
    # 300 iterations of 0.4 s are two minutes.
    assert [asked.runtime("base", attempt) for attempt in (1, 2)] == ["12m", "24m"]


def test_a_cascade_trains_two_stages_in_one_job() -> None:
    asked = study(nnunet={"configuration": "3d_cascade_fullres"})
    assert asked.stages == ["3d_lowres", "3d_cascade_fullres"]
    assert asked.training("base")["configuration"] == "3d_cascade_fullres"
    said = asked.describe(["mine.yaml"]).splitlines()[2]
    assert said.startswith("Training: 3d_lowres and 3d_cascade_fullres, base 3 epochs")
    # Twice as long, and 20 s for each of the five cases of the pool in between.
    assert asked.runtime("base", 1) == "15m"
    assert asked.predict_options == [
        *study().predict_options,
        "--first-stage=3d_lowres",
    ]


def test_an_import_does_not_depend_on_the_case_s_role() -> None:
    roles = [
        study(),
        study(
            cohort={"pool": 4, "train_cases": 4, "held_out": 3}, stability={"refits": 1}
        ),
    ]
    records = [asked.case_record("phantom_005") for asked in roles]
    assert records[0] == records[1]
    assert [asked.cohort.case("phantom_005").role for asked in roles] == [
        "pool",
        "held_out",
    ]


def test_cells_of_a_model_share_a_submission() -> None:
    asked = study(cells=3)
    assert list(asked.cells.parts("base")) == [0, 1, 2]  # seven cases
    assert list(asked.cells.parts("finetuned/phantom_001")) == [0, 1]  # five
    assert asked.cells.part("base", 2) == ["phantom_007"]
    assert asked.cells.part("finetuned/phantom_001", 1) == POOL[3:]
    for model in ("base", "finetuned/phantom_001", "retrained/random_1"):
        for part in asked.cells.parts(model):
            gathering = asked.cells.group(model, part=part)
            for case in asked.cells.part(model, part):
                assert asked.cells.group(model, case) == gathering
    assert asked.cells.group("finetuned/phantom_001", "phantom_004") == (
        "cells_finetuned_phantom_001_1"
    )
    # All models have more than three cells.
    assert asked.cells.patterns(in_parts=False) == "(?!)"
    halves = study(cells=5)
    assert halves.cells.patterns(in_parts=True) == r"base|retrained/[^/]+"
    assert halves.cells.patterns(in_parts=False) == r"finetuned/[^/]+|refitted/[^/]+"
    whole = study()
    assert whole.cells.patterns(in_parts=True) == "(?!)"
    assert list(whole.cells.parts("base")) == [0]


def test_too_many_cells_for_a_submission_are_refused() -> None:
    study(cells=200)
    with pytest.raises(UserError, match="201 is too many"):
        study(cells=201)


def test_the_client_s_command_line() -> None:
    options = study(inference={"mirroring": False}).predict_options
    assert options[:3] == ["--no-mirroring", "--tile-step", "0.5"]
    assert options[3:] == [
        *("--labels", "edema=1;non-enhancing_tumor=2;enhancing_tumour=3"),
        *("--regions", "WT=1,2,3;TC=2,3;ET=3"),
    ]
    assert "--bfloat16" in study(inference={"bfloat16": True}).predict_options


@pytest.mark.parametrize(
    ("wanted", "cells", "expected"),
    [("auto", None, 0), ("auto", 3, 3), (True, 3, 10**9), (False, None, 0)],
)
def test_cells_that_a_predictor_is_told_to_expect(
    wanted: Any, cells: int | None, expected: int
) -> None:
    asked = study(cells, inference={"compile": wanted})
    if wanted == "auto" and cells is None:
        # Fine-tuned and refitted models see the pool of five, the others all seven.
        of_one_case = sum(
            model.startswith(("finetuned/", "refitted/")) for model in asked.models
        )
        assert of_one_case == 6
        expected = 5 * of_one_case + 7 * (len(asked.models) - of_one_case)
    assert asked.expected_cells == expected


def test_targets_and_pictures() -> None:
    asked = study()
    assert "evidence/detection.png" in asked.targets()
    clean = study(cohort={"phantom": {}}, evidence={"cleanlab_folds": 0})
    assert "evidence/detection.png" not in clean.targets()
    assert asked.gallery == POOL
    assert channel_files(["a", "b"], asked.gallery_channels) == [
        *("a_0000", "a_0002"),
        *("b_0000", "b_0002"),
    ]
    assert study(similarity={"region": "WT"}).matrix == "matrix_WT"
    assert asked.regions[-3:] == ["WT", "TC", "ET"]


def test_a_cell_is_told_of_no_regions_by_no_argument() -> None:
    """Snakemake drops an empty argument from a command, and not the name before it."""
    options = study(regions={}).predict_options
    assert "" not in options
    assert "--regions" not in options
    shown = shlex.split(shlex.join(["--model", "base", "--case", "a", *options]))
    files = {"checkpoint": "c", "label": "l", "prediction": "p", "score": "s"}
    for name, path in {**files, "data": "d", "threads": "1", "gpu": "0"}.items():
        shown += [f"--{name}", path]
    assert parse_job("/", shown).regions == {}


def test_the_user_s_own_files_are_watched(tmp_path: Path) -> None:
    truth, patients = tmp_path / "truth.csv", tmp_path / "patients.tsv"
    decided = tmp_path / "decisions.tsv"
    truth.write_text("case,kind\n")
    lines = [f"{case}\t{case}\n" for case in [*POOL, *HELD_OUT]]
    patients.write_text("".join(["case\tpatient\n", *lines]))
    head = "case\tdecision\tnote\treviewer\ttime\tmatrix_digest\n"
    decided.write_text(f"{head}{POOL[0]}\tfine\t\t\t\tx\n")
    asked = study(
        cohort={"patient": str(patients)},
        evidence={"truth": str(truth)},
        pruning={"decisions": str(decided)},
    )
    assert set(asked.own_files) == {str(truth), str(patients), str(decided)}
    assert study(cohort={"patient": "^(.*)$"}).own_files == []
    # What is wrong in it is told before hours are spent.
    truth.write_text(f"case,kind\n{POOL[0]},mystery\n")
    with pytest.raises(UserError, match="'mystery' is no known kind"):
        study(evidence={"truth": str(truth)})


def test_what_is_in_effect_is_said() -> None:
    said = study(cohort={"held_out": 0}).describe(["mine.yaml", "more.yaml"])
    assert said.splitlines() == [
        "Configuration: mine.yaml, more.yaml; kept whole in results/config.yaml.",
        "Cohort: phantom: 5 cases to train on, 4 of them with a model of their own, "
        "0 held out.",
        "Training: 2d, base 3 epochs of 100 iterations, fine-tunes 100 epochs of 250 "
        "iterations, batch size the planner's.",
    ]


def test_parsing_imports_nothing_heavy() -> None:
    """Each job of a cluster parses the rules again."""
    code = (
        "import sys, casesim.study, casesim.runs, casesim.settings;"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    path = {"PYTHONPATH": str(ROOT / "workflow_scripts")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=path
    )
    assert done.returncode == 0, done.stderr
    heavy = {"numpy", "pandas", "scipy", "torch", "nnunetv2", "SimpleITK", "nibabel"}
    assert not heavy & set(done.stdout.split())


def test_a_base_model_of_one_s_own_is_not_what_retrained_models_are_compared_with(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "model"
    (folder / "fold_all").mkdir(parents=True)
    checkpoint = folder / "fold_all/checkpoint_final.pth"
    checkpoint.touch()
    asked = study()
    schemes = {"normalization_schemes": [None] * 4, "architecture": {}}
    plans = {"configurations": {"2d": schemes}}
    dataset = {
        "channel_names": dict(enumerate(asked.cohort.channel_names)),
        "labels": asked.cohort.labels,
    }
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    base = {**CONFIG["training"]["base"], "checkpoint": str(checkpoint)}
    own = study(training={"base": base})
    assert own.own_plans == [str(folder / "plans.json")]
    # A model of the whole pool for each seed, the study's own one included.
    assert own.full == ["retrained/full-seed0", "retrained/full-seed7"]
    assert own.headline == "worst_cluster-seed0"
    assert own.headline_before == "retrained/full-seed0"
    assert len(own.retrained) == len(asked.retrained) + 1
    assert own.training("base") == asked.training("base")
    assert asked.own_plans == []
    dataset["labels"] = {"background": 0, "edema": 1}
    (folder / "dataset.json").write_text(json.dumps(dataset))
    with pytest.raises(UserError, match="trained on the labels background = 0, edema"):
        study(training={"base": base})
