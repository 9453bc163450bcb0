"""What tests do with the page, in words."""

import base64
import time
from pathlib import Path
from typing import Any

import numpy as np
from unit.explorer.runs import Run

READ_PANEL = """
const canvas = document.querySelector(`#panels [data-model="${arguments[0]}"] canvas`);
const { width, height } = canvas;
const bytes = canvas.getContext("2d").getImageData(0, 0, width, height).data;
let text = "";
for (let i = 0; i < bytes.length; i += 8192) {
  text += String.fromCharCode(...bytes.subarray(i, i + 8192));
}
return [width, height, btoa(text)];
"""


def wait_for(browser: Any, condition: str, seconds: float = 20) -> Any:
    """The value of a JavaScript expression as soon as it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := browser.execute_script(f"return {condition}"):
            return value
        time.sleep(0.02)
    raise AssertionError(f"waited in vain for {condition}")


def open_page(browser: Any, run: Run | str, cell: str = "") -> None:
    """Open a run's page, from the disk or (given an address) from a server."""
    address = run if isinstance(run, str) else f"{page_of(run).as_uri()}"
    browser.get("about:blank")
    browser.get(address + (f"#cell={cell}" if cell else ""))
    if cell:
        wait_for_cell(browser, *cell.split(","))


def page_of(run: Run) -> Path:
    return run.results / "explorer/index.html"


def open_cell(browser: Any, row: str, column: str) -> None:
    browser.execute_script(
        "Explorer.open(arguments[0] || null, arguments[1])", row, column
    )
    wait_for_cell(browser, row, column)


def wait_for_cell(browser: Any, row: str, column: str) -> None:
    ready = "document.getElementById('cell-body').dataset.ready"
    wait_for(browser, f"{ready} === '{row},{column}'")


def text(browser: Any, selector: str) -> str:
    return str(browser.find_element("css selector", selector).text)


def choose(browser: Any, name: str, value: str) -> None:
    """Choose from a list, and wait for what follows."""
    browser.execute_script(
        "const list = document.getElementById(arguments[0]); list.value = arguments[1];"
        "list.dispatchEvent(new Event('change'));",
        name,
        value,
    )


def panel(browser: Any, model: str) -> np.ndarray:
    """The pixels of one panel, (y, x, red green blue)."""
    width, height, pixels = browser.execute_script(READ_PANEL, model)
    flat = np.frombuffer(base64.b64decode(pixels), np.uint8)
    return flat.reshape(height, width, 4)[..., :3]


def place(browser: Any, model: str, column: float, row: float) -> tuple[int, int]:
    """Where a corner of the slice's pixels lies in a panel: (x, y)."""
    at = browser.execute_script(
        "return Explorer.panels.locate(...arguments)", model, column, row
    )
    return at["x"], at["y"]


def matrix_pixel(browser: Any, row: str, column: str) -> tuple[int, int, int]:
    """The colour in the middle of a cell of the matrix."""
    red, green, blue = browser.execute_script(
        "const at = Explorer.matrix.locate(...arguments);"
        "const copy = document.createElement('canvas').getContext('2d');"
        "copy.drawImage(document.getElementById('matrix'), -at.x, -at.y);"
        "return [...copy.getImageData(0, 0, 1, 1).data].slice(0, 3)",
        row,
        column,
    )
    return red, green, blue
