"""How many cases it takes to name kinds of errors: parts of cohorts that are done.

    python -m benchmarks.cohort_size --work FOLDER --config config/kinds.yaml --seeds 0

FOLDER is one that `benchmarks.evidence` has filled. Of its train cases so many are
drawn at random, as often as asked for; the kinds are named from their rows and columns
alone, and counted, of however few cases (the workflow names none of fewer than
`kinds.FEWEST_CASES`, for what comes out here). The models stay what they are: what is
measured is how well a small cohort says what is usual.
"""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmarks import setting as common
from benchmarks.evidence import ANOTHER, RIGHT, judged, share
from benchmarks.studies import FULL, Run, add_arguments, rows_of

if TYPE_CHECKING:
    import pandas as pd

SIZES = (5, 6, 8, 10, 12, 16, 24, 40)


def parts(
    runs: Sequence[Run], sizes: Sequence[int], draws: int, seed: int
) -> "pd.DataFrame":
    """A row for each size, draw and case, as `evidence.judged`, with `size`, `rows`."""
    import numpy as np
    import pandas as pd

    found = []
    matrices = [rows_of(run, FULL)[1] for run in runs]
    for size in sizes:
        draw = np.random.default_rng([seed, size])
        for i in range(draws):
            run, matrix = runs[i % len(runs)], matrices[i % len(runs)]
            cases = sorted(map(str, draw.choice(run.train, size, replace=False)))
            for rows in (False, True):
                kinds = run.kinds(matrix if rows else None, False, cases, fewest=0)
                table = judged(run, kinds)
                found.append(table.assign(size=size, rows=rows))
    return pd.concat(found, ignore_index=True)


def report(table: "pd.DataFrame") -> str:
    """For each size, what was named right, wrong, and accused, in Markdown."""
    lines = []
    for size, of_size in table.groupby("size"):
        line: list[object] = [size]
        for _, part in of_size.groupby("rows"):
            defects = part[part["outcome"] != ""]
            others = part[part["outcome"] == ""]
            line += [
                share((defects["outcome"] == RIGHT).sum(), len(defects)),
                share((defects["outcome"] == ANOTHER).sum(), len(defects)),
                share(int(others["accused"].sum()), len(others)),
            ]
        lines.append(line)
    head = ["train cases"]
    for seen in ("base", "rows"):
        head += [f"{seen}: right kind", "another kind", "accused wrongly"]
    return common.table(head, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser, "kinds.yaml")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--draws", type=int, default=24)
    arguments = parser.parse_args()
    runs = [Run.chosen(arguments, seed) for seed in arguments.seeds]
    table = parts(runs, arguments.sizes, arguments.draws, 0)
    common.publish("How many cases it takes", report(table), arguments.output)


if __name__ == "__main__":
    main()
