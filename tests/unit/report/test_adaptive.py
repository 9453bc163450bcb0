"""The figure of the validation and the page on new cases."""

import base64
import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import SimpleITK

from casesim.adaptive import arrivals, outlook
from casesim.report import adaptive, adaptive_summary, new_cases

LABELS = {"edema": 1, "core": 2}


def methods() -> pd.DataFrame:
    names = ["oracle", "adaptive", "continued_kept", "random_1", "base", "random_2"]
    names += ["nearest_by_image"]
    change = np.array([0.08, 0.05, 0.04, -0.01, 0.0, -0.03, -0.3])
    return pd.DataFrame(
        {
            "method": names,
            "n": [3, 3, 2, 3, 3, 3, 3],
            "mean": 0.6 + change,
            "change": change,
            "ci_low": change - 0.02,
            "ci_high": change + 0.02,
            "gap_closed": change / 0.08,
        }
    )


def content(**more: float) -> dict:
    quality = {"mae": 0.05, "coverage": 0.9, "n": 3, **more}
    return {"region": "mean", "held_out_cases": 3, "level": 0.9, "adaptive": quality}


def points(predicted: float = 0.6) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "kind": ["base", "adaptive"],
            "case": ["c", "c"],
            "predicted_dice": predicted,
            "low": predicted - 0.1,
            "high": predicted + 0.1,
            "dice": [0.55, 0.65],
        }
    )


def test_random_ensembles_are_one_row() -> None:
    found = adaptive.merge_random(methods()).set_index("method")
    assert list(found.index) == [
        *("oracle", "adaptive", "continued_kept", "base", "random", "nearest_by_image")
    ]
    assert found.loc["random", "mean"] == pytest.approx(0.58)
    assert found.loc["random", "ci_low"] == pytest.approx(-0.03)
    assert found.loc["random", "ci_high"] == pytest.approx(-0.01)
    without = methods()[~methods()["method"].str.startswith("random")]
    assert adaptive.merge_random(without) is without


@pytest.mark.parametrize("predicted", [0.6, np.nan])
def test_the_figure(tmp_path: Path, predicted: float) -> None:
    png, svg = tmp_path / "v.png", tmp_path / "v.svg"
    figure = adaptive.draw(points(predicted), methods(), content(), png, svg)
    left, right = figure.axes
    names = [text.get_text() for text in right.get_yticklabels()]
    assert names[1] == "adaptive: weighted ensemble"
    assert names[2] == "base continued, without worst cluster (2 cases)"
    assert names[-2:] == [
        "random ensembles (mean of all)",
        "nearest train case by image",
    ]
    # Far worse than all others: at the edge, so that these can be told apart.
    assert right.get_xlim()[0] > -0.05
    assert "0.300  (-0.300)" in [text.get_text() for text in right.texts]
    texts = [text.get_text() for text in left.texts]
    assert bool(texts) == bool(np.isnan(predicted))
    # The interval of the ensemble, 0.5 to 0.7, is seen whole.
    assert left.get_xlim() == ((0.5, 1) if predicted == 0.6 else (0, 1))
    assert "0.650  (+0.050)" in [text.get_text() for text in right.texts]
    assert png.stat().st_size > 10_000
    assert svg.stat().st_size > 10_000


def write(path: Path, array: np.ndarray) -> str:
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), str(path))
    return str(path)


NOTHING = (np.nan, np.nan, np.nan)


def told(cases: int, predicted: float = 0.5) -> pd.DataFrame:
    rest = ("t1", "base", 0.0, 0.9, "s", "")
    rows = [
        (f"n{i}", predicted + i / 100, 0.4, 0.7, outlook.LOOK, *rest)
        for i in range(cases)
    ]
    return pd.DataFrame(rows, columns=list(arrivals.COLUMNS)).iloc[::-1]


def test_the_end_of_a_run_names_the_worst_cases_and_what_to_open() -> None:
    judged = ["Right.", "Against continued_kept: helps.", "The best of the rest: base."]
    look_at = ["new.html", "validation.png"]
    given = told(7)
    given.loc[5, ["words", "low", "high"]] = outlook.UNLIKE, np.nan, np.nan
    given.loc[6, "words"] = outlook.AS_GOOD
    text = adaptive_summary.summarise(given, "n3", "Fit.", judged, look_at)
    lines = text.splitlines()
    assert (
        "7 new cases segmented; predicted Dice (interval), those to look at first:"
        in lines
    )
    assert f"1. n5: 0.55 (no interval), {outlook.UNLIKE}" in lines
    assert "2. n0: 0.50 (0.40 to 0.70), look at this one" in lines
    assert [line[:5] for line in lines if line[1:3] == ". "] == [
        *("1. n5", "2. n0", "3. n1")
    ]
    assert "and 4 more, 3 of them to look at." in lines
    assert "Label first: n3." in lines
    assert lines[-1] == "Open new.html and validation.png."
    assert len(lines) == 15


def test_the_end_of_a_run_says_that_no_further_case_needs_a_look() -> None:
    given = told(5).assign(words=outlook.AS_GOOD)
    text = adaptive_summary.summarise(given, "n0", "Fit.", [], ["a"])
    assert "and 2 more, none of them to look at." in text.splitlines()


def test_the_end_of_a_run_promises_nothing_that_is_not_calibrated() -> None:
    text = adaptive_summary.summarise(told(1, np.nan), "n0", "Too few.", [], ["a"])
    assert "1 new case segmented. Too few." in text.splitlines()
    assert "0.4" not in text
    # Without new cases, what was learnt is all there is beside the judges.
    without = adaptive_summary.summarise(None, "", "Fit.", ["Right."], ["a"])
    assert without.split("\n\n")[1:] == ["Fit.", "Right.", "Open a.\n"]


def test_the_slice_shown_is_that_of_the_lesion_not_of_what_is_ignored(
    tmp_path: Path,
) -> None:
    mask = np.zeros((5, 8, 8), np.uint8)
    mask[0] = 9
    mask[3, 2:4, 2:4] = 1
    image = np.arange(mask.size, dtype=np.float32).reshape(mask.shape)
    paths = write(tmp_path / "i.nii.gz", image), write(tmp_path / "m.nii.gz", mask)
    read = new_cases.reader({"edema": 1, "ignore": 9})
    shown, label_map, spacing = read(*paths)
    np.testing.assert_array_equal(shown, image[3])
    np.testing.assert_array_equal(label_map, mask[3])
    assert spacing == (1, 1, 1)
    assert read(*paths)[0] is shown
    # Nothing of a lesion: the middle.
    nothing = write(tmp_path / "n.nii.gz", np.where(mask == 1, 0, mask))
    np.testing.assert_array_equal(read(paths[0], nothing)[0], image[2])


@pytest.mark.parametrize("leans_on", [[], ["t"], ["t"] * 3, ["t"] * 9])
def test_names_and_labels_are_inside_the_picture(
    tmp_path: Path, leans_on: list[str]
) -> None:
    image = np.zeros((3, 16, 16), np.float32)
    picture = write(tmp_path / "i.nii.gz", image)
    mask = write(tmp_path / "m.nii.gz", image.astype(np.uint8))
    name = "UPENN-GBM-00063_11_a_name_longer_than_a_picture"
    files = new_cases.Files({name: picture}, {name: mask}, {"t": picture}, {"t": mask})
    labels = {"edema": 1, "non-enhancing_tumour_core": 2, "enhancing_tumour": 3}
    read = new_cases.reader(labels)
    figure = new_cases.draw(name, leans_on, files, labels, "FLAIR", read)
    figure.canvas.draw()
    (key,) = figure.legends
    texts = [*key.get_texts(), *(axes.title for axes in figure.axes)]
    for text in texts:
        box = text.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.x1
    assert sum(axes.get_visible() for axes in figure.axes) == 1 + len(leans_on)
    assert figure.get_figwidth() < 11
    mpl.pyplot.close(figure)


def test_the_page_has_words_and_pictures_of_each_case(tmp_path: Path) -> None:
    image = np.random.default_rng(0).normal(100, 10, (4, 16, 16)).astype(np.float32)
    label_map = np.zeros((4, 16, 16), np.uint8)
    label_map[2, 4:9, 4:9] = 1
    picture = write(tmp_path / "i.nii.gz", image)
    segmented = write(tmp_path / "s.nii.gz", label_map)
    nothing = write(tmp_path / "n.nii.gz", label_map * 0)
    of_cases = pd.DataFrame(
        [
            (
                "sure",
                0.8,
                0.7,
                0.9,
                outlook.AS_GOOD,
                "t1,t2",
                "base",
                0.1,
                0.9,
                "s",
                "",
            ),
            (
                "odd",
                0.4,
                *NOTHING[:2],
                outlook.UNLIKE,
                "t2",
                "base",
                1.0,
                0.9,
                "<o>",
                "<i>",
            ),
            ("new", *NOTHING, outlook.UNCALIBRATED, "", "base", 0, 0.5, "n", ""),
        ],
        columns=list(arrivals.COLUMNS),
    )
    files = new_cases.Files(
        dict.fromkeys(["sure", "odd", "new"], picture),
        {"sure": segmented, "odd": segmented, "new": nothing},
        dict.fromkeys(["t1", "t2"], picture),
        dict.fromkeys(["t1", "t2"], segmented),
    )
    page = new_cases.page(of_cases, files, LABELS, "FLAIR", "A & B.", 0.9)
    assert re.findall(r"<h2>(\w+) <a", page) == ["odd", "sure", "new"]
    pictures = re.findall(r'src="data:image/webp;base64,(.*?)"', page)
    assert [base64.b64decode(picture)[8:12] for picture in pictures] == [b"WEBP"] * 3
    assert page.count("the base alone counts") == 1
    assert page.count('class="look"') == 1
    # The table has them in the same order, and says which one to label first.
    lines = re.findall(r'<tr><td class="case">(.*?)</tr>', page)
    assert [re.findall(r'href="(.*?)">(.*?)<', line) for line in lines] == [
        [("#case1", "odd")],
        [("#case2", "sure")],
        [("#case3", "new")],
    ]
    assert [re.findall(r"(\d)</td>", line)[-1] for line in lines] == ["1", "3", "2"]
    assert [f'id="case{number}"' in page for number in range(5)] == [
        *(False, True, True, True, False)
    ]
    assert "Predicted Dice 0.80 (0.70 to 0.90)." in page
    assert "Predicted Dice 0.40 (no interval)." in page
    assert "No Dice predicted." in page
    assert "A &amp; B. Nobody has labelled" in page
    assert "&lt;o&gt;" in page
    assert page.count("fine-tuned for this case") == 1
    assert "<code>&lt;i&gt;</code>" in page
    # The same page for the same input.
    assert new_cases.page(of_cases, files, LABELS, "FLAIR", "A & B.", 0.9) == page
    assert not mpl.pyplot.get_fignums()
