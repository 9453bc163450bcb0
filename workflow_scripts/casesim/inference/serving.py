"""One cell of the matrix: what its client asks for, and the predictor that does it.

The resident predictor (`casesim.processes.resident_server`) is given this module by
name: `parse_job` reads a request, `make_predictor` loads what computes. Importing it is
cheap; torch and nnU-Net are imported when a predictor is made.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from casesim.errors import UserError
from casesim.inference.keeping import Keeper


@dataclass(frozen=True)
class Job:
    """What the client of one cell asks for; all paths are absolute."""

    model: str
    case: str
    checkpoint: Path
    data: Path
    label: Path
    prediction: Path
    score: Path
    threads: int
    labels: dict[str, tuple[int, ...]]
    regions: dict[str, tuple[int, ...]]
    options: dict[str, Any]
    ignore: int | None = None
    first_stage: str | None = None


class Parser(argparse.ArgumentParser):
    """Arguments of a client; mistakes are a `UserError`, not the end of the process.

    Has the options that all clients of a predictor share (the case, threads and
    devices, labels and regions, how a network is applied), and takes names and files
    in one way: relative paths are seen from the client's working directory, and what
    is written, or becomes part of a path, does not climb out of its folder.
    """

    def __init__(self, prog: str, directory: str) -> None:
        super().__init__(prog, add_help=False, allow_abbrev=False)
        self._directory = directory
        self.add_names("case")
        self.add_inputs("data")
        self.add_argument("--threads", required=True, type=int)
        self.add_argument("--gpu", required=True, type=int)
        self.add_argument("--labels", required=True, type=parse_regions)
        self.add_argument("--regions", default="", type=parse_regions)
        self.add_argument("--ignore", type=int)
        self.add_argument("--first-stage")
        self.add_argument("--tile-step", default=0.5, type=float)
        switch = argparse.BooleanOptionalAction
        self.add_argument("--mirroring", default=True, action=switch)
        self.add_argument("--bfloat16", default=False, action=switch)
        self.add_argument("--resident", default=True, action=switch)

    def add_names(self, *names: str) -> None:
        """Names of models and cases."""
        for name in names:
            self.add_argument(f"--{name}", required=True, type=_stays_inside)

    def add_inputs(self, *names: str) -> None:
        """Files and folders that are read."""
        for name in names:
            self.add_argument(f"--{name}", required=True, type=self._path)

    def add_outputs(self, *names: str) -> None:
        """Files and folders that are written."""
        for name in names:
            self.add_argument(
                f"--{name}",
                required=True,
                type=lambda text: self._path(_stays_inside(text)),
            )

    def _path(self, text: str) -> Path:
        return Path(self._directory, text)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}\n{self.format_usage()}")

    def parse(self, arguments: list[str]) -> dict[str, Any]:
        """The arguments by name, as `Job` has them."""
        given = vars(self.parse_args(arguments))
        names = ("mirroring", "tile_step", "bfloat16")
        options = {name: given.pop(name) for name in names}
        del given["gpu"], given["resident"]
        return {**given, "options": options}


def _stays_inside(text: str) -> str:
    """A name or path that does not climb out of the folder that it begins in."""
    if not text or ".." in Path(text).parts:
        raise argparse.ArgumentTypeError(f"{text!r} leaves its folder")
    return text


def parse_job(directory: str, arguments: list[str]) -> Job:
    """The client's arguments, its relative paths seen from its working directory.

    Raises `UserError` for arguments that are missing, unknown or malformed.
    """
    parser = Parser("predict", directory)
    parser.add_names("model")
    parser.add_inputs("checkpoint", "label")
    parser.add_outputs("prediction", "score")
    return Job(**parser.parse(arguments))


def parse_regions(text: str) -> dict[str, tuple[int, ...]]:
    """`WT=1,2,3;TC=2,3` as names and label numbers."""
    regions = {}
    for part in filter(None, text.split(";")):
        name, _, numbers = part.rpartition("=")
        if not name:
            raise ValueError(f"no name in {part!r}")
        regions[name] = tuple(int(number) for number in numbers.split(","))
    return regions


class NnunetPredictor:
    """Predicts and scores with nnU-Net models on one device, keeping what it loads."""

    def __init__(self, device: str) -> None:
        from casesim.inference import cell, compiled_network, sliding_window
        from casesim.nnunet import compiling

        self._cell = cell
        self._compiled_network = compiled_network
        self._compiling = compiling
        self._sliding_window = sliding_window
        self._compiles: bool | None = None
        self._has_compiled = False
        self._keeper = Keeper(device)

    def prefetch(self, job: Job) -> None:
        """Begin to load what a waiting request needs."""
        # What is missing is reported when the request's turn comes.
        with suppress(UserError):
            self._keeper.case(job.data, job.label, job.ignore)
            self._keeper.first_stage(job.data, job.first_stage)
            self._keeper.model(job.checkpoint)

    def run(self, job: Job) -> str:
        """Predict and score; return a line for the job's log.

        Raises `UserError` for files that are missing or damaged. When the device's
        memory runs out, everything kept there is given up for a second attempt.
        """
        return self._keeper.try_twice(lambda: self._run(job))

    def _run(self, job: Job) -> str:
        start = time.perf_counter()
        self._keeper.use_threads(job.threads)
        loading_case = self._keeper.case(job.data, job.label, job.ignore)
        loading_first = self._keeper.first_stage(job.data, job.first_stage)
        model, _ = self._keeper.model(job.checkpoint).result()
        case, _ = loading_case.result()
        first = loading_first.result()[0] if loading_first else None
        self._keeper.trim()
        loaded = time.perf_counter() - start

        def segment(compiled: bool) -> dict[str, float]:
            return self._cell.run_cell(
                model=model,
                data=case.data,
                properties=case.properties,
                first=first,
                reference=case.reference,
                label_path=job.label,
                prediction_path=job.prediction,
                score_path=job.score,
                model_name=job.model,
                case=job.case,
                labels=job.labels,
                regions=job.regions,
                options={**job.options, "compiled": compiled},
            )

        seconds, remark = self._segment(segment, self._is_compiled(model, case, job))
        steps = ", ".join(
            f"{name} {value:.3f} s"
            for name, value in ({"load": loaded} | seconds).items()
        )
        return f"{remark}{job.model} on {job.case} ({self._keeper.device}): {steps}"

    def _segment(
        self, segment: Callable[[bool], dict[str, float]], compiled: bool
    ) -> tuple[dict[str, float], str]:
        """Seconds by step, and what to say; without compiling where that fails.

        Raises `UserError` where it fails and the config asks for it in any case.
        """
        try:
            seconds = segment(compiled)
            self._has_compiled |= compiled
            return seconds, ""
        except Exception as error:
            # Before the first cell it is the compiler's, or comes again without.
            if not compiled or self._has_compiled or _is_of_another_kind(error):
                raise
            failure = self._compiling.failure(error)
        if self._compiled_network.is_asked_for():
            raise failure.refusal("inference.compile")
        self._compiles = False
        self._compiled_network.forget()
        return segment(False), f"{failure.going_on()}\n"

    def _is_compiled(self, model: Any, case: Any, job: Job) -> bool:
        """Whether the network is compiled: the first cell decides for all."""
        if self._compiles is None:
            options = job.options
            self._compiles = self._keeper.device.type == "cuda" and (
                self._compiled_network.earns_compiling(
                    self._sliding_window.voxels(
                        model,
                        case.data.shape,
                        options["mirroring"],
                        options["tile_step"],
                    )
                )
            )
            if self._compiles:
                self._compiling.use_compiler_cache(
                    self._compiling.cache_beside(job.checkpoint)
                )
        return self._compiles

    def release(self) -> None:
        """Drop all models and cases, and give memory back to the device."""
        self._keeper.release()


def _is_of_another_kind(error: Exception) -> bool:
    """Whether it cannot be a compiler's."""
    import torch

    return isinstance(error, UserError | torch.OutOfMemoryError)


def make_predictor(device: str) -> NnunetPredictor:
    """The predictor of cells, on a torch device."""
    return NnunetPredictor(device)
