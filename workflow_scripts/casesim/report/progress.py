"""A run told in few lines: what was done, in what time, and how long the rest takes.

The estimate is made of this run's own finished jobs. A kind is the jobs of one rule;
its pace is the time in which jobs of it were running, divided by the number that
finished, so that jobs side by side count as fast as they come. Kinds that run at the
same time are corrected for by the share of the run's time in the sum of the kinds'.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

# Each of their jobs has a line of its own; another kind has one when its last job ends.
TRAININGS = frozenset(
    {
        *("train_base", "finetune", "refit", "retrain", "train_fold"),
        *("continue_base", "finetune_for_case"),
    }
)
# So many and so short that they appear as a number in the lines of others.
CELLS = "predict"
# What decides how long a run takes: without a pace of each, an estimate is a bound.
LONG = TRAININGS | {CELLS, "label_quality", "predict_label_free"}
# The same work, done before: its pace serves until there is one of the kind's own.
SAME_WORK = {
    "augment_case_again": "augment_case",
    "refit": "finetune",
    "retrain": "train_base",
    "train_fold": "train_base",
    "continue_base": "finetune",
    "finetune_for_case": "finetune",
}
SECONDS_BETWEEN_CELL_LINES = 30.0


@dataclass
class _Kind:
    """The jobs of one rule; times in seconds, on the clock of the caller."""

    total: int = 0
    done: int = 0
    started: dict[int, float] = field(default_factory=dict)
    began: float = float("inf")
    busy: float = 0.0
    busy_when_last_finished: float = 0.0

    @property
    def pace(self) -> float | None:
        """Seconds from one finished job to the next, while this kind is at work."""
        return self.busy_when_last_finished / self.done if self.done else None


@dataclass
class _Job:
    rule: str
    name: str
    told: bool


class Progress:
    """What is known of a run from its jobs' starts and ends.

    Args:
        totals: how many jobs each rule has in this run.
    """

    def __init__(self, totals: Mapping[str, int]) -> None:
        self._kinds = {rule: _Kind(total) for rule, total in totals.items()}
        self._jobs: dict[int, _Job] = {}
        self._now = 0.0
        self._busy = 0.0
        self._last_line = float("-inf")

    def start(
        self,
        job: int,
        rule: str,
        wildcards: Mapping[str, str],
        now: float,
        told: bool = True,
    ) -> None:
        """Note that a job runs, or is submitted; no line is made of one not `told`."""
        self._move_to(now)
        self._jobs[job] = _Job(rule, " ".join([rule, *wildcards.values()]), told)
        kind = self._kinds.setdefault(rule, _Kind())
        kind.started[job] = now
        kind.began = min(kind.began, now)

    def fail(self, job: int, now: float) -> None:
        """Note that a job does not run any more; it may be started again."""
        self._move_to(now)
        if job in self._jobs:
            self._kinds[self._jobs[job].rule].started.pop(job, None)

    def finish(self, job: int, now: float) -> str | None:
        """Note that a job is done; returns the line that says so, if there is one."""
        self._move_to(now)
        if job not in self._jobs:
            return None
        done = self._jobs[job]
        kind = self._kinds[done.rule]
        start = kind.started.pop(job, now)
        kind.done += 1
        kind.total = max(kind.total, kind.done)
        kind.busy_when_last_finished = kind.busy
        if not done.told:
            return None
        if done.rule in TRAININGS or kind.total == 1:
            return self._line(f"{done.name} ({duration(now - start)})")
        if kind.done == kind.total:
            whole = duration(now - kind.began)
            return self._line(f"{done.rule}: all {kind.total:,} ({whole})")
        silent = now - self._last_line
        if done.rule == CELLS and silent >= SECONDS_BETWEEN_CELL_LINES:
            return self._line()
        return None

    def status(self, now: float) -> str | None:
        """What is being done, for when nothing has been said for long."""
        self._move_to(now)
        running = sorted(
            (start, job)
            for kind in self._kinds.values()
            for job, start in kind.started.items()
        )
        if not running:
            return None
        start, job = running[0]
        more = f" and {len(running) - 1:,} more" if len(running) > 1 else ""
        name = self._jobs[job].name
        return self._line(f"at work on {name}{more} for {duration(now - start)}")

    def seconds_left(self) -> tuple[float, bool] | None:
        """An estimate, and whether all long kinds are in it; None without any."""
        left, known, whole = 0.0, False, True
        for rule, kind in self._kinds.items():
            missing = kind.total - kind.done
            pace = kind.pace
            if pace is None and rule in SAME_WORK:
                same = self._kinds.get(SAME_WORK[rule])
                pace = same.pace if same else None
            if rule in LONG:
                known |= pace is not None
                whole &= pace is not None or not missing
            if missing > 0 and pace is not None:
                since_last = kind.busy - kind.busy_when_last_finished
                waiting = missing - len(kind.started)
                left += max(missing * pace - since_last, waiting * pace)
        if not known:
            return None
        at_work = sum(kind.busy for kind in self._kinds.values())
        return left * (self._busy / at_work if at_work else 1.0), whole

    def _move_to(self, now: float) -> None:
        step = max(0.0, now - self._now)
        at_work = [kind for kind in self._kinds.values() if kind.started]
        for kind in at_work:
            kind.busy += step
        if at_work:
            self._busy += step
        self._now = max(now, self._now)

    def _line(self, what: str = "") -> str:
        self._last_line = self._now
        total = sum(kind.total for kind in self._kinds.values())
        done = sum(kind.done for kind in self._kinds.values())
        parts = [what] if what else []
        cells = self._kinds.get(CELLS)
        if cells and cells.done > 0 and (cells.done < cells.total or not what):
            parts.append(f"cells {cells.done:,} of {cells.total:,}")
        estimate = self.seconds_left()
        if estimate and estimate[0] and done < total:
            seconds, whole = estimate
            parts.append(
                f"{'about' if whole else 'more than'} {duration(seconds)} left"
            )
        return f"{100 * done // total if total else 100:3d} %  {' · '.join(parts)}"


def duration(seconds: float) -> str:
    """A length of time as one says it: 4 s, 12 min, 3 h 20 min, 2 d 4 h."""
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"
