"""What the scripts that train a model have in common."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from casesim.processes import warm


def train_model(script: Any, cases: Sequence[str]) -> None:
    """Train on preprocessed cases (paths without `.b2nd`), as `jobs.train` describes.

    `script` is what Snakemake tells the script of a rule that trains: plans, dataset
    and, where there is one, the base model to start from are inputs of these names; all
    that the weights depend on beside them is the param `training`.
    """
    start = script.input.get("base")
    warm.run(
        "casesim.training.jobs:train",
        {
            "cases": list(cases),
            "plans": script.input.plans,
            "dataset": script.input.dataset,
            "model": str(Path(script.output.plans).parent),
            **({} if start is None else {"start_from": start}),
            "training": script.params.training,
            # From the config, so that a change of them trains nothing again.
            "settings": script.config["training"],
            "threads": script.threads,
            "gpu": script.resources.gpu,
            "memory_mb": script.resources.mem_mb,
        },
    )
