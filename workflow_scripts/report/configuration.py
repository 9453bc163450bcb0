"""Keep the configuration in effect, defaults included, where the results are."""

from typing import TYPE_CHECKING

from casesim.files import atomic_path, logged

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        import yaml

        text = yaml.safe_dump(snakemake.params.config, sort_keys=False)
        with atomic_path(snakemake.output.config) as temporary:
            temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
