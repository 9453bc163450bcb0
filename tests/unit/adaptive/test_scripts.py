"""What the stage's scripts make, one after the other (`pretended`); and the proof that
held-out labels decide nothing before the validation."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from casesim.adaptive import confidence, regressor
from casesim.adaptive.plan import Plan

from .pretended import (
    CONTINUED,
    ENSEMBLES,
    LABELS,
    ROLES,
    TRAIN,
    Job,
    cases_of,
    of_case,
    prepare,
    reference,
    segmentation,
    until_selection,
    validate,
    write,
)


@pytest.fixture(scope="module", autouse=True)
def few_trees() -> Iterator[None]:
    """A forest that says enough here, in a tenth of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(regressor, "TREES", 20)
        yield


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    made = Job(tmp_path_factory.mktemp("adaptive"))
    prepare(made)
    until_selection(made)
    return made


def read(job: Job, *parts: str) -> pd.DataFrame:
    return pd.read_csv(job.path(*parts), sep="\t")


def test_predictions_and_selections(job: Job) -> None:
    summary = json.loads(Path(job.path("fit.json")).read_text())
    assert list(summary) == ["edema", "core", "WT", "mean"]
    assert summary["mean"]["calibrated"]
    assert summary["mean"]["by_case"]["mae_ratio"] < 0.8
    selected = read(job, "selection", "h00.tsv")
    assert selected["weight"].sum() == pytest.approx(1)
    # The one that learnt from a wrong label is never heard.
    for case in ROLES:
        ranked = read(job, "selection", f"{case}.tsv")
        assert ranked["model"].iloc[-1] == "finetuned/t4"
        assert ranked["weight"].iloc[-1] == 0
    weights = json.loads(Path(job.path("weights", "h00.json")).read_text())
    assert list(weights) == ENSEMBLES
    assert "finetuned/t4" in weights["uniform_all"]
    assert "finetuned/t4" not in weights["uniform_without_worst"]
    assert list(json.loads(Path(job.path("weights", "n00.json")).read_text())) == [
        "adaptive"
    ]


def test_a_calibration_case_is_selected_for_out_of_fold(job: Job) -> None:
    out = read(job, "out_of_fold.tsv")
    own = out[(out["case"] == "c03") & (out["region"] == "mean")]
    ranked = read(job, "selection", "c03.tsv").set_index("model")["predicted_dice"]
    assert ranked.to_dict() == own.set_index("model")["predicted_dice"].to_dict()


def test_held_out_labels_change_no_selection(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Byte for byte; but they change what is said of it."""
    kinds = ("features", "predicted", "selection", "weights")
    files = ["out_of_fold.tsv", "fit.json", "similarity.joblib"]
    files += [f"{kind}/{c}.tsv" for kind in kinds[:3] for c in ROLES]
    files += [f"weights/{case}.json" for case in ROLES]
    before = {name: Path(job.path(name)).read_bytes() for name in files}
    other = Job(tmp_path)
    prepare(other)
    for case in cases_of("held_out"):
        empty = np.zeros_like(reference(case))
        empty[0, 0, :3] = 1, 2, 1
        write(other.path("labels", f"{case}.nii.gz"), empty)
    until_selection(other)
    for name in files:
        assert Path(other.path(name)).read_bytes() == before[name], name
    scores = ["scores/h00.tsv", "scores/h01.tsv"]
    for name in scores:
        assert Path(other.path(name)).read_bytes() != Path(job.path(name)).read_bytes()
    assert validate(other)["base"]["bias"] > validate(job)["base"]["bias"] + 0.3


def test_what_held_out_cases_say(job: Job) -> None:
    found = validate(job)
    assert found["calibrated"]
    assert found["base"]["n"] == 7
    assert found["base"]["mae_ratio"] < 0.8
    table = read(job, "validation.tsv")
    mean = table[table["region"] == "mean"].set_index("method")["mean"]
    assert mean["adaptive"] > mean["base"] > mean["uniform_all"] - 0.1
    assert mean["oracle"] >= mean["pick"]
    # The same, as the mean over cases and seeds of a table that has each of them.
    each = read(job, "validation_cases.tsv").query("region == 'mean'")
    by_method = each.groupby(["method", "case"])["dice"].mean().groupby("method").mean()
    assert by_method.to_dict() == pytest.approx(mean.to_dict())
    assert set(found["contrasts"]["adaptive"]) >= {
        *("base", "best_row_mean", "uniform_all", "uniform_without_worst"),
        *("continued_full", "continued_kept", "nearest_by_image"),
        *("confidence_alone", "random_1", "oracle"),
    }
    for word in ("verdict", "interval_low", "ci_low", "wilcoxon_p"):
        assert word in found["contrasts"]["adaptive"]["continued_kept"]
    assert Path(job.path("validation.png")).stat().st_size > 10_000


def test_new_cases_are_told_about_without_any_label(job: Job) -> None:
    validate(job)
    new, calibration = cases_of("new"), cases_of("calibration")
    job.run(
        "new_cases",
        {
            **{name: job.path(f"{name}.json") for name in ("fit", "outlook")},
            "selections": of_case(job, "selection", new),
            "features": of_case(job, "features", new),
            "calibration": of_case(job, "features", calibration),
            "label_maps": [job.path("ensembles/adaptive", f"{c}.nii.gz") for c in new],
            "of_own_models": [],
            "images": of_case(job, "images", new, ".nii.gz"),
            "train_images": of_case(job, "images", TRAIN, ".nii.gz"),
            "train_labels": of_case(job, "labels", TRAIN, ".nii.gz"),
        },
        {
            "table": job.path("new.tsv"),
            "order": job.path("labelling_order.tsv"),
            "page": job.path("new.html"),
        },
        {
            **{
                "new": new,
                "finetuned": [],
                "calibration": calibration,
                "train": TRAIN,
                "top": 2,
                "patients": {},
            },
            **{"labels": LABELS, "region": "mean", "level": 0.8, "channel": "FLAIR"},
        },
    )
    told = read(job, "new.tsv")
    assert list(told["case"]) == new
    assert (told["low"] < told["predicted_dice"]).all()
    assert all(len(names.split(",")) == 2 for names in told["leans_on"])
    assert not told["leans_on"].str.contains("t4").any()
    # As predicted, within what 22 cases can promise.
    made = [segmentation(case, "adaptive")[0] for case in new]
    for row, label_map in zip(told.to_dict("records"), made, strict=True):
        truth = reference(str(row["case"]))
        both = 2 * ((label_map > 0) & (truth > 0)).sum()
        dice = both / ((label_map > 0).sum() + (truth > 0).sum())
        assert abs(row["predicted_dice"] - dice) < 0.2
    order = read(job, "labelling_order.tsv")
    assert sorted(order["case"]) == new
    page = Path(job.path("new.html")).read_text()
    assert page.count("<section") == 2
    # No label of a new case was ever there.
    assert not list(job.root.glob("labels/n*"))
    names = {"new": "new.tsv", "order": "labelling_order.tsv"}
    names |= {"validation": "validation.json"}
    job.run(
        "adaptive_summary",
        {
            "fit": job.path("fit.json"),
            **{key: [job.path(name)] for key, name in names.items()},
        },
        {"text": job.path("summary.md")},
        {"region": "mean", "look_at": ["new.html"]},
    )
    text = Path(job.path("summary.md")).read_text()
    assert f"Label first: {order['case'][0]}." in text
    assert re.search(r"segmentation: mean error 0\.\d{3} .* of 7 cases", text)
    assert "Against continued_kept: " in text
    assert text.endswith("Open new.html.\n")


def test_the_table_of_the_stage(job: Job) -> None:
    labelled = [case for case, role in ROLES.items() if role != "new"]
    job.run(
        "adaptive_table",
        {
            "features": of_case(job, "features", list(ROLES)),
            "scores": of_case(job, "scores", labelled),
        },
        {"table": job.path("table.tsv")},
        {"roles": ROLES},
    )
    table = read(job, "table.tsv")
    assert len(table) == len(ROLES) * 5 * 4
    has_dice = table.groupby("role")["dice"].apply(lambda dice: dice.notna().any())
    assert has_dice.to_dict() == {"calibration": True, "held_out": True, "new": False}


def test_image_statistics_need_no_label(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2)
    loaded: list[str] = []

    def load(stem: str) -> tuple[np.ndarray, None, dict[str, Any]]:
        loaded.append(stem)
        return data, None, {}

    monkeypatch.setattr("casesim.nnunet.preprocessing.load_preprocessed", load)
    path = job.path("other_statistics.json")
    job.run(
        "image_statistics",
        {"cases": ["p/a.b2nd", "p/b.b2nd"]},
        {"statistics": path},
        {},
    )
    assert loaded == ["p/a", "p/b"]
    found = json.loads(Path(path).read_text())
    assert found == {name: confidence.image_statistics(data) for name in ("a", "b")}


def test_the_plan_asks_for_what_the_scripts_make() -> None:
    """Names that scripts and rules share."""
    assert ENSEMBLES[:3] == ["adaptive", "uniform_all", "uniform_without_worst"]
    config = {"adaptive": {"enabled": True, "random_ensembles": 2, "seeds": [0, 1]}}
    plan = Plan(SimpleNamespace(config=config))
    assert plan.ensembles == ENSEMBLES
    assert plan.continued == CONTINUED
