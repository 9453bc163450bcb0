"""The stage's scripts one after the other, on label maps that no network made.

Enough cases to calibrate, which would take a run of the workflow minutes; and the proof
that held-out labels decide nothing before the validation.
"""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import SimpleITK

from casesim.adaptive import confidence, regressor
from casesim.adaptive.plan import Plan
from casesim.adaptive.table import BASE, write_json
from casesim.inference import overlap

SCRIPTS = Path(__file__).parents[3] / "workflow_scripts" / "adaptive"
LABELS = {"edema": 1, "core": 2}
SINGLE = {name: [number] for name, number in LABELS.items()}
REGIONS = {"WT": [1, 2]}
SHARED = {"labels": SINGLE, "regions": REGIONS, "ignore": None}
TRAIN = ["t1", "t2", "t3", "t4"]
ROLES = {
    **{f"c{i:02d}": "calibration" for i in range(22)},
    **{f"h{i:02d}": "held_out" for i in range(7)},
    **{f"n{i:02d}": "new" for i in range(2)},
}
ENSEMBLES = ["adaptive", "uniform_all", "uniform_without_worst", "random_1", "random_2"]
CONTINUED = [f"continued_{kind}/seed{s}" for kind in ("full", "kept") for s in (0, 1)]
# How far a model errs: t4 learnt from a wrong label.
ERROR = {BASE: 0.10, "finetuned/t1": 0.06, "finetuned/t2": 0.12, "finetuned/t3": 0.14}
ERROR |= {"finetuned/t4": 0.8, "adaptive": 0.05, "uniform_all": 0.12}
ERROR |= dict.fromkeys(CONTINUED, 0.08)


@dataclass(frozen=True)
class Job:
    """Runs scripts in a folder that looks like `results/adaptive`."""

    root: Path

    def path(self, *parts: str) -> str:
        path = self.root.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return str(path)

    def run(
        self,
        script: str,
        inputs: Mapping[str, Any],
        outputs: Mapping[str, str],
        params: Mapping[str, Any],
        case: str = "",
    ) -> None:
        job = SimpleNamespace(
            input=SimpleNamespace(**inputs),
            output=SimpleNamespace(**outputs),
            params=SimpleNamespace(**params),
            wildcards=SimpleNamespace(case=case),
            threads=1,
            log=[self.path("log.txt")],
        )
        try:
            runpy.run_path(
                str(SCRIPTS / f"{script}.py"),
                init_globals={"snakemake": job},
                run_name="__main__",
            )
        except SystemExit:
            pytest.fail(Path(job.log[0]).read_text())


def write(path: str, array: np.ndarray) -> str:
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), path)
    return path


def reference(case: str) -> np.ndarray:
    generator = np.random.default_rng([ord(letter) for letter in case])
    label_map = np.zeros((6, 16, 16), np.uint8)
    y, x = generator.integers(3, 7, 2)
    label_map[1:5, y : y + 7, x : x + 7] = 1
    label_map[2:4, y + 2 : y + 5, x + 2 : x + 5] = 2
    return label_map


def segmentation(case: str, model: str) -> tuple[np.ndarray, float]:
    """A reference with wrong voxels, by how hard the case and bad the model is, and the
    share of them."""
    name = [ord(letter) for letter in case + model]
    generator = np.random.default_rng(name)
    hard = np.random.default_rng(name[: len(case)]).uniform(0.2, 2.5)
    share = min(0.9, ERROR.get(model, 0.12) * hard * generator.uniform(0.8, 1.2))
    label_map = reference(case)
    inside = np.flatnonzero(label_map)
    wrong = generator.choice(inside, int(share * inside.size), replace=False)
    label_map.flat[wrong] = 0
    return label_map, share


def prepare(job: Job) -> None:
    """What the cells, which need a network, would have written."""
    everything = {**SINGLE, **REGIONS}
    for case, role in ROLES.items():
        image = np.where(reference(case) > 0, 200, 100).astype(np.float32)
        write(job.path("images", f"{case}.nii.gz"), image)
        if role != "new":
            write(job.path("labels", f"{case}.nii.gz"), reference(case))
        for model in [BASE, *(f"finetuned/{name}" for name in TRAIN)]:
            label_map, share = segmentation(case, model)
            write(job.path("label_maps", model, f"{case}.nii.gz"), label_map)
            drawn = confidence.from_label_map(label_map, everything, (1, 1, 1))
            said = {"expected_dice": min(1.0, 1.05 - share / 2), "entropy": share}
            cell: dict[str, Any] = {"model": model, "case": case}
            cell["regions"] = {name: said | drawn[name] for name in everything}
            write_json(cell, job.path("cells", model, f"{case}.json"))
        for name in ENSEMBLES:
            made, _ = segmentation(case, name)
            write(job.path("ensembles", name, f"{case}.nii.gz"), made)
        for model in CONTINUED:
            made, _ = segmentation(case, model)
            write(job.path("label_maps", model, f"{case}.nii.gz"), made)
    for case in TRAIN:
        write(job.path("images", f"{case}.nii.gz"), reference(case).astype(np.float32))
        write(job.path("labels", f"{case}.nii.gz"), reference(case))
        record = overlap_record(BASE, case)
        Path(job.path("base", f"{case}.json")).write_text(json.dumps(record))
    statistics = {case: [[float(i), 1.0]] for i, case in enumerate([*TRAIN, *ROLES])}
    write_json(statistics, job.path("image_statistics.json"))
    Path(job.path("removed.txt")).write_text("t4\n")


def overlap_record(model: str, case: str) -> dict[str, Any]:
    from casesim.inference.surface import Reference

    made = segmentation(case, model)[0]
    truth = Reference.of(reference(case), (1.0, 1.0, 1.0))
    return overlap.score_record(model, case, made, truth, LABELS, REGIONS)


def of_case(job: Job, folder: str, cases: list[str], end: str = ".tsv") -> list[str]:
    return [job.path(folder, f"{case}{end}") for case in cases]


def label(job: Job, case: str) -> str:
    return job.path("labels", f"{case}.nii.gz")


def cases_of(role: str) -> list[str]:
    return [case for case, own in ROLES.items() if own == role]


def until_selection(job: Job) -> None:
    """Features, scores, fit and selection of every case."""
    models = [BASE, *(f"finetuned/{name}" for name in TRAIN)]
    shared = {**SHARED, "models": models}
    for case, role in ROLES.items():
        label_maps = [job.path("label_maps", m, f"{case}.nii.gz") for m in models]
        cells = [job.path("cells", m, f"{case}.json") for m in models]
        job.run(
            "agreement",
            {"cells": cells, "label_maps": label_maps},
            {"features": job.path("features", f"{case}.tsv")},
            shared,
        )
        if role != "new":
            job.run(
                "score_models",
                {
                    "label_maps": label_maps,
                    "label": label(job, case),
                },
                {"scores": job.path("scores", f"{case}.tsv")},
                shared,
                case,
            )
    calibration = cases_of("calibration")
    job.run(
        "fit_similarity",
        {
            "features": of_case(job, "features", calibration),
            "scores": of_case(job, "scores", calibration),
            "base": of_case(job, "base", TRAIN, ".json"),
        },
        {
            "fit": job.path("similarity.joblib"),
            "out_of_fold": job.path("out_of_fold.tsv"),
            "summary": job.path("fit.json"),
        },
        {
            **{"level": 0.8, "region": "mean", "seed": 0, "calibration": calibration},
            **{"phantom": None, "seed_of_cohort": 0, "patients": {}},
        },
    )
    for case, role in ROLES.items():
        job.run(
            "select_models",
            {
                "fit": job.path("similarity.joblib"),
                "out_of_fold": job.path("out_of_fold.tsv"),
                "features": job.path("features", f"{case}.tsv"),
                "removed": [job.path("removed.txt")] if role == "held_out" else [],
            },
            {
                "predicted": job.path("predicted", f"{case}.tsv"),
                "selection": job.path("selection", f"{case}.tsv"),
                "weights": job.path("weights", f"{case}.json"),
            },
            {
                **{
                    "role": role,
                    "region": "mean",
                    "temperature": 0.02,
                    "labels": list(LABELS),
                },
                **{"train": TRAIN, "top": 2, "draws": 2, "seed": 0},
                "ensembles": ENSEMBLES if role == "held_out" else ENSEMBLES[:1],
            },
            case,
        )


def validate(job: Job) -> dict[str, Any]:
    held_out, calibration = cases_of("held_out"), cases_of("calibration")
    for case in [*held_out, *calibration]:
        methods = {name: f"ensembles/{name}/{case}.nii.gz" for name in ENSEMBLES}
        methods |= {name: f"label_maps/{name}/{case}.nii.gz" for name in CONTINUED}
        if case in calibration:
            methods = {"adaptive": methods["adaptive"]}
        job.run(
            "score_models",
            {
                "label_maps": [job.path(path) for path in methods.values()],
                "label": label(job, case),
            },
            {"scores": job.path("method_scores", f"{case}.tsv")},
            {**SHARED, "models": list(methods)},
            case,
        )
    job.run(
        "calibrate_outlook",
        {
            "selections": of_case(job, "selection", calibration),
            "scores": of_case(job, "method_scores", calibration),
        },
        {"outlook": job.path("outlook.json")},
        {"cases": calibration, "region": "mean", "level": 0.8, "patients": {}},
    )
    full = overlap.score_table([overlap_record(BASE, case) for case in held_out])
    overlap.write_table(full, job.path("full.tsv"))
    job.run(
        "validate_adaptive",
        {
            **{name: job.path(f"{name}.json") for name in ("fit", "outlook")},
            "similarity": job.path("similarity.joblib"),
            "predicted": of_case(job, "predicted", held_out),
            "selections": of_case(job, "selection", held_out),
            "scores": of_case(job, "scores", held_out),
            "method_scores": of_case(job, "method_scores", held_out),
            "retrained": [job.path("full.tsv")],
            "removed": job.path("removed.txt"),
            "images": job.path("image_statistics.json"),
        },
        {
            "table": job.path("validation.tsv"),
            "cases": job.path("validation_cases.tsv"),
            "summary": job.path("validation.json"),
            "png": job.path("validation.png"),
            "svg": job.path("validation.svg"),
        },
        {
            **{"cases": held_out, "train": TRAIN, "region": "mean", "level": 0.8},
            **{"base_seed": 0, "full": {0: "base"}},
        },
    )
    return json.loads(Path(job.path("validation.json")).read_text())


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
