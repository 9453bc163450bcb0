"""cleanlab's score of one case, by the model that was trained without it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from casesim.files import atomic_path, logged

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        import torch

        from casesim import devices, label_quality, nnunet, predictor

        torch.set_num_threads(snakemake.threads)
        data, labels, _ = nnunet.load_preprocessed(
            snakemake.input.data.removesuffix(".b2nd"), with_seg=True
        )
        with devices.acquire(snakemake.resources.gpu) as device:
            model = nnunet.load_model(snakemake.input.checkpoint, device)
            logits = predictor.predict_logits(model, data, **snakemake.params.options)
        assert labels is not None  # for mypy
        score = label_quality.label_quality(labels[0], logits.cpu().numpy())
        record = {
            "case": snakemake.wildcards.case,
            "fold": snakemake.params.fold,
            "label_quality": score,
        }
        print(record)
        with atomic_path(snakemake.output.score) as temporary:
            Path(temporary).write_text(json.dumps(record) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
