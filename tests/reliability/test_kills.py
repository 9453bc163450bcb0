"""Killed at random, the same command finishes, with the result of a calm run.

Each study is killed from another stage on. In full only: the samples of each day are in
`test_machine.py`, and `workflow/test_interruption.py` kills at chosen moments.
"""

import os
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest

from workflow.conftest import Checkout, processes, wait_for

from .conftest import FULL, SEED, TARGETS, TINY, tables
from .kills import STAGES, Kills, go_back, seeds

KILLS = int(os.environ.get("RELIABILITY_KILLS", "100"))
PER_STUDY = 25

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def outcome(kills: Kills) -> Counter[str]:
    """Counts of what was done; no cell that Snakemake had noted may be lost."""
    count = Counter({"kills survived": len(kills.done)})
    for kind, how, _ in kills.done:
        count[f"kills of {kind}, {how}"] += 1
    again, lost = kills.computed_again()
    count["cells computed again after a kill"] += len(again)
    count["cells lost"] += len(lost)
    assert not lost, f"{kills}\n{lost}"
    # What was killed leaves nothing beside the study for long.
    folder = str(kills.checkout.folder)
    wait_for(lambda: not processes("casesim", folder), seconds=60)
    half = list(kills.checkout.path("results").rglob(".tmp-*"))
    count["hidden files left behind"] += len(half)
    return count


@pytest.mark.skipif(not FULL, reason="make reliability")
@pytest.mark.timeout(6 * 3600)
def test_many_kills_from_beginning_to_end(
    undisturbed: Checkout, tmp_path: Path, count: Counter[str]
) -> None:
    expected, done = tables(undisturbed), 0
    stages = list(STAGES)
    for seed in seeds(1000 * SEED):
        if done >= KILLS:
            break
        stage = stages[(SEED + seed) % len(stages)]
        checkout = Checkout(tmp_path / f"study_{seed}", TINY)
        checkout.take_results(undisturbed)
        go_back(checkout, stage)
        kills = Kills(checkout, TARGETS, seed)
        kills.run(min(KILLS - done, PER_STUDY))
        kills.finish()
        print(f"From where {stage}: {kills}")
        counted = outcome(kills)
        assert tables(checkout) == expected, kills
        count.update({**counted, "studies killed again and again": 1})
        done += len(kills.done)
        shutil.rmtree(checkout.folder)


def test_what_snakemake_has_not_noted_is_known(tmp_path: Path) -> None:
    from base64 import urlsafe_b64encode

    checkout = Checkout(tmp_path / "study")
    marker = checkout.path(".snakemake/incomplete")
    marker.mkdir(parents=True)
    name = "results/scores/base/phantom_001.json"
    (marker / urlsafe_b64encode(name.encode()).decode()).touch()
    assert Kills(checkout, TARGETS, 0)._unfinished() == {str(checkout.path(name))}
