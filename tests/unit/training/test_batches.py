from typing import Any

import pytest
import torch
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from unit.conftest import TinyCohort
from unit.training.trainings import SCHEDULE

from casesim.nnunet.files import read_json
from casesim.training.batches import TRAINING, iterate, seed_all
from casesim.training.cases import Cases
from casesim.training.trainer import CaseTrainer

CPU = torch.device("cpu")


def _trainer(cohort: TinyCohort) -> CaseTrainer:
    built = CaseTrainer(
        read_json(cohort.plans),
        "2d",
        "all",
        read_json(cohort.dataset),
        CPU,
    )
    built.initialize(SCHEDULE, 0, None)
    return built


def _batches(
    cohort: TinyCohort, number: int, start: int = 0, workers: int = 0, **changes: Any
) -> list[dict[str, Any]]:
    options: dict[str, Any] = {"stems": cohort.stems, "memory_mb": 1000.0} | changes
    batches = _trainer(cohort).batches(Cases(**options), 0, TRAINING)
    return list(iterate(batches, range(start, start + number), workers, CPU))


def _same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return (
        list(first["keys"]) == list(second["keys"])
        and torch.equal(first["data"], second["data"])
        and all(
            torch.equal(one, other)
            for one, other in zip(first["target"], second["target"], strict=True)
        )
    )


@pytest.fixture(scope="module")
def batches(tiny_cohort: TinyCohort) -> list[dict[str, Any]]:
    return _batches(tiny_cohort, 7)


def test_batches_differ_from_each_other(batches: list[dict[str, Any]]) -> None:
    assert not any(_same(batches[0], other) for other in batches[1:])


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_loading_processes_gives_the_same_batches(
    tiny_cohort: TinyCohort, batches: list[dict[str, Any]], workers: int
) -> None:
    others = _batches(tiny_cohort, 7, workers=workers)
    assert all(_same(*pair) for pair in zip(batches, others, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_can_start_anywhere(
    tiny_cohort: TinyCohort, batches: list[dict[str, Any]], workers: int
) -> None:
    others = _batches(tiny_cohort, 4, start=3, workers=workers)
    assert all(_same(*pair) for pair in zip(batches[3:], others, strict=True))


def test_cases_on_disk_give_the_same_batches(
    tiny_cohort: TinyCohort, batches: list[dict[str, Any]]
) -> None:
    assert Cases(tiny_cohort.stems, 1000).in_memory
    assert not Cases(tiny_cohort.stems, 0.1).in_memory
    others = _batches(tiny_cohort, 2, memory_mb=0.1)
    assert all(_same(*pair) for pair in zip(batches, others, strict=False))


def test_the_order_of_the_cases_does_not_matter(
    tiny_cohort: TinyCohort, batches: list[dict[str, Any]]
) -> None:
    others = _batches(tiny_cohort, 2, stems=tiny_cohort.stems[::-1])
    assert all(_same(*pair) for pair in zip(batches, others, strict=False))


def test_batches_are_those_of_nnunets_loader(
    tiny_cohort: TinyCohort, batches: list[dict[str, Any]]
) -> None:
    ours = (
        _trainer(tiny_cohort)
        .batches(Cases(tiny_cohort.stems, 1000), 0, TRAINING)
        .loader
    )
    names = [stem.name for stem in tiny_cohort.stems]
    theirs = nnUNetDataLoader(
        nnUNetDatasetBlosc2(str(tiny_cohort.stems[0].parent), names),
        ours.batch_size,
        ours.patch_size[1:],
        ours.final_patch_size[1:],
        _trainer(tiny_cohort).label_manager,
        oversample_foreground_percent=0.33,
        transforms=ours.transforms,
    )
    seed_all(0, TRAINING, 0)
    assert _same(batches[0], next(theirs))


def test_no_transform_chooses_its_algorithm_by_the_clock(
    tiny_cohort: TinyCohort,
) -> None:
    batches = _trainer(tiny_cohort).batches(Cases(tiny_cohort.stems, 1000), 0, TRAINING)
    text = str(batches.loader.transforms.transforms)
    assert "GaussianBlurTransform" in text
    assert "benchmark = False" in text
    assert "benchmark = True" not in text


def test_cases_need_names_of_their_own(tiny_cohort: TinyCohort) -> None:
    with pytest.raises(ValueError, match="same file name"):
        Cases([tiny_cohort.stems[0]] * 2, 1000)
