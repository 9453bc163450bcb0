# Does the method find what is known to be wrong? Planted defects, or a user's table.


rule label_quality:
    """The baseline: cleanlab's score of one case, by a model that never saw it."""
    input:
        checkpoint=lambda w: (
            f"results/models/folds/{STUDY.folds[w.case]}/fold_all/checkpoint_final.pth"
        ),
        data=f"{CASES_2D_OR_3D}/{{case}}.b2nd",
        first_stage_data=expand("{folder}/{{case}}.b2nd", folder=FIRST_STAGE),
    output:
        score="results/evidence/label_quality/{case}.json",
    log:
        "logs/label_quality/{case}.log",
    conda:
        "../envs/nnunet.yaml"
    threads: THREADS
    resources:
        gpu=1,
        mem_mb=8000,
        runtime="10m",
    params:
        fold=lambda w: STUDY.folds[w.case],
        foreground=STUDY.foreground,
        options=STUDY.logit_options,
    script:
        "../workflow_scripts/evidence/label_quality.py"


rule quick_look:
    """What the base model, and cleanlab out of fold, say before any fine-tune."""
    input:
        base=list_scores("base", COHORT.pool),
        edits="results/edits.tsv",
        channels="results/channels.tsv",
        label_quality=expand(
            "results/evidence/label_quality/{case}.json", case=STUDY.folds
        ),
    output:
        table="results/quick/cases.tsv",
        signatures="results/quick/signatures.tsv",
    log:
        "logs/quick_look.log",
    localrule: True
    conda:
        "../envs/analysis.yaml"
    params:
        pool=COHORT.pool,
        labels=STUDY.foreground,
        regions=config["regions"],
        region=config["similarity"]["region"],
    script:
        "../workflow_scripts/evidence/quick_look.py"


rule quick:
    """Target: the look that needs no fine-tune (docs/evidence.md says when it is enough)."""
    input:
        "results/config.yaml",
        "results/cohort.png",
        "results/quick/cases.tsv",
    localrule: True


rule detection:
    """How well each score of the train cases finds the planted defects."""
    input:
        cohort="results/cohort.tsv",
        cases="results/similarity/cases.tsv",
        # By content, not by date, as the cohort's files.
        truth=ancient(STUDY.truth),
        label_quality=expand(
            "results/evidence/label_quality/{case}.json", case=STUDY.judged
        ),
    output:
        table=report(
            "results/evidence/detection.tsv",
            category="Evidence",
            caption="captions/detection.rst",
            labels={"figure": "Planted defects found (table)"},
        ),
        png=report(
            "results/evidence/detection.png",
            category="Evidence",
            caption="captions/detection.rst",
            labels={"figure": "Planted defects found"},
        ),
        svg="results/evidence/detection.svg",
    log:
        "logs/detection.log",
    localrule: True
    conda:
        "../envs/analysis.yaml"
    params:
        truth=lambda w: FINGERPRINTS.of(STUDY.truth),
        # What trainings took is no result: read where it was noted.
        trainings={
            "rows": {
                f"results/benchmarks/finetune/{case}.tsv": f"results/models/finetuned/{case}"
                for case in COHORT.train
            },
            "folds": {
                f"results/benchmarks/train_fold/{fold}.tsv": f"results/models/folds/{fold}"
                for fold in sorted(set(STUDY.folds.values()))
            },
        },
        cells={
            "rows": {
                f"results/scores/finetuned/{case}/{COHORT.pool[0]}.json": len(
                    COHORT.pool
                )
                for case in COHORT.train
            },
            "folds": {f"results/scores/base/{case}.json": 1 for case in STUDY.judged},
        },
    script:
        "../workflow_scripts/evidence/detection.py"
