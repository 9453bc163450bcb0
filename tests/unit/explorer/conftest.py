"""One browser and a few small runs, which all tests of the explorer share."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import browser as start_browser
from browser import missing
from unit.explorer.runs import Run


@pytest.fixture(scope="session")
def browser_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="session")
def session_browser(browser_folder: Path) -> Iterator[Any]:
    if reason := missing():
        pytest.skip(reason)
    with start_browser(browser_folder) as driver:
        yield driver


@pytest.fixture
def browser(session_browser: Any) -> Iterator[Any]:
    """The browser with nothing in its store; a test fails when a page complains."""
    yield session_browser
    complaints = session_browser.get_log("browser")
    if session_browser.current_url.startswith(("file:", "http:")):
        session_browser.execute_script("localStorage.clear()")
    session_browser.get("about:blank")
    assert [entry["message"] for entry in complaints] == []


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Five train cases, one more pool case, two held-out cases; the page is made."""
    run = Run(tmp_path_factory.mktemp("run"), others=["other_1"])
    run.write_tables()
    run.build()
    return run
