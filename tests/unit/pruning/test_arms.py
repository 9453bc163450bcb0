"""Which cases each arm removes, and the names of the retrained models."""

import ast
import hashlib
import json
import runpy
import sys
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from casesim.errors import UserError
from casesim.pruning import arms, decisions

PRUNING = {"arms": ["worst_cluster", "lowest_rows"], "random_arms": 2, "seeds": [0]}
ARMS = ["worst_cluster", "lowest_rows", "random_1", "random_2"]

# Cluster means: A 0.2, B 0.8, C 0.6. Row `c2` is the lowest of all.
CLUSTERS = [
    {"case": "a1", "cluster": "1", "row_mean": "0.30", "worst": "true"},
    {"case": "a2", "cluster": "1", "row_mean": "0.10", "worst": "true"},
    {"case": "b1", "cluster": "2", "row_mean": "0.70", "worst": "false"},
    {"case": "b2", "cluster": "2", "row_mean": "0.80", "worst": "false"},
    {"case": "b3", "cluster": "2", "row_mean": "0.90", "worst": "false"},
    {"case": "c1", "cluster": "3", "row_mean": "0.95", "worst": "false"},
    {"case": "c2", "cluster": "3", "row_mean": "0.05", "worst": "false"},
    {"case": "c3", "cluster": "3", "row_mean": "0.80", "worst": "false"},
]
TRAIN = [row["case"] for row in CLUSTERS]
POOL = [*TRAIN, "p1", "p2"]
BASE_DICE = dict.fromkeys(POOL, 0.9) | {"p1": 0.0, "b1": 0.2, "c3": 0.1}


def choose(
    arm: str, clusters: list[dict[str, str]] = CLUSTERS, seed: int = 0
) -> list[str]:
    return arms.choose(arm, POOL, clusters, BASE_DICE, seed)


def with_worst(*cases: str) -> list[dict[str, str]]:
    return [row | {"worst": str(row["case"] in cases).lower()} for row in CLUSTERS]


def test_models_of_the_base_seed_are_named_after_their_arms() -> None:
    models = arms.retrained_models(PRUNING, base_seed=0)
    assert models == {arm: {"arm": arm, "seed": 0} for arm in ARMS}


def test_other_seeds_have_a_full_model_of_their_own() -> None:
    models = arms.retrained_models(PRUNING | {"seeds": [0, 7]}, base_seed=0)
    assert list(models) == [
        *ARMS,
        "full-seed7",
        *(f"{arm}-seed7" for arm in ARMS),
    ]
    assert models["full-seed7"] == {"arm": "full", "seed": 7}
    assert models["random_2-seed7"] == {"arm": "random_2", "seed": 7}


def test_a_base_seed_outside_the_seeds_leaves_every_name_with_its_seed() -> None:
    models = arms.retrained_models(PRUNING | {"seeds": [1, 2]}, base_seed=0)
    assert all("-seed" in name for name in models)
    for model in models.values():
        assert arms.full_model(model["seed"], 0) in models


def test_the_full_model_of_the_base_seed_is_base() -> None:
    assert arms.full_model(3, 3) == "base"
    assert arms.full_model(4, 3) == "full-seed4"


def test_without_arms_nothing_is_retrained() -> None:
    nothing = {"arms": [], "random_arms": 0, "seeds": [0, 1]}
    assert arms.retrained_models(nothing, 0) == {}


@pytest.mark.parametrize(
    ("arm", "removed"),
    [
        ("full", []),
        ("worst_cluster", ["a1", "a2"]),
        # Cluster 2 has the highest mean; its lowest row b1 stays.
        ("best_cluster", ["b2", "b3"]),
        ("lowest_rows", ["a2", "c2"]),
        # p1 is worse still, but no train case.
        ("lowest_base_dice", ["b1", "c3"]),
    ],
)
def test_arms_by_hand(arm: str, removed: list[str]) -> None:
    assert choose(arm) == removed


def test_a_small_best_cluster_is_filled_up_with_the_highest_rows() -> None:
    clusters = with_worst("a1", "a2", "c1", "c2")
    assert choose("best_cluster", clusters) == ["b1", "b2", "b3", "c1"]


def test_ties_are_broken_by_case_id() -> None:
    clusters = [row | {"row_mean": "0.5"} for row in CLUSTERS]
    assert choose("lowest_rows", clusters) == ["a1", "a2"]
    assert choose("best_cluster", clusters) == ["a1", "a2"]


@pytest.mark.parametrize("undefined", ["", "nan"])
def test_undefined_rows_come_last(undefined: str) -> None:
    clusters = [
        row | {"row_mean": undefined} if row["case"] == "c2" else row
        for row in CLUSTERS
    ]
    assert choose("lowest_rows", clusters) == ["a1", "a2"]
    # Cluster 3 is now c1 and c3, mean 0.875, and above cluster 2.
    assert choose("best_cluster", clusters) == ["c1", "c3"]


def test_a_train_case_without_base_dice_is_not_the_worst() -> None:
    dice = {case: value for case, value in BASE_DICE.items() if case != "c3"}
    removed = arms.choose("lowest_base_dice", POOL, CLUSTERS, dice, 0)
    assert removed == ["a1", "b1"]


@given(st.integers(0, 10_000), st.integers(1, 12))
def test_random_arms_draw_train_cases_of_the_same_number(seed: int, r: int) -> None:
    removed = choose(f"random_{r}", seed=seed)
    assert len(set(removed)) == 2
    assert set(removed) <= set(TRAIN)
    assert removed == sorted(removed)
    assert removed == choose(f"random_{r}", list(reversed(CLUSTERS)), seed)


def test_random_arms_are_all_subsets_but_the_worst_cluster_then_start_again() -> None:
    drawn = [tuple(choose(f"random_{r}")) for r in range(1, 29)]
    others = set(combinations(sorted(TRAIN), 2)) - {("a1", "a2")}
    assert set(drawn[:27]) == others
    assert len(drawn[27]) == 2


def test_random_arms_follow_the_seed() -> None:
    by_seed = {tuple(choose("random_1", seed=seed)) for seed in range(20)}
    assert len(by_seed) > 5


def test_random_draws_are_uniform_over_the_train_cases() -> None:
    times = dict.fromkeys(TRAIN, 0)
    for seed in range(800):
        for case in choose("random_1", seed=seed):
            times[case] += 1
    # 1,600 of 8, less the one set that is the worst cluster: 193 for a1 and a2, 202 for
    # the others, standard deviation about 12.
    assert all(150 < number < 250 for number in times.values())


@pytest.mark.parametrize("worst", [(), tuple(TRAIN)])
def test_without_a_proper_worst_cluster_the_user_is_told(worst: tuple[str]) -> None:
    with pytest.raises(UserError, match=r"worst cluster holds .* of 8 .*`clusters`"):
        choose("random_1", with_worst(*worst))


@pytest.mark.parametrize("arm", ["worst", "random_x", "random_"])
def test_an_unknown_arm_is_an_error(arm: str) -> None:
    with pytest.raises(UserError, match="Unknown arm"):
        choose(arm)


def test_a_case_outside_the_pool_is_an_error() -> None:
    with pytest.raises(UserError, match=r"not in the pool: c3"):
        arms.choose("random_1", TRAIN[:-1], CLUSTERS, BASE_DICE, 0)


def test_the_script_writes_what_is_kept_and_what_is_removed(tmp_path: Path) -> None:
    clusters = tmp_path / "clusters.tsv"
    rows = ["\t".join(CLUSTERS[0]), *("\t".join(row.values()) for row in CLUSTERS)]
    clusters.write_text("\n".join(rows) + "\n")
    cells = []
    for case, dice in BASE_DICE.items():
        # Of 1,000 voxels in both maps together; b1 has none, its Dice is undefined.
        hits = 0 if case == "b1" else round(500 * dice)
        wrong = 0 if case == "b1" else 1000 - 2 * hits
        counts = {"tp": hits, "fp": wrong, "fn": 0}
        counts |= {"n_pred": hits + wrong, "n_ref": hits}
        # Regions must not count.
        nothing = {"tp": 0, "fp": 9, "fn": 9, "n_pred": 9, "n_ref": 9}
        cell = {
            **{"model": "base", "case": case, "seconds": {}, "device": "cpu"},
            **{"labels": {"edema": counts}, "regions": {"ET": nothing}},
            **{"classes": ["edema"], "confusion": [[0, 0], [0, 0]]},
            "bands": {"fp": [0] * 5, "fn": [0] * 5},
        }
        cells.append(tmp_path / f"{case}.json")
        cells[-1].write_text(json.dumps(cell))
    job = SimpleNamespace(
        input=SimpleNamespace(
            clusters=str(clusters), base=[*map(str, cells)], decisions=[], matrix=[]
        ),
        output=SimpleNamespace(
            training_cases=str(tmp_path / "arm/training_cases.txt"),
            removed_cases=str(tmp_path / "arm/removed_cases.txt"),
        ),
        params=SimpleNamespace(pool=POOL, train=TRAIN, seed=0, region="mean"),
        wildcards=SimpleNamespace(arm="lowest_base_dice"),
        log=[str(tmp_path / "log")],
    )
    runpy.run_path(
        str(Path(arms.__file__).parents[2] / "pruning/choose_removals.py"),
        init_globals={"snakemake": job},
        run_name="__main__",
    )
    removed = (tmp_path / "arm/removed_cases.txt").read_text()
    assert removed == "a1\nc3\n"
    training = (tmp_path / "arm/training_cases.txt").read_text().split()
    assert training == sorted(set(POOL) - {"a1", "c3"})


def test_the_module_imports_the_standard_library_only() -> None:
    """It is imported whenever the workflow is parsed, by every job on a cluster."""
    tree = ast.parse(Path(arms.__file__).read_text())
    modules = [
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
        )
        if not (isinstance(node, ast.ImportFrom) and node.level)
    ]
    assert modules
    light = sys.stdlib_module_names | {"casesim"}
    assert all(name.split(".")[0] in light for name in modules)


# What a reviewer decides


def test_a_reviewer_s_arms_have_random_arms_of_their_own() -> None:
    names = arms.arms(PRUNING, reviewed=True, relabelled=True)
    assert names == [
        *("worst_cluster", "lowest_rows", "reviewed", "relabelled"),
        *("random_1", "random_2", "random_reviewed_1", "random_reviewed_2"),
    ]
    assert arms.arms(PRUNING) == ARMS
    controls = {
        arm: [name for name in names if arms.is_control_of(name, arm)] for arm in names
    }
    assert controls["reviewed"] == ["random_reviewed_1", "random_reviewed_2"]
    for arm in ("worst_cluster", "lowest_rows", "relabelled"):
        assert controls[arm] == ["random_1", "random_2"]


def test_the_reviewed_arm_removes_what_the_reviewer_removed() -> None:
    reviewed = ["c2", "a1", "b1"]

    def chosen(arm: str) -> list[str]:
        return arms.choose(arm, POOL, CLUSTERS, BASE_DICE, 0, reviewed)

    assert chosen("reviewed") == ["a1", "b1", "c2"]
    assert chosen("relabelled") == []
    randoms = [chosen(f"random_reviewed_{r}") for r in range(1, 6)]
    # As many as the reviewer's, not as the worst cluster's two; all different.
    assert {len(removed) for removed in randoms} == {3}
    assert len({tuple(removed) for removed in [*randoms, chosen("reviewed")]}) == 6
    assert all(set(removed) <= set(TRAIN) for removed in randoms)
    # The arms of the worst cluster's size are those without a reviewer.
    assert chosen("random_1") == choose("random_1")


@pytest.mark.parametrize(
    ("means", "message"),
    [
        (["0.5", "0.5", "0.6"], "all rows of the matrix are equal.* raise training"),
        (["0", "0", ""], "every Dice is 0 or undefined.* choose another similarity"),
        (["", "", ""], "every Dice is undefined.* labels in no case"),
    ],
)
def test_rows_that_are_all_alike_say_why(means: list[str], message: str) -> None:
    rows = [
        {"case": case, "cluster": "1", "row_mean": mean, "worst": "false"}
        for case, mean in zip(("a1", "b1", "c1"), means, strict=True)
    ]
    with pytest.raises(UserError, match=message) as error:
        choose("worst_cluster", rows)
    assert "clusters" not in str(error.value)


def test_the_script_reads_a_reviewer_s_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clusters, matrix = tmp_path / "clusters.tsv", tmp_path / "matrix.tsv"
    rows = ["\t".join(CLUSTERS[0]), *("\t".join(row.values()) for row in CLUSTERS)]
    clusters.write_text("\n".join(rows) + "\n")
    matrix.write_text("any")
    digest = hashlib.sha256(b"any").hexdigest()
    table = tmp_path / "decisions.tsv"
    lines = ["\t".join(decisions.COLUMNS)]
    for case, word in (("c2", "remove"), ("a1", "fine"), ("b1", "remove")):
        lines.append(f"{case}\t{word}\t\t\t\t{digest}")
    table.write_text("\n".join(lines) + "\n")
    job = SimpleNamespace(
        # Snakemake makes a list of one of a function's list of one.
        input=SimpleNamespace(
            clusters=str(clusters),
            base=[],
            decisions=[str(table)],
            matrix=str(matrix),
        ),
        output=SimpleNamespace(
            training_cases=str(tmp_path / "arm/training_cases.txt"),
            removed_cases=str(tmp_path / "arm/removed_cases.txt"),
        ),
        params=SimpleNamespace(pool=POOL, train=TRAIN, seed=0, region="mean"),
        wildcards=SimpleNamespace(arm="reviewed"),
        log=[str(tmp_path / "log")],
    )
    script = str(Path(arms.__file__).parents[2] / "pruning/choose_removals.py")
    runpy.run_path(script, init_globals={"snakemake": job}, run_name="__main__")
    assert (tmp_path / "arm/removed_cases.txt").read_text() == "b1\nc2\n"
    matrix.write_text("another")
    with pytest.raises(SystemExit):
        runpy.run_path(script, init_globals={"snakemake": job}, run_name="__main__")
    assert "made on another matrix" in capsys.readouterr().err
