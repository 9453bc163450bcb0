# Which cases are left out, and what the models trained without them do.


rule choose_removals:
    """The train cases that one arm removes."""
    input:
        clusters="results/similarity/clusters.tsv",
        # Cell by cell: the model's whole row holds the held-out cases, too.
        base=list_scores("base", COHORT.train),
        decisions=[],
    output:
        training_cases="results/pruning/{arm}/training_cases.txt",
        removed_cases="results/pruning/{arm}/removed_cases.txt",
    log:
        "logs/choose_removals/{arm}.log",
    wildcard_constraints:
        arm=r"(?!(random_)?reviewed)[a-z_0-9]+",
    localrule: True
    conda:
        "../envs/analysis.yaml"
    params:
        pool=COHORT.pool,
        train=COHORT.train,
        seed=config["training"]["seed"],
        region=config["similarity"]["region"],
    script:
        "../workflow_scripts/pruning/choose_removals.py"


# The arms that a reviewer's decisions make: these hold for one matrix alone.
use rule choose_removals as choose_reviewed with:
    input:
        clusters="results/similarity/clusters.tsv",
        base=list_scores("base", COHORT.train),
        # By content, not by date, as the cohort's files.
        decisions=ancient(STUDY.decided),
        matrix=f"results/similarity/{STUDY.matrix}.tsv",
    wildcard_constraints:
        arm=r"(random_)?reviewed(_[0-9]+)?",
    params:
        decided=lambda w: FINGERPRINTS.of(STUDY.decided),


rule compare:
    """Case by case, before and after the removal, and what it says on average."""
    input:
        before=expand("results/scores/{model}.tsv", model=STUDY.full),
        after=expand("results/scores/{model}.tsv", model=STUDY.reduced),
        removed=expand("results/pruning/{arm}/removed_cases.txt", arm=STUDY.arms),
        cohort="results/cohort.tsv",
        decisions=ancient(STUDY.decided),
    output:
        table="results/pruning/comparison.tsv",
        summary="results/pruning/summary.json",
        png=report(
            "results/pruning/comparison.png",
            category="Pruning",
            caption="captions/comparison.rst",
            labels={"figure": "Before and after, case by case"},
        ),
        svg="results/pruning/comparison.svg",
    log:
        "logs/compare.log",
    localrule: True
    conda:
        "../envs/analysis.yaml"
    params:
        models=STUDY.retrained,
        base_seed=STUDY.base_seed,
        seed=config["training"]["seed"],
        train=COHORT.train,
        patients=COHORT.scans_of_patients(COHORT.held_out),
        corrected=list(STUDY.corrections),
        decided=lambda w: FINGERPRINTS.of(STUDY.decided),
    script:
        "../workflow_scripts/pruning/compare.py"


rule removal_forest:
    """Every arm's change on held-out cases, and the worst cluster among random removals."""
    input:
        summary="results/pruning/summary.json",
    output:
        forest_png=report(
            "results/pruning/forest.png",
            category="Pruning",
            caption="captions/forest.rst",
            labels={"figure": "Change by arm"},
        ),
        forest_svg="results/pruning/forest.svg",
        null_png=report(
            "results/pruning/null.png",
            category="Pruning",
            caption="captions/null.rst",
            labels={"figure": "Worst cluster among random removals"},
        ),
        null_svg="results/pruning/null.svg",
    log:
        "logs/removal_forest.log",
    localrule: True
    conda:
        "../envs/analysis.yaml"
    script:
        "../workflow_scripts/pruning/removal_forest.py"
