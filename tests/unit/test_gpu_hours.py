"""The estimate of GPU hours, by hand and from the texts that it reads."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import experiments, gpu_hours, speeds
from benchmarks.speeds import Speed
from casesim.errors import UserError

ROOT = Path(__file__).parents[2]
TABLE = """\
Building DAG of jobs...
Job stats:
job               count
--------------  -------
all                   1
finetune              3
predict             120
train_base            1
total               125

host: somewhere
"""
LOG = """\
5 cases in memory, 2 epochs of 10 iterations, batches of 12, cuda:0, 6 threads, 0 \
loading processes; ready after 1.20 s
epoch 1 of 2: loss -0.1000, lr 0.001000, 2.50 s
epoch 2 of 2: loss -0.2000, lr 0.000500, 1.50 s, pseudo-Dice of the training cases 0.9
model written in 0.31 s
"""
EVEN = Speed("even", {"base": (0.1, 0.2), "finetune": (0.1, 0.2)})
LENGTHS = {"train_base": 100, "retrain": 100, "finetune": 50, "refit": 50}


def test_jobs_are_read_from_snakemake_s_table() -> None:
    counts = experiments.job_counts(TABLE)
    assert counts == {"all": 1, "finetune": 3, "predict": 120, "train_base": 1}
    assert experiments.job_counts("Nothing to be done (all requested ...).") == {}
    with pytest.raises(UserError, match="no table"):
        experiments.job_counts("KeyError: ...")


def test_configs_are_merged_and_checked_as_snakemake_does(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("training: {finetune: {epochs: 7}}")
    config = experiments.read_config([ROOT / "config/paper.yaml", mine])
    assert experiments.iterations(config) == {
        "train_base": 7500,
        "train_fold": 7500,
        "retrain": 7500,
        "finetune": 1750,
        "refit": 1750,
        "continue_base": 1750,
        "finetune_for_case": 1750,
    }
    mine.write_text("nnunet: {configuration: 3d_cascade_fullres}")
    cascade = experiments.read_config([ROOT / "config/paper.yaml", mine])
    assert experiments.iterations(cascade)["finetune"] == 2 * 25000
    mine.write_text("training: {finetune: {epoch: 7}}")
    with pytest.raises(UserError, match="epoch"):
        experiments.read_config([mine])
    with pytest.raises(UserError, match="no file"):
        experiments.read_config([tmp_path / "none.yaml"])


def test_a_training_s_log() -> None:
    training = speeds.read_training_log(LOG)
    assert training == speeds.Training(20, 4.0, "cuda:0")
    assert speeds.read_training_log("Killed") is None


def finished_run(folder: Path) -> Path:
    """A base of 4 s of iterations in a job of 10 s, two fine-tunes of 4 s in 5 s."""
    results = folder / "results"
    for name, seconds in (("train_base", 10), ("finetune/a", 5), ("finetune/b", 5)):
        benchmark = results / f"benchmarks/{name}.tsv"
        benchmark.parent.mkdir(parents=True, exist_ok=True)
        benchmark.write_text(f"s\th:m:s\tmax_rss\n{seconds}\t0:00:05\t12.3\n")
        log = folder / f"logs/{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(LOG)
    for case, network in (("a", 0.25), ("b", 0.75)):
        score = results / f"scores/base/{case}.json"
        score.parent.mkdir(parents=True, exist_ok=True)
        score.write_text(
            json.dumps({"seconds": {"network": network, "write": 0.1}, "device": "X"})
        )
    return results


def test_speeds_of_a_finished_run(tmp_path: Path) -> None:
    speed = speeds.measured(finished_run(tmp_path))
    assert speed.name == "X"
    assert speed.iteration == {"base": (0.2, 0.2), "finetune": (0.2, 0.2)}
    assert speed.outside == {"base": pytest.approx(6), "finetune": pytest.approx(1)}
    assert list(speed.cells) == [pytest.approx(0.6)]


def test_a_run_without_fine_tunes_cannot_be_measured(tmp_path: Path) -> None:
    results = finished_run(tmp_path)
    for path in (results / "benchmarks/finetune").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"training\.finetune"):
        speeds.measured(results)


def test_the_published_epochs_are_of_250_iterations() -> None:
    a100 = next(s for s in speeds.published() if s.name.startswith("A100"))
    low, high = a100.iteration["finetune"]
    assert (250 * low, 250 * high) == pytest.approx((39.71, 42.21))
    assert not a100.cells


PAGE = """\
## Training on NVIDIA H999

| plan | compiled (ms) | not compiled (ms) | nnU-Net (ms) | nnU-Net / ours |
| --- | --- | --- | --- | --- |
| 2d, 192 x 160, batch 12 | 4 (4 to 5) | 8 (8 to 8) | 18.8 (18.1 to 23.0) | 4.20 |
| 3d_fullres, 128 x 128, batch 200 | 31 (30 to 31) | 9 (9 to 9) | 44 (44 to 44) | 1 |
| 2d, 192 x 160, batch 105 | 20 (19 to 21) | 60 (60 to 60) | 30 (29 to 31.0) | 1.5 |

| batches | ready (s) | an iteration (ms) | start (s) |
| --- | --- | --- | --- |
| made on the device, compiled | 0.1 | 22.0 | 10.5 |
| made on the device, not compiled | 0.1 | 61.0 | 2.5 |
| made by loading processes, compiled | 0.1 | 80.0 | 99.0 |
"""


PREDICTION = """\
## Prediction, real size

| this workflow | 3.08 (3.05 to 3.30) |
| nnU-Net | 6.00 (5.80 to 6.22) |

## Prediction, real size on NVIDIA H111

| this workflow | 0.06 (0.05 to 0.14) |
| nnU-Net | 2.50 (2.27 to 2.54) |
| nnU-Net / this workflow | 41.04 (17.61 to 44.40) |

Ours is compiled.
"""


def test_our_own_speeds_are_read_from_the_page_of_the_benchmark() -> None:
    compiled, plain, theirs = speeds.own(PAGE)
    assert compiled.name == "H999, ours, compiled"
    assert compiled.iteration["base"] == pytest.approx((0.022, 0.022))
    assert compiled.outside == {"base": 10.5, "finetune": 10.5}
    assert plain.iteration["finetune"] == pytest.approx((0.061, 0.061))
    assert plain.outside["base"] == 2.5
    assert theirs.name == "H999, nnU-Net, compiled"
    assert theirs.iteration["finetune"] == pytest.approx((0.029, 0.031))
    assert theirs.outside["base"] == 0
    # Of two cards, the first; neither's numbers are taken for the other's.
    both = PAGE + "\n" + PAGE.replace("H999", "H111").replace("22.0", "1.0")
    assert [speed.name for speed in speeds.own(both)] == [
        *(speed.name for speed in (compiled, plain, theirs))
    ]
    assert {speed.network for speed in (compiled, plain, theirs)} == {None}
    known = speeds.own(PAGE, PREDICTION.replace("H111", "H999"))
    assert [speed.network for speed in known] == [0.06, None, 2.5]
    # Of another card, and of a network that was not compiled, nothing is known.
    for other in (PREDICTION, PREDICTION.replace("Ours is compiled", "")):
        assert {speed.network for speed in speeds.own(PAGE, other)} == {None}
    for gone in ("| 2d", "made on the device"):
        with pytest.raises(UserError, match="no table"):
            speeds.own(PAGE.replace(gone, "| 1d"))


def test_the_page_that_is_committed_has_our_own_speeds() -> None:
    names = [speed.name for speed in speeds.own(speeds.OWN.read_text())]
    assert len(names) == 3


def test_hours_by_hand() -> None:
    counts = {"train_base": 1, "finetune": 3, "refit": 1, "predict": 7200}
    speed = Speed("x", EVEN.iteration, {"base": 5.0}, (0.5, 1.0))
    assert gpu_hours.job_seconds("train_base", 100, speed) == (15, 25)
    one = gpu_hours.wall_clock(counts, LENGTHS, speed, 1, 0)
    # 15 s of base, 4 fine-tunes of 5 s, 7,200 cells of 0.5 s.
    assert one == pytest.approx((15 + 20 + 3600) / 3600)
    two = gpu_hours.wall_clock(counts, LENGTHS, speed, 2, 1)
    assert two == pytest.approx((25 + 20 + 3600) / 3600)


def test_ours_beside_nnunet_s_by_hand() -> None:
    counts = {"train_base": 1, "finetune": 2, "predict": 3600}
    lengths = {"train_base": 3600, "finetune": 3600}
    beside = {"train_base": 3600, "finetune": 36000}
    schedules = ("base", "finetune")
    ours = Speed(
        f"H9, {speeds.OURS}", dict.fromkeys(schedules, (1.0, 1.0)), network=1.0
    )
    theirs = Speed(
        f"H9, {speeds.NNUNET}", dict.fromkeys(schedules, (1.0, 2.0)), network=9.0
    )
    # 1 + 2 + 1 hours; 1 + 20 + 9 at least, and 2 + 40 + 9 at most.
    text = gpu_hours.comparison(counts, lengths, beside, [ours, theirs])
    assert "one H9: 4.0 GPU hours" in text
    assert "fine-tunes of 36,000 iterations: 30.0 to 51.0, 7.5 to 12.8 times" in text
    assert "trainings alone 7.0 to 14.0 times" in text
    page = gpu_hours.section("p", counts, lengths, [ours, theirs], [1], beside)
    assert "| predict, the network alone | 3,600 | | 1.0 | 9.0 |" in page
    assert "4.0 GPU hours" in page
    # Nothing is compared that was not measured.
    unknown = Speed(theirs.name, theirs.iteration)
    assert not gpu_hours.comparison(counts, lengths, beside, [ours, unknown])


def test_makespan_by_hand() -> None:
    # 3, 3, 2, 2, 2 on two GPUs: 3 + 2 + 2 = 7 and 3 + 2.
    assert gpu_hours.makespan([(3, 2.0), (2, 3.0)], 2) == 7
    assert gpu_hours.makespan([], 4) == 0


@given(
    st.lists(st.tuples(st.integers(0, 6), st.floats(0.1, 9)), max_size=4),
    st.integers(1, 5),
)
def test_makespan_lies_within_graham_s_bounds(
    jobs: list[tuple[int, float]], gpus: int
) -> None:
    found = gpu_hours.makespan(jobs, gpus)
    total = sum(number * seconds for number, seconds in jobs)
    longest = max((seconds for number, seconds in jobs if number), default=0.0)
    least = max(total / gpus, longest)
    # Graham (1966): a list schedule ends before the mean load plus one job.
    assert least - 1e-9 <= found <= total / gpus + longest + 1e-9


def test_the_page_states_what_is_assumed() -> None:
    arguments = gpu_hours.parse(
        [
            *("--configfile", "config/paper.yaml", "--published"),
            *("--seconds-per-cell", "0.2", "1", "--pretend-cases", "484"),
        ]
    )
    text = gpu_hours.introduction("python x", arguments)
    for words in ("Published, of nnU-Net", "assumptions", "484", "39.71"):
        assert words in text
    counts = {"train_base": 1, "finetune": 50, "predict": 5000}
    page = gpu_hours.section(
        "paper", counts, LENGTHS, gpu_hours.chosen_speeds(arguments), [1]
    )
    assert "| predict, at 0.2 s a cell | 5,000 | | 0.3 | 0.3 | 0.3 |" in page
    assert "retrain" not in page


def test_unknown_cells_are_not_made_up() -> None:
    page = gpu_hours.section("p", {"train_base": 1, "predict": 9}, LENGTHS, [EVEN], [1])
    assert "| predict | 9 | | ? |" in page
    assert "cells left out" in page
    given = gpu_hours.parse(["--configfile", "a", "--seconds-per-iteration", "2", "1"])
    assert gpu_hours.chosen_speeds(given)[0].iteration["base"] == (1, 2)
    with pytest.raises(SystemExit):
        gpu_hours.parse(["--configfile", "a", "--seconds-per-iteration", "0"])
    with pytest.raises(SystemExit):
        gpu_hours.parse(["--configfile", "a"])


@pytest.mark.parametrize("name", ["config/paper.yaml", "config/rigorous.yaml"])
def test_the_committed_page_is_up_to_date(name: str) -> None:
    """With jobs counted from the config alone, and not by Snakemake."""
    config = experiments.read_config([ROOT / name])
    cohort, pruning = config["cohort"], config["pruning"]
    arms = len(pruning["arms"]) + pruning["random_arms"]
    retrained = len(pruning["seeds"]) * arms + len(pruning["seeds"]) - 1
    fits = cohort["train_cases"] + config["stability"]["refits"]
    judges = cohort["pool"] + cohort["held_out"]
    counts = {
        "train_base": 1,
        "finetune": cohort["train_cases"],
        "refit": config["stability"]["refits"],
        "retrain": retrained,
        "predict": fits * cohort["pool"] + (1 + retrained) * judges,
    }
    arguments = gpu_hours.parse(
        [
            *("--configfile", name, "--own", "--published"),
            *("--seconds-per-cell", "0.2", "0.5", "1"),
        ]
    )
    paper = experiments.read_config([ROOT / "config/paper.yaml"])
    expected = gpu_hours.section(
        name,
        counts,
        experiments.iterations(config),
        gpu_hours.chosen_speeds(arguments),
        arguments.gpus,
        experiments.iterations(paper),
    )
    page = (ROOT / "docs/gpu_hours.md").read_text(encoding="utf-8")
    assert expected in page
    assert "Measured of this product" in page
