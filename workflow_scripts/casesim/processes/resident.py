"""The client of the resident predictor: what a `predict` job runs.

Starting Python, torch and CUDA and loading a model takes seconds, the network tenths of
one. So the job hands its arguments to a process that has all that loaded: one for each
device and each run of the workflow, started by the first client that needs it (see
`resident_server`), and gone soon after the run.

The request, which `service` describes, holds the client's arguments as they are; the
answer is a text for the job's log. Only light modules are imported, for the reason
given in `locks`; arguments passed on unparsed save argparse and json.
"""
# ruff: noqa: PTH100, PTH109

import os
import sys

from casesim.errors import UserError
from casesim.processes import devices, service
from casesim.processes.service import Service

SERVE = "--serve"

# A predictor that dies costs its jobs a few seconds, not a failure: in a submission of
# many cells, a failed one is done only by the next run of the workflow.
_ATTEMPTS = 2


def main(program: str, arguments: list[str], work: str) -> int:
    """Run the client, or the server when the arguments say so; return the exit status.

    `program` is the script that calls this: a server is started by running it again.
    `work` names the module that does what clients ask for (see `resident_server`).
    """
    try:
        if arguments[:1] == [SERVE]:
            from casesim.processes.resident_server import serve

            return serve(arguments[1:], work)
        resident = os.environ.get("CASESIM_RESIDENT") != "0"
        if "--no-resident" in arguments or not resident:
            return _predict_here(program, arguments, work)
        return _predict_in_resident(program, arguments)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _predict_here(program: str, arguments: list[str], work: str) -> int:
    """The same prediction in this process, which is started again with its packages."""
    if sys.flags.no_site:
        os.execv(sys.executable, [sys.executable, program, *arguments])
    os.environ.update(service.QUIET_THREADS)
    with devices.reserve(_number_of_gpus(arguments)) as slot:
        from importlib import import_module

        module = import_module(work)
        predictor = module.make_predictor(devices.predictor_device(slot.gpu))
        print(predictor.run(module.parse_job(os.getcwd(), arguments)))
    return 0


def _predict_in_resident(program: str, arguments: list[str]) -> int:
    with devices.reserve(_number_of_gpus(arguments), shared=True) as slot:
        server = _server(slot, os.path.abspath(program))
        request = ["predict", server.key, os.getcwd(), *arguments]
        answer = None
        for _ in range(_ATTEMPTS):
            connection = server.connect()
            socket_file = server.socket_file()
            answer = server.exchange(connection, request)
            if answer is not None:
                break
            print(f"Error: {server.death()}", file=sys.stderr, flush=True)
            server.bury(socket_file)
        if answer is None:
            return 1
    succeeded, text = answer
    print(text, file=sys.stdout if succeeded else sys.stderr)
    return 0 if succeeded else 1


def _number_of_gpus(arguments: list[str]) -> int:
    """The value of `--gpu`, the one argument that the client itself needs."""
    try:
        return int(arguments[arguments.index("--gpu") + 1])
    except (ValueError, IndexError):
        raise UserError("predict needs --gpu followed by a whole number.") from None


def _server(slot: devices.Slot, program: str) -> Service:
    """The resident predictor of one device."""
    environment = {"CUDA_VISIBLE_DEVICES": slot.gpu} if slot.gpu is not None else {}
    return Service(
        "resident predictor",
        slot.name,
        [sys.executable, program, SERVE],
        [slot.gpu or ""],
        environment,
    )
