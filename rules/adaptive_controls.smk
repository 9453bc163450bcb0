# What the similarity classifier has to beat, and the table that judges it.


rule continue_base:
    """The control that decides: the base trained on, for as long as a fine-tune."""
    input:
        cases=list_preprocessed(COHORT.pool),
        training_cases=lambda w: (
            ["results/pruning/worst_cluster/training_cases.txt"]
            if w.continued == "continued_kept"
            else []
        ),
        base="results/models/base/fold_all/checkpoint_final.pth",
        base_first_stage=first_stage("results/models/base"),
        plans=f"{PREPROCESSED}/nnUNetPlans.json",
        dataset=f"{PREPROCESSED}/dataset.json",
    output:
        checkpoint=f"{ALONE}/models/{{continued}}/seed{{seed}}/fold_all/checkpoint_final.pth",
        plans=f"{ALONE}/models/{{continued}}/seed{{seed}}/plans.json",
        dataset=f"{ALONE}/models/{{continued}}/seed{{seed}}/dataset.json",
        first_stage=first_stage(f"{ALONE}/models/{{continued}}/seed{{seed}}"),
    log:
        "logs/continue_base/{continued}_seed{seed}.log",
    benchmark:
        "results/benchmarks/continue_base/{continued}_seed{seed}.tsv"
    wildcard_constraints:
        continued="|".join(CONTINUED),
        seed=r"\d+",
    conda:
        "../envs/nnunet.yaml"
    threads: THREADS
    resources:
        gpu=1,
        mem_mb=16000,
        runtime=lambda w, attempt: STUDY.runtime("finetune", attempt),
    params:
        training=lambda w: STUDY.training("finetune", int(w.seed)),
    script:
        "../workflow_scripts/adaptive/continue_base.py"


rule finetune_for_case:
    """The base trained on, on the train cases that are predicted to suit a case."""
    input:
        cases=list_preprocessed(COHORT.train),
        selection=f"{ALONE}/selection/{{case}}.tsv",
        base="results/models/base/fold_all/checkpoint_final.pth",
        base_first_stage=first_stage("results/models/base"),
        plans=f"{PREPROCESSED}/nnUNetPlans.json",
        dataset=f"{PREPROCESSED}/dataset.json",
    output:
        checkpoint=f"{ALONE}/models/{FOR_CASE}/{{case}}/fold_all/checkpoint_final.pth",
        plans=f"{ALONE}/models/{FOR_CASE}/{{case}}/plans.json",
        dataset=f"{ALONE}/models/{FOR_CASE}/{{case}}/dataset.json",
        first_stage=first_stage(f"{ALONE}/models/{FOR_CASE}/{{case}}"),
    log:
        "logs/finetune_for_case/{case}.log",
    benchmark:
        "results/benchmarks/finetune_for_case/{case}.tsv"
    conda:
        "../envs/nnunet.yaml"
    threads: THREADS
    resources:
        gpu=1,
        mem_mb=16000,
        runtime=lambda w, attempt: STUDY.runtime("finetune", attempt),
    params:
        training=STUDY.training("finetune"),
        top=config["adaptive"]["top"],
    script:
        "../workflow_scripts/adaptive/finetune_for_case.py"


use rule score_models as score_methods with:
    input:
        label_maps=lambda w: [
            f"{ALONE}/{path}" for path in ADAPTIVE.methods(w.case).values()
        ],
        label=f"{RAW}/labelsTr/{{case}}.nii.gz",
    output:
        scores=f"{ALONE}/method_scores/{{case}}.tsv",
    log:
        "logs/score_methods/{case}.log",
    group:
        case_group("methods")
    params:
        models=lambda w: list(ADAPTIVE.methods(w.case)),
        labels=COHORT.scored,
        regions=STUDY.more_regions,
        ignore=COHORT.targets.ignore,


rule calibrate_outlook:
    """How the ensemble's Dice follows from its members' predictions."""
    input:
        selections=expand(f"{ALONE}/selection/{{case}}.tsv", case=ADAPTIVE.calibration),
        scores=expand(f"{ALONE}/method_scores/{{case}}.tsv", case=ADAPTIVE.calibration),
    output:
        outlook=f"{ALONE}/outlook.json",
    log:
        "logs/calibrate_outlook.log",
    localrule: True
    conda:
        "../envs/analysis.yaml"
    params:
        cases=ADAPTIVE.calibration,
        patients=COHORT.scans_of_patients(COHORT.calibration),
        region=config["adaptive"]["region"],
        level=config["adaptive"]["level"],
    script:
        "../workflow_scripts/adaptive/calibrate_outlook.py"


rule adaptive_table:
    """Every model on every case of this stage: features, and Dice where there is any."""
    input:
        features=expand(f"{ALONE}/features/{{case}}.tsv", case=ADAPTIVE.roles),
        scores=expand(
            f"{ALONE}/scores/{{case}}.tsv",
            case=[*ADAPTIVE.calibration, *ADAPTIVE.held_out],
        ),
    output:
        table=f"{ALONE}/table.tsv",
    log:
        "logs/adaptive_table.log",
    localrule: True
    conda:
        "../envs/analysis.yaml"
    params:
        roles=ADAPTIVE.roles,
    script:
        "../workflow_scripts/adaptive/adaptive_table.py"


rule image_statistics:
    """What images look like, for a baseline that chooses by nothing else."""
    input:
        cases=expand(
            f"{CASES_2D_OR_3D}/{{case}}.b2nd", case=[*COHORT.train, *ADAPTIVE.held_out]
        ),
    output:
        statistics=f"{ALONE}/image_statistics.json",
    log:
        "logs/image_statistics.log",
    conda:
        "../envs/nnunet.yaml"
    resources:
        mem_mb=8000,
        runtime="2h",
    script:
        "../workflow_scripts/adaptive/image_statistics.py"


rule validate_adaptive:
    """Was it worth it? Predictions and segmentations, judged by held-out cases, once."""
    input:
        fit=f"{ALONE}/fit.json",
        similarity=f"{ALONE}/similarity.joblib",
        outlook=f"{ALONE}/outlook.json",
        predicted=expand(f"{ALONE}/predicted/{{case}}.tsv", case=ADAPTIVE.held_out),
        selections=expand(f"{ALONE}/selection/{{case}}.tsv", case=ADAPTIVE.held_out),
        scores=expand(f"{ALONE}/scores/{{case}}.tsv", case=ADAPTIVE.held_out),
        method_scores=expand(
            f"{ALONE}/method_scores/{{case}}.tsv", case=ADAPTIVE.held_out
        ),
        retrained=expand("results/scores/{model}.tsv", model=STUDY.full),
        removed="results/pruning/worst_cluster/removed_cases.txt",
        images=f"{ALONE}/image_statistics.json",
    output:
        table=report(
            f"{ALONE}/validation.tsv",
            category="Similarity classifier",
            caption="captions/validation.rst",
            labels={"figure": "Adaptive segmentation against its baselines (table)"},
        ),
        cases=f"{ALONE}/validation_cases.tsv",
        summary=f"{ALONE}/validation.json",
        png=report(
            f"{ALONE}/validation.png",
            category="Similarity classifier",
            caption="captions/validation.rst",
            labels={"figure": "Adaptive segmentation against its baselines"},
        ),
        svg=f"{ALONE}/validation.svg",
    log:
        "logs/validate_adaptive.log",
    localrule: True
    conda:
        "../envs/analysis.yaml"
    params:
        cases=ADAPTIVE.held_out,
        train=COHORT.train,
        region=config["adaptive"]["region"],
        level=config["adaptive"]["level"],
        base_seed=STUDY.seed,
        patients=COHORT.scans_of_patients(COHORT.held_out),
        full=dict(zip(config["pruning"]["seeds"], STUDY.full)),
    script:
        "../workflow_scripts/adaptive/validate_adaptive.py"
