"""A case's files: what is in them, what is left out, and that this is told."""

from pathlib import Path

import pytest
from unit.explorer.runs import Run

from casesim.errors import UserError
from casesim.explorer import budget, pack


def pack_case(run: Run, case: str, room: int, ranked: list[str]) -> tuple:
    return pack.pack_case(
        case,
        [str(run.image(case, 0)), str(run.image(case, 1))],
        str(run.label(case)),
        {name: str(run.prediction(name, case)) for name in run.models(case)},
        ranked,
        room,
    )


def test_everything_is_there_where_there_is_room(run: Run) -> None:
    channels, maps, contents = pack_case(run, "case_2", 10**9, run.train)
    assert [len(channel["sprites"]) for channel in channels] == [1, 1]
    assert set(maps["maps"]) == {"reference", *run.models("case_2")}
    assert contents["channels"] == contents["models"] == contents["missing"] == []
    assert contents["bytes"] > 1000


def test_a_held_out_case_has_no_models_of_one_case(run: Run) -> None:
    _, maps, _ = pack_case(run, "held_1", 10**9, run.train)
    assert set(maps["maps"]) == {
        "reference", "base", "retrained/worst_cluster", "retrained/random_1",
    }  # fmt: skip


def test_what_is_needed_most_stays(run: Run) -> None:
    _, _, everything = pack_case(run, "case_2", 10**9, run.train)
    ranked = ["case_5", "case_1", "case_2", "case_3", "case_4"]
    # One map less than all.
    channels, maps, contents = pack_case(run, "case_2", everything["bytes"] - 1, ranked)
    assert contents["models"] == ["finetuned/case_4"]
    assert contents["bytes"] < everything["bytes"]
    assert "finetuned/case_4" not in maps["maps"]
    # Room for the maps that are needed most, and not for an image.
    _, whole, _ = pack_case(run, "case_2", 10**9, ranked)
    needed = ["reference", "base", "retrained/random_1", "retrained/worst_cluster"]
    needed.append("finetuned/case_2")
    room = sum(budget.size(whole["maps"][name]) for name in needed)
    channels, maps, contents = pack_case(run, "case_2", room, ranked)
    assert channels == [{"left_out": True}] * 2
    assert contents["channels"] == [0, 1]
    assert sorted(maps["maps"]) == sorted(needed)
    assert contents["models"] == [f"finetuned/case_{i}" for i in (5, 1, 3, 4)]


def test_a_missing_prediction_is_told(tmp_path: Path) -> None:
    run = Run(tmp_path, train=["a", "b", "c"], held_out=[])
    run.prediction("finetuned/b", "a").unlink()
    _, maps, contents = pack_case(run, "a", 10**9, run.train)
    assert contents["missing"] == ["finetuned/b"]
    assert "finetuned/b" not in maps["maps"]


def test_a_script_hands_over_what_was_written(tmp_path: Path) -> None:
    content = {"text": '</script> \u2028 \u2029 "quoted" é', "number": 1.5}
    pack.write_script("a/b", content, tmp_path / "b.js")
    text = (tmp_path / "b.js").read_text(encoding="utf-8")
    assert "\u2028" not in text
    assert text.startswith('Explorer.receive("a/b",{')
    assert pack.read_script(tmp_path / "b.js") == content


def test_a_script_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is missing"):
        pack.read_script(tmp_path / "none.js")
    (tmp_path / "other.js").write_text("alert(1)")
    with pytest.raises(UserError, match="no part of an explorer"):
        pack.read_script(tmp_path / "other.js")
