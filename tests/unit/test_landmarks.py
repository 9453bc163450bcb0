"""Rows from fewer fine-tunes: what is known of them, and the judgement."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks import landmarks
from benchmarks.landmarks import ALL, BASE_DICE, COLUMNS, CONFIDENCE, GRADIENTS, Known


def known(n: int = 20, told_by: str = BASE_DICE) -> Known:
    """Rows whose mean is that of their train case, which one method alone can tell."""
    generator = np.random.default_rng(0)
    quality = np.linspace(0.1, 0.9, n)
    matrix = quality[:, None] + generator.normal(0, 1e-3, (n, n))
    noise = generator.uniform(size=n)
    clusters = np.where(quality < 0.5, 1, 2)
    return Known(
        matrix=matrix,
        row_means=(matrix.sum(axis=1) - np.diag(matrix)) / (n - 1),
        worst=clusters == 1,
        clusters=clusters,
        base=quality if told_by == BASE_DICE else noise,
        confidence=np.column_stack([quality if told_by == CONFIDENCE else noise] * 3),
        gradients=generator.normal(size=(n, 5)),
    )


@pytest.mark.parametrize("method", [BASE_DICE, CONFIDENCE])
def test_what_tells_the_rows_is_found(method: str) -> None:
    chosen = list(range(0, 20, 3))
    found = landmarks.judge(known(told_by=method), chosen, 0)
    others = {BASE_DICE, CONFIDENCE, GRADIENTS} - {method}
    assert found["rank"][method] > 0.9
    assert found["rank"][ALL] > 0.9
    assert all(abs(found["rank"][other]) < 0.6 for other in others)
    assert found["sound"][method] > 0.8
    assert found["worst"][method] == 1
    assert found["cluster"] > 0.8


def test_rows_that_were_left_out_are_not_looked_at() -> None:
    one, chosen = known(), [1, 5, 9, 13, 17]
    rest = np.setdiff1d(np.arange(20), chosen)
    changed = one.matrix.copy()
    changed[rest] = 0.5
    other = Known(
        matrix=changed,
        row_means=np.where(np.isin(np.arange(20), rest), 0.5, one.row_means),
        worst=one.worst,
        clusters=one.clusters,
        base=one.base,
        confidence=one.confidence,
        gradients=one.gradients,
    )
    before, rows = landmarks.predictions(one, chosen, 0)
    after, same = landmarks.predictions(other, chosen, 0)
    np.testing.assert_array_equal(rows, same)
    for name in before:
        np.testing.assert_array_equal(before[name], after[name])


def test_a_landmark_does_not_judge_its_own_case() -> None:
    one = known(4)
    found = landmarks.by_landmarks(one, [0, 2])
    assert found[0] == one.matrix[2, 0]
    assert found[1] == pytest.approx((one.matrix[0, 1] + one.matrix[2, 1]) / 2)


def test_a_step_against_the_gradient_lowers_the_loss_by_its_square() -> None:
    torch.manual_seed(0)
    network = torch.nn.Conv2d(1, 2, 3, padding=1)
    plan = SimpleNamespace(patch_size=(8, 8), batch_dice=True)
    model = SimpleNamespace(network=network, configuration_manager=plan)
    data = np.random.default_rng(0).normal(size=(1, 3, 7, 8)).astype(np.float32)
    seg = (data > 0.5).astype(np.int16)
    gradient = landmarks.gradient_of(model, data, seg)
    assert gradient.shape == (1 * 2 * 9 + 2,)
    before = loss(model, data, seg)
    step = 1e-2 / float(gradient @ gradient)
    with torch.no_grad():
        start = 0
        for parameter in network.parameters():
            part = gradient[start : start + parameter.numel()]
            parameter.sub_(step * torch.as_tensor(part.reshape(parameter.shape)))
            start += parameter.numel()
    assert before - loss(model, data, seg) == pytest.approx(1e-2, rel=0.1)


def loss(model: SimpleNamespace, data: np.ndarray, seg: np.ndarray) -> float:
    """Cross entropy and soft Dice of the whole batch, by hand; padded with zeros."""
    image = np.pad(data, ((0, 0), (0, 0), (0, 1), (0, 0))).swapaxes(0, 1)
    target = np.pad(seg, ((0, 0), (0, 0), (0, 1), (0, 0)))[0].astype(int)
    with torch.no_grad():
        logits = model.network(torch.as_tensor(image)).double().numpy()
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    of_target = np.take_along_axis(p, target[:, None], axis=1)
    own = p[:, 1]
    dice = (2 * own[target == 1].sum() + 1e-5) / (own.sum() + target.sum() + 1e-5)
    return float(-np.log(of_target).mean() - dice)


def test_the_report() -> None:
    runs = {"one": known(), "two": known(10)}
    table = landmarks.study(runs, [0.4], 3)
    assert set(table["method"]) == {BASE_DICE, GRADIENTS, CONFIDENCE, COLUMNS, ALL}
    text = landmarks.report(table, runs)
    assert text.startswith("Runs: 2 (20 rows, 10 rows); 3 draws of landmarks.")
    assert "| 40% of the fine-tunes |" in text
    line = next(line for line in text.splitlines() if line.startswith(f"| {BASE_DICE}"))
    assert line.split(" | ")[1:3] == ["1.00 [1.00, 1.00]", "1.00, 1.00"]
