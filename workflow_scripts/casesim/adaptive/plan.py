"""What a config asks of this stage: cases by role, models, ensembles, cells, targets.

Beside `casesim.study`, which is handed in. Standard library only: the Snakefile is
parsed by every job of a cluster.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from casesim.cohort.cases import Cohort
from casesim.errors import UserError

# Calibration cases below which no Dice is predicted.
MIN_CALIBRATION = 20
CONTINUED = ("continued_full", "continued_kept")
FOR_CASE = "finetuned_for_case"


class Study(Protocol):
    """What this stage needs of `casesim.study.Study`."""

    @property
    def config(self) -> Mapping[str, Any]: ...

    @property
    def cohort(self) -> Cohort: ...

    @property
    def regions(self) -> list[str]: ...


@dataclass(frozen=True)
class Plan:
    """The stage of one study; empty unless `adaptive.enabled`.

    Models are named as their folders: `base` and `finetuned/<train case>` (the
    candidates, below `results/models`), `continued_full/seed<S>`,
    `continued_kept/seed<S>` and `finetuned_for_case/<case>` (below
    `results/adaptive/models`).
    """

    study: Study

    @cached_property
    def config(self) -> Mapping[str, Any]:
        config: Mapping[str, Any] = self.study.config["adaptive"]
        return config

    @property
    def enabled(self) -> bool:
        return bool(self.config["enabled"])

    def check(self) -> None:
        """Raise UserError where the stage is asked for and cannot work."""
        if not self.enabled:
            return
        cohort = self.study.cohort
        problems = []
        if not cohort.calibration:
            problems.append(
                "cohort.calibration: 0 cases; the similarity classifier learns from "
                "labelled cases that no model was trained on. Give at least "
                f"{MIN_CALIBRATION}"
            )
        if not cohort.held_out and not cohort.new:
            problems.append(
                "cohort.held_out and cohort.new: no case to segment. Held-out cases "
                "judge the classifier, new ones are what it is for"
            )
        known = ["mean", *self.study.regions]
        if self.config["region"] not in known:
            problems.append(
                f"adaptive.region: '{self.config['region']}' is not among "
                f"{', '.join(known)}"
            )
        wished = self.config["finetune"]
        if not isinstance(wished, int):
            allowed = {*cohort.held_out, *cohort.new}
            if strangers := sorted(set(map(str, wished)) - allowed):
                problems.append(
                    f"adaptive.finetune: {', '.join(strangers)} are neither held out "
                    "nor new"
                )
        if problems:
            lines = "\n".join(f"  - {problem}" for problem in problems)
            raise UserError(f"adaptive.enabled is true, but:\n{lines}")

    def hints(self) -> Iterator[str]:
        """What works, and is hardly what a user wants; told at the start of a run."""
        cohort = self.study.cohort
        if not self.enabled:
            if cohort.new:
                yield (
                    f"cohort.new: {len(cohort.new)} new cases, which nothing is done "
                    "with: adaptive.enabled is false."
                )
            return
        if len(cohort.calibration) < MIN_CALIBRATION:
            yield (
                f"cohort.calibration: {len(cohort.calibration)} cases are too few to "
                f"predict a Dice (at least {MIN_CALIBRATION}): models will be ranked "
                "by their raw confidence, and no Dice will be promised."
            )

    # Cases

    @cached_property
    def calibration(self) -> list[str]:
        return self.study.cohort.calibration if self.enabled else []

    @cached_property
    def held_out(self) -> list[str]:
        return self.study.cohort.held_out if self.enabled else []

    @cached_property
    def new(self) -> list[str]:
        return self.study.cohort.new if self.enabled else []

    @cached_property
    def roles(self) -> dict[str, str]:
        """Role of each case that is segmented here."""
        groups = ("calibration", "held_out", "new")
        return {case: name for name in groups for case in getattr(self, name)}

    @cached_property
    def finetuned(self) -> list[str]:
        """Cases that get a model of their own: fine-tuned on the train cases that are
        predicted to suit them. A number takes held-out cases first, by id."""
        wished = self.config["finetune"]
        if isinstance(wished, int):
            return [*self.held_out, *self.new][:wished]
        return [case for case in self.roles if case in set(map(str, wished))]

    @property
    def finetuned_new(self) -> dict[str, str]:
        """The new ones among these, with their segmentation by that model, below
        `results/adaptive`."""
        own = [case for case in self.finetuned if case in set(self.new)]
        return {case: f"label_maps/{FOR_CASE}/{case}.nii.gz" for case in own}

    # Models

    @cached_property
    def candidates(self) -> list[str]:
        """Models that a selection chooses from."""
        return ["base", *(f"finetuned/{case}" for case in self.study.cohort.train)]

    @cached_property
    def continued(self) -> list[str]:
        """The decisive control: the base trained on for as long as a fine-tune."""
        seeds = self.config["seeds"]
        return [f"{kind}/seed{seed}" for kind in CONTINUED for seed in seeds]

    def checkpoint(self, model: str, case: str) -> str:
        """Where the weights of a model lie; `case` is the one to be segmented."""
        if model == FOR_CASE:
            model = f"{model}/{case}"
        is_own = model.startswith((*CONTINUED, FOR_CASE))
        folder = "results/adaptive/models" if is_own else "results/models"
        return f"{folder}/{model}/fold_all/checkpoint_final.pth"

    # Segmentations

    @cached_property
    def ensembles(self) -> list[str]:
        """Weighted and uniform means of candidates, made for each held-out case."""
        number = self.config["random_ensembles"]
        randoms = [f"random_{draw}" for draw in range(1, number + 1)]
        return ["adaptive", "uniform_all", "uniform_without_worst", *randoms]

    def trained(self, case: str) -> list[str]:
        """Models beside the candidates that segment a held-out or new case."""
        own = [FOR_CASE] if case in self.finetuned else []
        return [*(self.continued if case in set(self.held_out) else []), *own]

    def methods(self, case: str) -> dict[str, str]:
        """Segmentation of a labelled case to its label map, below `results/adaptive`,
        apart from those of the candidates."""
        ensembles = {
            "calibration": ["adaptive"],
            "held_out": self.ensembles,
        }[self.roles[case]]
        found = {name: f"ensembles/{name}/{case}.nii.gz" for name in ensembles}
        return found | {
            model: f"label_maps/{model}/{case}.nii.gz" for model in self.trained(case)
        }

    def group(self, case: str, kind: str) -> str:
        """The submission on a cluster: all that is computed of one case at a time, so
        that a case more is one submission more."""
        return f"adaptive_{kind}_{case}"

    # Results

    @property
    def look_at(self) -> list[str]:
        """What to open, below `results/adaptive`, the first one first."""
        of_new = ["new.html"] if self.new else []
        return [*of_new, *(["validation.png"] if self.held_out else [])]

    def targets(self) -> Iterator[str]:
        """What a person looks at, below `results`."""
        if not self.enabled:
            return
        # With no other stage to do, nothing else asks for a check of what is new.
        yield from ("cohort.tsv", "config.yaml", "adaptive/table.tsv")
        yield "adaptive/summary.md"
        yield from (f"adaptive/{name}" for name in self.look_at)
        if self.new:
            yield "adaptive/labelling_order.tsv"
            yield from (f"adaptive/{path}" for path in self.finetuned_new.values())
