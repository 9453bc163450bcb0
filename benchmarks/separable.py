"""What could be named at all: right label maps, spoilt in every way and strength.

    python -m benchmarks.separable --work FOLDER --config config/cubes.yaml --seeds 1

FOLDER is one that `benchmarks.evidence` has filled (`--quick` is enough). Each case of
the pool that nothing was done to is spoilt in the ways of `cohort.spoil`, in several
strengths, and its edits are looked for against what the base model draws, as the
workflow does. AUROC and the share that one edit alone is strong enough to accuse are
those of many cases of each strength. What is gained is divided by the smallest spread
(`signatures.SMALLEST_SPREAD`), and `STRONG_ALONE` of that accuses. The workflow asks
for more: it divides by the cohort's own spread where that is larger, and the edit has
to explain the map, which must fit as usual then (`kinds`). It also looks at more: the
counts, labels and rows. So these shares are not the workflow's.

The base model has seen the right maps of the pool, and not the spoilt ones: a limit
from above. Of held-out cases (`--held-out`) it has seen neither.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import setting as common
from benchmarks.evidence import RIGHT, outcome, share
from benchmarks.studies import Run

if TYPE_CHECKING:
    import pandas as pd

STRENGTHS: dict[str, Sequence[float]] = {
    "over_segmentation": (1, 2, 3),
    "under_segmentation": (1, 2, 3),
    "missed_lesion": (0.1, 0.3, 0.5),
    "shifted_label": (2, 5, 8),
    "boundary_noise": (0.5, 1),
}
AS_IT_IS = ""


def spoilt_again(run: Run, draws: int, held_out: bool = False) -> "pd.DataFrame":
    """`case, planted, edit, gain`: edits of each untouched case, as it is (planted is
    empty) and spoilt.

    Args:
        run: of which the base model's label maps are there.
        draws: seed of what is drawn.
        held_out: the held-out cases in the place of the pool's.
    """
    import pandas as pd
    import SimpleITK as sitk  # noqa: N813

    from casesim.cohort.spoil import Spoilt, spoil
    from casesim.similarity.edits import edits

    cohort = run.study.cohort
    ways = [Spoilt(kind, s) for kind, each in STRENGTHS.items() for s in each]
    rows = []
    for case in cohort.held_out if held_out else cohort.pool:
        about = cohort.case(case)
        if about.planted or about.spoilt:
            continue
        image = sitk.ReadImage(str(run.setting.label(case)))
        path = run.results / f"predictions/base/{case}.nii.gz"
        drawn = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        labels, spacing = sitk.GetArrayFromImage(image), image.GetSpacing()[::-1]
        maps = {AS_IT_IS: labels}
        for way in ways:
            maps[way.as_text()] = spoil(labels, way, case, draws, spacing)
        for planted, changed in maps.items():
            for name, edit in edits(changed, drawn, spacing).items():
                rows.append((case, planted, name, edit.gain))
    return pd.DataFrame(rows, columns=["case", "planted", "edit", "gain"])


def report(tables: Sequence["pd.DataFrame"]) -> str:
    """For each way and strength the edit that undoes it: AUROC, and what is accused."""
    import numpy as np
    import pandas as pd
    from sklearn.metrics import roc_auc_score

    from casesim.similarity.kinds import STRONG_ALONE, UNDONE
    from casesim.similarity.signatures import SMALLEST_SPREAD

    table = pd.concat(tables, keys=range(len(tables)), names=["run"])
    table["z"] = table["gain"] / table["edit"].map(SMALLEST_SPREAD)
    table["undone"] = table["edit"].map(UNDONE)
    best = table.pivot_table(
        index=["run", "case"], columns=["planted", "undone"], values="z", aggfunc="max"
    )
    right = pd.DataFrame(best[AS_IT_IS])
    lines = []
    for planted in table["planted"].unique():
        part = pd.DataFrame(best[planted])
        kind, _, strength = planted.partition(":")
        expected = [k for k in part if outcome(kind, str(k)) == RIGHT]
        if expected:
            score = np.concatenate([part[expected[0]], right[expected[0]]])
            truth = np.arange(len(score)) < len(part)
            auroc = f"{roc_auc_score(truth, score):.2f}"
            largest = part.idxmax(axis=1) == expected[0]
            named = share(
                int(((part.max(axis=1) >= STRONG_ALONE) & largest).sum()), len(part)
            )
        else:
            auroc = named = "-"
        accused = share(int((part.max(axis=1) >= STRONG_ALONE).sum()), len(part))
        lines.append([kind.replace("_", " ") or "as it is", strength, auroc, named])
        lines[-1].append(accused)
    head = ["planted", "strength", "AUROC of its edit", "named right by it", "accused"]
    return common.table(head, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument(
        "--config", type=Path, default=common.ROOT / "config/cubes.yaml"
    )
    parser.add_argument("--data", type=Path, help="as for benchmarks.evidence")
    parser.add_argument("--width", type=int, help="as for benchmarks.evidence")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--held-out", action="store_true", help="not the pool's cases")
    parser.add_argument("--output", type=Path, help="put the table into this file")
    arguments = parser.parse_args()
    tables = []
    for seed in arguments.seeds:
        run = Run.load(
            arguments.work.absolute() / f"seed_{seed}",
            arguments.config,
            seed,
            arguments.data,
            arguments.width,
        )
        if arguments.held_out:
            cases = run.study.cohort.held_out
            run.make([f"results/scores/base/{case}.json" for case in cases])
        tables.append(spoilt_again(run, seed, arguments.held_out))
    common.publish("What could be named at all", report(tables), arguments.output)


if __name__ == "__main__":
    main()
