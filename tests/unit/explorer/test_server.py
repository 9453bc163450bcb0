"""The server: nothing without the token, by another name, or from elsewhere."""

import http.client
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from unit.explorer import page
from unit.explorer.runs import Run

from casesim.errors import UserError
from casesim.explorer import pack, server, volumes

SCRIPTS = Path(__file__).parents[3] / "workflow_scripts"


@pytest.fixture(scope="module")
def served(run: Run) -> Iterator[server.Server]:
    running = server.Server(server.table_of(run.results))
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield running
    running.shutdown()
    running.server_close()


def ask(
    served: server.Server, path: str, host: str | None = None, method: str = "GET"
) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", served.server_port, timeout=20)
    headers = {} if host is None else {"Host": host}
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read(), dict(answer.getheaders())


def test_it_listens_on_this_machine_alone(served: server.Server) -> None:
    assert served.server_address[0] == "127.0.0.1"
    assert len(served.token) >= 32
    status, body, headers = ask(served, f"/{served.token}/")
    assert status == 200
    assert b"<title>Explorer</title>" in body
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert headers["Cache-Control"] == "no-store"


def test_every_run_of_it_has_another_token(run: Run, served: server.Server) -> None:
    other = server.Server(served.table)
    other.server_close()
    assert other.token != served.token
    assert other.server_port != served.server_port


@pytest.mark.parametrize(
    "path",
    ["/", "/index.html", "/x/", "/data/study.js", "//", "/{token}x/", "/{token}"],
)
def test_nothing_without_the_token(served: server.Server, path: str) -> None:
    status, body, _ = ask(served, path.replace("{token}", served.token[:-1]))
    assert status == 403
    assert body == b"Forbidden"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:1", "", "0"])
def test_nothing_by_another_name(served: server.Server, host: str) -> None:
    assert ask(served, f"/{served.token}/", host)[0] == 403


def test_the_port_of_a_tunnel_may_be_another(served: server.Server) -> None:
    for host in ("localhost:5", "127.0.0.1:5", "LOCALHOST"):
        assert ask(served, f"/{served.token}/", host)[0] == 200


@pytest.mark.parametrize(
    "name",
    [
        "../results/cohort.tsv",
        "%2e%2e/cohort.tsv",
        "data/../../../cohort.tsv",
        "data/case_1/maps/../maps/base.js",
        "data/case_1/maps/finetuned/case_1/../case_2.js",
        "data//case_1/channel_0.js",
        "data/case_1/channel_7.js",
        "/etc/passwd",
        "index.html/",
        "explorer.css%00.js",
    ],
)
def test_no_path_is_made_of_a_request(served: server.Server, name: str) -> None:
    assert ask(served, f"/{served.token}/{name}")[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS"])
def test_it_only_reads(served: server.Server, method: str) -> None:
    assert ask(served, f"/{served.token}/", method=method)[0] == 501


def test_links_that_lead_out_of_the_results_are_refused(tmp_path: Path) -> None:
    run = Run(tmp_path, train=["a", "b", "c"], held_out=[], poor=1)
    run.write_tables()
    run.build()
    secret = tmp_path / "secret.nii.gz"
    run.prediction("base", "a").rename(secret)
    run.prediction("base", "a").symlink_to(secret)
    within = run.prediction("base", "b")
    within.rename(within.with_name("b_moved.nii.gz"))
    within.symlink_to(within.with_name("b_moved.nii.gz"))
    table = server.table_of(run.results)
    with pytest.raises(server.OutsideError):
        table["data/a/maps/base.js"]()
    assert b"Explorer.receive" in table["data/b/maps/base.js"]()


def test_it_copies_and_writes_nothing(run: Run, served: server.Server) -> None:
    def state() -> dict[str, float]:
        files = run.folder.rglob("*")
        return {str(path): path.stat().st_mtime for path in files}

    before = state()
    for name in (
        "case_1/channel_1",
        "case_1/maps/finetuned/case_2",
        "held_1/maps/base",
    ):
        status, body, _ = ask(served, f"/{served.token}/data/{name}.js")
        assert status == 200
        assert body.startswith(f'Explorer.receive("{name}",'.encode())
    assert state() == before


def test_a_label_map_is_that_of_the_file(run: Run, served: server.Server) -> None:
    name = "case_2/maps/retrained/random_1"
    _, body, _ = ask(served, f"/{served.token}/data/{name}.js")
    expected = volumes.label_map(run.prediction("retrained/random_1", "case_2"))
    assert body.decode() == pack.script(name, expected)


def test_held_out_cells_of_single_cases_are_not_there(served: server.Server) -> None:
    name = f"/{served.token}/data/held_1/maps/finetuned/case_1.js"
    assert ask(served, name)[0] == 404


def test_results_without_an_explorer(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Run the workflow to its end"):
        server.table_of(tmp_path)
    assert server.main([str(tmp_path)]) == 1


def test_the_command_tells_the_address_and_ends_with_ctrl_c(run: Run) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "casesim.explorer.server", str(run.results)],
        env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(4)]
        match = re.match(r"Open http://127\.0\.0\.1:(\d+)/[\w-]{32}/\n", lines[0])
        assert match, lines
        port = match.group(1)
        assert f"ssh -N -L {port}:127.0.0.1:{port} " in lines[2]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 0
        assert errors == ""
    finally:
        process.kill()


# The page


def test_the_picture_is_that_of_the_static_page(
    browser: Any, run: Run, served: server.Server
) -> None:
    cell = "case_4,case_2"
    page.open_page(browser, run, cell)
    shown = ("reference", "base", "finetuned/case_4", "retrained/worst_cluster")
    static = {model: page.panel(browser, model) for model in shown}
    title = page.text(browser, "#cell-title")
    page.open_page(browser, served.address, cell)
    for model, pixels in static.items():
        np.testing.assert_array_equal(page.panel(browser, model), pixels)
    assert page.text(browser, "#cell-title") == title


def test_what_a_small_page_leaves_out_is_served(browser: Any, tmp_path: Path) -> None:
    run = Run(tmp_path, train=["a", "b", "c"], held_out=[], poor=1)
    run.write_tables()
    run.build(max_mb=0.001)
    run.prediction("finetuned/c", "a").unlink()
    running = server.Server(server.table_of(run.results))
    threading.Thread(target=running.serve_forever, daemon=True).start()
    try:
        page.open_page(browser, running.address, "b,a")
        assert not browser.find_element("id", "left-out").is_displayed()
        assert page.panel(browser, "finetuned/b").max() > 200
        page.open_cell(browser, "c", "a")
        caption = page.text(browser, "[data-model='finetuned/c'] figcaption")
        assert caption == "model of c: no prediction"
    finally:
        running.shutdown()
        running.server_close()
