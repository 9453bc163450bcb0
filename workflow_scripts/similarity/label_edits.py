"""Which single change of each label map would make it fit the base model's."""

from typing import TYPE_CHECKING

from casesim.files import atomic_path, logged

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        from casesim.similarity.edits import edits_of_cases

        pairs = zip(snakemake.input.labels, snakemake.input.predictions, strict=True)
        table = edits_of_cases(
            dict(zip(snakemake.params.cases, pairs, strict=True)),
            snakemake.params.ignore,
            snakemake.threads,
            snakemake.resources.mem_mb * 1e6,
        )
        with atomic_path(snakemake.output.table) as temporary:
            table.to_csv(temporary, sep="\t", index=False)


if __name__ == "__main__":
    main()
