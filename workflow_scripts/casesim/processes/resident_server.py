"""The resident predictor itself: models and cases stay loaded between `predict` jobs.

What it computes with is a module named by whoever starts it: `parse_job(directory,
arguments)` there reads a request, and `make_predictor(device)` returns a `Predictor`.

One request is computed at a time, in the main thread. Other threads accept requests,
load the cases and models of those that wait while the present one computes, and look
after the end: the process goes when its owner (see `service.find_owner`) is gone, when
nobody has asked for anything for ten minutes, when its socket has vanished and those
who wait are served, or at SIGTERM.
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from casesim.processes import devices, endpoint
from casesim.processes.endpoint import SECONDS_BETWEEN_LOOKS, Endpoint, answer, explain

_SECONDS_TO_STOP = 5.0


class Predictor(Protocol):
    """What the server needs of the thing that computes."""

    def prefetch(self, job: Any) -> None: ...

    def run(self, job: Any) -> str: ...

    def release(self) -> None: ...


@dataclass
class _Request:
    """A client that waits for its answer: to `job`, or to have memory released."""

    connection: socket.socket
    job: Any | None

    def abandoned(self) -> bool:
        """Whether the client has hung up, having been killed while it waited."""
        try:
            self.connection.setblocking(False)
            return not self.connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True


class Server:
    """Accepts requests and computes them one after the other."""

    def __init__(
        self, endpoint: Endpoint, parse_job: Callable[[str, list[str]], Any]
    ) -> None:
        self._endpoint = endpoint
        self._parse_job = parse_job
        self._waiting: queue.Queue[_Request | None] = queue.Queue()
        self._predictor: Predictor | None = None
        self._computing = False
        self._end = threading.Event()

    def run(self, make: Callable[[], Predictor]) -> int:
        """Serve until the end; return the exit status."""
        # Clients can queue from now on, while the packages are being imported.
        for target in (self._accept, self._watch):
            threading.Thread(target=target, daemon=True).start()
        failure = None
        try:
            try:
                self._predictor = make()
            except Exception as error:
                failure = explain(error)
                self._end.set()
            while (request := self._waiting.get()) is not None:
                if failure is None:
                    self._serve(request)
                else:
                    answer(request.connection, False, failure)
        finally:
            self._endpoint.remove_files()
        return 0 if failure is None else 1

    def _serve(self, request: _Request) -> None:
        assert self._predictor is not None
        if request.abandoned():
            request.connection.close()
            return
        self._computing = True
        fatal = False
        try:
            if request.job is None:
                self._predictor.release()
                text = ""
            else:
                text = self._predictor.run(request.job)
            succeeded = True
        except Exception as error:
            succeeded, text = False, explain(error)
            # After such an error CUDA refuses everything that this process asks for.
            fatal = "CUDA error" in str(error)
        answer(request.connection, succeeded, text)
        self._endpoint.used()
        self._computing = False
        if fatal:
            print(text, flush=True)
            sys.exit(1)

    def _accept(self) -> None:
        """Put requests into the queue, until the end and then None."""
        listener = self._endpoint.listener
        listener.settimeout(SECONDS_BETWEEN_LOOKS)
        while not self._end.is_set():
            try:
                self._receive(listener.accept()[0])
            except TimeoutError:
                continue
            except OSError as error:
                # No descriptor is free, say: those who wait must not wait in vain.
                print(f"A request was not accepted: {error}", flush=True)
                time.sleep(SECONDS_BETWEEN_LOOKS)
        for connection in self._endpoint.last_connections():
            self._receive(connection)
        self._waiting.put(None)

    def _receive(self, connection: socket.socket) -> None:
        request = self._endpoint.receive(connection)
        if request is None:
            return
        job = None
        try:
            if request.verb == "predict":
                job = self._parse_job(request.directory, request.arguments)
                if self._predictor is not None:
                    self._predictor.prefetch(job)
        except Exception as error:
            answer(connection, False, explain(error))
            return
        self._waiting.put(_Request(connection, job))

    def _watch(self) -> None:
        """See to it that the server ends when nobody needs it any more."""
        while True:
            time.sleep(SECONDS_BETWEEN_LOOKS)
            if not self._endpoint.is_owned():
                # The handler's SystemExit lets a file being written be removed.
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(_SECONDS_TO_STOP)
                os._exit(1)
            if self._end.is_set():
                continue
            busy = self._computing or not self._waiting.empty()
            idle = not busy and self._endpoint.is_idle()
            # Those who wait are served first, whoever has emptied /tmp.
            if idle or not self._endpoint.is_found():
                self._end.set()


def serve(arguments: Sequence[str], work: str) -> int:
    """Be the server: `resident` starts this. Returns the exit status."""
    *given, gpu = arguments
    place = endpoint.start(given, {"predict", "release"}.__contains__, {"release"})
    module = import_module(work)
    server = Server(place, module.parse_job)
    return server.run(
        lambda: module.make_predictor(devices.predictor_device(gpu or None))
    )
