# Sections -> the tables that methods read: a training table and a target table, the target without labels.


# training table of the fold's own sections: labelled sources, or the normal reference
rule build_fold:
    input:
        train=lambda w: paths.of_sections("spots.h5ad", fold_of(w).learned(w.view)),
        train_embeddings=lambda w: paths.embeddings(w.encoder, pictured_of(w)),
        labels=lambda w: PLAN.labels(fold_of(w).labelled(w.view)),
        target=lambda w: paths.of_sections("spots.h5ad", fold_of(w).targets),
        target_embeddings=lambda w: paths.embeddings(w.encoder, fold_of(w).targets),
    output:
        train=f"{VIEW}/train.h5ad",
        target=f"{VIEW}/target.h5ad",
    log:
        "logs/{study}/build_fold/{task}/{fold}/{encoder}/{view}.log",
    benchmark:
        "benchmarks/{study}/build_fold/{task}/{fold}/{encoder}/{view}.tsv"
    wildcard_constraints:
        fold=one_of(fold.name for fold in STUDY.folds.values() if not fold.trained_by),
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
        train_sections=lambda w: fold_of(w).learned(w.view),
        pictured=pictured_of,
        target_sections=lambda w: fold_of(w).targets,
        n_genes=SETTINGS["n_genes"],
        gene_ranking=lambda w: {
            key: STUDY.tasks[w.task][key] for key in ("hvg_input", "hvg_scope")
        },
        code=code("build_fold"),
    script:
        "../../scripts/build_fold.py"


# training table of all that a task can train on, without a target; genes are those that all sources measure
use rule build_fold as build_source with:
    input:
        train=lambda w: paths.of_sections("spots.h5ad", fold_of(w).learned(w.view)),
        train_embeddings=lambda w: paths.embeddings(w.encoder, pictured_of(w)),
        labels=lambda w: PLAN.labels(fold_of(w).labelled(w.view)),
    output:
        train=f"{SOURCE}/train.h5ad",
    log:
        "logs/{study}/build_source/{task}/{encoder}/{view}.log",
    benchmark:
        "benchmarks/{study}/build_source/{task}/{encoder}/{view}.tsv"


# target table alone: for methods that do not train, and, with the genes of a given model, for that model
rule build_target:
    input:
        target=lambda w: paths.of_sections("spots.h5ad", fold_of(w).targets),
        target_embeddings=lambda w: paths.embeddings(w.encoder, fold_of(w).targets),
        model=lambda w: fold_of(w).model or [],
        genes=lambda w: sections.gene_table(fold_of(w).model),
    output:
        target=f"{VIEW}/target.h5ad",
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
        target_sections=lambda w: fold_of(w).targets,
        min_gene_share=lambda w: STUDY.tasks[w.task].get("min_gene_share"),
        given=lambda w: sections.own_sources(PLAN, fold_of(w).model),
        code=code("build_target"),
    script:
        "../../scripts/build_target.py"


# target table of crops, with the genes of the training table of their fold
use rule build_target as build_crop with:
    input:
        target=lambda w: paths.of_sections("spots.h5ad", fold_of(w).targets),
        target_embeddings=lambda w: paths.embeddings(w.encoder, fold_of(w).targets),
        train=lambda w: f"{VIEW}/train.h5ad".format(
            **{**w, "fold": fold_of(w).trained_by}
        ),
    output:
        target=f"{VIEW}/target.h5ad",
    log:
        "logs/{study}/build_crop/{task}/{fold}/{encoder}/{view}.log",
    benchmark:
        "benchmarks/{study}/build_crop/{task}/{fold}/{encoder}/{view}.tsv"
    wildcard_constraints:
        fold=one_of(fold.name for fold in STUDY.folds.values() if fold.trained_by),
        view="labelled|normal",
    resources:
        mem_mb=lambda w, input, attempt: resources.fold_mb(input.target) * attempt,
        runtime=30,
        gpu=0,
