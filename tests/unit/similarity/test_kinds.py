"""Each rule on simulated cohorts, and what must not be accused."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from unit.similarity.simulated_errors import SOUND, Defect, simulate_errors

from casesim.inference.errors import Errors
from casesim.similarity import kinds
from casesim.similarity.kinds import classify, short
from casesim.similarity.signatures import FOREGROUND, signatures

PLANTED = {
    kinds.OVER: Defect(grown=0.45),
    kinds.UNDER: Defect(grown=-0.6),
    kinds.DISPLACED: Defect(apart=0.7),
    kinds.EXCHANGED: Defect(exchanged=(1, 2)),
}
HARD = Defect(hard=0.35, taught=0.0)


def judge(
    defects: list[Defect], seed: int = 0, rows: bool = True, **options: Any
) -> pd.DataFrame:
    errors, base = simulate_errors(defects, seed)
    found = signatures(errors if rows else None, base, {})
    return classify(found, errors.cases, **options)


@pytest.mark.parametrize("rows", [True, False])
@pytest.mark.parametrize("kind", PLANTED)
def test_each_kind_is_named(kind: str, rows: bool) -> None:
    table = judge([SOUND] * 20 + [PLANTED[kind]] * 3, rows=rows)
    assert [short(found) for found in table["kind"][20:]] == [kind] * 3
    accused = table["kind"][:20].map(short).isin(kinds.LABEL_KINDS).sum()
    assert accused <= 1
    assert (table["strength"][20:] >= kinds.STRONG).all()
    assert (table["evidence"][20:] != "").all()


@pytest.mark.parametrize("rows", [True, False])
def test_a_handful_of_cases_says_nothing_of_what_is_usual(rows: bool) -> None:
    enough = kinds.FEWEST_CASES
    defects = [*[SOUND] * (enough - 1), PLANTED[kinds.OVER]]
    assert judge(defects, rows=rows)["kind"].iloc[-1] == kinds.OVER
    table = judge(defects[1:], rows=rows)
    assert set(table["kind"]) == {kinds.TOO_FEW}
    assert (table["strength"] == 0).all()
    assert set(table["evidence"]) == {
        f"what is usual takes {enough} cases, here are {enough - 1}"
    }
    few = judge(defects[1:], rows=rows, fewest=enough - 1)
    assert few["kind"].iloc[-1] == kinds.OVER
    # Scores are still there, to be compared with others.
    assert table["suspicion"].idxmax() == table.index[-1]


def test_the_exchanged_labels_are_named() -> None:
    table = judge([SOUND] * 20 + [Defect(exchanged=(0, 2))])
    assert table["kind"].iloc[-1] == "labels exchanged: edema and rim"


def test_a_hard_case_is_no_wrong_label() -> None:
    table = judge([SOUND] * 20 + [HARD])
    assert table["kind"].iloc[-1] == kinds.HARD


def test_a_mixed_cohort_is_sorted_out_and_hardly_a_sound_case_accused() -> None:
    defects = [defect for defect in PLANTED.values() for _ in range(4)]
    wanted = [kind for kind in PLANTED for _ in range(4)]
    right = accused = 0
    for seed in range(5):
        table = judge(defects + [SOUND] * 30 + [HARD] * 2, seed)
        found = [short(kind) for kind in table["kind"]]
        right += sum(a == b for a, b in zip(found, wanted, strict=False))
        accused += sum(kind in kinds.LABEL_KINDS for kind in found[16:])
    assert right >= 0.9 * 5 * 16
    assert accused <= 0.05 * 5 * 32


def test_a_cohort_without_defects_is_not_accused() -> None:
    accused = sum(
        judge([SOUND] * 40, seed)["kind"].isin(kinds.LABEL_KINDS).sum()
        for seed in range(5)
    )
    assert accused <= 0.05 * 200


def test_a_row_that_teaches_the_opposite_is_no_evidence() -> None:
    """Others call the map too large, but its model draws too little."""
    table = judge([SOUND] * 20 + [Defect(grown=0.5, taught=-1.0)])
    last = str(table["kind"].iloc[-1])
    assert short(last) not in (kinds.OVER, kinds.UNDER)


def untrained(base: Errors) -> Errors:
    """A model that finds four voxels of ten, and draws as many where nothing is."""
    confusion = base.confusion.copy()
    lost = 0.6 * confusion[:, :, 1:, 1:].sum(axis=-1)
    confusion[:, :, 1:, 1:] *= 0.4
    confusion[:, :, 1:, 0] += lost
    confusion[:, :, 0, 1:] += lost
    return replace(base, confusion=confusion)


def test_a_model_that_has_not_learnt_the_task_is_no_judge() -> None:
    errors, base = simulate_errors([SOUND] * 20 + [PLANTED[kinds.EXCHANGED]] * 2, 0)
    bad = signatures(errors, untrained(base), {})
    found = classify(bad, errors.cases)
    assert found["kind"][20:].map(short).tolist() == [kinds.EXCHANGED] * 2
    # The fine-tuned models are asked then.
    by_them = bad.wide("column")["dice", FOREGROUND]
    pd.testing.assert_series_equal(found["others_dice"], by_them, check_names=False)
    # Where nothing was fine-tuned, it is all that there is.
    alone = classify(signatures(None, untrained(base), {}), errors.cases)
    assert alone["others_dice"].iloc[0] != by_them.iloc[0]


def channels(score: float, case: str = "case_020") -> pd.DataFrame:
    rows = [
        (f"case_{i:03d}", name, 0.5, "noise", 0.4) for i in range(22) for name in "AB"
    ]
    table = pd.DataFrame(rows, columns=["case", "channel", "score", "number", "z"])
    table.loc[(table["case"] == case) & (table["channel"] == "B"), "score"] = score
    return table


def test_a_bad_channel_is_named_unless_the_label_is_worse() -> None:
    defects = [SOUND] * 20 + [SOUND, PLANTED[kinds.OVER]]
    table = judge(defects, channels=channels(2.0))
    assert table.loc["case_020", "kind"] == kinds.BAD_IMAGE
    assert table.loc["case_020", "channel"] == "B"
    assert "noise" in str(table.loc["case_020", "evidence"])
    table = judge(defects, channels=channels(2.0, "case_021"))
    assert table.loc["case_021", "kind"] == kinds.OVER
    assert table.loc["case_021", "channel_score"] == 2.0
    table = judge(defects, channels=channels(kinds.BAD_CHANNEL - 0.01))
    assert table.loc["case_020", "kind"] != kinds.BAD_IMAGE


def test_what_a_bad_image_explains_is_not_put_on_its_label_map() -> None:
    defects = [SOUND] * 20 + [PLANTED[kinds.DISPLACED], SOUND]
    assert judge(defects).loc["case_020", "kind"] == kinds.DISPLACED
    table = judge(defects, channels=channels(2.0))
    assert table.loc["case_020", "kind"] == kinds.BAD_IMAGE


def test_a_data_set_with_one_label_has_nothing_to_exchange() -> None:
    errors, base = simulate_errors([SOUND] * 20 + [PLANTED[kinds.OVER]])
    single = [
        type(e)(e.models, e.cases, ["tumour"], _merged(e.confusion), e.fp, e.fn)
        for e in (errors, base)
    ]
    table = classify(signatures(single[0], single[1], {}), errors.cases)
    assert table["kind"].iloc[-1] == kinds.OVER
    assert table["gain"].isna().all()


def _merged(confusion: np.ndarray) -> np.ndarray:
    edges = [0, 1]
    rows = np.add.reduceat(confusion, edges, axis=2)
    return np.add.reduceat(rows, edges, axis=3)
