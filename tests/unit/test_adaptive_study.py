"""The study of the similarity classifier: what is asked for, and its tables."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from benchmarks import adaptive, setting

CASES = 20


def methods(seed: int) -> pd.DataFrame:
    """Each method on each case; the ensemble is ahead by 0.05, whatever the seed."""
    generator = np.random.default_rng(0)
    of_case = generator.uniform(0.6, 0.8, CASES)
    lot = 0.02 * seed
    ahead = {"base": 0.0, "adaptive": 0.05, "uniform_all": 0.01, "oracle": 0.1}
    ahead |= {"continued_full": -0.01}
    ahead |= {f"random_{draw}": -0.1 - draw / 1000 for draw in range(1, 20)}
    parts = [
        pd.DataFrame(
            {
                "method": method,
                "seed": seed,
                "case": [f"h{i:02d}" for i in range(CASES)],
                "region": "mean",
                "dice": of_case + lot + level + generator.normal(0, 0.005, CASES),
            }
        )
        for method, level in ahead.items()
    ]
    return pd.concat(parts)


def validation(seed: int) -> dict:
    base = {"mae_ratio": 0.5 + 0.1 * seed, "bias": -0.01, "rank_correlation": 0.8}
    within = {"mean": 0.6, "ci_low": 0.5}
    return {
        "region": "mean",
        "held_out_cases": CASES,
        "base": {**base, "coverage": 0.9},
        "within_columns": {
            "predicted_dice": within,
            "predicted_minus_row_mean": {"mean": 0.1, "ci_low": -0.02 + 0.01 * seed},
        },
        "gap_closed": 0.5,
        "fit": {
            "mean": {
                "by_case": base,
                "by_row": {
                    "base": base,
                    "mae_of_finetuned": 0.031,
                    "bias_of_finetuned": 0.002,
                },
            }
        },
    }


@pytest.fixture
def work(tmp_path: Path) -> Path:
    for seed in range(3):
        folder = adaptive.folder_of(tmp_path, seed) / "results/adaptive"
        folder.mkdir(parents=True)
        methods(seed).to_csv(folder / "validation_cases.tsv", sep="\t", index=False)
        (folder / "validation.json").write_text(json.dumps(validation(seed)))
    return tmp_path


def test_what_was_asked_for(work: Path) -> None:
    from casesim.adaptive import validation as statistics

    table, contents = adaptive.read(work, [0, 1, 2])
    found = adaptive.goals(contents, statistics.contrasts(table)["adaptive"])
    error, correlation, bias, coverage, within, beyond, gap, uniform, paired = found
    assert error.values == pytest.approx([0.5, 0.6, 0.7])
    assert error.mean == pytest.approx(0.6)
    assert all(g.met for g in (correlation, bias, coverage, within, gap, uniform))
    # Less than nothing, on average.
    assert not beyond.met
    # What all methods of a seed share is no noise between them: 0.04 stays far from 0.
    assert uniform.mean > 0.02
    assert 0.03 < paired.mean < 0.04
    assert not adaptive.Goal("x", [0.04, 0.04], -0.03, 0.03).met


def test_the_report(work: Path) -> None:
    table, contents = adaptive.read(work, [0, 1, 2])
    of_base = table[(table["method"] == "base") & (table["seed"] == 2)]
    once = of_base.assign(method="once", dice=of_base["dice"] + 0.02)
    text = adaptive.report(pd.concat([table, once]), contents)
    lines = {line.split(" | ")[0].strip("| `"): line for line in text.splitlines()}
    assert (
        "Trainings: 3; held-out cases: 20. Training noise (one mean Dice): 0.00" in text
    )
    assert lines["adaptive"].count("+0.0") == 4
    assert "19 random ensembles" in lines
    # Trained with one seed: beside the base of that seed alone.
    mean = f"{once['dice'].mean():.3f}"
    expected = ["20", mean, "+0.020 [0.020, 0.020]", "+0.020 |"]
    assert lines["once"].split(" | ")[1:] == expected
    assert "| 0.031 (+0.002), 0.031 (+0.002), 0.031 (+0.002) |" in text
    # Nothing was fitted without a scanner.
    assert "a whole scanner" not in lines
    assert "| helps |" in text


def test_a_seed_is_that_of_all_trainings(tmp_path: Path) -> None:
    config = setting.ROOT / "config/adaptive_study.yaml"
    folder = adaptive.prepare(tmp_path, config, 2)
    found = yaml.safe_load((folder / "study.yaml").read_text())
    assert found["training"]["seed"] == 2
    assert found["pruning"]["seeds"] == found["adaptive"]["seeds"] == [2]
    assert "seed" not in found["cohort"]
    assert (folder / "Snakefile").exists()
    assert not (folder / "results").exists()


def test_the_cohort_of_a_finished_seed_is_not_made_again(tmp_path: Path) -> None:
    config = setting.ROOT / "config/adaptive_study.yaml"
    first = adaptive.prepare(tmp_path, config, 0)
    for name in ("nnunet/raw/image", "models/base/plans.json"):
        path = first / "results" / name
        path.parent.mkdir(parents=True)
        path.write_text(name)
    os.utime(first / "results/nnunet/raw/image", (10, 10))
    second = adaptive.prepare(tmp_path, config, 1, finished=0) / "results"
    taken = second / "nnunet/raw/image"
    # As old as it was: nothing that follows from it is outdated.
    assert (taken.read_text(), taken.stat().st_mtime) == ("nnunet/raw/image", 10)
    assert not (second / "models").exists()
