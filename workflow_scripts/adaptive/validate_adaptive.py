"""The predictions and the adaptive segmentation, judged by held-out cases.

Input: predictions, selections and Dice of held-out cases, by all models and methods.
Output: a table of methods, another of each method on each case, all statistics as
JSON, and a figure.
"""

from typing import TYPE_CHECKING

from casesim.files import logged

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        import json
        from pathlib import Path

        from casesim.adaptive import fitting, judging, outlook, table
        from casesim.inference import overlap
        from casesim.report import adaptive

        files, params = snakemake.input, snakemake.params
        selections = dict(
            zip(params.cases, (table.read([p]) for p in files.selections), strict=True)
        )
        cells = judging.Cells(
            region=params.region,
            predicted=table.read(files.predicted),
            selections=selections,
            scores=table.read(files.scores),
            method_scores=table.read(files.method_scores),
            full={
                seed: overlap.read_table(path)
                for seed, path in zip(params.full, files.retrained, strict=True)
            },
            row_means=fitting.load(files.similarity)[params.region].row_means,
            outlook=outlook.from_record(json.loads(Path(files.outlook).read_text())),
            images=json.loads(Path(files.images).read_text()),
            train=params.train,
            removed=Path(files.removed).read_text().split(),
            base_seed=params.base_seed,
            patients=params.patients,
        )
        content = judging.judge(cells)
        content["fit"] = json.loads(Path(files.fit).read_text())
        content["level"] = params.level
        methods = judging.methods(cells)
        table.write(methods, snakemake.output.table)
        table.write(judging.dice_of_methods(cells), snakemake.output.cases)
        table.write_json(content, snakemake.output.summary)
        adaptive.draw(
            judging.points(cells),
            methods[methods["region"] == params.region],
            content,
            snakemake.output.png,
            snakemake.output.svg,
        )
        for sentence in judging.sentences(content):
            print(sentence)


if __name__ == "__main__":
    main()
