"""The explorer's page from a small server on this machine: `make explore`.

For matrices that no page of a few hundred megabytes holds, and for hosts without a
browser. It answers on 127.0.0.1 alone, and only to who knows the address: a random
token is part of it. It reads what is asked for from the `.nii.gz` files where they lie,
copies nothing and writes nothing. What may be asked for is a table that is made at the
start: no path is ever built from a request.
"""

import argparse
import getpass
import secrets
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from casesim.errors import UserError
from casesim.explorer import pack, site

RAW = "nnunet/raw/Dataset001_Cohort"
# A browser that was led here by another name asks for that name (DNS rebinding).
HOSTS = ("127.0.0.1", "localhost")
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}

Table = Mapping[str, Callable[[], bytes]]


class OutsideError(Exception):
    """A file of the results is a link that leads out of them."""


def table_of(results: Path) -> dict[str, Callable[[], bytes]]:
    """Everything that can be asked for: the name in the address to what makes it.

    Raises:
        UserError: the results have no explorer.
    """
    study = pack.read_script(results / "explorer/data/study.js")
    study = {**study, "served": True, "left_out": {}}
    table: dict[str, Callable[[], bytes]] = {
        name: (site.FOLDER / name).read_bytes for name in site.NAMES
    }
    table[""] = table["index.html"]
    table["data/study.js"] = pack.script("study", study).encode
    judged = [model["name"] for model in study["models"]]
    finetuned = [f"finetuned/{case}" for case in study["rows"]]
    held_out = set(study["held_out"])
    for case in study["tests"]:
        for number in study["channel_numbers"]:
            image = results / RAW / f"imagesTr/{case}_{number:04d}.nii.gz"
            name = f"{case}/channel_{number}"
            table[f"data/{name}.js"] = partial(_channel, name, image, results)
        maps = {pack.REFERENCE: results / RAW / f"labelsTr/{case}.nii.gz"}
        for model in [*judged, *([] if case in held_out else finetuned)]:
            maps[model] = results / f"predictions/{model}/{case}.nii.gz"
        for model, path in maps.items():
            name = f"{case}/maps/{model}"
            table[f"data/{name}.js"] = partial(_label_map, name, path, results)
    return table


def _inside(path: Path, results: Path) -> Path:
    """The file itself; no link of the results leads elsewhere."""
    real = path.resolve()
    if not real.is_relative_to(results.resolve()):
        raise OutsideError(f"{path} leads out of {results}")
    return real


@lru_cache(maxsize=16)
def _channel(name: str, path: Path, results: Path) -> bytes:
    from casesim.explorer import volumes

    return pack.script(name, volumes.channel(_inside(path, results))).encode()


@lru_cache(maxsize=128)
def _label_map(name: str, path: Path, results: Path) -> bytes:
    from casesim.explorer import volumes

    real = _inside(path, results)
    content = volumes.label_map(real) if real.exists() else None
    return pack.script(name, content).encode()


class Handler(BaseHTTPRequestHandler):
    """Answers GET requests from the server's table, and nothing else."""

    server: "Server"
    server_version = "explorer"
    sys_version = ""

    def do_GET(self) -> None:
        """Send what the address names, if the host and the token are right."""
        asked = urlsplit(f"//{self.headers.get('Host', '')}").hostname
        if asked not in HOSTS:
            self._refuse(HTTPStatus.FORBIDDEN)
            return
        token, _, name = urlsplit(self.path).path.removeprefix("/").partition("/")
        if not secrets.compare_digest(token.encode(), self.server.token.encode()):
            self._refuse(HTTPStatus.FORBIDDEN)
            return
        name = unquote(name)
        make = self.server.table.get(name)
        if make is None:
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        try:
            content = make()
        except OutsideError as error:
            print(f"Refused: {error}.", file=sys.stderr)
            self._refuse(HTTPStatus.FORBIDDEN)
            return
        except (OSError, RuntimeError) as error:
            print(f"{name} cannot be read: {error}", file=sys.stderr)
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR)
            return
        self._send(HTTPStatus.OK, content, TYPES[Path(name or "index.html").suffix])

    def _refuse(self, status: HTTPStatus) -> None:
        self._send(status, status.phrase.encode(), "text/plain; charset=utf-8")

    def _send(self, status: HTTPStatus, content: bytes, kind: str) -> None:
        self.send_response(status)
        for key, value in HEADERS.items():
            self.send_header(key, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: addresses hold the token."""


class Server(ThreadingHTTPServer):
    """The page of one run, on 127.0.0.1."""

    daemon_threads = True

    def __init__(self, table: Table, port: int = 0) -> None:
        self.table = table
        self.token = secrets.token_urlsafe(24)
        super().__init__(("127.0.0.1", port), Handler)

    @property
    def address(self) -> str:
        """What to open in a browser."""
        return f"http://127.0.0.1:{self.server_port}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle of an answer is no error."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def _announce(server: Server) -> None:
    port = server.server_port
    login = f"{getpass.getuser()}@{socket.getfqdn()}"
    print(f"Open {server.address}")
    print("From another machine, run this there first, and open the same address:")
    print(f"  ssh -N -L {port}:127.0.0.1:{port} {login}")
    print("Whoever has the address sees the images. Ctrl-C ends it.", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="explore", description=__doc__)
    parser.add_argument("results", nargs="?", default="results", type=Path)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    options = parser.parse_args(arguments)
    try:
        server = Server(table_of(options.results), options.port)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"Error: port {options.port} cannot be used ({error.strerror}). Leave out "
            "--port to take a free one.",
            file=sys.stderr,
        )
        return 1
    try:
        _announce(server)
        server.serve_forever()
    except KeyboardInterrupt:
        print()
    finally:
        server.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
