# The models: one base, one fine-tune for each train case, one retrain for each arm; one
# more fine-tune of some train cases, which tells what is training noise; and the base
# model's schedule without each fold of the pool, for scores by models that never saw a case.
# Each keeps `checkpoint_latest.pth` undeclared beside its output, so that a job that was
# killed goes on from there when it is run again.


COPIES = range(config["augmentation"]["copies"])
# Of a cascade, in a folder for each stage.
COPIES_OF_STAGE = [""]
if len(STUDY.stages) > 1:
    COPIES_OF_STAGE = [f"{case_folder(stage)}/" for stage in STUDY.stages]


rule train_base:
    """The start of everything else: nnU-Net on the whole pool."""
    input:
        cases=list_preprocessed(COHORT.pool),
        plans=f"{PREPROCESSED}/nnUNetPlans.json",
        dataset=f"{PREPROCESSED}/dataset.json",
    output:
        checkpoint="results/models/base/fold_all/checkpoint_final.pth",
        plans="results/models/base/plans.json",
        dataset="results/models/base/dataset.json",
        first_stage=first_stage("results/models/base"),
    log:
        "logs/train_base.log",
    benchmark:
        "results/benchmarks/train_base.tsv"
    conda:
        "../envs/nnunet.yaml"
    threads: THREADS
    resources:
        gpu=1,
        mem_mb=16000,
        runtime=lambda w, attempt: STUDY.runtime("base", attempt),
    params:
        cases=COHORT.pool,
        training=STUDY.training("base"),
    script:
        "../workflow_scripts/training/train_base.py"


if STUDY.own_checkpoint:

    ruleorder: adopt_base > train_base

    rule adopt_base:
        """A network of the user's own as the base model, instead of a new one."""
        input:
            # By content, not by date, as the cohort's files.
            network=ancient(STUDY.own_checkpoint),
            plans=f"{PREPROCESSED}/nnUNetPlans.json",
            dataset=f"{PREPROCESSED}/dataset.json",
        output:
            checkpoint="results/models/base/fold_all/checkpoint_final.pth",
            plans="results/models/base/plans.json",
            dataset="results/models/base/dataset.json",
            first_stage=first_stage("results/models/base"),
        log:
            "logs/adopt_base.log",
        conda:
            "../envs/nnunet.yaml"
        resources:
            mem_mb=8000,
            runtime="30m",
        params:
            configuration=config["nnunet"]["configuration"],
            content=lambda w: FINGERPRINTS.of(STUDY.own_checkpoint),
        script:
            "../workflow_scripts/training/adopt_base.py"


rule augment_case:
    """Mirrored and elastically deformed copies of one train case."""
    input:
        images=expand(
            f"{RAW}/imagesTr/{{{{case}}}}_{{channel}}.nii.gz", channel=CHANNEL_FILES
        ),
        label=f"{RAW}/labelsTr/{{case}}.nii.gz",
        plans=f"{PREPROCESSED}/nnUNetPlans.json",
        dataset=f"{PREPROCESSED}/dataset.json",
    output:
        copies=temp(
            expand(
                "results/augmented/{{case}}/{stage}copy_{copy}{file}",
                stage=COPIES_OF_STAGE,
                copy=COPIES,
                file=[".b2nd", "_seg.b2nd", ".pkl"],
            )
        ),
    log:
        "logs/augment_case/{case}.log",
    conda:
        "../envs/nnunet.yaml"
    resources:
        mem_mb=8000,
        runtime="1h",
    params:
        augmentation=config["augmentation"],
        configuration=config["nnunet"]["configuration"],
        seed=config["training"]["seed"],
    script:
        "../workflow_scripts/training/augment_case.py"


rule finetune:
    """The base model, trained on with the copies of one case alone."""
    input:
        copies=rules.augment_case.output.copies,
        base="results/models/base/fold_all/checkpoint_final.pth",
        base_first_stage=first_stage("results/models/base"),
        plans=f"{PREPROCESSED}/nnUNetPlans.json",
        dataset=f"{PREPROCESSED}/dataset.json",
    output:
        checkpoint="results/models/finetuned/{case}/fold_all/checkpoint_final.pth",
        plans="results/models/finetuned/{case}/plans.json",
        dataset="results/models/finetuned/{case}/dataset.json",
        first_stage=first_stage("results/models/finetuned/{case}"),
    log:
        "logs/finetune/{case}.log",
    benchmark:
        "results/benchmarks/finetune/{case}.tsv"
    conda:
        "../envs/nnunet.yaml"
    threads: THREADS
    resources:
        gpu=1,
        mem_mb=16000,
        runtime=lambda w, attempt: STUDY.runtime("finetune", attempt),
    params:
        training=STUDY.training("finetune"),
    script:
        "../workflow_scripts/training/finetune.py"


use rule augment_case as augment_case_again with:
    output:
        copies=temp(
            expand(
                "results/augmented_again/{{case}}/{stage}copy_{copy}{file}",
                stage=COPIES_OF_STAGE,
                copy=COPIES,
                file=[".b2nd", "_seg.b2nd", ".pkl"],
            )
        ),
    log:
        "logs/augment_case_again/{case}.log",
    params:
        seed=config["stability"]["seed"],


use rule finetune as refit with:
    input:
        copies=rules.augment_case_again.output.copies,
        base="results/models/base/fold_all/checkpoint_final.pth",
        base_first_stage=first_stage("results/models/base"),
        plans=f"{PREPROCESSED}/nnUNetPlans.json",
        dataset=f"{PREPROCESSED}/dataset.json",
    output:
        checkpoint="results/models/refitted/{case}/fold_all/checkpoint_final.pth",
        plans="results/models/refitted/{case}/plans.json",
        dataset="results/models/refitted/{case}/dataset.json",
        first_stage=first_stage("results/models/refitted/{case}"),
    log:
        "logs/refit/{case}.log",
    benchmark:
        "results/benchmarks/refit/{case}.tsv"
    params:
        training=STUDY.training("finetune", config["stability"]["seed"]),


rule retrain:
    """The base model's schedule again, from scratch, on the cases that an arm keeps."""
    input:
        cases=lambda w: list_pool(STUDY.corrected(w.retrained)),
        training_cases=lambda w: (
            f"results/pruning/{STUDY.retrained[w.retrained]['arm']}/training_cases.txt"
        ),
        plans=f"{PREPROCESSED}/nnUNetPlans.json",
        dataset=f"{PREPROCESSED}/dataset.json",
    output:
        checkpoint="results/models/retrained/{retrained}/fold_all/checkpoint_final.pth",
        plans="results/models/retrained/{retrained}/plans.json",
        dataset="results/models/retrained/{retrained}/dataset.json",
        first_stage=first_stage("results/models/retrained/{retrained}"),
    log:
        "logs/retrain/{retrained}.log",
    benchmark:
        "results/benchmarks/retrain/{retrained}.tsv"
    conda:
        "../envs/nnunet.yaml"
    threads: THREADS
    resources:
        gpu=1,
        mem_mb=16000,
        runtime=lambda w, attempt: STUDY.runtime("base", attempt),
    params:
        training=lambda w: STUDY.training("base", STUDY.retrained[w.retrained]["seed"]),
    script:
        "../workflow_scripts/training/retrain.py"


use rule train_base as train_fold with:
    input:
        cases=lambda w: list_preprocessed(STUDY.outside(int(w.fold))),
        plans=f"{PREPROCESSED}/nnUNetPlans.json",
        dataset=f"{PREPROCESSED}/dataset.json",
    output:
        checkpoint="results/models/folds/{fold}/fold_all/checkpoint_final.pth",
        plans="results/models/folds/{fold}/plans.json",
        dataset="results/models/folds/{fold}/dataset.json",
        first_stage=first_stage("results/models/folds/{fold}"),
    log:
        "logs/train_fold/{fold}.log",
    benchmark:
        "results/benchmarks/train_fold/{fold}.tsv"
    params:
        cases=lambda w: STUDY.outside(int(w.fold)),
