# What is drawn in a section teaches the rest of it (split `within`).


# what a pathologist drew, in a file of its own, beside the labels
rule read_drawn:
    input:
        spots=f"{SECTION}/spots.h5ad",
        cells=lambda w: (
            f"{SECTION}/cells.h5ad".format(**w) if w.section in OF_CELLS else []
        ),
        drawn=lambda w: PLAN.row(w.section)["drawn"],
        words=SETTINGS["label_words"],
    output:
        drawn=f"{SECTION}/drawn.tsv",
    log:
        "logs/read_drawn/{section}.log",
    benchmark:
        "benchmarks/read_drawn/{section}.tsv"
    group:
        SECTION_JOB
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=10,
        gpu=0,
    params:
        sources=lambda w: sections.drawn_sources(PLAN, w.section),
        code=code("read_drawn"),
    script:
        "../../scripts/read_drawn.py"


# a share of the labels, drawn at random for each seed: how little is enough
rule draw_regions:
    input:
        spots=lambda w: paths.of_sections("spots.h5ad", fold_of(w).targets)[0],
        labels=lambda w: PLAN.labels(fold_of(w).targets),
    output:
        drawn=paths.DRAWN,
    log:
        "logs/{study}/draw_regions/{task}/{fold}.log",
    benchmark:
        "benchmarks/{study}/draw_regions/{task}/{fold}.tsv"
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=10,
        gpu=0,
    params:
        share=lambda w: STUDY.tasks[w.task]["draw"],
        seeds=lambda w: tables.seeds_of(PLAN, w.task),
        code=code("draw_regions"),
    script:
        "../../scripts/draw_regions.py"


# table of the section, without anything drawn: each training gets that beside it
use rule build_fold as build_drawn with:
    input:
        train=lambda w: paths.of_sections("spots.h5ad", fold_of(w).learned(w.view)),
        train_embeddings=lambda w: paths.embeddings(w.encoder, pictured_of(w)),
        labels=[],
    output:
        train=f"{VIEW}/train.h5ad",
    log:
        "logs/{study}/build_drawn/{task}/{fold}/{encoder}/{view}.log",
    benchmark:
        "benchmarks/{study}/build_drawn/{task}/{fold}/{encoder}/{view}.tsv"
    wildcard_constraints:
        fold=one_of(fold.name for fold in STUDY.folds.values() if fold.drawn),
        view="drawn",


# how good the map is that a drawing teaches, from the drawing alone, and where to draw next
rule estimate_drawn:
    input:
        train=lambda w: run_of(w).table("train"),
        spots=lambda w: paths.of_sections("spots.h5ad", fold_of(w).targets)[0],
        drawn=lambda w: run_of(w).drawn,
        prior=lambda w: run_of(w).prior_scores,
    output:
        estimate=f"{RUN}/estimate.json",
        next=f"{RUN}/draw_here.geojson",
    log:
        f"logs/{paths.job('estimate_drawn')}.log",
    benchmark:
        f"benchmarks/{paths.job('estimate_drawn')}.tsv"
    group:
        fold_job
    conda:
        "../../envs/learn.yaml"
    threads: THREADS["train"]
    resources:
        mem_mb=fold_memory,
        runtime=lambda w, attempt: 4 * run_of(w).spec.minutes * attempt,
        gpu=0,
    params:
        method=lambda w: run_of(w).spec.name,
        options=lambda w: run_of(w).options,
        prior_threshold=lambda w: tables.prior_threshold(run_of(w)),
        threads=THREADS["train"],
        code=lambda w: code("estimate_drawn", f"methods.{run_of(w).spec.name}"),
    script:
        "../../scripts/estimate_drawn.py"


# one line a drawing and method
rule tabulate_within:
    input:
        estimates=tables.files("estimate.json", tables.taught(PLAN)),
    output:
        within=report(
            f"{TABLES}/within.tsv",
            caption="../report/within.rst",
            category="Tables",
            labels={"table": "drawings"},
        ),
    log:
        "logs/{study}/tabulate_within.log",
    benchmark:
        "benchmarks/{study}/tabulate_within.tsv"
    group:
        STUDY_JOB
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=10,
        gpu=0,
    params:
        runs=tables.rows(tables.taught(PLAN)),
        code=code("tabulate_within"),
    script:
        "../../scripts/tabulate_within.py"
