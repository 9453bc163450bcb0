"""What large matrices cost before any network runs: plans, scheduling, files.

    python -m benchmarks.scale [--sizes 50x100 ...] [--whole] [--execute ROWSxCOLUMNS]
        [--output docs/benchmarks/scale.md]

Cases are empty files in the layout of the Medical Segmentation Decathlon, rules and
profile are the workflow's own. For plans, `snakemake -n` is timed. For the scheduler,
scripts and the client of `predict` are put aside in the temporary checkout for ones
that write outputs of a few bytes; then wall time less that of the plan, by cell, is
what Snakemake and starting a client cost.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks import setting as common
from benchmarks.experiments import pretend_decathlon

DATA = "data/Task01_BrainTumour"
MATRIX = "results/similarity/matrix.tsv"
SIZES = ["50x100", "100x100", "200x200", "100x484"]
WHOLE = (484, 484)
# The documented way of the largest matrix: so many rows at a time.
BATCHES = 20

# As the real scripts do, these open their log and write their outputs.
SCRIPT = """\
from pathlib import Path

Path(snakemake.log[0]).touch()
for path in snakemake.output:
    Path(path).write_text("x")
"""
CLIENT = """\
import sys

values = dict(zip(sys.argv[1:], sys.argv[2:]))
print(values["--model"], "on", values["--case"])
for name in ("--prediction", "--score"):
    with open(values[name], "w") as file:
        file.write("x")
"""


@dataclass(frozen=True)
class Run:
    """One call of Snakemake: its jobs by rule, wall time, and peak memory."""

    jobs: dict[str, int]
    seconds: float
    megabytes: float
    output: str


def make_checkout(folder: Path, rows: int, columns: int) -> None:
    """A checkout of the workflow with the paper's config, and empty cases."""
    common.copy_workflow(folder)
    pretend_decathlon(folder / DATA, columns)
    cohort = {"pool": columns, "train_cases": rows, "held_out": 0}
    # Whatever the size, two cases may be removed.
    config = {"cohort": cohort, "clusters": {"max_removed_share": 0.5}}
    (folder / "size.yaml").write_text(yaml.safe_dump(config))


def scripts_of(folder: Path) -> list[Path]:
    """The scripts of all stages, without the packages beside them."""
    found = (folder / "workflow_scripts").glob("*/*.py")
    packages = ("casesim", "snakemake_logger_plugin_casesim")
    return [path for path in found if path.parent.name not in packages]


def put_scripts_aside(folder: Path) -> None:
    """Scripts that write what their rules declare, and compute nothing."""
    for script in scripts_of(folder):
        script.write_text(CLIENT if script.name == "predict.py" else SCRIPT)


def snakemake(folder: Path, *arguments: str) -> Run:
    """Run Snakemake to its end, under the default profile.

    As on a machine with a GPU, where one cell runs at a time.
    """
    command = [
        *(sys.executable, "-m", "snakemake", *arguments, "--cores", "2"),
        *("--configfile", "config/paper.yaml", "size.yaml"),
    ]
    with tempfile.TemporaryFile() as log:
        started = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | {"CUDA_VISIBLE_DEVICES": "0"},
            stdout=log,
            stderr=log,
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        log.seek(0)
        output = log.read().decode(errors="replace")
    if os.waitstatus_to_exitcode(status):
        sys.exit(f"{' '.join(command)} failed:\n{output[-4000:]}")
    # Kilobytes on Linux, bytes on macOS.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return Run(job_counts(output), seconds, usage.ru_maxrss / unit, output)


def job_counts(output: str) -> dict[str, int]:
    """Snakemake's table of jobs by rule; empty where nothing is to be done."""
    _, _, table = output.partition("Job stats:")
    return {
        rule: int(number)
        for rule, number in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)
    }


def count_files(folder: Path) -> Counter[str]:
    """Files, folders and bytes by part of the run: `results/scores files`."""
    counts: Counter[str] = Counter()
    parts = [*(folder / "results").glob("*"), folder / "logs"]
    for part in [*parts, folder / ".snakemake/metadata"]:
        name = str(part.relative_to(folder))
        for path in [part, *part.rglob("*")] if part.exists() else []:
            if path.is_dir():
                counts[f"{name} folders"] += 1
            else:
                counts[f"{name} files"] += 1
                counts[f"{name} bytes"] += path.stat().st_size
    return counts


def total(counts: Counter[str], what: str) -> int:
    """All files, folders or bytes."""
    return sum(number for name, number in counts.items() if name.endswith(what))


def parse_size(text: str) -> tuple[int, int]:
    """`50x100` as 50 rows and 100 columns."""
    rows, _, columns = text.partition("x")
    return int(rows), int(columns)


def plan(folder: Path, rows: int, columns: int, *arguments: str) -> Run:
    make_checkout(folder, rows, columns)
    return snakemake(folder, *arguments, "-n", "--quiet", "rules")


def batch(number: int) -> list[str]:
    """One batch of rows, as docs/scale.md tells to run it."""
    # Not the target `matrix`: what else it asks for needs all cells.
    return [MATRIX, "--batch", f"similarity_matrix={number}/{BATCHES}"]


def row_tables(folder: Path, rows: int) -> list[str]:
    """The first rows as targets, by the names that the plan gives them."""
    listed = snakemake(folder, "matrix", "-n", "--quiet", "all", "--summary").output
    pattern = r"^(results/scores/finetuned/\w+\.tsv)\t"
    return sorted(set(re.findall(pattern, listed, re.MULTILINE)))[:rows]


def measure_plans(sizes: Iterable[str], whole: bool, folder: Path) -> str:
    """Wall time and peak memory of `snakemake -n`, as a table."""
    runs: list[tuple[str, str, Run]] = []
    for size in sizes:
        rows, columns = parse_size(size)
        run = plan(folder / size, rows, columns, "matrix")
        runs.append((size, "`matrix`", run))
    size = f"{WHOLE[0]}x{WHOLE[1]}"
    run = plan(folder / size, *WHOLE, *batch(1))
    runs.append((size, f"`{' '.join(batch(1))}`", run))
    table = row_tables_without_plan(folder / size)
    run = snakemake(folder / size, table, "-n", "--quiet", "rules")
    runs.append((size, "one row as the target", run))
    if whole:
        run = snakemake(folder / size, "matrix", "-n", "--quiet", "rules")
        runs.append((size, "`matrix`", run))
    return common.table(
        ["rows x columns", "target", "jobs", "cells", "plan (s)", "peak memory (MB)"],
        [
            [
                size,
                target,
                f"{run.jobs['total']:,}",
                f"{run.jobs['predict']:,}",
                f"{run.seconds:.1f}",
                f"{run.megabytes:,.0f}",
            ]
            for size, target, run in runs
        ],
    )


def row_tables_without_plan(folder: Path) -> str:
    """A row where all cases are train cases: any name will do."""
    name = sorted((folder / DATA / "labelsTr").iterdir())[0].name
    return f"results/scores/finetuned/{name.removesuffix('.nii.gz')}.tsv"


def measure_execution(size: str, folder: Path) -> str:
    """What the scheduler costs and leaves behind for each cell, in words."""
    rows, columns = parse_size(size)
    make_checkout(folder, rows, columns)
    put_scripts_aside(folder)
    tables = row_tables(folder, rows)
    models = [
        table.replace("scores", "models").replace(".tsv", "/plans.json")
        for table in tables
    ]
    # Everything that cells need.
    cases = sorted(path.name for path in (folder / DATA / "labelsTr").iterdir())
    labels = [f"results/nnunet/raw/Dataset001_Cohort/labelsTr/{case}" for case in cases]
    upstream = snakemake(folder, *models, *labels, "--quiet", "all")
    before = count_files(folder)
    planned = snakemake(folder, *tables, "-n", "--quiet", "rules")
    cells = planned.jobs["predict"]
    if cells != rows * columns or planned.jobs["total"] != cells + rows:
        sys.exit(f"more is planned than {rows} x {columns} cells: {planned.jobs}")
    run = snakemake(folder, *tables, "--quiet", "all")
    added = count_files(folder) - before
    again = snakemake(folder, *tables, "-n", "--quiet", "rules")
    if "Nothing to be done" not in again.output:
        sys.exit(f"a finished run is planned again: {again.output}")
    bytes_of_metadata = added[".snakemake/metadata bytes"]
    lines = [
        ["cells", f"{cells:,}"],
        ["wall time of the run (s)", f"{run.seconds:.1f}"],
        ["of it the plan, as `-n` makes it (s)", f"{planned.seconds:.1f}"],
        [
            "scheduler and start of the client, a cell (ms)",
            f"{1000 * (run.seconds - planned.seconds) / cells:.0f}",
        ],
        ["peak memory (MB)", f"{run.megabytes:,.0f}"],
        ["plan when all is up to date (s)", f"{again.seconds:.1f}"],
        ["files, a cell", f"{total(added, ' files') / cells:.2f}"],
        ["inodes, a cell (with folders)", f"{_inodes(added) / cells:.2f}"],
        [
            "of them in `.snakemake/metadata`",
            f"{added['.snakemake/metadata files'] / cells:.2f}",
        ],
        ["bytes in `.snakemake/metadata`, a cell", f"{bytes_of_metadata / cells:,.0f}"],
    ]
    return (
        f"{size} cells that compute nothing, one at a time (`gpu: 1`); the models and "
        f"cases that they need took {upstream.seconds:.0f} s with scripts that compute "
        f"nothing.\n\n{common.table(['', ''], lines)}"
    )


def _inodes(counts: Counter[str]) -> int:
    return total(counts, " files") + total(counts, " folders")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="*", default=SIZES)
    parser.add_argument(
        "--whole",
        action="store_true",
        help=f"also plan {WHOLE[0]}x{WHOLE[1]} in one go: minutes",
    )
    parser.add_argument("--execute", default="10x100", help="rows x columns that run")
    parser.add_argument("--output", type=Path, help="put the tables into this file")
    arguments = parser.parse_args()
    packages = ("snakemake",)
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        plans = measure_plans(arguments.sizes, arguments.whole, Path(folder, "plans"))
        text = (
            "`snakemake -n` of the paper's config on empty cases.\n\n"
            f"{plans}\n\nOf {WHOLE[0]}x{WHOLE[1]}, the first of {BATCHES} batches."
        )
        common.publish("Plans", text, arguments.output, packages)
        execution = measure_execution(arguments.execute, Path(folder, "executed"))
    common.publish("Scheduling and files", execution, arguments.output, packages)


if __name__ == "__main__":
    main()
