"""Decisions in the browser: kept, exported, imported, refused, never mixed up."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from unit.explorer import page
from unit.explorer.runs import Run

from casesim.explorer import pack
from casesim.pruning import decisions


def mark(browser: Any, case: str, word: str) -> None:
    selector = f"#review [data-case='{case}'] input[value={word}]"
    browser.find_element("css selector", selector).click()


def chosen(browser: Any, case: str) -> str:
    selector = f"#review [data-case='{case}'] input:checked"
    found = browser.find_elements("css selector", selector)
    return found[0].get_attribute("value") if found else ""


def counts(browser: Any) -> str:
    return page.text(browser, "#counts")


@pytest.fixture
def downloads(browser_folder: Path) -> Path:
    folder = browser_folder / "downloads"
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def export(browser: Any, downloads: Path) -> Path:
    browser.find_element("id", "export").click()
    path = downloads / "decisions.tsv"
    page.wait_for(browser, "document.getElementById('message').textContent")
    for _ in range(200):
        if path.exists():
            return path
        browser.execute_async_script("setTimeout(arguments[0], 50)")
    raise AssertionError("nothing was downloaded")


def take(browser: Any, path: Path) -> str:
    before = "document.getElementById('message').textContent = ''"
    browser.execute_script(before)
    browser.find_element("id", "import-file").send_keys(str(path))
    page.wait_for(browser, "document.getElementById('message').textContent")
    return page.text(browser, "#message")


def test_marks_are_kept_and_counted(browser: Any, run: Run) -> None:
    page.open_page(browser, run)
    mark(browser, "case_4", "remove")
    mark(browser, "case_5", "relabel")
    mark(browser, "case_1", "fine")
    assert counts(browser) == "1 fine, 1 relabel, 1 remove, 0 unsure of 5 train cases"
    page.open_page(browser, run, "case_4,case_5")
    assert chosen(browser, "case_4") == "remove"
    # The same decision beside the images; a second click takes it back.
    boxes = browser.find_elements("css selector", "#decide input[value=remove]")
    assert [box.is_selected() for box in boxes] == [True, False]
    boxes[0].click()
    assert chosen(browser, "case_4") == ""
    assert counts(browser).startswith("1 fine, 1 relabel, 0 remove")


def test_two_runs_never_share_marks(browser: Any, run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.results, tmp_path / "results")
    twin = Run.__new__(Run)
    twin.__dict__ = {
        **run.__dict__,
        "folder": tmp_path,
        "results": tmp_path / "results",
    }
    twin.build()
    page.open_page(browser, run)
    mark(browser, "case_4", "remove")
    # The same matrix in another folder.
    page.open_page(browser, twin)
    assert chosen(browser, "case_4") == ""
    assert counts(browser).startswith("0 fine, 0 relabel, 0 remove")
    mark(browser, "case_4", "fine")
    page.open_page(browser, run)
    assert chosen(browser, "case_4") == "remove"


def test_an_export_is_what_the_workflow_reads(
    browser: Any, run: Run, downloads: Path
) -> None:
    page.open_page(browser, run)
    browser.find_element("id", "reviewer").send_keys("A. Reviewer\t\n")
    mark(browser, "case_4", "remove")
    mark(browser, "case_5", "relabel")
    browser.execute_script(
        "const note = document.querySelector(arguments[0]); note.value = arguments[1];"
        "note.dispatchEvent(new Event('change'))",
        "#review [data-case=case_5] [type=text]",
        "label of\tanother   patient?",
    )
    path = export(browser, downloads)
    found = decisions.read(path, run.train)
    assert dict(found.words) == {"case_4": "remove", "case_5": "relabel"}
    assert not found.held_out_seen
    found.refuse_stale(run.results / "similarity/matrix.tsv")
    lines = [line.split("\t") for line in path.read_text().splitlines()]
    assert lines[0][:6] == list(decisions.COLUMNS)
    relabel = dict(zip(lines[0], lines[2], strict=True))
    assert relabel["note"] == "label of another patient?"
    assert relabel["reviewer"] == "A. Reviewer"
    assert relabel["time"].endswith("Z")


def test_a_table_is_taken_back_in(browser: Any, run: Run, downloads: Path) -> None:
    page.open_page(browser, run)
    mark(browser, "case_4", "remove")
    mark(browser, "case_2", "unsure")
    path = export(browser, downloads)
    browser.execute_script("localStorage.clear()")
    page.open_page(browser, run)
    assert chosen(browser, "case_4") == ""
    assert "taken over" in take(browser, path)
    assert chosen(browser, "case_4") == "remove"
    assert chosen(browser, "case_2") == "unsure"


def test_a_table_that_does_not_fit_is_refused(
    browser: Any, run: Run, tmp_path: Path
) -> None:
    digest = pack.read_script(run.results / "explorer/data/study.js")["digest"]
    head = "\t".join(decisions.COLUMNS)
    page.open_page(browser, run)
    for line, reason in (
        (f"case_4\tremove\t\t\t\t{'0' * 64}", "on another matrix (00000000"),
        (f"nobody\tremove\t\t\t\t{digest}", "nobody is no train case"),
        (f"case_4\tdelete\t\t\t\t{digest}", '"delete" is none of'),
    ):
        path = tmp_path / "decisions.tsv"
        path.write_text(f"{head}\ncase_1\tfine\t\t\t\t{digest}\n{line}\n")
        assert reason in take(browser, path)
        assert counts(browser).startswith("0 fine, 0 relabel, 0 remove")
    path.write_text("case\tdecision\n")
    assert "no column note" in take(browser, path)


def test_held_out_results_are_hidden_until_decisions_are_exported(
    browser: Any, run: Run, downloads: Path
) -> None:
    page.open_page(browser, run)

    def shown() -> str:
        return page.text(browser, "#arms-section")

    assert "hidden until the decisions are exported" in shown()
    for word in ("held-out cases (", "verdict", "95 % interval", "cannot tell"):
        assert word not in shown()
    browser.execute_script("Explorer.open(null, 'held_1')")
    page.wait_for(browser, "document.getElementById('message').textContent")
    assert "held_1 is held out" in page.text(browser, "#message")
    assert browser.find_element("id", "cell-body").get_attribute("hidden")
    # Nothing to export yet: nothing is shown.
    browser.find_element("id", "export").click()
    assert "no decision" in page.text(browser, "#message")
    assert "hidden until" in shown()
    mark(browser, "case_4", "remove")
    browser.execute_script("document.getElementById('message').textContent = ''")
    assert not decisions.read(export(browser, downloads), run.train).held_out_seen
    assert "verdict" in shown()
    assert "worst_cluster: cannot tell" in page.text(browser, "#verdict")
    page.open_cell(browser, "", "held_1")
    assert page.text(browser, "#cell-title").startswith("Base model on held_1: Dice ")


def test_who_looks_first_has_it_in_the_export(
    browser: Any, run: Run, downloads: Path
) -> None:
    page.open_page(browser, run)
    browser.find_element("id", "reveal").click()
    mark(browser, "case_4", "remove")
    assert decisions.read(export(browser, downloads), run.train).held_out_seen
