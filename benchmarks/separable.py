"""What could be named at all: right label maps, spoilt in every way and strength.

    python -m benchmarks.separable --work FOLDER --config config/cubes.yaml --seeds 1

FOLDER is one that `benchmarks.evidence` has filled (`--quick` is enough). Each case of
the pool that nothing was done to is spoilt in the ways of `cohort.spoil`, in several
strengths, one map at a time, in a cohort of which all other maps are as they are; its
edits are looked for against what the base model draws, and its kind is named, as by
the quick look (`kinds.classify` without rows; images are not looked at). A cohort with
more wrong maps can have larger spreads, and name less.

The base model has seen the right maps of the pool, and not the spoilt ones: a limit
from above. Of held-out cases (`--held-out`) it has seen neither.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from benchmarks import setting as common
from benchmarks.evidence import RIGHT, outcome, share
from benchmarks.studies import Run, add_arguments

if TYPE_CHECKING:
    import pandas as pd

    from casesim.inference.errors import Errors

STRENGTHS: dict[str, Sequence[float]] = {
    "over_segmentation": (1, 2, 3),
    "under_segmentation": (1, 2, 3),
    "missed_lesion": (0.1, 0.3, 0.5),
    "shifted_label": (2, 5, 8),
    "boundary_noise": (0.5, 1),
}
AS_IT_IS = ""


def spoilt_again(run: Run, draws: int, held_out: bool = False) -> "pd.DataFrame":
    """`case, planted, edit, gain, by, kind`: edits and kind of each untouched case, as
    it is (planted is empty) and spoilt.

    Args:
        run: of which the base model's label maps are there.
        draws: seed of what is drawn.
        held_out: the held-out cases in the place of the pool's.
    """
    import pandas as pd
    import SimpleITK as sitk  # noqa: N813

    from casesim.cohort.spoil import Spoilt, spoil
    from casesim.inference import errors, overlap
    from casesim.inference.surface import Reference
    from casesim.similarity.edits import edits
    from casesim.similarity.signatures import positions

    cohort, labels = run.study.cohort, run.study.foreground
    ways = [Spoilt(kind, s) for kind, each in STRENGTHS.items() for s in each]
    rows, records = [], []
    for case in cohort.held_out if held_out else cohort.pool:
        about = cohort.case(case)
        if about.planted or about.spoilt:
            continue
        image = sitk.ReadImage(str(run.setting.label(case)))
        path = run.results / f"predictions/base/{case}.nii.gz"
        drawn = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        right, spacing = sitk.GetArrayFromImage(image), image.GetSpacing()[::-1]
        maps = {AS_IT_IS: right}
        for way in ways:
            maps[way.as_text()] = spoil(right, way, case, draws, spacing)
        for planted, changed in maps.items():
            for name, edit in edits(changed, drawn, spacing).items():
                rows.append((case, planted, name, edit.gain, edit.by))
            reference = Reference.of(changed, spacing)
            records.append(
                overlap.score_record(planted, case, drawn, reference, cohort.scored, {})
            )
    table = pd.DataFrame(rows, columns=["case", "planted", "edit", "gain", "by"])
    counts = errors.from_tables([errors.error_table(records)], list(labels))
    regions = positions(run.study.config["regions"], labels)
    return table.merge(named(counts, table, regions), on=["case", "planted"])


def named(
    counts: "Errors", changes: "pd.DataFrame", regions: Mapping[str, Sequence[int]]
) -> "pd.DataFrame":
    """`case, planted, kind`: of each map, all others of the cohort being as they are.

    Args:
        counts: what the base model makes of the maps; `models` are what was planted.
        changes: `case, planted, edit, gain, by`, from `edits`.
        regions: as in `signatures.measures`.
    """
    import pandas as pd

    from casesim.similarity.kinds import classify
    from casesim.similarity.signatures import signatures

    cases, right = counts.cases, counts.select([AS_IT_IS], counts.cases)
    parts = {
        key: part.drop(columns="planted")
        for key, part in changes.groupby(["planted", "case"])
    }
    rows = []
    for i, planted in enumerate(counts.models):
        for j, changed in enumerate(cases):
            now = {}
            for name in ("confusion", "fp", "fn"):
                now[name] = getattr(right, name).copy()
                now[name][0, j] = getattr(counts, name)[i, j]
            edits = [parts[planted if c == changed else AS_IT_IS, c] for c in cases]
            found = signatures(
                None, replace(right, **now), regions, None, pd.concat(edits)
            )
            rows.append((changed, planted, classify(found, cases).loc[changed, "kind"]))
    return pd.DataFrame(rows, columns=["case", "planted", "kind"])


def report(tables: Sequence["pd.DataFrame"]) -> str:
    """For each way and strength the AUROC of the edit that undoes it, and what is named
    right and accused."""
    import numpy as np
    import pandas as pd
    from sklearn.metrics import roc_auc_score

    from casesim.similarity.edits import MOVED
    from casesim.similarity.kinds import ERRORS, UNDONE, short
    from casesim.similarity.signatures import SMALLEST_SPREAD

    table = pd.concat(tables, keys=range(len(tables)), names=["run"])
    table["z"] = table["gain"] / table["edit"].map(SMALLEST_SPREAD)
    table["undone"] = table["edit"].map(UNDONE)
    best = table.pivot_table(
        index=["run", "case"], columns=["planted", "undone"], values="z", aggfunc="max"
    )
    right = pd.DataFrame(best[AS_IT_IS])
    lines = []
    for planted, maps in table[table["edit"] == MOVED].groupby("planted", sort=False):
        part = pd.DataFrame(best[planted])
        kind, _, strength = str(planted).partition(":")
        expected = [k for k in part if outcome(kind, str(k)) == RIGHT]
        auroc = is_right = "-"
        if expected:
            score = np.concatenate([part[expected[0]], right[expected[0]]])
            truth = np.arange(len(score)) < len(part)
            auroc = f"{roc_auc_score(truth, score):.2f}"
            of_its_kind = [outcome(kind, str(k)) == RIGHT for k in maps["kind"]]
            is_right = share(sum(of_its_kind), len(maps))
        accused = share(int(maps["kind"].map(short).isin(ERRORS).sum()), len(maps))
        name = kind.replace("_", " ") or "as it is"
        lines.append([name, strength, auroc, is_right, accused])
    head = ["planted", "strength", "AUROC of its edit", "right kind", "accused"]
    return common.table(head, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser, "cubes.yaml")
    parser.add_argument("--held-out", action="store_true", help="not the pool's cases")
    arguments = parser.parse_args()
    tables = []
    for seed in arguments.seeds:
        run = Run.chosen(arguments, seed)
        if arguments.held_out:
            cases = run.study.cohort.held_out
            run.make([f"results/scores/base/{case}.json" for case in cases])
        tables.append(spoilt_again(run, seed, arguments.held_out))
    common.publish("What could be named at all", report(tables), arguments.output)


if __name__ == "__main__":
    main()
