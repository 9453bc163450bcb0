# The similarity matrix, and the tree of the train cases.


rule similarity_matrix:
    """Rows: models fine-tuned on one case. Columns: the cases they segment."""
    input:
        rows=expand("results/scores/finetuned/{case}.tsv", case=COHORT.train),
    output:
        matrix="results/similarity/matrix.tsv",
        undefined="results/similarity/matrix_undefined.tsv",
        regions=expand("results/similarity/matrix_{region}.tsv", region=STUDY.regions),
    log:
        "logs/similarity_matrix.log",
    localrule: True
    conda:
        "../envs/analysis.yaml"
    params:
        train=COHORT.train,
        test=COHORT.pool,
        regions=STUDY.regions,
        labels=list(COHORT.scored),
    script:
        "../workflow_scripts/similarity/similarity_matrix.py"


rule cluster:
    """UPGMA on the rows, the cut, and the worst cluster."""
    input:
        matrix=f"results/similarity/{STUDY.matrix}.tsv",
    output:
        linkage="results/similarity/linkage.tsv",
        leaf_order="results/similarity/leaf_order.tsv",
        clusters="results/similarity/clusters.tsv",
        summary="results/similarity/clustering.json",
    log:
        "logs/cluster.log",
    localrule: True
    conda:
        "../envs/analysis.yaml"
    params:
        similarity=config["similarity"],
        clusters=config["clusters"],
        patients=COHORT.scans_of_patients(COHORT.pool),
    script:
        "../workflow_scripts/similarity/cluster.py"


rule heatmap:
    """Figure 2a of the paper."""
    input:
        matrix=f"results/similarity/{STUDY.matrix}.tsv",
        linkage="results/similarity/linkage.tsv",
        clusters="results/similarity/clusters.tsv",
    output:
        png=report(
            "results/similarity/heatmap.png",
            category="Similarity",
            caption="captions/heatmap.rst",
            labels={"figure": "Similarity matrix"},
        ),
        svg="results/similarity/heatmap.svg",
    log:
        "logs/heatmap.log",
    localrule: True
    conda:
        "../envs/analysis.yaml"
    params:
        region=config["similarity"]["region"],
    script:
        "../workflow_scripts/similarity/heatmap.py"


rule dendrogram:
    """Figure 2b of the paper."""
    input:
        linkage="results/similarity/linkage.tsv",
        clusters="results/similarity/clusters.tsv",
        summary="results/similarity/clustering.json",
    output:
        png=report(
            "results/similarity/dendrogram.png",
            category="Similarity",
            caption="captions/dendrogram.rst",
            labels={"figure": "Dendrogram"},
        ),
        svg="results/similarity/dendrogram.svg",
    log:
        "logs/dendrogram.log",
    localrule: True
    conda:
        "../envs/analysis.yaml"
    script:
        "../workflow_scripts/similarity/dendrogram.py"


rule label_edits:
    """Which single change of each label map would make it fit the base model's."""
    input:
        labels=expand(f"{RAW}/labelsTr/{{case}}.nii.gz", case=COHORT.pool),
        predictions=expand("results/predictions/base/{case}.nii.gz", case=COHORT.pool),
    output:
        table="results/edits.tsv",
    log:
        "logs/label_edits.log",
    conda:
        "../envs/analysis.yaml"
    # So many cases at a time, or fewer where they do not fit into this memory.
    threads: 8
    resources:
        mem_mb=16000,
        runtime="1h",
    params:
        cases=COHORT.pool,
        ignore=COHORT.targets.ignore,
    script:
        "../workflow_scripts/similarity/label_edits.py"


rule case_effects:
    """Which train cases to review first, and which error each of them looks like."""
    input:
        matrix=f"results/similarity/{STUDY.matrix}.tsv",
        clusters="results/similarity/clusters.tsv",
        rows=expand("results/errors/finetuned/{case}.tsv", case=COHORT.train),
        # Cell by cell: the model's whole row holds the held-out cases, too.
        base=list_scores("base", COHORT.pool),
        edits="results/edits.tsv",
        channels="results/channels.tsv",
        label_quality=expand(
            "results/evidence/label_quality/{case}.json", case=STUDY.judged
        ),
    output:
        signatures="results/similarity/signatures.tsv",
        table=report(
            "results/similarity/cases.tsv",
            category="Similarity",
            caption="captions/cases.rst",
            labels={"figure": "Cases to review first (table)"},
        ),
        png=report(
            "results/similarity/effects.png",
            category="Similarity",
            caption="captions/effects.rst",
            labels={"figure": "Row against column effect"},
        ),
        svg="results/similarity/effects.svg",
    log:
        "logs/case_effects.log",
    localrule: True
    conda:
        "../envs/analysis.yaml"
    params:
        train=COHORT.train,
        pool=COHORT.pool,
        labels=STUDY.foreground,
        patients=COHORT.scans_of_patients(COHORT.pool),
        regions=config["regions"],
        region=config["similarity"]["region"],
    script:
        "../workflow_scripts/similarity/case_effects.py"


rule stability:
    """Whether other columns, and other trainings, would have the same worst cluster."""
    input:
        matrix=f"results/similarity/{STUDY.matrix}.tsv",
        clusters="results/similarity/clusters.tsv",
        refits=expand("results/scores/refitted/{case}.tsv", case=STUDY.refitted),
    output:
        table="results/similarity/stability.tsv",
        summary="results/similarity/stability.json",
        png=report(
            "results/similarity/stability.png",
            category="Similarity",
            caption="captions/stability.rst",
            labels={"figure": "How often each case is in the worst cluster"},
        ),
        svg="results/similarity/stability.svg",
    log:
        "logs/stability.log",
    localrule: True
    conda:
        "../envs/analysis.yaml"
    params:
        similarity=config["similarity"],
        clusters=config["clusters"],
        patients=COHORT.scans_of_patients(COHORT.pool),
        refitted=STUDY.refitted,
        test=COHORT.pool,
    script:
        "../workflow_scripts/similarity/stability.py"
