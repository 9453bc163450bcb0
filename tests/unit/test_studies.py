"""The arithmetic of the studies: what counts as right, what it costs, their tables."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from unit.similarity.simulated_errors import Defect, simulate_errors

from benchmarks import cohort_size, evidence, schedule, separable, setting, studies
from casesim.inference.errors import Errors
from casesim.similarity import kinds
from casesim.similarity.edits import EDITS, NARROWER, WIDER


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> studies.Run:
    config = Path(__file__).parents[2] / "config/kinds.yaml"
    return studies.Run.load(tmp_path_factory.mktemp("study"), config, 1)


def test_a_seed_changes_cohort_and_trainings(run: studies.Run) -> None:
    assert yaml.safe_load((run.work / "seed.yaml").read_text()) == {
        "cohort": {"seed": 1},
        "training": {"seed": 1},
        "stability": {"seed": 2},
    }
    assert run.study.seed == run.study.config["cohort"]["seed"] == 1
    planted = [
        case.planted or case.spoilt.partition(":")[0]
        for case in map(run.study.cohort.case, run.train)
    ]
    # Four of each kind that is named, at least.
    named = [evidence.outcome(name, kinds.OVER) for name in planted if name]
    assert named.count(evidence.RIGHT) == 4
    for kind, least in [(kinds.UNDER, 5), (kinds.DISPLACED, 5), (kinds.EXCHANGED, 4)]:
        found = [evidence.outcome(name, kind) for name in planted if name]
        assert found.count(evidence.RIGHT) >= least


def test_a_narrower_network(tmp_path: Path) -> None:
    narrow = setting.Setting(tmp_path, 1)
    narrow.plans.parent.mkdir(parents=True)
    network = {"arch_kwargs": {"features_per_stage": [32, 64, 512]}}
    plans = {"configurations": {"2d": {"architecture": network}}}
    narrow.plans.write_text(json.dumps(plans))
    for _ in range(2):
        setting.set_width(narrow, 8)
        kwargs = narrow.plan["architecture"]["arch_kwargs"]
        assert kwargs["features_per_stage"] == [8, 16, 128]


def test_costs_are_trainings_of_the_base_model(run: studies.Run) -> None:
    found = evidence.costs(run, ["base_dice", "cleanlab", "row_mean", "combined"])
    rows = len(run.train) * 100 / 1440
    folds = run.study.config["evidence"]["cleanlab_folds"]
    assert found == {
        "base_dice": 0,
        "cleanlab": folds,
        "row_mean": pytest.approx(rows),
        "combined": pytest.approx(rows + folds),
    }
    assert evidence.costs(run, ["fold_signature"]) == {"fold_signature": folds}


@pytest.mark.parametrize(
    ("planted", "kind", "expected"),
    [
        ("missed_lesion", kinds.UNDER, evidence.RIGHT),
        ("under_segmentation", kinds.OVER, evidence.ANOTHER),
        ("other_patient", kinds.HARD, evidence.UNNOTICED),
        ("shifted_label", kinds.NOTHING, evidence.UNNOTICED),
        ("swapped_labels", f"{kinds.EXCHANGED}: a and b", evidence.RIGHT),
        ("corrupted_channel", kinds.BAD_IMAGE, evidence.RIGHT),
    ],
)
def test_what_counts_as_right(planted: str, kind: str, expected: str) -> None:
    assert evidence.outcome(planted, kind) == expected


def test_how_gross_a_defect_is() -> None:
    assert evidence.grade("over_segmentation", 2, by_phantom=False) == evidence.MODERATE
    assert evidence.grade("over_segmentation", 3, by_phantom=False) == evidence.GROSS
    assert evidence.grade("missed_lesion", 0.3, by_phantom=False) == evidence.MODERATE
    nan = float("nan")
    assert evidence.grade("missed_lesion", nan, by_phantom=True) == evidence.GROSS
    assert evidence.grade("swapped_labels", nan, by_phantom=False) == evidence.GROSS


def test_the_report_counts() -> None:
    rows = [
        ("missed_lesion", 0.3, evidence.MODERATE, evidence.RIGHT, True),
        ("missed_lesion", 0.3, evidence.MODERATE, evidence.UNNOTICED, False),
        ("other_patient", float("nan"), evidence.GROSS, evidence.ANOTHER, True),
        ("", float("nan"), evidence.SOUND, "", False),
        ("boundary_noise", 1.0, evidence.CONTROL, "", True),
    ]
    names = ["planted", "strength", "grade", "outcome", "accused"]
    table = pd.DataFrame(rows, columns=names).assign(look="matrix", seed=0)
    found = pd.DataFrame(
        {
            "seed": [0, 1],
            "score": "row_mean",
            "defect": "label",
            "kind": "any",
            "strength": float("nan"),
            "auroc": [0.8, 0.9],
            "auroc_low": 0.5,
            "auroc_high": 1.0,
            "base_trainings": 2.0,
        }
    )
    text = evidence.report(table, found)
    assert (
        "| matrix | 0 of 1 (0 %; 0 to 79) | 1 of 2 (50 %; 9 to 91) "
        "| 1 of 3 (33 %; 6 to 79) "
        "| 0 of 1 (0 %; 0 to 79) | 1 of 1 (100 %; 21 to 100) |"
    ) in text
    assert "| missed lesion | moderate | 0.3 | 1, 1, 0 |" in text
    assert "| other patient | gross |  | 0, 0, 1 |" in text
    assert "| row mean | 2.0 | 0.85 (0.80 to 0.90) |" in text
    one_seed = evidence.aurocs(found.iloc[:1])
    assert "| row mean | 2.0 | 0.80 (0.50 to 1.00) |" in one_seed


def test_parts_of_cohorts_are_counted_by_size_and_by_what_is_seen() -> None:
    rows = [
        (8, False, evidence.RIGHT, True),
        (8, False, evidence.ANOTHER, True),
        (8, True, evidence.RIGHT, True),
        (8, True, "", True),
        (12, False, "", False),
    ]
    table = pd.DataFrame(rows, columns=["size", "rows", "outcome", "accused"])
    lines = cohort_size.report(table).splitlines()
    half, all_of_one = "1 of 2 (50 %; 9 to 91)", "1 of 1 (100 %; 21 to 100)"
    none = "0 of 1 (0 %; 0 to 79)"
    right = f"{half} | {half} | - | {all_of_one} | {none} | {all_of_one}"
    assert lines[2] == f"| 8 | {right} |"
    assert lines[3] == f"| 12 | - | - | {none} |"


def test_what_is_separable_is_counted_by_strength() -> None:
    """Two cases: one gains 0.1 when it is spoilt, and one in another way."""
    rows = [(case, "", name, 0.0, kinds.NOTHING) for case in "ab" for name in EDITS]
    named = {"a": kinds.OVER, "b": kinds.UNDER}
    gains = {("a", NARROWER): 0.1, ("b", WIDER): 0.1}
    for case in "ab":
        for name in EDITS:
            gain = gains.get((case, name), 0.0)
            rows.append((case, "over_segmentation:2", name, gain, named[case]))
            rows.append((case, "boundary_noise:1", name, gain, named[case]))
    table = pd.DataFrame(rows, columns=["case", "planted", "edit", "gain", "kind"])
    lines = separable.report([table]).splitlines()
    none, half, both = "0 of 2 (0 %; 0 to 66)", "1 of 2 (50 %; 9 to 91)", "2 of 2"
    assert lines[2] == f"| as it is |  | - | - | {none} |"
    # Of four pairs of a spoilt and a right one two are told apart, two are alike.
    assert lines[3].startswith(f"| over segmentation | 2 | 0.75 | {half} | {both}")
    assert lines[4].startswith(f"| boundary noise | 1 | - | - | {both}")


def test_one_map_at_a_time_is_named_among_right_ones() -> None:
    """All cases are spoilt, and still each is judged by what is usual of right ones."""
    wrong = {"": 0.0, "over_segmentation:3": 0.45, "under_segmentation:3": -0.6}
    bases = [simulate_errors([Defect(grown=g)] * 12)[1] for g in wrong.values()]
    counts = Errors(
        list(wrong),
        bases[0].cases,
        bases[0].labels,
        np.concatenate([base.confusion for base in bases]),
        np.concatenate([base.fp for base in bases]),
        np.concatenate([base.fn for base in bases]),
    )
    undo = {"over_segmentation:3": NARROWER, "under_segmentation:3": WIDER}
    rows = [
        (case, planted, edit, 0.2 * (undo.get(planted) == edit), 2.0)
        for case in counts.cases
        for planted in wrong
        for edit in EDITS
    ]
    changes = pd.DataFrame(rows, columns=["case", "planted", "edit", "gain", "by"])
    found = separable.named(counts, changes, {}).groupby("planted")["kind"]
    assert found.size().to_dict() == dict.fromkeys(wrong, 12)
    assert set(found.get_group("over_segmentation:3")) == {kinds.OVER}
    assert set(found.get_group("under_segmentation:3")) == {kinds.UNDER}
    assert not set(found.get_group("")) & set(kinds.LABEL_KINDS)


def test_the_schedule_begins_with_what_others_are_compared_with(
    run: studies.Run,
) -> None:
    tasks = schedule.plan(run, list(map(schedule.Share, [10, 100, 50])))
    assert list(dict.fromkeys(task.name for task in tasks)) == [
        *("100", schedule.REFIT, "10", "50")
    ]
    assert len(tasks) == 4 * len(run.train)
    full, refit, short = tasks[0], tasks[len(run.train)], tasks[-1]
    assert full.epochs * full.iterations == run.iterations("finetune")
    assert (refit.epochs, refit.iterations) == (full.epochs, full.iterations)
    assert refit.seed != full.seed
    assert short.epochs * short.iterations == run.iterations("finetune") / 2
    assert short.initial_lr == full.initial_lr
    # A share may be longer than the config's; the refit is as long as the longest.
    longer = schedule.plan(run, list(map(schedule.Share.read, ["400", "100@4", "100"])))
    full, refit, fast, short, second = longer[:: len(run.train)]
    assert [full.name, refit.name, fast.name, short.name] == [
        *("400", schedule.REFIT, "100@4", "100")
    ]
    # A higher rate is tried twice, to see its own noise.
    assert second.name == "100@4 again"
    assert second.seed == refit.seed != fast.seed == full.seed
    assert second.initial_lr == fast.initial_lr
    for task in (full, refit):
        assert task.epochs * task.iterations == 4 * run.iterations("finetune")
    # As many iterations, four times the rate: the rates add up to those of the longest.
    assert (fast.epochs, fast.iterations) == (short.epochs, short.iterations)
    assert fast.initial_lr == 4 * short.initial_lr == 4 * full.initial_lr


def test_what_is_compared_with_is_the_longest_at_its_own_rate() -> None:
    shares = list(map(schedule.Share.read, ["50", "100@2", "100", "20@5"]))
    assert schedule.longest_of(shares).name == "100"
    assert [share.title for share in shares[::3]] == ["50 %", "20 %, 5 x the rate"]
    for text in ("0", "10@0", "10@2@2", "-5"):
        with pytest.raises(ValueError, match=f"no share of a schedule: {text}"):
            schedule.Share.read(text)


def test_label_errors_that_are_found_are_counted_where_some_are_known() -> None:
    truth = pd.DataFrame(
        {"kind": ["swapped_labels", "missed_lesion", "", ""], "strength": float("nan")},
        index=pd.Index(list("abcd"), name="case"),
    ).assign(defect=["label", "label", "", ""])
    named = pd.DataFrame(
        {
            "kind": [f"{kinds.EXCHANGED}: x and y", kinds.NOTHING, "", ""],
            "suspicion": [3.0, 1.0, 2.0, 0.0],
        },
        index=list("abcd"),
    )
    means = pd.Series([0.1, 0.2, 0.8, 0.9], index=list("abcd"))
    # Of four pairs of a wrong and a right case one is the wrong way round.
    assert schedule.found_errors(truth, means, named) == {
        "auroc": 1.0,
        "auroc_signature": 0.75,
        "right": 1,
        "defects": 2,
    }
    unknown = schedule.found_errors(truth.assign(defect=""), means, named)
    assert np.isnan([unknown["auroc"], unknown["auroc_signature"]]).all()
    assert unknown["right"] == unknown["defects"] == 0
