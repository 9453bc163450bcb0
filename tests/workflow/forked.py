"""Runs of Snakemake that are spared its imports: forked from a process that has them.

Snakemake and what it loads at each start, plug-ins with pandas among them, take longer
than most of what the tests ask of it. So each worker has one process that has loaded
all that. For each run it forks a child, which has arguments, folder and environment of
its own, and ends as Snakemake does.
"""

import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

# The last word tells the processes beside the jobs that their owner is Snakemake.
_COMMAND = (sys.executable, "-P", __file__, "snakemake")
_IMPORTED = ("snakemake.cli", "smart_open", "jsonschema", "nbformat")


def run(arguments: Sequence[str], folder: Path) -> "subprocess.CompletedProcess[str]":
    """What `python -m snakemake <arguments>` does in a folder, and all that it says."""
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    with tempfile.NamedTemporaryFile() as output:
        request = {
            "arguments": list(arguments),
            "folder": str(folder.resolve()),
            "output": output.name,
            "environment": dict(os.environ),
        }
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        status = int(server.stdout.readline())
        said = Path(output.name).read_text()
    return subprocess.CompletedProcess(list(arguments), status, said)


@cache
def _server() -> "subprocess.Popen[str]":
    """It ends with this process: with the other end of its standard input."""
    return subprocess.Popen(
        _COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _serve() -> None:
    for name in _IMPORTED:
        import_module(name)
    # Loads the plug-ins.
    import_module("snakemake.cli").get_argument_parser()
    # What is there now is never freed: so it need not be copied either.
    gc.freeze()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _be_the_run(json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _be_the_run(request: dict[str, Any]) -> NoReturn:
    for path, mode, number in (
        (os.devnull, os.O_RDONLY, 0),
        (request["output"], os.O_WRONLY, 1),
    ):
        opened = os.open(path, mode)
        os.dup2(opened, number)
        os.close(opened)
    os.dup2(1, 2)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    # As `python -m` does.
    sys.path.insert(0, request["folder"])
    sys.argv[1:] = request["arguments"]
    import_module("snakemake.cli").main()
    sys.exit()


if __name__ == "__main__":
    _serve()
