"""Which jobs share a submission: counted in dry runs, tried with a stand-in client."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.experiments import pretend_decathlon
from workflow.conftest import ROOT, Checkout, succeeded
from workflow.test_batches import CLIENT, DATA, SCRIPT
from workflow.test_dry_run import job_counts

from .cluster import Cluster
from .conftest import ClusterCheckout

PROFILE = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())


def config(pool: int, rows: int) -> dict[str, Any]:
    return {
        "cohort": {
            "source": "msd",
            "path": DATA,
            "pool": pool,
            "train_cases": rows,
            "held_out": 0,
        },
        "clusters": {"max_removed_share": 0.7},
        "pruning": {"random_arms": 1},
    }


def groups(output: str) -> dict[str, Counter[str]]:
    """The groups of a dry run, and how many jobs of each rule they have."""
    found: dict[str, Counter[str]] = {}
    name = ""
    for line in output.splitlines():
        if match := re.search(r"Group job (\w+) \(jobs in lexicogr", line):
            name = match[1]
            found[name] = Counter()
        elif re.match(r"\[|rule |localrule ", line):
            name = ""
        elif (match := re.match(r" +rule (\w+):", line)) and name:
            found[name][match[1]] += 1
    return found


@pytest.mark.parametrize(("pool", "rows"), [(100, 50), (484, 3)])
def test_cells_in_submissions(tmp_path: Path, pool: int, rows: int) -> None:
    checkout = ClusterCheckout(tmp_path, config(pool, rows))
    pretend_decathlon(tmp_path / DATA, pool)
    output = succeeded(checkout.run("matrix", "-n", "-p"))
    # The rows, and what the base model makes of each case.
    assert job_counts(output)["predict"] == (rows + 1) * pool
    found = groups(output)
    cells = [jobs["predict"] for jobs in found.values()]
    assert sum(cells) == (rows + 1) * pool
    # Each has exactly one job that needs all its cells, and so holds it together.
    gatherers = {"collect_scores", "collect_part"}
    assert all(sum(jobs[g] for g in gatherers) == 1 for jobs in found.values())
    if pool == 100:
        assert cells == [100] * 51
        assert len(found) <= 100
        assert "join_parts" not in output
    else:
        assert sorted(cells) == [84] * 4 + [200] * 8
        assert job_counts(output)["join_parts"] == rows + 1


def test_a_local_run_has_no_groups(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path, config(6, 5))
    pretend_decathlon(tmp_path / DATA, 6)
    assert groups(succeeded(checkout.run("matrix", "-n", "-p"))) == {}


def test_more_than_200_cells_in_a_group_are_refused(tmp_path: Path) -> None:
    checkout = ClusterCheckout(tmp_path, config(6, 5))
    pretend_decathlon(tmp_path / DATA, 6)
    result = checkout.run("matrix", "-n", "--set-scatter", "cells=201")
    assert result.returncode != 0
    assert "201 is too many" in result.stdout


BROKEN = """\
import sys
from pathlib import Path

if "BRATS_003" in sys.argv and not Path("mended").exists():
    sys.exit("the reason of the failure")
"""


def test_a_cell_that_fails_keeps_the_others_of_its_group(
    cluster: Cluster, tmp_path: Path
) -> None:
    checkout = ClusterCheckout(tmp_path, config(5, 4))
    pretend_decathlon(tmp_path / DATA, 5)
    for script in checkout.scripts():
        if script.name == "predict.py":
            script.write_text(BROKEN + CLIENT)
        elif script.name != "join_parts.py":
            script.write_text(SCRIPT)
    plans = "results/models/finetuned/BRATS_001/plans.json"
    succeeded(checkout.run_locally(plans))

    target = "results/scores/finetuned/BRATS_001.tsv"
    halves = ["--set-scatter", "cells=3"]
    failed = checkout.run(target, *halves)
    assert failed.returncode != 0
    assert "the reason of the failure" in failed.stdout
    assert cells_done(checkout) == Counter({"1": 1, "2": 1, "4": 1, "5": 1})
    first, second = cluster.jobs(tmp_path)
    assert {first.state, second.state} == {"FAILED", "COMPLETED"}
    assert sorted([first.minutes, second.minutes]) == [2 + 10, 3 + 10]
    # Snakemake does not say of a group how it has ended.
    (bad,) = [job for job in (first, second) if job.state == "FAILED"]
    assert f"{bad.id} FAILED {bad.task}" in failed.stdout

    checkout.path("mended").touch()
    succeeded(checkout.run(target, *halves))
    assert set(cells_done(checkout).values()) == {1}
    assert len(cells_done(checkout)) == 5
    assert checkout.path(target).exists()
    *_, last = cluster.jobs(tmp_path)
    assert (last.minutes, last.gpus) == (1 + 10, 1)


def cells_done(checkout: Checkout) -> Counter[str]:
    lines = checkout.path("jobs.txt").read_text().splitlines()
    return Counter(line[-1] for line in lines if line.startswith("predict"))


def test_the_profile_gives_each_gpu_rule_its_cpus(tmp_path: Path) -> None:
    """`cores: 1` would else leave it one."""
    output = succeeded(ClusterCheckout(tmp_path).run("-n", "-p"))
    parts = re.split(r"^ *(?:local)?rule (\w+):$", output, flags=re.MULTILINE)
    jobs = list(zip(parts[1::2], parts[2::2], strict=True))
    with_gpu = {rule for rule, text in jobs if "gpu=1" in text}
    assert with_gpu == {"train_base", "finetune", "retrain", "predict"}
    for rule in with_gpu:
        assert PROFILE["set-resources"][rule]["cpus_per_task"] >= 4
    local = {"all", "matrix", *re.findall(r"localrule (\w+):", output)}
    for rule, text in jobs:
        if rule in local:
            continue
        resources = text.split("resources: ")[1].splitlines()[0]
        assert re.search(r"\bmem_mb=\d+", resources), rule
        assert re.search(r"\bruntime=\d+", resources), rule
        assert re.search(r"\bcpus_per_task=\d+", resources), rule
        # Summed over the jobs of a group.
        assert "tasks=" not in resources.replace("cpus_per_task=", "")


def test_the_profile_gives_its_cpus_to_who_looks_at_all_cases() -> None:
    asked = {
        name
        for path in (ROOT / "rules").glob("*.smk")
        for name, text in re.findall(
            r"^rule (\w+):\n((?: .*\n|\n)+)", path.read_text(), re.MULTILINE
        )
        if "threads: 8\n" in text
    }
    assert {
        "check_cohort",
        "plan",
        "channels",
        "label_edits",
        "fit_similarity",
    } <= asked
    for rule in asked:
        assert PROFILE["set-resources"][rule]["cpus_per_task"] == 8, rule


def test_every_key_of_the_profile_has_its_reason() -> None:
    lines = (ROOT / "profiles/slurm/config.yaml").read_text().splitlines()
    for number, line in enumerate(lines):
        if re.match(r"[a-z-]+:", line) and not line.startswith("executor"):
            above = lines[number - 1]
            shared = re.match(r"[a-z-]+:", above) and lines[number - 2].startswith("#")
            assert above.startswith("#") or shared, line
    assert PROFILE["set-scatter"]["cells"] <= 200


def test_rules_have_no_word_of_slurm() -> None:
    for path in [ROOT / "Snakefile", *(ROOT / "rules").glob("*.smk")]:
        assert "slurm" not in path.read_text().lower(), path
