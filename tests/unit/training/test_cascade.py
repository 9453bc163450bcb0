"""The cascade's two stages, trained one after the other."""

from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import pytest
import torch
from nnunetv2.inference.export_prediction import resample_and_save
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from unit.conftest import POOL, TinyCohort, train_cascade
from unit.training.trainings import weights

from casesim.nnunet import checkpoints, preprocessing
from casesim.nnunet.files import read_json
from casesim.nnunet.stages import CASCADE
from casesim.training import cascade
from casesim.training.batches import TRAINING, VALIDATION
from casesim.training.cases import Cases
from casesim.training.trainer import CaseTrainer

FIRST = "3d_lowres"
SOME = POOL[:2]
SCHEDULE = {"epochs": 1, "iterations_per_epoch": 3, "initial_lr": 0.01}
CPU = torch.device("cpu")


def first_of(checkpoint: Path) -> Path:
    return checkpoint.parent.parent / FIRST / "fold_all" / checkpoint.name


@pytest.fixture(scope="module")
def label_maps(
    cascade_cohort: TinyCohort,
    cascade_pair: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """What the second stage was trained on."""
    coarse = {case: cascade_cohort.stem(case, FIRST) for case in SOME}
    folder = tmp_path_factory.mktemp("predicted")
    shapes = Cases([cascade_cohort.stem(c, CASCADE) for c in SOME], 0).shapes
    return cascade.FirstStage(first_of(cascade_pair), coarse, folder).predict(
        shapes, CPU
    )


def test_a_model_folder_in_a_model_folder(cascade_pair: Path) -> None:
    folder = cascade_pair.parent.parent
    files = [p.relative_to(folder) for p in folder.rglob("*") if p.is_file()]
    own = ["dataset.json", "fold_all/checkpoint_final.pth", "plans.json"]
    own += ["progress.json", "progress.png"]
    assert sorted(str(path) for path in files if ".kept" not in path.parts) == sorted(
        [*own, *(f"{FIRST}/{name}" for name in own)]
    )
    model = checkpoints.load_model(cascade_pair, "cpu")
    assert (model.configuration, model.first_stage is None) == (CASCADE, False)
    assert model.first_stage is not None
    assert model.first_stage.configuration == FIRST
    # nnU-Net's own predictor takes both folders.
    for part, channels in ((folder, 7), (folder / FIRST, 4)):
        predictor = nnUNetPredictor(device=CPU, allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(
            str(part), ("all",), "checkpoint_final.pth"
        )
        assert next(predictor.network.parameters()).shape[1] == channels


def test_the_second_stage_learns_from_nnunet_s_label_maps(
    cascade_cohort: TinyCohort,
    cascade_pair: Path,
    label_maps: dict[str, Path],
    tmp_path: Path,
) -> None:
    predictor = nnUNetPredictor(device=CPU, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(
        str(first_of(cascade_pair).parent.parent), ("all",), "checkpoint_final.pth"
    )
    found = set()
    for case in SOME[:1]:
        data, _, properties = preprocessing.load_preprocessed(
            cascade_cohort.stem(case, FIRST)
        )
        fine, _ = preprocessing.open_preprocessed(cascade_cohort.stem(case, CASCADE))
        assert fine.shape[1:] != data.shape[1:]
        logits = predictor.predict_sliding_window_return_logits(torch.from_numpy(data))
        resample_and_save(
            logits.float(),
            list(fine.shape[1:]),
            str(tmp_path / case),
            predictor.plans_manager,
            predictor.configuration_manager,
            properties,
            predictor.dataset_json,
            1,
        )
        theirs = blosc2.open(str(tmp_path / f"{case}.b2nd"))[:]
        ours = preprocessing.open_label_map(label_maps[case])[:]
        assert ours.dtype == theirs.dtype == np.uint8
        assert (ours == theirs).mean() >= 0.999
        found |= set(np.unique(theirs))
    assert len(found) > 1


def batches(
    cohort: TinyCohort, label_maps: dict[str, Path], stream: int, memory_mb: float
) -> Any:
    trainer = CaseTrainer(
        read_json(cohort.plans), CASCADE, "all", read_json(cohort.dataset), CPU
    )
    trainer.initialize(SCHEDULE, 0, None)
    stems = [cohort.stem(case, CASCADE) for case in SOME]
    cases = Cases(stems, memory_mb, in_cascade=True)
    cases.add_previous(label_maps)
    return trainer.batches(cases, 0, stream)


def test_a_batch_has_the_masks_of_the_label_map(
    cascade_cohort: TinyCohort, label_maps: dict[str, Path]
) -> None:
    batch = batches(cascade_cohort, label_maps, VALIDATION, 8000)[0]
    masks = batch["data"][:, 4:]
    assert batch["data"].shape[1] == 7
    assert set(torch.unique(masks).tolist()) <= {0.0, 1.0}
    assert masks.sum(1).max() == 1
    for sample, case in enumerate(batch["keys"]):
        whole = preprocessing.open_label_map(label_maps[case])[:]
        for label in (1, 2, 3):
            # Of the patch: it may show a part of what there is.
            assert masks[sample, label - 1].sum() <= (whole == label).sum()
    # The target stays a label map of one channel.
    assert batch["target"][0].shape[1] == 1


def test_a_batch_depends_on_seed_and_number_alone(
    cascade_cohort: TinyCohort, label_maps: dict[str, Path]
) -> None:
    """Also the masks', which nnU-Net takes in an order that it shuffles in place."""
    number = 9
    one = batches(cascade_cohort, label_maps, TRAINING, 8000)
    for index in range(number):
        _ = one[index]
    # Cases that the memory does not hold are read from disk, a patch at a time.
    other = batches(cascade_cohort, label_maps, TRAINING, 0)
    for index in (number, number + 1, number + 2):
        assert torch.equal(one[index]["data"], other[index]["data"])


def test_a_fine_tune_starts_from_both_stages(
    cascade_cohort: TinyCohort, cascade_pair: Path, tmp_path: Path
) -> None:
    schedule = {"epochs": 1, "iterations_per_epoch": 1, "initial_lr": 1e-12}
    cases = [cascade_cohort.stem(POOL[0], stage) for stage in (FIRST, CASCADE)]
    options: dict[str, Any] = {"schedule": schedule, "cases": cases}
    tuned = train_cascade(cascade_cohort, tmp_path, start_from=cascade_pair, **options)
    for ours, base in (
        (tuned, cascade_pair),
        (first_of(tuned), first_of(cascade_pair)),
    ):
        before = weights(base)
        for name, weight in weights(ours).items():
            torch.testing.assert_close(weight, before[name], atol=1e-8, rtol=0)


def test_interrupted_in_its_second_stage_and_short_of_memory(
    cascade_cohort: TinyCohort,
    cascade_pair: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "pair"
    segment = preprocessing.write_label_map
    done: list[Path] = []

    def stop(labels: np.ndarray, path: Path) -> None:
        if len(done) == 2:
            raise KeyboardInterrupt
        segment(labels, path)
        done.append(path)

    monkeypatch.setattr(preprocessing, "write_label_map", stop)
    # Cases that the memory does not hold are read from disk, with the same result.
    with pytest.raises(KeyboardInterrupt):
        train_cascade(cascade_cohort, folder, memory_mb=0.1)
    monkeypatch.undo()
    assert "4 cases on disk" in capsys.readouterr().out
    # Snakemake deletes what a job that failed had declared.
    first = folder / FIRST
    (first / "fold_all/checkpoint_final.pth").unlink()
    (first / "plans.json").unlink()
    again = train_cascade(cascade_cohort, folder, memory_mb=0.1)
    said = capsys.readouterr().out
    assert said.count("A model of these very cases") == 1
    assert "4 cases on disk" in said
    assert "2 cases to segment for the next stage" in said
    assert again.read_bytes() == cascade_pair.read_bytes()
    assert not (first / "predicted_next_stage").exists()

    # Finished, it needs no prediction to be known again.
    again.unlink()
    train_cascade(cascade_cohort, folder)
    said = capsys.readouterr().out
    assert said.count("A model of these very cases") == 2
    assert "to segment" not in said
