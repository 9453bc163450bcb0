"""What a predicted Dice is worth on cases unlike those that it was learnt from.

    python -m benchmarks.shift --run FOLDER [FOLDER ...] [--cases 12] [--output FILE]
        [--kinds odd_scanner small_lesion ...]

FOLDER is a finished run of the workflow's similarity classifier on a synthetic cohort;
cases of several runs (other trainings, say) are counted together. Its held-out cases
are made once more with a defect of the image or another kind of lesion, or as another
scanner sees the same head and lesion, and treated as new cases: segmented by all models
without their label, their Dice predicted, the ensemble made. Then the label tells what
the predictions were worth, beside those for the same cases as they were.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from benchmarks import setting as common

if TYPE_CHECKING:
    import pandas as pd

    from casesim.adaptive.plan import Plan
    from casesim.study import Study

SAME = "as they were"
KINDS = ("odd_scanner", "corrupted_channel", "infratentorial", "small_lesion")


@dataclass(frozen=True)
class Run:
    """A finished run: its config in effect, and what it learnt."""

    folder: Path

    @cached_property
    def study(self) -> "Study":
        from casesim import settings
        from casesim.study import Study

        config = yaml.safe_load((self.folder / "results/config.yaml").read_text())
        schema = common.ROOT / "config/schemas/config.schema.json"
        return Study.load(settings.validate(config, schema))

    @cached_property
    def plan(self) -> "Plan":
        from casesim.adaptive.plan import Plan

        return Plan(self.study)

    def path(self, name: str) -> Path:
        """A file below `results/adaptive`."""
        return self.folder / "results/adaptive" / name

    @cached_property
    def fits(self) -> Any:
        from casesim.adaptive import fitting

        return fitting.load(self.path("similarity.joblib"))

    @cached_property
    def outlook(self) -> Any:
        from casesim.adaptive import outlook

        return outlook.from_record(json.loads(self.path("outlook.json").read_text()))

    @cached_property
    def profiles(self) -> "pd.DataFrame":
        """Of the calibration cases, for the novelty of others."""
        from casesim.adaptive import labelling, table

        names = (f"features/{case}.tsv" for case in self.plan.calibration)
        return labelling.profiles(table.read(map(self.path, names)))

    @cached_property
    def models(self) -> dict[str, Any]:
        """All candidates, loaded."""
        from casesim.nnunet.checkpoints import load_model

        return {
            name: load_model(
                self.folder / self.plan.checkpoint(name, ""), common.device()
            )
            for name in self.plan.candidates
        }


def preprocess(run: Run, case: str, kind: str, folder: Path) -> tuple[Path, Any]:
    """A case of another kind, preprocessed without its label; its stem and label map
    (z, y, x)."""
    import SimpleITK

    from casesim.cohort.phantom import patient
    from casesim.nnunet import preprocessing

    config = run.study.config["cohort"]
    made = patient.generate(case, config["phantom"], kind, config["seed"])
    files = []
    for number, array in enumerate(made.image):
        image = SimpleITK.GetImageFromArray(array)
        image.SetSpacing([float(mm) for mm in reversed(made.spacing)])
        files.append(folder / f"{case}_{number:04d}.nii.gz")
        SimpleITK.WriteImage(image, str(files[-1]))
    setting = common.Setting(run.folder, 1)
    stem = folder / case
    preprocessing.preprocess_case(
        files,
        None,
        setting.plans,
        setting.dataset,
        run.study.config["nnunet"]["configuration"],
        stem,
    )
    return stem, made.label


def segment(run: Run, case: str, kind: str, folder: Path) -> dict[str, Any]:
    """One case of another kind, from its image to what is said of it, and the truth."""
    from casesim import images
    from casesim.adaptive import agreement, cells, fitting, selection, table
    from casesim.nnunet.preprocessing import load_preprocessed

    stem, label = preprocess(run, case, kind, folder)
    data, _, properties = load_preprocessed(stem)
    labels = run.study.cohort.scored
    regions = {**labels, **run.study.more_regions}
    options = run.study.logit_options
    models = run.plan.candidates
    label_maps = {
        name: folder / f"{number}.nii.gz" for number, name in enumerate(models)
    }
    said = []
    for name in models:
        cell = folder / "cell.json"
        cells.run_label_free(
            run.models[name],
            data,
            properties,
            label_maps[name],
            cell,
            name,
            case,
            regions,
            options,
        )
        said.append(table.read_cell(cell))
    agreements = agreement.agreement(
        models, lambda name: images.read_label_map(label_maps[name]), regions
    )
    features = table.feature_table(said, agreements, list(labels))
    predicted = fitting.predict_all(run.fits, features)
    ranked = selection.select(
        predicted,
        run.plan.config["region"],
        run.study.cohort.foreground_labels,
        run.plan.config["temperature"],
    )
    final = folder / "adaptive.nii.gz"
    cells.run_ensembles(
        {"adaptive": selection.by_class(ranked)},
        run.models.__getitem__,
        data,
        properties,
        lambda _: final,
        options,
    )
    maps = {"base": label_maps["base"], "adaptive": final}
    scores = table.score_case(
        case,
        ((name, images.read_label_map(path)) for name, path in maps.items()),
        label,
        labels,
        run.study.more_regions,
    )
    return row(run, kind, case, predicted, ranked, features, scores)


def as_it_was(run: Run, case: str) -> dict[str, Any]:
    """The same of a held-out case, from the run's own files."""
    from casesim.adaptive import table

    def of(kind: str) -> "pd.DataFrame":
        return table.read([run.path(f"{kind}/{case}.tsv")])

    import pandas as pd

    scores = pd.concat([of("scores"), of("method_scores")])
    return row(
        run, SAME, case, of("predicted"), of("selection"), of("features"), scores
    )


def row(
    run: Run,
    kind: str,
    case: str,
    predicted: "pd.DataFrame",
    ranked: "pd.DataFrame",
    features: "pd.DataFrame",
    scores: "pd.DataFrame",
) -> dict[str, Any]:
    """What is said of a case, and what is true: a row of the table of cases."""
    from casesim.adaptive import labelling, outlook

    region = run.plan.config["region"]
    dice = scores[scores["region"] == region].set_index("model")["dice"].astype(float)
    of_base = predicted[
        (predicted["region"] == region) & (predicted["model"] == "base")
    ].iloc[0]
    centre, low, high = outlook.predict(run.outlook, *outlook.weighted(ranked))
    novelty = labelling.novelty(run.profiles, labelling.profiles(features).T[case])
    return {
        "kind": kind,
        "case": case,
        "dice": dice["base"],
        "confidence": of_base["confidence"],
        "predicted": of_base["predicted_dice"],
        "low": of_base["low"],
        "high": of_base["high"],
        "ensemble_dice": dice["adaptive"],
        "ensemble_predicted": centre,
        "ensemble_low": low,
        "ensemble_high": high,
        "unlike": novelty > outlook.ODD,
    }


def report(table: "pd.DataFrame") -> str:
    """A row for each kind of case: the base's Dice, what was said of it, and the
    ensemble's."""
    lines = []
    for kind, rows in table.groupby("kind", sort=False):
        known = rows.dropna(subset=["dice", "ensemble_dice"])

        def inside(rows: "pd.DataFrame", name: str) -> str:
            low, high = rows[f"{name}low"], rows[f"{name}high"]
            held = (low <= rows[f"{name}dice"]) & (rows[f"{name}dice"] <= high)
            return f"{int(held.sum())} of {len(rows)}"

        lines.append(
            [
                str(kind).replace("_", " "),
                f"{known['dice'].mean():.3f}",
                f"{known['confidence'].mean():.3f}",
                f"{known['predicted'].mean():.3f}",
                inside(known, ""),
                f"{known['ensemble_dice'].mean():.3f}",
                f"{known['ensemble_predicted'].mean():.3f}",
                inside(known, "ensemble_"),
                f"{int(known['unlike'].sum())} of {len(known)}",
            ]
        )
    header = [
        "held-out cases",
        "base: Dice",
        "raw confidence",
        "predicted",
        "in its interval",
        "ensemble: Dice",
        "predicted",
        "in its interval",
        "marked as unlike",
    ]
    return common.table(header, lines)


def study(runs: Sequence[Run], kinds: Sequence[str], number: int) -> "pd.DataFrame":
    """Each case of each run, as it was and of each kind."""
    import pandas as pd

    return pd.concat([study_run(run, kinds, number) for run in runs])


def study_run(run: Run, kinds: Sequence[str], number: int) -> "pd.DataFrame":
    """Each case of one run."""
    import pandas as pd

    cases = run.plan.held_out[:number]
    rows: list[Mapping[str, Any]] = [as_it_was(run, case) for case in cases]
    for kind in kinds:
        for case in cases:
            with tempfile.TemporaryDirectory() as folder:
                rows.append(segment(run, case, kind, Path(folder)))
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, nargs="+", required=True)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS))
    parser.add_argument("--cases", type=int, default=12, help="held-out cases of each")
    parser.add_argument("--output", type=Path, help="put the table into this file")
    arguments = parser.parse_args()
    runs = [Run(folder.absolute()) for folder in arguments.run]
    table = study(runs, arguments.kinds, arguments.cases)
    common.publish(
        "Predicted Dice of cases unlike the calibration cases",
        report(table),
        arguments.output,
        ("torch", "nnunetv2", "scikit-learn"),
    )


if __name__ == "__main__":
    main()
