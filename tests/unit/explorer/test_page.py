"""The page in a browser, opened from the disk: what it shows is what the files hold.

A test fails, too, when the page writes anything to the browser's console (see `browser`
in conftest.py).
"""

import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from unit.explorer import page
from unit.explorer.runs import IGNORE, Run

from casesim.explorer import pack, site

YELLOW = (0xF0, 0xE4, 0x42)  # the reference's contours
PINK = (0xFF, 0x77, 0xB0)  # those of the row's model
GREY = (0xBD, 0xBD, 0xBD)
DASH = "\N{EN DASH}"


def near(pixel: Any, colour: tuple[int, int, int], tolerance: int = 3) -> bool:
    return bool(np.abs(np.asarray(pixel, int) - colour).max() <= tolerance)


def viridis(value: float) -> tuple[int, int, int]:
    red, green, blue, _ = mpl.colormaps["viridis"](value, bytes=True)
    return int(red), int(green), int(blue)


# The matrix


def test_cells_have_the_colour_of_their_dice(browser: Any, run: Run) -> None:
    page.open_page(browser, run)
    for row in run.train:
        for column in run.pool:
            colour = viridis(run.dice(row, column))
            assert near(page.matrix_pixel(browser, row, column), colour)


def test_nothing_is_fetched_from_elsewhere(browser: Any, run: Run) -> None:
    page.open_page(browser, run, "case_1,case_2")
    for name in site.NAMES:
        addresses = re.findall(r"\w+://[^\"')]*", (site.FOLDER / name).read_text())
        # A name, not an address: SVG has it in every page.
        assert set(addresses) <= {"http://www.w3.org/2000/svg"}
    policy = browser.find_element(
        "css selector", "meta[http-equiv=Content-Security-Policy]"
    )
    assert "default-src 'none'; script-src 'self'" in policy.get_attribute("content")
    # The policy holds: a script in the page itself does not run.
    browser.execute_script(
        "const script = document.createElement('script');"
        "script.textContent = 'window.injected = 1'; document.body.append(script)"
    )
    assert browser.execute_script("return window.injected") is None
    (refusal,) = browser.get_log("browser")
    assert "Content Security Policy" in refusal["message"]


def test_a_click_opens_the_cell(browser: Any, run: Run) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    page.open_page(browser, run)
    marks = browser.find_element("id", "matrix-marks")
    at = browser.execute_script("return Explorer.matrix.locate('case_4', 'case_1')")
    x = at["x"] - marks.size["width"] / 2
    y = at["y"] - marks.size["height"] / 2
    move = ActionChains(browser).move_to_element_with_offset(marks, int(x), int(y))
    move.perform()
    assert "model of case_4 on case_1: Dice 0.089" in page.text(browser, "#tip")
    move.click().perform()
    page.wait_for_cell(browser, "case_4", "case_1")
    title = page.text(browser, "#cell-title")
    dice = run.dice("case_4", "case_1")
    assert title == f"Model of case_4 on case_1: Dice {dice:.3f}"


def test_dice_of_every_label_is_that_of_the_table(browser: Any, run: Run) -> None:
    page.open_page(browser, run, "case_3,other_1")
    table = run.scores().set_index(["model", "region", "case"])["dice"]
    cells = browser.find_elements("css selector", "#dice td")
    shown = {
        (cell.get_attribute("data-model"), cell.get_attribute("data-region")): cell.text
        for cell in cells
    }
    models = ("base", "finetuned/case_3", "retrained/worst_cluster")
    regions = ("mean", "edema", "core", "whole")
    assert shown == {
        (model, region): f"{table[model, region, 'other_1']:.3f}"
        for model in models
        for region in regions
    }


def test_the_matrix_of_a_region(browser: Any, run: Run) -> None:
    page.open_page(browser, run)
    page.choose(browser, "region", "core")
    table = run.scores().set_index(["model", "region", "case"])["dice"]
    dice = table["finetuned/case_4", "core", "case_2"]
    assert near(page.matrix_pixel(browser, "case_4", "case_2"), viridis(dice))


def test_undefined_odd_and_not_square(browser: Any, tmp_path: Path) -> None:
    train = ["NA", "007", "1e5", "a.b-c_d"]
    run = Run(tmp_path, train, others=["None", "nan"], held_out=[], poor=1)
    run.write_tables(undefined=[("007", "None"), ("NA", "NA")])
    run.prediction("finetuned/007", "nan").unlink()
    run.build()
    page.open_page(browser, run, "007,None")
    assert near(page.matrix_pixel(browser, "007", "None"), GREY, 0)
    assert near(page.matrix_pixel(browser, "NA", "NA"), GREY, 0)
    assert not near(page.matrix_pixel(browser, "NA", "None"), GREY)
    assert page.text(browser, "#cell-title") == f"Model of 007 on None: Dice {DASH}"
    assert "Dice undefined" in page.text(browser, "#matrix-status")
    page.open_cell(browser, "007", "nan")
    caption = page.text(browser, "[data-model='finetuned/007'] figcaption")
    assert caption == "model of 007: no prediction"
    assert "1 predictions are missing" in page.text(browser, "#left-out")


# The slices


def test_a_panel_for_each_chosen_source(browser: Any, run: Run) -> None:
    page.open_page(browser, run, "case_1,case_2")

    def shown() -> list[str]:
        panels = browser.find_elements("css selector", "#panels figure")
        return [panel.get_attribute("data-model") for panel in panels]

    four = ["reference", "base", "finetuned/case_1", "retrained/worst_cluster"]
    assert shown() == four
    browser.find_element("css selector", "#sources [data-model=base] input").click()
    page.wait_for(browser, "document.querySelectorAll('#panels figure').length === 3")
    assert shown() == [four[0], *four[2:]]
    page.choose(browser, "layout", "one")
    assert shown() == ["all"]


def test_contours_lie_on_the_edges_of_the_labels(browser: Any, run: Run) -> None:
    page.open_page(browser, run, "case_1,case_1")
    # The reference's edema: rows 10 to 19, columns 8 to 15 of slices 1 to 3.
    index = browser.execute_script("return Explorer.panels.view.index[0]")
    assert 1 <= index <= 3
    pixels = page.panel(browser, "reference")
    for column, row in ((8, 17.5), (16, 17.5), (9.5, 10), (9.5, 20)):
        x, y = page.place(browser, "reference", column, row)
        assert near(pixels[y, x], YELLOW), (column, row)
    for column, row in ((8, 9), (9.5, 18), (18, 17.5)):
        x, y = page.place(browser, "reference", column, row)
        assert not near(pixels[y, x], YELLOW, 30), (column, row)
    # The model of case_1 has no labels in column 8, or 9, or 10 of its own case.
    found = page.panel(browser, "finetuned/case_1")
    prediction = pack.read_script(run.results / "explorer/data/case_1/maps.js")
    left = prediction["maps"]["finetuned/case_1"]["box"][4]
    x, y = page.place(browser, "finetuned/case_1", left, 18.5)
    assert near(found[y, x], PINK)


def test_contours_of_one_region_alone(browser: Any, run: Run) -> None:
    page.open_page(browser, run, "case_1,case_1")
    browser.execute_script("Explorer.panels.view.index[0] = 2")
    page.choose(browser, "contour-region", "whole")
    x, y = page.place(browser, "reference", 10, 14.5)  # an edge of the core alone
    page.wait_for(browser, "document.getElementById('slice').value === '2'")
    assert not near(page.panel(browser, "reference")[y, x], YELLOW, 30)
    page.choose(browser, "contour-region", "core")
    browser.execute_script("return Explorer.panels.view.index[0] = 2")
    page.wait_for(
        browser,
        "(() => { const at = Explorer.panels.locate('reference', 10, 14.5);"
        "return document.querySelector('#panels [data-model=reference] canvas')"
        ".getContext('2d').getImageData(at.x, at.y, 1, 1).data[0] > 230; })()",
    )
    assert near(page.panel(browser, "reference")[y, x], YELLOW)


@pytest.mark.parametrize("orientation", ["LPS", "RAS"])
def test_left_is_on_the_right_and_voxels_keep_their_shape(
    browser: Any, tmp_path: Path, orientation: str
) -> None:
    # Slices are 5 mm apart, rows 1 mm, columns 2 mm.
    run = Run(tmp_path, spacing=(5.0, 1.0, 2.0), orientation=orientation)
    run.write_tables()
    run.build()
    page.open_page(browser, run, "case_1,case_2")

    # The marker: slices 4 and 5, rows 4 to 7, columns 18 to 21 of 6 x 30 x 26.
    for axis, index, where, marks, shape in (
        ("0", 5, (20, 6), "RLAP", (2.0, 1.0)),
        ("1", 5, (20, 1), "RLSI", (2.0, 5.0)),
        ("2", 20, (6, 1), "APSI", (1.0, 5.0)),
    ):
        page.choose(browser, "axis", axis)
        browser.execute_script(
            f"Explorer.panels.view.index[{axis}] = {index};"
            "document.getElementById('zoom-fit').click()"
        )
        pixels = page.panel(browser, "reference")
        x, y = page.place(browser, "reference", *where)
        assert pixels[y, x].min() > 230, axis
        # What lies on the other side of the brain is not bright.
        other = page.place(browser, "reference", 26 - where[0], where[1])
        if axis != "2":
            assert pixels[other[1], other[0]].max() < 160, axis
        found = [
            page.text(browser, f"[data-model=reference] .mark.{side}")
            for side in ("left", "right", "top", "bottom")
        ]
        assert "".join(found) == marks
        corner = page.place(browser, "reference", 0, 0)
        along = page.place(browser, "reference", 6, 6)
        ratio = (along[0] - corner[0]) / (along[1] - corner[1])
        assert ratio == pytest.approx(shape[0] / shape[1], rel=0.05)


def test_the_slice_with_the_largest_difference_comes_first(
    browser: Any, tmp_path: Path
) -> None:
    run = Run(tmp_path, train=["a", "b", "c"], held_out=[], poor=1)
    label = np.zeros(run.shape, np.uint8)
    label[1:4, 10:20, 8:16] = 1
    worse = label.copy()
    worse[3, 12:, :] = 0
    worse[1, 10, 8] = 0
    run._write(label, run.label("a"))
    run._write(worse, run.prediction("finetuned/b", "a"))
    run.write_tables()
    run.build()
    page.open_page(browser, run, "b,a")
    assert page.text(browser, "#slice-number") == "3 of 5"


def test_a_slice_that_nobody_labelled_is_not_chosen(
    browser: Any, tmp_path: Path
) -> None:
    run = Run(tmp_path)
    case = run.train[0]
    label = sitk.GetArrayFromImage(sitk.ReadImage(str(run.label(case))))
    label[5] = IGNORE  # there a model draws nothing, which is no difference
    run._write(label, run.label(case))
    run.write_tables()
    run.build()
    page.open_page(browser, run, f",{case}")
    chosen = int(page.text(browser, "#slice-number").split()[0])
    assert chosen in (1, 2, 3)
    counts = browser.execute_script(
        f"""return Explorer.map("{case}", "reference").then((map) =>
        [...Explorer.slices.differences(map, Explorer.slices.EMPTY(map.shape), 0,
          Uint16Array.from({{ length: 65536 }}, (_, label) => label), map)])"""
    )
    assert counts == [int((s % IGNORE > 0).sum()) for s in label]


def test_window_and_level(browser: Any, run: Run) -> None:
    page.open_page(browser, run, "case_1,case_2")
    x, y = page.place(browser, "reference", 20.5, 15.5)
    before = int(page.panel(browser, "reference")[y, x, 0])
    assert 20 < before < 235
    for name, value in (("window-low", "0"), ("window-high", "50")):
        field = browser.find_element("id", name)
        field.clear()
        field.send_keys(value + "\n")
    assert page.panel(browser, "reference")[y, x, 0] == 255
    browser.find_element("id", "window-reset").click()
    assert page.panel(browser, "reference")[y, x, 0] == before


def test_everything_by_keyboard(browser: Any, run: Run) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    def press(*keys: str) -> None:
        ActionChains(browser).send_keys(*keys).perform()

    def focused() -> str:
        return str(browser.execute_script("return document.activeElement.id"))

    page.open_page(browser, run)
    for _ in range(30):
        press(Keys.TAB)
        if focused() == "matrix-marks":
            break
    assert focused() == "matrix-marks"
    press(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_RIGHT)
    study = pack.read_script(run.results / "explorer/data/study.js")
    row, column = study["rows"][2], study["columns"][1]
    assert f"model of {row} on {column}" in page.text(browser, "#matrix-status")
    press(Keys.ENTER)
    page.wait_for_cell(browser, row, column)
    assert focused() == "cell-section"
    for _ in range(20):
        press(Keys.TAB)
        if focused() == "panels":
            break
    assert focused() == "panels"
    press(Keys.HOME)
    assert page.text(browser, "#slice-number") == "0 of 5"
    press(Keys.ARROW_UP, Keys.ARROW_UP)
    assert page.text(browser, "#slice-number") == "2 of 5"
    press("s")
    assert page.text(browser, "#slice-number").endswith(" of 25")
    press("2")
    assert browser.find_element("id", "channel").get_attribute("value") == "1"


# Tables


def test_the_list_of_cases_is_sorted_by_a_click(browser: Any, run: Run) -> None:
    page.open_page(browser, run)

    def order() -> list[str]:
        rows = browser.find_elements("css selector", "#review tbody tr")
        return [row.get_attribute("data-case") for row in rows]

    review = pack.read_script(run.results / "explorer/data/study.js")["cases"]
    assert order() == [row[1] for row in review["rows"]]
    head = browser.find_element("xpath", "//table[@id='review']//button[.='row max']")
    at = review["columns"].index("row_max")
    values = {row[1]: row[at] for row in review["rows"]}
    head.click()
    assert [values[case] for case in order()] == sorted(values.values())
    head.click()
    descending = sorted(values.values(), reverse=True)
    assert [values[case] for case in order()] == descending
    browser.find_element("css selector", "#review [data-case=case_4] button").click()
    page.wait_for_cell(browser, "case_4", "case_4")
    assert "its" in page.text(browser, "#matrix-status")


def test_commands_name_the_files(browser: Any, run: Run) -> None:
    page.open_page(browser, run, "case_4,case_2")
    fields = browser.find_elements("css selector", "#commands input")
    correct, look, slicer = (field.get_attribute("value") for field in fields)
    copy = run.folder / "corrections/case_2.nii.gz"
    assert f"cp -n {run.label('case_2')} {copy}" in correct
    assert correct.endswith(f"-s {copy}")
    images = f"-g {run.image('case_2', 0)} -o {run.image('case_2', 1)}"
    assert look == (
        f"itksnap {images} -s {run.prediction('finetuned/case_4', 'case_2')}"
    )
    assert f"loadVolume(r'{run.image('case_2', 0)}')" in slicer
    # All files that are named are there.
    for path in (run.label("case_2"), run.prediction("finetuned/case_4", "case_2")):
        assert path.exists()
    button = browser.find_element("css selector", "#commands button")
    button.click()
    page.wait_for(
        browser, "document.querySelector('#commands button').textContent === 'copied'"
    )


def test_what_is_left_out_is_said(browser: Any, tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.write_tables()
    run.build(max_mb=0.008)
    page.open_page(browser, run, "case_1,case_3")
    words = page.text(browser, "#left-out")
    assert "label maps" in words
    assert "explorer.max_mb = 0.008" in words
    assert "make explore" in words
    size = sum(path.stat().st_size for path in run.results.glob("explorer/data/*/*.js"))
    # The names and numbers around the images and label maps are not counted.
    assert size < 8000 + 7 * 12 * 150
