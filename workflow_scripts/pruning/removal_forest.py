"""Every arm's change on held-out cases, and the worst cluster among random removals."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from casesim.files import logged

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        from casesim.evidence import evidence
        from casesim.pruning import pruning
        from casesim.report import forest, null_distribution

        summary = json.loads(Path(snakemake.input.summary).read_text(encoding="utf-8"))
        changes = evidence.forest(summary)
        forest.draw(
            changes,
            snakemake.output.forest_png,
            snakemake.output.forest_svg,
            relevant=evidence.RELEVANT_CHANGE,
        )
        worst = summary["arms"][evidence.HEADLINE_ARM]["regions"]
        held_out = worst[evidence.PRIMARY_REGION]["held_out"]
        means = changes.set_index("arm")["mean"]
        null_distribution.draw(
            means[evidence.HEADLINE_ARM],
            means[[arm for arm in means.index if pruning.is_random(arm)]],
            snakemake.output.null_png,
            snakemake.output.null_svg,
            p=held_out.get("random_p"),
            floor=held_out.get("random_p_floor"),
        )


if __name__ == "__main__":
    main()
