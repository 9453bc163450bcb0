"""Our iteration against nnU-Net's, on the CPU: what a GPU adds is the recording."""

import copy
import math
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from unit.conftest import TinyCohort
from unit.training.trainings import SCHEDULE

from benchmarks.iterating import (
    Task,
    dataset,
    initial_weights,
    make_batches,
    plans,
    set_switches,
)
from casesim.nnunet import compiling
from casesim.nnunet.files import read_json
from casesim.training import step
from casesim.training.batches import TRAINING, iterate
from casesim.training.cases import Cases
from casesim.training.trainer import CaseTrainer

CPU = torch.device("cpu")
NUMBER = 4


@pytest.fixture
def trainer(tiny_cohort: TinyCohort) -> CaseTrainer:
    built = CaseTrainer(
        read_json(tiny_cohort.plans), "2d", "all", read_json(tiny_cohort.dataset), CPU
    )
    built.initialize(SCHEDULE, 0, None)
    return built


def _batches(trainer: CaseTrainer, cohort: TinyCohort) -> list[dict[str, Any]]:
    batches = trainer.batches(Cases(cohort.stems, 1000), 0, TRAINING)
    return list(iterate(batches, range(NUMBER), 0, CPU))


def _ours(trainer: CaseTrainer, **options: Any) -> tuple[step.Step, torch.nn.Module]:
    network = copy.deepcopy(trainer.network)
    optimizer = step.fused_sgd(
        network.parameters(), trainer.initial_lr, trainer.weight_decay
    )
    loss = copy.deepcopy(trainer.loss)
    made = step.Step(network, loss, optimizer, None, CPU, **options)
    return made, network


@pytest.mark.parametrize("compiler", [None, "aot_eager"])
def test_losses_and_weights_are_nnunets(
    tiny_cohort: TinyCohort, trainer: CaseTrainer, compiler: str | None
) -> None:
    batches = _batches(trainer, tiny_cohort)
    ours, network = _ours(trainer, compiler=compiler)
    losses = [float(ours(batch)) for batch in batches]
    expected = [float(trainer.train_step(batch)["loss"]) for batch in batches]
    assert losses == pytest.approx(expected, rel=1e-4)
    assert expected[0] != pytest.approx(expected[-1], rel=1e-3)
    for (name, weight), (_, other) in zip(
        network.named_parameters(), trainer.network.named_parameters(), strict=True
    ):
        assert torch.allclose(weight, other, rtol=1e-3, atol=1e-4), name


def test_the_network_is_one_graph(
    tiny_cohort: TinyCohort, trainer: CaseTrainer
) -> None:
    batch = _batches(trainer, tiny_cohort)[0]
    ready = compiling.for_compiling(trainer.network)
    explained = torch._dynamo.explain(ready)(batch["data"])
    assert explained.graph_break_count == 0, explained.break_reasons
    assert explained.graph_count == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_compiled_gradients_on_a_gpu_are_those_of_single_precision() -> None:
    """With all of the loss compiled one of the heads' was 8 % too large."""
    task = Task("2d", 12)
    made = plans(task)
    trainer = CaseTrainer(made, "2d", "all", dataset(), torch.device("cuda"))
    trainer.initialize(SCHEDULE, 0, initial_weights(made, task))
    scales = trainer._get_deep_supervision_scales()
    batch = make_batches(trainer.configuration_manager.configuration, scales, 1)[0]
    data = batch["data"].cuda()
    target = [values.cuda() for values in batch["target"]]
    trainer.loss(trainer.network(data), target).backward()
    expected = [weight.grad for weight in trainer.network.parameters()]
    for weight in trainer.network.parameters():
        weight.grad = None
    network = torch.compile(compiling.for_compiling(trainer.network), dynamic=False)
    loss = step.compile_loss(trainer.loss, "inductor")
    with torch.autocast("cuda", torch.float16, cache_enabled=False):
        value = loss(network(data), target)
    (value * 65536).backward()
    compared = 0
    for (name, weight), truth in zip(
        trainer.network.named_parameters(), expected, strict=True
    ):
        if "seg_layers" in name and truth is not None:
            assert weight.grad is not None
            found = (weight.grad / 65536 * truth).sum() / (truth**2).sum()
            assert float(found) == pytest.approx(1, abs=0.02), name
            compared += 1
    assert compared >= 8


def test_an_optimiser_is_taken_up_from_another_device(
    tiny_cohort: TinyCohort, trainer: CaseTrainer
) -> None:
    for batch in _batches(trainer, tiny_cohort)[:2]:
        trainer.train_step(batch)
    state = copy.deepcopy(trainer.optimizer_state())
    # As on a GPU: the fused optimiser, and weights in another layout.
    form: Any = {"memory_format": torch.channels_last}
    trainer.network.to(**form)
    before = trainer.optimizer
    trainer.optimizer = step.fused_sgd(
        trainer.network.parameters(), trainer.initial_lr, trainer.weight_decay
    )
    trainer.load_optimizer(state)
    assert trainer.optimizer.param_groups[0]["fused"]
    assert len(trainer.optimizer.state) == len(before.state) > 10
    for weight, of_weight in trainer.optimizer.state.items():
        buffer = of_weight["momentum_buffer"]
        assert buffer.stride() == weight.stride()
        assert torch.equal(buffer, before.state[weight]["momentum_buffer"])
    trainer.train_step(_batches(trainer, tiny_cohort)[2])


def test_the_learning_rate_is_where_a_recorded_iteration_reads_it(
    trainer: CaseTrainer,
) -> None:
    ours, _ = _ours(trainer)
    place = ours._optimizer.param_groups[0]["lr"]
    assert float(place) == pytest.approx(trainer.initial_lr)
    ours._optimizer.param_groups[0]["lr"] = 0.25
    ours.take_up_lr()
    assert ours._optimizer.param_groups[0]["lr"] is place
    assert float(place) == 0.25


def test_an_overflow_in_the_first_iteration_leaves_no_trace(
    tiny_cohort: TinyCohort, trainer: CaseTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fused optimiser's momentum was then whatever lay in memory."""
    batches = _batches(trainer, tiny_cohort)[:2]
    overflow = {**batches[0], "data": batches[0]["data"] * float("inf")}
    network = copy.deepcopy(trainer.network)
    optimizer = step.fused_sgd(
        network.parameters(), trainer.initial_lr, trainer.weight_decay
    )
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    # What is reserved and not written holds NaN.
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        ours = step.Step(network, trainer.loss, optimizer, scaler, CPU)
        ours(overflow)
        for weight, before in zip(
            network.parameters(), trainer.network.parameters(), strict=True
        ):
            assert torch.equal(weight, before)
        assert scaler.get_scale() == 1
        losses = [float(ours(batch)) for batch in batches]
    finally:
        torch.use_deterministic_algorithms(False)
    expected = [float(trainer.train_step(batch)["loss"]) for batch in batches]
    assert losses == pytest.approx(expected, rel=1e-4)


class _Asked(TorchDispatchMode):
    """Counts how often Python looks at a value: on a GPU it would wait for it, and a
    recording would fail."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.number += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("labels", "asks"),
    [
        ({"a": 1, "b": 2, "c": 3}, False),
        ({"a": 1, "b": 2, "c": 3, "ignore": 4}, True),
        ({"all": [1, 2, 3], "b": 2}, False),
        ({"all": [1, 2, 3], "b": 2, "ignore": 4}, False),
    ],
)
def test_what_is_recorded_looks_at_no_value(
    tiny_cohort: TinyCohort, labels: dict[str, Any], asks: bool
) -> None:
    dataset_json = read_json(tiny_cohort.dataset) | {
        "labels": {"background": 0, **labels},
        "regions_class_order": [1, 2],
    }
    trainer = CaseTrainer(read_json(tiny_cohort.plans), "2d", "all", dataset_json, CPU)
    trainer.initialize(SCHEDULE, 0, None)
    scales = trainer._get_deep_supervision_scales()
    batch = make_batches(trainer.configuration_manager.configuration, scales, 1)[0]
    if trainer.label_manager.has_regions:
        regions = ((1, 2, 3), (2,), (4,))[: len(labels)]
        batch["target"] = [
            torch.cat([sum(values == n for n in region) > 0 for region in regions], 1)
            for values in batch["target"]
        ]
    optimizer = step.fused_sgd(trainer.network.parameters(), 0.01, 3e-5)
    scaler = torch.amp.GradScaler("cpu")
    ours = step.Step(trainer.network, trainer.loss, optimizer, scaler, CPU)
    ours(batch)
    with _Asked() as asked:
        ours(batch)
    assert (asked.number > 0) == asks
    assert trainer._loss_asks_the_host() == asks


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("labels", [{}, {"ignore": 4}])
def test_iterations_on_a_gpu_beyond_the_recording(
    tiny_cohort: TinyCohort, labels: dict[str, int]
) -> None:
    dataset_json = read_json(tiny_cohort.dataset)
    dataset_json["labels"] |= labels
    made = read_json(tiny_cohort.plans)
    trainer = CaseTrainer(made, "2d", "all", dataset_json, torch.device("cuda"))
    trainer.initialize(SCHEDULE, 0, None)
    trainer.begin_epoch(0)
    scales = trainer._get_deep_supervision_scales()
    batches = make_batches(trainer.configuration_manager.configuration, scales, 8)
    losses = [float(trainer.train_step(batch)["loss"]) for batch in batches]
    assert all(map(math.isfinite, losses))
    assert len(set(losses)) == len(losses)
    assert trainer._step is not None
    assert (trainer._step._graph is None) == bool(labels)


@pytest.mark.parametrize(
    ("switch", "whole", "dice"),
    [(None, False, True), ("none", False, False), ("whole", True, False)],
)
def test_what_of_the_loss_is_compiled(
    trainer: CaseTrainer,
    monkeypatch: pytest.MonkeyPatch,
    switch: str | None,
    whole: bool,
    dice: bool,
) -> None:
    """The workflow's choice, and the others that `benchmarks.drift` compares."""
    monkeypatch.setattr(step, "compile_loss", step.compile_loss)  # restored afterwards
    set_switches({} if switch is None else {"loss": switch})
    ours, _ = _ours(trainer, compiler="eager")
    compiled = torch._dynamo.eval_frame.OptimizedModule
    loss: Any = ours._loss
    assert isinstance(loss, compiled) == whole
    assert isinstance(loss.loss.dc, compiled) == dice
    assert isinstance(ours._network, compiled)
