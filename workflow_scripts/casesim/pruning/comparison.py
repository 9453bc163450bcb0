"""Every test case before and after the removals of each arm.

Changes are differences of Dice, after minus before; NaN marks a pair with an undefined
Dice.
"""

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike

import numpy as np
import pandas as pd

from casesim.errors import UserError
from casesim.files import atomic_path
from casesim.pruning.arms import FULL, RELABELLED, Retrained, full_model

PRIMARY_REGION = "mean"


def check_split(cohort: pd.DataFrame, removed: Mapping[str, Iterable[str]]) -> None:
    """Assert that held-out, kept and removed cases are kept apart.

    Args:
        cohort: `cohort.tsv`, with columns `case`, `role` and `train_case`.
        removed: arm to the cases that it removes.

    Raises:
        UserError: a case has two roles or an unknown one, a held-out case is a train
            case, or an arm removes a case that is not a train case (a leak when it is
            held out).
    """
    if repeated := sorted(set(cohort["case"][cohort["case"].duplicated()])):
        raise UserError(
            f"Cases that results/cohort.tsv lists twice: {', '.join(repeated)}. Delete "
            "it to have it made again."
        )
    role = dict(zip(cohort["case"], cohort["role"], strict=True))
    if unknown := sorted(
        set(role.values()) - {"pool", "held_out", "calibration", "new"}
    ):
        raise UserError(
            f"Unknown roles in results/cohort.tsv: {', '.join(unknown)}. Delete it to "
            "have it made again."
        )
    is_train = cohort["train_case"].astype(str).str.lower() == "true"
    train = set(cohort["case"][is_train])
    if leaked := sorted(case for case in train if role[case] == "held_out"):
        raise UserError(
            f"Held-out cases that are train cases: {', '.join(leaked)}. They cannot "
            "judge models that were trained on them; take them out of "
            "`cohort.train_cases`."
        )
    for arm, cases in removed.items():
        leaked = sorted(case for case in cases if role.get(case) == "held_out")
        strangers = sorted(set(cases) - train)
        if leaked or strangers:
            what = "held out" if leaked else "no train cases"
            raise UserError(
                f"Arm {arm} removes cases that are {what}: "
                f"{', '.join(leaked or strangers)}. Delete "
                f"results/pruning/{arm}/removed_cases.txt to have them chosen again."
            )


def comparison(
    before: Iterable[pd.DataFrame],
    after: Iterable[pd.DataFrame],
    models: Mapping[str, Retrained],
    base_seed: int | None,
    removed: Mapping[str, Sequence[str]],
    cohort: pd.DataFrame,
    corrected: Sequence[str] = (),
) -> pd.DataFrame:
    """Dice of every test case before and after the removals of each arm.

    A retrained model is compared with the model of the full pool that was trained with
    the same seed: `base` for the base seed, `full-seed<S>` for another.

    Args:
        before: score tables of the models of the full pool, with columns `model`,
            `case`, `region` and `dice`.
        after: score tables of the retrained models.
        models: from `arms.retrained_models`.
        base_seed: the seed of `base`; None where that was trained elsewhere.
        removed: arm to the cases that it removes.
        cohort: `cohort.tsv`.
        corrected: the cases with a corrected label map. For the arm `relabelled` they
            count as removed: their scores are taken against the label map that its
            model has not seen.

    Returns:
        Columns `arm`, `seed`, `case`, `role`, `removed` (bool), `region`,
        `dice_before`, `dice_after`, `delta` (after - before; NaN where one of the two
        is undefined).

    Raises:
        UserError: a leak (see `check_split`), a model without scores, or two models
            that were scored on different cases.
    """
    check_split(cohort, removed)
    role = dict(zip(cohort["case"], cohort["role"], strict=True))
    scores = _dice_by_model([*before, *after])
    tables = []
    for name, model in models.items():
        arm = model["arm"]
        if arm == FULL:
            continue
        full = full_model(model["seed"], base_seed)
        if missing := [m for m in (full, name) if m not in scores]:
            raise UserError(
                f"There are no scores of the model {missing[0]}: its table in "
                "results/scores is missing or holds another model. Delete the table to "
                "have it made again."
            )
        pair = pd.concat(
            {"dice_before": scores[full], "dice_after": scores[name]}, axis=1
        )
        lone = pair.index.difference(
            scores[full].index.intersection(scores[name].index)
        )
        if len(lone):
            raise UserError(
                f"The models {full} and {name} were scored on different cases or "
                f"regions: {', '.join('/'.join(key) for key in lone[:5])}. Delete the "
                "score table of the model that lacks them to have it made again."
            )
        table = pair.reset_index()
        if strangers := sorted(set(table["case"]) - set(role)):
            raise UserError(
                f"{full} and {name} were scored on {strangers[0]}, which is not in "
                "results/cohort.tsv. Delete their tables in results/scores to have "
                "them made again."
            )
        table.insert(0, "arm", arm)
        table.insert(1, "seed", model["seed"])
        table.insert(3, "role", table["case"].map(role))
        unseen = corrected if arm == RELABELLED else removed[arm]
        table.insert(4, "removed", table["case"].isin(list(unseen)))
        tables.append(table)
    columns = ["arm", "seed", "case", "role", "removed", "region"]
    columns += ["dice_before", "dice_after"]
    if not tables:
        return pd.DataFrame(columns=[*columns, "delta"])
    merged = pd.concat(tables, ignore_index=True)[columns]
    merged["delta"] = merged["dice_after"] - merged["dice_before"]
    return merged


def _dice_by_model(tables: Iterable[pd.DataFrame]) -> dict[str, pd.Series]:
    """Dice indexed by (case, region), sorted, for each model."""
    scores: dict[str, pd.Series] = {}
    for table in tables:
        for name, rows in table.groupby("model"):
            dice = rows.set_index(["case", "region"])["dice"].astype(float).sort_index()
            if dice.index.has_duplicates:
                twice = dice.index[dice.index.duplicated()][0]
                raise UserError(
                    f"The scores of {name} list {'/'.join(twice)} twice. Delete its "
                    "table in results/scores to have it made again."
                )
            scores[str(name).removeprefix("retrained/")] = dice
    return scores


def group(table: pd.DataFrame) -> pd.Series:
    """`held_out`, `kept` or `removed` for each row of a comparison table.

    Raises:
        UserError: a held-out case is marked as removed.
    """
    held_out = table["role"] == "held_out"
    removed = table["removed"].astype(bool)
    if leaked := sorted(set(table["case"][held_out & removed])):
        raise UserError(f"Held-out cases are marked as removed: {', '.join(leaked)}.")
    values = np.select([held_out, removed], ["held_out", "removed"], "kept")
    return pd.Series(values, index=table.index, name="group")


def extremes(table: pd.DataFrame, arm: str, seed: int) -> list[tuple[str, str, float]]:
    """The case that improved most and the one that worsened most, removed ones aside.

    Args:
        table: from `comparison`.
        arm, seed: which model is compared with the full set.

    Returns:
        A word (`most improved`, `most worsened`; `least improved` where none
        worsened, `least worsened` where none improved), the case, and its change of
        mean Dice. No case comes twice, and none if all changes are undefined; ties by
        case id.
    """
    one = table.query("arm == @arm and seed == @seed and region == @PRIMARY_REGION")
    one = one[group(one) != "removed"].dropna(subset=["delta"])
    ordered = sorted(zip(one["delta"].astype(float), one["case"], strict=True))
    if not ordered:
        return []
    lowest = ordered[0]
    highest = min(pair for pair in ordered if pair[0] == ordered[-1][0])
    best = "least worsened" if highest[0] < 0 else "most improved"
    worst = "least improved" if lowest[0] > 0 else "most worsened"
    chosen = {highest[1]: (best, highest[0])}
    chosen.setdefault(lowest[1], (worst, lowest[0]))
    return [(word, str(case), delta) for case, (word, delta) in chosen.items()]


def write_comparison(table: pd.DataFrame, path: str | PathLike[str]) -> None:
    """Write `comparison.tsv`: booleans in lower case, undefined values left empty."""
    text = table.assign(
        removed=np.where(table["removed"].astype(bool), "true", "false")
    )
    with atomic_path(path) as temporary:
        text.to_csv(temporary, sep="\t", index=False)


def read_comparison(path: str | PathLike[str]) -> pd.DataFrame:
    """Read `comparison.tsv`; a case may be called NA, only an empty field is no
    number."""
    words = ("arm", "case", "role", "region")
    return pd.read_csv(
        path,
        sep="\t",
        dtype=dict.fromkeys(words, str),
        keep_default_na=False,
        na_values=[""],
    )
