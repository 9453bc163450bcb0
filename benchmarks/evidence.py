"""Which error is it, who finds it, and at what price: cohorts whose defects are known.

    python -m benchmarks.evidence --work FOLDER --config config/kinds.yaml --seeds 0 1 2

For each seed (of the cohort, of its defects and of all trainings) the workflow makes
cohort, base model, folds and the quick look; then all train cases are fine-tuned and
their rows scored, in one process of one thread, in FOLDER/seed_<seed>. What is named is
counted for four looks, with and without rows, judged by the base model (as the workflow
does) or by models that never saw the case ("folds instead"), and how well each
score finds the defects. `--quick` leaves the fine-tunes out. FOLDER keeps what is done;
with `--minutes` it stops in time, and started again it does the rest.

FOLDER/kinds.tsv (a row for each case and look) and FOLDER/scores.tsv (as the workflow's
detection.tsv, for each seed) are what the tables are made of.
"""

import argparse
import math
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from benchmarks import setting as common
from benchmarks.studies import FULL, Run, add_arguments, rows_in_time, rows_of

if TYPE_CHECKING:
    import pandas as pd

# Look: with rows, judged by models that never saw the case.
LOOKS = {
    "base model": (False, False),
    "folds instead": (False, True),
    "matrix": (True, False),
    "matrix, folds instead": (True, True),
}
RIGHT, UNNOTICED, ANOTHER = "right", "not noticed", "another kind"
SOUND, CONTROL, GROSS, MODERATE = "sound", "control", "gross", "moderate"
# Planted by `cohort.spoil`, so much or more of it is a gross error.
GROSS_FROM = {
    "over_segmentation": 3,
    "under_segmentation": 3,
    "missed_lesion": 0.5,
    "shifted_label": 8,
}


def grade(planted: str, strength: float, by_phantom: bool) -> str:
    """How gross a planted defect is: the phantoms' own are made to be seen."""
    if by_phantom or planted not in GROSS_FROM:
        return GROSS
    return GROSS if strength >= GROSS_FROM[planted] else MODERATE


def outcome(planted: str, kind: str) -> str:
    """Whether the kind that was named is that of the planted defect."""
    from casesim.similarity import kinds

    expected = {
        "over_segmentation": kinds.OVER,
        "under_segmentation": kinds.UNDER,
        "missed_lesion": kinds.UNDER,
        "shifted_label": kinds.DISPLACED,
        "other_patient": kinds.DISPLACED,
        "swapped_labels": kinds.EXCHANGED,
        "corrupted_channel": kinds.BAD_IMAGE,
    }
    named = kinds.short(kind)
    if named not in kinds.ERRORS:
        return UNNOTICED
    return RIGHT if named == expected.get(planted) else ANOTHER


def look(run: Run, rows: bool, folds: bool) -> "pd.DataFrame":
    """The kinds of all train cases, by what this look sees."""
    return run.kinds(rows_of(run, FULL)[1] if rows else None, folds)


def named(run: Run, looks: Sequence[str]) -> "pd.DataFrame":
    """A row for each look and train case: `look`, and the columns of `judged`."""
    import pandas as pd

    tables = []
    for name in looks:
        table = judged(run, look(run, *LOOKS[name]))
        table.insert(1, "look", name)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def judged(run: Run, table: "pd.DataFrame") -> "pd.DataFrame":
    """What was planted beside what is named, a row for each case: `seed, case, planted,
    strength, grade, kind, strength_of_kind, outcome` (of defects), `accused`.

    Args:
        run: whose cases they are.
        table: from `kinds.classify`.
    """
    import pandas as pd

    from casesim.cohort import spoil
    from casesim.cohort.phantom import catalogue
    from casesim.similarity.kinds import ERRORS, short

    controls = (*catalogue.CONTROLS, *spoil.CONTROLS)
    rows = []
    for case, kind, strong in zip(
        table.index, table["kind"], table["strength"], strict=True
    ):
        about = run.study.cohort.case(case)
        planted, _, text = (about.planted or about.spoilt).partition(":")
        strength = float(text) if text else float("nan")
        is_defect = bool(planted) and planted not in controls
        rows.append(
            {
                "seed": run.seed,
                "case": case,
                "planted": planted,
                "strength": strength,
                "grade": grade(planted, strength, bool(about.planted))
                if is_defect
                else (CONTROL if planted else SOUND),
                "kind": kind,
                "strength_of_kind": strong,
                "outcome": outcome(planted, kind) if is_defect else "",
                "accused": short(kind) in ERRORS,
            }
        )
    return pd.DataFrame(rows)


def scores(run: Run, rows: bool) -> "pd.DataFrame":
    """`detection.tsv` of one seed, with the quick look's scores, and what each cost in
    trainings of the base model."""
    import pandas as pd

    from casesim.evidence.detection import detection, suspicion_scores
    from casesim.evidence.truth import read_truth
    from casesim.similarity.clustering import cluster
    from casesim.similarity.effects import case_effects
    from casesim.similarity.review import review

    folds = bool(run.study.folds)
    quality: dict[str, float] = {}
    quick = pd.read_csv(run.results / "quick/cases.tsv", sep="\t").set_index("case")
    quick = quick.loc[run.train]
    cohort = run.results / "cohort.tsv"
    truth = read_truth(pd.read_csv(cohort, sep="\t", dtype=str, na_filter=False))
    alone = look(run, rows=False, folds=False)["suspicion"]
    if folds:
        quality = dict(zip(run.train, quick["label_quality"], strict=True))
    found = {
        "base_dice": quick["base_dice"],
        "base_signature": -alone,
        "channel": -quick["channel_score"],
    }
    if rows:
        matrix = rows_of(run, FULL)[0]
        base = pd.DataFrame({"base_dice": quick["base_dice"], "base_suspicion": alone})
        table = review(
            case_effects(matrix),
            look(run, rows, folds=False),
            cluster(matrix, bootstraps=100, **run.study.config["clusters"]).clusters,
            base.loc[run.train],
            quality,
        )
        found = suspicion_scores(table, quality)
    elif folds:
        found["cleanlab"] = quick["label_quality"]
    if folds:
        found["fold_signature"] = -look(run, rows=False, folds=True)["suspicion"]
        found["quick_combined"] = quick["combined_rank"]
    table = detection(truth, found, {"rows": math.nan, "folds": math.nan})
    table.insert(0, "seed", run.seed)
    table["base_trainings"] = table["score"].map(costs(run, table["score"].unique()))
    return table


def costs(run: Run, names: Iterable[str]) -> dict[str, float]:
    """Iterations of training that each score needs, in those of the base model."""
    from casesim.evidence.detection import gpu_hours

    parts = {
        "rows": len(run.train) * run.iterations("finetune") / run.iterations("base"),
        "folds": float(run.study.config["evidence"]["cleanlab_folds"]),
    }
    as_cleanlab = ("fold_signature", "quick_combined")
    return {
        name: gpu_hours("cleanlab" if name in as_cleanlab else name, parts)
        for name in names
    }


def report(table: "pd.DataFrame", found: "pd.DataFrame") -> str:
    """The tables of the study, in Markdown."""
    looks = list(dict.fromkeys(table["look"]))
    lines = []
    for name in looks:
        rows = table[table["look"] == name]
        line: list[object] = [name]
        for wanted in (GROSS, MODERATE):
            part = rows[rows["grade"] == wanted]
            line.append(share((part["outcome"] == RIGHT).sum(), len(part)))
        part = rows[rows["outcome"] != ""]
        line.append(share((part["outcome"] == RIGHT).sum(), len(part)))
        for wanted in (SOUND, CONTROL):
            part = rows[rows["grade"] == wanted]
            line.append(share(part["accused"].sum(), len(part)))
        lines.append(line)
    head = ["seen by", "gross: right kind", "moderate: right kind"]
    head += ["any defect: right kind", "sound: accused", "controls: accused"]
    summary = common.table(head, lines)
    defects = table[table["outcome"] != ""]
    lines = []
    groups = defects.groupby(["planted", "grade", "strength"], dropna=False, sort=True)
    for (planted, how, strength), rows in groups:
        line = [_plain(planted), how, "" if strength != strength else f"{strength:g}"]
        for name in looks:
            counts = rows[rows["look"] == name]["outcome"].value_counts()
            each = [str(counts.get(o, 0)) for o in (RIGHT, UNNOTICED, ANOTHER)]
            line.append(", ".join(each))
        lines.append(line)
    head = ["planted", "", "strength", *looks]
    kinds = common.table(head, lines)
    return (
        f"{summary}\n\nWith Wilson's 95 % interval.\n\nOf each planted defect: named "
        f"right, not noticed, called another kind.\n\n{kinds}\n\nAUROC, "
        f"{_of_seeds(found)}. Cost beside the base model, in trainings of it.\n\n"
        f"{aurocs(found)}"
    )


def _of_seeds(found: "pd.DataFrame") -> str:
    if found["seed"].nunique() > 1:
        return "mean of the seeds (least to greatest)"
    return "with DeLong's 95 % interval"


def aurocs(found: "pd.DataFrame") -> str:
    """AUROC of each score for each kind of defect, and its cost."""
    found = found[found["strength"].isna()]
    columns = list(dict.fromkeys(zip(found["defect"], found["kind"], strict=True)))
    head = ["score", "cost", *(f"{d}: {_plain(k)}" for d, k in columns)]
    lines = []
    for score, rows in found.groupby("score", sort=False):
        line = [_plain(score), f"{rows['base_trainings'].mean():.1f}"]
        for defect, kind in columns:
            part = rows[(rows["defect"] == defect) & (rows["kind"] == kind)]
            if len(part) > 1:
                low, high = part["auroc"].min(), part["auroc"].max()
            else:
                low, high = part["auroc_low"].iloc[0], part["auroc_high"].iloc[0]
            line.append(f"{part['auroc'].mean():.2f} ({low:.2f} to {high:.2f})")
        lines.append(line)
    return common.table(head, lines)


def share(part: int, whole: int) -> str:
    """A share with Wilson's 95 % interval (J. Am. Stat. Assoc. 22:209, 1927)."""
    from scipy.stats import binomtest

    if not whole:
        return "-"
    span = binomtest(int(part), whole).proportion_ci(method="wilson")
    percent = [round(100 * value) for value in (part / whole, span.low, span.high)]
    return f"{part} of {whole} ({percent[0]} %; {percent[1]} to {percent[2]})"


def _plain(name: object) -> str:
    return str(name).replace("_", " ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser, "kinds.yaml")
    parser.add_argument("--quick", action="store_true", help="without fine-tunes")
    parser.add_argument("--folds", type=int, help="another number than the config's")
    parser.add_argument("--minutes", type=float, help="stop after so many")
    parser.add_argument("--title", default="Which error is it?")
    arguments = parser.parse_args()
    work, rows = arguments.work.absolute(), not arguments.quick
    kinds, detections = [], []
    deadline = time.monotonic() + 60 * (arguments.minutes or 1e6)
    for seed in arguments.seeds:
        run = Run.chosen(arguments, seed, arguments.folds)
        in_time = (
            run.make_base(deadline)
            and (not rows or rows_in_time(run, deadline))
            and run.make(["results/quick/cases.tsv"], deadline)
        )
        if not in_time:
            print("The time is over; the same command does the rest.")
            return
        looks = [
            name
            for name, (by_rows, by_folds) in LOOKS.items()
            if by_rows <= rows and by_folds <= bool(run.study.folds)
        ]
        kinds.append(named(run, looks))
        detections.append(scores(run, rows))
    import pandas as pd

    table, found = pd.concat(kinds), pd.concat(detections)
    table.to_csv(work / "kinds.tsv", sep="\t", index=False)
    found.to_csv(work / "scores.tsv", sep="\t", index=False)
    common.publish(arguments.title, report(table, found), arguments.output)


if __name__ == "__main__":
    main()
