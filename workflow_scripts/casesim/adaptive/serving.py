"""What the clients of this stage ask a resident predictor for, and who does it.

See `casesim.processes.resident_server`: `parse_job` reads a request, `make_predictor`
loads what computes. Two things can be asked for: `cell`, one model on a case without a
label, and `ensembles`, several models on it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from casesim.adaptive.ensemble import Weight
from casesim.errors import UserError
from casesim.inference.keeping import Keeper
from casesim.inference.serving import Parser


@dataclass(frozen=True)
class Cell:
    """One model on one case; all paths are absolute."""

    model: str
    case: str
    checkpoint: Path
    data: Path
    label_map: Path
    cell: Path
    threads: int
    labels: dict[str, tuple[int, ...]]
    regions: dict[str, tuple[int, ...]]
    options: dict[str, Any]
    # Of no use where no label is read.
    ignore: int | None = None
    first_stage: str | None = None


@dataclass(frozen=True)
class Ensembles:
    """Ensembles on one case. `weights` is a file of ensemble to model to weight,
    `models` the folder of the models, `label_maps` that of the results, which are
    named <ensemble>/<case>.nii.gz."""

    case: str
    weights: Path
    models: Path
    data: Path
    label_maps: Path
    threads: int
    labels: dict[str, tuple[int, ...]]
    regions: dict[str, tuple[int, ...]]
    options: dict[str, Any]
    # Of no use where no label is read.
    ignore: int | None = None
    first_stage: str | None = None


def parse_job(directory: str, arguments: list[str]) -> Cell | Ensembles:
    """The client's arguments, the first of which says what is asked for; relative
    paths are seen from its working directory.

    Raises `UserError` for arguments that are missing, unknown or malformed.
    """
    kind, given = (arguments[0], arguments[1:]) if arguments else ("", [])
    if kind not in ("cell", "ensembles"):
        raise UserError(f"Ask for cell or ensembles, not for {kind!r}.")
    parser = Parser(kind, directory)
    if kind == "ensembles":
        parser.add_inputs("weights", "models")
        parser.add_outputs("label-maps")
        return Ensembles(**parser.parse(given))
    parser.add_names("model")
    parser.add_inputs("checkpoint")
    parser.add_outputs("label-map", "cell")
    return Cell(**parser.parse(given))


class Predictor:
    """Segments cases without a label on one device, keeping what it loads."""

    def __init__(self, device: str) -> None:
        from casesim.adaptive import cells

        self._cells = cells
        self._keeper = Keeper(device)

    def prefetch(self, job: Cell | Ensembles) -> None:
        """Begin to load what a waiting request needs."""
        # What is missing is reported when the request's turn comes.
        with suppress(UserError):
            self._keeper.case(job.data, None)
            self._keeper.first_stage(job.data, job.first_stage)
            if isinstance(job, Cell):
                self._keeper.model(job.checkpoint)

    def run(self, job: Cell | Ensembles) -> str:
        """Do what is asked for; return a line for the job's log.

        Raises `UserError` for files that are missing or damaged.
        """
        return self._keeper.try_twice(lambda: self._run(job))

    def _run(self, job: Cell | Ensembles) -> str:
        start = time.perf_counter()
        self._keeper.use_threads(job.threads)
        loading = self._keeper.case(job.data, None)
        loading_first = self._keeper.first_stage(job.data, job.first_stage)
        case, _ = loading.result()
        first = loading_first.result()[0] if loading_first else None
        if isinstance(job, Cell):
            seconds = self._run_cell(job, case, first)
            what = job.model
        else:
            seconds = self._run_ensembles(job, case, first)
            what = ", ".join(read_weights(job.weights))
        seconds["all"] = time.perf_counter() - start
        steps = ", ".join(f"{name} {value:.3f} s" for name, value in seconds.items())
        return f"{what} on {job.case} ({self._keeper.device}): {steps}"

    def _run_cell(self, job: Cell, case: Any, first: Any) -> dict[str, float]:
        model, _ = self._keeper.model(job.checkpoint).result()
        self._keeper.trim()
        return self._cells.run_label_free(
            model=model,
            data=case.data,
            properties=case.properties,
            label_map_path=job.label_map,
            cell_path=job.cell,
            model_name=job.model,
            case=job.case,
            regions={**job.labels, **job.regions},
            options=job.options,
            first=first,
        )

    def _run_ensembles(self, job: Ensembles, case: Any, first: Any) -> dict[str, float]:
        def load(name: str) -> Any:
            path = job.models / name / "fold_all" / "checkpoint_final.pth"
            model, _ = self._keeper.model(path).result()
            self._keeper.trim()
            return model

        return self._cells.run_ensembles(
            weights=read_weights(job.weights),
            load=load,
            data=case.data,
            properties=case.properties,
            label_map_path=lambda name: job.label_maps / name / f"{job.case}.nii.gz",
            options=job.options,
            first=first,
        )

    def release(self) -> None:
        """Drop all models and cases, and give memory back to the device."""
        self._keeper.release()


def read_weights(path: Path) -> dict[str, dict[str, Weight]]:
    """Weights of the models in each ensemble; `UserError` names a bad file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, Mapping):
            raise ValueError("no ensembles")
        return {
            str(name): {str(model): _weight(given) for model, given in of_model.items()}
            for name, of_model in content.items()
        }
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}). Run the workflow again."
        ) from None
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(
            f"{path} holds no weights of ensembles ({error}). Delete it and run the "
            "workflow again."
        ) from None


def _weight(given: Any) -> Weight:
    return [*map(float, given)] if isinstance(given, list) else float(given)


def make_predictor(device: str) -> Predictor:
    """The predictor of this stage, on a torch device."""
    return Predictor(device)
