"""Large matrices in pieces: batches of rows, and rows as targets, without content."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks.experiments import pretend_decathlon

from .conftest import Checkout, succeeded
from .test_dry_run import job_counts

DATA = "data/Task01_BrainTumour"
COLUMNS = 6
ROWS = 5
BATCHES = 3
MATRIX = "results/similarity/matrix.tsv"
CONFIG: dict[str, Any] = {
    "cohort": {
        "source": "msd",
        "path": DATA,
        "pool": COLUMNS,
        "train_cases": ROWS,
        "held_out": 0,
    },
    "clusters": {"max_removed_share": 0.5},
    "pruning": {"random_arms": 1},
}

# Every job leaves its name in a file, and its outputs without content.
SCRIPT = """\
from pathlib import Path

with open("jobs.txt", "a") as file:
    print(snakemake.rule, *snakemake.wildcards, file=file)
for path in snakemake.output:
    Path(path).touch()
"""
CLIENT = """\
import sys

values = dict(zip(sys.argv[1:], sys.argv[2:]))
with open("jobs.txt", "a") as file:
    print("predict", values["--model"], values["--case"], file=file)
for name in ("--prediction", "--score"):
    open(values[name], "w").close()
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """The real rules, on empty files, with scripts that only touch their outputs."""
    checkout = Checkout(tmp_path, CONFIG)
    pretend_decathlon(tmp_path / DATA, COLUMNS)
    for script in checkout.scripts():
        script.write_text(CLIENT if script.name == "predict.py" else SCRIPT)
    return checkout


def jobs(checkout: Checkout) -> Counter[str]:
    """How often each job was done so far, by rule and wildcards."""
    return Counter(checkout.path("jobs.txt").read_text().splitlines())


def rules(checkout: Checkout) -> Counter[str]:
    """How many jobs of each rule were done so far."""
    return Counter(job.split()[0] for job in jobs(checkout).elements())


def rows(checkout: Checkout) -> set[str]:
    folder = checkout.path("results/scores/finetuned")
    return {path.stem for path in folder.glob("*.tsv")}


def selected_rows(checkout: Checkout) -> list[str]:
    """The train cases, as the plan of the matrix names them."""
    output = succeeded(checkout.run("matrix", "-n", "--quiet", "all", "--summary"))
    return sorted(
        set(re.findall(r"^results/scores/finetuned/(\w+)\.tsv\t", output, re.MULTILINE))
    )


def test_batches_of_rows_make_the_matrix_and_do_nothing_twice(
    checkout: Checkout,
) -> None:
    train = selected_rows(checkout)
    assert len(train) == ROWS
    sizes = []
    for number in range(1, BATCHES + 1):
        assert not checkout.path("results/similarity").exists()
        batch = f"similarity_matrix={number}/{BATCHES}"
        succeeded(checkout.run(MATRIX, "--batch", batch))
        sizes.append(len(rows(checkout)))
        # Rows are whole, and no model is made before its batch.
        assert rules(checkout)["finetune"] == sizes[-1]
        of_rows = [job for job in jobs(checkout) if job.startswith("predict finetuned")]
        assert len(of_rows) == sizes[-1] * COLUMNS
    assert sizes == [2, 4, 5]
    assert rows(checkout) == set(train)
    # What needs more than the matrix is left to a run without batches.
    assert rules(checkout)["retrain"] == 0
    succeeded(checkout.run())
    assert checkout.path("results/pruning/comparison.png").exists()
    assert set(jobs(checkout).values()) == {1}
    assert "Nothing to be done" in succeeded(checkout.run("-n"))


def test_the_last_batch_waits_for_the_others(checkout: Checkout) -> None:
    last = f"similarity_matrix={BATCHES}/{BATCHES}"
    result = checkout.run(MATRIX, "--batch", last, "-n")
    assert result.returncode != 0
    assert "not all previous batches" in result.stdout


def test_rows_as_targets(checkout: Checkout) -> None:
    train = selected_rows(checkout)
    first = [f"results/scores/finetuned/{case}.tsv" for case in train[:2]]
    succeeded(checkout.run(*first))
    assert rows(checkout) == set(train[:2])
    assert rules(checkout)["predict"] == 2 * COLUMNS
    assert rules(checkout)["finetune"] == 2

    left = job_counts(succeeded(checkout.run("matrix", "-n", "--quiet", "rules")))
    # The other rows, and what the base model makes of each case.
    assert left["predict"] == (ROWS - 2 + 1) * COLUMNS
    assert left["finetune"] == ROWS - 2
    assert "train_base" not in left
    succeeded(checkout.run("matrix"))
    assert checkout.path("results/similarity/dendrogram.png").exists()
    assert set(jobs(checkout).values()) == {1}


def test_cells_alone_once_the_models_are_there(checkout: Checkout) -> None:
    """With the rules of the cells alone, the plan has no job but theirs."""
    train = selected_rows(checkout)
    models = [f"results/models/finetuned/{case}/plans.json" for case in train]
    succeeded(checkout.run(*models))
    before = rules(checkout)
    allowed = ["--allowed-rules", "predict", "collect_scores", "similarity_matrix"]
    batch = ["--batch", f"similarity_matrix=1/{ROWS}", "results/similarity/matrix.tsv"]
    succeeded(checkout.run(*allowed, *batch))
    done = rules(checkout) - before
    assert done == {"predict": COLUMNS, "collect_scores": 1}
    row = f"results/scores/finetuned/{train[0]}.tsv"
    assert "Nothing to be done" in succeeded(checkout.run(row, "-n"))


def test_refits_that_are_asked_for_later_do_nothing_else_again(
    checkout: Checkout,
) -> None:
    succeeded(checkout.run("matrix"))
    before = jobs(checkout)
    assert not checkout.path("results/models/refitted").exists()
    checkout.path("refits.yaml").write_text("stability: {refits: 2}")
    succeeded(checkout.run("matrix", configs=["refits.yaml"]))
    new = jobs(checkout) - before
    assert Counter(job.split()[0] for job in new.elements()) == {
        "augment_case_again": 2,
        "refit": 2,
        "predict": 2 * COLUMNS,
        "collect_scores": 2,
        "stability": 1,
        "configuration": 1,
    }
    # The copies are the refit's own, and are dropped after it.
    assert not list(checkout.path("results").glob("augmented*/*/*"))
