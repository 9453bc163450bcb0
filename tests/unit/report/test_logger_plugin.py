"""The logger plugin by Snakemake's own tests of such plugins, and what it prints."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.registry import LoggerPluginRegistry
from snakemake_interface_logger_plugins.tests import (
    MockOutputSettings,
    TestLogHandlerBase,
)

import snakemake_logger_plugin_casesim as plugin


class TestByTheInterface(TestLogHandlerBase):
    """What every logger plugin has to stand."""

    __test__ = True

    def get_log_handler_cls(self) -> type[plugin.LogHandler]:
        return plugin.LogHandler

    def get_log_handler_settings(self) -> None:  # type: ignore[override]
        return None


def test_snakemake_takes_it_for_a_plugin() -> None:
    registry = LoggerPluginRegistry()
    registry.register_plugin(plugin.__name__, plugin)
    assert registry.plugins["casesim"].log_handler is plugin.LogHandler


def new_handler() -> plugin.LogHandler:
    settings = MockOutputSettings()
    settings.nocolor = True
    return plugin.LogHandler(settings, None)


def log(handler: logging.Handler, text: str | None, **fields: Any) -> None:
    record = logging.makeLogRecord({"msg": text, "levelno": 20, "levelname": "INFO"})
    record.__dict__.update(fields)
    handler.handle(record)


def finetune(handler: logging.Handler) -> None:
    stats = {"finetune": 2, "all": 1, "total": 3}
    log(handler, "Job stats:\nfinetune 2", event=LogEvent.RUN_INFO, stats=stats)
    log(handler, "Select jobs to execute...")
    job = {"jobid": 7, "rule_name": "finetune", "wildcards": {"case": "BRATS_001"}}
    log(handler, "", event=LogEvent.JOB_INFO, output=["x"], created=100.0, **job)
    log(handler, "Job 7 has been submitted with SLURM jobid 12 (log: x).")
    log(handler, "rm x", event=LogEvent.SHELLCMD, shellcmd="rm x")
    log(handler, "", event=LogEvent.JOB_FINISHED, job_id=7, created=160.0)


def test_a_training_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    handler = new_handler()
    finetune(handler)
    handler.close()
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    assert lines[:2] == ["Job stats:", "finetune 2"]
    assert len(lines) == 3
    assert lines[2].endswith("  33 %  finetune BRATS_001 (60 s) · about 60 s left")


def test_errors_stay_whole(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    handler = new_handler()
    why = tmp_path / "finetune.log"
    why.write_text("CUDA out of memory\n" * 40)
    error: dict[str, Any] = {
        **{"event": LogEvent.JOB_ERROR, "levelno": 40, "levelname": "ERROR"},
        **{"jobid": 7, "rule_name": "finetune", "rule_msg": "", "conda_env": None},
        **{"input": ["in"], "output": ["out"], "log": [str(why)], "aux": {}},
        **{"shellcmd": None, "indent": False},
    }
    log(handler, "Error", **error)
    log(handler, "The disk is full.", levelno=30, levelname="WARNING")
    handler.close()
    said = capsys.readouterr().err
    assert "Error in rule finetune" in said
    assert said.count("CUDA out of memory") == 40
    assert "The disk is full." in said


def test_the_answer_is_that_of_what_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = [*plugin.ANSWERS, *plugin.MORE_ANSWERS]
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(f"# {name}\n")

    def answer(*made: str) -> str | None:
        jobs = [SimpleNamespace(output=[name]) for name in made]
        return plugin.answer(SimpleNamespace(dag=SimpleNamespace(jobs=jobs)))

    assert answer() is None
    assert answer(*reversed(plugin.ANSWERS)) == "\n# results/summary.md\n"
    assert answer("results/adaptive/summary.md") == "\n# results/adaptive/summary.md\n"
    # Both were asked for: another question.
    assert answer(*names) == (
        "\n# results/summary.md\n\n\n# results/adaptive/summary.md\n"
    )
    Path("results/summary.md").unlink()
    assert answer("results/summary.md") is None
