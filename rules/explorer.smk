# The page that shows the matrix and, a click away, the images behind each of its cells.

from casesim.explorer import site


rule explore_case:
    """The images and label maps of one case, small enough for a page."""
    input:
        images=expand(
            f"{RAW}/imagesTr/{{{{case}}}}_{{channel:04d}}.nii.gz",
            channel=STUDY.explored_channels,
        ),
        label=f"{RAW}/labelsTr/{{case}}.nii.gz",
        predictions=lambda wildcards: expand(
            "results/predictions/{model}/{case}.nii.gz",
            model=STUDY.explored_models(wildcards.case),
            case=wildcards.case,
        ),
        review="results/similarity/cases.tsv",
    output:
        channels=expand(
            "results/explorer/data/{{case}}/channel_{channel}.js",
            channel=STUDY.explored_channels,
        ),
        maps="results/explorer/data/{case}/maps.js",
        contents="results/explorer/data/{case}/contents.json",
    log:
        "logs/explore_case/{case}.log",
    localrule: True
    conda:
        "../envs/analysis.yaml"
    params:
        models=lambda wildcards: STUDY.explored_models(wildcards.case),
        cases=COHORT.test,
        max_mb=config["explorer"]["max_mb"],
    script:
        "../workflow_scripts/explorer/explore_case.py"


rule explorer:
    """The page itself, with the tables of all stages."""
    input:
        contents=expand("results/explorer/data/{case}/contents.json", case=COHORT.test),
        matrix=f"results/similarity/{STUDY.matrix}.tsv",
        matrices=expand(
            "results/similarity/matrix{region}.tsv",
            region=["", *(f"_{region}" for region in STUDY.regions)],
        ),
        undefined="results/similarity/matrix_undefined.tsv",
        linkage="results/similarity/linkage.tsv",
        leaf_order="results/similarity/leaf_order.tsv",
        clusters="results/similarity/clusters.tsv",
        clustering="results/similarity/clustering.json",
        cases="results/similarity/cases.tsv",
        stability="results/similarity/stability.tsv",
        stability_summary="results/similarity/stability.json",
        summary="results/pruning/summary.json",
        cohort="results/cohort.tsv",
        scores=expand("results/scores/{model}.tsv", model=STUDY.judged_models),
    output:
        study="results/explorer/data/study.js",
        page=expand("results/explorer/{file}", file=site.NAMES),
    log:
        "logs/explorer.log",
    localrule: True
    conda:
        "../envs/analysis.yaml"
    params:
        cases=COHORT.test,
        matrices=["mean", *STUDY.regions],
        # A page that was made with other files of its own is made again.
        page=site.digest(),
        options={
            "results": "results",
            "raw": RAW,
            "channels": COHORT.channel_names,
            "shown": STUDY.explored_channels,
            "labels": STUDY.foreground,
            "ignore": COHORT.targets.ignore,
            "regions": config["regions"],
            "region": config["similarity"]["region"],
            "models": STUDY.judged_models,
            "max_mb": config["explorer"]["max_mb"],
        },
    script:
        "../workflow_scripts/explorer/explorer.py"


rule explorer_in_report:
    """The explorer as one folder, which a report can take with it."""
    input:
        # One by one: cases that left the cohort may still lie beside them.
        page=rules.explorer.output.page,
        study=rules.explorer.output.study,
        channels=expand(rules.explore_case.output.channels, case=COHORT.test),
        maps=expand(rules.explore_case.output.maps, case=COHORT.test),
    output:
        report(
            directory("results/explorer_in_report"),
            htmlindex="index.html",
            category="Explorer",
            caption="captions/explorer.rst",
            labels={"figure": "Matrix, images and cases to review"},
        ),
    log:
        "logs/explorer_in_report.log",
    localrule: True
    conda:
        "../envs/analysis.yaml"
    script:
        "../workflow_scripts/explorer/explorer_in_report.py"
