"""Studies on a whole cohort, one seed in one folder: what they have in common.

The workflow makes what a study needs, all jobs in one process of one thread
(`benchmarks.one_process`); the study's own part is done by the package's functions.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from benchmarks import setting as common

if TYPE_CHECKING:
    import pandas as pd

    from casesim.inference.errors import Errors
    from casesim.study import Study


def merge(into: dict[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """`other` laid over `into`, key by key; returns `into`."""
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value
    return into


@dataclass(frozen=True)
class Run:
    """A run of the workflow in a folder of its own.

    Attributes:
        work: the folder; `results` is below it.
        config: the config file.
        seed: of the cohort, of its defects and of all trainings.
        study: what is asked for.
    """

    work: Path
    config: Path
    seed: int
    study: "Study"

    @classmethod
    def load(cls, work: Path, config: Path, seed: int, data: Path | None) -> "Run":
        """Find what the config asks for with this seed and, for real cases, in this
        folder of data (`cohort.path`); what differs from the config is written to
        `seed.yaml` in `work`."""
        from casesim import settings
        from casesim.study import Study

        own: dict[str, Any] = {"cohort": {"seed": seed}, "training": {"seed": seed}}
        own["stability"] = {"seed": seed + 1}  # a refit is another training
        if data is not None:
            own["cohort"]["path"] = str(data.absolute())
        work.mkdir(parents=True, exist_ok=True)
        (work / "seed.yaml").write_text(yaml.safe_dump(own), encoding="utf-8")
        merged = merge(yaml.safe_load(config.read_text(encoding="utf-8")), own)
        schema = common.ROOT / "config/schemas/config.schema.json"
        study = Study.load(settings.validate(merged, schema))
        return cls(work, config.absolute(), seed, study)

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

    def make(self, targets: Sequence[str], minutes: float | None = None) -> None:
        """Let the workflow make these files.

        Raises `subprocess.TimeoutExpired` when the time is over: the job at hand is
        finished then, and the next call goes on.
        """
        if all((self.work / path).exists() for path in targets):
            return
        command = [sys.executable, "-m", "benchmarks.one_process", *targets]
        command += ["--directory", str(self.work), "--quiet", "rules", "--configfile"]
        command += [str(self.config), str(self.work / "seed.yaml")]
        command += ["--resources", "gpu=1", "--rerun-triggers", "mtime"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command, cwd=common.ROOT, env=environment)
        try:
            code = process.wait(None if minutes is None else 60 * minutes)
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()
            raise
        if code:
            raise subprocess.CalledProcessError(code, command)

    def iterations(self, kind: str) -> int:
        """Iterations of a training, `base` or `finetune`."""
        schedule = self.study.config["training"][kind]
        return int(schedule["epochs"] * schedule["iterations_per_epoch"])

    def kinds(
        self, matrix: "Errors | None", folds: bool, cases: Sequence[str] | None = None
    ) -> "pd.DataFrame":
        """The kinds of all train cases (`kinds.classify`).

        Args:
            matrix: errors of the fine-tuned models (`finetuned/<case>`) in the pool;
                None to do without them.
            folds: whether models that never saw a case are asked.
            cases: columns of the matrix, by default the pool.
        """
        from casesim.cohort.channels import read_channels
        from casesim.inference import errors, overlap
        from casesim.similarity.kinds import classify
        from casesim.similarity.signatures import positions, signatures

        pool, labels = cases or self.study.cohort.pool, self.study.foreground
        paths = [self.results / f"scores/base/{case}.json" for case in pool]
        records = [overlap.read_record(path) for path in paths]
        outside = None
        if folds:
            paths = [self.results / f"evidence/label_quality/{c}.json" for c in pool]
            judged = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
            outside = errors.of_one_model(judged, list(labels), pool)
        found = signatures(
            matrix,
            errors.of_one_model(records, list(labels), pool),
            positions(self.study.config["regions"], labels),
            outside,
            self.study.cohort.patients,
        )
        channels = read_channels(self.results / "channels.tsv")
        return classify(found, self.train, channels)
