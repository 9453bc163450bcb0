# Which models and train cases suit a case without a label, and how good will its
# segmentation be? Off unless `adaptive.enabled`. What is computed of calibration, held-out
# and new cases lies below results/adaptive, where no rule of an earlier stage reads: a
# label that is held out can change nothing but what judges (docs/adaptive.md).
# On a cluster a case's cells are one submission, since a new case comes by itself.


rule predict_label_free:
    """Segment a case with one model, and note what can be said without a label."""
    input:
        checkpoint=lambda w: ADAPTIVE.checkpoint(w.adaptive_model, w.case),
        data=f"{CASES_2D_OR_3D}/{{case}}.b2nd",
        first_stage_data=expand("{folder}/{{case}}.b2nd", folder=FIRST_STAGE),
    output:
        label_map=f"{ALONE}/label_maps/{{adaptive_model}}/{{case}}.nii.gz",
        cell=f"{ALONE}/cells/{{adaptive_model}}/{{case}}.json",
    log:
        "logs/predict_label_free/{adaptive_model}/{case}.log",
    wildcard_constraints:
        adaptive_model=ADAPTIVE_MODEL,
    retries: CELL_RETRIES
    group:
        case_group("cells")
    conda:
        "../envs/nnunet.yaml"
    threads: THREADS
    resources:
        gpu=1,
        mem_mb=8000,
        runtime="5m",
    params:
        options=STUDY.predict_options,
    shell:
        'python -S -E "$CASESIM_LABEL_FREE" cell --model {wildcards.adaptive_model:q}'
        " --case {wildcards.case:q} --checkpoint {input.checkpoint:q}"
        " --data {input.data:q} --label-map {output.label_map:q}"
        " --cell {output.cell:q}"
        " --threads {threads} --gpu {resources.gpu} {params.options:q} > {log:q} 2>&1"


rule agreement:
    """What is known of a case without its label: of each model, and of all together."""
    input:
        cells=lambda w: of_candidates("cells/{adaptive_model}/{case}.json", w.case),
        label_maps=lambda w: of_candidates(
            "label_maps/{adaptive_model}/{case}.nii.gz", w.case
        ),
    output:
        features=f"{ALONE}/features/{{case}}.tsv",
    log:
        "logs/agreement/{case}.log",
    retries: CELL_RETRIES
    group:
        case_group("cells")
    conda:
        "../envs/analysis.yaml"
    resources:
        mem_mb=4000,
        runtime="30m",
    params:
        models=ADAPTIVE.candidates,
        labels=COHORT.scored,
        regions=STUDY.more_regions,
    script:
        "../workflow_scripts/adaptive/agreement.py"


rule score_models:
    """Dice of the candidates on a labelled case."""
    input:
        label_maps=lambda w: of_candidates(
            "label_maps/{adaptive_model}/{case}.nii.gz", w.case
        ),
        label=f"{RAW}/labelsTr/{{case}}.nii.gz",
    output:
        scores=f"{ALONE}/scores/{{case}}.tsv",
    log:
        "logs/score_models/{case}.log",
    retries: CELL_RETRIES
    group:
        case_group("cells")
    conda:
        "../envs/analysis.yaml"
    resources:
        mem_mb=4000,
        runtime="30m",
    params:
        models=ADAPTIVE.candidates,
        labels=COHORT.scored,
        regions=STUDY.more_regions,
        ignore=COHORT.targets.ignore,
    script:
        "../workflow_scripts/adaptive/score_models.py"


rule fit_similarity:
    """Learn from the calibration cases how confidence and agreement become Dice."""
    input:
        features=expand(f"{ALONE}/features/{{case}}.tsv", case=ADAPTIVE.calibration),
        scores=expand(f"{ALONE}/scores/{{case}}.tsv", case=ADAPTIVE.calibration),
        base=expand("results/scores/base/{case}.json", case=COHORT.train),
    output:
        fit=f"{ALONE}/similarity.joblib",
        out_of_fold=f"{ALONE}/out_of_fold.tsv",
        summary=f"{ALONE}/fit.json",
    log:
        "logs/fit_similarity.log",
    conda:
        "../envs/analysis.yaml"
    threads: 8
    resources:
        mem_mb=8000,
        runtime="2h",
    params:
        level=config["adaptive"]["level"],
        region=config["adaptive"]["region"],
        seed=STUDY.seed,
        calibration=ADAPTIVE.calibration,
        patients=COHORT.scans_of_patients(COHORT.calibration),
        phantom=STUDY.import_options["phantom"],
        seed_of_cohort=config["cohort"]["seed"],
    script:
        "../workflow_scripts/adaptive/fit_similarity.py"


rule select_models:
    """Predicted Dice of all models on a case, their ranking, and their weights."""
    input:
        fit=f"{ALONE}/similarity.joblib",
        # A calibration case is judged by what was learnt without it.
        out_of_fold=lambda w: (
            f"{ALONE}/out_of_fold.tsv"
            if ADAPTIVE.roles[w.case] == "calibration"
            else []
        ),
        features=f"{ALONE}/features/{{case}}.tsv",
        # For an ensemble that the selection is compared with.
        removed=lambda w: (
            ["results/pruning/worst_cluster/removed_cases.txt"]
            if ADAPTIVE.roles[w.case] == "held_out"
            else []
        ),
    output:
        predicted=f"{ALONE}/predicted/{{case}}.tsv",
        selection=f"{ALONE}/selection/{{case}}.tsv",
        weights=f"{ALONE}/weights/{{case}}.json",
    log:
        "logs/select_models/{case}.log",
    localrule: True
    conda:
        "../envs/analysis.yaml"
    params:
        role=lambda w: ADAPTIVE.roles[w.case],
        region=config["adaptive"]["region"],
        labels=COHORT.foreground_labels,
        temperature=config["adaptive"]["temperature"],
        train=COHORT.train,
        top=config["adaptive"]["top"],
        draws=config["adaptive"]["random_ensembles"],
        seed=STUDY.seed,
        ensembles=lambda w: (
            ADAPTIVE.ensembles
            if ADAPTIVE.roles[w.case] == "held_out"
            else ADAPTIVE.ensembles[:1]
        ),
    script:
        "../workflow_scripts/adaptive/select_models.py"


rule segment_adaptive:
    """The segmentation of a new case: the weighted mean of what its models say."""
    input:
        weights=f"{ALONE}/weights/{{case}}.json",
        data=f"{CASES_2D_OR_3D}/{{case}}.b2nd",
        first_stage_data=expand("{folder}/{{case}}.b2nd", folder=FIRST_STAGE),
        checkpoints=expand(
            "results/models/{model}/fold_all/checkpoint_final.pth",
            model=ADAPTIVE.candidates,
        ),
    output:
        label_maps="results/predictions/adaptive/{case}.nii.gz",
    log:
        "logs/segment_adaptive/{case}.log",
    wildcard_constraints:
        case=any_of(ADAPTIVE.new),
    conda:
        "../envs/nnunet.yaml"
    threads: THREADS
    resources:
        gpu=1,
        mem_mb=16000,
        runtime="1h",
    params:
        options=STUDY.predict_options,
        folder=lambda w, output: str(Path(output[0]).parents[1]),
    shell:
        'python -S -E "$CASESIM_SEGMENT" ensembles --case {wildcards.case:q}'
        " --weights {input.weights:q} --models results/models --data {input.data:q}"
        " --label-maps {params.folder:q} --threads {threads} --gpu {resources.gpu}"
        " {params.options:q} > {log:q} 2>&1"


use rule segment_adaptive as segment_calibration with:
    output:
        label_maps=f"{ALONE}/ensembles/adaptive/{{case}}.nii.gz",
    log:
        "logs/segment_calibration/{case}.log",
    wildcard_constraints:
        case=any_of(ADAPTIVE.calibration),


# All ensembles that are compared, in one pass over the models.
use rule segment_adaptive as segment_held_out with:
    output:
        label_maps=expand(
            f"{ALONE}/ensembles/{{ensemble}}/{{{{case}}}}.nii.gz",
            ensemble=ADAPTIVE.ensembles,
        ),
    log:
        "logs/segment_held_out/{case}.log",
    wildcard_constraints:
        case=any_of(ADAPTIVE.held_out),


rule new_cases:
    """For whoever sent a case: its segmentation, what to think of it, what it leans on."""
    input:
        outlook=f"{ALONE}/outlook.json",
        fit=f"{ALONE}/fit.json",
        selections=expand(f"{ALONE}/selection/{{case}}.tsv", case=ADAPTIVE.new),
        features=expand(f"{ALONE}/features/{{case}}.tsv", case=ADAPTIVE.new),
        calibration=expand(f"{ALONE}/features/{{case}}.tsv", case=ADAPTIVE.calibration),
        label_maps=expand(
            "results/predictions/adaptive/{case}.nii.gz", case=ADAPTIVE.new
        ),
        of_own_models=expand(f"{ALONE}/{{path}}", path=ADAPTIVE.finetuned_new.values()),
        images=expand(f"{RAW}/imagesTs/{{case}}_0000.nii.gz", case=ADAPTIVE.new),
        train_images=expand(f"{RAW}/imagesTr/{{case}}_0000.nii.gz", case=COHORT.train),
        train_labels=expand(f"{RAW}/labelsTr/{{case}}.nii.gz", case=COHORT.train),
    output:
        table=report(
            f"{ALONE}/new.tsv",
            category="Similarity classifier",
            caption="captions/new_cases.rst",
            labels={"figure": "New cases (table)"},
        ),
        order=report(
            f"{ALONE}/labelling_order.tsv",
            category="Similarity classifier",
            caption="captions/labelling_order.rst",
            labels={"figure": "Which new case to label first (table)"},
        ),
        page=report(
            f"{ALONE}/new.html",
            category="Similarity classifier",
            caption="captions/new_cases.rst",
            labels={"figure": "New cases"},
        ),
    log:
        "logs/new_cases.log",
    localrule: True
    conda:
        "../envs/analysis.yaml"
    params:
        new=ADAPTIVE.new,
        finetuned=list(ADAPTIVE.finetuned_new),
        calibration=ADAPTIVE.calibration,
        patients=COHORT.scans_of_patients(COHORT.calibration),
        train=COHORT.train,
        labels=STUDY.drawn_labels,
        region=config["adaptive"]["region"],
        level=config["adaptive"]["level"],
        top=config["adaptive"]["top"],
        channel=COHORT.channel_names[0],
    script:
        "../workflow_scripts/adaptive/new_cases.py"


rule adaptive_summary:
    """What the classifier has found, in a few lines; printed at a run's end."""
    input:
        fit=f"{ALONE}/fit.json",
        new=[f"{ALONE}/new.tsv"] if ADAPTIVE.new else [],
        order=[f"{ALONE}/labelling_order.tsv"] if ADAPTIVE.new else [],
        validation=[f"{ALONE}/validation.json"] if ADAPTIVE.held_out else [],
    output:
        text=f"{ALONE}/summary.md",
    log:
        "logs/adaptive_summary.log",
    localrule: True
    conda:
        "../envs/analysis.yaml"
    params:
        region=config["adaptive"]["region"],
        look_at=[f"{ALONE}/{name}" for name in ADAPTIVE.look_at],
    script:
        "../workflow_scripts/adaptive/adaptive_summary.py"


rule adaptive:
    """Target: the similarity classifier, judged and applied."""
    input:
        expand("results/{target}", target=ADAPTIVE.targets())
        or "(nothing: set adaptive.enabled to true and cohort.calibration to 20 or more,"
        " as config/adaptive.yaml does)",
    localrule: True
