# What the similarity classifier asks for, as functions for the rules in adaptive.smk.

from casesim.adaptive.plan import CONTINUED, FOR_CASE, Plan

ADAPTIVE = Plan(STUDY)
try:
    ADAPTIVE.check()
except UserError as error:
    raise WorkflowError(str(error)) from None
if workflow.is_main_process:
    for hint in ADAPTIVE.hints():
        logger.warning(hint)

os.environ.update(
    CASESIM_LABEL_FREE=str(
        CHECKOUT / "workflow_scripts/adaptive/predict_label_free.py"
    ),
    CASESIM_SEGMENT=str(CHECKOUT / "workflow_scripts/adaptive/segment_adaptive.py"),
)
ADAPTIVE_MODEL = "|".join(
    [r"base|finetuned/[^/]+", FOR_CASE, *(f"{kind}/seed\\d+" for kind in CONTINUED)]
)
ALONE = "results/adaptive"


def any_of(cases):
    """Constraint of a wildcard to some cases."""
    return "|".join(map(re.escape, cases)) or "(?!)"


def case_group(kind):
    """The submission of a case's cells; no groups where nothing is submitted."""
    return (lambda w: ADAPTIVE.group(w.case, kind)) if STUDY.cells.are_grouped else None


def of_candidates(pattern, case):
    """A file of each model that a selection chooses from, of one case."""
    return expand(f"{ALONE}/{pattern}", adaptive_model=ADAPTIVE.candidates, case=case)
