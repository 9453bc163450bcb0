"""Training a model of all its stages: one for most configurations, the cascade's two.

The first stage is trained as any model is. Its predictions of the cases that it was
trained on are what the second stage takes as input, beside the images: those of nnU-Net
for fold `all`, in which the training cases are the validation cases, too. Each stage
has a model folder of its own (`nnunet.stages`), goes on from its own last checkpoint,
and is kept when it is finished, so that a cascade that is interrupted in its second
stage does not train the first one again.
"""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from casesim.inference.cascade import predict_next_stage
from casesim.nnunet import checkpoints, preprocessing, stages
from casesim.nnunet.files import PathLike
from casesim.processes import stall
from casesim.training import run


class FirstStage:
    """A finished first stage, and what it says of the second one's cases.

    `checkpoint` is its own, `cases` maps the name of each case to its path (without
    `.b2nd`) as preprocessed for the first stage, `folder` gets the label maps.
    """

    def __init__(
        self, checkpoint: Path, cases: Mapping[str, Path], folder: Path
    ) -> None:
        self._checkpoint = checkpoint
        self._cases = cases
        self._folder = folder

    def digest(self) -> str:
        """What its label maps depend on, beside the cases."""
        return hashlib.sha256(self._checkpoint.read_bytes()).hexdigest()

    def predict(
        self, shapes: Mapping[str, Sequence[int]], device: torch.device
    ) -> dict[str, Path]:
        """The label map of each case (`preprocessing.write_label_map`), by its name.

        `shapes` are those of the cases as preprocessed for the second stage. What an
        interrupted call has left is taken up.
        """
        folder = self._folder / self.digest()[:16]
        paths = {name: folder / f"{name}.b2nd" for name in shapes}
        missing = [
            name
            for name, path in paths.items()
            if not preprocessing.is_label_map(path, shapes[name])
        ]
        if missing:
            model = checkpoints.load_model(self._checkpoint, device)
            print(f"{len(missing)} cases to segment for the next stage", flush=True)
            for name in missing:
                data, _, _ = preprocessing.load_preprocessed(self._cases[name])
                labels = predict_next_stage(model, data, shapes[name])
                preprocessing.write_label_map(labels, paths[name])
                stall.progress()
        return paths


def train(
    cases: Sequence[PathLike],
    plans: PathLike,
    dataset: PathLike,
    configuration: str,
    out_folder: PathLike,
    start_from: PathLike | None = None,
    **options: Any,
) -> Path:
    """`run.train` for each stage of a configuration; returns the model's checkpoint.

    `cases` are preprocessed for all stages, each in its own folder
    (`stages.by_stage`). With `start_from`, the checkpoint of a model, each stage starts
    from that stage's weights. `options` are the other arguments of `run.train`, the
    same for both stages.
    """
    of_stage = stages.by_stage(map(str, cases), configuration)
    first: FirstStage | None = None
    folder = Path(out_folder)
    label_maps = None
    if (name := stages.first_stage(configuration)) is not None:
        print(f"first stage: {name}", flush=True)
        start = start_from and stages.first_checkpoint(start_from, configuration)
        checkpoint = run.train(
            of_stage[name],
            plans,
            dataset,
            name,
            folder / name,
            start_from=start,
            **options,
        )
        coarse = {Path(stem).name: Path(stem) for stem in of_stage[name]}
        label_maps = folder / name / "predicted_next_stage" / configuration
        first = FirstStage(checkpoint, coarse, label_maps)
        print(f"second stage: {configuration}", flush=True)
    checkpoint = run.train(
        of_stage[configuration],
        plans,
        dataset,
        configuration,
        folder,
        start_from=start_from,
        first_stage=first,
        **options,
    )
    if label_maps is not None:
        shutil.rmtree(label_maps.parent, ignore_errors=True)
    return checkpoint
