"""Rank the models for one case, and weigh them for the ensembles.

Input: what was learnt from calibration cases, and what is known of this case without a
label. For a calibration case, the predictions made out of fold.
Output: predictions of all models in all regions, the ranking, the ensembles' weights.
"""

from typing import TYPE_CHECKING

from casesim.files import logged

if TYPE_CHECKING:
    from snakemake.script import snakemake


def main() -> None:
    with logged(snakemake.log[0]):
        from pathlib import Path

        from casesim.adaptive import baselines, fitting, selection, table

        case, params = snakemake.wildcards.case, snakemake.params
        features = table.read([snakemake.input.features])
        if params.role == "calibration":
            out_of_fold = table.read([snakemake.input.out_of_fold])
            predicted = out_of_fold[out_of_fold["case"] == case]
        else:
            predicted = fitting.predict_all(fitting.load(snakemake.input.fit), features)
        ranked = selection.select(
            predicted, params.region, list(params.labels), params.temperature
        )
        removed = [
            name
            for path in snakemake.input.removed
            for name in Path(path).read_text().split()
        ]
        weights = baselines.ensembles(
            case,
            ranked,
            params.train,
            removed,
            params.top,
            params.draws,
            params.seed,
        )
        asked = {name: weights[name] for name in params.ensembles}
        table.write(
            predicted.drop(columns=["dice", "fold"], errors="ignore"),
            snakemake.output.predicted,
        )
        table.write(ranked, snakemake.output.selection)
        table.write_json(asked, snakemake.output.weights)


if __name__ == "__main__":
    main()
