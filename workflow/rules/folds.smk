# Sections -> what a method sees of a fold: a training table and a target table, the target without labels.


# trained on the fold's own sections: the labelled sources, or the normal references
rule build_fold:
    input:
        train=train_spots,
        train_embeddings=train_embeddings,
        labels=train_labels,
        target=target_spots,
        target_embeddings=target_embeddings,
    output:
        train="results/{study}/{task}/{fold}/{encoder}/{view}/train.h5ad",
        target="results/{study}/{task}/{fold}/{encoder}/{view}/target.h5ad",
    log:
        "logs/{study}/build_fold/{task}/{fold}/{encoder}/{view}.log",
    benchmark:
        "benchmarks/{study}/build_fold/{task}/{fold}/{encoder}/{view}.tsv"
    wildcard_constraints:
        view="labelled|normal",
    group:
        fold_job
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=fold_memory,
        runtime=30,
        gpu=0,
    params:
        train_sections=train_sections,
        target_sections=target_sections,
        n_genes=SETTINGS["n_genes"],
        gene_ranking=gene_ranking,
        code=code("build_fold"),
    script:
        "../../scripts/build_fold.py"


# all that a task can train on, and no target: its genes are those that all sources measure
use rule build_fold as build_source with:
    input:
        train=train_spots,
        train_embeddings=train_embeddings,
        labels=train_labels,
    output:
        train="results/{study}/model/{task}/{encoder}/{view}/train.h5ad",
    log:
        "logs/{study}/build_source/{task}/{encoder}/{view}.log",
    benchmark:
        "benchmarks/{study}/build_source/{task}/{encoder}/{view}.tsv"


# the target alone: for methods that do not train, and for a model that came from elsewhere (its genes)
rule build_target:
    input:
        target=target_spots,
        target_embeddings=target_embeddings,
        model=given_model,
    output:
        target="results/{study}/{task}/{fold}/{encoder}/{view}/target.h5ad",
    log:
        "logs/{study}/build_target/{task}/{fold}/{encoder}/{view}.log",
    benchmark:
        "benchmarks/{study}/build_target/{task}/{fold}/{encoder}/{view}.tsv"
    wildcard_constraints:
        view="alone|pretrained",
    group:
        fold_job
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=fold_memory,
        runtime=30,
        gpu=0,
    params:
        target_sections=target_sections,
        min_gene_share=min_gene_share,
        given=model_source,
        code=code("build_target"),
    script:
        "../../scripts/build_target.py"
