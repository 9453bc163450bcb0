"""The user's own trained network, read safely and kept as the base model.

torch is imported inside the functions, for the reason given in `planning`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from casesim.errors import UserError
from casesim.nnunet import checkpoints, stages
from casesim.nnunet.files import PathLike, read_json
from casesim.nnunet.planning import load_plans

if TYPE_CHECKING:
    import torch

# Wrappers that put their name before those of the weights: several GPUs, compilation.
_WRAPPERS = ("module.", "_orig_mod.")
_SHOWN = 4


def adopt(
    checkpoint: PathLike,
    plans: PathLike,
    dataset: PathLike,
    configuration: str,
    out_folder: PathLike,
) -> None:
    """Write a checkpoint of nnU-Net's trainer as a model folder of the workflow.

    All weights are kept, segmentation head included, and the axes that the network's
    trainer allows to be mirrored. `plans` and `dataset` are the cohort's.

    Raises:
        UserError: a file that is missing, damaged or no checkpoint of nnU-Net v2, a
            network of another configuration, or weights that do not fit the plans.
    """
    import torch

    content = _read(checkpoint)
    trained = content["init_args"].get("configuration", configuration)
    if trained != configuration:
        raise UserError(
            f"training.base.checkpoint {checkpoint} is a network of {trained}, but "
            f"nnunet.configuration is {configuration}. Set it to {trained}."
        )
    weights = {_unwrapped(name): w for name, w in content["network_weights"].items()}
    plans_json, dataset_json = read_json(plans), read_json(dataset)
    with torch.device("meta"):
        network = checkpoints.build_network(
            *load_plans(plans, configuration),
            dataset_json,
            deep_supervision=False,
            initialise=False,
        )
    _compare(checkpoint, weights, network.state_dict())
    trainer = content.get("trainer_name", "nnUNetTrainer")
    print(
        f"{checkpoint}: trained by {trainer} for {content.get('current_epoch', '?')} "
        f"epochs; {len(weights)} weights taken over.",
        flush=True,
    )
    if trainer != "nnUNetTrainer":
        print("Fine-tuned and retrained models are trained by nnUNetTrainer.")
    checkpoints.save_model(
        out_folder,
        weights,
        plans_json,
        dataset_json,
        configuration,
        content["inference_allowed_mirroring_axes"],
    )


def adopt_all(
    networks: Sequence[PathLike],
    plans: PathLike,
    dataset: PathLike,
    configuration: str,
    out_folder: PathLike,
) -> None:
    """`adopt` for each stage of a configuration; `networks` has the first one first."""
    for network, stage in zip(networks, stages.stages(configuration), strict=True):
        folder = Path(out_folder)
        folder = folder if stage == configuration else folder / stage
        adopt(network, plans, dataset, stage, folder)


def _read(path: PathLike) -> dict[str, Any]:
    """A checkpoint of nnU-Net's trainer, without being able to run code.

    Its log holds numpy's numbers, which torch does not let in by itself.
    """
    import numpy as np
    import torch

    numbers = [np.float64, np.float32, np.int64, np.int32, np.bool_]
    allowed: list[Any] = [np.ndarray, np.dtype, *(type(np.dtype(n)) for n in numbers)]
    # Under the names that numpy 2 writes, and those of numpy 1.
    internal = import_module("numpy._core.multiarray")
    for module in ("numpy._core.multiarray", "numpy.core.multiarray"):
        for name in ("scalar", "_reconstruct"):
            allowed.append((getattr(internal, name), f"{module}.{name}"))
    try:
        with torch.serialization.safe_globals(allowed):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and torch errors alike
        raise UserError(
            f"training.base.checkpoint {path} cannot be read ({error}). It may be "
            "damaged, or of another program: nnU-Net v2 is needed."
        ) from None
    wanted = ("network_weights", "init_args", "inference_allowed_mirroring_axes")
    found = content if isinstance(content, dict) else {}
    missing = [key for key in wanted if key not in found]
    if missing:
        raise UserError(
            f"training.base.checkpoint {path} is no checkpoint of nnU-Net v2: it lacks "
            f"{', '.join(missing)}. Give fold_X/checkpoint_final.pth of a model folder."
        )
    return dict(found)


def _unwrapped(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.removeprefix(wrapper)
    return name


def _compare(
    checkpoint: PathLike,
    weights: Mapping[str, torch.Tensor],
    wanted: Mapping[str, torch.Tensor],
) -> None:
    """Names and shapes of all weights against those of the plans' network."""
    problems = [
        f"{name} is {_shape(weights[name])} instead of {_shape(wanted[name])}"
        for name in wanted
        if name in weights and weights[name].shape != wanted[name].shape
    ]
    problems += [f"{name} is missing" for name in wanted if name not in weights]
    problems += [f"{name} is not known" for name in weights if name not in wanted]
    if problems:
        more = len(problems) - _SHOWN
        shown = "; ".join(problems[:_SHOWN]) + (f"; and {more} more" * (more > 0))
        raise UserError(
            f"The weights in training.base.checkpoint {checkpoint} do not fit the "
            f"network of the plans: {shown}. The plans must be those that it was "
            "trained with: name them in nnunet.plans."
        )


def _shape(tensor: torch.Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a number"
