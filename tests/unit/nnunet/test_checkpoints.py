import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from unit.conftest import HELD_OUT, TinyCohort

from casesim.errors import UserError
from casesim.nnunet import checkpoints, planning, preprocessing
from casesim.nnunet.files import read_json


def _files(folder: Path) -> list[str]:
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
    )


@pytest.fixture(scope="module")
def network(tiny_cohort: TinyCohort) -> torch.nn.Module:
    torch.manual_seed(0)
    return checkpoints.build_network(
        *planning.load_plans(tiny_cohort.plans, "2d"),
        read_json(tiny_cohort.dataset),
        deep_supervision=True,
        initialise=True,
    )


def _save(
    network: torch.nn.Module, cohort: TinyCohort, folder: Path, **options: Any
) -> Path:
    return checkpoints.save_model(
        folder,
        network.state_dict(),
        read_json(cohort.plans),
        read_json(cohort.dataset),
        "2d",
        (0, 1),
        **options,
    )


def test_nnunets_predictor_predicts_the_same(
    tiny_cohort: TinyCohort, network: torch.nn.Module, tmp_path: Path
) -> None:
    checkpoint = _save(network, tiny_cohort, tmp_path)
    assert _files(tmp_path) == [
        "dataset.json",
        "fold_all/checkpoint_final.pth",
        "plans.json",
    ]
    model = checkpoints.load_model(checkpoint, "cpu")
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(
        str(tmp_path), use_folds=("all",), checkpoint_name=checkpoint.name
    )
    assert predictor.allowed_mirroring_axes == model.allowed_mirroring_axes == (0, 1)
    assert predictor.label_manager.all_labels == model.label_manager.all_labels
    data, _, _ = preprocessing.load_preprocessed(tiny_cohort.stem(HELD_OUT[0]))
    batch = torch.from_numpy(data[:, 4:6, :24, :24]).transpose(0, 1)
    network.get_submodule("decoder").deep_supervision = False  # type: ignore[assignment]
    with torch.no_grad():
        trained = network.eval()(batch)
        assert torch.equal(model.network(batch), trained)
        assert torch.equal(predictor.network.eval()(batch), trained)
    network.get_submodule("decoder").deep_supervision = True  # type: ignore[assignment]
    assert not model.network.training
    assert not any(weight.requires_grad for weight in model.network.parameters())


def test_float16_is_half_as_large_and_loads_as_float32(
    tiny_cohort: TinyCohort, network: torch.nn.Module, tmp_path: Path
) -> None:
    full = _save(network, tiny_cohort, tmp_path / "full")
    half = _save(network, tiny_cohort, tmp_path / "half", storage="float16")
    # No optimizer state, and shared weights are stored once, in both formats.
    number = sum(weight.numel() for weight in network.parameters())
    assert full.stat().st_size < 4 * number + 200_000
    assert half.stat().st_size < 2 * number + 200_000
    weights = checkpoints.load_model(half, "cpu").network.state_dict()
    for name, weight in network.state_dict().items():
        assert weights[name].dtype == torch.float32
        torch.testing.assert_close(weights[name], weight, rtol=1e-3, atol=1e-6)


def test_the_same_model_gives_the_same_file(
    tiny_cohort: TinyCohort, network: torch.nn.Module, tmp_path: Path
) -> None:
    first = _save(network, tiny_cohort, tmp_path / "a").read_bytes()
    assert first == _save(network, tiny_cohort, tmp_path / "b").read_bytes()


def test_unknown_storage(
    tiny_cohort: TinyCohort, network: torch.nn.Module, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="float8"):
        _save(network, tiny_cohort, tmp_path, storage="float8")


def test_missing_and_damaged_models_are_named(
    tiny_cohort: TinyCohort, network: torch.nn.Module, tmp_path: Path
) -> None:
    checkpoint = _save(network, tiny_cohort, tmp_path)
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=f"{checkpoint} is damaged"):
        checkpoints.load_model(checkpoint, "cpu")
    checkpoint.unlink()
    with pytest.raises(UserError, match=f"{checkpoint} is missing"):
        checkpoints.load_model(checkpoint, "cpu")
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(UserError, match=r"dataset\.json"):
        checkpoints.load_model(checkpoint, "cpu")


def test_checkpoints_cannot_run_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path(tmp_path / "ran").touch, ())

    path = tmp_path / "evil.pth"
    torch.save({"network_weights": Evil()}, path)
    with pytest.raises(UserError, match="damaged"):
        checkpoints.read_checkpoint(path)
    assert not (tmp_path / "ran").exists()
    # Without the protection it would have run.
    pickle.loads(pickle.dumps(Evil()))
    assert (tmp_path / "ran").exists()


def test_weights_of_other_plans(
    tiny_cohort: TinyCohort, network: torch.nn.Module, tmp_path: Path
) -> None:
    checkpoint = _save(network, tiny_cohort, tmp_path)
    dataset = read_json(tmp_path / "dataset.json")
    del dataset["labels"]["rim"]
    (tmp_path / "dataset.json").write_text(json.dumps(dataset))
    with pytest.raises(UserError, match="do not fit"):
        checkpoints.load_model(checkpoint, "cpu")
