# What people look at, and the targets that gather it.

from casesim.cohort import table


rule configuration:
    """The configuration in effect, defaults included."""
    output:
        config="results/config.yaml",
    log:
        "logs/configuration.log",
    localrule: True
    conda:
        "../envs/analysis.yaml"
    params:
        config=dict(config),
    script:
        "../workflow_scripts/report/configuration.py"


rule cohort_gallery:
    """A few cases of the pool with their reference labels."""
    input:
        images=expand(
            f"{RAW}/imagesTr/{{image}}.nii.gz",
            image=table.channel_files(STUDY.gallery, STUDY.gallery_channels),
        ),
        labels=expand(f"{RAW}/labelsTr/{{case}}.nii.gz", case=STUDY.gallery),
    output:
        png=report(
            "results/cohort.png",
            category="Cohort",
            caption="captions/cohort.rst",
            labels={"figure": "Cases of the pool"},
        ),
        svg="results/cohort.svg",
    log:
        "logs/cohort_gallery.log",
    localrule: True
    conda:
        "../envs/analysis.yaml"
    params:
        cases=STUDY.gallery,
        channels=[COHORT.channel_names[channel] for channel in STUDY.gallery_channels],
        labels=STUDY.drawn_labels,
    script:
        "../workflow_scripts/report/cohort_gallery.py"


rule overlays:
    """The most improved and the most worsened case: reference, before and after."""
    input:
        table="results/pruning/comparison.tsv",
        images=expand(f"{RAW}/imagesTr/{{case}}_0000.nii.gz", case=COHORT.test),
        labels=expand(f"{RAW}/labelsTr/{{case}}.nii.gz", case=COHORT.test),
        before=expand(
            f"results/predictions/{STUDY.headline_before}/{{case}}.nii.gz",
            case=COHORT.test,
        ),
        after=expand(
            f"results/predictions/retrained/{STUDY.headline}/{{case}}.nii.gz",
            case=COHORT.test,
        ),
    output:
        png=report(
            "results/pruning/overlays.png",
            category="Pruning",
            caption="captions/overlays.rst",
            labels={"figure": "Most improved and most worsened case"},
        ),
        svg="results/pruning/overlays.svg",
    log:
        "logs/overlays.log",
    localrule: True
    conda:
        "../envs/analysis.yaml"
    params:
        cases=COHORT.test,
        labels=STUDY.drawn_labels,
        model=STUDY.retrained[STUDY.headline],
    script:
        "../workflow_scripts/report/overlays.py"


rule summary:
    """What the run has found, in a dozen lines; printed at its end."""
    input:
        comparison="results/pruning/summary.json",
        clustering="results/similarity/clustering.json",
        cases="results/similarity/cases.tsv",
        look_at=["results/explorer/index.html", "results/pruning/comparison.png"],
    output:
        text="results/summary.md",
    log:
        "logs/summary.log",
    localrule: True
    conda:
        "../envs/analysis.yaml"
    script:
        "../workflow_scripts/report/summary.py"


# Of runs that were asked for less.
use rule summary as comparison_summary with:
    input:
        comparison="results/pruning/summary.json",
        clustering="results/similarity/clustering.json",
        cases="results/similarity/cases.tsv",
        look_at=["results/pruning/comparison.png", "results/similarity/cases.tsv"],
    output:
        text="results/pruning/summary.md",
    log:
        "logs/comparison_summary.log",


use rule summary as matrix_summary with:
    input:
        clustering="results/similarity/clustering.json",
        cases="results/similarity/cases.tsv",
        look_at=["results/similarity/heatmap.png", "results/similarity/cases.tsv"],
    output:
        text="results/similarity/summary.md",
    log:
        "logs/matrix_summary.log",


rule models:
    """Target: every model, trained."""
    input:
        "results/config.yaml",
        # On a cluster, the base model's cells are one submission by this.
        "results/scores/base.tsv",
        expand(
            "results/models/{model}/fold_all/checkpoint_final.pth", model=STUDY.models
        ),
    localrule: True


rule matrix:
    """Target: the similarity matrix, its tree and its clusters."""
    input:
        "results/config.yaml",
        # On a cluster, the base model's cells are one submission by this.
        "results/scores/base.tsv",
        "results/similarity/heatmap.png",
        "results/similarity/dendrogram.png",
        "results/similarity/cases.tsv",
        "results/similarity/stability.png",
        "results/similarity/summary.md",
    localrule: True


rule comparison:
    """Target: before and after the removal."""
    input:
        "results/config.yaml",
        "results/pruning/comparison.png",
        "results/pruning/overlays.png",
        "results/pruning/forest.png",
        "results/pruning/summary.md",
    localrule: True
