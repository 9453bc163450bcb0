"""What is done at the start of a run, and after an error (`call_engine` in the rules).

Things that Snakemake or the plugin would not tell or do:

- A request that SLURM refuses: of a group, Snakemake says that it failed, but not why,
  and a request that can never be met may wait in the queue for ever.
- Jobs of an earlier run that still work here, because their Snakemake was killed: it
  would submit their work once more.
- Why a group has failed: it lost its node, its time, or was cancelled.
- A controller that is away for longer than `sbatch` and the plugin wait for it.
"""

import getpass
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger
from snakemake_executor_plugin_slurm.submit_string import get_submit_command
from snakemake_executor_plugin_slurm.utils import set_gres_string

SECONDS = 30
# Job id, state, time of submission, folder and comment; the last may contain anything.
SQUEUE_FORMAT = "%A|%T|%V|%Z|%k"
BAD_STATES = {
    *("BOOT_FAIL", "CANCELLED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
    *("PREEMPTED", "REVOKED", "TIMEOUT"),
}


@dataclass(frozen=True)
class QueuedJob:
    """A job that SLURM remembers; `task` is what the plugin calls its rule or group."""

    id: str
    state: str
    submitted: str
    task: str


def onstart(workflow: Any) -> None:
    """Raise `WorkflowError` if a submission would be refused, or made twice."""
    folder = os.path.realpath(workflow.workdir_init)
    own = os.environ.get("SLURM_JOB_ID")
    living = [job for job in jobs_of(squeue(), folder) if job.id != own]
    if living:
        raise WorkflowError(describe_living(living))
    refused = dict(refusals(requests(workflow)))
    if refused:
        raise WorkflowError(describe_refusals(refused))
    be_patient(Path(workflow.workdir_init, ".snakemake"))
    os.environ["CASESIM_RUN_STARTED"] = datetime.now().isoformat(timespec="seconds")


def onerror(workflow: Any) -> None:
    """Say which submissions of this run SLURM has ended, and how."""
    started = os.environ.get("CASESIM_RUN_STARTED")
    if started is None:
        return
    try:
        listing = squeue("--states=all")
    except WorkflowError as error:
        logger.error(str(error))
        return
    folder = os.path.realpath(workflow.workdir_init)
    bad = [
        job
        for job in jobs_of(listing, folder)
        if job.state in BAD_STATES and job.submitted >= started
    ]
    if bad:
        shown = "\n".join(f"  {job.id} {job.state} {job.task}" for job in bad)
        logger.error(
            f"SLURM jobs of this run that did not end well:\n{shown}\n"
            "What they had finished is kept. The same command does the rest."
        )


def be_patient(snakemake_folder: Path) -> None:
    """Let the run wait for a controller that does not answer.

    The commands in `bin` are found before SLURM's own. `sbatch` tries again; `scontrol
    show config` answers what it did at the start of the run, from which the plugin
    concludes each time whether it may ask `squeue`: without an answer, it would ask
    `sacct`, and on a cluster without accounting lose its jobs.
    """
    folder = Path(__file__).with_name("bin")
    found = {name: shutil.which(name) for name in ("sbatch", "scontrol")}
    if not all(path and Path(path).parent != folder for path in found.values()):
        return
    answer = subprocess.run(
        ["scontrol", "show", "config"],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    if answer.returncode == 0:
        remembered = snakemake_folder / "slurm_config.txt"
        remembered.write_text(answer.stdout)
        os.environ["CASESIM_SLURM_CONFIG"] = str(remembered.resolve())
    for name, path in found.items():
        os.environ[f"CASESIM_{name.upper()}"] = str(path)
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"


def jobs_of(listing: str, folder: str) -> list[QueuedJob]:
    """The jobs in `squeue`'s answer that a Snakemake has submitted from `folder`."""
    jobs = []
    for line in listing.splitlines():
        job, state, submitted, workdir, comment = line.split("|", 4)
        if os.path.realpath(workdir) == folder and comment.startswith("rule_"):
            task = comment.removeprefix("rule_")
            jobs.append(QueuedJob(job, state, submitted, task))
    return sorted(jobs, key=lambda job: int(job.id))


def describe_living(jobs: list[QueuedJob]) -> str:
    shown = "\n".join(f"  {job.id} {job.state} {job.task}" for job in jobs[:10])
    more = f"\n  and {len(jobs) - 10} more" if len(jobs) > 10 else ""
    ids = " ".join(job.id for job in jobs)
    return (
        f"{len(jobs)} SLURM job(s) of an earlier run still work in this folder, whose "
        f"Snakemake has ended without them:\n{shown}{more}\n"
        "Started now, their work would be done twice. Wait until they have ended, or "
        f"end them; then start again, and only what is missing is done:\n"
        f"  scancel {ids}"
    )


def requests(workflow: Any) -> dict[str, list[str]]:
    """Each distinct `sbatch` command of the plan, and the jobs that ask for it."""
    dag = workflow.dag
    jobs = {id(job): job for job in map(dag.get_job_group, dag.needrun_jobs()) if job}
    jobs |= {id(job): job for job in dag.needrun_jobs() if not dag.get_job_group(job)}
    found: dict[str, list[str]] = {}
    for job in jobs.values():
        if not job.is_local:
            command = request(job, workflow.executor_settings)
            found.setdefault(command, []).append(str(job.name))
    return found


def request(job: Any, settings: Any) -> str:
    """The command that the plugin submits a job with, to be tested, not submitted."""
    resources = job.resources
    partition, account = (
        resources.get("slurm_partition"),
        resources.get("slurm_account"),
    )
    parameters = {
        "run_uuid": "preflight",
        "slurm_logfile": os.devnull,
        "comment_str": "preflight",
        "account": f"-A {shlex.quote(str(account))}" if account else "",
        "partition": f"-p {shlex.quote(str(partition))}" if partition else "",
        "workdir": None,
    }
    command = get_submit_command(job, parameters, settings=settings)
    return f"{command}{set_gres_string(job)} --test-only --wrap=true"


def refusals(commands: dict[str, list[str]]) -> Iterator[tuple[str, str]]:
    """Those that SLURM refuses, each with its reason."""
    for command, jobs in commands.items():
        try:
            result = subprocess.run(
                shlex.split(command),
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise WorkflowError(f"sbatch does not answer in {SECONDS} s.") from None
        if result.returncode != 0:
            yield summary(command, jobs), reason(result.stderr)


def reason(message: str) -> str:
    """SLURM's words without the name of the program before them."""
    prefix = re.compile(r"^(sbatch|allocation failure)(: error)?: ")
    lines = [prefix.sub("", line) for line in message.strip().splitlines()]
    return "; ".join(dict.fromkeys(line for line in lines if line))


def summary(command: str, jobs: list[str]) -> str:
    """Jobs by name, with those words of their request that SLURM may refuse."""
    names = ", ".join(sorted(jobs)[:3])
    if len(jobs) > 3:
        names += f" and {len(jobs) - 3} more"
    with_value = {"-A", "-p", "-t", "-C", "--mem", "--mem-per-cpu"}
    alone = ("--gpus", "--gres", "--cpus", "--qos=", "--ntasks", "--nodes=")
    words, kept = iter(shlex.split(command)), []
    for word in words:
        if word in with_value:
            kept += [word, next(words)]
        elif word.startswith(alone):
            kept.append(word)
    return f"{names} ({' '.join(kept)})"


def describe_refusals(refused: dict[str, str]) -> str:
    listing = "\n".join(f"  {jobs}: {why}" for jobs, why in refused.items())
    return (
        f"SLURM refuses {len(refused)} kind(s) of job of this plan:\n{listing}\n"
        "Nothing was submitted. What a site must set is in the last block of "
        "profiles/slurm/config.yaml; docs/slurm.md has examples."
    )


def squeue(*options: str) -> str:
    """This user's jobs, one a line: those that live, unless the options say more."""
    command = ["squeue", "--noheader", "--user", getpass.getuser(), *options]
    try:
        return subprocess.run(
            [*command, "--format", SQUEUE_FORMAT],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=True,
        ).stdout
    except FileNotFoundError:
        raise WorkflowError(
            "squeue is not found: start the run on a host that submits jobs."
        ) from None
    except subprocess.TimeoutExpired:
        raise WorkflowError(f"squeue does not answer in {SECONDS} s.") from None
    except subprocess.CalledProcessError as error:
        raise WorkflowError(f"squeue fails: {error.stderr.strip()}") from None
