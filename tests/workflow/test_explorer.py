"""From a finished run to a reviewer's decisions, and back into the next run."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from casesim.explorer import pack

from .conftest import Checkout, succeeded
from .test_dry_run import job_counts

RAW = "results/nnunet/raw/Dataset001_Cohort"


def test_the_page_is_part_of_every_run(finished: Checkout) -> None:
    explorer = finished.path("results/explorer")
    assert (explorer / "index.html").exists()
    study = pack.read_script(explorer / "data/study.js")
    assert study["channels"] == ["FLAIR", "T1w", "T1gd", "T2w"]
    models = ["base", "retrained/worst_cluster", "retrained/random_1"]
    assert [model["name"] for model in study["models"]] == models
    for case in study["tests"]:
        maps = pack.read_script(explorer / f"data/{case}/maps.js")["maps"]
        finetuned = [] if case in study["held_out"] else study["rows"]
        assert set(maps) == {
            *("reference", *models),
            *(f"finetuned/{row}" for row in finetuned),
        }
    assert study["left_out"] == {}


@pytest.fixture(scope="module")
def reviewed(
    finished: Checkout, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Checkout, str]:
    """The finished run with decisions on three cases and one corrected label map."""
    folder = tmp_path_factory.mktemp("reviewed") / "run"
    shutil.copytree(finished.folder, folder, symlinks=True)
    study = pack.read_script(folder / "results/explorer/data/study.js")
    removed, corrected, waiting, _, _, other = sorted(study["rows"])
    lines = ["case\tdecision\tnote\treviewer\ttime\tmatrix_digest\theld_out_seen"]
    for case, word in (
        (removed, "remove"),
        (corrected, "relabel"),
        (waiting, "relabel"),
        (other, "remove"),
    ):
        lines.append(f"{case}\t{word}\t\tR\t\t{study['digest']}\tfalse")
    (folder / "decisions.tsv").write_text("\n".join(lines) + "\n")
    (folder / "corrections").mkdir()
    name = f"{corrected}.nii.gz"
    shutil.copy(folder / RAW / "labelsTr" / name, folder / "corrections" / name)
    config = {
        **yaml.safe_load((folder / "test.yaml").read_text()),
        "pruning": {"random_arms": 1, "decisions": "decisions.tsv"},
    }
    config["cohort"] = {**config["cohort"], "corrections": "corrections"}
    return Checkout(folder, config), f"{removed} {other} {corrected} {waiting}"


def test_decisions_make_arms_of_their_own(reviewed: tuple[Checkout, str]) -> None:
    checkout, cases = reviewed
    removed, other, corrected, waiting = cases.split()
    counts = job_counts(succeeded(checkout.run("-n", "--quiet", "rules")))
    # `reviewed`, `relabelled` and the random arm of the first one's size.
    assert counts["retrain"] == 3
    assert counts["predict"] == 3 * 8
    assert counts["preprocess_correction"] == 1
    assert not {"finetune", "train_base", "preprocess_case", "cluster"} & set(counts)

    label = checkout.path(RAW, "labelsTr", f"{corrected}.nii.gz")
    original = label.read_bytes()
    succeeded(checkout.run())
    table = pd.read_csv(checkout.path("results/pruning/comparison.tsv"), sep="\t")
    gone = table[table["removed"]].groupby("arm")["case"].unique()
    assert sorted(gone["reviewed"]) == sorted([removed, other])
    assert list(gone["relabelled"]) == [corrected]
    assert len(gone["random_reviewed_1"]) == 2
    assert set(gone["random_reviewed_1"]) != {removed, other}
    summary = json.loads(checkout.path("results/pruning/summary.json").read_text())
    assert summary["arms"]["reviewed"]["removed_cases"] == sorted([removed, other])
    assert summary["arms"]["relabelled"]["removed_cases"] == []
    assert summary["arms"]["relabelled"]["corrected_cases"] == [corrected]
    assert summary["decisions"]["not_corrected"] == [waiting]
    words = checkout.path("results/summary.md").read_text()
    assert f"neither removed nor mended: {waiting}" in words
    assert len(words.splitlines()) < 20
    assert (
        checkout.path(RAW, "labelsTr", f"{corrected}.nii.gz").read_bytes() == original
    )
    # The page shows the new arms.
    study = pack.read_script(checkout.path("results/explorer/data/study.js"))
    assert "retrained/reviewed" in [model["name"] for model in study["models"]]


def test_stale_decisions_are_refused(reviewed: tuple[Checkout, str]) -> None:
    checkout, _ = reviewed
    path = checkout.path("decisions.tsv")
    fresh = path.read_text()
    study = pack.read_script(checkout.path("results/explorer/data/study.js"))
    path.write_text(fresh.replace(study["digest"], "0" * 64))
    try:
        result = checkout.run("results/pruning/reviewed/removed_cases.txt")
        assert result.returncode != 0
        assert "made on another matrix" in result.stdout
        assert "Traceback" not in result.stdout
    finally:
        path.write_text(fresh)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["nobody\tremove\t\t\t\tx"], "nobody is no train case"),
        (["phantom_001\tburn\t\t\t\tx"], "'burn' is none of"),
    ],
)
def test_a_mistake_in_the_decisions_stops_the_start(
    tmp_path: Path, lines: list[str], message: str
) -> None:
    checkout = Checkout(tmp_path, {"pruning": {"decisions": "decisions.tsv"}})
    head = "case\tdecision\tnote\treviewer\ttime\tmatrix_digest"
    checkout.path("decisions.tsv").write_text("\n".join([head, *lines]) + "\n")
    result = checkout.run("-n")
    assert result.returncode != 0
    assert message in result.stdout
    assert "Traceback" not in result.stdout
