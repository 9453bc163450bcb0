"""A small cohort from the first rule to the last figure, and what it leaves behind."""

import json
import runpy
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk  # noqa: N813
import yaml
from scipy.cluster.hierarchy import linkage

from benchmarks import speeds
from casesim.processes.devices import visible_gpus
from casesim.similarity import kinds

from .conftest import ROOT, Checkout, processes, succeeded, wait_for
from .independent import predict_by_command
from .test_dry_run import job_counts

# Without phantom_005, and with the two that have a defect.
FEWER = [f"phantom_00{number}" for number in (1, 2, 3, 4, 6)]
FILES = [
    "cohort.tsv",
    "checks.tsv",
    "cohort.png",
    "models/base/plans.json",
    "models/base/dataset.json",
    "models/base/fold_all/checkpoint_final.pth",
    "scores/base.tsv",
    "similarity/matrix.tsv",
    "similarity/matrix_undefined.tsv",
    "similarity/matrix_WT.tsv",
    "similarity/linkage.tsv",
    "similarity/leaf_order.tsv",
    "similarity/clusters.tsv",
    "similarity/heatmap.png",
    "similarity/heatmap.svg",
    "similarity/dendrogram.png",
    "similarity/dendrogram.svg",
    "similarity/stability.tsv",
    "similarity/stability.json",
    "similarity/stability.png",
    "similarity/stability.svg",
    "evidence/detection.tsv",
    "evidence/detection.png",
    "evidence/detection.svg",
    "pruning/worst_cluster/training_cases.txt",
    "pruning/worst_cluster/removed_cases.txt",
    "pruning/random_1/removed_cases.txt",
    "pruning/comparison.tsv",
    "pruning/comparison.png",
    "pruning/comparison.svg",
    "pruning/overlays.png",
    "pruning/summary.json",
]


def read(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def dice_by_simpleitk(prediction: Path, reference: Path, labels: list[int]) -> float:
    """Mean Dice over labels, by another library than ours; NaN where both are empty."""
    images = [sitk.ReadImage(str(path)) for path in (prediction, reference)]
    values = []
    for label in labels:
        masks = [sitk.Equal(image, label) for image in images]
        if not any(sitk.GetArrayViewFromImage(mask).any() for mask in masks):
            continue
        measures = sitk.LabelOverlapMeasuresImageFilter()
        measures.Execute(*masks)
        values.append(measures.GetDiceCoefficient())
    return float(np.mean(values)) if values else float("nan")


def test_the_files_that_others_rely_on_are_there(finished: Checkout) -> None:
    missing = [
        name
        for name in FILES
        if not finished.path("results", name).is_file()
        or finished.path("results", name).stat().st_size == 0
    ]
    assert missing == []


def test_nothing_is_left_to_do(finished: Checkout) -> None:
    assert "Nothing to be done" in succeeded(finished.run())


def test_without_a_gpu_trainings_run_side_by_side(finished: Checkout) -> None:
    """Although `profiles/default` lets one job with a GPU run at a time."""
    if visible_gpus():
        pytest.skip("this machine has a GPU")
    spans = []
    for path in finished.path("results/benchmarks/finetune").glob("*.tsv"):
        end = path.stat().st_mtime
        spans.append((end - speeds.read_benchmark(path), end))
    spans.sort()
    assert any(before[1] > after[0] for before, after in pairwise(spans))


def test_cohort_table(finished: Checkout) -> None:
    table = pd.read_csv(
        finished.path("results/cohort.tsv"), sep="\t", keep_default_na=False
    )
    assert list(table.columns) == [
        *("case", "image", "label", "role", "train_case", "source", "planted"),
        "patient",
    ]
    assert (table.role == "pool").sum() == 6
    assert (table.role == "held_out").sum() == 2
    assert (table.planted == "swapped_labels").sum() == 2
    for column in ("image", "label"):
        assert all(finished.path(name).is_file() for name in table[column])


def test_every_cell_of_the_matrix_is_the_dice_of_its_label_map(
    finished: Checkout,
) -> None:
    matrix = pd.read_csv(
        finished.path("results/similarity/matrix.tsv"), sep="\t", index_col=0
    )
    assert matrix.shape == (6, 6)
    raw = finished.path("results/nnunet/raw/Dataset001_Cohort/labelsTr")
    for row in matrix.index:
        for column in matrix.columns:
            prediction = finished.path(
                f"results/predictions/finetuned/{row}/{column}.nii.gz"
            )
            expected = dice_by_simpleitk(
                prediction, raw / f"{column}.nii.gz", [1, 2, 3]
            )
            assert matrix.loc[row, column] == pytest.approx(expected, abs=1e-9)


def test_the_tree_is_scipy_s(finished: Checkout) -> None:
    folder = finished.path("results/similarity")
    matrix = pd.read_csv(folder / "matrix.tsv", sep="\t", index_col=0)
    table = pd.read_csv(folder / "linkage.tsv", sep="\t")
    assert list(table.columns) == ["left", "right", "distance", "size"]
    expected = linkage(matrix.to_numpy(), "average")
    np.testing.assert_allclose(table.to_numpy(), expected, rtol=1e-9)


def test_nnunet_s_own_command_predicts_the_same(
    finished: Checkout, tmp_path: Path
) -> None:
    model = finished.path("results/models/finetuned/phantom_001")
    if not model.exists():
        model = sorted(finished.path("results/models/finetuned").iterdir())[0]
    raw = finished.path("results/nnunet/raw/Dataset001_Cohort")
    cases = sorted(path.name[:-7] for path in (raw / "labelsTr").iterdir())[:3]
    inputs = tmp_path / "in"
    inputs.mkdir()
    for case in cases:
        for image in (raw / "imagesTr").glob(f"{case}_*.nii.gz"):
            (inputs / image.name).symlink_to(image)
    predict_by_command(inputs, model, tmp_path / "out")
    pool = pd.read_csv(finished.path("results/cohort.tsv"), sep="\t").query(
        "role == 'pool'"
    )
    compared = 0
    for case in set(cases) & set(pool.case):
        theirs = read(tmp_path / "out" / f"{case}.nii.gz")
        ours = read(
            finished.path(f"results/predictions/finetuned/{model.name}/{case}.nii.gz")
        )
        assert (theirs == ours).mean() >= 0.999
        compared += 1
    assert compared


def test_label_maps_lie_on_the_grid_of_the_image(finished: Checkout) -> None:
    raw = finished.path("results/nnunet/raw/Dataset001_Cohort/imagesTr")
    for path in finished.path("results/predictions/base").glob("*.nii.gz"):
        image = sitk.ReadImage(str(raw / path.name.replace(".nii", "_0000.nii")))
        label_map = sitk.ReadImage(str(path))
        for geometry in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
            assert getattr(image, geometry)() == getattr(label_map, geometry)()


def test_scores_hold_the_counts(finished: Checkout) -> None:
    path = sorted(finished.path("results/scores/base").glob("*.json"))[0]
    record = json.loads(path.read_text())
    prediction = read(finished.path(f"results/predictions/base/{path.stem}.nii.gz"))
    reference = read(
        finished.path(
            f"results/nnunet/raw/Dataset001_Cohort/labelsTr/{path.stem}.nii.gz"
        )
    )
    tumour = record["regions"]["WT"]
    assert tumour["tp"] == ((prediction > 0) & (reference > 0)).sum()
    assert tumour["n_pred"] == (prediction > 0).sum()
    assert tumour["n_ref"] == (reference > 0).sum()
    assert record["device"] == "cpu" or record["device"].startswith("cuda")


def test_held_out_cases_are_seen_by_no_model_and_no_decision(
    finished: Checkout,
) -> None:
    table = pd.read_csv(finished.path("results/cohort.tsv"), sep="\t")
    held_out = set(table.case[table.role == "held_out"])
    matrix = pd.read_csv(
        finished.path("results/similarity/matrix.tsv"), sep="\t", index_col=0
    )
    assert not held_out & (set(matrix.index) | set(matrix.columns))
    for path in finished.path("results/pruning").glob("*/training_cases.txt"):
        assert not held_out & set(path.read_text().split())
    for fits in ("finetuned", "refitted"):
        cells = list(finished.path("results/scores", fits).glob("*/*.json"))
        assert cells
        assert not held_out & {path.stem for path in cells}


def test_refits_are_other_trainings_of_the_same_cases(finished: Checkout) -> None:
    folder = finished.path("results/similarity")
    summary = json.loads((folder / "stability.json").read_text())
    table = pd.read_csv(folder / "stability.tsv", sep="\t", index_col="case")
    again = table["refit_row_mean"].dropna()
    assert sorted(again.index) == summary["refitted"]
    assert len(again) == 2
    assert not np.isclose(again, table.loc[again.index, "row_mean"], atol=1e-6).any()
    for case, mean in again.items():
        row = pd.read_csv(
            finished.path(f"results/scores/refitted/{case}.tsv"), sep="\t"
        ).query("region == 'mean' and case != @case")
        assert mean == pytest.approx(row["dice"].mean())
    assert table["worst_share"].between(0, 1).all()
    assert summary["agreement"]["n"] == 2


def test_speeds_are_measured_from_what_a_run_leaves(finished: Checkout) -> None:
    speed = speeds.measured(finished.path("results"))
    assert speed.name
    for schedule in ("base", "finetune"):
        low, high = speed.iteration[schedule]
        assert 0 < low == high
        assert speed.outside[schedule] > 0
    assert speed.cells[0] > 0


def test_planted_defects_are_looked_for_by_every_score(finished: Checkout) -> None:
    results = finished.path("results")
    table = pd.read_csv(results / "evidence/detection.tsv", sep="\t")
    table = table[table["kind"] == "any"]
    scores = ["cluster", "row_mean", "row_max", "donor_effect", "signature", "combined"]
    scores += ["channel", "base_dice", "base_signature", "cleanlab"]
    assert table["score"].tolist() == scores
    hours = table.set_index("score")["gpu_hours"]
    assert hours["base_dice"] == 0 < hours["cleanlab"] < hours["combined"]
    assert hours["combined"] == pytest.approx(hours["cleanlab"] + hours["row_mean"])
    assert set(table["defect"]) == {"label"}
    assert set(table["n_cases"]) == {6}
    assert set(table["n_defects"]) == {2}
    assert set(table["n_unscored"]) == {0}
    # By hand: the share of pairs (defect, sound case) in the right order.
    cohort = pd.read_csv(results / "cohort.tsv", sep="\t", keep_default_na=False)
    wrong = set(cohort.case[cohort.planted == "swapped_labels"])
    rows = pd.read_csv(results / "similarity/clusters.tsv", sep="\t", index_col=0)
    pairs = [
        rows.row_mean[bad] < rows.row_mean[good]
        for bad in wrong
        for good in set(rows.index) - wrong
    ]
    auroc = table.set_index("score")["auroc"]
    assert auroc["row_mean"] == pytest.approx(np.mean(pairs))


def test_each_case_has_a_kind_and_its_numbers(finished: Checkout) -> None:
    results = finished.path("results/similarity")
    table = pd.read_csv(results / "cases.tsv", sep="\t", keep_default_na=False)
    assert set(table["kind"].map(kinds.short)) <= set(kinds.KINDS)
    assert table["rank"].tolist() == list(range(1, 7))
    sides = pd.read_csv(results / "signatures.tsv", sep="\t")
    assert set(sides["side"]) == {"row", "column", "base", "edits"}
    # By hand, from the predictions: the model of one case on all others.
    case = table["case"].iloc[0]
    pool = sorted(table["case"])
    volumes = {}
    for model in pool:
        for other in set(pool) - {model}:
            maps = [
                sitk.GetArrayFromImage(sitk.ReadImage(str(finished.path(p))))
                for p in (
                    f"results/predictions/finetuned/{model}/{other}.nii.gz",
                    f"results/nnunet/raw/Dataset001_Cohort/labelsTr/{other}.nii.gz",
                )
            ]
            drawn, given = ((m > 0).sum() for m in maps)
            small = 0.01 * max(drawn, given)
            volumes[model, other] = np.log((drawn + small) / (given + small))
    away = {
        model: np.median(
            [
                volumes[model, other]
                - np.median([volumes[m, other] for m in pool if m != other])
                for other in pool
                if other != model
            ]
        )
        for model in pool
    }
    found = table.set_index("case")["row_volume"].astype(float)
    assert found[case] == pytest.approx(away[case] - np.median([*away.values()]))


def test_the_quick_look_ends_with_every_pool_case(finished: Checkout) -> None:
    succeeded(finished.run("quick"))
    table = pd.read_csv(finished.path("results/quick/cases.tsv"), sep="\t")
    assert table["rank"].tolist() == list(range(1, 7))
    assert set(table["kind"].map(kinds.short)) <= set(kinds.KINDS)
    sides = pd.read_csv(finished.path("results/quick/signatures.tsv"), sep="\t")
    assert set(sides["side"]) == {"base", "edits"}
    # The counts of the model that never saw the case are those of its whole image.
    path = finished.path(f"results/evidence/label_quality/{table['case'].iloc[0]}.json")
    record = json.loads(path.read_text())
    assert record["model"] == f"folds/{record['fold']}"
    assert sum(record["bands"]["fp"]) == sum(record["confusion"][0][1:])


def test_the_truth_is_read_by_the_detection_alone(
    finished: Checkout, tmp_path: Path
) -> None:
    cohort = pd.read_csv(
        finished.path("results/cohort.tsv"), sep="\t", keep_default_na=False
    )
    train = cohort[cohort["train_case"]].sort_values("case")
    truth = tmp_path / "truth.tsv"
    shuffled = train["planted"].to_numpy()[::-1]
    pd.DataFrame({"case": train["case"], "kind": shuffled}).to_csv(
        truth, sep="\t", index=False
    )
    config = tmp_path / "truth.yaml"
    config.write_text(json.dumps({"evidence": {"truth": str(truth)}}))
    output = succeeded(finished.run("-n", configs=[str(config)]))
    # The record of the configuration says so, too.
    jobs = set(job_counts(output))
    assert jobs - {"all", "total"} == {"configuration", "detection"}


def test_label_quality_is_judged_by_a_model_that_never_saw_the_case(
    finished: Checkout,
) -> None:
    cohort = pd.read_csv(finished.path("results/cohort.tsv"), sep="\t")
    pool = set(cohort.case[cohort.role == "pool"])
    folder = finished.path("results/evidence/label_quality")
    records = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    assert {record["case"] for record in records} == pool
    assert all(0 < record["label_quality"] < 1 for record in records)
    assert {record["fold"] for record in records} == {0, 1}
    for fold in (0, 1):
        plan = succeeded(
            finished.run(
                *("-n", "-p", "--forcerun", "train_fold", "--nolock"),
                f"results/models/folds/{fold}/fold_all/checkpoint_final.pth",
            )
        )
        job = plan.split("rule train_fold:")[1].split("output:")[0]
        left_out = {record["case"] for record in records if record["fold"] == fold}
        assert {case for case in pool if f"/{case}.b2nd" in job} == pool - left_out


def test_the_tables_of_the_docs_are_made_from_results(finished: Checkout) -> None:
    page = (ROOT / "docs/planted.md").read_text()
    made = runpy.run_path(str(ROOT / "docs/planted_tables.py"))
    blocks = {**made["BLOCKS"], "trial": made["trial"]}
    filled = made["fill"](page, finished.path("results"), blocks)
    for name in blocks:
        assert f"<!-- {name}: start -->" in page
    assert filled != page
    assert "| 1 | phantom_00" in filled
    assert "worst cluster: cannot tell" in filled.replace("_", " ")


def test_augmented_copies_are_dropped(finished: Checkout) -> None:
    assert not list(finished.path("results").glob("augmented/*/*"))


def test_models_hold_no_optimizer_state(finished: Checkout) -> None:
    for folder in finished.path("results/models").glob("**/fold_all"):
        assert sorted(path.name for path in folder.glob("*.pth")) == [
            "checkpoint_final.pth"
        ]


def test_no_half_file_and_no_process_is_left(finished: Checkout) -> None:
    assert not list(finished.path("results").rglob(".tmp-*"))
    wait_for(lambda: not processes("casesim", str(finished.folder)), seconds=30)


def test_the_report_can_be_made(finished: Checkout) -> None:
    succeeded(finished.run("--report", "report.html"))
    text = finished.path("report.html").read_text()
    for caption in ("Similarity matrix", "Dendrogram", "Before and after"):
        assert caption in text


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({"cohort": {"held_out": 3}}, {"plan", "train_base", "finetune", "retrain"}),
        ({"cohort": {"train_cases": FEWER}}, {"import_case", "train_base", "finetune"}),
        ({"training": {"checkpoint_minutes": 9}}, {"train_base", "predict"}),
        ({"inference": {"resident": False}}, {"predict"}),
        ({"stability": {"refits": 0}}, {"finetune", "refit", "predict", "cluster"}),
        ({"stability": {"refits": 3}}, {"finetune", "train_base", "cluster"}),
    ],
)
def test_a_change_of_the_config_does_again_only_what_depends_on_it(
    finished: Checkout, change: dict, kept: set[str]
) -> None:
    other = finished.path("change.yaml")
    other.write_text(yaml.safe_dump(change))
    output = succeeded(finished.run("-n", "--quiet", "rules", configs=["change.yaml"]))
    repeated = set(job_counts(output)) if "Job stats:" in output else set()
    if "held_out" in change.get("cohort", {}):
        assert "predict" in repeated
    if refits := change.get("stability", {}).get("refits"):
        # One more than before: its cells, and nothing of the other two.
        assert job_counts(output)["refit"] == refits - 2 == 1
        assert job_counts(output)["predict"] == 6
    assert not kept & repeated
