"""The stage's scripts one after the other, on label maps that no network made.

Enough cases to calibrate, which would take a run of the workflow minutes.
"""

from __future__ import annotations

import json
import runpy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import SimpleITK

from casesim.adaptive import confidence
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
            **{"base_seed": 0, "full": {0: "base"}, "patients": {}},
        },
    )
    return json.loads(Path(job.path("validation.json")).read_text())
