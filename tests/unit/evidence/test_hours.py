"""Hours of trainings and cells, by hand."""

import json
import math
from pathlib import Path

import pytest

from casesim.evidence.hours import spent


def job(folder: Path, name: str, seconds: float) -> str:
    path = folder / f"{name}.tsv"
    path.write_text(f"s\th:m:s\tmax_rss\n{seconds}\t0:00:05\t12.3\n")
    return path.name


def model(folder: Path, name: str, *epochs: float, stage: str = "") -> str:
    path = folder / name / stage / "progress.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([{"seconds": s, "loss": math.nan} for s in epochs]))
    return name


def test_the_longer_of_a_job_and_its_epochs_counts(tmp_path: Path) -> None:
    whole = {job(tmp_path, "whole", 1800): model(tmp_path, "a", 700, 700)}
    assert spent(whole, {}, tmp_path) == 0.5
    # Its model was there: only to see that took a second.
    kept = {job(tmp_path, "kept", 1): model(tmp_path, "b", 1000, 2600)}
    assert spent(kept, {}, tmp_path) == 1
    assert spent(whole | kept, {}, tmp_path) == 1.5


def test_both_stages_of_a_cascade(tmp_path: Path) -> None:
    name = model(tmp_path, "a", 1800)
    model(tmp_path, "a", 1800, stage="3d_lowres")
    assert spent({job(tmp_path, "kept", 1): name}, {}, tmp_path) == 1


def test_what_has_noted_nothing_is_unknown(tmp_path: Path) -> None:
    older = {job(tmp_path, "older", 3600): "no_such_model"}
    assert spent(older, {}, tmp_path) == 1
    assert math.isnan(spent(older | {"none.tsv": "none"}, {}, tmp_path))
    (tmp_path / "cut_off.tsv").write_text("s\th:m:s\n")
    assert math.isnan(spent({"cut_off.tsv": "none"}, {}, tmp_path))


def test_cells_of_a_model_cost_alike(tmp_path: Path) -> None:
    score = tmp_path / "score.json"
    score.write_text(json.dumps({"seconds": {"network": 2.0, "write": 1.0}}))
    assert spent({}, {"score.json": 600}, tmp_path) == pytest.approx(0.5)
