"""nnU-Net's trainer on given cases, with our schedule, start weights and seeds.

Network, losses, deep supervision, optimiser, learning-rate decay and augmentation are
those of `nnUNetTrainer`. What differs:

* Batch i is a function of (seed, i) alone (see `batches`); nnU-Net seeds nothing.
* A training can start from *all* weights of another one, segmentation head included;
  nnU-Net's `-pretrained_weights` drops the head without saying so.
* It writes no file by itself: `run` does.
* On a GPU an iteration is `step.Step`'s.

Importing this module imports nnU-Net's trainer, which takes seconds.
"""

import math
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.nnunet.random_binary_operator import (
    ApplyRandomBinaryOperatorTransform,
)
from batchgeneratorsv2.transforms.nnunet.remove_connected_components import (
    RemoveRandomConnectedComponentFromOneHotEncodingTransform,
)
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from casesim.nnunet import checkpoints, planning
from casesim.training.batches import TRAINING, WEIGHTS, Batches, seed_all
from casesim.training.cases import Cases
from casesim.training.device_batches import DeviceBatches
from casesim.training.step import Step, fused_sgd

# A compiled iteration saves 7 ns for each voxel of the batch, and a training starts 4 s
# later, the first one of a run more: see docs/benchmarks/training.md. These save 14 s.
_VOXELS_THAT_EARN_COMPILING = 2e9


class CaseTrainer(nnUNetTrainer):
    """`nnUNetTrainer` on given cases, writing no file by itself.

    nnU-Net inspects the constructor, so that its arguments have to keep their names.
    """

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int | str,
        dataset_json: dict[str, Any],
        device: torch.device,
    ) -> None:
        # The parent's constructor wants a results folder and makes folders below it.
        with (
            tempfile.TemporaryDirectory(prefix="trainer-") as folder,
            planning.environment(nnUNet_results=folder, nnUNet_compile="f"),
        ):
            super().__init__(
                {**plans, "continue_training": False},
                configuration,
                fold,
                dataset_json,
                device,
            )
        self._step: Step | None = None

    def print_to_log_file(
        self, *args: Any, also_print_to_console: bool = True, add_timestamp: bool = True
    ) -> None:
        """Print: the job's log is where standard output goes."""
        print(*args, flush=True)

    def _do_i_compile(self) -> bool:
        # `Step` does, in a form that is faster, and where it pays.
        return False

    def initialize(
        self,
        schedule: Mapping[str, Any],
        seed: int,
        weights: Mapping[str, Any] | None,
        precision: str = "float16",
        compiler: str | None = None,
    ) -> None:
        """Build network, optimiser and loss.

        The network starts from `weights`, every one of them, or from nnU-Net's
        initialisation with the seed. `precision` and `compiler` are those of `Step`; a
        CPU has no use for them. Raises ValueError when `weights` do not fit.
        """
        self.num_epochs = schedule["epochs"]
        self.num_iterations_per_epoch = schedule["iterations_per_epoch"]
        self.num_val_iterations_per_epoch = max(1, self.num_iterations_per_epoch // 5)
        self.initial_lr = schedule["initial_lr"]
        self._set_batch_size_and_oversample()
        seed_all(seed, WEIGHTS)
        self.network = checkpoints.build_network(
            self.plans_manager,
            self.configuration_manager,
            self.dataset_json,
            deep_supervision=self.enable_deep_supervision,
            initialise=weights is None,
        )
        if weights is not None:
            try:
                self.network.load_state_dict(weights, strict=True)
            except RuntimeError as error:
                raise ValueError(str(error)) from None
        self.network.to(self.device)
        self.loss = self._build_loss()
        if self.device.type == "cuda":
            self.optimizer = fused_sgd(
                self.network.parameters(), self.initial_lr, self.weight_decay
            )
            self._step = Step(
                self.network,
                self.loss,
                self.optimizer,
                self.grad_scaler,
                self.device,
                precision,
                compiler,
                record=not self._loss_asks_the_host(),
            )
            self.lr_scheduler = PolyLRScheduler(
                self.optimizer, self.initial_lr, self.num_epochs
            )
        else:
            self.optimizer, self.lr_scheduler = self.configure_optimizers()
        self.was_initialized = True

    def _loss_asks_the_host(self) -> bool:
        """Whether the loss looks at values, which no recorded iteration can.

        `DC_and_CE_loss` asks whether anything is labelled where voxels can be ignored.
        """
        manager = self.label_manager
        return bool(manager.has_ignore_label and not manager.has_regions)

    def compiles(self, wanted: bool | str, iterations: int) -> bool:
        """Whether so many iterations are compiled: on a GPU, and if it is `wanted`.

        `auto` wants it where that many save more than compiling takes.
        """
        if self.device.type != "cuda":
            return False
        if wanted != "auto":
            return bool(wanted)
        configuration = self.configuration_manager
        voxels = math.prod(configuration.patch_size) * configuration.batch_size
        return iterations * voxels >= _VOXELS_THAT_EARN_COMPILING

    def begin_epoch(self, epoch: int) -> None:
        """Set the learning rate of an epoch, counted from 0."""
        self.lr_scheduler.step(epoch)
        if self._step is not None:
            self._step.take_up_lr()

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """One iteration; on a GPU the `loss` is a tensor there, not waited for."""
        if self._step is None:
            outcome: dict[str, Any] = super().train_step(batch)
            return outcome
        return {"loss": self._step(batch)}

    def batches(self, cases: Cases, seed: int, stream: int) -> Batches:
        """nnU-Net's sampling and augmentation (`nnUNetTrainer.get_dataloaders`)."""
        patch_size = self.configuration_manager.patch_size
        scales = self._get_deep_supervision_scales()
        rotation, dummy_2d, initial_patch_size, mirror_axes = (
            self.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        )
        labels = {
            "foreground_labels": self.label_manager.foreground_labels,
            "regions": (
                self.label_manager.foreground_regions
                if self.label_manager.has_regions
                else None
            ),
            "ignore_label": self.label_manager.ignore_label,
            "is_cascaded": self.is_cascaded,
        }
        if stream == TRAINING:
            transforms = self.get_training_transforms(
                patch_size,
                rotation,
                scales,
                mirror_axes,
                dummy_2d,
                use_mask_for_norm=self.configuration_manager.use_mask_for_norm,
                **labels,
            )
            _make_repeatable(transforms)
        else:
            transforms = self.get_validation_transforms(scales, **labels)
            initial_patch_size = patch_size
        loader = nnUNetDataLoader(
            cases,
            self.batch_size,
            initial_patch_size,
            patch_size,
            self.label_manager,
            oversample_foreground_percent=self.oversample_foreground_percent,
            probabilistic_oversampling=self.probabilistic_oversampling,
            transforms=transforms,
        )
        return Batches(loader, seed, stream)

    def device_batches(self, cases: Cases, batches: Batches) -> DeviceBatches:
        """What makes the same batches on the trainer's device; see `draws.can_draw`."""
        use_mask = self.configuration_manager.use_mask_for_norm
        return DeviceBatches(
            cases,
            batches.loader,
            self.label_manager.foreground_labels,
            [channel for channel, use in enumerate(use_mask) if use],
            self._get_deep_supervision_scales(),
            self.device,
        )

    def load_optimizer(self, state: Mapping[str, Any]) -> None:
        """Take up an optimiser's state, wherever it was written."""
        ours = [dict(group) for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(dict(state))
        for group, before in zip(self.optimizer.param_groups, ours, strict=True):
            group["fused"], group["foreach"] = before["fused"], before["foreach"]
        for weight, of_weight in self.optimizer.state.items():
            # Laid out as the weight is, which the fused optimiser wants.
            buffer = of_weight.get("momentum_buffer")
            if buffer is not None:
                buffer = torch.empty_like(weight).copy_(buffer)
                of_weight["momentum_buffer"] = buffer

    def optimizer_state(self) -> dict[str, Any]:
        """The optimiser's state, in plain numbers and tensors."""
        state: dict[str, Any] = self.optimizer.state_dict()
        for group in state["param_groups"]:
            group["lr"] = float(group["lr"])
        return state

    def pseudo_dice(self, batches: Iterable[dict[str, Any]]) -> list[float]:
        """nnU-Net's pseudo-Dice: voxels of random patches pooled, a value per label.

        NaN for a label that is neither in the patches nor predicted.
        """
        self.network.eval()
        with torch.no_grad():
            outcomes = [self.validation_step(batch) for batch in batches]
        self.network.train()
        names = ("tp_hard", "fp_hard", "fn_hard")
        counts = [sum(outcome[name] for outcome in outcomes) for name in names]
        tp, fp, fn = counts
        with np.errstate(invalid="ignore"):
            return [float(value) for value in 2 * tp / (2 * tp + fp + fn)]


class _SameOrder(BasicTransform):
    """A transform that shuffles its channels, every time from the same order."""

    channel_idx: list[int]

    def get_parameters(self, **data: Any) -> dict[str, Any]:
        self.channel_idx = sorted(self.channel_idx)
        parameters: dict[str, Any] = super().get_parameters(**data)
        return parameters


class _BinaryOperator(_SameOrder, ApplyRandomBinaryOperatorTransform):
    pass


class _RemovedComponent(
    _SameOrder, RemoveRandomConnectedComponentFromOneHotEncodingTransform
):
    pass


_IN_THE_SAME_ORDER: dict[type, type] = {
    ApplyRandomBinaryOperatorTransform: _BinaryOperator,
    RemoveRandomConnectedComponentFromOneHotEncodingTransform: _RemovedComponent,
}


def _make_repeatable(transform: BasicTransform) -> None:
    """Have a transform depend on the random numbers alone.

    Blurring measures, at run time, which of two algorithms is the faster. They differ
    in the last bits, so that a batch would depend on how busy the machine was. What
    changes a cascade's masks shuffles the list of their channels in place, so that a
    batch would depend on those before it.
    """
    if getattr(transform, "benchmark", False):
        transform.benchmark = False
    if (same := _IN_THE_SAME_ORDER.get(type(transform))) is not None:
        transform.__class__ = same
    for part in getattr(transform, "transforms", []):
        _make_repeatable(part)
    inner = getattr(transform, "transform", None)
    if inner is not None:
        _make_repeatable(inner)
