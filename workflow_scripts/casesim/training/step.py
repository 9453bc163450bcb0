"""One iteration on a GPU: nnU-Net's arithmetic in few kernels, and no waiting for it.

It computes what `nnUNetTrainer.train_step` does: forward pass and loss under autocast,
scaled backward pass, gradients clipped at a norm of 12, SGD. What differs is

* the optimiser: one kernel for all weights, which also skips the step after an overflow
  by itself (nnU-Net's optimiser asks the host);
* `torch.compile`, where it pays, of what nnU-Net compiles, the network and the Dice
  loss, in channels-last layout, with a normalisation that needs no copies in it
  (`nnunet.compiling`);
* a CUDA graph of the whole iteration, so that small batches do not wait for Python;
* the loss, which stays on the device until somebody asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from torch import nn

from casesim.nnunet import compiling

PRECISIONS = {"float16": torch.float16, "bfloat16": torch.bfloat16}
# nnU-Net's, in `nnUNetTrainer.train_step`.
_LARGEST_GRADIENT_NORM = 12
# Iterations before the graph is recorded: cuDNN's search and the optimiser's buffers.
_ITERATIONS_BEFORE_RECORDING = 3


def compile_loss(loss: nn.Module, compiler: str) -> nn.Module:
    """Compile the Dice loss in it, in place, as `nnUNetTrainer._build_loss` does.

    Not all of it: in one graph with cross entropy, compiled for a GPU (torch 2.11), the
    gradient of one resolution was 8 % too large (docs/benchmarks/drift.md).
    """
    inner: Any = loss.loss if isinstance(loss, DeepSupervisionWrapper) else loss
    inner.dc = torch.compile(inner.dc, backend=compiler)
    return loss


class Step:
    """Calls make iterations: `step(batch)` returns the loss, a scalar on the device.

    Compiled, `network` is put into channels-last layout in place, and `loss` changes.
    `optimizer` must have been made by `fused_sgd`. `scaler` is nnU-Net's; bfloat16
    needs none. `compiler` is the back end of `torch.compile`, None for none. `record`
    makes a CUDA graph of the iteration; batches must then have one shape, and the loss
    must not look at values.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler | None,
        device: torch.device,
        precision: str = "float16",
        compiler: str | None = None,
        record: bool = True,
    ) -> None:
        self._parameters = list(network.parameters())
        self._layout = torch.contiguous_format
        self._network: Callable[..., Any] = network
        self._loss: Callable[..., torch.Tensor] = loss
        if compiler is not None:
            self._layout = compiling.channels_last(network)
            self._network = torch.compile(
                compiling.for_compiling(network), backend=compiler, dynamic=False
            )
            self._loss = compile_loss(loss, compiler)
        # After the layout, which they share with the weights.
        start_momentum(optimizer)
        self._optimizer = optimizer
        self._scaler = scaler if precision == "float16" else None
        self._device = device
        self._precision = PRECISIONS[precision]
        self._lr = torch.zeros((), device=device)
        self.take_up_lr()
        self._record = record and device.type == "cuda"
        self._done = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._data: torch.Tensor | None = None
        self._target: list[torch.Tensor] = []
        self._result: torch.Tensor | None = None
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, batch: Mapping[str, Any]) -> torch.Tensor:
        """Train on a batch (`data`, and `target` for each resolution)."""
        data, target = batch["data"], batch["target"]
        if not self._record:
            return self._iterate(self._to_device(data), self._to_device_all(target))
        if self._graph is None:
            return self._begin(data, target)
        self._fill(data, target)
        self._graph.replay()
        assert self._result is not None
        return self._result.clone()

    def take_up_lr(self) -> None:
        """Move what a scheduler has set to where a recorded iteration reads it."""
        for group in self._optimizer.param_groups:
            if group["lr"] is not self._lr:
                self._lr.fill_(float(group["lr"]))
                group["lr"] = self._lr

    def _begin(self, data: torch.Tensor, target: list[torch.Tensor]) -> torch.Tensor:
        """The first iterations, and then the recording of one."""
        if self._data is None:
            self._data = self._to_device(data)
            self._target = self._to_device_all(target)
        self._fill(data, target)
        if self._done < _ITERATIONS_BEFORE_RECORDING:
            # On a stream of its own, as what is recorded next wants it.
            assert self._stream is not None
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
            with torch.cuda.stream(self._stream):
                loss = self._iterate(self._data, self._target)
            torch.cuda.current_stream(self._device).wait_stream(self._stream)
            self._done += 1
            return loss
        self._optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        # Other threads, which pin the next batches, may go on meanwhile.
        with torch.cuda.graph(
            graph, stream=self._stream, capture_error_mode="thread_local"
        ):
            self._result = self._iterate(self._data, self._target)
        self._graph = graph
        graph.replay()  # recording computes nothing
        return self._result.clone()

    def _fill(self, data: torch.Tensor, target: list[torch.Tensor]) -> None:
        assert self._data is not None
        self._data.copy_(data, non_blocking=True)
        for place, values in zip(self._target, target, strict=True):
            place.copy_(values, non_blocking=True)

    def _iterate(self, data: torch.Tensor, target: list[torch.Tensor]) -> torch.Tensor:
        self._optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            loss = self._loss(self._network(data), target)
        if self._scaler is None:
            loss.backward()
            nn.utils.clip_grad_norm_(self._parameters, _LARGEST_GRADIENT_NORM)
            self._optimizer.step()
        else:
            self._scaler.scale(loss).backward()
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self._parameters, _LARGEST_GRADIENT_NORM)
            self._scaler.step(self._optimizer)
            self._scaler.update()
        return loss.detach()

    def _autocast(self) -> AbstractContextManager[Any]:
        if self._device.type != "cuda":
            return nullcontext()
        # Without autocast's cache of cast weights, which a recording would outlive.
        return torch.autocast("cuda", self._precision, cache_enabled=not self._record)

    def _to_device(self, data: torch.Tensor) -> torch.Tensor:
        return data.to(self._device, non_blocking=True, memory_format=self._layout)

    def _to_device_all(self, target: list[torch.Tensor]) -> list[torch.Tensor]:
        return [values.to(self._device, non_blocking=True) for values in target]


def fused_sgd(
    parameters: Iterable[nn.Parameter], initial_lr: float, weight_decay: float
) -> torch.optim.SGD:
    """nnU-Net's optimiser (`nnUNetTrainer.configure_optimizers`) in one kernel."""
    return torch.optim.SGD(
        parameters,
        initial_lr,
        weight_decay=weight_decay,
        momentum=0.99,
        nesterov=True,
        fused=True,
    )


def start_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Momentum of 0 for weights that have none, which is SGD's first step to the bit.

    The fused optimiser would reserve memory for it in its first step, and leave it as
    it is where an overflow skips that step: the next one would add what lay there.
    """
    for group in optimizer.param_groups:
        for weight in group["params"]:
            state = optimizer.state[weight]
            if state.get("momentum_buffer") is None:
                state["momentum_buffer"] = torch.zeros_like(weight)
