"""Models x cases by this workflow and by nnU-Net's commands, side by side.

    python -m benchmarks.matrix [--size demo|real] [--models N] [--cases M]
        [--folders F] [--processes P ...] [--single-calls K] [--threads N]
        [--output docs/benchmarks/matrix.md]

On the same models and cases, one after the other (`demo`: of the embedded cohort;
`real`: of the extent of brain-tumour patients, where all models are copies of one, as
a cell takes the same time whatever the weights, and a GPU's network is compiled, as it
is in a run of thousands of cells):

(a) this workflow: `snakemake` makes N rows of M cells, under the default profile, from
    trained models and preprocessed cases to the tables of Dice;
(b) `nnUNetv2_predict_from_modelfolder` once for each model, on the folder of cases, and
    `nnUNetv2_evaluate_folder` (with the number of processes, of `--processes`, that is
    the fastest on the first model); F models stand for the others;
(c) `nnUNetv2_predict_from_modelfolder` once for each model and case: K calls are timed,
    and stand for the others; evaluation is not counted.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks import setting as common
from benchmarks.nnunet_commands import (
    Side,
    run_folders,
    run_single_calls,
    summary_path,
)
from benchmarks.scale import count_files, total
from benchmarks.watching import Usage, run

BASE_ITERATIONS = 60
MIN_TRAIN_CASES = 4  # a tree wants some, of which two may be removed
FINETUNE_ITERATIONS = 20
CLIENTS = 40


def prepare(
    setting: common.Setting, size: str, models: int, cases: int
) -> tuple[list[str], Any]:
    """A checkout with models and preprocessed cases; names of models and of cases."""
    common.copy_workflow(setting.work)
    # Snakemake finds everything up to date if it lies there in the order of the stages.
    (setting.work / "results").mkdir()
    (setting.work / "results/cohort.tsv").touch()
    volumes = common.SIZES[size]
    names = common.prepare_cases(
        setting, common.Size(cases, volumes.shape, volumes.spacing)
    )
    if size == "demo":
        common.use_batches_of_the_demo(setting)
    stems = common.preprocess(setting, names)
    base = common.train(setting, "base", stems, BASE_ITERATIONS)
    train = names[:models]
    for name, stem in zip(train, stems, strict=False):
        model = f"finetuned/{name}"
        if size == "real":
            copy_model(setting, "base", model)
        else:
            common.train(setting, model, [stem], FINETUNE_ITERATIONS, start_from=base)
    config = {
        "cohort": {
            "pool": names,
            "train_cases": names[: max(models, MIN_TRAIN_CASES)],
            "held_out": 0,
            "phantom": {"defects": _none("defects"), "controls": _none("controls")},
        },
        "clusters": {"max_removed_share": 0.5},
        "inference": {"compile": True if size == "real" else "auto"},
    }
    (setting.work / "matrix.yaml").write_text(yaml.safe_dump(config))
    return [f"finetuned/{name}" for name in train], names


def copy_model(setting: common.Setting, name: str, other: str) -> None:
    """Copy a model's folder, with dates after it: else it would be trained again."""
    shutil.copytree(
        setting.model(name), setting.model(other), copy_function=shutil.copy
    )


def _none(kind: str) -> dict[str, int]:
    schema = json.loads(
        (common.ROOT / "config/schemas/config.schema.json").read_text("utf-8")
    )
    phantom = schema["properties"]["cohort"]["properties"]["phantom"]
    return dict.fromkeys(phantom["properties"][kind]["properties"], 0)


def snakemake(setting: common.Setting, targets: Sequence[str], *flags: str) -> Usage:
    command = [
        *(sys.executable, "-m", "snakemake", *targets, *flags),
        *("--cores", str(setting.threads), "--configfile", "matrix.yaml"),
    ]
    return run(command, setting.work, dict(os.environ))


def run_workflow(
    setting: common.Setting, models: Sequence[str], cases: Sequence[str]
) -> tuple[Side, Usage, Counter[str]]:
    """(a), the time of its plan, and the files that it leaves."""
    tables = [f"results/scores/{model}.tsv" for model in models]
    planned = snakemake(setting, tables, "-n", "--quiet", "rules")
    jobs = (setting.work / "benchmark.log").read_text()
    expected = {"predict": len(models) * len(cases), "collect_scores": len(models)}
    counts = {
        rule: int(number)
        for rule, number in re.findall(r"^(\w+) +(\d+)$", jobs, re.MULTILINE)
    }
    if counts != {**expected, "total": sum(expected.values())}:
        sys.exit(f"another plan than {expected}:\n{jobs}")
    before = count_files(setting.work)
    usage = snakemake(setting, tables)
    side = Side(
        "(a) this workflow", expected["predict"], usage.seconds, usage.megabytes
    )
    return side, planned, count_files(setting.work) - before


def seconds_by_step(
    setting: common.Setting, models: Sequence[str], cases: Sequence[str]
) -> dict[str, float]:
    """What the scores and logs of (a) say, summed over the cells."""
    steps: dict[str, float] = defaultdict(float)
    for model in models:
        for case in cases:
            score = setting.work / f"results/scores/{model}/{case}.json"
            for step, seconds in json.loads(score.read_text())["seconds"].items():
                steps[step] += seconds
            log = setting.work / f"logs/predict/{model}/{case}.log"
            found = re.search(r"load ([\d.]+) s", log.read_text())
            assert found is not None
            steps["load"] += float(found[1])
    return steps


def threads_of_a_cell(setting: common.Setting) -> int:
    """As the workflow has them."""
    from casesim.processes import places

    most = places.THREADS if common.device() == "cpu" else places.THREADS_WITH_GPU
    return min(most, setting.threads)


def cells_at_a_time(setting: common.Setting) -> int:
    """One on each core, or on the GPU, of which the workflow uses one here."""
    return setting.threads if common.device() == "cpu" else 1


def time_clients(
    setting: common.Setting, models: Sequence[str], cases: Sequence[str], number: int
) -> tuple[float, float]:
    """Seconds that a client takes beyond what its predictor does, and a cold start.

    The clients are those of the rule, one after the other. The first one starts a
    predictor, which ends with this process, and is measured apart.
    """
    scratch = setting.work / "clients"
    extra = []
    cells = [(model, case) for case in cases for model in models]
    for count in range(number + 1):
        model, case = cells[count % len(cells)]
        score = scratch / f"{count}.json"
        scratch.mkdir(exist_ok=True)
        command = [
            *(sys.executable, "-S", "-E", "workflow_scripts/inference/predict.py"),
            *("--model", model, "--case", case),
            *("--checkpoint", str(setting.checkpoint(model))),
            *("--data", f"{setting.stem(case)}.b2nd"),
            *("--label", str(setting.label(case))),
            *("--prediction", str(scratch / f"{count}.nii.gz"), "--score", str(score)),
            *("--threads", str(threads_of_a_cell(setting)), "--gpu", "1"),
            "--mirroring",
            *("--labels", "edema=1;core=2;enhancing=3", "--regions", "WT=1,2,3"),
        ]
        started = time.perf_counter()
        done = subprocess.run(
            command, cwd=setting.work, capture_output=True, text=True, check=True
        )
        seconds = time.perf_counter() - started
        load = re.search(r"load ([\d.]+) s", done.stdout)
        assert load is not None
        inside = sum(json.loads(score.read_text())["seconds"].values())
        extra.append(seconds - inside - float(load[1]))
    return statistics.median(extra[1:]), extra[0]


def differences_of_dice(
    setting: common.Setting, models: Sequence[str], cases: Sequence[str]
) -> list[float]:
    """Dice of (a) less that of (b), for each label of each cell."""
    from casesim.inference import overlap
    from casesim.nnunet.files import read_json

    numbers = read_json(setting.dataset)["labels"]
    found = []
    for model in models:
        summary = json.loads(summary_path(setting, model).read_text())
        theirs = {
            Path(part["prediction_file"]).name.removesuffix(".nii.gz"): part["metrics"]
            for part in summary["metric_per_case"]
        }
        for case in cases:
            path = setting.work / f"results/scores/{model}/{case}.json"
            for label, counts in overlap.read_record(path)["labels"].items():
                ours = overlap.dice(counts["tp"], counts["fp"], counts["fn"])
                dice = theirs[case][str(numbers[label])]["Dice"]
                # Undefined on both sides, or on one: NaN == NaN is agreement here.
                both_undefined = ours != ours and dice != dice
                found.append(0.0 if both_undefined else ours - dice)
    return found


def report_sides(a: Side, others: Sequence[Side]) -> str:
    header = ["", "cells", "wall (s)", "a cell (s)", "a cell / (a)", "peak memory (MB)"]
    return common.table(
        header,
        [
            [
                side.name,
                side.cells,
                f"{side.seconds:.1f}",
                f"{side.per_cell:.3f}",
                f"{side.per_cell / a.per_cell:.1f}",
                f"{side.megabytes:,.0f}",
            ]
            for side in (a, *others)
        ],
    )


def split(
    a: Side,
    plan: float,
    steps: dict[str, float],
    client: float,
    start: float,
    at_a_time: int,
) -> list[tuple[str, float]]:
    """Seconds of (a) by part; they sum up to its wall time.

    Without a GPU there is a cell on each core, `at_a_time` in all.
    """
    names = ("load", "network", "resample", "write", "score")
    parts = [
        ("plan", plan),
        ("start of the predictor", start),
        ("client", client * a.cells / at_a_time),
        *((name, steps[name] / at_a_time) for name in names),
    ]
    rest = a.seconds - sum(seconds for _, seconds in parts)
    return [*parts, ("scheduler and tables of rows", rest)]


def report(
    a: Side,
    others: Sequence[Side],
    parts: Sequence[tuple[str, float]],
    differences: Sequence[float],
    files: Counter[str],
) -> str:
    network = dict(parts)["network"]
    largest = max(map(abs, differences))
    equal = sum(difference == 0 for difference in differences)
    rows = [
        [name, f"{seconds:.2f}", f"{1000 * seconds / a.cells:.1f}"]
        for name, seconds in parts
    ]
    size = total(files, " bytes") / a.cells / 1024
    return "\n\n".join(
        [
            report_sides(a, others),
            f"Dice of (a) and (b): {equal} of {len(differences)} values are equal, the "
            f"largest difference is {largest:.2g}.",
            "Where the time of (a) goes:",
            common.table(["part of (a)", "all cells (s)", "a cell (ms)"], rows),
            "Beyond the network's own time, a cell takes "
            f"{1000 * (a.seconds - network) / a.cells:.0f} ms, and leaves "
            f"{total(files, ' files') / a.cells:.2f} files of {size:.1f} kB in all.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=common.SIZES, default="demo")
    parser.add_argument("--models", type=int, default=4)
    parser.add_argument("--folders", type=int, help="models of (b); by default all")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--cases", type=int, default=50)
    parser.add_argument("--single-calls", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path, help="put the tables into this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="matrix-") as folder:
        setting = common.Setting(Path(folder), arguments.threads)
        models, cases = prepare(
            setting, arguments.size, arguments.models, arguments.cases
        )
        sample_of_models = models[: arguments.folders]
        print(f"{len(models)} models and {len(cases)} cases are there.", flush=True)
        a, planned, files = run_workflow(setting, models, cases)
        client, start = time_clients(setting, models, cases, CLIENTS)
        steps = seconds_by_step(setting, models, cases)
        print(f"(a) {a.seconds:.1f} s", flush=True)
        b, processes = run_folders(
            setting, sample_of_models, cases, arguments.processes
        )
        others = [b]
        print(f"(b) {b.seconds:.1f} s", flush=True)
        if arguments.single_calls:
            sample = cases[:: max(1, len(cases) // arguments.single_calls)]
            sample = sample[: arguments.single_calls]
            others.append(run_single_calls(setting, models[0], sample, processes))
        body = report(
            a,
            others,
            split(
                a,
                planned.seconds,
                steps,
                client,
                start,
                cells_at_a_time(setting),
            ),
            differences_of_dice(setting, sample_of_models, cases),
            files,
        )
        text = (
            f"{len(models)} models x {len(cases)} cases; "
            f"{common.describe_network(setting.plan)}; {setting.threads} threads, "
            f"a cell of (a) {threads_of_a_cell(setting)}; "
            f"`-npp {processes} -nps {processes}` for nnU-Net. (c) is a sample"
            + (", and so is (b)." if arguments.folders else ".")
        )
    where = "" if common.device() == "cpu" else f" on {common.device_name()}"
    common.publish(
        f"Matrix, {arguments.size} size{where}", f"{text}\n\n{body}", arguments.output
    )


if __name__ == "__main__":
    main()
