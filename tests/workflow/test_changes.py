"""What is done again after a change: all that is outdated, at one start, and no more.

The real rules on files without content, by scripts that write down their names.
"""

import os
import re
import shutil
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.experiments import pretend_decathlon

from .conftest import Checkout, succeeded
from .test_batches import CLIENT, DATA, SCRIPT

POOL = ["BRATS_001", "BRATS_002", "BRATS_003", "BRATS_004"]
TRAIN, HELD_OUT, SPARE = POOL[:3], "BRATS_005", "BRATS_006"
ARMS = ["worst_cluster", "random_1"]
RETRAINED = [f"retrained/{arm}" for arm in ARMS]
CONFIG: dict[str, Any] = {
    "cohort": {
        "source": "msd",
        "path": DATA,
        "pool": POOL,
        "train_cases": TRAIN,
        "held_out": [HELD_OUT],
    },
    "clusters": {"max_removed_share": 0.7},
    "pruning": {"arms": ["worst_cluster"], "random_arms": 1},
}

OLD = 10_000.0

Jobs = set[str]


def cells(models: list[str], cases: list[str]) -> Jobs:
    return {f"predict {model} {case}" for model in models for case in cases}


def each(rule: str, names: list[str]) -> Jobs:
    return {f"{rule} {name}" for name in names}


FINETUNED = [f"finetuned/{case}" for case in TRAIN]
# By what they follow from.
CHECK = {"check_cohort"}
PLAN = {"plan"} | each("preprocess_case", [*POOL, HELD_OUT])
BASE = {"train_base", "collect_scores base"} | cells(["base"], [*POOL, HELD_OUT])
ROWS = (
    each("augment_case", TRAIN)
    | each("finetune", TRAIN)
    | each("collect_scores", FINETUNED)
    | cells(FINETUNED, POOL)
)
MATRIX = {"similarity_matrix"}
TREE = {"cluster", "heatmap", "dendrogram", "stability"}
EFFECTS = {"case_effects"}
# Of what the base model draws.
EDITS = {"label_edits"}
REMOVALS = each("choose_removals", ARMS)
RETRAININGS = (
    each("retrain", ARMS)
    | each("collect_scores", RETRAINED)
    | cells(RETRAINED, [*POOL, HELD_OUT])
)
COMPARISON = {"compare", "removal_forest", "overlays", "summary", "explorer"}
EXPLORED = each("explore_case", [*POOL, HELD_OUT])
CONFIG_KEPT = {"configuration"}
AFTER_ROWS = MATRIX | TREE | EFFECTS | REMOVALS | RETRAININGS | COMPARISON | EXPLORED
ALL = (
    CHECK
    | each("import_case", [*POOL, HELD_OUT])
    | PLAN
    | BASE
    | ROWS
    | AFTER_ROWS
    | EDITS
    | {"cohort_gallery", "channels"}
)


class Study:
    """A finished study whose files or configuration are changed."""

    def __init__(self, checkout: Checkout) -> None:
        self.checkout = checkout

    def file(self, part: str, case: str) -> Path:
        return self.checkout.path(DATA, part, f"{case}.nii.gz")

    def set(self, section: str, **values: Any) -> None:
        self.checkout.config[section] = {
            **self.checkout.config.get(section, {}),
            **values,
        }
        text = yaml.safe_dump(self.checkout.config)
        self.checkout.path("test.yaml").write_text(text)

    def start(self) -> Jobs:
        """Run to the end; the jobs that were done, each of them once."""
        log = self.checkout.path("jobs.txt")
        log.write_text("")
        succeeded(self.checkout.run())
        done = log.read_text().splitlines()
        assert len(done) == len(set(done))
        return set(done)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    folder = tmp_path_factory.mktemp("original")
    checkout = Checkout(folder, {key: {**value} for key, value in CONFIG.items()})
    pretend_decathlon(folder / DATA, 6)
    for script in checkout.scripts():
        script.write_text(CLIENT if script.name == "predict.py" else SCRIPT)
    assert Study(checkout).start() == ALL | CONFIG_KEPT
    return checkout


@pytest.fixture
def study(original: Checkout, tmp_path: Path) -> Study:
    for path in original.folder.iterdir():
        if path.is_dir():
            # With the times of the files: an edit is the only thing that is new.
            shutil.copytree(path, tmp_path / path.name, copy_function=shutil.copy2)
    config = {key: {**value} for key, value in CONFIG.items()}
    for name in ("Snakefile", "test.yaml"):
        shutil.copy2(original.path(name), tmp_path / name)
    checkout = object.__new__(Checkout)
    checkout.folder, checkout.config = tmp_path, config
    return Study(checkout)


def correct(path: Path, date: float | None = None) -> None:
    """Another content; with a date as rsync or `cp -p` leave it, or a wrong clock."""
    path.write_bytes(b"corrected")
    if date is not None:
        os.utime(path, (date, date))


def of_held_out(case: str) -> Jobs:
    """What a held-out case makes necessary: nothing is trained, nothing decided."""
    models = ["base", *RETRAINED]
    again = CHECK | each("import_case", [case]) | each("preprocess_case", [case])
    again |= cells(models, [case]) | each("collect_scores", models)
    return again | COMPARISON | {f"explore_case {case}"}


def grown_rows(study: Study) -> Jobs:
    study.set("cohort", train_cases=POOL)
    added = "finetuned/BRATS_004"
    row = {f"augment_case {POOL[3]}", f"finetune {POOL[3]}", f"collect_scores {added}"}
    return CHECK | row | cells([added], POOL) | AFTER_ROWS | CONFIG_KEPT


def grown_pool(study: Study) -> Jobs:
    study.set("cohort", pool=[*POOL, SPARE])
    more = {f"import_case {SPARE}", f"preprocess_case {SPARE}"}
    more |= cells(["base", *FINETUNED, *RETRAINED], [SPARE])
    more |= {f"explore_case {SPARE}"} | CONFIG_KEPT
    return (ALL - each("import_case", [*POOL, HELD_OUT])) | more


def shrunk_pool(study: Study) -> Jobs:
    study.set("cohort", pool=POOL[:3])
    gone = {job for job in ALL if job.endswith(POOL[3])}
    again = ALL - each("import_case", [*POOL, HELD_OUT]) - gone
    return again | CONFIG_KEPT


def label_of_the_pool_from_tomorrow(study: Study) -> Jobs:
    correct(study.file("labelsTr", POOL[0]), time.time() + 86400)
    return ALL - each("import_case", [*POOL[1:], HELD_OUT])


def older_image_of_the_pool(study: Study) -> Jobs:
    correct(study.file("imagesTr", POOL[0]), OLD)
    return ALL - each("import_case", [*POOL[1:], HELD_OUT])


def older_label_of_a_judge(study: Study) -> Jobs:
    correct(study.file("labelsTr", HELD_OUT), OLD)
    return of_held_out(HELD_OUT)


def clock_set_back(study: Study) -> Jobs:
    """All that was done seems to come from the future; then a label is corrected."""
    for path in study.checkout.path("results").rglob("*"):
        date = path.stat().st_mtime + 3600
        os.utime(path, (date, date))
    correct(study.file("labelsTr", HELD_OUT))
    return of_held_out(HELD_OUT)


def one_judge_more(study: Study) -> Jobs:
    study.set("cohort", held_out=[HELD_OUT, SPARE])
    # Each case has less room in a page of the same size.
    return of_held_out(SPARE) | EXPLORED | CONFIG_KEPT


def touched(study: Study) -> Jobs:
    for part in ("imagesTr", "labelsTr"):
        for case in POOL:
            study.file(part, case).touch()
    return set()


def base_epochs(study: Study) -> Jobs:
    study.set("training", base={"epochs": 31})
    return BASE | EDITS | ROWS | AFTER_ROWS | CONFIG_KEPT


def finetune_epochs_and_a_judge(study: Study) -> Jobs:
    """Two changes at once, of which one must not hide the other."""
    study.set("training", finetune={"epochs": 7})
    correct(study.file("labelsTr", HELD_OUT))
    return of_held_out(HELD_OUT) | ROWS | AFTER_ROWS | CONFIG_KEPT


def another_distance(study: Study) -> Jobs:
    study.set("similarity", distance="correlation")
    again = TREE | EFFECTS | REMOVALS | RETRAININGS | COMPARISON | EXPLORED
    return again | CONFIG_KEPT


def one_arm_more(study: Study) -> Jobs:
    study.set("pruning", random_arms=2)
    arm = "retrained/random_2"
    new = {"choose_removals random_2", "retrain random_2", f"collect_scores {arm}"}
    new |= cells([arm], [*POOL, HELD_OUT])
    return new | COMPARISON | EXPLORED | CONFIG_KEPT


def older_decisions(study: Study) -> Jobs:
    """The reviewer goes back to a table that was exported before the one in use."""
    table = study.checkout.path("decisions.tsv")
    head = "case\tdecision\tnote\treviewer\ttime\tmatrix_digest\n"
    table.write_text(f"{head}{TRAIN[0]}\tremove\t\t\t\tx\n")
    study.set("pruning", decisions="decisions.tsv")
    study.start()
    table.write_text(f"{head}{TRAIN[1]}\tremove\t\t\t\tx\n")
    os.utime(table, (OLD, OLD))
    arms = ["reviewed", "random_reviewed_1"]
    models = [f"retrained/{arm}" for arm in arms]
    again = each("choose_reviewed", arms) | each("retrain", arms)
    again |= each("collect_scores", models) | cells(models, [*POOL, HELD_OUT])
    return again | COMPARISON | EXPLORED


def older_truth(study: Study) -> Jobs:
    table = study.checkout.path("truth.csv")
    table.write_text(f"case,kind\n{TRAIN[0]},shifted_label\n")
    study.set("evidence", truth="truth.csv")
    study.start()
    table.write_text(f"case,kind\n{TRAIN[1]},shifted_label\n")
    os.utime(table, (OLD, OLD))
    return {"detection"}


def a_patient_with_two_scans(study: Study) -> Jobs:
    """The table that tells it is none of the cohort's files."""
    table = study.checkout.path("patients.csv")
    who = {case: case for case in [*POOL, HELD_OUT, SPARE]}

    def write() -> None:
        lines = [f"{case},{patient}\n" for case, patient in who.items()]
        table.write_text("".join(["case,patient\n", *lines]))

    write()
    study.set("cohort", patient="patients.csv")
    study.start()
    who[POOL[0]] = who[POOL[1]] = "anna"
    write()
    again = CHECK | {"cluster", "stability", "dendrogram", "heatmap"} | EFFECTS
    return again | REMOVALS | RETRAININGS | COMPARISON | EXPLORED


def damaged_note(study: Study) -> Jobs:
    """A power cut has taken what Snakemake noted of one output."""
    name = urlsafe_b64encode(b"results/summary.md").decode()
    os.truncate(study.checkout.path(".snakemake/metadata", name), 0)
    return {"summary"}


@pytest.mark.parametrize(
    "change",
    [
        *(damaged_note, clock_set_back),
        *(
            label_of_the_pool_from_tomorrow,
            older_image_of_the_pool,
            older_label_of_a_judge,
        ),
        *(older_decisions, older_truth, a_patient_with_two_scans),
        *(grown_pool, shrunk_pool, grown_rows, one_judge_more, touched),
        *(base_epochs, finetune_epochs_and_a_judge, another_distance, one_arm_more),
    ],
)
def test_one_start_does_all_that_is_outdated_and_no_more(
    study: Study, change: Callable[[Study], Jobs]
) -> None:
    expected = change(study)
    done = study.start()
    assert not expected - done, "left as it was"
    assert not done - expected, "done without need"
    assert study.start() == set()


def test_a_corrected_file_is_named_before_anything_is_done(study: Study) -> None:
    path = study.file("labelsTr", POOL[0])
    correct(path, OLD)
    for _ in range(2):  # a dry run does not keep the next one from saying it
        output = succeeded(study.checkout.run("-n"))
        assert "Changed since the last start" in output, output
        assert re.search(rf"^ +{DATA}/labelsTr/{POOL[0]}\.nii\.gz$", output, re.M)
    assert "Changed since" in succeeded(study.checkout.run("--quiet", "rules"))
    assert "Changed since" not in succeeded(study.checkout.run("-n"))
