"""The matrix by nnU-Net's own commands: a call for each model, or for each cell."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import setting as common
from benchmarks.watching import Usage, run

# nnU-Net's commands nnUNetv2_..., which need not be on the path.
ENTRY_POINTS = {
    "predict_from_modelfolder": (
        "nnunetv2.inference.predict_from_raw_data",
        "predict_entry_point_modelfolder",
    ),
    "evaluate_folder": (
        "nnunetv2.evaluation.evaluate_predictions",
        "evaluate_folder_entry_point",
    ),
}


@dataclass(frozen=True)
class Side:
    """One way to fill the matrix."""

    name: str
    cells: int
    seconds: float
    megabytes: float

    @property
    def per_cell(self) -> float:
        return self.seconds / self.cells


def nnunet_environment(setting: common.Setting) -> dict[str, str]:
    return os.environ | {
        "nnUNet_raw": str(setting.raw.parent),
        "nnUNet_preprocessed": str(setting.preprocessed.parent),
        "nnUNet_results": str(setting.work / "results/models"),
    }


def nnunet(setting: common.Setting, command: str, *arguments: object) -> Usage:
    module, function = ENTRY_POINTS[command]
    program = f"from {module} import {function} as main; main()"
    return run(
        [sys.executable, "-c", program, *map(str, arguments)],
        setting.work,
        nnunet_environment(setting),
    )


def predict_folder(
    setting: common.Setting, model: str, images: Path, output: Path, processes: int
) -> Usage:
    return nnunet(
        setting,
        "predict_from_modelfolder",
        *("-i", images, "-o", output, "-m", setting.model(model), "-f", "all"),
        *("-device", common.device(), "-npp", processes, "-nps", processes),
        "--disable_progress_bar",
    )


def run_folders(
    setting: common.Setting,
    models: Sequence[str],
    cases: Sequence[str],
    numbers: Sequence[int],
) -> tuple[Side, int]:
    """(b), and the number of processes that was the fastest on the first model."""
    images = setting.raw / "imagesTr"
    trials: dict[int, Usage] = {}
    for processes in numbers:
        folder = setting.work / f"folders/{processes}-processes"
        trials[processes] = predict_folder(
            setting, models[0], images, folder, processes
        )
    best = min(trials, key=lambda processes: trials[processes].seconds)
    usages = [trials[best]]
    for model in models:
        folder = setting.work / "folders" / model
        if model == models[0]:
            folder = setting.work / f"folders/{best}-processes"
        else:
            usages.append(predict_folder(setting, model, images, folder, best))
        usages.append(
            nnunet(
                setting,
                "evaluate_folder",
                *(setting.raw / "labelsTr", folder),
                *("-djfile", setting.dataset, "-pfile", setting.plans),
                *("-o", summary_path(setting, model), "-np", setting.threads),
            )
        )
    return (
        Side(
            "(b) nnU-Net, a call for each model",
            len(models) * len(cases),
            sum(usage.seconds for usage in usages),
            max(usage.megabytes for usage in usages),
        ),
        best,
    )


def summary_path(setting: common.Setting, model: str) -> Path:
    return setting.work / f"summary-{model.replace('/', '-')}.json"


def run_single_calls(
    setting: common.Setting, model: str, cases: Sequence[str], processes: int
) -> Side:
    """(c), on a sample of cells."""
    usages = []
    for case in cases:
        images = setting.work / "single" / case
        images.mkdir(parents=True)
        for image in setting.images(case):
            (images / image.name).symlink_to(image)
        output = setting.work / f"single/out-{case}"
        usages.append(predict_folder(setting, model, images, output, processes))
    return Side(
        "(c) nnU-Net, a call for each cell",
        len(cases),
        sum(usage.seconds for usage in usages),
        max(usage.megabytes for usage in usages),
    )
