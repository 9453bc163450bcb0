"""The configuration is checked in the user's words, every mistake at once."""

import copy
import json
import math
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from casesim.errors import UserError
from casesim.settings import check_regions, check_targets, validate

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "config/schemas/config.schema.json"
LABELS = {"background": 0, "edema": 1, "core": 2, "enhancing": 3}


def merged(*names: str) -> dict[str, Any]:
    """Configs merged as Snakemake merges several --configfile."""

    def merge(into: dict[str, Any], other: dict[str, Any]) -> None:
        for key, value in other.items():
            if isinstance(value, dict) and isinstance(into.get(key), dict):
                merge(into[key], value)
            else:
                into[key] = copy.deepcopy(value)

    config: dict[str, Any] = {}
    for name in names:
        merge(config, yaml.safe_load((ROOT / "config" / name).read_text()))
    return config


SHIPPED = sorted(path.name for path in (ROOT / "config").glob("*.yaml"))


def test_an_empty_config_is_filled_with_the_defaults_of_the_schema() -> None:
    config = validate({}, SCHEMA)
    assert config["cohort"]["source"] == "phantom"
    assert config["cohort"]["phantom"]["defects"]["swapped_labels"] == 0
    assert config["regions"] == {"WT": [1, 2, 3], "TC": [2, 3], "ET": [3]}
    assert config["training"]["finetune"] == {
        "epochs": 100,
        "iterations_per_epoch": 250,
        "initial_lr": 0.001,
    }


def test_a_schedule_given_in_part_keeps_the_other_defaults() -> None:
    config = validate({"training": {"base": {"epochs": 3}}}, SCHEMA)
    assert config["training"]["base"] == {
        "epochs": 3,
        "iterations_per_epoch": 250,
        "initial_lr": 0.01,
        "checkpoint": None,
    }


def test_the_input_is_left_as_it_was() -> None:
    config: dict[str, Any] = {"cohort": {"pool": 9, "train_cases": 8}}
    validate(config, SCHEMA)
    assert config == {"cohort": {"pool": 9, "train_cases": 8}}


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_configs_are_valid_alone(name: str) -> None:
    assert {"config.yaml", "paper.yaml", "rigorous.yaml", "planted.yaml"} <= {*SHIPPED}
    config = merged(name)
    # Data that may not be handed on: the path is in a second file of the user's.
    config["cohort"].setdefault("path", "data")
    validate(config, SCHEMA)


def test_the_paper_s_schedule() -> None:
    config = validate(merged("paper.yaml"), SCHEMA)
    assert (config["cohort"]["pool"], config["cohort"]["train_cases"]) == (100, 50)
    assert config["training"]["base"]["epochs"] == 30
    assert config["training"]["finetune"]["epochs"] == 100
    assert config["nnunet"]["batch_size"] is None
    assert config["augmentation"]["copies"] == 5
    assert config["augmentation"]["mirror_axes"] == [0, 1, 2]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"cohrt": {}}, r"unknown key 'cohrt'; did you mean 'cohort'\?"),
        ({"cohort": {"pol": 3}}, r"cohort: unknown key 'pol'; did you mean 'pool'\?"),
        ({"cohort": {"source": "dicom"}}, r"cohort\.source: 'dicom' is not one of"),
        ({"cohort": {"source": "msd"}}, r"cohort\.path: the folder .* is needed"),
        ({"cohort": {"pool": 3, "train_cases": 4}}, r"4 train cases .* pool of 3"),
        ({"nnunet": {"configuration": "3d"}}, r"'3d' is not one of .*'3d_fullres'"),
        ({"training": {"base": {"epochs": 0}}}, r"training\.base\.epochs: 0 is less"),
        ({"augmentation": {"elastic_alpha": [9, 1]}}, r"9 is larger than 1"),
        ({"clusters": {"number": "many"}}, r"clusters\.number: 'many' does not fit"),
        ({"pruning": {"arms": ["best_cluster"]}}, r"must contain 'worst_cluster'"),
        ({"regions": {"mean": [1]}}, r"a name with a meaning of its own"),
        ({"clusters": {"min_size": 9}}, r"more than max_removed_share allows"),
        ({"stability": {"refits": 13}}, r"stability\.refits: 13 cases .* 12 train"),
        ({"stability": {"refits": 2, "seed": 0}}, r"stability\.seed: with 0"),
        ({"nnunet": {"planner": "ResEncS"}}, r"nnunet\.planner: 'ResEncS' is not one"),
        (
            {"nnunet": {"planner": "ResEncM", "plans": "mine.json"}},
            r"planner: ResEncM asks for new plans, but nnunet\.plans brings",
        ),
        (
            {
                "nnunet": {"target_spacing": [3, 3, 3]},
                "training": {"base": {"checkpoint": "model.pth"}},
            },
            r"target_spacing: .*, but training\.base\.checkpoint brings",
        ),
        ({"evidence": {"cleanlab_folds": 1}}, r"1 folds cannot be made of 12"),
        ({"evidence": {"truth": "none.tsv"}}, r"there is no file none\.tsv"),
        (
            {"training": {"base": {"initial_lr": "1e-3"}}},
            r"'1e-3' is not of type 'number'; write .* \(1\.0e-3\)",
        ),
        (
            {"training": {"base": {"initial_lr": math.nan}}},
            r"initial_lr: nan is no number",
        ),
        ({"nnunet": {"target_spacing": [1, 1, math.inf]}}, r"spacing\.2: inf is no"),
        ({"clusters": {"max_removed_share": math.nan}}, r"share: nan is no number"),
        ({"training": {"seed": 2**32}}, r"training\.seed: 4294967296 is too large"),
        ({"regions": {1: [1]}}, r"regions\.1: .* the name 1 for no text; quote it"),
        ({"regions": {"wt": [1], "WT": [2]}}, r"regions: WT, wt are too much alike"),
        ({"cohort": {"pool": [date(2021, 1, 2)]}}, r"2021-01-02 for a date; quote it"),
        ({"cohort": {"pool": [1, 2]}}, r"write case ids in quotes, as '001'"),
    ],
)
def test_a_mistake_is_named(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        validate(config, SCHEMA)


def test_the_seed_of_refits_does_not_matter_where_there_are_none() -> None:
    assert validate({"stability": {"seed": 0}}, SCHEMA)["stability"]["refits"] == 0


def test_all_mistakes_are_listed_at_once() -> None:
    with pytest.raises(UserError) as caught:
        validate({"cohrt": {}, "training": {"seed": -1}}, SCHEMA)
    assert "2 problem(s)" in str(caught.value)
    assert "cohrt" in str(caught.value)
    assert "training.seed" in str(caught.value)


def test_regions_must_fit_the_labels() -> None:
    config = validate({}, SCHEMA)
    scored = {name: (number,) for name, number in LABELS.items() if number}
    check_regions(config, LABELS, scored)
    config["regions"] = {"WT": [1, 7], "edema": [1, 2], "core": [2]}
    config["similarity"]["region"] = "TC"
    with pytest.raises(UserError) as caught:
        check_regions(config, LABELS, scored)
    for part in (
        "WT: label numbers [7]",
        "edema: the data set has this name already, for (1,)",
        "'TC' is not among mean, edema, core, enhancing, WT",
        "regions: {}",
    ):
        assert part in str(caught.value)
    # The same union under the same name is the same thing.
    assert "regions.core" not in str(caught.value)


def test_the_mean_may_be_of_the_data_set_s_own_regions() -> None:
    config = validate({"similarity": {"region": "whole"}}, SCHEMA)
    check_regions(config, LABELS, {"whole": (1, 2, 3), "enhancing": (3,)})
    config["similarity"]["region"] = "edema"  # is no output of the networks
    with pytest.raises(UserError, match="among mean, whole, enhancing, WT"):
        check_regions(config, LABELS, {"whole": (1, 2, 3), "enhancing": (3,)})


def test_what_regions_and_ignored_labels_do_not_allow() -> None:
    config = validate({}, SCHEMA)
    check_targets(config, has_regions=True, ignores=True)
    config["evidence"]["cleanlab_folds"] = 2
    check_targets(config, has_regions=False, ignores=False)
    with pytest.raises(UserError, match="data set trained on regions"):
        check_targets(config, has_regions=True, ignores=False)
    with pytest.raises(UserError, match="data set with an ignored label"):
        check_targets(config, has_regions=False, ignores=True)
    config["evidence"]["cleanlab_folds"] = 0
    config["adaptive"] = {"enabled": True}
    check_targets(config, has_regions=False, ignores=True)
    with pytest.raises(UserError, match=r"adaptive\.enabled"):
        check_targets(config, has_regions=True, ignores=False)
    config["adaptive"] = {"enabled": False}
    config["cohort"]["spoil"]["missed_lesion"] = [0.3]
    check_targets(config, has_regions=True, ignores=False)
    with pytest.raises(UserError, match=r"cohort\.spoil\.missed_lesion"):
        check_targets(config, has_regions=True, ignores=True)


def test_every_key_of_the_schema_has_a_description() -> None:
    schema = json.loads(SCHEMA.read_text())

    def undescribed(part: dict[str, Any], path: str) -> list[str]:
        missing = []
        for key, value in part.get("properties", {}).items():
            if "description" not in value:
                missing.append(f"{path}{key}")
            missing += undescribed(value, f"{path}{key}.")
        return missing

    assert undescribed(schema, "") == []


def test_whole_numbers_may_be_written_with_a_point() -> None:
    config = {
        "cohort": {"pool": 8.0, "train_cases": 8.0, "held_out": 2.0, "new": 3.0},
        "training": {"base": {"epochs": 3.0, "initial_lr": 1.0}},
        "regions": {"all": [1.0, 2.0]},
    }
    filled = validate(config, SCHEMA)
    pool, regions = filled["cohort"]["pool"], filled["regions"]["all"]
    assert (pool, type(pool), type(filled["cohort"]["new"])) == (8, int, int)
    assert [type(number) for number in regions] == [int, int]
    assert type(filled["training"]["base"]["epochs"]) is int
    # What may be a fraction stays one.
    assert type(filled["training"]["base"]["initial_lr"]) is float
    with pytest.raises(UserError, match=r"cohort\.pool: 4\.5 does not fit"):
        validate({"cohort": {"pool": 4.5}}, SCHEMA)


@pytest.mark.parametrize(
    ("train", "share", "size"),
    [(12, 0.3, 2), (7, 0.3, 2), (6, 0.3, 1), (3, 0.3, 1), (6, 0.4, 2), (100, 0.1, 2)],
)
def test_the_smallest_cluster_fits_a_small_cohort(
    train: int, share: float, size: int
) -> None:
    """Two of six are more than 0.3 of them: then a single case may go."""
    config = {"cohort": {"pool": train, "train_cases": train}}
    clusters = {"clusters": {"max_removed_share": share}}
    assert validate({**config, **clusters}, SCHEMA)["clusters"]["min_size"] == size
