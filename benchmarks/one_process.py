"""Snakemake, with all jobs done in its own process: for studies on one core.

    python -m benchmarks.one_process ARGUMENTS OF SNAKEMAKE

A job of the workflow that has its own process costs the start of a Python and what it
imports, several times what a small cell takes to compute. Here Snakemake plans, decides
what is left to do and keeps its records as ever. Only the doing is another: a script is
run where Snakemake runs, and what a client asks of a resident predictor is asked of a
predictor in this process. The results are those of the workflow, and a later run of
`snakemake` in the same folder goes on from them.

Jobs are done one after the other. SIGTERM ends the run after the job at hand.
"""

import os
import re
import runpy
import shlex
import sys
import types
from importlib import import_module
from pathlib import Path
from typing import Any

from snakemake import cli
from snakemake.benchmark import benchmarked, write_benchmark_records
from snakemake.script import Snakemake
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.real import RealExecutor
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry
from snakemake_interface_executor_plugins.settings import CommonSettings, ExecMode

NAME = "one-process"
# A client: python, its switches, its script, its arguments, and where its output goes.
CLIENT = re.compile(r"python -S -E (?P<script>\S+) (?P<arguments>.*) > (\S+) 2>&1")


class Executor(RealExecutor):
    """Does each job in the thread of the scheduler, before the next one is chosen."""

    def __post_init__(self) -> None:
        self._predictors: dict[str, Any] = {}

    def run_job(self, job: Any) -> None:
        # What a script would hand to a warm process, it does itself.
        os.environ["CASESIM_RESIDENT"] = "0"
        info = SubmittedJobInfo(job=job)
        self.report_job_submission(info)
        self.workflow.async_run(job.prepare())
        try:
            with benchmarked() as record:
                self._run(job)
            if job.benchmark:
                write_benchmark_records([record], str(job.benchmark), False)
        except (Exception, SystemExit) as error:
            self.logger.error(f"{job}: {error!r}; see {', '.join(job.log)}")
            self.report_job_error(info)
        else:
            self.report_job_success(info)

    def _run(self, job: Any) -> None:
        if job.rule.script:
            self._run_script(job)
        elif job.rule.shellcmd:
            self._run_client(job)
        elif job.output:
            raise ValueError(f"{job.rule.name} is neither a script nor a client")

    def _run_script(self, job: Any) -> None:
        path = Path(str(job.rule.basedir.get_path_or_uri(secret_free=True)))
        script = (path / job.rule.script).resolve()
        value = Snakemake(
            job.input,
            job.output,
            job.params,
            job.wildcards,
            job.threads,
            job.resources,
            job.log,
            self.workflow.globals["config"],
            job.rule.name,
            None,
            str(script.parent),
        )
        runpy.run_path(str(script), {"snakemake": value}, run_name="__main__")

    def _run_client(self, job: Any) -> None:
        found = CLIENT.fullmatch(" ".join(job.shellcmd.split()))
        if found is None:
            raise ValueError(f"{job.rule.name} is not a client of a predictor")
        script = Path(os.path.expandvars(found["script"].strip('"')))
        # A client and what serves it belong to the same room.
        serving = import_module(f"casesim.{script.parent.name}.serving")
        if serving.__name__ not in self._predictors:
            predictor = serving.make_predictor(_device())
            self._predictors[serving.__name__] = predictor
        arguments = shlex.split(found["arguments"])
        line = self._predictors[serving.__name__].run(
            serving.parse_job(str(Path.cwd()), arguments)
        )
        Path(job.log[0]).write_text(f"{line}\n", encoding="utf-8")

    @property
    def cores(self) -> int:
        return 1

    def get_exec_mode(self) -> ExecMode:
        return ExecMode.DEFAULT

    def get_python_executable(self) -> str:
        return sys.executable

    def cancel(self) -> None:
        """Nothing runs beside the scheduler."""

    def shutdown(self) -> None:
        """Nothing runs beside the scheduler."""


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def main() -> None:
    plugin = types.ModuleType(NAME)
    settings = CommonSettings(
        non_local_exec=False,
        implies_no_shared_fs=False,
        job_deploy_sources=False,
        pass_envvar_declarations_to_cmd=False,
        auto_deploy_default_storage_provider=False,
    )
    vars(plugin).update(Executor=Executor, common_settings=settings)
    ExecutorPluginRegistry().register_plugin(NAME, plugin)
    cli.main(["--executor", NAME, "--cores", "1", *sys.argv[1:]])


if __name__ == "__main__":
    main()
