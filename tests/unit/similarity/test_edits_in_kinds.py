"""What an edit that fits does to the kinds: each rule, on simulated cohorts."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from unit.similarity.simulated_errors import SOUND, Defect, simulate_errors

from casesim.similarity import kinds
from casesim.similarity.edits import ADDED, EDITS, MOVED, NARROWER, REMOVED, WIDER
from casesim.similarity.kinds import LARGEST_Z, STRONG, classify, short
from casesim.similarity.signatures import (
    FOREGROUND,
    SMALLEST_SPREAD,
    Signatures,
    signatures,
    standardised,
)

NUMBER = 20
CASES = [f"case_{i:03d}" for i in range(NUMBER + 1)]
LAST = CASES[-1]
# Too little for the counts to accuse, and what an image that is hard looks like.
SLIGHT, HARD = Defect(grown=0.1), Defect(hard=0.35, taught=0.0)


def changes(
    edit: str, gain: float, by: float = 2.0, usual: float = 0.0
) -> pd.DataFrame:
    """Edits of a cohort in which the last case gains by one of them."""
    rows = [(case, name, usual, usual) for case in CASES for name in EDITS]
    table = pd.DataFrame(rows, columns=["case", "edit", "gain", "by"])
    chosen = (table["case"] == LAST) & (table["edit"] == edit)
    table.loc[chosen, ["gain", "by"]] = gain, by
    return table


def found(
    defect: Defect, table: pd.DataFrame | None, rows: bool = True, seed: int = 0
) -> Signatures:
    errors, base = simulate_errors([SOUND] * NUMBER + [defect], seed)
    return signatures(errors if rows else None, base, {}, changes=table)


def judge(
    defect: Defect, edit: str, gain: float, rows: bool = True, **more: float
) -> pd.Series:
    table = classify(found(defect, changes(edit, gain, **more), rows), CASES)
    assert not table["kind"][:-1].isin(kinds.LABEL_KINDS).any()
    return pd.Series(table.iloc[-1])


def test_what_an_edit_gains_is_compared_with_nothing_gained() -> None:
    few = np.array([0.0] * 15 + [0.02, 0.03, 0.05, 0.1, np.nan])
    effect, z = standardised(few, WIDER)
    np.testing.assert_array_equal(effect, few)
    np.testing.assert_allclose(z, few / SMALLEST_SPREAD[WIDER])
    # The upper quartile of a normal distribution's size is 1.1503 deviations.
    many = np.linspace(0, 0.2, 41)
    np.testing.assert_allclose(standardised(many, MOVED)[1], many / (0.15 / 1.1503))


def test_edits_are_a_side_of_their_own() -> None:
    table = found(SOUND, changes(MOVED, 0.07)).table
    rows = table[(table["side"] == "edits") & (table["case"] == LAST)]
    values = rows.set_index("measure")
    assert set(values.index) == set(EDITS)
    assert values.loc[MOVED, "value"] == 0.07
    assert values.loc[MOVED, "z"] == pytest.approx(0.07 / SMALLEST_SPREAD[MOVED])
    assert set(rows["region"]) == {FOREGROUND}


@pytest.mark.parametrize(
    ("edit", "kind", "words"),
    [
        (NARROWER, kinds.OVER, "drawn 2 mm narrower, it fits by +0.20 Dice"),
        (REMOVED, kinds.OVER, "with a piece of 30% of it removed, it fits by +0.30"),
        (WIDER, kinds.UNDER, "drawn 2 mm wider"),
        (ADDED, kinds.UNDER, "with a piece of 30% of it added"),
        (MOVED, kinds.DISPLACED, "moved by 2 mm"),
    ],
)
@pytest.mark.parametrize("rows", [True, False])
def test_an_edit_that_gains_much_names_the_kind(
    edit: str, kind: str, words: str, rows: bool
) -> None:
    piece = edit in (REMOVED, ADDED)
    gain, by = (0.3, 0.3) if piece else (0.2, 2.0)
    case = judge(SOUND, edit, gain, rows, by=by)
    assert case["kind"] == kind
    assert case["strength"] >= STRONG
    assert str(case["evidence"]).startswith(words)
    assert (case["edit"], case["edit_gain"], case["edit_by"]) == (edit, gain, by)


def test_a_border_needs_the_row_to_agree_unless_much_is_gained() -> None:
    gain = 4 * SMALLEST_SPREAD[NARROWER]
    slight = judge(SLIGHT, NARROWER, gain)
    assert slight["row_volume_z"] > 0
    assert slight["kind"] == kinds.OVER
    contrary = replace(SLIGHT, taught=-1.5)
    assert judge(contrary, NARROWER, gain)["kind"] == kinds.NOTHING
    decisive = (LARGEST_Z + 0.1) * SMALLEST_SPREAD[NARROWER]
    assert judge(contrary, NARROWER, decisive)["kind"] == kinds.OVER


def test_little_gained_is_nothing() -> None:
    gain = 1.5 * SMALLEST_SPREAD[WIDER]
    assert judge(SOUND, WIDER, gain)["kind"] == kinds.NOTHING
    assert judge(SOUND, WIDER, gain, rows=False)["kind"] == kinds.NOTHING


def test_what_everybody_gains_is_no_error() -> None:
    """A base model that draws too little finds all maps too large."""
    table = changes(NARROWER, 0.1, usual=0.1)
    named = classify(found(SOUND, table), CASES)
    assert not named["kind"].map(short).isin(kinds.LABEL_KINDS).any()


def test_an_edit_that_does_not_explain_a_map_is_none() -> None:
    """A hard case is matched badly, and still so after the edit."""
    case = judge(HARD, WIDER, 0.1)
    assert case["kind"] == kinds.HARD
    assert case["edit"] == ""
    assert judge(HARD, WIDER, 0.35)["kind"] == kinds.UNDER


def test_another_border_does_not_explain_wrong_labels_within() -> None:
    exchanged = Defect(exchanged=(1, 2))
    case = judge(exchanged, NARROWER, 0.2)
    assert short(str(case["kind"])) == kinds.EXCHANGED
    assert case["edit"] == ""


def test_counts_do_not_accuse_where_no_edit_helps() -> None:
    grown = Defect(grown=0.45)
    assert classify(found(grown, None), CASES).loc[LAST, "kind"] == kinds.OVER
    for edit in (WIDER, MOVED):
        assert judge(grown, edit, 0.0)["kind"] != kinds.OVER
    assert judge(grown, NARROWER, 0.2)["kind"] == kinds.OVER


def test_counts_decide_where_no_piece_could_be_looked_for() -> None:
    table = changes(MOVED, 0.0)
    pieces = table["edit"].isin([REMOVED, ADDED])
    for grown, kind in ((0.45, kinds.OVER), (-0.6, kinds.UNDER)):
        signature = found(Defect(grown=grown), table)
        assert classify(signature, CASES).loc[LAST, "kind"] != kind
        unseen = table.assign(gain=table["gain"].mask(pieces))
        named = classify(found(Defect(grown=grown), unseen), CASES)
        assert named.loc[LAST, "kind"] == kind
        assert not named["kind"][:-1].isin(kinds.LABEL_KINDS).any()


def test_the_edit_that_stands_out_most_explains_the_map() -> None:
    """A map that was moved lacks a piece, too; one that lacks half lies elsewhere."""
    table = changes(MOVED, 0.08)
    piece = (table["case"] == LAST) & (table["edit"] == ADDED)
    for gain, kind in ((0.09, kinds.DISPLACED), (0.3, kinds.UNDER)):
        table.loc[piece, "gain"] = gain
        assert classify(found(SOUND, table), CASES).loc[LAST, "kind"] == kind


def test_a_model_that_has_not_learnt_the_task_gives_no_edits() -> None:
    errors, base = simulate_errors([SOUND] * (NUMBER + 1), 0)
    confusion = base.confusion.copy()
    lost = 0.6 * confusion[:, :, 1:, 1:].sum(axis=-1)
    confusion[:, :, 1:, 1:] *= 0.4
    confusion[:, :, 1:, 0] += lost
    poor = replace(base, confusion=confusion)
    table = signatures(errors, poor, {}, changes=changes(MOVED, 0.3))
    named = classify(table, CASES)
    assert (named["edit"] == "").all()
    assert named["edit_gain"].isna().all()
    assert named.loc[LAST, "kind"] == kinds.NOTHING


def test_the_order_of_cases_changes_no_kind() -> None:
    table = changes(MOVED, 0.08)
    named = classify(found(SLIGHT, table), CASES)
    shuffled = table.sample(frac=1, random_state=3)
    again = classify(found(SLIGHT, shuffled), CASES[::-1])
    pd.testing.assert_frame_equal(again.loc[CASES], named)
