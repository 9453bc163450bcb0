# Every model on every test case: one job for each cell. Cells of one model that share a
# submission (see get_cell_group) have the rule that gathers them in their group: without
# a job that needs them all, Snakemake would start anew for each cell.


rule predict:
    """Segment one test case with one model, and count voxels against the reference.

    The job is a client that starts in milliseconds; the model stays loaded in a process
    beside it (see workflow_scripts/casesim/processes/resident.py).
    """
    input:
        checkpoint="results/models/{model}/fold_all/checkpoint_final.pth",
        data=f"{CASES_2D_OR_3D}/{{case}}.b2nd",
        label=f"{RAW}/labelsTr/{{case}}.nii.gz",
    output:
        prediction="results/predictions/{model}/{case}.nii.gz",
        score="results/scores/{model}/{case}.json",
    log:
        "logs/predict/{model}/{case}.log",
    # On a cluster, a retry would do all cells of the group again; a new run does the rest.
    retries: CELL_RETRIES
    group:
        CELL_GROUP
    conda:
        "../envs/nnunet.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=8000,
        runtime="5m",
    params:
        options=get_predict_options(),
    shell:
        'python -S -E "$CASESIM_PREDICT" --model {wildcards.model:q}'
        " --case {wildcards.case:q} --checkpoint {input.checkpoint:q}"
        " --data {input.data:q} --label {input.label:q}"
        " --prediction {output.prediction:q} --score {output.score:q}"
        " --threads {threads} --gpu {resources.gpu} {params.options:q} > {log:q} 2>&1"


rule collect_scores:
    """One row of the matrix: Dice of one model on all its test cases."""
    input:
        scores=get_scores,
    output:
        table="results/scores/{model}.tsv",
    log:
        "logs/collect_scores/{model}.log",
    wildcard_constraints:
        model=WHOLE_MODELS,
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
        scores=get_part_scores,
    output:
        table="results/scores/{model}/part_{part}.tsv",
    log:
        "logs/collect_part/{model}/{part}.log",
    wildcard_constraints:
        model=SPLIT_MODELS,
        part=r"\d+",


rule join_parts:
    """The pieces of a row, one below the other."""
    input:
        parts=get_parts,
    output:
        table="results/scores/{model}.tsv",
    log:
        "logs/join_parts/{model}.log",
    wildcard_constraints:
        model=SPLIT_MODELS,
    localrule: True
    conda:
        "../envs/analysis.yaml"
    script:
        "../workflow_scripts/inference/join_parts.py"
