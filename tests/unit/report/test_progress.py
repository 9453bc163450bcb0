"""Lines and estimates against what they are by hand."""

import pytest

from casesim.report.progress import Progress, duration

TOTALS = {"import_case": 2, "train_base": 1, "finetune": 4, "predict": 8, "cluster": 1}


def started_base() -> Progress:
    """Cases imported side by side in 4 s, the base model trained in 20 s: now is 24."""
    run = Progress(TOTALS)
    for job, case in enumerate("ab"):
        run.start(job, "import_case", {"case": case}, now=0)
    assert run.finish(0, 3) is None
    assert run.finish(1, 4) == " 12 %  import_case: all 2 (4 s)"
    run.start(2, "train_base", {}, now=4)
    assert run.seconds_left() is None
    assert run.finish(2, 24) == " 18 %  train_base (20 s)"
    return run


def test_a_training_has_a_line_with_what_it_is_and_how_long_it_took() -> None:
    run = started_base()
    run.start(3, "finetune", {"case": "a"}, now=24)
    # Three more of 10 s; nothing is known of cells.
    assert run.finish(3, 34) == " 25 %  finetune a (10 s) · more than 30 s left"


def test_cells_are_a_count_and_the_estimate_is_complete_with_them() -> None:
    run = started_base()
    run.start(3, "finetune", {"case": "a"}, now=24)
    run.finish(3, 34)
    for cell, now in ((4, 34), (5, 36)):
        run.start(cell, "predict", {"model": "a", "case": "b"}, now=now)
        assert run.finish(cell, now + 2) is None
    # Three fine-tunes of 10 s, six cells of 2 s; the tables after them are not counted.
    assert run.seconds_left() == (42.0, True)
    run.start(6, "finetune", {"case": "b"}, now=38)
    line = run.finish(6, 48)
    assert line == " 43 %  finetune b (10 s) · cells 2 of 8 · about 32 s left"


def test_cells_alone_are_told_of_now_and_then() -> None:
    run = Progress({"predict": 100})
    lines = []
    for cell in range(100):
        run.start(cell, "predict", {"case": str(cell)}, now=10 * cell)
        lines.append(run.finish(cell, 10 * cell + 10))
    told = [line for line in lines if line]
    assert told[0] == "  1 %  cells 1 of 100 · about 16 min left"
    assert told[1] == "  4 %  cells 4 of 100 · about 16 min left"
    assert len(told) == 34


def test_the_elapsed_part_of_a_running_job_is_not_left() -> None:
    run = Progress({"finetune": 3})
    run.start(0, "finetune", {"case": "a"}, now=0)
    run.finish(0, 100)
    run.start(1, "finetune", {"case": "b"}, now=100)
    run.status(130)
    assert run.seconds_left() == (170.0, True)
    # One that takes longer than all before it: the other is still to come.
    run.status(400)
    assert run.seconds_left() == (100.0, True)


def test_jobs_side_by_side_come_as_fast_as_they_come() -> None:
    run = Progress({"finetune": 8})
    for job in range(4):
        run.start(job, "finetune", {}, now=0)
    for job in range(4):
        run.finish(job, 100)
    assert run.seconds_left() == (100.0, True)


def test_kinds_side_by_side_do_not_add_up() -> None:
    run = Progress({"finetune": 4, "predict": 4})
    for job in (0, 1):
        run.start(job, "finetune", {}, now=100 * job)
        run.start(10 + job, "predict", {}, now=100 * job)
        run.finish(job, 100 * job + 100)
        run.finish(10 + job, 100 * job + 100)
    assert run.seconds_left() == (200.0, True)


def test_a_retrain_is_as_long_as_the_base_until_one_is_known() -> None:
    run = Progress({"train_base": 1, "retrain": 2})
    run.start(0, "train_base", {}, now=0)
    run.finish(0, 50)
    assert run.seconds_left() == (100.0, True)
    run.start(1, "retrain", {"retrained": "random_1"}, now=50)
    line = run.finish(1, 80)
    assert line == " 66 %  retrain random_1 (30 s) · about 30 s left"


def test_a_failed_job_is_left_and_may_come_again() -> None:
    run = Progress({"finetune": 2})
    run.start(0, "finetune", {"case": "a"}, now=0)
    run.finish(0, 10)
    run.start(1, "finetune", {"case": "b"}, now=10)
    run.fail(1, 15)
    assert run.status(100) is None
    run.start(1, "finetune", {"case": "b"}, now=100)
    assert run.finish(1, 110) == "100 %  finetune b (10 s)"


def test_silence_is_broken_by_what_is_being_done() -> None:
    run = Progress(TOTALS)
    run.start(0, "train_base", {}, now=0)
    run.start(1, "finetune", {"case": "a"}, now=60)
    assert run.status(7200) == "  0 %  at work on train_base and 1 more for 2 h 0 min"


def test_what_only_gathers_has_no_line() -> None:
    run = Progress({"all": 1})
    run.start(0, "all", {}, now=0, told=False)
    assert run.finish(0, 1) is None
    assert run.finish(99, 1) is None


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.2, "0 s"),
        (99, "99 s"),
        (100, "2 min"),
        (5900, "98 min"),
        (12000, "3 h 20 min"),
        (187200, "2 d 4 h"),
    ],
)
def test_durations_as_one_says_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said
