"""The warm process: nnU-Net imported once, and a child forked for each job.

What a kind of job needs is imported when the first of its kind comes; nothing else
happens here: no thread is started and no GPU touched, either of which a forked child
could not use. (blosc2 starts numexpr's threads when it is imported; nothing here uses
numexpr.) Several children run side by side. A child inherits its job's connection,
so that the job which waits at the other end learns of the death of this process only
when the child, too, has ended, and no second one can work in the same folder.

A child ends, by SIGTERM first, so that a training writes its checkpoint,

* when its job is told to stop: the job passes the signal on;
* when this process stops, because its owner (see `service.find_owner`) is gone or it
  is told to; killed after `_SECONDS_TO_STOP`;
* when this process dies: the kernel sends the signal (PR_SET_PDEATHSIG);

and by SIGKILL when its job is killed, as it would have been itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import select
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from casesim.errors import UserError
from casesim.processes import endpoint, jobs, stall
from casesim.processes.endpoint import Endpoint, Request, answer, explain

_SECONDS_TO_STOP = 15.0
_SECONDS_TO_DIE = 15.0
_SECONDS_BETWEEN_LOOKS = 0.005
_PR_SET_PDEATHSIG = 1

# Those that this process and its children handle in different ways.
_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}


@dataclass
class _Child:
    """A job under way, and the client that waits for it."""

    pid: int
    connection: socket.socket


class Server:
    """Forks a child for each request, and tells the client how it ended."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._children: dict[int, _Child] = {}  # by the connection's descriptor
        self._libc = ctypes.CDLL(None)
        # Whatever signal comes wakes the loop below.
        self._awake, self._waking = os.pipe()
        for descriptor in (self._awake, self._waking):
            os.set_blocking(descriptor, False)
        self._ending = False
        self._deadline: float | None = None
        signal.set_wakeup_fd(self._waking, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._end)

    def _end(self, *_: object) -> None:
        self._ending = True

    def run(self) -> int:
        """Serve until the end; return the exit status."""
        try:
            while not self._ending:
                self._wait()
                if not self._children and self._endpoint.is_idle():
                    break
                if not self._endpoint.is_found():
                    break  # the jobs that run are not to suffer from that
            for connection in self._endpoint.last_connections():
                if self._ending:
                    connection.close()
                else:
                    self._accept(connection)
            while self._children and not self._gave_up():
                self._wait()
        finally:
            self._endpoint.remove_files()
        return 0

    def _gave_up(self) -> bool:
        """Whether children outlive even SIGKILL: a device does not let go of them."""
        late = time.monotonic() - (self._deadline or time.monotonic())
        return late > _SECONDS_TO_DIE

    def _wait(self) -> None:
        """Deal with whatever happens next: a signal, a child's end, a client."""
        poller = select.poll()
        poller.register(self._awake, select.POLLIN)
        for descriptor in self._children:
            poller.register(descriptor, select.POLLIN | select.POLLRDHUP)
        listener = self._endpoint.listener
        if listener.fileno() >= 0:
            poller.register(listener, select.POLLIN)
        timeout = 1000 * endpoint.SECONDS_BETWEEN_LOOKS
        ready = {descriptor for descriptor, _ in poller.poll(timeout)}
        if self._awake in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._awake, 1 << 10)
        self._bury()
        # Before new requests, which may be the next attempt of a job that was killed.
        for descriptor in ready & self._children.keys():
            self._listen_to(self._children[descriptor])
        if listener.fileno() in ready and not self._ending:
            try:
                self._accept(listener.accept()[0])
            except OSError as error:
                # No descriptor is free, say: the children must not end for that.
                print(f"A request was not accepted: {error}", flush=True)
        if not self._endpoint.is_owned():
            self._ending = True
        if self._ending:
            self._stop_children()

    def _bury(self) -> None:
        """Tell the clients of children that have ended."""
        for child in list(self._children.values()):
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                self._forget(child, os.waitstatus_to_exitcode(status))

    def _forget(self, child: _Child, status: int) -> None:
        del self._children[child.connection.fileno()]
        answer(child.connection, True, str(status))
        print(f"process {child.pid} has ended: {status}", flush=True)
        self._endpoint.used()

    def _listen_to(self, child: _Child) -> None:
        """A client has sent a signal for its child, or has itself been killed."""
        try:
            numbers = child.connection.recv(16)
        except ConnectionError:
            numbers = b""
        for number in numbers:
            if number in (signal.SIGTERM, signal.SIGINT):
                os.kill(child.pid, number)
        if not numbers:
            os.kill(child.pid, signal.SIGKILL)
            # A device that does not answer keeps even that one from ending.
            deadline = time.monotonic() + _SECONDS_TO_DIE
            while not (ended := os.waitpid(child.pid, os.WNOHANG))[0]:
                if time.monotonic() > deadline:
                    print(f"process {child.pid} cannot be killed", flush=True)
                    break
                time.sleep(_SECONDS_BETWEEN_LOOKS)
            self._forget(child, os.waitstatus_to_exitcode(ended[1] or signal.SIGKILL))

    def _stop_children(self) -> None:
        number: int | None = None
        if self._deadline is None:
            self._deadline = time.monotonic() + _SECONDS_TO_STOP
            number = signal.SIGTERM
        elif time.monotonic() > self._deadline:
            number = signal.SIGKILL
        if number is not None:
            for child in self._children.values():
                os.kill(child.pid, number)

    def _accept(self, connection: socket.socket) -> None:
        request = self._endpoint.receive(connection, max_files=2)
        if request is None:
            return
        try:
            self._fork(request, connection)
        except Exception as error:
            answer(connection, False, explain(error))
        finally:
            request.close_files()

    def _fork(self, request: Request, connection: socket.socket) -> None:
        """Start the child of a request.

        Raises `UserError` for a request that lacks something, and whatever an import
        raises.
        """
        if len(request.arguments) != 2 or len(request.files) != 2:
            raise UserError("A request needs variables, values and two open files.")
        variables, values = (json.loads(text) for text in request.arguments)
        jobs.prepare(request.verb)
        connection.settimeout(None)
        # What is there now is never freed: so it need not be copied either.
        gc.collect()
        gc.freeze()
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            pid = os.fork()
            if pid == 0:
                self._be_the_job(parent, connection, request, variables, values)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        self._children[connection.fileno()] = _Child(pid, connection)
        # A folder's name need not be text.
        where = request.directory.encode(errors="replace").decode()
        print(f"process {pid}: {request.verb} in {where}", flush=True)

    def _be_the_job(
        self,
        parent: int,
        connection: socket.socket,
        request: Request,
        variables: Mapping[str, str | None],
        values: Mapping[str, Any],
    ) -> NoReturn:
        """The child, until its end."""
        status = 1
        try:
            self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(1)
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            for descriptor, file in zip((1, 2), request.files, strict=True):
                os.dup2(file, descriptor)
            request.close_files()
            self._let_go_of_the_others()
            sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
            for name, value in variables.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
            tempfile.tempdir = None  # to be found anew
            os.chdir(request.directory)
            status = _status_of(request.verb, values)
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            # Nothing of what the parent had prepared for its own end.
            os._exit(status)

    def _let_go_of_the_others(self) -> None:
        """Close what belongs to the parent and to its other children's clients."""
        self._endpoint.listener.close()
        for child in self._children.values():
            child.connection.close()
        os.close(self._awake)
        os.close(self._waking)
        self._endpoint.close_lock()


def _status_of(name: str, values: Mapping[str, Any]) -> int:
    """Do a job; return the exit status that a process of its own would have had."""
    stall.watch()
    try:
        jobs.find(name)(**values)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def main(arguments: list[str]) -> int:
    """Be the warm process: `warm` starts this. Returns the exit status."""
    return Server(endpoint.start(arguments, jobs.is_known)).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
