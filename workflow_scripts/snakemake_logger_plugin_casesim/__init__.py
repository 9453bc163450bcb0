"""What a run prints: a logger plugin of Snakemake that tells it in few lines.

The Snakefile hangs it in by itself (`attach`), unless the command line asks for another
way: --quiet, --verbose, --printshellcmds (-p), --debug-dag or another --logger. Errors
and warnings are printed as Snakemake does; the log file in .snakemake/log holds it all.
`PYTHONPATH=workflow_scripts snakemake --logger casesim` uses it without the Snakefile.
"""

import logging
import re
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from snakemake.logging import ColorizingTextHandler, DefaultFormatter, logger
from snakemake.settings.enums import Quietness
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from casesim.report.progress import Progress

# The answer of a run: the first of these that belongs to what was asked for.
ANSWERS = (
    "results/summary.md",
    "results/pruning/summary.md",
    "results/similarity/summary.md",
)
# Told beside it: another question.
MORE_ANSWERS = ("results/adaptive/summary.md",)
SECONDS_OF_SILENCE = 300.0
# How each job goes is told otherwise, or not at all.
_UNTOLD = {
    *(LogEvent.WORKFLOW_STARTED, LogEvent.RESOURCES_INFO, LogEvent.RULEGRAPH),
    *(LogEvent.SHELLCMD, LogEvent.GROUP_INFO, LogEvent.JOB_STARTED, LogEvent.PROGRESS),
}
_UNTOLD_BEGINNINGS = (
    *("Select jobs to execute", "Using shell:", "Building DAG of jobs"),
    *("Conda environments: ignored", "Singularity containers: ignored"),
    *("Group jobs: inactive", "Updating jobs with queue input"),
)
# The SLURM plugin's word for each job.
_SUBMITTED = re.compile(r"Job \d+ has been submitted")
_NOTHING_TO_DO = "Nothing to be done"


class LogHandler(LogHandlerBase):
    """A line for each training and stage, cells as a count, and the time left."""

    workflow: Any = None

    def __post_init__(self) -> None:
        common = self.common_settings
        self._progress = Progress({})
        self._said: set[str] = set()
        self._ended = threading.Event()
        self._last_line = time.time()
        self._terminal = ColorizingTextHandler(
            nocolor=common.nocolor, stream=sys.stdout if common.stdout else sys.stderr
        )
        self._terminal.setFormatter(
            DefaultFormatter(common.quiet, common.show_failed_logs)
        )

    def emit(self, record: logging.LogRecord) -> None:
        event = getattr(record, "event", None)
        if event == LogEvent.JOB_INFO:
            self._start(record)
        elif event == LogEvent.JOB_FINISHED:
            self._say(self._progress.finish(_field(record, "job_id"), record.created))
        elif event == LogEvent.RUN_INFO:
            self._plan(record)
        elif event not in _UNTOLD:
            if event == LogEvent.JOB_ERROR:
                self._progress.fail(_field(record, "jobid"), record.created)
            self._pass_on(record)

    def _start(self, record: logging.LogRecord) -> None:
        self._progress.start(
            _field(record, "jobid"),
            _field(record, "rule_name"),
            dict(_field(record, "wildcards") or {}),
            record.created,
            # Targets only gather what others made.
            told=bool(_field(record, "output")),
        )

    def _plan(self, record: logging.LogRecord) -> None:
        stats = dict(_field(record, "stats") or {})
        stats.pop("total", None)
        self._progress = Progress(stats)
        # A dry run says it before its list and after it.
        text = record.getMessage().strip()
        if text not in self._said:
            self._said.add(text)
            self._write(f"\n{text}\n")
        if not self.common_settings.dryrun:
            threading.Thread(target=self._break_silence, daemon=True).start()

    def _pass_on(self, record: logging.LogRecord) -> None:
        text = record.getMessage() if record.msg else ""
        if record.levelno == logging.INFO and _is_detail(record, text):
            return
        if text.startswith("Reasons:"):
            text = text.replace(
                "(check individual jobs above for details)",
                "(snakemake -n -p lists every job with its own)",
            )
            record = _info(text)
        self._terminal.emit(record)
        dry = self.common_settings.dryrun
        if text.startswith(_NOTHING_TO_DO) and self.workflow is not None and not dry:
            self._write(answer(self.workflow))

    def _break_silence(self) -> None:
        while not self._ended.wait(SECONDS_OF_SILENCE / 10):
            with self._locked():
                if time.time() - self._last_line >= SECONDS_OF_SILENCE:
                    self._say(self._progress.status(time.time()))

    def _locked(self) -> Any:
        assert self.lock is not None
        return self.lock

    def _say(self, line: str | None) -> None:
        if line:
            self._write(f"{time.strftime('%H:%M:%S')}  {line}")

    def _write(self, text: str | None) -> None:
        if text:
            self._last_line = time.time()
            self._terminal.emit(_info(text))

    def close(self) -> None:
        self._ended.set()
        super().close()

    @property
    def writes_to_stream(self) -> bool:
        return True

    @property
    def writes_to_file(self) -> bool:
        return False

    @property
    def has_filter(self) -> bool:
        return False

    @property
    def has_formatter(self) -> bool:
        return True

    @property
    def needs_rulegraph(self) -> bool:
        return False


def attach(workflow: Any) -> None:
    """Let `LogHandler` tell the run, unless its command line asks for another way."""
    settings, manager = workflow.output_settings, workflow.logger_manager
    asked = (settings.quiet, settings.verbose, settings.printshellcmds)
    if any(asked) or settings.debug_dag or manager.plugin_handlers:
        return
    handler = LogHandler(settings, None)
    handler.workflow = workflow
    handler.addFilter(manager._default_filter())
    for default in list(manager.logger.handlers):
        if default.name == "DefaultStreamHandler":
            manager.logger.removeHandler(default)
    manager.logger.addHandler(handler)


def tell_answer(workflow: Any) -> None:
    """Print what the run has found, if it was asked for something that says so."""
    text = answer(workflow)
    if text:
        logger.info(text)


def answer(workflow: Any) -> str | None:
    """The text of the summaries that this run has made, or knows to be up to date."""
    made = {str(file) for job in workflow.dag.jobs for file in job.output}
    paths = [*islice(_existing(ANSWERS, made), 1), *_existing(MORE_ANSWERS, made)]
    texts = [path.read_text(encoding="utf-8").strip() for path in paths]
    return "\n".join(f"\n{text}\n" for text in texts) or None


def _existing(names: Sequence[str], made: set[str]) -> Iterator[Path]:
    for name in names:
        if name in made and Path(name).exists():
            yield Path(name)


def _is_detail(record: logging.LogRecord, text: str) -> bool:
    if _field(record, "quietness") == Quietness.RULES:
        return True
    return text.startswith(_UNTOLD_BEGINNINGS) or bool(_SUBMITTED.match(text))


def _field(record: logging.LogRecord, name: str) -> Any:
    return getattr(record, name, None)


def _info(text: str) -> logging.LogRecord:
    return logging.makeLogRecord({"msg": text, "levelno": 20, "levelname": "INFO"})
