"""Every arm's change on held-out cases, and the worst cluster among random removals."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from casesim.files import logged

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        from casesim.pruning.arms import is_control_of
        from casesim.pruning.comparison import PRIMARY_REGION
        from casesim.pruning.summary import HEADLINE_ARM, forest
        from casesim.pruning.verdict import RELEVANT_CHANGE
        from casesim.report import forest as forest_figure
        from casesim.report import null_distribution

        summary = json.loads(Path(snakemake.input.summary).read_text(encoding="utf-8"))
        changes = forest(summary)
        forest_figure.draw(
            changes,
            snakemake.output.forest_png,
            snakemake.output.forest_svg,
            relevant=RELEVANT_CHANGE,
        )
        worst = summary["arms"][HEADLINE_ARM]["regions"]
        held_out = worst[PRIMARY_REGION]["held_out"]
        means = changes.set_index("arm")["mean"]
        null_distribution.draw(
            means[HEADLINE_ARM],
            means[[arm for arm in means.index if is_control_of(arm, HEADLINE_ARM)]],
            snakemake.output.null_png,
            snakemake.output.null_svg,
            p=held_out.get("random_p"),
            floor=held_out.get("random_p_floor"),
        )


if __name__ == "__main__":
    main()
