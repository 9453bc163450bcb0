# Configuration, case lists, and the functions that tell the stages their inputs.
# Light on purpose: every job on a cluster parses this file again.

import gc
import math
import os
import re
import runpy
import sys
from pathlib import Path

# Snakemake's jobs live until the end: looking through thousands of them for garbage,
# again and again while they are made, takes a sixth of the time of a large plan.
gc.set_threshold(200_000)

# Where this workflow's files are: `workflow.basedir` is another's when it is a module.
CHECKOUT = Path(str(workflow.current_basedir)).parent
sys.path.insert(0, str(CHECKOUT / "workflow_scripts"))

from casesim.cohort import loading, selection
from casesim.evidence import label_quality
from casesim.pruning import arms
from casesim import runs, settings
from casesim.errors import UserError
from snakemake.dag import DAG
from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

try:
    config.update(
        settings.validate(config, CHECKOUT / "config/schemas/config.schema.json")
    )
    COHORT = loading.load_cohort(config["cohort"])
    settings.check_regions(config, COHORT.labels)
    REFITTED = selection.choose_refits(COHORT.train, **config["stability"])
except UserError as error:
    raise WorkflowError(str(error)) from None

if workflow.is_main_process and runs.remove_stale_locks():
    logger.warning(
        "An earlier run was killed: its locks are removed, its work goes on."
    )


onstart:
    call_engine("onstart")
    if workflow.is_main_process:
        runs.record_run()


onerror:
    call_engine("onerror")


def call_engine(event):
    """Run what the engine in use wants done at the start or after an error, if anything.

    These are the functions in `profiles/<executor>/hooks.py`.
    """
    engine = workflow.executor_plugin.name
    hooks = CHECKOUT / "profiles" / engine / "hooks.py"
    if workflow.is_main_process and hooks.exists():
        runpy.run_path(str(hooks))[event](workflow)


def get_cells_per_group():
    """How many cells of a model a profile puts into one submission; None locally.

    It is read from `set-scatter`, which alone is known before the first rule is, and
    which Snakemake tells to every job.
    """
    asked = (workflow.resource_settings.overwrite_scatter or {}).get("cells")
    if asked and asked > MAX_CELLS_PER_GROUP:
        raise WorkflowError(
            f"set-scatter: cells: {asked} is too many: Snakemake plans a group of more "
            f"than {MAX_CELLS_PER_GROUP} jobs for minutes."
        )
    return asked


def check_each_group_once():
    """Make Snakemake check a group once, not once for each of its members.

    For 5,000 cells in 50 groups that takes minutes off the start (Snakemake 9.27.1).
    """
    check = DAG._check_groups

    def check_groups(dag):
        by_member = dag._group
        dag._group = {id(group): group for group in by_member.values()}
        try:
            check(dag)
        finally:
            dag._group = by_member

    DAG._check_groups = check_groups


def get_final_output():
    """The figures and tables that a person looks at."""
    return [
        "results/cohort.png",
        "results/similarity/heatmap.png",
        "results/similarity/dendrogram.png",
        "results/similarity/cases.tsv",
        "results/similarity/stability.png",
        "results/pruning/comparison.png",
        "results/pruning/overlays.png",
        "results/pruning/forest.png",
        *(["results/evidence/detection.png"] if COHORT.has_planted_defects else []),
    ]


def get_full_model(seed):
    """The model that saw the whole pool with this seed, as it is named in paths."""
    name = arms.full_model(seed, config["training"]["seed"])
    return name if name == "base" else f"retrained/{name}"


def get_models():
    """Every model, as it is named in paths."""
    finetuned = [f"finetuned/{case}" for case in COHORT.train]
    refitted = [f"refitted/{case}" for case in REFITTED]
    retrained = [f"retrained/{name}" for name in RETRAINED]
    folds = [f"folds/{fold}" for fold in sorted(set(FOLDS.values()))]
    return ["base", *finetuned, *refitted, *retrained, *folds]


def get_all_source_files():
    """The user's files, those that are there: `check_cohort` reports the others."""
    return [path for case in COHORT.cases for path in case.existing_sources]


def get_source_files(wildcards):
    return list(COHORT.case(wildcards.case).existing_sources)


def get_case_record(wildcards):
    """What the import of a case depends on: not its role in the analysis."""
    record = COHORT.case(wildcards.case).as_record()
    return {**record, "role": "pool", "train_case": False}


def get_import_options():
    """What all imports depend on: other keys may change without doing them again."""
    phantom = config["cohort"]["phantom"]
    anatomy = {key: phantom[key] for key in ("shape", "spacing", "scanners")}
    return {
        "label_map": [list(pair) for pair in COHORT.label_map.items()],
        "phantom": anatomy if config["cohort"]["source"] == "phantom" else None,
        "seed": config["cohort"]["seed"],
    }


def get_preprocessed(cases):
    return [f"{CASES_2D_OR_3D}/{case}.b2nd" for case in cases]


def get_images(cases, channels):
    return [
        f"{RAW}/imagesTr/{case}_{channel:04d}.nii.gz"
        for case in cases
        for channel in channels
    ]


def get_foreground():
    return {name: COHORT.labels[name] for name in COHORT.foreground_labels}


def get_labels(cases):
    return [f"{RAW}/labelsTr/{case}.nii.gz" for case in cases]


def get_training(name):
    """Everything that the weights of a training depend on, apart from its files."""
    return {
        "seed": config["training"]["seed"],
        "schedule": config["training"][name],
        "storage": config["training"]["storage"] if name == "finetune" else "float32",
        "configuration": config["nnunet"]["configuration"],
    }


def get_retraining(wildcards):
    return {**get_training("base"), "seed": RETRAINED[wildcards.retrained]["seed"]}


def get_training_cases(wildcards):
    arm = RETRAINED[wildcards.retrained]["arm"]
    return f"results/pruning/{arm}/training_cases.txt"


def get_fold(wildcards):
    return FOLDS[wildcards.case]


def get_fold_checkpoint(wildcards):
    fold = FOLDS[wildcards.case]
    return f"results/models/folds/{fold}/fold_all/checkpoint_final.pth"


def get_cases_outside(wildcards):
    return [case for case in COHORT.pool if FOLDS[case] != int(wildcards.fold)]


def get_preprocessed_outside(wildcards):
    return get_preprocessed(get_cases_outside(wildcards))


def get_label_quality():
    """Scores of the train cases alone: nothing else is judged."""
    train = COHORT.train if FOLDS else []
    return [f"results/evidence/label_quality/{case}.json" for case in train]


def get_logit_options():
    names = ("mirroring", "tile_step", "bfloat16")
    return {name: config["inference"][name] for name in names}


def estimate_runtime(schedule, attempt):
    """Run time limit of a training: 0.4 s an iteration (an RTX 2080 Ti needs 0.35 s for
    nnU-Net's 2d batches of brain tumours) and ten minutes; twice as much on a retry."""
    seconds = 0.4 * schedule["epochs"] * schedule["iterations_per_epoch"]
    return f"{attempt * (10 + int(seconds / 60))}m"


def get_base_runtime(wildcards, attempt):
    return estimate_runtime(config["training"]["base"], attempt)


def get_finetune_runtime(wildcards, attempt):
    return estimate_runtime(config["training"]["finetune"], attempt)


def get_predict_options():
    """What all predictions have in common, as the client's command line."""
    inference = config["inference"]
    labels = (f"{name}={COHORT.labels[name]}" for name in COHORT.foreground_labels)
    regions = (
        f"{name}={','.join(map(str, members))}"
        for name, members in config["regions"].items()
    )
    return [
        "--mirroring" if inference["mirroring"] else "--no-mirroring",
        *(["--bfloat16"] if inference["bfloat16"] else []),
        *("--tile-step", str(inference["tile_step"])),
        *("--labels", ";".join(labels), "--regions", ";".join(regions)),
    ]


def get_cases(model):
    """Held-out cases are not segmented by fine-tuned models: no decision may see them."""
    return COHORT.pool if model.startswith(MODELS_OF_ONE_CASE) else COHORT.test


def get_scores(wildcards):
    if workflow.remote_exec:
        # Snakemake does not tell a group's job to go on when one of its cells fails.
        # This is the first that such a job asks for after its settings are known.
        workflow.execution_settings.keep_going = True
    cases = get_cases(wildcards.model)
    return [f"results/scores/{wildcards.model}/{case}.json" for case in cases]


def get_part_scores(wildcards):
    start = int(wildcards.part) * CELLS_PER_GROUP
    return get_scores(wildcards)[start : start + CELLS_PER_GROUP]


def get_parts(wildcards):
    parts = math.ceil(len(get_cases(wildcards.model)) / CELLS_PER_GROUP)
    return [f"results/scores/{wildcards.model}/part_{i}.tsv" for i in range(parts)]


def get_models_by_cells(split):
    """Pattern of the models whose cells are too many for one group, or of the others."""
    patterns = {
        "base|retrained/[^/]+": COHORT.test,
        "finetuned/[^/]+|refitted/[^/]+": COHORT.pool,
    }
    return (
        "|".join(
            pattern
            for pattern, cases in patterns.items()
            if (len(cases) > CELLS_PER_GROUP) == split
        )
        or "(?!)"
    )


def get_cell_group(wildcards):
    """The submission that a cell, or the job that gathers cells, belongs to."""
    if "case" in wildcards.keys():
        on_pool = wildcards.model.startswith(MODELS_OF_ONE_CASE)
        numbers = POOL_NUMBERS if on_pool else TEST_NUMBERS
        part = numbers[wildcards.case] // CELLS_PER_GROUP
    else:
        part = wildcards.get("part", 0)
    return f"cells_{'_'.join(Path(wildcards.model).parts)}_{part}"


def get_matrix():
    region = config["similarity"]["region"]
    name = "matrix" if region == "mean" else f"matrix_{region}"
    return f"results/similarity/{name}.tsv"


def get_full_scores():
    """Scores of the models that saw the whole pool, one for each seed."""
    models = [get_full_model(seed) for seed in config["pruning"]["seeds"]]
    return [f"results/scores/{model}.tsv" for model in models]


def get_retrained_scores():
    return [
        f"results/scores/retrained/{name}.tsv"
        for name, model in RETRAINED.items()
        if model["arm"] != "full"
    ]


def get_removed_cases():
    arms = dict.fromkeys(model["arm"] for model in RETRAINED.values())
    return [f"results/pruning/{arm}/removed_cases.txt" for arm in arms]


# The python that runs Snakemake also runs the `predict` client. Where that lies, and where
# models are loaded, changes no result: the environment tells it, not a param, so that a
# study or a checkout that moves does not make every prediction outdated.
os.environ.update(
    PATH=os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    ),
    CASESIM_RESIDENT="1" if config["inference"]["resident"] else "0",
    CASESIM_PREDICT=str(CHECKOUT / "workflow_scripts/inference/predict.py"),
)

RAW = "results/nnunet/raw/Dataset001_Cohort"
PREPROCESSED = "results/nnunet/preprocessed/Dataset001_Cohort"
CASES_2D_OR_3D = f"{PREPROCESSED}/nnUNetPlans_{config['nnunet']['configuration']}"
CHANNEL_FILES = [f"{i:04d}" for i in range(len(COHORT.channel_names))]
COPIES = range(config["augmentation"]["copies"])
REGIONS = [*COHORT.foreground_labels, *config["regions"]]
RETRAINED = arms.retrained_models(config["pruning"], config["training"]["seed"])
FOLDS = label_quality.folds(
    COHORT.pool, config["evidence"]["cleanlab_folds"], config["training"]["seed"]
)
WORST = next(name for name in RETRAINED if name.startswith("worst_cluster"))
WORST_BEFORE = get_full_model(RETRAINED[WORST]["seed"])
MODELS_OF_ONE_CASE = ("finetuned/", "refitted/")
# The cells that are gathered in one go; the local run's tables are cut likewise.
MAX_CELLS_PER_GROUP = 200
CELLS_PER_GROUP = get_cells_per_group()
# Without a group, groups cost nothing, and a cell is retried like any other job.
CELL_GROUP = get_cell_group if CELLS_PER_GROUP else None
if CELL_GROUP and hasattr(DAG, "_check_groups"):
    check_each_group_once()
CELL_RETRIES = 0 if CELLS_PER_GROUP else None
CELLS_PER_GROUP = CELLS_PER_GROUP or MAX_CELLS_PER_GROUP
POOL_NUMBERS = {case: number for number, case in enumerate(COHORT.pool)}
TEST_NUMBERS = {case: number for number, case in enumerate(COHORT.test)}
WHOLE_MODELS = get_models_by_cells(split=False)
SPLIT_MODELS = get_models_by_cells(split=True)
# The first channel, and another one: of MSD's four, FLAIR and T1gd.
GALLERY = COHORT.pool[:24]
GALLERY_CHANNELS = sorted({0, len(COHORT.channel_names) // 2})


wildcard_constraints:
    # Cases by name, not by pattern: nnU-Net keeps the label map of a preprocessed case
    # under the case's name and _seg, which would be a case, too.
    case="|".join(map(re.escape, COHORT.test)),
    model=r"base|finetuned/[^/]+|refitted/[^/]+|retrained/[^/]+",
    retrained=r"[^/]+",
    fold=r"[0-9]+",
    arm=r"[a-z_0-9]+",
