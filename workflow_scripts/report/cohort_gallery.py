"""Cases of the pool with their reference labels."""

from typing import TYPE_CHECKING

from casesim.files import logged

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        from casesim import images
        from casesim.channels import told_apart
        from casesim.report import gallery

        names = told_apart(snakemake.params.channels)
        paths = iter(snakemake.input.images)
        cases = []
        for case, label_path in zip(
            snakemake.params.cases, snakemake.input.labels, strict=True
        ):
            label, spacing = images.read_axial(label_path)
            shown = {name: images.read_axial(next(paths))[0] for name in names}
            cases.append(gallery.GalleryCase(case, shown, label, spacing))
        gallery.draw(
            cases, snakemake.params.labels, snakemake.output.png, snakemake.output.svg
        )


if __name__ == "__main__":
    main()
