"""A network that nnU-Net's own trainer has trained, as the base model."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from unit.conftest import HELD_OUT, TinyCohort

from casesim.errors import UserError
from casesim.nnunet import adoption, checkpoints, planning, preprocessing, stages
from casesim.nnunet.files import read_json, write_json


@pytest.fixture(scope="module")
def theirs(tiny_cohort: TinyCohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a training of two iterations by nnU-Net itself."""
    with planning.environment(
        nnUNet_raw=tiny_cohort.raw.parent,
        nnUNet_preprocessed=tiny_cohort.preprocessed.parent,
        nnUNet_results=tmp_path_factory.mktemp("results"),
        nnUNet_compile="f",
        nnUNet_n_proc_DA="0",
    ):
        plans = read_json(tiny_cohort.plans) | {"continue_training": False}
        dataset = read_json(tiny_cohort.dataset)
        trainer = nnUNetTrainer(plans, "2d", "all", dataset, torch.device("cpu"))
        trainer.num_epochs = 1
        trainer.num_iterations_per_epoch = trainer.num_val_iterations_per_epoch = 1
        torch.manual_seed(0)
        trainer.run_training()
        return Path(trainer.output_folder, "checkpoint_final.pth")


def adopt(
    checkpoint: Path,
    cohort: TinyCohort,
    folder: Path,
    plans: Path | None = None,
    configuration: str = "2d",
) -> Path:
    adoption.adopt(
        checkpoint, plans or cohort.plans, cohort.dataset, configuration, folder
    )
    return folder / "fold_all/checkpoint_final.pth"


def test_it_predicts_as_nnunet_does_with_the_original(
    theirs: Path, tiny_cohort: TinyCohort, tmp_path: Path
) -> None:
    ours = checkpoints.load_model(adopt(theirs, tiny_cohort, tmp_path), "cpu")
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(
        str(theirs.parent.parent), use_folds=("all",)
    )
    assert ours.allowed_mirroring_axes == predictor.allowed_mirroring_axes == (0, 1)
    data, _, _ = preprocessing.load_preprocessed(tiny_cohort.stem(HELD_OUT[0]))
    batch = torch.from_numpy(data[:, 4:6, :24, :24]).transpose(0, 1)
    predictor.network.load_state_dict(predictor.list_of_parameters[0])
    with torch.no_grad():
        expected = predictor.network.eval()(batch)
        assert torch.equal(ours.network(batch), expected)
    assert float(expected.std()) > 0


def test_names_of_wrappers_are_taken_off(
    theirs: Path, tiny_cohort: TinyCohort, tmp_path: Path
) -> None:
    content = torch.load(theirs, weights_only=False)
    weights = content["network_weights"]
    content["network_weights"] = {f"module.{k}": w for k, w in weights.items()}
    torch.save(content, tmp_path / "wrapped.pth")
    adopted = adopt(tmp_path / "wrapped.pth", tiny_cohort, tmp_path)
    kept = checkpoints.read_checkpoint(adopted)["network_weights"]
    assert list(kept) == list(weights)
    assert all(torch.equal(kept[name], weights[name]) for name in weights)


def test_another_architecture_is_described(
    theirs: Path, tiny_cohort: TinyCohort, tmp_path: Path
) -> None:
    plans = read_json(tiny_cohort.plans)
    kwargs = plans["configurations"]["2d"]["architecture"]["arch_kwargs"]
    kwargs["features_per_stage"][0] = 16
    write_json(tmp_path / "plans.json", plans)
    with pytest.raises(UserError) as error:
        adopt(theirs, tiny_cohort, tmp_path, plans=tmp_path / "plans.json")
    assert "is 32 x 4 x 3 x 3 instead of 16 x 4 x 3 x 3" in str(error.value)
    assert "more" in str(error.value)
    kwargs["features_per_stage"][0] = 32
    kwargs["n_conv_per_stage"][0] += 1
    write_json(tmp_path / "plans.json", plans)
    with pytest.raises(UserError, match=r"encoder\.stages\.0.* is missing"):
        adopt(theirs, tiny_cohort, tmp_path, plans=tmp_path / "plans.json")
    assert not (tmp_path / "fold_all").exists()


def test_another_configuration(
    theirs: Path, tiny_cohort: TinyCohort, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"a network of 2d.* is 3d_fullres"):
        adopt(theirs, tiny_cohort, tmp_path, configuration="3d_fullres")


def test_what_is_no_checkpoint(tiny_cohort: TinyCohort, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(b"no archive")
    with pytest.raises(UserError, match="cannot be read"):
        adopt(path, tiny_cohort, tmp_path)
    torch.save({"state_dict": {}}, path)
    with pytest.raises(UserError, match="lacks network_weights, init_args"):
        adopt(path, tiny_cohort, tmp_path)


def test_it_cannot_run_code(
    theirs: Path, tiny_cohort: TinyCohort, tmp_path: Path
) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(tmp_path / "made"),))

    content = torch.load(theirs, weights_only=False) | {"logging": Evil()}
    torch.save(content, tmp_path / "evil.pth")
    with pytest.raises(UserError, match="cannot be read"):
        adopt(tmp_path / "evil.pth", tiny_cohort, tmp_path)
    assert not (tmp_path / "made").exists()


def test_numbers_of_numpy_in_the_log_are_let_in(
    theirs: Path, tiny_cohort: TinyCohort, tmp_path: Path
) -> None:
    content = torch.load(theirs, weights_only=False)
    content["logging"] = {
        "losses": [np.float32(1.5), np.float64(0.5), np.int64(2)],
        "dice": np.array([0.1, np.nan]),
    }
    torch.save(content, tmp_path / "logged.pth")
    assert adopt(tmp_path / "logged.pth", tiny_cohort, tmp_path).is_file()


def test_both_stages_of_a_cascade(
    cascade_cohort: TinyCohort, cascade_pair: Path, tmp_path: Path
) -> None:
    low, high = stages.stages(stages.CASCADE)
    first = stages.first_checkpoint(cascade_pair, high)
    assert first is not None
    files = (cascade_cohort.plans, cascade_cohort.dataset)
    adoption.adopt_all([first, cascade_pair], *files, high, tmp_path)
    ours = checkpoints.load_model(tmp_path / "fold_all/checkpoint_final.pth", "cpu")
    theirs = checkpoints.load_model(cascade_pair, "cpu")
    assert ours.first_stage is not None
    assert (ours.first_stage.configuration, ours.configuration) == (low, high)
    for one, other in zip(ours.networks, theirs.networks, strict=True):
        for weight, same in zip(one.parameters(), other.parameters(), strict=True):
            assert torch.equal(weight, same)
    # The stages cannot be taken for each other.
    with pytest.raises(UserError, match="is a network of 3d_cascade_fullres"):
        adoption.adopt_all([cascade_pair, first], *files, high, tmp_path)
