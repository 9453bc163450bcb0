"""What the channels of the pool's images look like, and which are unlike the others."""

from typing import TYPE_CHECKING

from casesim.files import atomic_path, logged

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        from casesim.cohort import channels

        names = snakemake.params.channel_names
        images, number = snakemake.input.images, len(names)
        table = channels.compare(
            channels.describe_cases(
                {
                    case: (images[i * number : (i + 1) * number], label)
                    for i, (case, label) in enumerate(
                        zip(snakemake.params.cases, snakemake.input.labels, strict=True)
                    )
                },
                names,
                snakemake.threads,
                snakemake.resources.mem_mb * 1e6,
            )
        )
        with atomic_path(snakemake.output.table) as temporary:
            table.to_csv(temporary, sep="\t", index=False)


if __name__ == "__main__":
    main()
