"""What a config asks for: cases, models, arms, folds, cells and their groups.

The pure answer, without a path and without Snakemake, so that every rule can be seen
here before anything runs. Standard library only: each job of a cluster asks again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from casesim import settings
from casesim.cells import ALWAYS_ENOUGH, MAX_PER_GROUP, Cells
from casesim.cohort import corrections, patients
from casesim.cohort.cases import Cohort
from casesim.cohort.loading import load_cohort
from casesim.cohort.selection import choose_refits
from casesim.cohort.targets import IGNORE
from casesim.evidence import label_quality, truth
from casesim.nnunet import stages
from casesim.nnunet.own_network import OwnNetwork
from casesim.pruning import arms, decisions


@dataclass(frozen=True)
class Study:
    """One configuration and the cohort that it selects.

    Models are named as their folders below `results/models` are: `base`,
    `finetuned/<case>`, `refitted/<case>`, `retrained/<name>` and `folds/<number>`.
    `cells_per_group` is how many cells share a submission, None where there are none.
    """

    config: Mapping[str, Any]
    cohort: Cohort
    cells_per_group: int | None = None

    @classmethod
    def load(
        cls, config: Mapping[str, Any], cells_per_group: int | None = None
    ) -> Study:
        """Find the cases that a validated config asks for.

        Raises:
            UserError: no such data set, regions, refits or a network of one's own that
                do not fit it, or groups that are too large.
        """
        cohort = load_cohort(config["cohort"])
        settings.check_regions(config, cohort.labels, cohort.scored)
        targets = cohort.targets
        settings.check_targets(
            config, bool(targets.regions), targets.ignore is not None
        )
        settings.check_cells_per_group(cells_per_group, MAX_PER_GROUP)
        study = cls(config, cohort, cells_per_group)
        study.own_network.check(
            config["nnunet"]["configuration"],
            cohort.channel_names,
            cohort.dataset_labels,
        )
        # Asked for now, so that what is wrong is told before anything is planned.
        _ = study.refitted, study.explored_channels
        _ = study.corrections, study.decisions
        for table in study.truth:
            truth.read_table(table, cohort.ids)
        return study

    def describe(self, files: Iterable[Any]) -> str:
        """What is in effect, in three lines; `files` are where it was read from."""
        cohort, training = self.config["cohort"], self.config["training"]
        counts = [
            f"{len(self.cohort.pool)} cases to train on",
            f"{len(self.cohort.train)} of them with a model of their own",
            f"{len(self.cohort.held_out)} held out",
        ]
        for role in ("calibration", "new"):
            if cases := getattr(self.cohort, role):
                counts.append(f"{len(cases)} {role}")
        schedules = ", ".join(
            f"{name} {training[key]['epochs']} epochs of "
            f"{training[key]['iterations_per_epoch']} iterations"
            for name, key in (("base", "base"), ("fine-tunes", "finetune"))
        )
        where = f" in {cohort['path']}" if cohort["path"] else ""
        batch = self.config["nnunet"]["batch_size"] or "the planner's"
        named = ", ".join(map(str, files)) or "given by another workflow"
        return (
            f"Configuration: {named};"
            " kept whole in results/config.yaml.\n"
            f"Cohort: {cohort['source']}{where}: {', '.join(counts)}.\n"
            f"Training: {' and '.join(self.stages)}, {schedules}, "
            f"batch size {batch}."
        )

    # Cases

    @cached_property
    def refitted(self) -> list[str]:
        """Train cases that are fine-tuned a second time, sorted."""
        return choose_refits(
            self.cohort.train,
            **self.config["stability"],
            patients=self.cohort.patients,
        )

    @cached_property
    def folds(self) -> dict[str, int]:
        """Pool case to the fold whose model never sees it; empty without folds."""
        return label_quality.folds(
            self.cohort.pool,
            self.config["evidence"]["cleanlab_folds"],
            self.seed,
            self.cohort.patients,
        )

    def outside(self, fold: int) -> list[str]:
        """The pool without the cases of a fold."""
        return [case for case in self.cohort.pool if self.folds[case] != fold]

    @cached_property
    def judged(self) -> list[str]:
        """Train cases whose label maps are judged by models that never saw them."""
        return self.cohort.train if self.folds else []

    @cached_property
    def gallery(self) -> list[str]:
        """Cases that are shown in the cohort's picture."""
        return self.cohort.pool[:24]

    @cached_property
    def gallery_channels(self) -> list[int]:
        """The first channel, and another one: of MSD's four, FLAIR and T1gd."""
        return sorted({0, len(self.cohort.channel_names) // 2})

    @cached_property
    def explored_channels(self) -> list[int]:
        """Channels that the explorer shows."""
        wanted = self.config["explorer"]["channels"]
        return settings.choose_channels(wanted, self.cohort.channel_names)

    # Labels

    @cached_property
    def foreground(self) -> dict[str, int]:
        """Label name to number, without the background."""
        labels = self.cohort.labels
        return {name: labels[name] for name in self.cohort.foreground_labels}

    @cached_property
    def regions(self) -> list[str]:
        """Everything that has a Dice of its own: what is in the mean, then the rest."""
        return [*self.cohort.scored, *self.more_regions]

    @cached_property
    def more_regions(self) -> dict[str, list[int]]:
        """The config's unions of labels, without those that networks are trained on."""
        scored = self.cohort.scored
        return {
            name: members
            for name, members in self.config["regions"].items()
            if name not in scored
        }

    @cached_property
    def drawn_labels(self) -> dict[str, int]:
        """Label name to number in pictures: the ignored one, too."""
        ignore = self.cohort.targets.ignore
        ignored = {} if ignore is None else {IGNORE: ignore}
        return {**self.foreground, **ignored}

    # Models

    @property
    def seed(self) -> int:
        """The seed of the base model, and of all that names no other one."""
        return int(self.config["training"]["seed"])

    @cached_property
    def own_network(self) -> OwnNetwork:
        """Plans and base model that the user brings, if any."""
        return OwnNetwork.of(self.config)

    @property
    def own_plans(self) -> list[str]:
        """The file of plans that the user brings; empty where nnU-Net plans."""
        return [self.own_network.plans] if self.own_network.plans else []

    @property
    def own_checkpoint(self) -> list[str]:
        """The network that the user brings, of a cascade those of both stages, the
        first one first; empty where the base model is trained."""
        return self.own_network.checkpoints(self.config["nnunet"]["configuration"])

    @cached_property
    def truth(self) -> list[str]:
        """The table of what is known to be wrong, if there is one."""
        return list(filter(None, [self.config["evidence"]["truth"]]))

    @cached_property
    def own_files(self) -> list[str]:
        """The user's files beside the cohort's that something depends on."""
        return [
            *self.own_plans,
            *self.own_checkpoint,
            *self.corrections.values(),
            *self.decided,
            *self.truth,
            *patients.tables(self.config["cohort"]["patient"]),
        ]

    @cached_property
    def planning(self) -> dict[str, Any]:
        """What the plans depend on, apart from files."""
        return {k: v for k, v in self.config["nnunet"].items() if k != "plans"}

    @property
    def base_seed(self) -> int | None:
        """The seed of the retrained models that are compared with the base model.

        None where the base model is the user's: its schedule and its cases are others,
        so that a model of the full pool is trained for each seed.
        """
        return None if self.own_network.checkpoint else self.seed

    @cached_property
    def retrained(self) -> dict[str, arms.Retrained]:
        """Name of every model that is trained from scratch again, to arm and seed."""
        return arms.retrained_models(
            self.config["pruning"],
            self.base_seed,
            reviewed=self.decisions is not None and bool(self.decisions.of("remove")),
            relabelled=bool(self.corrections),
        )

    @cached_property
    def arms(self) -> list[str]:
        """The arms that models are trained for, the full set included."""
        return list(dict.fromkeys(model["arm"] for model in self.retrained.values()))

    @cached_property
    def reduced(self) -> list[str]:
        """Models that did without some cases: `retrained` without the full sets."""
        return [
            f"retrained/{name}"
            for name, model in self.retrained.items()
            if model["arm"] != arms.FULL
        ]

    @cached_property
    def full(self) -> list[str]:
        """Models that saw the whole pool, one for each seed."""
        return [self.full_model(seed) for seed in self.config["pruning"]["seeds"]]

    def full_model(self, seed: int) -> str:
        """The model that saw the whole pool with this seed."""
        name = arms.full_model(seed, self.base_seed)
        return name if name == "base" else f"retrained/{name}"

    @cached_property
    def headline(self) -> str:
        """The retrained model whose pictures are shown: without the worst cluster."""
        names = (name for name in self.retrained if name.startswith("worst_cluster"))
        return next(names)

    @cached_property
    def headline_before(self) -> str:
        """What `headline` is compared with: the whole pool, the same seed."""
        return self.full_model(self.retrained[self.headline]["seed"])

    @cached_property
    def models(self) -> list[str]:
        """Every model."""
        return [
            "base",
            *(f"finetuned/{case}" for case in self.cohort.train),
            *(f"refitted/{case}" for case in self.refitted),
            *(f"retrained/{name}" for name in self.retrained),
            *(f"folds/{fold}" for fold in sorted(set(self.folds.values()))),
        ]

    def explored_models(self, case: str) -> list[str]:
        """Models whose label maps of a case the explorer shows."""
        models = ["base", *(f"retrained/{name}" for name in self.retrained)]
        if self.cohort.case(case).role == "pool":
            models += (f"finetuned/{name}" for name in self.cohort.train)
        return models

    @cached_property
    def judged_models(self) -> dict[str, dict[str, Any]]:
        """Models that segmented all test cases: the base model, and retrained ones with
        `arm`, `seed` and the model that they are compared with, `before`. A model of
        the full pool belongs to no arm."""
        models: dict[str, dict[str, Any]] = {"base": {"arm": None, "seed": self.seed}}
        for name, model in self.retrained.items():
            before = self.full_model(model["seed"])
            arm = None if model["arm"] == arms.FULL else model["arm"]
            models[f"retrained/{name}"] = {**model, "arm": arm, "before": before}
        return models

    # What a reviewer decided

    @cached_property
    def corrections(self) -> dict[str, str]:
        """Pool case to its corrected label map; empty without corrections."""
        folder = self.config["cohort"]["corrections"]
        if folder is None:
            return {}
        return corrections.find(folder, self.cohort.pool, self.cohort.held_out)

    def corrected(self, name: str) -> list[str]:
        """Cases of which a retrained model sees the corrected label map."""
        relabelled = self.retrained[name]["arm"] == arms.RELABELLED
        return list(self.corrections) if relabelled else []

    @cached_property
    def decisions(self) -> decisions.Decisions | None:
        """What the reviewer decided; None where nobody did."""
        path = self.config["pruning"]["decisions"]
        return None if path is None else decisions.read(path, self.cohort.train)

    @cached_property
    def decided(self) -> list[str]:
        """The table of decisions, if there is one."""
        return [] if self.decisions is None else [self.decisions.path]

    # Trainings

    @cached_property
    def stages(self) -> list[str]:
        """The configurations that a model is made of: one, or the cascade's two."""
        return stages.stages(self.config["nnunet"]["configuration"])

    def training(self, kind: str, seed: int | None = None) -> dict[str, Any]:
        """Everything that weights depend on, apart from files; `kind` base or finetune.

        `seed` None is the study's own.
        """
        training = self.config["training"]
        precision = training["precision"]
        return {
            "seed": self.seed if seed is None else seed,
            "schedule": {
                key: training[kind][key]
                for key in ("epochs", "iterations_per_epoch", "initial_lr")
            },
            "storage": training["storage"] if kind == "finetune" else "float32",
            "configuration": self.config["nnunet"]["configuration"],
            # Left out where it is the default, so that no finished model is outdated.
            **({} if precision == "float16" else {"precision": precision}),
        }

    def runtime(self, kind: str, attempt: int) -> str:
        """Time limit of a training: 0.4 s an iteration (an RTX 2080 Ti needs 0.35 s for
        nnU-Net's 2d batches of brain tumours) and ten minutes; twice as much on a
        retry."""
        schedule = self.config["training"][kind]
        seconds = 0.4 * schedule["epochs"] * schedule["iterations_per_epoch"]
        # Of a cascade, both stages, and the pool segmented in between.
        seconds += (seconds + 20 * len(self.cohort.pool)) * (len(self.stages) - 1)
        return f"{attempt * (10 + int(seconds / 60))}m"

    def case_record(self, case: str) -> dict[str, Any]:
        """What the import of a case depends on: not its role in the analysis, but
        whether it has a label."""
        record = self.cohort.case(case).as_record()
        role = "pool" if self.cohort.case(case).is_labelled else "new"
        return {**record, "role": role, "train_case": False, "patient": ""}

    @cached_property
    def import_options(self) -> dict[str, Any]:
        """What all imports depend on: other keys may change without a new import."""
        cohort = self.config["cohort"]
        keys = ("shape", "spacing", "scanners")
        anatomy = {key: cohort["phantom"][key] for key in keys}
        return {
            "label_map": [list(pair) for pair in self.cohort.label_map.items()],
            "phantom": anatomy if cohort["source"] == "phantom" else None,
            "seed": cohort["seed"],
        }

    # Cells

    @cached_property
    def cells(self) -> Cells:
        """Which cases each model segments, and which cells share a submission."""
        return Cells(self.cohort.pool, self.cohort.test, self.cells_per_group)

    @cached_property
    def logit_options(self) -> dict[str, Any]:
        """How a model is applied to a case, apart from the model and the case."""
        names = ("mirroring", "tile_step", "bfloat16")
        return {name: self.config["inference"][name] for name in names}

    @cached_property
    def expected_cells(self) -> int:
        """How many cells a predictor is told to expect, so that it compiles if it pays.

        More than there are, or none, where the config says that it does or does not.
        """
        wanted = self.config["inference"]["compile"]
        if wanted != "auto":
            return ALWAYS_ENOUGH if wanted else 0
        cells = sum(len(self.cells.of(model)) for model in self.models)
        return min(cells, self.cells_per_group or cells)

    @cached_property
    def predict_options(self) -> list[str]:
        """What all cells have in common, as arguments of their client."""
        labels, regions = (
            ";".join(
                f"{name}={','.join(map(str, members))}"
                for name, members in groups.items()
            )
            for groups in (self.cohort.scored, self.more_regions)
        )
        options = self.logit_options
        ignore = self.cohort.targets.ignore
        return [
            "--mirroring" if options["mirroring"] else "--no-mirroring",
            *(["--bfloat16"] if options["bfloat16"] else []),
            *("--tile-step", str(options["tile_step"])),
            *("--labels", labels),
            # Snakemake leaves out what is empty, and would leave the name of it alone.
            *(("--regions", regions) if regions else ()),
            *([] if ignore is None else ["--ignore", str(ignore)]),
            *(f"--first-stage={first}" for first in self.stages[:-1]),
        ]

    # Results

    @cached_property
    def matrix(self) -> str:
        """Name of the matrix that the tree is made of."""
        region = self.config["similarity"]["region"]
        return "matrix" if region == "mean" else f"matrix_{region}"

    def targets(self) -> Iterator[str]:
        """What a person looks at, below `results`."""
        yield "config.yaml"
        yield from ("cohort.png", "similarity/heatmap.png", "similarity/dendrogram.png")
        yield from ("similarity/cases.tsv", "similarity/stability.png")
        yield from ("pruning/comparison.png", "pruning/overlays.png")
        yield from ("pruning/forest.png", "summary.md", "explorer/index.html")
        if self.config["explorer"]["in_report"]:
            yield "explorer_in_report"
        if self.cohort.has_planted_defects or self.truth:
            yield "evidence/detection.png"
