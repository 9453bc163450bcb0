"""How the ensemble's Dice follows from its members' predictions: calibration cases."""

from typing import TYPE_CHECKING

from casesim.files import logged

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        from casesim.adaptive import outlook, table

        params = snakemake.params
        cases = outlook.of_cases(
            dict(
                zip(
                    params.cases,
                    (table.read([path]) for path in snakemake.input.selections),
                    strict=True,
                )
            ),
            table.read(snakemake.input.scores),
            params.region,
        )
        table.write_json(
            outlook.as_record(outlook.learn(cases, params.level, params.patients)),
            snakemake.output.outlook,
        )


if __name__ == "__main__":
    main()
