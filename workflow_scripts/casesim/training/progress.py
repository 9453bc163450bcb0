"""The picture of how a training went."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from casesim.files import atomic_path


def plot_progress(history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Loss and pseudo-Dice by epoch."""
    # Without pyplot and seaborn, whose import takes longer than the picture.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="epoch", ylabel="training loss")
    epochs = np.arange(1, len(history) + 1)
    axes.plot(epochs, [entry["loss"] for entry in history], color="tab:blue")
    values = [(n, e["pseudo_dice"]) for n, e in zip(epochs, history, strict=True)]
    values = [(n, dice) for n, dice in values if dice is not None]
    if values:
        right = axes.twinx()
        right.set(ylabel="pseudo-Dice of the training cases", ylim=(0, 1))
        right.plot(*zip(*values, strict=True), marker=".", linestyle=":")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100)
