"""A finished model is not trained again when nothing that it depends on has changed."""

import re
from pathlib import Path

import pytest
from unit.conftest import TinyCohort
from unit.training.trainings import SCHEDULE, train

from casesim.nnunet.files import read_json, write_json
from casesim.training.keeping import Keeper


def delete_outputs(checkpoint: Path) -> None:
    """As Snakemake does before it runs a job."""
    folder = checkpoint.parent.parent
    for path in (checkpoint, folder / "plans.json", folder / "dataset.json"):
        path.unlink()


def epochs(output: str) -> int:
    return len(re.findall(r"loss -?[\d.]+", output))


def test_the_same_training_is_not_done_twice(
    tiny_cohort: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = train(tiny_cohort, tmp_path)
    content = first.read_bytes()
    assert epochs(capsys.readouterr().out) == SCHEDULE["epochs"]
    delete_outputs(first)
    assert train(tiny_cohort, tmp_path) == first
    output = capsys.readouterr().out
    assert "from an earlier run" in output
    assert epochs(output) == 0
    assert first.read_bytes() == content
    assert {path.name for path in tmp_path.glob("*.json")} == {
        *("plans.json", "dataset.json", "progress.json")
    }
    # Whatever the weights depend on makes it another training.
    shorter = {**SCHEDULE, "epochs": 1}
    for change in ({"seed": 5}, {"schedule": shorter}, {"storage": "float16"}):
        delete_outputs(first)
        train(tiny_cohort, tmp_path, **change)
        assert epochs(capsys.readouterr().out) >= 1
    # Fewer cases, too; and then the first again.
    delete_outputs(first)
    train(tiny_cohort, tmp_path, cases=tiny_cohort.stems[:2])
    assert epochs(capsys.readouterr().out) >= 1
    delete_outputs(first)
    train(tiny_cohort, tmp_path)
    assert epochs(capsys.readouterr().out) == SCHEDULE["epochs"]
    assert first.read_bytes() == content


def test_a_kept_model_has_the_dataset_json_of_today(
    tiny_cohort: TinyCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What number a region gets in a label map changes no weight."""
    first = train(tiny_cohort, tmp_path / "model")
    content = first.read_bytes()
    delete_outputs(first)
    changed = read_json(tiny_cohort.dataset) | {"regions_class_order": [2, 1]}
    write_json(tmp_path / "dataset.json", changed)
    capsys.readouterr()
    assert train(tiny_cohort, tmp_path / "model", dataset=tmp_path / "dataset.json")
    assert epochs(capsys.readouterr().out) == 0
    assert first.read_bytes() == content
    assert read_json(tmp_path / "model/dataset.json") == changed


def test_what_is_kept_must_be_whole(tmp_path: Path) -> None:
    files = [tmp_path / "fold_all/final.pth", tmp_path / "plans.json"]
    files[0].parent.mkdir()
    for file in files:
        file.write_text(file.name)
    keeper = Keeper(tmp_path / "fold_all", files)
    assert not keeper.restore(lambda: "key")
    keeper.keep("key")
    for file in files:
        file.unlink()
    assert not keeper.restore(lambda: "another")
    assert not files[0].exists()
    assert keeper.restore(lambda: "key")
    assert [file.read_text() for file in files] == ["final.pth", "plans.json"]
    kept = tmp_path / "fold_all/.kept"
    # A power cut may leave a file short: it is another one, not this link's.
    (kept / "plans.json").unlink()
    (kept / "plans.json").write_text("pla")
    assert not keeper.restore(lambda: "key")
    (kept / "record.json").write_text("{")
    assert not keeper.restore(lambda: "key")


def test_the_key_is_not_asked_for_without_need(tmp_path: Path) -> None:
    def key() -> str:
        raise AssertionError("reads all cases")

    assert not Keeper(tmp_path, [tmp_path / "final.pth"]).restore(key)
