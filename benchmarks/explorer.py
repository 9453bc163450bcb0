"""The explorer's page: how large it is, and how fast it draws, opens and turns slices.

Tables are random, so that a matrix of any size is there at once; images and label maps
are a phantom's at real size. Chromium runs without a GPU.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import setting as common

sys.path.insert(0, str(common.ROOT / "tests"))

from browser import browser as start_browser
from unit.explorer.runs import LABELS, MODELS, REGIONS, Run, write_volume

from casesim.cohort.phantom import patient
from casesim.explorer import budget, content, pack, site
from casesim.inference import overlap

BUDGET_MB = 500
REPEATS = 10
# Results of drawing calls are there when a pixel can be read.
FLUSH = "document.querySelector(arguments[0]).getContext('2d').getImageData(0, 0, 1, 1)"


class Pretended(Run):
    """The tables of a run of any size, with random scores and without images."""

    def __init__(self, folder: Path, rows: int, columns: int) -> None:
        self.folder, self.results = folder, folder / "results"
        names = [f"case_{i:03d}" for i in range(columns)]
        self.train, self.pool, self.tests = names[:rows], names, names
        self.held_out, self.poor = [], names[: max(2, rows // 10)]
        self.random = np.random.default_rng(0)

    def scores(self) -> pd.DataFrame:
        """Rows of poor cases low, all others high; regions alike but for noise."""
        models = [f"finetuned/{case}" for case in self.train]
        models += ["base", *(f"retrained/{name}" for name in MODELS)]
        regions = ["mean", *LABELS, *REGIONS]
        level = self.random.uniform(0.65, 0.8, len(models))
        level[: len(self.poor)] = 0.2
        shape = (len(models), len(self.pool), len(regions))
        dice = level[:, None, None] + self.random.normal(0, 0.06, shape)
        index = pd.MultiIndex.from_product(
            [models, self.pool, regions], names=["model", "case", "region"]
        )
        table = pd.DataFrame({"dice": dice.clip(0, 1).ravel()}, index).reset_index()
        counts = dict.fromkeys(overlap.COUNTS, 0)
        return table.assign(**counts, n_undefined=0)

    def build_page(self) -> tuple[Path, float]:
        """The page without images; its address and the seconds that it took."""
        self.write_tables()
        nothing: dict[str, Any] = {"channels": [], "models": [], "missing": []}
        contents = {case: {"bytes": 0, **nothing} for case in self.tests}
        start = time.perf_counter()
        study = content.study(self.files(), self.options(BUDGET_MB), contents)
        explorer = self.results / "explorer"
        pack.write_script("study", study, explorer / "data/study.js")
        site.copy(str(explorer / name) for name in site.NAMES)
        return explorer / "index.html", time.perf_counter() - start

    def write_case(self, case: str) -> None:
        """One case at real size, with a label map for every model."""
        size = common.SIZES["real"]
        anatomy = {"shape": size.shape, "spacing": size.spacing, "scanners": 3}
        made = patient.generate(case, anatomy, "", 0)
        for channel, voxels in enumerate(made.image):
            write_volume(voxels, self.image(case, channel), size.spacing)
        write_volume(made.label, self.label(case), size.spacing)
        for i, model in enumerate(self.models(case)):
            moved = np.roll(made.label, (i % 5, i % 7 - 3, i % 3), axis=(0, 1, 2))
            write_volume(moved, self.prediction(model, case), size.spacing)

    def pack(self, case: str, megabytes: float, cases: Sequence[str]) -> dict[str, Any]:
        """Write the case's files as far as the budget of so many cases allows."""
        ranked = budget.read_ranking(self.results / "similarity/cases.tsv")
        start = time.perf_counter()
        channels, maps, left = pack.pack_case(
            case,
            [str(self.image(case, i)) for i in range(4)],
            str(self.label(case)),
            {name: str(self.prediction(name, case)) for name in self.models(case)},
            ranked,
            budget.room(case, cases, budget.review_first(ranked), megabytes),
        )
        seconds = time.perf_counter() - start
        data = self.results / f"explorer/data/{case}"
        for i, channel in enumerate(channels):
            pack.write_script(f"{case}/channel_{i}", channel, data / f"channel_{i}.js")
        pack.write_script(f"{case}/maps", maps, data / "maps.js")
        shown = [channel for channel in channels if "sprites" in channel]
        return {
            "seconds": seconds,
            "images": sum(map(budget.size, shown)) / 1e6,
            "maps": sum(map(budget.size, maps["maps"].values())) / 1e6,
            "channels": len(shown),
            "label_maps": len(maps["maps"]),
            "left_out": len(left["models"]),
        }


def timed(driver: Any, script: str, canvas: str) -> float:
    """Median milliseconds of some JavaScript, until what it draws can be read."""
    times = [
        driver.execute_script(
            f"const start = performance.now(); {script}; {FLUSH};"
            "return performance.now() - start",
            canvas,
        )
        for _ in range(REPEATS)
    ]
    return statistics.median(times)


def press(key: str) -> str:
    """JavaScript that presses a key over the slices."""
    event = f"new KeyboardEvent('keydown', {{ key: '{key}' }})"
    return f"document.getElementById('panels').dispatchEvent({event})"


def open_page(driver: Any, page: Path) -> float:
    """Milliseconds from asking for the page to its matrix being drawn."""
    driver.get("about:blank")
    start = time.perf_counter()
    driver.get(page.as_uri())
    driver.execute_script(FLUSH, "#matrix")
    return (time.perf_counter() - start) * 1000


def open_cell(driver: Any, row: str, column: str) -> float:
    """Milliseconds from a click on a cell to its slices being drawn."""
    return float(
        driver.execute_async_script(
            "const [row, column, canvas, done] = arguments;"
            "const body = document.getElementById('cell-body');"
            "delete body.dataset.ready;"
            "const start = performance.now();"
            "new MutationObserver((_, observer) => {"
            "  if (body.dataset.ready !== `${row},${column}`) return;"
            "  observer.disconnect();"
            "  document.querySelector(canvas).getContext('2d')"
            "    .getImageData(0, 0, 1, 1);"
            "  done(performance.now() - start);"
            "}).observe(body, { attributes: true });"
            "Explorer.open(row, column);",
            row,
            column,
            "#panels canvas",
        )
    )


def pages(driver: Any, folder: Path, sizes: Sequence[tuple[int, int]]) -> str:
    """Sizes and times of the page alone, for matrices of several sizes."""
    rows = []
    for number, columns in sizes:
        run = Pretended(folder / f"{number}x{columns}", number, columns)
        page, seconds = run.build_page()
        study = (page.parent / "data/study.js").stat().st_size
        opened = statistics.median(open_page(driver, page) for _ in range(3))
        drawn = timed(driver, "Explorer.matrix.draw()", "#matrix")
        region = "Explorer.matrix.show(Explorer.study.regions.at(-1))"
        rows.append(
            [
                f"{number} x {columns}",
                f"{seconds:.1f}",
                f"{study / 1e6:.2f}",
                f"{opened:.0f}",
                f"{drawn:.0f}",
                f"{timed(driver, region, '#matrix'):.0f}",
            ]
        )
    return common.table(
        [
            *("matrix", "made in (s)", "tables (MB)", "page opened (ms)"),
            *("matrix drawn (ms)", "another region (ms)"),
        ],
        rows,
    )


def case_of_real_size(driver: Any, folder: Path, rows: int, columns: int) -> str:
    """One case with real-size volumes: its files, and what a reader waits for."""
    run = Pretended(folder / "real", rows, columns)
    page, _ = run.build_page()
    case, other = run.pool[-1], run.train[0]
    run.write_case(case)
    lines = []
    for number, megabytes in ((columns, BUDGET_MB), (484, BUDGET_MB), (columns, 1e6)):
        cases = [*run.pool, *(f"further_{i}" for i in range(number - columns))]
        found = run.pack(case, megabytes, cases)
        total = (found["images"] + found["maps"]) * number
        lines.append(
            [
                number,
                "none" if megabytes > BUDGET_MB else f"{megabytes} MB",
                f"{found['seconds']:.1f}",
                f"{found['channels']} of 4: {found['images']:.2f}",
                f"{found['label_maps']}: {found['maps']:.2f}",
                found["left_out"],
                f"{total:.0f}",
            ]
        )
    sizes = common.table(
        [
            *("cases", "budget", "made in (s)", "images (MB)", "label maps (MB)"),
            *("label maps left out", "all cases alike (MB)"),
        ],
        lines,
    )
    open_page(driver, page)
    first = open_cell(driver, other, case)
    again = statistics.median(
        open_cell(driver, row, case) for row in run.train[1 : REPEATS + 1]
    )
    turn = timed(driver, press("ArrowUp"), "#panels canvas")
    coronal = timed(driver, press("c"), "#panels canvas")
    shape = " x ".join(map(str, common.SIZES["real"].shape))
    times = common.table(
        ["what", "ms"],
        [
            ["a cell of a case, for the first time", f"{first:.0f}"],
            ["another model on the same case (median)", f"{again:.0f}"],
            ["the next slice, four panels (median)", f"{turn:.0f}"],
            ["another axis, with its largest difference (median)", f"{coronal:.0f}"],
        ],
    )
    return (
        f"Volumes of {shape} voxels, four channels, {rows} fine-tuned models; one case "
        "is measured, the last column is that case times the number of cases.\n\n"
        f"{sizes}\n\n{times}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="put the tables into this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="explorer-") as name:
        folder = Path(name)
        with start_browser(folder / "browser") as driver:
            text = pages(driver, folder, [(12, 12), (50, 100), (484, 484)])
            common.publish("The page", text, arguments.output)
            text = case_of_real_size(driver, folder, 50, 100)
            common.publish("A case of real size", text, arguments.output)


if __name__ == "__main__":
    main()
