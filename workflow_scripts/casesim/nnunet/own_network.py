"""Plans and a trained network of the user's own: what they must agree with.

Someone who has trained nnU-Net on these data already brings the plans
(`nnunet.plans`) and the network (`training.base.checkpoint`), which then is the base
model. What differs from the cohort is told before anything is made. Imports the
standard library only: the workflow asks whenever it is parsed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from casesim.errors import UserError
from casesim.nnunet.stages import first_checkpoint, first_stage, stages

# A cohort whose voxels are this many times as large or small as those that the plans
# were made for is taken for another kind of images.
MAX_SPACING_RATIO = 2.0


@dataclass(frozen=True)
class OwnNetwork:
    """The files that a config names; None for what it does not.

    `plans` is nnU-Net's `nnUNetPlans.json`, `checkpoint` a
    `MODEL/fold_X/checkpoint_final.pth` of nnU-Net, with `dataset.json` and `plans.json`
    in MODEL, as nnU-Net leaves them.
    """

    plans_file: str | None
    checkpoint: str | None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> OwnNetwork:
        """What a validated config names."""
        files = config["nnunet"]["plans"], config["training"]["base"]["checkpoint"]
        return cls(*(path and os.path.expanduser(path) for path in files))  # noqa: PTH111

    @property
    def folder(self) -> Path:
        """The model folder of the checkpoint."""
        assert self.checkpoint is not None
        return Path(self.checkpoint).parent.parent

    @property
    def plans(self) -> str | None:
        """The plans to use: those named, or else those of the checkpoint's model."""
        if self.plans_file or not self.checkpoint:
            return self.plans_file
        return str(self.folder / "plans.json")

    def checkpoints(self, configuration: str) -> list[str]:
        """The networks of all stages; none where the base model is trained.

        A cascade's first stage is looked for where nnU-Net leaves it, in the model
        folder beside of the first stage's name; or inside the model folder, where this
        workflow has it.
        """
        if not self.checkpoint:
            return []
        first = first_checkpoint(self.checkpoint, configuration)
        if first is None:
            return [self.checkpoint]
        if not first.is_file():
            own, stage = Path(self.checkpoint), first.parent.parent.name
            name = self.folder.name.replace(configuration, stage)
            first = self.folder.with_name(name) / own.parent.name / own.name
        return [str(first), self.checkpoint]

    def check(
        self,
        configuration: str,
        channel_names: Sequence[str],
        labels: Mapping[str, Any],
    ) -> None:
        """Compare plans and network with the cohort, as far as JSON files tell.

        `labels` are those that the models are trained on, as in `dataset.json`. Whether
        the weights fit the plans is seen when they are read (`adoption.adopt`).

        Raises:
            UserError: every difference, and how to mend it.
        """
        problems = list(self._problems(configuration, channel_names, labels))
        if problems:
            listed = "\n".join(f"  - {problem}" for problem in problems)
            raise UserError(
                f"The plans or the network that the config names do not fit this "
                f"cohort:\n{listed}"
            )

    def _problems(
        self,
        configuration: str,
        channel_names: Sequence[str],
        labels: Mapping[str, Any],
    ) -> Iterator[str]:
        if self.checkpoint and not Path(self.checkpoint).is_file():
            yield f"training.base.checkpoint: {self.checkpoint} is no file."
            return
        for first in self.checkpoints(configuration)[:-1]:
            if first == self.checkpoint or not Path(first).is_file():
                yield (
                    f"training.base.checkpoint: {self.checkpoint} is taken for the "
                    f"second stage of {configuration}, whose first stage is looked for "
                    f"in {first}, where there is none. Put the two model folders "
                    "beside each other, as nnU-Net does."
                )
                return
        if self.plans is None:
            return
        try:
            plans = _read(self.plans)
            yield from _plans_problems(
                self.plans, plans, configuration, len(channel_names)
            )
            if self.checkpoint:
                dataset = _read(str(self.folder / "dataset.json"))
                where = f"training.base.checkpoint {self.checkpoint}"
                yield from _channel_problems(where, dataset, channel_names)
                yield from _label_problems(where, dataset, labels)
            trained_with = self._plans_of_the_checkpoint
            if self.plans_file and trained_with:
                for stage in stages(configuration):
                    yield from _other_plans(self.plans_file, plans, trained_with, stage)
        except _UnreadableError as error:
            yield str(error)

    @cached_property
    def _plans_of_the_checkpoint(self) -> dict[str, Any] | None:
        if not self.checkpoint or not (self.folder / "plans.json").is_file():
            return None
        return _read(str(self.folder / "plans.json"))


class _UnreadableError(Exception):
    """What cannot be read, and why."""


def _read(path: str) -> dict[str, Any]:
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _UnreadableError(
            f"{path} is missing. nnU-Net writes plans.json and dataset.json into the "
            "model folder, two levels above the checkpoint: copy the whole folder."
        ) from None
    except (OSError, ValueError) as error:
        raise _UnreadableError(f"{path} cannot be read: {error}.") from None
    if not isinstance(content, dict):
        raise _UnreadableError(f"{path} does not hold a JSON object.")
    return content


def resolve(plans: Mapping[str, Any], configuration: str) -> dict[str, Any]:
    """A configuration of plans, with what it inherits (`inherits_from`)."""
    own = dict(plans["configurations"][configuration])
    parent = own.pop("inherits_from", None)
    return {**resolve(plans, parent), **own} if parent else own


def _plans_problems(
    path: str, plans: Mapping[str, Any], configuration: str, channels: int
) -> Iterator[str]:
    available = plans.get("configurations")
    if not isinstance(available, dict):
        yield f"{path} holds no plans of nnU-Net v2 (it has no 'configurations')."
        return
    if configuration not in available:
        yield (
            f"{path} has no configuration {configuration}. Set nnunet.configuration "
            f"to one of {', '.join(available)}."
        )
        return
    reader = plans.get("image_reader_writer", "SimpleITKIO")
    if reader == "NibabelIOWithReorient":
        yield (
            f"{path} reads images with {reader}, which turns them; the workflow reads "
            "them as they lie. Plan again with another reader."
        )
    try:
        settings = resolve(plans, configuration)
    except KeyError as error:
        yield f"{path} is incomplete: {configuration} inherits from {error}."
        return
    first = first_stage(configuration)
    if first is not None and (
        settings.get("previous_stage") != first or first not in available
    ):
        yield (
            f"{path} has a {configuration} whose first stage is not {first}, as "
            "nnU-Net's planner makes it. Set nnunet.configuration to 3d_fullres."
        )
    schemes = settings.get("normalization_schemes", [])
    if len(schemes) != channels:
        yield (
            f"{path} is for images of {len(schemes)} channels, the cohort has "
            f"{channels}."
        )
    if "architecture" not in settings:
        yield (
            f"{path} describes no architecture in {configuration}: it is of an old "
            "nnU-Net. Plan again with version 2.5 or later."
        )


def _channel_problems(
    where: str, dataset: Mapping[str, Any], names: Sequence[str]
) -> Iterator[str]:
    trained = dataset.get("channel_names") or dataset.get("modality") or {}
    theirs = [str(trained[key]) for key in sorted(trained, key=int)]
    if [name.casefold() for name in theirs] != [name.casefold() for name in names]:
        yield (
            f"{where} was trained on the channels {', '.join(theirs)}; the cohort has "
            f"{', '.join(names)}. Number and order must be the same; if only the names "
            "differ, write the cohort's into the dataset.json of the model folder."
        )


def _label_problems(
    where: str, dataset: Mapping[str, Any], labels: Mapping[str, Any]
) -> Iterator[str]:
    theirs = _comparable(dataset.get("labels", {}))
    ours = _comparable(labels)
    if theirs != ours:
        yield (
            f"{where} was trained on the labels {_in_words(dataset.get('labels', {}))};"
            f" the cohort has {_in_words(labels)}. If only the names differ, write the "
            "cohort's into the dataset.json of the model folder; otherwise the network "
            "answers another question."
        )


def _comparable(labels: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Names without case and signs; the order of regions has a meaning for nnU-Net."""
    return [
        (
            re.sub(r"[^a-z0-9]", "", str(name).casefold()),
            sorted(number) if isinstance(number, list | tuple) else [int(number)],
        )
        for name, number in labels.items()
    ]


def _in_words(labels: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {number}" for name, number in labels.items())


def _other_plans(
    path: str,
    plans: Mapping[str, Any],
    trained_with: Mapping[str, Any],
    configuration: str,
) -> Iterator[str]:
    """What the network's input would no longer be what it was trained on."""
    if configuration not in plans.get("configurations", {}):
        return
    if configuration not in trained_with.get("configurations", {}):
        yield (
            f"The network's own plans.json has no configuration {configuration}: it "
            f"was trained as {', '.join(trained_with.get('configurations', {}))}."
        )
        return
    shared = ("transpose_forward", "foreground_intensity_properties_per_channel")
    differing = [key for key in shared if plans.get(key) != trained_with.get(key)]
    one, other = (resolve(p, configuration) for p in (plans, trained_with))
    irrelevant = {"data_identifier", "batch_size", "median_image_size_in_voxels"}
    differing += [
        key
        for key in sorted({*one, *other} - irrelevant)
        if one.get(key) != other.get(key)
    ]
    if differing:
        yield (
            f"nnunet.plans {path} is not what the network was trained with: "
            f"{', '.join(differing)} of {configuration} differ from the plans.json of "
            "its model folder. Leave nnunet.plans out to use those."
        )


def check_spacing(
    plans_file: str | os.PathLike[str],
    plans: Mapping[str, Any],
    spacings: Sequence[Sequence[float]],
) -> str:
    """Compare the voxel sizes of a cohort with those that plans were made for.

    Args:
        plans_file: for messages.
        plans: nnU-Net's plans.
        spacings: (z, y, x) of each case in mm, as in nnU-Net's fingerprint.

    Returns:
        A line for the log: both medians, in mm (z, y, x).

    Raises:
        UserError: an axis is more than `MAX_SPACING_RATIO` times as coarse or fine.
    """
    columns = [sorted(column) for column in zip(*spacings, strict=True)]
    ours = [column[len(column) // 2] for column in columns]
    transposed = plans.get("original_median_spacing_after_transp")
    if transposed is None:
        return "The plans do not say what spacing they were made for."
    # The plans' axis i is the image's axis transpose_forward[i].
    backward = plans.get("transpose_backward", [0, 1, 2])
    theirs = [float(transposed[i]) for i in backward]
    words = [" x ".join(f"{mm:.3g}" for mm in size) for size in (theirs, ours)]
    line = (
        f"{plans_file} was made for images of {words[0]} mm (median, z y x); the "
        f"cohort's have {words[1]} mm"
    )
    ratios = [max(a / b, b / a) for a, b in zip(theirs, ours, strict=True)]
    if max(ratios) > MAX_SPACING_RATIO:
        raise UserError(
            f"{line}: more than {MAX_SPACING_RATIO:g} times as much in an axis. Make "
            "plans of this cohort (leave nnunet.plans and training.base.checkpoint "
            "out), or resample the images."
        )
    return f"{line}."
