# Which training cases teach a segmentation model alike, and which ones harm it?
# The stages, in the order in which data flows through them, are the files in rules/.

from snakemake.utils import min_version

min_version("9.20.0")


report: "rules/captions/workflow.rst"


include: "rules/common.smk"
include: "rules/files.smk"
include: "rules/engine.smk"
include: "rules/cohort.smk"
include: "rules/training.smk"
include: "rules/inference.smk"
include: "rules/similarity.smk"
include: "rules/pruning.smk"
include: "rules/evidence.smk"
include: "rules/adaptive_common.smk"
include: "rules/adaptive.smk"
include: "rules/adaptive_controls.smk"
include: "rules/report.smk"
include: "rules/explorer.smk"


rule all:
    default_target: True
    input:
        expand("results/{target}", target=STUDY.targets()),
        expand("results/{target}", target=ADAPTIVE.targets()),
