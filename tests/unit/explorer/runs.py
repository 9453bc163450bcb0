"""Small finished runs, made of arrays: what the page and the server are tested on."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import SimpleITK as sitk  # noqa: N813

from casesim.explorer import budget, content, pack, site
from casesim.files import atomic_path
from casesim.inference import overlap
from casesim.inference.surface import Reference
from casesim.pruning import arms
from casesim.pruning.comparison import comparison
from casesim.pruning.summary import summary, write_summary
from casesim.similarity import stability
from casesim.similarity.clustering import cluster
from casesim.similarity.effects import case_effects
from casesim.similarity.matrix import from_scores

LABELS = {"edema": 1, "core": 2}
REGIONS = {"whole": [1, 2]}
IGNORE = 7
CHANNELS = ["FLAIR", "T1gd"]
RAW = "nnunet/raw/Dataset001_Cohort"
MODELS = {
    "worst_cluster": arms.Retrained(arm="worst_cluster", seed=0),
    "random_1": arms.Retrained(arm="random_1", seed=0),
}


def write_volume(
    voxels: np.ndarray, path: Path, spacing: Sequence[float], orientation: str = "LPS"
) -> None:
    """Write a (z, y, x) LPS volume with its voxels stored in another orientation."""
    image = sitk.GetImageFromArray(voxels)
    z, y, x = spacing
    image.SetSpacing((x, y, z))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.DICOMOrient(image, orientation), str(path), True)


class Run:
    """The results of a run: images, label maps, predictions and all tables."""

    def __init__(
        self,
        folder: Path,
        train: Sequence[str] = ("case_1", "case_2", "case_3", "case_4", "case_5"),
        others: Sequence[str] = (),
        held_out: Sequence[str] = ("held_1", "held_2"),
        shape: tuple[int, int, int] = (6, 30, 26),
        spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
        orientation: str = "LPS",
        poor: int = 2,
    ) -> None:
        self.folder, self.results = folder, folder / "results"
        self.train, self.held_out = list(train), list(held_out)
        self.pool = sorted([*train, *others])
        self.tests = [*self.pool, *held_out]
        self.shape, self.spacing, self.orientation = shape, spacing, orientation
        # The models of the last train cases segment next to nothing.
        self.poor = self.train[len(self.train) - poor :]
        self.records: list[dict[str, Any]] = []
        for number, case in enumerate(self.tests):
            self._write_case(case, number)

    def image(self, case: str, channel: int) -> Path:
        return self.results / RAW / f"imagesTr/{case}_{channel:04d}.nii.gz"

    def label(self, case: str) -> Path:
        return self.results / RAW / f"labelsTr/{case}.nii.gz"

    def prediction(self, model: str, case: str) -> Path:
        return self.results / f"predictions/{model}/{case}.nii.gz"

    def models(self, case: str) -> list[str]:
        finetuned = [f"finetuned/{name}" for name in self.train]
        retrained = [f"retrained/{name}" for name in MODELS]
        return ["base", *retrained, *(finetuned if case in self.pool else [])]

    def _write(self, voxels: np.ndarray, path: Path) -> None:
        write_volume(voxels, path, self.spacing, self.orientation)

    def _write_case(self, case: str, number: int) -> None:
        random = np.random.default_rng(number)
        image = np.zeros(self.shape, np.float32)
        image[:, 3:-3, 3:-3] = random.normal(100, 8, image[:, 3:-3, 3:-3].shape)
        # Bright on the patient's left, in front, on top: the last x and z, the first y.
        image[-2:, 4:8, -8:-4] = 400
        label = np.zeros(self.shape, np.uint8)
        label[1:4, 10:20, 8:16] = 1
        label[2:4, 12:16, 10:13] = 2
        for channel in range(len(CHANNELS)):
            self._write(image + 10 * channel, self.image(case, channel))
        self._write(label, self.label(case))
        reference = Reference.of(label, self.spacing)
        for i, model in enumerate(self.models(case)):
            name = model.removeprefix("finetuned/")
            found = np.roll(label, number % 2, axis=2)
            found[:, :, 8 + i % 3] = 0
            if name in self.poor and name != case:
                found[:, 11:] = 0
            self._write(found, self.prediction(model, case))
            self.records.append(
                overlap.score_record(model, case, found, reference, LABELS, REGIONS)
            )

    def scores(self) -> pd.DataFrame:
        return overlap.score_table(self.records)

    def dice(self, row: str, column: str) -> float:
        """A cell of the matrix."""
        return float(self.matrix[column].astype(float)[row])

    def write_tables(self, undefined: Sequence[tuple[str, str]] = ()) -> None:
        """All tables of the other stages, by their own functions.

        `undefined` are cells of the matrix whose Dice is taken away.
        """
        tables = self.results / "similarity"
        tables.mkdir(parents=True, exist_ok=True)
        scores = self.scores()
        for region in ("mean", *LABELS, *REGIONS):
            matrix = from_scores(scores, region, self.train, self.pool)
            for row, column in undefined:
                matrix.loc[row, column] = np.nan
            name = "matrix" if region == "mean" else f"matrix_{region}"
            overlap.write_table(matrix, tables / f"{name}.tsv", index=True)
            if region == "mean":
                self.matrix = matrix
        missing = self.matrix.isna().astype(int) * len(LABELS)
        overlap.write_table(missing, tables / "matrix_undefined.tsv", index=True)
        clustered = cluster(self.matrix, bootstraps=2, max_removed_share=0.4)
        for name in ("linkage", "leaf_order", "clusters"):
            getattr(clustered, name).to_csv(
                tables / f"{name}.tsv", sep="\t", index=False
            )
        (tables / "clustering.json").write_text(json.dumps(clustered.summary))
        case_effects(self.matrix).to_csv(tables / "cases.tsv", sep="\t", index=False)
        stable = stability.stability(self.matrix, clustered.clusters, resamples=5)
        stability.write(stable, tables / "stability.tsv", tables / "stability.json")
        self._write_cohort()
        self._write_comparison(scores)

    def _write_cohort(self) -> None:
        self.cohort = pd.DataFrame(
            {
                "case": self.tests,
                "role": ["pool"] * len(self.pool) + ["held_out"] * len(self.held_out),
                "train_case": [case in self.train for case in self.tests],
                # The held-out cases are two scans of one patient.
                "patient": [*self.pool, *["somebody"] * len(self.held_out)],
            }
        )
        # Of a third scan, and of a case without a label, the page has nothing.
        others = pd.DataFrame(
            {"case": ["other_scan", "unseen"], "role": ["calibration", "new"]}
        ).assign(train_case=False, patient=["somebody", "unseen"])
        self.cohort = pd.concat([self.cohort, others], ignore_index=True)
        self.cohort.to_csv(self.results / "cohort.tsv", sep="\t", index=False)

    def _write_comparison(self, scores: pd.DataFrame) -> None:
        (self.results / "scores/retrained").mkdir(parents=True, exist_ok=True)
        for model in ["base", *(f"retrained/{name}" for name in MODELS)]:
            rows = scores[scores["model"] == model]
            overlap.write_table(rows, self.results / f"scores/{model}.tsv")
        before = [scores[scores["model"] == "base"]]
        after = [scores[scores["model"].str.startswith("retrained/")]]
        removed = {"worst_cluster": self.poor, "random_1": self.train[: len(self.poor)]}
        table = comparison(before, after, MODELS, 0, removed, self.cohort)
        (self.results / "pruning").mkdir(exist_ok=True)
        write_summary(
            summary(table, resamples=20), self.results / "pruning/summary.json"
        )

    # --- The explorer ---------------------------------------------------------------

    def build(self, max_mb: float = 500) -> Path:
        """Make the page as the workflow's scripts do; the path of `index.html`."""
        explorer = self.results / "explorer"
        ranked = budget.read_ranking(self.results / "similarity/cases.tsv")
        contents = {}
        for case in self.tests:
            channels, maps, contents[case] = pack.pack_case(
                case,
                [str(self.image(case, i)) for i in range(len(CHANNELS))],
                str(self.label(case)),
                {name: str(self.prediction(name, case)) for name in self.models(case)},
                ranked,
                budget.room(case, self.tests, budget.review_first(ranked), max_mb),
            )
            data = explorer / "data" / case
            for i, channel in enumerate(channels):
                name = f"{case}/channel_{i}"
                pack.write_script(name, channel, data / f"channel_{i}.js")
            pack.write_script(f"{case}/maps", maps, data / "maps.js")
            with atomic_path(data / "contents.json") as path:
                path.write_text(json.dumps(contents[case]))
        study = content.study(self.files(), self.options(max_mb), contents)
        pack.write_script("study", study, explorer / "data/study.js")
        site.copy(str(explorer / name) for name in site.NAMES)
        return explorer / "index.html"

    def files(self) -> dict[str, Any]:
        tables = self.results / "similarity"
        names = ("matrix_undefined", "linkage", "leaf_order", "clusters", "cases")
        regions: Mapping[str, str] = {
            region: str(tables / f"matrix_{region}.tsv")
            for region in (*LABELS, *REGIONS)
        }
        return {
            "matrix": str(tables / "matrix.tsv"),
            "matrices": {"mean": str(tables / "matrix.tsv"), **regions},
            **{
                name.removeprefix("matrix_"): str(tables / f"{name}.tsv")
                for name in names
            },
            "clustering": str(tables / "clustering.json"),
            "stability": str(tables / "stability.tsv"),
            "stability_summary": str(tables / "stability.json"),
            "summary": str(self.results / "pruning/summary.json"),
            "cohort": str(self.results / "cohort.tsv"),
            "scores": [
                str(self.results / f"scores/{model}.tsv")
                for model in ("base", "retrained/worst_cluster", "retrained/random_1")
            ],
        }

    def options(self, max_mb: float) -> dict[str, Any]:
        models: dict[str, Any] = {"base": {"arm": None, "seed": 0}}
        for name, model in MODELS.items():
            models[f"retrained/{name}"] = {**model, "before": "base"}
        return {
            "results": str(self.results),
            "raw": str(self.results / RAW),
            "channels": CHANNELS,
            "shown": [0, 1],
            "labels": LABELS,
            "ignore": IGNORE,
            "regions": REGIONS,
            "region": "mean",
            "models": models,
            "max_mb": max_mb,
        }
