"""The plan at the paper's scale, seen without any data."""

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from benchmarks.experiments import pretend_decathlon

from .conftest import ROOT, Checkout, succeeded


def job_counts(output: str) -> dict[str, int]:
    """Snakemake's table of jobs by rule."""
    table = output.split("Job stats:")[1]
    return {
        rule: int(number)
        for rule, number in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)
    }


def test_the_paper_s_experiment(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    pretend_decathlon(tmp_path / "data/Task01_BrainTumour", 100)
    output = succeeded(
        checkout.run("-n", "--quiet", "rules", "--configfile", "config/paper.yaml")
    )
    counts = job_counts(output)
    assert counts["import_case"] == 100
    assert counts["train_base"] == 1
    assert counts["augment_case"] == counts["finetune"] == 50
    # 50 x 100 for the matrix, 100 for the base model and for each of the four arms.
    assert counts["predict"] == 5000 + 100 + 4 * 100
    assert counts["retrain"] == 4
    assert counts["explore_case"] == 100
    assert counts["explorer"] == 1
    assert "explorer_in_report" not in counts

    matrix = succeeded(
        checkout.run(
            *("matrix", "-n", "--quiet", "rules"),
            *("--configfile", "config/paper.yaml"),
        )
    )
    counts = job_counts(matrix)
    assert counts["train_base"] == 1
    assert counts["finetune"] == 50
    # And what the base model makes of each case, for the kinds of errors.
    assert counts["predict"] == 5000 + 100
    assert counts["total"] == 5000 + 3 * 50 + 3 * 100 + 14  # as docs/scale.md says
    assert "retrain" not in counts
    assert not (tmp_path / "results").exists()


def test_the_demo(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path, {"explorer": {"in_report": True}})
    counts = job_counts(succeeded(checkout.run("-n", "--quiet", "rules")))
    assert counts["explorer_in_report"] == 1
    assert counts["predict"] == 12 * 12 + 18 + 3 * 18
    assert counts["finetune"] == 12
    assert counts["retrain"] == 3


def test_what_we_recommend(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    pretend_decathlon(tmp_path / "data/Task01_BrainTumour", 484)
    # To the last training at full scale; the 36,000 cells after it take a minute.
    options = ("-n", "--quiet", "rules", "--configfile", "config/rigorous.yaml")
    counts = job_counts(succeeded(checkout.run("models", *options)))
    assert counts["train_base"] == 1
    assert counts["finetune"] == counts["augment_case"] == 100
    assert counts["refit"] == counts["augment_case_again"] == 20
    # Five seeds of 4 + 19 arms, and the full set with four more seeds.
    assert counts["retrain"] == 5 * 23 + 4
    # What the removals are chosen from: the matrix, and the base model's cells.
    assert counts["predict"] == 100 * 100 + 300

    few: dict[str, dict[str, float]] = {
        "cohort": {"pool": 6, "train_cases": 5, "held_out": 4}
    }
    few |= {"clusters": {"max_removed_share": 0.4}, "pruning": {"random_arms": 1}}
    few |= {"stability": {"refits": 2}}
    (tmp_path / "few.yaml").write_text(json.dumps(few))
    counts = job_counts(succeeded(checkout.run(*options, "few.yaml")))
    # Rows and refits segment the pool alone, all other models the held-out cases too.
    assert counts["predict"] == (5 + 2) * 6 + (1 + 5 * 5 + 4) * (6 + 4)
    assert counts["collect_scores"] == 5 + 2 + 1 + 5 * 5 + 4


def test_refits_of_a_list_of_cases(tmp_path: Path) -> None:
    config = {"stability": {"refits": ["phantom_003", "phantom_001"]}}
    checkout = Checkout(tmp_path, config)
    output = succeeded(checkout.run("matrix", "-n", "-p"))
    refits = re.findall(r"output: results/models/refitted/(\w+)/fold_all/", output)
    assert sorted(refits) == ["phantom_001", "phantom_003"]


def test_the_planted_cohort(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    counts = job_counts(
        succeeded(
            checkout.run("-n", "--quiet", "rules", configs=["config/planted.yaml"])
        )
    )
    assert counts["finetune"] == counts["label_quality"] == 24
    assert counts["train_fold"] == 3
    # Two seeds of four chosen and five random arms, and the full set once more.
    assert counts["retrain"] == 2 * 9 + 1
    # Held-out cases are segmented by the base and the retrained models alone.
    assert counts["predict"] == 24 * 24 + (1 + 19) * (24 + 16)
    assert counts["detection"] == 1


def test_the_similarity_classifier(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    config = "config/adaptive.yaml"
    options = ("-n", "--quiet", "rules", "--configfile", config)
    counts = job_counts(succeeded(checkout.run("adaptive", *options)))
    # Nine models on 20 calibration, 8 held-out and 4 new cases, and the base trained on
    # with two seeds on two sets on those that judge.
    assert counts["predict_label_free"] == 9 * (20 + 8 + 4) + 2 * 2 * 8
    assert counts["continue_base"] == 4
    assert counts["agreement"] == counts["select_models"] == 32
    assert counts["segment_calibration"] == 20
    assert counts["segment_held_out"] == 8
    assert counts["segment_adaptive"] == 4
    assert counts["validate_adaptive"] == counts["new_cases"] == 1
    # No earlier rule runs a fine-tuned model outside the pool, only the
    # base on those that judge; and only the removal of the worst cluster is asked for,
    # not what comes of it.
    assert counts["predict"] == 8 * 8 + (8 + 8)
    assert "retrain" not in counts


def test_the_similarity_classifier_is_off_by_default(tmp_path: Path) -> None:
    result = Checkout(tmp_path).run("adaptive", "-n")
    assert result.returncode != 0
    assert "set adaptive.enabled to true" in result.stdout
    assert "Traceback" not in result.stdout
    output = succeeded(Checkout(tmp_path).run("-n", "--quiet", "rules"))
    assert not {"predict_label_free", "fit_similarity"} & set(job_counts(output))


def test_the_quick_look_needs_no_fine_tune(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path, {"evidence": {"cleanlab_folds": 2}})
    counts = job_counts(succeeded(checkout.run("quick", "-n", "--quiet", "rules")))
    once = ("train_base", "quick_look", "channels", "label_edits")
    assert {counts[rule] for rule in once} == {1}
    assert counts["train_fold"] == 2
    assert counts["label_quality"] == counts["predict"] == 12
    assert "finetune" not in counts


def test_without_planted_defects_nothing_is_to_be_detected(tmp_path: Path) -> None:
    defects = ("swapped_labels", "shifted_label", "other_patient")
    config = {"cohort": {"phantom": {"defects": dict.fromkeys(defects, 0)}}}
    checkout = Checkout(tmp_path, config)
    counts = job_counts(succeeded(checkout.run("-n", "--quiet", "rules")))
    assert "detection" not in counts
    assert "compare" in counts


@pytest.mark.parametrize(
    ("target", "rules", "not_rules"),
    [
        ("models", {"train_base", "finetune", "retrain"}, {"compare", "heatmap"}),
        ("matrix", {"heatmap", "stability"}, {"retrain", "compare", "refit"}),
        ("comparison", {"compare", "overlays"}, {"heatmap"}),
    ],
)
def test_named_targets(
    tmp_path: Path, target: str, rules: set[str], not_rules: set[str]
) -> None:
    output = succeeded(Checkout(tmp_path).run(target, "-n", "--quiet", "rules"))
    counts = job_counts(output)
    assert rules <= set(counts)
    assert not not_rules & set(counts)


def test_every_seed_of_every_arm_has_a_model_of_the_full_set(tmp_path: Path) -> None:
    config = {"pruning": {"seeds": [0, 1], "random_arms": 2}}
    output = succeeded(Checkout(tmp_path, config).run("-n", "--quiet", "rules"))
    # Two seeds of three arms, and the full set with the second seed.
    assert job_counts(output)["retrain"] == 7


def test_gpu_jobs_are_tagged(tmp_path: Path) -> None:
    config: dict[str, Any] = {
        "stability": {"refits": 1},
        "evidence": {"cleanlab_folds": 2},
        "cohort": {"calibration": 1, "held_out": 1, "new": 1},
        "adaptive": {"enabled": True, "finetune": 1},
    }
    output = succeeded(Checkout(tmp_path, config).run("-n", "-p"))
    jobs = re.findall(r"^rule (\w+):\n((?: .*\n)+)", output, re.MULTILINE)
    tagged = {rule for rule, text in jobs if "gpu=1" in text}
    untagged = {rule for rule, text in jobs if "gpu=1" not in text}
    trainings = {"train_base", "finetune", "refit", "retrain", "train_fold"}
    trainings |= {"continue_base", "finetune_for_case"}
    segmented = {f"segment_{what}" for what in ("adaptive", "calibration", "held_out")}
    cells = {"predict", "predict_label_free", "label_quality"}
    assert tagged == trainings | segmented | cells
    assert not tagged & untagged


@pytest.mark.parametrize(
    ("gpus", "resources", "threads"),
    [
        ("", ["gpu=1"], 1),
        ("0", ["gpu=1"], 8),
        # Four trainings on one GPU share the cores, too.
        ("0", ["gpu=4", "gpu_slots=4"], 4),
        ("0", ["gpu=1", "gpu_slots=4"], 8),
    ],
)
def test_only_a_gpu_s_jobs_take_as_many_threads_as_there_are(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    gpus: str,
    resources: list[str],
    threads: int,
) -> None:
    """On a CPU results depend on their number, which is therefore always the same."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    target = "results/scores/base/phantom_001.json"
    options = ["-n", "-p", "--cores", "16", "--resources", *resources]
    output = succeeded(Checkout(tmp_path).run(target, *options))
    assert f"--threads {threads} --gpu 1" in output
    training = output.split("rule train_base:")[1].split("rule ")[0]
    assert (f"threads: {threads}" in training) is (threads > 1)
    assert ("No GPU is used: up to" in output) is (threads == 1)
    in_vain = resources == ["gpu=1", "gpu_slots=4"]
    assert ("Say --resources gpu=4 gpu_slots=4" in output) is in_vain


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"cohort": {"pol": 3}}, "did you mean 'pool'?"),
        ({"cohort": {"source": "msd", "path": "nowhere"}}, "nowhere"),
        ({"regions": {"WT": [1, 9]}}, "label numbers [9]"),
        ({"stability": {"refits": ["nobody"]}}, "not among the train cases: nobody"),
    ],
)
def test_a_mistake_in_the_config_ends_with_its_message(
    tmp_path: Path, config: dict, message: str
) -> None:
    result = Checkout(tmp_path, config).run("-n")
    assert result.returncode != 0
    assert message in result.stdout
    assert "Traceback" not in result.stdout


def test_the_picture_of_the_rules_is_the_rule_graph(tmp_path: Path) -> None:
    graph = runpy.run_path(str(ROOT / "docs/rule_graph.py"))
    page = (ROOT / "docs/architecture.md").read_text()
    actual = graph["edges"](graph["draw"](Checkout(tmp_path).folder))
    assert len(actual) > 20
    drawn = graph["updated"](page, graph["mermaid"](actual))
    assert drawn == page, "run: python docs/rule_graph.py"
