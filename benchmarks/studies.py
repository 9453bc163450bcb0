"""Studies on a whole cohort, one seed in one folder: what they have in common.

The workflow makes cohort, base model and folds, all jobs in one process of one thread
(`benchmarks.one_process`); fine-tunes and their rows are made by the package's
functions.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import yaml

from benchmarks import setting as common
from benchmarks.experiments import merge

if TYPE_CHECKING:
    import pandas as pd

    from casesim.inference.errors import Errors
    from casesim.study import Study

# The name of the rows that the whole schedule of a fine-tune gives.
FULL = "100"


def add_arguments(parser: argparse.ArgumentParser, config: str) -> None:
    """What a benchmark on studies of several seeds is told; `config` is its default."""
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=common.ROOT / "config" / config)
    parser.add_argument(
        "--data", type=Path, help="cohort.path: real cases, if the config needs them"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--width", type=int, help="features of the first stage")
    parser.add_argument("--output", type=Path, help="put the tables into this file")


@dataclass(frozen=True)
class Run:
    """A run of the workflow in a folder of its own.

    Attributes:
        work: the folder; `results` is below it.
        config: the config file.
        seed: of the cohort, of its defects and of all trainings.
        study: what is asked for.
        width: features of the network's first stage; None for nnU-Net's 32.
    """

    work: Path
    config: Path
    seed: int
    study: "Study"
    width: int | None = None

    @classmethod
    def load(
        cls,
        work: Path,
        config: Path,
        seed: int,
        data: Path | None = None,
        width: int | None = None,
        folds: int | None = None,
    ) -> "Run":
        """Find what the config asks for with this seed and, for real cases, in this
        folder of data (`cohort.path`); what differs from the config is written to
        `seed.yaml` in `work`."""
        from casesim import settings
        from casesim.study import Study

        own: dict[str, Any] = {"cohort": {"seed": seed}, "training": {"seed": seed}}
        own["stability"] = {"seed": seed + 1}  # a refit is another training
        if folds is not None:
            own["evidence"] = {"cleanlab_folds": folds}
        if data is not None:
            own["cohort"]["path"] = str(data.absolute())
        work.mkdir(parents=True, exist_ok=True)
        (work / "seed.yaml").write_text(yaml.safe_dump(own), encoding="utf-8")
        merged = merge(yaml.safe_load(config.read_text(encoding="utf-8")), own)
        schema = common.ROOT / "config/schemas/config.schema.json"
        study = Study.load(settings.validate(merged, schema))
        return cls(work, config.absolute(), seed, study, width)

    @classmethod
    def chosen(
        cls, arguments: argparse.Namespace, seed: int, folds: int | None = None
    ) -> "Run":
        """That of a seed, as the arguments of `add_arguments` have it."""
        return cls.load(
            arguments.work.absolute() / f"seed_{seed}",
            arguments.config,
            seed,
            arguments.data,
            arguments.width,
            folds,
        )

    @property
    def results(self) -> Path:
        """The workflow's folder of results."""
        return self.work / "results"

    @property
    def setting(self) -> common.Setting:
        """Where models and cases are."""
        return common.Setting(self.work, 1)

    @property
    def train(self) -> list[str]:
        """The train cases."""
        return self.study.cohort.train

    def make(self, targets: Sequence[str], deadline: float = math.inf) -> bool:
        """Let the workflow make these files; whether it did.

        When `time.monotonic()` comes to `deadline`, the job at hand is finished and no
        more; the next call goes on.
        """
        command = [sys.executable, "-m", "benchmarks.one_process", *targets]
        command += ["--directory", str(self.work), "--quiet", "rules", "--configfile"]
        command += [str(self.config), str(self.work / "seed.yaml")]
        command += ["--resources", "gpu=1", "--rerun-triggers", "mtime"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command, cwd=common.ROOT, env=environment)
        try:
            left = deadline - time.monotonic()
            code = process.wait(None if math.isinf(left) else max(0.0, left))
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()
            return False
        if code:
            raise subprocess.CalledProcessError(code, command)
        return True

    def make_base(self, deadline: float = math.inf) -> bool:
        """Cohort and channels, the base model and its cells on the pool."""
        pool = self.study.cohort.pool
        files = [f"results/{n}.tsv" for n in ("cohort", "channels", "edits")]
        files += [f"results/scores/base/{case}.json" for case in pool]
        if all((self.work / path).exists() for path in files):
            return True
        if self.width is not None:
            plans = str(self.setting.plans.relative_to(self.work))
            if not self.make([plans], deadline):
                return False
            common.set_width(self.setting, self.width)
        return self.make(files, deadline)

    def iterations(self, kind: str) -> int:
        """Iterations of a training, `base` or `finetune`."""
        schedule = self.study.config["training"][kind]
        return int(schedule["epochs"] * schedule["iterations_per_epoch"])

    @cached_property
    def by_base(self) -> "tuple[Errors, pd.DataFrame]":
        """What the base model makes of the pool, and the edits that would fit it."""
        from casesim.inference import errors, overlap
        from casesim.similarity.edits import read_edits

        pool, labels = self.study.cohort.pool, list(self.study.foreground)
        paths = [self.results / f"scores/base/{case}.json" for case in pool]
        records = [overlap.read_record(path) for path in paths]
        counts = errors.of_one_model(records, labels, pool)
        return counts, read_edits(self.results / "edits.tsv")

    @cached_property
    def by_folds(self) -> "tuple[Errors, None]":
        """As `by_base`, by models that never saw a case; only counts of them are
        kept, so there are no edits."""
        from casesim.inference import errors

        pool, labels = self.study.cohort.pool, list(self.study.foreground)
        paths = [self.results / f"evidence/label_quality/{c}.json" for c in pool]
        records = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
        return errors.of_one_model(records, labels, pool), None

    def kinds(
        self,
        matrix: "Errors | None",
        folds: bool,
        cases: Sequence[str] | None = None,
        **options: Any,
    ) -> "pd.DataFrame":
        """The kinds of train cases (`kinds.classify`).

        Args:
            matrix: errors of the fine-tuned models (`finetuned/<case>`) in the pool;
                None to do without them.
            folds: whether models that never saw a case judge it in the place of the
                base model.
            cases: the cohort is taken to consist of these train cases; None for all
                that there are, with the rest of the pool.
            options: of `kinds.classify`.
        """
        from casesim.cohort.channels import read_channels
        from casesim.similarity.kinds import classify
        from casesim.similarity.signatures import positions, signatures

        judge, changes = self.by_folds if folds else self.by_base
        if cases is not None:
            judge = judge.select(judge.models, cases)
            if matrix is not None:
                matrix = matrix.select([f"finetuned/{case}" for case in cases], cases)
        found = signatures(
            matrix,
            judge,
            positions(self.study.config["regions"], self.study.foreground),
            self.study.cohort.patients,
            changes,
        )
        channels = read_channels(self.results / "channels.tsv")
        named = self.train if cases is None else cases
        return classify(found, named, channels, **options)


@dataclass(frozen=True)
class Task:
    """One fine-tune and its row: the full schedule, a share of it, or a refit."""

    name: str
    case: str
    epochs: int
    iterations: int
    initial_lr: float
    seed: int


def do(task: Task, run: Run) -> None:
    """Fine-tune, and score the model on the pool; a JSON file is left.

    Cell by cell in this process: to plan, start and note each of thousands of cells
    takes Snakemake several times what the cell takes.
    """
    path = run.work / f"study/{task.name}/{task.case}.json"
    if path.exists():
        return
    import torch

    from casesim.inference import label_maps, overlap, sliding_window
    from casesim.nnunet import checkpoints
    from casesim.nnunet.files import write_json
    from casesim.training import jobs
    from casesim.training import run as training

    setting, study = run.setting, run.study
    model = setting.model(f"study/{task.name}/{task.case}")
    with TemporaryDirectory() as folder:
        stems = [
            Path(folder, f"copy_{copy}")
            for copy in range(study.config["augmentation"]["copies"])
        ]
        jobs.augment_case(
            [str(image) for image in setting.images(task.case)],
            str(setting.label(task.case)),
            str(setting.plans),
            str(setting.dataset),
            study.config["nnunet"]["configuration"],
            study.config["augmentation"],
            task.case,
            task.seed,
            [str(stem) for stem in stems],
        )
        started = time.perf_counter()
        checkpoint = training.train(
            stems,
            setting.plans,
            setting.dataset,
            out_folder=model,
            threads=1,
            device=common.device(),
            start_from=setting.checkpoint("base"),
            **study.training("finetune", task.seed)
            | {
                "schedule": {
                    "epochs": task.epochs,
                    "iterations_per_epoch": task.iterations,
                    "initial_lr": task.initial_lr,
                }
            },
        )
        seconds = time.perf_counter() - started
    torch.set_num_threads(1)
    loaded = checkpoints.load_model(checkpoint, torch.device(common.device()))
    records = []
    for case in study.cohort.pool:
        data, properties, reference = _load(setting.stem(case), setting.label(case))
        logits = sliding_window.predict_logits(loaded, data, **study.logit_options)
        records.append(
            overlap.score_record(
                f"finetuned/{task.case}",
                case,
                label_maps.to_label_map(loaded, logits, properties),
                reference,
                study.cohort.scored,
                study.more_regions,
            )
        )
    checkpoint.unlink()
    write_json(path, {"records": records, "seconds": seconds})


@lru_cache(maxsize=128)
def _load(stem: Path, label: Path) -> tuple[Any, dict[str, Any], Any]:
    """A preprocessed case, its properties and its reference."""
    from casesim.inference import label_maps
    from casesim.nnunet import preprocessing

    data, _, properties = preprocessing.load_preprocessed(stem)
    return data, properties, label_maps.read_reference(label, properties)


def do_in_time(task: Task, run: Run, deadline: float) -> bool:
    """`do`, unless `time.monotonic()` has come to `deadline`; whether it was done."""
    if time.monotonic() > deadline:
        return False
    do(task, run)
    return True


def rows_in_time(run: Run, deadline: float) -> bool:
    """All fine-tunes of the full schedule and their rows, named `FULL`; whether they
    were done before the deadline."""
    schedule = run.study.config["training"]["finetune"]
    length = schedule["epochs"], schedule["iterations_per_epoch"]
    tasks = [
        Task(FULL, case, *length, schedule["initial_lr"], run.seed)
        for case in run.train
    ]
    return all(do_in_time(task, run, deadline) for task in tasks)


def rows_of(run: Run, name: str) -> "tuple[pd.DataFrame, Errors, float]":
    """Of one schedule: the matrix (train x pool, Dice), its errors, and seconds a
    fine-tune."""
    import numpy as np

    from casesim.inference import errors, overlap
    from casesim.similarity.matrix import from_scores

    pool = run.study.cohort.pool
    paths = [run.work / f"study/{name}/{case}.json" for case in run.train]
    read = [json.loads(path.read_text("utf-8")) for path in paths]
    records = [record for content in read for record in content["records"]]
    matrix = from_scores(overlap.score_table(records), overlap.MEAN, run.train, pool)
    found = errors.from_tables(
        [errors.error_table(records)], list(run.study.foreground)
    ).select([f"finetuned/{case}" for case in run.train], pool)
    return matrix, found, float(np.mean([content["seconds"] for content in read]))
