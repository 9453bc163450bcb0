# Configuration, the study that it asks for, and what the engine has to be told.
# Light on purpose: every job on a cluster parses this file again.

import gc
import os
import re
import runpy
import sys
from pathlib import Path

# Snakemake's jobs live until the end: looking through thousands of them for garbage,
# again and again while they are made, takes a sixth of the time of a large plan.
gc.set_threshold(200_000)

# Where this workflow's files are. Snakemake hands its own path for imports on to scripts.
FINDING = runpy.run_path(workflow.source_path("../workflow_scripts/checkout.py"))
CHECKOUT = FINDING["find_checkout"](workflow.current_basedir)
if workflow.is_main_process:
    FINDING["remove_damaged_modules"](CHECKOUT / "workflow_scripts")
sys.path.insert(0, str(CHECKOUT / "workflow_scripts"))

from casesim import settings
from casesim.cohort.fingerprints import Fingerprints
from casesim.errors import UserError
from casesim.files import speak_plainly
from casesim.processes import devices, places
from casesim.study import Study
from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

speak_plainly()

# A file of the user's own replaces the demo, and does not extend it: real patients would
# else be trained by a toy's schedule, or not, depending on where the run is started.
if not (workflow.overwrite_configfiles and workflow.modifier.is_main_snakefile()):
    OWN_OR_DEMO = [Path("config/config.yaml"), CHECKOUT / "config/config.yaml"]
    workflow.configfile(str(next(path for path in OWN_OR_DEMO if path.exists())))


def load_study():
    """Fill in the config's defaults, and find what it asks for.

    How many cells of a model share a submission is read from `set-scatter`, which alone
    is known before the first rule is, and which Snakemake tells to every job.
    """
    schema = CHECKOUT / "config/schemas/config.schema.json"
    scatter = workflow.resource_settings.overwrite_scatter or {}
    try:
        config.update(settings.validate(config, schema))
        return Study.load(config, scatter.get("cells"))
    except UserError as error:
        raise WorkflowError(str(error)) from None


def tell_changes():
    """Say which of the user's files are not what they were at the last start."""
    changed = FINGERPRINTS.refresh(SOURCES + STUDY.own_files)
    if changed:
        listed = "\n".join(f"  {path}" for path in changed[:20])
        more = f"\n  and {len(changed) - 20} more" if len(changed) > 20 else ""
        logger.warning(
            "Changed since the last start; all that was made of them is made again "
            f"(`snakemake -n` lists it):\n{listed}{more}"
        )
    else:
        # Else at the start, so that a dry run does not keep the next one from saying it.
        FINGERPRINTS.save()


def share_devices():
    """Let as many jobs compute at a time as devices allow; return the threads of each.

    Without a GPU each core has one: `--resources gpu=1` says how many GPUs there are, and
    so nothing where there is none. Whether jobs are submitted to other machines is told by
    the number of submissions. `gpu_slots`, a resource that no job asks for, is how many
    trainings may share a GPU, told to the jobs by their environment.
    """
    limit = workflow.global_resources.get("gpu").value
    slots = workflow.global_resources.get("gpu_slots").value
    if slots is not None:
        os.environ[devices.VARIABLE] = str(slots)
    cores = workflow.resource_settings.cores or 1
    if not workflow.is_main_process or workflow.resource_settings.nodes is not None:
        return places.THREADS_WITH_GPU
    if not places.computes_here(limit):
        if (slots or 1) > 1 and limit == 1:
            logger.warning(
                f"gpu_slots={slots} leaves a job a part of a GPU, and gpu=1 lets one run at "
                f"a time. Say --resources gpu={slots} gpu_slots={slots}."
            )
        # Else cores would let fewer jobs run than there are slots.
        each = cores // (limit or 1) if (slots or 1) > 1 else cores
        return max(1, min(places.THREADS_WITH_GPU, each))
    number = places.how_many(cores)
    os.environ[places.VARIABLE] = str(number)
    logger.info(
        f"No GPU is used: up to {number} trainings or cells at a time, of one thread each."
    )
    if limit != 0 and workflow.modifier.is_main_snakefile():
        workflow.register_resource("gpu", number)
    return places.THREADS


STUDY = load_study()
COHORT = STUDY.cohort
SOURCES = [path for case in COHORT.cases for path in case.existing_sources]
FINGERPRINTS = Fingerprints()
if workflow.is_main_process:
    logger.info(STUDY.describe(workflow.overwrite_configfiles or workflow.configfiles))
    if SOURCES or STUDY.own_files:
        tell_changes()
# Of a job that trains or segments.
THREADS = share_devices()


# The python that runs Snakemake also runs the `predict` client. Where that lies, and where
# models are loaded, changes no result: the environment tells it, not a param, so that a
# study or a checkout that moves does not make every prediction outdated.
os.environ.update(
    PATH=os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    ),
    CASESIM_RESIDENT="1" if config["inference"]["resident"] else "0",
    CASESIM_CELLS=str(STUDY.expected_cells),
    CASESIM_PREDICT=str(CHECKOUT / "workflow_scripts/inference/predict.py"),
)
# numexpr, which pandas and blosc2 load, dies of OMP_NUM_THREADS=4,2; nothing uses it.
os.environ.setdefault("NUMEXPR_NUM_THREADS", "1")

# Used with --sdm apptainer: docs/container.md.
IMAGE = os.environ.get("CASESIM_IMAGE")

if IMAGE:

    container: IMAGE


wildcard_constraints:
    # Cases by name, not by pattern: nnU-Net keeps the label map of a preprocessed case
    # under the case's name and _seg, which would be a case, too.
    case="|".join(map(re.escape, COHORT.ids)),
    model=r"base|finetuned/[^/]+|refitted/[^/]+|retrained/[^/]+",
    retrained=r"[^/]+",
    fold=r"[0-9]+",
    arm=r"[a-z_0-9]+",
