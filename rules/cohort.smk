# From the user's files to cases that nnU-Net can train on.

from casesim.cohort import table


rule check_cohort:
    """Every problem of the cohort in one list, before anything is trained."""
    input:
        # By content, not by date; those that are there: the check reports the others.
        ancient(SOURCES),
    output:
        cohort="results/cohort.tsv",
    log:
        "logs/check_cohort.log",
        # A log, so that the list survives the failure that it explains.
        checks="results/checks.tsv",
    # Before all imports, which do not wait for it: see casesim/cohort/gate.py.
    priority: 100
    conda:
        "../envs/analysis.yaml"
    threads: 8
    resources:
        mem_mb=16000,
        runtime="2h",
    params:
        cohort=config["cohort"],
        content=lambda w: FINGERPRINTS.of(SOURCES),
        # Who is who may be said by a table of the user's.
        roles=COHORT.roles,
        raw=RAW.removeprefix("results/"),
    script:
        "../workflow_scripts/cohort/check_cohort.py"


rule import_case:
    """One case in nnU-Net's raw format, without altering a voxel."""
    input:
        sources=lambda w: ancient(list(COHORT.case(w.case).existing_sources)),
    output:
        images=expand(
            f"{RAW}/imagesTr/{{{{case}}}}_{{channel}}.nii.gz", channel=CHANNEL_FILES
        ),
        label=f"{RAW}/labelsTr/{{case}}.nii.gz",
    log:
        "logs/import_case/{case}.log",
    conda:
        "../envs/analysis.yaml"
    resources:
        mem_mb=4000,
        runtime="30m",
    params:
        case=lambda w: STUDY.case_record(w.case),
        content=lambda w: FINGERPRINTS.of(COHORT.case(w.case).existing_sources),
        cohort=STUDY.import_options,
    script:
        "../workflow_scripts/cohort/import_case.py"


rule import_new_case:
    """One case without a label, likewise; in imagesTs, as nnU-Net has it."""
    input:
        sources=lambda w: ancient(list(COHORT.case(w.case).existing_sources)),
    output:
        images=expand(
            f"{RAW}/imagesTs/{{{{case}}}}_{{channel}}.nii.gz", channel=CHANNEL_FILES
        ),
    log:
        "logs/import_new_case/{case}.log",
    wildcard_constraints:
        case="|".join(map(re.escape, COHORT.new)) or "(?!)",
    conda:
        "../envs/analysis.yaml"
    resources:
        mem_mb=4000,
        runtime="30m",
    params:
        case=lambda w: STUDY.case_record(w.case),
        content=lambda w: FINGERPRINTS.of(COHORT.case(w.case).existing_sources),
        cohort=STUDY.import_options,
    script:
        "../workflow_scripts/cohort/import_new_case.py"


rule channels:
    """Which channel of which image is unlike the cohort's: the rows do not see it."""
    input:
        images=[
            f"{RAW}/imagesTr/{name}.nii.gz"
            for name in table.channel_files(COHORT.pool, range(len(CHANNEL_FILES)))
        ],
        labels=expand(f"{RAW}/labelsTr/{{case}}.nii.gz", case=COHORT.pool),
    output:
        table="results/channels.tsv",
    log:
        "logs/channels.log",
    conda:
        "../envs/analysis.yaml"
    threads: 8
    resources:
        mem_mb=16000,
        runtime="2h",
    params:
        cases=COHORT.pool,
        channel_names=COHORT.channel_names,
    script:
        "../workflow_scripts/cohort/channels.py"


rule plan:
    """nnU-Net's fingerprint and plans, once, over the pool."""
    input:
        images=expand(
            f"{RAW}/imagesTr/{{case}}_{{channel}}.nii.gz",
            case=COHORT.pool,
            channel=CHANNEL_FILES,
        ),
        labels=expand(f"{RAW}/labelsTr/{{case}}.nii.gz", case=COHORT.pool),
        own_plans=ancient(STUDY.own_plans),
    output:
        raw_dataset=f"{RAW}/dataset.json",
        dataset=f"{PREPROCESSED}/dataset.json",
        fingerprint=f"{PREPROCESSED}/dataset_fingerprint.json",
        plans=f"{PREPROCESSED}/nnUNetPlans.json",
    log:
        "logs/plan.log",
    conda:
        "../envs/nnunet.yaml"
    threads: 8
    resources:
        mem_mb=16000,
        runtime="4h",
    params:
        pool=COHORT.pool,
        channel_names=COHORT.channel_names,
        labels=COHORT.dataset_labels,
        regions_class_order=COHORT.targets.class_order,
        nnunet=STUDY.planning,
        own_plans=lambda w: FINGERPRINTS.of(STUDY.own_plans),
    script:
        "../workflow_scripts/cohort/plan.py"


rule preprocess_case:
    """Crop, resample and normalise one case under the common plans."""
    input:
        images=lambda w: table.raw_images(RAW, COHORT.case(w.case), len(CHANNEL_FILES)),
        # Nothing for a new case.
        label=lambda w: table.raw_label(RAW, COHORT.case(w.case)) or [],
        plans=f"{PREPROCESSED}/nnUNetPlans.json",
        dataset=f"{PREPROCESSED}/dataset.json",
    output:
        data=f"{CASES_2D_OR_3D}/{{case}}.b2nd",
        seg=f"{CASES_2D_OR_3D}/{{case}}_seg.b2nd",
        properties=f"{CASES_2D_OR_3D}/{{case}}.pkl",
    log:
        "logs/preprocess_case/{case}.log",
    conda:
        "../envs/nnunet.yaml"
    resources:
        mem_mb=8000,
        runtime="30m",
    params:
        configuration=config["nnunet"]["configuration"],
    script:
        "../workflow_scripts/cohort/preprocess_case.py"


# A cascade's first stage has its cases at a spacing of its own.
for stage in STUDY.stages[:-1]:

    use rule preprocess_case as preprocess_first_stage with:
        output:
            data=f"{PREPROCESSED}/{case_folder(stage)}/{{case}}.b2nd",
            seg=f"{PREPROCESSED}/{case_folder(stage)}/{{case}}_seg.b2nd",
            properties=f"{PREPROCESSED}/{case_folder(stage)}/{{case}}.pkl",
        log:
            "logs/preprocess_first_stage/{case}.log",
        params:
            configuration=stage,


rule import_correction:
    """A corrected label map, checked as any cohort's; the original stays."""
    input:
        images=expand(
            f"{RAW}/imagesTr/{{{{case}}}}_{{channel}}.nii.gz", channel=CHANNEL_FILES
        ),
        corrected=lambda w: ancient(STUDY.corrections[w.case]),
    output:
        label="results/corrections/labels/{case}.nii.gz",
    log:
        "logs/import_correction/{case}.log",
    wildcard_constraints:
        case="|".join(map(re.escape, STUDY.corrections)) or "(?!)",
    conda:
        "../envs/analysis.yaml"
    resources:
        mem_mb=8000,
        runtime="30m",
    params:
        content=lambda w: FINGERPRINTS.of([STUDY.corrections[w.case]]),
        channel_names=COHORT.channel_names,
        labels=COHORT.labels,
        ignore=COHORT.targets.ignore,
    script:
        "../workflow_scripts/cohort/import_correction.py"


use rule preprocess_case as preprocess_correction with:
    input:
        images=rules.import_correction.input.images,
        label=rules.import_correction.output.label,
        plans=f"{PREPROCESSED}/nnUNetPlans.json",
        dataset=f"{PREPROCESSED}/dataset.json",
    output:
        data=f"{CORRECTED}/{case_folder(STUDY.stages[-1])}/{{case}}.b2nd",
        seg=f"{CORRECTED}/{case_folder(STUDY.stages[-1])}/{{case}}_seg.b2nd",
        properties=f"{CORRECTED}/{case_folder(STUDY.stages[-1])}/{{case}}.pkl",
    log:
        "logs/preprocess_correction/{case}.log",


for stage in STUDY.stages[:-1]:

    use rule preprocess_correction as preprocess_correction_first_stage with:
        output:
            data=f"{CORRECTED}/{case_folder(stage)}/{{case}}.b2nd",
            seg=f"{CORRECTED}/{case_folder(stage)}/{{case}}_seg.b2nd",
            properties=f"{CORRECTED}/{case_folder(stage)}/{{case}}.pkl",
        log:
            "logs/preprocess_correction_first_stage/{case}.log",
        params:
            configuration=stage,
