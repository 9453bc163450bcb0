"""All regions at once: fitted, judged, kept in a file."""

import json
from pathlib import Path

import pandas as pd
import pytest

from casesim.adaptive import fitting, table
from casesim.errors import UserError

from .synthetic import BASE_DICE, cells


def tables(n: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    both = pd.concat([cells(n, region="a"), cells(n, region="mean", seed=1)])
    base = pd.DataFrame(
        [(case, r, dice) for r in ("a", "mean") for case, dice in BASE_DICE.items()],
        columns=["case", "region", "dice"],
    )
    keys = ["model", "case", "region", "dice"]
    return both.drop(columns="dice"), both[keys], base


def kinds(n: int) -> dict[str, str]:
    return {f"case{i:03d}": f"scanner {i % 3}" for i in range(n)}


@pytest.fixture(scope="module")
def fitted() -> fitting.Fitted:
    return fitting.fit_all(*tables(30), 0.9, 0, kinds(30), trees=30)


def test_every_region_has_a_fit_of_its_own(fitted: fitting.Fitted) -> None:
    assert list(fitted.fits) == ["a", "mean"]
    assert len(fitted.out_of_fold) == 2 * 30 * 6
    for region in ("a", "mean"):
        found = fitted.summary[region]
        assert found["n_cases"] == 30
        assert found["by_case"]["rank_correlation"] > 0.6
        # Raw confidence is too high by a tenth, and calibration takes that away.
        assert found["raw_confidence"]["bias"] > 0.05
        assert abs(found["by_case"]["bias"]) < 0.03
        assert found["by_row"]["groups"] == 6
        assert found["by_kind"]["groups"] == 3
        assert 0 < found["by_kind"]["base"]["mae"] < 0.2
    assert "predicted with a mean error of 0." in fitting.describe(fitted.summary, "a")


def test_a_fit_survives_its_file(fitted: fitting.Fitted, tmp_path: Path) -> None:
    path = tmp_path / "similarity.joblib"
    fitting.save(fitted.fits, path)
    new = tables(3)[0]
    pd.testing.assert_frame_equal(
        fitting.predict_all(fitting.load(path), new),
        fitting.predict_all(fitted.fits, new),
    )


def test_files_that_cannot_be_used(
    fitted: fitting.Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "similarity.joblib"
    with pytest.raises(UserError, match="is missing"):
        fitting.load(path)
    path.write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot be read"):
        fitting.load(path)
    monkeypatch.setattr("sklearn.__version__", "0.1")
    fitting.save(fitted.fits, path)
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"written with scikit-learn 0\.1"):
        fitting.load(path)


def test_few_cases_are_said_to_be_few() -> None:
    few = fitting.fit_all(*tables(5), 0.9, 0, {})
    assert not few.summary["a"]["calibrated"]
    assert "by_row" not in few.summary["a"]
    text = fitting.describe(few.summary, "a")
    assert "5 calibration cases" in text
    assert "at least 20" in text


def test_a_base_that_finds_nothing_is_told_about_from_a_file(tmp_path: Path) -> None:
    """Its Dice is 0 everywhere, and no rank correlation is defined."""
    features, scores, base = tables(22)
    scores["dice"] = scores["dice"].where(scores["model"] != "base", 0)
    found = fitting.fit_all(features, scores, base, 0.9, 0, {}, trees=5)
    table.write_json(found.summary, tmp_path / "fit.json")
    summary = json.loads((tmp_path / "fit.json").read_text())
    for content in (found.summary, summary):
        assert "rank correlation undefined." in fitting.describe(content, "a")


def test_few_patients_are_said_to_be_few() -> None:
    patients = {f"case{i:03d}": f"p{i % 3}" for i in range(24)}
    few = fitting.fit_all(*tables(24), 0.9, 0, {}, patients=patients)
    text = fitting.describe(few.summary, "a")
    assert text.startswith("The 3 patients of 24 calibration cases with a defined Dice")
    assert "(at least 5)" in text


def test_the_kinds_of_phantoms_are_their_scanners() -> None:
    cases = [f"phantom_{i:03d}" for i in range(1, 20)]
    found = fitting.kinds_of_case(cases, {"scanners": 3}, 0)
    assert set(found) == set(cases)
    assert set(found.values()) == {"scanner 0", "scanner 1", "scanner 2"}
    assert fitting.kinds_of_case(cases, None, 0) == {}
