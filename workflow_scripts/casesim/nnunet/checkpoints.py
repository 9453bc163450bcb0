"""Networks and model folders in nnU-Net's format: built, saved, loaded.

nnU-Net's own command-line tools work on what is saved here. torch and nnU-Net are
imported inside the functions, for the reason given in `planning`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from casesim.errors import UserError
from casesim.files import atomic_path, sync
from casesim.nnunet.files import PathLike, damaged, read_json, write_json
from casesim.nnunet.planning import load_plans
from casesim.nnunet.stages import first_checkpoint

if TYPE_CHECKING:
    import torch
    from nnunetv2.utilities.label_handling.label_handling import LabelManager
    from nnunetv2.utilities.plans_handling.plans_handler import (
        ConfigurationManager,
        PlansManager,
    )


STORAGE = ("float32", "float16")


@dataclass(frozen=True)
class Model:
    """A network ready for inference, and what nnU-Net knows about its input and output.

    `network` is in evaluation mode, without deep supervision, in float32 on its device.
    `allowed_mirroring_axes` are spatial axes of the plans' order, 0 being the first.
    `first_stage` is the model whose label maps a cascade's network takes as input.
    """

    network: torch.nn.Module
    plans_manager: PlansManager
    configuration_manager: ConfigurationManager
    dataset_json: dict[str, Any]
    label_manager: LabelManager
    allowed_mirroring_axes: tuple[int, ...] | None
    configuration: str
    first_stage: Model | None = None

    @property
    def networks(self) -> list[torch.nn.Module]:
        """The networks of all stages, this one's last."""
        before = [] if self.first_stage is None else self.first_stage.networks
        return [*before, self.network]


def read_checkpoint(path: PathLike) -> dict[str, Any]:
    """Read a checkpoint to the CPU, its weights as float32.

    Only tensors and plain data are accepted (`weights_only`): a checkpoint can be
    shared without being able to run code. Raises `UserError` naming a missing or
    damaged file.
    """
    import torch

    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        checkpoint["network_weights"] = _convert(
            checkpoint["network_weights"], torch.float32
        )
    except Exception as error:  # zip, pickle and torch errors alike
        raise damaged(path, error) from None
    return dict(checkpoint)


def build_network(
    plans_manager: PlansManager,
    configuration_manager: ConfigurationManager,
    dataset: Mapping[str, Any],
    deep_supervision: bool,
    initialise: bool,
) -> torch.nn.Module:
    """nnU-Net's network of the plans (`nnUNetTrainer.build_network_architecture`)."""
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.label_handling.label_handling import (
        determine_num_input_channels,
    )

    return get_network_from_plans(
        configuration_manager.network_arch_class_name,
        configuration_manager.network_arch_init_kwargs,
        configuration_manager.network_arch_init_kwargs_req_import,
        determine_num_input_channels(plans_manager, configuration_manager, dataset),
        plans_manager.get_label_manager(dataset).num_segmentation_heads,
        allow_init=initialise,
        deep_supervision=deep_supervision,
    )


def load_model(checkpoint_path: PathLike, device: str | torch.device) -> Model:
    """Load a model folder's checkpoint for inference.

    `checkpoint_path` is FOLDER/fold_all/checkpoint_final.pth, with plans.json and
    dataset.json in FOLDER, and of a cascade the first stage's folder (`stages`), which
    is loaded as well. Raises `UserError` naming the file that is missing, damaged or
    does not fit the plans.
    """
    import torch

    folder = Path(checkpoint_path).parent.parent
    dataset = read_json(folder / "dataset.json")
    checkpoint = read_checkpoint(checkpoint_path)
    try:
        configuration = checkpoint["init_args"]["configuration"]
        axes = checkpoint["inference_allowed_mirroring_axes"]
    except (KeyError, TypeError) as error:
        raise damaged(checkpoint_path, error) from None
    plans_manager, configuration_manager = load_plans(
        folder / "plans.json", configuration
    )
    # No memory is filled with random weights only to be overwritten.
    with torch.device("meta"):
        network = build_network(
            plans_manager,
            configuration_manager,
            dataset,
            deep_supervision=False,
            initialise=False,
        )
    try:
        network.load_state_dict(checkpoint["network_weights"], assign=True)
    except RuntimeError as error:
        raise UserError(
            f"The weights in {checkpoint_path} do not fit {folder / 'plans.json'} "
            f"({error}). Delete the folder {folder} and run the workflow again."
        ) from None
    first = first_checkpoint(checkpoint_path, configuration)
    return Model(
        network=network.to(device).requires_grad_(False).eval(),
        plans_manager=plans_manager,
        configuration_manager=configuration_manager,
        dataset_json=dataset,
        label_manager=plans_manager.get_label_manager(dataset),
        allowed_mirroring_axes=None if axes is None else tuple(axes),
        configuration=configuration,
        first_stage=None if first is None else load_model(first, device),
    )


def save_model(
    folder: PathLike,
    network_state: Mapping[str, torch.Tensor],
    plans: Mapping[str, Any],
    dataset_json: Mapping[str, Any],
    configuration: str,
    mirroring_axes: Sequence[int] | None,
    storage: str = "float32",
) -> Path:
    """Write a model folder that nnU-Net's own predictor loads; returns the checkpoint.

    FOLDER/plans.json, FOLDER/dataset.json and FOLDER/fold_all/checkpoint_final.pth, the
    last one last. The trainer's name is nnU-Net's, so that
    `nnUNetv2_predict_from_modelfolder -m FOLDER -f all` needs nothing of ours. There is
    no optimizer state, which is as large as the weights. `storage` float16 halves the
    rest; it is float32 again when loaded.
    """
    import torch

    if storage not in STORAGE:
        raise ValueError(f"storage is {storage!r}, not one of {', '.join(STORAGE)}")
    folder = Path(folder)
    write_json(folder / "plans.json", dict(plans))
    write_json(folder / "dataset.json", dict(dataset_json))
    sync(folder)  # their names, too, before the checkpoint has its own
    checkpoint = folder / "fold_all" / "checkpoint_final.pth"
    save_checkpoint(
        checkpoint,
        {
            "network_weights": _convert(network_state, getattr(torch, storage)),
            "trainer_name": "nnUNetTrainer",
            "init_args": {"configuration": configuration, "fold": "all"},
            "inference_allowed_mirroring_axes": (
                None if mirroring_axes is None else tuple(mirroring_axes)
            ),
        },
    )
    return checkpoint


def save_checkpoint(path: PathLike, content: Mapping[str, Any]) -> None:
    """`torch.save`, atomically, and the same bytes for the same content."""
    import torch

    # Given a path, torch.save writes the (temporary) file name into the archive.
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        torch.save(dict(content), file)


def _convert(
    state: Mapping[str, torch.Tensor], dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """Copy weights to the CPU in another type, entries that share memory still sharing
    it.

    nnU-Net's networks list each convolution under several names; a copy for each would
    make the file several times as large.
    """
    converted: dict[tuple[int, tuple[int, ...]], torch.Tensor] = {}
    result = {}
    for name, tensor in state.items():
        key = (tensor.data_ptr(), tuple(tensor.shape))
        if key not in converted:
            kind = dtype if tensor.is_floating_point() else tensor.dtype
            # A GPU's weights may lie channels-last.
            converted[key] = tensor.detach().to("cpu", kind).contiguous()
        result[name] = converted[key]
    return result
