# Training table -> model. No target table is read here.


# weights that depend on the normal reference alone, trained once for all folds that share it
rule pretrain_method:
    input:
        train=lambda w: run_of(w).table("train"),
        patches=lambda w: run_of(w).patch_list,
    output:
        model=f"{PRETRAINED}.safetensors",
        losses=f"{PRETRAINED}.losses.tsv",
        cost=f"{PRETRAINED}.cost.json",
    log:
        "logs/{study}/pretrain_method/{weights}/seed{seed}.log",
    benchmark:
        "benchmarks/{study}/pretrain_method/{weights}/seed{seed}.tsv"
    conda:
        "../../envs/learn.yaml"
    threads: THREADS["train"]
    resources:
        mem_mb=run_memory,
        runtime=lambda w, attempt: run_of(w).spec.minutes * attempt,
        gpu=as_gpu(run_gpu),
        gres=as_gres(run_gpu),
    params:
        method=lambda w: run_of(w).spec.name,
        options=lambda w: run_of(w).pretrain_options,
        device=SETTINGS["device"],
        threads=THREADS["train"],
        code=lambda w: code("pretrain_method", f"methods.{run_of(w).spec.name}"),
    script:
        "../../scripts/pretrain_method.py"


# the level of a section, which says whether it has a tumour: once for a fold, whatever the method
rule learn_level:
    input:
        train=f"{VIEW}/train.h5ad",
    output:
        level=f"{VIEW}/level.safetensors",
    log:
        "logs/{study}/learn_level/{task}/{fold}/{encoder}/{view}.log",
    benchmark:
        "benchmarks/{study}/learn_level/{task}/{fold}/{encoder}/{view}.tsv"
    wildcard_constraints:
        view="labelled",
    group:
        fold_job
    conda:
        "../../envs/data.yaml"
    threads: THREADS["train"]
    resources:
        mem_mb=fold_memory,
        runtime=30,
        gpu=0,
    params:
        threads=THREADS["train"],
        code=code("learn_level"),
    script:
        "../../scripts/learn_level.py"


use rule learn_level as learn_source_level with:
    input:
        train=f"{SOURCE}/train.h5ad",
    output:
        level=f"{SOURCE}/level.safetensors",
    log:
        "logs/{study}/learn_source_level/{task}/{encoder}/{view}.log",
    benchmark:
        "benchmarks/{study}/learn_source_level/{task}/{encoder}/{view}.tsv"


for jobs in seeds.jobs("train_method", RUNS, resources.trains_fast):

    rule:
        name:
            jobs.name
        input:
            train=lambda w: run_of(w).table("train"),
            level=lambda w: run_of(w).level,
            patches=lambda w: run_of(w).patch_list,
            pretrained=lambda w: [run.weights() for run in runs_of(w) if run.weights()],
            drawn=lambda w: run_of(w).drawn,
            prior=lambda w: run_of(w).prior_scores,
        output:
            models=expand(
                f"{RUN}/model.safetensors", seed=jobs.seeds, allow_missing=True
            ),
            losses=expand(f"{RUN}/losses.tsv", seed=jobs.seeds, allow_missing=True),
            costs=expand(f"{RUN}/train_cost.json", seed=jobs.seeds, allow_missing=True),
        log:
            f"logs/{jobs.file}.log",
        benchmark:
            f"benchmarks/{jobs.file}.tsv"
        wildcard_constraints:
            task=jobs.tasks,
        group:
            train_job
        conda:
            "../../envs/learn.yaml"
        threads: THREADS["train"]
        resources:
            mem_mb=run_memory,
            runtime=lambda w, attempt: (
                resources.train_minutes(PLAN, run_of(w), len(runs_of(w))) * attempt
            ),
            gpu=as_gpu(run_gpu),
            gres=as_gres(run_gpu),
        params:
            seeds=lambda w: [run.seed for run in runs_of(w)],
            method=lambda w: run_of(w).spec.name,
            options=lambda w: run_of(w).options,
            encoder=lambda w: run_of(w).encoder_settings(SETTINGS["encoders"]),
            origin=lambda w: PLAN.origin(run_of(w).learned),
            calibrates=lambda w: resources.calibrates(PLAN, run_of(w)),
            prior_threshold=lambda w: tables.prior_threshold(run_of(w)),
            device=lambda w: resources.device(PLAN, run_of(w).spec.gpu),
            threads=THREADS["train"],
            code=lambda w: code("train_method", f"methods.{run_of(w).spec.name}"),
        script:
            "../../scripts/train_method.py"


# the same on all that a task can train on: a model file to score new sections
use rule train_method as export_model with:
    input:
        train=lambda w: run_of(w).table("train"),
        level=lambda w: run_of(w).level,
        patches=lambda w: run_of(w).patch_list,
        pretrained=[],
        drawn=[],
        prior=[],
    output:
        models=[f"{MODEL}.safetensors"],
        losses=[f"{MODEL}.losses.tsv"],
        costs=[f"{MODEL}.cost.json"],
    log:
        "logs/{study}/export_model/{task}/{encoder}/{method}/seed{seed}.log",
    benchmark:
        "benchmarks/{study}/export_model/{task}/{encoder}/{method}/seed{seed}.tsv"
    wildcard_constraints:
        task=one_of(STUDY.tasks),
