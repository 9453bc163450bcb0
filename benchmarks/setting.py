"""What the benchmarks have in common: a cohort in the workflow's layout, and tables.

Every benchmark works in a temporary folder that is a checkout of the workflow, with
phantoms of the embedded cohort, nnU-Net's plans and a model where it needs them.
"""

import datetime
import os
import platform
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow_scripts"))

CONFIGURATION = "2d"
NNUNET = {
    "configuration": CONFIGURATION,
    "target_spacing": None,
    "gpu_memory_target_gb": 8,
}
WORKFLOW = ["Snakefile", "rules", "envs", "config", "profiles", "workflow_scripts"]


@dataclass(frozen=True)
class Size:
    """Volumes: how many to plan on, shape (z, y, x) and spacing (z, y, x) in mm."""

    cases: int
    shape: list[int]
    spacing: list[float]


SIZES = {
    "demo": Size(12, [28, 56, 56], [3.0, 3.0, 3.0]),
    # Cropped to the brain, about 140 x 180 x 140 voxels: 2d patches of 192 x 160.
    "real": Size(2, [170, 216, 182], [0.88, 0.88, 0.88]),
}
REAL_STAGES = 8


@dataclass(frozen=True)
class Setting:
    """Where the files of a benchmark are: as a run of the workflow leaves them."""

    work: Path
    threads: int

    @property
    def raw(self) -> Path:
        return self.work / "results/nnunet/raw/Dataset001_Cohort"

    @property
    def preprocessed(self) -> Path:
        return self.work / "results/nnunet/preprocessed/Dataset001_Cohort"

    @property
    def plans(self) -> Path:
        return self.preprocessed / "nnUNetPlans.json"

    @property
    def dataset(self) -> Path:
        return self.preprocessed / "dataset.json"

    @property
    def plan(self) -> dict[str, Any]:
        """nnU-Net's plan of the configuration."""
        from casesim.nnunet.files import read_json

        return read_json(self.plans)["configurations"][CONFIGURATION]

    def images(self, case: str) -> list[Path]:
        """The channels of a case; phantoms have four."""
        return [
            self.raw / f"imagesTr/{case}_{channel:04d}.nii.gz" for channel in range(4)
        ]

    def label(self, case: str) -> Path:
        return self.raw / f"labelsTr/{case}.nii.gz"

    def stem(self, case: str) -> Path:
        """A preprocessed case, without the endings of its files."""
        return self.preprocessed / f"nnUNetPlans_{CONFIGURATION}" / case

    def model(self, name: str) -> Path:
        """nnU-Net's folder of a model: `base`, `finetuned/<case>`."""
        return self.work / "results/models" / name

    def checkpoint(self, name: str) -> Path:
        return self.model(name) / "fold_all/checkpoint_final.pth"


def device() -> str:
    """Where networks run: on a GPU where there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def device_name() -> str:
    """The GPU's name, or that it is a CPU."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "a CPU"


def copy_workflow(folder: Path) -> None:
    """A checkout of the workflow, without its tests."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in WORKFLOW:
        if (ROOT / name).is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, folder / name, ignore=ignore)
        else:
            shutil.copy2(ROOT / name, folder / name)


def prepare_cases(setting: Setting, size: Size) -> list[str]:
    """Phantoms without defects in nnU-Net's raw format, and plans; their names."""
    from casesim.cohort.phantom import catalogue
    from casesim.nnunet import planning

    cases = catalogue.case_ids(size.cases)
    (setting.raw / "imagesTr").mkdir(parents=True)
    (setting.raw / "labelsTr").mkdir()
    with _processes(setting, len(cases)) as pool:
        list(pool.map(_make_phantom, repeat(setting), repeat(size), cases))
    planning.plan(
        setting.raw,
        setting.preprocessed,
        cases,
        catalogue.CHANNEL_NAMES,
        catalogue.LABELS,
        NNUNET,
        setting.threads,
    )
    return cases


def _processes(setting: Setting, jobs: int) -> ProcessPoolExecutor:
    """As many as there are threads, forked: nothing has used a GPU or threads yet."""
    return ProcessPoolExecutor(min(setting.threads, jobs), get_context("fork"))


def _make_phantom(setting: Setting, size: Size, case: str) -> None:
    import SimpleITK

    from casesim.cohort.phantom import patient

    options = {"shape": size.shape, "spacing": size.spacing, "scanners": 3}
    made = patient.generate(case, options, "", 0)
    for array, path in zip(
        [*made.image, made.label],
        [*setting.images(case), setting.label(case)],
        strict=True,
    ):
        volume = SimpleITK.GetImageFromArray(array)
        volume.SetSpacing(size.spacing[::-1])
        SimpleITK.WriteImage(volume, str(path))


def preprocess(setting: Setting, cases: Sequence[str]) -> list[Path]:
    """Preprocess cases under the common plans; their stems."""
    with _processes(setting, len(cases)) as pool:
        list(pool.map(_preprocess, repeat(setting), cases))
    return [setting.stem(case) for case in cases]


def _preprocess(setting: Setting, case: str) -> None:
    from casesim.nnunet import preprocessing

    preprocessing.preprocess_case(
        setting.images(case),
        setting.label(case),
        setting.plans,
        setting.dataset,
        CONFIGURATION,
        setting.stem(case),
    )


def train(
    setting: Setting,
    name: str,
    stems: Sequence[Path],
    iterations: int,
    start_from: Path | None = None,
    **options: Any,
) -> Path:
    """A model of a few iterations, in one epoch; its checkpoint.

    `options` are further ones of `run.train`, or in place of what it is given here.
    """
    from casesim.training import run

    run.train(
        stems,
        setting.plans,
        setting.dataset,
        CONFIGURATION,
        setting.model(name),
        {
            "epochs": 1,
            "iterations_per_epoch": iterations,
            "initial_lr": 0.02 if start_from is None else 0.001,
        },
        start_from=start_from,
        **{"seed": 0, "threads": setting.threads, "device": device(), **options},
    )
    return setting.checkpoint(name)


def use_batches_of_the_demo(setting: Setting) -> None:
    """Plan the batch size of config/config.yaml, which is for a CPU."""
    from casesim.nnunet.files import read_json, write_json

    demo = yaml.safe_load((ROOT / "config/config.yaml").read_text("utf-8"))
    plans = read_json(setting.plans)
    configuration = plans["configurations"][CONFIGURATION]
    configuration["batch_size"] = demo["nnunet"]["batch_size"]
    write_json(setting.plans, plans)


def set_stages(setting: Setting, number: int) -> None:
    """Plan a deeper network than nnU-Net's planner does.

    The planner stops where the feature maps are too small to be halved again; stages
    beyond that keep their size, and are as wide as the last one.
    """
    from casesim.nnunet.files import read_json, write_json

    plans = read_json(setting.plans)
    architecture = plans["configurations"][CONFIGURATION]["architecture"]
    kwargs = architecture["arch_kwargs"]
    more = number - kwargs["n_stages"]
    for key in ("features_per_stage", "kernel_sizes", "n_conv_per_stage"):
        kwargs[key] += [kwargs[key][-1]] * more
    kwargs["n_conv_per_stage_decoder"] += [
        kwargs["n_conv_per_stage_decoder"][-1]
    ] * more
    kwargs["strides"] += [[1] * len(kwargs["strides"][0])] * more
    kwargs["n_stages"] = number
    write_json(setting.plans, plans)


def set_width(setting: Setting, width: int) -> None:
    """Plan a network whose first stage has so many features, and whose other stages are
    as much narrower or wider; nothing is written where it is as planned."""
    from casesim.nnunet.files import read_json, write_json

    plans = read_json(setting.plans)
    kwargs = plans["configurations"][CONFIGURATION]["architecture"]["arch_kwargs"]
    first, *_ = features = kwargs["features_per_stage"]
    if first != width:
        kwargs["features_per_stage"] = [number * width // first for number in features]
        write_json(setting.plans, plans)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def describe_network(plan: dict[str, Any]) -> str:
    """What a plan's network is, in a few words."""
    patch = " x ".join(map(str, plan["patch_size"]))
    stages = plan["architecture"]["arch_kwargs"]["n_stages"]
    return (
        f"{CONFIGURATION}, patch {patch}, batch {plan['batch_size']}, {stages} stages"
    )


def describe_machine(packages: Sequence[str] = ("torch", "nnunetv2")) -> str:
    """Processor, memory, GPU, versions and date: what a figure depends on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return (
        f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GB of memory, "
        f"{_accelerator()}; Python {platform.python_version()}, {versions}; "
        f"{datetime.date.today().isoformat()}."
    )


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    return found[1] if found else platform.machine()


def _accelerator() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"


def publish(
    title: str,
    body: str,
    output: Path | None,
    packages: Sequence[str] = ("torch", "nnunetv2"),
) -> None:
    """Print a section with its command and machine; put it into a file of sections.

    A section with the same title is replaced: a file holds the last run of each.
    """
    # The file that is written does not matter to who repeats the measurement.
    arguments = shlex.join(sys.argv[1:])
    arguments = re.sub(r"(^| )--output[= ]\S+", "", arguments).strip()
    arguments = re.sub(r"(--(?:work|data|study)[= ])\S+", r"\1FOLDER", arguments)
    command = f"python -m benchmarks.{Path(sys.argv[0]).stem} {arguments}".strip()
    machine = describe_machine(packages)
    section = f"## {title}\n\n{body}\n\n`{command}`\n{machine}\n"
    print(f"\n{section}")
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        before = output.read_text(encoding="utf-8") if output.exists() else ""
        output.write_text(replace_section(before, title, section), encoding="utf-8")


def replace_section(text: str, title: str, section: str) -> str:
    """The text with one section (from its `## title` to the next) put in its place."""
    parts = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    places = [i for i, part in enumerate(parts) if part.startswith(f"## {title}\n")]
    if places:
        parts[places[0]] = section
    else:
        parts.append(section)
    return "\n".join(part.strip() + "\n" for part in parts if part.strip())
