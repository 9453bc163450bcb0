# Where files lie that several stages ask for, and functions that list them.

from casesim.nnunet.stages import case_folder

RAW = "results/nnunet/raw/Dataset001_Cohort"
PREPROCESSED = "results/nnunet/preprocessed/Dataset001_Cohort"
CORRECTED = "results/corrections"
# Of a cascade, the cases of the second stage; the first one's lie beside them.
CASES_2D_OR_3D = f"{PREPROCESSED}/{case_folder(STUDY.stages[-1])}"
FIRST_STAGE = [f"{PREPROCESSED}/{case_folder(stage)}" for stage in STUDY.stages[:-1]]
CHANNEL_FILES = [f"{i:04d}" for i in range(len(COHORT.channel_names))]


def list_scores(model, cases):
    """The files of a model's cells."""
    if workflow.remote_exec and workflow.execution_settings:
        # Snakemake does not tell a group's job to go on when one of its cells fails.
        # This is the first that such a job asks for after its settings are known.
        workflow.execution_settings.keep_going = True
    return [f"results/scores/{model}/{case}.json" for case in cases]


def list_preprocessed(cases, folder=None):
    """Preprocessed cases, for a cascade those of both stages."""
    return expand(
        "{folder}/{stage}/{case}.b2nd",
        folder=folder or PREPROCESSED,
        stage=map(case_folder, STUDY.stages),
        case=cases,
    )


def first_stage(model):
    """The files of a cascade's first stage in a model folder; nothing without one."""
    files = ["fold_all/checkpoint_final.pth", "plans.json", "dataset.json"]
    return [f"{model}/{stage}/{file}" for stage in STUDY.stages[:-1] for file in files]


def list_pool(corrected):
    """The preprocessed pool; some cases of it with their corrected label maps."""
    unchanged = [case for case in COHORT.pool if case not in corrected]
    return list_preprocessed(unchanged) + list_preprocessed(corrected, CORRECTED)
