"""The explorer's page, and what it tells beside the images."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from casesim.files import logged

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        from casesim.explorer import content, pack, site

        files = snakemake.input
        contents = {
            case: json.loads(Path(path).read_text(encoding="utf-8"))
            for case, path in zip(snakemake.params.cases, files.contents, strict=True)
        }
        study = content.study(
            {
                "matrices": dict(
                    zip(snakemake.params.matrices, files.matrices, strict=True)
                ),
                **{name: files[name] for name in content.TABLES},
                "scores": list(files.scores),
            },
            snakemake.params.options,
            contents,
        )
        pack.write_script("study", study, snakemake.output.study)
        site.copy(snakemake.output.page)


if __name__ == "__main__":
    main()
