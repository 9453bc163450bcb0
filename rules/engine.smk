# What Snakemake has to be told, and what it is asked at the start and the end of a run.

import runpy

from casesim import runs, termination
from casesim.errors import UserError
from snakemake.dag import DAG
from snakemake.exceptions import WorkflowError
from snakemake.logging import logger
from snakemake_logger_plugin_casesim import attach, tell_answer


def begin_run():
    """Let no other run work in this folder, and SIGTERM be understood."""
    if workflow.is_main_process:
        try:
            if workflow.execution_settings.lock:
                runs.begin()
        except UserError as error:
            raise WorkflowError(str(error)) from None
        termination.explain(logger.warning)


def call_engine(event):
    """Run what the engine in use wants done at the start or after an error, if anything.

    These are the functions in `profiles/<executor>/hooks.py`.
    """
    engine = workflow.executor_plugin.name
    hooks = CHECKOUT / "profiles" / engine / "hooks.py"
    if workflow.is_main_process and hooks.exists():
        runpy.run_path(str(hooks))[event](workflow)


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


def date_outputs_after_inputs():
    """Have outputs that are older than an input dated after it, instead of deleted.

    Where clocks differ or one was set back, Snakemake takes what a job has just made for
    failed (9.27.1). Files of the user's, whose dates mean nothing, do not count.
    """

    async def check_output_mtime(dag, job, outputs):
        async def date(file):
            return (await file.mtime_uncached(skip_storage=True)).local()

        inputs = [f for f in job.input if not f.is_ancient and await f.exists_local()]
        newest = max([await date(file) for file in inputs], default=0)
        for output in outputs:
            if await output.exists_local() and await date(output) < newest:
                output.touch((newest + 0.001, newest + 0.001))

    DAG.check_output_mtime = check_output_mtime


if workflow.is_main_process and workflow.modifier.is_main_snakefile():
    attach(workflow)
if workflow.is_main_process and (told := runs.arrive()):
    logger.warning(told)

if STUDY.cells.are_grouped and hasattr(DAG, "_check_groups"):
    check_each_group_once()
if hasattr(DAG, "check_output_mtime"):
    date_outputs_after_inputs()


onstart:
    begin_run()
    call_engine("onstart")
    if workflow.is_main_process:
        FINGERPRINTS.save()


onsuccess:
    if workflow.is_main_process:
        tell_answer(workflow)


onerror:
    call_engine("onerror")
