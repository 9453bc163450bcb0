"""Tables of the stage: what is joined to what."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from casesim.adaptive import table
from casesim.adaptive.agreement import AGREEMENTS
from casesim.errors import UserError

from .synthetic import cells


def cell(model: str, **expected: float) -> dict:
    regions = {
        name: {"expected_dice": value, "entropy": None, "volume_ml": 2, "components": 1}
        for name, value in expected.items()
    }
    return {"model": model, "case": "c", "regions": regions}


def test_features_of_a_case() -> None:
    given = [
        cell("base", a=0.5, b=0.7, ab=0.9),
        cell("finetuned/x", a=0.6, b=0.6, ab=1),
    ]
    agreements = {
        (one["model"], region): dict.fromkeys(AGREEMENTS, 0.25)
        for one in given
        for region in one["regions"]
    }
    agreements["base", "a"]["agree_base"] = math.nan
    found = table.feature_table(given, agreements, ["a", "b"])
    assert list(found) == ["model", "case", "region", *table.FEATURES]
    assert len(found) == 2 * 4
    base = found[found["model"] == "base"].set_index("region")
    assert base["expected_dice"].to_dict() == {
        "a": 0.5,
        "b": 0.7,
        "ab": 0.9,
        "mean": pytest.approx(0.6),
    }
    assert np.isnan(base["entropy"]["a"])
    # Undefined values are left out of the mean.
    assert base["agree_base"]["mean"] == 0.25
    assert np.isnan(base["entropy"]["mean"])


def test_cells_are_read_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "cell.json"
    path.write_text(json.dumps(cell("base", a=0.5)))
    assert table.read_cell(path)["model"] == "base"
    path.write_text('{"model": "base", "case": "c", "regions": {"a": {"entropy": 1}}}')
    with pytest.raises(UserError, match="is not a cell without label"):
        table.read_cell(path)
    with pytest.raises(UserError, match="is missing"):
        table.read_cell(tmp_path / "other.json")


def test_dice_is_joined_where_there_is_a_label() -> None:
    features = cells(3, 2).drop(columns="dice")
    scores = features[["model", "case", "region"]].assign(dice=0.5)
    scores = scores[scores["case"] != "case002"]
    roles = {"case000": "calibration", "case001": "held_out", "case002": "new"}
    found = table.gather(features, scores, roles)
    assert list(found)[:4] == ["model", "case", "role", "region"]
    assert found.groupby("role")["dice"].count().to_dict() == {
        "calibration": 2,
        "held_out": 2,
        "new": 0,
    }
    strange = scores.assign(model="finetuned/unknown").iloc[:1]
    with pytest.raises(UserError, match="unknown on case000"):
        table.gather(features, strange, roles)


def test_tables_survive_their_file(tmp_path: Path) -> None:
    written = cells(2, 2).assign(case=["NA", "NA", "007", "007"])
    written.loc[0, "dice"] = math.nan
    table.write(written, tmp_path / "t.tsv")
    found = table.read([tmp_path / "t.tsv", tmp_path / "t.tsv"])
    pd.testing.assert_frame_equal(found[:4], written, check_dtype=False)
    assert len(found) == 8
    with pytest.raises(UserError, match="is missing"):
        table.read([tmp_path / "none.tsv"])


def test_json_has_null_for_what_is_not_finite(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    table.write_json({"a": math.nan, "b": [np.float64(1.5), math.inf]}, path)
    assert json.loads(path.read_text()) == {"a": None, "b": [1.5, None]}


def test_row_means() -> None:
    scores = pd.DataFrame(
        {
            "model": ["x", "x", "x", "y", "y", "y"],
            "case": [*"abcabc"],
            "dice": [0.2, 0.4, math.nan, 0.5, math.nan, math.nan],
        }
    )
    assert table.row_means(scores).to_dict() == pytest.approx({"x": 0.3, "y": 0.5})
    others = table.row_means_without_own(scores)
    assert others[:3].to_list() == pytest.approx([0.4, 0.2, 0.3])
    assert math.isnan(others[3])
    assert others[4:].to_list() == [0.5, 0.5]
    others = table.row_means_without_own(scores, {"a": "a", "c": "a"})
    assert others[:3].to_list() == pytest.approx([0.4, 0.2, 0.4])


def test_design_is_relative_to_the_column() -> None:
    features = cells(2, 3)
    features["expected_dice"] = [0.5, 0.7, 0.9, 0.1, 0.2, 0.4]
    means = pd.Series([0.1, 0.2, 0.3] * 2)
    seen = table.design(features, means, {"t1": 0.8})
    assert seen["expected_dice_relative"].to_list() == pytest.approx(
        [-0.2, 0.0, 0.2, -0.1, 0.0, 0.2]
    )
    assert seen["base_expected_dice"].to_list() == [0.5] * 3 + [0.1] * 3
    assert seen["row_mean"].to_list() == means.to_list()
    assert seen["is_base"].to_list() == [1, 0, 0] * 2
    dice = seen["base_dice_on_train_case"]
    assert dice[[1, 4]].to_list() == [0.8, 0.8]
    assert dice[[0, 2, 3, 5]].isna().all()
    assert "dice" not in seen
    assert "volume_ml" not in seen
    np.testing.assert_allclose(seen["log_volume"], np.log1p(features["volume_ml"]))


def test_design_does_not_depend_on_the_order_of_rows() -> None:
    features = cells(3, 4)
    means = pd.Series(np.linspace(0, 1, len(features)))
    mixed = features.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(
        table.design(features, means, {}),
        table.design(mixed, means.loc[mixed.index], {}).sort_index(),
    )


def test_design_refuses_what_it_cannot_compare() -> None:
    features = cells(2, 3)
    means = pd.Series(0.5, features.index)
    with pytest.raises(ValueError, match="more than one region"):
        table.design(features.assign(region=[*"ababab"]), means, {})
    with pytest.raises(ValueError, match="has not segmented case001"):
        table.design(features.drop(index=3), means.drop(index=3), {})
