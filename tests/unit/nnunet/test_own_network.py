"""Plans and networks that a user brings, against a cohort."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from unit.conftest import CHANNELS, LABELS, POOL, TinyCohort

from casesim.errors import UserError
from casesim.nnunet import planning
from casesim.nnunet.files import read_json
from casesim.nnunet.own_network import OwnNetwork, check_spacing
from casesim.nnunet.stages import CASCADE, stages

CHECKPOINT = "fold_0/checkpoint_final.pth"


@pytest.fixture
def model(tiny_cohort: TinyCohort, tmp_path: Path) -> Path:
    """The folder of a network that was trained on the tiny cohort."""
    folder = tmp_path / "nnUNetTrainer__nnUNetPlans__2d"
    (folder / "fold_0").mkdir(parents=True)
    (folder / CHECKPOINT).touch()
    for name, source in (
        ("plans", tiny_cohort.plans),
        ("dataset", tiny_cohort.dataset),
    ):
        (folder / f"{name}.json").write_text(source.read_text())
    return folder


def problems(
    own: OwnNetwork,
    configuration: str = "2d",
    channels: list[str] = CHANNELS,
    labels: dict[str, Any] = LABELS,
) -> str:
    with pytest.raises(UserError) as error:
        own.check(configuration, channels, labels)
    return str(error.value)


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(read_json(path) | values))


def test_what_fits_is_accepted(model: Path, tiny_cohort: TinyCohort) -> None:
    own = OwnNetwork(None, str(model / CHECKPOINT))
    own.check("2d", CHANNELS, LABELS)
    assert own.plans == str(model / "plans.json")
    OwnNetwork(str(tiny_cohort.plans), None).check("2d", CHANNELS, {"any": 1})
    OwnNetwork(str(tiny_cohort.plans), own.checkpoint).check("2d", CHANNELS, LABELS)
    OwnNetwork(None, None).check("2d", [], {})
    # Names that differ in writing only are the same.
    names = [name.lower() for name in CHANNELS]
    own.check("2d", names, {k.upper(): n for k, n in LABELS.items()})


def test_channels_and_labels_of_another_data_set_are_all_named(model: Path) -> None:
    swapped = ["T1w", "FLAIR", *CHANNELS[2:]]
    labels = {"background": 0, "edema": 1, "rim": 2, "core": 3}
    text = problems(OwnNetwork(None, str(model / CHECKPOINT)), "2d", swapped, labels)
    assert "trained on the channels FLAIR, T1w" in text
    assert "the cohort has T1w, FLAIR" in text
    assert "edema = 1, core = 2, rim = 3" in text
    assert "edema = 1, rim = 2, core = 3" in text
    assert text.count("  - ") == 2


def test_another_number_of_channels_than_the_plans(tiny_cohort: TinyCohort) -> None:
    own = OwnNetwork(str(tiny_cohort.plans), None)
    assert "images of 4 channels, the cohort has 1" in problems(own, channels=["CT"])


def test_missing_files(model: Path) -> None:
    text = problems(OwnNetwork(None, str(model / "fold_1/checkpoint_final.pth")))
    assert "checkpoint_final.pth is no file" in text
    (model / "dataset.json").unlink()
    text = problems(OwnNetwork(None, str(model / CHECKPOINT)))
    assert "dataset.json is missing" in text
    assert "copy the whole folder" in text


def test_plans_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "plans.json"
    path.write_text("{")
    assert "cannot be read" in problems(OwnNetwork(str(path), None))
    path.write_text("[]")
    assert "JSON object" in problems(OwnNetwork(str(path), None))
    path.write_text("{}")
    assert "no plans of nnU-Net v2" in problems(OwnNetwork(str(path), None))


def test_a_configuration_that_the_plans_lack(tiny_cohort: TinyCohort) -> None:
    text = problems(OwnNetwork(str(tiny_cohort.plans), None), "3d_lowres")
    assert "no configuration 3d_lowres" in text
    assert "2d, 3d_fullres" in text


def test_inherited_settings_are_found(model: Path) -> None:
    plans = read_json(model / "plans.json")
    plans["configurations"]["mine"] = {"inherits_from": "2d", "batch_size": 3}
    (model / "plans.json").write_text(json.dumps(plans))
    OwnNetwork(str(model / "plans.json"), None).check("mine", CHANNELS, LABELS)
    plans["configurations"]["mine"]["inherits_from"] = "nowhere"
    (model / "plans.json").write_text(json.dumps(plans))
    assert "inherits from 'nowhere'" in problems(
        OwnNetwork(str(model / "plans.json"), None), "mine"
    )


def test_both_stages_of_a_cascade(cascade_cohort: TinyCohort, tmp_path: Path) -> None:
    """As nnU-Net leaves them: a model folder for each, side by side."""
    folders = [
        tmp_path / f"nnUNetTrainer__nnUNetPlans__{stage}" for stage in stages(CASCADE)
    ]
    for folder in folders:
        (folder / "fold_0").mkdir(parents=True)
        for name in ("plans", "dataset"):
            source = getattr(cascade_cohort, name)
            (folder / f"{name}.json").write_text(source.read_text())
    first, second = (folder / CHECKPOINT for folder in folders)
    second.touch()
    own = OwnNetwork(None, str(second))
    assert f"is looked for in {first}, where there is none" in problems(own, CASCADE)
    first.touch()
    own.check(CASCADE, CHANNELS, LABELS)
    assert own.checkpoints(CASCADE) == [str(first), str(second)]
    assert own.checkpoints("3d_fullres") == [str(second)]
    # As this workflow has them: one inside the other.
    inside = folders[1] / "3d_lowres" / CHECKPOINT
    inside.parent.mkdir(parents=True)
    inside.touch()
    assert own.checkpoints(CASCADE) == [str(inside), str(second)]
    assert OwnNetwork(None, None).checkpoints(CASCADE) == []

    plans = read_json(cascade_cohort.plans)
    del plans["configurations"]["3d_lowres"]
    (folders[1] / "plans.json").write_text(json.dumps(plans))
    assert "whose first stage is not 3d_lowres" in problems(own, CASCADE)


def test_readers_that_turn_images_are_refused(model: Path) -> None:
    change(model / "plans.json", image_reader_writer="NibabelIOWithReorient")
    text = problems(OwnNetwork(str(model / "plans.json"), None))
    assert "NibabelIOWithReorient" in text


def test_plans_that_are_not_the_network_s(
    model: Path, tiny_cohort: TinyCohort, tmp_path: Path
) -> None:
    plans = read_json(tiny_cohort.plans)
    plans["configurations"]["2d"]["spacing"] = [1.0, 1.0]
    plans["configurations"]["2d"]["batch_size"] = 77  # of no importance
    other = tmp_path / "other.json"
    other.write_text(json.dumps(plans))
    text = problems(OwnNetwork(str(other), str(model / CHECKPOINT)))
    assert "spacing of 2d differ" in text
    assert "batch_size" not in text


def test_spacing_in_the_order_of_the_images() -> None:
    plans = {
        "original_median_spacing_after_transp": [1.0, 5.0, 2.0],
        "transpose_backward": [1, 0, 2],
    }
    ours = [[5.0, 1.0, 2.0], [5.0, 1.0, 2.0], [50.0, 10.0, 20.0]]
    line = check_spacing("plans.json", plans, ours)
    assert "images of 5 x 1 x 2 mm" in line
    assert "have 5 x 1 x 2 mm" in line
    check_spacing("plans.json", plans, [[2.5, 2.0, 2.0]])
    with pytest.raises(UserError, match=r"5 x 1 x 2 mm .* 5 x 1 x 4\.1 mm"):
        check_spacing("plans.json", plans, [[5.0, 1.0, 4.1]])


def test_plans_are_taken_over_as_they_are(
    tiny_cohort: TinyCohort, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    own = read_json(tiny_cohort.plans)
    own |= {"dataset_name": "Dataset321_Theirs", "plans_name": "theirs"}
    own["image_reader_writer"] = "NibabelIO"
    own["configurations"]["2d"]["patch_size"] = [16, 24]
    path = tmp_path / "own.json"
    path.write_text(json.dumps(own))

    def plan(**config: Any) -> dict[str, Any]:
        planning.plan(
            tiny_cohort.raw,
            tmp_path / "preprocessed",
            POOL,
            CHANNELS,
            LABELS,
            {"configuration": "2d"} | config,
            processes=1,
            own_plans=path,
        )
        return read_json(tmp_path / "preprocessed/nnUNetPlans.json")

    expected = copy.deepcopy(own)
    expected |= {"dataset_name": planning.DATASET, "plans_name": "nnUNetPlans"}
    expected["image_reader_writer"] = "SimpleITKIO"
    before = (tiny_cohort.raw / "dataset.json").read_bytes()
    assert plan() == expected
    assert "made for images of 3 x 2 x 2 mm" in capfd.readouterr().out
    expected["configurations"]["2d"]["batch_size"] = 5
    assert plan(batch_size=5) == expected
    assert (tiny_cohort.raw / "dataset.json").read_bytes() == before
    change(path, original_median_spacing_after_transp=[3.0, 0.5, 0.5])
    with pytest.raises(UserError, match="more than 2 times"):
        plan()
