"""What is told of new cases: a table, a page with pictures, and what to label first."""

from typing import TYPE_CHECKING

from casesim.files import logged

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        import json
        from pathlib import Path

        from casesim.adaptive import arrivals, fitting, labelling, outlook, table
        from casesim.files import atomic_path
        from casesim.report import new_cases

        files, params = snakemake.input, snakemake.params
        new, train = list(params.new), list(params.train)
        label_maps = dict(zip(new, files.label_maps, strict=True))
        told = arrivals.table(
            {
                case: table.read([path])
                for case, path in zip(new, files.selections, strict=True)
            },
            table.read(files.features),
            table.read(files.calibration),
            outlook.from_record(json.loads(Path(files.outlook).read_text())),
            params.top,
            label_maps,
            params.patients,
            dict(zip(params.finetuned, files.of_own_models, strict=True)),
        )
        pictures = new_cases.Files(
            dict(zip(new, files.images, strict=True)),
            label_maps,
            dict(zip(train, files.train_images, strict=True)),
            dict(zip(train, files.train_labels, strict=True)),
        )
        summary = json.loads(Path(files.fit).read_text())
        page = new_cases.page(
            told,
            pictures,
            params.labels,
            params.channel,
            fitting.describe(summary, params.region),
            params.level,
        )
        table.write(labelling.labelling_order(told), snakemake.output.order)
        table.write(told, snakemake.output.table)
        with atomic_path(snakemake.output.page) as temporary:
            temporary.write_text(page, encoding="utf-8")
        print(f"{len(told)} new cases: {snakemake.output.page}")


if __name__ == "__main__":
    main()
