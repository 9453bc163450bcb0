"""The images and label maps of one case, as the explorer's page loads them."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from casesim.files import atomic_path, logged

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        from casesim.explorer import budget, pack

        case = snakemake.wildcards.case
        ranked = budget.read_ranking(snakemake.input.review)
        channels, maps, contents = pack.pack_case(
            case,
            list(snakemake.input.images),
            snakemake.input.label,
            dict(
                zip(snakemake.params.models, snakemake.input.predictions, strict=True)
            ),
            ranked,
            budget.room(
                case,
                snakemake.params.cases,
                budget.review_first(ranked),
                snakemake.params.max_mb,
            ),
        )
        for channel, path in zip(channels, snakemake.output.channels, strict=True):
            pack.write_script(f"{case}/{Path(path).stem}", channel, path)
        pack.write_script(f"{case}/maps", maps, snakemake.output.maps)
        with atomic_path(snakemake.output.contents) as temporary:
            temporary.write_text(json.dumps(contents, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
