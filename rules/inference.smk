# Every model on every test case: one job for each cell.


rule predict:
    """Segment one test case with one model, and count voxels against the reference.

    The job is a client that starts in milliseconds; the model stays loaded in a process
    beside it (see workflow_scripts/casesim/resident.py).
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
    conda:
        "../envs/nnunet.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=8000,
        runtime="5m",
    params:
        client=PREDICT_CLIENT,
        options=get_predict_options(),
    shell:
        "python -S -E {params.client} --model {wildcards.model} --case {wildcards.case}"
        " --checkpoint {input.checkpoint} --data {input.data} --label {input.label}"
        " --prediction {output.prediction} --score {output.score}"
        " --threads {threads} --gpu {resources.gpu} {params.options} > {log} 2>&1"


rule collect_scores:
    """One row of the matrix: Dice of one model on all its test cases."""
    input:
        scores=get_scores,
    output:
        table="results/scores/{model}.tsv",
    log:
        "logs/collect_scores/{model}.log",
    conda:
        "../envs/analysis.yaml"
    resources:
        mem_mb=1000,
        runtime="10m",
    script:
        "../workflow_scripts/collect_scores.py"
