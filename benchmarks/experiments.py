"""What an experiment has to do: its configuration, and the jobs that are left of it."""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.setting import ROOT
from casesim import settings
from casesim.errors import UserError

SCHEMA = ROOT / "config/schemas/config.schema.json"

# Rules that train, in the order in which their stages run, and the schedule of each.
TRAININGS = {
    "train_base": "base",
    "train_fold": "base",
    "finetune": "finetune",
    "refit": "finetune",
    "retrain": "base",
    "continue_base": "finetune",
    "finetune_for_case": "finetune",
}
STAGES = (
    ("train_base", "train_fold"),
    ("finetune", "refit", "continue_base"),
    ("retrain", "finetune_for_case"),
)
# A cell without its label is the same pass of the same network.
CELLS = ("predict", "predict_label_free")


def job_counts(output: str) -> dict[str, int]:
    """Jobs by rule, from the table that `snakemake -n --quiet rules` prints.

    Raises:
        UserError: the output holds no table and does not say that all is done.
    """
    if "Job stats:" not in output:
        if "Nothing to be done" in output:
            return {}
        raise UserError(f"snakemake -n printed no table of jobs:\n{output[-3000:]}")
    table = output.split("Job stats:", 1)[1]
    rows = re.findall(r"^(\w+) +(\d+)\s*$", table, re.MULTILINE)
    return {rule: int(number) for rule, number in rows if rule != "total"}


def merge(into: dict[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Merge a config over another as Snakemake does: mappings key by key."""
    for key, value in other.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value
    return into


def read_config(files: Iterable[Path]) -> dict[str, Any]:
    """Files laid over one another, validated and filled."""
    config: dict[str, Any] = {}
    for path in files:
        if not path.is_file():
            raise UserError(f"There is no file {path}.")
        merge(config, yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    return settings.validate(config, SCHEMA)


def iterations(config: Mapping[str, Any]) -> dict[str, int]:
    """Iterations of one training, by rule; a cascade's job trains both stages."""
    stages = 2 if config["nnunet"]["configuration"] == "3d_cascade_fullres" else 1
    return {
        rule: stages
        * config["training"][name]["epochs"]
        * config["training"][name]["iterations_per_epoch"]
        for rule, name in TRAININGS.items()
    }


def pretend_decathlon(folder: Path, cases: int) -> None:
    """An MSD Task01 folder in which every file is empty: enough for a dry run."""
    names = [f"BRATS_{number:03d}" for number in range(1, cases + 1)]
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
        for name in names:
            (folder / part / f"{name}.nii.gz").touch()
    content = {
        "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
        "labels": {
            "0": "background",
            "1": "edema",
            "2": "non-enhancing tumor",
            "3": "enhancing tumour",
        },
        "training": [
            {
                "image": f"./imagesTr/{name}.nii.gz",
                "label": f"./labelsTr/{name}.nii.gz",
            }
            for name in names
        ],
    }
    (folder / "dataset.json").write_text(json.dumps(content))


def dry_run(files: Sequence[Path], pretend_cases: int | None) -> dict[str, int]:
    """Jobs that `snakemake -n` would run, by rule."""
    command = [sys.executable, "-m", "snakemake", "-n", "--quiet", "rules", "--nolock"]
    command += ["--cores", "1", "--snakefile", str(ROOT / "Snakefile")]
    paths = [str(path.resolve()) for path in files]
    with tempfile.TemporaryDirectory(prefix="gpu-hours-") as folder:
        if pretend_cases is not None:
            data = Path(folder, "data")
            pretend_decathlon(data, pretend_cases)
            override = Path(folder, "pretend.yaml")
            cohort = {"source": "msd", "path": str(data)}
            override.write_text(yaml.safe_dump({"cohort": cohort}))
            command += ["--directory", folder]
            paths.append(str(override))
        done = subprocess.run(
            [*command, "--configfile", *paths],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    if done.returncode:
        raise UserError(f"snakemake -n failed:\n{done.stdout[-3000:]}")
    return job_counts(done.stdout)
