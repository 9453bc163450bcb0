"""The benchmarks' own arithmetic, and small runs of those that train nothing."""

import base64
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import (
    busy,
    demo,
    finetune,
    matrix,
    nnunet_commands,
    predictor,
    presets,
    scale,
    setting,
    storage,
    threads,
)


def test_a_section_is_replaced_by_its_title() -> None:
    text = setting.replace_section("", "A", "## A\n\none\n")
    text = setting.replace_section(text, "B", "## B\n\ntwo\n")
    text = setting.replace_section("# Head\n\nWords.\n\n" + text, "A", "## A\n\nnew\n")
    assert text == "# Head\n\nWords.\n\n## A\n\nnew\n\n## B\n\ntwo\n"
    # A title is not mistaken for one that begins like it.
    assert "## A longer\n" in setting.replace_section(text, "A longer", "## A longer\n")
    assert "new" in setting.replace_section(text, "A longer", "## A longer\n")


def test_what_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "docs" / "x.md"
    arguments = ["benchmarks/x.py", "--n", "3", "--work", str(tmp_path)]
    arguments += ["--output", str(output)]
    monkeypatch.setattr("sys.argv", arguments)
    setting.publish("Title", "body", output)
    text = output.read_text()
    assert text == capsys.readouterr().out.lstrip("\n").removesuffix("\n")
    command = "python -m benchmarks.x --n 3 --work FOLDER"
    assert text.startswith(f"## Title\n\nbody\n\n`{command}`\n")
    for word in ("cores", "GB of memory", f"torch {torch.__version__}", "nnunetv2"):
        assert word in text
    assert str(tmp_path) not in text


def test_the_table() -> None:
    assert setting.table(["a", "b"], [[1, "x"]]) == (
        "| a | b |\n| --- | --- |\n| 1 | x |"
    )


def test_the_fine_tune_s_script_finds_the_package() -> None:
    scripts = finetune.FINETUNE.parents[1]
    assert (scripts / "casesim/__init__.py").exists()
    assert (scripts / "model_training.py").exists()
    assert 'sys.path.insert(0, "{scripts}")' in finetune.SNAKEFILE


def test_time_outside_the_iterations() -> None:
    assert finetune.Outcome(wall=10.0, training=7.0).outside == 3.0


def test_ratios_are_those_of_neighbours() -> None:
    found = predictor.Comparison([1.0, 2.0], [2.0, 6.0], 0, 10)
    assert found.ratios == [2.0, 3.0]
    assert "| nnU-Net / this workflow | 2.50 (2.00 to 3.00) |" in predictor.report(
        found, (1, 2, 5), "net"
    )


def test_the_middle_slices() -> None:
    data = np.arange(7)[None, :, None, None]
    assert predictor.middle(data, 3).ravel().tolist() == [2, 3, 4]
    assert predictor.middle(data, None) is data
    assert predictor.middle(data, 9) is data


def test_a_copied_model_is_younger_than_what_it_is_made_of(tmp_path: Path) -> None:
    place = setting.Setting(tmp_path, 1)
    place.checkpoint("base").parent.mkdir(parents=True)
    for path in (place.model("base") / "plans.json", place.checkpoint("base")):
        path.touch()
    os.utime(place.model("base") / "plans.json", (1, 1))
    matrix.copy_model(place, "base", "finetuned/a")
    copied = place.model("finetuned/a") / "plans.json"
    newest = place.checkpoint("base").stat().st_mtime_ns
    assert copied.stat().st_mtime_ns >= newest
    assert place.checkpoint("finetuned/a").exists()


def test_parts_of_the_time_sum_up() -> None:
    side = nnunet_commands.Side("(a)", cells=10, seconds=20.0, megabytes=1.0)
    other = nnunet_commands.Side("(b)", cells=5, seconds=40.0, megabytes=1.0)
    steps = {"load": 1.0, "network": 8.0, "resample": 0.5, "write": 0.25, "score": 0.25}
    parts = matrix.split(side, 2.0, steps, client=0.1, start=3.0, at_a_time=1)
    assert dict(parts)["client"] == pytest.approx(1.0)
    assert dict(parts)["scheduler and tables of rows"] == pytest.approx(4.0)
    # Two cells at a time, on a core each.
    halves = matrix.split(side, 2.0, steps, client=0.1, start=3.0, at_a_time=2)
    assert dict(halves)["network"] == pytest.approx(4.0)
    assert dict(halves)["start of the predictor"] == 3.0
    assert sum(seconds for _, seconds in halves) == pytest.approx(side.seconds)
    assert sum(seconds for _, seconds in parts) == pytest.approx(side.seconds)
    # 8 s a cell against 2 s.
    assert "| (b) | 5 | 40.0 | 8.000 | 4.0 | 1 |" in matrix.report_sides(side, [other])
    files = Counter({"results files": 50, "results bytes": 20480})
    text = matrix.report(side, [other], parts, [0.0, -0.25], files)
    assert "1 of 2 values are equal, the largest difference is 0.25" in text
    assert "1200 ms, and leaves 5.00 files of 2.0 kB" in text


def test_sizes_of_many_models() -> None:
    table = storage.report_sizes({"float32": 200_000_000})
    assert "| weights only (`storage: float32`) | 200 | 10.0 | 96.8 |" in table


def test_agreement_counts_what_is_within_the_tolerance() -> None:
    table = storage.report_agreement(storage.Agreement([0, 5e-4, 2e-3], [1e-3, 0]))
    assert "| single labels | 3 | 5.0e-04 | 2.0e-03 | 2 |" in table
    assert "| cells (mean of labels) | 2 | 5.0e-04 | 1.0e-03 | 2 |" in table


def test_files_are_counted_by_part(tmp_path: Path) -> None:
    (tmp_path / "results/scores/a").mkdir(parents=True)
    (tmp_path / "results/scores/a/b.json").write_text("1234")
    (tmp_path / "logs").mkdir()
    counts = scale.count_files(tmp_path)
    assert counts["results/scores files"] == 1
    assert counts["results/scores bytes"] == 4
    assert counts["results/scores folders"] == 2
    assert scale.total(counts, " folders") == 3


def test_more_stages_than_planned(tmp_path: Path) -> None:
    where = setting.Setting(tmp_path, 1)
    kwargs = {
        "n_stages": 2,
        "features_per_stage": [32, 64],
        "kernel_sizes": [[3, 3], [3, 3]],
        "strides": [[1, 1], [2, 2]],
        "n_conv_per_stage": [2, 2],
        "n_conv_per_stage_decoder": [2],
    }
    plans = {"configurations": {"2d": {"architecture": {"arch_kwargs": kwargs}}}}
    where.preprocessed.mkdir(parents=True)
    where.plans.write_text(json.dumps(plans))
    setting.set_stages(where, 4)
    assert where.plan["architecture"]["arch_kwargs"] == {
        "n_stages": 4,
        "features_per_stage": [32, 64, 64, 64],
        "kernel_sizes": [[3, 3]] * 4,
        "strides": [[1, 1], [2, 2], [1, 1], [1, 1]],
        "n_conv_per_stage": [2] * 4,
        "n_conv_per_stage_decoder": [2] * 3,
    }


def test_cells_that_compute_nothing(tmp_path: Path) -> None:
    """The rules as they are, with scripts put aside: every cell is one job."""
    text = scale.measure_execution("4x5", tmp_path / "checkout")
    assert "| cells | 20 |" in text
    # Prediction, score and log, and a record for each output.
    found = [line for line in text.splitlines() if line.startswith("| files, a cell")]
    assert 5.0 < float(found[0].split("|")[2]) < 7.0


def test_busy_machine_is_told() -> None:
    seconds = {busy.OURS: (0.1, 0.25), busy.SPINNING: (0.1, 10.0)}
    text = busy.report(seconds, 4, 0.1)
    assert "| one thread, as trainings run | 100 | 250 | 2.5 |" in text
    assert "| threads that spin | 100 | 10000 | 100.0 |" in text
    assert "busy before" not in text
    assert "load average 9.0" in busy.report(seconds, 4, 9.0)


def test_busy_measures_both_environments() -> None:
    assert busy.measure(True, 1, 1) > 0
    with busy.load(1):
        assert busy.measure(False, 1, 1) > 0


def job(rule: str, begin: float, seconds: float, inputs: str, output: str) -> demo.Job:
    return demo.Job(rule, frozenset(inputs), frozenset(output), begin, begin + seconds)


class TestDemo:
    """A preparation, two trainings of which one is longer, and what needs both."""

    jobs = (
        job("check_cohort", 0, 4, "", "a"),
        job("finetune", 4, 10, "a", "b"),
        job("finetune", 14, 6, "a", "c"),
        job("compare", 20, 1, "bc", "d"),
    )

    @pytest.mark.parametrize(("cores", "seconds"), [(1, 21), (2, 15), (8, 15)])
    def test_more_cores_end_sooner_until_one_job_waits_for_another(
        self, cores: int, seconds: float
    ) -> None:
        assert demo.simulate(self.jobs, cores, dispatch=0) == seconds
        assert demo.simulate(self.jobs, cores, 0.5, dispatch=0) == seconds / 2

    def test_jobs_are_started_one_after_the_other(self) -> None:
        assert demo.simulate(self.jobs, 2, dispatch=1) == 15 + 3
        assert demo.simulate(self.jobs, 1, dispatch=1) == 21 + 4

    def test_a_job_that_takes_all_cores_runs_alone(self) -> None:
        jobs = [job("plan", 0, 4, "", "a"), job("finetune", 0, 4, "", "b")]
        assert demo.simulate(jobs, 8, dispatch=0) == 8

    def test_a_circle_is_no_schedule(self) -> None:
        jobs = [job("a", 0, 1, "b", "a"), job("b", 0, 1, "a", "b")]
        with pytest.raises(ValueError, match="circle"):
            demo.simulate(jobs, 2)

    def test_what_snakemake_notes(self, tmp_path: Path) -> None:
        notes = tmp_path / ".snakemake/metadata"
        notes.mkdir(parents=True)
        record = {"rule": "augment_case", "input": ["x"], "log": ["l"], "job_hash": 7}
        record |= {"starttime": 2.5, "endtime": 4.0}
        for output in ("results/a", "results/b"):
            name = base64.urlsafe_b64encode(output.encode()).decode()
            (notes / name).write_text(json.dumps(record))
        (found,) = demo.read_jobs(tmp_path)
        assert found.outputs == {"results/a", "results/b"}
        assert (found.rule, found.seconds) == ("augment_case", 1.5)

    def test_the_processors_share_is_what_counts(self) -> None:
        """Half of the time something else ran: on free cores it takes half."""
        run = demo.Run("all", 1, wall=25.0, processor=12.5, load=2.0)
        text = demo.report([run], self.jobs, [1])
        assert "a second of a job was 0.50 s of a processor" in text
        dispatched = 4 * demo._DISPATCH
        assert f"| 1 | {4 + 10.5 + dispatched:.0f} |" in text
        assert f"gives {4 + 21 + dispatched:.0f} s for it" in text

    def test_times_of_a_run_that_is_there(self, tmp_path: Path) -> None:
        log = tmp_path / "logs/train_base.log"
        log.parent.mkdir()
        log.write_text("batches of 6, cpu, 2 threads, 0 loading processes")
        threads = demo.threads_of_trainings(tmp_path)
        text = demo.report_of(self.jobs, threads, [1])
        assert "its trainings had 2 threads each" in text
        assert "it took 21 s" in text
        assert "| finetune | 2 | 6.0 to 10.0 |" in text
        assert f"| 1 | {21 + 4 * demo._DISPATCH:.0f} |" in text

    def test_pauses_between_starts_do_not_count(self) -> None:
        later = job("summary", 121, 2, "d", "e")
        assert demo._span([*self.jobs, later], starts=2) == 23
        assert demo._span([*self.jobs, later], starts=1) == 123


def test_threads_are_judged_by_what_the_processors_do() -> None:
    one = dict.fromkeys(threads.WORK, (0.2, 0.2))
    two = dict.fromkeys(threads.WORK, (0.15, 0.3))
    text = threads.report({1: [one], 2: [two]})
    assert "| cell | 1 | 200 | 200 | 1.00 |" in text
    assert "| training iteration | 2 | 150 | 300 | 1.50 |" in text


@pytest.mark.parametrize("planner", ["default", "ResEncXL"])
def test_the_presets_are_planned_as_the_readme_says(planner: str) -> None:
    plans, _ = presets.make_plans(planner)
    planned = []
    for configuration in ("2d", "3d_fullres"):
        plan = plans["configurations"][configuration]
        patch = " x ".join(map(str, plan["patch_size"]))
        planned.append(f"{patch}, {plan['batch_size']}")
    readme = (setting.ROOT / "config/README.md").read_text(encoding="utf-8")
    assert f"| `{planner}` | {' | '.join(planned)} |" in readme
