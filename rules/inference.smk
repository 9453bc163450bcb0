# Every model on every test case: one job for each cell. Cells of one model that share a
# submission (see Cells.group) have the rule that gathers them in their group: without
# a job that needs them all, Snakemake would start anew for each cell.

# Without a group, groups cost nothing, and a cell is retried like any other job. On a
# cluster, a retry would do all cells of the group again; a new run does the rest.
CELL_GROUP = None
CELL_RETRIES = None
if STUDY.cells.are_grouped:
    CELL_GROUP = lambda w: STUDY.cells.group(
        w.model, w.get("case"), int(w.get("part", 0))
    )
    CELL_RETRIES = 0


rule predict:
    """Segment one test case with one model, and count voxels against the reference.

    The job is a client that starts in milliseconds; the model stays loaded in a process
    beside it (see workflow_scripts/casesim/processes/resident.py).
    """
    input:
        checkpoint="results/models/{model}/fold_all/checkpoint_final.pth",
        first_stage=first_stage("results/models/{model}"),
        data=f"{CASES_2D_OR_3D}/{{case}}.b2nd",
        first_stage_data=expand("{folder}/{{case}}.b2nd", folder=FIRST_STAGE),
        label=f"{RAW}/labelsTr/{{case}}.nii.gz",
    output:
        prediction="results/predictions/{model}/{case}.nii.gz",
        score="results/scores/{model}/{case}.json",
    log:
        "logs/predict/{model}/{case}.log",
    retries: CELL_RETRIES
    group:
        CELL_GROUP
    conda:
        "../envs/nnunet.yaml"
    threads: THREADS
    resources:
        gpu=1,
        mem_mb=8000,
        runtime="5m",
    params:
        options=STUDY.predict_options,
        # What a score file holds: older ones are made again.
        score_format=2,
    shell:
        'python -S -E "$CASESIM_PREDICT" --model {wildcards.model:q}'
        " --case {wildcards.case:q} --checkpoint {input.checkpoint:q}"
        " --data {input.data:q} --label {input.label:q}"
        " --prediction {output.prediction:q} --score {output.score:q}"
        " --threads {threads} --gpu {resources.gpu} {params.options:q} > {log:q} 2>&1"


rule collect_scores:
    """One row of the matrix: Dice of one model on all its test cases, and its errors."""
    input:
        scores=lambda w: list_scores(w.model, STUDY.cells.of(w.model)),
    output:
        table="results/scores/{model}.tsv",
        errors="results/errors/{model}.tsv",
    log:
        "logs/collect_scores/{model}.log",
    wildcard_constraints:
        model=STUDY.cells.patterns(in_parts=False),
    retries: CELL_RETRIES
    group:
        CELL_GROUP
    conda:
        "../envs/analysis.yaml"
    resources:
        mem_mb=1000,
        runtime="10m",
    script:
        "../workflow_scripts/inference/collect_scores.py"


# A piece of a row that has more cells than one submission may hold.
use rule collect_scores as collect_part with:
    input:
        scores=lambda w: list_scores(w.model, STUDY.cells.part(w.model, int(w.part))),
    output:
        table="results/scores/{model}/part_{part}.tsv",
        errors="results/errors/{model}/part_{part}.tsv",
    log:
        "logs/collect_part/{model}/{part}.log",
    wildcard_constraints:
        model=STUDY.cells.patterns(in_parts=True),
        part=r"\d+",


rule join_parts:
    """The pieces of a row, one below the other."""
    input:
        tables=lambda w: expand(
            "results/scores/{model}/part_{part}.tsv",
            model=w.model,
            part=STUDY.cells.parts(w.model),
        ),
        errors=lambda w: expand(
            "results/errors/{model}/part_{part}.tsv",
            model=w.model,
            part=STUDY.cells.parts(w.model),
        ),
    output:
        table="results/scores/{model}.tsv",
        errors="results/errors/{model}.tsv",
    log:
        "logs/join_parts/{model}.log",
    wildcard_constraints:
        model=STUDY.cells.patterns(in_parts=True),
    localrule: True
    conda:
        "../envs/analysis.yaml"
    script:
        "../workflow_scripts/inference/join_parts.py"
